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
        .map(|syscall| {
            let rules =
                product(&complete(floor, syscall), &complete(profile, syscall), Action::stacked);
            (syscall, rules)
        })
        .collect();
    Policy {
        name: format!("{}+{}", floor.name, profile.name),
        version: profile.version,
        label: format!("{}+{}", floor.label, profile.label),
        default: Action::stacked(floor.default, profile.default),
        foreign: Action::stacked(floor.foreign, profile.foreign),
        rules,
    }
}

/// The policy of a process whose deaths are told by name: a listener (seccomp_unotify(2)) is asked about
/// every call that `policy` answers with death, through other interfaces too, and about nothing else.
///
/// The kernel does not tell for which call it ended a process; the listener knows, and must end the
/// process itself, without ever letting the call go on. The call is no nearer to being made than before:
/// while the question is open it waits, and where there is no listener any more it fails with `ENOSYS`.
#[must_use]
pub fn told(policy: &Policy) -> Policy {
    let asked = |action: Action| match action {
        Action::KillProcess => Action::UserNotify,
        other => other,
    };
    let rules = policy
        .rules
        .iter()
        .map(|(syscall, rules)| {
            let asked = |rule: &Rule| Rule {
                conditions: rule.conditions.clone(),
                action: asked(rule.action),
            };
            (*syscall, rules.iter().map(asked).collect())
        })
        .collect();
    Policy {
        default: asked(policy.default),
        foreign: asked(policy.foreign),
        rules,
        ..policy.clone()
    }
}

/// The policy of an observed process: a listener (seccomp_unotify(2)) is asked about every call that
/// `policy` refuses, and about those that it allows and for which `watched` says
/// [`Action::UserNotify`]. Everything else is answered as before.
///
/// Nothing is loosened: the listener must answer with what [`Policy::decide`] of `policy` says about the
/// call, and where there is no listener any more the kernel answers with `ENOSYS`.
#[must_use]
pub fn observed(policy: &Policy, watched: &Policy) -> Policy {
    let answer = |answer: Action, watched: Action| match answer {
        Action::Errno(_) | Action::KillProcess => Action::UserNotify,
        Action::Allow | Action::Log if watched == Action::UserNotify => Action::UserNotify,
        other => other,
    };
    let syscalls: BTreeSet<Syscall> = policy.syscalls().chain(watched.syscalls()).collect();
    let rules = syscalls
        .into_iter()
        .map(|syscall| {
            (syscall, product(&complete(policy, syscall), &complete(watched, syscall), answer))
        })
        .collect();
    Policy {
        name: format!("{}+{}", policy.name, watched.name),
        version: policy.version,
        label: format!("{}+{}", policy.label, watched.label),
        default: answer(policy.default, watched.default),
        foreign: answer(policy.foreign, watched.foreign),
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
fn product(
    floor: &[Rule],
    profile: &[Rule],
    answer: impl Fn(Action, Action) -> Action,
) -> Vec<Rule> {
    let mut out = Vec::new();
    for older in floor {
        let answers: Vec<Action> =
            profile.iter().map(|newer| answer(older.action, newer.action)).collect();
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
    fn an_observed_policy_asks_about_refusals_and_what_is_watched_and_nothing_else() {
        use crate::{Arch, SeccompData, compile, evaluate, profiles::Profile};
        let watched = Policy::builder("watched", 1, Action::Allow)
            .on(Action::UserNotify, &["openat"])
            .on_when(Action::UserNotify, &["sendto"], &[("addr", Op::Ne(0))])
            .build()
            .unwrap();
        for profile in Profile::ALL {
            let policy = profile.with_floor().unwrap();
            let both = observed(&policy, &watched);
            let program = compile(&both, Arch::X86_64).unwrap();
            for &(_, name) in Arch::X86_64.syscalls() {
                for args in [[0; 6], [1; 6], [2, 3, 4, 5, 6, 7], [u64::MAX; 6]] {
                    let data = SeccompData::call(Arch::X86_64, name, args).unwrap();
                    let is_watched = watched.decide(&data, Arch::X86_64) == Action::UserNotify;
                    let expected = match policy.decide(&data, Arch::X86_64) {
                        Action::Allow if !is_watched => Action::Allow,
                        _ => Action::UserNotify,
                    };
                    let got = evaluate(&program, &data).unwrap();
                    assert_eq!(got, expected, "{profile} {name} {args:x?}");
                }
            }
            let unknown =
                SeccompData { nr: 999, arch: Arch::X86_64.audit_arch(), ..Default::default() };
            assert_eq!(evaluate(&program, &unknown).unwrap(), Action::UserNotify);
            // Through another interface as well: the listener ends the process, and can say for what.
            let foreign = SeccompData { nr: 0, arch: 0x4000_0003, ..Default::default() };
            assert_eq!(policy.decide(&foreign, Arch::X86_64), Action::KillProcess);
            assert_eq!(evaluate(&program, &foreign).unwrap(), Action::UserNotify);
        }
    }

    #[test]
    fn a_told_policy_asks_about_deaths_and_nothing_else() {
        use crate::{Arch, SeccompData, X32_SYSCALL_BIT, compile, evaluate, profiles::Profile};
        for profile in Profile::ALL {
            let policy = profile.with_floor().unwrap();
            let program = compile(&told(&policy), Arch::X86_64).unwrap();
            let own = Arch::X86_64.audit_arch();
            for arch in [own, 0x4000_0003] {
                for nr in (0..1024).chain(X32_SYSCALL_BIT..X32_SYSCALL_BIT + 600).chain([u32::MAX])
                {
                    for args in [[0; 6], [1; 6], [u64::MAX; 6]] {
                        let data = SeccompData { nr, arch, args, ..Default::default() };
                        let expected = match policy.decide(&data, Arch::X86_64) {
                            Action::KillProcess => Action::UserNotify,
                            other => other,
                        };
                        assert_eq!(evaluate(&program, &data), Ok(expected), "{profile} {data:?}");
                    }
                }
            }
        }
    }

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
