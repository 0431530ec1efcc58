//! What runs inside: its limits, its filter, its arguments and its environment.

use std::{collections::BTreeMap, fs};

use palisade_sandbox::SandboxError;
use rustix::process::Resource;

use super::{Inputs, MIB};
use crate::{
    ablation::Layer,
    filter::{self, Choice},
    plan::PlanBuilder,
    runtime::{self, PLUGIN},
    way_out,
};

/// What this process may have itself: nothing that it starts can have more (setrlimit(2), "hard limit").
fn most(resource: Resource) -> u64 {
    rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX)
}

/// RLIMIT_CORE: 1 keeps core dumps from files, which would be smaller than any, and from a program, which the kernel
/// starts outside of all walls and which minds no other limit, 0 included (core(5), "Piping core dumps to a program").
fn core_limit(most: u64, pattern: &str) -> Result<u64, SandboxError> {
    if most == 0 && pattern.starts_with(['|', '@']) {
        return Err(SandboxError::WallTooWeak(
            "what crashes would be handed to a program of this machine (/proc/sys/kernel/core_pattern), and only a hard limit of at least 1 for core dumps keeps that out: raise it (ulimit -Hc; LimitCORE= of a service)".into(),
        ));
    }
    Ok(most.min(1))
}

/// What both tiers share: limits, filter, program, environment.
pub(super) fn common(
    plan: &mut PlanBuilder,
    inputs: &Inputs<'_>,
    plugin: &str,
    data: &str,
    tmp: &str,
    choice: Choice,
) -> Result<(), SandboxError> {
    let limits = &inputs.spec.limits;
    let pattern =
        fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_else(|_| "|".into());
    let rlimits: [(&str, Resource, u64); 9] = [
        ("RLIMIT_FSIZE", Resource::Fsize, limits.disk),
        ("RLIMIT_CORE", Resource::Core, core_limit(most(Resource::Core), &pattern)?),
        ("RLIMIT_NPROC", Resource::Nproc, u64::from(limits.pids) + 1),
        ("RLIMIT_NOFILE", Resource::Nofile, limits.files.into()),
        ("RLIMIT_MEMLOCK", Resource::Memlock, (8 * MIB).min(limits.memory / 4)),
        ("RLIMIT_SIGPENDING", Resource::Sigpending, 1024),
        ("RLIMIT_MSGQUEUE", Resource::Msgqueue, 64 * 1024),
        ("RLIMIT_NICE", Resource::Nice, 0),
        ("RLIMIT_RTPRIO", Resource::Rtprio, 0),
    ];
    for (name, resource, value) in rlimits {
        // Without a user namespace of its own the plugin shares its user's count of processes.
        let shared_count = name == "RLIMIT_NPROC" && tmp == data && !inputs.machine.privileged;
        if !shared_count {
            plan.rlimit(name, resource as u64, value.min(most(resource)));
        }
    }
    if inputs.options.has(Layer::Seccomp) {
        if inputs.is_observed() {
            plan.seccomp(&filter::observed(&filter::policy(choice)?)?);
        } else {
            plan.seccomp(&filter::filter(choice)?);
        }
    }
    let here = |path: &str| match path.strip_prefix(PLUGIN) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{plugin}{rest}"),
        _ => path.to_owned(),
    };
    plan.exe(&here(&inputs.needs.exe));
    plan.cwd(inputs.spec.workdir.as_deref().unwrap_or(plugin));
    let mut argv = inputs.needs.argv.iter();
    if let Some(name) = argv.next() {
        plan.arg(&here(name));
    }
    if inputs.needs.is_java {
        runtime::java_options(limits).iter().for_each(|option| plan.arg(option));
    }
    for arg in argv {
        plan.arg(&here(arg));
    }
    let mut path: Vec<&str> = inputs.needs.path_dirs.iter().map(String::as_str).collect();
    for dir in ["/usr/local/bin", "/usr/bin", "/bin"] {
        if !path.contains(&dir) {
            path.push(dir);
        }
    }
    let mut env: BTreeMap<&str, String> =
        inputs.spec.env.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
    env.extend(inputs.needs.env.iter().map(|(k, v)| (k.as_str(), v.clone())));
    env.entry("LANG").or_insert_with(|| "C.UTF-8".into());
    if inputs.spec.has_way_out() {
        env.extend(way_out::environment());
    }
    for (name, value) in [
        ("PATH", path.join(":")),
        ("HOME", data.to_owned()),
        ("TMPDIR", tmp.to_owned()),
        ("PALISADE", "1".to_owned()),
    ] {
        env.insert(name, value);
    }
    for (name, value) in &env {
        plan.env(name, value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_crash_is_handed_to_a_program_outside() {
        for pattern in ["core", "/var/crash/%p", "|/usr/share/apport/apport %p", "@/run/crash"] {
            assert_eq!(core_limit(u64::MAX, pattern).ok(), Some(1), "{pattern}");
            assert_eq!(core_limit(1, pattern).ok(), Some(1), "{pattern}");
        }
        assert_eq!(core_limit(0, "core").ok(), Some(0));
        for pattern in ["|/usr/lib/systemd/systemd-coredump %P", "@/run/crash", "@@/run/crash"] {
            let refused = core_limit(0, pattern);
            assert!(matches!(refused, Err(SandboxError::WallTooWeak(_))), "{pattern}");
        }
    }
}
