//! All of `palisade:plugin`, driven by tools with JSON arguments. Everything that it exports it also keeps in
//! mind, so that a test can ask what arrived.

use std::cell::RefCell;

use serde_json::{Value, json};

wit_bindgen::generate!({ path: "../../../wit/0.1.0", world: "full" });

use exports::palisade::plugin as exported;
use palisade::plugin::{
    clock, event_bus, host_call, http, log, plugin_call, random, secrets, storage, types::Failure,
};

struct Plugin;
export!(Plugin);

/// What this instance was told.
#[derive(Default)]
struct Memory {
    config: Value,
    calls: u64,
    events: Vec<Value>,
    kept: Vec<Vec<u8>>,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

fn with<T>(f: impl FnOnce(&mut Memory) -> T) -> T {
    MEMORY.with(|memory| f(&mut memory.borrow_mut()))
}

fn wrong(message: impl ToString) -> Failure {
    Failure {
        code: "PAL-PARAMS".into(),
        message: message.to_string(),
        rule: None,
        hint: None,
        retry_after_ms: None,
    }
}

fn parse(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(wrong)
}

/// A failure of the host's as a value: a tool that answers with a failure only keeps a few of the codes.
fn refused(failure: Failure) -> Value {
    json!({"refused": failure.code, "message": failure.message, "rule": failure.rule})
}

impl exported::guest::Guest for Plugin {
    fn initialize(
        context: exported::guest::Context,
    ) -> Result<exported::guest::Introduction, Failure> {
        let config = parse(&context.config)?;
        if config["spin"] == true {
            spin();
        }
        if config["trap"] == true {
            panic!("as configured");
        }
        with(|memory| memory.config = config);
        Ok(exported::guest::Introduction {
            name: Some("all".into()),
            version: Some("1".into()),
            tools: None,
            state_schemas: vec![1],
        })
    }

    fn call(tool: String, args: String) -> Result<String, Failure> {
        with(|memory| memory.calls += 1);
        let args = parse(&args)?;
        let text = |name: &str| args[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| args[name].as_u64().unwrap_or_default();
        let answer = match tool.as_str() {
            "config" => with(|memory| memory.config.clone()),
            "count" => with(|memory| json!(memory.calls)),
            "events" => with(|memory| json!(memory.events)),
            "echo" => args,
            "trap" => panic!("as told"),
            "spin" => spin(),
            // An endless loop that asks the host for something quick each time.
            "spin-host" => loop {
                std::hint::black_box(clock::monotonic_ns());
            },
            "spin-log" => loop {
                log::write(log::Level::Info, "again", &[]);
            },
            "work" => {
                let until = clock::monotonic_ns() + number("ms") * 1_000_000;
                let mut rounds = 0u64;
                while clock::monotonic_ns() < until {
                    for n in 0..10_000u64 {
                        rounds = std::hint::black_box(rounds.wrapping_add(n));
                    }
                }
                json!(true)
            }
            "sleep" => {
                clock::sleep(number("ms"));
                json!(true)
            }
            // Fills memory again and again: one instruction that takes long.
            "bulk" => {
                let mut bytes = vec![0u8; number("bytes") as usize];
                loop {
                    bytes.fill(std::hint::black_box(1));
                    std::hint::black_box(&mut bytes);
                }
            }
            "hold" => {
                let bytes = vec![1u8; number("bytes") as usize];
                with(|memory| memory.kept.push(bytes));
                json!(with(|memory| memory.kept.iter().map(Vec::len).sum::<usize>()))
            }
            "deep" => json!(deep(number("depth"))),
            "answer" => return Ok(format!("\"{}\"", "a".repeat(number("bytes") as usize))),
            "answer-deep" => {
                let depth = number("depth") as usize;
                return Ok(format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
            }
            "fail" => return Err(Failure { code: text("code"), ..wrong("as told") }),
            "random" => json!(random::bytes(number("bytes") as u32).len()),
            "log" => {
                let message = "x".repeat(number("bytes") as usize);
                let lines = number("lines").max(1);
                let field = ("field".to_owned(), format!("\"{}\"", "y".repeat(2000)));
                let fields: Vec<_> = (0..number("fields")).map(|_| field.clone()).collect();
                let write = || log::write(log::Level::Info, &message, &fields);
                json!((0..lines).filter(|_| write()).count())
            }
            // A list whose elements are small here and large at the host.
            "empty-list" => {
                let fields = vec![(String::new(), String::new()); number("count") as usize];
                json!(log::write(log::Level::Info, "many", &fields))
            }
            "key" => match storage::get(&text("key")) {
                Ok(entry) => json!({"value": entry.map(|entry| entry.value)}),
                Err(failure) => refused(failure),
            },
            "big-key" => match storage::get(&"k".repeat(number("bytes") as usize)) {
                Ok(_) => json!({"value": null}),
                Err(failure) => refused(failure),
            },
            "set" => match storage::set(&text("key"), &args["value"].to_string(), None) {
                Ok(version) => json!({"version": version}),
                Err(failure) => refused(failure),
            },
            "secret" => match secrets::get(&text("name")) {
                Ok(value) => json!({"value": value}),
                Err(failure) => refused(failure),
            },
            "host-call" => match host_call::call(&text("method"), &args["params"].to_string()) {
                Ok(value) => json!({"value": parse(&value)?}),
                Err(failure) => refused(failure),
            },
            "plugin-call" => match plugin_call::call(&text("plugin"), &text("tool"), "{}") {
                Ok(value) => json!({"value": parse(&value)?}),
                Err(failure) => refused(failure),
            },
            "publish" => match event_bus::publish(&text("subject"), "{}") {
                Ok(published) => json!({"queued": published.queued}),
                Err(failure) => refused(failure),
            },
            "fetch" => fetch(&args),
            other => return Err(wrong(format!("no tool {other}"))),
        };
        Ok(answer.to_string())
    }
}

fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

#[inline(never)]
fn deep(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 16]);
    if depth == 0 { 0 } else { 1 + std::hint::black_box(deep(depth - 1)) + room[3] - depth }
}

fn fetch(args: &Value) -> Value {
    let texts = |pair: &Value| {
        let text = |at: usize| pair[at].as_str().unwrap_or_default().to_owned();
        (text(0), text(1))
    };
    let mut headers: Vec<(String, String)> =
        args["headers"].as_array().map(|all| all.iter().map(texts).collect()).unwrap_or_default();
    for n in 0..args["more_headers"].as_u64().unwrap_or(0) {
        headers.push((format!("x-{n}"), "1".into()));
    }
    if let Some(bytes) = args["header_bytes"].as_u64() {
        headers.push(("x-long".into(), "a".repeat(bytes as usize)));
    }
    let request = http::Request {
        url: args["url"].as_str().unwrap_or_default().to_owned(),
        method: args["method"].as_str().map(str::to_owned),
        headers,
        body: args["body"].as_str().map(|text| text.as_bytes().to_vec()),
        follow_redirects: args["follow"] == true,
        timeout_ms: args["timeout_ms"].as_u64().map(|ms| ms as u32),
    };
    match http::fetch(&request) {
        Ok(answer) => json!({
            "status": answer.status, "redirects": answer.redirects, "url": answer.url,
            "body": String::from_utf8_lossy(&answer.body),
        }),
        Err(failure) => refused(failure),
    }
}

impl exported::events::Guest for Plugin {
    fn handle_event(event: exported::events::Event) -> Result<(), Failure> {
        let data = parse(&event.data)?;
        with(|memory| {
            memory.events.push(json!([event.delivery, event.subject, data, event.hops]));
        });
        Ok(())
    }
}

impl exported::hooks::Guest for Plugin {
    fn hook(name: String, data: String) -> Result<exported::hooks::Decision, Failure> {
        use exported::hooks::Decision;
        Ok(match name.as_str() {
            "veto" => Decision::Veto("as told".into()),
            "replace" => Decision::Replace(json!({"was": parse(&data)?}).to_string()),
            "nonsense" => Decision::Replace("{nonsense".into()),
            "fail" => return Err(wrong("as told")),
            _ => Decision::Pass,
        })
    }
}

impl exported::commands::Guest for Plugin {
    fn run_command(
        command: String,
        args: Vec<String>,
    ) -> Result<exported::commands::Outcome, Failure> {
        let status = args.len() as u8;
        Ok(exported::commands::Outcome { status, output: format!("{command} {}", args.join("+")) })
    }
}

impl exported::configure::Guest for Plugin {
    fn configure(config: String) -> Result<(), Failure> {
        let config = parse(&config)?;
        if config["refuse"] == true {
            return Err(wrong("not this one"));
        }
        with(|memory| memory.config = config);
        Ok(())
    }
}

impl exported::state::Guest for Plugin {
    fn save_state() -> Result<exported::state::Saved, Failure> {
        Ok(exported::state::Saved { schema: 1, state: with(|m| json!(m.calls)).to_string() })
    }

    fn restore_state(saved: exported::state::Saved) -> Result<(), Failure> {
        if saved.schema != 1 {
            return Err(wrong("an unknown schema"));
        }
        let calls = parse(&saved.state)?.as_u64().unwrap_or_default();
        with(|memory| memory.calls = calls);
        Ok(())
    }
}

impl exported::shutdown::Guest for Plugin {
    fn shutdown(reason: String, grace_ms: u64) {
        let fields = [("grace-ms".to_owned(), grace_ms.to_string())];
        log::write(log::Level::Info, &format!("shutdown: {reason}"), &fields);
    }
}
