//! A plugin as a WebAssembly component: Palisade calls what it exports, and it calls what it imports.
//!
//! A component has no threads and one call at a time, so handlers run where they are called. Each service
//! has an import of its own, and what a plugin does not call falls away when it is linked: the imports that
//! are left are the capabilities that it can use.

pub mod bindings;
mod exports;
pub(crate) mod services;

use std::{
    process::ExitCode,
    sync::{Arc, Mutex},
    time::Duration,
};

use self::bindings::palisade::plugin::{clock, types};
use crate::{
    error::{PalisadeError, cut},
    handle::About,
    json::lock,
    plugin::Plugin,
};

pub use exports::{Component, Make};

impl Plugin {
    /// A component has nothing to run: Palisade calls what [`component!`](crate::component) exports. This
    /// fails, and is here so that one `main` serves both.
    #[must_use]
    pub fn run(self) -> ExitCode {
        ExitCode::FAILURE
    }
}

/// What the host told.
#[derive(Debug, Default)]
pub(crate) struct Session {
    about: Mutex<About>,
}

impl Session {
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
}

/// The call under way. Nobody can tell it anything while it runs.
#[derive(Debug)]
pub(crate) struct CallState {
    method: &'static str,
}

impl CallState {
    fn new(method: &'static str) -> Arc<Self> {
        Arc::new(Self { method })
    }

    pub(crate) fn method(&self) -> &str {
        self.method
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        false
    }

    pub(crate) fn wait(&self, at_most: Duration) -> bool {
        clock::sleep(services::millis(at_most));
        false
    }
}

/// An error of the host.
fn read_failure(failure: types::Failure) -> PalisadeError {
    PalisadeError {
        code: failure.code,
        message: failure.message,
        rule: failure.rule,
        hint: failure.hint,
        retry_after: failure.retry_after_ms.map(Duration::from_millis),
    }
}

/// An error of the plugin.
fn failure(error: PalisadeError) -> types::Failure {
    let text =
        |text: String| if text.len() > cut(&text).len() { cut(&text).to_owned() } else { text };
    types::Failure {
        code: error.code,
        message: text(error.message),
        rule: error.rule.map(text),
        hint: error.hint.map(text),
        retry_after_ms: error.retry_after.map(services::millis),
    }
}
