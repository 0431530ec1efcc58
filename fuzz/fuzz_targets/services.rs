//! Parameters of every built-in service, through the broker: each is answered, and none fails within.
#![no_main]

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use libfuzzer_sys::fuzz_target;
use palisade_audit::{BoxFuture, MemoryRecorder, SystemClock};
use palisade_broker::{Broker, Caller, Context, Gate, LocalBus, Reach, ServiceRegistry};
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
    log::{LogSink, Tail},
    plugins::{CallParams, Plugins},
    secret::{SecretValue, Secrets},
    storage::Storage,
};
use tokio::runtime::Runtime;

struct NoSecrets;

impl Secrets for NoSecrets {
    fn read<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<SecretValue>, Failure>> {
        Box::pin(async { Ok(None) })
    }
}

struct NoPlugins;

impl Plugins for NoPlugins {
    fn call(
        &self,
        _: Context,
        _: CallParams,
    ) -> BoxFuture<'static, Result<Payload, Failure>> {
        Box::pin(async { Err(Failure::new(ErrorCode::NotFound, "no other plugin is loaded")) })
    }
}

struct Room {
    runtime: Runtime,
    broker: Broker,
    caller: Arc<Caller>,
    methods: Vec<String>,
}

fn room() -> Room {
    // In memory where there is such a place, since each write is synced; emptied by the next run.
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = parent.join("palisade-fuzz-services");
    let _ = std::fs::remove_dir_all(&folder);
    let gate = Gate::new(Arc::new(MemoryRecorder::new(100)));
    let data = Arc::new(Data::new());
    data.provide("echo", |_, params| async { Ok(params) }).expect("a name");
    let sink: Arc<dyn LogSink> = Arc::new(Tail::new(100, 1 << 16));
    let services = Arc::new(ServiceRegistry::new());
    let builtin = Builtin {
        sink,
        bus: LocalBus::new(),
        storage: Storage::open(folder, Arc::new(SystemClock)).expect("a folder"),
        http: Fetcher::new(
            gate.clone(),
            Guard::new(AddressPolicy::new()),
            Tls::new().expect("TLS"),
        ),
        data,
        secrets: Arc::new(NoSecrets),
        plugins: Arc::new(NoPlugins),
    };
    builtin.register(&services).expect("names of their own");
    // Nobody listens on port 9 (discard) of this machine.
    let rights =
        ["storage.kv:*", "event.publish:>", "host.call:*", "secret:*", "net.http:127.0.0.1:9"];
    let rules = Rules::new(rights.iter().map(|r| r.parse().expect("a right")).collect(), []);
    let origin = Origin::Folder { path: "/srv/p".into(), owner: 1000 };
    let plugin = Arc::new(PluginRef { id: PluginId::parse("p").expect("an id"), origin });
    let instance =
        InstanceId { node: NodeId::local(), plugin, generation: Generation(1), serial: 1 };
    let rates = Rates { requests_per_second: 1_000_000, ..Rates::default() };
    let limits = Limits { rates, disk: 1 << 20, ..Limits::default() };
    let caller = Caller::plugin(instance, Arc::new(rules), &limits, Arc::new(SystemClock));
    let methods = services.names(Reach::Method);
    let broker = Broker::new(gate, services);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    Room { runtime, broker, caller, methods }
}

fuzz_target!(|data: &[u8]| {
    static ROOM: OnceLock<Room> = OnceLock::new();
    let room = ROOM.get_or_init(room);
    // A line is a request: one byte for the method, then the parameters.
    for line in data.split(|byte| *byte == b'\n').take(16) {
        let Some((which, params)) = line.split_first() else { continue };
        let which = usize::from(*which) % (room.methods.len() + 1);
        let method = room.methods.get(which).map_or("host.call", String::as_str);
        let params = Payload::from_json_text(params.to_vec());
        let answer = room.broker.request(&room.caller, method, &params, None);
        if let Err(failure) = room.runtime.block_on(answer) {
            assert_ne!(failure.code, ErrorCode::Internal, "{method}: {failure}");
        }
    }
});
