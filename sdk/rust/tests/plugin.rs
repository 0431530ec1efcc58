//! A plugin over a socket pair: what the conformance suite cannot see from outside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use palisade_plugin::{Handle, Hook, PalisadeError, Plugin};
use serde_json::{Value, json};

/// The host's side of a plugin that runs in a thread.
struct Host {
    socket: UnixStream,
    lines: BufReader<UnixStream>,
    plugin: JoinHandle<io::Result<()>>,
}

impl Host {
    fn of(plugin: Plugin) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let lines = BufReader::new(ours.try_clone().unwrap());
        let plugin = thread::spawn(move || plugin.serve(theirs));
        let mut host = Self { socket: ours, lines, plugin };
        let params = json!({
            "protocol": { "min": 1, "max": 1 }, "plugin": { "id": "test" },
            "config": { "word": "Hi" }, "rights": ["tool:a"],
        });
        let answer = host.ask(1, "initialize", &params);
        assert_eq!(answer["result"]["protocol"], 1, "{answer}");
        host
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.socket, "{message}").unwrap();
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn ask(&mut self, id: u64, method: &str, params: &Value) -> Value {
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        self.next()
    }

    fn call(&mut self, id: u64, tool: &str) -> Value {
        self.ask(id, "call", &json!({ "tool": tool, "args": {} }))
    }

    fn end(self) -> io::Result<()> {
        self.socket.shutdown(std::net::Shutdown::Both).unwrap();
        self.plugin.join().unwrap()
    }
}

#[test]
fn a_panic_fails_its_call_and_the_plugin_goes_on() {
    let mut plugin = Plugin::new().threads(1);
    plugin.tool("panic", |(): (), _| -> palisade_plugin::Result<()> { panic!("out of tea") });
    plugin.tool("fine", |(): (), _| Ok("fine"));
    let mut host = Host::of(plugin);
    let answer = host.call(2, "panic");
    assert_eq!(answer["error"]["data"]["code"], "PAL-PLUGIN");
    assert!(answer["error"]["message"].as_str().unwrap().contains("out of tea"), "{answer}");
    assert_eq!(host.call(3, "fine")["result"], "fine");
    host.end().unwrap();
}

#[test]
fn a_handle_works_from_other_threads_and_after_its_call() {
    let (sender, receiver) = mpsc::channel::<Handle>();
    let mut plugin = Plugin::new();
    plugin.tool("leave", move |(): (), call| {
        sender.send(call.detached())?;
        Ok(())
    });
    let mut host = Host::of(plugin);
    host.call(2, "leave");
    let handle = receiver.recv().unwrap();
    let asking = thread::spawn(move || handle.host().call::<u32, _>("late", &()).unwrap());
    let request = host.next();
    assert_eq!(request["params"]["method"], "late");
    host.send(&json!({ "jsonrpc": "2.0", "id": request["id"], "result": 7 }));
    assert_eq!(asking.join().unwrap(), 7);
    host.end().unwrap();
}

#[test]
fn the_end_of_the_connection_ends_what_waits() {
    let (sender, receiver) = mpsc::channel::<PalisadeError>();
    let mut plugin = Plugin::new();
    plugin.tool("ask", move |(): (), call| {
        let error = call.detached().host().call::<Value, _>("never", &()).unwrap_err();
        sender.send(error)?;
        Ok(())
    });
    let mut host = Host::of(plugin);
    let request = host.call(2, "ask");
    assert_eq!(request["method"], "host.call");
    host.end().unwrap();
    assert_eq!(receiver.recv_timeout(Duration::from_secs(10)).unwrap().code, "PAL-UNAVAILABLE");
}

#[test]
fn the_host_tells_who_the_plugin_is() {
    #[derive(serde::Deserialize)]
    struct Config {
        word: String,
    }
    let mut plugin = Plugin::new();
    plugin.tool("about", |(): (), call| {
        let config: Config = call.config()?;
        Ok((config.word, call.id(), call.rights()))
    });
    plugin.tool("wrong", |(): (), call| Ok(call.config::<Vec<u8>>()?));
    let mut host = Host::of(plugin);
    assert_eq!(host.call(2, "about")["result"], json!(["Hi", "test", ["tool:a"]]));
    let answer = host.call(3, "wrong");
    assert_eq!(answer["error"]["message"], "config: expected array, got object");
    host.end().unwrap();
}

#[test]
fn a_plugin_that_is_not_well_made_does_not_start() {
    let start = |plugin: Plugin| {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        plugin.serve(theirs).unwrap_err().to_string()
    };
    let mut twice = Plugin::new();
    twice.tool("a", |(): (), _| Ok(()));
    twice.tool("a", |(): (), _| Ok(()));
    assert_eq!(start(twice), "there are two of the tool \"a\"");
    let mut subject = Plugin::new();
    subject.event("a..b", |_, _| Ok(()));
    assert_eq!(start(subject), "not a subject: \"a..b\"");
    let mut priority = Plugin::new();
    priority.hook(Hook::new("h").priority(1001), |_: Value, _| Ok(None::<()>));
    assert_eq!(start(priority), "priority: 0 to 1000");
    let mut name = Plugin::new();
    name.command("x".repeat(129).as_str(), |_, _| Ok(()));
    assert_eq!(start(name), "command: a name has 1 to 128 characters");
}

#[test]
fn contributes_is_what_the_manifest_needs() {
    let mut plugin = Plugin::new();
    let tool = palisade_plugin::Tool::new("a").description("A.").input_schema(json!({}));
    plugin.tool(tool, |(): (), _| Ok(()));
    plugin.command("c", |_, _| Ok("done"));
    plugin.hook(Hook::new("h").priority(60), |_: Value, _| Ok(None::<()>));
    plugin.hook(Hook::new("h").priority(10), |_: Value, _| Ok(None::<()>));
    assert_eq!(
        plugin.contributes(),
        json!({
            "tools": [{ "name": "a", "description": "A.", "input": {} }],
            "commands": [{ "name": "c", "description": "c" }],
            "hooks": [{ "event": "h", "priority": 10 }],
        })
    );
    assert_eq!(Plugin::new().contributes(), json!({}));
}
