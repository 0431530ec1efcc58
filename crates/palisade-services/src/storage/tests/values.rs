//! What is set, and what is found of it.

use palisade_model::Payload;

use super::*;

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
