//! A test on one argument register, with the width the kernel's C type has.

use std::fmt;

use crate::error::Error;
use crate::syscall::{Argument, Syscall, Width};

/// A comparison. All are unsigned: write -1 of an `int` argument as `0xffff_ffff`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Op {
    /// The argument equals the value.
    Eq(u64),
    /// The argument differs from the value.
    Ne(u64),
    /// The argument is below the value.
    Lt(u64),
    /// The argument is at most the value.
    Le(u64),
    /// The argument is above the value.
    Gt(u64),
    /// The argument is at least the value.
    Ge(u64),
    /// `arg & mask == value`.
    MaskedEq {
        /// Bits to look at.
        mask: u64,
        /// What they must be; no bit outside `mask`.
        value: u64,
    },
    /// At least one bit of the mask is set: `arg & mask != 0`.
    MaskedAny(u64),
    /// No bit of the mask is set: `arg & mask == 0`.
    MaskedNone(u64),
    /// `arg & mask` is one of the values.
    MaskedIn {
        /// Bits to look at.
        mask: u64,
        /// Allowed results; no bit outside `mask`.
        values: Vec<u64>,
    },
    /// `arg & mask` is none of the values.
    MaskedNotIn {
        /// Bits to look at.
        mask: u64,
        /// Refused results; no bit outside `mask`.
        values: Vec<u64>,
    },
    /// The argument is one of the values.
    InSet(Vec<u64>),
    /// The argument is none of the values.
    NotInSet(Vec<u64>),
}

impl Op {
    /// [`Op::InSet`] from a slice.
    #[must_use]
    pub fn is_in(values: &[u64]) -> Op {
        Op::InSet(values.to_vec())
    }

    /// [`Op::NotInSet`] from a slice.
    #[must_use]
    pub fn not_in(values: &[u64]) -> Op {
        Op::NotInSet(values.to_vec())
    }

    /// Every constant in the operation, masks included.
    fn constants(&self) -> Vec<u64> {
        match self {
            Op::Eq(v) | Op::Ne(v) | Op::Lt(v) | Op::Le(v) | Op::Gt(v) | Op::Ge(v) => vec![*v],
            Op::MaskedAny(mask) | Op::MaskedNone(mask) => vec![*mask],
            Op::MaskedEq { mask, value } => vec![*mask, *value],
            Op::MaskedIn { mask, values } | Op::MaskedNotIn { mask, values } => {
                std::iter::once(*mask).chain(values.iter().copied()).collect()
            }
            Op::InSet(values) | Op::NotInSet(values) => values.clone(),
        }
    }

    /// Why the operation is the same for every argument of `width`, if it is.
    fn constant_because(&self, width: Width) -> Option<&'static str> {
        let max = width.mask();
        match self {
            Op::Lt(0) | Op::Ge(0) => Some("no unsigned value is below 0"),
            Op::Gt(v) | Op::Le(v) if *v == max => Some("no value of this width is larger"),
            Op::MaskedAny(0)
            | Op::MaskedNone(0)
            | Op::MaskedEq { mask: 0, .. }
            | Op::MaskedIn { mask: 0, .. }
            | Op::MaskedNotIn { mask: 0, .. } => Some("the mask is empty"),
            Op::MaskedEq { mask, value } if value & !mask != 0 => {
                Some("value has bits outside mask")
            }
            Op::MaskedIn { mask, values } | Op::MaskedNotIn { mask, values }
                if values.iter().any(|value| value & !mask != 0) =>
            {
                Some("a value has bits outside mask")
            }
            Op::InSet(values)
            | Op::NotInSet(values)
            | Op::MaskedIn { values, .. }
            | Op::MaskedNotIn { values, .. }
                if values.is_empty() =>
            {
                Some("the set is empty")
            }
            _ => None,
        }
    }
}

/// An [`Op`] bound to one argument of one call. Made only through [`ArgCondition::new`], which
/// takes position and width from the table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ArgCondition {
    argument: Argument,
    op: Op,
}

impl ArgCondition {
    /// Binds `op` to the argument called `argument` of `syscall`.
    ///
    /// # Errors
    /// [`Error::UnknownArgument`] if the width is not known, [`Error::ValueTooWide`] if a constant
    /// has bits the C type lacks, [`Error::ConstantCondition`] if the test cannot vary.
    pub fn new(syscall: Syscall, argument: &str, op: Op) -> Result<ArgCondition, Error> {
        let argument = syscall.argument(argument)?;
        let width = argument.width;
        if let Some(value) = op.constants().into_iter().find(|value| value & !width.mask() != 0) {
            return Err(Error::ValueTooWide {
                syscall: syscall.name(),
                argument: argument.name,
                value,
                bits: width.bits(),
            });
        }
        if let Some(why) = op.constant_because(width) {
            return Err(Error::ConstantCondition {
                syscall: syscall.name(),
                argument: argument.name,
                why,
            });
        }
        Ok(ArgCondition { argument, op })
    }

    /// The argument's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.argument.name
    }

    /// Register position, 0 to 5.
    #[must_use]
    pub const fn index(&self) -> u8 {
        self.argument.index
    }

    /// How many bits are compared.
    #[must_use]
    pub const fn width(&self) -> Width {
        self.argument.width
    }

    /// The comparison.
    #[must_use]
    pub const fn op(&self) -> &Op {
        &self.op
    }

    /// Whether the condition holds for these argument registers.
    #[must_use]
    pub fn holds(&self, args: &[u64; 6]) -> bool {
        let raw = args.get(usize::from(self.argument.index)).copied().unwrap_or(0);
        let arg = raw & self.argument.width.mask();
        match &self.op {
            Op::Eq(v) => arg == *v,
            Op::Ne(v) => arg != *v,
            Op::Lt(v) => arg < *v,
            Op::Le(v) => arg <= *v,
            Op::Gt(v) => arg > *v,
            Op::Ge(v) => arg >= *v,
            Op::MaskedEq { mask, value } => arg & mask == *value,
            Op::MaskedAny(mask) => arg & mask != 0,
            Op::MaskedNone(mask) => arg & mask == 0,
            Op::MaskedIn { mask, values } => values.contains(&(arg & mask)),
            Op::MaskedNotIn { mask, values } => !values.contains(&(arg & mask)),
            Op::InSet(values) => values.contains(&arg),
            Op::NotInSet(values) => !values.contains(&arg),
        }
    }
}

impl fmt::Display for ArgCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.argument.name;
        let v = |value: &u64| Constant { value: *value, octal: self.argument.width == Width::W16 };
        let set =
            |values: &[u64]| values.iter().map(|x| v(x).to_string()).collect::<Vec<_>>().join(", ");
        match &self.op {
            Op::Eq(x) => write!(f, "{name} == {}", v(x)),
            Op::Ne(x) => write!(f, "{name} != {}", v(x)),
            Op::Lt(x) => write!(f, "{name} < {}", v(x)),
            Op::Le(x) => write!(f, "{name} <= {}", v(x)),
            Op::Gt(x) => write!(f, "{name} > {}", v(x)),
            Op::Ge(x) => write!(f, "{name} >= {}", v(x)),
            Op::MaskedEq { mask, value } => write!(f, "{name} & {} == {}", v(mask), v(value)),
            Op::MaskedAny(mask) => write!(f, "{name} & {} != 0", v(mask)),
            Op::MaskedNone(mask) => write!(f, "{name} & {} == 0", v(mask)),
            Op::MaskedIn { mask, values } => {
                write!(f, "{name} & {} in {{{}}}", v(mask), set(values))
            }
            Op::MaskedNotIn { mask, values } => {
                write!(f, "{name} & {} not in {{{}}}", v(mask), set(values))
            }
            Op::InSet(values) => write!(f, "{name} in {{{}}}", set(values)),
            Op::NotInSet(values) => write!(f, "{name} not in {{{}}}", set(values)),
        }
    }
}

/// A number as a reader expects it: file modes in octal, small ones in decimal, the rest in hex.
struct Constant {
    value: u64,
    octal: bool,
}

impl fmt::Display for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value {
            0 => f.write_str("0"),
            value if self.octal => write!(f, "0{value:o}"),
            value if value < 1000 => write!(f, "{value}"),
            value => write!(f, "{value:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(call: &str, argument: &str, op: Op) -> Result<ArgCondition, Error> {
        ArgCondition::new(Syscall::named(call)?, argument, op)
    }

    #[test]
    fn bits_beyond_the_c_type_are_ignored() {
        let domain = condition("socket", "domain", Op::Eq(1)).unwrap();
        assert!(domain.holds(&[1 | 1 << 32, 0, 0, 0, 0, 0]), "int: the high half does not count");
        let flags = condition("unshare", "flags", Op::Eq(1)).unwrap();
        assert!(!flags.holds(&[1 | 1 << 32, 0, 0, 0, 0, 0]), "unsigned long: it does");
        let mode = condition("chmod", "mode", Op::Eq(0o644)).unwrap();
        assert!(mode.holds(&[0, 0o644 | 1 << 16, 0, 0, 0, 0]), "umode_t has 16 bits");
    }

    #[test]
    fn constants_must_fit_and_tests_must_vary() {
        let code = |result: Result<ArgCondition, Error>| result.unwrap_err().code();
        assert_eq!(
            code(condition("socket", "domain", Op::Eq(1 << 32))),
            "PAL-SECCOMP-VALUE-TOO-WIDE"
        );
        assert_eq!(
            code(condition("chmod", "mode", Op::MaskedAny(1 << 16))),
            "PAL-SECCOMP-VALUE-TOO-WIDE"
        );
        for op in [
            Op::Lt(0),
            Op::Ge(0),
            Op::Gt(0xffff_ffff),
            Op::Le(0xffff_ffff),
            Op::MaskedAny(0),
            Op::MaskedEq { mask: 1, value: 2 },
            Op::MaskedIn { mask: 1, values: vec![0, 2] },
            Op::InSet(vec![]),
        ] {
            assert_eq!(
                code(condition("socket", "domain", op.clone())),
                "PAL-SECCOMP-CONSTANT-CONDITION",
                "{op:?}"
            );
        }
    }

    #[test]
    fn conditions_read_like_c() {
        let shown = condition(
            "mknod",
            "mode",
            Op::MaskedNotIn { mask: 0o170_000, values: vec![0, 0o100_000] },
        );
        assert_eq!(shown.unwrap().to_string(), "mode & 0170000 not in {0, 0100000}");
        let shown = condition("ioctl", "cmd", Op::is_in(&[0x5412])).unwrap();
        assert_eq!(shown.to_string(), "cmd in {0x5412}");
    }
}
