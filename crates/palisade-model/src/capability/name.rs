//! Name scopes: an exact name, a prefix with a trailing `*`, or `*`. Case matters; ASCII only, so that
//! no two names look alike.

use std::fmt;

/// Longest name in bytes.
const MAX_NAME: usize = 256;

/// An exact name, or every name that begins with a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamePattern {
    text: String,
    open: bool,
}

fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':' | b'/' | b'@' | b'$' | b'+')
}

pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(is_name_byte)
}

impl NamePattern {
    pub(super) fn parse(scope: &str) -> Result<Self, String> {
        let (text, open) = match scope.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (scope, false),
        };
        if text.is_empty() && open {
            return Ok(Self { text: String::new(), open });
        }
        if text.is_empty() {
            return Err("the scope is empty".into());
        }
        if !is_name(text) {
            return Err(format!(
                "a name has at most {MAX_NAME} characters of A-Z a-z 0-9 . _ - : / @ $ + and '*' only at its end"
            ));
        }
        Ok(Self { text: text.to_owned(), open })
    }

    /// The exact name, if the pattern stands for just one.
    #[must_use]
    pub fn exact(&self) -> Option<&str> {
        (!self.open).then_some(self.text.as_str())
    }

    pub(super) fn is_everything(&self) -> bool {
        self.open && self.text.is_empty()
    }

    pub(super) fn matches(&self, target: &str) -> bool {
        is_name(target)
            && if self.open { target.starts_with(&self.text) } else { target == self.text }
    }

    pub(super) fn is_subset_of(&self, other: &Self) -> bool {
        if other.open {
            self.text.starts_with(&other.text)
        } else {
            !self.open && self.text == other.text
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.open { "*" } else { "" })
    }
}
