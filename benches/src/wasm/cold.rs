//! `cold_vs_extism`, `cold_vs_wasmtime`, `cold_from_disk`: a new instance, its first call, and its end.

use std::time::Instant;

use palisade_sandbox::KillReason;

use super::{
    bare::{self, Bare},
    check,
    extism::Extism,
    guests::Guests,
    message, on,
    ours::{Folder, ask, backend, initialize},
};
use crate::{
    plugin::Result,
    report::{Row, Samples},
};

const ROUNDS: usize = 1000;
const WARM_UP: usize = 50;
/// Rounds with code from disk.
const DISK_ROUNDS: usize = 100;

#[derive(Default)]
struct Times {
    ours: Samples,
    initialized: Samples,
    extism: Samples,
    sync: Samples,
    fiber: Samples,
    fiber_initialized: Samples,
    disk: Samples,
    disk_bare: Samples,
}

async fn measure() -> Result<Times> {
    let guests = Guests::build()?;
    let text = message(64);
    let folder = Folder::new(&guests.component)?;
    let backend = backend(64, &folder.state());
    let prepared = folder.prepare(&backend).await?;
    let bare = Bare::compile(&guests.component, 64)?;
    let compiled = Extism::load()?.compile(&guests.extism)?;
    let mut times = Times::default();
    for round in 0..WARM_UP + ROUNDS {
        let counted = round >= WARM_UP;
        let took = |samples: &mut Samples, start: Instant| {
            if counted {
                samples.push_micros(start.elapsed());
            }
        };
        let start = Instant::now();
        let instance = folder.launch(&*prepared).await?;
        check(ask(&instance, text).await?.bytes(), text)?;
        instance.kill(KillReason::Asked).await;
        drop(instance);
        took(&mut times.ours, start);

        let start = Instant::now();
        let mut plugin = compiled.plugin()?;
        check(&plugin.call(c"echo", text.as_bytes())?, text)?;
        drop(plugin);
        took(&mut times.extism, start);

        let start = Instant::now();
        let (mut store, call) = bare.instance_async().await?;
        check(bare::answer(call.call_async(&mut store, ("echo", text)).await)?.as_bytes(), text)?;
        drop(store);
        took(&mut times.fiber, start);

        let start = Instant::now();
        let (mut store, call) = bare.instance()?;
        check(bare::answer(call.call(&mut store, ("echo", text)))?.as_bytes(), text)?;
        drop(store);
        took(&mut times.sync, start);

        let start = Instant::now();
        let instance = folder.launch(&*prepared).await?;
        initialize(&instance).await?;
        check(ask(&instance, text).await?.bytes(), text)?;
        instance.kill(KillReason::Asked).await;
        drop(instance);
        took(&mut times.initialized, start);

        let start = Instant::now();
        let (mut store, call) = bare.initialized().await?;
        check(bare::answer(call.call_async(&mut store, ("echo", text)).await)?.as_bytes(), text)?;
        drop(store);
        took(&mut times.fiber_initialized, start);
    }
    let kept = bare.kept()?;
    for _ in 0..DISK_ROUNDS {
        let start = Instant::now();
        let prepared = folder.prepare(&backend).await?;
        let instance = folder.launch(&*prepared).await?;
        check(ask(&instance, text).await?.bytes(), text)?;
        instance.kill(KillReason::Asked).await;
        drop((instance, prepared));
        times.disk.push_micros(start.elapsed());

        let start = Instant::now();
        let from_disk = bare.read(kept.path())?;
        let (mut store, call) = from_disk.instance_async().await?;
        check(bare::answer(call.call_async(&mut store, ("echo", text)).await)?.as_bytes(), text)?;
        drop((store, from_disk));
        times.disk_bare.push_micros(start.elapsed());
    }
    Ok(times)
}

pub(crate) fn run() -> Result<Vec<Row>> {
    let times = on(measure())?;
    let row = |name: &str, samples: &Samples, baseline: &Samples| {
        Row::new(name, "us", samples).against(baseline)
    };
    Ok(vec![
        row("cold_vs_extism", &times.ours, &times.extism).aim(0.25),
        row("cold_vs_wasmtime", &times.ours, &times.fiber).aim(1.3),
        row("cold_vs_wasmtime.sync", &times.ours, &times.sync),
        row("cold_vs_wasmtime.initialized", &times.initialized, &times.fiber_initialized),
        row("cold_vs_extism.initialized", &times.initialized, &times.extism),
        row("cold_from_disk", &times.disk, &times.disk_bare),
    ])
}
