//! The other side's requests in flight: one task each, one answer each.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, atomic::Ordering},
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
}

impl Incoming {
    fn remove(&self, id: &Id) -> Option<Option<AbortHandle>> {
        lock(&self.tasks).remove(id)
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
        let limit = shared.config.incoming_requests.max(1);
        if tasks.len() >= limit {
            shared.counters.refused_requests.fetch_add(1, Ordering::Relaxed);
            Failure::new(
                ErrorCode::LimitExceeded,
                format!("{limit} requests are in flight already"),
            )
            .rule("protocol:requests-in-flight")
        } else if request.method.starts_with(methods::STREAM_PREFIX) {
            Failure::new(ErrorCode::NotFound, "streams are reserved and not in this version")
        } else if request.method.starts_with("$/") {
            Failure::new(ErrorCode::NotFound, "there is no such method")
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
    let task = Task { shared: Arc::clone(shared), id: id.clone() };
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

/// A request at work. Dropped without an answer (its handler panicked) it answers with that.
struct Task {
    shared: Arc<Shared>,
    id: Id,
}

impl Task {
    async fn run(self, work: crate::BoxFuture<'static, Result<Payload, Failure>>) {
        let frame = encode(&self.id, work.await);
        let after = self.shared.config.write_timeout;
        let until = Deadline::after(after).instant();
        let mine = || self.shared.incoming.remove(&self.id).is_some();
        if let Push::Full(_) = outgoing::send(&self.shared, frame, until, mine).await {
            self.shared.close(CloseReason::Breach(FrameError::Stalled { after }));
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
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
