//! What the resolve step may reach: the registries that the package client is configured with.

use std::{collections::BTreeSet, sync::Arc};

use palisade_egress::{AddressClass, Authority, Decide, Entry, Standing};
use palisade_model::{Access, ErrorCode, Failure, Kind};

use super::Watch;

/// The rights of one resolve step.
pub(super) struct Reach {
    pub(super) authorities: BTreeSet<Authority>,
    pub(super) watch: Arc<dyn Watch>,
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
        )
        .hint("where the registry keeps its packages on this host too, name it (--registry-host HOST:PORT)"))
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
        self.watch.egress(entry);
    }
}
