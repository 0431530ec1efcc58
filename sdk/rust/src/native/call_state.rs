//! What a session knows about one request of the host.

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::Serialize;

use crate::{
    error::PalisadeError,
    json::lock,
    native::{session::Reply, wire::wait_until},
};

/// The id of a request, as the host chose it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub(crate) enum Id {
    Number(u64),
    Text(String),
}

/// What the session knows about a request at work.
#[derive(Debug)]
pub(crate) struct CallState {
    pub(crate) id: Id,
    pub(crate) method: String,
    is_cancelled: AtomicBool,
    /// Requests to the host whose answers this call waits for.
    asking: Mutex<Vec<Arc<Reply>>>,
    changed: Condvar,
}

impl CallState {
    pub(crate) fn new(id: Id, method: &str) -> Arc<Self> {
        Arc::new(Self {
            id,
            method: method.to_owned(),
            is_cancelled: AtomicBool::new(false),
            asking: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    pub(crate) fn method(&self) -> &str {
        &self.method
    }

    /// Sleeps; ends early and gives true when cancelled.
    pub(crate) fn wait(&self, at_most: Duration) -> bool {
        let asking = lock(&self.asking);
        wait_until(&self.changed, asking, at_most, |_| self.is_cancelled()).1
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Acquire)
    }

    /// Wakes whoever waits: `Call::wait`, and requests to the host.
    pub(crate) fn cancel(&self) {
        let asking = {
            let mut asking = lock(&self.asking);
            self.is_cancelled.store(true, Ordering::Release);
            std::mem::take(&mut *asking)
        };
        self.changed.notify_all();
        for reply in asking {
            reply.settle(Err(PalisadeError::cancelled()));
        }
    }

    /// Has `reply` fail when this call is cancelled. Gives false if it is already.
    pub(crate) fn asks(&self, reply: &Arc<Reply>) -> bool {
        let mut asking = lock(&self.asking);
        if self.is_cancelled() {
            return false;
        }
        asking.push(Arc::clone(reply));
        true
    }

    pub(crate) fn has_its_answer(&self, reply: &Arc<Reply>) {
        lock(&self.asking).retain(|each| !Arc::ptr_eq(each, reply));
    }
}
