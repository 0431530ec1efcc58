//! The kernel's two checks on a seccomp filter, in user space.
//! Source: `bpf_check_classic` and `check_load_and_stores` in net/core/filter.c,
//! `seccomp_check_filter` in kernel/seccomp.c.

use crate::error::Error;
use crate::program::{Instruction, MAX_INSTRUCTIONS, code};

/// Size of `struct seccomp_data` in bytes.
pub(crate) const SECCOMP_DATA_BYTES: u32 = 64;

/// Scratch words a program has (`BPF_MEMWORDS`).
pub(crate) const MEMORY_WORDS: u32 = 16;

/// The instruction codes seccomp allows beside those of [`code`]; the compiler makes none of them,
/// but a filter from elsewhere may be checked, run and shown too.
pub(crate) mod foreign {
    pub(crate) const LD_LEN: u16 = 0x80;
    pub(crate) const LDX_LEN: u16 = 0x81;
    pub(crate) const LD_IMM: u16 = 0x00;
    pub(crate) const LDX_IMM: u16 = 0x01;
    pub(crate) const LD_MEM: u16 = 0x60;
    pub(crate) const LDX_MEM: u16 = 0x61;
    pub(crate) const ST: u16 = 0x02;
    pub(crate) const STX: u16 = 0x03;
    pub(crate) const TAX: u16 = 0x07;
    pub(crate) const TXA: u16 = 0x87;
    pub(crate) const RET_A: u16 = 0x16;
    pub(crate) const NEG: u16 = 0x84;
    /// Source bit: the operand is X, not `k`.
    pub(crate) const X: u16 = 0x08;
    pub(crate) const ADD: u16 = 0x04;
    pub(crate) const SUB: u16 = 0x14;
    pub(crate) const MUL: u16 = 0x24;
    pub(crate) const DIV: u16 = 0x34;
    pub(crate) const OR: u16 = 0x44;
    pub(crate) const LSH: u16 = 0x64;
    pub(crate) const RSH: u16 = 0x74;
    pub(crate) const XOR: u16 = 0xa4;
}

/// Whether the code is a conditional jump, with a constant or with X.
pub(crate) const fn is_branch(opcode: u16) -> bool {
    matches!(opcode & !foreign::X, code::JEQ_K | code::JGT_K | code::JGE_K | code::JSET_K)
}

/// Checks a program as the kernel does before it accepts it as a seccomp filter.
///
/// # Errors
/// [`Error::Invalid`] naming the first offending instruction and the rule it breaks.
pub fn validate(program: &[Instruction]) -> Result<(), Error> {
    if program.is_empty() || program.len() > MAX_INSTRUCTIONS {
        return Err(invalid(program.len(), "a filter has 1 to 4096 instructions"));
    }
    for (at, instruction) in program.iter().enumerate() {
        check_one(at, instruction, program.len())?;
    }
    match program.last() {
        Some(last) if matches!(last.code, code::RET_K | foreign::RET_A) => {}
        _ => return Err(invalid(program.len() - 1, "the last instruction must return")),
    }
    check_memory(program)
}

const fn invalid(at: usize, why: &'static str) -> Error {
    Error::Invalid { at, why }
}

fn check_one(at: usize, instruction: &Instruction, len: usize) -> Result<(), Error> {
    let Instruction { code: opcode, jt, jf, k } = *instruction;
    // `at < len <= 4096`, so nothing here can overflow.
    let behind = len - at - 1;
    if is_branch(opcode) {
        let farthest = usize::from(jt.max(jf));
        return if farthest < behind { Ok(()) } else { Err(invalid(at, "jump past the end")) };
    }
    match opcode {
        code::LD_W_ABS if k & 3 != 0 => Err(invalid(at, "unaligned load")),
        code::LD_W_ABS if k >= SECCOMP_DATA_BYTES => Err(invalid(at, "load past seccomp_data")),
        code::JA if (k as usize) >= behind => Err(invalid(at, "jump past the end")),
        foreign::LD_MEM | foreign::LDX_MEM | foreign::ST | foreign::STX if k >= MEMORY_WORDS => {
            Err(invalid(at, "scratch memory has 16 words"))
        }
        foreign::DIV if k == 0 => Err(invalid(at, "division by a constant zero")),
        foreign::LSH | foreign::RSH if k >= 32 => Err(invalid(at, "shift by 32 or more")),
        _ if is_known(opcode) => Ok(()),
        _ => Err(invalid(at, "seccomp does not allow this operation")),
    }
}

fn is_known(opcode: u16) -> bool {
    use foreign::{
        ADD, DIV, LD_IMM, LD_LEN, LD_MEM, LDX_IMM, LDX_LEN, LDX_MEM, LSH, MUL, NEG, OR, RET_A, RSH,
        ST, STX, SUB, TAX, TXA, X, XOR,
    };
    const ALU: [u16; 9] = [ADD, SUB, MUL, DIV, code::AND_K, OR, XOR, LSH, RSH];
    matches!(
        opcode,
        code::LD_W_ABS
            | code::JA
            | code::RET_K
            | RET_A
            | LD_LEN
            | LDX_LEN
            | LD_IMM
            | LDX_IMM
            | LD_MEM
            | LDX_MEM
            | ST
            | STX
            | TAX
            | TXA
            | NEG
    ) || ALU.iter().any(|&operation| opcode == operation || opcode == operation | X)
}

/// Scratch words may be read only where every path has written them before.
fn check_memory(program: &[Instruction]) -> Result<(), Error> {
    // For each instruction, the words written on every path that reaches it. Jumps go forward
    // only, so one pass sees all predecessors first.
    let mut written = vec![u16::MAX; program.len()];
    let mut here: u16 = 0;
    for (at, instruction) in program.iter().enumerate() {
        here &= written.get(at).copied().unwrap_or(0);
        let k = instruction.k;
        let mut meet = |offset: usize| {
            if let Some(words) = written.get_mut(at + 1 + offset) {
                *words &= here;
            }
        };
        match instruction.code {
            opcode if is_branch(opcode) => {
                meet(usize::from(instruction.jt));
                meet(usize::from(instruction.jf));
                here = u16::MAX;
            }
            code::JA => {
                meet(k as usize);
                here = u16::MAX;
            }
            foreign::ST | foreign::STX => here |= 1 << k,
            foreign::LD_MEM | foreign::LDX_MEM if here & (1 << k) == 0 => {
                return Err(invalid(at, "scratch word may be read before it is written"));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(program: &[Instruction]) -> &'static str {
        match validate(program) {
            Err(Error::Invalid { why, .. }) => why,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    const RET: Instruction = Instruction::plain(code::RET_K, 0);

    #[test]
    fn refuses_what_the_kernel_refuses() {
        let one = |opcode, k| why(&[Instruction::plain(opcode, k), RET]);
        assert_eq!(why(&[]), "a filter has 1 to 4096 instructions");
        assert_eq!(why(&[RET; 4097]), "a filter has 1 to 4096 instructions");
        assert_eq!(one(code::LD_W_ABS, 2), "unaligned load");
        assert_eq!(one(code::LD_W_ABS, 64), "load past seccomp_data");
        assert_eq!(one(code::JA, 1), "jump past the end");
        assert_eq!(one(code::JA, u32::MAX), "jump past the end");
        assert_eq!(one(foreign::LD_MEM, 16), "scratch memory has 16 words");
        assert_eq!(one(foreign::LD_MEM, 0), "scratch word may be read before it is written");
        assert_eq!(one(foreign::DIV, 0), "division by a constant zero");
        assert_eq!(one(foreign::LSH, 32), "shift by 32 or more");
        assert_eq!(one(0x28, 0), "seccomp does not allow this operation", "half-word load");
        assert_eq!(one(0x94, 3), "seccomp does not allow this operation", "MOD");
        assert_eq!(one(0x0e, 0), "seccomp does not allow this operation", "RET X");
        let far = Instruction { code: code::JEQ_K, jt: 0, jf: 1, k: 0 };
        assert_eq!(why(&[far, RET]), "jump past the end");
        let load = Instruction::plain(code::LD_W_ABS, 0);
        assert_eq!(why(&[RET, load]), "the last instruction must return");
    }

    #[test]
    fn memory_must_be_written_on_every_path() {
        let branch = Instruction { code: code::JEQ_K, jt: 1, jf: 0, k: 0 };
        let store = Instruction::plain(foreign::ST, 3);
        let load = Instruction::plain(foreign::LD_MEM, 3);
        assert_eq!(
            why(&[branch, store, load, RET]),
            "scratch word may be read before it is written",
            "the taken branch skips the store"
        );
        assert_eq!(validate(&[store, branch, store, load, RET]), Ok(()));
    }
}
