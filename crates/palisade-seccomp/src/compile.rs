//! Policy to classic BPF.
//!
//! The filter is a decision graph: check the interface, search the call number, then test
//! arguments. Equal parts of the graph are one node, so tails are shared between calls, and
//! neighbouring numbers with the same node are one range. The result is the same for the same
//! policy, on every machine.

mod emit;
mod graph;
mod search;

use crate::arch::Arch;
use crate::condition::{ArgCondition, Op};
use crate::error::Error;
use crate::policy::{Policy, Rule};
use crate::program::Program;
use crate::syscall::Width;
use graph::{Graph, Jump, Node, Test};
use search::Range;

/// Offsets in `struct seccomp_data`.
const NR: u8 = 0;
const ARCH: u8 = 4;
const ARGS: u8 = 16;

/// Compiles a policy for one architecture. Calls that do not exist there are left out.
///
/// # Errors
/// [`Error::TooLong`] above 4096 instructions.
pub fn compile(policy: &Policy, arch: Arch) -> Result<Program, Error> {
    let mut graph = Graph::default();
    let default = graph.answer(policy.default);
    let foreign = graph.answer(policy.foreign);

    let mut outcomes = Vec::new();
    for &(number, name) in arch.syscalls() {
        let syscall = crate::syscall::Syscall::named(name)?;
        let outcome = rules(&mut graph, policy.rules(syscall), default);
        outcomes.push((number, outcome));
    }
    let searched = search::tree(&mut graph, &ranges(&outcomes, default), NR);

    // The number is looked at only after the architecture: the same number means another call
    // through another interface.
    let guarded = match arch.killed_from() {
        Some(first) => graph.branch(Test::new(NR, Jump::Ge, first), foreign, searched),
        None => searched,
    };
    let root = graph.branch(Test::new(ARCH, Jump::Eq, arch.audit_arch()), guarded, foreign);

    let instructions = emit::emit(&graph, root);
    Program::new(policy.label(), arch, instructions)
}

/// The number line as ranges of equal outcome; numbers in no table get the default.
fn ranges(outcomes: &[(u32, Node)], default: Node) -> Vec<Range> {
    let mut out: Vec<Range> = Vec::new();
    let mut push = |first: u32, outcome: Node| {
        if out.last().is_none_or(|last| last.outcome != outcome) {
            out.push(Range { first, outcome });
        }
    };
    let mut next = 0;
    for &(number, outcome) in outcomes {
        if number > next {
            push(next, default);
        }
        push(number, outcome);
        next = number + 1;
    }
    push(next, default);
    out
}

/// The rules of one call, last first, each falling through to the next.
fn rules(graph: &mut Graph, rules: &[Rule], default: Node) -> Node {
    let mut next = default;
    for rule in rules.iter().rev() {
        let mut target = graph.answer(rule.action);
        for condition in rule.conditions.iter().rev() {
            target = lower(graph, condition, target, next);
        }
        next = target;
    }
    next
}

/// One condition as tests on the 32-bit halves of its register.
fn lower(graph: &mut Graph, condition: &ArgCondition, yes: Node, no: Node) -> Node {
    let reg = Register { low: ARGS + 8 * condition.index(), width: condition.width() };
    match condition.op() {
        Op::Eq(v) => reg.masked_eq(graph, reg.width.mask(), *v, yes, no),
        Op::Ne(v) => reg.masked_eq(graph, reg.width.mask(), *v, no, yes),
        Op::Ge(v) => reg.compare(graph, Jump::Ge, *v, yes, no),
        Op::Lt(v) => reg.compare(graph, Jump::Ge, *v, no, yes),
        Op::Gt(v) => reg.compare(graph, Jump::Gt, *v, yes, no),
        Op::Le(v) => reg.compare(graph, Jump::Gt, *v, no, yes),
        Op::MaskedEq { mask, value } => reg.masked_eq(graph, *mask, *value, yes, no),
        Op::MaskedAny(mask) => reg.any(graph, *mask, yes, no),
        Op::MaskedNone(mask) => reg.any(graph, *mask, no, yes),
        Op::MaskedIn { mask, values } => reg.one_of(graph, *mask, values, yes, no),
        Op::MaskedNotIn { mask, values } => reg.one_of(graph, *mask, values, no, yes),
        Op::InSet(values) => reg.one_of(graph, reg.width.mask(), values, yes, no),
        Op::NotInSet(values) => reg.one_of(graph, reg.width.mask(), values, no, yes),
    }
}

/// An argument register: where its low half lies and how much of it the kernel reads.
#[derive(Clone, Copy)]
struct Register {
    low: u8,
    width: Width,
}

impl Register {
    const fn high(self) -> u8 {
        self.low + 4
    }

    /// `reg & mask == value`. A mask never reaches beyond the width, so the high half is touched
    /// only where it counts.
    fn masked_eq(self, graph: &mut Graph, mask: u64, value: u64, yes: Node, no: Node) -> Node {
        let low = half_eq(graph, self.low, mask as u32, value as u32, yes, no);
        half_eq(graph, self.high(), (mask >> 32) as u32, (value >> 32) as u32, low, no)
    }

    fn one_of(self, graph: &mut Graph, mask: u64, values: &[u64], yes: Node, no: Node) -> Node {
        let mut values = values.to_vec();
        values.sort_unstable();
        values.dedup();
        let mut next = no;
        for &value in values.iter().rev() {
            next = self.masked_eq(graph, mask, value, yes, next);
        }
        next
    }

    fn any(self, graph: &mut Graph, mask: u64, yes: Node, no: Node) -> Node {
        let (low, high) = (mask as u32, (mask >> 32) as u32);
        let next = if high == 0 {
            no
        } else {
            graph.branch(Test::new(self.high(), Jump::Set, high), yes, no)
        };
        if low == 0 {
            return next;
        }
        graph.branch(Test::new(self.low, Jump::Set, low), yes, next)
    }

    /// `reg > value` or `reg >= value`, unsigned.
    fn compare(self, graph: &mut Graph, jump: Jump, value: u64, yes: Node, no: Node) -> Node {
        let mask = match self.width {
            Width::W16 => 0xffff,
            Width::W32 | Width::W64 => u32::MAX,
        };
        let low = graph.branch(Test { word: self.low, mask, jump, k: value as u32 }, yes, no);
        if self.width != Width::W64 {
            return low;
        }
        // The low half decides only where the high halves are equal.
        let high = (value >> 32) as u32;
        let equal = graph.branch(Test::new(self.high(), Jump::Eq, high), low, no);
        graph.branch(Test::new(self.high(), Jump::Gt, high), yes, equal)
    }
}

fn half_eq(graph: &mut Graph, word: u8, mask: u32, value: u32, yes: Node, no: Node) -> Node {
    match mask {
        0 => yes,
        // One bit can be tested without changing the accumulator.
        mask if mask.is_power_of_two() && value == mask => {
            graph.branch(Test::new(word, Jump::Set, mask), yes, no)
        }
        mask if value == 0 => graph.branch(Test::new(word, Jump::Set, mask), no, yes),
        mask => graph.branch(Test { word, mask, jump: Jump::Eq, k: value }, yes, no),
    }
}

#[cfg(test)]
mod tests;
