//! A component as a plugin: what goes in, what comes out, what it asks, and what it may import.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::Duration;

use palisade_model::{ErrorCode as C, Failure};
use palisade_sandbox::{Backend as _, Calls, SandboxError};
use support::{GUEST, ask, bench, code, component, guest, initialize, quick, tool};

const TIME: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_tool_is_called_with_json_and_answers_with_json() {
    let bench = bench(&guest(), Calls::Stateful);
    let instance = bench.launch().await.unwrap();
    let introduced = initialize(&instance, "{}").await.unwrap();
    let introduced: serde_json::Value = introduced.parse().unwrap();
    assert_eq!(introduced["protocol"], 1);
    assert!(introduced.get("tools").is_none(), "{introduced}");
    let args = r#"{"text":"h\u00e9 \"x\" é","n":12345678901234567890}"#;
    assert_eq!(tool(&instance, "echo", args, TIME).await.unwrap(), args);
    // The same without the parts: the payload is read.
    let params = format!(r#"{{"tool":"echo","args":{args}}}"#);
    assert_eq!(ask(&instance, "call", &params, TIME).await.unwrap().bytes(), args);
    let large = format!("{{\"x\":\"{}\"}}", "a".repeat(1 << 20));
    assert_eq!(tool(&instance, "echo", &large, TIME).await.unwrap(), large);
    assert_eq!(ask(&instance, "ping", "null", TIME).await.unwrap().bytes(), "{}");
}

#[tokio::test]
async fn what_a_plugin_answers_is_not_believed_further_than_it_goes() {
    let bench = bench(&guest(), Calls::Stateful);
    let instance = bench.started().await;
    let failure = quick(&instance, "json").await.unwrap_err();
    assert_eq!(failure.code, C::PluginError);
    assert!(failure.message.contains("is not JSON"), "{failure}");
    let failure = quick(&instance, "failure").await.unwrap_err();
    assert_eq!((failure.code, failure.message.as_str()), (C::Conflict, "not today"));
    // Neither is a crash.
    assert_eq!(quick(&instance, "count").await.unwrap(), "1");
    assert_eq!(quick(&instance, "count").await.unwrap(), "2");
}

#[tokio::test]
async fn stateless_instances_are_used_again_and_keep_their_memory() {
    let bench = bench(&guest(), Calls::Stateless { instances: 2 });
    let instance = bench.started().await;
    assert_eq!(quick(&instance, "count").await.unwrap(), "1");
    assert_eq!(quick(&instance, "count").await.unwrap(), "2");
    assert_eq!(code(ask(&instance, "save_state", "null", TIME).await), C::NotFound);
}

#[tokio::test]
async fn a_request_goes_to_the_host_and_its_answer_comes_back() {
    let bench = bench(&guest(), Calls::Stateful);
    let instance = bench.started().await;
    let found = r#"{"found":true,"value":{"a":1},"version":3}"#.to_owned();
    *bench.host.answer.lock().unwrap() = Some(Ok(found));
    assert_eq!(quick(&instance, "key").await.unwrap(), "0", "the ok side of a result");
    *bench.host.answer.lock().unwrap() = Some(Err(Failure::new(C::Denied, "no")));
    assert_eq!(quick(&instance, "key").await.unwrap(), "1", "the error side");
    let requests = bench.host.requests.lock().unwrap();
    assert_eq!(requests[0], ("storage.get".to_owned(), r#"{"key":"PAL"}"#.to_owned()));
    assert_eq!(requests.len(), 2);
}

#[tokio::test]
async fn an_import_without_its_right_is_refused_by_name_before_anything_runs() {
    let mut bench = bench(&guest(), Calls::Stateful);
    bench.rights(&[]);
    let refused = bench.launch().await.err().unwrap();
    assert_eq!(refused.code(), C::Denied, "{refused}");
    let words = refused.to_string();
    assert!(words.contains("palisade:plugin/storage@0.1.0"), "{words}");
    assert!(words.contains("storage.kv"), "{words}");
    let hint = Failure::from(refused).hint.unwrap();
    assert!(hint.contains("--grant 'storage.kv:"), "{hint}");
    // The same component without the import needs no right.
    let plain = GUEST
        .replace(
            "(import \"palisade:plugin/storage@0.1.0\" \"get\" (func $get (param i32 i32 i32)))",
            "",
        )
        .replace("(memory (export", "(func $get (param i32 i32 i32))\n(memory (export");
    let mut bench = support::bench(&component(&plain, &["clock", "random"]), Calls::Stateful);
    bench.rights(&[]);
    assert_eq!(quick(&bench.started().await, "echo").await.unwrap(), "{}");
}

#[tokio::test]
async fn an_import_that_nobody_knows_is_refused_by_name() {
    let unknown =
        br#"(component (import "evil:host/everything@1.0.0" (instance (export "f" (func)))))"#;
    let bench = bench(&wat::parse_bytes(unknown).unwrap(), Calls::Stateful);
    let refused = bench.launch().await.err().unwrap();
    assert!(refused.to_string().contains("evil:host/everything@1.0.0"), "{refused}");
}

#[tokio::test]
async fn what_is_no_component_is_refused_with_words() {
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("text", b"#!/bin/sh\n".to_vec()),
        ("a cut component", guest()[..200].to_vec()),
        ("a bare module", wat::parse_str("(module)").unwrap()),
    ] {
        let bench = bench(&bytes, Calls::Stateful);
        let refused = bench.launch().await.err().unwrap();
        assert!(matches!(refused, SandboxError::Artifact { .. }), "{what}: {refused:?}");
    }
    let mut bench = bench(&guest(), Calls::Stateful);
    std::os::unix::fs::symlink("/etc/hostname", bench.artifact.content.root.join("link")).unwrap();
    bench.artifact.program.file = "link".into();
    let refused = bench.launch().await.err().unwrap();
    assert!(refused.to_string().contains("leads out"), "{refused}");
}

#[tokio::test]
async fn rights_that_this_wall_cannot_make_true_are_refused() {
    let mut bench = bench(&guest(), Calls::Stateful);
    bench.rights(&["storage.kv:a", "exec:/bin/sh"]);
    let found = bench.backend.assess(&bench.spec).await;
    assert_eq!(found.unsupported.len(), 1, "{:?}", found.unsupported);
    assert_eq!(bench.launch().await.err().unwrap().code(), C::NoBackend);
}

#[tokio::test]
async fn compiled_code_is_kept_and_used_again() {
    let bench = bench(&guest(), Calls::Stateful);
    drop(bench.started().await);
    let folder = bench.dir.path().join("wasm");
    let files = || {
        let mut names: Vec<_> = std::fs::read_dir(&folder)
            .unwrap()
            .flatten()
            .map(|entry| (entry.file_name(), entry.metadata().unwrap().len()))
            .collect();
        names.sort();
        names
    };
    let kept = files();
    assert_eq!(kept.len(), 2, "the key and the code: {kept:?}");
    assert_eq!(quick(&bench.started().await, "echo").await.unwrap(), "{}");
    assert_eq!(files(), kept);
}
