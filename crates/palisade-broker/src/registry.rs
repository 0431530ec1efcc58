//! Which services there are.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use palisade_model::{Access, Kind};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::{
    BrokerError, Reach, Service,
    service::{Registered, ServiceInfo},
};

/// Longest name of a service in bytes.
pub const MAX_NAME: usize = 128;

/// The services of one host. Services may be added at any time and stay.
#[derive(Default)]
pub struct ServiceRegistry {
    services: RwLock<BTreeMap<(Reach, String), Arc<Registered>>>,
}

impl ServiceRegistry {
    /// No services.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a service.
    ///
    /// # Errors
    /// [`BrokerError::DuplicateService`] if the name is taken, and [`BrokerError::ServiceName`] if it
    /// could not be granted.
    pub fn register<P>(&self, service: Service<P>) -> Result<(), BrokerError>
    where
        P: DeserializeOwned + JsonSchema + Send + 'static,
    {
        let key = service.key();
        let grantable = Access::new(Kind::HostCall, &key.1).canonical_target().is_some();
        if key.1.len() > MAX_NAME || !grantable {
            return Err(BrokerError::ServiceName(key.1.chars().take(MAX_NAME).collect()));
        }
        let mut services = self.services.write().unwrap_or_else(PoisonError::into_inner);
        // `host.call` itself is the broker's.
        if services.contains_key(&key)
            || key == (Reach::Method, crate::broker::HOST_CALL.to_owned())
        {
            return Err(BrokerError::DuplicateService(key.1));
        }
        services.insert(key, Arc::new(service.erase()));
        Ok(())
    }

    pub(crate) fn find(&self, reach: Reach, name: &str) -> Option<Arc<Registered>> {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        services.get(&(reach, name.to_owned())).map(Arc::clone)
    }

    /// The names of what is reached so.
    #[must_use]
    pub fn names(&self, reach: Reach) -> Vec<String> {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        services.keys().filter(|(r, _)| *r == reach).map(|(_, name)| name.clone()).collect()
    }

    /// All services, methods first, by name.
    #[must_use]
    pub fn list(&self) -> Vec<ServiceInfo> {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        services.values().map(|registered| registered.info.clone()).collect()
    }
}
