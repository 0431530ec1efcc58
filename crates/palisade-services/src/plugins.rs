//! `plugin.call`: a plugin calls a tool of another one.
//!
//! The right is `plugin.call:ID`. The call itself goes the way of every call, as the asker's: it takes
//! the tool's right and the rate of the plugin that is called, and is recorded under both names. What it
//! leads to is one hop further, so a circle ends.

use std::sync::Arc;

use palisade_audit::BoxFuture;
use palisade_broker::{Context, Need, Service};
use palisade_model::{Failure, Kind, Payload};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::bare::Bare;

/// What a plugin asks another one for.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CallParams {
    /// The other plugin's id.
    pub plugin: String,
    /// The tool's name.
    pub tool: String,
    /// Its arguments, an object. Default: none.
    #[serde(default)]
    #[schemars(with = "serde_json::Value")]
    pub args: Box<RawValue>,
}

/// Who knows the plugins.
pub trait Plugins: Send + Sync {
    /// Calls a tool as `cx.caller`, with a deadline of the called plugin's own. The right to call that
    /// plugin was decided before.
    ///
    /// # Errors
    /// What [`palisade_model::ErrorCode`] has for calls: not found, not running, refused by the gate, the
    /// plugin's own errors.
    fn call(&self, cx: Context, params: CallParams)
    -> BoxFuture<'static, Result<Payload, Failure>>;
}

/// The service `plugin.call` on `plugins`.
#[must_use]
pub fn call(plugins: Arc<dyn Plugins>) -> Service<CallParams> {
    Service::method("plugin.call", move |cx: Context, params: CallParams| {
        let answer = plugins.call(cx, params);
        async move { Bare::new(&answer.await?) }
    })
    .describe(
        "Calls a tool of another plugin, which has to run already, and gives its result. The call takes \
         a token of the other plugin's rate of calls, and is one hop further than what it follows from; \
         after 16 hops it is refused.",
    )
    .capability("plugin.call:ID", |params: &CallParams| {
        Some(Need::new(Kind::PluginCall, params.plugin.as_str()))
    })
}
