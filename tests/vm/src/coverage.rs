//! Whether everything that doctor says is attacked, and the table of the documentation. Tests only: they
//! look at the plan, so that nobody has to keep a list by hand.

use std::{collections::BTreeSet, fs, path::PathBuf};

use palisade_escape::record::Launcher;
use palisade_model::{Guarantee, Level};

#[path = "../../../xtask/src/vm/sources.rs"]
mod sources;

use crate::{
    doctor::{Doctor, Kernel, Wall},
    escapes::Escapes,
    plan,
    situation::{Situation, Step, Where},
};

const STABLE: Kernel = Kernel { landlock: 2, mdwe: false };
const LATER: Kernel = Kernel { landlock: 6, mdwe: true };
/// As in `PLANS` of `xtask/src/vm.rs`; the last word: part of the short form.
const MACHINES: [(&str, Kernel, bool); 5] = [
    ("cgroup2", STABLE, true),
    ("debian", STABLE, true),
    ("newer", LATER, false),
    ("newer-debian", LATER, false),
    ("no-landlock", STABLE, false),
];

/// Numbers in the catalogue that attack a guarantee.
const ABOUT: [(Guarantee, &[u16]); 10] = [
    (Guarantee::FsIsolated, &[1, 2, 5, 6, 8]),
    (Guarantee::NetIsolated, &[36, 40]),
    (Guarantee::IpcIsolated, &[31, 32]),
    (Guarantee::PeersIsolated, &[26, 27, 28, 70]),
    (Guarantee::SyscallsFiltered, &[14, 15, 16, 17, 18, 20, 22, 23, 24, 25, 29, 52, 53, 54]),
    (Guarantee::DiesWithHost, &[49]),
    (Guarantee::PidsCapped, &[42]),
    (Guarantee::MemoryCapped, &[43]),
    (Guarantee::CpuCapped, &[44]),
    (Guarantee::DiskCapped, &[45]),
];

/// Which backend a family runs behind, and what it attacks there.
fn of_family(family: &str) -> (Wall, &'static [Guarantee]) {
    use Guarantee as G;
    match family {
        "general" => (
            Wall::Process,
            &[G::FsIsolated, G::NetIsolated, G::IpcIsolated, G::PeersIsolated, G::SyscallsFiltered],
        ),
        "network" => (Wall::Process, &[G::NetIsolated]),
        "survive" => (Wall::Process, &[G::DiesWithHost]),
        "limits" => (Wall::Process, &[G::PidsCapped, G::MemoryCapped, G::CpuCapped, G::DiskCapped]),
        "landlock" => (Wall::Landlock, &[G::NetIsolated, G::IpcIsolated, G::SyscallsFiltered]),
        _ => (Wall::Process, &[]),
    }
}

/// The guarantees that attempts of these families and numbers attack.
fn attempted(escapes: &Escapes) -> Vec<(Wall, Guarantee)> {
    let made = |guarantee: &Guarantee| {
        let about = ABOUT.iter().find(|(g, _)| g == guarantee).map_or(&[][..], |(_, n)| n);
        escapes.only.is_empty() || about.iter().any(|n| escapes.only.contains(n))
    };
    let mut all = Vec::new();
    for family in escapes.families {
        let (wall, guarantees) = of_family(family);
        all.extend(guarantees.iter().copied().filter(made).map(|g| (wall, g)));
    }
    all
}

/// The guarantees that a step attacks in a situation.
fn attacks(step: &Step, doctor: &Doctor) -> Vec<(Wall, Guarantee)> {
    use Guarantee as G;
    match step {
        Step::Escapes(escapes) => attempted(escapes),
        // Whatever of these is promised (`limits::all`, `promises::all`).
        Step::Limits(wall) => {
            let mut all =
                vec![G::MemoryCapped, G::PidsCapped, G::CpuCapped, G::DiskCapped, G::OwnUid];
            all.extend(match wall {
                Wall::Process => [G::NoJit],
                Wall::Landlock => [G::DiesWithHost],
            });
            let levels = doctor.levels(*wall);
            all.retain(|g| levels.level(*g) > Level::None);
            all.into_iter().map(|g| (*wall, g)).collect()
        }
        // Python's twin of what is attacked above.
        Step::Tests { .. } | Step::Refused => Vec::new(),
    }
}

fn attacked(situation: &Situation) -> BTreeSet<(Wall, Guarantee)> {
    situation.steps.iter().flat_map(|step| attacks(step, &situation.doctor)).collect()
}

fn promised(doctor: &Doctor) -> BTreeSet<(Wall, Guarantee)> {
    let of = |wall: Wall| doctor.levels(wall).iter().map(move |(g, _)| (wall, g)).collect();
    Wall::ALL.into_iter().flat_map(|wall| -> Vec<_> { of(wall) }).collect()
}

fn situations(machine: &str, short: bool, kernel: Kernel) -> Vec<Situation> {
    plan::on(machine, short, kernel).unwrap()
}

#[test]
fn every_guarantee_is_attacked_in_every_situation() {
    for (machine, kernel, _) in MACHINES {
        for situation in situations(machine, false, kernel) {
            let not: Vec<_> =
                promised(&situation.doctor).difference(&attacked(&situation)).copied().collect();
            assert!(not.is_empty(), "{machine}/{}: not attacked: {not:?}", situation.name);
            assert!(!situation.steps.is_empty(), "{machine}/{}", situation.name);
        }
    }
}

#[test]
fn the_short_form_attacks_every_guarantee_of_its_kernel_once() {
    let mut all = (BTreeSet::new(), BTreeSet::new());
    for (machine, kernel, _) in MACHINES.iter().filter(|m| m.2) {
        for situation in situations(machine, true, *kernel) {
            all.0.extend(promised(&situation.doctor));
            all.1.extend(attacked(&situation));
        }
    }
    let not: Vec<_> = all.0.difference(&all.1).collect();
    assert!(not.is_empty(), "{not:?}");
}

/// What doctor says of a backend, in a few words.
fn said(doctor: &Doctor, wall: Wall) -> String {
    let levels = doctor.levels(wall);
    if levels.is_empty() {
        return "no".to_owned();
    }
    let with = |level: Level| -> Vec<&str> {
        let some = levels.iter().filter(|(_, l)| *l == level);
        some.map(|(g, _)| g.as_str()).collect()
    };
    let policed = with(Level::Policed);
    // Guarantees that no wall of this crate gives are left out.
    let absent: Vec<&str> = Guarantee::ALL
        .into_iter()
        .filter(|g| !matches!(g, Guarantee::OwnKernel | Guarantee::EngineWalled))
        .filter(|g| levels.level(*g) == Level::None)
        .map(Guarantee::as_str)
        .collect();
    let mut text = format!("{} by the kernel", with(Level::Kernel).len());
    if !policed.is_empty() {
        text.push_str(&format!("; policed: {}", policed.join(", ")));
    }
    if !absent.is_empty() {
        text.push_str(&format!("; none: {}", absent.join(", ")));
    }
    text
}

/// What is looked at beside doctor. The steps that every situation has are one word.
fn steps(situation: Option<&Situation>) -> String {
    let Some(situation) = situation else { return "no".to_owned() };
    let mut names: Vec<String> = situation.steps.iter().map(Step::name).collect();
    let doctor = situation.doctor.clone();
    let basic = plan::all(situation.name, Where::Top, Launcher::Root, doctor).steps;
    let basic: Vec<String> = basic.iter().map(Step::name).collect();
    if names.starts_with(&basic) {
        let word = if basic == ["refused"] { "no plugin is started" } else { "**each**" };
        names.splice(..basic.len(), [word.to_owned()]);
    }
    if names.is_empty() { "doctor only".to_owned() } else { names.join("; ") }
}

fn table() -> String {
    let mut text = "| Situation | Doctor of `process` | Doctor of `landlock` | Attacked with | In `--short` |\n\
        |---|---|---|---|---|\n"
        .to_owned();
    for (machine, kernel, short) in MACHINES {
        let shorter = if short { situations(machine, true, kernel) } else { Vec::new() };
        for situation in situations(machine, false, kernel) {
            let also = shorter.iter().find(|s| s.name == situation.name);
            text.push_str(&format!(
                "| `{machine}/{}` | {} | {} | {} | {} |\n",
                situation.name,
                said(&situation.doctor, Wall::Process),
                said(&situation.doctor, Wall::Landlock),
                steps(Some(&situation)),
                steps(also),
            ));
        }
    }
    text
}

#[test]
fn the_table_in_the_documentation_is_the_plan() {
    const BEGIN: &str = "<!-- situations: begin -->\n\n";
    const END: &str = "\n<!-- situations: end -->";
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/how-to/test-on-other-kernels.md");
    // Two tests write this page.
    let lock = fs::File::open(&path).unwrap();
    lock.lock().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (is, after) = rest.split_once(END).unwrap();
    if std::env::var_os("UPDATE_SITUATIONS").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", table())).unwrap();
        return;
    }
    assert_eq!(is, table(), "UPDATE_SITUATIONS=1 cargo nextest run -p palisade-vm writes it");
}

#[test]
#[allow(clippy::print_stderr)]
fn rows_of_other_sources_are_named() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let now = sources::state(&root.canonicalize().unwrap()).unwrap();
    for (name, cells) in results() {
        let (then, date) = (&cells[9], &cells[10]);
        assert!(
            then == "—" || (then.len() == 12 && u64::from_str_radix(then, 16).is_ok()),
            "{name}: {then}"
        );
        if *then != now {
            // No failure: one row takes minutes to make, and every change of the walls would ask for all of them.
            eprintln!(
                "warning: {name} was recorded on {date} with other sources ({then}, now {now})"
            );
        }
    }
}

/// Rows of the page's table of results: name, and the other cells.
fn results() -> Vec<(String, Vec<String>)> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/how-to/test-on-other-kernels.md");
    let text = fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once("<!-- results: begin -->").unwrap();
    let (table, _) = rest.split_once("<!-- results: end -->").unwrap();
    let rows = table.lines().filter(|l| l.starts_with("| `"));
    rows.map(|row| {
        let mut cells = row.trim_matches('|').split('|').map(|c| c.trim().to_owned());
        (cells.next().unwrap().trim_matches('`').to_owned(), cells.collect())
    })
    .collect()
}

#[test]
fn nothing_succeeded_and_what_was_not_run_is_named() {
    const BEGIN: &str = "<!-- not run: begin -->\n\n";
    const END: &str = "\n\n<!-- not run: end -->";
    let results = results();
    let planned: Vec<String> = MACHINES
        .iter()
        .flat_map(|(machine, kernel, _)| {
            situations(machine, false, *kernel)
                .into_iter()
                .map(move |s| format!("{machine}/{}", s.name))
        })
        .collect();
    for (name, cells) in &results {
        assert!(planned.contains(name), "{name} is not planned any more");
        // Kernel, Landlock, who started, checks, failed, attempts, stopped, not applicable, succeeded, sources,
        // date.
        assert_eq!(cells.len(), 11, "{name}");
        let number = |at: usize| cells[at].parse::<u64>().unwrap();
        assert!(number(3) > 0, "{name}");
        assert_eq!((number(4), number(8)), (0, 0), "{name}: failed, succeeded");
        assert_eq!(number(5), number(6) + number(7), "{name}");
    }
    let run = |name: &&String| results.iter().any(|(r, _)| r == *name);
    let not: Vec<String> =
        planned.iter().filter(|name| !run(name)).map(|name| format!("`{name}`")).collect();
    let said = match not.as_slice() {
        [] => "Every situation of the plan was run.".to_owned(),
        some => format!("Planned, and not in the table yet: {}.", some.join(", ")),
    };
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/how-to/test-on-other-kernels.md");
    // Two tests write this page.
    let lock = fs::File::open(&path).unwrap();
    lock.lock().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (is, after) = rest.split_once(END).unwrap();
    if std::env::var_os("UPDATE_SITUATIONS").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{said}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(is, said, "UPDATE_SITUATIONS=1 cargo nextest run -p palisade-vm writes it");
}
