//! As many instances as were asked for, also of what has more than one memory and dozens of modules; the one beyond
//! is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::{path::Path, time::Duration};

use palisade_conformance::components;
use palisade_model::{ErrorCode, Failure, Limits};
use palisade_sandbox::{Calls, ExtismOutput, Runtime, SandboxError};
use palisade_wasm::Options;
use support::{bench_with, initialize, tool};

/// Launches `most` of them, each initialized and called once, and one more, which is refused.
async fn fill(wasm: &[u8], runtime: Runtime, most: u32, name: &str, args: &str, answer: &str) {
    let options = Options::default().instances(most);
    let mut bench = bench_with(options, wasm, Calls::Stateful);
    bench.artifact.program.runtime = runtime;
    bench.spec.limits = Limits { memory: 128 << 20, ..Limits::default() };
    let host = || -> std::sync::Arc<dyn palisade_sandbox::HostCalls> { bench.host.clone() };
    use palisade_sandbox::Backend;
    let prepared = bench.backend.prepare(&bench.artifact).await.unwrap();
    let mut held = Vec::new();
    for number in 0..most {
        let launched = prepared.launch(bench.spec.clone(), host()).await;
        let instance = launched.unwrap_or_else(|e| panic!("instance {number}: {e}"));
        initialize(&instance, "{}").await.unwrap_or_else(|e| panic!("instance {number}: {e}"));
        let given = tool(&instance, name, args, Duration::from_secs(20)).await.unwrap();
        assert_eq!(given, answer, "instance {number}");
        held.push(instance);
    }
    let refused: SandboxError =
        prepared.launch(bench.spec.clone(), host()).await.err().expect("one more is refused");
    let refused = Failure::from(refused);
    assert_eq!(refused.code, ErrorCode::LimitExceeded, "{refused}");
    assert!(refused.message.contains(&format!("at most {most}")), "{refused}");
    held.pop();
    prepared.launch(bench.spec.clone(), host()).await.expect("there is a place again");
}

fn guest(language: &str, main: &str) -> [std::path::PathBuf; 2] {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benches/guests").join(language);
    [folder.join(main), folder.join("world.wit")]
}

const WASM: Runtime = Runtime::Wasm { calls: Calls::Stateful };
const ECHO: &str = r#"{"text":"ä"}"#;

#[tokio::test]
async fn components_in_javascript_as_many_as_were_asked_for() {
    let component = components::javascript("bench-js", &guest("js", "main.js"));
    fill(&std::fs::read(component).unwrap(), WASM, 80, "echo", ECHO, ECHO).await;
}

#[tokio::test]
async fn components_in_python_as_many_as_were_asked_for() {
    let component = components::python("bench-python", &guest("python", "main.py"));
    fill(&std::fs::read(component).unwrap(), WASM, 24, "echo", ECHO, ECHO).await;
}

#[tokio::test]
async fn modules_for_extism_with_three_memories_as_many_as_were_asked_for() {
    let module = std::fs::read(components::published_by_extism()).unwrap();
    let runtime = Runtime::Extism { calls: Calls::Stateful, output: ExtismOutput::Text };
    let answer = r#""{\"count\":1}""#;
    fill(&module, runtime, 300, "count_vowels", r#"{"input":"a"}"#, answer).await;
}
