//! Plugins, clocks and brokers for the tests of this crate.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use palisade_audit::{Clock, MemoryRecorder, Stamp, SystemClock};
use palisade_broker::{Broker, Caller, Gate, ServiceRegistry};
use palisade_model::{
    CapabilitySet, Failure, Generation, InstanceId, Limits, NodeId, Origin, Payload, PluginId,
    PluginRef, Rates,
};
use palisade_policy::Rules;
use serde_json::Value;

/// A running plugin with these rights, from a folder named after its id.
pub(crate) fn plugin(id: &str, rights: &[&str]) -> Arc<Caller> {
    plugin_forbidden(id, rights, &[])
}

/// As [`plugin`], with forbids of the operator's.
pub(crate) fn plugin_forbidden(id: &str, rights: &[&str], forbids: &[&str]) -> Arc<Caller> {
    plugin_from(id, &format!("/srv/{id}"), rights, forbids, Limits::default().disk)
}

/// As [`plugin_forbidden`], from any folder and with its own bound of what it keeps.
pub(crate) fn plugin_from(
    id: &str,
    folder: &str,
    rights: &[&str],
    forbids: &[&str],
    disk: u64,
) -> Arc<Caller> {
    let set =
        |texts: &[&str]| -> CapabilitySet { texts.iter().map(|c| c.parse().unwrap()).collect() };
    let forbids = set(forbids);
    let rules = Arc::new(Rules::new(set(rights), forbids.iter()));
    let origin = Origin::Folder { path: folder.into(), owner: 1000 };
    let plugin = Arc::new(PluginRef { id: PluginId::parse(id).unwrap(), origin });
    let instance =
        InstanceId { node: NodeId::local(), plugin, generation: Generation(1), serial: 1 };
    let rates = Rates { requests_per_second: 1_000_000, ..Rates::default() };
    let limits = Limits { rates, disk, ..Limits::default() };
    Caller::plugin(instance, rules, &limits, Arc::new(SystemClock))
}

/// A clock that goes only when told to; begins in 2001.
pub(crate) struct ManualClock(AtomicU64);

impl ManualClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(1_000_000_000 * 1_000_000_000)))
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_nanos()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Stamp {
        let now = self.0.load(Ordering::SeqCst);
        Stamp { unix_ns: now, monotonic_ns: now }
    }
}

/// A broker with what `register` registers, and its record.
pub(crate) fn broker(
    register: impl FnOnce(&ServiceRegistry, &Gate),
) -> (Broker, Arc<MemoryRecorder>) {
    let recorder = Arc::new(MemoryRecorder::new(1000));
    let gate = Gate::new(recorder.clone());
    let services = Arc::new(ServiceRegistry::new());
    register(&services, &gate);
    (Broker::new(gate, services), recorder)
}

/// One request.
pub(crate) async fn ask(
    broker: &Broker,
    caller: &Arc<Caller>,
    method: &str,
    params: Value,
) -> Result<Value, Failure> {
    let payload = Payload::json(&params).unwrap();
    Ok(broker.request(caller, method, &payload, None).await?.parse().unwrap())
}
