//! 102 to 104: memory and tables, endless loops, deep recursion.

use std::time::{Duration, Instant};

use palisade_wasm::ablation::Layer;
use serde_json::{Value, json};

use super::{
    Case,
    Control::{Careless, Lifted},
    Made, Verdict,
    guests::{MEMORY, small, text},
    imports::with,
    net::Names,
    room::{Room, Terms, of_call, outcome},
    succeeded,
};
use crate::{host_side, trouble::Result};

const TIME: Duration = Duration::from_secs(10);
/// How long an endless call may take.
const SHORT: Duration = Duration::from_millis(200);
/// How long it takes where it may take longer.
const LONG: Duration = Duration::from_millis(1500);

const fn memory(variant: &'static str, name: &'static str, attack: fn(Room) -> Made) -> Case {
    Case { number: 102, variant, name, attack, control: Lifted, without: &[Layer::Memory] }
}

const fn case(
    number: u16,
    variant: &'static str,
    name: &'static str,
    attack: fn(Room) -> Made,
) -> Case {
    Case { number, variant, name, attack, control: Lifted, without: &[] }
}

pub(super) const CASES: &[Case] = &[
    memory("grow", "128 MiB, a page at a time", |room| {
        Box::pin(async move {
            let body = r"(loop $more
                (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))
                (local.set $count (i32.add (local.get $count) (i32.const 1)))
                (br_if $more (i32.lt_u (local.get $count) (i32.const 2048))))";
            grown(room, &small(MEMORY, body, &[])?).await
        })
    }),
    memory("at-once", "128 MiB at once", |room| {
        Box::pin(async move {
            let body =
                "(if (i32.eq (memory.grow (i32.const 2048)) (i32.const -1)) (then unreachable))";
            grown(room, &small(MEMORY, body, &[])?).await
        })
    }),
    memory("declared", "128 MiB that the module begins with", |room| {
        Box::pin(async move {
            grown(room, &small(r#"(memory (export "memory") 2048)"#, "", &[])?).await
        })
    }),
    memory("many-memories", "forty memories of 4 MiB", |room| {
        Box::pin(async move { grown(room, &parts("(memory 64)", 40)?).await })
    }),
    memory("table", "a table of 1 MiB", |room| {
        Box::pin(async move {
            let body = r"(loop $more
                (if (i32.eq (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1))
                    (then unreachable))
                (local.set $count (i32.add (local.get $count) (i32.const 1)))
                (br_if $more (i32.lt_u (local.get $count) (i32.const 131))))";
            let wasm = small(&format!("{MEMORY} (table $t 1 funcref)"), body, &[])?;
            let terms = Terms::new(&[]).memory(room.limit(512 << 10, 16 << 20));
            called(room, &wasm, terms, json!({})).await
        })
    }),
    memory("rust", "128 MiB by an allocator that asks first", |room| {
        Box::pin(async move {
            let terms = Terms::task("memory", "128", &[]).memory(room.limit(16 << 20, 256 << 20));
            room.command(terms, TIME).await
        })
    }),
    memory("pool", "four instances with 6 MiB each, where 16 MiB are allowed", |room| {
        Box::pin(pool(room))
    }),
    case(102, "many-instances", "a component of a hundred modules", |room| {
        Box::pin(async move {
            let wasm = parts("(memory 1)", room.limit(100, 50))?;
            called(room, &wasm, Terms::new(&[]).memory(64 << 20), json!({})).await
        })
    }),
    case(102, "shared", "a memory that threads share, which nobody counts", |room| {
        Box::pin(async move {
            let memory = room.limit("(memory 1 4096 shared)", "(memory 1 4096)");
            called(room, &parts(memory, 1)?, Terms::new(&[]), json!({})).await
        })
    }),
    Case {
        number: 102,
        variant: "globals",
        name: "memory of the host's by hundreds of thousands of globals in each of sixty modules",
        attack: |room| Box::pin(globals(room)),
        control: Careless(|_| {
            Box::pin(async {
                // What such a component takes where nobody bounds it, taken by the host itself.
                let before = host_side::memory();
                let held = std::hint::black_box(vec![1u8; 240 << 20]);
                let grown = host_side::memory().saturating_sub(before);
                drop(held);
                Ok(grown > MUCH)
            })
        }),
        without: &[],
    },
    memory("extism-grow", "128 MiB by an Extism module", |room| {
        Box::pin(async move {
            let module = text(
                r#"(module (memory 1)
                    (func (export "f") (result i32)
                        (if (i32.eq (memory.grow (i32.const 2048)) (i32.const -1)) (then unreachable))
                        (i32.const 0)))"#,
            )?;
            let terms = Terms::extism(&[]).memory(room.limit(16 << 20, 256 << 20));
            called(room, &module, terms, json!({})).await
        })
    }),
    memory("extism-blocks", "128 MiB in blocks of Extism's", |room| {
        Box::pin(async move {
            let module = text(
                r#"(module
                    (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
                    (func (export "f") (result i32) (local $n i32)
                        (loop $more
                            (if (i64.eqz (call $alloc (i64.const 1048576))) (then unreachable))
                            (local.set $n (i32.add (local.get $n) (i32.const 1)))
                            (br_if $more (i32.lt_u (local.get $n) (i32.const 128))))
                        (i32.const 0)))"#,
            )?;
            let terms = Terms::extism(&[]).memory(room.limit(16 << 20, 256 << 20));
            called(room, &module, terms, json!({})).await
        })
    }),
    case(103, "loop", "an endless loop", |room| Box::pin(plugin(room, "spin", json!({})))),
    case(103, "loop-host", "an endless loop of quick host calls", |room| {
        Box::pin(plugin(room, "spin-host", json!({})))
    }),
    case(103, "loop-log", "an endless loop of requests to the host", |room| {
        Box::pin(plugin(room, "spin-log", json!({})))
    }),
    case(103, "bulk", "one instruction that writes 8 MiB, endlessly", |room| {
        Box::pin(plugin(room, "bulk", json!({"bytes": 8 << 20})))
    }),
    case(103, "wait", "a wait of an hour in the host", |room| {
        Box::pin(plugin(room, "sleep", json!({"ms": 3_600_000})))
    }),
    case(103, "initialize", "an endless loop when it is initialised", |room| {
        Box::pin(async move {
            let mut terms = with(&[]);
            terms.config = json!({"spin": true});
            terms.first = room.limit(SHORT, LONG);
            let wasm = room.guests().plugin.clone();
            room.compiled(&wasm).await?;
            endless(room.start(&wasm, terms)).await
        })
    }),
    case(103, "start", "an endless loop before there is an instance", |room| {
        Box::pin(async move {
            let mut terms = Terms::new(&[]);
            terms.limits.start_timeout = room.limit(SHORT, LONG);
            let wasm = parts("(func $s (loop $l (br $l))) (start $s)", 1)?;
            room.compiled(&wasm).await?;
            endless(room.start(&wasm, terms)).await
        })
    }),
    case(103, "realloc", "an endless loop while the host hands over arguments", |room| {
        Box::pin(lift(room, "(loop $l (br $l))", ""))
    }),
    case(103, "post-return", "an endless loop after the answer", |room| {
        Box::pin(lift(room, "", "(loop $l (br $l))"))
    }),
    case(103, "wasi-loop", "an endless loop of a WASI command", |room| {
        Box::pin(task(room, "spin"))
    }),
    case(103, "wasi-wait", "a wait for ever on a pollable", |room| Box::pin(task(room, "wait"))),
    case(103, "http", "a server that never answers", |room| Box::pin(slow(room))),
    case(103, "extism-loop", "an endless loop of an Extism module", |room| {
        Box::pin(async move {
            let module = text(
                r#"(module (func (export "f") (result i32) (loop $l (br $l)) (i32.const 0)))"#,
            )?;
            timed(&room, &module, Terms::extism(&[]), "f", json!({})).await
        })
    }),
    case(104, "recursion", "ten million calls deep", |room| {
        Box::pin(async move {
            let deep = r"(func $deep (param i64) (result i64)
                (if (result i64) (i64.eqz (local.get 0)) (then (i64.const 0))
                    (else (i64.add (i64.const 1)
                        (call $deep (i64.sub (local.get 0) (i64.const 1)))))))";
            let depth = room.limit(10_000_000, 1000);
            let body = format!("(drop (call $deep (i64.const {depth})))");
            let wasm = small(&format!("{MEMORY} {deep}"), &body, &[])?;
            called(room, &wasm, Terms::new(&[]), json!({})).await
        })
    }),
    case(104, "indirect", "ten million calls deep, through a table", |room| {
        Box::pin(async move {
            let deep = r"(table 1 funcref) (elem (i32.const 0) $deep) (type $t (func (param i64)))
                (func $deep (type $t) (if (i64.ne (local.get 0) (i64.const 0))
                    (then (call_indirect (type $t) (i64.sub (local.get 0) (i64.const 1)) (i32.const 0)))))";
            let depth = room.limit(10_000_000, 1000);
            let body = format!("(call $deep (i64.const {depth}))");
            let wasm = small(&format!("{MEMORY} {deep}"), &body, &[])?;
            called(room, &wasm, Terms::new(&[]), json!({})).await
        })
    }),
    case(104, "rust", "recursion of a compiled program, whose own stack ends first", |room| {
        let depth = room.limit(10_000_000, 100);
        Box::pin(async move {
            let wasm = room.guests().plugin.clone();
            let args = json!({"depth": depth});
            Ok(of_call(room.once(&wasm, with(&[]), "deep", args, TIME).await?))
        })
    }),
    case(104, "answer", "an answer of 100000 lists in each other", |room| {
        let depth = room.limit(100_000, 20);
        Box::pin(async move {
            let wasm = room.guests().plugin.clone();
            let args = json!({"depth": depth});
            Ok(of_call(room.once(&wasm, with(&[]), "answer-deep", args, TIME).await?))
        })
    }),
    case(104, "types", "a type of five hundred lists in each other", |room| {
        Box::pin(async move {
            let depth = room.limit(500, 5);
            let mut types = "(type $t0 (list u8))".to_owned();
            for n in 1..depth {
                types.push_str(&format!("(type $t{n} (list $t{}))", n - 1));
            }
            let wasm = text(&format!(
                r#"(component {types}
                    (core module $m (memory (export "memory") 1)
                        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
                        (func (export "f") (param i32 i32)))
                    (core instance $i (instantiate $m))
                    (func (export "f") (param "x" $t{}) (canon lift (core func $i "f")
                        (memory $i "memory") (realloc (func $i "realloc")))))"#,
                depth - 1
            ))?;
            called(room, &wasm, Terms::new(&[]), json!({"x": []})).await
        })
    }),
    case(104, "extism", "ten million calls deep in an Extism module", |room| {
        Box::pin(async move {
            let depth = room.limit(10_000_000, 1000);
            let module = text(&format!(
                r#"(module
                    (func $deep (param i64) (if (i64.ne (local.get 0) (i64.const 0))
                        (then (call $deep (i64.sub (local.get 0) (i64.const 1))))))
                    (func (export "f") (result i32) (call $deep (i64.const {depth})) (i32.const 0)))"#
            ))?;
            called(room, &module, Terms::extism(&[]), json!({})).await
        })
    }),
];

/// More memory of the host's than a guest with 16 MiB may cost.
pub(super) const MUCH: u64 = 64 << 20;

/// Calls it with 16 MiB, or with as much as it wants.
async fn grown(room: Room, wasm: &[u8]) -> Result<Verdict> {
    let terms = Terms::new(&[]).memory(room.limit(16 << 20, 512 << 20));
    called(room, wasm, terms, json!({})).await
}

async fn called(room: Room, wasm: &[u8], terms: Terms, args: Value) -> Result<Verdict> {
    Ok(of_call(room.once(wasm, terms, "f", args, TIME).await?))
}

/// A component of so many core modules, with something in each, and a function `f`.
fn parts(inner: &str, count: usize) -> Result<Vec<u8>> {
    let more: String =
        (1..count).map(|n| format!("(core instance $i{n} (instantiate $m))")).collect();
    text(&format!(
        r#"(component
            (core module $m {inner} (func (export "f") (result i32) (i32.const 7)))
            (core instance $i (instantiate $m))
            {more}
            (func (export "f") (result u32) (canon lift (core func $i "f"))))"#
    ))
}

async fn globals(room: Room) -> Result<Verdict> {
    let inner = "(global (mut i64) (i64.const -1))".repeat(240_000);
    let wasm = parts(&inner, 60)?;
    let before = host_side::memory();
    let running = room.start(&wasm, Terms::new(&[])).await?;
    let grown = host_side::memory().saturating_sub(before);
    Ok(match running {
        // What the compiler needed is given back or used again.
        Ok(running) => {
            let kept = of_call(running.call("f", &json!({}), TIME).await);
            if grown > 4 * MUCH { succeeded(format!("{} MiB", grown >> 20)) } else { kept }
        }
        Err(refused) => outcome(&refused),
    })
}

async fn pool(room: Room) -> Result<Verdict> {
    let terms = with(&[]).memory(room.limit(16 << 20, 128 << 20)).pool(4);
    let wasm = room.guests().plugin.clone();
    let running = match room.start(&wasm, terms).await? {
        Ok(running) => running,
        Err(refused) => return Ok(outcome(&refused)),
    };
    // Each holds 6 MiB, and then all of them wait, so that no instance is used twice.
    let hold = || async {
        let held = running.call("hold", &json!({"bytes": 6 << 20}), TIME).await?;
        Ok::<_, palisade_model::Failure>(held)
    };
    let sleep = json!({"ms": 300});
    let wait = || running.call("sleep", &sleep, TIME);
    // Makes four instances, then fills each.
    let made = tokio::join!(wait(), wait(), wait(), wait());
    for answer in [made.0, made.1, made.2, made.3] {
        if let Err(failure) = answer {
            return Ok(outcome(&failure));
        }
    }
    let mut total = 0;
    for _ in 0..4 {
        let filled = tokio::join!(hold(), hold(), hold(), hold());
        for answer in [filled.0, filled.1, filled.2, filled.3] {
            match answer {
                Ok(held) => total = total.max(held.as_u64().unwrap_or(0)),
                Err(failure) => return Ok(outcome(&failure)),
            }
        }
        let used = running.instance.usage().await.memory.unwrap_or(0);
        if used > (24 << 20) + room.engine() {
            return Ok(succeeded(format!("{} MiB", used >> 20)));
        }
    }
    Ok(("contained".into(), format!("{total} bytes")))
}

/// Does what should end by itself within [`SHORT`], and takes the time.
async fn endless<T>(
    made: impl Future<Output = Result<std::result::Result<T, palisade_model::Failure>>>,
) -> Result<Verdict> {
    let begun = Instant::now();
    let ended = made.await?;
    let took = begun.elapsed();
    Ok(match ended {
        _ if took >= LONG => succeeded(format!("it went on for {took:?}")),
        Ok(_) => ("ended:answer".into(), format!("after {took:?}")),
        Err(failure) => outcome(&failure),
    })
}

/// The call alone; to make an instance may take longer.
async fn timed(room: &Room, wasm: &[u8], terms: Terms, tool: &str, args: Value) -> Result<Verdict> {
    match room.start(wasm, terms).await? {
        Ok(running) => {
            let time = room.limit(SHORT, LONG);
            endless(async { Ok(running.call(tool, &args, time).await) }).await
        }
        Err(refused) => Ok(outcome(&refused)),
    }
}

async fn plugin(room: Room, tool: &str, args: Value) -> Result<Verdict> {
    let wasm = room.guests().plugin.clone();
    timed(&room, &wasm, with(&[]), tool, args).await
}

async fn task(room: Room, task: &str) -> Result<Verdict> {
    let wasm = room.guests().wasi.clone();
    timed(&room, &wasm, Terms::task(task, "", &[]), "run", json!({})).await
}

/// A component with code where the host calls it without asking for a tool.
async fn lift(room: Room, realloc: &str, after: &str) -> Result<Verdict> {
    let wasm = text(&format!(
        r#"(component
            (core module $m
                (memory (export "memory") 1)
                (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                    {realloc} (i32.const 1024))
                (func (export "f") (param i32 i32) (result i32)
                    (i32.store (i32.const 8) (local.get 0))
                    (i32.store (i32.const 12) (local.get 1))
                    (i32.const 8))
                (func (export "after") (param i32) {after}))
            (core instance $i (instantiate $m))
            (func (export "f") (param "x" string) (result string) (canon lift (core func $i "f")
                (memory $i "memory") (realloc (func $i "realloc")) (post-return (func $i "after")))))"#
    ))?;
    timed(&room, &wasm, Terms::new(&[]), "f", json!({"x": "text"})).await
}

async fn slow(room: Room) -> Result<Verdict> {
    // Accepts, and says nothing.
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    let right = format!("net.http:web.example:{port}");
    let terms =
        with(&[right.as_str()]).names(Names::here(&["web.example"])).reachable("127.0.0.1/32")?;
    let wasm = room.guests().plugin.clone();
    let args = json!({"url": format!("http://web.example:{port}/")});
    let seen = timed(&room, &wasm, terms, "fetch", args).await;
    drop(listener);
    seen
}
