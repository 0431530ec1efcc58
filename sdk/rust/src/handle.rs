//! What a plugin can ask of the host, from any thread.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    args,
    error::PalisadeError,
    http::Http,
    json::to_json,
    storage::Storage,
    transport::{CallState, Session, services},
};

/// How long an answer of the host is waited for unless [`Handle::timeout`] says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Characters of a line of log that the host keeps.
const LOG_CHARS: usize = 8192;
/// Bytes of one field's value there.
const FIELD_BYTES: usize = 1024;

/// What `initialize` and `configure` told.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub(crate) id: String,
    pub(crate) rights: Vec<String>,
    /// JSON.
    pub(crate) config: Arc<str>,
}

impl Default for About {
    fn default() -> Self {
        Self { id: String::new(), rights: Vec::new(), config: "{}".into() }
    }
}

/// The way to the host. Cheap to clone, and usable from any thread; a [`Call`](crate::Call) derefs to it.
#[derive(Clone)]
pub struct Handle {
    pub(crate) session: Arc<Session>,
    #[cfg_attr(target_family = "wasm", allow(dead_code))] // nothing can be cancelled there
    pub(crate) call: Option<Arc<CallState>>,
    pub(crate) timeout: Duration,
}

impl Handle {
    pub(crate) fn new(session: Arc<Session>, call: Option<Arc<CallState>>) -> Self {
        Self { session, call, timeout: TIMEOUT }
    }

    /// A handle whose requests wait so long for their answer instead of 30 seconds, and are cancelled then
    /// with `PAL-DEADLINE`. `Duration::MAX` waits without end. In a component the host's own limits count alone.
    #[must_use]
    pub fn timeout(&self, at_most: Duration) -> Self {
        Self { timeout: at_most, ..self.clone() }
    }

    /// A handle that is not bound to the call it came from: for work that goes on when the call has ended.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self { call: None, ..self.clone() }
    }

    /// The plugin's id from the manifest.
    pub fn id(&self) -> String {
        self.session.about().id
    }

    /// The capabilities that the plugin has, as the host told them at the start.
    pub fn rights(&self) -> Vec<String> {
        self.session.about().rights
    }

    /// The configuration, as any type that it fits.
    ///
    /// # Errors
    /// `PAL-PARAMS` where it does not fit.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, PalisadeError> {
        args::read(&self.session.about().config, "config")
    }

    /// Publishes an event. Needs the capability `event.publish` for the subject.
    ///
    /// # Errors
    /// What the host refuses with, `PAL-DEADLINE`, `PAL-CANCELLED`, `PAL-PARAMS` where the data cannot be sent.
    pub fn publish<T: Serialize + ?Sized>(
        &self,
        subject: &str,
        data: &T,
    ) -> Result<Published, PalisadeError> {
        services::publish(self, subject, to_json(data)?)
    }

    /// Lines for the plugin's log.
    pub fn log(&self) -> Log<'_> {
        Log { handle: self, fields: Map::new() }
    }

    /// The services of the application that runs the plugin.
    pub fn host(&self) -> Host<'_> {
        Host(self)
    }

    /// What the plugin keeps.
    pub fn storage(&self) -> Storage<'_> {
        Storage::new(self)
    }

    /// Requests to the web.
    pub fn http(&self) -> Http<'_> {
        Http::new(self)
    }

    /// The value of a secret that the operator has set. Needs the capability `secret:NAME`.
    ///
    /// # Errors
    /// `PAL-NOT-FOUND` where it is not set, and what the host refuses with.
    pub fn secret(&self, name: &str) -> Result<String, PalisadeError> {
        services::secret(self, name)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// In how many subscriptions an event is queued, replaced another one, or was refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Published {
    /// Queued.
    pub queued: u64,
    /// Queued in place of an older one, which was dropped.
    pub dropped: u64,
    /// Refused, because the queue was full.
    pub blocked: u64,
}

/// The services of the application that runs the plugin.
#[derive(Debug)]
pub struct Host<'a>(&'a Handle);

impl Host<'_> {
    /// Calls a service. Needs the capability `host.call:METHOD`.
    ///
    /// ```no_run
    /// # fn f(call: &palisade_plugin::Call) -> palisade_plugin::Result<()> {
    /// #[derive(serde::Deserialize)]
    /// struct Profile { name: String }
    ///
    /// let profile: Profile = call.host().call("get_user_profile", &("ada",))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// What the service or the host refuses with, `PAL-DEADLINE`, `PAL-CANCELLED`; `PAL-INTERNAL` where the
    /// result is no `T`.
    pub fn call<T: DeserializeOwned, P: Serialize + ?Sized>(
        &self,
        method: &str,
        params: &P,
    ) -> Result<T, PalisadeError> {
        let result = services::host_call(self.0, method, to_json(params)?)?;
        args::read(&result, "result").map_err(|e| {
            let message = format!("the answer to {method}: {}", e.message);
            PalisadeError::new("PAL-INTERNAL", message)
        })
    }
}

/// One line for the plugin's log. Never waits: a line that the host has no room for is lost.
#[derive(Debug)]
#[must_use = "nothing is written before the line's level and text are given"]
pub struct Log<'a> {
    handle: &'a Handle,
    fields: Map<String, Value>,
}

impl Log<'_> {
    /// With a named value. One that is not JSON, or longer than 1 KiB, is kept as text.
    pub fn field(mut self, name: &str, value: impl Serialize) -> Self {
        let value = match serde_json::to_value(&value) {
            Ok(value) => value,
            Err(error) => Value::String(error.to_string()),
        };
        let text = value.to_string();
        let value = if text.len() <= FIELD_BYTES {
            value
        } else {
            let mut end = FIELD_BYTES;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            Value::String(text.get(..end).unwrap_or_default().to_owned())
        };
        self.fields.insert(name.to_owned(), value);
        self
    }

    /// Finer than anybody wants to know.
    pub fn trace(self, message: impl fmt::Display) {
        self.write("trace", &message);
    }

    /// For whoever looks for a mistake.
    pub fn debug(self, message: impl fmt::Display) {
        self.write("debug", &message);
    }

    /// What happens.
    pub fn info(self, message: impl fmt::Display) {
        self.write("info", &message);
    }

    /// What should not be, and goes on.
    pub fn warn(self, message: impl fmt::Display) {
        self.write("warn", &message);
    }

    /// What failed.
    pub fn error(self, message: impl fmt::Display) {
        self.write("error", &message);
    }

    fn write(self, level: &'static str, message: &dyn fmt::Display) {
        let message = message.to_string().chars().take(LOG_CHARS).collect();
        services::log(self.handle, level, message, self.fields);
    }
}
