//! Capabilities: one right each, written `kind:scope`.
//!
//! A [`Kind`] names what is allowed, a scope names on what. Each kind has exactly one scope form, one
//! matcher and one point of enforcement ([`Kind::scope_form`], [`Kind::enforcement`]). Matching is
//! decided here and nowhere else; making it true is the work of the enforcement point.
//!
//! ```
//! use palisade_model::{Access, Capability, Kind};
//! let c: Capability = "fs.read:/srv/texts/**".parse()?;
//! assert!(c.covers(&Access::new(Kind::FsRead, "/srv/texts/a/b.txt")));
//! assert!(!c.covers(&Access::new(Kind::FsRead, "/srv/texts/../secret")));
//! assert!("fs.read:/srv/texts/a".parse::<Capability>()?.is_subset_of(&c));
//! # Ok::<(), palisade_model::CapabilityError>(())
//! ```

mod authority;
mod kind;
mod name;
mod path;
mod set;
mod subject;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

pub use authority::{AuthorityScope, HostPattern, PortPattern, parse_host};
pub use kind::{Enforcement, Kind, Risk, ScopeForm};
pub use name::NamePattern;
pub use path::{PathScope, normalize_path};
pub use set::CapabilitySet;
pub use subject::{SubjectPattern, is_valid_subject};

/// Longest text of one capability, in bytes.
pub const MAX_CAPABILITY_LEN: usize = 4096 + 64;

/// Why a text is not a capability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CapabilityError {
    /// No `:` between kind and scope.
    #[error("a capability is written kind:scope, as in fs.read:/srv/texts/**")]
    NoScope,
    /// The part before the first `:` is not a kind.
    #[error("unknown capability kind {given:?}{}", did_you_mean(.nearest))]
    UnknownKind {
        /// What stands there, escaped.
        given: String,
        /// The kind with the nearest name, if one is near.
        nearest: Option<&'static str>,
    },
    /// The scope does not fit the kind's form.
    #[error("{kind} takes {form}: {why}")]
    BadScope {
        /// The kind.
        kind: Kind,
        /// The form in words.
        form: &'static str,
        /// What does not fit.
        why: String,
    },
    /// Longer than [`MAX_CAPABILITY_LEN`].
    #[error("a capability has at most {MAX_CAPABILITY_LEN} bytes, this one has {0}")]
    TooLong(usize),
}

fn did_you_mean(nearest: &Option<&'static str>) -> String {
    nearest.map(|n| format!("; did you mean {n}?")).unwrap_or_default()
}

/// The parsed scope of a capability, one variant a form.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// A path, or a folder and everything below it.
    Path(PathScope),
    /// Host and port.
    Authority(AuthorityScope),
    /// A subject with `*` and `>`.
    Subject(SubjectPattern),
    /// A name, a prefix followed by `*`, or `*`.
    Name(NamePattern),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(s) => s.fmt(f),
            Self::Authority(s) => s.fmt(f),
            Self::Subject(s) => s.fmt(f),
            Self::Name(s) => s.fmt(f),
        }
    }
}

/// One right: a kind and a scope.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Capability {
    kind: Kind,
    scope: Scope,
}

/// One concrete thing that somebody wants to do: what capabilities are matched against.
///
/// `target` is a path, `host:port`, subject or name as the kind has it, without wildcards. A target
/// that is not valid for its kind is covered by nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Access<'a> {
    /// What kind of right it takes.
    pub kind: Kind,
    /// On what.
    pub target: &'a str,
}

impl<'a> Access<'a> {
    /// An access of `kind` to `target`.
    #[must_use]
    pub const fn new(kind: Kind, target: &'a str) -> Self {
        Self { kind, target }
    }

    /// The target in the one spelling that is compared (a path without `//` and `/./`, a host in lower
    /// case without trailing dot), or `None` where it is not valid for its kind and so is covered by
    /// nothing. Copies only where the spelling changes and for IPv6 addresses.
    #[must_use]
    pub fn canonical_target(&self) -> Option<Cow<'a, str>> {
        match self.kind.scope_form() {
            ScopeForm::Path => path::canonical(self.target),
            ScopeForm::Authority => authority::canonical(self.target),
            ScopeForm::Subject => is_valid_subject(self.target).then_some(self.target.into()),
            ScopeForm::Name => name::is_name(self.target).then_some(self.target.into()),
        }
    }
}

impl fmt::Display for Access<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, crate::text::escape(self.target, 400))
    }
}

impl Capability {
    /// Parses `kind` and `scope` given apart.
    ///
    /// # Errors
    /// [`CapabilityError::BadScope`] when the scope does not fit the kind.
    pub fn new(kind: Kind, scope: &str) -> Result<Self, CapabilityError> {
        let form = kind.scope_form();
        let parsed = match form {
            ScopeForm::Path => PathScope::parse(scope).map(Scope::Path),
            ScopeForm::Authority => AuthorityScope::parse(scope).map(Scope::Authority),
            ScopeForm::Subject => SubjectPattern::parse(scope).map(Scope::Subject),
            ScopeForm::Name => NamePattern::parse(scope).map(Scope::Name),
        };
        let scope =
            parsed.map_err(|why| CapabilityError::BadScope { kind, form: form.in_words(), why })?;
        Ok(Self { kind, scope })
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The scope.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The scope's path, where the kind's scope is one.
    #[must_use]
    pub fn path(&self) -> Option<&PathScope> {
        match &self.scope {
            Scope::Path(p) => Some(p),
            _ => None,
        }
    }

    /// Whether this right covers `access`.
    #[must_use]
    pub fn covers(&self, access: &Access<'_>) -> bool {
        self.kind == access.kind
            && match &self.scope {
                Scope::Path(s) => s.matches(access.target),
                Scope::Authority(s) => s.matches(access.target),
                Scope::Subject(s) => s.matches(access.target),
                Scope::Name(s) => s.matches(access.target),
            }
    }

    /// Whether every access that this right covers is covered by `other` too. Never wrongly
    /// true. Exact for one pair, but at the length bounds: where a pattern is so long that the bound on
    /// targets leaves room for fewer than its form says (`name*` with a name of 256 bytes), the form
    /// decides and the answer can be "no" although nothing more is covered.
    #[must_use]
    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.kind == other.kind
            && match (&self.scope, &other.scope) {
                (Scope::Path(a), Scope::Path(b)) => a.is_subset_of(b),
                (Scope::Authority(a), Scope::Authority(b)) => a.is_subset_of(b),
                (Scope::Subject(a), Scope::Subject(b)) => a.is_subset_of(b),
                (Scope::Name(a), Scope::Name(b)) => a.is_subset_of(b),
                _ => false,
            }
    }

    /// How much harm the right can do, with the scope taken into account: one that covers everything
    /// of its kind (`/**`, `*`, every host, a subject of wildcards only) is one step riskier than the
    /// kind.
    #[must_use]
    pub fn risk(&self) -> Risk {
        let everything = match &self.scope {
            Scope::Path(s) => s.is_everything(),
            Scope::Authority(s) => s.is_any_host(),
            Scope::Subject(s) => s.is_everything(),
            Scope::Name(s) => s.is_everything(),
        };
        if everything && self.kind.scope_matters() {
            self.kind.risk().raised()
        } else {
            self.kind.risk()
        }
    }
}

impl FromStr for Capability {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        if text.len() > MAX_CAPABILITY_LEN {
            return Err(CapabilityError::TooLong(text.len()));
        }
        let (kind, scope) = text.split_once(':').ok_or(CapabilityError::NoScope)?;
        let kind = Kind::parse(kind).ok_or_else(|| CapabilityError::UnknownKind {
            given: crate::text::escape(kind, 40),
            nearest: Kind::nearest(kind),
        })?;
        Self::new(kind, scope)
    }
}

impl TryFrom<String> for Capability {
    type Error = CapabilityError;
    fn try_from(text: String) -> Result<Self, CapabilityError> {
        text.parse()
    }
}

impl From<Capability> for String {
    fn from(c: Capability) -> String {
        c.to_string()
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.scope)
    }
}
