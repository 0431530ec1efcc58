//! A compiled filter: classic BPF instructions and their byte forms. Loading it is not done here.

use crate::arch::Arch;
use crate::error::Error;
use crate::validate::validate;

/// The most instructions the kernel takes in one filter (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Size of `struct sock_filter` in bytes.
pub const INSTRUCTION_BYTES: usize = 8;

/// The classic BPF instruction codes a compiled policy consists of (`linux/bpf_common.h`).
pub mod code {
    /// Load a 32-bit word of `struct seccomp_data` at offset `k` (`BPF_LD|BPF_W|BPF_ABS`).
    pub const LD_W_ABS: u16 = 0x20;
    /// `A &= k` (`BPF_ALU|BPF_AND|BPF_K`).
    pub const AND_K: u16 = 0x54;
    /// Jump forward by `k` instructions (`BPF_JMP|BPF_JA`).
    pub const JA: u16 = 0x05;
    /// `A == k` (`BPF_JMP|BPF_JEQ|BPF_K`).
    pub const JEQ_K: u16 = 0x15;
    /// `A > k`, unsigned (`BPF_JMP|BPF_JGT|BPF_K`).
    pub const JGT_K: u16 = 0x25;
    /// `A >= k`, unsigned (`BPF_JMP|BPF_JGE|BPF_K`).
    pub const JGE_K: u16 = 0x35;
    /// `A & k != 0` (`BPF_JMP|BPF_JSET|BPF_K`).
    pub const JSET_K: u16 = 0x45;
    /// Answer `k` (`BPF_RET|BPF_K`).
    pub const RET_K: u16 = 0x06;
}

/// One classic BPF instruction (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when a conditional jump's test holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

impl Instruction {
    /// An instruction without jump offsets.
    #[must_use]
    pub const fn plain(code: u16, k: u32) -> Instruction {
        Instruction { code, jt: 0, jf: 0, k }
    }
}

/// A filter the kernel's checker would accept. It can only be made by compiling a policy or by
/// passing [`validate`](crate::validate()).
///
/// To load one, copy [`Program::to_bytes`] to memory aligned for `struct sock_filter`, point a
/// `struct sock_fprog` with `len` = [`Program::len`] at it and call
/// `seccomp(SECCOMP_SET_MODE_FILTER, …)` with `no_new_privs` set; or hand the bytes to a program
/// that does, such as `bwrap --seccomp FD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    name: String,
    arch: Arch,
    instructions: Vec<Instruction>,
}

impl Program {
    /// Wraps instructions after checking them as the kernel would.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the first instruction the kernel would refuse, [`Error::TooLong`]
    /// above 4096 instructions.
    pub fn new(name: &str, arch: Arch, instructions: Vec<Instruction>) -> Result<Program, Error> {
        let len = instructions.len();
        if len > MAX_INSTRUCTIONS {
            return Err(Error::TooLong { policy: name.to_owned(), arch, len });
        }
        validate(&instructions)?;
        Ok(Program { name: name.to_owned(), arch, instructions })
    }

    /// The policy it was compiled from, with its version: `floor/1+python/1`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The architecture it was compiled for; calls through any other are killed.
    #[must_use]
    pub const fn arch(&self) -> Arch {
        self.arch
    }

    /// The instructions in execution order.
    #[must_use]
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// Number of instructions, 1 to 4096. Loading and JIT compiling cost grows with it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.instructions.len()
    }

    /// Always false: a valid program has at least one instruction.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.instructions.is_empty()
    }

    /// An array of `struct sock_filter` in this machine's byte order, ready for the kernel.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len() * INSTRUCTION_BYTES);
        for instruction in &self.instructions {
            out.extend_from_slice(&instruction.code.to_ne_bytes());
            out.extend_from_slice(&[instruction.jt, instruction.jf]);
            out.extend_from_slice(&instruction.k.to_ne_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_kernels_struct() {
        let load = Instruction::plain(code::LD_W_ABS, 4);
        let jump = Instruction { code: code::JEQ_K, jt: 0, jf: 0, k: 0xC000_003E };
        let answer = Instruction::plain(code::RET_K, 0x7fff_0000);
        let program = Program::new("t/1", Arch::X86_64, vec![load, jump, answer]).unwrap();
        let bytes = program.to_bytes();
        if cfg!(target_endian = "little") {
            assert_eq!(bytes[..8], [0x20, 0, 0, 0, 4, 0, 0, 0]);
            assert_eq!(bytes[8..16], [0x15, 0, 0, 0, 0x3e, 0, 0, 0xc0]);
        }
        assert_eq!(program.len() * INSTRUCTION_BYTES, bytes.len());
    }

    #[test]
    fn programs_are_bounded() {
        let mut long = vec![Instruction::plain(code::LD_W_ABS, 0); MAX_INSTRUCTIONS];
        long.push(Instruction::plain(code::RET_K, 0));
        let error = Program::new("t/1", Arch::X86_64, long).unwrap_err();
        assert_eq!(error.code(), "PAL-SECCOMP-TOO-LONG");
        assert!(Program::new("t/1", Arch::X86_64, vec![]).is_err());
    }
}
