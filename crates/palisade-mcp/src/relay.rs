//! The relay: two streams, what passes between them, and how it ends.
//!
//! Each direction is one loop that reads a line, decides, and writes before it reads again, so a side
//! that does not read slows the other down and nothing piles up here. The few lines that the relay says
//! itself (refusals, its own question for the list of tools) wait in short queues, so that neither loop
//! waits for the other's stream.

mod asked;
mod calls;
mod down;
mod state;
mod up;
mod writer;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use palisade_audit::{Act, Decision, RecordKind};
use palisade_broker::{Action, Caller, Gate};
use palisade_dialect::{NOISE_BYTES, NOISE_LINES, NoiseBudget};
use palisade_model::{Access, ErrorCode, Failure, Kind, text::escape};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{LINE_BYTES, Pins, Report, lines::LineReader, message, tools::Withheld};
use state::State;
use writer::Writer;

/// How long the client is waited for when open requests are answered at the end.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long a server that has nothing left to answer may take to end by itself.
const GRACE: Duration = Duration::from_millis(500);

/// Bounds of a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Longest line in either direction, in bytes.
    pub line_bytes: usize,
    /// From `initialize` to its answer; a server that takes longer is ended. For `server/discover`, which
    /// old servers leave unanswered, an error is given instead.
    pub start_timeout: Duration,
    /// From a request to its answer, or to its next progress. `subscriptions/listen` and `tasks/result`
    /// have none.
    pub call_timeout: Duration,
    /// From a request to its answer, however much progress there is.
    pub longest_call: Duration,
    /// How long open requests are waited for when the client has closed its end.
    pub linger: Duration,
    /// Lines between two answers that are no messages.
    pub noise_lines: u32,
    /// Bytes of them.
    pub noise_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            line_bytes: LINE_BYTES,
            start_timeout: Duration::from_secs(60),
            call_timeout: Duration::from_secs(600),
            longest_call: Duration::from_secs(7200),
            linger: Duration::from_secs(30),
            noise_lines: NOISE_LINES,
            noise_bytes: NOISE_BYTES,
        }
    }
}

/// How a relay ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The client closed its end or went away, and what it had asked was answered or given up.
    ClientClosed,
    /// It was told to stop.
    Stopped,
    /// The server closed its output, or ended; the failure says how, where that is known.
    ServerEnded(Failure),
    /// The server broke the protocol, flooded or did not answer at the start: it is to be killed.
    Breach(Failure),
}

/// What stands between a client and a server. See the crate.
pub struct Relay {
    gate: Gate,
    client: Arc<Caller>,
    server: Arc<Caller>,
    pins: Arc<dyn Pins>,
    report: Arc<dyn Report>,
    options: Options,
    state: Mutex<State>,
    /// A request was opened, or its deadline moved.
    deadlines: Notify,
    /// A request was answered, or a held call let go.
    settled: Notify,
    /// The server's id for people and for hints.
    name: String,
}

impl Relay {
    /// A relay that lets calls of `client` towards `server` pass `gate`, and holds tools to `pins`.
    /// `server` is the plugin's caller: its rules say which tools are offered and what may be asked of
    /// the client.
    #[must_use]
    pub fn new(
        gate: Gate,
        client: Arc<Caller>,
        server: Arc<Caller>,
        pins: Arc<dyn Pins>,
        report: Arc<dyn Report>,
        options: Options,
    ) -> Self {
        let name = match server.instance() {
            Some(instance) => instance.plugin.id.to_string(),
            None => "server".to_owned(),
        };
        Self {
            gate,
            client,
            server,
            pins,
            report,
            options,
            state: Mutex::new(State::new()),
            deadlines: Notify::new(),
            settled: Notify::new(),
            name,
        }
    }

    /// Relays until one side closes, the server breaks the protocol or `stop` resolves. `died` resolves
    /// when the server has ended, and says how; it is asked only then.
    ///
    /// The server's input is closed when this returns at the latest. What becomes of the server is the
    /// caller's to decide.
    pub async fn run(
        self,
        (from_client, to_client): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
        (from_server, to_server): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
        stop: impl Future<Output = ()>,
        died: impl Future<Output = Failure>,
    ) -> Ended {
        let (client, server) = (Writer::new(to_client), Writer::new(to_server));
        let ended = {
            let up = async {
                let lines = LineReader::new(from_client, self.options.line_bytes);
                self.up(lines, &client, &server).await;
                self.let_finish(&server).await;
            };
            let lines = LineReader::new(from_server, self.options.line_bytes);
            let noise = NoiseBudget::new(self.options.noise_lines, self.options.noise_bytes);
            tokio::select! {
                biased;
                () = stop => Ended::Stopped,
                ended = self.down(lines, noise, &client, &server) => ended,
                failure = self.watch_deadlines(&client, &server) => Ended::Breach(failure),
                () = client.drain() => Ended::ClientClosed,
                // A server that closed its input may still have something to say.
                () = async { server.drain().await; std::future::pending().await } => Ended::Stopped,
                () = up => Ended::ClientClosed,
            }
        };
        drop(server);
        let ended = match ended {
            Ended::ServerEnded(_) if self.lock().client_closed => Ended::ClientClosed,
            Ended::ServerEnded(unknown) => {
                Ended::ServerEnded(timeout(FAREWELL, died).await.unwrap_or(unknown))
            }
            other => other,
        };
        if let Ended::ServerEnded(failure) | Ended::Breach(failure) = &ended {
            self.answer_open(&client, failure).await;
        }
        ended
    }

    /// Once the client has closed: lets held calls go, closes the server's input, and waits for what is
    /// still to be answered.
    async fn let_finish<W: AsyncWrite + Unpin>(&self, server: &Writer<W>) {
        self.lock().client_closed = true;
        let end = Instant::now() + self.options.linger;
        let wait_while = async |is_busy: fn(&State) -> bool| {
            loop {
                let settled = self.settled.notified();
                if !is_busy(&self.lock()) {
                    return;
                }
                tokio::select! {
                    () = settled => {}
                    () = sleep_until(end) => return,
                }
            }
        };
        wait_while(State::has_held).await;
        server.close().await;
        wait_while(State::owes_answers).await;
        sleep(GRACE).await;
    }

    /// Answers every open request with the server's end.
    async fn answer_open<W: AsyncWrite + Unpin>(&self, client: &Writer<W>, failure: &Failure) {
        let open = std::mem::take(&mut self.lock().open);
        let write = async {
            for open in open.values() {
                let line =
                    message::error_line(Some(&open.id), message::number(failure.code), failure);
                if !client.write(&line).await {
                    break;
                }
            }
        };
        // A client that does not read learns it from the end of the stream.
        let _ = timeout(FAREWELL, write).await;
        for mut open in open.into_values() {
            if let Some(pass) = open.pass.take() {
                pass.failed(failure);
            }
        }
    }

    /// Gives up requests whose time has passed. Ends with the failure of a server that did not start.
    async fn watch_deadlines<C, S>(&self, client: &Writer<C>, server: &Writer<S>) -> Failure
    where
        C: AsyncWrite + Unpin,
        S: AsyncWrite + Unpin,
    {
        loop {
            let moved = self.deadlines.notified();
            let next = self.lock().next_deadline();
            match next {
                None => moved.await,
                Some(at) => tokio::select! {
                    () = moved => {}
                    () = sleep_until(at) => {}
                },
            }
            let now = Instant::now();
            let (late, listing_is_late) = {
                let mut state = self.lock();
                (state.take_late(now), state.listing_is_late(now))
            };
            if listing_is_late {
                let late = Failure::new(ErrorCode::Deadline, "the server does not list its tools");
                self.end_listing(Err(late), client, server).await;
            }
            for mut open in late {
                let waited = now.duration_since(open.since).as_secs();
                let failure = Failure::new(
                    ErrorCode::Deadline,
                    format!("no answer to {} within {waited} s", escape(&open.method, 64)),
                );
                if let Some(pass) = open.pass.take() {
                    pass.failed(&failure);
                }
                if open.is_start {
                    let hint = "look at what the server wrote to stderr, or raise --start-timeout";
                    // Its own request is answered with the others.
                    self.lock().reopen(open);
                    return failure.hint(hint);
                }
                self.say_error(client, Some(&open.id), message::number(failure.code), &failure);
                if open.may_cancel {
                    let line = format!(
                        "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":{},\"reason\":\"no answer in time\"}}}}\n",
                        open.id
                    );
                    let _ = server.post(line.into_bytes());
                }
                self.settled.notify_waiters();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after every step, whatever panicked elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Posts an error to the client.
    fn say_error<W: AsyncWrite + Unpin>(
        &self,
        client: &Writer<W>,
        id: Option<&str>,
        number: i64,
        failure: &Failure,
    ) {
        let _ = client.post(message::error_line(id, number, failure));
    }

    fn may(&self, kind: Kind, target: &str) -> bool {
        self.gate.decide(&self.server, &Access::new(kind, target)).is_ok()
    }

    /// Says something to a person, once.
    fn tell(&self, text: String) {
        if self.lock().tools.tell(text.clone()) {
            self.report.notice(&text);
        }
    }

    /// How a change is accepted.
    fn accept_hint(&self, subject: &str) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@+".contains(c);
        if subject.chars().all(plain) {
            format!(
                "palisade mcp pins {0} shows it; palisade mcp pins {0} --accept {subject} accepts it",
                self.name
            )
        } else {
            format!("palisade mcp pins {} shows it and how to accept it", self.name)
        }
    }

    /// The failure of something that is withheld.
    fn withheld(&self, subject: &str, why: &Withheld) -> Failure {
        let shown = escape(subject, 128);
        match why {
            Withheld::NotCovered => {
                Failure::new(ErrorCode::Denied, format!("{shown} is not granted"))
                    .rule("no effective tool right covers it")
            }
            Withheld::Changed => Failure::new(
                ErrorCode::Denied,
                format!("{shown} is withheld: it is not what was approved"),
            )
            .rule("the definition differs from its pin")
            .hint(self.accept_hint(subject)),
            Withheld::Unapproved => Failure::new(
                ErrorCode::Denied,
                format!("{shown} is withheld: nobody has approved it"),
            )
            .rule("pins are strict: nothing is approved by being seen")
            .hint(self.accept_hint(subject)),
            Withheld::Unsound(what) => {
                Failure::new(ErrorCode::ProtocolBreach, format!("{shown} is withheld: {what}"))
            }
        }
    }

    /// Records that something was withheld, and says so; each once.
    fn note_withheld(&self, subject: &str, why: &Withheld) {
        let failure = self.withheld(subject, why);
        let hint = failure.hint.as_ref().map(|hint| format!(". {hint}")).unwrap_or_default();
        let text = format!("{}{hint}", failure.message);
        if !self.lock().tools.tell(text.clone()) {
            return;
        }
        let action = Action::new(RecordKind::Registration).name(subject);
        let _ = self.gate.refuse(&self.server, &action, failure);
        self.report.notice(&text);
    }

    fn note_pinned(&self, subject: &str) {
        let act = Act::new(RecordKind::Registration, Arc::clone(self.server.principal()))
            .target(subject)
            .decision(Decision::Allow, Some("pinned at first sight".to_owned()));
        self.gate.note(act, None);
    }

    /// Records that the server wrote something that no message of the protocol is.
    fn note_breach(&self, what: &str) {
        let act = Act::new(RecordKind::Breach, Arc::clone(self.server.principal()))
            .detail(what)
            .coalesce();
        self.gate.note(act, Some(ErrorCode::ProtocolBreach));
        self.tell(format!("the server wrote what is not clearly a message: {what}"));
    }
}
