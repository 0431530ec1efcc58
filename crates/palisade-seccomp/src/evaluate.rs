//! Runs a filter in user space as the kernel would, so that an answer can be proven without
//! loading anything. Only programs that passed the checker can be run.

use crate::action::Action;
use crate::error::Error;
use crate::policy::SeccompData;
use crate::program::{Instruction, Program, code};
use crate::validate::{MEMORY_WORDS, SECCOMP_DATA_BYTES, foreign, is_branch};

/// The raw 32-bit value the filter returns for this call.
///
/// # Errors
/// [`Error::Invalid`] if execution leaves the program, which a checked program cannot do.
pub fn evaluate_raw(program: &Program, data: &SeccompData) -> Result<u32, Error> {
    let mut machine = Machine { a: 0, x: 0, memory: [0; MEMORY_WORDS as usize], data };
    let mut at = 0_usize;
    // Jumps go forward only, so there are at most as many steps as instructions.
    loop {
        let instruction = program
            .instructions()
            .get(at)
            .ok_or(Error::Invalid { at, why: "execution left the program" })?;
        match machine.step(instruction) {
            Step::Return(value) => return Ok(value),
            Step::Skip(count) => at += 1 + count,
        }
    }
}

/// The filter's answer to this call.
///
/// # Errors
/// [`Error::ForeignReturn`] if the value is no [`Action`], which a compiled policy never returns.
pub fn evaluate(program: &Program, data: &SeccompData) -> Result<Action, Error> {
    let value = evaluate_raw(program, data)?;
    Action::from_return(value).ok_or(Error::ForeignReturn(value))
}

enum Step {
    Return(u32),
    Skip(usize),
}

struct Machine<'a> {
    a: u32,
    x: u32,
    memory: [u32; MEMORY_WORDS as usize],
    data: &'a SeccompData,
}

impl Machine<'_> {
    fn step(&mut self, instruction: &Instruction) -> Step {
        let Instruction { code: opcode, jt, jf, k } = *instruction;
        if is_branch(opcode) {
            let operand = if opcode & foreign::X != 0 { self.x } else { k };
            let taken = match opcode & !foreign::X {
                code::JEQ_K => self.a == operand,
                code::JGT_K => self.a > operand,
                code::JGE_K => self.a >= operand,
                _ => self.a & operand != 0,
            };
            return Step::Skip(usize::from(if taken { jt } else { jf }));
        }
        match opcode {
            code::RET_K => return Step::Return(k),
            foreign::RET_A => return Step::Return(self.a),
            code::JA => return Step::Skip(k as usize),
            code::LD_W_ABS => self.a = self.word(k),
            foreign::LD_LEN => self.a = SECCOMP_DATA_BYTES,
            foreign::LDX_LEN => self.x = SECCOMP_DATA_BYTES,
            foreign::LD_IMM => self.a = k,
            foreign::LDX_IMM => self.x = k,
            foreign::LD_MEM => self.a = self.memory.get(k as usize).copied().unwrap_or(0),
            foreign::LDX_MEM => self.x = self.memory.get(k as usize).copied().unwrap_or(0),
            foreign::ST => self.store(k, self.a),
            foreign::STX => self.store(k, self.x),
            foreign::TAX => self.x = self.a,
            foreign::TXA => self.a = self.x,
            foreign::NEG => self.a = self.a.wrapping_neg(),
            _ => {
                let operand = if opcode & foreign::X != 0 { self.x } else { k };
                match self.arithmetic(opcode & !foreign::X, operand) {
                    Some(result) => self.a = result,
                    // Classic BPF ends with 0 when X is zero in a division.
                    None => return Step::Return(0),
                }
            }
        }
        Step::Skip(0)
    }

    fn arithmetic(&self, operation: u16, operand: u32) -> Option<u32> {
        Some(match operation {
            foreign::ADD => self.a.wrapping_add(operand),
            foreign::SUB => self.a.wrapping_sub(operand),
            foreign::MUL => self.a.wrapping_mul(operand),
            foreign::DIV => self.a.checked_div(operand)?,
            code::AND_K => self.a & operand,
            foreign::OR => self.a | operand,
            foreign::XOR => self.a ^ operand,
            foreign::LSH => self.a.wrapping_shl(operand),
            // The checker leaves only RSH.
            _ => self.a.wrapping_shr(operand),
        })
    }

    fn store(&mut self, k: u32, value: u32) {
        if let Some(word) = self.memory.get_mut(k as usize) {
            *word = value;
        }
    }

    /// A word of `struct seccomp_data` as laid out on the little-endian machines we compile for.
    fn word(&self, offset: u32) -> u32 {
        let half = |value: u64, high: bool| (if high { value >> 32 } else { value }) as u32;
        match offset {
            0 => self.data.nr,
            4 => self.data.arch,
            8 => half(self.data.instruction_pointer, false),
            12 => half(self.data.instruction_pointer, true),
            _ => {
                let index = (offset.saturating_sub(16) / 8) as usize;
                let value = self.data.args.get(index).copied().unwrap_or(0);
                half(value, offset % 8 == 4)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Arch;

    fn run(instructions: &[(u16, u32)], data: &SeccompData) -> u32 {
        let instructions =
            instructions.iter().map(|&(code, k)| Instruction::plain(code, k)).collect();
        evaluate_raw(&Program::new("t/1", Arch::X86_64, instructions).unwrap(), data).unwrap()
    }

    #[test]
    fn loads_see_the_kernels_layout() {
        let data = SeccompData {
            nr: 1,
            arch: 2,
            instruction_pointer: 0x0000_0004_0000_0003,
            args: [0x0000_0006_0000_0005, 0, 0, 0, 0, 0x0000_0008_0000_0007],
        };
        for (offset, expected) in
            [(0, 1), (4, 2), (8, 3), (12, 4), (16, 5), (20, 6), (56, 7), (60, 8)]
        {
            let got = run(&[(code::LD_W_ABS, offset), (foreign::RET_A, 0)], &data);
            assert_eq!(got, expected, "offset {offset}");
        }
    }

    #[test]
    fn arithmetic_is_the_kernels() {
        let none = SeccompData::default();
        let alu = |operation, a, k| {
            run(&[(foreign::LD_IMM, a), (operation, k), (foreign::RET_A, 0)], &none)
        };
        assert_eq!(alu(foreign::ADD, u32::MAX, 2), 1);
        assert_eq!(alu(foreign::SUB, 1, 2), u32::MAX);
        assert_eq!(alu(foreign::MUL, 3, 5), 15);
        assert_eq!(alu(foreign::DIV, 17, 5), 3);
        assert_eq!(alu(code::AND_K, 6, 3), 2);
        assert_eq!(alu(foreign::OR, 6, 3), 7);
        assert_eq!(alu(foreign::XOR, 6, 3), 5);
        assert_eq!(alu(foreign::LSH, 1, 4), 16);
        assert_eq!(alu(foreign::RSH, 16, 4), 1);
        assert_eq!(alu(foreign::NEG, 1, 0), u32::MAX);
        assert_eq!(run(&[(foreign::LD_LEN, 0), (foreign::RET_A, 0)], &none), 64);
        let by_x = [
            (foreign::LD_IMM, 7),
            (foreign::LDX_IMM, 0),
            (foreign::DIV | foreign::X, 0),
            (code::RET_K, 9),
        ];
        assert_eq!(run(&by_x, &none), 0, "division by a zero X ends the program with 0");
        let memory =
            [(foreign::LDX_IMM, 5), (foreign::STX, 2), (foreign::LD_MEM, 2), (foreign::RET_A, 0)];
        assert_eq!(run(&memory, &none), 5);
    }

    #[test]
    fn foreign_answers_are_errors() {
        let kill_thread = vec![Instruction::plain(code::RET_K, 0)];
        let program = Program::new("t/1", Arch::X86_64, kill_thread).unwrap();
        let error = evaluate(&program, &SeccompData::default()).unwrap_err();
        assert_eq!(error, Error::ForeignReturn(0));
    }
}
