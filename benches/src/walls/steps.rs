//! `steps`: how long each step of a launch takes, as the crate `palisade-process` and its helper tell it.
//!
//! Medians over [`ROUNDS`] launches, each killed and reaped before the next. Each step has its own median, so
//! the sum of the rows is not exactly the median of the whole, which is the last row. Being timed costs the
//! launch itself some microseconds.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use palisade_process::{Options, ProcessBackend};
use palisade_sandbox::{Backend, KillReason};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::{
    plugin::{Plugin, Result, Silent, initialize},
    report::{Row, Samples},
};

const ROUNDS: usize = 300;
const WARM_UP: usize = 20;
const TARGET: &str = "palisade_process::steps";

/// Measures on a runtime of one thread, because the subscriber is this thread's.
pub(super) fn run() -> Result<Vec<Row>> {
    let steps = Steps::default();
    let _listening = tracing::subscriber::set_default(steps.clone());
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(steps))
}

async fn measure(steps: Steps) -> Result<Vec<Row>> {
    let plugin = Plugin::build()?;
    let backend = ProcessBackend::new(Options::default());
    let prepared = backend.prepare(&plugin.artifact()).await?;
    let mut whole = Samples::default();
    for round in 0..WARM_UP + ROUNDS {
        let start = Instant::now();
        let instance = prepared.launch(plugin.spec(), Arc::new(Silent)).await?;
        let running = start.elapsed();
        initialize(&instance).await?;
        let answered = start.elapsed();
        instance.kill(KillReason::Asked).await;
        if round < WARM_UP {
            steps.known().clear();
        } else {
            steps.push("plugin: first answer", answered - running);
            whole.push_micros(answered);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let known = steps.known();
    let mut rows: Vec<Row> =
        known.iter().map(|(name, samples)| Row::new(name, "us", samples)).collect();
    rows.push(Row::new("steps: the whole launch", "us", &whole));
    Ok(rows)
}

/// Collects the steps that are told, in the order in which they first came.
#[derive(Clone, Default)]
struct Steps(Arc<Mutex<Vec<(String, Samples)>>>);

impl Steps {
    fn known(&self) -> std::sync::MutexGuard<'_, Vec<(String, Samples)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, name: &str, time: Duration) {
        let mut known = self.known();
        if !known.iter().any(|(n, _)| n == name) {
            known.push((name.to_owned(), Samples::default()));
        }
        if let Some((_, samples)) = known.iter_mut().find(|(n, _)| n == name) {
            samples.push_micros(time);
        }
    }
}

#[derive(Default)]
struct Told {
    step: String,
    nanos: u64,
}

impl Visit for Told {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "step" {
            value.clone_into(&mut self.step);
        }
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "nanos" {
            self.nanos = value;
        }
    }
    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl Subscriber for Steps {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == TARGET
    }
    fn event(&self, event: &Event<'_>) {
        let mut told = Told::default();
        event.record(&mut told);
        self.push(&told.step, Duration::from_nanos(told.nanos));
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}
