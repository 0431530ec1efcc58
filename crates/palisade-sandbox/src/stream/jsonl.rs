//! The `jsonl` dialect over a pair of pipes, as a lane.
//!
//! The dialect knows no cancellation: a call that is given up is forgotten, and its late answer is noise.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use palisade_dialect::{
    DialectError, Id, Line,
    jsonl::{self, Handshake, Jsonl, Step},
};
use palisade_model::{Failure, Payload};

use super::{
    StreamLane,
    exchange::{Answer, Codec, Exchange},
};
use crate::{BoxFuture, HostCalls, HostRequest, Invocation, Lane};

/// What a plugin gets as protocol version where its dialect has none.
const INITIALIZED: &[u8] = b"{\"protocol\":1,\"features\":[]}";

struct JsonLines;

impl Codec for JsonLines {
    fn decode<'a>(&self, line: &'a [u8]) -> Line<'a> {
        jsonl::decode_line(line)
    }

    fn encode_request(
        &self,
        id: &Id,
        method: &str,
        params: &Payload,
    ) -> Result<Vec<u8>, DialectError> {
        jsonl::encode_request(id, method, params)
    }

    fn encode_answer(
        &self,
        id: &Id,
        outcome: Result<&Payload, &Failure>,
    ) -> Result<Vec<u8>, DialectError> {
        jsonl::encode_answer(id, outcome)
    }

    fn encode_cancel(&self, _id: u64) -> Option<Vec<u8>> {
        None
    }

    fn serve(&self, host: &dyn HostCalls, request: HostRequest) -> BoxFuture<'static, Answer> {
        host.request(request)
    }

    fn notified(&self, _host: &dyn HostCalls, _method: &str, _params: &[u8]) {}
}

struct JsonlLane {
    exchange: Arc<Exchange<JsonLines>>,
    handshake: Mutex<Handshake>,
}

impl JsonlLane {
    async fn initialize(&self, params: &Payload, deadline: Instant) -> Answer {
        let handshake = || self.handshake.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let method = handshake().method();
            let answer = self.exchange.request(method, params, deadline, false).await;
            let step = handshake().answered(&answer);
            match step {
                Step::Ready => return Ok(Payload::from_json_text(INITIALIZED)),
                Step::Again => {}
                Step::Failed(failure) => return Err(failure),
            }
        }
    }
}

impl Lane for JsonlLane {
    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            let Invocation { method, payload, deadline, .. } = invocation;
            if method == jsonl::INITIALIZE {
                return self.initialize(&payload, deadline).await;
            }
            let answer = self.exchange.request(method, &payload, deadline, true).await;
            if method == jsonl::SHUTDOWN && answer.is_ok() {
                self.exchange.close().await;
            }
            answer
        })
    }
}

/// Speaks the dialect over the plugin's standard input (`to_plugin`) and output (`from_plugin`).
///
/// # Errors
/// When a pipe cannot be watched; needs a tokio runtime with I/O enabled.
pub fn jsonl(
    to_plugin: OwnedFd,
    from_plugin: OwnedFd,
    config: Jsonl,
    host: Arc<dyn HostCalls>,
) -> io::Result<StreamLane> {
    let (exchange, end) = Exchange::open(JsonLines, to_plugin, from_plugin, config.noise(), host)?;
    let lane = JsonlLane { exchange, handshake: Mutex::new(config.handshake()) };
    Ok(StreamLane { lane: Arc::new(lane), end })
}
