//! The expectations as data: whole, coherent, proven where nothing can be run, and shown in the docs.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;

use palisade_escape::{attacker, expected::Matrix, proofs::PROOFS, report};

/// Numbers of the catalogue that the process backend must have in its matrix.
const FLOOR: [u16; 46] = [
    1, 2, 3, 5, 6, 7, 8, 12, 16, 17, 18, 20, 22, 23, 26, 27, 28, 29, 31, 32, 34, 36, 37, 38, 39,
    40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 55, 56, 57, 58, 59, 66, 68, 4, 10, 11, 14,
];

#[test]
fn every_number_of_the_floor_is_there() {
    let matrix = Matrix::read().unwrap();
    let numbers: BTreeSet<u16> = matrix.0.keys().map(|k| k.0).collect();
    let missing: Vec<&u16> = FLOOR.iter().filter(|n| !numbers.contains(n)).collect();
    assert!(missing.is_empty(), "{missing:?}");
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
fn the_page_shows_the_matrix() {
    let page = std::fs::read_to_string(report::page()).unwrap();
    let wanted = report::with_table(&page, &Matrix::read().unwrap()).expect("marks in the page");
    if std::env::var_os("UPDATE_ESCAPES").is_some() {
        std::fs::write(report::page(), wanted).unwrap();
    } else {
        assert!(page == wanted, "UPDATE_ESCAPES=1 cargo test -p palisade-escape --test data");
    }
}
