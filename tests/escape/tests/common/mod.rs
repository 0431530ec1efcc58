//! What the matrix tests share: running a family and comparing it with the expectations.
#![allow(dead_code, clippy::unwrap_used, clippy::print_stdout)]

use std::path::Path;

use palisade_escape::{
    expected::{self, Matrix},
    record::Launcher,
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
    let differences = matrix.differences(&rows, |key, of| {
        of == launcher && family.covers(key.0, &key.1) && suite::can_make(key.0, &key.1)
    });
    assert!(
        differences.is_empty(),
        "{} rows differ (UPDATE_ESCAPES=1 takes over what was seen, after you have understood it):\n{}",
        differences.len(),
        differences.join("\n")
    );
}

fn update(rows: &[palisade_escape::record::Row]) {
    let lock = std::fs::File::open(expected::folder()).unwrap();
    lock.lock().unwrap();
    let mut matrix = Matrix::read().unwrap();
    let refused = matrix.update(rows);
    matrix.write().unwrap();
    let page = std::fs::read_to_string(report::page()).unwrap();
    std::fs::write(report::page(), report::with_table(&page, &matrix).unwrap()).unwrap();
    assert!(refused.is_empty(), "never expected:\n{}", refused.join("\n"));
}
