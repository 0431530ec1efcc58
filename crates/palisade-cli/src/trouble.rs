//! Errors as they leave the command: what happened, which rule, what to do, and the exit status.

use palisade_host::HostError;
use palisade_manifest::ManifestError;
use palisade_model::{ErrorCode, Failure, Level};
use palisade_sandbox::NoBackend;
use serde_json::{Value, json};

use crate::terminal::{self, Paint};

/// Why the command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// To be printed.
    Failure(Failure),
    /// To be printed with its line, column and excerpt.
    Manifest(Box<ManifestError>),
    /// No backend covers the demand; to be printed with what each of them lacks.
    NoBackend(Failure, NoBackend),
    /// What there is to say was said; only the exit status is left.
    Said(u8),
}

impl Trouble {
    /// The command line, a file that it names or its content cannot be used.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Failure(Failure::new(ErrorCode::Usage, message))
    }

    /// With what to do about it.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        match self {
            Self::Failure(failure) => Self::Failure(failure.hint(hint)),
            other => other,
        }
    }

    /// The exit status of the command.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Self::Failure(failure) | Self::NoBackend(failure, _) => failure.code.exit_status(),
            Self::Manifest(error) => error.code().exit_status(),
            Self::Said(status) => *status,
        }
    }

    /// Prints it: as JSON on stdout, or for people on stderr.
    pub(crate) fn print(&self, as_json: bool) {
        match self {
            Self::Said(_) => {}
            _ if as_json => terminal::json(&json!({ "error": self.to_json() })),
            Self::Failure(failure) => terminal::err(failure_text(failure, Paint::stderr())),
            Self::Manifest(error) => terminal::err(manifest_text(error)),
            Self::NoBackend(failure, none) => {
                terminal::err(failure_text(&in_lines(failure, none), Paint::stderr()));
            }
        }
    }

    fn to_json(&self) -> Value {
        let value = match self {
            Self::Failure(failure) => serde_json::to_value(failure),
            Self::Manifest(error) => serde_json::to_value(error),
            Self::NoBackend(failure, none) => {
                return json!({
                    "code": failure.code, "message": failure.message, "hint": failure.hint,
                    "candidates": none.candidates,
                });
            }
            Self::Said(_) => Ok(Value::Null),
        };
        value.unwrap_or(Value::Null)
    }
}

/// The failure with what each backend lacks on lines of its own.
pub(crate) fn in_lines(failure: &Failure, none: &NoBackend) -> Failure {
    let mut message = "no backend on this machine covers the demand".to_owned();
    for candidate in &none.candidates {
        if let Some(why) = &candidate.unavailable {
            message.push_str(&format!("\n  {}: {}", candidate.backend, why.reason));
        }
        for (guarantee, wanted, have) in &candidate.missing {
            message.push_str(&format!(
                "\n  {}: {guarantee} is demanded ({wanted}), and is {}",
                candidate.backend,
                if *have == Level::None { "not enforced".to_owned() } else { have.to_string() }
            ));
        }
        for (capability, why) in &candidate.unsupported {
            message.push_str(&format!(
                "\n  {}: cannot enforce {capability}: {why}",
                candidate.backend
            ));
        }
    }
    Failure { message, ..failure.clone() }
}

/// A failure for people.
pub(crate) fn failure_text(failure: &Failure, paint: Paint) -> String {
    let mut text = format!(
        "{} {} {}",
        paint.bad("error:"),
        failure.message,
        paint.dim(format!("[{}]", failure.code))
    );
    if let Some(rule) = &failure.rule {
        text.push_str(&format!("\n  rule: {rule}"));
    }
    if let Some(hint) = &failure.hint {
        // A remedy may be several commands; they stay in one column, to be copied.
        text.push_str(&format!("\n  help: {}", hint.replace('\n', "\n        ")));
    }
    text
}

fn manifest_text(error: &ManifestError) -> String {
    let text = match error {
        ManifestError::Invalid(_) => error.to_string(),
        other => format!("error: {other} [{}]", other.code()),
    };
    match error.hint() {
        Some(hint) => format!("{text}\n  help: {hint}"),
        None => text,
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<HostError> for Trouble {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Manifest(error) => Self::Manifest(Box::new(error)),
            // The library names the environment variable; the command has an option for it.
            HostError::StateDir { .. } | HostError::NoStateDir => {
                Self::Failure(error.into()).hint("name a folder of your own with --state-dir")
            }
            other => Self::Failure(other.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_happened_which_rule_and_what_to_do() {
        let failure = Failure::new(ErrorCode::Denied, "fs.read:/x is not granted")
            .rule("no effective fs.read right covers it")
            .hint("--grant fs.read:/x");
        assert_eq!(
            failure_text(&failure, Paint::NONE),
            "error: fs.read:/x is not granted [PAL-DENIED]\n  rule: no effective fs.read right covers it\n  help: --grant fs.read:/x"
        );
        assert_eq!(Trouble::from(failure).exit_status(), 3);
    }

    #[test]
    fn a_manifest_that_is_not_valid_is_shown_as_a_compiler_would() {
        let error = palisade_manifest::parse(
            "api: palisade/1\nid: a\nversoin: 1.0.0\n",
            palisade_manifest::Syntax::Yaml,
        )
        .unwrap_err();
        let text = manifest_text(&error);
        assert!(
            text.contains("--> line 3, column 1") && text.contains('^') && text.contains("version"),
            "{text}"
        );
        assert_eq!(Trouble::from(HostError::from(error)).exit_status(), 2);
    }
}
