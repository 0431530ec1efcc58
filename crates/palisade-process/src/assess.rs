//! What the walls guarantee for one launch on this machine, and how: each line here is attacked by the
//! escape suite.

use palisade_model::{Guarantee, Level};
use palisade_sandbox::{Assessment, LaunchSpec};

use crate::{cgroup::Hierarchy, layout, probe::Machine};

/// How far memory can overshoot its limit where it is sampled, in bytes: what two cores can touch between
/// two samples on the machines that this was measured on, doubled. `cargo xtask escape` attacks it.
pub const POLICED_MEMORY_OVERSHOOT: u64 = 256 << 20;

/// Whether written memory is kept from becoming code: only where that is demanded, because runtimes that
/// compile as they run cannot do without it.
pub(crate) fn is_no_jit(spec: &LaunchSpec) -> bool {
    spec.demand.level(Guarantee::NoJit) > Level::None
}

/// What a launch would be guaranteed; without a spec, one that weakens nothing.
pub(crate) fn assess(
    spec: Option<&LaunchSpec>,
    machine: &Machine,
    namespaces: bool,
    cgroups: Option<&Hierarchy>,
) -> Assessment {
    let mut a = Assessment::default();
    if let Some(spec) = spec {
        a.unsupported = spec
            .rights
            .iter()
            .filter_map(|r| layout::unsupported(r, namespaces).map(|why| (r.clone(), why)))
            .collect();
    }
    use Guarantee as G;
    use Level::{Kernel, None as Not, Policed};
    if namespaces {
        let landlock = if machine.landlock > 0 { "; Landlock behind it" } else { "" };
        a.hold(G::FsIsolated, Kernel, format!("a mount namespace with a new root{landlock}"));
        let way_out = if spec.is_some_and(LaunchSpec::has_way_out) {
            "a network namespace in which nothing but the egress guard's port can be reached"
        } else {
            "a network namespace without interfaces"
        };
        a.hold(G::NetIsolated, Kernel, way_out);
        a.hold(
            G::IpcIsolated,
            Kernel,
            "IPC and network namespaces; no path-named socket is visible",
        );
        a.hold(G::PeersIsolated, Kernel, "a pid namespace with its own /proc");
        a.hold(G::DiesWithHost, Kernel, "a pid namespace whose init ends with the host's socket");
    } else {
        let not_covered = if machine.landlock >= 3 {
            "Landlock alone does not cover stat, chmod, utimes and chdir"
        } else {
            "Landlock alone does not cover stat, chmod, utimes and chdir, and this one not truncate either"
        };
        a.weaken(G::FsIsolated, Not, not_covered);
        a.hold(G::NetIsolated, Kernel, "the filter lets no socket be made");
        a.hold(
            G::IpcIsolated,
            Kernel,
            "the filter refuses System V IPC, message queues and sockets",
        );
        if machine.landlock >= 6 {
            a.weaken(
                G::PeersIsolated,
                Not,
                "Landlock keeps signals in, but process numbers of others are visible",
            );
            a.hold(
                G::DiesWithHost,
                Policed,
                "pid 1 reaps and kills orphans; a pid namespace would leave that to the kernel",
            );
        } else {
            a.weaken(G::PeersIsolated, Not, "this Landlock cannot keep signals in");
            a.weaken(
                G::DiesWithHost,
                Not,
                "this Landlock cannot keep signals in, so the plugin can end its own pid 1, and what it started lives on",
            );
        }
    }
    if !namespaces {
        a.weaken(
            G::NoJit,
            Not,
            "without mounts, files that the plugin writes can be mapped as code",
        );
    } else if !machine.mdwe {
        a.weaken(G::NoJit, Not, "this kernel has no PR_SET_MDWE (Linux 6.3 and later have)");
    } else if spec.is_none_or(is_no_jit) {
        let how = "PR_SET_MDWE, no memory files, and no code from folders that can be written";
        a.hold(G::NoJit, Kernel, how);
    }
    a.hold(G::SyscallsFiltered, Kernel, "seccomp, by allow-list");
    if machine.privileged {
        a.hold(G::OwnUid, Kernel, "a user id of its own");
    } else {
        a.weaken(
            G::OwnUid,
            Not,
            "all plugins share the user's id; only root can give them their own",
        );
    }
    let h = cgroups;
    // Samples of a plugin that may have any number of processes come too late.
    let is_sampled = namespaces && (!machine.is_uncounted || h.is_some_and(Hierarchy::has_pids));
    let version = if h.is_some_and(Hierarchy::is_unified) { "cgroup v2" } else { "cgroup v1" };
    if h.is_some_and(Hierarchy::has_memory) {
        a.hold(G::MemoryCapped, Kernel, version);
    } else if is_sampled {
        let mib = POLICED_MEMORY_OVERSHOOT >> 20;
        a.hold(
            G::MemoryCapped,
            Policed,
            format!("sampled every 5 to 20 ms; may overshoot by up to {mib} MiB"),
        );
    } else {
        let why = if namespaces {
            "no cgroup for memory or for processes, whose number nothing else bounds for root"
        } else {
            "no cgroup, and /proc is not the plugin's alone"
        };
        a.weaken(G::MemoryCapped, Not, why);
    }
    if h.is_some_and(Hierarchy::has_pids) {
        a.hold(G::PidsCapped, Kernel, version);
    } else if machine.is_uncounted {
        let why = "no cgroup for processes, and RLIMIT_NPROC does not hold for root (setrlimit(2)): run Palisade as an ordinary user";
        a.weaken(G::PidsCapped, Not, why);
    } else if namespaces || machine.privileged {
        a.hold(
            G::PidsCapped,
            Kernel,
            "RLIMIT_NPROC, counted in a user namespace or for a user of its own",
        );
    } else {
        a.weaken(G::PidsCapped, Not, "RLIMIT_NPROC would count all processes of the user");
    }
    if h.is_some_and(Hierarchy::has_cpu) {
        a.hold(G::CpuCapped, Kernel, version);
    } else if is_sampled {
        a.hold(
            G::CpuCapped,
            Policed,
            "stopped and continued every 5 ms to hold the share over 0.1 s",
        );
    } else {
        a.weaken(G::CpuCapped, Not, "no cgroup");
    }
    a.hold(
        G::DiskCapped,
        Policed,
        "the data folder is measured as often as it could have been filled; /tmp is capped by the kernel",
    );
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_kernel_promises_no_written_memory_without_code() {
        let machine = Machine { mdwe: false, ..Machine::look() };
        let old = assess(None, &machine, true, None);
        assert_eq!(old.guarantees.level(Guarantee::NoJit), Level::None);
        let machine = Machine { mdwe: true, ..machine };
        let new = assess(None, &machine, true, None);
        assert_eq!(new.guarantees.level(Guarantee::NoJit), Level::Kernel);
    }

    #[test]
    fn root_without_its_rights_is_not_counted_by_the_kernel() {
        let machine = Machine { privileged: false, is_uncounted: true, ..Machine::look() };
        let assessed = assess(None, &machine, true, None);
        assert_eq!(assessed.guarantees.level(Guarantee::PidsCapped), Level::None);
        // What takes samples would have to look at every process.
        assert_eq!(assessed.guarantees.level(Guarantee::MemoryCapped), Level::None);
        assert_eq!(assessed.guarantees.level(Guarantee::CpuCapped), Level::None);
        let machine = Machine { is_uncounted: false, ..machine };
        let assessed = assess(None, &machine, true, None);
        assert_eq!(assessed.guarantees.level(Guarantee::PidsCapped), Level::Kernel);
    }
}
