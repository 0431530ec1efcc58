use std::sync::atomic::{AtomicBool, Ordering};

use palisade_audit::{Phase, SystemClock};
use palisade_broker::{Broker, Caller};
use palisade_model::{ErrorCode, Payload};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::testing::{ManualClock, ask, broker, plugin, plugin_forbidden, plugin_from};

struct Room {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    storage: Storage,
    broker: Broker,
}

fn room() -> Room {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::new();
    let storage = Storage::open(folder.path().join("storage"), clock.clone()).unwrap();
    let (broker, _) = broker(|services, _| register(services, &storage).unwrap());
    Room { folder, clock, storage, broker }
}

impl Room {
    async fn ask(&self, who: &Arc<Caller>, method: &str, params: Value) -> Result<Value, Failure> {
        ask(&self.broker, who, &format!("storage.{method}"), params).await
    }

    async fn ok(&self, who: &Arc<Caller>, method: &str, params: Value) -> Value {
        self.ask(who, method, params).await.unwrap()
    }

    async fn code(&self, who: &Arc<Caller>, method: &str, params: Value) -> ErrorCode {
        self.ask(who, method, params).await.unwrap_err().code
    }

    fn file(&self, who: &Caller) -> PathBuf {
        self.storage.path_of(&who.instance().unwrap().plugin)
    }
}

use palisade_model::Failure;

fn all(id: &str) -> Arc<Caller> {
    plugin(id, &["storage.kv:*"])
}

#[tokio::test]
async fn what_is_set_is_found_again_as_it_was_written() {
    let room = room();
    let p = all("p");
    let none = json!({"found": false, "value": null, "version": 0});
    assert_eq!(room.ok(&p, "get", json!({"key": "a"})).await, none);
    let text = r#"{"key":"a","value":{"z":1.50,"a":123456789012345678901234567890,"n":null}}"#;
    let payload = Payload::from_json_text(text);
    room.broker.request(&p, "storage.set", &payload, None).await.unwrap();
    let get = Payload::from_json_text(r#"{"key":"a"}"#);
    let answer = room.broker.request(&p, "storage.get", &get, None).await.unwrap();
    let answer = std::str::from_utf8(answer.bytes()).unwrap().to_owned();
    assert!(
        answer.contains(r#""value":{"z":1.50,"a":123456789012345678901234567890,"n":null}"#),
        "{answer}"
    );
    let lines = Payload::from_json_text("{\"key\":\"l\",\"value\":[1,\r\n\"a\\n\"]}");
    room.broker.request(&p, "storage.set", &lines, None).await.unwrap();
    let get = Payload::from_json_text(r#"{"key":"l"}"#);
    let answer = room.broker.request(&p, "storage.get", &get, None).await.unwrap();
    assert!(!answer.bytes().contains(&b'\n'));
    assert_eq!(answer.parse::<Value>().unwrap()["value"], json!([1, "a\n"]));
    for value in [json!(null), json!(""), json!([]), json!("\u{0}\u{1f600}\n\"")] {
        room.ok(&p, "set", json!({"key": "b", "value": value})).await;
        let found = room.ok(&p, "get", json!({"key": "b"})).await;
        assert_eq!((&found["found"], &found["value"]), (&json!(true), &value));
    }
    assert_eq!(room.ok(&p, "delete", json!({"key": "b"})).await, json!({"deleted": true}));
    assert_eq!(room.ok(&p, "delete", json!({"key": "b"})).await, json!({"deleted": false}));
    assert_eq!(room.ok(&p, "get", json!({"key": "b"})).await["found"], json!(false));
}

#[tokio::test]
async fn compare_and_set_lets_exactly_one_of_many_win() {
    let room = room();
    let p = all("p");
    let set = |version: u64, n: u32| json!({"key": "c", "version": version, "value": n});
    let first = room.ok(&p, "compare_and_set", set(0, 1)).await;
    assert_eq!(first["stored"], json!(true));
    let version = first["version"].as_u64().unwrap();
    let second = room.ok(&p, "compare_and_set", set(0, 2)).await;
    assert_eq!(second, json!({"stored": false, "version": version}));

    // 20 askers add 10 each.
    let room = Arc::new(room);
    room.ok(&p, "set", json!({"key": "n", "value": 0})).await;
    let mut tasks = Vec::new();
    for _ in 0..20 {
        let (room, p) = (Arc::clone(&room), Arc::clone(&p));
        tasks.push(tokio::spawn(async move {
            for _ in 0..10 {
                loop {
                    let old = room.ok(&p, "get", json!({"key": "n"})).await;
                    let value = old["value"].as_u64().unwrap() + 1;
                    let params = json!({"key": "n", "version": old["version"], "value": value});
                    if room.ok(&p, "compare_and_set", params).await["stored"] == json!(true) {
                        break;
                    }
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(room.ok(&p, "get", json!({"key": "n"})).await["value"], json!(200));
}

#[tokio::test]
async fn a_version_never_comes_back_even_after_deletion_and_reopening() {
    let room = room();
    let p = all("p");
    let set = json!({"key": "a", "value": 1});
    let before = room.ok(&p, "set", set.clone()).await["version"].as_u64().unwrap();
    room.ok(&p, "delete", json!({"key": "a"})).await;
    room.storage.close(&p.instance().unwrap().plugin);
    assert_eq!(room.storage.open_files(), 0);
    let after = room.ok(&p, "set", set).await["version"].as_u64().unwrap();
    assert!(after > before);
}

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
async fn what_has_expired_is_invisible_at_once_and_removed_later() {
    let room = room();
    let p = all("p");
    for (key, ttl) in [("short", 1000), ("long", 60_000)] {
        room.ok(&p, "set", json!({"key": key, "value": 1, "ttl_ms": ttl})).await;
    }
    assert_eq!(room.ok(&p, "get", json!({"key": "short"})).await["ttl_ms"], json!(1000));
    room.clock.advance(Duration::from_millis(999));
    assert_eq!(room.ok(&p, "get", json!({"key": "short"})).await["ttl_ms"], json!(1));
    room.clock.advance(Duration::from_millis(1));
    assert_eq!(room.ok(&p, "get", json!({"key": "short"})).await["found"], json!(false));
    let listed = room.ok(&p, "list", json!({})).await;
    assert_eq!(listed["entries"].as_array().unwrap().len(), 1);
    assert_eq!(room.ok(&p, "delete", json!({"key": "short"})).await["deleted"], json!(false));
    let count = || -> i64 {
        let file = rusqlite::Connection::open(room.file(&p)).unwrap();
        file.query_row("SELECT count(*) FROM entries", [], |r| r.get(0)).unwrap()
    };
    assert_eq!(count(), 1, "the next write removed it");
    let cas = json!({"key": "long", "version": 0, "value": 2});
    assert_eq!(room.ok(&p, "compare_and_set", cas.clone()).await["stored"], json!(false));
    room.clock.advance(Duration::from_secs(60));
    assert_eq!(room.ok(&p, "compare_and_set", cas).await["stored"], json!(true));
    assert!(room.ok(&p, "get", json!({"key": "long"})).await.get("ttl_ms").is_none());
    for ttl in [json!(0), json!(MAX_TTL + 1), json!(-1), json!("1s"), json!(1e300)] {
        let params = json!({"key": "x", "value": 1, "ttl_ms": ttl});
        assert_eq!(room.code(&p, "set", params).await, ErrorCode::InvalidParams);
    }
}

#[tokio::test]
async fn the_quota_holds_and_says_what_to_do() {
    let room = room();
    let quota = 10_000;
    let p = plugin_from("p", "/srv/p", &["storage.kv:*"], &[], quota);
    let value = "x".repeat(1000);
    let entry = 3 + 1002 + ENTRY_BYTES;
    let fits = quota / entry;
    for n in 0..fits {
        room.ok(&p, "set", json!({"key": format!("k{n:02}"), "value": value})).await;
    }
    let more = json!({"key": "k99", "value": value});
    let failure = room.ask(&p, "set", more.clone()).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::LimitExceeded);
    assert!(failure.message.contains("10000") && failure.hint.is_some(), "{failure:?}");
    // Small ones count, too.
    let small = json!({"operations": (0..100).map(|n| {
        json!({"op": "set", "key": format!("s{n}"), "value": 0})
    }).collect::<Vec<_>>()});
    assert_eq!(room.code(&p, "transaction", small).await, ErrorCode::LimitExceeded);
    assert_eq!(room.ok(&p, "get", json!({"key": "s0"})).await["found"], json!(false));
    // Replacing by something smaller, and deleting, makes room.
    room.ok(&p, "set", json!({"key": "k00", "value": 1})).await;
    room.ok(&p, "set", more.clone()).await;
    assert_eq!(
        room.code(&p, "set", json!({"key": "k00", "value": value})).await,
        ErrorCode::LimitExceeded
    );
    room.ok(&p, "delete", json!({"key": "k99"})).await;
    // A transaction counts at its end.
    let swap = json!({"operations": [
        {"op": "set", "key": "k99", "value": value},
        {"op": "set", "key": "k98", "value": value},
        {"op": "delete", "key": "k99"},
    ]});
    assert_eq!(room.ok(&p, "transaction", swap).await["committed"], json!(true));
    // What has expired makes room before anything is refused.
    room.ok(&p, "set", json!({"key": "k98", "value": value, "ttl_ms": 5})).await;
    room.clock.advance(Duration::from_millis(5));
    room.ok(&p, "set", more).await;
    // The count is right after all of this, and after reopening.
    room.storage.close(&p.instance().unwrap().plugin);
    room.ok(&p, "delete", json!({"key": "none"})).await;
    let file = rusqlite::Connection::open(room.file(&p)).unwrap();
    let sums: (i64, i64) = file
        .query_row(
            "SELECT (SELECT used FROM state),
               (SELECT sum(octet_length(key) + octet_length(value) + 64) FROM entries)",
            [],
            |r| Ok((r.get(0)?, r.get(1)?)),
        )
        .unwrap();
    assert_eq!(sums.0, sums.1);
    // A quota that was lowered below what is there lets the plugin make it less.
    let p = plugin_from("p", "/srv/p", &["storage.kv:*"], &[], 100);
    assert_eq!(
        room.code(&p, "set", json!({"key": "n", "value": 1})).await,
        ErrorCode::LimitExceeded
    );
    room.ok(&p, "set", json!({"key": "k01", "value": 1})).await;
    room.ok(&p, "delete", json!({"key": "k02"})).await;
}

#[tokio::test]
async fn a_transaction_is_all_or_nothing() {
    let room = room();
    let p = all("p");
    let one = room.ok(&p, "set", json!({"key": "a", "value": 1})).await["version"].clone();
    let failed = room
        .ok(
            &p,
            "transaction",
            json!({"operations": [
                {"op": "set", "key": "b", "value": 1},
                {"op": "delete", "key": "a"},
                {"op": "check", "key": "c", "version": 7},
            ]}),
        )
        .await;
    assert_eq!(failed, json!({"committed": false, "conflict": 2, "found": 0}));
    assert_eq!(room.ok(&p, "get", json!({"key": "b"})).await["found"], json!(false));
    assert_eq!(room.ok(&p, "get", json!({"key": "a"})).await["version"], one);
    let done = room
        .ok(
            &p,
            "transaction",
            json!({"operations": [
                {"op": "set", "key": "a", "value": null, "version": one},
                {"op": "check", "key": "c", "version": 0},
                {"op": "set", "key": "b", "value": 3},
                {"op": "delete", "key": "b"},
            ]}),
        )
        .await;
    assert_eq!(done["committed"], json!(true));
    assert_eq!((&done["versions"][1], &done["versions"][3]), (&json!(0), &json!(0)));
    assert_eq!(room.ok(&p, "get", json!({"key": "a"})).await["value"], json!(null));
    for operations in [
        json!([]),
        json!([{"op": "set", "key": "a"}]),
        json!([{"op": "check", "key": "a"}]),
        json!([{"op": "delete", "key": "a", "value": 1}]),
        json!([{"op": "delete", "key": "a", "ttl_ms": 1}]),
        json!([{"op": "drop", "key": "a"}]),
        json!([{"op": "delete", "key": "a", "x": 1}]),
        json!(vec![json!({"op": "delete", "key": "a"}); MAX_OPERATIONS + 1]),
        json!({"op": "delete", "key": "a"}),
    ] {
        let code = room.code(&p, "transaction", json!({"operations": operations})).await;
        assert_eq!(code, ErrorCode::InvalidParams, "{operations}");
    }
}

#[tokio::test]
async fn a_listing_comes_in_pages_that_miss_and_repeat_nothing() {
    let room = room();
    let p = all("p");
    let keys: Vec<String> = (0..57).map(|n| format!("k/{n:03}")).collect();
    for key in &keys {
        room.ok(&p, "set", json!({"key": key, "value": key})).await;
    }
    for key in ["k", "k.", "k0", "l"] {
        room.ok(&p, "set", json!({"key": key, "value": 0})).await;
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let params = json!({"prefix": "k/", "limit": 10, "values": true, "after": after});
        let page = room.ok(&p, "list", params).await;
        for entry in page["entries"].as_array().unwrap() {
            assert_eq!(entry["key"], entry["value"]);
            seen.push(entry["key"].as_str().unwrap().to_owned());
        }
        match page.get("next") {
            Some(next) => after = Some(next.as_str().unwrap().to_owned()),
            None => break,
        }
    }
    assert_eq!(seen, keys);
    let all = room.ok(&p, "list", json!({})).await;
    assert_eq!(all["entries"].as_array().unwrap().len(), 61);
    assert!(all["entries"][0].get("value").is_none());
    // `after` cannot lead out of the prefix.
    let page = room.ok(&p, "list", json!({"prefix": "l", "after": "a"})).await;
    assert_eq!(page["entries"].as_array().unwrap().len(), 1);
    let page = room.ok(&p, "list", json!({"prefix": "k/", "after": "z"})).await;
    assert_eq!(page, json!({"entries": []}));
    for limit in [json!(0), json!(MAX_LIST + 1), json!(-1)] {
        let code = room.code(&p, "list", json!({"limit": limit})).await;
        assert_eq!(code, ErrorCode::InvalidParams);
    }
    // Large values make short pages instead of answers that are refused.
    for n in 0..6 {
        let value = "v".repeat(MAX_VALUE - 2);
        room.ok(&p, "set", json!({"key": format!("big{n}"), "value": value})).await;
    }
    let page = room.ok(&p, "list", json!({"prefix": "big", "values": true})).await;
    let count = page["entries"].as_array().unwrap().len();
    assert!((1..6).contains(&count) && page.get("next").is_some(), "{count}");
}

#[tokio::test]
async fn keys_and_values_are_bounded() {
    let room = room();
    let p = all("p");
    let long = "k".repeat(MAX_KEY + 1);
    for key in ["", "a b", "a\0", "é", "a*", "../x y", &long] {
        for method in ["get", "delete"] {
            let code = room.code(&p, method, json!({"key": key})).await;
            assert_eq!(code, ErrorCode::InvalidParams, "{key:?}");
        }
    }
    room.ok(&p, "set", json!({"key": "k".repeat(MAX_KEY), "value": 1})).await;
    room.ok(&p, "set", json!({"key": "../../etc/passwd", "value": 1})).await;
    assert_eq!(room.code(&p, "list", json!({"prefix": long})).await, ErrorCode::InvalidParams);
    room.ok(&p, "set", json!({"key": "v", "value": "x".repeat(MAX_VALUE - 2)})).await;
    let code = room.code(&p, "set", json!({"key": "v", "value": "x".repeat(MAX_VALUE - 1)})).await;
    assert_eq!(code, ErrorCode::LimitExceeded);
    assert_eq!(room.code(&p, "set", json!({"key": "v"})).await, ErrorCode::InvalidParams);
}

#[tokio::test]
async fn a_damaged_file_is_a_typed_error_that_names_it() {
    let room = room();
    let p = all("p");
    room.ok(&p, "set", json!({"key": "a", "value": 1})).await;
    room.storage.close(&p.instance().unwrap().plugin);
    // The threads end on their own; the file is theirs until then.
    let file = room.file(&p);
    let wal = file.with_extension("db-wal");
    for _ in 0..200 {
        if !wal.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    std::fs::write(&file, "this is not a database, whatever the name says".repeat(100)).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    for method in ["get", "delete"] {
        let failure = room.ask(&p, method, json!({"key": "a"})).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::Unavailable);
        assert!(failure.message.contains(name) && failure.message.contains("damaged"), "{failure}");
        assert!(failure.hint.as_ref().unwrap().contains("-wal"));
        let folder = room.folder.path().to_str().unwrap();
        assert!(!format!("{failure:?}").contains(folder), "where the host keeps it is not told");
    }
    // What the operator is told to do helps.
    std::fs::remove_file(&file).unwrap();
    room.ok(&p, "set", json!({"key": "a", "value": 2})).await;
    // A page that is damaged later.
    let q = all("q");
    for n in 0..200 {
        room.ok(&q, "set", json!({"key": format!("k{n}"), "value": "x".repeat(200)})).await;
    }
    let mut connection = rusqlite::Connection::open(room.file(&q)).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    let _ = connection.transaction();
    drop(connection);
    room.storage.close(&q.instance().unwrap().plugin);
    let failure = loop {
        match room.ask(&q, "get", json!({"key": "k1"})).await {
            Err(failure) => break failure,
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert!(failure.message.contains("format 99"), "{failure}");
}

#[tokio::test]
async fn files_that_are_not_used_are_closed_and_only_so_many_are_open() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { idle: Duration::from_millis(50), open: 3 };
    let storage = Storage::open_with(folder.path(), options, Arc::new(SystemClock)).unwrap();
    let (broker, _) = broker(|services, _| register(services, &storage).unwrap());
    for n in 0..10 {
        let p = all(&format!("p{n}"));
        ask(&broker, &p, "storage.set", json!({"key": "a", "value": n})).await.unwrap();
        assert!(storage.open_files() <= 3);
    }
    for n in 0..10 {
        let p = all(&format!("p{n}"));
        let found = ask(&broker, &p, "storage.get", json!({"key": "a"})).await.unwrap();
        assert_eq!(found["value"], json!(n));
    }
    for _ in 0..200 {
        if storage.open_files() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} files are still open", storage.open_files());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_that_share_a_folder_do_not_lose_each_others_writes() {
    let folder = tempfile::tempdir().unwrap();
    let p = all("p");
    let mut tasks = Vec::new();
    for host in 0..2 {
        let storage = Storage::open(folder.path(), Arc::new(SystemClock)).unwrap();
        let (broker, _) = broker(|services, _| register(services, &storage).unwrap());
        let p = Arc::clone(&p);
        tasks.push(tokio::spawn(async move {
            for n in 0..100 {
                let params = json!({"key": format!("{host}/{n}"), "value": n});
                ask(&broker, &p, "storage.set", params).await.unwrap();
            }
            ask(&broker, &p, "storage.list", json!({"limit": 1000})).await.unwrap()
        }));
    }
    let mut most = 0;
    for task in tasks {
        most = most.max(task.await.unwrap()["entries"].as_array().unwrap().len());
    }
    assert_eq!(most, 200);
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

#[tokio::test]
async fn who_gives_up_harms_nobody() {
    let room = Arc::new(room());
    let p = all("p");
    let done = Arc::new(AtomicBool::new(false));
    let task = {
        let (room, p, done) = (Arc::clone(&room), Arc::clone(&p), Arc::clone(&done));
        tokio::spawn(async move {
            for n in 0.. {
                room.ok(&p, "set", json!({"key": "a", "value": n})).await;
                if done.load(Ordering::SeqCst) {
                    break;
                }
            }
        })
    };
    for _ in 0..50 {
        let asked = room.ok(&p, "set", json!({"key": "b", "value": 1}));
        let _ = tokio::time::timeout(Duration::from_micros(50), asked).await;
        let asked = room.ok(&p, "get", json!({"key": "b"}));
        let _ = tokio::time::timeout(Duration::from_micros(20), asked).await;
    }
    done.store(true, Ordering::SeqCst);
    task.await.unwrap();
    room.ok(&p, "set", json!({"key": "c", "value": 1})).await;
}

#[derive(Clone, Debug)]
enum Step {
    Set(u8, u8, Option<u64>),
    Delete(u8),
    Cas(u8, bool, u8),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0u8..6;
    prop_oneof![
        (key.clone(), any::<u8>(), proptest::option::of(1u64..50))
            .prop_map(|(k, v, t)| Step::Set(k, v, t)),
        key.clone().prop_map(Step::Delete),
        (key, any::<bool>(), any::<u8>()).prop_map(|(k, right, v)| Step::Cas(k, right, v)),
        (1u64..60).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the order of steps, storage holds what a map would.
    #[test]
    fn storage_is_a_map_with_expiry(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let room = room();
            let p = all("p");
            let mut now = 0;
            let mut model: std::collections::BTreeMap<String, (u8, u64, Option<u64>)> = Default::default();
            for step in steps {
                model.retain(|_, (_, _, expires)| expires.is_none_or(|at| at > now));
                match step {
                    Step::Set(k, v, ttl) => {
                        let key = format!("k{k}");
                        let mut params = json!({"key": key, "value": v});
                        if let Some(ttl) = ttl {
                            params["ttl_ms"] = json!(ttl);
                        }
                        let version = room.ok(&p, "set", params).await["version"].as_u64().unwrap();
                        model.insert(key, (v, version, ttl.map(|ttl| now + ttl)));
                    }
                    Step::Delete(k) => {
                        let key = format!("k{k}");
                        let deleted = room.ok(&p, "delete", json!({"key": key})).await;
                        assert_eq!(deleted["deleted"], json!(model.remove(&key).is_some()));
                    }
                    Step::Cas(k, right, v) => {
                        let key = format!("k{k}");
                        let is = model.get(&key).map_or(0, |e| e.1);
                        let version = if right { is } else { is + 1000 };
                        let params = json!({"key": key, "version": version, "value": v});
                        let answer = room.ok(&p, "compare_and_set", params).await;
                        assert_eq!(answer["stored"], json!(right));
                        if right {
                            model.insert(key, (v, answer["version"].as_u64().unwrap(), None));
                        } else {
                            assert_eq!(answer["version"], json!(is));
                        }
                    }
                    Step::Pass(ms) => {
                        now += ms;
                        room.clock.advance(Duration::from_millis(ms));
                    }
                }
            }
            model.retain(|_, (_, _, expires)| expires.is_none_or(|at| at > now));
            let listed = room.ok(&p, "list", json!({"values": true})).await;
            let listed: Vec<_> = listed["entries"].as_array().unwrap().iter()
                .map(|e| (e["key"].as_str().unwrap().to_owned(), e["value"].as_u64().unwrap(), e["version"].as_u64().unwrap()))
                .collect();
            let wanted: Vec<_> = model.into_iter().map(|(k, (v, n, _))| (k, u64::from(v), n)).collect();
            assert_eq!(listed, wanted);
        });
    }
}
