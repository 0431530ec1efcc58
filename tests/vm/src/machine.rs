//! Which machine this is, as the outside wrote it into the initramfs; and the speed of its clock.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde::Deserialize;

use crate::{FOLDER, Result};

/// What the outside decided.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Machine {
    /// The name of the machine: it decides which situations are made.
    pub(crate) name: String,
    /// Only what must be looked at before every change.
    pub(crate) short: bool,
    /// Boots on into the system on the disk.
    pub(crate) disk: bool,
    /// Only the situation of this name.
    pub(crate) only: Option<String>,
}

impl Machine {
    pub(crate) fn read() -> Result<Self> {
        let path = format!("{FOLDER}/machine.json");
        let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        serde_json::from_str(&text).map_err(|e| format!("{path}: {e}"))
    }
}

/// Ticks of the time stamp counter in a millisecond. Software emulation hands the real counter on, and a
/// kernel that is told its speed does not spend a second on measuring it.
#[cfg(target_arch = "x86_64")]
pub(crate) fn print_tsc() -> Result {
    // SAFETY: every x86_64 processor has the instruction; it only reads a counter.
    let ticks = || unsafe { std::arch::x86_64::_rdtsc() };
    let (start, before) = (Instant::now(), ticks());
    std::thread::sleep(Duration::from_millis(50));
    let (after, took) = (ticks(), start.elapsed());
    println!("{}", (after.wrapping_sub(before) as f64 / took.as_secs_f64() / 1000.0).round());
    Ok(())
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn print_tsc() -> Result {
    let _ = (Instant::now(), Duration::ZERO);
    Err("only x86_64 has a time stamp counter".into())
}
