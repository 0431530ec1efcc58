//! What `palisade doctor --json` must say in a situation: every finding and every level, exactly.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{Result, report::Finding};

/// What it printed, as far as it is looked at.
#[derive(Deserialize)]
struct Said {
    backends: Vec<Backend>,
}

#[derive(Deserialize)]
struct Backend {
    name: String,
    facts: Facts,
}

#[derive(Deserialize)]
struct Facts {
    #[serde(default)]
    unavailable: Option<serde_json::Value>,
    guarantees: BTreeMap<String, String>,
    findings: Vec<Topic>,
}

#[derive(Debug, Deserialize)]
struct Topic {
    topic: String,
    good: bool,
    detail: String,
    #[serde(default)]
    remedy: String,
}

/// How a limit is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Kernel,
    Policed,
    Not,
}

impl Held {
    fn word(self) -> Option<&'static str> {
        match self {
            Self::Kernel => Some("kernel"),
            Self::Policed => Some("policed"),
            Self::Not => None,
        }
    }
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
    /// 0 for none.
    pub(crate) landlock: u32,
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
    pub(crate) fn good(privileged: bool, landlock: u32) -> Self {
        Self {
            privileged,
            weak_root: false,
            landlock_refused: false,
            no_namespaces: None,
            landlock,
            cgroups: (ALL, ""),
        }
    }

    /// As [`Doctor::good`], but no controller can be used; the note says why.
    pub(crate) fn without_cgroups(privileged: bool, landlock: u32, why: &'static str) -> Self {
        Self { cgroups: ("none", why), ..Self::good(privileged, landlock) }
    }

    fn limit(&self, controller: &str, otherwise: Held) -> Held {
        if self.cgroups.0.contains(controller) { Held::Kernel } else { otherwise }
    }

    /// The levels of backend `process`; empty where it cannot be used.
    fn process(&self) -> BTreeMap<&'static str, Held> {
        if self.no_namespaces.is_some() {
            return BTreeMap::new();
        }
        let own_uid = if self.privileged { Held::Kernel } else { Held::Not };
        BTreeMap::from([
            ("fs-isolated", Held::Kernel),
            ("net-isolated", Held::Kernel),
            ("ipc-isolated", Held::Kernel),
            ("peers-isolated", Held::Kernel),
            ("dies-with-host", Held::Kernel),
            ("syscalls-filtered", Held::Kernel),
            ("own-uid", own_uid),
            ("memory-capped", self.limit("memory", Held::Policed)),
            ("pids-capped", Held::Kernel),
            ("cpu-capped", self.limit("cpu", Held::Policed)),
            ("disk-capped", Held::Policed),
        ])
    }

    /// The levels of backend `landlock`.
    fn weaker(&self) -> BTreeMap<&'static str, Held> {
        if self.landlock == 0 {
            return BTreeMap::new();
        }
        let own_uid = if self.privileged { Held::Kernel } else { Held::Not };
        BTreeMap::from([
            ("net-isolated", Held::Kernel),
            ("ipc-isolated", Held::Kernel),
            // Signals are kept in from ABI 6 on.
            ("dies-with-host", if self.landlock >= 6 { Held::Policed } else { Held::Not }),
            ("syscalls-filtered", Held::Kernel),
            ("own-uid", own_uid),
            ("memory-capped", self.limit("memory", Held::Not)),
            ("pids-capped", self.limit("pids", own_uid)),
            ("cpu-capped", self.limit("cpu", Held::Not)),
            ("disk-capped", Held::Policed),
        ])
    }

    /// Compares with what it printed.
    pub(crate) fn judge(&self, printed: &str) -> Result<Vec<Finding>> {
        let said: Said = serde_json::from_str(printed)
            .map_err(|e| format!("doctor printed something else ({e}): {printed}"))?;
        let mut found = Vec::new();
        for (name, levels) in [("process", self.process()), ("landlock", self.weaker())] {
            let backend = said.backends.iter().find(|b| b.name == name);
            let backend = backend.ok_or_else(|| format!("doctor says nothing of {name}"))?;
            found.extend(self.levels(name, &levels, &backend.facts));
            if name == "process" {
                found.extend(self.findings(&backend.facts.findings));
            }
        }
        Ok(found)
    }

    fn levels(
        &self,
        name: &str,
        wanted: &BTreeMap<&'static str, Held>,
        facts: &Facts,
    ) -> Vec<Finding> {
        let usable = Finding::equal(
            format!("doctor: {name} can be used"),
            &facts.unavailable.is_none(),
            &!wanted.is_empty(),
        );
        let is = &facts.guarantees;
        let wanted: BTreeMap<String, String> = wanted
            .iter()
            .filter_map(|(k, v)| Some(((*k).to_owned(), v.word()?.to_owned())))
            .collect();
        let differing: Vec<String> = is
            .keys()
            .chain(wanted.keys())
            .filter(|k| is.get(*k) != wanted.get(*k))
            .map(|k| format!("{k}: {:?}, expected {:?}", is.get(k), wanted.get(k)))
            .collect();
        let detail = if differing.is_empty() {
            format!("{} guarantees", is.len())
        } else {
            differing.join("; ")
        };
        vec![
            usable,
            Finding::new(format!("doctor: levels of {name}"), differing.is_empty(), detail),
        ]
    }

    fn findings(&self, all: &[Topic]) -> Vec<Finding> {
        let landlock = match self.landlock {
            0 if self.landlock_refused => "refused here".to_owned(),
            0 => "not enabled".to_owned(),
            abi => format!("ABI {abi}"),
        };
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
        let wanted: [(&str, bool, [&str; 2], &str); 5] = [
            ("launcher", true, [launcher, ""], ""),
            ("namespaces", self.no_namespaces.is_none(), [reason, ""], remedy),
            ("seccomp", true, ["system call filters", ""], ""),
            ("landlock", self.landlock > 0, [&landlock, ""], ""),
            ("cgroups", usable == ALL, [&cgroups, note], ""),
        ];
        let mut found = Vec::new();
        for (topic, good, words, remedy) in wanted {
            let Some(one) = all.iter().find(|f| f.topic == topic) else {
                found.push(Finding::new(format!("doctor: {topic}"), false, "nothing is said"));
                continue;
            };
            let right = one.good == good
                && words.iter().all(|w| one.detail.contains(w))
                && one.remedy.contains(remedy)
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
