//! The reference plugin of the conformance suite, as a program and as a component; ../../README.md says what
//! it must do.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use palisade_plugin::{
    Call, Command, CommandResult, Entry, Hook, List, Operation, PalisadeError, Plugin, Request,
    Result, Tool, Veto,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

/// What the plugin remembers.
#[derive(Default)]
struct Memory {
    cancelled: u32,
    events: Vec<Value>,
    kept: Value,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Echo {
    #[serde(default)]
    #[schemars(with = "Value")]
    value: Option<Box<RawValue>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Add {
    a: i128,
    #[serde(default = "one")]
    b: i128,
}

fn one() -> i128 {
    1
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Shape {
    text: String,
    kind: Kind,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    size: Option<Size>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Kind {
    A,
    B,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Size {
    width: i64,
    #[serde(default = "one_i64")]
    height: i64,
}

fn one_i64() -> i64 {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fail {
    message: String,
    code: Option<String>,
    hint: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pause {
    ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Publish {
    subject: String,
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    method: String,
    #[serde(default)]
    params: Value,
    #[serde(default = "half_a_minute")]
    timeout_ms: u64,
}

fn half_a_minute() -> u64 {
    30_000
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    level: Level,
    message: String,
    #[serde(default)]
    fields: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

fn told<T: Serialize>(outcome: Result<T, PalisadeError>, call: &Call) -> Result<Value> {
    call.check()?;
    Ok(match outcome {
        Ok(value) => serde_json::to_value(value)?,
        Err(e) => json!({
            "code": e.code,
            "message": e.message,
            "rule": e.rule,
            "hint": e.hint,
            "retry_after": e.retry_after.map(|wait| wait.as_secs_f64()),
        }),
    })
}

fn described(name: &str, text: &str) -> Tool {
    Tool::new(name).description(text)
}

/// The plugin.
pub(crate) fn plugin() -> Plugin {
    let mut plugin = Plugin::new().name("conformance").version("1.0.0");
    let memory = Arc::new(Mutex::new(Memory::default()));
    let remember = move |change: &mut dyn FnMut(&mut Memory)| {
        change(&mut memory.lock().unwrap_or_else(PoisonError::into_inner));
    };
    plain_tools(&mut plugin);
    tools_of_the_host(&mut plugin);
    contributions(&mut plugin, remember);
    plugin
}

fn plain_tools(plugin: &mut Plugin) {
    let echo = described("echo", "Gives back what it gets.").params::<Echo>();
    plugin.tool(echo, |args: Echo, _| Ok(args.value));

    let add = described("add", "Adds two whole numbers.").params::<Add>();
    plugin.tool(add, |args: Add, _| Ok(args.a.checked_add(args.b).ok_or("too large")?));

    let shape = described("shape", "Says what it was given.").params::<Shape>();
    plugin.tool(shape, |args: Shape, _| Ok(args));

    plugin.tool(described("fail", "Fails."), |args: Fail, _| -> Result<()> {
        let Some(code) = args.code else { return Err(args.message.into()) };
        let mut error = PalisadeError::new(code, args.message);
        error.hint = args.hint;
        Err(error.retry_after(Duration::from_millis(1500)).into())
    });

    plugin.tool(described("sleep", "Takes its time."), |args: Pause, call| {
        call.wait(Duration::from_millis(args.ms));
        call.check()?;
        Ok(json!({ "slept": args.ms }))
    });

    plugin.tool(described("block", "Takes its time, and its thread's."), |args: Pause, _| {
        thread::sleep(Duration::from_millis(args.ms));
        Ok(json!({ "slept": args.ms }))
    });

    plugin.tool(described("progress", "Tells how far it is."), |(): (), call| {
        call.progress(1.0, Some(2.0), Some("half"));
        Ok("done")
    });

    plugin.tool(described("noise", "Prints."), |(): (), _| {
        println!("noise on stdout");
        eprintln!("noise on stderr");
        Ok("quiet")
    });

    #[derive(Deserialize)]
    struct Text {
        length: usize,
    }
    plugin.tool(described("text", "A long text."), |args: Text, _| Ok("x".repeat(args.length)));

    #[derive(Deserialize)]
    struct Deep {
        levels: usize,
    }
    plugin.tool(described("deep", "Lists in lists."), |args: Deep, _| {
        let text = "[".repeat(args.levels) + &"]".repeat(args.levels);
        Ok(RawValue::from_string(text)?)
    });

    plugin.tool(described("half", "Half of a surrogate pair."), |(): (), _| {
        Ok(RawValue::from_string(r#""\ud83d""#.to_owned())?)
    });

    plugin.tool(described("config", "The configuration."), |(): (), call| {
        Ok(call.config::<Value>()?)
    });
}

fn tools_of_the_host(plugin: &mut Plugin) {
    for name in ["publish", "publish_blocking"] {
        plugin.tool(described(name, "Publishes an event."), |args: Publish, call| {
            told(call.publish(&args.subject, &args.data), call)
        });
    }
    for name in ["host", "host_blocking"] {
        let tool = described(name, "Calls a service of the application.");
        plugin.tool(tool, |args: Ask, call| {
            let handle = call.timeout(Duration::from_millis(args.timeout_ms));
            told(handle.host().call::<Value, _>(&args.method, &args.params), call)
        });
    }
    for name in ["storage", "storage_blocking"] {
        plugin.tool(described(name, "Keeps something."), stored);
    }
    plugin.tool(described("fetch", "Requests something of the web."), fetch);
    #[derive(Deserialize)]
    struct Name {
        name: String,
    }
    plugin.tool(described("secret", "Gives a secret away."), |args: Name, call| {
        Ok(call.secret(&args.name)?)
    });
    plugin.tool(described("log", "Writes a line of log."), |args: Line, call| {
        let mut line = call.log();
        for (name, value) in args.fields {
            line = line.field(&name, value);
        }
        match args.level {
            Level::Trace => line.trace(args.message),
            Level::Debug => line.debug(args.message),
            Level::Info => line.info(args.message),
            Level::Warn => line.warn(args.message),
            Level::Error => line.error(args.message),
        }
        Ok(())
    });
}

#[derive(Deserialize)]
struct Stored {
    does: String,
    with: With,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct With {
    key: String,
    value: Value,
    version: u64,
    ttl: Option<f64>,
    prefix: String,
    after: Option<String>,
    limit: Option<usize>,
}

fn entry(entry: Entry<Value>) -> Value {
    let ttl = entry.ttl.map(|ttl| ttl.as_secs_f64());
    json!({ "key": entry.key, "value": entry.value, "version": entry.version, "ttl": ttl })
}

fn stored(Stored { does, with }: Stored, call: &Call) -> Result<Value> {
    let With { key, value, version, ttl, prefix, after, limit } = with;
    let mut storage = call.storage();
    if let Some(ttl) = ttl {
        storage = storage.ttl(Duration::from_secs_f64(ttl));
    }
    match does.as_str() {
        "get" => told(storage.get::<Value>(&key), call),
        "entry" => told(storage.entry(&key).map(|found| found.map(entry)), call),
        "set" => told(storage.set(&key, &value), call),
        "compare_and_set" => told(storage.compare_and_set(&key, version, &value), call),
        "delete" => told(storage.delete(&key), call),
        "list" => {
            let page = storage.list(&List { prefix, after, limit }).map(|page| {
                let entries: Vec<Value> = page.entries.into_iter().map(entry).collect();
                json!({ "entries": entries, "next": page.next })
            });
            told(page, call)
        }
        "transaction" => {
            let set = Operation::set(&key, &value)?.version(0).ttl(Duration::from_secs(1));
            let all = [set, Operation::delete("old"), Operation::check("c", 4)];
            told(storage.transaction(&all), call)
        }
        other => Err(format!("the storage does no {other}").into()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fetch {
    url: String,
    method: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<String>,
    bytes: Option<Vec<u8>>,
    timeout_ms: Option<u64>,
    redirect: Option<bool>,
}

fn fetch(args: Fetch, call: &Call) -> Result<Value> {
    let mut request = Request::new(args.url);
    if let Some(method) = args.method {
        request = request.method(method);
    }
    for (name, value) in args.headers {
        request = request.header(name, value);
    }
    if let Some(body) = args.bytes.or(args.body.map(String::into_bytes)) {
        request = request.body(body);
    }
    if let Some(ms) = args.timeout_ms {
        request = request.timeout(Duration::from_millis(ms));
    }
    if let Some(redirect) = args.redirect {
        request = request.redirect(redirect);
    }
    let answer = call.http().fetch(request)?;
    Ok(json!({
        "status": answer.status,
        "header": answer.header("X"),
        "text": answer.text(),
        "length": answer.body.len(),
        "url": answer.url,
        "redirects": answer.redirects,
    }))
}

fn contributions(
    plugin: &mut Plugin,
    remember: impl Fn(&mut dyn FnMut(&mut Memory)) + Clone + Send + Sync + 'static,
) {
    for name in ["wait", "wait_blocking"] {
        let remember = remember.clone();
        plugin.tool(described(name, "Waits until it is cancelled."), move |(): (), call| {
            if call.wait(Duration::from_secs(3600)) {
                remember(&mut |memory| memory.cancelled += 1);
            }
            Ok(call.check()?)
        });
    }

    let ask = remember.clone();
    let tool = described("cancelled", "How many calls were cancelled.");
    plugin.tool(tool, move |(): (), _| {
        let mut count = 0;
        ask(&mut |memory| count = memory.cancelled);
        Ok(count)
    });

    let ask = remember.clone();
    plugin.tool(described("events", "The events that came."), move |(): (), _| {
        let mut events = Vec::new();
        ask(&mut |memory| events.clone_from(&memory.events));
        Ok(events)
    });

    #[derive(Deserialize)]
    struct Keep {
        value: Value,
    }
    let keep = remember.clone();
    plugin.tool(described("keep", "Changes the state."), move |args: Keep, _| {
        keep(&mut |memory| memory.kept = args.value.clone());
        Ok(())
    });

    let keep = remember.clone();
    plugin.event("chat.>", move |event, _| {
        let data: Value = event.data()?;
        let entry = json!({
            "subject": event.subject, "data": data, "delivery": event.delivery, "hops": event.hops,
        });
        keep(&mut |memory| memory.events.push(entry.clone()));
        Ok(())
    });
    plugin.event("broken.*", |_, _| Err(PalisadeError::new("PAL-UNAVAILABLE", "not now").into()));

    plugin.hook(Hook::new("message.received").priority(60), |mut data: Value, _| {
        match data.get_mut("text") {
            Some(text) if text == "HELLO" => *text = "HELLO!".into(),
            _ => return Ok(None),
        }
        Ok(Some(data))
    });
    plugin.hook(Hook::new("message.received").priority(10), |mut data: Value, _| {
        let text = data.get_mut("text").ok_or("there is no text")?;
        match text.as_str().ok_or("the text is none")? {
            "spam" => return Err(Veto::new("spam is not welcome").into()),
            "plain" => return Ok(None),
            other => *text = other.to_uppercase().into(),
        }
        Ok(Some(data))
    });

    let stats = Command::new("stats").description("Tells its arguments.");
    plugin.command(stats, |args, _| Ok(format!("stats: {}", args.join(", "))));
    plugin.command(Command::new("leave").description("Gives a status."), |args, _| {
        let status = args.first().ok_or("no status")?.parse()?;
        Ok(CommandResult { status, output: "left".to_owned() })
    });

    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        bad: bool,
    }
    plugin.configure(|config: Config, _| {
        if config.bad {
            return Err(PalisadeError::new("PAL-PARAMS", "a bad configuration").into());
        }
        Ok(())
    });

    let ask = remember.clone();
    plugin.state().save(2, move |_| {
        let mut kept = Value::Null;
        ask(&mut |memory| kept.clone_from(&memory.kept));
        Ok(json!({ "kept": kept }))
    });
    #[derive(Deserialize)]
    struct Kept {
        kept: Value,
    }
    plugin.state().restore(&[1, 2], move |state: Kept, schema, _| {
        remember(&mut |memory| memory.kept = json!([schema, state.kept]));
        Ok(())
    });

    plugin.stop(|call| {
        call.log().info("stopped");
        Ok(())
    });
}
