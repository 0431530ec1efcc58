//! Which rights hold for a plugin now: what it asks for, what is granted, the policy, and where the
//! paths really lead.
//!
//! A path right is resolved when it is granted and again at each start. What it leads to at the start
//! must lie within what it led to when somebody approved it; a symbolic link that was swapped in
//! between gives nothing.

use std::io;

use palisade_model::{
    Capability, CapabilitySet, ErrorCode, Failure, Kind, PluginRef, text::escape,
};
use palisade_policy::{
    Effective, Forbidden, Grant, OperatorPolicy, Rules, effective, grant_option,
};

use crate::{loaded::Loaded, store::StoredGrant};

/// Why a granted right cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathProblem {
    /// There is nothing at the path.
    #[error("there is no such file or folder")]
    Missing,
    /// The operating system does not let us look.
    #[error("{0}")]
    Unreadable(String),
    /// The real path cannot be written as a scope (it is not UTF-8, or has a wildcard in it).
    #[error("it leads to a path that cannot be written as a capability")]
    NoScope,
    /// It leads to something else than what was approved.
    #[error("it leads to {0}, which is not what was granted")]
    Moved(String),
    /// The policy forbids what it leads to.
    #[error("{0}")]
    Forbidden(String),
    /// Windows names drives, and no path of a capability does: nothing there could be meant.
    #[error("no file or folder of Windows can be granted")]
    Windows,
}

impl PathProblem {
    /// The rule behind it, where it is not the operator's.
    #[must_use]
    pub fn rule(&self) -> Option<&'static str> {
        match self {
            Self::Moved(_) | Self::Forbidden(_) => {
                Some("a granted path holds for where it led when it was granted")
            }
            Self::Windows => Some("a path of a capability begins with '/' and names no drive"),
            Self::Missing | Self::Unreadable(_) | Self::NoScope => None,
        }
    }

    /// What to do about it, whatever was granted.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Missing => Some("create it first"),
            Self::Windows => Some(
                "run the plugin on Linux or macOS, or have it keep its data in its own storage (storage.kv)",
            ),
            _ => None,
        }
    }
}

/// A granted right that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// The right.
    pub capability: Capability,
    /// Why not.
    pub problem: PathProblem,
}

impl From<&Unusable> for Failure {
    fn from(unusable: &Unusable) -> Failure {
        let shown = escape(&unusable.capability.to_string(), 400);
        let problem = &unusable.problem;
        let code = match problem {
            PathProblem::Missing | PathProblem::Unreadable(_) | PathProblem::NoScope => {
                ErrorCode::NotFound
            }
            PathProblem::Moved(_) | PathProblem::Forbidden(_) => ErrorCode::Denied,
            PathProblem::Windows => ErrorCode::NoBackend,
        };
        let hint = match problem {
            PathProblem::Moved(_) => grant_option(&unusable.capability),
            other => other.hint().map(str::to_owned),
        };
        let mut failure = Failure::new(code, format!("granted path {shown}: {problem}"));
        if let Some(rule) = problem.rule() {
            failure = failure.rule(rule);
        }
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Follows the symbolic links in a capability's path. Blocks.
pub(crate) fn resolve(capability: &Capability) -> Result<Capability, PathProblem> {
    let Some(scope) = capability.path() else { return Ok(capability.clone()) };
    if cfg!(windows) {
        return Err(PathProblem::Windows);
    }
    let real = std::fs::canonicalize(scope.path()).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => PathProblem::Missing,
        _ => PathProblem::Unreadable(escape(&e.to_string(), 200)),
    })?;
    let real = real.to_str().ok_or(PathProblem::NoScope)?;
    if real == scope.path() {
        return Ok(capability.clone());
    }
    let moved = scope.with_path(real).map_err(|_| PathProblem::NoScope)?;
    let resolved =
        Capability::new(capability.kind(), &moved.to_string()).map_err(|_| PathProblem::NoScope)?;
    // A folder whose name ends like a wildcard would mean more as a scope than it is.
    match resolved.path() {
        Some(scope) if *scope == moved => Ok(resolved),
        _ => Err(PathProblem::NoScope),
    }
}

/// What holds now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    /// Before paths were resolved.
    pub(crate) effective: Effective,
    /// What the plugin may do, with real paths.
    pub(crate) rights: CapabilitySet,
    /// Granted rights that cannot be used.
    pub(crate) unusable: Vec<Unusable>,
    /// When the first grant that counts ends, in seconds since 1970.
    pub(crate) until: Option<u64>,
}

impl Held {
    /// What holds at `now`. Blocks, where there are paths among the rights.
    pub(crate) fn now(
        loaded: &Loaded,
        grants: &[StoredGrant],
        policy: &OperatorPolicy,
        now: u64,
    ) -> Self {
        let plain: Vec<Grant> = grants.iter().map(|g| g.grant.clone()).collect();
        let effective = effective(&loaded.requested, &plain, policy, now, &loaded.digest);
        let counting: Vec<&StoredGrant> =
            grants.iter().filter(|g| g.grant.counts(now, &loaded.digest).is_ok()).collect();
        let until = counting.iter().filter_map(|g| g.grant.until).min();
        let (mut rights, mut unusable) = (CapabilitySet::new(), Vec::new());
        for right in effective.rights.iter() {
            match resolve_right(right, &counting, policy) {
                Ok(resolved) => {
                    rights.insert(resolved);
                }
                Err(problem) => unusable.push(Unusable { capability: right.clone(), problem }),
            }
        }
        Self { effective, rights, unusable, until }
    }

    /// Whether the plugin has all that it must have.
    pub(crate) fn require(&self, loaded: &Loaded) -> Result<(), Failure> {
        self.effective.require()?;
        let required = &loaded.requested.required;
        match self.unusable.iter().find(|u| required.contains(&u.capability)) {
            Some(unusable) => Err(unusable.into()),
            None => Ok(()),
        }
    }

    /// The rules of an instance that offers `offered`.
    pub(crate) fn rules(
        &self,
        loaded: &Loaded,
        offered: &CapabilitySet,
        policy: &OperatorPolicy,
    ) -> Rules {
        let mut rights = self.rights.clone();
        rights.extend(offered.iter().cloned());
        Rules::new(rights, policy.forbids()).with_requested(loaded.requested.union())
    }
}

fn resolve_right(
    right: &Capability,
    grants: &[&StoredGrant],
    policy: &OperatorPolicy,
) -> Result<Capability, PathProblem> {
    if right.path().is_none() {
        return Ok(right.clone());
    }
    let resolved = resolve(right)?;
    if !grants.iter().any(|g| resolved.is_subset_of(&g.resolved)) {
        return Err(PathProblem::Moved(escape(&resolved.scope().to_string(), 400)));
    }
    match policy.refuses(&resolved) {
        Some(forbidden) => Err(PathProblem::Forbidden(forbidden.to_string())),
        None => Ok(resolved),
    }
}

/// Checks that a grant could give something, and follows its path. Blocks.
pub(crate) fn check_grant(
    capability: &Capability,
    plugin: &PluginRef,
    loaded: &Loaded,
    policy: &OperatorPolicy,
) -> Result<Capability, Failure> {
    let shown = escape(&capability.to_string(), 400);
    let asked = |r: &Capability| r.is_subset_of(capability) || capability.is_subset_of(r);
    if !loaded.requested.all().any(asked) {
        let failure = Failure::new(
            ErrorCode::InvalidParams,
            format!("the manifest of {plugin} does not ask for {shown}"),
        );
        let list: Vec<String> =
            loaded.requested.all().map(|c| escape(&c.to_string(), 400)).collect();
        return Err(failure.hint(if list.is_empty() {
            "it asks for nothing".to_owned()
        } else {
            format!("it asks for {}", list.join(", "))
        }));
    }
    let refuse = |forbidden: Forbidden| {
        Failure::new(ErrorCode::Denied, forbidden.to_string())
            .rule(format!("forbid {}", escape(&forbidden.rule.to_string(), 400)))
            .hint("the operator can change 'forbid' in the policy")
    };
    // A wider grant than what is asked may overlap a forbid; each right is held against it later.
    if loaded.requested.all().any(|r| capability.is_subset_of(r))
        && let Some(forbidden) = policy.refuses(capability)
    {
        return Err(refuse(forbidden));
    }
    resolve(capability)
        .map_err(|problem| (&Unusable { capability: capability.clone(), problem }).into())
}

/// Values of the environment variables that `rights` cover.
pub(crate) fn environment(rights: &CapabilitySet) -> std::collections::BTreeMap<String, String> {
    if rights.of_kind(Kind::Env).next().is_none() {
        return Default::default();
    }
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| {
            rights.allows(&palisade_model::Access::new(Kind::Env, name)).is_some()
                // A prefix that was granted must not reach what makes loaders run foreign code.
                && palisade_manifest::environment::foreign_code(name).is_none()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_no_system_like_this_can_name_is_refused_with_its_rule() {
        let unusable = Unusable {
            capability: "fs.read:/srv/texts/**".parse().unwrap(),
            problem: PathProblem::Windows,
        };
        let failure = Failure::from(&unusable);
        assert_eq!(failure.code, ErrorCode::NoBackend);
        assert_eq!(
            failure.message,
            "granted path fs.read:/srv/texts/**: no file or folder of Windows can be granted"
        );
        assert!(failure.rule.unwrap().contains("begins with '/'"));
        assert!(failure.hint.unwrap().contains("on Linux or macOS"));
    }
}
