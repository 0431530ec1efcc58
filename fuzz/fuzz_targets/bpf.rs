//! Random system call policies: the compiled program, run by a small interpreter of its own, the crate's
//! evaluator, and the rules themselves give one answer to each call; alone, merged, told and observed.
#![no_main]

#[path = "../../crates/palisade-seccomp/tests/support/conditions.rs"]
mod conditions;

use conditions::{KINDS, condition, constants};
use libfuzzer_sys::fuzz_target;
use palisade_seccomp::{
    Action, Arch, Instruction, Op, Policy, Program, SeccompData, Syscall, compile, evaluate_raw,
    merged, observed, told, validate,
};

/// Bytes as choices; zeros when they are used up.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Small ones, single bits, halves and anything.
    fn value(&mut self) -> u64 {
        let low = u64::from(self.byte());
        match self.byte() % 8 {
            0..=2 => low,
            3 => 1 << (low % 64),
            4 => u64::MAX - low,
            5 => u64::from(u32::MAX) - low,
            6 => low << 32 | u64::from(self.byte()),
            _ => (0..8).fold(0, |n, _| n << 8 | u64::from(self.byte())),
        }
    }

    fn action(&mut self) -> Action {
        match self.byte() % 8 {
            0 => Action::KillProcess,
            1 => Action::Trap,
            2 => Action::Errno(u16::from(self.byte()) << 4),
            3 => Action::EPERM,
            4 => Action::ENOSYS,
            5 => Action::UserNotify,
            6 => Action::Log,
            _ => Action::Allow,
        }
    }

    fn op(&mut self, width: u64) -> Op {
        let (first, mask) = (self.value(), self.value());
        let values: Vec<u64> = (0..1 + self.byte() % 4).map(|_| self.value()).collect();
        condition(self.byte() % KINDS, first, mask, &values, width)
    }

    fn policy(&mut self, name: &str) -> Policy {
        let calls: Vec<Syscall> = Syscall::with_arguments()
            .chain(["read", "mount", "uretprobe"].map(|n| Syscall::named(n).expect("a call")))
            .collect();
        let default = self.action();
        let mut builder = Policy::builder(name, 1, default);
        let mut closed = Vec::new();
        for _ in 0..self.byte() % 24 {
            let call = calls[usize::from(self.byte()) % calls.len()];
            let arguments = call.arguments();
            let count = if arguments.is_empty() { 0 } else { self.byte() % 4 };
            let conditions: Vec<(&str, Op)> = (0..count)
                .map(|_| {
                    let argument = arguments[usize::from(self.byte()) % arguments.len()];
                    (argument.name, self.op(argument.width.mask()))
                })
                .collect();
            let action = self.action();
            if closed.contains(&call) {
                continue;
            }
            if conditions.is_empty() {
                closed.push(call);
            }
            builder = builder.on_when(action, &[call.name()], &conditions);
        }
        builder.build().expect("rules that can be written")
    }

    fn call(&mut self, arch: Arch, policy: &Policy) -> SeccompData {
        let named: Vec<Syscall> = policy.syscalls().collect();
        let mut call = SeccompData { arch: arch.audit_arch(), ..SeccompData::default() };
        call.args = [(); 6].map(|()| self.value());
        let which = usize::from(self.byte());
        let chosen = named.get(which % named.len().max(1));
        call.nr = match self.byte() % 8 {
            0 => u32::from(self.byte()) << 2 | 3,
            1 => self.value() as u32,
            _ => chosen.and_then(|c| arch.number(c.name())).unwrap_or(0),
        };
        // Near a constant of a rule, that one and its neighbours.
        let rules = chosen.map_or(&[][..], |c| policy.rules(*c));
        if let Some(rule) = rules.get(usize::from(self.byte()) % rules.len().max(1)) {
            for condition in rule.conditions() {
                let constant = constants(condition.op())[0];
                let at = usize::from(condition.index());
                call.args[at] = match self.byte() % 6 {
                    0 => constant,
                    1 => constant.wrapping_add(1),
                    2 => constant.wrapping_sub(1),
                    3 => constant | !condition.width().mask(),
                    4 => constant ^ 1 << (self.byte() % 64),
                    _ => call.args[at],
                };
            }
        }
        match self.byte() % 16 {
            0 => call.arch = 0x4000_0003,
            1 => call.arch = self.value() as u32,
            2 => call.nr |= 0x4000_0000,
            3 => call.nr = u32::MAX,
            _ => {}
        }
        call
    }
}

/// Classic BPF as far as compiled policies use it (`linux/bpf_common.h`).
fn interpret(program: &[Instruction], call: &SeccompData) -> u32 {
    let mut words = vec![call.nr, call.arch];
    for wide in [call.instruction_pointer].iter().chain(&call.args) {
        words.extend([*wide as u32, (*wide >> 32) as u32]);
    }
    let (mut at, mut a) = (0, 0u32);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let taken = match code {
            0x20 => {
                a = words[k as usize / 4];
                continue;
            }
            0x54 => {
                a &= k;
                continue;
            }
            0x05 => {
                at += k as usize;
                continue;
            }
            0x06 => return k,
            0x15 => a == k,
            0x25 => a > k,
            0x35 => a >= k,
            0x45 => a & k != 0,
            other => panic!("an instruction that no policy needs: {other:#x}"),
        };
        at += usize::from(if taken { jt } else { jf });
    }
}

fn check(policy: &Policy, program: &Program, call: &SeccompData) {
    let answer = policy.decide(call, program.arch()).to_return();
    assert_eq!(interpret(program.instructions(), call), answer, "{call:?}");
    assert_eq!(evaluate_raw(program, call), Ok(answer), "{call:?}");
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices(input);
    let arch = Arch::ALL[usize::from(choices.byte() & 1)];
    let (older, newer) = (choices.policy("older"), choices.policy("newer"));
    let all = [merged(&older, &newer), told(&older), observed(&newer, &older), older, newer];
    let programs = all.each_ref().map(|policy| compile(policy, arch).expect("short enough"));
    for program in &programs {
        assert_eq!(validate(program.instructions()), Ok(()));
    }
    let [both, told, _, older, newer] = &all;
    for turn in 0..64 {
        let call = choices.call(arch, &all[turn % all.len()]);
        for (policy, program) in all.iter().zip(&programs) {
            check(policy, program, &call);
        }
        let (below, above) = (older.decide(&call, arch), newer.decide(&call, arch));
        assert_eq!(both.decide(&call, arch), Action::stacked(below, above), "{call:?}");
        // Told: deaths are asked about, everything else stays.
        let asked = if below == Action::KillProcess { Action::UserNotify } else { below };
        assert_eq!(told.decide(&call, arch), asked, "{call:?}");
        if choices.0.is_empty() && turn > 8 {
            break;
        }
    }
});
