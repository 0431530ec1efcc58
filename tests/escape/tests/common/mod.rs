//! What the matrix tests share: running a family and comparing it with the expectations.
#![allow(dead_code, clippy::unwrap_used, clippy::print_stdout)]

use std::path::Path;

use palisade_escape::{
    expected::{self, Difference, Matrix},
    record::{Launcher, Row},
    report, suite,
    suite::Family,
};

/// Makes all attempts of a family with a launcher; fails with every difference.
/// `UPDATE_ESCAPES=1` writes what was seen instead, except successes of the attacker.
pub(crate) fn assert_family(family: Family, launcher: Launcher) {
    if !suite::launchers().contains(&launcher) {
        println!(
            "SKIPPED: {} as {}: the suite was started by an ordinary user, and only root can be root",
            family.name(),
            launcher.key()
        );
        // The quota of skips in CI is none: CI runs as root.
        let in_ci = std::env::var("CI").is_ok_and(|v| v == "true");
        assert!(!in_ci, "in CI nothing may be skipped");
        return;
    }
    let runner = Path::new(env!("CARGO_BIN_EXE_escape"));
    let rows = suite::run(runner, launcher, &[family]).unwrap();
    println!("{}", report::summary(&rows));
    if std::env::var_os("UPDATE_ESCAPES").is_some() {
        update(&rows);
        return;
    }
    let matrix = Matrix::read().unwrap();
    let differences = |rows: &[Row]| {
        matrix.differences(rows, |key, of| {
            of == launcher && family.covers(key.0, &key.1) && suite::can_make(key.0, &key.1)
        })
    };
    let mut found = differences(&rows);
    if !found.is_empty() && !found.iter().any(|difference| difference.succeeded) {
        // Where limits are sampled, the attacker's own time limit or the next sample comes first, and on a
        // machine that others use either can. Stopped it was; in which way has to be seen twice to be a difference.
        println!("once more, since there were differences:\n{}", lines(&found));
        let again = differences(&suite::run(runner, launcher, &[family]).unwrap());
        let seen_before = |d: &Difference| found.iter().any(|before| before.place == d.place);
        found = again.into_iter().filter(|d| d.succeeded || seen_before(d)).collect();
    }
    assert!(
        found.is_empty(),
        "{} rows differ (UPDATE_ESCAPES=1 takes over what was seen, after you have understood it):\n{}",
        found.len(),
        lines(&found)
    );
}

fn lines(differences: &[Difference]) -> String {
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn update(rows: &[Row]) {
    let lock = std::fs::File::open(expected::folder()).unwrap();
    lock.lock().unwrap();
    let mut matrix = Matrix::read().unwrap();
    let refused = matrix.update(rows);
    matrix.write().unwrap();
    let page = std::fs::read_to_string(report::page()).unwrap();
    std::fs::write(report::page(), report::with_table(&page, &matrix).unwrap()).unwrap();
    assert!(refused.is_empty(), "never expected:\n{}", refused.join("\n"));
}
