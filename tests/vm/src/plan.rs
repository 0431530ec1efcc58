//! Which situations there are in which machine.

use palisade_escape::record::Launcher;

use crate::{
    Result,
    doctor::Doctor,
    escapes::Escapes,
    machine::Machine,
    place::Seen,
    situation::{Situation, Step, Where, escapes},
};

const CONTROLLERS: &str = "+memory +pids +cpu";
const MOST: &[&str] = &["general", "paths"];
const ALONE: &[&str] = &["survive", "limits"];

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

/// The ABI that a kernel of this release has.
fn abi_of(release: &str) -> Option<u32> {
    let mut numbers = release.split(['.', '-', '+']).map_while(|n| n.parse::<u32>().ok());
    let version = (numbers.next()?, numbers.next()?);
    ABIS.iter().rev().find(|(first, _)| version >= *first).map(|(_, abi)| *abi)
}

/// The situations of a machine, in order.
pub(crate) fn of(machine: &Machine) -> Result<Vec<Situation>> {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let abi = abi_of(&release).ok_or_else(|| format!("no Landlock is known in {release}"))?;
    match machine.name.as_str() {
        "cgroup2" => Ok(cgroup2(machine.short, abi)),
        "no-landlock" => Ok(no_landlock()),
        "newer" => Ok(newer(abi)),
        "debian" => Ok(debian(machine.short, abi)),
        other => Err(format!("no machine {other}")),
    }
}

fn situation(name: &'static str, place: Where, steps: Vec<Step>) -> Situation {
    Situation { name, place, steps }
}

/// Pure version 2, an old Landlock, and everything that a setting can forbid.
fn cgroup2(short: bool, abi: u32) -> Vec<Situation> {
    let controls =
        Escapes { harmful: true, only: &[9, 31, 51], ..escapes(Launcher::Root, &["general"]) };
    let mut root =
        vec![Step::Doctor(Doctor::good(true, abi)), Step::Limits("held"), Step::Escapes(controls)];
    let mut delegated = vec![Step::Doctor(Doctor::good(false, abi)), Step::Limits("held")];
    let mut user =
        vec![Step::Doctor(Doctor::without_cgroups(false, abi, "no delegated version 2 cgroup"))];
    if short {
        delegated.push(Step::Escapes(Escapes {
            only: &[1, 8, 17, 28, 31, 36, 51],
            ..escapes(Launcher::Delegated, &["general"])
        }));
    } else {
        root.push(Step::Escapes(escapes(Launcher::Root, MOST)));
        root.push(Step::Escapes(escapes(Launcher::Root, ALONE)));
        delegated.push(Step::Escapes(escapes(Launcher::Delegated, ALONE)));
        user.push(Step::Escapes(escapes(Launcher::User, MOST)));
    }
    let forbidden = |remedy| Doctor {
        no_namespaces: Some(("creating the namespaces: ", remedy)),
        ..Doctor::without_cgroups(false, abi, "")
    };
    let only: &[u16] = if short { &[1, 2, 31, 32, 36, 53] } else { &[] };
    let weaker = || Step::Escapes(Escapes { only, ..escapes(Launcher::User, &["landlock"]) });
    let mut service = vec![Step::Doctor(Doctor::good(true, abi))];
    if !short {
        service.push(Step::Limits("held"));
    }
    vec![
        situation("root", Where::Top, root),
        situation("root-service", Where::Alone, service),
        situation("root-session", Where::Beside, vec![Step::Doctor(Doctor::good(true, abi))]),
        situation("user", Where::User, user),
        situation("user-delegated", Where::Delegated(CONTROLLERS), delegated),
        situation(
            "user-delegated-without-cpu",
            Where::Delegated("+memory +pids"),
            vec![
                Step::Doctor(Doctor {
                    cgroups: ("memory, pids", "cpu"),
                    ..Doctor::good(false, abi)
                }),
                Step::Limits("some"),
            ],
        ),
        situation(
            "user-delegated-shared",
            Where::DelegatedShared { marked: true },
            vec![Step::Doctor(Doctor::good(false, abi))],
        ),
        situation(
            "user-shared",
            Where::DelegatedShared { marked: false },
            vec![Step::Doctor(Doctor::without_cgroups(false, abi, "other processes share"))],
        ),
        situation(
            "no-user-namespaces",
            Where::Setting { file: "/proc/sys/user/max_user_namespaces", value: "0", user: true },
            vec![
                Step::Doctor(forbidden("sysctl -w user.max_user_namespaces=")),
                weaker(),
                Step::Limits("weaker"),
            ],
        ),
        situation(
            "root-no-user-namespaces",
            Where::Setting { file: "/proc/sys/user/max_user_namespaces", value: "0", user: false },
            vec![
                Step::Doctor(Doctor {
                    no_namespaces: Some(("creating the namespaces: ", "sysctl -w user.max_user")),
                    ..Doctor::good(true, abi)
                }),
                Step::Limits("weaker"),
            ],
        ),
        situation(
            "no-unprivileged-user-namespaces",
            Where::Setting {
                file: "/proc/sys/kernel/unprivileged_userns_clone",
                value: "0",
                user: true,
            },
            vec![Step::Doctor(forbidden("sysctl -w kernel.unprivileged_userns_clone=1"))],
        ),
        situation(
            "readonly-cgroups",
            Where::Sees(Seen::ReadOnly),
            vec![
                Step::Doctor(Doctor::without_cgroups(true, abi, "Read-only file system")),
                Step::Limits("policed"),
            ],
        ),
        situation(
            "no-cgroups",
            Where::Sees(Seen::Absent),
            vec![Step::Doctor(Doctor::without_cgroups(
                true,
                abi,
                "no version 2 cgroup file system is mounted",
            ))],
        ),
        situation(
            "container",
            Where::Container,
            vec![Step::Doctor(Doctor {
                weak_root: true,
                no_namespaces: Some(("", "in a container")),
                ..Doctor::without_cgroups(false, abi, "Read-only file system")
            })],
        ),
    ]
}

/// The second wall is missing.
fn no_landlock() -> Vec<Situation> {
    let named = |launcher| Step::Escapes(escapes(launcher, MOST));
    vec![
        situation(
            "root",
            Where::Top,
            vec![Step::Doctor(Doctor::good(true, 0)), named(Launcher::Root)],
        ),
        situation(
            "user-delegated",
            Where::Delegated(CONTROLLERS),
            vec![Step::Doctor(Doctor::good(false, 0)), named(Launcher::Delegated)],
        ),
    ]
}

fn newer(abi: u32) -> Vec<Situation> {
    vec![
        situation(
            "root",
            Where::Top,
            vec![
                Step::Doctor(Doctor::good(true, abi)),
                Step::Limits("held"),
                Step::Escapes(escapes(Launcher::Root, MOST)),
                Step::Escapes(escapes(Launcher::Root, ALONE)),
            ],
        ),
        situation(
            "user-delegated",
            Where::Delegated(CONTROLLERS),
            vec![
                Step::Doctor(Doctor::good(false, abi)),
                Step::Limits("held"),
                Step::Escapes(escapes(Launcher::Delegated, MOST)),
                Step::Escapes(escapes(Launcher::Delegated, ALONE)),
            ],
        ),
    ]
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

/// Debian with systemd.
fn debian(short: bool, abi: u32) -> Vec<Situation> {
    let mut scope = vec![Step::Doctor(Doctor::good(false, abi)), Step::Limits("held")];
    let mut service = vec![Step::Doctor(Doctor::good(true, abi)), Step::Limits("held")];
    if !short {
        let without: &[&str] = &["node_runs", "virtual_environment"];
        for steps in [&mut scope, &mut service] {
            steps.push(Step::Tests { program: "walls", without });
            steps.push(Step::Tests { program: "landlock", without: &[] });
        }
        scope.push(Step::Escapes(escapes(Launcher::Delegated, ALONE)));
        service.push(Step::Escapes(escapes(Launcher::Root, MOST)));
    }
    vec![
        situation("user-scope", Where::Systemd { user: true, words: SCOPE }, scope),
        situation("service", Where::Systemd { user: false, words: SERVICE }, service),
        situation(
            "user-session",
            Where::Systemd { user: true, words: &[] },
            vec![Step::Doctor(Doctor::without_cgroups(
                false,
                abi,
                "no delegated version 2 cgroup",
            ))],
        ),
        situation(
            "nspawn",
            Where::Systemd { user: false, words: NSPAWN },
            vec![Step::Doctor(Doctor {
                no_namespaces: Some((
                    "setting /proc/sys/user/max_user_namespaces: Read-only file system",
                    "in a container",
                )),
                landlock_refused: true,
                ..Doctor::without_cgroups(true, 0, "other processes share")
            })],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::abi_of;

    #[test]
    fn the_abi_follows_the_release() {
        assert_eq!(abi_of("6.1.0-56-cloud-amd64"), Some(2));
        assert_eq!(abi_of("6.12.117+deb12-cloud-amd64"), Some(6));
        assert_eq!(abi_of("6.18.44-fc"), Some(7));
        assert_eq!(abi_of("5.10.0"), None);
        assert_eq!(abi_of("nonsense"), None);
    }
}
