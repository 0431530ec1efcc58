//! The expectations as data: whole, coherent, proven where nothing can be run, and shown in the docs.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;

use palisade_escape::{
    attacker,
    expected::{Cell, Matrix},
    proofs::PROOFS,
    report,
};

/// Numbers of the catalogue that are not in the matrix: packages do not exist yet (61, 62), and side
/// channels (65) are not held out by walls of this kind; SECURITY.md says so.
const LEFT_OUT: [u16; 3] = [61, 62, 65];

/// From 101 on: from inside the WebAssembly wall.
const WEBASSEMBLY: std::ops::RangeInclusive<u16> = 101..=113;

#[test]
fn every_number_of_the_catalogue_is_there() {
    let matrix = Matrix::read().unwrap();
    let numbers: BTreeSet<u16> = matrix.0.keys().map(|k| k.0).collect();
    let wanted: BTreeSet<u16> =
        (1..=74).filter(|n| !LEFT_OUT.contains(n)).chain(WEBASSEMBLY).collect();
    assert_eq!(numbers, wanted);
}

#[test]
fn every_attempt_of_the_attacker_is_expected() {
    let matrix = Matrix::read().unwrap();
    // Made only where a host serves requests: with `palisade-host`.
    let elsewhere = [(59, "request"), (59, "handshake")];
    let attempts = attacker::list(&attacker::build().unwrap()).unwrap();
    let missing: Vec<String> = attempts
        .iter()
        .filter(|a| !elsewhere.contains(&(a.number, a.variant.as_str())))
        .filter(|a| {
            !matrix.0.keys().any(|k| {
                k.0 == a.number && k.1.split(['+', '@']).next() == Some(a.variant.as_str())
            })
        })
        .map(|a| format!("{} {}", a.number, a.variant))
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_data_does_not_contradict_itself() {
    let matrix = Matrix::read().unwrap();
    let found: Vec<String> = matrix.0.values().flat_map(|row| row.contradictions()).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn what_has_no_control_is_proven_on_the_filter() {
    let matrix = Matrix::read().unwrap();
    let claimed: BTreeSet<(u16, &str)> = matrix
        .0
        .values()
        .filter(|row| row.proof == "evaluator")
        .map(|row| (row.number, row.variant.as_str()))
        .collect();
    let given: BTreeSet<(u16, &str)> = PROOFS.iter().map(|p| (p.number, p.variant)).collect();
    let unproven: Vec<_> = claimed.difference(&given).collect();
    assert!(unproven.is_empty(), "{unproven:?}");
    for proof in PROOFS {
        if let Err(e) = proof.check() {
            panic!("{e}");
        }
    }
}

#[test]
fn that_the_filter_comes_first_is_proven_where_taking_it_away_does_not_show_it() {
    let matrix = Matrix::read().unwrap();
    let proven: BTreeSet<(u16, &str)> = PROOFS.iter().map(|p| (p.number, p.variant)).collect();
    let unproven: Vec<String> = matrix
        .0
        .values()
        .filter(|row| row.stopped_by.first().is_some_and(|layer| layer == "seccomp"))
        .filter(|row| {
            let same = |c: &Cell| {
                c.outcome.starts_with("blocked") && c.without.get("seccomp") == Some(&c.outcome)
            };
            row.launchers.values().any(same)
        })
        // The twins make the same calls.
        .map(|row| (row.number, row.variant.split('@').next().unwrap()))
        .filter(|way| !proven.contains(way))
        .map(|(number, variant)| format!("{number} {variant}"))
        .collect();
    assert!(unproven.is_empty(), "{unproven:#?}");
}

#[test]
fn the_page_shows_the_matrix() {
    let page = std::fs::read_to_string(report::page()).unwrap();
    let wanted = report::with_table(&page, &Matrix::read().unwrap()).expect("marks in the page");
    if std::env::var_os("UPDATE_ESCAPES").is_some() {
        std::fs::write(report::page(), wanted).unwrap();
    } else {
        assert!(page == wanted, "UPDATE_ESCAPES=1 cargo test -p palisade-escape --test data");
    }
}
