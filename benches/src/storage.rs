//! `storage_vs_sqlite`: what a plugin's storage does in a second, over SQLite used directly.
//!
//! Ours is [`Broker::request`]: parameters read, rates, decision among 20 rights, intent and outcome in
//! a JSON-lines file, one SQLite file with a sync before each answer. The baseline is one connection in
//! a loop: the same table, the same pragmas, one transaction an operation, no check and no record.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use palisade_audit::{JsonLinesRecorder, SystemClock};
use palisade_broker::{Broker, Caller, Context, Gate, Need, Service, ServiceRegistry};
use palisade_model::{
    CapabilitySet, ErrorCode, Failure, Generation, InstanceId, Kind, Limits, NodeId, Origin,
    Payload, PluginId, PluginRef, Rates,
};
use palisade_policy::Rules;
use palisade_services::storage::{self, GetParams, GetResult, Storage};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::value::RawValue;

use crate::{
    plugin::Result,
    report::{Row, Samples},
};

/// Many short rounds: what else the machine does then hits both sides of a round alike.
const ROUNDS: usize = 151;
/// How long a side is measured in a round.
const SLICE: Duration = Duration::from_millis(40);
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
    asks: Asks,
}

/// How an asker asks.
#[derive(Clone, Copy)]
enum Asks {
    /// One request after the other, in one task.
    InLine,
    /// Each request in a task of its own, as the host serves a plugin's.
    InTasks,
    /// As [`Asks::InLine`], on a runtime with one thread, where every write goes through the writing
    /// thread of the file.
    OneThread,
    /// A service that reads the same parameters, needs the same right and gives the same answer without
    /// looking anywhere: what is not storage.
    Elsewhere,
}

/// The service of [`Asks::Elsewhere`].
const ELSEWHERE: &str = "bench.get";

const fn mix(name: &'static str, askers: u64, write_each: u64) -> Mix {
    Mix { name, askers, write_each, asks: Asks::InLine }
}

const MIXES: [Mix; 9] = [
    mix("storage_vs_sqlite", 16, 1),
    mix("storage_vs_sqlite.one_asker", 1, 1),
    Mix { asks: Asks::InTasks, ..mix("storage_vs_sqlite.one_asker_in_tasks", 1, 1) },
    Mix { asks: Asks::OneThread, ..mix("storage_vs_sqlite.one_asker_one_thread", 1, 1) },
    mix("storage_vs_sqlite.one_write_in_ten", 16, 10),
    mix("storage_vs_sqlite.reads", 16, 0),
    mix("storage_vs_sqlite.one_reader", 1, 0),
    Mix { asks: Asks::InTasks, ..mix("storage_vs_sqlite.one_reader_in_tasks", 1, 0) },
    Mix { asks: Asks::Elsewhere, ..mix("storage_vs_sqlite.no_storage", 1, 0) },
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

fn elsewhere() -> Service<GetParams> {
    Service::method(ELSEWHERE, |_: Context, params: GetParams| async move {
        std::hint::black_box(params.key);
        let value = RawValue::from_string(value())
            .map_err(|e| Failure::new(ErrorCode::Internal, e.to_string()))?;
        Ok(GetResult { found: true, value, version: 1000, ttl_ms: None })
    })
    .capability("storage.kv:KEY", |params: &GetParams| {
        Some(Need::new(Kind::StorageKv, params.key.as_str()))
    })
    .idempotent()
    .coalesce()
}

struct Ours {
    /// Operations so far, over all rounds.
    next: AtomicU64,
    broker: Broker,
    caller: Arc<Caller>,
}

impl Ours {
    fn open(folder: &Path) -> Result<Self> {
        let recorder = JsonLinesRecorder::open(folder.join("audit.jsonl"))?;
        let storage = Storage::open(folder.join("storage"), Arc::new(SystemClock))?;
        let services = Arc::new(ServiceRegistry::new());
        storage::register(&services, &storage)?;
        services.register(elsewhere())?;
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
        let broker = Broker::new(Gate::new(Arc::new(recorder)), services);
        Ok(Self { next: AtomicU64::new(0), broker, caller })
    }

    async fn operation(&self, mix: Mix, n: u64, value: &str) -> Result<()> {
        let key = key(n);
        let params = match mix.writes(n) {
            true => format!("{{\"key\":\"{key}\",\"value\":{value}}}"),
            false => format!("{{\"key\":\"{key}\"}}"),
        };
        let method = match (mix.asks, mix.writes(n)) {
            (Asks::Elsewhere, _) => ELSEWHERE,
            (_, true) => "storage.set",
            (_, false) => "storage.get",
        };
        let params = Payload::from_json_text(params);
        let answer = self.broker.request(&self.caller, method, &params, None);
        match mix.asks {
            Asks::InTasks => tokio::spawn(answer).await??,
            Asks::InLine | Asks::OneThread | Asks::Elsewhere => answer.await?,
        };
        Ok(())
    }

    /// Operations a second, from when the runtime has got to it.
    async fn measure(
        self: Arc<Self>,
        mix: Mix,
        slice: Duration,
    ) -> std::result::Result<f64, String> {
        let start = Instant::now();
        let mut askers = tokio::task::JoinSet::new();
        for _ in 0..mix.askers {
            let ours = Arc::clone(&self);
            askers.spawn(async move {
                let (value, mut done) = (value(), 0);
                while start.elapsed() < slice {
                    let n = ours.next.fetch_add(1, Ordering::Relaxed);
                    ours.operation(mix, n, &value).await.map_err(|e| e.to_string())?;
                    done += 1;
                }
                Ok::<u64, String>(done)
            });
        }
        let mut done = 0;
        while let Some(asker) = askers.join_next().await {
            done += asker.map_err(|e| e.to_string())??;
        }
        Ok(done as f64 / start.elapsed().as_secs_f64())
    }
}

struct Bare {
    connection: Connection,
    /// Operations so far, over all rounds. Versions come from it: a row that is written as it already is
    /// leaves its page clean, and SQLite then neither writes nor syncs.
    done: u64,
}

impl Bare {
    fn open(folder: &Path) -> Result<Self> {
        let connection = Connection::open(folder.join("bare.db"))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self { connection, done: 0 })
    }

    fn operation(&self, mix: Mix, n: u64, value: &str) -> Result<()> {
        if mix.writes(n) {
            // Outside of BEGIN and COMMIT each statement is a transaction.
            let mut set = self.connection.prepare_cached(
                "INSERT INTO entries (key, value, version, expires) VALUES (?1, ?2, ?3, NULL)
                 ON CONFLICT (key) DO UPDATE SET value = ?2, version = ?3, expires = NULL",
            )?;
            set.execute(params![key(n), value, i64::try_from(n)?])?;
        } else {
            let mut get = self
                .connection
                .prepare_cached("SELECT value, version, expires FROM entries WHERE key = ?1")?;
            let found: Option<(String, i64, Option<i64>)> =
                get.query_row([key(n)], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).optional()?;
            std::hint::black_box(found);
        }
        Ok(())
    }

    /// Operations a second. As ours, it is measured on a thread that has just been woken.
    fn measure(&mut self, mix: Mix, slice: Duration) -> Result<f64> {
        std::thread::scope(|scope| {
            // A connection may change threads, but not be shared.
            let measured = scope.spawn(move || self.repeat(mix, slice).map_err(|e| e.to_string()));
            Ok(measured.join().map_err(|_| "the baseline panicked")??)
        })
    }

    fn repeat(&mut self, mix: Mix, slice: Duration) -> Result<f64> {
        let (value, start, before) = (value(), Instant::now(), self.done);
        while start.elapsed() < slice {
            self.operation(mix, self.done, &value)?;
            self.done += 1;
        }
        Ok((self.done - before) as f64 / start.elapsed().as_secs_f64())
    }
}

/// Measures each mix in turns with the baseline.
pub(crate) fn run() -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let one_thread = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ours = Arc::new(Ours::open(folder.path())?);
    let mut bare = Bare::open(folder.path())?;
    // Both have all keys, and are warm.
    let fill = mix("fill", 16, 1);
    for n in 0..KEYS {
        bare.operation(fill, n, &value())?;
        bare.done += 1;
        runtime.block_on(ours.operation(fill, n, &value()))?;
    }
    let mut rows = Vec::new();
    for mix in MIXES {
        let (mut mine, mut theirs) = (Samples::default(), Samples::default());
        for round in 0..ROUNDS {
            // The order alternates.
            for side in 0..2 {
                if (round + side) % 2 == 0 {
                    let measured = Arc::clone(&ours).measure(mix, SLICE);
                    mine.push(match mix.asks {
                        Asks::OneThread => one_thread.block_on(measured)?,
                        _ => runtime.block_on(runtime.spawn(measured))??,
                    });
                } else {
                    theirs.push(bare.measure(mix, SLICE)?);
                }
            }
        }
        let row = Row::new(mix.name, "op/s", &mine).against(&theirs);
        rows.push(match mix.name {
            "storage_vs_sqlite" | "storage_vs_sqlite.one_asker" => row.aim_at_least(0.5),
            _ => row,
        });
    }
    Ok(rows)
}
