//! `warm_64B_vs_extism`, `warm_64KiB_vs_extism`, `warm_64B_vs_wasmtime`: one more call of an instance that
//! has been called before.

use std::time::Instant;

use serde_json::value::RawValue;
use wasmtime::Store;

use super::{
    bare::{self, Bare},
    check,
    extism::{Compiled, Extism, Plugin},
    guests::Guests,
    message, on,
    ours::Ours,
};
use crate::{
    plugin::Result,
    report::{Row, Samples},
};

const ROUNDS: usize = 400;
const WARM_UP: usize = 40;

/// The ways, ready.
struct Ways {
    ours: Ours,
    extism: Plugin<'static>,
    sync: (Store<()>, bare::Call),
    fiber: (Store<()>, bare::Call),
}

#[derive(Default)]
struct Times {
    host: Samples,
    lane: Samples,
    extism: Samples,
    sync: Samples,
    fiber: Samples,
}

/// Times `calls` of one way; the mean in nanoseconds is the sample.
macro_rules! time {
    ($calls:expr, $samples:expr, $counted:expr, $message:expr, $call:expr) => {{
        let start = Instant::now();
        for _ in 0..$calls {
            check($call.as_ref(), $message)?;
        }
        if $counted {
            $samples.push(start.elapsed().as_nanos() as f64 / f64::from($calls));
        }
    }};
}

impl Ways {
    async fn open(guests: &Guests) -> Result<Self> {
        let compiled: &'static Compiled =
            Box::leak(Box::new(Extism::load()?.compile(&guests.extism)?));
        let bare = Bare::compile(&guests.component, 8)?;
        let ours = Ours::open(&guests.component).await?;
        let fiber = bare.instance_async().await?;
        Ok(Self { ours, extism: compiled.plugin()?, sync: bare.instance()?, fiber })
    }

    async fn measure(&mut self, length: usize, calls: u32) -> Result<Times> {
        let text = message(length);
        let args = RawValue::from_string(text.to_owned())?;
        let mut times = Times::default();
        let Self { ours, extism, sync, fiber } = self;
        for round in 0..WARM_UP + ROUNDS {
            let counted = round >= WARM_UP;
            time!(calls, times.host, counted, text, ours.call(&args).await?.bytes());
            time!(calls, times.lane, counted, text, ours.lane(text).await?.bytes());
            time!(calls, times.extism, counted, text, extism.call(c"echo", text.as_bytes())?);
            let (store, call) = &mut *sync;
            time!(
                calls,
                times.sync,
                counted,
                text,
                bare::answer(call.call(&mut *store, ("echo", text)))?
            );
            let (store, call) = &mut *fiber;
            time!(calls, times.fiber, counted, text, {
                bare::answer(call.call_async(&mut *store, ("echo", text)).await)?
            });
        }
        Ok(times)
    }
}

async fn measure() -> Result<(Times, Times)> {
    let guests = Guests::build()?;
    let mut ways = Ways::open(&guests).await?;
    let small = ways.measure(64, 400).await?;
    let large = ways.measure(64 << 10, 20).await?;
    ways.ours.close().await?;
    Ok((small, large))
}

pub(crate) fn run() -> Result<Vec<Row>> {
    let (small, large) = on(measure())?;
    let row = |name: &str, samples: &Samples, baseline: &Samples| {
        Row::new(name, "ns", samples).against(baseline)
    };
    Ok(vec![
        row("warm_64B_vs_extism", &small.host, &small.extism).aim(0.12),
        row("warm_64B_vs_wasmtime", &small.host, &small.fiber).aim(3.0),
        row("warm_64B_vs_wasmtime.sync", &small.host, &small.sync),
        row("warm_64B_vs_wasmtime.lane", &small.lane, &small.fiber),
        row("warm_64KiB_vs_extism", &large.host, &large.extism).aim(0.2),
        row("warm_64KiB_vs_wasmtime", &large.host, &large.fiber),
        row("warm_64KiB_vs_wasmtime.sync", &large.host, &large.sync),
        row("warm_64KiB_vs_wasmtime.lane", &large.lane, &large.fiber),
    ])
}
