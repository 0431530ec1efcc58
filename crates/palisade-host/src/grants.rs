//! Granting, taking back, consenting; and making a change hold for a plugin that runs.
//!
//! A revocation holds from the moment in which its call returns: what the broker decides follows the
//! new rules at once, and where a wall cannot take a right away from a running plugin, the plugin is
//! killed.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use palisade_audit::RecordKind;
use palisade_broker::Action;
use palisade_model::{Capability, ErrorCode, Failure, Kind, Principal, text::escape};
use palisade_policy::Grant;
use palisade_sandbox::RightsChange;
use serde::Serialize;

use crate::{
    Plugin,
    cell::PluginCell,
    deliver,
    host::{HostInner, blocking},
    plugin, rights,
    running::{Running, Way},
    store::{ConsentRow, StoredGrant},
};

/// How long a grant holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GrantOptions {
    /// It ends after this time. `None`: it has no end.
    pub valid_for: Option<Duration>,
    /// It is not stored, and ends with this host.
    pub for_this_host: bool,
}

impl GrantOptions {
    /// Stored, without an end.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends after `time` (whole seconds; at least one).
    #[must_use]
    pub fn valid_for(mut self, time: Duration) -> Self {
        self.valid_for = Some(time);
        self
    }

    /// Not stored: ends with this host. For rights given with a command line.
    #[must_use]
    pub fn for_this_host(mut self) -> Self {
        self.for_this_host = true;
        self
    }
}

/// When a change of rights holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Effect {
    /// The plugin does not run; from its next start on.
    AtNextStart,
    /// Now.
    InForce,
    /// The wall of the running plugin cannot be opened further; from its next start on.
    NeedsRestart,
    /// Now: the plugin lost something that it cannot run without, or that its wall cannot take away
    /// while it runs, and was killed.
    Ended,
}

/// A grant as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Granted {
    /// What was granted.
    pub capability: Capability,
    /// The same with symbolic links resolved as they led when it was granted.
    pub resolved: Capability,
    /// Who granted it.
    pub by: Principal,
    /// When, in seconds since 1970.
    pub at: u64,
    /// The first second in which it no longer counts; `None`: it has no end.
    pub until: Option<u64>,
    /// Whether it is stored; if not, it ends with this host.
    pub stored: bool,
    /// For which manifest it was given: its digest, `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Whether it counts now: it was given for the manifest that is loaded, and its time is not over.
    pub counts: bool,
}

/// Somebody's answer to what a plugin asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consent {
    /// Agreed to these, each of which lies within what the manifest asks for.
    Agreed(Vec<Capability>),
    /// Refused.
    Refused,
}

/// An answer that was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConsentRecord {
    /// Who answered.
    pub by: Principal,
    /// When, in seconds since 1970.
    pub at: u64,
    /// What was agreed to; `None` where it was refused.
    pub agreed: Option<Vec<Capability>>,
    /// Whether it was for the manifest that is loaded.
    pub current: bool,
}

impl Plugin {
    /// Grants a capability for the manifest that is loaded; another manifest has to be granted it
    /// again. It may be narrower or wider than what the manifest asks for; a wider one gives what is
    /// asked for. Symbolic links in a path are followed now, and the grant holds for where they lead.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidParams`] for what the manifest does not ask for, [`ErrorCode::NotFound`]
    /// for a path that is not there, [`ErrorCode::Denied`] for what the policy forbids, and what the
    /// gate refuses.
    pub async fn grant(&self, capability: Capability) -> Result<Effect, Failure> {
        self.grant_with(capability, GrantOptions::new()).await
    }

    /// [`Plugin::grant`] with an end, or for this host only.
    ///
    /// # Errors
    /// As [`Plugin::grant`].
    pub async fn grant_with(
        &self,
        capability: Capability,
        options: GrantOptions,
    ) -> Result<Effect, Failure> {
        let given = self.checked(std::slice::from_ref(&capability), options).await;
        self.give(vec![capability], given, options).await
    }

    /// Grants everything that the manifest asks for and that the policy does not forbid. What is
    /// optional and has a path that is not there is left out. Gives what was granted.
    ///
    /// # Errors
    /// As [`Plugin::grant`].
    pub async fn grant_requested(&self) -> Result<Vec<Capability>, Failure> {
        self.grant_requested_with(GrantOptions::new()).await
    }

    /// [`Plugin::grant_requested`] with an end, or for this host only.
    ///
    /// # Errors
    /// As [`Plugin::grant`].
    pub async fn grant_requested_with(
        &self,
        options: GrantOptions,
    ) -> Result<Vec<Capability>, Failure> {
        let loaded = self.cell().loaded();
        let required: Vec<Capability> = loaded.requested.required.iter().cloned().collect();
        let mut given = self.checked(&required, options).await;
        let mut names = required;
        for capability in loaded.requested.optional.iter() {
            // What cannot be granted and is not needed is no error.
            if let (Ok(one), Ok(all)) =
                (self.checked(std::slice::from_ref(capability), options).await, &mut given)
            {
                names.push(capability.clone());
                all.extend(one);
            }
        }
        self.give(names.clone(), given, options).await?;
        Ok(names)
    }

    /// Takes back every grant that lies within `capability`. Holds at once, see [`Effect`].
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] where nothing lies within it, and what the gate refuses.
    pub async fn revoke(&self, capability: Capability) -> Result<Effect, Failure> {
        let (host, cell) = (self.control().host(), self.cell());
        host.check_open()?;
        let name = capability.to_string();
        let action = Action::new(RecordKind::Grant)
            .about(Arc::clone(&cell.reference))
            .name(&name)
            .detail("revoke");
        host.gate()
            .run(self.control().caller(), action, || async {
                let mut taken = {
                    let mut session =
                        cell.session_grants.lock().unwrap_or_else(PoisonError::into_inner);
                    let before = session.len();
                    session.retain(|g| !g.grant.capability.is_subset_of(&capability));
                    before - session.len()
                };
                taken += host.store.revoke(cell.key, capability.clone()).await?.len();
                if taken == 0 {
                    let shown = escape(&name, 400);
                    let message =
                        format!("nothing within {shown} is granted to {}", cell.reference);
                    return Err(Failure::new(ErrorCode::NotFound, message));
                }
                reapply(host, cell, true).await
            })
            .await
    }

    /// Takes back everything that is granted. Gives what was taken. Holds at once, see [`Effect`].
    ///
    /// # Errors
    /// What the gate refuses; errors of the database.
    pub async fn revoke_all(&self) -> Result<(Vec<Capability>, Effect), Failure> {
        let (host, cell) = (self.control().host(), self.cell());
        host.check_open()?;
        let action = Action::new(RecordKind::Grant)
            .about(Arc::clone(&cell.reference))
            .name("everything")
            .detail("revoke");
        host.gate()
            .run(self.control().caller(), action, || async {
                let session = std::mem::take(
                    &mut *cell.session_grants.lock().unwrap_or_else(PoisonError::into_inner),
                );
                let mut taken: Vec<Capability> =
                    session.into_iter().map(|g| g.grant.capability).collect();
                let stored = host.store.revoke_all(cell.key).await;
                // What is gone holds no longer, whatever became of the rest.
                let effect = reapply(host, cell, true).await;
                taken.extend(stored?);
                Ok((taken, effect?))
            })
            .await
    }

    /// Stores somebody's answer to what the plugin asks for, and grants what was agreed to.
    ///
    /// # Errors
    /// [`ErrorCode::Denied`] where the policy does not let people consent; otherwise as
    /// [`Plugin::grant`].
    pub async fn consent(&self, answer: Consent) -> Result<Effect, Failure> {
        let (host, cell) = (self.control().host(), self.cell());
        host.check_open()?;
        let (agreed, given) = match answer {
            Consent::Agreed(list) => {
                let given = self.checked(&list, GrantOptions::new()).await;
                (Some(list), given)
            }
            Consent::Refused => (None, Ok(Vec::new())),
        };
        let name = match &agreed {
            Some(list) => joined(list),
            None => "refused".to_owned(),
        };
        let action =
            Action::new(RecordKind::Consent).about(Arc::clone(&cell.reference)).name(&name);
        host.gate()
            .run(self.control().caller(), action, || async {
                host.policy.check_consent()?;
                let answer = ConsentRow {
                    by: Principal::clone(self.control().caller().principal()),
                    at: host.now(),
                    digest: cell.loaded().digest,
                    agreed,
                };
                host.store.consent(cell.key, answer, given?).await?;
                reapply(host, cell, false).await
            })
            .await
    }

    /// What is granted to the plugin.
    ///
    /// # Errors
    /// [`ErrorCode::Denied`] for callers that are not owners; errors of the database.
    pub async fn grants(&self) -> Result<Vec<Granted>, Failure> {
        self.control().owner()?;
        let (host, cell) = (self.control().host(), self.cell());
        let stored = host.store.grants(cell.key).await?;
        let session = cell.session_grants.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (now, digest) = (host.now(), cell.loaded().digest);
        let show = |g: StoredGrant, stored| Granted {
            counts: g.grant.counts(now, &digest).is_ok(),
            digest: palisade_manifest::Digest(g.grant.manifest_digest).to_string(),
            capability: g.grant.capability,
            resolved: g.resolved,
            by: g.grant.by,
            at: g.grant.at,
            until: g.grant.until,
            stored,
        };
        let stored = stored.into_iter().map(|g| show(g, true));
        Ok(stored.chain(session.into_iter().map(|g| show(g, false))).collect())
    }

    /// The answers that were given, oldest first.
    ///
    /// # Errors
    /// As [`Plugin::grants`].
    pub async fn consents(&self) -> Result<Vec<ConsentRecord>, Failure> {
        self.control().owner()?;
        let digest = self.cell().loaded().digest;
        let rows = self.control().host().store.consents(self.cell().key).await?;
        let show = |row: ConsentRow| ConsentRecord {
            by: row.by,
            at: row.at,
            agreed: row.agreed,
            current: row.digest == digest,
        };
        Ok(rows.into_iter().map(show).collect())
    }

    /// The grants that these would be, with their paths followed.
    async fn checked(
        &self,
        capabilities: &[Capability],
        options: GrantOptions,
    ) -> Result<Vec<StoredGrant>, Failure> {
        let (host, cell) = (self.control().host(), self.cell());
        let (loaded, policy) = (cell.loaded(), Arc::clone(&host.policy));
        let (reference, list) = (Arc::clone(&cell.reference), capabilities.to_vec());
        let by = Principal::clone(self.control().caller().principal());
        let at = host.now();
        let until = options.valid_for.map(|time| at.saturating_add(time.as_secs().max(1)));
        let check = move || {
            list.into_iter()
                .map(|capability| {
                    let resolved = rights::check_grant(&capability, &reference, &loaded, &policy)?;
                    let by = by.clone();
                    let manifest_digest = loaded.digest;
                    let grant = Grant { capability, by, at, until, manifest_digest };
                    Ok(StoredGrant { grant, resolved })
                })
                .collect()
        };
        blocking(check).await?
    }

    /// Records and stores grants, and makes them hold.
    async fn give(
        &self,
        names: Vec<Capability>,
        given: Result<Vec<StoredGrant>, Failure>,
        options: GrantOptions,
    ) -> Result<Effect, Failure> {
        let (host, cell) = (self.control().host(), self.cell());
        host.check_open()?;
        let name = joined(&names);
        let action = Action::new(RecordKind::Grant).about(Arc::clone(&cell.reference)).name(&name);
        host.gate()
            .run(self.control().caller(), action, || async {
                let given = given?;
                if options.for_this_host {
                    let mut session =
                        cell.session_grants.lock().unwrap_or_else(PoisonError::into_inner);
                    session.retain(|old| {
                        !given.iter().any(|new| new.grant.capability == old.grant.capability)
                    });
                    session.extend(given);
                } else {
                    host.store.grant(cell.key, given).await?;
                }
                reapply(host, cell, false).await
            })
            .await
    }
}

fn joined(list: &[Capability]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Works out again what holds, and makes it hold for the running plugin. `shrinking`: something was
/// taken away, so a failure on the way ends the plugin.
pub(crate) async fn reapply(
    host: &Arc<HostInner>,
    cell: &Arc<PluginCell>,
    shrinking: bool,
) -> Result<Effect, Failure> {
    let Some(running) = cell.running() else { return Ok(Effect::AtNextStart) };
    let result = reapply_to(host, cell, &running).await;
    match &result {
        Ok(Effect::Ended) => {}
        Err(_) if shrinking => {}
        _ => return result,
    }
    plugin::end(cell, true);
    cell.rests(crate::watch::REAPED_WITHIN).await?;
    result
}

async fn reapply_to(
    host: &Arc<HostInner>,
    cell: &Arc<PluginCell>,
    running: &Arc<Running>,
) -> Result<Effect, Failure> {
    let loaded = &running.loaded;
    let mut grants = host.store.grants(cell.key).await?;
    grants
        .extend(cell.session_grants.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
    let held = host.held(Arc::clone(loaded), grants).await?;
    let rules = held.rules(loaded, &running.offer.registered, &host.policy);
    running.caller.set_rules(Arc::new(rules));
    if held.require(loaded).is_err() {
        return Ok(Effect::Ended);
    }
    let before = running.wall_rights.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut effect = Effect::InForce;
    if let Way::Resident { watched, .. } = &running.way {
        match watched.instance.set_rights(Arc::new(held.rights.clone())) {
            RightsChange::Applied => {}
            RightsChange::NeedsRestart if before.is_subset_of(&held.rights) => {
                effect = Effect::NeedsRestart;
            }
            RightsChange::NeedsRestart => return Ok(Effect::Ended),
        }
    }
    if effect == Effect::InForce {
        *running.wall_rights.lock().unwrap_or_else(PoisonError::into_inner) = held.rights.clone();
    }
    let subscribed = |set: &palisade_model::CapabilitySet| {
        set.of_kind(Kind::EventSubscribe).cloned().collect::<Vec<_>>()
    };
    if subscribed(&before) != subscribed(&held.rights) {
        running.end_subscriptions();
        deliver::subscribe(host, running, &held.rights).await?;
    }
    watch_expiry(host, cell, running, held.until);
    Ok(effect)
}

/// Has the rights worked out again when the first of the grants that count ends at `until` (seconds
/// since 1970).
pub(crate) fn watch_expiry(
    host: &Arc<HostInner>,
    cell: &Arc<PluginCell>,
    running: &Arc<Running>,
    until: Option<u64>,
) {
    running.until.send_replace(until);
    if until.is_some() && running.is_first_expiry() {
        let task = expiries(Arc::clone(host), Arc::clone(cell), running.until.subscribe());
        running.adopt(tokio::spawn(task).abort_handle());
    }
}

fn expiries(
    host: Arc<HostInner>,
    cell: Arc<PluginCell>,
    mut until: tokio::sync::watch::Receiver<Option<u64>>,
) -> palisade_sandbox::BoxFuture<'static, ()> {
    Box::pin(async move {
        loop {
            let next = *until.borrow_and_update();
            let changed = until.changed();
            let Some(next) = next else {
                if changed.await.is_err() {
                    return;
                }
                continue;
            };
            let left = Duration::from_secs(next.saturating_sub(host.now()));
            tokio::select! {
                changed = changed => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(left) => {
                    if let Err(failure) = reapply(&host, &cell, true).await {
                        tracing::warn!(plugin = %cell.reference, "a grant has ended: {failure}");
                        return;
                    }
                }
            }
        }
    })
}
