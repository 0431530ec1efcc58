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

use std::{fs, path::PathBuf, time::Instant};

use crate::{
    Result, escape, step,
    tools::{self, CC, MKE2FS, MMDEBSTRAP, QEMU},
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only what is looked at before every change: two machines, the short situations
    #[arg(long)]
    short: bool,
    /// Only this machine: `cgroup2`, `debian`, `newer`, `newer-debian` or `no-landlock`
    #[arg(long)]
    machine: Option<String>,
    /// Only the situation of this name
    #[arg(long)]
    situation: Option<String>,
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

const PLANS: [Plan; 5] = [
    Plan {
        name: "cgroup2",
        kernel: Kernel::Stable,
        boot: "",
        disk: false,
        short: true,
        limits: (600, 3600),
    },
    Plan {
        name: "debian",
        kernel: Kernel::Stable,
        boot: "",
        disk: true,
        short: true,
        limits: (600, 3600),
    },
    Plan {
        name: "newer",
        kernel: Kernel::Later,
        boot: "",
        disk: false,
        short: false,
        limits: (600, 3600),
    },
    Plan {
        name: "newer-debian",
        kernel: Kernel::Later,
        boot: "",
        disk: true,
        short: false,
        limits: (600, 3600),
    },
    Plan {
        name: "no-landlock",
        kernel: Kernel::Stable,
        boot: "lsm=lockdown,yama,integrity,apparmor",
        disk: false,
        short: false,
        limits: (600, 3600),
    },
];

/// Where everything lies.
fn folder() -> PathBuf {
    step::root().join("target/vm")
}

fn chosen(args: &Args) -> Result<Vec<Plan>> {
    let wanted = |plan: &&Plan| match &args.machine {
        Some(name) => plan.name == name,
        None => plan.short || !args.short,
    };
    let plans: Vec<Plan> = PLANS.iter().filter(wanted).copied().collect();
    match (&args.machine, plans.is_empty()) {
        (Some(name), true) => {
            let all: Vec<&str> = PLANS.iter().map(|p| p.name).collect();
            Err(format!("no machine `{name}`; there are {}", all.join(", ")))
        }
        _ => Ok(plans),
    }
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
    let begun = Instant::now();
    let folder = folder();
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    escape::build_attacker()?;
    let payload = payload::build(&folder, !args.short)?;
    let mut outcomes = Vec::new();
    for plan in &plans {
        let image = fetch::kernel(&folder, plan.kernel)?;
        let disk = if plan.disk { fetch::disk(&folder)? } else { fetch::scratch(&folder)? };
        let limit = if args.short { plan.limits.0 } else { plan.limits.1 };
        let boot = machine::Boot {
            plan,
            image: &image,
            disk: &disk,
            short: args.short,
            only: args.situation.as_deref(),
            limit: std::time::Duration::from_secs(limit),
        };
        outcomes.push(machine::run(&folder, &payload, &boot)?);
        if args.record {
            record::write(&outcomes, &PLANS.map(|p| p.name))?;
        }
    }
    eprintln!("vm: {:.0} s in all", begun.elapsed().as_secs_f64());
    outcome::show(&outcomes, args.json)
}
