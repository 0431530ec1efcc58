//! `cold_vs_extism`, `cold_vs_wasmtime`, `cold_from_disk`: a new instance, its first call, and its end; and
//! `cold_js`, `cold_python`: the same for components of the other languages. Ours is a call of a plugin that gets an
//! instance for each (`calls: per-call`), through host, gate and record; `.backend` is without them.

use std::time::Instant;

use palisade_sandbox::KillReason;
use serde_json::value::RawValue;

use super::{
    bare::{self, Bare},
    check,
    extism::{Compiled, Extism},
    guests::{self, Guests},
    message, on,
    ours::{Folder, Ours, ask, backend, initialize},
};
use crate::{
    plugin::Result,
    report::{Row, Samples},
};

const ROUNDS: usize = 1000;
/// Rounds of components that bring an interpreter.
const LARGE_ROUNDS: usize = 300;
const WARM_UP: usize = 50;
/// Rounds with code from disk.
const DISK_ROUNDS: usize = 100;
const LARGE_DISK_ROUNDS: usize = 10;
/// What is aimed at for a component with an interpreter, in microseconds.
const LARGE_AIM: f64 = 1500.0;

#[derive(Default)]
struct Times {
    per_call: Samples,
    backend: Samples,
    initialized: Samples,
    host: Samples,
    extism: Samples,
    sync: Samples,
    fiber: Samples,
    fiber_initialized: Samples,
    disk: Samples,
    disk_bare: Samples,
}

/// One component, and with it the same as a module for Extism where there is one.
async fn measure(
    component: &[u8],
    extism: Option<&Compiled>,
    rounds: usize,
    disk_rounds: usize,
) -> Result<Times> {
    let text = message(64);
    let folder = Folder::new(component)?;
    let backend = backend(64, &folder.state());
    let prepared = folder.prepare(&backend).await?;
    let bare = Bare::compile(component, 64)?;
    let args = RawValue::from_string(text.to_owned())?;
    let hosted = Ours::open(component).await?;
    hosted.stop().await?;
    let per_call = Ours::open_per_call(component).await?;
    let mut times = Times::default();
    for round in 0..WARM_UP + rounds {
        let counted = round >= WARM_UP;
        let took = |samples: &mut Samples, start: Instant| {
            if counted {
                samples.push_micros(start.elapsed());
            }
        };
        let start = Instant::now();
        check(per_call.call(&args).await?.bytes(), text)?;
        took(&mut times.per_call, start);

        let start = Instant::now();
        let instance = folder.launch(&*prepared).await?;
        check(ask(&instance, text).await?.bytes(), text)?;
        instance.kill(KillReason::Asked).await;
        drop(instance);
        took(&mut times.backend, start);

        if let Some(compiled) = extism {
            let start = Instant::now();
            let mut plugin = compiled.plugin()?;
            check(&plugin.call(c"echo", text.as_bytes())?, text)?;
            drop(plugin);
            took(&mut times.extism, start);
        }

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
        check(hosted.start_call_stop(&args).await?.bytes(), text)?;
        took(&mut times.host, start);

        let start = Instant::now();
        let (mut store, call) = bare.initialized().await?;
        check(bare::answer(call.call_async(&mut store, ("echo", text)).await)?.as_bytes(), text)?;
        drop(store);
        took(&mut times.fiber_initialized, start);
    }
    hosted.close().await?;
    per_call.close().await?;
    let kept = bare.kept()?;
    for _ in 0..disk_rounds {
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

fn row(name: &str, samples: &Samples, baseline: &Samples) -> Row {
    Row::new(name, "us", samples).against(baseline)
}

/// The rows of a component that brings an interpreter.
fn large(language: &str, component: Vec<u8>) -> Result<Vec<Row>> {
    let times =
        on(async move { measure(&component, None, LARGE_ROUNDS, LARGE_DISK_ROUNDS).await })?;
    let name = |rest: &str| format!("cold_{language}{rest}");
    Ok(vec![
        row(&name(""), &times.per_call, &times.fiber_initialized).aim_value(LARGE_AIM),
        row(&name(".backend"), &times.backend, &times.fiber),
        row(&name(".initialized"), &times.initialized, &times.fiber_initialized),
        row(&name(".host"), &times.host, &times.fiber_initialized),
        row(&name(".from_disk"), &times.disk, &times.disk_bare),
    ])
}

/// `cold`, or `cold_js` or `cold_python` of it.
pub(crate) fn run(name: &str) -> Result<Vec<Row>> {
    match name {
        "cold_js" => return large("js", guests::javascript()?),
        "cold_python" => return large("python", guests::python()?),
        _ => {}
    }
    let times = on(async {
        let guests = Guests::build()?;
        let compiled = Extism::load()?.compile(&guests.extism)?;
        measure(&guests.component, Some(&compiled), ROUNDS, DISK_ROUNDS).await
    })?;
    let mut rows = vec![
        row("cold_vs_extism", &times.per_call, &times.extism).aim(0.25),
        row("cold_vs_wasmtime", &times.per_call, &times.fiber_initialized).aim(1.3),
        row("cold_vs_extism.backend", &times.backend, &times.extism),
        row("cold_vs_wasmtime.backend", &times.backend, &times.fiber),
        row("cold_vs_wasmtime.backend_sync", &times.backend, &times.sync),
        row("cold_vs_wasmtime.initialized", &times.initialized, &times.fiber_initialized),
        row("cold_vs_extism.initialized", &times.initialized, &times.extism),
        row("cold_vs_extism.host", &times.host, &times.extism),
        row("cold_vs_wasmtime.host", &times.host, &times.fiber_initialized),
        row("cold_from_disk", &times.disk, &times.disk_bare),
    ];
    rows.extend(large("js", guests::javascript()?)?);
    rows.extend(large("python", guests::python()?)?);
    Ok(rows)
}
