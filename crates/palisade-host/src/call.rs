//! Calling a tool. This is the hot path: one lookup, one buffer, the gate, the lane.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use palisade_audit::RecordKind;
use palisade_broker::{Action, Bucket};
use palisade_model::{
    Access, ErrorCode, Failure, Kind, Payload,
    text::{escape, nearest},
};
use palisade_protocol::methods;
use palisade_sandbox::{Invocation, ToolCall, Trace};
use serde::Serialize;
use serde_json::Value;

use crate::{Plugin, hops, loaded::Tool, running::Running, status::count};

/// Room for arguments before the buffer has to grow, in bytes.
const USUAL_ARGUMENTS: usize = 256;

/// How a call is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallOptions {
    /// How long the answer may take. `None`: the manifest's `resources.timeouts.call`.
    pub timeout: Option<Duration>,
    /// W3C trace context of the caller (`traceparent`).
    pub trace: Option<Arc<str>>,
}

impl CallOptions {
    /// The plugin's own deadline, no trace.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How long the answer may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// W3C trace context, 55 characters in version 00.
    #[must_use]
    pub fn trace(mut self, traceparent: impl Into<Arc<str>>) -> Self {
        self.trace = Some(traceparent.into());
        self
    }
}

impl Plugin {
    /// Calls a tool with `args`, an object (or `()` and anything else that is written as `null`, for
    /// none). Raw JSON can be given as [`serde_json::value::RawValue`] and is copied as it is. The
    /// result is the tool's own; read it with [`Payload::parse`].
    ///
    /// Dropping the future cancels the call. When the plugin ends during the call, the failure says
    /// how: out of memory, killed for a system call, a deadline, a signal, a breach of the protocol.
    ///
    /// # Errors
    /// [`ErrorCode::Unavailable`] where the plugin does not run, [`ErrorCode::NotFound`] for a tool
    /// that it does not offer, [`ErrorCode::InvalidParams`] for arguments that do not fit,
    /// [`ErrorCode::PluginError`] for its own errors, and what the gate refuses.
    pub fn call<A: Serialize + ?Sized>(
        &self,
        tool: &str,
        args: &A,
    ) -> impl Future<Output = Result<Payload, Failure>> {
        self.call_with(tool, args, CallOptions::default())
    }

    /// [`Plugin::call`] with a deadline or a trace.
    ///
    /// # Errors
    /// As [`Plugin::call`].
    pub async fn call_with<A: Serialize + ?Sized>(
        &self,
        tool: &str,
        args: &A,
        options: CallOptions,
    ) -> Result<Payload, Failure> {
        let host = self.control().host();
        host.check_open()?;
        let running = self.cell().require_running()?;
        let caller = self.control().caller();
        let offered = running.offer.tools.get(tool);
        let target = Access::new(Kind::Tool, tool);
        let mut action = Action::new(RecordKind::Call)
            .towards(&running.caller)
            .target_access(target)
            .target_rate(Bucket::Calls)
            .trace(options.trace.clone());
        if !caller.is_owner() {
            let id = running.loaded.manifest.id.as_str();
            action = action.access(Access::new(Kind::PluginCall, id));
        }
        let found = match offered {
            Some(found) => params(&found.tool, args).and_then(|params| {
                check_trace(options.trace.as_deref())?;
                Ok((params, Arc::clone(&found.tool.name)))
            }),
            None => Err(no_such_tool(&running, tool)),
        };
        let entered = found.and_then(|found| Ok((found, hops::enter(&running.caller)?)));
        let (((params, args), name), _handling) = match entered {
            Ok(entered) => entered,
            Err(failure) => return Err(host.gate().refuse(caller, &action, failure)),
        };
        // Read here, so that the moment at which a rate is taken is none before the arguments were written.
        let now = Instant::now();
        // Where each call has an instance of its own there are no calls that are alike.
        if let Some(found) = offered
            && !running.loaded.is_per_call()
        {
            action = action.routine(&found.calls, now);
        }
        count(&running.counters.calls);
        let timeout = options.timeout.unwrap_or(running.loaded.limits.call_timeout);
        let invocation = Invocation {
            method: methods::CALL,
            payload: params.clone(),
            tool: Some(ToolCall { name, args }),
            deadline: now + timeout,
            trace: Trace(options.trace),
        };
        let (gate, action) = (host.gate(), action.payload(&params));
        let result = match gate.counted(caller, &action) {
            Some(open) => match open {
                Ok(open) => {
                    let result = running.ask(host, invocation).await;
                    open.end(&result);
                    result
                }
                Err(failure) => Err(failure),
            },
            None => {
                let action = action.clone();
                let asked = || running.ask(host, invocation);
                Box::pin(gate.run_recorded(caller, action, asked)).await
            }
        };
        if result.is_err() {
            count(&running.counters.calls_failed);
        }
        result
    }
}

/// `{"tool":NAME,"args":ARGS}`, written once, and held against the tool's schema where it has one; and
/// the slice of it that is ARGS.
fn params<A: Serialize + ?Sized>(tool: &Tool, args: &A) -> Result<(Payload, Bytes), Failure> {
    let invalid = |what: String| Failure::new(ErrorCode::InvalidParams, what);
    let start = tool.prefix.len();
    let mut text = Vec::with_capacity(start + USUAL_ARGUMENTS);
    text.extend_from_slice(&tool.prefix);
    serde_json::to_writer(&mut text, args)
        .map_err(|e| invalid(format!("the arguments: {}", escape(&e.to_string(), 200))))?;
    if text.get(start..) == Some(b"null") {
        text.truncate(start);
        text.extend_from_slice(b"{}");
    }
    let written = text.get(start..).unwrap_or_default();
    match &tool.input {
        None if written.trim_ascii_start().first() == Some(&b'{') => {}
        None => return Err(invalid("the arguments of a tool are an object".into())),
        Some(schema) => {
            let value: Value = serde_json::from_slice(written)
                .map_err(|e| invalid(format!("the arguments: {}", escape(&e.to_string(), 200))))?;
            schema.validate(&value).map_err(|errors| {
                let list: Vec<String> = errors.iter().take(3).map(ToString::to_string).collect();
                invalid(format!("the arguments do not fit: {}", list.join("; ")))
                    .hint("the tool's input schema in the manifest says what fits")
            })?;
        }
    }
    let end = text.len();
    // Long arguments fill the buffer to the last byte; for the one that is missing it need not be doubled.
    text.reserve_exact(1);
    text.push(b'}');
    let text = Bytes::from(text);
    let args = text.slice(start..end);
    Ok((Payload::from_json_text(text), args))
}

fn no_such_tool(running: &Running, tool: &str) -> Failure {
    let id = &running.loaded.manifest.id;
    let shown = escape(tool, 128);
    if running.loaded.tools.contains_key(tool) {
        let message = format!("plugin {id} declares the tool {shown}, but does not offer it");
        return Failure::new(ErrorCode::NotFound, message)
            .hint("it did not announce the tool when it started, or the policy forbids it");
    }
    let failure = Failure::new(ErrorCode::NotFound, format!("plugin {id} has no tool {shown}"));
    let names = || running.offer.tools.keys().map(String::as_str);
    match nearest(tool, names()) {
        Some(near) => failure.hint(format!("did you mean {near}?")),
        None if running.offer.tools.is_empty() => failure.hint("it offers no tools"),
        None => failure.hint(format!("it offers: {}", names().collect::<Vec<_>>().join(", "))),
    }
}

/// Refuses a trace that is none.
pub(crate) fn check_trace(trace: Option<&str>) -> Result<(), Failure> {
    if trace.is_none_or(is_traceparent) {
        return Ok(());
    }
    Err(Failure::new(ErrorCode::InvalidParams, "the trace is not a traceparent"))
}

/// `version "-" trace-id "-" parent-id "-" flags`, as version 00 has it
/// (<https://www.w3.org/TR/trace-context/#traceparent-header>).
fn is_traceparent(text: &str) -> bool {
    let mut lengths = [2usize, 32, 16, 2].into_iter();
    text.len() == 55
        && text.split('-').all(|part| {
            lengths.next() == Some(part.len())
                && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
        && lengths.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::is_traceparent;

    #[test]
    fn a_traceparent_has_the_form_of_the_specification() {
        assert!(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01",
            "0-04bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0\n",
        ] {
            assert!(!is_traceparent(bad), "{bad:?}");
        }
    }
}
