//! Every limit is exceeded: the call fails with words that name it, the sibling of the same code does not
//! notice, and the next call gets a fresh instance.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::{Duration, Instant};

use palisade_model::ErrorCode as C;
use palisade_sandbox::{Backend as _, Calls, ExtismOutput, KillReason, Runtime};
use palisade_wasm::Options;
use support::{
    FILES, TOO_FAR, ask, bench, bench_with, code, goes_too_far, guest, initialize, quick, tool,
};

const SHORT: Duration = Duration::from_millis(150);
const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn what_goes_too_far_is_told_apart_and_the_next_call_finds_a_fresh_instance() {
    let bench = bench(&guest(), Calls::Stateful);
    let instance = bench.started().await;
    let table = ("big-table", C::LimitExceeded, Some("memory"), "out of memory");
    goes_too_far(&instance, TOO_FAR.into_iter().chain([table])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_a_loop_and_a_wait_and_no_sibling() {
    let bench = bench(&guest(), Calls::Stateful);
    let (first, second) = (bench.started().await, bench.started().await);
    for name in ["spin", "long"] {
        let other = {
            let second = second.clone();
            tokio::spawn(async move {
                let begun = Instant::now();
                let mut calls = 0;
                while begun.elapsed() < 3 * SHORT {
                    quick(&second, "echo").await.unwrap();
                    calls += 1;
                    tokio::task::yield_now().await;
                }
                calls
            })
        };
        let begun = Instant::now();
        let failure = tool(&first, name, "{}", SHORT).await.unwrap_err();
        let took = begun.elapsed();
        assert_eq!(failure.code, C::Deadline, "{name}: {failure}");
        assert!(took >= SHORT && took < SHORT + Duration::from_millis(500), "{name}: {took:?}");
        assert!(other.await.unwrap() > 50, "{name}");
        assert_eq!(quick(&first, "echo").await.unwrap(), "{}");
    }
    // A call that computes for longer than others may is not touched by their deadlines.
    let long = {
        let second = second.clone();
        tokio::spawn(async move { quick(&second, "work").await })
    };
    assert_eq!(code(tool(&first, "spin", "{}", Duration::from_millis(20)).await), C::Deadline);
    assert_eq!(long.await.unwrap().unwrap(), "{}");
}

/// Two instances of the same compiled code: two launches of what was prepared once, and two of a pool. One never
/// ends and is interrupted, while the other is in the middle of a computation that is longer than the deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_touches_no_other_instance_of_the_same_code() {
    let one = bench(&guest(), Calls::Stateful);
    let prepared = one.backend.prepare(&one.artifact).await.unwrap();
    let mut two = Vec::new();
    for _ in 0..2 {
        let instance = prepared.launch(one.spec.clone(), one.host.clone()).await.unwrap();
        initialize(&instance, "{}").await.unwrap();
        two.push(instance);
    }
    let mut pool = bench(&guest(), Calls::Stateless { instances: 2 });
    pool.spec.limits.cpu = 2.0;
    let pool = pool.started().await;
    for (what, spins, works) in
        [("launches", two[0].clone(), two[1].clone()), ("pool", pool.clone(), pool)]
    {
        assert_eq!(quick(&works, "count").await.unwrap(), "1", "{what}");
        let work = {
            let works = works.clone();
            tokio::spawn(async move { tool(&works, "work", r#"{"n":7}"#, LONG).await })
        };
        // It has its instance, and computes.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let mut interrupted = 0;
        while !work.is_finished() {
            let failure = tool(&spins, "spin", "{}", Duration::from_millis(20)).await.unwrap_err();
            assert_eq!(failure.code, C::Deadline, "{what}: {failure}");
            interrupted += 1;
        }
        assert_eq!(work.await.unwrap().unwrap(), r#"{"n":7}"#, "{what}");
        assert!(interrupted > 1, "{what}: it was over after {interrupted}");
        // Who computed is the instance that it was. In the pool, the next call may get either.
        if what == "launches" {
            assert_eq!(quick(&works, "count").await.unwrap(), "2");
        }
    }
}

#[tokio::test]
async fn one_thread_is_shared_by_a_loop_and_everything_else() {
    let bench = bench(&guest(), Calls::Stateful);
    let (first, second) = (bench.started().await, bench.started().await);
    let spinning = tool(&first, "spin", "{}", Duration::from_millis(400));
    let calling = async {
        let begun = Instant::now();
        let mut calls = 0;
        while begun.elapsed() < Duration::from_millis(300) {
            quick(&second, "echo").await.unwrap();
            calls += 1;
            tokio::task::yield_now().await;
        }
        calls
    };
    let (spun, calls) = tokio::join!(spinning, calling);
    assert_eq!(code(spun), C::Deadline);
    assert!(calls > 10, "{calls}");
}

#[tokio::test]
async fn calls_wait_for_their_turn_no_longer_than_they_may() {
    let bench = bench(&guest(), Calls::Stateful);
    let instance = bench.started().await;
    let first = tool(&instance, "spin", "{}", Duration::from_millis(400));
    let second = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let begun = Instant::now();
        let failure = tool(&instance, "echo", "{}", Duration::from_millis(100)).await.unwrap_err();
        (failure, begun.elapsed())
    };
    let (_, (failure, took)) = tokio::join!(first, second);
    assert_eq!(failure.code, C::Deadline);
    assert!(took < Duration::from_millis(300), "{took:?}");
}

#[tokio::test]
async fn calls_of_one_instance_come_in_the_order_in_which_they_were_made() {
    let bench = bench(&guest(), Calls::Stateful);
    let instance = bench.started().await;
    let counted = |n: usize| {
        let instance = instance.clone();
        tokio::spawn(async move { (n, quick(&instance, "count").await.unwrap()) })
    };
    let before = {
        let instance = instance.clone();
        tokio::spawn(async move { tool(&instance, "spin", "{}", SHORT).await })
    };
    tokio::task::yield_now().await;
    let mut calls: Vec<_> = (1..=8).map(counted).collect();
    // One that comes when it is somebody's turn does not go first either.
    assert_eq!(code(before.await.unwrap()), C::Deadline);
    calls.push(counted(9));
    for call in calls {
        let (n, count) = call.await.unwrap();
        assert_eq!(count, n.to_string(), "the instance counts its calls");
    }
}

#[tokio::test]
async fn a_call_runs_on_the_task_of_its_caller() {
    let bench = bench(&guest(), Calls::Stateful);
    *bench.host.answer.lock().unwrap() = Some(Ok(r#"{"found":false}"#.to_owned()));
    let instance = bench.started().await;
    for _ in 0..3 {
        let instance = instance.clone();
        let caller = tokio::spawn(async move { quick(&instance, "key").await.unwrap() });
        let task = caller.id();
        caller.await.unwrap();
        assert_eq!(bench.host.task.lock().unwrap().take(), Some(task));
    }
}

#[tokio::test]
async fn memory_is_counted_over_all_instances_and_given_back() {
    let calls = Calls::Stateless { instances: 4 };
    let mut bench = bench(&guest(), calls);
    // Two instances have four pages and a table; there is room for four more.
    bench.spec.limits.memory = 8 * 65536 + 4096;
    let instance = bench.started().await;
    let held = instance.usage().await.memory.unwrap();
    assert!((2 * 65536..3 * 65536).contains(&held), "{held}");
    let failure = quick(&instance, "memory").await.unwrap_err();
    assert_eq!(failure.code, C::LimitExceeded, "{failure}");
    // What the broken instance held is free again.
    assert_eq!(quick(&instance, "hold").await.unwrap(), "3");
    let usage = instance.usage().await;
    assert!(usage.memory.unwrap() < 4 * 65536, "{usage:?}");
    assert!(usage.memory_peak.unwrap() > 7 * 65536, "{usage:?}");
    instance.kill(KillReason::Asked).await;
    assert_eq!(instance.usage().await.memory, Some(0));
}

#[tokio::test]
async fn what_is_handed_to_the_host_in_one_call_is_bounded() {
    let mut bench = bench(&guest(), Calls::Stateful);
    bench.spec.limits.memory = 64 << 20;
    let instance = bench.started().await;
    let failure = quick(&instance, "Key of 16 MiB").await.unwrap_err();
    assert_eq!(failure.code, C::LimitExceeded, "{failure}");
    assert!(failure.message.contains("8 MiB"), "{failure}");
    assert!(bench.host.requests.lock().unwrap().is_empty(), "nothing was asked");
    assert_eq!(quick(&instance, "echo").await.unwrap(), "{}");
}

#[tokio::test]
async fn a_memory_limit_can_be_changed_while_it_runs() {
    let bench = bench(&guest(), Calls::Stateful);
    let instance = bench.started().await;
    assert_eq!(quick(&instance, "hold").await.unwrap(), "3");
    let mut limits = bench.spec.limits.clone();
    limits.memory = 2 << 16;
    instance.set_limits(&limits).await.unwrap();
    assert_eq!(quick(&instance, "hold").await.unwrap(), "0", "refused");
}

#[tokio::test]
async fn a_module_of_the_older_wasi_is_held_to_its_files_and_random_numbers() {
    let mut bench = bench(&wat::parse_str(FILES).unwrap(), Calls::Stateful);
    bench.artifact.program.runtime =
        Runtime::Extism { calls: Calls::Stateful, output: ExtismOutput::Text };
    let root = bench.dir.path().canonicalize().unwrap();
    std::fs::create_dir(root.join("texts")).unwrap();
    std::fs::write(root.join("texts/file"), "first").unwrap();
    bench.rights(&[&format!("fs.read:{}/texts/**", root.display())]);
    bench.spec.limits.files = 16;
    let instance = bench.started().await;
    // EMFILE has the number 33 there.
    for (function, opened) in [("fill", 16), ("fill", 0), ("again", 3), ("again", 3)] {
        let failure = quick(&instance, function).await.unwrap_err();
        assert_eq!(failure.code, C::PluginError, "{failure}");
        assert!(failure.message.contains(&format!(" {} ", opened * 100 + 33)), "{failure}");
    }
    quick(&instance, "random").await.unwrap();
    let failure = quick(&instance, "random-too-many").await.unwrap_err();
    assert_eq!(failure.code, C::LimitExceeded, "{failure}");
    assert_eq!(failure.rule.as_deref(), Some("random"), "{failure}");
    // What the ended instance had open is free again.
    let failure = quick(&instance, "fill").await.unwrap_err();
    assert!(failure.message.contains(" 1633 "), "{failure}");
}

#[tokio::test]
async fn a_share_of_the_cpu_is_held() {
    let mut bench = bench(&guest(), Calls::Stateful);
    bench.spec.limits.cpu = 0.2;
    let instance = bench.started().await;
    let begun = Instant::now();
    let failure = tool(&instance, "spin", "{}", Duration::from_millis(1500)).await.unwrap_err();
    assert_eq!(failure.code, C::Deadline);
    let cpu = instance.usage().await.cpu.unwrap();
    let most = begun.elapsed().mul_f64(0.2) + Duration::from_millis(120);
    assert!(cpu <= most, "{cpu:?} of at most {most:?}");
    assert!(cpu > Duration::from_millis(200), "{cpu:?}");
}

#[tokio::test]
async fn instances_beyond_the_limit_are_a_typed_refusal() {
    let bench = bench_with(Options::default().instances(2), &guest(), Calls::Stateful);
    let first = bench.started().await;
    let second = bench.started().await;
    let refused = bench.launch().await.err().unwrap();
    assert_eq!(refused.code(), C::LimitExceeded, "{refused}");
    assert!(refused.to_string().contains("at most 2"), "{refused}");
    drop(first);
    let third = bench.started().await;
    assert_eq!(quick(&third, "count").await.unwrap(), "1");
    assert_eq!(quick(&second, "count").await.unwrap(), "1");
}

#[tokio::test]
async fn a_pool_has_no_more_instances_than_it_may() {
    let bench = bench(&guest(), Calls::Stateless { instances: 2 });
    let instance = bench.started().await;
    let slow = || tool(&instance, "long", "{}", Duration::from_millis(300));
    let third = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        tool(&instance, "echo", "{}", Duration::from_millis(100)).await
    };
    let (first, second, third) = tokio::join!(slow(), slow(), third);
    assert_eq!((code(first), code(second)), (C::Deadline, C::Deadline));
    let failure = third.unwrap_err();
    assert_eq!(failure.code, C::Deadline);
    assert!(failure.message.contains("all 2 instances are busy"), "{failure}");
    assert_eq!(quick(&instance, "echo").await.unwrap(), "{}");
}

#[tokio::test]
async fn a_frozen_instance_stands_still_and_goes_on() {
    let bench = bench(&guest(), Calls::Stateful);
    let instance = bench.started().await;
    instance.freeze().await.unwrap();
    assert_eq!(code(tool(&instance, "echo", "{}", SHORT).await), C::Deadline);
    let waiting = quick(&instance, "echo");
    let thawing = async {
        tokio::time::sleep(SHORT).await;
        instance.thaw().await.unwrap();
    };
    let (answer, ()) = tokio::join!(waiting, thawing);
    assert_eq!(answer.unwrap(), "{}");
}

#[tokio::test]
async fn killing_ends_a_call_under_way_and_gives_everything_back() {
    let bench = bench(&guest(), Calls::Stateful);
    for name in ["spin", "long"] {
        let instance = bench.started().await;
        let call = tool(&instance, name, "{}", Duration::from_secs(30));
        let kill = async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            let begun = Instant::now();
            (instance.kill(KillReason::Asked).await, begun.elapsed())
        };
        let (answer, (exit, took)) = tokio::join!(call, kill);
        assert_eq!(code(answer), C::Unavailable, "{name}");
        assert!(exit.is_clean() && took < Duration::from_secs(1), "{name}: {exit:?} {took:?}");
        assert_eq!(instance.usage().await.memory, Some(0), "{name}");
        assert_eq!(code(quick(&instance, "echo").await), C::Unavailable, "{name}");
        assert_eq!(instance.wait().await, exit, "{name}");
    }
}

#[tokio::test]
async fn whoever_goes_away_in_the_middle_leaves_no_half_used_instance() {
    let bench = bench(&guest(), Calls::Stateful);
    let instance = bench.started().await;
    assert_eq!(quick(&instance, "count").await.unwrap(), "1");
    let call = tool(&instance, "long", "{}", Duration::from_secs(30));
    assert!(tokio::time::timeout(Duration::from_millis(30), call).await.is_err());
    assert_eq!(quick(&instance, "count").await.unwrap(), "1", "a fresh one");
}

#[tokio::test]
async fn a_fresh_instance_is_initialized_as_the_first_was() {
    for calls in [Calls::Stateful, Calls::Stateless { instances: 2 }] {
        let bench = bench(&guest(), calls);
        let instance = bench.launch().await.unwrap();
        initialize(&instance, r#"{"v":7}"#).await.unwrap();
        assert_eq!(quick(&instance, "init").await.unwrap(), "7");
        assert_eq!(code(quick(&instance, "trap").await), C::Crashed);
        assert_eq!(quick(&instance, "init").await.unwrap(), "7");
        let missing = ask(&instance, "configure", r#"{"config":{"v":8}}"#, SHORT).await;
        assert_eq!(code(missing), C::NotFound, "it does not export it");
    }
}
