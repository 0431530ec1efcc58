//! What the walls guarantee for one launch on this machine, and how: each line here is attacked by the
//! escape suite.

use palisade_model::{Guarantee, Level};
use palisade_sandbox::{Assessment, LaunchSpec};

use crate::{cgroup::Hierarchy, layout, probe::Machine};

/// How far memory can overshoot its limit where it is sampled, in bytes: what two cores can touch between
/// two samples on the machines that this was measured on, doubled. `cargo xtask escape` attacks it.
pub const POLICED_MEMORY_OVERSHOOT: u64 = 256 << 20;

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
        a.weaken(G::FsIsolated, Not, "Landlock alone does not cover stat, chmod, utimes and chdir");
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
        } else {
            a.weaken(G::PeersIsolated, Not, "this Landlock cannot keep signals in");
        }
        a.hold(
            G::DiesWithHost,
            Policed,
            "pid 1 reaps and kills orphans; a pid namespace would leave that to the kernel",
        );
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
    let version = if h.is_some_and(Hierarchy::is_unified) { "cgroup v2" } else { "cgroup v1" };
    if h.is_some_and(Hierarchy::has_memory) {
        a.hold(G::MemoryCapped, Kernel, version);
    } else if namespaces {
        let mib = POLICED_MEMORY_OVERSHOOT >> 20;
        a.hold(
            G::MemoryCapped,
            Policed,
            format!("sampled every 5 to 20 ms; may overshoot by up to {mib} MiB"),
        );
    } else {
        a.weaken(G::MemoryCapped, Not, "no cgroup, and /proc is not the plugin's alone");
    }
    if h.is_some_and(Hierarchy::has_pids) {
        a.hold(G::PidsCapped, Kernel, version);
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
    } else if namespaces {
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
        "the data folder is measured every 0.25 s; /tmp is capped by the kernel",
    );
    a
}
