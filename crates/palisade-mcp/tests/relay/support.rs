//! A relay between two ends that the test holds.

use std::sync::{Arc, Mutex};

use palisade_audit::{MemoryRecorder, Record, SystemClock};
use palisade_broker::{Caller, Gate};
use palisade_mcp::{Ended, MemoryPins, Options, Pins, Relay, Report};
use palisade_model::{
    Capability, ErrorCode, Failure, Generation, InstanceId, Limits, NodeId, Origin, PluginId,
    PluginRef,
};
use palisade_policy::Rules;
use serde_json::{Value, json};
use tokio::{
    io::{
        AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, ReadHalf, WriteHalf,
        split,
    },
    sync::oneshot,
    task::JoinHandle,
    time::{Duration, timeout},
};

/// What the relay said to people.
#[derive(Default)]
pub(crate) struct Said {
    pub(crate) strays: Mutex<Vec<String>>,
    pub(crate) notices: Mutex<Vec<String>>,
}

impl Report for Said {
    fn stray(&self, line: &str) {
        self.strays.lock().unwrap().push(line.to_owned());
    }

    fn notice(&self, text: &str) {
        self.notices.lock().unwrap().push(text.to_owned());
    }
}

/// One side of the relay, as the test holds it.
pub(crate) struct Side {
    pub(crate) from: BufReader<ReadHalf<DuplexStream>>,
    pub(crate) to: Option<WriteHalf<DuplexStream>>,
}

impl Side {
    fn new(stream: DuplexStream) -> Self {
        let (from, to) = split(stream);
        Self { from: BufReader::new(from), to: Some(to) }
    }

    /// Writes bytes as they are.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.to.as_mut().unwrap().write_all(bytes.as_ref()).await.unwrap();
    }

    /// Writes one message.
    pub(crate) async fn send(&mut self, message: Value) {
        self.write(format!("{message}\n")).await;
    }

    /// The next line, as it came; `None` at the end.
    pub(crate) async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(Duration::from_secs(5), self.from.read_line(&mut line));
        let n = read.await.expect("a line within five seconds").unwrap();
        (n > 0).then_some(line)
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Value {
        let line = self.line().await.expect("a message, and not the end");
        serde_json::from_str(&line).unwrap()
    }

    /// Closes this side's way to the relay.
    pub(crate) async fn close(&mut self) {
        self.to.take().unwrap().shutdown().await.unwrap();
    }
}

pub(crate) struct Stage {
    pub(crate) client: Side,
    pub(crate) server: Side,
    pub(crate) said: Arc<Said>,
    pub(crate) recorder: Arc<MemoryRecorder>,
    pub(crate) relay: JoinHandle<Ended>,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) caller: Arc<Caller>,
}

/// What a test may want to have different.
pub(crate) struct Setup {
    pub(crate) rights: Vec<&'static str>,
    pub(crate) options: Options,
    pub(crate) limits: Limits,
    pub(crate) pins: Arc<dyn Pins>,
    pub(crate) pipe: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            rights: vec!["tool:*"],
            options: Options::default(),
            limits: Limits::default(),
            pins: Arc::new(MemoryPins::default()),
            pipe: 64 * 1024,
        }
    }
}

pub(crate) fn rules(rights: &[&str]) -> Arc<Rules> {
    let rights = rights.iter().map(|r| r.parse::<Capability>().unwrap()).collect();
    Arc::new(Rules::new(rights, []))
}

pub(crate) fn server_caller(rights: &[&str], limits: &Limits) -> Arc<Caller> {
    let plugin = PluginRef {
        id: PluginId::parse("example").unwrap(),
        origin: Origin::Command { path: "/usr/bin/example".into() },
    };
    let instance = InstanceId {
        node: NodeId::local(),
        plugin: Arc::new(plugin),
        generation: Generation(1),
        serial: 1,
    };
    Caller::plugin(instance, rules(rights), limits, Arc::new(SystemClock))
}

impl Setup {
    pub(crate) fn rights(rights: &[&'static str]) -> Self {
        Self { rights: rights.to_vec(), ..Self::default() }
    }

    pub(crate) fn start(self) -> Stage {
        let recorder = Arc::new(MemoryRecorder::new(10_000));
        let said = Arc::new(Said::default());
        let caller = server_caller(&self.rights, &self.limits);
        let relay = Relay::new(
            Gate::new(Arc::clone(&recorder) as _),
            Caller::operator("ada"),
            Arc::clone(&caller),
            self.pins,
            Arc::clone(&said) as _,
            self.options,
        );
        let (client, their_client) = tokio::io::duplex(self.pipe);
        let (server, their_server) = tokio::io::duplex(self.pipe);
        let (stop, stopped) = oneshot::channel::<()>();
        let relay = tokio::spawn(async move {
            let died = async {
                Failure::new(ErrorCode::Crashed, "the plugin ended: exited with status 3")
            };
            let stopped = async {
                if stopped.await.is_err() {
                    std::future::pending().await
                }
            };
            relay.run(split(their_client), split(their_server), stopped, died).await
        });
        Stage {
            client: Side::new(client),
            server: Side::new(server),
            said,
            recorder,
            relay,
            stop: Some(stop),
            caller,
        }
    }
}

impl Stage {
    pub(crate) fn new() -> Self {
        Setup::default().start()
    }

    /// The client asks, the server sees it as it was written.
    pub(crate) async fn ask(&mut self, request: Value) -> Value {
        self.client.send(request).await;
        self.server.next().await
    }

    /// The server answers, the client sees that.
    pub(crate) async fn answer(&mut self, answer: Value) -> Value {
        self.server.send(answer).await;
        self.client.next().await
    }

    /// The client lists the tools, and the server has these.
    pub(crate) async fn list(&mut self, tools: Value) -> Vec<String> {
        self.ask(json!({"jsonrpc": "2.0", "id": "list", "method": "tools/list"})).await;
        let answer =
            self.answer(json!({"jsonrpc": "2.0", "id": "list", "result": {"tools": tools}})).await;
        let tools = answer["result"]["tools"].as_array().unwrap();
        tools.iter().map(|t| t["name"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.recorder.records()
    }

    pub(crate) fn notices(&self) -> Vec<String> {
        self.said.notices.lock().unwrap().clone()
    }

    pub(crate) async fn ended(self) -> Ended {
        timeout(Duration::from_secs(10), self.relay).await.expect("the relay ends").unwrap()
    }
}

pub(crate) fn call(id: Value, tool: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": {}}})
}

pub(crate) fn done(id: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": {"content": []}})
}

pub(crate) fn tool(name: &str) -> Value {
    json!({"name": name, "description": format!("does {name}"), "inputSchema": {"type": "object"}})
}
