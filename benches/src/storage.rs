//! `storage_vs_sqlite`: what a plugin's storage does in a second, over SQLite used directly.
//!
//! Ours is [`Broker::request`]: parameters read, rates, decision among 20 rights, intent and outcome in
//! a JSON-lines file, one SQLite file with a sync before each answer. The baseline is one connection in
//! a loop: the same table, the same pragmas, one transaction an operation, no check and no record.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_audit::{JsonLinesRecorder, SystemClock};
use palisade_broker::{Broker, Caller, Gate, ServiceRegistry};
use palisade_model::{
    CapabilitySet, Generation, InstanceId, Limits, NodeId, Origin, Payload, PluginId, PluginRef,
    Rates,
};
use palisade_policy::Rules;
use palisade_services::storage::{self, Storage};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::{
    plugin::Result,
    report::{Row, Samples},
};

const ROUNDS: usize = 21;
/// How long a side is measured in a round.
const SLICE: Duration = Duration::from_millis(300);
const KEYS: u64 = 1000;
/// Bytes of a value, as JSON text.
const VALUE: usize = 100;

/// The table of a plugin's file, without its counters.
const SCHEMA: &str = "
CREATE TABLE entries (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  value TEXT NOT NULL,
  version INTEGER NOT NULL,
  expires INTEGER
) STRICT;
CREATE INDEX entries_expires ON entries (expires) WHERE expires IS NOT NULL;
";

/// What is asked.
#[derive(Clone, Copy)]
struct Mix {
    name: &'static str,
    askers: u64,
    /// One operation of so many writes; 0: none does.
    write_each: u64,
}

const MIXES: [Mix; 4] = [
    Mix { name: "storage_vs_sqlite", askers: 16, write_each: 1 },
    Mix { name: "storage_vs_sqlite.one_asker", askers: 1, write_each: 1 },
    Mix { name: "storage_vs_sqlite.one_write_in_ten", askers: 16, write_each: 10 },
    Mix { name: "storage_vs_sqlite.reads", askers: 16, write_each: 0 },
];

impl Mix {
    fn writes(self, n: u64) -> bool {
        self.write_each != 0 && n.is_multiple_of(self.write_each)
    }
}

fn key(n: u64) -> String {
    // Spreads over the keys, so that neighbours in time are not neighbours in the table.
    format!("counts/{:04}", n.wrapping_mul(7919) % KEYS)
}

fn value() -> String {
    format!("\"{}\"", "x".repeat(VALUE - 2))
}

struct Ours {
    broker: Broker,
    caller: Arc<Caller>,
}

impl Ours {
    fn open(folder: &Path) -> Result<Self> {
        let recorder = JsonLinesRecorder::open(folder.join("audit.jsonl"))?;
        let storage = Storage::open(folder.join("storage"), Arc::new(SystemClock))?;
        let services = Arc::new(ServiceRegistry::new());
        storage::register(&services, &storage)?;
        let mut rights = CapabilitySet::new();
        rights.insert("storage.kv:counts/*".parse()?);
        for n in 0..19 {
            rights.insert(format!("event.publish:app{n}.*").parse()?);
        }
        let origin = Origin::Folder { path: "/srv/bench".into(), owner: 1000 };
        let plugin = Arc::new(PluginRef { id: PluginId::parse("bench")?, origin });
        let instance =
            InstanceId { node: NodeId::local(), plugin, generation: Generation(1), serial: 1 };
        // Rates are counted, and never in the way.
        let rates = Rates { requests_per_second: 10_000_000, ..Rates::default() };
        let limits = Limits { rates, ..Limits::default() };
        let rules = Arc::new(Rules::new(rights, []));
        let caller = Caller::plugin(instance, rules, &limits, Arc::new(SystemClock));
        Ok(Self { broker: Broker::new(Gate::new(Arc::new(recorder)), services), caller })
    }

    async fn operation(&self, mix: Mix, n: u64, value: &str) -> Result<()> {
        let (method, params) = match mix.writes(n) {
            true => ("storage.set", format!("{{\"key\":\"{}\",\"value\":{value}}}", key(n))),
            false => ("storage.get", format!("{{\"key\":\"{}\"}}", key(n))),
        };
        let params = Payload::from_json_text(params);
        self.broker.request(&self.caller, method, &params, None).await?;
        Ok(())
    }

    /// Operations a second.
    async fn measure(self: &Arc<Self>, mix: Mix, slice: Duration) -> Result<f64> {
        let start = Instant::now();
        let mut askers = tokio::task::JoinSet::new();
        for asker in 0..mix.askers {
            let ours = Arc::clone(self);
            askers.spawn(async move {
                let (value, mut done) = (value(), 0);
                while start.elapsed() < slice {
                    let n = done * mix.askers + asker;
                    ours.operation(mix, n, &value).await.map_err(|e| e.to_string())?;
                    done += 1;
                }
                Ok::<u64, String>(done)
            });
        }
        let mut done = 0;
        while let Some(asker) = askers.join_next().await {
            done += asker??;
        }
        Ok(done as f64 / start.elapsed().as_secs_f64())
    }
}

struct Bare(Connection);

impl Bare {
    fn open(folder: &Path) -> Result<Self> {
        let connection = Connection::open(folder.join("bare.db"))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self(connection))
    }

    fn operation(&self, mix: Mix, n: u64, value: &str) -> Result<()> {
        if mix.writes(n) {
            // Outside of BEGIN and COMMIT each statement is a transaction.
            let mut set = self.0.prepare_cached(
                "INSERT INTO entries (key, value, version, expires) VALUES (?1, ?2, ?3, NULL)
                 ON CONFLICT (key) DO UPDATE SET value = ?2, version = ?3, expires = NULL",
            )?;
            set.execute(params![key(n), value, i64::try_from(n)?])?;
        } else {
            let mut get = self
                .0
                .prepare_cached("SELECT value, version, expires FROM entries WHERE key = ?1")?;
            let found: Option<(String, i64, Option<i64>)> =
                get.query_row([key(n)], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).optional()?;
            std::hint::black_box(found);
        }
        Ok(())
    }

    /// Operations a second.
    fn measure(&self, mix: Mix, slice: Duration) -> Result<f64> {
        let (value, start, mut done) = (value(), Instant::now(), 0);
        while start.elapsed() < slice {
            self.operation(mix, done, &value)?;
            done += 1;
        }
        Ok(done as f64 / start.elapsed().as_secs_f64())
    }
}

/// Measures each mix in turns with the baseline.
pub(crate) fn run() -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ours = Arc::new(Ours::open(folder.path())?);
    let bare = Bare::open(folder.path())?;
    // Both have all keys, and are warm.
    let fill = Mix { name: "fill", askers: 16, write_each: 1 };
    for n in 0..KEYS {
        bare.operation(fill, n, &value())?;
        runtime.block_on(ours.operation(fill, n, &value()))?;
    }
    let mut rows = Vec::new();
    for mix in MIXES {
        let (mut mine, mut theirs) = (Samples::default(), Samples::default());
        for round in 0..ROUNDS {
            // The order alternates.
            if round % 2 == 0 {
                mine.push(runtime.block_on(ours.measure(mix, SLICE))?);
                theirs.push(bare.measure(mix, SLICE)?);
            } else {
                theirs.push(bare.measure(mix, SLICE)?);
                mine.push(runtime.block_on(ours.measure(mix, SLICE))?);
            }
        }
        let row = Row::new(mix.name, "op/s", &mine).against(&theirs);
        rows.push(if mix.name == "storage_vs_sqlite" { row.aim_at_least(0.5) } else { row });
    }
    Ok(rows)
}
