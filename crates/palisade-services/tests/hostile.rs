//! Whatever a plugin sends as parameters, every built-in service answers, and none fails within.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{sync::Arc, time::Duration};

use common::{Room, room};
use palisade_broker::Reach;
use palisade_model::{ErrorCode, Failure, Payload};
use palisade_services::log::TracingSink;
use proptest::prelude::*;
use serde_json::{Value, json};

async fn ask(room: &Room, method: &str, params: &[u8]) -> Result<Payload, Failure> {
    let payload = Payload::from_json_text(params.to_vec());
    let answer = room.broker.request(&room.caller, method, &payload, None);
    tokio::time::timeout(Duration::from_secs(20), answer).await.expect("an answer")
}

fn check(method: &str, params: &[u8], answer: &Result<Payload, Failure>) {
    if let Err(failure) = answer {
        let shown = String::from_utf8_lossy(&params[..params.len().min(300)]);
        assert_ne!(failure.code, ErrorCode::Internal, "{method} {shown}: {failure}");
        let text = format!("{failure:?}");
        assert!(text.len() < 8192, "{method} {shown}: a failure of {} bytes", text.len());
        let spoken = failure.message.clone() + failure.hint.as_deref().unwrap_or_default();
        assert!(!spoken.contains(char::is_control), "{method} {shown}: {spoken:?}");
    }
}

#[tokio::test]
async fn no_parameters_make_a_service_fail() {
    let folder = tempfile::tempdir().unwrap();
    let room = room(folder.path(), Arc::new(TracingSink));
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let names =
        ["key", "value", "url", "subject", "event", "name", "message", "prefix", "operations"];
    let mut all: Vec<Vec<u8>> = [
        "",
        "null",
        "{}",
        "[]",
        "0",
        "\"\"",
        "true",
        "{",
        "}",
        "nul",
        "\u{feff}{}",
        "[[]]",
        r#"{"key":"a","key":"b"}"#,
        r#"{"\u0000":1}"#,
        r#"{"key":"\ud800"}"#,
        r#"["a",1,2,3,4,5]"#,
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    all.push(deep.clone().into_bytes());
    all.push(vec![0xff; 100]);
    all.push(b"{\"key\":\"\xff\"}".to_vec());
    for name in names {
        for value in [
            "null",
            "1",
            "-1",
            "1e999",
            "18446744073709551616",
            "\"\"",
            "\"\\u001b[31m\\u202e\"",
            "{}",
            "[]",
            "[{}]",
            "[null]",
            "true",
            deep.as_str(),
        ] {
            all.push(format!("{{\"{name}\":{value}}}").into_bytes());
            all.push(format!("{{\"key\":\"k\",\"value\":1,\"{name}_x\":{value}}}").into_bytes());
        }
    }
    // More than most services take, and than any takes.
    for size in [1 << 20, 4 << 20] {
        all.push(format!("{{\"key\":\"{}\"}}", "x".repeat(size)).into_bytes());
    }
    let methods = room.services.names(Reach::Method);
    assert!(methods.len() >= 13, "{methods:?}");
    for method in methods.iter().map(String::as_str).chain(["host.call", "no.such", "storage.", ""])
    {
        for params in &all {
            check(method, params, &ask(&room, method, params).await);
        }
    }
    // It still works.
    ask(&room, "storage.set", br#"{"key":"a","value":1}"#).await.unwrap();
}

/// Names that services know, and others.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::sample::select(vec![
            "key", "value", "version", "ttl_ms", "prefix", "after", "limit", "values", "operations",
            "op", "url", "method", "headers", "body", "body_base64", "timeout_ms", "redirect",
            "subject", "data", "event", "name", "params", "level", "message", "fields", "default",
        ])
        .prop_map(str::to_owned),
        1 => "\\PC{0,8}",
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|n| json!(n)),
        (0u64..5).prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        "[a-z0-9/.*>]{0,10}".prop_map(Value::from),
        prop::sample::select(vec![
            "set",
            "delete",
            "check",
            "GET",
            "http://127.0.0.1:9/",
            "https://127.0.0.1:9/x?y",
            "http://example.org/",
            "known",
            "echo",
            "YQ==",
            "info",
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(name(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_generated_parameters_make_a_service_fail(
        asked in prop::collection::vec(
            (any::<prop::sample::Index>(), prop::collection::hash_map(name(), value(), 0..6)),
            1..20,
        )
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let room = room(folder.path(), Arc::new(TracingSink));
            let methods = room.services.names(Reach::Method);
            for (method, params) in &asked {
                let method = method.get(&methods);
                let params = serde_json::to_vec(params).unwrap();
                check(method, &params, &ask(&room, method, &params).await);
            }
        });
    }
}
