//! Where a process is put before it becomes the program under test: its user, its cgroup, what it sees of
//! the cgroups, a container around it.
//!
//! Every program under test gets a fresh place, because a host that finds itself alone in a cgroup moves
//! into a leaf of it, as it would in a scope of systemd's.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::{
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change,
        mount_remount, unmount,
    },
    thread::{CapabilitySet, CapabilitySets, UnshareFlags},
};
use serde::{Deserialize, Serialize};

use crate::Result;

pub(crate) const CGROUPS: &str = "/sys/fs/cgroup";

/// What the program sees of the cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Seen {
    /// As it is.
    #[default]
    Whole,
    /// Mounted read-only.
    ReadOnly,
    /// Not mounted.
    Absent,
}

/// A place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Root where there is none.
    pub(crate) uid: Option<u32>,
    /// Entered first. Made and given away by root.
    pub(crate) cgroup: Option<PathBuf>,
    pub(crate) seen: Seen,
    /// As an engine starts it by default: namespaces, masked /proc, read-only /sys, few capabilities.
    pub(crate) container: bool,
    /// The second half of the way into a container, by the process that is its pid 1.
    pub(crate) inside_container: bool,
    /// Words before the command, such as those of systemd-run.
    pub(crate) through: Vec<String>,
    /// Environment beside PATH.
    pub(crate) env: Vec<(String, String)>,
}

/// What an engine leaves to a container's root by default (capabilities(7)): nothing that administrates.
const CONTAINER_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::AUDIT_WRITE);
/// Hidden by default by the engines, as files and as folders.
const MASKED: [&str; 3] = ["/proc/kcore", "/proc/keys", "/proc/timer_list"];
const MASKED_FOLDERS: [&str; 2] = ["/proc/acpi", "/sys/firmware"];
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

impl Place {
    /// The program that goes there and becomes `command`.
    pub(crate) fn command<S: AsRef<str>>(&self, command: &[S]) -> Result<Command> {
        let own = std::env::current_exe().map_err(|e| format!("finding this program: {e}"))?;
        let place = serde_json::to_string(self).map_err(|e| e.to_string())?;
        let mut enter = Command::new(own);
        enter.arg("enter").arg(place).args(command.iter().map(AsRef::as_ref));
        Ok(enter)
    }
}

fn doing<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> String {
    move |e| format!("{what}: {e}")
}

/// Goes to `place` and becomes `command`; returns only where it could not, or in front of a container.
pub(crate) fn enter(place: &str, command: &[&str]) -> Result {
    let place: Place = serde_json::from_str(place).map_err(doing("the place"))?;
    if let Some(cgroup) = &place.cgroup {
        let file = cgroup.join("cgroup.procs");
        fs::write(&file, "0").map_err(doing(file.display()))?;
    }
    if place.container {
        return in_container(&place, command);
    }
    if place.inside_container {
        mask().map_err(doing("masking"))?;
        give_up_capabilities().map_err(doing("giving up capabilities"))?;
    }
    if place.seen != Seen::Whole {
        unshare(UnshareFlags::NEWNS)?;
        private_mounts()?;
        match place.seen {
            Seen::Absent => unmount(CGROUPS, UnmountFlags::DETACH).map_err(doing(CGROUPS))?,
            _ => mount_remount(CGROUPS, MountFlags::BIND | MountFlags::RDONLY, "")
                .map_err(doing(CGROUPS))?,
        }
    }
    let words: Vec<&str> =
        place.through.iter().map(String::as_str).chain(command.iter().copied()).collect();
    let (program, args) = words.split_first().ok_or("no command")?;
    let mut next = Command::new(program);
    next.args(args).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    next.env("LANG", "C.UTF-8").envs(place.env.iter().cloned());
    if let Some(uid) = place.uid {
        // The standard library gives up root's other groups with the user.
        next.uid(uid).gid(uid);
    }
    Err(format!("{program}: {}", next.exec()))
}

fn unshare(what: UnshareFlags) -> Result {
    // SAFETY: this process has one thread and shares nothing that other threads could rely on.
    unsafe { rustix::thread::unshare_unsafe(what) }.map_err(doing(format!("unshare {what:?}")))
}

fn private_mounts() -> Result {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(doing("private mounts"))
}

/// Makes the namespaces, and has the first process in them go on.
fn in_container(place: &Place, command: &[&str]) -> Result {
    unshare(
        UnshareFlags::NEWNS
            | UnshareFlags::NEWPID
            | UnshareFlags::NEWIPC
            | UnshareFlags::NEWUTS
            | UnshareFlags::NEWCGROUP,
    )?;
    private_mounts()?;
    let inner = Place {
        cgroup: None,
        container: false,
        inside_container: true,
        through: Vec::new(),
        ..place.clone()
    };
    let status = inner.command(command)?.status().map_err(doing("the container"))?;
    if status.success() { Ok(()) } else { Err(format!("the container ended: {status}")) }
}

/// What an engine does to a container's file systems.
fn mask() -> rustix::io::Result<()> {
    let none = MountFlags::empty();
    mount("proc", "/proc", "proc", none, None)?;
    unmount(CGROUPS, UnmountFlags::DETACH)?;
    mount("cgroup2", CGROUPS, "cgroup2", MountFlags::RDONLY, None)?;
    mount("tmpfs", "/run", "tmpfs", none, None)?;
    let _ = fs::write("/run/.containerenv", "");
    let there = |path: &&&str| Path::new(path).exists();
    for file in MASKED.iter().filter(there) {
        mount_bind("/dev/null", *file)?;
    }
    for folder in MASKED_FOLDERS.iter().filter(there) {
        mount("tmpfs", *folder, "tmpfs", MountFlags::RDONLY, None)?;
    }
    for path in READ_ONLY.iter().filter(there) {
        mount_bind(*path, *path)?;
        mount_remount(*path, MountFlags::BIND | MountFlags::RDONLY, "")?;
    }
    Ok(())
}

fn give_up_capabilities() -> rustix::io::Result<()> {
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if CONTAINER_CAPABILITIES.contains(one) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(one) {
            // This kernel knows fewer.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(e) => return Err(e),
        }
    }
    let sets = CapabilitySets {
        effective: CONTAINER_CAPABILITIES,
        permitted: CONTAINER_CAPABILITIES,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets)
}
