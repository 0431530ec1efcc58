//! What the resolve step may reach: the registries that the package client is configured with.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use palisade_egress::{AddressClass, Authority, Decide, Entry, Standing, Verdict};
use palisade_model::{Access, ErrorCode, Failure, Kind};

use super::Watch;

/// Most refused destinations that are remembered.
const MAX_REFUSED: usize = 8;

/// The rights of one resolve step.
pub(super) struct Reach {
    pub(super) authorities: BTreeSet<Authority>,
    watch: Arc<dyn Watch>,
    refused: Mutex<BTreeSet<Authority>>,
}

impl Reach {
    pub(super) fn new(authorities: BTreeSet<Authority>, watch: Arc<dyn Watch>) -> Self {
        Self { authorities, watch, refused: Mutex::default() }
    }

    /// What to do about an installation that failed because it went elsewhere, if it did.
    pub(super) fn hint(&self) -> Option<String> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<String> = refused.iter().map(ToString::to_string).collect();
        (!names.is_empty()).then(|| {
            format!(
                "the client was sent to {}, and packages are fetched from the configured registry only; install the package yourself and name its program",
                names.join(", ")
            )
        })
    }
}

impl Decide for Reach {
    fn decide(&self, access: &Access<'_>) -> Result<(), Failure> {
        let known = Authority::parse(access.target).is_ok_and(|a| self.authorities.contains(&a));
        if known && access.kind == Kind::NetHttp {
            return Ok(());
        }
        let registries: Vec<String> = self.authorities.iter().map(ToString::to_string).collect();
        Err(Failure::new(
            ErrorCode::Denied,
            format!(
                "{} is not the registry; packages are fetched from {} only",
                palisade_model::text::escape(access.target, 120),
                registries.join(", ")
            ),
        ))
    }

    /// The user configured the names, so that they may lead into a private network or to this machine,
    /// as those of a company's registry or of a test do. No registry is where clouds hand out
    /// credentials.
    fn standing(&self, access: &Access<'_>) -> Standing {
        let address = Authority::parse(access.target).ok().and_then(|a| a.host().address());
        match address.map(AddressClass::of) {
            None
            | Some(
                AddressClass::Metadata
                | AddressClass::LinkLocal
                | AddressClass::Unspecified
                | AddressClass::Multicast,
            ) => Standing::Silent,
            Some(_) => Standing::Named,
        }
    }

    fn record(&self, entry: &Entry<'_>) {
        if let Verdict::Refused { .. } = entry.verdict {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            if refused.len() < MAX_REFUSED {
                refused.insert(entry.authority.clone());
            }
        }
        self.watch.egress(entry);
    }
}
