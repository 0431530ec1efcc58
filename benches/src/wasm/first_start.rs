//! `first_start_js`, `first_start_python`: from a component of which nothing was compiled yet to its first answer,
//! with Winch and with Cranelift.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_sandbox::{Instance, KillReason};
use palisade_wasm::{CompiledBy, Options, PreparedCode, WasmBackend};

use super::{
    check, guests, message, on,
    ours::{Folder, ask, backend_with, initialize},
};
use crate::{
    plugin::Result,
    report::{Row, Samples},
};

const ROUNDS: usize = 3;
/// Calls of an instance of each compiler, and those before them that do not count.
const CALLS: usize = 400;
const WARM_UP: usize = 50;
/// How long Cranelift may take in the background.
const LATER: Duration = Duration::from_secs(600);

#[derive(Default)]
struct Times {
    winch: Samples,
    cranelift: Samples,
    later: Samples,
    winch_call: Samples,
    cranelift_call: Samples,
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn made_by(code: &PreparedCode, wanted: CompiledBy) -> Result<()> {
    let by = code.compiled_by();
    if by == wanted { Ok(()) } else { Err(format!("{by:?}, not {wanted:?}").into()) }
}

async fn started(
    folder: &Folder,
    code: &PreparedCode,
    text: &'static str,
) -> Result<Arc<dyn Instance>> {
    let instance = folder.launch(code).await?;
    initialize(&instance).await?;
    check(ask(&instance, text).await?.bytes(), text)?;
    Ok(instance)
}

async fn calls(
    instance: &Arc<dyn Instance>,
    text: &'static str,
    samples: &mut Samples,
) -> Result<()> {
    for call in 0..WARM_UP + CALLS {
        let start = Instant::now();
        check(ask(instance, text).await?.bytes(), text)?;
        if call >= WARM_UP {
            samples.push_micros(start.elapsed());
        }
    }
    Ok(())
}

/// A backend that has compiled nothing.
fn fresh(state: &Path, winch_from: u64) -> WasmBackend {
    backend_with(Options::default().instances(64).winch_from(winch_from), state)
}

async fn round(component: &[u8], times: &mut Times) -> Result<()> {
    let text = message(64);
    let folder = Folder::new(component)?;
    let backend = fresh(&folder.state(), Options::default().winch_from);
    let start = Instant::now();
    let code = folder.prepare_code(&backend).await?;
    let by_winch = started(&folder, &code, text).await?;
    times.winch.push(millis(start.elapsed()));
    // Now, and not when it may be over already.
    made_by(&code, CompiledBy::Winch)?;
    while code.compiled_by() == CompiledBy::Winch {
        if start.elapsed() > LATER {
            return Err("Cranelift does not come to an end".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    times.later.push(millis(start.elapsed()));
    let by_cranelift = started(&folder, &code, text).await?;
    calls(&by_winch, text, &mut times.winch_call).await?;
    calls(&by_cranelift, text, &mut times.cranelift_call).await?;
    for instance in [by_winch, by_cranelift] {
        instance.kill(KillReason::Asked).await;
    }

    let folder = Folder::new(component)?;
    let backend = fresh(&folder.state(), u64::MAX);
    let start = Instant::now();
    let code = folder.prepare_code(&backend).await?;
    let instance = started(&folder, &code, text).await?;
    times.cranelift.push(millis(start.elapsed()));
    made_by(&code, CompiledBy::Cranelift)?;
    instance.kill(KillReason::Asked).await;
    Ok(())
}

fn rows(language: &str, component: Vec<u8>) -> Result<Vec<Row>> {
    let times = on(async move {
        let mut times = Times::default();
        for _ in 0..ROUNDS {
            round(&component, &mut times).await?;
        }
        Ok(times)
    })?;
    let name = |rest: &str| format!("first_start_{language}{rest}");
    Ok(vec![
        Row::new(&name(".winch_vs_cranelift"), "ms", &times.winch).against(&times.cranelift),
        Row::new(&name(".cranelift_in_background"), "ms", &times.later).against(&times.cranelift),
        Row::new(&name(".call_winch_vs_cranelift"), "us", &times.winch_call)
            .against(&times.cranelift_call),
    ])
}

/// `first_start`, or `first_start_js` or `first_start_python` of it.
pub(crate) fn run(name: &str) -> Result<Vec<Row>> {
    let mut all = Vec::new();
    if name != "first_start_python" {
        all.extend(rows("js", guests::javascript()?)?);
    }
    if name != "first_start_js" {
        all.extend(rows("python", guests::python()?)?);
    }
    Ok(all)
}
