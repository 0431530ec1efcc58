//! What holds for every profile. The attempts are in `tests/escapes`.

use std::collections::BTreeSet;

use super::*;
use crate::syscall::Syscall;

#[test]
fn every_known_call_is_answered_on_purpose() {
    for profile in Profile::ALL {
        let policy = profile.policy().unwrap();
        let named: BTreeSet<Syscall> = policy.syscalls().collect();
        for arch in Arch::ALL {
            for &(_, name) in arch.syscalls() {
                let syscall = Syscall::named(name).unwrap();
                assert!(named.contains(&syscall), "{profile} leaves {name} to its default");
                let ends = policy.rules(syscall).last().unwrap();
                assert!(ends.conditions().is_empty(), "{profile}: {name} falls through");
            }
        }
    }
}

#[test]
fn profiles_never_loosen_what_the_floor_refuses_outright() {
    let floor = floor().unwrap();
    for profile in Profile::ALL {
        let policy = profile.policy().unwrap();
        for syscall in floor.syscalls() {
            if let [rule] = floor.rules(syscall)
                && rule.conditions().is_empty()
            {
                assert_eq!(policy.rules(syscall).len(), 1, "{profile}: {syscall}");
                assert_eq!(policy.rules(syscall).first(), Some(rule), "{profile}: {syscall}");
            }
        }
    }
}

#[test]
fn names_and_versions_are_set() {
    for profile in Profile::ALL {
        assert_eq!(profile.name().parse(), Ok(profile));
        let policy = profile.policy().unwrap();
        assert_eq!(policy.name(), profile.name());
        assert_eq!(policy.version(), 1);
        let program = profile.program(Arch::X86_64).unwrap();
        assert_eq!(program.name(), format!("floor/1+{profile}/1"));
    }
    assert!("perl".parse::<Profile>().is_err());
}
