//! A policy as a table, call by call, for reports and reviews.

use std::fmt;

use crate::action::Action;
use crate::arch::Arch;
use crate::policy::Policy;
use crate::syscall::Syscall;

/// What a policy says about one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The call's number on the listed architecture.
    pub number: u32,
    /// The call's name.
    pub name: &'static str,
    /// The answers in the order they are tried; the last one has no condition.
    pub cases: Vec<Case>,
}

/// One answer and when it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The conditions as text, joined by `and`; empty where the answer is unconditional.
    pub when: String,
    /// The answer.
    pub action: Action,
}

/// Every call of one architecture with its answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The policy's name and version, [`Policy::label`].
    pub title: String,
    /// The architecture.
    pub arch: Arch,
    /// One row for each known call, by number.
    pub rows: Vec<Row>,
    /// The answer for numbers that are in no table.
    pub unknown: Action,
    /// The answer for calls through another interface, x32 included.
    pub foreign: Action,
}

/// The answers of `policy` to every call of `arch`.
#[must_use]
pub fn listing(policy: &Policy, arch: Arch) -> Listing {
    let rows = arch
        .syscalls()
        .iter()
        .map(|&(number, name)| {
            let rules = Syscall::named(name).map_or(&[][..], |syscall| policy.rules(syscall));
            let mut cases: Vec<Case> = rules
                .iter()
                .map(|rule| Case {
                    when: rule
                        .conditions()
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(" and "),
                    action: rule.action(),
                })
                .collect();
            if cases.last().is_none_or(|last| !last.when.is_empty()) {
                cases.push(Case { when: String::new(), action: policy.default_action() });
            }
            Row { number, name, cases }
        })
        .collect();
    Listing {
        title: policy.label().to_owned(),
        arch,
        rows,
        unknown: policy.default_action(),
        foreign: policy.foreign_action(),
    }
}

impl fmt::Display for Listing {
    /// One line per call: number, name, answers. Conditions stand before their answer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} on {}", self.title, self.arch)?;
        writeln!(f, "  -- other architectures: {}", self.foreign)?;
        if let Some(first) = self.arch.killed_from() {
            writeln!(f, "  -- from {first:#x} (x32): {}", self.foreign)?;
        }
        writeln!(f, "  -- numbers not listed: {}", self.unknown)?;
        for row in &self.rows {
            write!(f, "{:>4} {:<24} ", row.number, row.name)?;
            for (n, case) in row.cases.iter().enumerate() {
                let separator = if n == 0 { "" } else { "; " };
                match (case.when.as_str(), n) {
                    ("", 0) => write!(f, "{}", case.action)?,
                    ("", _) => write!(f, "{separator}else {}", case.action)?,
                    (when, _) => write!(f, "{separator}{when} -> {}", case.action)?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
