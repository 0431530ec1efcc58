//! A broker with every built-in service, and a plugin with rights to all that is harmless. The fuzz target
//! `services` has it too.
#![allow(dead_code, reason = "each test file uses a part")]

use std::{path::Path, sync::Arc};

use palisade_audit::{BoxFuture, MemoryRecorder, SystemClock};
use palisade_broker::{Broker, Caller, Context, Gate, LocalBus, ServiceRegistry};
use palisade_egress::{AddressPolicy, Guard, http::Tls};
use palisade_model::{
    ErrorCode, Failure, Generation, InstanceId, Limits, NodeId, Origin, Payload, PluginId,
    PluginRef, Rates,
};
use palisade_policy::Rules;
use palisade_services::{
    Builtin,
    desktop::Data,
    http::Fetcher,
    log::LogSink,
    plugins::{CallParams, Plugins},
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

struct NoPlugins;

impl Plugins for NoPlugins {
    fn call(&self, _: Context, _: CallParams) -> BoxFuture<'static, Result<Payload, Failure>> {
        Box::pin(async { Err(Failure::new(ErrorCode::NotFound, "no other plugin is loaded")) })
    }
}

pub(crate) struct Room {
    pub(crate) services: Arc<ServiceRegistry>,
    pub(crate) broker: Broker,
    pub(crate) caller: Arc<Caller>,
}

/// A room that keeps what plugins keep in `folder`.
pub(crate) fn room(folder: &Path, sink: Arc<dyn LogSink>) -> Room {
    let gate = Gate::new(Arc::new(MemoryRecorder::new(100)));
    let data = Arc::new(Data::new());
    data.provide("echo", |_, params| async { Ok(params) }).unwrap();
    let builtin = Builtin {
        sink,
        bus: LocalBus::new(),
        storage: Storage::open(folder, Arc::new(SystemClock)).unwrap(),
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
    Room { services, broker, caller }
}
