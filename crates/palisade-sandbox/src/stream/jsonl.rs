//! The `jsonl` dialect over a pair of pipes, as a lane.
//!
//! The dialect knows no cancellation: a call that is given up is forgotten, and its late answer is noise.

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use palisade_dialect::{
    DialectError,
    jsonl::{self, Handshake, Id, Jsonl, Line, Lines, Step},
};
use palisade_model::{ErrorCode, Failure, Payload};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    sync::{Semaphore, oneshot},
    time::timeout_at,
};

use super::{End, StreamLane, deadline_passed};
use crate::{BoxFuture, HostCalls, HostRequest, Invocation, Lane, Trace};

/// Calls that may wait for an answer at the same time.
const IN_FLIGHT: usize = 256;
/// Requests of the plugin that are served at the same time; more are answered with an error.
const REQUESTS: usize = 64;
/// What a plugin gets as protocol version where its dialect has none.
const INITIALIZED: &[u8] = b"{\"protocol\":1,\"features\":[]}";

type Answer = Result<Payload, Failure>;

struct Shared {
    pending: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    /// One line at a time. A half-written line (its writer was dropped) ends the conversation.
    writer: tokio::sync::Mutex<Option<pipe::Sender>>,
    next: AtomicU64,
    handshake: Mutex<Handshake>,
    host: Arc<dyn HostCalls>,
    requests: Arc<Semaphore>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The guarded values are whole after every step, whatever panicked elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ended() -> Failure {
    Failure::new(ErrorCode::Crashed, "the plugin closed its output")
}

impl Shared {
    async fn write(&self, line: &[u8]) -> Result<(), Failure> {
        let mut writer = self.writer.lock().await;
        // Taken out while writing: if this future is dropped in the middle of a line, nobody writes after
        // the torn one.
        let Some(mut pipe) = writer.take() else { return Err(ended()) };
        pipe.write_all(line).await.map_err(|_| ended())?;
        *writer = Some(pipe);
        Ok(())
    }

    async fn request(&self, method: &str, params: &Payload, deadline: Instant) -> Answer {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let line = jsonl::encode_request(&Id::Number(id), method, params)?;
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
        let forget = Forget { shared: self, id };
        let exchange = async {
            self.write(&line).await?;
            receiver.await.unwrap_or_else(|_| Err(ended()))
        };
        let answer = timeout_at(deadline.into(), exchange)
            .await
            .unwrap_or_else(|_| Err(deadline_passed(method)));
        drop(forget);
        answer
    }

    async fn initialize(&self, params: &Payload, deadline: Instant) -> Answer {
        loop {
            let method = lock(&self.handshake).method();
            let answer = self.request(method, params, deadline).await;
            let step = lock(&self.handshake).answered(&answer);
            match step {
                Step::Ready => return Ok(Payload::from_json_text(INITIALIZED)),
                Step::Again => {}
                Step::Failed(failure) => return Err(failure),
            }
        }
    }

    /// Serves a request of the plugin and writes the answer.
    fn serve(self: &Arc<Self>, id: Id, method: String, params: &[u8]) {
        let served = match Arc::clone(&self.requests).try_acquire_owned() {
            Ok(permit) => {
                let request = HostRequest {
                    method,
                    payload: Payload::from_json_text(params.to_vec()),
                    trace: Trace::default(),
                };
                Some((permit, self.host.request(request)))
            }
            Err(_) => None,
        };
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let outcome = match served {
                Some((_permit, future)) => future.await,
                None => Err(Failure::new(
                    ErrorCode::LimitExceeded,
                    format!("{REQUESTS} requests are being served already"),
                )),
            };
            let line = jsonl::encode_answer(&id, outcome.as_ref())
                .or_else(|e| jsonl::encode_answer(&id, Err(&Failure::from(e))));
            if let Ok(line) = line {
                // A plugin that does not read is the plugin's loss; the pipe's end is seen by the reader.
                let _ = shared.write(&line).await;
            }
        });
    }

    fn settle(&self, id: &Id, outcome: Answer) -> bool {
        let Id::Number(number) = id else { return false };
        let sender = lock(&self.pending).remove(number);
        // A caller that gave up at this very moment is no error.
        sender.map(|s| s.send(outcome)).is_some()
    }
}

/// Takes a call's entry out, however its future ends.
struct Forget<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(&self.shared.pending).remove(&self.id);
    }
}

struct JsonlLane(Arc<Shared>);

impl Lane for JsonlLane {
    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            let Invocation { method, payload, deadline, .. } = invocation;
            if method == jsonl::INITIALIZE {
                self.0.initialize(&payload, deadline).await
            } else {
                self.0.request(method, &payload, deadline).await
            }
        })
    }
}

async fn read(shared: Arc<Shared>, mut pipe: pipe::Receiver, config: Jsonl) -> End {
    let end = read_lines(&shared, &mut pipe, &config).await;
    *shared.writer.lock().await = None;
    lock(&shared.pending).clear();
    end
}

async fn read_lines(shared: &Arc<Shared>, pipe: &mut pipe::Receiver, config: &Jsonl) -> End {
    let breach = |e: DialectError| End::Breach(e.to_string());
    let mut lines = Lines::default();
    let mut noise = config.noise();
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
            let expected = match jsonl::decode_line(&line) {
                Line::Answer { id, outcome } => shared
                    .settle(&id, outcome.map(|raw| Payload::from_json_text(line.slice_ref(raw)))),
                Line::Request { id, method, params } => {
                    shared.serve(id, method, params);
                    continue;
                }
                Line::Noise => false,
            };
            if expected {
                noise.reset();
            } else if let Err(e) = noise.note(line.len()) {
                return breach(e);
            }
        }
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
    for end in [&to_plugin, &from_plugin] {
        rustix::io::ioctl_fionbio(end, true)?;
    }
    let shared = Arc::new(Shared {
        pending: Mutex::default(),
        writer: tokio::sync::Mutex::new(Some(pipe::Sender::from_owned_fd_unchecked(to_plugin)?)),
        next: AtomicU64::new(1),
        handshake: Mutex::new(config.handshake()),
        host,
        requests: Arc::new(Semaphore::new(REQUESTS)),
    });
    let reader = pipe::Receiver::from_owned_fd_unchecked(from_plugin)?;
    let end = Box::pin(read(Arc::clone(&shared), reader, config));
    Ok(StreamLane { lane: Arc::new(JsonlLane(shared)), end })
}
