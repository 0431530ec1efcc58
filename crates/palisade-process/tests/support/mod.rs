//! What the tests of this crate share: launching a small plugin behind real walls.
#![allow(dead_code)]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use palisade_model::{
    Failure, Generation, InstanceId, Limits, NodeId, Origin, Payload, PluginId, PluginRef,
};
use palisade_sandbox::{
    Artifact, Backend, BoxFuture, Content, HostCalls, HostRequest, Instance, Invocation,
    LaunchSpec, OutputStream, Program, Runtime, SandboxError, Trace,
};

/// Remembers what the plugin wrote and asked.
#[derive(Default)]
pub(crate) struct Host {
    pub(crate) lines: Mutex<Vec<String>>,
    pub(crate) dropped: Mutex<u64>,
    /// Calls that processes were killed for, and whether it was the program itself.
    pub(crate) violations: Mutex<Vec<(String, bool)>>,
}

impl HostCalls for Host {
    fn request(&self, request: HostRequest) -> BoxFuture<'static, Result<Payload, Failure>> {
        Box::pin(async move {
            Err(Failure::new(
                palisade_model::ErrorCode::NotFound,
                format!("no method {}", request.method),
            ))
        })
    }
    fn output(&self, _stream: OutputStream, line: &str) {
        self.lines.lock().unwrap().push(line.to_owned());
    }
    fn output_dropped(&self, bytes: u64) {
        *self.dropped.lock().unwrap() += bytes;
    }
    fn violation(&self, syscall: &str, program: bool) {
        self.violations.lock().unwrap().push((syscall.to_owned(), program));
    }
    /// Says to each connection how many came before it.
    fn egress(&self, way: palisade_sandbox::WayOut) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            use tokio::io::AsyncWriteExt as _;
            let listener = tokio::net::TcpListener::from_std(way.proxy).unwrap();
            for number in 0u32.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(format!("connection {number}\n").as_bytes()).await.unwrap();
            }
        })
    }
}

/// A plugin's folders in a place that the test made.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) spec: LaunchSpec,
    pub(crate) artifact: Artifact,
    pub(crate) host: Arc<Host>,
}

pub(crate) fn bench(runtime: Runtime, file: &str, content: &[u8]) -> Bench {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let real = dir.path().canonicalize().unwrap();
    let root = real.join("plugin");
    let data = real.join("data");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(root.join(file), content).unwrap();
    std::fs::set_permissions(root.join(file), std::fs::Permissions::from_mode(0o755)).unwrap();
    let plugin = PluginRef {
        id: PluginId::parse("test").unwrap(),
        origin: Origin::Folder { path: root.display().to_string(), owner: 0 },
    };
    let instance = InstanceId {
        node: NodeId::local(),
        plugin: Arc::new(plugin),
        generation: Generation(1),
        serial: 1,
    };
    let limits = Limits { start_timeout: Duration::from_secs(20), ..Limits::default() };
    let spec = LaunchSpec { limits, ..LaunchSpec::new(instance, data, 7) };
    let artifact = Artifact {
        content: Content { root, digest: [0; 32] },
        program: Program { runtime, file: file.to_owned(), args: Vec::new() },
        code: Vec::new(),
    };
    Bench { dir, spec, artifact, host: Arc::new(Host::default()) }
}

impl Bench {
    pub(crate) fn grant(&mut self, capability: &str) {
        let mut rights = (*self.spec.rights).clone();
        rights.insert(capability.parse().unwrap());
        self.spec.rights = Arc::new(rights);
    }

    pub(crate) async fn launch(
        &self,
        backend: &dyn Backend,
    ) -> Result<Arc<dyn Instance>, SandboxError> {
        let host: Arc<dyn HostCalls> = Arc::clone(&self.host) as _;
        backend.prepare(&self.artifact).await?.launch(self.spec.clone(), host).await
    }
}

pub(crate) async fn call(
    instance: &Arc<dyn Instance>,
    method: &'static str,
    params: &str,
) -> Result<Payload, Failure> {
    instance
        .lane()
        .call(Invocation {
            method,
            payload: Payload::from_json_text(params.to_owned()),
            tool: None,
            deadline: Instant::now() + Duration::from_secs(20),
            trace: Trace::default(),
        })
        .await
}

/// A plugin in Python that evaluates what `call` gives it: a whole shell for the tests.
pub(crate) const EVAL: &str = r#"
import json, os, socket, sys
lane = socket.socket(fileno=3)
# Two files: writing to a text stream that is also read throws away what it had read ahead.
stream, reply_to = lane.makefile("r", encoding="utf-8", newline="\n"), lane.makefile("w", encoding="utf-8", newline="\n")
scope = {"os": os, "sys": sys, "socket": socket, "json": json, "began_on": os.sched_getaffinity(0)}
for line in stream:
    message = json.loads(line)
    if "id" not in message:
        continue
    reply = {"jsonrpc": "2.0", "id": message["id"]}
    try:
        if message["method"] == "call":
            code = message["params"]["args"]
            try:
                reply["result"] = eval(code, scope)
            except SyntaxError:
                scope["result"] = None
                exec(code, scope)
                reply["result"] = scope["result"]
        else:
            reply["result"] = {"protocol": 1}
    except BaseException as e:
        reply["error"] = {"code": -1, "message": f"{type(e).__name__}: {e}"}
    reply_to.write(json.dumps(reply) + "\n")
    reply_to.flush()
    if message["method"] == "shutdown":
        break
"#;

/// Evaluates a Python expression (or runs statements that set `result`) inside.
pub(crate) async fn eval(
    instance: &Arc<dyn Instance>,
    code: &str,
) -> Result<serde_json::Value, Failure> {
    let params = serde_json::json!({"tool": "eval", "args": code}).to_string();
    call(instance, "call", &params).await.map(|p| p.parse().unwrap())
}

/// Processes that this one has started.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|t| std::fs::read_to_string(t.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().map(|p| p.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}
