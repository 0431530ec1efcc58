//! Calls of tools: judged by right, pin and rate; held while the list of tools is not known.

use bytes::Bytes;
use palisade_audit::RecordKind;
use palisade_broker::{Action, Bucket, Pass};
use palisade_model::{Access, ErrorCode, Failure, Kind, Payload, text::escape};
use palisade_policy::{Decision, DenyRule};
use tokio::{
    io::AsyncWrite,
    time::{Duration, Instant},
};

use super::{
    Relay,
    state::{Call, HELD, HELD_BYTES, Held, Listing, What},
    writer::Writer,
};
use crate::{
    message::{INVALID_PARAMS, Id, IdKey, number},
    tools::{Standing, Withheld},
};

/// For how long a whole list of tools counts for tools that are not in it: a server may have new ones and
/// not say so.
const WHOLE_FOR: Duration = Duration::from_secs(5);

impl Relay {
    /// Sends a call, refuses it, or holds it.
    pub(super) async fn client_call<S: AsyncWrite + Unpin>(
        &self,
        call: Call,
        id: &Id<'_>,
        line: Bytes,
        meta: Option<String>,
        server: &Writer<S>,
    ) -> Result<(), (i64, Failure)> {
        let whole_at = self.lock().tools.whole_at;
        let may_hold = whole_at.is_none_or(|at| at.elapsed() >= WHOLE_FOR);
        match self.judge(&call, may_hold).await? {
            Some(pass) => {
                let token = call.token;
                self.send(
                    id.raw,
                    id.key.clone(),
                    "tools/call",
                    What::Call,
                    pass,
                    token,
                    &line,
                    server,
                )
                .await
            }
            None => self.hold(call, id, line, meta, server),
        }
    }

    /// Whether a call may go to the server; `None` where the list of tools has to be seen first.
    pub(super) async fn judge(
        &self,
        call: &Call,
        may_hold: bool,
    ) -> Result<Option<Pass>, (i64, Failure)> {
        let tool = &*call.tool;
        let arguments = Payload::from_json_text(call.arguments.clone());
        let action = || {
            Action::new(RecordKind::Call)
                .towards(&self.server)
                .target_access(Access::new(Kind::Tool, tool))
                .target_rate(Bucket::Calls)
                .payload(&arguments)
                .trace(call.trace.clone())
        };
        let unknown = |failure: Failure| {
            // The specification's words and number for a tool that is not there; why stands behind.
            let message = format!("Unknown tool: {} ({})", escape(tool, 128), failure.message);
            (INVALID_PARAMS, Failure { message, ..failure })
        };
        if self.may(Kind::Tool, tool) {
            let standing = self.lock().tools.standing(tool).cloned();
            let refusal = match standing {
                Some(Standing::Offered) => None,
                Some(Standing::Withheld(why)) => Some(self.withheld(&format!("tool:{tool}"), &why)),
                None if may_hold => return Ok(None),
                None => Some(Failure::new(ErrorCode::NotFound, "the server does not list it")),
            };
            if let Some(failure) = refusal {
                return Err(unknown(self.gate.refuse(&self.client, &action(), failure)));
            }
        }
        match self.gate.admit(&self.client, action()).await {
            Ok(pass) => Ok(Some(pass)),
            Err(failure) if failure.code == ErrorCode::Denied => {
                Err(unknown(self.not_offered(tool, failure)))
            }
            Err(failure) => Err((number(failure.code), failure)),
        }
    }

    /// The denial of a tool that nobody offers, in words for whoever started the relay.
    fn not_offered(&self, tool: &str, failure: Failure) -> Failure {
        let access = Access::new(Kind::Tool, tool);
        let is_undeclared = self.server.rules().is_some_and(|rules| {
            matches!(rules.decide(&access), Decision::Deny(d) if d.rule == DenyRule::NotDeclared)
        });
        match is_undeclared && access.canonical_target().is_some() {
            true => Failure { message: "it is not offered here".to_owned(), ..failure }
                .hint(format!("--tool {tool} offers it, or contributes.tools of the manifest")),
            false => failure,
        }
    }

    /// Keeps a call until the list of tools is known, and asks for it.
    fn hold<S: AsyncWrite + Unpin>(
        &self,
        call: Call,
        id: &Id<'_>,
        line: Bytes,
        meta: Option<String>,
        server: &Writer<S>,
    ) -> Result<(), (i64, Failure)> {
        {
            let state = self.lock();
            if state.held.len() >= HELD || state.held_bytes + line.len() > HELD_BYTES {
                let what = "too many calls wait for the list of tools";
                let failure = Failure::new(ErrorCode::LimitExceeded, what);
                return Err((number(failure.code), failure));
            }
        }
        let token = call.token.clone();
        self.open(id.raw, id.key.clone(), "tools/call", What::Call, None, token, true);
        let mut state = self.lock();
        state.held_bytes += line.len();
        // A copy: the line may be a small part of a large buffer.
        let line = Bytes::copy_from_slice(&line);
        state.held.push_back(Held { key: id.key.clone(), id: id.raw.into(), line, call });
        if state.listing.is_some() {
            return Ok(());
        }
        let own = state.own_id();
        let deadline = Instant::now() + self.options.start_timeout;
        let key = IdKey::Text(own.clone());
        let question = list_request(&own, meta.as_deref(), None);
        state.listing = Some(Listing { key, meta, pages: 0, deadline });
        drop(state);
        self.deadlines.notify_waiters();
        // Where it cannot even be asked, the deadline answers.
        let _ = server.post(question);
        Ok(())
    }

    /// The list of tools is known, or will not be: decides about the calls that waited.
    pub(super) async fn end_listing<C, S>(
        &self,
        result: Result<(), Failure>,
        client: &Writer<C>,
        server: &Writer<S>,
    ) where
        C: AsyncWrite + Unpin,
        S: AsyncWrite + Unpin,
    {
        {
            let mut state = self.lock();
            state.listing = None;
            if result.is_ok() {
                state.tools.whole_at = Some(Instant::now());
            }
        }
        loop {
            let held = {
                let mut state = self.lock();
                let held = state.held.pop_front();
                if let Some(held) = &held {
                    state.held_bytes = state.held_bytes.saturating_sub(held.line.len());
                }
                held
            };
            let Some(Held { key, id, line, call }) = held else { break };
            let judged = match &result {
                Ok(()) => self.judge(&call, false).await,
                Err(failure) => Err((number(failure.code), failure.clone())),
            };
            // Given up while it was judged: the pass is dropped, and nothing goes to the server.
            if self.lock().open.remove(&key).is_none() {
                continue;
            }
            match judged {
                Ok(Some(pass)) => {
                    self.open(
                        &id,
                        key.clone(),
                        "tools/call",
                        What::Call,
                        Some(pass),
                        call.token,
                        false,
                    );
                    if !server.post(line.to_vec()) {
                        let failure = Failure::new(
                            ErrorCode::Unavailable,
                            "the server does not read its input",
                        );
                        self.lock().open.remove(&key);
                        self.say_error(client, Some(&id), number(failure.code), &failure);
                    }
                }
                Ok(None) => {}
                Err((number, failure)) => self.say_error(client, Some(&id), number, &failure),
            }
        }
        self.settled.notify_waiters();
    }

    /// Whether a withheld tool of a list is worth telling: what the operator chose not to grant is not.
    pub(super) fn note_list(&self, withheld: &[(String, Withheld)], pinned: &[String]) {
        for (name, why) in withheld {
            if *why != Withheld::NotCovered {
                self.note_withheld(&format!("tool:{name}"), why);
            }
        }
        for name in pinned {
            self.note_pinned(&format!("tool:{name}"));
        }
    }
}

/// The line of the relay's own question for a page of tools. `cursor` is spelled as the server did.
pub(super) fn list_request(id: &str, meta: Option<&str>, cursor: Option<&str>) -> Vec<u8> {
    let mut params = Vec::new();
    if let Some(meta) = meta {
        params.push(format!("\"_meta\":{meta}"));
    }
    if let Some(cursor) = cursor {
        params.push(format!("\"cursor\":{cursor}"));
    }
    let params = params.join(",");
    format!("{{\"jsonrpc\":\"2.0\",\"id\":\"{id}\",\"method\":\"tools/list\",\"params\":{{{params}}}}}\n")
        .into_bytes()
}
