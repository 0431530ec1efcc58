//! `differences.toml`: where a row comes out in another way inside, and why.

use serde::Deserialize;

use crate::Result;

const TEXT: &str = include_str!("../differences.toml");
/// Stands for the outcome of an attempt that has none.
pub(crate) const NOT_MADE: &str = "not made";

/// Why a row comes out otherwise inside.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    /// Situations, by the beginning of their full name (`machine/situation`); all where empty.
    #[serde(default)]
    within: Vec<String>,
    number: u16,
    /// All of the number where empty.
    #[serde(default)]
    variant: String,
    /// What is accepted beside what the matrix says.
    #[serde(default)]
    outcomes: Vec<String>,
    /// Its positive control, which works where the matrix was made, cannot work here.
    #[serde(default)]
    no_control: bool,
    /// The reason, for people.
    #[allow(dead_code, reason = "read by people")]
    why: String,
}

/// All of them.
#[derive(Deserialize)]
pub(crate) struct Differences {
    differs: Vec<Difference>,
}

impl Difference {
    fn is_about(&self, situation: &str, (number, variant): (u16, &str)) -> bool {
        (self.within.is_empty() || self.within.iter().any(|w| situation.starts_with(w.as_str())))
            && self.number == number
            && (self.variant.is_empty() || self.variant == variant)
    }
}

impl Differences {
    pub(crate) fn read() -> Result<Self> {
        toml::from_str(TEXT).map_err(|e| format!("differences.toml: {e}"))
    }

    /// Whether an attempt may come to this in a situation, whatever the matrix says.
    pub(crate) fn accept(&self, situation: &str, key: (u16, &str), outcome: &str) -> bool {
        let mut about = self.differs.iter().filter(|d| d.is_about(situation, key));
        about.any(|d| d.outcomes.iter().any(|o| o == outcome))
    }

    /// Whether it is told why an attempt's control cannot work in a situation. Every way to make an attempt has the
    /// control of the attempt.
    pub(crate) fn excuse_control(&self, situation: &str, (number, variant): (u16, &str)) -> bool {
        let attempt = variant.split(['+', '@']).next().unwrap_or_default();
        let is_about = |d: &Difference, variant| d.is_about(situation, (number, variant));
        let mut without = self.differs.iter().filter(|d| d.no_control);
        without.any(|d| is_about(d, variant) || is_about(d, attempt))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_excuses_something_and_no_success() {
        for d in Differences::read().unwrap().differs {
            assert!(d.no_control || !d.outcomes.is_empty(), "{} {}", d.number, d.variant);
            assert!(!d.outcomes.iter().any(|o| o.starts_with("SUCCEEDED")), "{}", d.number);
            assert!(d.why.len() > 10, "{} {}", d.number, d.variant);
        }
    }

    #[test]
    fn an_entry_is_about_its_situations_and_attempts_only() {
        let text = "[[differs]]\nwithin = [\"a/\"]\nnumber = 1\nvariant = \"v\"\noutcomes = [\"o\"]\n\
            no_control = true\nwhy = \"w\"\n";
        let all: Differences = toml::from_str(text).unwrap();
        assert!(all.accept("a/x", (1, "v"), "o") && all.excuse_control("a/x", (1, "v")));
        for (situation, key, outcome) in [
            ("b/x", (1, "v"), "o"),
            ("a/x", (2, "v"), "o"),
            ("a/x", (1, "w"), "o"),
            ("a/x", (1, "v"), "p"),
        ] {
            assert!(!all.accept(situation, key, outcome), "{situation} {key:?} {outcome}");
        }
        assert!(!all.excuse_control("b/x", (1, "v")));
        assert!(all.excuse_control("a/x", (1, "v@python")));
        assert!(!all.excuse_control("a/x", (1, "w@v")));
    }
}
