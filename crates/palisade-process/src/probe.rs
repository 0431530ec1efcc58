//! What this machine lets us build: asked once, by trying.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use palisade_sandbox::Finding;
use serde::Serialize;

use crate::{cgroup, landlock::Abi, spawner};

/// What the probe found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// This process may map any user id and mount in the initial namespaces.
    pub(crate) privileged: bool,
    /// This process is the machine's root without all of root's rights, and so are its plugins to the kernel: their
    /// processes are not counted against RLIMIT_NPROC, which is "not enforced for processes that … run with real user ID 0"
    /// (setrlimit(2)).
    pub(crate) is_uncounted: bool,
    /// Why namespaces cannot be used; `None` if a trial launch built them all.
    pub(crate) namespaces: Option<String>,
    /// Landlock's ABI, 0 for none.
    pub(crate) landlock: u32,
    /// seccomp filters can be loaded.
    pub(crate) seccomp: bool,
    /// Memory that was written can be kept from becoming code (PR_SET_MDWE).
    pub(crate) mdwe: bool,
    /// AppArmor restricts unprivileged user namespaces.
    pub(crate) apparmor_restricts: bool,
}

/// What container engines leave inside: Docker, Podman, systemd-nspawn
/// (<https://systemd.io/CONTAINER_INTERFACE>).
const CONTAINER_MARKS: [&str; 4] =
    ["/.dockerenv", "/run/.containerenv", "/run/host/container-manager", "/run/systemd/container"];
/// What to do where Landlock is refused.
pub(crate) const LANDLOCK_REFUSED: &str =
    "let the container's filter pass the landlock_* calls, or run Palisade on the host";
const CAP_CHOWN: u32 = 0;
const CAP_DAC_OVERRIDE: u32 = 1;
const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SETFCAP: u32 = 31;

/// Whether this process has all of these capabilities, effective.
fn has(capabilities: &[u32]) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .and_then(|v| u64::from_str_radix(v.trim(), 16).ok())
        .unwrap_or(0);
    capabilities.iter().all(|c| effective & (1 << c) != 0)
}

/// Whether there is what a launch with an id of its own for each plugin needs. `docker run` gives all of these
/// capabilities but CAP_SYS_ADMIN.
fn is_privileged() -> bool {
    let in_first_user_namespace = fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]));
    in_first_user_namespace
        && rustix::process::geteuid().is_root()
        && has(&[CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN])
}

/// A file that belongs to the machine's root, whatever number that has in this user namespace.
const OF_ROOT: &str = "/proc/sys/vm/overcommit_memory";
/// The number of whoever has none in a user namespace (user_namespaces(7), "overflow user ID").
const OVERFLOW: u32 = 65_534;

/// Whether `user` is the machine's root, as the `owner` of [`OF_ROOT`] tells and, where that says too little, `map`:
/// /proc/self/uid_map. In doubt it is.
fn is_machines_root(user: u32, owner: Option<u32>, map: &str) -> bool {
    let lines = map.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map_while(|n| n.parse::<u64>().ok());
        Some((numbers.next()?, numbers.next()?, numbers.next()?))
    });
    // As whom the namespace above knows the user, and how many users are mapped beside that one.
    let user = u64::from(user);
    let above = lines
        .filter(|(first, _, count)| (*first..first.saturating_add(*count)).contains(&user))
        .map(|(first, above, count)| (user - first + above, count))
        .next();
    match (owner, above) {
        (None, Some((above, _))) => user == 0 || above == 0,
        (None, None) => true,
        // A single user may be anybody above; of a whole range it is an ordinary one's.
        (Some(OVERFLOW), Some((above, count))) if user == u64::from(OVERFLOW) => {
            above == 0 || count == 1
        }
        (Some(owner), _) => u64::from(owner) == user,
    }
}

/// Whether this kernel has PR_SET_MDWE (Linux 6.3): one that has it tells what is set.
#[allow(unsafe_code)]
fn has_mdwe() -> bool {
    const PR_GET_MDWE: libc::c_int = 66;
    // SAFETY: takes no pointer and changes nothing (PR_GET_MDWE(2const)); the rest must be zero.
    unsafe { libc::prctl(PR_GET_MDWE, 0, 0, 0, 0) >= 0 }
}

impl Machine {
    /// Looks at everything but namespaces, which need a trial launch.
    pub(crate) fn look() -> Self {
        let restricts =
            fs::read_to_string("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
        let privileged = is_privileged();
        let is_uncounted = !privileged
            && is_machines_root(
                rustix::process::geteuid().as_raw(),
                fs::metadata(OF_ROOT).ok().map(|file| file.uid()),
                &fs::read_to_string("/proc/self/uid_map").unwrap_or_default(),
            );
        Self {
            privileged,
            is_uncounted,
            namespaces: None,
            landlock: Abi::of_this_kernel().map_or(0, |a| a.0),
            seccomp: fs::read_to_string("/proc/self/status").is_ok_and(|s| s.contains("Seccomp:")),
            mdwe: has_mdwe(),
            apparmor_restricts: restricts.is_ok_and(|v| v.trim() == "1"),
        }
    }

    pub(crate) fn abi(&self) -> Abi {
        Abi(self.landlock)
    }

    /// The findings for `palisade doctor`. Of namespaces only who tried them can tell.
    pub(crate) fn findings(&self, tried_namespaces: bool) -> Vec<Finding> {
        let finding = |topic: &str, good: bool, detail: String, remedy: Option<String>| Finding {
            topic: topic.to_owned(),
            good,
            detail,
            remedy,
        };
        let mut all = vec![finding(
            "launcher",
            true,
            if self.privileged {
                "started by root: each plugin gets a user id of its own".to_owned()
            } else if rustix::process::geteuid().is_root() {
                "started by root without all of root's rights, as in a container: all plugins share its id, behind separate namespaces".to_owned()
            } else {
                "started by a user: all plugins share that user's id, behind separate namespaces"
                    .to_owned()
            },
            None,
        )];
        all.extend(tried_namespaces.then(|| match &self.namespaces {
            None => finding(
                "namespaces",
                true,
                "user, pid, mount, net, ipc, uts and cgroup namespaces, and a new root".into(),
                None,
            ),
            Some(why) => finding("namespaces", false, why.clone(), Some(self.namespace_remedy())),
        }));
        all.push(if self.seccomp {
            finding("seccomp", true, "system call filters".into(), None)
        } else {
            finding(
                "seccomp",
                false,
                "the kernel has no system call filters".into(),
                Some("use a kernel with CONFIG_SECCOMP_FILTER".into()),
            )
        });
        all.push(match self.landlock {
            0 if Abi::is_refused() => finding(
                "landlock",
                false,
                "refused here, as by a container's system call filter: the second wall is missing"
                    .into(),
                Some(LANDLOCK_REFUSED.into()),
            ),
            0 => finding(
                "landlock",
                false,
                "not enabled: the second wall is missing".into(),
                Some("add landlock to the lsm= kernel parameter".into()),
            ),
            abi => finding("landlock", true, format!("ABI {abi}"), None),
        });
        let cgroups = cgroup::of_this_process();
        let h = cgroups.hierarchy();
        let version = if h.is_unified() { "version 2" } else { "version 1" };
        let have: Vec<&str> =
            [("memory", h.has_memory()), ("pids", h.has_pids()), ("cpu", h.has_cpu())]
                .into_iter()
                .filter_map(|(name, has)| has.then_some(name))
                .collect();
        all.push(if have.len() == 3 {
            finding("cgroups", true, format!("{version}: {}", have.join(", ")), None)
        } else {
            finding(
                "cgroups",
                false,
                format!(
                    "usable: {}; {}; the other limits are sampled (policed)",
                    if have.is_empty() { "none".to_owned() } else { have.join(", ") },
                    h.note
                ),
                Some(cgroup_remedy()),
            )
        });
        all
    }

    /// What would make namespaces usable.
    pub(crate) fn namespace_remedy(&self) -> String {
        if self.apparmor_restricts {
            return apparmor_profile();
        }
        for (file, command) in [
            (
                "/proc/sys/kernel/unprivileged_userns_clone",
                "sudo sysctl -w kernel.unprivileged_userns_clone=1",
            ),
            ("/proc/sys/user/max_user_namespaces", "sudo sysctl -w user.max_user_namespaces=15000"),
        ] {
            if fs::read_to_string(file).is_ok_and(|v| v.trim() == "0") {
                return command.to_owned();
            }
        }
        let own = fs::read_link("/proc/self").ok();
        if own.as_deref().and_then(Path::to_str) != Some(std::process::id().to_string().as_str()) {
            return "mount /proc for this PID namespace (mount -t proc proc /proc; unshare --mount-proc)".to_owned();
        }
        let lacks_setfcap = rustix::process::geteuid().is_root() && !has(&[CAP_SETFCAP]);
        if CONTAINER_MARKS.iter().any(|mark| Path::new(mark).exists()) {
            let setfcap = if lacks_setfcap { " --cap-add SETFCAP" } else { "" };
            return format!(
                "in a container: start it with --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined{setfcap}, or run Palisade on the host"
            );
        }
        if lacks_setfcap {
            return "root cannot make a user namespace for itself without CAP_SETFCAP (user_namespaces(7)): let it keep that, or run Palisade as an ordinary user".to_owned();
        }
        "needs Linux 5.12 or later with user namespaces; run as root, or ask the administrator to allow unprivileged user namespaces".to_owned()
    }
}

/// What would make cgroups usable.
fn cgroup_remedy() -> String {
    if rustix::process::geteuid().is_root() {
        "mount the cgroup file system so that it can be written (in a container: let the engine delegate the container's cgroup), or run Palisade on the host".to_owned()
    } else {
        "systemd-run --user --scope -p Delegate=yes palisade …, or run as root".to_owned()
    }
}

/// The AppArmor profile that lets the installed helper make user namespaces, and how to install it.
fn apparmor_profile() -> String {
    let helper = spawner::INSTALLED;
    format!(
        "AppArmor restricts user namespaces to programs with a profile. Install the helper and its profile:\n\
         sudo install -D -m 755 -o root -g root \"$(palisade doctor --extract-helper)\" {helper}\n\
         sudo tee /etc/apparmor.d/palisade-helper <<'END'\n\
         abi <abi/4.0>,\n\
         include <tunables/global>\n\
         profile palisade-helper {helper} flags=(unconfined) {{\n\
         \x20 userns,\n\
         \x20 include if exists <local/palisade-helper>\n\
         }}\n\
         END\n\
         sudo apparmor_parser -r /etc/apparmor.d/palisade-helper"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_root_is_told_from_the_root_of_a_namespace() {
        const ALL: &str = "         0          0 4294967295\n";
        for (user, owner, map) in [
            (0, Some(0), ALL),
            (0, Some(0), "0 0 1\n"),
            (1000, Some(1000), "1000 0 1\n"),
            (OVERFLOW, Some(OVERFLOW), "65534 0 1\n"),
            (OVERFLOW, Some(OVERFLOW), "0 1 1\n65534 1000 1\n"),
            (0, None, ALL),
            (1000, None, "1000 0 1\n"),
            (1000, None, ""),
        ] {
            assert!(is_machines_root(user, owner, map), "{user} {owner:?} {map}");
        }
        for (user, owner, map) in [
            (1000, Some(0), ALL),
            (OVERFLOW, Some(0), ALL),
            (0, Some(OVERFLOW), "0 1000 1\n"),
            // A namespace in a namespace of a user.
            (0, Some(OVERFLOW), "0 0 1\n"),
            (OVERFLOW, Some(OVERFLOW), "0 100000 65536\n"),
            (1000, None, ALL),
        ] {
            assert!(!is_machines_root(user, owner, map), "{user} {owner:?} {map}");
        }
    }
}
