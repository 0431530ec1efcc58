//! How often something was passed on: events, hooks and calls that follow from one another.
//!
//! What a plugin does while it handles something is one hop further than that (the broker's callers
//! count it). What the application does while it serves a plugin's request follows from the plugin, too:
//! that is known from the task on which the service runs. So a circle of plugins and services ends,
//! whether or not somebody says what it answers.

use std::sync::Arc;

use palisade_broker::{Caller, HopGuard};
use palisade_model::{ErrorCode, Failure};
use tokio::task::futures::TaskLocalFuture;

/// Most hops; the event bus has the same bound.
pub(crate) const MAX_HOPS: u8 = 16;

tokio::task_local! {
    /// The hop count of what is done now.
    static HOPS: u8;
}

/// Runs `work` as something that follows from what `caller` does now.
pub(crate) fn following<F: Future>(caller: &Caller, work: F) -> TaskLocalFuture<u8, F> {
    HOPS.scope(caller.hops(), work)
}

/// The hop count of what is done on this task, where it follows from a plugin's request.
pub(crate) fn current() -> Option<u8> {
    HOPS.try_with(|hops| *hops).ok()
}

/// Refuses what was passed on too often.
pub(crate) fn check(hops: u8) -> Result<(), Failure> {
    if hops <= MAX_HOPS {
        return Ok(());
    }
    let message =
        format!("this was passed on {hops} times, more than {MAX_HOPS}: it goes in a circle");
    Err(Failure::new(ErrorCode::LimitExceeded, message)
        .hint("break the circle of plugins and services that answer each other"))
}

/// Notes that `target` handles what follows from a plugin's request, if this task serves one.
pub(crate) fn enter(target: &Arc<Caller>) -> Result<Option<HopGuard>, Failure> {
    let Some(hops) = current() else { return Ok(None) };
    check(hops)?;
    Ok(Some(target.handle_delivery(hops)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_that_of_the_broker() {
        let caller = Caller::application();
        let handling = caller.handle_delivery(u8::MAX);
        assert_eq!(caller.hops(), MAX_HOPS + 1);
        drop(handling);
    }

    #[tokio::test]
    async fn what_follows_from_a_request_counts_on_from_it() {
        let (asker, target) = (Caller::application(), Caller::application());
        assert_eq!(current(), None);
        assert!(enter(&target).unwrap().is_none());
        let handling = asker.handle_delivery(4);
        following(&asker, async {
            assert_eq!(current(), Some(5));
            let _entered = enter(&target).unwrap();
            assert_eq!(target.hops(), 6);
        })
        .await;
        drop(handling);
        let _last = asker.handle_delivery(MAX_HOPS);
        let refused = following(&asker, async { enter(&target).map(|_| ()) }).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::LimitExceeded);
    }
}
