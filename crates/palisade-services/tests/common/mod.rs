//! A broker with every built-in service, and a plugin with rights to all that is harmless.
#![allow(dead_code, reason = "each test file uses a part")]

use std::sync::Arc;

use palisade_audit::{BoxFuture, MemoryRecorder, SystemClock};
use palisade_broker::{Broker, Caller, Gate, LocalBus, ServiceRegistry};
use palisade_egress::{AddressPolicy, Guard, http::Tls};
use palisade_model::{
    Failure, Generation, InstanceId, Limits, NodeId, Origin, PluginId, PluginRef, Rates,
};
use palisade_policy::Rules;
use palisade_services::{
    Builtin,
    desktop::Data,
    http::Fetcher,
    log::TracingSink,
    secret::{SecretValue, Secrets},
    storage::Storage,
};

/// One secret, `known`.
struct OneSecret;

impl Secrets for OneSecret {
    fn read<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<SecretValue>, Failure>> {
        Box::pin(async move {
            Ok(if name == "known" { Some(SecretValue::new("value")?) } else { None })
        })
    }
}

pub(crate) struct Room {
    folder: tempfile::TempDir,
    pub(crate) services: Arc<ServiceRegistry>,
    pub(crate) broker: Broker,
    pub(crate) caller: Arc<Caller>,
}

pub(crate) struct NoPlugins;

impl palisade_services::plugins::Plugins for NoPlugins {
    fn call(
        &self,
        _: palisade_broker::Context,
        _: palisade_services::plugins::CallParams,
    ) -> palisade_audit::BoxFuture<'static, Result<palisade_model::Payload, palisade_model::Failure>>
    {
        Box::pin(async {
            Err(palisade_model::Failure::new(
                palisade_model::ErrorCode::NotFound,
                "no other plugin is loaded",
            ))
        })
    }
}

pub(crate) fn room() -> Room {
    let folder = tempfile::tempdir().unwrap();
    let gate = Gate::new(Arc::new(MemoryRecorder::new(100)));
    let data = Arc::new(Data::new());
    data.provide("echo", |_, params| async { Ok(params) }).unwrap();
    let builtin = Builtin {
        sink: Arc::new(TracingSink),
        bus: LocalBus::new(),
        storage: Storage::open(folder.path(), Arc::new(SystemClock)).unwrap(),
        http: Fetcher::new(gate.clone(), Guard::new(AddressPolicy::new()), Tls::new().unwrap()),
        data,
        secrets: Arc::new(OneSecret),
        plugins: Arc::new(NoPlugins),
    };
    let services = Arc::new(ServiceRegistry::new());
    builtin.register(&services).unwrap();
    // Nobody listens on port 9 (discard) of this machine.
    let rights =
        ["storage.kv:*", "event.publish:>", "host.call:*", "secret:*", "net.http:127.0.0.1:9"];
    let rules = Rules::new(rights.iter().map(|r| r.parse().unwrap()).collect(), []);
    let origin = Origin::Folder { path: "/srv/p".into(), owner: 1000 };
    let plugin = Arc::new(PluginRef { id: PluginId::parse("p").unwrap(), origin });
    let instance =
        InstanceId { node: NodeId::local(), plugin, generation: Generation(1), serial: 1 };
    let rates = Rates { requests_per_second: 1_000_000, ..Rates::default() };
    let limits = Limits { rates, disk: 1 << 20, ..Limits::default() };
    let caller = Caller::plugin(instance, Arc::new(rules), &limits, Arc::new(SystemClock));
    let broker = Broker::new(gate, Arc::clone(&services));
    Room { folder, services, broker, caller }
}
