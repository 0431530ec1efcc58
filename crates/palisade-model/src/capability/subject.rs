//! Subject scopes, as NATS has them: tokens separated by dots; `*` stands for exactly one token, a
//! last `>` for one or more. `*` and `>` are whole tokens, never part of one.

use std::fmt;

/// Longest subject in bytes, and the most tokens in one.
const MAX_SUBJECT: usize = 256;
const MAX_TOKENS: usize = 16;

/// A pattern over subjects.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubjectPattern {
    text: String,
}

fn is_token(token: &str) -> bool {
    !token.is_empty()
        && token.bytes().all(|b| {
            b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'$' | b'/' | b':' | b'=')
        })
}

/// Whether `subject` is a subject one can publish to: 1 to 16 tokens of ASCII letters, digits and
/// `_ - $ / : =`, no wildcard, at most 256 bytes.
#[must_use]
pub fn is_valid_subject(subject: &str) -> bool {
    subject.len() <= MAX_SUBJECT
        && subject.split('.').all(is_token)
        && subject.split('.').count() <= MAX_TOKENS
}

impl SubjectPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// A sentence that says what does not fit.
    pub fn parse(scope: &str) -> Result<Self, String> {
        if scope.is_empty() {
            return Err("the scope is empty".into());
        }
        if scope.len() > MAX_SUBJECT || scope.split('.').count() > MAX_TOKENS {
            return Err(format!(
                "a subject has at most {MAX_SUBJECT} bytes and {MAX_TOKENS} tokens"
            ));
        }
        let count = scope.split('.').count();
        for (i, token) in scope.split('.').enumerate() {
            let ok = match token {
                "*" => true,
                ">" => i + 1 == count,
                token => is_token(token),
            };
            if !ok {
                return Err(format!(
                    "token {} does not fit: tokens are letters, digits, '_', '-', '$', '/', ':', '=', or a whole '*', or a last '>'",
                    i + 1
                ));
            }
        }
        Ok(Self { text: scope.to_owned() })
    }

    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the pattern names nothing at all. `*.>` is not quite every subject, but counts as it:
    /// otherwise one more token would hide what is asked for.
    pub(super) fn is_everything(&self) -> bool {
        self.text.split('.').all(|token| matches!(token, "*" | ">"))
    }

    /// Whether `subject` (without wildcards) fits the pattern.
    #[must_use]
    pub fn matches(&self, subject: &str) -> bool {
        is_valid_subject(subject) && Self::fits(&self.text, subject)
    }

    /// Whether every subject that fits this pattern fits `other` too.
    #[must_use]
    pub fn is_subset_of(&self, other: &Self) -> bool {
        Self::fits(&other.text, &self.text)
    }

    /// Token by token: does `inner` (a subject or a pattern) lie within `outer`?
    fn fits(outer: &str, inner: &str) -> bool {
        let mut inner = inner.split('.');
        for o in outer.split('.') {
            let i = inner.next();
            match (o, i) {
                (">", Some(_)) => return true,
                ("*", Some(i)) if i != ">" => {}
                (o, Some(i)) if o == i => {}
                _ => return false,
            }
        }
        inner.next().is_none()
    }
}

impl fmt::Display for SubjectPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
