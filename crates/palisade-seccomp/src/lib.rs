//! System call policy as data, compiled to classic BPF; with an evaluator and a disassembler.
//!
//! Nothing here talks to the kernel: a [`Policy`] is data, [`compile`] turns it into a [`Program`],
//! [`evaluate`] runs that program in user space, and whoever owns the process loads the bytes.
//! What the rules protect against and what they cannot see is said in [`profiles`].
//!
//! ```
//! use palisade_seccomp::{Action, Arch, Op, Policy, SeccompData, compile, evaluate};
//!
//! let policy = Policy::builder("example", 1, Action::ENOSYS)
//!     .on_when(Action::EPERM, &["socket"], &[("domain", Op::not_in(&[1]))])
//!     .on(Action::Allow, &["read", "write", "socket", "exit_group"])
//!     .build()?;
//! let program = compile(&policy, Arch::X86_64)?;
//!
//! // AF_INET with a stray high bit: the kernel reads an int, and so does the filter.
//! let call = SeccompData::call(Arch::X86_64, "socket", [2 | 1 << 32, 1, 0, 0, 0, 0]).unwrap();
//! assert_eq!(evaluate(&program, &call)?, Action::EPERM);
//! # Ok::<(), palisade_seccomp::Error>(())
//! ```
#![forbid(unsafe_code)]

mod action;
mod arch;
mod compile;
mod condition;
mod disassemble;
mod error;
mod evaluate;
mod listing;
mod merge;
mod policy;
pub mod profiles;
mod program;
mod syscall;
mod validate;

pub use action::{Action, MAX_ERRNO, errno};
pub use arch::{Arch, X32_SYSCALL_BIT};
pub use compile::compile;
pub use condition::{ArgCondition, Op};
pub use disassemble::disassemble;
pub use error::Error;
pub use evaluate::{evaluate, evaluate_raw};
pub use listing::{Case, Listing, Row, listing};
pub use merge::{merged, observed, told};
pub use policy::{Policy, PolicyBuilder, Rule, SeccompData};
pub use program::{INSTRUCTION_BYTES, Instruction, MAX_INSTRUCTIONS, Program, code};
pub use syscall::{Argument, Syscall, Width};
pub use validate::validate;
