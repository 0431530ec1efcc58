//! Which situations there are in which machine, and what is looked at in each. Doctor is, in all of them.

use palisade_escape::record::Launcher;

use crate::{
    Result,
    doctor::{Doctor, Kernel, Wall},
    escapes::Escapes,
    machine::Machine,
    place::Seen,
    situation::{Situation, Step, Where},
};

const CONTROLLERS: &str = "+memory +pids +cpu";
/// Families for a first machine of a kind.
const MOST: &[&str] = &["general", "paths"];
const ALONE: &[&str] = &["survive", "limits", "network", "channel"];
/// What needs an interpreter, and takes longest: once as root and once as the user in each kind of system.
const WITH_PYTHON: &[&str] = &["host", "python"];
/// One or a few attempts on every guarantee but the limits, for every other situation.
const CORE: &[u16] = &[1, 2, 8, 17, 26, 28, 31, 36, 53, 70];
const CORE_WEAKER: &[u16] = &[17, 31, 36, 53];
/// Where an engine's host meets the kernel: addresses, and ways out of a granted folder.
const ENGINE: &[u16] = &[109, 112];
/// With one layer taken away: whatever another layer holds too must hold on this kernel as well. None that visits
/// the scene's services, which would be seen by those that run meanwhile.
const LAYERED: &[u16] = &[1, 2, 8, 14, 15, 16, 17, 18, 19, 20, 26, 28, 53, 70];
/// A daemon, and a host that is killed.
const END: &[u16] = &[49];

/// The first release of the kernel with each ABI of Landlock (landlock(7), "VERSIONS").
const ABIS: [((u32, u32), u32); 8] = [
    ((5, 13), 1),
    ((5, 19), 2),
    ((6, 2), 3),
    ((6, 7), 4),
    ((6, 10), 5),
    ((6, 12), 6),
    ((6, 15), 7),
    ((7, 1), 9),
];

/// With PR_SET_MDWE (PR_SET_MDWE(2const), "HISTORY").
const MDWE: (u32, u32) = (6, 3);

/// What a kernel of this release has.
pub(crate) fn kernel_of(release: &str) -> Option<Kernel> {
    let mut numbers = release.split(['.', '-', '+']).map_while(|n| n.parse::<u32>().ok());
    let version = (numbers.next()?, numbers.next()?);
    let (_, landlock) = ABIS.iter().rev().find(|(first, _)| version >= *first)?;
    Some(Kernel { landlock: *landlock, mdwe: version >= MDWE })
}

/// The situations of this machine, in order.
pub(crate) fn of(machine: &Machine) -> Result<Vec<Situation>> {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let kernel = kernel_of(&release).ok_or_else(|| format!("no Landlock is known in {release}"))?;
    on(&machine.name, machine.short, kernel).ok_or_else(|| format!("no machine {}", machine.name))
}

/// The situations of a machine with this kernel.
pub(crate) fn on(machine: &str, short: bool, kernel: Kernel) -> Option<Vec<Situation>> {
    match machine {
        "cgroup2" if short => Some(cgroup2_short(kernel)),
        "cgroup2" => Some(cgroup2(kernel)),
        "debian" => Some(debian(short, kernel)),
        "newer" => Some(newer(kernel)),
        "newer-debian" => Some(newer_debian(kernel)),
        "no-landlock" => Some(newer(Kernel { landlock: 0, ..kernel })),
        _ => None,
    }
}

const fn escapes(launcher: Launcher, families: &'static [&'static str]) -> Step {
    Step::Escapes(Escapes::of(launcher, families))
}

const fn some(launcher: Launcher, families: &'static [&'static str], only: &'static [u16]) -> Step {
    Step::Escapes(Escapes::of(launcher, families).only(only))
}

/// WebAssembly, by the engine in the host's process and by one behind the walls.
const fn engines(launcher: Launcher) -> [Step; 2] {
    [some(launcher, &["wasm"], ENGINE), some(launcher, &["walled"], ENGINE)]
}

/// The suite where a kind of system is looked at most closely.
const fn whole(launcher: Launcher) -> [Step; 4] {
    [
        escapes(launcher, MOST),
        escapes(launcher, ALONE),
        escapes(launcher, WITH_PYTHON),
        Step::Escapes(Escapes {
            layered: true,
            ..Escapes::of(launcher, &["general"]).only(LAYERED)
        }),
    ]
}

/// Everything that doctor says is exceeded or attacked.
pub(crate) fn all(
    name: &'static str,
    place: Where,
    launcher: Launcher,
    doctor: Doctor,
) -> Situation {
    let mut steps = Vec::new();
    if !doctor.levels(Wall::Process).is_empty() {
        steps.push(Step::Limits(Wall::Process));
        steps.push(some(launcher, &["general"], CORE));
        steps.push(some(launcher, &["survive"], END));
    }
    if !doctor.levels(Wall::Landlock).is_empty() {
        steps.push(Step::Limits(Wall::Landlock));
        steps.push(some(launcher, &["landlock"], CORE_WEAKER));
    }
    if steps.is_empty() {
        steps.push(Step::Refused);
    }
    Situation { name, place, doctor, steps }
}

impl Situation {
    fn then(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.steps.extend(steps);
        self
    }

    /// Only what doctor says.
    fn only_doctor(mut self) -> Self {
        self.steps.clear();
        self
    }

    /// Only these steps.
    fn only(self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.only_doctor().then(steps)
    }
}

/// The attempts whose positive control could hurt a machine, with it.
const CONTROLS: Step = Step::Escapes(Escapes {
    harmful: true,
    ..Escapes::of(Launcher::Root, &["general"]).only(&[9, 31, 51])
});

const NO_NAMESPACES: &str = "creating the namespaces: ";

/// Pure version 2, an old Landlock, and everything that a setting can forbid.
fn cgroup2(kernel: Kernel) -> Vec<Situation> {
    let limit = "/proc/sys/user/max_user_namespaces";
    let clone = "/proc/sys/kernel/unprivileged_userns_clone";
    let setting = |file, user| Where::Setting { file, value: "0", user };
    let good = |privileged| Doctor::good(privileged, kernel);
    let without = |privileged, why| Doctor::without_cgroups(privileged, kernel, why);
    let forbidden =
        |remedy, doctor| Doctor { no_namespaces: Some((NO_NAMESPACES, remedy)), ..doctor };
    let (root, user, delegated) = (Launcher::Root, Launcher::User, Launcher::Delegated);
    let max = "sysctl -w user.max_user_namespaces=";
    vec![
        all("root", Where::Top, root, good(true))
            .then([CONTROLS, escapes(root, &["landlock"])])
            .then(whole(root))
            .then(engines(root)),
        all("root-service", Where::Alone, root, good(true)),
        all("root-session", Where::Beside, root, good(true)),
        all("user", Where::User, user, without(false, "no delegated version 2 cgroup"))
            .then(whole(user)),
        all("user-delegated", Where::Delegated(CONTROLLERS), delegated, good(false))
            .then([escapes(delegated, ALONE)]),
        all(
            "user-delegated-without-cpu",
            Where::Delegated("+memory +pids"),
            delegated,
            Doctor { cgroups: ("memory, pids", "cpu"), ..good(false) },
        ),
        all(
            "user-delegated-shared",
            Where::DelegatedShared { marked: true },
            delegated,
            good(false),
        ),
        all(
            "user-shared",
            Where::DelegatedShared { marked: false },
            user,
            without(false, "other processes share"),
        ),
        all("no-user-namespaces", setting(limit, true), user, forbidden(max, without(false, "")))
            .then([escapes(user, &["landlock"])]),
        all("root-no-user-namespaces", setting(limit, false), root, forbidden(max, good(true))),
        all(
            "no-unprivileged-user-namespaces",
            setting(clone, true),
            user,
            forbidden("sysctl -w kernel.unprivileged_userns_clone=1", without(false, "")),
        ),
        all(
            "readonly-cgroups",
            Where::Sees(Seen::ReadOnly),
            root,
            without(true, "Read-only file system"),
        ),
        all(
            "no-cgroups",
            Where::Sees(Seen::Absent),
            root,
            without(true, "no version 2 cgroup file system is mounted"),
        ),
        all(
            "container",
            Where::Container,
            root,
            Doctor {
                weak_root: true,
                no_namespaces: Some(("", "in a container")),
                ..without(false, "Read-only file system")
            },
        ),
    ]
}

/// Doctor in every situation, and each guarantee attacked in one of them.
fn cgroup2_short(kernel: Kernel) -> Vec<Situation> {
    let short = |situation: Situation| {
        let steps: Vec<Step> = match situation.name {
            "root" => {
                vec![Step::Limits(Wall::Process), some(Launcher::Root, &["survive"], END), CONTROLS]
            }
            "user-delegated" => {
                vec![Step::Limits(Wall::Process), some(Launcher::Delegated, &["general"], CORE)]
            }
            "user" => vec![Step::Limits(Wall::Process)],
            "no-user-namespaces" => {
                vec![Step::Limits(Wall::Landlock), some(Launcher::User, &["landlock"], CORE_WEAKER)]
            }
            "root-no-user-namespaces" => vec![Step::Limits(Wall::Landlock)],
            _ => Vec::new(),
        };
        situation.only(steps)
    };
    cgroup2(kernel).into_iter().map(short).collect()
}

/// Another kernel, or the second wall missing: with and without root.
fn newer(kernel: Kernel) -> Vec<Situation> {
    let (root, delegated) = (Launcher::Root, Launcher::Delegated);
    let mut both = vec![
        all("root", Where::Top, root, Doctor::good(true, kernel))
            .then([escapes(root, MOST), escapes(root, ALONE)]),
        all(
            "user-delegated",
            Where::Delegated(CONTROLLERS),
            delegated,
            Doctor::good(false, kernel),
        )
        .then([escapes(delegated, MOST), escapes(delegated, ALONE)]),
    ];
    if kernel.landlock > 0 {
        both.push(all(
            "no-user-namespaces",
            Where::Setting { file: "/proc/sys/user/max_user_namespaces", value: "0", user: true },
            Launcher::User,
            Doctor {
                no_namespaces: Some((NO_NAMESPACES, "sysctl -w user.max_user_namespaces=")),
                ..Doctor::without_cgroups(false, kernel, "")
            },
        ));
    }
    both
}

const SCOPE: &[&str] =
    &["systemd-run", "--user", "--scope", "--quiet", "-p", "Delegate=yes", "--collect"];
const SERVICE: &[&str] =
    &["systemd-run", "--wait", "--pipe", "--quiet", "--collect", "-p", "Delegate=yes"];
const NSPAWN: &[&str] = &[
    "systemd-nspawn",
    "--quiet",
    "--directory=/run/palisade-container",
    "--bind=/palisade",
    "--bind=/var/tmp",
    "--private-network",
    "--register=no",
    "--pipe",
    "--as-pid2",
];

/// What a user's scope and a service of the system's are.
fn delegated_by_systemd(kernel: Kernel) -> [Situation; 2] {
    [
        all(
            "user-scope",
            Where::Systemd { user: true, words: SCOPE },
            Launcher::Delegated,
            Doctor::good(false, kernel),
        ),
        all(
            "service",
            Where::Systemd { user: false, words: SERVICE },
            Launcher::Root,
            Doctor::good(true, kernel),
        ),
    ]
}

/// Node.js is not there, and no package for virtual environments.
const WALLS: Step =
    Step::Tests { program: "walls", without: &["node_runs", "virtual_environment"] };
const LANDLOCK: Step = Step::Tests { program: "landlock", without: &[] };

/// Debian with systemd.
fn debian(short: bool, kernel: Kernel) -> Vec<Situation> {
    let [scope, service] = delegated_by_systemd(kernel);
    let session = all(
        "user-session",
        Where::Systemd { user: true, words: &[] },
        Launcher::User,
        Doctor::without_cgroups(false, kernel, "no delegated version 2 cgroup"),
    );
    let nspawn = all(
        "nspawn",
        Where::Systemd { user: false, words: NSPAWN },
        Launcher::Root,
        Doctor {
            no_namespaces: Some((
                "setting /proc/sys/user/max_user_namespaces: Read-only file system",
                "in a container",
            )),
            landlock_refused: true,
            ..Doctor::without_cgroups(true, kernel, "other processes share")
        },
    );
    if short {
        let limits = [Step::Limits(Wall::Process)];
        return vec![scope.only(limits), service.only_doctor(), session.only_doctor(), nspawn];
    }
    vec![
        scope
            .then([WALLS, LANDLOCK])
            .then(whole(Launcher::Delegated))
            .then(engines(Launcher::Delegated)),
        service.then([WALLS, LANDLOCK, CONTROLS]).then(whole(Launcher::Root)),
        session,
        nspawn,
    ]
}

/// The later kernel under Debian: the test programs that need its Python.
fn newer_debian(kernel: Kernel) -> Vec<Situation> {
    let no_jit = Step::Tests { program: "no_jit", without: &["runtimes_that_compile"] };
    let [scope, service] = delegated_by_systemd(kernel);
    vec![scope.then([WALLS, LANDLOCK, no_jit.clone()]), service.then([WALLS, LANDLOCK, no_jit])]
}

#[cfg(test)]
mod tests {
    use super::kernel_of;

    #[test]
    fn the_kernel_follows_the_release() {
        let of = |release| kernel_of(release).map(|k| (k.landlock, k.mdwe));
        assert_eq!(of("6.1.0-56-cloud-amd64"), Some((2, false)));
        assert_eq!(of("6.12.117+deb12-cloud-amd64"), Some((6, true)));
        assert_eq!(of("6.18.44-fc"), Some((7, true)));
        assert_eq!(of("5.10.0"), None);
        assert_eq!(of("nonsense"), None);
    }
}
