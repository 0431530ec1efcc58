use std::{
    future::Future,
    panic::AssertUnwindSafe,
    task::{Context, Poll, Waker},
};

use palisade_audit::SystemClock;
use palisade_model::{Origin, PluginId};

use super::*;
use crate::storage::database::Action;

/// Counts how often the threads of a file ask for the time, which they do once for each job.
#[derive(Default)]
struct Spy {
    writer: AtomicU64,
    reader: AtomicU64,
}

impl Clock for Spy {
    fn now(&self) -> Stamp {
        match std::thread::current().name() {
            Some("palisade-storage") => self.writer.fetch_add(1, Ordering::SeqCst),
            // Linux cuts names after 15 bytes, Rust does not.
            Some("palisade-storage-read") => self.reader.fetch_add(1, Ordering::SeqCst),
            _ => 0,
        };
        SystemClock.now()
    }
}

impl Spy {
    fn jobs(&self) -> (u64, u64) {
        (self.writer.load(Ordering::SeqCst), self.reader.load(Ordering::SeqCst))
    }
}

struct Room {
    folder: tempfile::TempDir,
    spy: Arc<Spy>,
    handle: Arc<Handle>,
}

fn room() -> Room {
    let folder = tempfile::tempdir().unwrap();
    let spy = Arc::new(Spy::default());
    let origin = Origin::Folder { path: "/srv/p".into(), owner: 1000 };
    let plugin = Arc::new(PluginRef { id: PluginId::parse("p").unwrap(), origin });
    let idle = Duration::from_secs(60);
    let who = (plugin, "p".into());
    let handle =
        Handle::open(folder.path().join("p.db"), who, spy.clone(), idle, Weak::new()).unwrap();
    Room { folder, spy, handle: Arc::new(handle) }
}

fn to(key: &str, value: impl ToString) -> Vec<Change> {
    let action = Action::Set { value: value.to_string(), expires: None };
    vec![Change { key: key.to_owned(), action, version: None }]
}

impl Room {
    /// The version that the entry has now.
    async fn set(&self, key: &str, value: impl ToString) -> u64 {
        match self.handle.write(to(key, value), u64::MAX).await.unwrap() {
            Applied::Done(versions) => versions[0].1,
            other => panic!("{other:?}"),
        }
    }

    async fn get(&self, key: &str) -> Option<String> {
        self.handle.get(key).await.unwrap().0.map(|row| row.value)
    }

    /// The first write and the first read open the file. Each is done by a thread, which answers a moment before it lets
    /// go of it.
    async fn opened(&self) {
        self.set("a", 0).await;
        self.get("a").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    fn free_turns(&self) -> usize {
        self.handle.writing.available_permits()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_alone_does_without_the_threads() {
    let room = room();
    room.opened().await;
    assert_eq!(room.spy.jobs(), (1, 1));
    for n in 1..50 {
        room.set("a", n).await;
        assert_eq!(room.get("a").await, Some(n.to_string()));
    }
    assert_eq!(room.spy.jobs(), (1, 1));
    // What takes longer is done by the threads.
    let large = "1".repeat(100_000);
    room.set("large", &large).await;
    assert_eq!(room.get("large").await, Some(large));
    assert_eq!(room.spy.jobs(), (2, 2));
    let many = (0..17).flat_map(|n| to(&format!("m{n}"), n)).collect();
    room.handle.write(many, u64::MAX).await.unwrap();
    assert_eq!((room.spy.jobs(), room.get("m16").await), ((3, 2), Some("16".into())));
    assert_eq!(room.free_turns(), MAX_WAITING);
}

#[tokio::test]
async fn the_only_thread_of_a_runtime_never_waits_for_the_disk() {
    let room = room();
    room.opened().await;
    for n in 1..20 {
        room.set("a", n).await;
        assert_eq!(room.get("a").await, Some(n.to_string()));
    }
    // A small value does not wait.
    assert_eq!(room.spy.jobs(), (20, 1));
}

#[test]
fn a_local_set_which_must_not_block_writes_by_the_thread() {
    let room = room();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        for n in 0..5 {
            room.set("a", n).await;
        }
        assert_eq!(room.get("a").await, Some("4".into()));
    });
    assert_eq!(room.spy.jobs().0, 5);
    assert_eq!(room.free_turns(), MAX_WAITING);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_are_done_in_the_order_in_which_they_were_asked_for() {
    let room = Arc::new(room());
    let mut tasks = tokio::task::JoinSet::new();
    for asker in 0..4 {
        let room = Arc::clone(&room);
        tasks.spawn(async move {
            let key = format!("k{asker}");
            for round in 0..100 {
                // Together at times, and each alone at others: both ways are taken.
                let value = |n: u32| format!("[{round},{n}]");
                let (a, b, c) = tokio::join!(
                    room.set(&key, value(0)),
                    room.set(&key, value(1)),
                    room.set(&key, value(2))
                );
                assert!(a < b && b < c, "round {round}: {a} {b} {c}");
                assert_eq!(room.get(&key).await, Some(value(2)));
                if asker % 2 == 0 {
                    tokio::time::sleep(Duration::from_micros(300)).await;
                }
            }
        });
    }
    tasks.join_all().await;
    let (writer, _) = room.spy.jobs();
    assert!((1..1200).contains(&writer), "{writer} transactions of the thread");
}

/// Asks, and gives up when it has to wait.
fn give_up<F: Future>(asked: F) -> Option<F::Output> {
    // A task that does much is told to wait now and then; that is not what is meant.
    let asked = std::pin::pin!(tokio::task::unconstrained(asked));
    match asked.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_given_up_still_counts_until_it_is_done() {
    let room = room();
    room.set("a", "before").await;
    let slot = room.handle.writes.slot.upgrade().unwrap();
    let held = slot.lock();
    for n in 0..MAX_WAITING {
        assert!(give_up(room.handle.write(to("a", n), u64::MAX)).is_none());
        // So nothing that is asked later can go before it, and memory stays bounded.
        assert_eq!(room.free_turns(), MAX_WAITING - n - 1);
    }
    // This one has not even been queued, so it is not done.
    assert!(give_up(room.handle.write(to("a", "never"), u64::MAX)).is_none());
    drop(held);
    drop(slot);
    room.set("b", 1).await;
    assert_eq!(room.get("a").await, Some((MAX_WAITING - 1).to_string()));
    while room.free_turns() < MAX_WAITING {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_the_middle_costs_nothing_but_what_it_was_doing() {
    let room = room();
    room.set("a", 1).await;
    {
        let slot = room.handle.writes.slot.upgrade().unwrap();
        let mut connection = slot.try_lock(1).unwrap();
        let half = to("half", 1);
        let groups = once((half.as_slice(), u64::MAX))
            .chain(std::iter::from_fn(|| panic!("in the middle of a transaction")));
        let now = now_ms(&SystemClock);
        let done = connection.run(|database| in_place(|| database.apply_if_free(groups, now)));
        assert!(matches!(done, Err(StorageError::Closed)));
        drop(connection);
        // Closed, and the lock is free.
        assert!(slot.try_lock(1).is_none());
        assert!(connection_is_closed(&slot));
    }
    assert_eq!((room.get("half").await, room.get("a").await), (None, Some("1".into())));
    room.set("a", 2).await;
    let by_thread = room.spy.jobs().0;
    assert_eq!(by_thread, 2, "the thread opened it again");
    room.set("a", 3).await;
    assert_eq!((room.spy.jobs().0, room.get("a").await), (by_thread, Some("3".into())));

    let read = room.handle.read::<()>(|_, _| panic!("while reading")).await;
    assert!(matches!(*read.unwrap_err(), StorageError::Closed));
    assert_eq!(room.get("a").await, Some("3".into()));
}

fn connection_is_closed(slot: &Slot) -> bool {
    let mut connection = slot.lock();
    let ran = std::panic::catch_unwind(AssertUnwindSafe(|| connection.run(|_| ())));
    matches!(ran, Ok(Err(StorageError::Closed)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_asks_alone_does_not_wait_for_another_process() {
    let room = room();
    room.set("a", 1).await;
    let other = rusqlite::Connection::open(room.folder.path().join("p.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE; UPDATE state SET version = version + 1000").unwrap();
    let asked = room.set("a", 2);
    tokio::pin!(asked);
    // Were the asker to wait, it would do so before it returned, for as long as nobody commits.
    assert!(give_up(asked.as_mut()).is_none());
    assert_eq!(room.get("a").await, Some("1".into()), "readers go on");
    other.execute_batch("COMMIT").unwrap();
    assert!(asked.await > 1000);
    assert_eq!(room.spy.jobs().0, 2);
}
