//! Secrets reach a plugin behind real walls that has the right to them, as an answer or as variables, and
//! nobody else; nothing is handed out that is not on record.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use palisade::{
    audit::{Decision, MemoryRecorder, RecordError, RecordKind, Recorder},
    broker::Caller,
    prelude::*,
    secret::SecretValue,
};
use palisade_audit::{Act, BoxFuture, Intent, Outcome};
use serde_json::{Value, json};

/// `ask` asks the host for `{method, params}`; `env` tells the environment.
const PLUGIN: &str = r#"
import json, os, sys
def say(message):
    print(json.dumps(message), flush=True)
for line in sys.stdin:
    message = json.loads(line)
    if message["method"] != "call":
        say({"id": message["id"], "result": {"ok": True}})
    elif message["params"]["tool"] == "env":
        say({"id": message["id"], "result": dict(os.environ)})
    else:
        say({"id": "q", **message["params"]["args"]})
        answer = json.loads(sys.stdin.readline())
        say({"id": message["id"], "result": {k: answer[k] for k in answer if k != "id"}})
"#;

const MANIFEST: &str = "
api: palisade/1
id: secretive
version: 1.0.0
entry: { kind: jsonl, file: main.py, runtime: python }
capabilities:
  required:
    - { capability: 'secret:db.*', reason: Reads the database. }
  optional:
    - { capability: 'secret:other', reason: Might. }
contributes:
  tools: [{ name: ask, description: Asks. }, { name: env, description: Tells. }]
";

/// Records in memory, until it is told to refuse what is about secrets.
struct Refusing {
    inner: MemoryRecorder,
    refuses: AtomicBool,
}

impl Recorder for Refusing {
    fn intent(&self, act: Act) -> BoxFuture<'_, Result<Intent, RecordError>> {
        if act.kind() == RecordKind::Secret && self.refuses.load(Ordering::SeqCst) {
            return Box::pin(async { Err(RecordError::Stopped) });
        }
        self.inner.intent(act)
    }

    fn outcome(&self, intent: Intent, outcome: Outcome, detail: Option<&str>) {
        self.inner.outcome(intent, outcome, detail);
    }

    fn note(&self, act: Act, code: Option<ErrorCode>) {
        self.inner.note(act, code);
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), RecordError>> {
        self.inner.flush()
    }

    fn is_durable(&self) -> bool {
        false
    }
}

async fn host(folder: &Path) -> (Host, Arc<Refusing>) {
    let dir = folder.join("plugin");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("main.py"), PLUGIN).unwrap();
    std::fs::write(dir.join("plugin.yaml"), MANIFEST).unwrap();
    let recorder =
        Arc::new(Refusing { inner: MemoryRecorder::new(1000), refuses: AtomicBool::new(false) });
    let kept: Arc<dyn Recorder> = Arc::<Refusing>::clone(&recorder);
    let host = Host::builder()
        .state_dir(folder.join("state"))
        .backends(palisade::backends())
        .recorder(kept)
        .build()
        .await
        .unwrap();
    (host, recorder)
}

fn value(text: &str) -> SecretValue {
    SecretValue::new(text).unwrap()
}

async fn ask(plugin: &Plugin, name: &str) -> Value {
    let args = json!({ "method": "secret.get", "params": { "name": name } });
    plugin.call("ask", &args).await.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_plugin_gets_the_secrets_that_it_has_a_right_to_and_each_time_is_recorded() {
    let tmp = tempfile::tempdir().unwrap();
    let (host, recorder) = host(tmp.path()).await;
    let operator = host.control(Caller::operator("test"));
    operator.set_secret("db.password", value("hunter2\n\"é\"")).await.unwrap();
    operator.set_secret("other", value("hunter3")).await.unwrap();
    let plugin = host.load(tmp.path().join("plugin")).await.unwrap();
    plugin.grant("secret:db.*".parse().unwrap()).await.unwrap();
    plugin.start().await.unwrap();

    assert_eq!(ask(&plugin, "db.password").await["result"], json!({ "value": "hunter2\n\"é\"" }));
    ask(&plugin, "db.password").await;
    let missing = ask(&plugin, "db.none").await["error"].to_string();
    assert!(missing.contains("there is no secret db.none"), "{missing}");
    for denied in ["other", "db", "db.*", "DB.password"] {
        let error = ask(&plugin, denied).await["error"].to_string();
        assert!(!error.contains("hunter") && error.contains("secret:"), "{denied}: {error}");
    }

    recorder.refuses.store(true, Ordering::SeqCst);
    let unrecorded = ask(&plugin, "db.password").await["error"].to_string();
    assert!(unrecorded.contains("could not be recorded"), "{unrecorded}");
    assert!(operator.secret("other").await.is_err());
    recorder.refuses.store(false, Ordering::SeqCst);

    host.shutdown().await.unwrap();
    let records = recorder.inner.records();
    assert!(!serde_json::to_string(&records).unwrap().contains("hunter"));
    let got: Vec<_> = records
        .iter()
        .filter(|r| {
            r.kind == RecordKind::Secret
                && r.target.as_deref() == Some("db.password")
                && r.decision == Some(Decision::Allow)
                && r.plugin.is_some()
        })
        .collect();
    assert!(got.len() >= 2 && got.iter().all(|r| r.repeats.is_none()), "{got:#?}");
}

#[tokio::test]
async fn a_program_that_cannot_ask_finds_its_secrets_in_its_environment() {
    let tmp = tempfile::tempdir().unwrap();
    let (host, recorder) = host(tmp.path()).await;
    let operator = host.control(Caller::operator("test"));
    operator.set_secret("other", value("hunter3")).await.unwrap();
    let options =
        || LoadOptions::new().secret_env("DB_PASSWORD", "db.password").secret_env("OTHER", "other");
    let dir = tmp.path().join("plugin");
    let plugin = operator.load(&dir, options()).await.unwrap();
    plugin.grant("secret:db.*".parse().unwrap()).await.unwrap();
    let failure = plugin.start().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::NotFound);
    assert!(failure.hint.unwrap().contains("palisade secret set db.password"));

    operator.set_secret("db.password", value("hunter2")).await.unwrap();
    plugin.start().await.unwrap();
    let environment: Value = plugin.call("env", &()).await.unwrap().parse().unwrap();
    assert_eq!(environment["DB_PASSWORD"], "hunter2");
    assert_eq!(environment.get("OTHER"), None, "it has no right to that one");
    plugin.stop().await.unwrap();

    recorder.refuses.store(true, Ordering::SeqCst);
    assert_eq!(plugin.start().await.unwrap_err().code, ErrorCode::RecordFailed);
    recorder.refuses.store(false, Ordering::SeqCst);

    let records = recorder.inner.records();
    assert!(!serde_json::to_string(&records).unwrap().contains("hunter"));
    let read = records.iter().any(|r| {
        r.kind == RecordKind::Secret
            && r.target.as_deref() == Some("db.password")
            && r.detail.as_deref() == Some("for the environment")
            && r.plugin.is_some()
    });
    assert!(read, "{records:#?}");

    for (variable, code) in [("LD_PRELOAD", ErrorCode::Denied), ("A=B", ErrorCode::InvalidParams)] {
        let options = LoadOptions::new().secret_env(variable, "db.password");
        assert_eq!(operator.load(&dir, options).await.err().unwrap().code(), code);
    }
    host.shutdown().await.unwrap();
}

#[tokio::test]
async fn only_owners_have_to_do_with_secrets() {
    let tmp = tempfile::tempdir().unwrap();
    let (host, _) = host(tmp.path()).await;
    let plugin = host.load(tmp.path().join("plugin")).await.unwrap();
    plugin.grant_requested().await.unwrap();
    let rules =
        palisade_policy::Rules::new(["secret:*".parse().unwrap()].into_iter().collect(), &[]);
    let limits = palisade::Limits::default();
    let principal = palisade::Principal::Client("somebody".into());
    let clock: Arc<dyn palisade::audit::Clock> = Arc::new(palisade::audit::SystemClock);
    let client = Caller::limited(principal, Arc::new(rules), &limits, clock);
    let control = host.control(client);
    assert_eq!(control.secrets().await.unwrap_err().code, ErrorCode::Denied);
    assert_eq!(control.secret("a").await.unwrap_err().code, ErrorCode::Denied);
    assert_eq!(control.set_secret("a", value("x")).await.unwrap_err().code, ErrorCode::Denied);
    assert_eq!(control.remove_secret("a").await.unwrap_err().code, ErrorCode::Denied);
}
