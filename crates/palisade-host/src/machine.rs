//! The life of a plugin as a pure function: state and event in, state and action out.
//!
//! No clock, no task and no instance here. Whoever acts takes the lock, asks [`step`], stores the new
//! state and does what the action says; that is all the coordination there is between start, stop, the
//! end of an instance and a caller that gave up.

use std::fmt;

use palisade_model::{ErrorCode, Failure};
use serde::{Deserialize, Serialize};

/// Where a plugin is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum State {
    /// Not running: never started, ended by itself with status 0, or stopped.
    #[default]
    Stopped,
    /// From the launch to the answer of `initialize`.
    Starting,
    /// Takes calls.
    Running,
    /// Asked to end, not ended yet.
    Stopping,
    /// Ended while it ran and should not have.
    Crashed,
    /// Never came to run.
    Failed,
}

impl State {
    /// Every state.
    pub const ALL: [State; 6] =
        [Self::Stopped, Self::Starting, Self::Running, Self::Stopping, Self::Crashed, Self::Failed];

    /// Whether nothing of the plugin is running.
    #[must_use]
    pub const fn is_resting(self) -> bool {
        matches!(self, Self::Stopped | Self::Crashed | Self::Failed)
    }

    /// The name used in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Crashed => "crashed",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens to a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Somebody wants it to run.
    Start,
    /// It answered `initialize` and is registered.
    Ready,
    /// The start came to nothing; nothing of it is left.
    StartFailed,
    /// Somebody wants it to end in order.
    Stop,
    /// Somebody wants it to end now.
    Kill,
    /// The instance ended; whether as it should.
    Ended {
        /// Exit status 0, or asked to.
        clean: bool,
    },
}

impl Event {
    /// Every event.
    pub const ALL: [Event; 7] = [
        Self::Start,
        Self::Ready,
        Self::StartFailed,
        Self::Stop,
        Self::Kill,
        Self::Ended { clean: true },
        Self::Ended { clean: false },
    ];
}

/// What whoever brought the event does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Launch an instance.
    Launch,
    /// Ask the instance to end.
    AskToEnd,
    /// Give up the start that is under way, and kill what it launched.
    AbandonStart,
    /// Kill the instance.
    Kill,
    /// Let go of everything that belonged to the instance.
    Release,
}

/// An event that does not fit the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} while the plugin is {state}", match .event {
    Event::Start => "cannot start",
    _ => "nothing can end or become ready",
})]
pub struct Misfit {
    /// The state.
    pub state: State,
    /// The event.
    pub event: Event,
}

impl From<Misfit> for Failure {
    fn from(error: Misfit) -> Failure {
        let failure = Failure::new(ErrorCode::Conflict, error.to_string());
        match error.state {
            State::Running => failure.hint("it is running already; stop it first"),
            State::Starting | State::Stopping => failure.hint("wait until that has ended"),
            _ => failure,
        }
    }
}

/// What follows from `event` in `state`.
///
/// # Errors
/// [`Misfit`] where the event cannot happen in this state; nothing changes then.
pub const fn step(state: State, event: Event) -> Result<(State, Action), Misfit> {
    use Action as A;
    use Event as E;
    use State as S;
    Ok(match (state, event) {
        (S::Stopped | S::Crashed | S::Failed, E::Start) => (S::Starting, A::Launch),
        (S::Stopped | S::Crashed | S::Failed, E::Stop | E::Kill) => (state, A::Nothing),

        (S::Starting, E::Ready) => (S::Running, A::Nothing),
        (S::Starting, E::StartFailed | E::Ended { .. }) => (S::Failed, A::Release),
        (S::Starting, E::Stop | E::Kill) => (S::Stopping, A::AbandonStart),

        (S::Running, E::Stop) => (S::Stopping, A::AskToEnd),
        (S::Running, E::Kill) => (S::Stopping, A::Kill),
        (S::Running, E::Ended { clean: true }) => (S::Stopped, A::Release),
        (S::Running, E::Ended { clean: false }) => (S::Crashed, A::Release),

        (S::Stopping, E::Stop) => (S::Stopping, A::Nothing),
        (S::Stopping, E::Kill) => (S::Stopping, A::Kill),
        // A start that was given up ends here, however far it had come.
        (S::Stopping, E::Ended { .. } | E::StartFailed) => (S::Stopped, A::Release),

        (state, event) => return Err(Misfit { state, event }),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_plugin_that_rests_can_always_be_started_and_one_that_does_not_never() {
        for state in State::ALL {
            assert_eq!(step(state, Event::Start).is_ok(), state.is_resting(), "{state}");
        }
    }

    #[test]
    fn stop_and_kill_fit_every_state() {
        for state in State::ALL {
            for event in [Event::Stop, Event::Kill] {
                let (next, action) = step(state, event).unwrap();
                if state.is_resting() {
                    assert_eq!((next, action), (state, Action::Nothing));
                } else {
                    assert_eq!(next, State::Stopping);
                }
            }
        }
    }

    /// What the world outside does: one instance at most, launched and released in turn.
    #[derive(Default)]
    struct World {
        held: bool,
        ready: bool,
    }

    proptest! {
        #[test]
        fn no_order_of_events_leaks_an_instance_or_runs_two(
            events in proptest::collection::vec(0..Event::ALL.len(), 0..200)
        ) {
            let (mut state, mut world) = (State::Stopped, World::default());
            for i in events {
                let event = Event::ALL[i];
                // An instance that is not there cannot end, become ready or fail to start.
                let possible = match event {
                    Event::Ready => world.held && !world.ready && state == State::Starting,
                    Event::StartFailed => world.held && !world.ready,
                    Event::Ended { .. } => world.held,
                    _ => true,
                };
                if !possible {
                    continue;
                }
                let Ok((next, action)) = step(state, event) else {
                    prop_assert_eq!(event, Event::Start, "only a start may be refused: {}", state);
                    prop_assert!(world.held);
                    continue;
                };
                match action {
                    Action::Launch => {
                        prop_assert!(!world.held, "two instances");
                        world = World { held: true, ready: false };
                    }
                    Action::Release => {
                        prop_assert!(world.held, "released twice");
                        world.held = false;
                    }
                    Action::AskToEnd => prop_assert!(world.held && world.ready),
                    Action::AbandonStart => prop_assert!(world.held && !world.ready),
                    Action::Kill => prop_assert!(world.held),
                    Action::Nothing => {}
                }
                if next == State::Running {
                    world.ready = true;
                }
                prop_assert_eq!(next.is_resting(), !world.held, "{} by {:?}", next, event);
                state = next;
            }
            // Whatever happened, it can be brought to rest.
            let (state, _) = step(state, Event::Kill).unwrap();
            if !state.is_resting() {
                let (state, action) = step(state, Event::Ended { clean: false }).unwrap();
                prop_assert_eq!((state, action), (State::Stopped, Action::Release));
            }
        }
    }
}
