//! From the client to the server.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use palisade_audit::RecordKind;
use palisade_broker::{Action, Bucket, Pass};
use palisade_model::{ErrorCode, Failure, text::escape};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{
    Relay,
    state::{Call, OPEN, Open, What},
    writer::Writer,
};
use crate::{
    ask::{CLIENT_CAPABILITIES, stripped},
    json::{Object, Unclear, replace, string},
    lines::{LineReader, Next},
    message::{
        self, INVALID_PARAMS, INVALID_REQUEST, Id, IdKey, Message, PARSE_ERROR, Unfit, error_line,
        number,
    },
};

/// What of a request's `_meta` the relay's own requests repeat (2026-07-28, per-request fields).
const REPEATED_META: [&str; 3] = [
    "io.modelcontextprotocol/protocolVersion",
    "io.modelcontextprotocol/clientInfo",
    CLIENT_CAPABILITIES,
];

/// A request as it is to go to the server.
struct Outgoing {
    line: Bytes,
    /// Of the parameters' `_meta`.
    token: Option<IdKey>,
    trace: Option<Arc<str>>,
    meta: Option<String>,
}

impl Relay {
    /// Relays until the client closes its end.
    pub(super) async fn up<R, C, S>(
        &self,
        mut lines: LineReader<R>,
        client: &Writer<C>,
        server: &Writer<S>,
    ) where
        R: AsyncRead + Unpin,
        C: AsyncWrite + Unpin,
        S: AsyncWrite + Unpin,
    {
        loop {
            match lines.next().await {
                Next::Line(line) => self.take_from_client(&line, client, server).await,
                Next::TooLong => {
                    let what = format!("a line is longer than {} bytes", self.options.line_bytes);
                    let failure = Failure::new(ErrorCode::LimitExceeded, what);
                    self.answer(client, None, INVALID_REQUEST, &failure).await;
                }
                Next::End => return,
            }
        }
    }

    /// Answers the client. Where many answers wait, its next message does too.
    async fn answer<C: AsyncWrite + Unpin>(
        &self,
        client: &Writer<C>,
        id: Option<&str>,
        number: i64,
        failure: &Failure,
    ) {
        let line = error_line(id, number, failure);
        if client.room() > 0 {
            let _ = client.post(line);
        } else {
            client.write(&line).await;
        }
    }

    async fn take_from_client<C, S>(&self, line: &Bytes, client: &Writer<C>, server: &Writer<S>)
    where
        C: AsyncWrite + Unpin,
        S: AsyncWrite + Unpin,
    {
        match message::read(line) {
            Ok(Message::Request { id, method, params }) => {
                if let Err((number, failure)) =
                    self.client_request(line, &id, &method, params, server).await
                {
                    self.answer(client, Some(id.raw), number, &failure).await;
                }
            }
            Ok(Message::Notification { method, params }) => {
                match self.client_notifies(&method, params).await {
                    Ok(true) => drop(server.write(line).await),
                    Ok(false) => {}
                    Err(failure) => self.answer(client, None, INVALID_REQUEST, &failure).await,
                }
            }
            Ok(Message::Answer { id, outcome }) => {
                // An answer to what nobody asked goes nowhere.
                let Some(pass) = self.lock().asked.remove(&id.key) else { return };
                if server.write(line).await && outcome.is_ok() {
                    pass.done();
                } else {
                    pass.failed(&Failure::new(
                        ErrorCode::Unavailable,
                        "the client answered with an error",
                    ));
                }
            }
            Ok(Message::Complaint) => {
                server.write(line).await;
            }
            Err(Unfit::Blank) => {}
            Err(Unfit::Stray) => {
                let what = "this is not a message of JSON-RPC 2.0";
                let failure = Failure::new(ErrorCode::InvalidParams, what);
                self.answer(client, None, PARSE_ERROR, &failure).await;
            }
            Err(Unfit::Unclear { why, id }) => {
                let failure = Failure::new(ErrorCode::InvalidParams, why);
                self.answer(client, id.as_deref(), INVALID_REQUEST, &failure).await;
            }
        }
    }

    /// Whether a notification of the client goes to the server.
    async fn client_notifies(&self, method: &str, params: Option<&str>) -> Result<bool, Failure> {
        if method == "notifications/cancelled" {
            return Ok(self.client_gives_up(params));
        }
        if method.starts_with("notifications/") {
            return Ok(true);
        }
        let action = Action::new(RecordKind::Call)
            .towards(&self.server)
            .name(method)
            .target_rate(Bucket::Calls)
            .coalesce();
        // A request without an id is none, but not every server looks for the id first.
        if what(method) != What::Other {
            let shown = escape(method, 64);
            let failure = Failure::new(ErrorCode::InvalidParams, format!("{shown} takes an id"));
            return Err(self.gate.refuse(&self.client, &action, failure));
        }
        self.gate.admit(&self.client, action).await?.done();
        Ok(true)
    }

    /// The client gives a request up. Says whether the server is to be told.
    fn client_gives_up(&self, params: Option<&str>) -> bool {
        let Some(Ok(object)) = params.map(|params| Object::read(params, &["requestId"])) else {
            return false;
        };
        let Some(id) = object.get("requestId").and_then(Id::parse) else { return false };
        let Some(open) = self.lock().give_up(&id.key) else { return true };
        // Dropping the pass records that it was cancelled.
        self.settled.notify_waiters();
        !open.is_held
    }

    async fn client_request<S: AsyncWrite + Unpin>(
        &self,
        line: &Bytes,
        id: &Id<'_>,
        method: &str,
        params: Option<&str>,
        server: &Writer<S>,
    ) -> Result<(), (i64, Failure)> {
        self.check_id(id).map_err(|failure| (INVALID_REQUEST, failure))?;
        let what = what(method);
        let unclear = |why: Unclear| {
            let what = format!("the parameters of {} are not clear: {why}", escape(method, 64));
            (INVALID_PARAMS, Failure::new(ErrorCode::InvalidParams, what))
        };
        let counts: &[&str] = match what {
            What::Call => &["_meta", "name", "arguments"],
            What::Start => &["_meta", "capabilities"],
            _ => &["_meta"],
        };
        let object = match params {
            Some(params) if params.starts_with('{') => {
                Some(Object::read(params, counts).map_err(unclear)?)
            }
            // MCP has objects only, but what is unknown here is the server's to judge.
            None => None,
            Some(_) if what == What::Other => None,
            Some(_) => return Err(unclear(Unclear::Shape)),
        };
        let out = self.outgoing(line, params, object.as_ref(), what).map_err(unclear)?;
        if what == What::Call {
            let object = object.ok_or_else(|| unclear(Unclear::Shape))?;
            let tool =
                object.get("name").and_then(string).ok_or_else(|| unclear(Unclear::Shape))?;
            let arguments = object.get("arguments").unwrap_or("{}").as_bytes();
            let call = Call {
                tool: tool.into(),
                arguments: Bytes::copy_from_slice(arguments),
                trace: out.trace,
                token: out.token,
            };
            return self.client_call(call, id, out.line, out.meta, server).await;
        }
        let action = Action::new(RecordKind::Call)
            .towards(&self.server)
            .name(method)
            .target_rate(Bucket::Calls)
            .trace(out.trace)
            .coalesce();
        let pass = self.gate.admit(&self.client, action).await;
        let pass = pass.map_err(|failure| (number(failure.code), failure))?;
        self.send(id.raw, id.key.clone(), method, what, pass, out.token, &out.line, server).await
    }

    fn check_id(&self, id: &Id<'_>) -> Result<(), Failure> {
        let state = self.lock();
        let bad = |what: String| Err(Failure::new(ErrorCode::InvalidParams, what));
        if state.is_reserved(&id.key) {
            return bad("this id is Palisade's own".to_owned());
        }
        if state.open.contains_key(&id.key) {
            return bad("a request with this id is still open".to_owned());
        }
        if state.open.len() >= OPEN {
            let what = format!("{OPEN} requests are open already");
            return Err(Failure::new(ErrorCode::LimitExceeded, what));
        }
        Ok(())
    }

    /// The line without client features that are not granted, and what its `_meta` says.
    fn outgoing(
        &self,
        line: &Bytes,
        params: Option<&str>,
        object: Option<&Object<'_>>,
        what: What,
    ) -> Result<Outgoing, Unclear> {
        let mut out = Outgoing { line: line.clone(), token: None, trace: None, meta: None };
        let (Some(params), Some(object)) = (params, object) else { return Ok(out) };
        let may = |kind, target: &str| self.may(kind, target);
        let mut new = None;
        if what == What::Start
            && let Some(capabilities) = object.get("capabilities").filter(|c| c.starts_with('{'))
            && let Some(less) = stripped(capabilities, may)?
        {
            new = object.with("capabilities", &less);
        }
        if let Some(raw) = object.get("_meta").filter(|meta| meta.starts_with('{')) {
            let counts = [CLIENT_CAPABILITIES, "progressToken"];
            let mut meta = Cow::Borrowed(raw);
            let object = Object::read(raw, &counts)?;
            if let Some(capabilities) =
                object.get(CLIENT_CAPABILITIES).filter(|c| c.starts_with('{'))
                && let Some(less) = stripped(capabilities, may)?
            {
                meta = Cow::Owned(object.with(CLIENT_CAPABILITIES, &less).ok_or(Unclear::Shape)?);
                let text = new.as_deref().unwrap_or(params);
                new = Object::read(text, &[])?.with("_meta", &meta);
            }
            let object = Object::read(&meta, &counts)?;
            out.token = object.get("progressToken").and_then(Id::parse).map(|id| id.key);
            out.trace = object.get("traceparent").and_then(string).map(Arc::from);
            let repeated: Vec<String> = REPEATED_META
                .iter()
                .filter_map(|key| object.get(key).map(|value| format!("\"{key}\":{value}")))
                .collect();
            if !repeated.is_empty() {
                out.meta = Some(format!("{{{}}}", repeated.join(",")));
            }
        }
        if let Some(new) = new {
            let text = std::str::from_utf8(line).map_err(|_| Unclear::Shape)?;
            out.line = replace(text, params, &new).ok_or(Unclear::Shape)?.into();
        }
        Ok(out)
    }

    /// Opens a request and sends it.
    #[allow(clippy::too_many_arguments, reason = "one place, and each is a thing of its own")]
    pub(super) async fn send<S: AsyncWrite + Unpin>(
        &self,
        id: &str,
        key: IdKey,
        method: &str,
        what: What,
        pass: Pass,
        token: Option<IdKey>,
        line: &Bytes,
        server: &Writer<S>,
    ) -> Result<(), (i64, Failure)> {
        self.open(id, key.clone(), method, what, Some(pass), token, false);
        if server.write(line).await {
            return Ok(());
        }
        // Whoever ends the relay may have answered it meanwhile.
        let Some(mut open) = self.lock().open.remove(&key) else { return Ok(()) };
        let failure = Failure::new(ErrorCode::Unavailable, "the server has closed its input");
        if let Some(pass) = open.pass.take() {
            pass.failed(&failure);
        }
        self.settled.notify_waiters();
        Err((number(failure.code), failure))
    }

    #[allow(clippy::too_many_arguments, reason = "one place, and each is a thing of its own")]
    pub(super) fn open(
        &self,
        id: &str,
        key: IdKey,
        method: &str,
        what: What,
        pass: Option<Pass>,
        token: Option<IdKey>,
        is_held: bool,
    ) {
        let since = Instant::now();
        let within = match method {
            "initialize" | "server/discover" => Some(self.options.start_timeout),
            // They last as long as what they are about.
            "subscriptions/listen" | "tasks/result" => None,
            _ => Some(self.options.call_timeout.min(self.options.longest_call)),
        };
        let open = Open {
            id: id.into(),
            key,
            method: method.into(),
            what,
            pass,
            token,
            since,
            deadline: within.and_then(|within| since.checked_add(within)),
            is_start: method == "initialize",
            may_cancel: method != "initialize",
            is_held,
        };
        self.lock().reopen(open);
        self.deadlines.notify_waiters();
    }
}

/// What a request's answer is looked at for.
fn what(method: &str) -> What {
    match method {
        "initialize" | "server/discover" => What::Start,
        "tools/list" => What::List,
        "tools/call" => What::Call,
        _ => What::Other,
    }
}
