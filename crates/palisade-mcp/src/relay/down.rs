//! From the server to the client.

use bytes::Bytes;
use palisade_broker::Bucket;
use palisade_dialect::{DialectError, NoiseBudget, mcp::PAGES};
use palisade_model::{ErrorCode, Failure, text::escape};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Duration, sleep},
};

use super::{
    Ended, Relay,
    asked::carried,
    calls::list_request,
    state::{Open, What},
    writer::Writer,
};
use crate::{
    Sight, Subject,
    ask::{Need, URL_ELICITATION_REQUIRED, needed},
    json::{Object, Unclear, replace, string},
    lines::{LineReader, Next},
    message::{self, INTERNAL_ERROR, Id, Message, Unfit, error_line},
    tools::BadPage,
};

/// Longest a server is slowed down for writing notifications faster than its rate.
const THROTTLE: Duration = Duration::from_secs(1);

/// What the client gets instead of an answer, or in its place.
pub(super) enum Answer {
    /// The line as it came.
    AsItCame,
    /// The result with something taken out.
    Less(String),
    /// An error in its place, and the failure for the record.
    Instead(Vec<u8>, Failure),
}

impl Relay {
    /// Relays until the server closes its output or breaks the protocol.
    pub(super) async fn down<R, C, S>(
        &self,
        mut lines: LineReader<R>,
        mut noise: NoiseBudget,
        client: &Writer<C>,
        server: &Writer<S>,
    ) -> Ended
    where
        R: AsyncRead + Unpin,
        C: AsyncWrite + Unpin,
        S: AsyncWrite + Unpin,
    {
        loop {
            let line = match lines.next().await {
                Next::Line(line) => line,
                Next::TooLong => {
                    let what = format!("a line is longer than {} bytes", self.options.line_bytes);
                    return self.breach(&what);
                }
                Next::End => {
                    let what = "the server closed its output";
                    return Ended::ServerEnded(Failure::new(ErrorCode::Crashed, what));
                }
            };
            let taken = match self.take_from_server(&line, &mut noise, client, server).await {
                Ok(is_read) => is_read,
                Err(flood) => return self.breach(&flood.to_string()),
            };
            if !taken {
                return Ended::ClientClosed;
            }
        }
    }

    fn breach(&self, what: &str) -> Ended {
        self.note_breach(what);
        Ended::Breach(
            Failure::new(ErrorCode::ProtocolBreach, format!("the server was stopped: {what}"))
                .hint("its standard output is for messages only; what it logs belongs on stderr"),
        )
    }

    /// Takes one line. False where the client does not read any more.
    async fn take_from_server<C, S>(
        &self,
        line: &Bytes,
        noise: &mut NoiseBudget,
        client: &Writer<C>,
        server: &Writer<S>,
    ) -> Result<bool, DialectError>
    where
        C: AsyncWrite + Unpin,
        S: AsyncWrite + Unpin,
    {
        match message::read(line) {
            Ok(Message::Answer { id, outcome }) => {
                self.server_answers(line, &id, outcome, noise, client, server).await
            }
            Ok(Message::Request { id, method, params }) => {
                self.server_asks(line, &id, &method, params, noise, client, server).await
            }
            Ok(Message::Notification { method, params }) => {
                let unclear = match self.notified(&method, params).await {
                    Ok(true) => return Ok(client.write(line).await),
                    Ok(false) => return Ok(true),
                    Err(unclear) => unclear,
                };
                self.note_breach(&format!("the notification {}: {unclear}", escape(&method, 64)));
                noise.note(line.len()).map(|()| true)
            }
            Ok(Message::Complaint) => {
                // It answers nothing, so there may be any number of them.
                noise.note(line.len())?;
                Ok(client.write(line).await)
            }
            Err(unfit) => {
                match unfit {
                    Unfit::Blank => {}
                    Unfit::Stray => self.report.stray(String::from_utf8_lossy(line).trim_end()),
                    Unfit::Unclear { why, id } => {
                        self.note_breach(&why);
                        if let Some(id) = id.as_deref().and_then(Id::parse) {
                            self.answer_unclear(&id, &why, client).await;
                        }
                    }
                }
                noise.note(line.len()).map(|()| true)
            }
        }
    }

    /// An answer that could be read in two ways settles its request with an error.
    async fn answer_unclear<C: AsyncWrite + Unpin>(
        &self,
        id: &Id<'_>,
        why: &str,
        client: &Writer<C>,
    ) {
        let Some(mut open) = self.lock().answered(&id.key) else { return };
        let failure = Failure::new(
            ErrorCode::ProtocolBreach,
            format!("the server's answer to {} is not clear: {why}", escape(&open.method, 64)),
        );
        if let Some(pass) = open.pass.take() {
            pass.failed(&failure);
        }
        self.settled.notify_waiters();
        client.write(&error_line(Some(&open.id), INTERNAL_ERROR, &failure)).await;
    }

    async fn server_answers<C, S>(
        &self,
        line: &Bytes,
        id: &Id<'_>,
        outcome: Result<&str, &str>,
        noise: &mut NoiseBudget,
        client: &Writer<C>,
        server: &Writer<S>,
    ) -> Result<bool, DialectError>
    where
        C: AsyncWrite + Unpin,
        S: AsyncWrite + Unpin,
    {
        let is_own = self.lock().listing.as_ref().is_some_and(|listing| listing.key == id.key);
        if is_own {
            noise.reset();
            self.listed(outcome, client, server).await;
            return Ok(true);
        }
        let open = self.lock().answered(&id.key);
        let Some(mut open) = open else {
            if !self.lock().is_late(&id.key) {
                self.tell(
                    "the server answers requests that nobody made; they are left out".to_owned(),
                );
                noise.note(line.len())?;
            }
            return Ok(true);
        };
        noise.reset();
        let answer = match outcome {
            Ok(result) => self.result(&open, result).await,
            Err(error) => self.error(&open, error).await,
        };
        let (line, failure) = match answer {
            Answer::AsItCame => (line.clone(), self.own_failure(&open, outcome)),
            Answer::Less(less) => {
                let text = std::str::from_utf8(line).unwrap_or_default();
                match outcome.ok().and_then(|result| replace(text, result, &less)) {
                    Some(line) => (Bytes::from(line), None),
                    None => return Ok(true),
                }
            }
            Answer::Instead(line, failure) => (Bytes::from(line), Some(failure)),
        };
        let is_read = client.write(&line).await;
        match (open.pass.take(), failure) {
            (Some(pass), None) if is_read => pass.done(),
            (Some(pass), Some(failure)) => pass.failed(&failure),
            _ => {}
        }
        self.settled.notify_waiters();
        Ok(is_read)
    }

    /// What the record says of an answer that passes as it came.
    fn own_failure(&self, open: &Open, outcome: Result<&str, &str>) -> Option<Failure> {
        let says_error = match outcome {
            Err(_) => true,
            Ok(result) => {
                open.what == What::Call
                    && Object::read(result, &[]).is_ok_and(|o| o.get("isError") == Some("true"))
            }
        };
        says_error
            .then(|| Failure::new(ErrorCode::PluginError, "the server answered with an error"))
    }

    /// Looks at a result.
    async fn result(&self, open: &Open, result: &str) -> Answer {
        let unclear = |why: &str| {
            self.note_breach(&format!("the answer to {}: {why}", escape(&open.method, 64)));
            let failure = Failure::new(
                ErrorCode::ProtocolBreach,
                format!("the server's answer to {} is not clear: {why}", escape(&open.method, 64)),
            );
            Answer::Instead(error_line(Some(&open.id), INTERNAL_ERROR, &failure), failure)
        };
        if !result.starts_with('{') {
            // No result of MCP, but nothing in it can ask or offer anything.
            return match open.what {
                What::Other => Answer::AsItCame,
                _ => unclear("it is no object"),
            };
        }
        let counts: &[&str] = match open.what {
            What::Start => &["resultType", "inputRequests", "task", "instructions"],
            What::List => &["resultType", "inputRequests", "task", "tools", "nextCursor"],
            What::Call | What::Other => &["resultType", "inputRequests", "task"],
        };
        let object = match Object::read(result, counts) {
            Ok(object) => object,
            Err(why) => return unclear(&why.to_string()),
        };
        let needs = match carried(&object) {
            Ok(needs) => needs,
            Err(why) => return unclear(&format!("what it asks for: {why}")),
        };
        if let Err((need, failure)) = self.ask_for(&needs).await {
            return self.refused_input(open, &need, failure);
        }
        match open.what {
            What::Call | What::Other => Answer::AsItCame,
            What::Start => self.instructions(&object).unwrap_or_else(|why| unclear(&why)),
            What::List => {
                let covered = |name: &str| self.may(palisade_model::Kind::Tool, name);
                let page = self.lock().tools.page(result, covered, &*self.pins);
                match page {
                    Ok(page) => {
                        self.note_list(&page.withheld, &page.pinned);
                        page.text.map_or(Answer::AsItCame, Answer::Less)
                    }
                    Err(BadPage::Unclear(why)) => unclear(&why.to_string()),
                    Err(BadPage::Pins(error)) => {
                        let failure = Failure::from(error);
                        self.tell(failure.to_string());
                        let line = error_line(Some(&open.id), INTERNAL_ERROR, &failure);
                        Answer::Instead(line, failure)
                    }
                }
            }
        }
    }

    /// Holds the server's instructions to their pin.
    fn instructions(&self, object: &Object<'_>) -> Result<Answer, String> {
        let Some(raw) = object.get("instructions") else { return Ok(Answer::AsItCame) };
        let Some(text) = string(raw) else {
            return if raw == "null" {
                Ok(Answer::AsItCame)
            } else {
                Err("its instructions are no text".into())
            };
        };
        let without = || object.without(&["instructions"]).map_or(Answer::AsItCame, Answer::Less);
        let subject = Subject::Instructions.to_string();
        let why = match self.pins.look(&[(Subject::Instructions, &text)]) {
            Ok(sights) => match sights.first() {
                Some(Sight::Same) => return Ok(Answer::AsItCame),
                Some(Sight::First) => {
                    self.note_pinned(&subject);
                    return Ok(Answer::AsItCame);
                }
                Some(Sight::Changed) => crate::tools::Withheld::Changed,
                Some(Sight::Unapproved) | None => crate::tools::Withheld::Unapproved,
            },
            Err(error) => {
                self.tell(Failure::from(error).to_string());
                return Ok(without());
            }
        };
        self.note_withheld(&subject, &why);
        Ok(without())
    }

    /// Looks at an error: one of 2025-11-25 asks for elicitation.
    async fn error(&self, open: &Open, error: &str) -> Answer {
        let unclear = |why: String| {
            self.note_breach(&why);
            let failure = Failure::new(ErrorCode::ProtocolBreach, why);
            Answer::Instead(error_line(Some(&open.id), INTERNAL_ERROR, &failure), failure)
        };
        if !error.starts_with('{') {
            return unclear("the server's error is no object".to_owned());
        }
        let object = match Object::read(error, &["code", "message", "data"]) {
            Ok(object) => object,
            Err(why) => return unclear(format!("the server's error is not clear: {why}")),
        };
        let code = object.get("code").and_then(Id::parse).map(|id| id.key);
        if code != Some(message::IdKey::Integer(i128::from(URL_ELICITATION_REQUIRED))) {
            return Answer::AsItCame;
        }
        match self.ask_for(&[Need::URL]).await {
            Ok(()) => Answer::AsItCame,
            Err((need, failure)) => self.refused_input(open, &need, failure),
        }
    }

    /// Looks at a notification. Says whether it passes.
    async fn notified(&self, method: &str, params: Option<&str>) -> Result<bool, Unclear> {
        self.throttle().await;
        let counts: &[&str] = match method {
            "notifications/progress" => &["progressToken"],
            "notifications/cancelled" => &["requestId"],
            _ => &["inputRequests", "task"],
        };
        let object = match params.filter(|params| params.starts_with('{')) {
            Some(params) => Some(Object::read(params, counts)?),
            None => None,
        };
        let named = |key| object.as_ref().and_then(|o| o.get(key)).and_then(Id::parse);
        match method {
            "notifications/progress" => {
                if let Some(token) = named("progressToken") {
                    self.progress(&token);
                }
            }
            "notifications/tools/list_changed" => self.lock().tools.forget(),
            "notifications/cancelled" => {
                if let Some(id) = named("requestId") {
                    let mut state = self.lock();
                    // Its own request; or, since 2026-07-28, the end of a subscription.
                    let pass = state.asked.remove(&id.key);
                    let is_subscription = |open: &mut Open| &*open.method == "subscriptions/listen";
                    if pass.is_none() && state.open.get_mut(&id.key).is_some_and(is_subscription) {
                        state.give_up(&id.key);
                    }
                    drop(state);
                    self.settled.notify_waiters();
                }
            }
            _ => {}
        }
        let mut needs = object.as_ref().map(carried).transpose()?.unwrap_or_default();
        // A request without an id is none, but not every client looks for the id first.
        needs.extend(needed(method, params)?);
        if let Err((need, failure)) = self.ask_for(&needs).await {
            self.tell_asked(&need, &failure);
            return Ok(false);
        }
        Ok(true)
    }

    /// Waits until the server may have written another notification.
    async fn throttle(&self) {
        while let Some(Err(failure)) = self.server.rates().map(|rates| rates.take(Bucket::Events)) {
            let Some(wait) = failure.retry_after_ms else {
                // The rate is none at all; they still are not lost.
                sleep(THROTTLE).await;
                return;
            };
            sleep(Duration::from_millis(wait).min(THROTTLE)).await;
        }
    }

    /// A request goes on: it gets its whole time again, up to the longest.
    fn progress(&self, token: &Id<'_>) {
        let mut state = self.lock();
        for open in state.open.values_mut() {
            if open.token.as_ref() == Some(&token.key)
                && open.deadline.is_some()
                && open.what != What::Start
            {
                let longest = open.since + self.options.longest_call;
                open.deadline =
                    Some((tokio::time::Instant::now() + self.options.call_timeout).min(longest));
            }
        }
        drop(state);
        self.deadlines.notify_waiters();
    }

    /// Takes the answer to the relay's own question for the list of tools.
    async fn listed<C, S>(
        &self,
        outcome: Result<&str, &str>,
        client: &Writer<C>,
        server: &Writer<S>,
    ) where
        C: AsyncWrite + Unpin,
        S: AsyncWrite + Unpin,
    {
        let failed = |what: String| {
            Err(Failure::new(
                ErrorCode::Unavailable,
                format!("the list of tools cannot be read: {what}"),
            ))
        };
        let done = match outcome {
            Err(error) => failed(escape(error, 200)),
            Ok(result) => {
                let covered = |name: &str| self.may(palisade_model::Kind::Tool, name);
                let page = self.lock().tools.page(result, covered, &*self.pins);
                match page {
                    Err(BadPage::Unclear(why)) => failed(why.to_string()),
                    Err(BadPage::Pins(error)) => Err(Failure::from(error)),
                    Ok(page) => {
                        self.note_list(&page.withheld, &page.pinned);
                        match page.cursor {
                            None => Ok(()),
                            Some(cursor) => match self.next_page(&cursor, server) {
                                Ok(()) => return,
                                Err(what) => failed(what.to_owned()),
                            },
                        }
                    }
                }
            }
        };
        self.end_listing(done, client, server).await;
    }

    fn next_page<S: AsyncWrite + Unpin>(
        &self,
        cursor: &str,
        server: &Writer<S>,
    ) -> Result<(), &'static str> {
        let mut state = self.lock();
        let own = state.own_id();
        let Some(listing) = &mut state.listing else { return Ok(()) };
        listing.pages += 1;
        if listing.pages >= PAGES {
            return Err("it has too many pages");
        }
        listing.key = message::IdKey::Text(own.clone());
        let question = list_request(&own, listing.meta.as_deref(), Some(cursor));
        drop(state);
        if server.post(question) { Ok(()) } else { Err("the server does not read its input") }
    }
}
