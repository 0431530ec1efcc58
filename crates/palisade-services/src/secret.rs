//! `secret.get`: a plugin asks for a value that the operator keeps for it.
//!
//! The right is `secret:NAME`, and because of it each request is on record before the value is read;
//! where the record cannot be written, nothing is handed out. Where the values are kept is the host's
//! business: see [`Secrets`].

use std::{fmt, sync::Arc};

use palisade_audit::BoxFuture;
use palisade_broker::{Context, Need, Service};
use palisade_model::{Capability, ErrorCode, Failure, Kind, text::escape};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroizing;

/// Longest value of a secret, in bytes.
pub const MAX_SECRET: usize = 64 << 10;
/// Most bytes of parameters: a name has at most 256.
const MAX_PARAMS: usize = 4 << 10;

/// The value of a secret: up to 64 KiB of UTF-8 text without NUL. Overwritten in memory when it is
/// dropped, and never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Zeroizing<String>);

impl SecretValue {
    /// Takes a value.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidParams`] for one that is empty or has a NUL in it (it could not be an
    /// environment variable), [`ErrorCode::LimitExceeded`] for one of more than [`MAX_SECRET`] bytes.
    /// Neither message repeats it.
    pub fn new(text: impl Into<String>) -> Result<Self, Failure> {
        let text = Zeroizing::new(text.into());
        if text.is_empty() {
            return Err(Failure::new(ErrorCode::InvalidParams, "the value of a secret is empty"));
        }
        if text.len() > MAX_SECRET {
            let message =
                format!("the value has {} bytes, a secret has at most {MAX_SECRET}", text.len());
            return Err(Failure::new(ErrorCode::LimitExceeded, message));
        }
        if text.contains('\0') {
            let message = "the value of a secret cannot have a NUL character in it";
            return Err(Failure::new(ErrorCode::InvalidParams, message));
        }
        Ok(Self(text))
    }

    /// The value itself. Whoever takes it sees to it that it goes no further than it must.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(…)")
    }
}

/// Checks the name of a secret: the exact scope of a `secret:NAME` capability, 1 to 256 characters of
/// `A-Z a-z 0-9 . _ - : / @ $ +`. Gives that capability.
///
/// # Errors
/// [`ErrorCode::InvalidParams`] for anything else.
pub fn check_name(name: &str) -> Result<Capability, Failure> {
    let wrong = |why: String| {
        let shown = escape(name, 80);
        Failure::new(ErrorCode::InvalidParams, format!("{shown} is no name of a secret: {why}"))
    };
    if name.ends_with('*') {
        return Err(wrong("a pattern names no single secret".into()));
    }
    Capability::new(Kind::Secret, name).map_err(|error| wrong(error.to_string()))
}

/// Where secrets are kept.
pub trait Secrets: Send + Sync {
    /// The value of the secret with this name; `None` where there is none. The caller has asked the
    /// gate before.
    fn read<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<SecretValue>, Failure>>;
}

/// That the operator has set no such secret, and how to do it.
#[must_use]
pub fn not_set(name: &str) -> Failure {
    let shown = escape(name, 256);
    Failure::new(ErrorCode::NotFound, format!("there is no secret {shown}"))
        .hint(format!("the operator sets it with: palisade secret set {shown}"))
}

/// Parameters of `secret.get`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetParams {
    /// The secret's name.
    pub name: String,
}

/// Result of `secret.get`.
#[derive(Serialize, JsonSchema)]
pub struct GetResult {
    /// Its value.
    #[serde(serialize_with = "expose")]
    #[schemars(with = "String")]
    pub value: SecretValue,
}

fn expose<S: Serializer>(value: &SecretValue, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value.expose())
}

/// The service `secret.get` on `secrets`.
#[must_use]
pub fn get(secrets: Arc<dyn Secrets>) -> Service<GetParams> {
    Service::method("secret.get", move |_: Context, params: GetParams| {
        let secrets = Arc::clone(&secrets);
        async move {
            match secrets.read(&params.name).await? {
                Some(value) => Ok(GetResult { value }),
                None => Err(not_set(&params.name)),
            }
        }
    })
    .describe(
        "Gives the value of a secret that the operator has set. Each request is on record before the \
         value is read. A secret that is not set is `PAL-NOT-FOUND`.",
    )
    .capability("secret:NAME", |params: &GetParams| {
        Some(Need::new(Kind::Secret, params.name.as_str()))
    })
    .max_params(MAX_PARAMS)
    .idempotent()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_bounded_text_and_shows_itself_to_nobody() {
        let value = SecretValue::new("hunter2-é").unwrap();
        assert_eq!(value.expose(), "hunter2-é");
        assert!(!format!("{value:?}").contains("hunter2"), "{value:?}");
        assert!(SecretValue::new("x".repeat(MAX_SECRET)).is_ok());
        for (bad, code) in [
            (String::new(), ErrorCode::InvalidParams),
            ("hunter2\0".to_owned(), ErrorCode::InvalidParams),
            ("hunter2".repeat(MAX_SECRET), ErrorCode::LimitExceeded),
        ] {
            let failure = SecretValue::new(bad).unwrap_err();
            assert_eq!(failure.code, code);
            assert!(!failure.to_string().contains("hunter2"), "{failure}");
        }
    }

    #[test]
    fn a_name_is_one_exact_scope() {
        for good in ["db", "github.GITHUB_TOKEN", "a/b:c@d$e+f-g"] {
            assert_eq!(check_name(good).unwrap().to_string(), format!("secret:{good}"));
        }
        for bad in ["", "*", "a*", "a b", "a\nb", "\u{e9}", &"x".repeat(257)] {
            assert_eq!(check_name(bad).unwrap_err().code, ErrorCode::InvalidParams, "{bad:?}");
        }
    }
}
