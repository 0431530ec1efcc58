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

impl Listing {
    /// The calls that always get the same answer, by answer from the strictest to the mildest; calls
    /// whose arguments decide are in none.
    #[must_use]
    pub fn unconditional(&self) -> Vec<(Action, Vec<&'static str>)> {
        let mut groups: Vec<(Action, Vec<&'static str>)> = Vec::new();
        for row in &self.rows {
            let [case] = row.cases.as_slice() else { continue };
            match groups.iter_mut().find(|(action, _)| *action == case.action) {
                Some((_, names)) => names.push(row.name),
                None => groups.push((case.action, vec![row.name])),
            }
        }
        for (_, names) in &mut groups {
            names.sort_unstable();
        }
        groups.sort_by_key(|(action, _)| (action.precedence(), action.to_return()));
        groups
    }

    /// The calls whose arguments decide, by name.
    #[must_use]
    pub fn conditional(&self) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.rows.iter().filter(|row| row.cases.len() > 1).collect();
        rows.sort_unstable_by_key(|row| row.name);
        rows
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profiles::Profile;

    #[test]
    fn every_call_is_in_exactly_one_group() {
        for profile in Profile::ALL {
            let listing = listing(&profile.with_floor().unwrap(), Arch::X86_64);
            let groups = listing.unconditional();
            let mut names: Vec<&str> = groups.iter().flat_map(|(_, names)| names.clone()).collect();
            names.extend(listing.conditional().iter().map(|row| row.name));
            names.sort_unstable();
            let mut all: Vec<&str> = listing.rows.iter().map(|row| row.name).collect();
            all.sort_unstable();
            assert_eq!(names, all, "{profile}");
            let first = groups.first().unwrap();
            assert_eq!(first.0, Action::KillProcess, "{profile}: the strictest is first");
            assert!(first.1.contains(&"bpf"));
        }
    }
}
