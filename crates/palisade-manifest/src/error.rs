//! What is wrong with a manifest, shown the way a compiler shows it.
//!
//! A manifest is read to its end before it is refused, so an author sees all findings at once. The only
//! file ever quoted is the manifest itself, and everything quoted is escaped: an error text can be
//! printed to a terminal as it is.

use std::fmt;

use palisade_model::{ErrorCode, Failure, text::escape};
use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use crate::tree::Span;

/// The most findings that one error lists; the rest is counted.
pub const MAX_DIAGNOSTICS: usize = 50;

/// Characters of the source line that an excerpt shows at most.
const EXCERPT_CHARS: usize = 100;

/// Which rule a finding is about. The text form is stable, for programs that read `--json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Rule {
    /// The text is not YAML, TOML or JSON, or uses a part of it that is not allowed here.
    Syntax,
    /// Too deep, too many values, too long.
    Bounds,
    /// `api` is missing or names something this version does not read.
    Api,
    /// A key that is not known here.
    UnknownKey,
    /// A key that must be there is not.
    Missing,
    /// A value of the wrong type.
    Type,
    /// A text that is empty, too long, or holds characters it may not hold.
    Text,
    /// Not a plugin id.
    Id,
    /// Not a version number (SemVer 2.0).
    Version,
    /// The plugin needs another version of Palisade, or the requirement cannot be read.
    Requires,
    /// Not a path that is allowed here.
    Path,
    /// None of the words that are allowed here.
    Choice,
    /// Two keys of which only one may stand, or of which one must.
    Conflict,
    /// A number outside its range.
    Range,
    /// A size, duration or rate that cannot be read, or is outside its range.
    Quantity,
    /// Not a capability.
    Capability,
    /// A capability that can do harm is asked for without a reason.
    Reason,
    /// An environment variable that lets a loader or interpreter run foreign code.
    Environment,
    /// The same thing twice.
    Duplicate,
    /// Too many entries.
    TooMany,
    /// Not a guarantee, or not one that has levels.
    Guarantee,
    /// A JSON Schema that is not valid, reaches outside the document or costs too much.
    Schema,
    /// Default values that do not fit the plugin's own schema.
    Defaults,
}

impl Rule {
    /// The stable text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Bounds => "bounds",
            Self::Api => "api",
            Self::UnknownKey => "unknown-key",
            Self::Missing => "missing",
            Self::Type => "type",
            Self::Text => "text",
            Self::Id => "id",
            Self::Version => "version",
            Self::Requires => "requires",
            Self::Path => "path",
            Self::Choice => "choice",
            Self::Conflict => "conflict",
            Self::Range => "range",
            Self::Quantity => "quantity",
            Self::Capability => "capability",
            Self::Reason => "reason",
            Self::Environment => "environment",
            Self::Duplicate => "duplicate",
            Self::TooMany => "too-many",
            Self::Guarantee => "guarantee",
            Self::Schema => "schema",
            Self::Defaults => "defaults",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Which rule.
    pub rule: Rule,
    /// Line in the manifest, counted from 1.
    pub line: u32,
    /// Column in characters, counted from 1.
    pub column: u32,
    /// Which field, as in `entry.file` or `capabilities.required[2]`; empty where no field is to blame.
    pub field: String,
    /// What is wrong, escaped.
    pub message: String,
    /// What to write instead, escaped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The line of the manifest, escaped and cut to the part around the finding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<Excerpt>,
}

/// A line of the manifest, made safe to show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Excerpt {
    /// The escaped text.
    pub text: String,
    /// How many characters of `text` stand before the finding.
    pub caret: usize,
}

impl Diagnostic {
    pub(crate) fn new(rule: Rule, span: Span, message: impl Into<String>) -> Self {
        Self {
            rule,
            line: span.line,
            column: span.column,
            field: String::new(),
            message: message.into(),
            hint: None,
            excerpt: None,
        }
    }

    pub(crate) fn at(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Cuts the line out of `text` and escapes it.
    pub(crate) fn quote(&mut self, text: &str) {
        let wanted = usize::try_from(self.line.saturating_sub(1)).unwrap_or(usize::MAX);
        let Some(line) = lines(text).nth(wanted) else { return };
        let before = usize::try_from(self.column.saturating_sub(1)).unwrap_or(usize::MAX);
        let skip = before.saturating_sub(EXCERPT_CHARS / 2);
        let head: String = line.chars().skip(skip).take(before - skip).collect();
        let tail: String = line.chars().skip(before).take(EXCERPT_CHARS / 2 + 1).collect();
        let mut shown = String::new();
        if skip > 0 {
            shown.push('…');
        }
        shown.push_str(&escape(&head, EXCERPT_CHARS));
        let caret = shown.chars().count();
        shown.push_str(&escape(&tail, EXCERPT_CHARS / 2));
        self.excerpt = Some(Excerpt { text: shown, caret });
    }
}

/// The lines of `text`; a line ends with LF, CR LF or CR, as YAML has it.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let now = rest?;
        let Some(end) = now.find(['\n', '\r']) else {
            rest = None;
            return Some(now);
        };
        let (line, after) = now.split_at(end);
        rest = after.strip_prefix("\r\n").or_else(|| after.get(1..));
        Some(line)
    })
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.render(f, "")
    }
}

impl Diagnostic {
    /// The message, where it stands in `file`, the line with a caret, and the hint.
    fn render(&self, f: &mut fmt::Formatter<'_>, file: &str) -> fmt::Result {
        f.write_str("error: ")?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        if file.is_empty() {
            write!(f, "\n{margin}--> line {}, column {}", self.line, self.column)?;
        } else {
            write!(f, "\n{margin}--> {file}:{}:{}", self.line, self.column)?;
        }
        if let Some(Excerpt { text, caret }) = &self.excerpt {
            let space = if text.is_empty() { "" } else { " " };
            write!(f, "\n{margin} |\n{number} |{space}{text}\n{margin} | {}^", " ".repeat(*caret))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n{margin} = help: {hint}")?;
        }
        Ok(())
    }
}

/// Why a manifest could not be taken. Paths in it are escaped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// There is no manifest in the folder.
    #[error("there is no manifest in {folder}")]
    NotFound {
        /// The folder.
        folder: String,
        /// What to create.
        hint: String,
    },
    /// There is more than one manifest in the folder, and which one counts is nobody's guess to make.
    #[error("{folder} has both {first} and {second}, but a plugin has one manifest")]
    Ambiguous {
        /// The folder.
        folder: String,
        /// One file name.
        first: &'static str,
        /// Another file name.
        second: &'static str,
    },
    /// The manifest is a symbolic link, a folder, a FIFO, a device or a socket.
    #[error("{file} is {what}, but a manifest is a regular file")]
    NotRegular {
        /// The file.
        file: String,
        /// What it is, with its article.
        what: &'static str,
    },
    /// The manifest has more than [`crate::MAX_BYTES`].
    #[error("{file} is larger than {} KiB, which is the most a manifest may have", crate::MAX_BYTES >> 10)]
    TooLarge {
        /// The file.
        file: String,
    },
    /// The operating system does not let us read the file or the folder.
    #[error("cannot read {file}: {why}")]
    Unreadable {
        /// The file or folder.
        file: String,
        /// What the operating system says.
        why: String,
    },
    /// The manifest was read and is not valid.
    #[error("{}", Rendered(.0))]
    Invalid(Findings),
}

/// Everything that is wrong with one manifest: at least one finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// The file's name, escaped; empty where the text did not come from a file.
    pub file: String,
    /// The findings in the order of the text, at most [`MAX_DIAGNOSTICS`].
    pub diagnostics: Vec<Diagnostic>,
    /// How many more there are.
    pub omitted: usize,
}

struct Rendered<'a>(&'a Findings);

impl fmt::Display for Rendered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.0.diagnostics.iter().enumerate() {
            if i > 0 {
                f.write_str("\n\n")?;
            }
            diagnostic.render(f, &self.0.file)?;
        }
        if self.0.omitted > 0 {
            write!(f, "\n\n… and {} more", self.0.omitted)?;
        }
        Ok(())
    }
}

impl ManifestError {
    /// The stable code: always [`ErrorCode::ManifestInvalid`].
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        ErrorCode::ManifestInvalid
    }

    /// The findings; empty where the manifest could not be read at all.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::Invalid(findings) => &findings.diagnostics,
            _ => &[],
        }
    }

    /// What to do about it, where the findings do not say so themselves.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { hint, .. } => Some(hint.clone()),
            Self::Ambiguous { first, second, .. } => {
                Some(format!("keep {first} or {second} and remove the other"))
            }
            Self::NotRegular { .. } => {
                Some("put the manifest itself into the plugin's folder".into())
            }
            Self::TooLarge { .. } | Self::Unreadable { .. } | Self::Invalid(_) => None,
        }
    }
}

impl From<ManifestError> for Failure {
    fn from(error: ManifestError) -> Self {
        let message = match &error {
            // One sentence: the first finding and how many follow.
            ManifestError::Invalid(findings) => match findings.diagnostics.split_first() {
                Some((first, rest)) => {
                    let file =
                        if findings.file.is_empty() { "the manifest" } else { &findings.file };
                    let field = if first.field.is_empty() {
                        String::new()
                    } else {
                        format!("{}: ", first.field)
                    };
                    let more = rest.len() + findings.omitted;
                    let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
                    format!(
                        "{file}:{}:{}: {field}{}{more}",
                        first.line, first.column, first.message
                    )
                }
                None => "the manifest is not valid".into(),
            },
            other => other.to_string(),
        };
        let mut failure = Failure::new(error.code(), message);
        failure.hint = error
            .hint()
            .or_else(|| error.diagnostics().first().and_then(|first| first.hint.clone()));
        failure
    }
}

impl Serialize for ManifestError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let failure = Failure::from(self.clone());
        let mut out = serializer.serialize_struct("ManifestError", 6)?;
        out.serialize_field("code", &self.code())?;
        out.serialize_field("message", &failure.message)?;
        out.serialize_field("hint", &failure.hint)?;
        let (file, omitted) = match self {
            Self::Invalid(findings) => (findings.file.as_str(), findings.omitted),
            _ => ("", 0),
        };
        out.serialize_field("file", file)?;
        out.serialize_field("diagnostics", self.diagnostics())?;
        out.serialize_field("omitted", &omitted)?;
        out.end()
    }
}

/// Text of the manifest inside a message: escaped, cut and between quotation marks.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", escape(text, 60))
}
