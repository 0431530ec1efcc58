//! A client of MCP that speaks with a child process.
#![allow(dead_code)] // Each test file uses a part.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use serde_json::{Value, json};

pub(crate) struct Client {
    pub(crate) child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    /// What it says on stderr, read as it comes.
    said: Option<std::thread::JoinHandle<String>>,
    next: u64,
}

impl Client {
    /// Starts a command that speaks MCP on stdin and stdout.
    pub(crate) fn spawn(mut command: std::process::Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let to = child.stdin.take();
        let from = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let said = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        Self { child, to, from, said: Some(said), next: 1 }
    }

    pub(crate) fn send(&mut self, message: &Value) {
        // Where it has ended already, what it says tells.
        let _ = writeln!(self.to.as_mut().unwrap(), "{message}");
    }

    pub(crate) fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        let n = self.from.read_line(&mut line).unwrap();
        (n > 0).then(|| serde_json::from_str(&line).unwrap())
    }

    pub(crate) fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.next;
        self.next += 1;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        loop {
            match self.line() {
                Some(answer) if answer["id"] == id => return answer,
                Some(_) => {}
                None => panic!("no answer to {method}; it said: {}", self.rest_of_stderr()),
            }
        }
    }

    pub(crate) fn rest_of_stderr(&mut self) -> String {
        self.said.take().unwrap().join().unwrap()
    }

    pub(crate) fn initialize(&mut self) -> Value {
        let capabilities = json!({"sampling": {}, "roots": {}, "experimental": {}});
        let params = json!({"protocolVersion": "2025-06-18", "capabilities": capabilities,
            "clientInfo": {"name": "test", "version": "1"}});
        let answer = self.ask("initialize", params);
        self.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        answer
    }

    pub(crate) fn tools(&mut self) -> Vec<String> {
        let answer = self.ask("tools/list", json!({}));
        let tools = answer["result"]["tools"].as_array().unwrap_or_else(|| panic!("{answer}"));
        tools.iter().map(|t| t["name"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.ask("tools/call", json!({"name": tool, "arguments": arguments}))
    }

    pub(crate) fn text(&mut self, tool: &str, arguments: Value) -> String {
        let answer = self.call(tool, arguments);
        answer["result"]["content"][0]["text"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"))
            .to_owned()
    }

    /// Closes its input and waits: exit status and what it said on stderr.
    pub(crate) fn close(mut self) -> (i32, String) {
        drop(self.to.take());
        self.end()
    }

    pub(crate) fn end(mut self) -> (i32, String) {
        let said = self.rest_of_stderr();
        (self.child.wait().unwrap().code().unwrap(), said)
    }
}
