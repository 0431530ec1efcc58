//! Conditions made of random numbers, and the numbers at which a condition changes its answer. Shared by the
//! tests of compiled programs, those of loaded ones (`palisade-process`) and the fuzz target `bpf`.
#![allow(dead_code, reason = "each of them uses a part")]

use palisade_seccomp::Op;

/// How many kinds of condition there are.
pub(crate) const KINDS: u8 = 13;

/// The condition of this kind, with numbers that fit an argument of this width and can be written.
pub(crate) fn condition(kind: u8, first: u64, mask: u64, values: &[u64], width: u64) -> Op {
    let first = first & width;
    let mask = (mask & width).max(1);
    let values: Vec<u64> = values.iter().map(|value| value & width).collect();
    let masked = values.iter().map(|value| value & mask).collect();
    match kind {
        0 => Op::Eq(first),
        1 => Op::Ne(first),
        2 => Op::Lt(first.max(1)),
        3 => Op::Le(first.min(width - 1)),
        4 => Op::Gt(first.min(width - 1)),
        5 => Op::Ge(first.max(1)),
        6 => Op::MaskedEq { mask, value: first & mask },
        7 => Op::MaskedAny(mask),
        8 => Op::MaskedNone(mask),
        9 => Op::MaskedIn { mask, values: masked },
        10 => Op::MaskedNotIn { mask, values: masked },
        11 => Op::InSet(values),
        _ => Op::NotInSet(values),
    }
}

/// The constants of a condition, with and without the bits that its mask leaves out. Never empty.
pub(crate) fn constants(op: &Op) -> Vec<u64> {
    match op {
        Op::Eq(v) | Op::Ne(v) | Op::Lt(v) | Op::Le(v) | Op::Gt(v) | Op::Ge(v) => vec![*v],
        Op::MaskedAny(mask) | Op::MaskedNone(mask) => vec![*mask, !*mask],
        Op::MaskedEq { mask, value } => vec![*value, *mask, *value | !*mask],
        Op::MaskedIn { mask, values } | Op::MaskedNotIn { mask, values } => {
            values.iter().flat_map(|value| [*value, *value | !*mask]).chain([*mask]).collect()
        }
        Op::InSet(values) | Op::NotInSet(values) => values.clone(),
    }
}

/// The constants and their neighbours, and the ends of all numbers.
pub(crate) fn near(op: &Op) -> Vec<u64> {
    let around = |c: u64| [c, c.wrapping_sub(1), c.wrapping_add(1)];
    constants(op).into_iter().flat_map(around).chain([0, u64::MAX]).collect()
}
