//! 105: strings and lists that are giant, lie elsewhere, or grow on their way to the host.

use std::time::Duration;

use palisade_wasm::ablation::Layer;
use serde_json::{Value, json};

use super::{
    Case,
    Control::{Careless, Lifted},
    Made, Verdict,
    guests::{MEMORY, small},
    imports::with,
    net::{Names, Web, ok},
    room::{Room, Terms, of_call, outcome},
    succeeded,
};
use crate::trouble::Result;

const TIME: Duration = Duration::from_secs(10);

const fn case(variant: &'static str, name: &'static str, attack: fn(Room) -> Made) -> Case {
    Case { number: 105, variant, name, attack, control: Lifted, without: &[] }
}

const fn counted(variant: &'static str, name: &'static str, attack: fn(Room) -> Made) -> Case {
    Case { number: 105, variant, name, attack, control: Lifted, without: &[Layer::HostCallBytes] }
}

pub(super) const CASES: &[Case] = &[
    counted("string", "a log line of 16 MiB", |room| {
        let args = json!({"bytes": room.limit(16 << 20, 100)});
        Box::pin(plugin(room, "log", args))
    }),
    counted("list", "a list of 300000 pairs of nothing", |room| {
        let args = json!({"count": room.limit(300_000, 10)});
        Box::pin(plugin(room, "empty-list", args))
    }),
    case("answer", "an answer of 7 MiB", |room| {
        let args = json!({"bytes": room.limit(7 << 20, 100)});
        Box::pin(plugin(room, "answer", args))
    }),
    counted("answer-giant", "an answer of 32 MiB", |room| {
        let args = json!({"bytes": room.limit(32 << 20, 100)});
        Box::pin(plugin(room, "answer", args))
    }),
    case("outside", "an answer that lies outside of the memory", |room| {
        Box::pin(async move {
            let body = room.limit("(local.set $args-length (i32.const 0x7fffffff))", "");
            once(&room, &small(MEMORY, body, &[])?).await
        })
    }),
    case("wrapped", "an answer whose end is before its beginning", |room| {
        Box::pin(async move {
            let body = room.limit(
                "(local.set $args (i32.const -8)) (local.set $args-length (i32.const 64))",
                "",
            );
            once(&room, &small(MEMORY, body, &[])?).await
        })
    }),
    case("utf-8", "an answer that is no text", |room| {
        Box::pin(async move {
            let body = room.limit("(i32.store8 (local.get $args) (i32.const 0xff))", "");
            once(&room, &small(MEMORY, body, &[])?).await
        })
    }),
    case("room", "a place outside of the memory for what the host hands over", |room| {
        Box::pin(async move {
            // `realloc` answers with the next place.
            let start = room.limit(0x7fff_0000, 8192);
            let body = format!(
                "(if (i32.eq (global.get $next) (i32.const 0)) (then unreachable)) \
                 (global.set $next (i32.const {start}))"
            );
            let wasm = small(MEMORY, &body, &[])?;
            let running = match room.start(&wasm, Terms::new(&[])).await? {
                Ok(running) => running,
                Err(refused) => return Ok(outcome(&refused)),
            };
            // The place is chosen by the first call, whose end forgets it; the attack is in the tool's name.
            let _ = running.call("f", &json!({}), TIME).await;
            Ok(of_call(running.call("f", &json!("x".repeat(room.limit(400_000, 10))), TIME).await))
        })
    }),
    case("random", "a mebibyte of random numbers", |room| {
        let args = json!({"bytes": room.limit(1 << 20, 1000)});
        Box::pin(plugin(room, "random", args))
    }),
    case("wasi-random", "a mebibyte of random numbers of WASI", |room| {
        let what = room.limit("1048576", "1000");
        Box::pin(task(room, "random-bytes", what, 16 << 20))
    }),
    case("wasi-insecure", "a mebibyte of cheap random numbers of WASI", |room| {
        let what = room.limit("1048576", "1000");
        Box::pin(task(room, "insecure", what, 16 << 20))
    }),
    case("headers", "a hundred and one header fields", |room| {
        let count: u32 = room.limit(101, 10);
        Box::pin(fetch(room, "more_headers", count))
    }),
    case("header", "a header field of 200 KiB", |room| {
        let bytes: u32 = room.limit(200 << 10, 100);
        Box::pin(fetch(room, "header_bytes", bytes))
    }),
    case("wasi-header", "header fields of 100 KiB in one request", |room| {
        let what = room.limit("1\n100000", "1\n10000");
        Box::pin(task(room, "fields", what, 16 << 20))
    }),
    case("wasi-poll", "a list of three million pollables", |room| {
        let what = room.limit("3000000", "100");
        Box::pin(task(room, "poll-list", what, 64 << 20))
    }),
    case("wasi-path", "a path of 60000 characters", |room| {
        Box::pin(async move {
            let folder = room.folder.display().to_string();
            let right = format!("fs.read:{folder}/**");
            std::fs::create_dir(room.folder.join("a"))?;
            std::fs::write(room.folder.join("a/a"), "here")?;
            if room.lifted {
                let terms = Terms::task("open", &format!("{folder}/a/a"), &[right.as_str()]);
                return room.command(terms, TIME).await;
            }
            let terms = Terms::task("long-path", &format!("{folder}\n30000"), &[right.as_str()]);
            room.command(terms, TIME).await
        })
    }),
    Case {
        number: 105,
        variant: "wasi-read",
        name: "a file of 8 MiB at once",
        attack: |room| Box::pin(read(room)),
        control: Careless(|room| {
            Box::pin(async move {
                let path = room.folder.join("large");
                std::fs::write(&path, vec![1; 8 << 20])?;
                Ok(std::fs::read(path)?.len() == 8 << 20)
            })
        }),
        without: &[],
    },
];

async fn plugin(room: Room, tool: &str, args: Value) -> Result<Verdict> {
    let wasm = room.guests().plugin.clone();
    let terms = with(&[]).memory(256 << 20);
    Ok(of_call(room.once(&wasm, terms, tool, args, TIME).await?))
}

async fn once(room: &Room, wasm: &[u8]) -> Result<Verdict> {
    Ok(of_call(room.once(wasm, Terms::new(&[]), "f", json!({"a": 1}), TIME).await?))
}

async fn task(room: Room, task: &str, what: &str, memory: u64) -> Result<Verdict> {
    room.command(Terms::task(task, what, &[]).memory(memory), TIME).await
}

async fn fetch(room: Room, field: &'static str, number: u32) -> Result<Verdict> {
    let web = Web::start(|_| ok("here")).await?;
    let right = format!("net.http:web.example:{}", web.port);
    let args = json!({"url": format!("http://web.example:{}/", web.port), (field): number});
    let terms =
        with(&[right.as_str()]).names(Names::here(&["web.example"])).reachable("127.0.0.1/32")?;
    let wasm = room.guests().plugin.clone();
    Ok(of_call(room.once(&wasm, terms, "fetch", args, TIME).await?))
}

/// Reads more than the host should hold for it at once.
async fn read(room: Room) -> Result<Verdict> {
    let path = room.folder.join("large");
    std::fs::write(&path, vec![1; 8 << 20])?;
    let right = format!("fs.read:{}/**", room.folder.display());
    let what = format!("{}\n1099511627776", path.display());
    let seen = room.command(Terms::task("read-giant", &what, &[right.as_str()]), TIME).await?;
    Ok(match seen.1.parse::<usize>() {
        Ok(read) if read <= 1 << 20 => ("contained".into(), format!("{read} bytes")),
        Ok(read) => succeeded(format!("{read} bytes")),
        Err(_) => seen,
    })
}
