//! A server of the Model Context Protocol on a pair of pipes, as a lane.
//!
//! `initialize` does the handshake and reads the list of tools, `call` calls one, `shutdown` closes the
//! server's standard input, which is how the protocol ends on stdio. A call that is given up is cancelled.
//! What the server asks of its client goes to the host, which has none of it yet, so that it is recorded.

use std::{future::ready, io, os::fd::OwnedFd, sync::Arc, time::Instant};

use palisade_dialect::{
    DialectError, Id, Line,
    mcp::{self, Mcp, Server, Tools},
};
use palisade_model::{ErrorCode, Failure, Payload, text::escape};
use palisade_protocol::methods::{self, InitializeResult, Party, Tool};
use tokio::time::timeout_at;

use super::{
    StreamLane, deadline_passed,
    exchange::{Answer, Codec, Exchange},
};
use crate::{BoxFuture, HostCalls, HostRequest, Invocation, Lane, OutputStream};

struct Client;

impl Codec for Client {
    fn decode<'a>(&self, line: &'a [u8]) -> Line<'a> {
        mcp::decode_line(line)
    }

    fn encode_request(
        &self,
        id: &Id,
        method: &str,
        params: &Payload,
    ) -> Result<Vec<u8>, DialectError> {
        mcp::encode_request(id, method, params)
    }

    fn encode_answer(
        &self,
        id: &Id,
        outcome: Result<&Payload, &Failure>,
    ) -> Result<Vec<u8>, DialectError> {
        mcp::encode_answer(id, outcome)
    }

    fn encode_cancel(&self, id: u64) -> Option<Vec<u8>> {
        mcp::cancelled(id).ok()
    }

    fn serve(&self, host: &dyn HostCalls, request: HostRequest) -> BoxFuture<'static, Answer> {
        let method = request.method.clone();
        if let Err(failure) = mcp::check_request(&request.payload) {
            return Box::pin(ready(Err(failure)));
        }
        if method == mcp::PING {
            return Box::pin(ready(Ok(Payload::from_json_text(&b"{}"[..]))));
        }
        let Some(capability) = mcp::capability_of(&method) else {
            let message = format!("this client has no method {}", escape(&method, 128));
            return Box::pin(ready(Err(Failure::new(ErrorCode::NotFound, message))));
        };
        let asked = host.request(request);
        Box::pin(async move {
            asked.await.map_err(|failure| match failure.code {
                ErrorCode::NotFound => Failure::new(
                    ErrorCode::NotFound,
                    format!("{method} needs {capability}, which is not granted"),
                ),
                _ => failure,
            })
        })
    }

    fn notified(&self, host: &dyn HostCalls, method: &str, params: &[u8]) {
        // The host holds lines to the plugin's log rate, wherever they come from.
        if method == mcp::MESSAGE
            && let Some(line) = mcp::log_line(params)
        {
            host.output(OutputStream::Stdout, &line);
        }
    }
}

struct McpLane(Arc<Exchange<Client>>);

impl McpLane {
    async fn initialize(&self, deadline: Instant) -> Answer {
        // The specification forbids to cancel this one.
        let params = mcp::initialize_params();
        let hello = self.0.request(mcp::INITIALIZE, &params, deadline, false).await?;
        let server = Server::read(&hello)?;
        let line = mcp::initialized()?;
        timeout_at(deadline.into(), self.0.write(&line))
            .await
            .unwrap_or_else(|_| Err(deadline_passed(mcp::INITIALIZED)))?;
        let mut tools = Tools::default();
        let mut has_more = server.has_tools;
        while has_more {
            let page = self.0.request(mcp::TOOLS_LIST, &tools.params(), deadline, true).await?;
            has_more = tools.page(&page)?;
        }
        let tool =
            |name: &String| Tool { name: name.clone(), description: None, input_schema: None };
        let result = InitializeResult {
            protocol: 1,
            features: Vec::new(),
            plugin: server.party.map(|(name, version)| Party { name, version }),
            tools: Some(tools.names().iter().map(tool).collect()),
            state_schemas: None,
        };
        Payload::json(&result)
            .map_err(|e| Failure::new(ErrorCode::Internal, format!("initialize: {e}")))
    }

    async fn shutdown(&self, deadline: Instant) -> Answer {
        timeout_at(deadline.into(), self.0.close())
            .await
            .map_err(|_| deadline_passed(methods::SHUTDOWN))?;
        Ok(Payload::null())
    }
}

impl Lane for McpLane {
    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            let Invocation { method, payload, deadline, .. } = invocation;
            match method {
                methods::INITIALIZE => self.initialize(deadline).await,
                methods::CALL => {
                    let params = mcp::call_params(&payload)?;
                    let answer = self.0.request(mcp::TOOLS_CALL, &params, deadline, true).await?;
                    mcp::call_result(answer)
                }
                methods::PING => {
                    let params = Payload::from_json_text(&b"{}"[..]);
                    self.0.request(mcp::PING, &params, deadline, true).await
                }
                methods::SHUTDOWN => self.shutdown(deadline).await,
                other => {
                    let message = format!("a server of MCP has no {other}");
                    Err(Failure::new(ErrorCode::NotFound, message))
                }
            }
        })
    }
}

/// Speaks with a server of MCP over its standard input (`to_plugin`) and output (`from_plugin`).
///
/// # Errors
/// When a pipe cannot be watched; needs a tokio runtime with I/O enabled.
pub fn mcp(
    to_plugin: OwnedFd,
    from_plugin: OwnedFd,
    config: &Mcp,
    host: Arc<dyn HostCalls>,
) -> io::Result<StreamLane> {
    let (exchange, end) = Exchange::open(Client, to_plugin, from_plugin, config.noise(), host)?;
    Ok(StreamLane { lane: Arc::new(McpLane(exchange)), end })
}
