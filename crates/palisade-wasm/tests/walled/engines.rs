//! Programs in the place of the engine that say what no engine of ours does.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_model::ErrorCode as C;
use palisade_process::{Options, ProcessBackend};
use palisade_sandbox::{Calls, ExitCause, KillReason};
use palisade_wasm::walled::{EngineProgram, WalledBackend};

use super::{
    TIME, Walled,
    support::{guest, tool},
    walled,
};

/// Answers as an engine does, but for a call: the tool's name says how.
const HOSTILE: &str = include_str!("../support/hostile_engine.rs");

/// The program, built once for its text.
fn hostile() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile-engine");
    fs::create_dir_all(&folder).unwrap();
    let lock = fs::File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let (source, program) = (folder.join("engine.rs"), folder.join("engine"));
    if fs::read_to_string(&source).ok().as_deref() != Some(HOSTILE) || !program.exists() {
        fs::write(&source, HOSTILE).unwrap();
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition", "2024", "-O", "-o"]).arg(&program).arg(&source);
        assert!(rustc.status().unwrap().success());
    }
    program
}

pub(super) fn behind_hostile() -> Walled {
    let ordinary = walled(&guest(), Calls::Stateful);
    let wall = Arc::new(ProcessBackend::new(Options::default()));
    let backend = WalledBackend::new(wall, EngineProgram::at(hostile()));
    Walled { backend, bench: ordinary.bench }
}

#[tokio::test]
async fn an_engine_that_seems_to_end_and_goes_on_keeps_no_call_beyond_its_deadline() {
    let walled = behind_hostile();
    let instance = walled.started().await;
    let short = Duration::from_millis(150);
    let begun = Instant::now();
    let failure = tool(&instance, "unavailable", "{}", short).await.unwrap_err();
    assert_eq!(failure.code, C::Unavailable, "{failure}");
    assert!(begun.elapsed() < Duration::from_millis(600), "{:?}", begun.elapsed());
    // It can do so for a second, and is ended then.
    let exit = tokio::time::timeout(Duration::from_secs(5), instance.wait()).await.unwrap();
    let ExitCause::Killed(KillReason::Breach(how)) = &exit.cause else { panic!("{exit}") };
    assert!(how.contains("no engine of ours"), "{how}");
    assert!(walled.is_gone().await);
}

#[tokio::test]
async fn a_call_with_time_learns_that_its_engine_was_ended() {
    for how in ["unavailable", "close"] {
        let walled = behind_hostile();
        let instance = walled.started().await;
        let begun = Instant::now();
        let failure = tool(&instance, how, "{}", TIME).await.unwrap_err();
        assert_eq!(failure.code, C::ProtocolBreach, "{how}: {failure}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{how}: {:?}", begun.elapsed());
        assert!(walled.is_gone().await, "{how}");
    }
}

#[tokio::test]
async fn an_engine_that_is_silent_or_makes_codes_up_keeps_nobody_waiting() {
    let walled = behind_hostile();
    let instance = walled.started().await;
    let short = Duration::from_millis(150);
    for (name, code) in
        [("silent", C::Deadline), ("denied", C::PluginError), ("conflict", C::Conflict)]
    {
        let begun = Instant::now();
        let failure = tool(&instance, name, "{}", short).await.unwrap_err();
        assert_eq!(failure.code, code, "{name}: {failure}");
        assert!(begun.elapsed() < Duration::from_millis(600), "{name}: {:?}", begun.elapsed());
    }
    let exit = instance.stop(Duration::from_secs(5)).await;
    assert!(exit.is_clean(), "{exit}");
}
