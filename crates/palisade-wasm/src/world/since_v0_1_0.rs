//! Version 0.1.0 of `palisade:plugin` (`wit/0.1.0`): its types, the host functions that it imports and
//! the instances that export it.

mod guest;
mod http;
mod imports;
mod storage;

pub(crate) use guest::{PluginCode, Running};
use palisade_model::{ErrorCode, Failure};
use palisade_protocol::{Side, WireError, WireErrorData};
use wasmtime::component::{HasSelf, Linker};

use crate::state::State;

/// What wasmtime makes of the WIT files.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used, clippy::expect_used)]
#[allow(clippy::indexing_slicing, clippy::panic, unsafe_code)]
pub(crate) mod bindings {
    wasmtime::component::bindgen!({
        path: "wit/0.1.0",
        world: "full",
        imports: { default: async | trappable },
        exports: { default: async },
    });
}

use bindings::palisade::plugin::{
    clock, event_bus, host_call, http as http_types, log, plugin_call, random, secrets,
    storage as storage_types, types,
};

/// The package's name.
const PACKAGE: &str = "palisade:plugin/";

/// Links one interface of the package, as `palisade:plugin/storage@0.1.0`. False: it has none of this name.
pub(crate) fn link(linker: &mut Linker<State>, import: &str) -> wasmtime::Result<bool> {
    let Some(name) = import.strip_prefix(PACKAGE) else { return Ok(false) };
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    fn state(state: &mut State) -> &mut State {
        state
    }
    type Own = HasSelf<State>;
    match name {
        "types" => types::add_to_linker::<_, Own>(linker, state)?,
        "log" => log::add_to_linker::<_, Own>(linker, state)?,
        "storage" => storage_types::add_to_linker::<_, Own>(linker, state)?,
        "event-bus" => event_bus::add_to_linker::<_, Own>(linker, state)?,
        "http" => http_types::add_to_linker::<_, Own>(linker, state)?,
        "host-call" => host_call::add_to_linker::<_, Own>(linker, state)?,
        "plugin-call" => plugin_call::add_to_linker::<_, Own>(linker, state)?,
        "secrets" => secrets::add_to_linker::<_, Own>(linker, state)?,
        "clock" => clock::add_to_linker::<_, Own>(linker, state)?,
        "random" => random::add_to_linker::<_, Own>(linker, state)?,
        _ => return Ok(false),
    }
    Ok(true)
}

impl types::Host for State {}

/// A failure as the guest sees it.
impl From<Failure> for types::Failure {
    fn from(failure: Failure) -> Self {
        Self {
            code: failure.code.as_str().to_owned(),
            message: failure.message,
            rule: failure.rule,
            hint: failure.hint,
            retry_after_ms: failure.retry_after_ms,
        }
    }
}

/// A failure that a guest answered with: bounded, escaped, and with no more said than a plugin may.
fn told(failure: types::Failure) -> Failure {
    let data = WireErrorData {
        code: Some(failure.code),
        rule: None,
        hint: failure.hint,
        retry_after_ms: failure.retry_after_ms,
    };
    WireError {
        code: ErrorCode::PluginError.json_rpc().into(),
        message: failure.message,
        data: Some(data),
    }
    .into_failure(Side::Host)
}
