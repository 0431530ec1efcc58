//! A trap in words: which limit, or which mistake of the guest.

use palisade_model::{ErrorCode, Failure, text::escape};
use wasmtime::{Store, Trap};

use super::{Interrupt, State, limiter::Refused};
use crate::guest::Trouble;

/// What the engine says where a guest hands over too much in one call.
const FUEL: &str = "fuel allocated for hostcalls has been exhausted";

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
    let Some(trap) = error.downcast_ref::<Trap>() else {
        if let Some(refused) = state.limiter.refused() {
            return memory(refused);
        }
        // What wasmtime says without being a trap: a value that is none of its type, a full table.
        let text = error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
        // The engine's error for this has no public type; `tests/limits.rs` holds its words.
        if text.contains(FUEL) {
            let most = super::MAX_HOSTCALL_BYTES >> 20;
            let what = format!("the plugin handed over more than {most} MiB in one call");
            return limit(what, "pass large data in parts").rule("host-call-bytes");
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
