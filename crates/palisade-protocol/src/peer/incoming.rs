//! The other side's requests in flight: one task each, one answer each.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use palisade_model::{ErrorCode, Failure, Payload};
use tokio::task::AbortHandle;

use super::{
    Deadline, Request, Shared, fits, json_text, lock,
    outgoing::{self, Push},
    too_long,
};
use crate::{CloseReason, FrameError, Id, WireError, message, methods};

/// Requests that were not answered yet. Whoever removes an id from here answers it.
#[derive(Default)]
pub(super) struct Incoming {
    /// `None` for the moment between an id's arrival and the start of its task.
    tasks: Mutex<HashMap<Id, Option<AbortHandle>>>,
    /// Bytes of their parameters and of answers that wait for room. A few thousand requests of 4 MiB
    /// each would be more memory than any host has.
    held_bytes: AtomicUsize,
}

impl Incoming {
    fn remove(&self, id: &Id) -> Option<Option<AbortHandle>> {
        lock(&self.tasks).remove(id)
    }

    /// Counts `bytes` as held, unless that would be more than `limit`. One request or answer of any
    /// length is held where nothing else is.
    fn hold(&self, bytes: usize, limit: usize) -> bool {
        self.held_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                let sum = held + bytes;
                (held == 0 || sum <= limit).then_some(sum)
            })
            .is_ok()
    }

    fn release(&self, bytes: usize) {
        self.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn abort_all(&self) {
        let tasks = std::mem::take(&mut *lock(&self.tasks));
        for task in tasks.values().flatten() {
            task.abort();
        }
    }
}

/// Starts a request's task, or refuses it.
pub(super) fn accept(shared: &Arc<Shared>, request: Request) -> Result<(), FrameError> {
    let id = request.id.clone();
    let refusal = {
        let mut tasks = lock(&shared.incoming.tasks);
        if tasks.contains_key(&id) {
            return Err(FrameError::DuplicateId { id: id.to_string() });
        }
        let config = &shared.config;
        let limit = config.incoming_requests.max(1);
        if tasks.len() >= limit {
            shared.counters.refused_requests.fetch_add(1, Ordering::Relaxed);
            limit_exceeded(format!("{limit} requests are in flight already"))
        } else if request.method.starts_with(methods::STREAM_PREFIX) {
            Failure::new(ErrorCode::NotFound, "streams are reserved and not in this version")
        } else if request.method.starts_with("$/") {
            Failure::new(ErrorCode::NotFound, "there is no such method")
        } else if !shared.incoming.hold(request.params.len(), config.incoming_bytes) {
            shared.counters.refused_requests.fetch_add(1, Ordering::Relaxed);
            limit_exceeded(format!("requests in flight hold {} bytes", config.incoming_bytes))
        } else {
            tasks.insert(id.clone(), None);
            drop(tasks);
            start(shared, id, request);
            return Ok(());
        }
    };
    refuse(shared, &id, &refusal)
}

/// Starts a request's task. No lock is held: the handler is foreign code, and a runtime that shuts
/// down drops the task, which removes its entry, before `spawn` returns.
fn start(shared: &Arc<Shared>, id: Id, request: Request) {
    let held = request.params.len();
    let task = Task { shared: Arc::clone(shared), id: id.clone(), held };
    let work = shared.handler.request(request);
    let handle = shared.runtime.spawn(task.run(work)).abort_handle();
    match lock(&shared.incoming.tasks).get_mut(&id) {
        Some(entry) => *entry = Some(handle),
        // Answered already, or the connection was closed meanwhile.
        None => handle.abort(),
    }
}

/// Cancels a request; it is answered with that. One that is over already is no matter.
pub(super) fn cancel(shared: &Shared, id: &Id) -> Result<(), FrameError> {
    let Some(task) = shared.incoming.remove(id) else { return Ok(()) };
    if let Some(task) = task {
        task.abort();
    }
    refuse(shared, id, &Failure::new(ErrorCode::Cancelled, "the request was cancelled"))
}

fn refuse(shared: &Shared, id: &Id, failure: &Failure) -> Result<(), FrameError> {
    let frame = message::encode_response(id, Err(&WireError::from(failure)));
    if shared.push_urgent(frame) { Ok(()) } else { Err(FrameError::Flooded) }
}

fn limit_exceeded(message: String) -> Failure {
    Failure::new(ErrorCode::LimitExceeded, message).rule("protocol:requests-in-flight")
}

/// A request at work. Dropped without an answer (its handler panicked) it answers with that.
struct Task {
    shared: Arc<Shared>,
    id: Id,
    /// Bytes counted as held for it.
    held: usize,
}

impl Task {
    async fn run(mut self, work: crate::BoxFuture<'static, Result<Payload, Failure>>) {
        let frame = encode(&self.id, work.await);
        let shared = Arc::clone(&self.shared);
        let id = self.id.clone();
        let mine = || shared.incoming.remove(&id).is_some();
        let frame = match shared.outgoing.push(frame, false, mine) {
            Push::Full(frame) => self.keep(frame),
            Push::Queued => return shared.doorbell.ring(),
            Push::Written | Push::Gone | Push::Withdrawn => return,
        };
        let after = shared.config.write_timeout;
        let until = Deadline::after(after).instant();
        if let Push::Full(_) = outgoing::send(&shared, frame, until, mine).await {
            shared.close(CloseReason::Breach(FrameError::Stalled { after }));
        }
    }

    /// An answer that has to wait, or a short one in its place where too much waits already.
    fn keep(&mut self, frame: Vec<u8>) -> Vec<u8> {
        if self.shared.incoming.hold(frame.len(), self.shared.config.incoming_bytes) {
            self.held += frame.len();
            return frame;
        }
        let failure = limit_exceeded("too many answers wait to be read".to_owned());
        message::encode_response(&self.id, Err(&WireError::from(&failure)))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.shared.incoming.release(self.held);
        if self.shared.incoming.remove(&self.id).is_some() {
            let failure = Failure::new(ErrorCode::Internal, "the request ended without an answer");
            if let Err(breach) = refuse(&self.shared, &self.id, &failure) {
                self.shared.close(breach.into());
            }
        }
    }
}

fn encode(id: &Id, outcome: Result<Payload, Failure>) -> Vec<u8> {
    let frame = outcome.and_then(|payload| {
        let frame = message::encode_response(id, Ok(json_text(&payload)?));
        if fits(&frame) { Ok(frame) } else { Err(too_long()) }
    });
    frame.unwrap_or_else(|failure| {
        let frame = message::encode_response(id, Err(&WireError::from(&failure)));
        // Only a failure with texts of megabytes gets here with more; its code says enough.
        if fits(&frame) {
            return frame;
        }
        message::encode_response(id, Err(&WireError::from(&Failure::new(failure.code, "too long"))))
    })
}
