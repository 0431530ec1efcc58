//! 101: what a guest imports that nobody declared, granted or knows.

use std::time::Duration;

use palisade_model::ErrorCode;
use palisade_wasm::ablation::Layer;
use serde_json::{Value, json};

use super::{
    Case,
    Control::Lifted,
    Made, Verdict,
    guests::text,
    net::{Names, Web, ok},
    room::{Room, Terms, odd, of_call, outcome},
};
use crate::trouble::Result;

const TIME: Duration = Duration::from_secs(5);

/// One right of each kind that the guest imports something for; none of them leads anywhere.
pub(super) const NOWHERE: [(&str, &str); 6] = [
    ("storage", "storage.kv:nothing"),
    ("http", "net.http:nowhere.example:80"),
    ("host-call", "host.call:nothing"),
    ("plugin-call", "plugin.call:nothing"),
    ("secrets", "secret:nothing"),
    ("event-bus", "event.publish:nothing"),
];

/// Those, and these.
pub(super) fn with(rights: &[&str]) -> Terms {
    let nowhere: Vec<&str> = NOWHERE.iter().map(|(_, right)| *right).collect();
    Terms::new(&[nowhere.as_slice(), rights].concat())
}

const fn case(variant: &'static str, name: &'static str, attack: fn(Room) -> Made) -> Case {
    Case { number: 101, variant, name, attack, control: Lifted, without: &[] }
}

/// The guest imports everything; for one interface it has no right at all.
const fn missing(variant: &'static str, name: &'static str, attack: fn(Room) -> Made) -> Case {
    Case { number: 101, variant, name, attack, control: Lifted, without: &[Layer::Imports] }
}

pub(super) const CASES: &[Case] = &[
    case("unknown", "an interface that nobody knows", |room| {
        Box::pin(async move {
            let name = room.limit("evil:host/exec@1.0.0", "palisade:plugin/clock@0.1.0");
            importing(&room, name, &[]).await
        })
    }),
    case("version", "a later version of an interface", |room| {
        Box::pin(async move {
            let name = room.limit("palisade:plugin/log@0.2.0", "palisade:plugin/log@0.1.0");
            importing(&room, name, &[]).await
        })
    }),
    missing("storage", "storage without a right to it", |room| {
        Box::pin(lacking(room, "storage", "storage.kv:a", "key", json!({"key": "a"})))
    }),
    missing("secrets", "secrets without a right to any", |room| {
        Box::pin(lacking(room, "secrets", "secret:token", "secret", json!({"name": "token"})))
    }),
    missing("host-call", "services of the application without a right to any", |room| {
        let args = json!({"method": "lookup", "params": {}});
        Box::pin(lacking(room, "host-call", "host.call:lookup", "host-call", args))
    }),
    missing("plugin-call", "tools of other plugins without a right to any", |room| {
        let args = json!({"plugin": "other", "tool": "tell"});
        Box::pin(lacking(room, "plugin-call", "plugin.call:other", "plugin-call", args))
    }),
    missing("event-bus", "events without a right to any", |room| {
        let args = json!({"subject": "news"});
        Box::pin(lacking(room, "event-bus", "event.publish:news", "publish", args))
    }),
    missing("http", "requests without a right to any", |room| Box::pin(http(room))),
    missing("wasi-http", "requests of WASI without a right to any", |room| {
        let guest = room.guests().wasi.clone();
        Box::pin(wasi(room, guest, "fetch", "net.http"))
    }),
    missing("sockets", "connections of WASI 0.2 without a right to any", |room| {
        let guest = room.guests().wasi.clone();
        Box::pin(wasi(room, guest, "tcp-fetch", "net.tcp"))
    }),
    missing("sockets-0.3", "connections of WASI 0.3 without a right to any", |room| {
        let guest = room.guests().wasi3.clone();
        Box::pin(wasi(room, guest, "tcp-fetch", "net.tcp"))
    }),
    case("scope-sockets", "another host than the granted one, over a connection", |room| {
        let guest = room.guests().wasi.clone();
        Box::pin(elsewhere(room, guest))
    }),
    case("scope-sockets-0.3", "the same with WASI 0.3", |room| {
        let guest = room.guests().wasi3.clone();
        Box::pin(elsewhere(room, guest))
    }),
    case("scope-storage", "another key than the granted one", |room| {
        Box::pin(beyond(room, "storage.kv:a", "key", json!({"key": "a"})))
    }),
    case("scope-secret", "another secret than the granted one", |room| {
        Box::pin(beyond(room, "secret:token", "secret", json!({"name": "token"})))
    }),
    case("scope-host-call", "another service than the granted one", |room| {
        let args = json!({"method": "lookup", "params": {}});
        Box::pin(beyond(room, "host.call:lookup", "host-call", args))
    }),
    case("environment", "a variable of the host's", |room| {
        Box::pin(async move {
            let mut terms = Terms::task("variable", "PALISADE_ESCAPE_WORD", &[]);
            if room.lifted {
                terms.env.push(("PALISADE_ESCAPE_WORD".into(), "shown".into()));
            }
            room.command(terms, TIME).await
        })
    }),
    case("extism-user", "a function of the application without the right to it", |room| {
        Box::pin(async move {
            let rights = room.granted("host.call:lookup");
            let module = text(
                r#"(module (import "extism:host/user" "lookup" (func (param i64) (result i64)))
                    (func (export "f") (result i32) (i32.const 0)))"#,
            )?;
            let terms = Terms::extism(&rights);
            Ok(of_call(room.once(&module, terms, "f", json!({}), TIME).await?))
        })
    }),
    case("extism-env", "a function that Extism has not", |room| {
        Box::pin(async move {
            let name = room.limit("exec", "free");
            let module = text(&format!(
                r#"(module (import "extism:host/env" "{name}" (func (param i64)))
                    (func (export "f") (result i32) (i32.const 0)))"#
            ))?;
            Ok(of_call(room.once(&module, Terms::extism(&[]), "f", json!({}), TIME).await?))
        })
    }),
    case("extism-wasi-sockets", "sockets of the older WASI", |room| {
        Box::pin(async move {
            let name = room.limit("sock_listen", "sched_yield");
            let module = text(&format!(
                r#"(module (import "wasi_snapshot_preview1" "{name}" (func (result i32)))
                    (func (export "f") (result i32) (i32.const 0)))"#
            ))?;
            Ok(of_call(room.once(&module, Terms::extism(&[]), "f", json!({}), TIME).await?))
        })
    }),
    case("extism-config", "configuration that was not given", |room| Box::pin(config(room))),
];

/// A component that imports an interface of this name, and otherwise does no harm.
async fn importing(room: &Room, name: &str, rights: &[&str]) -> Result<Verdict> {
    let wasm = text(&format!(
        r#"(component
            (import "{name}" (instance))
            (core module $m (func (export "f") (result i32) (i32.const 7)))
            (core instance $i (instantiate $m))
            (func (export "f") (result u32) (canon lift (core func $i "f"))))"#
    ))?;
    Ok(of_call(room.once(&wasm, Terms::new(rights), "f", json!({}), TIME).await?))
}

/// All rights but those to `interface`; with them where the limit is lifted.
async fn lacking(
    room: Room,
    interface: &str,
    right: &str,
    tool: &str,
    args: Value,
) -> Result<Verdict> {
    let mut terms = with(&room.granted(right));
    if !room.lifted {
        let nowhere = NOWHERE.iter().find(|(name, _)| *name == interface).map(|(_, right)| *right);
        terms.rights.retain(|right| Some(right.as_str()) != nowhere);
    }
    let wasm = room.guests().plugin.clone();
    Ok(of_call(room.once(&wasm, terms, tool, args, TIME).await?))
}

/// Every kind of right, none of which covers this.
async fn beyond(room: Room, right: &str, tool: &str, args: Value) -> Result<Verdict> {
    let wasm = room.guests().plugin.clone();
    Ok(of_call(room.once(&wasm, with(&room.granted(right)), tool, args, TIME).await?))
}

async fn http(room: Room) -> Result<Verdict> {
    let web = Web::start(|_| ok("secret")).await?;
    let right = format!("net.http:web.example:{}", web.port);
    let mut terms = with(&room.granted(&right))
        .names(Names::here(&["web.example"]))
        .reachable("127.0.0.1/32")?;
    if !room.lifted {
        terms.rights.retain(|right| !right.starts_with("net.http"));
    }
    let args = json!({"url": format!("http://web.example:{}/", web.port)});
    let wasm = room.guests().plugin.clone();
    let answer = room.once(&wasm, terms, "fetch", args, TIME).await?;
    super::web::visited(&web, of_call(answer))
}

/// What a WASI program fetches from a server, with the task and the kind of right that it takes.
async fn wasi(room: Room, guest: Vec<u8>, task: &str, kind: &str) -> Result<Verdict> {
    let web = Web::start(|_| ok("secret")).await?;
    let right = format!("{kind}:web.example:{}", web.port);
    let url = format!("http://web.example:{}/", web.port);
    let mut terms = Terms::task(task, &url, &room.granted(&right))
        .names(Names::here(&["web.example"]))
        .reachable("127.0.0.1/32")?;
    if !room.lifted {
        terms.rights.clear();
    }
    fetched(&room, &guest, terms, &web).await
}

/// The same, where a connection to another host may be made.
async fn elsewhere(room: Room, guest: Vec<u8>) -> Result<Verdict> {
    let web = Web::start(|_| ok("secret")).await?;
    let right = format!("net.tcp:web.example:{}", web.port);
    let other = format!("net.tcp:other.example:{}", web.port);
    let url = format!("http://web.example:{}/", web.port);
    let mut rights = room.granted(&right);
    rights.push(&other);
    let terms = Terms::task("tcp-fetch", &url, &rights)
        .names(Names::here(&["web.example", "other.example"]))
        .reachable("127.0.0.1/32")?;
    fetched(&room, &guest, terms, &web).await
}

/// What came of its task; without the right the guard must have been asked, where it was started at all.
async fn fetched(room: &Room, guest: &[u8], terms: Terms, web: &Web) -> Result<Verdict> {
    let running = match room.start(guest, terms).await? {
        Ok(running) => running,
        Err(refused) => return Ok(outcome(&refused)),
    };
    let seen = running.task(TIME).await;
    if !room.lifted && running.host.decided(ErrorCode::Denied) == 0 {
        return odd(format!("the guard was not asked: {seen:?}"));
    }
    super::web::visited(web, seen)
}

async fn config(room: Room) -> Result<Verdict> {
    let module = text(
        r#"(module
            (import "extism:host/env" "config_get" (func $get (param i64) (result i64)))
            (import "extism:host/env" "input_offset" (func $input (result i64)))
            (import "extism:host/env" "length" (func $length (param i64) (result i64)))
            (import "extism:host/env" "output_set" (func $output (param i64 i64)))
            (func (export "config") (result i32)
                (local $value i64)
                (local.set $value (call $get (call $input)))
                (if (i64.eqz (local.get $value)) (then (return (i32.const 1))))
                (call $output (local.get $value) (call $length (local.get $value)))
                (i32.const 0)))"#,
    )?;
    let mut terms = Terms::extism(&[]);
    if room.lifted {
        terms.config = json!({"PATH": "given"});
    }
    let answer = room.once(&module, terms, "config", json!({"input": "PATH"}), TIME).await?;
    Ok(match answer {
        Ok(value) => of_call(Ok(value)),
        // It says nothing but that there was none.
        Err(failure) if failure.message.contains("ended with 1") => {
            ("absent".into(), failure.to_string())
        }
        Err(failure) => outcome(&failure),
    })
}
