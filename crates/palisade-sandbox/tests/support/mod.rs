//! What the tests of the lanes share: a plugin that is a thread behind two pipes, and a host that notes
//! what it is asked.
#![allow(dead_code)]

use std::{
    io::{BufRead, BufReader, PipeReader, PipeWriter, Write},
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use palisade_model::{ErrorCode, Failure, Payload};
use palisade_sandbox::{
    BoxFuture, HostCalls, HostRequest, Invocation, Lane, OutputStream, Trace, stream::End,
    stream::StreamLane,
};
use serde_json::{Value, json};

/// Serves `data_request` and refuses everything else.
#[derive(Default)]
pub(crate) struct Host {
    pub(crate) asked: Mutex<Vec<String>>,
    pub(crate) lines: Mutex<Vec<String>>,
}

impl HostCalls for Host {
    fn request(&self, request: HostRequest) -> BoxFuture<'static, Result<Payload, Failure>> {
        self.asked.lock().unwrap().push(request.method.clone());
        Box::pin(async move {
            match request.method.as_str() {
                "data_request" => Ok(request.payload),
                other => Err(Failure::new(ErrorCode::NotFound, format!("no {other}"))),
            }
        })
    }
    fn output(&self, _: OutputStream, line: &str) {
        self.lines.lock().unwrap().push(line.to_owned());
    }
    fn output_dropped(&self, _: u64) {}
}

pub(crate) type Input = BufReader<PipeReader>;

/// A lane to a plugin that is a thread, and the conversation's end.
pub(crate) fn talk(
    plugin: impl FnOnce(Input, PipeWriter) + Send + 'static,
    speak: impl FnOnce(OwnedFd, OwnedFd) -> std::io::Result<StreamLane>,
) -> (Arc<dyn Lane>, tokio::task::JoinHandle<End>) {
    let (stdin, to_plugin) = std::io::pipe().unwrap();
    let (from_plugin, stdout) = std::io::pipe().unwrap();
    std::thread::spawn(move || plugin(BufReader::new(stdin), stdout));
    let stream = speak(OwnedFd::from(to_plugin), OwnedFd::from(from_plugin)).unwrap();
    (stream.lane, tokio::spawn(stream.end))
}

pub(crate) async fn call(
    lane: &Arc<dyn Lane>,
    method: &'static str,
    params: Value,
    timeout: Duration,
) -> Result<Value, Failure> {
    let payload = Payload::json(&params).unwrap();
    let invocation = Invocation {
        method,
        payload,
        tool: None,
        deadline: Instant::now() + timeout,
        trace: Trace::default(),
    };
    lane.call(invocation).await.map(|p| p.parse().unwrap())
}

pub(crate) const LONG: Duration = Duration::from_secs(10);

/// The next line of the host; `None` once it has closed its end.
pub(crate) fn next(input: &mut impl BufRead) -> Option<Value> {
    let mut line = String::new();
    (input.read_line(&mut line).unwrap() > 0).then(|| serde_json::from_str(&line).unwrap())
}

/// Answers as both dialects take it.
pub(crate) fn answer(out: &mut impl Write, id: &Value, result: &Value) {
    writeln!(out, "{}", json!({ "jsonrpc": "2.0", "id": id, "result": result })).unwrap();
}
