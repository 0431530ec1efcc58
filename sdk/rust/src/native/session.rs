//! One connection with the host: who asked what, and who waits for which answer.
//!
//! The thread that reads dispatches and never runs a handler, so `ping` is answered and `$/cancel` is
//! heard whatever the handlers do.

use std::{
    any::Any,
    borrow::Cow,
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    call::Call,
    error::{BoxError, PalisadeError},
    handle::{About, Handle},
    handlers::{Handlers, result_error},
    json::{lock, to_json},
    native::{
        call_state::{CallState, Id},
        descriptor::Socket,
        dispatch::dispatch,
        errors::{closed, from_wire, to_wire},
        pool::Pool,
        wire::{Full, Wire, frame, wait_until},
    },
};

/// Requests of ours in flight; the host refuses more.
const IN_FLIGHT: usize = 256;
/// Requests of the host in flight; the SDK refuses more.
const HOST_IN_FLIGHT: usize = 1024;
/// Of the grace of `shutdown`, the share that running calls have, in tenths.
const GRACE_TENTHS: u32 = 8;
/// How long the plugin waits at the end for the host to read and to close.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// The answer to a request of ours, once it is there.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    outcome: Mutex<Option<Result<Box<RawValue>, PalisadeError>>>,
    changed: Condvar,
}

impl Reply {
    /// The first outcome counts.
    pub(crate) fn settle(&self, outcome: Result<Box<RawValue>, PalisadeError>) {
        lock(&self.outcome).get_or_insert(outcome);
        self.changed.notify_all();
    }

    /// None where it did not come in time.
    fn wait(&self, at_most: Duration) -> Option<Result<Box<RawValue>, PalisadeError>> {
        let outcome = lock(&self.outcome);
        wait_until(&self.changed, outcome, at_most, |outcome| outcome.is_some()).0.take()
    }
}

struct State {
    calls: HashMap<Id, Arc<CallState>>,
    /// None: nobody waits for it any more, but it is still in flight for the host.
    replies: HashMap<u64, Option<Arc<Reply>>>,
    is_initialized: bool,
    is_stopping: bool,
    is_over: bool,
}

/// Serves one plugin over one socket, until the host closes it.
pub(crate) struct Session {
    wire: Arc<Wire>,
    pool: Arc<Pool>,
    handlers: Handlers,
    state: Mutex<State>,
    /// A call ended, or the connection did.
    changed: Condvar,
    next_id: AtomicU64,
    about: Mutex<About>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

impl Session {
    /// Reads until the end; fails with what was wrong with the stream.
    pub(crate) fn run(handlers: Handlers, socket: Socket) -> Result<(), String> {
        let threads = handlers.threads;
        let session = Arc::new(Self {
            wire: Wire::new(socket).map_err(|e| e.to_string())?,
            pool: Pool::new(threads),
            handlers,
            state: Mutex::new(State {
                calls: HashMap::new(),
                replies: HashMap::new(),
                is_initialized: false,
                is_stopping: false,
                is_over: false,
            }),
            changed: Condvar::new(),
            next_id: AtomicU64::new(1),
            about: Mutex::default(),
        });
        let result = session.wire.read(|line| session.on_line(line));
        session.end();
        result
    }

    fn end(&self) {
        self.wire.close();
        self.pool.close();
        let (replies, calls) = {
            let mut state = lock(&self.state);
            state.is_over = true;
            let calls: Vec<_> = state.calls.values().cloned().collect();
            (std::mem::take(&mut state.replies), calls)
        };
        self.changed.notify_all();
        for reply in replies.into_values().flatten() {
            reply.settle(Err(closed()));
        }
        for call in calls {
            call.cancel();
        }
    }

    // What comes in.

    fn on_line(self: &Arc<Self>, line: &str) -> Result<(), String> {
        if line.bytes().all(|b| b.is_ascii_whitespace()) {
            return Ok(());
        }
        let message: Envelope<'_> =
            serde_json::from_str(line).map_err(|e| format!("not a message: {e}"))?;
        // An array would be read as the fields in their order.
        if !line.trim_start().starts_with('{') {
            return Err("a message is not an object".to_owned());
        }
        match (message.method, message.id) {
            (None, id) => self.on_answer(id, message.result, message.error),
            (Some(method), None) => {
                if method == "$/cancel" {
                    self.on_cancel(message.params);
                }
            }
            (Some(method), Some(id)) => {
                let id = read_id(id).ok_or("an id is neither a whole number nor text")?;
                self.on_request(id, &method, message.params);
            }
        }
        Ok(())
    }

    fn on_answer(
        &self,
        id: Option<&RawValue>,
        result: Option<&RawValue>,
        error: Option<&RawValue>,
    ) {
        let Some(Id::Number(id)) = id.and_then(read_id) else { return };
        let Some(Some(reply)) = lock(&self.state).replies.remove(&id) else { return };
        reply.settle(match error {
            Some(error) => Err(from_wire(error.get())),
            None => Ok(result.unwrap_or(RawValue::NULL).to_owned()),
        });
    }

    fn on_cancel(&self, params: Option<&RawValue>) {
        #[derive(Deserialize)]
        struct Cancel<'a> {
            #[serde(borrow)]
            id: &'a RawValue,
        }
        let cancel = params.and_then(|p| serde_json::from_str::<Cancel<'_>>(p.get()).ok());
        let Some(id) = cancel.and_then(|cancel| read_id(cancel.id)) else { return };
        let call = lock(&self.state).calls.get(&id).cloned();
        if let Some(call) = call
            && call.method != "shutdown"
        {
            call.cancel();
        }
    }

    fn on_request(self: &Arc<Self>, id: Id, method: &str, params: Option<&RawValue>) {
        if method == "ping" {
            return self.answer(&id, "{}");
        }
        let call = CallState::new(id, method);
        if let Err(refusal) = self.admit(&call) {
            return self.answer_error(&call.id, &refusal);
        }
        let params = params.unwrap_or(RawValue::NULL).to_owned();
        let (session, job_call) = (Arc::clone(self), Arc::clone(&call));
        let job = move || {
            let is_shutdown = job_call.method == "shutdown";
            if is_shutdown {
                session.shut_down(&job_call, &params);
            } else {
                session.work(&job_call, &params);
            }
        };
        let started = if method == "shutdown" {
            // Not in the pool: its threads may all be busy.
            thread::Builder::new().name("palisade-shutdown".to_owned()).spawn(job).map(drop)
        } else {
            self.pool.submit(Box::new(job))
        };
        if started.is_err() {
            let error = PalisadeError::new("PAL-LIMIT", "the plugin may make no thread");
            self.finish(&call, Err(error));
        }
    }

    fn admit(&self, call: &Arc<CallState>) -> Result<(), PalisadeError> {
        let refuse = |code: &str, message: String| Err(PalisadeError::new(code, message));
        let mut state = lock(&self.state);
        if call.method == "initialize" {
            if state.is_initialized {
                return refuse("PAL-CONFLICT", "initialize came twice".to_owned());
            }
            state.is_initialized = true;
        } else if !state.is_initialized {
            let method: String = call.method.chars().take(128).collect();
            return refuse("PAL-CONFLICT", format!("{method} came before initialize"));
        } else if state.is_stopping {
            return refuse("PAL-UNAVAILABLE", "the plugin is shutting down".to_owned());
        }
        if state.calls.len() >= HOST_IN_FLIGHT {
            return refuse("PAL-LIMIT", format!("more than {HOST_IN_FLIGHT} requests in flight"));
        }
        state.is_stopping |= call.method == "shutdown";
        state.calls.insert(call.id.clone(), Arc::clone(call));
        Ok(())
    }

    // Handlers.

    fn call(self: &Arc<Self>, state: &Arc<CallState>) -> Call {
        let handle = Handle::new(Arc::clone(self), Some(Arc::clone(state)));
        Call { state: Arc::clone(state), handle }
    }

    fn work(self: &Arc<Self>, state: &Arc<CallState>, params: &RawValue) {
        if state.is_cancelled() {
            return self.finish(state, Err(PalisadeError::cancelled()));
        }
        let call = self.call(state);
        let result = guarded(|| dispatch(&self.handlers, &call, params.get()));
        drop(call);
        self.finish(state, result);
    }

    /// Answers a call and forgets it.
    fn finish(&self, call: &Arc<CallState>, result: Result<String, PalisadeError>) {
        match result {
            Ok(result) => self.answer(&call.id, &result),
            Err(error) => self.answer_error(&call.id, &error),
        }
        lock(&self.state).calls.remove(&call.id);
        self.changed.notify_all();
    }

    pub(crate) fn about(&self) -> About {
        lock(&self.about).clone()
    }

    /// Changes what the plugin knows about itself; gives what it knew before.
    pub(crate) fn set_about(&self, change: impl FnOnce(&mut About)) -> About {
        let mut about = lock(&self.about);
        let old = about.clone();
        change(&mut about);
        old
    }

    // Answers.

    fn answer(&self, id: &Id, result: &str) {
        let id_text = id_text(id);
        let text = format!(r#"{{"jsonrpc":"2.0","id":{id_text},"result":{result}}}"#);
        match frame(text) {
            // Fails only where nobody reads any more.
            Ok(data) => drop(self.wire.send(data, Full::Queue)),
            Err(error) => self.answer_error(id, &result_error(&error)),
        }
    }

    fn answer_error(&self, id: &Id, error: &PalisadeError) {
        let (id, error) = (id_text(id), to_wire(error));
        let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#);
        if let Ok(data) = frame(text) {
            drop(self.wire.send(data, Full::Queue));
        }
    }

    // What goes out.

    /// Sends a notification; gives whether it was sent. Dropped when the host does not keep up.
    pub(crate) fn notify<T: Serialize>(&self, method: &str, params: &T) -> bool {
        let data = to_json(params).and_then(|params| {
            frame(format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#))
        });
        data.and_then(|data| self.wire.send(data, Full::Fail)).is_ok()
    }

    /// Asks the host and waits; ends with `PAL-CANCELLED` when `call` is cancelled.
    pub(crate) fn request(
        &self,
        method: &str,
        params: &str,
        timeout: Duration,
        call: Option<&Arc<CallState>>,
    ) -> Result<Box<RawValue>, PalisadeError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let text =
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#);
        let (data, reply) = (frame(text)?, Arc::new(Reply::default()));
        if call.is_some_and(|call| !call.asks(&reply)) {
            return Err(PalisadeError::cancelled());
        }
        let outcome = self.expect(id, &reply).and_then(|()| {
            self.wire.send(data, Full::Wait).inspect_err(|_| {
                lock(&self.state).replies.remove(&id);
            })?;
            reply.wait(timeout).unwrap_or_else(|| {
                let message = format!("{method}: no answer within {timeout:?}");
                Err(PalisadeError::new("PAL-DEADLINE", message))
            })
        });
        if let Some(call) = call {
            call.has_its_answer(&reply);
        }
        self.abandon(id);
        outcome
    }

    fn expect(&self, id: u64, reply: &Arc<Reply>) -> Result<(), PalisadeError> {
        let mut state = lock(&self.state);
        if state.is_over {
            return Err(closed());
        }
        if state.replies.len() >= IN_FLIGHT {
            let message = format!("more than {IN_FLIGHT} requests in flight");
            return Err(PalisadeError::new("PAL-LIMIT", message));
        }
        state.replies.insert(id, Some(Arc::clone(reply)));
        Ok(())
    }

    /// Tells the host that nobody waits for an answer, where it has not come.
    fn abandon(&self, id: u64) {
        match lock(&self.state).replies.get_mut(&id) {
            Some(reply) => *reply = None,
            None => return,
        }
        let text = format!(r#"{{"jsonrpc":"2.0","method":"$/cancel","params":{{"id":{id}}}}}"#);
        if let Ok(data) = frame(text) {
            drop(self.wire.send(data, Full::Queue));
        }
    }

    // The end.

    fn shut_down(self: &Arc<Self>, own: &Arc<CallState>, params: &RawValue) {
        #[derive(Deserialize)]
        struct Params {
            grace_ms: u64,
        }
        let grace = serde_json::from_str::<Params>(params.get())
            .map_or(Duration::from_secs(1), |params| Duration::from_millis(params.grace_ms));
        let at_most = (grace / 10).saturating_mul(GRACE_TENTHS);
        let others = |state: &mut State| state.calls.values().all(|call| Arc::ptr_eq(call, own));
        let (state, _) = wait_until(&self.changed, lock(&self.state), at_most, |state| {
            state.is_over || others(state)
        });
        let rest: Vec<_> =
            state.calls.values().filter(|call| !Arc::ptr_eq(call, own)).cloned().collect();
        drop(state);
        for call in rest {
            call.cancel();
        }
        let call = self.call(own);
        let result = guarded(|| self.handlers.stop(&call).map(|()| "{}".to_owned()));
        drop(call);
        self.finish(own, result);
        // The host closes now. Should it not, the plugin ends by itself.
        self.wire.drained(LAST_WAIT);
        drop(wait_until(&self.changed, lock(&self.state), LAST_WAIT, |state| state.is_over));
        self.wire.close();
    }
}

fn id_text(id: &Id) -> String {
    match id {
        Id::Number(number) => number.to_string(),
        Id::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
    }
}

fn read_id(id: &RawValue) -> Option<Id> {
    let number = || id.get().parse().ok().map(Id::Number);
    number().or_else(|| serde_json::from_str(id.get()).ok().map(Id::Text))
}

/// Runs a handler; its error and its panic become the answer.
fn guarded(handler: impl FnOnce() -> Result<String, BoxError>) -> Result<String, PalisadeError> {
    let error = match catch_unwind(AssertUnwindSafe(handler)) {
        Ok(Ok(result)) => return Ok(result),
        Ok(Err(error)) => error,
        // What happened and where is in the log: the hook for panics has written it to stderr.
        Err(panic) => {
            return Err(PalisadeError::new(
                "PAL-PLUGIN",
                format!("panic: {}", words(panic.as_ref())),
            ));
        }
    };
    let is_own = error.is::<PalisadeError>();
    let error = PalisadeError::of_handler(error);
    if !is_own {
        eprintln!("{}", error.message);
    }
    Err(error)
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words")
}
