//! One request of the host while a handler works on it.

use std::{fmt, ops::Deref, sync::Arc, time::Duration};

use crate::{
    error::{PalisadeError, cut},
    handle::Handle,
    transport::{CallState, services},
};

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

    /// Sleeps; ends early and gives true when cancelled. In a component only the sleep is there: a call that
    /// nobody wants any more ends by itself.
    pub fn wait(&self, at_most: Duration) -> bool {
        self.state.wait(at_most)
    }

    /// Tells the host how far the work has come, in units of your choice; `total` where it is known.
    /// Dropped when the host does not keep up, and in a component.
    pub fn progress(&self, done: f64, total: Option<f64>, message: Option<&str>) {
        services::progress(self, done, total, message.map(cut));
    }

    /// The method that the host called, as `call` or `handle_event`.
    pub fn method(&self) -> &str {
        self.state.method()
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
            .field("method", &self.method())
            .field("cancelled", &self.cancelled())
            .finish_non_exhaustive()
    }
}
