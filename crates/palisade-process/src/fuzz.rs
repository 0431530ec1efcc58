//! What the fuzzer holds the launch plan to: that both sides read it alike, and that what it mounts is what
//! was granted. Built for the fuzzer and for this crate's own tests only.
//!
//! The bytes are not trusted to mean anything; they choose.

mod asked;
mod laid;
mod mounts;
mod records;

pub use mounts::mounts;
pub use records::plan;

/// Bytes as choices; zeros when they are used up.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u64 {
        (0..8).fold(0, |n, _| n << 8 | u64::from(self.byte()))
    }

    fn text(&mut self) -> String {
        let len = usize::from(self.byte() % 24).min(self.0.len());
        let (text, rest) = self.0.split_at(len);
        self.0 = rest;
        String::from_utf8_lossy(text).into_owned()
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.byte()) % all.len()]
    }
}

#[cfg(test)]
mod tests {
    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

        #[test]
        fn plans_are_read_as_they_were_written(input in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            super::plan(&input);
        }

        #[test]
        fn mounts_are_what_was_asked_for(input in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            super::mounts(&input);
        }
    }
}
