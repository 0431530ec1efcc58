//! Writing for people: colours where they belong, and nothing that fails when nobody reads.

use std::{
    fmt,
    io::{self, IsTerminal as _, Write as _},
};

use palisade_model::text::is_deceptive;

use crate::platform::machine;

/// Colours, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paint(bool);

impl Paint {
    /// No colours.
    #[cfg(test)]
    pub(crate) const NONE: Self = Self(false);

    /// Whether there are colours.
    pub(crate) fn is_on(self) -> bool {
        self.0
    }

    /// For a stream that is a terminal or is not. `NO_COLOR` (<https://no-color.org>) and `TERM=dumb` win.
    fn for_terminal(is_terminal: bool) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        Self(is_terminal && machine::has_escapes() && !set("NO_COLOR") && !dumb)
    }

    pub(crate) fn stdout() -> Self {
        Self::for_terminal(io::stdout().is_terminal())
    }

    pub(crate) fn stderr() -> Self {
        Self::for_terminal(io::stderr().is_terminal())
    }

    fn wrap(self, code: &str, text: impl fmt::Display) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    pub(crate) fn bold(self, text: impl fmt::Display) -> String {
        self.wrap("1", text)
    }

    pub(crate) fn dim(self, text: impl fmt::Display) -> String {
        self.wrap("2", text)
    }

    pub(crate) fn good(self, text: impl fmt::Display) -> String {
        self.wrap("32", text)
    }

    pub(crate) fn bad(self, text: impl fmt::Display) -> String {
        self.wrap("1;31", text)
    }

    pub(crate) fn warn(self, text: impl fmt::Display) -> String {
        self.wrap("33", text)
    }
}

/// Writes to stdout. A reader that has gone away (`| head`) is no error of ours.
pub(crate) fn out(text: impl fmt::Display) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Writes to stderr.
pub(crate) fn err(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes a value as one JSON document on stdout.
pub(crate) fn json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => out(safe_json(&text)),
        Err(error) => err(format_args!("error: the output cannot be written as JSON: {error}")),
    }
}

/// Writes a value as one line of JSON on stdout.
pub(crate) fn json_line(value: &impl serde::Serialize) {
    if let Ok(text) = serde_json::to_string(value) {
        out(safe_json(&text));
    }
}

/// JSON text that says the same and holds no character that could steer a terminal or deceive a reader:
/// such characters can only stand inside strings, where `\uXXXX` means the same. Line breaks between
/// tokens stay.
pub(crate) fn safe_json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\n' || !is_deceptive(c) {
            safe.push(c);
        } else if c.is_ascii_whitespace() {
            safe.push(' ');
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                safe.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    safe
}

/// What is being done now, on a terminal only; gone when the step is over.
pub(crate) struct Progress(bool);

impl Progress {
    /// On stderr, where that is a terminal that takes a line away again, and `wanted`.
    pub(crate) fn new(wanted: bool) -> Self {
        Self(wanted && io::stderr().is_terminal() && machine::has_escapes())
    }

    /// Shows what is being done.
    pub(crate) fn step(&self, text: impl fmt::Display) {
        if self.0 {
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[K{text} …");
            let _ = stderr.flush();
        }
    }

    /// Takes the line away.
    pub(crate) fn done(&self) {
        if self.0 {
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[K");
            let _ = stderr.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_that_is_shown_means_the_same_and_steers_nothing() {
        let hostile = "{\"a\":\"\u{9b}31m\u{202e}b\u{7f}\u{e0041}\", \"π\": [1e400, 12345678901234567890123]}";
        let safe = safe_json(hostile);
        assert!(safe.chars().all(|c| !is_deceptive(c)), "{safe:?}");
        assert_eq!(
            safe,
            r#"{"a":"\u009b31m\u202eb\u007f\udb40\udc41", "π": [1e400, 12345678901234567890123]}"#
        );
        let parse =
            |text: &str| serde_json::from_str::<serde_json::Value>(&text.replace("1e400, ", ""));
        assert_eq!(parse(&safe).unwrap(), parse(hostile).unwrap());
    }

    #[test]
    fn without_colours_text_stays_as_it_is() {
        assert_eq!(Paint::NONE.bad("x"), "x");
        assert_eq!(Paint(true).good("x"), "\x1b[32mx\x1b[0m");
    }
}
