//! A filter as text for people: labels instead of offsets, names instead of numbers.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::action::Action;
use crate::arch::Arch;
use crate::program::{Instruction, Program, code};
use crate::validate::{foreign, is_branch};

/// The program as one line per instruction. Call numbers, architectures and answers are named;
/// every place that something jumps to has a label `L` and its index.
#[must_use]
pub fn disassemble(program: &Program) -> String {
    let instructions = program.instructions();
    let targets: BTreeSet<usize> = instructions
        .iter()
        .enumerate()
        .flat_map(|(at, instruction)| jump_targets(at, instruction))
        .collect();
    let held = accumulator(instructions);

    let mut out =
        format!("; {} for {}, {} instructions\n", program.name(), program.arch(), program.len());
    for (at, instruction) in instructions.iter().enumerate() {
        let label = if targets.contains(&at) { format!("L{at}:") } else { String::new() };
        let known = held.get(at).copied().unwrap_or(Held::Unknown);
        let text = line(at, instruction, known, program.arch());
        let _ = writeln!(out, "{label:<7}{text}");
    }
    out
}

fn jump_targets(at: usize, instruction: &Instruction) -> Vec<usize> {
    match instruction.code {
        code::JA => vec![at + 1 + instruction.k as usize],
        opcode if is_branch(opcode) => {
            // Falling through needs no label.
            [instruction.jt, instruction.jf]
                .into_iter()
                .filter(|&skip| skip != 0)
                .map(|skip| at + 1 + usize::from(skip))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// What is known about the accumulator before an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// Nothing jumps or falls here that was seen so far.
    Unreached,
    Word(u32),
    Unknown,
}

impl Held {
    fn meet(self, other: Held) -> Held {
        match (self, other) {
            (Held::Unreached, known) | (known, Held::Unreached) => known,
            (a, b) if a == b => a,
            _ => Held::Unknown,
        }
    }
}

/// Jumps go forward only, so one pass is enough.
fn accumulator(instructions: &[Instruction]) -> Vec<Held> {
    let mut held = vec![Held::Unreached; instructions.len()];
    for (at, instruction) in instructions.iter().enumerate() {
        let before =
            if at == 0 { Held::Unknown } else { held.get(at).copied().unwrap_or(Held::Unknown) };
        let mut reach = |target: usize, after: Held| {
            if let Some(slot) = held.get_mut(target) {
                *slot = slot.meet(after);
            }
        };
        match instruction.code {
            code::RET_K | foreign::RET_A => {}
            code::LD_W_ABS => reach(at + 1, Held::Word(instruction.k)),
            code::JA => reach(at + 1 + instruction.k as usize, before),
            opcode if is_branch(opcode) => {
                reach(at + 1 + usize::from(instruction.jt), before);
                reach(at + 1 + usize::from(instruction.jf), before);
            }
            foreign::ST
            | foreign::STX
            | foreign::TAX
            | foreign::LDX_IMM
            | foreign::LDX_LEN
            | foreign::LDX_MEM => reach(at + 1, before),
            _ => reach(at + 1, Held::Unknown),
        }
    }
    held
}

fn line(at: usize, instruction: &Instruction, held: Held, arch: Arch) -> String {
    let Instruction { code: opcode, jt, jf, k } = *instruction;
    if is_branch(opcode) {
        let target = |skip: u8| match skip {
            0 => "next".to_owned(),
            skip => format!("L{}", at + 1 + usize::from(skip)),
        };
        let operand =
            if opcode & foreign::X != 0 { "x".to_owned() } else { operand(k, held, arch) };
        let test = match opcode & !foreign::X {
            code::JEQ_K => format!("if a == {operand}"),
            code::JGT_K => format!("if a > {operand}"),
            code::JGE_K => format!("if a >= {operand}"),
            _ => format!("if a & {operand}"),
        };
        return format!("{test} goto {} else {}", target(jt), target(jf));
    }
    match opcode {
        code::LD_W_ABS => format!("a = {}", word(k)),
        code::AND_K => format!("a &= {k:#x}"),
        code::JA => format!("goto L{}", at + 1 + k as usize),
        code::RET_K => format!("return {}", answer(k)),
        foreign::RET_A => "return a".to_owned(),
        _ => format!("code {opcode:#04x} k={k:#x}"),
    }
}

/// A constant as the word it is compared with wants it.
fn operand(k: u32, held: Held, arch: Arch) -> String {
    match held {
        Held::Word(0) => match arch.syscall_name(k) {
            Some(name) => format!("{k} ({name})"),
            None if arch.killed_from() == Some(k) => format!("{k:#x} (x32)"),
            None => k.to_string(),
        },
        Held::Word(4) => match Arch::from_audit_arch(k) {
            Some(known) => format!("{k:#010x} ({known})"),
            None => format!("{k:#010x}"),
        },
        _ => format!("{k:#x}"),
    }
}

fn word(offset: u32) -> String {
    match offset {
        0 => "nr".to_owned(),
        4 => "arch".to_owned(),
        8 => "ip.low".to_owned(),
        12 => "ip.high".to_owned(),
        _ => {
            let half = if offset % 8 == 4 { "high" } else { "low" };
            format!("arg{}.{half}", offset.saturating_sub(16) / 8)
        }
    }
}

fn answer(k: u32) -> String {
    Action::from_return(k).map_or_else(|| format!("{k:#010x}"), |action| action.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::compile;
    use crate::condition::Op;
    use crate::policy::Policy;

    #[test]
    fn reads_like_a_program() {
        let policy = Policy::builder("sample", 2, Action::Allow)
            .on(Action::KillProcess, &["bpf"])
            .on_when(Action::EPERM, &["unshare"], &[("flags", Op::MaskedAny(0x1000_0000))])
            .on_when(
                Action::EACCES,
                &["mknod"],
                &[("mode", Op::MaskedEq { mask: 0o170_000, value: 0o60_000 })],
            )
            .build()
            .unwrap();
        insta::assert_snapshot!(disassemble(&compile(&policy, Arch::X86_64).unwrap()), @r"
        ; sample/2 for x86_64, 16 instructions
               a = arch
               if a == 0xc000003e (x86_64) goto next else L15
               a = nr
               if a >= 0x40000000 (x32) goto L15 else next
               if a == 133 (mknod) goto L10 else next
               if a == 272 (unshare) goto L7 else next
               if a == 321 (bpf) goto L15 else L13
        L7:    a = arg0.low
               if a & 0x10000000 goto next else L13
               return EPERM
        L10:   a = arg1.low
               a &= 0xf000
               if a == 0x6000 goto L14 else next
        L13:   return allow
        L14:   return EACCES
        L15:   return kill
        ");
    }

    #[test]
    fn foreign_programs_can_be_shown() {
        let instructions = vec![
            Instruction::plain(foreign::LD_LEN, 0),
            Instruction { code: code::JEQ_K | foreign::X, jt: 0, jf: 1, k: 0 },
            Instruction::plain(code::JA, 0),
            Instruction::plain(code::RET_K, 0x7ff0_0001),
        ];
        let program = Program::new("other", Arch::Aarch64, instructions).unwrap();
        insta::assert_snapshot!(disassemble(&program), @r"
        ; other for aarch64, 4 instructions
               code 0x80 k=0x0
               if a == x goto next else L3
               goto L3
        L3:    return 0x7ff00001
        ");
    }
}
