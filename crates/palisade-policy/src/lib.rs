//! What is granted: pure decisions over what a plugin requests, what people granted and what the
//! operator's policy says.
//!
//! Nothing here reads a file, asks a clock or talks to the system: policy text, grants and the time come
//! in as values, so every decision can be repeated. Storing grants and asking for consent is the host's
//! work; making a right true is the work of its enforcement point.
//!
//! ```
//! use palisade_model::{Access, Capability, Kind, Principal};
//! use palisade_policy::{Decision, Grant, OperatorPolicy, Requested, Rules, effective};
//!
//! let policy: OperatorPolicy = palisade_policy::parse(r#"forbid = ["net.http:169.254.169.254:*"]"#)?;
//! let asked: Capability = "net.http:*.example.org".parse()?;
//! let requested = Requested { required: [asked.clone()].into_iter().collect(), ..Default::default() };
//! let grant = Grant {
//!     capability: asked, by: Principal::Application, at: 1_000, until: None, manifest_digest: [7; 32],
//! };
//! let effective = effective(&requested, &[grant], &policy, 2_000, &[7; 32]);
//! assert!(effective.missing_required.is_empty());
//!
//! let rules = Rules::new(effective.rights, policy.forbids());
//! assert!(matches!(rules.decide(&Access::new(Kind::NetHttp, "a.example.org:443")), Decision::Allow { .. }));
//! let Decision::Deny(denial) = rules.decide(&Access::new(Kind::NetHttp, "example.com:443")) else { panic!() };
//! assert_eq!(denial.to_failure().hint.as_deref(), Some("--grant net.http:example.com:443"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod ceilings;
mod decision;
mod effective;
mod error;
mod forbid;
mod grant;
mod hint;
mod index;
mod operator;
mod parse;
mod plugins;
mod rules;

pub use ceilings::{Ceilings, Excess};
pub use decision::{Decision, Denial, DenyRule};
pub use effective::{Effective, Unused, UnusedGrant, effective};
pub use error::PolicyError;
pub use forbid::{Forbidden, ForbiddenWhy};
pub use grant::{Grant, Requested};
pub use hint::grant_option;
pub use operator::{
    MAX_FORBIDS, MAX_PLUGINS, MAX_POLICY_LEN, OperatorPolicy, check_limits, demand,
};
pub use parse::parse;
pub use plugins::PluginFloor;
pub use rules::{Rules, registration_allowed};
