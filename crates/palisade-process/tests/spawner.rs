//! The death of the spawner. Alone in its file, so that this process has just one.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::{fs, time::Duration};

use palisade_process::{Options, ProcessBackend};
use palisade_sandbox::Runtime;
use serde_json::json;
use support::{EVAL, bench, eval};

/// Children of this process, by name.
fn children(name: &str) -> Vec<i32> {
    let own = std::process::id().to_string();
    let stats = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (head, tail) = stat.rsplit_once(')')?;
        let (pid, comm) = head.split_once(" (")?;
        let parent = tail.split_whitespace().nth(1)?;
        (parent == own && comm == name).then(|| pid.parse().unwrap())
    });
    stats.collect()
}

#[tokio::test]
async fn the_death_of_the_spawner_ends_its_plugins_and_the_next_launch_starts_another() {
    let bench =
        bench(Runtime::Python { interpreter: None, version: None }, "main.py", EVAL.as_bytes());
    let backend = ProcessBackend::new(Options::default());
    let instance = bench.launch(&backend).await.unwrap();
    eval(&instance, "1").await.unwrap();
    let [spawner] = children("palisade-spawn")[..] else { panic!("this process has one spawner") };
    let pid = rustix::process::Pid::from_raw(spawner).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let exit = tokio::time::timeout(Duration::from_secs(5), instance.wait())
        .await
        .expect("it outlived the spawner");
    assert!(!exit.is_clean(), "{exit}");
    let again = bench.launch(&backend).await.unwrap();
    assert_eq!(eval(&again, "2").await.unwrap(), json!(2));
}
