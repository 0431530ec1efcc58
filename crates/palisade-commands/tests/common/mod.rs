//! Starting a command behind the process walls, and speaking MCP with it by hand.
#![allow(dead_code)]

pub(crate) mod registry;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use palisade_commands::{Context, Start, resolve};
use palisade_model::{
    CapabilitySet, Failure, Generation, InstanceId, Limits, NodeId, Origin, Payload, PluginId,
    PluginRef,
};
use palisade_process::{Options, ProcessBackend};
use palisade_sandbox::{
    Artifact, Backend, BoxFuture, Content, HostCalls, HostRequest, Instance, LaunchSpec,
    OutputStream, Resolver, SandboxError, Wire,
    stream::{ByteEnds, ByteWire, FromProgram},
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

/// Remembers what a server wrote to its log.
#[derive(Default)]
pub(crate) struct Host {
    pub(crate) lines: Mutex<Vec<String>>,
}

impl HostCalls for Host {
    fn request(&self, _request: HostRequest) -> BoxFuture<'static, Result<Payload, Failure>> {
        unreachable!("a server of MCP has nothing to ask for")
    }
    fn output(&self, _stream: OutputStream, line: &str) {
        self.lines.lock().unwrap().push(line.to_owned());
    }
    fn output_dropped(&self, _bytes: u64) {}
}

/// A server behind walls.
pub(crate) struct Server {
    pub(crate) instance: Arc<dyn Instance>,
    pub(crate) host: Arc<Host>,
    ends: ByteEnds,
    reader: BufReader<FromProgram>,
    next: u64,
    _place: tempfile::TempDir,
}

pub(crate) fn backend() -> Arc<dyn Backend> {
    Arc::new(ProcessBackend::new(Options::default()))
}

static SERIAL: AtomicU64 = AtomicU64::new(1);

/// Launches what a command came to, with these rights.
pub(crate) async fn launch(start: &Start, rights: &[&str]) -> Result<Server, SandboxError> {
    let place = tempfile::tempdir().unwrap();
    let folder = |name: &str| {
        let path = place.path().canonicalize().unwrap().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    };
    let (root, data) = (folder("empty"), folder("data"));
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut set = CapabilitySet::new();
    for right in rights {
        set.insert(right.parse().unwrap());
    }
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let plugin = PluginRef {
        id: PluginId::parse("server").unwrap(),
        origin: Origin::Folder { path: start.identity.clone(), owner: 0 },
    };
    let (wire, ends) = ByteWire::new();
    let instance = InstanceId {
        node: NodeId::local(),
        plugin: Arc::new(plugin),
        generation: Generation(1),
        serial,
    };
    let spec = LaunchSpec {
        rights: Arc::new(set),
        limits: Limits {
            memory: 1 << 30,
            cpu: 2.0,
            pids: 128,
            files: 1024,
            disk: 256 << 20,
            start_timeout: Duration::from_secs(20),
            ..Limits::default()
        },
        wire: Wire::Bytes(wire),
        env: start.env.clone(),
        workdir: Some("/data".into()),
        ..LaunchSpec::new(instance, data, 4000 + u32::try_from(serial).unwrap())
    };
    let artifact = Artifact {
        content: Content { root, digest: [0; 32] },
        program: start.program.clone(),
        code: start.code.clone(),
    };
    let host = Arc::new(Host::default());
    let prepared = backend().prepare(&artifact).await?;
    let instance = prepared.launch(spec, Arc::clone(&host) as Arc<dyn HostCalls>).await?;
    let mut ends = ends.await.unwrap();
    let from = std::mem::replace(&mut ends.from, nothing());
    Ok(Server { instance, host, ends, reader: BufReader::new(from), next: 1, _place: place })
}

fn nothing() -> FromProgram {
    Box::new(tokio::io::empty())
}

impl Server {
    async fn send(&mut self, message: &Value) {
        let mut line = message.to_string();
        line.push('\n');
        // A server that has ended is found out by its missing answer.
        let _ = self.ends.to.write_all(line.as_bytes()).await;
    }

    /// One request and its answer.
    pub(crate) async fn request(&mut self, method: &str, params: Value) -> Result<Value, String> {
        let id = self.next;
        self.next += 1;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
        let answer = async {
            let mut line = String::new();
            loop {
                line.clear();
                match self.reader.read_line(&mut line).await {
                    Ok(0) | Err(_) => return Err("it closed its output".to_owned()),
                    Ok(_) => {}
                }
                let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
                if message["id"] == json!(id) && message.get("method").is_none() {
                    return match message.get("error") {
                        Some(error) => Err(error.to_string()),
                        None => Ok(message["result"].clone()),
                    };
                }
                if message.get("method").is_some() && message.get("id").is_some() {
                    let mut reply =
                        json!({"jsonrpc": "2.0", "error": {"code": -32601, "message": "no"}});
                    reply["id"] = message["id"].clone();
                    let mut text = reply.to_string();
                    text.push('\n');
                    let _ = self.ends.to.write_all(text.as_bytes()).await;
                }
            }
        };
        let result = tokio::time::timeout(Duration::from_secs(40), answer)
            .await
            .unwrap_or_else(|_| Err("no answer within 40 s".to_owned()));
        match result {
            Ok(value) => Ok(value),
            Err(why) => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                let lines = self.host.lines.lock().unwrap().join("\n");
                Err(format!("{method}: {why}\nits log:\n{lines}"))
            }
        }
    }

    /// `initialize` and the list of tools, by name.
    pub(crate) async fn tools(&mut self) -> Result<Vec<String>, String> {
        let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"}});
        self.request("initialize", hello).await?;
        self.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        let list = self.request("tools/list", json!({})).await?;
        let names = list["tools"].as_array().into_iter().flatten();
        Ok(names.map(|tool| tool["name"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// The text of a tool's result.
    pub(crate) async fn call(&mut self, tool: &str, arguments: Value) -> Result<String, String> {
        let params = json!({"name": tool, "arguments": arguments});
        let result = self.request("tools/call", params).await?;
        let text: Vec<&str> = result["content"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|part| part["text"].as_str())
            .collect();
        let text = text.join("\n");
        if result["isError"] == json!(true) { Err(text) } else { Ok(text) }
    }
}

/// The words of a command.
pub(crate) fn argv(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Where the tests keep what they install, so that it is fetched once.
pub(crate) fn place(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-packages");
    std::fs::create_dir_all(&root).unwrap();
    root.canonicalize().unwrap().join(name)
}

/// Makes a folder once, even where several tests want it: `make` fills a folder that is then moved there.
pub(crate) fn once(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let target = place(name);
    let lock = std::fs::File::create(place(&format!("{name}.lock"))).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    if !target.join(".done").exists() {
        let _ = std::fs::remove_dir_all(&target);
        std::fs::create_dir_all(&target).unwrap();
        make(&target);
        std::fs::write(target.join(".done"), "").unwrap();
    }
    target
}

/// Runs a program of this machine that a test needs, outside of any walls.
pub(crate) fn run(program: &str, args: &[&str], folder: &Path, env: &[(&str, &str)]) {
    let output = std::process::Command::new(program)
        .args(args)
        .current_dir(folder)
        .envs(env.iter().copied())
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// How packages are resolved in tests: a cache under the target folder.
pub(crate) fn options(cache: &Path) -> resolve::Options {
    resolve::Options::new(cache.to_path_buf(), Resolver::new(vec![backend()]))
}

/// This process's context with another PATH in front, and more variables.
pub(crate) fn context(folders: &[PathBuf], env: &[(&str, &str)]) -> Context {
    let mut context = Context::of_process();
    let path = context.env.get("PATH").cloned().unwrap_or_default();
    let mut all: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
    all.push(path);
    context.env.insert("PATH".into(), all.join(":"));
    context.env.extend(env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
    context
}

/// The folder of a uv that the tests install.
pub(crate) fn uv() -> PathBuf {
    let place = once("uv", |folder| {
        run("python3", &["-m", "venv", "venv"], folder, &[]);
        run("venv/bin/pip", &["-q", "install", "uv"], folder, &[]);
    });
    place.join("venv/bin")
}
