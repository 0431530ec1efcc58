//! What was acknowledged is there after the host was killed with SIGKILL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stdout)]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use palisade_audit::{MemoryRecorder, SystemClock};
use palisade_broker::{Broker, Caller, Gate, ServiceRegistry};
use palisade_model::{
    Generation, InstanceId, Limits, NodeId, Origin, Payload, PluginId, PluginRef, Rates,
};
use palisade_policy::Rules;
use palisade_services::storage::{self, Storage};
use serde_json::{Value, json};

/// Where the child keeps its files.
const FOLDER: &str = "PALISADE_TEST_STORAGE";
const WRITERS: u64 = 16;
/// Acknowledgements after which the child is killed.
const ENOUGH: usize = 400;

fn room(folder: &Path) -> (Broker, Arc<Caller>) {
    let storage = Storage::open(folder, Arc::new(SystemClock)).unwrap();
    let services = Arc::new(ServiceRegistry::new());
    storage::register(&services, &storage).unwrap();
    let origin = Origin::Folder { path: "/srv/p".into(), owner: 1000 };
    let plugin = Arc::new(PluginRef { id: PluginId::parse("p").unwrap(), origin });
    let (node, generation) = (NodeId::local(), Generation(1));
    let instance = InstanceId { node, plugin, generation, serial: 1 };
    let rules = Rules::new(["storage.kv:*".parse().unwrap()].into_iter().collect(), []);
    let rates = Rates { requests_per_second: 1_000_000, ..Rates::default() };
    let limits = Limits { rates, ..Limits::default() };
    let caller = Caller::plugin(instance, Arc::new(rules), &limits, Arc::new(SystemClock));
    (Broker::new(Gate::new(Arc::new(MemoryRecorder::new(10))), services), caller)
}

async fn ask(broker: &Broker, caller: &Arc<Caller>, method: &str, params: Value) -> Value {
    let params = Payload::json(&params).unwrap();
    broker.request(caller, method, &params, None).await.unwrap().parse().unwrap()
}

/// Runs in the child: writes without end, and says what was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "not a test: what the test below starts and kills"]
async fn child() {
    let folder = std::env::var_os(FOLDER).expect("started by the test below");
    let (broker, caller) = room(Path::new(&folder));
    let count = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (broker, caller, count) = (broker.clone(), Arc::clone(&caller), Arc::clone(&count));
        tasks.spawn(async move {
            loop {
                let n = count.fetch_add(1, Ordering::SeqCst);
                // Two keys of one transaction, which must never be apart.
                let operations = json!([
                    {"op": "set", "key": format!("left/{writer}"), "value": n},
                    {"op": "set", "key": format!("right/{writer}"), "value": n},
                ]);
                let params = json!({ "operations": operations });
                let answer = ask(&broker, &caller, "storage.transaction", params).await;
                assert_eq!(answer["committed"], json!(true));
                // One write(2) a line, so that a line is whole or not there.
                let line = format!("acknowledged {writer} {n}\n");
                std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
            }
        });
    }
    if let Some(ended) = tasks.join_next().await {
        ended.unwrap()
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "child", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        let (mut count, mut lines) = (0, BufReader::new(child.stdout.take().unwrap()).lines());
        let mut note = |line: &str| {
            // The test harness may have begun a line of its own.
            let Some(at) = line.find("acknowledged ") else { return false };
            let mut words = line[at..].split(' ').skip(1).map(|word| word.parse::<u64>().unwrap());
            last.insert(words.next().unwrap(), words.next().unwrap());
            true
        };
        while count < ENOUGH {
            let line = lines.next().expect("the child goes on until it is killed").unwrap();
            count += usize::from(note(&line));
        }
        child.kill().unwrap();
        // What it had said before it died counts, too.
        for line in lines {
            note(&line.unwrap());
        }
        child.wait().unwrap();

        let (broker, caller) = room(folder.path());
        let listed =
            ask(&broker, &caller, "storage.list", json!({"values": true, "limit": 1000})).await;
        let found: BTreeMap<&str, u64> = listed["entries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| (entry["key"].as_str().unwrap(), entry["value"].as_u64().unwrap()))
            .collect();
        assert!(!last.is_empty());
        for (writer, n) in &last {
            let left = found[format!("left/{writer}").as_str()];
            assert!(left >= *n, "round {round}: {writer} had {n} acknowledged, there is {left}");
        }
        for writer in 0..WRITERS {
            let side = |side: &str| found.get(format!("{side}/{writer}").as_str());
            assert_eq!(side("left"), side("right"), "a transaction came apart");
        }
    }
}
