//! What the tests of this crate share: plugins written as text, launched by the real backend.
#![allow(dead_code)]

pub(crate) mod built;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use palisade_model::{
    CapabilitySet, ErrorCode, Failure, Generation, GuaranteeSet, InstanceId, Limits, NodeId,
    Origin, Payload, PluginId, PluginRef,
};
use palisade_sandbox::{
    Artifact, Backend, BoxFuture, Calls, Content, HostCalls, HostRequest, Instance, Invocation,
    LaunchSpec, OutputStream, Program, Runtime, SandboxError, ToolCall, Trace, Wire,
};
use palisade_wasm::{Options, WasmBackend};
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A plugin whose tools misbehave, each in its own way. The first letter of the tool's name says which.
pub(crate) const GUEST: &str = include_str!("guest.wat");

/// A module for Extism whose functions open files of the older WASI: `fill` as many as it can, `again` as many once
/// it has closed three. They end with how many, and the number of the error behind it in two digits.
pub(crate) const FILES: &str = include_str!("files.wat");

/// Answers what the test says, and remembers what was asked.
#[derive(Default)]
pub(crate) struct Host {
    pub(crate) requests: Mutex<Vec<(String, String)>>,
    pub(crate) answer: Mutex<Option<Result<String, Failure>>>,
    pub(crate) lines: Mutex<Vec<String>>,
    pub(crate) dropped: Mutex<u64>,
    /// The task that asked last.
    pub(crate) task: Mutex<Option<tokio::task::Id>>,
}

impl HostCalls for Host {
    fn request(&self, request: HostRequest) -> BoxFuture<'static, Result<Payload, Failure>> {
        let text = String::from_utf8(request.payload.bytes().to_vec()).unwrap();
        self.requests.lock().unwrap().push((request.method, text));
        *self.task.lock().unwrap() = tokio::task::try_id();
        let answer = self.answer.lock().unwrap().clone();
        Box::pin(async move {
            match answer {
                Some(answer) => answer.map(Payload::from_json_text),
                None => std::future::pending().await,
            }
        })
    }

    fn output(&self, _stream: OutputStream, line: &str) {
        self.lines.lock().unwrap().push(line.to_owned());
    }

    fn output_dropped(&self, bytes: u64) {
        *self.dropped.lock().unwrap() += bytes;
    }
}

/// Makes a component of a core module and the imports that its world names.
pub(crate) fn component(module: &str, imports: &[&str]) -> Vec<u8> {
    let mut wasm = wat::parse_str(module).unwrap();
    let mut resolve = Resolve::default();
    resolve.push_dir("wit/0.1.0").unwrap();
    let imports: String =
        imports.iter().map(|name| format!("import palisade:plugin/{name}@0.1.0;\n")).collect();
    let world = format!(
        "package test:plugin;\nworld plugin {{ {imports} export palisade:plugin/guest@0.1.0; }}"
    );
    let package = resolve.push_str("test.wit", &world).unwrap();
    let world = resolve.select_world(&[package], Some("plugin")).unwrap();
    embed_component_metadata(&mut wasm, &resolve, world, StringEncoding::UTF8).unwrap();
    palisade_wasm::componentize(&wasm).unwrap().into_owned()
}

/// The component of [`GUEST`].
pub(crate) fn guest() -> Vec<u8> {
    component(GUEST, &["clock", "storage", "random"])
}

/// The plugin in `guests/plugin`, which uses all of `palisade:plugin`.
pub(crate) fn rust_guest() -> Vec<u8> {
    built::build("plugin", "wasm32-unknown-unknown", "palisade_guest.wasm").unwrap()
}

/// One right of each kind that it imports something for.
pub(crate) const ALL_RIGHTS: [&str; 6] = [
    "storage.kv:a",
    "net.http:nowhere.example:80",
    "host.call:nothing",
    "plugin.call:nothing",
    "secret:nothing",
    "event.publish:nothing",
];

/// A plugin's folders in a place that the test made.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) backend: WasmBackend,
    pub(crate) spec: LaunchSpec,
    pub(crate) artifact: Artifact,
    pub(crate) host: Arc<Host>,
}

pub(crate) fn bench(wasm: &[u8], calls: Calls) -> Bench {
    bench_with(Options::default().instances(64), wasm, calls)
}

pub(crate) fn bench_with(options: Options, wasm: &[u8], calls: Calls) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().canonicalize().unwrap();
    let (root, data) = (real.join("plugin"), real.join("data"));
    std::fs::create_dir_all(&root).unwrap();
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(root.join("plugin.wasm"), wasm).unwrap();
    let plugin = PluginRef {
        id: PluginId::parse("test").unwrap(),
        origin: Origin::Folder { path: root.display().to_string(), owner: 0 },
    };
    let spec = LaunchSpec {
        instance: InstanceId {
            node: NodeId::local(),
            plugin: Arc::new(plugin),
            generation: Generation(1),
            serial: 1,
        },
        rights: Arc::new(["storage.kv:a"].iter().map(|right| right.parse().unwrap()).collect()),
        limits: Limits { memory: 4 << 20, ..Limits::default() },
        demand: GuaranteeSet::default_floor(),
        wire: Wire::Native,
        data,
        slot: 7,
        env: BTreeMap::new(),
        workdir: None,
        observe: None,
    };
    let artifact = Artifact {
        content: Content { root, digest: [0; 32] },
        program: Program {
            runtime: Runtime::Wasm { calls },
            file: "plugin.wasm".to_owned(),
            args: Vec::new(),
        },
        code: Vec::new(),
    };
    let backend = WasmBackend::new(options);
    backend.keep_in(&real);
    Bench { dir, backend, spec, artifact, host: Arc::new(Host::default()) }
}

impl Bench {
    pub(crate) fn rights(&mut self, rights: &[&str]) {
        let rights: CapabilitySet = rights.iter().map(|right| right.parse().unwrap()).collect();
        self.spec.rights = Arc::new(rights);
    }

    pub(crate) async fn launch(&self) -> Result<Arc<dyn Instance>, SandboxError> {
        let host: Arc<dyn HostCalls> = Arc::clone(&self.host) as _;
        self.backend.prepare(&self.artifact).await?.launch(self.spec.clone(), host).await
    }

    pub(crate) async fn started(&self) -> Arc<dyn Instance> {
        let instance = self.launch().await.unwrap_or_else(|e| panic!("{e}"));
        initialize(&instance, "{}").await.unwrap();
        instance
    }
}

pub(crate) async fn initialize(
    instance: &Arc<dyn Instance>,
    config: &str,
) -> Result<Payload, Failure> {
    let params = format!(
        r#"{{"protocol":{{"min":1,"max":1}},"features":[],"host":{{"name":"palisade","version":"0"}},
            "plugin":{{"id":"test"}},"config":{config},"rights":["storage.kv:a"]}}"#
    );
    ask(instance, "initialize", &params, Duration::from_secs(10)).await
}

pub(crate) async fn ask(
    instance: &Arc<dyn Instance>,
    method: &'static str,
    params: &str,
    timeout: Duration,
) -> Result<Payload, Failure> {
    let payload = Payload::from_json_text(params.to_owned());
    let (deadline, trace) = (Instant::now() + timeout, Trace::default());
    instance.lane().call(Invocation { method, payload, tool: None, deadline, trace }).await
}

/// Calls a tool as the host does.
pub(crate) async fn tool(
    instance: &Arc<dyn Instance>,
    name: &str,
    args: &str,
    timeout: Duration,
) -> Result<String, Failure> {
    let text = format!("{{\"tool\":\"{name}\",\"args\":{args}}}");
    let payload = Payload::from_json_text(text);
    let (start, end) = (payload.len() - args.len() - 1, payload.len() - 1);
    let args = payload.bytes().slice(start..end);
    let tool = Some(ToolCall { name: name.into(), args });
    let (deadline, trace) = (Instant::now() + timeout, Trace::default());
    let answer =
        instance.lane().call(Invocation { method: "call", payload, tool, deadline, trace }).await?;
    Ok(String::from_utf8(answer.bytes().to_vec()).unwrap())
}

/// Calls a tool with five seconds of time.
pub(crate) async fn quick(instance: &Arc<dyn Instance>, name: &str) -> Result<String, Failure> {
    tool(instance, name, "{}", Duration::from_secs(5)).await
}

pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, Failure>) -> ErrorCode {
    result.unwrap_err().code
}

/// What it is asked comes back as it is, whatever stands in it.
pub(crate) async fn answers(instance: &Arc<dyn Instance>) {
    let time = Duration::from_secs(20);
    let args = r#"{"text":"h\u00e9 \"x\" é","n":12345678901234567890}"#;
    assert_eq!(tool(instance, "echo", args, time).await.unwrap(), args);
    let large = format!("{{\"x\":\"{}\"}}", "a".repeat(1 << 20));
    assert_eq!(tool(instance, "echo", &large, time).await.unwrap(), large);
}

/// What it asks goes to the host, and the answer or the refusal comes back.
pub(crate) async fn asks_its_host(instance: &Arc<dyn Instance>, host: &Host) {
    let found = r#"{"found":true,"value":{"a":1},"version":3}"#.to_owned();
    *host.answer.lock().unwrap() = Some(Ok(found));
    assert_eq!(quick(instance, "key").await.unwrap(), "0", "the ok side of a result");
    *host.answer.lock().unwrap() = Some(Err(Failure::new(ErrorCode::Denied, "no")));
    assert_eq!(quick(instance, "key").await.unwrap(), "1", "the error side");
    let requests = host.requests.lock().unwrap();
    assert_eq!(requests[0], ("storage.get".to_owned(), r#"{"key":"PAL"}"#.to_owned()));
    assert_eq!(requests.len(), 2);
}

/// Its own errors keep their code, what is no answer is told, and neither is a crash.
pub(crate) async fn fails_in_words(instance: &Arc<dyn Instance>) {
    let failure = quick(instance, "json").await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::PluginError);
    assert!(failure.message.contains("is not JSON"), "{failure}");
    let failure = quick(instance, "failure").await.unwrap_err();
    assert_eq!((failure.code, failure.message.as_str()), (ErrorCode::Conflict, "not today"));
    assert_eq!(quick(instance, "count").await.unwrap(), "1");
    assert_eq!(quick(instance, "count").await.unwrap(), "2");
}

/// The refusal of [`GUEST`] without a right to storage.
pub(crate) fn is_refused_for_its_import(refused: SandboxError) {
    assert_eq!(refused.code(), ErrorCode::Denied, "{refused}");
    let words = refused.to_string();
    assert!(words.contains("palisade:plugin/storage@0.1.0"), "{words}");
    assert!(words.contains("storage.kv"), "{words}");
    let hint = Failure::from(refused).hint.unwrap();
    assert!(hint.contains("--grant 'storage.kv:"), "{hint}");
}

/// A call that goes too far: the tool, the code of its failure, the rule and a part of the message.
pub(crate) type TooFar = (&'static str, ErrorCode, Option<&'static str>, &'static str);

/// Those that end in the same way behind every wall and with every compiler.
pub(crate) const TOO_FAR: [TooFar; 5] = [
    ("trap", ErrorCode::Crashed, None, "unreachable"),
    ("memory", ErrorCode::LimitExceeded, Some("memory"), "out of memory"),
    ("deep", ErrorCode::LimitExceeded, Some("stack"), "stack overflow"),
    ("giant", ErrorCode::Crashed, None, "failed"),
    ("random", ErrorCode::LimitExceeded, Some("random"), "at most 65536"),
];

/// Each ends as it is said, and the call after it finds a fresh instance.
pub(crate) async fn goes_too_far(
    instance: &Arc<dyn Instance>,
    calls: impl IntoIterator<Item = TooFar>,
) {
    for (name, code, rule, says) in calls {
        assert_eq!(quick(instance, "count").await.unwrap(), "1", "before {name}");
        assert_eq!(quick(instance, "count").await.unwrap(), "2", "before {name}");
        let failure = quick(instance, name).await.unwrap_err();
        assert_eq!(failure.code, code, "{name}: {failure}");
        assert_eq!(failure.rule.as_deref(), rule, "{name}: {failure}");
        assert!(failure.message.contains(says), "{name}: {failure}");
        assert!(instance.recovers());
    }
    assert_eq!(quick(instance, "count").await.unwrap(), "1");
}
