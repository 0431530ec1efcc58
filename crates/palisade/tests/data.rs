//! A plugin of a JSON-lines host, behind real walls, asks the application for data, keeps some of its own
//! and tells others; and what is not granted is refused.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use palisade::{broker::SubjectPattern, prelude::*};
use serde_json::{Value, json};

/// Its one tool asks the host for `{method, params}`, in between a banner and its answer.
const PLUGIN: &str = r#"
import json, sys
def say(message):
    print(json.dumps(message), flush=True)
print("Desktop plugin, starting")
for line in sys.stdin:
    message = json.loads(line)
    if message["method"] == "call":
        say({"id": "q", **message["params"]["args"]})
        answer = json.loads(sys.stdin.readline())
        say({"id": message["id"], "result": {k: answer[k] for k in answer if k != "id"}})
    else:
        say({"id": message["id"], "result": {"ok": True}})
"#;

const MANIFEST: &str = "
api: palisade/1
id: desktop
version: 1.0.0
entry: { kind: jsonl, file: main.py, runtime: python }
capabilities:
  required:
    - { capability: 'host.call:data.weather', reason: Shows the weather. }
    - { capability: 'event.publish:desktop.>', reason: Tells others. }
    - storage.kv:city
contributes:
  tools: [{ name: ask, description: Asks. }]
";

#[tokio::test]
async fn a_desktop_plugin_asks_for_data_keeps_data_and_posts_events() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("plugin");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("main.py"), PLUGIN).unwrap();
    std::fs::write(dir.join("plugin.yaml"), MANIFEST).unwrap();
    let host = Host::builder()
        .state_dir(tmp.path().join("state"))
        .backends(palisade::backends())
        .data("weather", |cx, params: Value| async move {
            let who = cx.instance().map(|i| i.plugin.id.to_string());
            Ok(json!({ "for": who, "city": params["city"], "sun": true }))
        })
        .data("salaries", |_cx, _params: Value| async move { Ok(json!([1, 2])) })
        .build()
        .await
        .unwrap();
    let mut heard = host
        .event_bus()
        .subscribe(SubjectPattern::parse("desktop.>").unwrap(), Default::default())
        .await
        .unwrap();
    let plugin = host.load(&dir).await.unwrap();
    plugin.grant_requested().await.unwrap();
    plugin.start().await.unwrap();
    let ask = async |method: &str, params: Value| -> Value {
        let args = json!({ "method": method, "params": params });
        plugin.call("ask", &args).await.unwrap().parse().unwrap()
    };

    let weather = ask("data_request", json!({ "name": "weather", "params": { "city": "Rome" } }));
    let expected = json!({ "for": "desktop", "city": "Rome", "sun": true });
    assert_eq!(weather.await["result"], expected, "a bare value, and who asks is known");
    for name in ["salaries", "nothing"] {
        let refused = ask("data_request", json!({ "name": name })).await;
        let text = refused["error"].as_str().unwrap();
        assert!(text.contains(&format!("host.call:data.{name}")), "{text}");
    }

    ask("store_plugin_data", json!({ "key": "city", "value": "Rome" })).await;
    let kept = ask("get_plugin_data", json!({ "key": "city" })).await;
    assert_eq!(kept["result"], "Rome");
    let refused = ask("store_plugin_data", json!({ "key": "other", "value": 1 })).await;
    assert!(refused["error"].as_str().unwrap().contains("storage.kv:other"), "{refused}");

    let posted = ask("post_event", json!({ "event": "desktop.seen", "data": { "n": 1 } })).await;
    assert_eq!(posted["result"]["queued"], 1, "{posted}");
    let delivery = tokio::time::timeout(Duration::from_secs(5), heard.next()).await;
    let delivery = delivery.unwrap().unwrap();
    assert_eq!(&*delivery.event().subject, "desktop.seen");
    assert_eq!(delivery.event().data.parse::<Value>().unwrap(), json!({ "n": 1 }));
    let refused = ask("post_event", json!({ "event": "bank.transfer", "data": 1 })).await;
    assert!(refused["error"].as_str().unwrap().contains("event.publish:bank.transfer"));
    host.shutdown().await.unwrap();
}
