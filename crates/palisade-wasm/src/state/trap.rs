//! A trap in words: which limit, or which mistake of the guest.

use palisade_model::{ErrorCode, Failure, text::escape};
use wasmtime::{Store, Trap, component::ResourceTableError};
use wasmtime_wasi_http::FieldMapError;

use super::{Interrupt, State, limiter::Refused};
use crate::guest::Trouble;

/// What the engine says where a guest hands over too much in one call.
const FUEL: &str = "fuel allocated for hostcalls has been exhausted";
/// And where it makes too many handles.
const HANDLES: &str = "store handle limit exceeded";
/// How the engine begins to tell where a guest was.
const WHERE: &str = "error while executing at wasm backtrace";

/// A bound on what one call hands over or is given, where a host function has no error for it: it ends the guest.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum Exceeded {
    /// Random bytes: how many were asked for.
    #[error(
        "random numbers: at most {} bytes in one call, and the plugin asked for {_0}",
        super::MAX_RANDOM
    )]
    Random(u64),
    /// A set of header fields.
    #[error("header fields: a set of them holds at most {} KiB", crate::wasi::MAX_FIELDS >> 10)]
    Headers,
    /// A piece of a body.
    #[error("the plugin wrote more of a body at once than its stream takes")]
    Body,
}

impl Exceeded {
    fn failure(self) -> Failure {
        let (rule, hint) = match self {
            Self::Random(_) => ("random", "ask for them in parts"),
            Self::Headers => ("headers", "send less in header fields, or put it into the body"),
            Self::Body => {
                ("body", "write no more than check-write allows, and wait until it allows more")
            }
        };
        Failure::new(ErrorCode::LimitExceeded, self.to_string()).rule(rule).hint(hint)
    }
}

/// What a failed call of a guest means. The instance is lost.
pub(crate) fn trouble(error: &wasmtime::Error, store: &Store<State>) -> Trouble {
    let state = store.data();
    Trouble::Trapped(match state.interrupted {
        Some(Interrupt::Deadline) => State::late(),
        Some(Interrupt::Closed) => Failure::new(ErrorCode::Unavailable, "the instance has ended"),
        None => of(error, state),
    })
}

fn of(error: &wasmtime::Error, state: &State) -> Failure {
    let limit = |what: String, hint: &str| Failure::new(ErrorCode::LimitExceeded, what).hint(hint);
    let memory = |refused: Refused| match refused {
        Refused::Limit => {
            let bytes = state.shared.memory_limit.load(std::sync::atomic::Ordering::Relaxed);
            limit(
                format!("out of memory: the plugin may use {} MiB", bytes >> 20),
                "resources.memory in the manifest gives more",
            )
            .rule("memory")
        }
        Refused::Largest => limit(
            "out of memory: one of its memories or tables has reached its largest size".into(),
            "a memory has at most 4 GiB, a table at most 200000 elements, or what it declares",
        )
        .rule("memory"),
    };
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return limit(
            "there are too many WebAssembly instances in this host".into(),
            "stop others",
        );
    }
    if let Some(ResourceTableError::Full) = error.root_cause().downcast_ref() {
        let what = "the plugin held too many resources at once (files, streams, requests, waits)";
        return limit(what.into(), "close what is done").rule("resources");
    }
    if let Some(exceeded) = error.downcast_ref::<Exceeded>() {
        return exceeded.failure();
    }
    // What the engine says of a set of fields that is too large, and of nothing else that ends a guest.
    if error.is::<FieldMapError>() {
        return Exceeded::Headers.failure();
    }
    let Some(trap) = error.downcast_ref::<Trap>() else {
        if let Some(refused) = state.limiter.refused() {
            return memory(refused);
        }
        // What wasmtime says without being a trap: a value that is none of its type, a full table.
        let text = error.chain().map(ToString::to_string);
        // Where it was says nothing without the names of functions.
        let text = text.filter(|part| !part.starts_with(WHERE)).collect::<Vec<_>>().join(": ");
        // The engine's error for this has no public type; `tests/limits.rs` holds its words.
        if text.contains(FUEL) {
            let most = super::MAX_HOSTCALL_BYTES >> 20;
            let what = format!("the plugin handed over more than {most} MiB in one call");
            return limit(what, "pass large data in parts").rule("host-call-bytes");
        }
        if text.contains(HANDLES) {
            let most = super::MAX_HANDLES;
            let what = format!("the plugin held more than {most} handles at once");
            return limit(what, "drop resources that are done").rule("resources");
        }
        return Failure::new(
            ErrorCode::Crashed,
            format!("the plugin failed: {}", escape(&text, 400)),
        );
    };
    match trap {
        Trap::StackOverflow => limit(
            format!(
                "stack overflow: the plugin has {} KiB of stack",
                crate::engine::GUEST_STACK >> 10
            ),
            "recursion this deep is a mistake of the plugin, as a rule",
        )
        .rule("stack"),
        Trap::UnreachableCodeReached if let Some(refused) = state.limiter.refused() => {
            // Most guests abort when an allocation fails.
            memory(refused)
        }
        Trap::UnreachableCodeReached => Failure::new(
            ErrorCode::Crashed,
            "the plugin gave up (unreachable): a panic or an abort, as a rule",
        )
        .hint("what it wrote to its log may say why"),
        trap => Failure::new(ErrorCode::Crashed, format!("the plugin trapped: {trap}")),
    }
}
