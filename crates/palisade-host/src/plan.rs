//! What a launch would be, without launching: what is asked and why, what is granted, which wall there
//! is and what it gives. For `check` and for asking a person's consent.

use std::sync::{Arc, PoisonError};

use palisade_manifest::shown;
use palisade_model::{
    Capability, CapabilitySet, Failure, Guarantee, GuaranteeSet, Kind, Level, Limits, Origin, Risk,
};
use palisade_policy::{Forbidden, UnusedGrant, check_limits, grant_option};
use palisade_sandbox::{NoBackend, Resolver};
use serde::Serialize;

use crate::{
    Plugin,
    host::blocking,
    launch,
    loaded::Loaded,
    rights::{self, Held, PathProblem},
};

/// Longest reason that is shown, in characters.
const MAX_REASON: usize = 300;

/// What became of one request of the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "why")]
#[non_exhaustive]
pub enum RightState {
    /// Granted, all of it or the part in [`PlannedRight::granted`].
    Granted,
    /// Nobody has granted it.
    Missing,
    /// The policy forbids it; no grant helps.
    Forbidden(String),
    /// Granted, but its path cannot be used.
    Unusable(String),
}

/// One request of the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlannedRight {
    /// What is asked for.
    pub capability: Capability,
    /// Whether the plugin does not start without it.
    pub required: bool,
    /// Why, in the author's words, safe to show.
    pub reason: Option<String>,
    /// How much harm it can do.
    pub risk: Risk,
    /// What became of it.
    #[serde(flatten)]
    pub state: RightState,
    /// What holds of it, with real paths.
    pub granted: Vec<Capability>,
    /// The option that grants it, `--grant kind:scope`, where one can be written.
    pub option: Option<String>,
}

/// One thing that the plugin offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Contribution {
    /// What it is: `tool`, `command`, `hook`, `channel` or `service`, and its name.
    pub capability: Capability,
    /// What it does, in the author's words, safe to show.
    pub description: Option<String>,
}

/// The wall that a launch would get.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PlannedWall {
    /// The backend.
    pub backend: &'static str,
    /// What it guarantees for this plugin.
    pub guarantees: GuaranteeSet,
    /// How each holds, or why it does not.
    pub reasons: Vec<(Guarantee, Level, String)>,
}

/// A launch as it would be now.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LaunchPlan {
    /// The plugin's id.
    pub id: String,
    /// Its name for people, safe to show.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it does, safe to show.
    pub description: Option<String>,
    /// Where it comes from.
    pub origin: Origin,
    /// Digest of its manifest, to which grants are bound.
    pub digest: String,
    /// Digest of its files, where its manifest names it: those it runs from were found to have it.
    pub content: Option<String>,
    /// The program that is started is one of its files, which `content` is the digest of.
    pub content_has_program: bool,
    /// What it asks for; required first.
    pub requested: Vec<PlannedRight>,
    /// Grants that give nothing, and why.
    pub unused_grants: Vec<UnusedGrant>,
    /// What it offers.
    pub contributes: Vec<Contribution>,
    /// What it may use.
    pub limits: Limits,
    /// What the wall must guarantee.
    pub demand: GuaranteeSet,
    /// The wall, where one covers the demand.
    pub wall: Option<PlannedWall>,
    /// Why none does.
    pub no_wall: Option<Failure>,
    /// What each backend lacks, where none covers the demand.
    pub candidates: Option<NoBackend>,
    /// The wall was looked for as if everything that is asked for and can be granted were granted.
    pub assumes_consent: bool,
    /// Why it would not start because of rights or limits; `None`: it would.
    pub denied: Option<Failure>,
}

impl LaunchPlan {
    /// The options that grant what is missing, required first.
    #[must_use]
    pub fn missing_options(&self, with_optional: bool) -> Vec<String> {
        self.missing(with_optional).filter_map(|r| r.option.clone()).collect()
    }

    /// What nobody has granted and could be, required first.
    pub fn missing(&self, with_optional: bool) -> impl Iterator<Item = &PlannedRight> + '_ {
        self.requested
            .iter()
            .filter(move |r| (r.required || with_optional) && r.state == RightState::Missing)
    }

    /// Whether it would start now.
    ///
    /// # Errors
    /// Why not: rights first, then the wall.
    pub fn verdict(&self) -> Result<(), Failure> {
        match self.denied.as_ref().or(self.no_wall.as_ref()) {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }
}

impl Plugin {
    /// Finds out what a launch would be now. Nothing of the plugin runs and nothing changes.
    ///
    /// # Errors
    /// `PAL-DENIED` for callers that are not owners, and errors of the database. That the
    /// plugin could not start is no error here, see [`LaunchPlan::verdict`].
    pub async fn plan(&self) -> Result<LaunchPlan, Failure> {
        self.control().owner()?;
        let (host, cell) = (self.control().host(), self.cell());
        let loaded = cell.loaded();
        let mut grants = host.store.grants(cell.key).await?;
        grants.extend(
            cell.session_grants.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned(),
        );
        let held = host.held(Arc::clone(&loaded), grants).await?;
        let requested = requested(self, &loaded, &held);
        let denied = check_limits(&loaded.limits, &host.policy)
            .map_err(Failure::from)
            .and_then(|()| held.require(&loaded))
            .err();

        let assumes_consent =
            requested.iter().any(|r| r.required && r.state == RightState::Missing);
        let rights =
            if assumes_consent { as_if_granted(&requested, &held).await? } else { held.rights };
        let (mut wall, mut no_wall, mut candidates) = (None, None, None);
        match loaded.artifact().and_then(|_| launch::candidates(host, &loaded)) {
            Err(failure) => no_wall = Some(failure),
            Ok(backends) => {
                let spec = launch::spec(host, cell, &loaded, rights, 0);
                match Resolver::new(backends).resolve(&spec, None).await {
                    Ok(resolved) => {
                        wall = Some(PlannedWall {
                            backend: resolved.backend.name(),
                            guarantees: resolved.assessment.guarantees,
                            reasons: resolved.assessment.reasons,
                        });
                    }
                    Err(none) => {
                        no_wall = Some(launch::no_wall(host, &loaded, &none));
                        candidates = Some(none);
                    }
                }
            }
        }
        let manifest = &loaded.manifest;
        Ok(LaunchPlan {
            id: manifest.id.to_string(),
            name: manifest.display_name(),
            version: manifest.version.to_string(),
            description: manifest.description.as_ref().map(|text| shown(text, 400)),
            origin: cell.reference.origin.clone(),
            digest: manifest.digest().to_string(),
            content: manifest.content.map(|digest| digest.to_string()),
            content_has_program: manifest.content.is_some() && manifest.runs_its_own_file(),
            requested,
            unused_grants: held.effective.unused_grants,
            contributes: contributions(&loaded),
            limits: loaded.limits.clone(),
            demand: loaded.demand.clone(),
            wall,
            no_wall,
            candidates,
            assumes_consent,
            denied,
        })
    }
}

fn requested(plugin: &Plugin, loaded: &Loaded, held: &Held) -> Vec<PlannedRight> {
    let reasons = loaded.manifest.requested().reasons;
    let lists = [(&loaded.requested.required, true), (&loaded.requested.optional, false)];
    let host = plugin.control().host();
    let describe = |capability: &Capability, required: bool| {
        let within = |c: &Capability| c.is_subset_of(capability);
        let effective: Vec<&Capability> =
            held.effective.rights.iter().filter(|c| within(c)).collect();
        let unusable = held.unusable.iter().find(|u| within(&u.capability));
        let forbidden: Option<&Forbidden> =
            held.effective.forbidden.iter().find(|f| within(&f.right));
        let state = if let Some(unusable) = unusable {
            match &unusable.problem {
                PathProblem::Forbidden(why) => RightState::Forbidden(why.clone()),
                problem => RightState::Unusable(problem.to_string()),
            }
        } else if !effective.is_empty() {
            RightState::Granted
        } else if let Some(forbidden) = forbidden {
            RightState::Forbidden(forbidden.to_string())
        } else if let Some(forbidden) = host.policy.refuses(capability) {
            RightState::Forbidden(forbidden.to_string())
        } else {
            RightState::Missing
        };
        let granted = match state {
            RightState::Granted => effective
                .iter()
                .filter_map(|c| rights::resolve(c).ok())
                .filter(|c| held.rights.contains(c))
                .collect(),
            _ => Vec::new(),
        };
        PlannedRight {
            capability: capability.clone(),
            required,
            reason: reasons.get(capability).map(|text| shown(text, MAX_REASON)),
            risk: capability.risk(),
            state,
            granted,
            option: grant_option(capability),
        }
    };
    lists
        .into_iter()
        .flat_map(|(set, required)| set.iter().map(move |c| (c, required)))
        .map(|(c, required)| describe(c, required))
        .collect()
}

fn contributions(loaded: &Loaded) -> Vec<Contribution> {
    let c = &loaded.manifest.contributes;
    let tools = c.tools.iter().map(|x| (Kind::Tool, &x.name, Some(&x.description)));
    let commands = c.commands.iter().map(|x| (Kind::Command, &x.name, Some(&x.description)));
    let hooks = c.hooks.iter().map(|x| (Kind::Hook, &x.event, x.reason.as_ref()));
    let channels =
        c.channels.iter().map(|x| (Kind::Channel, &x.channel_type, Some(&x.description)));
    let services = c.services.iter().map(|x| (Kind::Service, &x.name, Some(&x.description)));
    tools
        .chain(commands)
        .chain(hooks)
        .chain(channels)
        .chain(services)
        .filter_map(|(kind, name, text)| {
            let capability = Capability::new(kind, name).ok()?;
            let description = text.map(|text| shown(text, MAX_REASON));
            Some(Contribution { capability, description })
        })
        .collect()
}

/// The rights that would hold if everything missing were granted. Paths that cannot be followed are left
/// out; the start would name them.
async fn as_if_granted(requested: &[PlannedRight], held: &Held) -> Result<CapabilitySet, Failure> {
    let missing: Vec<Capability> = requested
        .iter()
        .filter(|r| r.state == RightState::Missing)
        .map(|r| r.capability.clone())
        .collect();
    let mut rights = held.rights.clone();
    let resolved = blocking(move || {
        missing.iter().filter_map(|c| rights::resolve(c).ok()).collect::<Vec<_>>()
    });
    rights.extend(resolved.await?);
    Ok(rights)
}
