//! Pins: what a server's tools and instructions said when they were approved.
//!
//! A description is read by a model as if it were an order, so one that changes after it was approved is
//! an attack until somebody says that it is not. A pin is the SHA-256 of the whole definition in one
//! canonical spelling. Without `strict`, the first sight approves.

mod file;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::McpError;
pub use file::{FilePins, PinFile, list_pins};

/// Longest definition that is kept beside its hash, in bytes, so that a change can be shown.
const KEPT_BYTES: usize = 16 * 1024;
/// Most changes that are kept until somebody looks at them.
const WAITING: usize = 256;

/// What is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject<'a> {
    /// A tool, by name.
    Tool(&'a str),
    /// What the server tells the model about itself.
    Instructions,
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tool(name) => write!(f, "tool:{name}"),
            Self::Instructions => f.write_str("instructions"),
        }
    }
}

/// How a definition stands to its pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// As it was approved.
    Same,
    /// Seen for the first time, and pinned now.
    First,
    /// Not as it was approved. To be withheld.
    Changed,
    /// Seen for the first time, and nobody has approved it. To be withheld.
    Unapproved,
}

/// What was approved, or waits for that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// SHA-256 of the definition's canonical spelling, in hexadecimal.
    pub sha256: String,
    /// When it was pinned or, if it waits, seen; seconds since 1970.
    pub at: u64,
    /// Who approved it; `first sight` where nobody was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The definition, where it is at most 16 KiB long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
}

impl Pin {
    fn new(definition: &str, by: Option<&str>, at: u64) -> Self {
        Self {
            sha256: sha256(definition),
            at,
            by: by.map(str::to_owned),
            definition: (definition.len() <= KEPT_BYTES).then(|| definition.to_owned()),
        }
    }
}

fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}

/// The pins of one plugin.
pub trait Pins: Send + Sync {
    /// Holds each definition, in its canonical spelling, to its pin, and pins what is seen for the first
    /// time. What this answers has been kept.
    ///
    /// # Errors
    /// Where pins cannot be read or kept; nothing may be handed on then.
    fn look(&self, seen: &[(Subject<'_>, &str)]) -> Result<Vec<Sight>, McpError>;
}

/// All pins of one plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Book {
    /// What was approved.
    pins: BTreeMap<String, Pin>,
    /// What was seen instead, or has not been approved.
    #[serde(default)]
    waiting: BTreeMap<String, Pin>,
}

impl Book {
    /// What can be said without changing anything: everything is as it was approved.
    fn is_all_same(&self, seen: &[(Subject<'_>, &str)]) -> bool {
        seen.iter().all(|(subject, definition)| {
            self.pins.get(&subject.to_string()).is_some_and(|p| p.sha256 == sha256(definition))
        })
    }

    /// Looks and takes note. The second value says whether anything changed.
    fn look(&mut self, seen: &[(Subject<'_>, &str)], strict: bool, now: u64) -> (Vec<Sight>, bool) {
        let mut has_changed = false;
        let mut sights = Vec::with_capacity(seen.len());
        for (subject, definition) in seen {
            let key = subject.to_string();
            let sight = match self.pins.get(&key) {
                Some(pin) if pin.sha256 == sha256(definition) => Sight::Same,
                Some(_) => Sight::Changed,
                None if strict => Sight::Unapproved,
                None => Sight::First,
            };
            match sight {
                Sight::Same => {}
                Sight::First => {
                    self.pins.insert(key, Pin::new(definition, Some("first sight"), now));
                    has_changed = true;
                }
                Sight::Changed | Sight::Unapproved => {
                    let pin = Pin::new(definition, None, now);
                    let is_known =
                        self.waiting.get(&key).is_some_and(|known| known.sha256 == pin.sha256);
                    if !is_known
                        && (self.waiting.len() < WAITING || self.waiting.contains_key(&key))
                    {
                        self.waiting.insert(key, pin);
                        has_changed = true;
                    }
                }
            }
            sights.push(sight);
        }
        (sights, has_changed)
    }

    fn accept(&mut self, name: &str, by: &str) -> Result<Pin, McpError> {
        let mut pin = self.waiting.remove(name).ok_or_else(|| McpError::NoSuchPin(shown(name)))?;
        pin.by = Some(by.to_owned());
        self.pins.insert(name.to_owned(), pin.clone());
        Ok(pin)
    }

    fn forget(&mut self, name: &str) -> Result<(), McpError> {
        let (pin, waiting) = (self.pins.remove(name), self.waiting.remove(name));
        if pin.is_none() && waiting.is_none() {
            return Err(McpError::NoSuchPin(shown(name)));
        }
        Ok(())
    }
}

fn shown(name: &str) -> String {
    palisade_model::text::escape(name, 200)
}

/// Pins that last as long as the value.
#[derive(Debug, Default)]
pub struct MemoryPins {
    book: Mutex<Book>,
    strict: bool,
}

impl MemoryPins {
    /// Without pins. `strict`: nothing is approved by being seen.
    #[must_use]
    pub fn new(strict: bool) -> Self {
        Self { book: Mutex::default(), strict }
    }
}

impl Pins for MemoryPins {
    fn look(&self, seen: &[(Subject<'_>, &str)]) -> Result<Vec<Sight>, McpError> {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(book.look(seen, self.strict, 0).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sight_pins_and_a_change_stays_one_until_it_is_accepted() {
        let mut book = Book::default();
        let tool = |definition| [(Subject::Tool("add"), definition)];
        assert_eq!(book.look(&tool("{1}"), false, 1), (vec![Sight::First], true));
        assert_eq!(book.look(&tool("{1}"), false, 2), (vec![Sight::Same], false));
        assert!(book.is_all_same(&tool("{1}")));
        assert_eq!(book.look(&tool("{2}"), false, 3), (vec![Sight::Changed], true));
        assert_eq!(book.look(&tool("{2}"), false, 4), (vec![Sight::Changed], false));
        assert!(!book.is_all_same(&tool("{2}")));
        assert_eq!(book.look(&tool("{1}"), false, 5).0, [Sight::Same], "the old one is still fine");
        book.accept("tool:add", "ada").unwrap();
        assert_eq!(book.look(&tool("{2}"), false, 6), (vec![Sight::Same], false));
        assert_eq!(book.look(&tool("{1}"), false, 7).0, [Sight::Changed]);
        assert_eq!(book.pins["tool:add"].by.as_deref(), Some("ada"));
        book.forget("tool:add").unwrap();
        assert!(book.accept("tool:add", "ada").is_err());
        assert_eq!(book.look(&tool("{3}"), false, 8).0, [Sight::First]);
    }

    #[test]
    fn strict_pins_approve_nothing_by_sight() {
        let mut book = Book::default();
        let seen = [(Subject::Instructions, "be kind"), (Subject::Tool("a"), "{}")];
        assert_eq!(book.look(&seen, true, 1).0, [Sight::Unapproved, Sight::Unapproved]);
        book.accept("instructions", "ada").unwrap();
        assert_eq!(book.look(&seen, true, 2).0, [Sight::Same, Sight::Unapproved]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut book = Book::default();
        for n in 0..2 * WAITING {
            let name = format!("t{n}");
            book.look(&[(Subject::Tool(&name), "{}")], true, 0);
        }
        assert_eq!(book.waiting.len(), WAITING);
        let long = "x".repeat(KEPT_BYTES + 1);
        assert_eq!(Pin::new(&long, None, 0).definition, None);
    }
}
