//! Positive controls that must work inside. On the developer's host many cannot: they could hurt it, or it lacks
//! what is attacked. Here nothing can be hurt, and what is attacked was put there; so one that does not work
//! is a failure, and no reason excuses it.

use palisade_escape::{control::WORKS, record::Row};

use crate::{escapes::Escapes, report::Finding};

/// Attempts by number, with the variants whose controls must work.
type Controls = &'static [(u16, &'static [&'static str])];

/// As root, on every kernel.
const BY_ROOT: Controls = &[
    (13, &["binfmt"]),
    (42, &["raise-nproc"]),
    (43, &["raise-as"]),
    (44, &["raise-cpu"]),
    (45, &["raise-fsize"]),
    (46, &["raise-nofile"]),
    (
        53,
        &["delete-module", "finit-module", "init-module", "iopl", "kexec-file-load", "kexec-load"],
    ),
];
/// Those that could hurt a machine.
const HARMFUL: Controls = &[
    (
        9,
        &[
            "core-pattern",
            "drop-caches",
            "hostname",
            "ip-forward",
            "kallsyms",
            "kcore",
            "kmsg",
            "max-user-namespaces",
            "modprobe",
            "oom-score",
            "sysrq",
        ],
    ),
    (51, &["find", "own-limit", "procs", "subtree"]),
];
/// And where systemd puts each program into a group with a name.
const HARMFUL_WITH_SYSTEMD: Controls = &[(51, &["membership"])];
/// Where systemd runs, as whoever.
const WITH_SYSTEMD: Controls = &[(31, &["dbus", "systemd"])];

/// The lists that hold for a run of the suite.
fn lists(situation: &str, escapes: &Escapes) -> Vec<Controls> {
    let mut lists = Vec::new();
    if !escapes.families.contains(&"general") {
        return lists;
    }
    if escapes.launcher == palisade_escape::record::Launcher::Root {
        lists.push(BY_ROOT);
        if escapes.harmful {
            lists.push(HARMFUL);
        }
    }
    if situation.starts_with("debian/") || situation.starts_with("newer-debian/") {
        lists.push(WITH_SYSTEMD);
        if escapes.harmful {
            lists.push(HARMFUL_WITH_SYSTEMD);
        }
    }
    lists
}

/// The controls that had to work and did not, or were not run.
pub(crate) fn missing(situation: &str, escapes: &Escapes, rows: &[Row]) -> Vec<Finding> {
    let asked = |number: &u16| escapes.only.is_empty() || escapes.only.contains(number);
    let listed = lists(situation, escapes).into_iter().flatten();
    let wanted = listed
        .filter(|(number, _)| asked(number))
        .flat_map(|(number, variants)| variants.iter().map(move |variant| (*number, *variant)));
    let finding = |(number, variant): (u16, &str)| {
        let row = rows.iter().find(|r| r.number == number && r.variant == variant);
        let control = row.map_or("it was not made", |r| r.control.as_str());
        let name = format!("control of attempt {number} {variant}");
        (control != WORKS).then(|| Finding::new(name, false, format!("must work here: {control}")))
    };
    wanted.filter_map(finding).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use palisade_escape::record::Launcher;

    use super::*;

    fn row(number: u16, variant: &str, control: &str) -> Row {
        let mut row = Row::new(number, variant, "", Launcher::Root);
        row.control = control.into();
        row
    }

    #[test]
    fn a_control_that_must_work_is_excused_by_nothing() {
        let bus = Escapes::of(Launcher::User, &["general"]).only(&[31]);
        let good = [row(31, "dbus", WORKS), row(31, "systemd", WORKS)];
        assert!(missing("debian/user-scope", &bus, &good).is_empty());
        let none = [row(31, "dbus", "impossible: no such service"), row(31, "systemd", WORKS)];
        let found = missing("debian/user-scope", &bus, &none);
        assert_eq!(found.len(), 1);
        assert!(!found[0].ok && found[0].detail.contains("no such service"), "{found:?}");
        assert_eq!(missing("debian/user-scope", &bus, &good[..1]).len(), 1, "one was not made");
        assert!(missing("cgroup2/user", &bus, &none).is_empty(), "there is no systemd");
    }

    #[test]
    fn root_has_more_to_show_than_a_user_and_most_with_harmful_controls() {
        let count = |escapes: &Escapes| missing("cgroup2/root", escapes, &[]).len();
        let (root, user) =
            (Escapes::of(Launcher::Root, &["general"]), Escapes::of(Launcher::User, &["general"]));
        let harmful = Escapes { harmful: true, ..root.clone() };
        assert_eq!(count(&user), 0);
        assert!(count(&root) > 0 && count(&harmful) > count(&root));
        assert_eq!(count(&harmful.only(&[9])), HARMFUL[0].1.len());
        assert_eq!(count(&Escapes::of(Launcher::Root, &["limits"])), 0);
    }
}
