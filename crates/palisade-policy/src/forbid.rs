//! Forbids: the operator's exceptions, which win over every grant.
//!
//! A forbid is asked at each decision; no pattern is ever cut out of another. Where a right is made true
//! by a mount there is no later decision, so a right that overlaps a forbid is refused whole.

use std::fmt;

use palisade_model::{Capability, Enforcement, Kind};
use serde::Serialize;

/// The kinds that a forbid of `kind` holds for. A right that carries another in it falls under the
/// other's forbids: who may write a file, run it or open it as a device may read it; who may open a TCP
/// connection may speak HTTP over it.
pub(crate) const fn also_forbids(kind: Kind) -> &'static [Kind] {
    match kind {
        Kind::FsRead => &[Kind::FsRead, Kind::FsWrite, Kind::Exec, Kind::Device],
        Kind::FsWrite => &[Kind::FsWrite, Kind::Device],
        Kind::NetHttp => &[Kind::NetHttp, Kind::NetTcp],
        _ => &[],
    }
}

/// `rule` with the scope it has for each kind that it holds for. All of these kinds have the rule's scope
/// form, so the scope parses again.
pub(crate) fn expand(rule: &Capability) -> Vec<Capability> {
    let also = also_forbids(rule.kind());
    if also.is_empty() {
        return vec![rule.clone()];
    }
    let scope = rule.scope().to_string();
    also.iter().filter_map(|kind| Capability::new(*kind, &scope).ok()).collect()
}

/// A right that a forbid takes away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Forbidden {
    /// The right.
    pub right: Capability,
    /// The forbid, as it stands in the policy.
    pub rule: Capability,
    /// In which way.
    pub why: ForbiddenWhy,
}

/// How a right and a forbid meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForbiddenWhy {
    /// Everything that the right covers is forbidden.
    Within,
    /// Part of it is forbidden, and the right is made true by a mount, which cannot hold an exception.
    MountCannotHoldException,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |c: &Capability| palisade_model::text::escape(&c.to_string(), 400);
        let (right, rule) = (show(&self.right), show(&self.rule));
        match self.why {
            ForbiddenWhy::Within => write!(f, "{right} is forbidden by the policy's {rule}"),
            ForbiddenWhy::MountCannotHoldException => write!(
                f,
                "{right} overlaps the policy's forbid {rule}; a mount cannot hold that exception, so the right is refused whole: ask for or grant a narrower one"
            ),
        }
    }
}

/// Whether `rule` takes `right` away, and how.
pub(crate) fn refuses(rule: &Capability, right: &Capability) -> Option<ForbiddenWhy> {
    let same_kind = expand(rule).into_iter().find(|c| c.kind() == right.kind())?;
    if right.is_subset_of(&same_kind) {
        return Some(ForbiddenWhy::Within);
    }
    let mounted = right.kind().enforcement() == Enforcement::Mount;
    let overlap = same_kind.is_subset_of(right) || is_folder_around(right, &same_kind);
    (mounted && overlap).then_some(ForbiddenWhy::MountCannotHoldException)
}

/// Whether `right` names, without `/**`, a folder that the forbidden path lies in. As a pattern it covers
/// the folder alone; once mounted, a folder shows what is in it.
fn is_folder_around(right: &Capability, rule: &Capability) -> bool {
    match (right.path(), rule.path()) {
        (Some(right), Some(rule)) => {
            let folder = right.path().trim_end_matches('/');
            rule.path().strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
        }
        _ => false,
    }
}
