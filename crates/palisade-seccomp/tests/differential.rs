//! The compiled program, run by the evaluator, answers as the policy does: for random policies and
//! random calls, and at the edges of every constant in a rule.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

#[path = "support/conditions.rs"]
mod conditions;

use conditions::{KINDS, condition, near};
use palisade_seccomp::profiles::{Profile, floor};
use palisade_seccomp::{
    Action, Arch, Op, Policy, Program, SeccompData, Syscall, X32_SYSCALL_BIT, compile, evaluate,
    merged, validate,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// A rule before its numbers are fitted to the argument it lands on.
#[derive(Debug, Clone)]
struct RuleSeed {
    call: usize,
    conditions: Vec<(usize, OpSeed)>,
    action: Action,
}

#[derive(Debug, Clone)]
struct OpSeed {
    kind: u8,
    mask: u64,
    values: Vec<u64>,
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..12_u64,
        Just(0xffff),
        Just(0xffff_ffff),
        Just(u64::MAX),
        Just(1 << 32),
        any::<u64>(),
        (0..64_u32).prop_map(|bit| 1 << bit),
        (any::<u32>(), 0..4_u64).prop_map(|(low, high)| u64::from(low) | high << 32),
    ]
}

fn op() -> impl Strategy<Value = OpSeed> {
    (0..KINDS, value(), vec(value(), 1..5)).prop_map(|(kind, mask, values)| OpSeed {
        kind,
        mask,
        values,
    })
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::KillProcess),
        Just(Action::Trap),
        (0..4096_u16).prop_map(Action::Errno),
        Just(Action::EPERM),
        Just(Action::UserNotify),
        Just(Action::Log),
        Just(Action::Allow),
    ]
}

fn rule() -> impl Strategy<Value = RuleSeed> {
    (any::<usize>(), vec((any::<usize>(), op()), 0..4), action())
        .prop_map(|(call, conditions, action)| RuleSeed { call, conditions, action })
}

impl OpSeed {
    fn fit(&self, width: u64) -> Op {
        condition(self.kind, self.values[0], self.mask, &self.values, width)
    }
}

/// Calls with filterable arguments first, then some without.
fn calls() -> Vec<Syscall> {
    let plain = ["read", "write", "mount", "file_setattr", "uretprobe", "open_tree"];
    Syscall::with_arguments()
        .chain(plain.iter().map(|name| Syscall::named(name).unwrap()))
        .collect()
}

fn policy(name: &str, seeds: &[RuleSeed], default: Action) -> Policy {
    let calls = calls();
    let mut builder = Policy::builder(name, 1, default);
    let mut closed = Vec::new();
    for seed in seeds {
        let call = calls[seed.call % calls.len()];
        if closed.contains(&call) {
            continue;
        }
        let arguments = call.arguments();
        let conditions: Vec<(&str, Op)> = seed
            .conditions
            .iter()
            .filter(|_| !arguments.is_empty())
            .map(|(which, op)| {
                let argument = arguments[which % arguments.len()];
                (argument.name, op.fit(argument.width.mask()))
            })
            .collect();
        if conditions.is_empty() {
            closed.push(call);
        }
        builder = builder.on_when(seed.action, &[call.name()], &conditions);
    }
    builder.build().expect("seeds make valid rules")
}

/// Numbers around every constant, with and without bits above the argument's width.
fn edges(op: &Op) -> Vec<u64> {
    near(op)
        .into_iter()
        .flat_map(|v| [v, v ^ 1 << 16, v ^ 1 << 31, v ^ 1 << 32, v ^ 1 << 63, v & 0xffff_ffff])
        .collect()
}

/// Every call with each of its conditions at the edges, the other arguments from `filler`.
fn edge_calls(policy: &Policy, arch: Arch, filler: [u64; 6]) -> Vec<SeccompData> {
    let mut out = Vec::new();
    for syscall in policy.syscalls() {
        let Some(base) = SeccompData::call(arch, syscall.name(), filler) else { continue };
        out.push(base);
        for rule in policy.rules(syscall) {
            // Bring all conditions of the rule near their constants, then vary one at a time.
            let mut near = base;
            for condition in rule.conditions() {
                near.args[usize::from(condition.index())] = edges(condition.op())[0];
            }
            out.push(near);
            for condition in rule.conditions() {
                for value in edges(condition.op()) {
                    for mut data in [base, near] {
                        data.args[usize::from(condition.index())] = value;
                        out.push(data);
                    }
                }
            }
        }
    }
    out
}

fn random_calls(seeds: &[(u32, u8, [u64; 6])], arch: Arch) -> Vec<SeccompData> {
    seeds
        .iter()
        .map(|&(nr, place, args)| {
            let audit = match place {
                0 => 0x4000_0003,
                1 => !arch.audit_arch(),
                _ => arch.audit_arch(),
            };
            let nr = if place == 2 { nr | 0x4000_0000 } else { nr };
            SeccompData { nr, arch: audit, instruction_pointer: args[0], args }
        })
        .collect()
}

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0..480_u32, 1 => any::<u32>(), 1 => Just(u32::MAX), 1 => Just(0x3fff_ffff)]
}

fn call_seeds() -> impl Strategy<Value = Vec<(u32, u8, [u64; 6])>> {
    let args = [value(), value(), value(), value(), value(), value()];
    vec((number(), 0..12_u8, args), 1..60)
}

fn check(program: &Program, policy: &Policy, data: &SeccompData) -> Result<(), TestCaseError> {
    let expected = policy.decide(data, program.arch());
    prop_assert_eq!(evaluate(program, data), Ok(expected), "{:?}", data);
    Ok(())
}

fn arch() -> impl Strategy<Value = Arch> {
    prop_oneof![Just(Arch::X86_64), Just(Arch::Aarch64)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn program_answers_as_the_policy(
        rules in vec(rule(), 0..40),
        default in action(),
        arch in arch(),
        calls in call_seeds(),
    ) {
        let policy = policy("p", &rules, default);
        let program = compile(&policy, arch).unwrap();
        prop_assert_eq!(validate(program.instructions()), Ok(()));
        for data in random_calls(&calls, arch) {
            check(&program, &policy, &data)?;
        }
        for data in edge_calls(&policy, arch, calls[0].2) {
            check(&program, &policy, &data)?;
        }
    }

    #[test]
    fn merged_answers_as_both_stacked(
        below in vec(rule(), 0..25),
        above in vec(rule(), 0..25),
        defaults in (action(), action()),
        arch in arch(),
        calls in call_seeds(),
    ) {
        let older = policy("older", &below, defaults.0);
        let newer = policy("newer", &above, defaults.1);
        let both = merged(&older, &newer);
        let program = compile(&both, arch).unwrap();
        let parts = (compile(&older, arch).unwrap(), compile(&newer, arch).unwrap());
        let mut data = random_calls(&calls, arch);
        data.extend(edge_calls(&older, arch, calls[0].2));
        data.extend(edge_calls(&newer, arch, calls[0].2));
        for data in data {
            let stacked = Action::stacked(
                evaluate(&parts.0, &data).unwrap(),
                evaluate(&parts.1, &data).unwrap(),
            );
            prop_assert_eq!(evaluate(&program, &data), Ok(stacked), "{:?}", data);
            prop_assert_eq!(both.decide(&data, arch), stacked);
        }
    }

    #[test]
    fn profiles_merged_answer_as_stacked(arch in arch(), calls in call_seeds()) {
        let floor = floor().unwrap();
        for profile in Profile::ALL {
            let above = profile.policy().unwrap();
            let program = profile.program(arch).unwrap();
            for data in random_calls(&calls, arch) {
                let stacked = Action::stacked(floor.decide(&data, arch), above.decide(&data, arch));
                prop_assert_eq!(evaluate(&program, &data), Ok(stacked), "{} {:?}", profile, data);
            }
        }
    }
}

#[test]
fn profiles_agree_at_every_edge_and_every_number() {
    for arch in Arch::ALL {
        for profile in Profile::ALL {
            let both = profile.with_floor().unwrap();
            let program = compile(&both, arch).unwrap();
            let fillers = [[0; 6], [u64::MAX; 6], [1; 6], [0x8; 6]];
            let mut data: Vec<SeccompData> =
                fillers.iter().flat_map(|&filler| edge_calls(&both, arch, filler)).collect();
            let plain = SeccompData { arch: arch.audit_arch(), ..SeccompData::default() };
            data.extend((0..1024).map(|nr| SeccompData { nr, ..plain }));
            // With the x32 bit, and through other interfaces: i386, the other known one, none at all.
            let x32 = (0..=547).map(|nr| SeccompData { nr: nr | X32_SYSCALL_BIT, ..plain });
            data.extend(x32);
            for foreign in [0x4000_0003, 0xC000_00B7, 0xC000_003E, 0, u32::MAX] {
                data.extend((0..=547).map(|nr| SeccompData { nr, arch: foreign, ..plain }));
            }
            for data in data {
                assert_eq!(
                    evaluate(&program, &data),
                    Ok(both.decide(&data, arch)),
                    "{profile} {data:?}"
                );
            }
        }
    }
}
