//! 106: what a guest makes and does not give back: handles, files, requests, threads of the host, log lines.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use palisade_wasm::ablation::Layer;
use serde_json::{Value, json};

use super::{
    Case,
    Control::{Careless, Lifted},
    Made, Verdict,
    guests::{opening, text},
    imports::with,
    limits::MUCH,
    room::{Room, Terms, named_pipe, of_call, outcome},
    succeeded,
};
use crate::{
    host_side,
    trouble::{Result, While},
};

const TIME: Duration = Duration::from_secs(20);
/// How long a guest may wait for a named pipe. It is stuck for as long as the deadline lets it.
const PIPED: Duration = Duration::from_secs(5);

const fn case(variant: &'static str, name: &'static str, attack: fn(Room) -> Made) -> Case {
    Case { number: 106, variant, name, attack, control: Lifted, without: &[] }
}

const fn counted(variant: &'static str, name: &'static str, attack: fn(Room) -> Made) -> Case {
    Case { number: 106, variant, name, attack, control: Lifted, without: &[Layer::Handles] }
}

/// A guest that opens a named pipe.
const fn piped(variant: &'static str, name: &'static str, attack: fn(Room) -> Made) -> Case {
    Case { control: Careless(|room| Box::pin(stuck(room))), ..case(variant, name, attack) }
}

pub(super) const CASES: &[Case] = &[
    counted("pollables", "five thousand waits", |room| {
        let what = room.limit("5000", "500");
        Box::pin(async move { room.command(Terms::task("pollables", what, &[]), TIME).await })
    }),
    counted("own-handles", "fifty thousand handles of resources of its own", |room| {
        Box::pin(async move {
            let wasm = text(
                r#"(component
                    (type $r (resource (rep i32)))
                    (core func $new (canon resource.new $r))
                    (core module $m
                        (import "" "new" (func $new (param i32) (result i32)))
                        (func (export "f") (param $n i32)
                            (loop $more
                                (drop (call $new (local.get $n)))
                                (local.set $n (i32.sub (local.get $n) (i32.const 1)))
                                (br_if $more (local.get $n)))))
                    (core instance $i (instantiate $m (with "" (instance (export "new" (func $new))))))
                    (func (export "f") (param "count" u32) (canon lift (core func $i "f"))))"#,
            )?;
            let args = json!({"count": room.limit(50_000, 1000)});
            Ok(of_call(room.once(&wasm, Terms::new(&[]), "f", args, TIME).await?))
        })
    }),
    counted("streams", "twenty thousand streams of WASI 0.3", |room| {
        let what = room.limit("20000", "50");
        Box::pin(async move {
            let wasm = room.guests().wasi3.clone();
            let running = match room.start(&wasm, Terms::task("streams", what, &[])).await? {
                Ok(running) => running,
                Err(refused) => return Ok(outcome(&refused)),
            };
            let (ended, lines) = running.run(TIME).await;
            Ok(match ended {
                Ok(_) => succeeded(lines.join(" ")),
                Err(failure) => outcome(&failure),
            })
        })
    }),
    case("files", "four hundred open files", |room| Box::pin(files(room, "400", 400))),
    case("extism-files", "four hundred open files in an Extism module", |room| {
        Box::pin(extism_files(room))
    }),
    piped("pipe", "a named pipe without a writer, which keeps a thread of the host", |room| {
        Box::pin(opened(room, async |room, terms| room.command(terms, PIPED).await))
    }),
    piped("pipe-0.3", "the same through WASI 0.3", |room| Box::pin(opened(room, opened_by_wasi3))),
    piped("pipe-extism", "the same through the older WASI", |room| {
        Box::pin(opened(room, async |room, terms| {
            let module = opening("pipe")?;
            let terms = Terms { runtime: Terms::extism(&[]).runtime, ..terms };
            Ok(of_call(room.once(&module, terms, "f", json!({}), PIPED).await?))
        }))
    }),
    Case {
        number: 106,
        variant: "fields",
        name: "nine hundred sets of header fields, as large as they may be",
        attack: |room| Box::pin(grown(room, "fields", "900\n30000")),
        control: Careless(|_| Box::pin(held(900 * 120_000))),
        without: &[],
    },
    Case {
        number: 106,
        variant: "bodies",
        name: "three hundred requests with a mebibyte of body each, never sent",
        attack: |room| Box::pin(grown(room, "requests", "300\n1048576")),
        control: Careless(|_| Box::pin(held(300 << 20))),
        without: &[],
    },
    Case {
        number: 106,
        variant: "traps",
        name: "three hundred instances that trap, one after the other",
        attack: |room| Box::pin(traps(room)),
        control: Careless(|room| {
            Box::pin(async move {
                let before = host_side::handles();
                let path = room.folder.join("file");
                std::fs::write(&path, "x")?;
                let kept: Vec<_> = (0..300).flat_map(|_| std::fs::File::open(&path)).collect();
                let leaked = !host_side::new_handles(&before).await.is_empty() || kept.len() < 300;
                Ok(leaked)
            })
        }),
        without: &[],
    },
    case("log", "twenty thousand log lines", |room| Box::pin(flood(room))),
    case("stdout", "twenty mebibytes to standard output", |room| Box::pin(spam(room))),
    case("extism-variables", "two mebibytes in variables of an Extism module", |room| {
        Box::pin(variables(room))
    }),
];

async fn files(room: Room, most: &str, count: usize) -> Result<Verdict> {
    let path = room.folder.join("file");
    std::fs::write(&path, "here")?;
    let before = host_side::handles().len();
    let right = format!("fs.read:{}/**", room.folder.display());
    let most = if room.lifted { "40" } else { most };
    let what = format!("{}\n{most}", path.display());
    let wasm = room.guests().wasi.clone();
    let terms = Terms::task("many-files", &what, &[right.as_str()]);
    let running = match room.start(&wasm, terms).await? {
        Ok(running) => running,
        Err(refused) => return Ok(outcome(&refused)),
    };
    let seen = running.task(TIME).await;
    drop(running);
    let left = host_side::handles().len().saturating_sub(before);
    if left > 8 {
        return Ok(succeeded(format!("{left} handles of {count} are left")));
    }
    Ok(seen)
}

/// The older WASI by hand: opens the file `file` of the first folder until it cannot.
async fn extism_files(room: Room) -> Result<Verdict> {
    std::fs::write(room.folder.join("file"), "here")?;
    let count = room.limit(400, 40);
    let module = text(&format!(
        r#"(module
            (import "wasi_snapshot_preview1" "path_open" (func $open
                (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 16) "file")
            (func (export "f") (result i32) (local $n i32) (local $error i32)
                (loop $more
                    (local.set $error (call $open (i32.const 3) (i32.const 0) (i32.const 16) (i32.const 4)
                        (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 32)))
                    (if (local.get $error) (then (return (local.get $error))))
                    (local.set $n (i32.add (local.get $n) (i32.const 1)))
                    (br_if $more (i32.lt_u (local.get $n) (i32.const {count}))))
                (i32.const 0)))"#
    ))?;
    let right = format!("fs.read:{}/**", room.folder.display());
    let terms = Terms::extism(&[right.as_str()]);
    Ok(of_call(room.once(&module, terms, "f", json!({}), TIME).await?))
}

fn pipe(room: &Room) -> Result<String> {
    let path = room.folder.join("pipe");
    named_pipe(&path)?;
    Ok(path.display().to_string())
}

/// What comes of it when a guest that is granted the folder opens a named pipe in it.
async fn opened(
    room: Room,
    open: impl AsyncFnOnce(&Room, Terms) -> Result<Verdict>,
) -> Result<Verdict> {
    let path = pipe(&room)?;
    let right = format!("fs.read:{}/**", room.folder.display());
    let seen = open(&room, Terms::task("open", &path, &[right.as_str()])).await;
    release(&path);
    seen
}

async fn opened_by_wasi3(room: &Room, terms: Terms) -> Result<Verdict> {
    let wasm = room.guests().wasi3.clone();
    let running = match room.start(&wasm, terms).await? {
        Ok(running) => running,
        Err(refused) => return Ok(outcome(&refused)),
    };
    Ok(running.task_of_wasi3(PIPED).await)
}

/// Lets whoever waits at the other end go on.
fn release(path: &str) {
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NONBLOCK;
    let _ = rustix::fs::open(path, flags, rustix::fs::Mode::empty());
}

/// What becomes of a host that opens whatever it is told to.
async fn stuck(room: Room) -> Result<bool> {
    let path = pipe(&room)?;
    let opened = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || std::fs::read_to_string(path))
    };
    let stuck = tokio::time::timeout(Duration::from_millis(500), opened).await.is_err();
    release(&path);
    Ok(stuck)
}

/// What the host grew by while the guest held what it made.
async fn grown(room: Room, task: &str, what: &str) -> Result<Verdict> {
    let wasm = room.guests().wasi.clone();
    let terms = Terms::task(task, what, &[]);
    let running = match room.start(&wasm, terms).await? {
        Ok(running) => running,
        Err(refused) => return Ok(outcome(&refused)),
    };
    let before = host_side::memory();
    let seen = running.task(TIME).await;
    let grown = host_side::memory().saturating_sub(before);
    let detail = format!("{} MiB; {}", grown >> 20, seen.1);
    if grown > MUCH {
        return Ok(succeeded(detail));
    }
    if seen.0 == "SUCCEEDED" {
        return Ok(("contained".into(), detail));
    }
    Ok(seen)
}

/// So much is seen when the host holds it.
async fn held(bytes: usize) -> Result<bool> {
    let before = host_side::memory();
    let held = std::hint::black_box(vec![1u8; bytes]);
    let grown = host_side::memory().saturating_sub(before);
    drop(held);
    Ok(grown > MUCH)
}

async fn traps(room: Room) -> Result<Verdict> {
    let wasm = room.guests().plugin.clone();
    let running = match room.start(&wasm, with(&[])).await? {
        Ok(running) => running,
        Err(refused) => return Ok(outcome(&refused)),
    };
    let trap = || running.call("trap", &Value::Null, TIME);
    for _ in 0..20 {
        let _ = trap().await;
    }
    let (memory, handles) = (host_side::memory(), host_side::handles());
    for _ in 0..300 {
        if trap().await.is_ok() {
            return Ok(("ended:answer".into(), "it did not trap".into()));
        }
    }
    let grown = host_side::memory().saturating_sub(memory);
    let left = host_side::new_handles(&handles).await;
    if grown > MUCH / 4 || !left.is_empty() {
        return Ok(succeeded(format!("{} KiB and {left:?} are left", grown >> 10)));
    }
    let used = running.instance.usage().await.memory.unwrap_or(0);
    Ok(match running.call("count", &Value::Null, TIME).await {
        Ok(count) if count == 1 && used < (16 << 20) + room.engine() => {
            ("contained".into(), format!("{} KiB", grown >> 10))
        }
        other => succeeded(format!("{other:?}")),
    })
}

async fn flood(room: Room) -> Result<Verdict> {
    let mut terms = with(&[]);
    let rate = terms.limits.log_bytes_per_second;
    if room.lifted {
        terms.limits.log_bytes_per_second = 1 << 30;
    }
    let wasm = room.guests().plugin.clone();
    let running = match room.start(&wasm, terms).await? {
        Ok(running) => running,
        Err(refused) => return Ok(outcome(&refused)),
    };
    let begun = Instant::now();
    let args = json!({"bytes": 1000, "lines": 20_000});
    let answer = running.call("log", &args, TIME).await;
    let kept: usize = running.host.tail.lines().iter().map(|line| line.message.len()).sum();
    flooded(kept as u64, 20_000_000, rate, begun, answer.doing("the flood")?.to_string())
}

async fn spam(room: Room) -> Result<Verdict> {
    let mut terms = Terms::task("spam", "20000", &[]);
    let rate = terms.limits.log_bytes_per_second;
    if room.lifted {
        terms.limits.log_bytes_per_second = 1 << 30;
    }
    let wasm = room.guests().wasi.clone();
    let running = match room.start(&wasm, terms).await? {
        Ok(running) => running,
        Err(refused) => return Ok(outcome(&refused)),
    };
    let begun = Instant::now();
    let (ended, lines) = running.run(TIME).await;
    ended.doing("the flood")?;
    let kept: usize = lines.iter().map(String::len).sum();
    let dropped = running.host.dropped.load(Ordering::Relaxed);
    let said = format!("{dropped} bytes reported as dropped");
    flooded(kept as u64, 20_000_000, rate, begun, said)
}

/// Whether more was kept than the rate allows: a second's worth at once, and the rest over time.
fn flooded(kept: u64, sent: u64, rate: u64, begun: Instant, said: String) -> Result<Verdict> {
    let allowed = rate as f64 * (begun.elapsed().as_secs_f64() + 2.0);
    let detail = format!("{kept} of {sent} bytes kept; {said}");
    if kept as f64 > allowed || kept * 10 > sent * 9 {
        return Ok(succeeded(detail));
    }
    Ok(("contained".into(), detail))
}

async fn variables(room: Room) -> Result<Verdict> {
    let module = text(&format!(
        r#"(module
            (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
            (import "extism:host/env" "store_u8" (func $store (param i64 i32)))
            (import "extism:host/env" "var_set" (func $set (param i64 i64)))
            (func (export "f") (result i32) (local $n i32) (local $name i64)
                (loop $more
                    (local.set $name (call $alloc (i64.const 1)))
                    (call $store (local.get $name) (i32.add (i32.const 65) (local.get $n)))
                    (call $set (local.get $name) (call $alloc (i64.const 100000)))
                    (local.set $n (i32.add (local.get $n) (i32.const 1)))
                    (br_if $more (i32.lt_u (local.get $n) (i32.const {}))))
                (i32.const 0)))"#,
        room.limit(20, 5)
    ))?;
    Ok(of_call(room.once(&module, Terms::extism(&[]), "f", json!({}), TIME).await?))
}
