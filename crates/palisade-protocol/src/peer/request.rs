//! The future of an answer.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use palisade_model::{ErrorCode, Failure, Payload};

use super::{
    Deadline, Shared, fits, json_text, lock,
    outgoing::{self, Push},
    table::{Forgotten, Look, Outcome},
    too_long,
};
use crate::{BoxFuture, Id, message};

/// The answer to a request that was sent by [`super::Peer::request`]. Dropping it sends `$/cancel`.
#[must_use = "dropping the future cancels the request"]
pub struct RequestFuture {
    state: State,
}

enum State {
    /// Failed before it was sent.
    Failed(Failure),
    /// Sent.
    Sent { shared: Arc<Shared>, id: u64 },
    /// Waits for room in the queue.
    Blocked { shared: Arc<Shared>, id: u64, sending: BoxFuture<'static, Result<(), Failure>> },
    /// Its answer was handed out.
    Over,
}

impl fmt::Debug for RequestFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestFuture").finish_non_exhaustive()
    }
}

impl RequestFuture {
    pub(super) fn send(
        shared: &Arc<Shared>,
        method: &str,
        params: &Payload,
        deadline: Option<Deadline>,
    ) -> Self {
        let state = Self::try_send(shared, method, params, deadline.map(Deadline::instant));
        Self { state: state.unwrap_or_else(State::Failed) }
    }

    fn try_send(
        shared: &Arc<Shared>,
        method: &str,
        params: &Payload,
        deadline: Option<Instant>,
    ) -> Result<State, Failure> {
        if !message::is_method_name(method) {
            return Err(Failure::new(ErrorCode::InvalidParams, "not a method name"));
        }
        let params = json_text(params)?;
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(Failure::new(ErrorCode::Deadline, "the deadline had passed before"));
        }
        let (id, sooner) = lock(&shared.table).begin(deadline)?;
        let frame = message::encode_request(&Id::Number(id), method, params);
        if !fits(&frame) {
            // Nothing was sent, so nothing is to be cancelled.
            let mut table = lock(&shared.table);
            table.set_sent(false, id);
            table.forget(id);
            return Err(too_long());
        }
        let push = shared.outgoing.push(frame, false, || true);
        if sooner || matches!(push, Push::Queued) {
            shared.doorbell.ring();
        }
        match push {
            Push::Written | Push::Queued | Push::Withdrawn => {
                Ok(State::Sent { shared: Arc::clone(shared), id })
            }
            Push::Gone => {
                let mut table = lock(&shared.table);
                table.set_sent(false, id);
                table.forget(id);
                drop(table);
                Err(shared.gone())
            }
            Push::Full(frame) => {
                lock(&shared.table).set_sent(false, id);
                let latest = Deadline::after(shared.config.write_timeout).instant();
                let until = deadline.map_or(latest, |deadline| deadline.min(latest));
                let sending = Box::pin(send_when_room(Arc::clone(shared), id, frame, until));
                Ok(State::Blocked { shared: Arc::clone(shared), id, sending })
            }
        }
    }
}

async fn send_when_room(
    shared: Arc<Shared>,
    id: u64,
    frame: Vec<u8>,
    until: Instant,
) -> Result<(), Failure> {
    let wanted = || lock(&shared.table).set_sent(true, id);
    match outgoing::send(&shared, frame, until, wanted).await {
        // Withdrawn: its deadline passed or the connection closed; the table has the outcome.
        Push::Written | Push::Queued | Push::Withdrawn => Ok(()),
        Push::Full(_) => Err(shared.stalled()),
        Push::Gone => Err(shared.gone()),
    }
}

impl Future for RequestFuture {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        if let State::Blocked { shared, id, sending } = &mut self.state {
            match sending.as_mut().poll(cx) {
                // The table is looked at below: a deadline or a close may have come meanwhile.
                Poll::Pending => {}
                Poll::Ready(Ok(())) => {
                    self.state = State::Sent { shared: Arc::clone(shared), id: *id };
                }
                Poll::Ready(Err(failure)) => {
                    // The slot may hold a better reason; it is freed either way.
                    let mut table = lock(&shared.table);
                    table.set_sent(false, *id);
                    table.forget(*id);
                    drop(table);
                    self.state = State::Over;
                    return Poll::Ready(Err(failure));
                }
            }
        }
        let look = match &self.state {
            State::Sent { shared, id } | State::Blocked { shared, id, .. } => {
                lock(&shared.table).look(*id, cx.waker())
            }
            State::Failed(failure) => Look::Done(Err(failure.clone())),
            // Polled after it was ready.
            State::Over => Look::Pending,
        };
        match look {
            Look::Pending => Poll::Pending,
            Look::Done(outcome) => {
                self.state = State::Over;
                Poll::Ready(outcome)
            }
        }
    }
}

impl Drop for RequestFuture {
    fn drop(&mut self) {
        if let State::Sent { shared, id } | State::Blocked { shared, id, .. } = &self.state {
            let forgotten = lock(&shared.table).forget(*id);
            if forgotten == Forgotten::Cancel {
                shared.cancel(*id);
            }
        }
    }
}
