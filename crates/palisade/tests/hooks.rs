//! Hooks, commands, events and services with real plugins behind real walls, good ones and bad ones.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use palisade::{
    HookAnswer, State,
    audit::{Decision, MemoryRecorder, RecordKind},
    prelude::*,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const HOOK: &str = "message.received";

/// Speaks the protocol with the standard library alone. What it does with a hook stands in its
/// configuration.
const PLUGIN: &str = r#"
import json, os, signal, socket, time
wire = socket.socket(fileno=3)
lines = wire.makefile("r", encoding="utf-8", newline="\n")
config, seen, waiting = {}, [], []
def send(**message):
    wire.sendall(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
def ask(method, params):
    send(id="mine", method=method, params=params)
    while True:
        message = json.loads(lines.readline())
        if message.get("id") == "mine":
            return message
        waiting.append(message)
def hook(params, id):
    does, data = config.get("does"), params["data"]
    if does == "append": return {"data": data + [config["name"]]}
    if does == "veto": return {"veto": "\x1b[2J\u202eno\n" + "x" * 100000, "data": "gone"}
    if does == "huge": return {"data": "x" * (1 << 20)}
    if does == "slow": time.sleep(60)
    if does == "crash": os.kill(os.getpid(), signal.SIGSEGV)
    if does == "exit": os._exit(0)
    if does == "breach": wire.sendall(b"{\"veto\":\n")
    if does == "rubbish": return ["data", "veto"]
    if does == "forge":
        for other in range(1, 10):
            if id + other != id: send(id=id + other, result={"veto": "forged"})
            send(id=str(other), result={"veto": "forged"})
        return {"hook": "bank.transfer", "data": data}
    if does == "publish":
        return {"data": ask("event.publish", {"subject": "mail.new", "data": data})}
    if does == "service":
        return {"data": ask("host.call", {"method": "get_user_profile", "params": {"id": data}})}
    return {}
def answer(method, params, id):
    global config
    if method == "initialize":
        config = params["config"]
        return {"protocol": 1}
    if method == "hook": return hook(params, id)
    if method == "handle_event":
        seen.append({k: params[k] for k in ("subject", "data", "hops")})
    if method == "call": return seen
    if method == "run_command":
        return {"status": len(params["args"]), "output": "\x1b[31m" + " ".join(params["args"])}
    return {}
while True:
    if waiting:
        message = waiting.pop(0)
    else:
        line = lines.readline()
        if not line:
            break
        message = json.loads(line)
    if "method" in message and "id" in message:
        send(id=message["id"], result=answer(message["method"], message.get("params"), message["id"]))
        if message["method"] == "shutdown":
            break
"#;

struct Stage {
    host: Host,
    recorder: Arc<MemoryRecorder>,
    tmp: TempDir,
}

impl Stage {
    async fn new() -> Self {
        let tmp = tempfile::tempdir().unwrap();
        let recorder = Arc::new(MemoryRecorder::new(10_000));
        let profile = Service::new("get_user_profile", |_cx, query: Query| async move {
            match query.id {
                7 => Ok(Profile { name: "Ada".into() }),
                id => Err(Failure::new(ErrorCode::NotFound, format!("there is no user {id}"))),
            }
        });
        let host = Host::builder()
            .state_dir(tmp.path().join("state"))
            .backends(palisade::backends())
            .recorder(recorder.clone())
            .service(profile)
            .build()
            .await
            .unwrap();
        Self { host, recorder, tmp }
    }

    /// Starts a plugin that offers the hook with this priority, and does this with it.
    async fn plugin(&self, id: &str, priority: u16, does: &str, capabilities: &str) -> Plugin {
        let dir = self.tmp.path().join(id);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("main.py"), PLUGIN).unwrap();
        let manifest = format!(
            "api: palisade/1\nid: {id}\nversion: 1.0.0\nentry: {{ kind: python, file: main.py }}\n\
             contributes:\n  hooks: [{{ event: {HOOK}, priority: {priority} }}]\n  \
             tools: [{{ name: seen, description: What it received. }}]\n  \
             commands: [{{ name: count, description: Counts its arguments. }}]\n\
             config: {{ schema: {{ type: object }} }}\n\
             resources: {{ timeouts: {{ stop: 500ms }} }}\n\
             capabilities: {{ required: [{capabilities}] }}\n"
        );
        std::fs::write(dir.join("plugin.yaml"), manifest).unwrap();
        let options = LoadOptions::new().config(json!({ "does": does, "name": id }));
        let plugin = self.host.load_with(&dir, options).await.unwrap();
        plugin.grant_requested().await.unwrap();
        plugin.start().await.unwrap();
        plugin
    }

    async fn hook(&self, data: Value, options: HookOptions) -> HookOutcome {
        self.host.hook_with(HOOK, &data, options).await.unwrap()
    }
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Query {
    id: u64,
}

#[derive(serde::Serialize, schemars::JsonSchema)]
struct Profile {
    name: String,
}

fn data(outcome: &HookOutcome) -> Value {
    outcome.data.parse().unwrap()
}

fn failed(answer: &HookAnswer) -> Option<ErrorCode> {
    match answer {
        HookAnswer::Failed(failure) => Some(failure.code),
        _ => None,
    }
}

#[tokio::test]
async fn plugins_change_a_message_in_turn_until_one_refuses_it() {
    let stage = Stage::new().await;
    stage.plugin("last", 900, "append", "").await;
    stage.plugin("second", 50, "append", "").await;
    stage.plugin("first", 0, "append", "").await;
    let outcome = stage.hook(json!([]), HookOptions::new()).await;
    assert_eq!(data(&outcome), json!(["first", "second", "last"]));
    assert_eq!(outcome.parse::<Vec<String>>().unwrap().len(), 3);

    stage.plugin("veto", 60, "veto", "").await;
    let outcome = stage.hook(json!([]), HookOptions::new()).await;
    let veto = outcome.veto.clone().unwrap();
    assert_eq!((veto.plugin.as_str(), veto.failure), ("veto", None));
    assert!(veto.reason.starts_with("\\u{1b}[2J\\u{202e}no\\nxxx"), "{}", veto.reason);
    assert!(veto.reason.len() < 700, "{}", veto.reason.len());
    assert_eq!(data(&outcome), json!(["first", "second"]));
    assert_eq!(outcome.allowed().unwrap_err().code, ErrorCode::Denied);
    let records = stage.recorder.records();
    let refused = records.iter().find(|r| r.rule.as_deref() == Some("veto")).unwrap();
    assert_eq!((refused.kind, refused.decision), (RecordKind::Call, Some(Decision::Deny)));
    assert_eq!(refused.target.as_deref(), Some(HOOK));
    stage.host.shutdown().await.unwrap();
}

#[tokio::test]
async fn nothing_that_a_plugin_does_in_a_hook_breaks_the_application_or_its_neighbour() {
    use ErrorCode as C;
    let stage = Stage::new().await;
    stage.plugin("neighbour", 999, "append", "").await;
    for (does, code, state) in [
        ("crash", C::Crashed, State::Crashed),
        ("exit", C::Crashed, State::Stopped),
        ("breach", C::ProtocolBreach, State::Crashed),
        ("rubbish", C::PluginError, State::Running),
        ("huge", C::LimitExceeded, State::Running),
        ("slow", C::Deadline, State::Running),
    ] {
        let plugin = stage.plugin(does, 1, does, "").await;
        let begun = Instant::now();
        let quick = HookOptions::new().timeout(Duration::from_secs(2));
        let outcome = stage.hook(json!([]), quick.clone()).await;
        assert_eq!(failed(&outcome.steps[0].answer), Some(code), "{does}: {:?}", outcome.steps);
        assert_eq!((data(&outcome), &outcome.veto), (json!(["neighbour"]), &None), "{does}");
        assert!(begun.elapsed() < Duration::from_secs(8), "{does}: {:?}", begun.elapsed());
        assert_eq!(plugin.status().state, state, "{does}");

        // Where the hook protects something, the same is a no.
        if plugin.status().state.is_resting() {
            plugin.start().await.unwrap();
        }
        let protects = quick.on_failure(FailurePolicy::Veto);
        let outcome = stage.hook(json!([]), protects).await;
        let veto = outcome.veto.unwrap();
        assert_eq!((veto.plugin.as_str(), veto.failure.unwrap().code), (does, code));
        plugin.kill().await.unwrap();
        if plugin.status().state == State::Crashed {
            // It would refuse for as long as it is loaded.
            stage
                .host
                .control(palisade::broker::Caller::application())
                .forget(plugin.id())
                .await
                .unwrap();
        }
    }
    stage.host.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_plugin_answers_for_no_hook_but_its_own() {
    let stage = Stage::new().await;
    stage.plugin("forger", 1, "forge", "").await;
    stage.plugin("honest", 2, "append", "").await;
    for _ in 0..3 {
        let outcome = stage.hook(json!([]), HookOptions::new()).await;
        assert_eq!(outcome.veto, None, "forged vetoes count for nothing");
        assert_eq!(outcome.steps[0].answer, HookAnswer::Changed, "its own answer counts");
        assert_eq!(data(&outcome), json!(["honest"]));
    }
    let outcome = stage.hook(json!([]), HookOptions::new()).await;
    assert_eq!(outcome.veto, None);
    assert_eq!(failed(&outcome.steps[0].answer), Some(ErrorCode::ProtocolBreach));
    // Answers to nothing are counted, and end the plugin.
    let breach = stage.recorder.records().into_iter().find(|r| r.kind == RecordKind::Breach);
    assert!(breach.unwrap().detail.unwrap().contains("answer"));
    stage.host.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_plugin_that_is_stopped_during_a_hook_has_failed_and_holds_nobody_up() {
    let stage = Stage::new().await;
    let slow = stage.plugin("slow", 1, "slow", "").await;
    stage.plugin("good", 2, "append", "").await;
    let host = stage.host.clone();
    let running = tokio::spawn(async move {
        let long = HookOptions::new().timeout(Duration::from_secs(50));
        host.hook_with(HOOK, &json!([]), long).await
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    slow.stop().await.unwrap();
    let outcome = running.await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(failed(&outcome.steps[0].answer).is_some(), "{:?}", outcome.steps);
    assert_eq!(data(&outcome), json!(["good"]));
    assert_eq!(stage.hook(json!([]), HookOptions::new()).await.steps.len(), 1);
    stage.host.shutdown().await.unwrap();
}

#[tokio::test]
async fn one_plugin_publishes_and_another_that_subscribes_receives() {
    let stage = Stage::new().await;
    let subscriber = stage.plugin("subscriber", 99, "nothing", "'event.subscribe:mail.>'").await;
    let may = "{ capability: 'event.publish:mail.>', reason: tells }";
    stage.plugin("publisher", 1, "publish", may).await;
    stage.plugin("stranger", 2, "publish", "").await;
    let outcome = stage.hook(json!({"n": 1}), HookOptions::new()).await;
    // The stranger got the publisher's answer as its data, and its own answer is a refusal.
    let answer = data(&outcome);
    assert_eq!(answer["error"]["data"]["code"], "PAL-DENIED", "{answer}");
    let mut seen = json!([]);
    for _ in 0..200 {
        seen = subscriber.call("seen", &()).await.unwrap().parse().unwrap();
        if seen != json!([]) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(seen, json!([{"subject": "mail.new", "data": {"n": 1}, "hops": 1}]));
    stage.host.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_plugin_asks_for_a_service_of_the_application() {
    let stage = Stage::new().await;
    let may = "{ capability: 'host.call:get_user_profile', reason: greets }";
    let plugin = stage.plugin("asker", 1, "service", may).await;
    let ask = async |id: Value| data(&stage.hook(id, HookOptions::new()).await);
    assert_eq!(ask(json!(7)).await["result"], json!({"name": "Ada"}));
    assert_eq!(ask(json!(8)).await["error"]["data"]["code"], "PAL-NOT-FOUND");
    assert_eq!(ask(json!("7")).await["error"]["data"]["code"], "PAL-PARAMS");
    plugin.kill().await.unwrap();
    stage.plugin("stranger", 1, "service", "").await;
    assert_eq!(ask(json!(7)).await["error"]["data"]["code"], "PAL-DENIED");
    stage.host.shutdown().await.unwrap();
}

/// The same in the words of the Python SDK.
const WITH_SDK: &str = r#"
from palisade_plugin import Plugin, Veto
plugin = Plugin()
@plugin.hook("message.received", priority=10)
def on_message(data):
    if "spam" in data["text"]:
        raise Veto("this is spam")
    if data["text"] == "bug":
        raise RuntimeError("a bug")
    if data["text"] != "hello":
        return {"text": data["text"].upper()}
@plugin.command
def greet(args):
    "Greets somebody."
    return "Hello, " + " and ".join(args) + "!"
plugin.run()
"#;

#[tokio::test]
async fn a_plugin_of_the_python_sdk_takes_part() {
    let stage = Stage::new().await;
    let dir = stage.tmp.path().join("with-sdk");
    let sdk = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sdk/python/palisade_plugin");
    std::fs::create_dir_all(dir.join("palisade_plugin")).unwrap();
    for file in std::fs::read_dir(sdk).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_some_and(|e| e == "py") {
            let to = dir.join("palisade_plugin").join(file.file_name().unwrap());
            std::fs::copy(&file, to).unwrap();
        }
    }
    std::fs::write(dir.join("main.py"), WITH_SDK).unwrap();
    let manifest = format!(
        "api: palisade/1\nid: with-sdk\nversion: 1.0.0\nentry: {{ kind: python, file: main.py }}\n\
         contributes:\n  hooks: [{{ event: {HOOK}, priority: 10 }}]\n  \
         commands: [{{ name: greet, description: Greets somebody. }}]\n"
    );
    std::fs::write(dir.join("plugin.yaml"), manifest).unwrap();
    let plugin = stage.host.load(&dir).await.unwrap();
    plugin.start().await.unwrap();
    let run = async |text: &str| stage.hook(json!({ "text": text }), HookOptions::new()).await;
    assert_eq!(run("hello").await.steps[0].answer, HookAnswer::Unchanged);
    assert_eq!(data(&run("quiet").await), json!({ "text": "QUIET" }));
    assert_eq!(run("spam").await.veto.unwrap().reason, "this is spam");
    assert_eq!(failed(&run("bug").await.steps[0].answer), Some(ErrorCode::PluginError));
    let out = plugin.run_command("greet", &["Ada"]).await.unwrap();
    assert_eq!((out.status, out.output.as_str()), (0, "Hello, Ada!"));
    stage.host.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_declared_command_is_run_and_its_text_is_safe_to_show() {
    let stage = Stage::new().await;
    let plugin = stage.plugin("counter", 1, "nothing", "").await;
    let out = plugin.run_command("count", &["a", "--b", ""]).await.unwrap();
    assert_eq!((out.status, out.output.as_str()), (3, "\x1b[31ma --b "));
    assert_eq!(out.shown(), "\\u{1b}[31ma --b ");
    let undeclared = plugin.run_command("remove", &["a"]).await.unwrap_err();
    assert_eq!(undeclared.code, ErrorCode::NotFound);
    // The other hook that it would answer is not declared, so it is not asked.
    let outcome = stage.host.hook("message.sent", &json!([])).await.unwrap();
    assert_eq!(outcome.steps, []);
    stage.host.shutdown().await.unwrap();
}
