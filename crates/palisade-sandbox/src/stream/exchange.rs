//! Requests and answers, one object a line, over a pair of pipes: what the dialects have in common.
//!
//! The table of calls that wait, the writer and the reader stand here once; what the lines look like and
//! which requests of a plugin are served is the [`Codec`]'s.

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use palisade_dialect::{DialectError, Id, Line, Lines, NoiseBudget};
use palisade_model::{ErrorCode, Failure, Payload};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout_at,
};

use super::{End, deadline_passed};
use crate::{BoxFuture, HostCalls, HostRequest, Trace};

/// Calls that may wait for an answer at the same time.
const IN_FLIGHT: usize = 256;
/// Requests of the plugin that are served at the same time; more are answered with an error.
const REQUESTS: usize = 64;
/// Lines that wait at the same time to tell the plugin that a request was refused or that a call was
/// given up. A plugin that does not read gets no more of them, and its requests are noise then.
const NOTICES: usize = 64;

pub(super) type Answer = Result<Payload, Failure>;

/// What a dialect says differently.
pub(super) trait Codec: Send + Sync + 'static {
    /// Reads a line.
    fn decode<'a>(&self, line: &'a [u8]) -> Line<'a>;
    /// Writes a request.
    fn encode_request(
        &self,
        id: &Id,
        method: &str,
        params: &Payload,
    ) -> Result<Vec<u8>, DialectError>;
    /// Writes an answer.
    fn encode_answer(
        &self,
        id: &Id,
        outcome: Result<&Payload, &Failure>,
    ) -> Result<Vec<u8>, DialectError>;
    /// The line that says that a request is given up; `None` where the dialect has none.
    fn encode_cancel(&self, id: u64) -> Option<Vec<u8>>;
    /// Serves a request of the plugin.
    fn serve(&self, host: &dyn HostCalls, request: HostRequest) -> BoxFuture<'static, Answer>;
    /// Takes a notification of the plugin.
    fn notified(&self, host: &dyn HostCalls, method: &str, params: &[u8]);
}

/// A conversation, as both sides of it share it.
pub(super) struct Exchange<C: Codec> {
    codec: C,
    pending: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    /// One line at a time. A half-written line (its writer was dropped) ends the conversation.
    writer: tokio::sync::Mutex<Option<pipe::Sender>>,
    /// The plugin's end was seen: nothing is written any more.
    is_over: AtomicBool,
    /// We closed the plugin's standard input.
    is_closed: AtomicBool,
    next: AtomicU64,
    host: Arc<dyn HostCalls>,
    requests: Arc<Semaphore>,
    notices: Arc<Semaphore>,
    runtime: Handle,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The guarded values are whole after every step, whatever panicked elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ended() -> Failure {
    Failure::new(ErrorCode::Crashed, "the plugin closed its output")
}

impl<C: Codec> Exchange<C> {
    /// Begins over the plugin's standard input and output. The second value drives it.
    pub(super) fn open(
        codec: C,
        to_plugin: OwnedFd,
        from_plugin: OwnedFd,
        noise: NoiseBudget,
        host: Arc<dyn HostCalls>,
    ) -> io::Result<(Arc<Self>, BoxFuture<'static, End>)> {
        for end in [&to_plugin, &from_plugin] {
            rustix::io::ioctl_fionbio(end, true)?;
        }
        let writer = pipe::Sender::from_owned_fd_unchecked(to_plugin)?;
        let reader = pipe::Receiver::from_owned_fd_unchecked(from_plugin)?;
        let exchange = Arc::new(Self {
            codec,
            pending: Mutex::default(),
            writer: tokio::sync::Mutex::new(Some(writer)),
            is_over: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            next: AtomicU64::new(1),
            host,
            requests: Arc::new(Semaphore::new(REQUESTS)),
            notices: Arc::new(Semaphore::new(NOTICES)),
            runtime: Handle::current(),
        });
        let over = Over(Arc::clone(&exchange));
        let end = Box::pin(async move {
            let end = over.0.read_lines(reader, noise).await;
            let closed_here = over.0.is_closed.load(Ordering::SeqCst);
            drop(over);
            if closed_here && end == End::Closed { End::Local } else { end }
        });
        Ok((exchange, end))
    }

    /// Writes one line.
    pub(super) async fn write(&self, line: &[u8]) -> Result<(), Failure> {
        let mut writer = self.writer.lock().await;
        // Taken out while writing: if this future is dropped in the middle of a line, nobody writes after
        // the torn one.
        let Some(mut pipe) = writer.take() else { return Err(ended()) };
        if !self.is_over.load(Ordering::SeqCst) {
            pipe.write_all(line).await.map_err(|_| ended())?;
        }
        // Looked at after the call was entered into the table, which is emptied after this was set.
        if self.is_over.load(Ordering::SeqCst) {
            return Err(ended());
        }
        *writer = Some(pipe);
        Ok(())
    }

    /// Closes the plugin's standard input, behind what is being written to it. The plugin ends then; that
    /// it closes its output is no end that anybody must be told of.
    pub(super) async fn close(&self) {
        let mut writer = self.writer.lock().await;
        self.is_closed.store(true, Ordering::SeqCst);
        *writer = None;
    }

    /// Asks, and waits for the answer. A call that is given up is forgotten, and where `may_cancel` the
    /// plugin is told.
    pub(super) async fn request(
        self: &Arc<Self>,
        method: &str,
        params: &Payload,
        deadline: Instant,
        may_cancel: bool,
    ) -> Answer {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let line = self.codec.encode_request(&Id::Number(id), method, params)?;
        let (sender, receiver) = oneshot::channel();
        {
            let mut pending = lock(&self.pending);
            if pending.len() >= IN_FLIGHT {
                return Err(Failure::new(
                    ErrorCode::LimitExceeded,
                    format!("{IN_FLIGHT} calls wait for this plugin already"),
                ));
            }
            pending.insert(id, sender);
        }
        let mut forget = Forget { exchange: self, id, tell: false };
        let exchange = async {
            self.write(&line).await?;
            // What was never asked cannot be given up.
            forget.tell = may_cancel;
            receiver.await.unwrap_or_else(|_| Err(ended()))
        };
        let answer = timeout_at(deadline.into(), exchange)
            .await
            .unwrap_or_else(|_| Err(deadline_passed(method)));
        drop(forget);
        answer
    }

    /// Writes a line that nobody waits for.
    fn notice(self: &Arc<Self>, permit: OwnedSemaphorePermit, line: Vec<u8>) {
        let exchange = Arc::clone(self);
        self.runtime.spawn(async move {
            // A plugin that does not read is the plugin's loss; the pipe's end is seen by the reader.
            let _ = exchange.write(&line).await;
            drop(permit);
        });
    }

    /// Serves a request of the plugin and writes the answer. False where it is not even answered.
    fn serve(self: &Arc<Self>, id: Id, method: String, params: &[u8]) -> bool {
        if let Ok(permit) = Arc::clone(&self.requests).try_acquire_owned() {
            let payload = Payload::from_json_text(params.to_vec());
            let request = HostRequest { method, payload, trace: Trace::default() };
            let served = self.codec.serve(&*self.host, request);
            let exchange = Arc::clone(self);
            self.runtime.spawn(async move {
                if let Some(line) = exchange.answer(&id, served.await) {
                    let _ = exchange.write(&line).await;
                }
                drop(permit);
            });
            return true;
        }
        let Ok(permit) = Arc::clone(&self.notices).try_acquire_owned() else { return false };
        let refused = Failure::new(
            ErrorCode::LimitExceeded,
            format!("{REQUESTS} requests are being served already"),
        );
        if let Some(line) = self.answer(&id, Err(refused)) {
            self.notice(permit, line);
        }
        true
    }

    /// The line of an answer; of one that cannot be said, the line that says so.
    fn answer(&self, id: &Id, outcome: Answer) -> Option<Vec<u8>> {
        let line = self.codec.encode_answer(id, outcome.as_ref());
        line.or_else(|e| self.codec.encode_answer(id, Err(&Failure::from(e)))).ok()
    }

    fn settle(&self, id: &Id, outcome: Answer) -> bool {
        let Id::Number(number) = id else { return false };
        let sender = lock(&self.pending).remove(number);
        // A caller that gave up at this very moment is no error.
        sender.map(|s| s.send(outcome)).is_some()
    }

    async fn read_lines(self: &Arc<Self>, mut pipe: pipe::Receiver, mut noise: NoiseBudget) -> End {
        let breach = |e: DialectError| End::Breach(e.to_string());
        let mut lines = Lines::default();
        let mut buffer = vec![0u8; 16 * 1024];
        loop {
            match pipe.read(&mut buffer).await {
                Ok(0) | Err(_) => return End::Closed,
                Ok(n) => lines.feed(buffer.get(..n).unwrap_or_default()),
            }
            loop {
                let line = match lines.next_line() {
                    Ok(Some(line)) => line,
                    Ok(None) => break,
                    Err(e) => return breach(e),
                };
                let is_noise = match self.codec.decode(&line) {
                    Line::Answer { id, outcome } => {
                        let outcome =
                            outcome.map(|raw| Payload::from_json_text(line.slice_ref(raw)));
                        let expected = self.settle(&id, outcome);
                        if expected {
                            noise.reset();
                        }
                        !expected
                    }
                    Line::Request { id, method, params } => !self.serve(id, method, params),
                    Line::Notification { method, params } => {
                        self.codec.notified(&*self.host, &method, params);
                        false
                    }
                    Line::Noise => true,
                };
                if is_noise && let Err(e) = noise.note(line.len()) {
                    return breach(e);
                }
            }
        }
    }
}

/// Ends the conversation when the reader does, also where its future is dropped.
struct Over<C: Codec>(Arc<Exchange<C>>);

impl<C: Codec> Drop for Over<C> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
        // Where a write is under way, and perhaps stuck, its end closes the pipe.
        if let Ok(mut writer) = self.0.writer.try_lock() {
            *writer = None;
        }
        lock(&self.0.pending).clear();
    }
}

/// Takes a call's entry out, however its future ends, and tells the plugin where it still waits.
struct Forget<'a, C: Codec> {
    exchange: &'a Arc<Exchange<C>>,
    id: u64,
    tell: bool,
}

impl<C: Codec> Drop for Forget<'_, C> {
    fn drop(&mut self) {
        let waited = lock(&self.exchange.pending).remove(&self.id).is_some();
        if !(waited && self.tell) {
            return;
        }
        let permit = Arc::clone(&self.exchange.notices).try_acquire_owned();
        if let (Ok(permit), Some(line)) = (permit, self.exchange.codec.encode_cancel(self.id)) {
            self.exchange.notice(permit, line);
        }
    }
}
