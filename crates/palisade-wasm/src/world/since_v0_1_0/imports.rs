//! Host functions of `palisade:plugin` but storage and HTTP. Each that takes a right is a request to the
//! host, which decides, limits and records it; what is done here is writing and reading JSON.

use std::{
    sync::LazyLock,
    time::{Duration, Instant, SystemTime},
};

use palisade_model::{ErrorCode, Failure, Payload};
use palisade_protocol::methods;
use serde::Deserialize;

use super::{
    super::json::{self, Object},
    bindings::palisade::plugin::{
        clock, event_bus, host_call, log, plugin_call, random, secrets, types,
    },
};
use crate::{state::State, wasi};

/// Most fields of a log line; more are left out.
const MAX_FIELDS: usize = 32;
/// Longest message and longest field of a log line in bytes; longer ones are cut.
const MAX_MESSAGE: usize = 8 << 10;
const MAX_FIELD: usize = 1 << 10;

/// What a host function gives: the outer error ends the guest.
pub(super) type Given<T> = wasmtime::Result<Result<T, types::Failure>>;

impl State {
    /// Asks the host and reads the answer.
    pub(super) fn ask<T, R>(
        &self,
        method: &'static str,
        params: Result<Object, Failure>,
        read: R,
    ) -> impl Future<Output = Given<T>> + Send + use<T, R>
    where
        R: FnOnce(Payload) -> Result<T, Failure> + Send,
    {
        let answer = params.map(|params| self.request(method, params.payload()));
        async {
            let answer = match answer {
                Ok(answer) => answer.await?,
                Err(failure) => Err(failure),
            };
            Ok(answer.and_then(read).map_err(types::Failure::from))
        }
    }
}

/// `text` cut to at most so many bytes.
fn cut(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

impl log::Host for State {
    async fn write(
        &mut self,
        level: log::Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<bool> {
        #[derive(Deserialize)]
        struct Kept {
            kept: bool,
        }
        let level = match level {
            log::Level::Trace => "trace",
            log::Level::Debug => "debug",
            log::Level::Info => "info",
            log::Level::Warn => "warn",
            log::Level::Error => "error",
        };
        let params = Object::new().text("level", level).text("message", cut(&message, MAX_MESSAGE));
        let params = if fields.is_empty() {
            params
        } else {
            let mut text = vec![b'{'];
            for (name, value) in fields.iter().take(MAX_FIELDS) {
                if text.len() > 1 {
                    text.push(b',');
                }
                json::write_text(&mut text, cut(name, MAX_FIELD));
                text.push(b':');
                // A log line is not refused for a field that is no JSON: it is shown as the text that it is.
                if value.len() <= MAX_FIELD && json::check(value.as_bytes(), 16).is_ok() {
                    text.extend_from_slice(value.as_bytes());
                } else {
                    json::write_text(&mut text, cut(value, MAX_FIELD));
                }
            }
            text.push(b'}');
            // Names may stand twice; whoever reads an object takes one of them.
            params.checked("fields", &text)
        };
        let answer = self.request(methods::LOG, params.payload()).await?;
        let kept = answer.ok().and_then(|answer| answer.parse::<Kept>().ok());
        Ok(kept.is_some_and(|kept| kept.kept))
    }
}

impl event_bus::Host for State {
    async fn publish(&mut self, subject: String, data: String) -> Given<event_bus::Published> {
        #[derive(Deserialize)]
        struct Published {
            queued: u32,
            dropped: u32,
            blocked: u32,
        }
        let params = Object::new().text("subject", &subject).json("data", &data);
        self.ask(methods::EVENT_PUBLISH, params, |answer| {
            let Published { queued, dropped, blocked } =
                json::read(methods::EVENT_PUBLISH, &answer)?;
            Ok(event_bus::Published { queued, dropped, blocked })
        })
        .await
    }
}

impl host_call::Host for State {
    async fn call(&mut self, method: String, params: String) -> Given<String> {
        let params = Object::new().text("method", &method).json("params", &params);
        self.ask(methods::HOST_CALL, params, |answer| json::text(&answer)).await
    }

    async fn data_request(&mut self, name: String, params: String) -> Given<String> {
        let params = Object::new().text("name", &name).json("params", &params);
        self.ask("data_request", params, |answer| json::text(&answer)).await
    }
}

impl plugin_call::Host for State {
    async fn call(&mut self, plugin: String, tool: String, args: String) -> Given<String> {
        let params = Object::new().text("plugin", &plugin).text("tool", &tool).json("args", &args);
        self.ask("plugin.call", params, |answer| json::text(&answer)).await
    }
}

impl secrets::Host for State {
    async fn get(&mut self, name: String) -> Given<String> {
        #[derive(Deserialize)]
        struct Secret {
            value: String,
        }
        let params = Object::new().text("name", &name);
        self.ask("secret.get", Ok(params), |answer| {
            json::read::<Secret>("secret.get", &answer).map(|secret| secret.value)
        })
        .await
    }
}

/// Where the monotonic clock of all guests begins.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

impl clock::Host for State {
    async fn now_ms(&mut self) -> wasmtime::Result<u64> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    async fn monotonic_ns(&mut self) -> wasmtime::Result<u64> {
        Ok(u64::try_from(BEGIN.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    async fn sleep(&mut self, ms: u64) -> wasmtime::Result<()> {
        // The call's deadline comes first in any case.
        let time = Duration::from_millis(ms.min(24 * 3600 * 1000));
        self.bounded(tokio::time::sleep(time)).await
    }
}

impl random::Host for State {
    async fn bytes(&mut self, length: u32) -> wasmtime::Result<Vec<u8>> {
        wasi::within(length.into())?;
        let mut bytes = vec![0; length as usize];
        getrandom::fill(&mut bytes).map_err(|e| wasmtime::format_err!("random numbers: {e}"))?;
        Ok(bytes)
    }

    async fn number(&mut self) -> wasmtime::Result<u64> {
        getrandom::u64().map_err(|e| wasmtime::format_err!("random numbers: {e}"))
    }
}

/// What is asked for beyond a bound.
pub(super) fn too_many(what: &str, limit: usize) -> Failure {
    Failure::new(ErrorCode::InvalidParams, format!("{what}: at most {limit}"))
}
