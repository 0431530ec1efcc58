//! The shape of compiled programs. That they mean the same as the policy is held by
//! `tests/differential.rs`.

use super::*;
use crate::action::Action;
use crate::evaluate::evaluate;
use crate::policy::SeccompData;
use crate::program::code;

fn one(call: &str, argument: &str, op: Op) -> Program {
    let policy = Policy::builder("t", 1, Action::Allow)
        .on_when(Action::EPERM, &[call], &[(argument, op)])
        .build()
        .unwrap();
    compile(&policy, Arch::X86_64).unwrap()
}

#[test]
fn an_empty_policy_still_guards_the_interface() {
    let policy = Policy::builder("t", 1, Action::Allow).build().unwrap();
    let on_x86 = compile(&policy, Arch::X86_64).unwrap();
    // ld arch; jeq; ld nr; jge x32; two answers.
    assert_eq!(on_x86.len(), 6);
    let on_arm = compile(&policy, Arch::Aarch64).unwrap();
    assert_eq!(on_arm.len(), 4, "no x32 guard on arm64");
}

#[test]
fn int_arguments_never_load_the_high_half() {
    for op in [
        Op::Eq(40),
        Op::is_in(&[1, 2]),
        Op::Gt(5),
        Op::MaskedAny(1),
        Op::MaskedEq { mask: 6, value: 2 },
    ] {
        let program = one("socket", "domain", op.clone());
        let high = program.instructions().iter().any(|i| i.code == code::LD_W_ABS && i.k == 20);
        assert!(!high, "{op:?} on an int");
    }
    for op in [Op::Eq(40), Op::is_in(&[1, 2]), Op::Gt(5), Op::MaskedAny(1 << 40)] {
        let program = one("unshare", "flags", op.clone());
        let high = program.instructions().iter().any(|i| i.code == code::LD_W_ABS && i.k == 20);
        assert!(high, "{op:?} on an unsigned long");
    }
}

#[test]
fn compiling_twice_gives_the_same_bytes() {
    let policy = crate::profiles::floor().unwrap();
    let once = compile(&policy, Arch::X86_64).unwrap();
    let again = compile(&policy, Arch::X86_64).unwrap();
    assert_eq!(once.to_bytes(), again.to_bytes());
}

#[test]
fn far_targets_are_reached() {
    // Every call gets its own errno, so the program is far longer than a jump reaches.
    let mut builder = Policy::builder("wide", 1, Action::Allow);
    for (n, &(_, name)) in Arch::X86_64.syscalls().iter().enumerate() {
        builder = builder.on(Action::Errno(n as u16 + 1), &[name]);
    }
    let program = compile(&builder.build().unwrap(), Arch::X86_64).unwrap();
    assert!(program.len() > 700);
    for (n, &(nr, name)) in Arch::X86_64.syscalls().iter().enumerate() {
        let data = SeccompData { nr, arch: Arch::X86_64.audit_arch(), ..SeccompData::default() };
        assert_eq!(evaluate(&program, &data), Ok(Action::Errno(n as u16 + 1)), "{name}");
    }
}

#[test]
fn far_shared_tails_use_a_long_jump() {
    // A tail that the lowest and the highest numbers share, with a long program between them.
    let values: Vec<u64> = (0..40).map(|n| n * 3 + 1).collect();
    let mut builder = Policy::builder("long", 1, Action::Allow);
    for call in ["ioctl", "seccomp", "open", "socketpair", "prctl", "mmap", "sendto", "kill"] {
        let argument = Syscall::named(call).unwrap().arguments()[0].name;
        let own =
            Op::is_in(&values.iter().map(|v| v + u64::from(call.len() as u32)).collect::<Vec<_>>());
        builder = builder.on_when(Action::EPERM, &[call], &[(argument, own)]);
        builder = builder.on_when(Action::Trap, &[call], &[(argument, Op::Gt(60_000))]);
    }
    let policy = builder.build().unwrap();
    let program = compile(&policy, Arch::X86_64).unwrap();
    assert!(program.instructions().iter().any(|i| i.code == code::JA), "a long jump is there");
    for syscall in policy.syscalls() {
        for value in (0..200).chain([60_000, 60_001, u64::MAX]) {
            let data = SeccompData::call(Arch::X86_64, syscall.name(), [value; 6]).unwrap();
            assert_eq!(
                evaluate(&program, &data),
                Ok(policy.decide(&data, Arch::X86_64)),
                "{syscall} {value}"
            );
        }
    }
}

#[test]
fn a_policy_too_long_for_the_kernel_is_an_error() {
    let values: Vec<u64> = (0..5000).map(|n| n * 2).collect();
    let policy = Policy::builder("huge", 1, Action::Allow)
        .on_when(Action::EPERM, &["ioctl"], &[("cmd", Op::InSet(values))])
        .build()
        .unwrap();
    let error = compile(&policy, Arch::X86_64).unwrap_err();
    assert_eq!(error.code(), "PAL-SECCOMP-TOO-LONG");
}

use crate::syscall::Syscall;
