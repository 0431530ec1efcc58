//! Requests within TLS: with the trust of the engine behind walls, and with the host's where the host makes them.

use std::sync::{Arc, Mutex};

use palisade_audit::{MemoryRecorder, SystemClock};
use palisade_broker::{Broker, Caller, Gate, ServiceRegistry};
use palisade_egress::http::Tls;
use palisade_model::{CapabilitySet, Failure, Payload};
use palisade_policy::Rules;
use palisade_process::{Options, ProcessBackend};
use palisade_sandbox::{
    Backend as _, BoxFuture, Calls, HostCalls, HostRequest, LaunchSpec, OutputStream,
};
use palisade_services::http::{self, Fetcher};
use palisade_wasm::{WasmError, walled::WalledBackend};
use serde_json::{Value, json};

use super::{
    TIME, Walled,
    engines::behind_hostile,
    net::{echo_server, guard_for, ok, rights, tls_server},
    program,
    rights::{Net, does, wasi_guest},
    support::{ALL_RIGHTS, Bench, bench, built::build, initialize, rust_guest, tool},
    walled,
};

/// Both names lead to the same server.
const NAMES: &[&str] = &["shop.example", "other.example"];

fn granted(port: u16) -> [String; 2] {
    ["shop.example", "other.example"].map(|name| format!("net.http:{name}:{port}"))
}

fn net(granted: &[&str]) -> Arc<Net> {
    let (guard, rights) = (guard_for(NAMES), rights(granted));
    Arc::new(Net { lines: Mutex::default(), guard, rights })
}

fn backend(pem: &str) -> Result<WalledBackend, WasmError> {
    WalledBackend::with_roots(Arc::new(ProcessBackend::new(Options::default())), program(), pem)
}

/// From now on with an engine that trusts these authorities too. Compiled code stays where it was.
fn trust(walled: &mut Walled, pem: &str) {
    walled.backend = backend(pem).unwrap();
    walled.backend.keep_in(&walled.bench.dir.path().canonicalize().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn https_of_wasi_passes_the_walls_and_is_spoken_with_whom_the_roots_vouch_for() {
    assert!(matches!(backend("not PEM"), Err(WasmError::Roots(_))));
    let (port, pem, heads) = tls_server("shop.example", |_| ok("sealed")).await;
    let [shop, other] = granted(port);
    for wasm in [wasi_guest(), build("wasi3", "wasm32-wasip2", "wasi3_guest.wasm").unwrap()] {
        let net = net(&[&shop, &other]);
        let mut walled = walled(&wasm, Calls::Stateful);
        walled.bench.spec.limits.memory = 64 << 20;
        walled.bench.rights(&[&shop, &other]);
        trust(&mut walled, &pem);
        let url = format!("https://shop.example:{port}/a?b=c");
        let good = does(&mut walled, &net, "get", &url).await.remove(0);
        assert!(good.starts_with("status 200") && good.contains("\"sealed\""), "{good}");
        let head = heads.lock().unwrap().pop().unwrap().to_lowercase();
        assert!(head.starts_with("get /a?b=c http/1.1\r\n"), "{head}");
        assert_eq!(net.rights.recorded(&format!("allow {shop} at 127.0.0.1")), 1);

        let refused = ["error ErrorCode::TlsCertificateError"];
        let misnamed = format!("https://other.example:{port}/");
        let seen = does(&mut walled, &net, "get", &misnamed).await;
        assert_eq!(seen, refused, "a certificate for another name");
        // The host let it pass: the handshake named the host that was asked for.
        assert_eq!(net.rights.recorded(&format!("allow {other} at 127.0.0.1")), 1);
        trust(&mut walled, "");
        let seen = does(&mut walled, &net, "get", &url).await;
        assert_eq!(seen, refused, "an authority that nobody trusts");
        assert_eq!(net.rights.recorded("deny"), 0);
        assert!(heads.lock().unwrap().is_empty(), "nothing is asked of such a server");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_names_another_host_in_its_handshake_does_not_get_through() {
    let (port, _) = echo_server().await;
    let [shop, other] = granted(port);
    let net = net(&[&shop, &other]);
    let mut walled = behind_hostile();
    walled.bench.rights(&[&shop, &other]);
    let instance = walled.launch_for(Arc::clone(&net) as _).await.unwrap();
    initialize(&instance, "{}").await.unwrap();
    let hello = async |name: &str| {
        let args = json!({ "connect": format!("shop.example:{port}"), "name": name });
        tool(&instance, "hello", &args.to_string(), TIME).await.unwrap()
    };
    // The positive control: what it sends comes back, a handshake.
    assert_eq!(hello("shop.example").await, "22");
    assert_eq!(net.rights.recorded("deny"), 0);
    // An alert, although the other name is granted too.
    for (denied, name) in [(1, "other.example"), (2, "third.example")] {
        assert_eq!(hello(name).await, "21", "{name}");
        let recorded = net.rights.recorded(&format!("deny {shop}"));
        assert_eq!(recorded, denied, "{:?}", net.rights.record.lock().unwrap());
    }
}

/// A host with the service that fetches, as a real one has it.
struct Fetches {
    broker: Broker,
    caller: Arc<Caller>,
}

impl Fetches {
    fn new(spec: &LaunchSpec, pem: &str) -> Arc<Self> {
        let gate = Gate::new(Arc::new(MemoryRecorder::new(100)));
        let fetcher = Fetcher::new(gate.clone(), guard_for(NAMES), Tls::with_roots(pem).unwrap());
        let services = Arc::new(ServiceRegistry::new());
        services.register(http::service(fetcher)).unwrap();
        let rules = Arc::new(Rules::new(CapabilitySet::clone(&spec.rights), []));
        let (instance, clock) = (spec.instance.clone(), Arc::new(SystemClock));
        let caller = Caller::plugin(instance, rules, &spec.limits, clock);
        Arc::new(Self { broker: Broker::new(gate, services), caller })
    }
}

impl HostCalls for Fetches {
    fn request(&self, request: HostRequest) -> BoxFuture<'static, Result<Payload, Failure>> {
        self.broker.request(&self.caller, &request.method, &request.payload, request.trace.0)
    }

    fn output(&self, _stream: OutputStream, _line: &str) {}

    fn output_dropped(&self, _bytes: u64) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn https_of_palisade_plugin_is_spoken_by_the_host_for_guests_in_front_of_and_behind_walls() {
    let (port, pem, heads) = tls_server("shop.example", |_| ok("sealed")).await;
    let granted = granted(port);
    let rights: Vec<&str> =
        ALL_RIGHTS.into_iter().chain(granted.iter().map(String::as_str)).collect();
    let wasm = rust_guest();
    let prepare = |bench: &mut Bench| {
        bench.rights(&rights);
        bench.spec.limits.memory = 16 << 20;
    };
    let (mut in_front, mut behind) =
        (bench(&wasm, Calls::Stateful), walled(&wasm, Calls::Stateful));
    prepare(&mut in_front);
    prepare(&mut behind.bench);
    let fetch = async |has_walls: bool, pem: &str, name: &str| -> Value {
        let instance = if has_walls {
            behind.launch_for(Fetches::new(&behind.bench.spec, pem)).await
        } else {
            let host = Fetches::new(&in_front.spec, pem);
            let prepared = in_front.backend.prepare(&in_front.artifact).await.unwrap();
            prepared.launch(in_front.spec.clone(), host).await
        };
        let instance = instance.unwrap_or_else(|e| panic!("{e}"));
        initialize(&instance, "{}").await.unwrap();
        let args = json!({ "url": format!("https://{name}:{port}/a?b=c") }).to_string();
        let answer = tool(&instance, "fetch", &args, TIME).await.unwrap();
        serde_json::from_str(&answer).unwrap()
    };
    for has_walls in [false, true] {
        let good = fetch(has_walls, &pem, "shop.example").await;
        assert_eq!((&good["status"], &good["body"]), (&json!(200), &json!("sealed")), "{good}");
        let head = heads.lock().unwrap().pop().unwrap();
        assert!(head.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{head}");
        for (why, pem, name) in [
            ("an authority that nobody trusts", "", "shop.example"),
            ("a certificate for another name", pem.as_str(), "other.example"),
        ] {
            let refused = fetch(has_walls, pem, name).await;
            assert_eq!(refused["refused"], "PAL-UNAVAILABLE", "{why}: {refused}");
            let says = refused["message"].as_str().unwrap();
            let expected = format!("TLS with {name} failed: invalid peer certificate");
            assert!(says.starts_with(&expected), "{why}: {refused}");
        }
        assert!(heads.lock().unwrap().is_empty(), "nothing is asked of such a server");
    }
}
