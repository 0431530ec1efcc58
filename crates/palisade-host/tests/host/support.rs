//! A host with an echo backend in a folder of its own, and plugins to load into it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use palisade_audit::{
    Act, BoxFuture, Intent, MemoryRecorder, Outcome, Phase, Record, RecordError, RecordKind,
    Recorder,
};
use palisade_host::{Host, HostBuilder, Plugin};
use palisade_model::{Capability, ErrorCode};
use tempfile::TempDir;

use crate::echo::Echo;

/// Every tool of the echo plugin.
pub(crate) const TOOLS: [&str; 11] =
    ["echo", "ask", "print", "hang", "fail", "oom", "sigsys", "segv", "exit", "breach", "typed"];

/// A host, its backend, its record and its folders.
pub(crate) struct Stage {
    pub(crate) host: Host,
    pub(crate) echo: Arc<Echo>,
    pub(crate) recorder: Arc<Recording>,
    pub(crate) tmp: TempDir,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    pub(crate) async fn with(more: impl FnOnce(HostBuilder) -> HostBuilder) -> Self {
        Self::at(tempfile::tempdir().unwrap(), more).await
    }

    pub(crate) async fn at(tmp: TempDir, more: impl FnOnce(HostBuilder) -> HostBuilder) -> Self {
        let (echo, recorder) = (Echo::new(), Arc::new(Recording::default()));
        let builder = Host::builder()
            .state_dir(tmp.path().join("state"))
            .backend(echo.clone())
            .recorder(recorder.clone());
        let host = more(builder).build().await.unwrap();
        Self { host, echo, recorder, tmp }
    }

    /// Writes a plugin's folder.
    pub(crate) fn folder(&self, id: &str, more: &str) -> PathBuf {
        write_plugin(&self.tmp.path().join("plugins").join(id), id, more)
    }

    /// Loads a plugin whose manifest has `more` in it.
    pub(crate) async fn load(&self, id: &str, more: &str) -> Plugin {
        self.host.load(self.folder(id, more)).await.unwrap()
    }

    /// Loads, grants what is asked and starts.
    pub(crate) async fn started(&self, id: &str, more: &str) -> Plugin {
        let plugin = self.load(id, more).await;
        plugin.grant_requested().await.unwrap();
        plugin.start().await.unwrap();
        plugin
    }
}

pub(crate) fn write_plugin(dir: &Path, id: &str, more: &str) -> PathBuf {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("main.py"), "").unwrap();
    let mut tools = String::new();
    for tool in TOOLS {
        let input = if tool == "typed" {
            ", input: { type: object, properties: { n: { type: integer } }, required: [n] }"
        } else {
            ""
        };
        tools.push_str(&format!("    - {{ name: {tool}, description: does it{input} }}\n"));
    }
    let manifest = format!(
        "api: palisade/1\nid: {id}\nversion: 1.0.0\nentry: {{ kind: python, file: main.py }}\n\
         contributes:\n  tools:\n{tools}{more}"
    );
    std::fs::write(dir.join("plugin.yaml"), manifest).unwrap();
    dir.to_owned()
}

pub(crate) fn cap(text: &str) -> Capability {
    text.parse().unwrap()
}

/// The memory recorder, which can be told to fail and notes what it is asked in order.
pub(crate) struct Recording {
    pub(crate) memory: MemoryRecorder,
    pub(crate) fail: Mutex<Option<RecordKind>>,
    pub(crate) order: Arc<Mutex<Vec<String>>>,
}

impl Default for Recording {
    fn default() -> Self {
        Self { memory: MemoryRecorder::new(10_000), fail: Mutex::default(), order: Arc::default() }
    }
}

impl Recording {
    pub(crate) fn of(&self, kind: RecordKind) -> Vec<Record> {
        self.memory.records().into_iter().filter(|r| r.kind == kind).collect()
    }

    /// The outcomes and notes of a kind: target and code.
    pub(crate) fn ends(&self, kind: RecordKind) -> Vec<(Option<String>, Option<ErrorCode>)> {
        let done = self.of(kind).into_iter().filter(|r| r.phase != Phase::Intent);
        done.map(|r| (r.target, r.code)).collect()
    }
}

impl Recorder for Recording {
    fn intent(&self, act: Act) -> BoxFuture<'_, Result<Intent, RecordError>> {
        self.order.lock().unwrap().push(format!("intent {:?}", act.kind()));
        if *self.fail.lock().unwrap() == Some(act.kind()) {
            return Box::pin(std::future::ready(Err(RecordError::Stopped)));
        }
        self.memory.intent(act)
    }

    fn outcome(&self, intent: Intent, outcome: Outcome, detail: Option<&str>) {
        self.order.lock().unwrap().push(format!("outcome {outcome:?}"));
        self.memory.outcome(intent, outcome, detail);
    }

    fn note(&self, act: Act, code: Option<ErrorCode>) {
        self.order.lock().unwrap().push(format!("note {:?}", act.kind()));
        self.memory.note(act, code);
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), RecordError>> {
        self.memory.flush()
    }

    fn is_durable(&self) -> bool {
        false
    }
}
