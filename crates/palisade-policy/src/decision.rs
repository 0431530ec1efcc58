//! The answer to one access.

use palisade_model::{Access, Capability, ErrorCode, Failure, text::escape};

use crate::{grant_option, hint};

/// Whether an access is allowed, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<'r, 'a> {
    /// Allowed.
    Allow {
        /// The right that covers it.
        by: &'r Capability,
    },
    /// Denied.
    Deny(Denial<'r, 'a>),
}

impl<'r, 'a> Decision<'r, 'a> {
    /// Whether it is allowed.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }

    /// The right that allows it, or the failure to answer with.
    ///
    /// # Errors
    /// `PAL-DENIED`, as [`Denial::to_failure`] has it.
    pub fn into_result(self) -> Result<&'r Capability, Failure> {
        match self {
            Self::Allow { by } => Ok(by),
            Self::Deny(denial) => Err(denial.to_failure()),
        }
    }
}

/// A denied access and the rule that decided. Texts are made only when asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial<'r, 'a> {
    /// What was asked.
    pub access: Access<'a>,
    /// Which rule decided.
    pub rule: DenyRule<'r>,
    /// Whether the manifest asks for it, where that is known. A grant gives nothing that is not
    /// requested.
    pub requested: Option<bool>,
}

/// The rule that denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenyRule<'r> {
    /// No effective right covers the access.
    NotGranted,
    /// The manifest does not declare the contribution.
    NotDeclared,
    /// The operator's policy forbids it; the forbid, as it stands there.
    Forbidden(&'r Capability),
    /// The target is not a valid one of its kind, so nothing covers it.
    NotATarget,
}

impl Denial<'_, '_> {
    /// What would allow it: for an access that can be granted exactly `--grant kind:scope`, else a
    /// sentence. Safe to show and to paste.
    #[must_use]
    pub fn how_to_grant(&self) -> String {
        let kind = self.access.kind;
        match self.rule {
            DenyRule::Forbidden(rule) => format!(
                "no grant helps; the operator can take {} out of 'forbid' in the policy",
                escape(&rule.to_string(), 400)
            ),
            DenyRule::NotDeclared => {
                format!("the plugin's author declares {} in the manifest", self.access)
            }
            DenyRule::NotATarget => {
                format!("nothing can allow it; {kind} takes {}", kind.scope_form().in_words())
            }
            DenyRule::NotGranted => {
                let Some(option) = hint::exactly(&self.access).as_ref().and_then(grant_option)
                else {
                    return format!("grant a {kind} capability that covers {}", self.access);
                };
                if self.requested == Some(false) {
                    format!("the manifest does not ask for it; once it does: {option}")
                } else {
                    option
                }
            }
        }
    }

    /// The rule in words.
    #[must_use]
    pub fn rule_text(&self) -> String {
        match self.rule {
            DenyRule::NotGranted => format!("no effective {} right covers it", self.access.kind),
            DenyRule::NotDeclared => "only declared contributions are registered".to_owned(),
            DenyRule::Forbidden(rule) => format!("forbid {}", escape(&rule.to_string(), 400)),
            DenyRule::NotATarget => format!("not a target of {}", self.access.kind),
        }
    }

    /// The denial for a plugin, an application or a person: code `PAL-DENIED`, the rule, and what would
    /// allow it.
    #[must_use]
    pub fn to_failure(&self) -> Failure {
        let what = match self.rule {
            DenyRule::NotGranted => "is not granted",
            DenyRule::NotDeclared => "is not declared in the manifest",
            DenyRule::Forbidden(_) => "is forbidden by the operator's policy",
            DenyRule::NotATarget => "is not a valid target",
        };
        Failure::new(ErrorCode::Denied, format!("{} {what}", self.access))
            .rule(self.rule_text())
            .hint(self.how_to_grant())
    }
}

impl From<Denial<'_, '_>> for Failure {
    fn from(denial: Denial<'_, '_>) -> Self {
        denial.to_failure()
    }
}
