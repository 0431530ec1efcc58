//! Bounds on what a guest may keep at the host and hand to it: each is exceeded, is told by its name, and
//! below it everything goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use palisade_model::{ErrorCode as C, Failure};
use palisade_sandbox::{Calls, Instance};
use serde_json::{Value, json};
use support::{ALL_RIGHTS, Bench, bench, code, guest, quick, rust_guest, tool};

const TIME: Duration = Duration::from_secs(10);

fn everything() -> Bench {
    let mut bench = bench(&rust_guest(), Calls::Stateful);
    bench.rights(&ALL_RIGHTS);
    bench.spec.limits.memory = 256 << 20;
    *bench.host.answer.lock().unwrap() = Some(Ok(r#"{"kept":true}"#.into()));
    bench
}

async fn asks(instance: &Arc<dyn Instance>, name: &str, args: Value) -> Result<Value, Failure> {
    let answer = tool(instance, name, &args.to_string(), TIME).await?;
    Ok(serde_json::from_str(&answer).unwrap())
}

/// A component that keeps what it makes: waits of WASI, or handles of a resource of its own.
fn hoarder(what: &str) -> Vec<u8> {
    let (import, function) = match what {
        "waits" => (
            r#"(import "wasi:io/poll@0.2.0" (instance $poll (export "pollable" (type (sub resource)))))
            (alias export $poll "pollable" (type $pollable))
            (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
                (alias outer 1 $pollable (type $outer))
                (export "pollable" (type $p (eq $outer)))
                (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))
            (core func $new (canon lower (func $clock "subscribe-duration")))"#,
            "(param i64) (result i32)",
        ),
        _ => (
            r#"(type $r (resource (rep i32)))
            (core func $own (canon resource.new $r))
            (core module $cast (import "" "own" (func $own (param i32) (result i32)))
                (func (export "new") (param i64) (result i32)
                    (call $own (i32.wrap_i64 (local.get 0)))))
            (core instance $c (instantiate $cast (with "" (instance (export "own" (func $own))))))
            (alias core export $c "new" (core func $new))"#,
            "(param i64) (result i32)",
        ),
    };
    let text = format!(
        r#"(component
            {import}
            (core module $m
                (import "" "new" (func $new {function}))
                (func (export "keep") (param $n i32) (result i32) (local $made i32)
                    (loop $more
                        (drop (call $new (i64.const 1000000000000)))
                        (local.set $made (i32.add (local.get $made) (i32.const 1)))
                        (br_if $more (i32.lt_u (local.get $made) (local.get $n))))
                    (local.get $made)))
            (core instance $i (instantiate $m (with "" (instance (export "new" (func $new))))))
            (func (export "keep") (param "count" u32) (result u32) (canon lift (core func $i "keep"))))"#
    );
    wat::parse_str(text).unwrap()
}

#[tokio::test]
async fn resources_and_handles_are_bounded_by_name() {
    for (what, fits, over) in [("waits", 500, 600), ("own", 16_000, 17_000)] {
        let bench = bench(&hoarder(what), Calls::Stateful);
        let instance = bench.started().await;
        let keep = |count: u32| asks(&instance, "keep", json!({"count": count}));
        assert_eq!(keep(fits).await.unwrap(), fits, "{what}");
        let failure = keep(over).await.unwrap_err();
        assert_eq!(failure.code, C::LimitExceeded, "{what}: {failure}");
        assert_eq!(failure.rule.as_deref(), Some("resources"), "{what}: {failure}");
        assert!(failure.message.contains("at once"), "{what}: {failure}");
        // What it kept went with it.
        assert_eq!(keep(fits).await.unwrap(), fits, "{what}");
    }
}

#[tokio::test]
async fn log_lines_are_cut_and_what_is_too_much_ends_the_call() {
    let bench = everything();
    let instance = bench.started().await;
    let last = || -> Value {
        let requests = bench.host.requests.lock().unwrap();
        let (method, line) = requests.last().unwrap();
        assert_eq!(method, "log");
        assert!(line.len() < 50_000, "{}", line.len());
        serde_json::from_str(line).unwrap()
    };
    assert_eq!(asks(&instance, "log", json!({"bytes": 100_000})).await.unwrap(), 1);
    assert_eq!(last()["message"].as_str().unwrap().len(), 8 << 10);
    assert_eq!(asks(&instance, "log", json!({"bytes": 1, "fields": 100})).await.unwrap(), 1);
    // Fields of one name are one field to whoever reads them; the text has no more than 32.
    assert_eq!(last()["fields"]["field"].as_str().unwrap().len(), 1 << 10);
    let text = bench.host.requests.lock().unwrap().last().unwrap().1.clone();
    assert_eq!(text.matches("\"field\":").count(), 32);

    let failure = asks(&instance, "log", json!({"bytes": 9 << 20})).await.unwrap_err();
    assert_eq!(failure.rule.as_deref(), Some("host-call-bytes"), "{failure}");
    let failure = asks(&instance, "empty-list", json!({"count": 400_000})).await.unwrap_err();
    assert_eq!(failure.rule.as_deref(), Some("host-call-bytes"), "{failure}");
    // A log that drops every line holds nobody up.
    *bench.host.answer.lock().unwrap() = Some(Ok(r#"{"kept":false}"#.into()));
    assert_eq!(asks(&instance, "log", json!({"bytes": 1, "lines": 1000})).await.unwrap(), 0);
}

#[tokio::test]
async fn header_fields_answers_and_random_numbers_are_bounded() {
    let bench = everything();
    let instance = bench.started().await;
    let fetched = r#"{"status":200,"url":"http://a/","headers":[],"body":"","redirects":0}"#;
    *bench.host.answer.lock().unwrap() = Some(Ok(fetched.into()));
    let fetch = |more: u32| {
        asks(&instance, "fetch", json!({"url": "http://a.example/", "more_headers": more}))
    };
    assert_eq!(fetch(100).await.unwrap()["status"], 200);
    let refused = fetch(101).await.unwrap();
    assert_eq!(refused["refused"], "PAL-PARAMS", "{refused}");
    assert_eq!(bench.host.requests.lock().unwrap().len(), 1, "the second was not asked for");

    let answer = |bytes: u32| asks(&instance, "answer", json!({"bytes": bytes}));
    assert_eq!(answer(1 << 20).await.unwrap().as_str().unwrap().len(), 1 << 20);
    let failure = answer((4 << 20) + 1).await.unwrap_err();
    assert_eq!(failure.code, C::PluginError, "{failure}");
    assert!(failure.message.contains("longer than"), "{failure}");
    let failure = answer(20 << 20).await.unwrap_err();
    assert_eq!(failure.rule.as_deref(), Some("host-call-bytes"), "{failure}");

    let depth = |depth: u32| asks(&instance, "answer-deep", json!({"depth": depth}));
    depth(30).await.unwrap();
    assert_eq!(code(depth(100_000).await), C::PluginError);

    let random = |bytes: u32| asks(&instance, "random", json!({"bytes": bytes}));
    assert_eq!(random(65_536).await.unwrap(), 65_536);
    let failure = random(65_537).await.unwrap_err();
    assert_eq!(failure.code, C::LimitExceeded, "{failure}");
    assert_eq!(failure.rule.as_deref(), Some("random"), "{failure}");
    assert!(failure.message.contains("at most 65536"), "{failure}");
}

/// Many instances of several plugins on several threads: one traps again and again, one never ends, one
/// takes all its memory; the others count as if they were alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_plugins_on_many_threads_do_not_notice_each_other() {
    const WHILE: Duration = Duration::from_secs(2);
    let (by_hand, in_rust) = (bench(&guest(), Calls::Stateful), everything());
    let mut pooled = bench(&guest(), Calls::Stateless { instances: 3 });
    pooled.spec.limits.cpu = 4.0;
    let until = Instant::now() + WHILE;
    let total = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for n in 0..12 {
        let honest = if n % 2 == 0 { by_hand.started().await } else { in_rust.started().await };
        let total = Arc::clone(&total);
        tasks.push(tokio::spawn(async move {
            let mut count = 0;
            while Instant::now() < until {
                count += 1;
                assert_eq!(quick(&honest, "count").await.unwrap(), count.to_string(), "{n}");
                total.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
            assert!(count > 10, "{n}: {count}");
        }));
    }
    for (name, expected) in [
        ("trap", C::Crashed),
        ("spin", C::Deadline),
        ("memory", C::LimitExceeded),
        ("long", C::Deadline),
    ] {
        let hostile = by_hand.started().await;
        let endless = expected == C::Deadline;
        let time = if endless { Duration::from_millis(60) } else { TIME };
        tasks.push(tokio::spawn(async move {
            while Instant::now() < until {
                let ended = tool(&hostile, name, "{}", time).await;
                assert_eq!(code(ended), expected, "{name}");
                assert_eq!(quick(&hostile, "count").await.unwrap(), "1", "{name}: a fresh one");
            }
        }));
    }
    let pool = pooled.started().await;
    for _ in 0..6 {
        let pool = Arc::clone(&pool);
        tasks.push(tokio::spawn(async move {
            while Instant::now() < until {
                let text = "x".repeat(1000);
                let args = json!({ "text": text }).to_string();
                assert_eq!(tool(&pool, "echo", &args, TIME).await.unwrap(), args);
                tokio::task::yield_now().await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert!(total.load(Ordering::Relaxed) > 500, "{total:?}");
}
