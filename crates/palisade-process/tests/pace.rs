//! Who takes all the processor time that it may runs on fewer processors, for as long as it does so.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_model::{Guarantee, Level};
use palisade_process::{Options, ProcessBackend};
use palisade_sandbox::{Backend, ExitCause, Instance, KillReason, Runtime};
use serde_json::{Value, json};
use support::{Bench, EVAL, bench, eval};

const PROCESSORS: &str = "len(os.sched_getaffinity(0))";

fn python() -> Bench {
    bench(Runtime::Python { interpreter: None, version: None }, "main.py", EVAL.as_bytes())
}

async fn becomes(instance: &Arc<dyn Instance>, what: &str, wanted: &Value) -> bool {
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        if eval(instance, what).await.unwrap() == *wanted {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    false
}

#[tokio::test]
async fn who_is_stopped_by_the_quota_is_confined_until_it_rests() {
    let mut bench = python();
    // Half a processor: enough for the quota to stop even a single thread, and to answer meanwhile.
    bench.spec.limits.cpu = 0.5;
    let backend = ProcessBackend::new(Options::default());
    let instance = bench.launch(&backend).await.unwrap();
    let all = eval(&instance, PROCESSORS).await.unwrap();
    let spin = "
import subprocess
spinners = [subprocess.Popen([sys.executable, '-c', 'while True: pass']) for _ in range(4)]
result = True";
    eval(&instance, spin).await.unwrap();
    let assessed = backend.assess(&bench.spec).await;
    let by_kernel = assessed.guarantees.level(Guarantee::CpuCapped) == Level::Kernel;
    let host = rustix::thread::sched_getaffinity(None).unwrap().count();
    if by_kernel && host > 1 {
        assert_eq!(all, json!(host), "it begins wherever the host may run");
        assert!(becomes(&instance, PROCESSORS, &json!(1)).await, "it was not confined");
        let children = "[len(os.sched_getaffinity(s.pid)) for s in spinners]";
        let confined = json!([1, 1, 1, 1]);
        assert!(becomes(&instance, children, &confined).await, "its children were not confined");
        let rest = "[s.kill() or s.wait() for s in spinners]";
        eval(&instance, rest).await.unwrap();
        assert!(becomes(&instance, PROCESSORS, &all).await, "it was not released");
    }
    instance.kill(KillReason::Asked).await;
}

#[tokio::test]
async fn a_plugin_does_not_choose_its_processors() {
    let bench = python();
    let instance = bench.launch(&ProcessBackend::new(Options::default())).await.unwrap();
    let choose = "os.sched_setaffinity(0, os.sched_getaffinity(0))";
    let failure = eval(&instance, choose).await.expect_err("it could choose");
    assert!(failure.message.contains("not permitted"), "{failure}");
    instance.kill(KillReason::Asked).await;
}

#[tokio::test]
async fn who_was_ended_by_a_limit_begins_confined() {
    let mut bench = python();
    bench.spec.limits.memory = 64 << 20;
    let backend = ProcessBackend::new(Options::default());
    let assessed = backend.assess(&bench.spec).await;
    let by_kernel = assessed.guarantees.level(Guarantee::CpuCapped) == Level::Kernel;
    let host = rustix::thread::sched_getaffinity(None).unwrap().count();
    let first = bench.launch(&backend).await.unwrap();
    // One thread and a whole processor: the quota has nothing to stop.
    assert_eq!(eval(&first, PROCESSORS).await.unwrap(), json!(host));
    eval(&first, "len(bytearray(1 << 30))").await.expect_err("it got a gibibyte");
    let exit = first.wait().await;
    assert!(matches!(exit.cause, ExitCause::OutOfMemory | ExitCause::Killed(_)), "{exit}");
    let second = bench.launch(&backend).await.unwrap();
    if by_kernel && host > 1 {
        // As it was when its program began: on a busy machine it may be released before it can be asked.
        assert_eq!(eval(&second, "len(began_on)").await.unwrap(), json!(1), "it began unconfined");
        assert!(becomes(&second, PROCESSORS, &json!(host)).await, "it was not released");
    }
    second.kill(KillReason::Asked).await;
}

/// Whether it is confined once it gets most of its quota. `None`: within a minute it did not get that.
async fn confined_at_work(instance: &Arc<dyn Instance>) -> Option<bool> {
    let (mut before, mut seconds_at_it) = (0.0, 0);
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if eval(instance, PROCESSORS).await.unwrap() == json!(1) {
            return Some(true);
        }
        let used = eval(instance, "used()").await.unwrap().as_f64().unwrap();
        seconds_at_it = if used - before > 0.85 { seconds_at_it + 1 } else { 0 };
        if seconds_at_it == 3 {
            return Some(false);
        }
        before = used;
    }
    None
}

#[tokio::test]
async fn who_takes_most_of_its_quota_is_confined() {
    let bench = python();
    let backend = ProcessBackend::new(Options::default());
    let assessed = backend.assess(&bench.spec).await;
    let by_kernel = assessed.guarantees.level(Guarantee::CpuCapped) == Level::Kernel;
    let host = rustix::thread::sched_getaffinity(None).unwrap().count();
    let instance = bench.launch(&backend).await.unwrap();
    // Nine tenths of a processor, so that there is nothing to stop.
    let work = "
import subprocess
busy = '''
import time
while True:
    end = time.monotonic() + 0.009
    while time.monotonic() < end: pass
    time.sleep(0.001)
'''
worker = subprocess.Popen([sys.executable, '-c', busy])
def used():
    with open(f'/proc/{worker.pid}/stat') as f:
        fields = f.read().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')
result = True";
    eval(&instance, work).await.unwrap();
    if by_kernel && host > 1 {
        let confined = confined_at_work(&instance).await;
        assert_eq!(
            confined,
            Some(true),
            "`None`: this machine is too busy to give it most of its quota"
        );
        eval(&instance, "worker.kill() or worker.wait()").await.unwrap();
        assert!(becomes(&instance, PROCESSORS, &json!(host)).await, "it was not released");
    }
    instance.kill(KillReason::Asked).await;
}
