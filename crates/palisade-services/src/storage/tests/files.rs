//! The files: how large they become, what harms them, and who shares them.

use std::sync::atomic::{AtomicBool, Ordering};

use palisade_audit::SystemClock;

use super::*;
use crate::testing::plugin_from;

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
