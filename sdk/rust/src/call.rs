//! One request of the host while a handler works on it.

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::Serialize;

use crate::{
    error::{PalisadeError, cut},
    handle::Handle,
    session::Reply,
    wire::{lock, wait_until},
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

/// One request of the host while a handler works on it; every handler gets it.
///
/// It derefs to the plugin's [`Handle`], so `call.publish(…)`, `call.log()` and all else are there. What a
/// handler asks of the host through its call ends with `PAL-CANCELLED` when the call is cancelled.
#[derive(Clone)]
pub struct Call {
    pub(crate) state: Arc<CallState>,
    pub(crate) handle: Handle,
}

impl Call {
    /// Whether the host no longer wants the answer.
    pub fn cancelled(&self) -> bool {
        self.state.is_cancelled()
    }

    /// `PAL-CANCELLED` if the host no longer wants the answer.
    ///
    /// # Errors
    /// `PAL-CANCELLED`.
    pub fn check(&self) -> Result<(), PalisadeError> {
        if self.cancelled() { Err(PalisadeError::cancelled()) } else { Ok(()) }
    }

    /// Sleeps; ends early and gives true when cancelled.
    pub fn wait(&self, at_most: Duration) -> bool {
        let asking = lock(&self.state.asking);
        wait_until(&self.state.changed, asking, at_most, |_| self.cancelled()).1
    }

    /// Tells the host how far the work has come, in units of your choice; `total` where it is known.
    /// Dropped when the host does not keep up.
    pub fn progress(&self, done: f64, total: Option<f64>, message: Option<&str>) {
        #[derive(Serialize)]
        struct Progress<'a> {
            id: &'a Id,
            done: Number,
            #[serde(skip_serializing_if = "Option::is_none")]
            total: Option<Number>,
            #[serde(skip_serializing_if = "Option::is_none")]
            message: Option<&'a str>,
        }
        let progress = Progress {
            id: &self.state.id,
            done: Number(done),
            total: total.map(Number),
            message: message.map(cut),
        };
        self.handle.session.notify("$/progress", &progress);
    }

    /// The method that the host called, as `call` or `handle_event`.
    pub fn method(&self) -> &str {
        &self.state.method
    }
}

/// A number that is written without a fraction where it has none.
#[derive(Clone, Copy)]
struct Number(f64);

impl Serialize for Number {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Whole numbers up to 2^53 are exact.
        if self.0.fract() == 0.0 && self.0.abs() <= 9_007_199_254_740_992.0 {
            serializer.serialize_i64(self.0 as i64)
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

impl Deref for Call {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("method", &self.state.method)
            .field("cancelled", &self.cancelled())
            .finish_non_exhaustive()
    }
}
