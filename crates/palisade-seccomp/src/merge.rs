//! Two stacked filters as one policy, so that only one program has to be loaded and run.

use std::collections::BTreeSet;

use crate::action::Action;
use crate::policy::{Policy, Rule};
use crate::syscall::Syscall;

/// One policy that answers every call exactly as the kernel would with `floor` installed first and
/// `profile` on top of it: the more restrictive answer wins, and of two errnos the profile's.
///
/// Its version is the profile's; its [`Policy::label`] names both with their versions.
#[must_use]
pub fn merged(floor: &Policy, profile: &Policy) -> Policy {
    let syscalls: BTreeSet<Syscall> = floor.syscalls().chain(profile.syscalls()).collect();
    let rules = syscalls
        .into_iter()
        .map(|syscall| (syscall, product(&complete(floor, syscall), &complete(profile, syscall))))
        .collect();
    Policy {
        name: format!("{}+{}", floor.name, profile.name),
        version: profile.version,
        label: format!("{}+{}", floor.label, profile.label),
        default: Action::stacked(floor.default, profile.default),
        rules,
    }
}

/// The rules of a call with the default made explicit, so that exactly one always applies.
fn complete(policy: &Policy, syscall: Syscall) -> Vec<Rule> {
    let mut rules = policy.rules(syscall).to_vec();
    if rules.last().is_none_or(|last| !last.conditions.is_empty()) {
        rules.push(Rule { conditions: Vec::new(), action: policy.default });
    }
    rules
}

/// Every pair of rules in lexicographic order. The first pair whose conditions all hold consists of
/// the first matching rule on each side, which is what stacking means.
fn product(floor: &[Rule], profile: &[Rule]) -> Vec<Rule> {
    let mut out = Vec::new();
    for older in floor {
        let answers: Vec<Action> =
            profile.iter().map(|newer| Action::stacked(older.action, newer.action)).collect();
        // Where the profile cannot change the answer its conditions need not be asked.
        if let Some(&first) = answers.first()
            && answers.iter().all(|&answer| answer == first)
        {
            out.push(Rule { conditions: older.conditions.clone(), action: first });
            continue;
        }
        for (newer, action) in profile.iter().zip(answers) {
            let mut conditions = older.conditions.clone();
            for condition in &newer.conditions {
                if !conditions.contains(condition) {
                    conditions.push(condition.clone());
                }
            }
            out.push(Rule { conditions, action });
        }
    }
    // An unconditional rule ends the list; what stands behind it could never match.
    if let Some(end) = out.iter().position(|rule| rule.conditions.is_empty()) {
        out.truncate(end + 1);
    }
    // A conditional rule right before that end, with the same answer, asks for nothing.
    while let [.., conditional, last] = out.as_slice()
        && conditional.action == last.action
    {
        out.remove(out.len() - 2);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::Op;

    #[test]
    fn rules_that_cannot_change_the_answer_are_not_multiplied() {
        let floor = Policy::builder("floor", 1, Action::Allow)
            .on_when(Action::KillProcess, &["kill"], &[("pid", Op::Eq(1))])
            .build()
            .unwrap();
        let profile = Policy::builder("p", 3, Action::ENOSYS)
            .on_when(Action::EPERM, &["kill"], &[("sig", Op::Eq(9))])
            .on(Action::Allow, &["kill", "read"])
            .build()
            .unwrap();
        let both = merged(&floor, &profile);
        assert_eq!(both.name(), "floor+p");
        assert_eq!(both.version(), 3);
        assert_eq!(both.label(), "floor/1+p/3");
        let kill = Syscall::named("kill").unwrap();
        let shown: Vec<String> = both.rules(kill).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["pid == 1 -> kill", "sig == 9 -> EPERM", "allow"]);
        assert_eq!(both.default_action(), Action::ENOSYS);
    }
}
