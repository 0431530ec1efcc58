//! What `palisade doctor --json` must say in a situation: the whole answer about both backends that stand on the
//! kernel, exactly, and what the engine behind those walls guarantees.

use palisade_model::{Guarantee as G, GuaranteeSet, Level};
use serde::Deserialize;

use crate::{Result, report::Finding};

/// What it printed. Backends that do not depend on the kernel may stand beside ours.
#[derive(Deserialize)]
struct Said {
    machine: String,
    default_floor: GuaranteeSet,
    backends: Vec<serde_json::Value>,
}

/// What is not known here would not be looked at, so it is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Backend {
    name: String,
    covers_default_floor: bool,
    facts: Facts,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    #[serde(default)]
    unavailable: Option<Unavailable>,
    guarantees: GuaranteeSet,
    findings: Vec<Topic>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unavailable {
    reason: String,
    remedy: String,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Topic {
    topic: String,
    good: bool,
    detail: String,
    #[serde(default)]
    remedy: String,
}

impl Said {
    fn about(&self, name: &str) -> Result<Backend> {
        let backend = self.backends.iter().find(|b| b.get("name").is_some_and(|n| n == name));
        let backend = backend.ok_or_else(|| format!("doctor says nothing of {name}"))?;
        serde_json::from_value(backend.clone())
            .map_err(|e| format!("doctor says something else of {name}: {e}"))
    }
}

/// What is said of a backend beside its levels, and words of the reason and of the remedy where it cannot be used.
fn compare(
    said: &Backend,
    wanted: &GuaranteeSet,
    why_not: Option<(&str, &str)>,
    floor: &GuaranteeSet,
) -> Vec<Finding> {
    let (name, is) = (&said.name, &said.facts.guarantees);
    let differing: Vec<String> = G::ALL
        .into_iter()
        .filter(|g| is.level(*g) != wanted.level(*g))
        .map(|g| format!("{g}: {}, expected {}", is.level(g), wanted.level(g)))
        .collect();
    let detail = if differing.is_empty() {
        format!("{} guarantees", is.iter().count())
    } else {
        differing.join("; ")
    };
    let (right, told) = match (why_not, &said.facts.unavailable) {
        (None, None) => (true, "it can be used".to_owned()),
        (Some((reason, remedy)), Some(said)) => (
            said.reason.contains(reason) && said.remedy.contains(remedy),
            format!("{said:?}, with {reason:?} and {remedy:?}"),
        ),
        (wanted, said) => (false, format!("{said:?}, expected {wanted:?}")),
    };
    vec![
        Finding::new(format!("doctor: whether {name} can be used"), right, told),
        Finding::new(format!("doctor: levels of {name}"), differing.is_empty(), detail),
        Finding::equal(
            format!("doctor: {name} covers the default floor"),
            &said.covers_default_floor,
            &wanted.covers(floor),
        ),
    ]
}

/// Which of the two backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Wall {
    /// Namespaces.
    Process,
    /// The weaker one, without.
    Landlock,
}

impl Wall {
    pub(crate) const ALL: [Self; 2] = [Self::Process, Self::Landlock];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Landlock => "landlock",
        }
    }
}

/// The kernel of a machine, as far as doctor's answer depends on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    /// Landlock's ABI, 0 for none.
    pub(crate) landlock: u32,
    /// `PR_SET_MDWE` (Linux 6.3).
    pub(crate) mdwe: bool,
}

/// What is expected.
#[derive(Clone, Debug)]
pub(crate) struct Doctor {
    /// Started by root with all of root's rights.
    pub(crate) privileged: bool,
    /// Started by root without them.
    pub(crate) weak_root: bool,
    /// Words of the reason and of the remedy where the namespaces cannot be built.
    pub(crate) no_namespaces: Option<(&'static str, &'static str)>,
    pub(crate) kernel: Kernel,
    /// A filter around this process refuses Landlock; the kernel may have it.
    pub(crate) landlock_refused: bool,
    /// Usable controllers, as doctor lists them, and words of the note where some are missing.
    pub(crate) cgroups: (&'static str, &'static str),
}

const ALL: &str = "memory, pids, cpu";
/// Launcher, namespaces, seccomp, landlock, cgroups.
const TOPICS: usize = 5;

impl Doctor {
    /// Everything is there.
    pub(crate) fn good(privileged: bool, kernel: Kernel) -> Self {
        Self {
            privileged,
            weak_root: false,
            landlock_refused: false,
            no_namespaces: None,
            kernel,
            cgroups: (ALL, ""),
        }
    }

    /// As [`Doctor::good`], but no controller can be used; the note says why.
    pub(crate) fn without_cgroups(privileged: bool, kernel: Kernel, why: &'static str) -> Self {
        Self { cgroups: ("none", why), ..Self::good(privileged, kernel) }
    }

    /// What a backend guarantees here; nothing where it cannot be used.
    pub(crate) fn levels(&self, wall: Wall) -> GuaranteeSet {
        match wall {
            Wall::Process if self.no_namespaces.is_none() => self.process(),
            Wall::Landlock if self.kernel.landlock > 0 && !self.landlock_refused => self.weaker(),
            _ => GuaranteeSet::new(),
        }
    }

    fn limit(&self, controller: &str, otherwise: Level) -> Level {
        if self.cgroups.0.contains(controller) { Level::Kernel } else { otherwise }
    }

    fn own_uid(&self) -> Level {
        if self.privileged { Level::Kernel } else { Level::None }
    }

    fn process(&self) -> GuaranteeSet {
        GuaranteeSet::new()
            .with(G::FsIsolated, Level::Kernel)
            .with(G::NetIsolated, Level::Kernel)
            .with(G::IpcIsolated, Level::Kernel)
            .with(G::PeersIsolated, Level::Kernel)
            .with(G::DiesWithHost, Level::Kernel)
            .with(G::SyscallsFiltered, Level::Kernel)
            .with(G::OwnUid, self.own_uid())
            .with(G::MemoryCapped, self.limit("memory", Level::Policed))
            .with(G::PidsCapped, Level::Kernel)
            .with(G::CpuCapped, self.limit("cpu", Level::Policed))
            .with(G::DiskCapped, Level::Policed)
            .with(G::NoJit, if self.kernel.mdwe { Level::Kernel } else { Level::None })
    }

    /// The WebAssembly engine behind the same walls: it makes machine code, and is shown no folder to write to.
    fn engine(&self) -> GuaranteeSet {
        if self.no_namespaces.is_some() {
            return GuaranteeSet::new();
        }
        let mut all =
            self.process().with(G::EngineWalled, Level::Kernel).with(G::DiskCapped, Level::Kernel);
        all.remove(G::NoJit);
        all
    }

    fn weaker(&self) -> GuaranteeSet {
        // Signals are kept in from ABI 6 on.
        let dies = if self.kernel.landlock >= 6 { Level::Policed } else { Level::None };
        GuaranteeSet::new()
            .with(G::NetIsolated, Level::Kernel)
            .with(G::IpcIsolated, Level::Kernel)
            .with(G::DiesWithHost, dies)
            .with(G::SyscallsFiltered, Level::Kernel)
            .with(G::OwnUid, self.own_uid())
            .with(G::MemoryCapped, self.limit("memory", Level::None))
            .with(G::PidsCapped, self.limit("pids", self.own_uid()))
            .with(G::CpuCapped, self.limit("cpu", Level::None))
            .with(G::DiskCapped, Level::Policed)
    }

    /// Compares with what it printed.
    pub(crate) fn judge(&self, printed: &str) -> Result<Vec<Finding>> {
        let said: Said = serde_json::from_str(printed)
            .map_err(|e| format!("doctor printed something else ({e}): {printed}"))?;
        let uname = rustix::system::uname();
        let machine = format!(
            "{} {} on {}",
            uname.sysname().to_string_lossy(),
            uname.release().to_string_lossy(),
            uname.machine().to_string_lossy()
        );
        let floor = GuaranteeSet::default_floor();
        let mut found = vec![
            Finding::equal("doctor: machine", &said.machine, &machine),
            Finding::equal("doctor: default floor", &said.default_floor, &floor),
        ];
        let mut findings = Vec::new();
        for wall in Wall::ALL {
            let name = wall.name();
            let backend = said.about(name)?;
            found.extend(compare(&backend, &self.levels(wall), self.why_not(wall), &floor));
            findings.push(backend.facts.findings);
        }
        let engine = said.about("wasm+process")?;
        found.extend(compare(&engine, &self.engine(), self.no_namespaces, &floor));
        if let [process, weaker] = findings.as_slice() {
            found.extend(self.findings(process));
            // The weaker one has not tried any namespaces.
            let same = process.iter().filter(|f| f.topic != "namespaces").eq(weaker);
            let detail = if same { String::new() } else { format!("{weaker:?}") };
            found.push(Finding::new("doctor: both backends found the same", same, detail));
        }
        Ok(found)
    }

    /// Words of the reason and of the remedy where a backend cannot be used.
    fn why_not(&self, wall: Wall) -> Option<(&'static str, &'static str)> {
        match wall {
            Wall::Process => self.no_namespaces,
            Wall::Landlock if self.landlock_refused => Some(("refused here", "landlock_*")),
            Wall::Landlock if self.kernel.landlock == 0 => Some(("not enabled", "lsm=")),
            Wall::Landlock => None,
        }
    }

    fn findings(&self, all: &[Topic]) -> Vec<Finding> {
        let landlock = match self.kernel.landlock {
            _ if self.landlock_refused => "refused here".to_owned(),
            0 => "not enabled".to_owned(),
            abi => format!("ABI {abi}"),
        };
        let has_landlock = !self.levels(Wall::Landlock).is_empty();
        let (usable, note) = self.cgroups;
        let cgroups =
            if usable == ALL { format!("version 2: {ALL}") } else { format!("usable: {usable}; ") };
        let launcher = match (self.privileged, self.weak_root) {
            (true, _) => "started by root: each",
            (false, true) => "started by root without",
            (false, false) => "started by a user",
        };
        let (reason, remedy) =
            self.no_namespaces.unwrap_or(("user, pid, mount, net, ipc, uts and cgroup", ""));
        // What makes cgroups usable is another command for who is not root.
        let delegate = if self.privileged || self.weak_root { "mount" } else { "systemd-run" };
        let wanted: [(&str, bool, [&str; 2], &str); TOPICS] = [
            ("launcher", true, [launcher, ""], ""),
            ("namespaces", self.no_namespaces.is_none(), [reason, ""], remedy),
            ("seccomp", true, ["system call filters", ""], ""),
            ("landlock", has_landlock, [&landlock, ""], "landlock"),
            ("cgroups", usable == ALL, [&cgroups, note], delegate),
        ];
        let mut found = Vec::new();
        for (topic, good, words, remedy) in wanted {
            let Some(one) = all.iter().find(|f| f.topic == topic) else {
                found.push(Finding::new(format!("doctor: {topic}"), false, "nothing is said"));
                continue;
            };
            let remedied = if good { one.remedy.is_empty() } else { one.remedy.contains(remedy) };
            let right = one.good == good
                && words.iter().all(|w| one.detail.contains(w))
                && remedied
                && (good || !one.remedy.is_empty());
            let told = if right {
                one.detail.clone()
            } else {
                format!("{one:?}, expected {words:?} {remedy:?}")
            };
            found.push(Finding::new(format!("doctor: {topic}"), right, told));
        }
        found.push(Finding::equal("doctor: number of findings", &all.len(), &TOPICS));
        found
    }
}
