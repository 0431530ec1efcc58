//! A component as a plugin: what goes in, what comes out, what it asks, and what it may import.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::Duration;

use palisade_model::ErrorCode as C;
use palisade_sandbox::{Backend as _, Calls, SandboxError};
use support::{
    Bench, GUEST, answers, ask, asks_its_host, bench, code, component, fails_in_words, guest,
    initialize, is_refused_for_its_import, quick, tool,
};

const TIME: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_tool_is_called_with_json_and_answers_with_json() {
    let bench = bench(&guest(), Calls::Stateful);
    let instance = bench.launch().await.unwrap();
    let introduced = initialize(&instance, "{}").await.unwrap();
    let introduced: serde_json::Value = introduced.parse().unwrap();
    assert_eq!(introduced["protocol"], 1);
    assert!(introduced.get("tools").is_none(), "{introduced}");
    answers(&instance).await;
    // The same without the parts: the payload is read.
    let params = r#"{"tool":"echo","args":{"a":"\u00e9"}}"#;
    assert_eq!(ask(&instance, "call", params, TIME).await.unwrap().bytes(), r#"{"a":"\u00e9"}"#);
    assert_eq!(ask(&instance, "ping", "null", TIME).await.unwrap().bytes(), "{}");
}

#[tokio::test]
async fn what_a_plugin_answers_is_not_believed_further_than_it_goes() {
    let bench = bench(&guest(), Calls::Stateful);
    let instance = bench.started().await;
    fails_in_words(&instance).await;
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
async fn an_instance_for_each_call_knows_its_configuration_and_nothing_else() {
    let bench = bench(&guest(), Calls::PerCall { instances: 2 });
    let instance = bench.launch().await.unwrap();
    initialize(&instance, r#"{"v":7}"#).await.unwrap();
    for _ in 0..3 {
        assert_eq!(quick(&instance, "count").await.unwrap(), "1");
        assert_eq!(quick(&instance, "initialized").await.unwrap(), "7");
    }
    assert_eq!(quick(&instance, "trap").await.unwrap_err().code, C::Crashed);
    assert_eq!(quick(&instance, "count").await.unwrap(), "1");
    assert_eq!(code(ask(&instance, "save_state", "null", TIME).await), C::NotFound);
    answers(&instance).await;
    asks_its_host(&instance, &bench.host).await;
    // So many at a time, and no more.
    let long = || tool(&instance, "long", "{}", Duration::from_millis(400));
    let third = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        tool(&instance, "count", "{}", Duration::from_millis(100)).await
    };
    let (one, two, three) = tokio::join!(long(), long(), third);
    assert_eq!([code(one), code(two)], [C::Deadline; 2]);
    assert!(three.unwrap_err().message.contains("all 2 instances are busy"));
    assert_eq!(quick(&instance, "count").await.unwrap(), "1");
}

#[tokio::test]
async fn a_request_goes_to_the_host_and_its_answer_comes_back() {
    let bench = bench(&guest(), Calls::Stateful);
    let instance = bench.started().await;
    asks_its_host(&instance, &bench.host).await;
}

#[tokio::test]
async fn an_import_without_its_right_is_refused_by_name_before_anything_runs() {
    let mut bench = bench(&guest(), Calls::Stateful);
    bench.rights(&[]);
    let refused = bench.launch().await.err().unwrap();
    is_refused_for_its_import(refused);
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

/// Whoever overwrites the file of a plugin that runs changes nothing for it, not even when its instance is made anew.
#[tokio::test]
async fn what_was_prepared_is_run_whatever_becomes_of_its_file() {
    let file = |bench: &Bench| bench.artifact.content.root.join("plugin.wasm");
    // The same plugin, but that it counts in hundreds.
    let other = GUEST.replace(
        "(i32.add (global.get $count) (i32.const 1))",
        "(i32.add (global.get $count) (i32.const 100))",
    );
    let other = component(&other, &["clock", "storage", "random"]);
    for calls in [Calls::Stateful, Calls::Stateless { instances: 2 }] {
        for new in [&other[..], b"no component at all", b""] {
            let bench = bench(&guest(), calls);
            let prepared = bench.backend.prepare(&bench.artifact).await.unwrap();
            let launch = || prepared.launch(bench.spec.clone(), bench.host.clone());
            let instance = launch().await.unwrap();
            initialize(&instance, "{}").await.unwrap();
            assert_eq!(quick(&instance, "count").await.unwrap(), "1");
            // In place, as an editor does it, and not another file of the same name.
            std::fs::write(file(&bench), new).unwrap();
            assert_eq!(quick(&instance, "count").await.unwrap(), "2");
            for _ in 0..3 {
                assert_eq!(code(quick(&instance, "trap").await), C::Crashed);
                assert_eq!(quick(&instance, "count").await.unwrap(), "1", "the code that it was");
            }
            // Nor does another launch of what was prepared read the file.
            let again = launch().await.unwrap();
            initialize(&again, "{}").await.unwrap();
            assert_eq!(quick(&again, "count").await.unwrap(), "1");
            // Whoever prepares it now gets what is there now.
            match bench.launch().await {
                Ok(changed) => {
                    initialize(&changed, "{}").await.unwrap();
                    assert_eq!(quick(&changed, "count").await.unwrap(), "100");
                }
                Err(refused) => {
                    assert_ne!(new, other, "{refused}");
                    assert!(matches!(refused, SandboxError::Artifact { .. }), "{refused:?}");
                }
            }
            assert_eq!(quick(&instance, "count").await.unwrap(), "2");
        }
    }
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
