//! `cargo xtask vm`: the walls on other kernels and systems, in small machines under QEMU.
//!
//! Software emulation only (`-accel tcg`), so that it runs where there is no hardware for it and comes out
//! the same everywhere. A machine has no network and no disk that outlives it. Everything that was fetched
//! or built lies below `target/vm` and is kept; deleting that folder makes the next run begin from nothing.

mod archive;
mod fetch;
mod machine;
mod outcome;
mod payload;
mod record;
mod sources;
mod system;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    Result, escape, step,
    tools::{self, CC, MKE2FS, MMDEBSTRAP, QEMU},
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only what is looked at before every change: two machines, the short situations
    #[arg(long)]
    short: bool,
    /// Only this machine: `cgroup2`, `debian`, `newer`, `newer-debian` or `no-landlock`; may be given several
    /// times
    #[arg(long)]
    machine: Vec<String>,
    /// Only the situation of this name; may be given several times
    #[arg(long)]
    situation: Vec<String>,
    /// Only the steps whose name has this in it, beside doctor; may be given several times
    #[arg(long, value_name = "TEXT", conflicts_with = "record")]
    step: Vec<String>,
    /// Machines that run at the same time; each asks for one processor and 1.5 GiB of memory
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    at_once: u8,
    /// One JSON document instead of a table
    #[arg(long)]
    json: bool,
    /// Write the results into docs/how-to/test-on-other-kernels.md
    #[arg(long, conflicts_with = "short")]
    record: bool,
}

/// Which of Debian's kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// The release's own.
    Stable,
    /// A later one, where the release's archives have one.
    Later,
}

/// A machine, as it is started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) kernel: Kernel,
    /// Words for the kernel.
    pub(crate) boot: &'static str,
    /// Boots on into Debian on a disk.
    pub(crate) disk: bool,
    /// Part of the short form.
    short: bool,
    /// Seconds after which it is ended: short form, whole form.
    limits: (u64, u64),
}

/// Seconds for a machine: short form, whole form. The whole form of the largest takes two hours beside builds that
/// keep the host's processors busy; what hangs is ended long before by the limit of its own step.
const LIMITS: (u64, u64) = (600, 14_400);

const PLANS: [Plan; 5] = [
    Plan {
        name: "cgroup2",
        kernel: Kernel::Stable,
        boot: "",
        disk: false,
        short: true,
        limits: LIMITS,
    },
    Plan {
        name: "debian",
        kernel: Kernel::Stable,
        boot: "",
        disk: true,
        short: true,
        limits: LIMITS,
    },
    Plan {
        name: "newer",
        kernel: Kernel::Later,
        boot: "",
        disk: false,
        short: false,
        limits: LIMITS,
    },
    Plan {
        name: "newer-debian",
        kernel: Kernel::Later,
        boot: "",
        disk: true,
        short: false,
        limits: LIMITS,
    },
    Plan {
        name: "no-landlock",
        kernel: Kernel::Stable,
        boot: "lsm=lockdown,yama,integrity,apparmor",
        disk: false,
        short: false,
        limits: LIMITS,
    },
];

/// Where everything lies.
fn folder() -> PathBuf {
    step::root().join("target/vm")
}

fn chosen(args: &Args) -> Result<Vec<Plan>> {
    let all = PLANS.map(|p| p.name);
    if let Some(name) = args.machine.iter().find(|name| !all.contains(&name.as_str())) {
        return Err(format!("no machine `{name}`; there are {}", all.join(", ")));
    }
    let wanted = |plan: &&Plan| match args.machine.as_slice() {
        [] => plan.short || !args.short,
        some => some.iter().any(|name| plan.name == name),
    };
    Ok(PLANS.iter().filter(wanted).copied().collect())
}

pub(crate) fn run(args: &Args) -> Result {
    if std::env::consts::ARCH != "x86_64" {
        return Err("the small machines are x86_64; run this on such a host".into());
    }
    let plans = chosen(args)?;
    tools::ensure(&[CC, QEMU, MKE2FS])?;
    if plans.iter().any(|p| p.disk) {
        tools::ensure(&[MMDEBSTRAP])?;
    }
    if !args.short {
        tools::ensure_targets(&tools::WASM_TARGETS)?;
    }
    let begun = Instant::now();
    let folder = folder();
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    escape::build_attacker()?;
    let payload = payload::build(&folder, !args.short)?;
    // Now: while the machines run, somebody may be at work on them.
    let sources = sources::state(&step::root()).map_err(|e| format!("the sources: {e}"))?;
    let mut parts = Vec::new();
    for plan in plans {
        let kernel = fetch::kernel(&folder, plan.kernel)?;
        let disk = if plan.disk { fetch::disk(&folder)? } else { fetch::scratch(&folder)? };
        parts.push((plan, kernel, disk));
    }
    let outcomes = run_machines(args, &folder, &payload, &parts, &sources)?;
    eprintln!("vm: {:.0} s in all", begun.elapsed().as_secs_f64());
    outcome::show(&outcomes, args.json)
}

/// Runs the machines, `at_once` of them at a time, and gives their outcomes in the order of the plans.
fn run_machines(
    args: &Args,
    folder: &Path,
    payload: &payload::Payload,
    parts: &[(Plan, fetch::Files, PathBuf)],
    sources: &str,
) -> Result<Vec<outcome::Outcome>> {
    let waiting = Mutex::new(parts.iter().enumerate());
    let outcomes = Mutex::new(Vec::new());
    let keep = |outcome: &outcome::Outcome| match args.record {
        true => record::write(outcome, sources, &PLANS.map(|p| p.name)),
        false => Ok(()),
    };
    let one = |(plan, kernel, disk): &(Plan, fetch::Files, PathBuf)| {
        let limit = if args.short { plan.limits.0 } else { plan.limits.1 };
        let boot = machine::Boot {
            plan,
            kernel,
            disk,
            short: args.short,
            only: &args.situation,
            steps: &args.step,
            limit: Duration::from_secs(limit),
            keep: &keep,
        };
        machine::run(folder, payload, &boot)
    };
    let worker = || -> Result {
        loop {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((at, part)) = next else { return Ok(()) };
            let outcome = one(part)?;
            outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((at, outcome));
        }
    };
    std::thread::scope(|scope| -> Result {
        let workers: Vec<_> = (0..args.at_once).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            worker.join().map_err(|_| "a machine's thread panicked")??;
        }
        Ok(())
    })?;
    let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by_key(|(at, _)| *at);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}
