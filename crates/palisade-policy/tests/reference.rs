//! docs/reference/capabilities.md and docs/reference/policy.md say what the code does.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use palisade_model::{Access, Capability, Kind, capability::ScopeForm};

const CAPABILITIES: &str = include_str!("../../../docs/reference/capabilities.md");
const POLICY: &str = include_str!("../../../docs/reference/policy.md");

/// The cells of the table rows below `heading`, without the head of the table.
fn rows<'p>(page: &'p str, heading: &str) -> Vec<Vec<&'p str>> {
    let section = page.split_once(heading).unwrap_or_else(|| panic!("no section {heading:?}")).1;
    let section = section.split("\n## ").next().unwrap();
    section
        .lines()
        .filter(|l| l.starts_with('|'))
        .skip(2)
        .map(|l| l.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

/// The texts in backticks of a cell.
fn codes(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn every_kind_stands_in_the_reference_as_it_is() {
    let rows = rows(CAPABILITIES, "## Kinds");
    let names: Vec<&str> = rows.iter().map(|r| r[0].trim_matches('`')).collect();
    let expected: Vec<&str> = Kind::ALL.iter().map(|k| k.as_str()).collect();
    assert_eq!(names, expected, "the kinds, in the order of the code");
    for (row, kind) in rows.iter().zip(Kind::ALL) {
        let form = match kind.scope_form() {
            ScopeForm::Path => "path",
            ScopeForm::Authority => "authority",
            ScopeForm::Subject => "subject",
            ScopeForm::Name => "name",
        };
        let risk = if kind.scope_matters() {
            format!("{}, {} for all", kind.risk(), kind.risk().raised())
        } else {
            kind.risk().to_string()
        };
        assert_eq!(row[1], kind.in_words(), "{kind}: words");
        assert_eq!(row[2], form, "{kind}: scope form");
        assert_eq!(row[3], kind.enforcement().as_str(), "{kind}: enforcement");
        assert_eq!(row[4], risk, "{kind}: risk");
        for example in codes(row[5]) {
            let c: Capability = example.parse().unwrap_or_else(|e| panic!("{example}: {e}"));
            assert_eq!(c.kind(), *kind, "the example of {kind}");
        }
        assert!(row[5].contains('`'), "{kind} has an example");
    }
}

#[test]
fn the_examples_of_the_reference_match_as_it_says() {
    let rows = rows(CAPABILITIES, "## How scopes match");
    assert!(rows.len() >= 10);
    for row in rows {
        let scope = codes(row[0]).next().unwrap();
        let c: Capability = scope.parse().unwrap_or_else(|e| panic!("{scope}: {e}"));
        assert!(row[1].contains('`') && row[2].contains('`'), "{scope} has examples both ways");
        for (cell, expected) in [(row[1], true), (row[2], false)] {
            for target in codes(cell) {
                assert_eq!(
                    c.covers(&Access::new(c.kind(), target)),
                    expected,
                    "{scope} on {target}"
                );
            }
        }
    }
}

#[test]
fn what_the_reference_says_is_refused_is_refused() {
    let rows = rows(CAPABILITIES, "## What is refused");
    assert!(rows.len() >= 6);
    for row in rows {
        for text in codes(row[0]) {
            assert!(text.parse::<Capability>().is_err(), "{text} is accepted");
        }
    }
}

#[test]
fn the_example_policy_is_valid_and_names_every_key() {
    let example = POLICY.split_once("```toml\n").unwrap().1.split_once("```").unwrap().0;
    let policy = palisade_policy::parse(example).unwrap_or_else(|e| panic!("{e}"));
    assert!(!policy.forbids().is_empty() && policy.backends().is_some());
    assert!(!policy.plugin_floors().is_empty());
    let max = policy.ceilings();
    assert!(max.cpu.is_some() && max.memory.is_some() && max.pids.is_some() && max.files.is_some());
    assert!(max.disk.is_some() && max.log_bytes_per_second.is_some());
    assert!(
        max.requests_per_second.is_some()
            && max.events_per_second.is_some()
            && max.calls_per_second.is_some()
    );
    for guarantee in palisade_model::Guarantee::ALL {
        assert!(POLICY.contains(&format!("`{guarantee}`")), "{guarantee} is not in the page");
    }
    for key in ["floor", "plugins", "forbid", "allow-consent", "require-seal", "max", "backends"] {
        assert!(POLICY.contains(&format!("| `{key}` |")), "{key} is not in the table");
    }
}
