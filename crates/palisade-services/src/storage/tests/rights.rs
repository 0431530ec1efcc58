//! Who finds what, and what is written about it.

use palisade_audit::{Phase, SystemClock};

use super::*;
use crate::testing::{plugin_forbidden, plugin_from};

#[tokio::test]
async fn rights_are_held_against_every_key() {
    let room = room();
    let p = plugin("p", &["storage.kv:mine/*", "storage.kv:one"]);
    for key in ["mine/a", "mine/", "one"] {
        room.ok(&p, "set", json!({"key": key, "value": 1})).await;
    }
    for key in ["mine", "ones", "one/a", "other"] {
        let denied = room.code(&p, "set", json!({"key": key, "value": 1})).await;
        assert_eq!(denied, ErrorCode::Denied, "{key}");
        for method in ["get", "delete"] {
            assert_eq!(room.code(&p, method, json!({"key": key})).await, ErrorCode::Denied);
        }
        let cas = json!({"key": key, "version": 0, "value": 1});
        assert_eq!(room.code(&p, "compare_and_set", cas).await, ErrorCode::Denied);
        // At whichever place of a transaction it stands.
        for other in [
            json!({"op": "set", "key": key, "value": 1}),
            json!({"op": "check", "key": key, "version": 0}),
        ] {
            let mine = json!({"op": "set", "key": "one", "value": 2});
            for operations in [json!([other, mine]), json!([mine, other])] {
                let params = json!({"operations": operations});
                assert_eq!(room.code(&p, "transaction", params).await, ErrorCode::Denied);
            }
        }
    }
    assert_eq!(room.ok(&p, "get", json!({"key": "one"})).await["value"], json!(1));
    for prefix in ["mine/", "mine/a"] {
        room.ok(&p, "list", json!({"prefix": prefix})).await;
    }
    // A right to the name alone does not cover what begins with it.
    for prefix in ["one", "mine", ""] {
        let failure = room.ask(&p, "list", json!({"prefix": prefix})).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::Denied, "{prefix}");
        assert!(failure.hint.unwrap().contains("storage.kv:"));
    }
}

#[tokio::test]
async fn what_a_forbid_covers_is_not_listed() {
    let room = room();
    let writer = all("p");
    for key in ["a", "private/x", "z"] {
        room.ok(&writer, "set", json!({"key": key, "value": 1})).await;
    }
    let reader = plugin_forbidden("p", &["storage.kv:*"], &["storage.kv:private/*"]);
    let listed = room.ok(&reader, "list", json!({})).await;
    let keys: Vec<&str> =
        listed["entries"].as_array().unwrap().iter().map(|e| e["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["a", "z"]);
    let get = json!({"key": "private/x"});
    assert_eq!(room.code(&reader, "get", get).await, ErrorCode::Denied);
}

#[tokio::test]
async fn another_origin_of_the_same_id_finds_nothing() {
    let room = room();
    let here = plugin_from("p", "/srv/here", &["storage.kv:*"], &[], 1 << 20);
    let there = plugin_from("p", "/srv/there", &["storage.kv:*"], &[], 1 << 20);
    room.ok(&here, "set", json!({"key": "a", "value": "mine"})).await;
    assert_eq!(room.ok(&there, "get", json!({"key": "a"})).await["found"], json!(false));
    assert_eq!(room.ok(&there, "list", json!({})).await, json!({"entries": []}));
    assert_ne!(room.file(&here), room.file(&there));
    let outsider = Caller::application();
    assert_eq!(room.code(&outsider, "get", json!({"key": "a"})).await, ErrorCode::Usage);
}

#[tokio::test]
async fn the_folder_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let room = room();
    let mode = room.folder.path().join("storage").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn the_record_names_the_key_and_not_the_value() {
    let storage_folder = tempfile::tempdir().unwrap();
    let storage = Storage::open(storage_folder.path(), Arc::new(SystemClock)).unwrap();
    let (broker, recorder) = broker(|services, _| register(services, &storage).unwrap());
    let p = plugin("p", &["storage.kv:n/*"]);
    ask(&broker, &p, "storage.set", json!({"key": "n/a", "value": "hush"})).await.unwrap();
    ask(&broker, &p, "storage.list", json!({"prefix": "n/"})).await.unwrap();
    ask(&broker, &p, "storage.list", json!({})).await.unwrap_err();
    let records = recorder.records();
    let targets: Vec<_> = records
        .iter()
        .filter(|r| r.phase != Phase::Outcome)
        .map(|r| r.target.as_deref().unwrap())
        .collect();
    assert_eq!(targets, ["n/a", "storage.kv:n/*", "*"]);
    assert!(!serde_json::to_string(&records).unwrap().contains("hush"));
}
