//! One known plugin on this host: its place in life, its running instance, its grants for this process.
//!
//! The state changes in one place, [`PluginCell::apply`], under one lock. Each start has a number; what
//! belongs to an earlier start changes nothing any more.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use palisade_model::{ErrorCode, Failure, PluginRef};
use palisade_sandbox::{Artifact, Exit, Prepared};
use tokio::sync::{Notify, watch};

use crate::{
    error::StoreError,
    loaded::Loaded,
    machine::{Action, Event, Misfit, State, step},
    running::Running,
    status::{Counters, Counts},
    store::StoredGrant,
    watch::{REAPED_WITHIN, Watched},
};

/// Where a plugin is, and how it came there.
#[derive(Clone, Default)]
pub(crate) struct Life {
    pub(crate) state: State,
    /// Counts the starts in this process.
    start: u64,
    pub(crate) exit: Option<Exit>,
    pub(crate) failure: Option<Failure>,
    /// Gives up the start that is under way.
    abandon: Option<Arc<Notify>>,
    /// The host has forgotten the plugin; it never starts again.
    retired: bool,
}

/// What a backend has prepared, and for what.
pub(crate) struct Ready {
    pub(crate) backend: &'static str,
    pub(crate) artifact: Artifact,
    pub(crate) prepared: Arc<dyn Prepared>,
}

/// See the module.
pub(crate) struct PluginCell {
    pub(crate) reference: Arc<PluginRef>,
    pub(crate) key: i64,
    pub(crate) slot: u32,
    pub(crate) data: PathBuf,
    loaded: RwLock<Arc<Loaded>>,
    pub(crate) session_grants: Mutex<Vec<StoredGrant>>,
    /// Told about the system calls of every instance that is started from now on.
    pub(crate) observer: Mutex<Option<Arc<dyn palisade_sandbox::Observer>>>,
    pub(crate) prepared: tokio::sync::Mutex<Option<Ready>>,
    life: watch::Sender<Life>,
    running: RwLock<Option<Arc<Running>>>,
    /// Of the run, or of the last one.
    counters: Mutex<Arc<Counters>>,
}

impl PluginCell {
    pub(crate) fn new(
        reference: Arc<PluginRef>,
        key: i64,
        slot: u32,
        data: PathBuf,
        loaded: Loaded,
    ) -> Self {
        Self {
            reference,
            key,
            slot,
            data,
            loaded: RwLock::new(Arc::new(loaded)),
            session_grants: Mutex::default(),
            observer: Mutex::default(),
            prepared: tokio::sync::Mutex::default(),
            life: watch::Sender::new(Life::default()),
            running: RwLock::default(),
            counters: Mutex::default(),
        }
    }

    pub(crate) fn loaded(&self) -> Arc<Loaded> {
        Arc::clone(&self.loaded.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a newly loaded version in place; says whether it could: not while the old one runs.
    pub(crate) fn replace(&self, new: Loaded) -> bool {
        let mut done = false;
        // Under the lock of the state, so that no start slips in between.
        self.life.send_if_modified(|life| {
            if life.state.is_resting() {
                *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                done = true;
            }
            false
        });
        done
    }

    /// Keeps it from ever starting again, if nothing of it runs; else says what it does.
    pub(crate) fn retire(&self) -> Result<(), State> {
        let mut result = Ok(());
        self.life.send_if_modified(|life| {
            life.retired = life.state.is_resting();
            if !life.retired {
                result = Err(life.state);
            }
            false
        });
        result
    }

    pub(crate) fn life(&self) -> Life {
        self.life.borrow().clone()
    }

    pub(crate) fn state(&self) -> State {
        self.life.borrow().state
    }

    /// What runs, if it takes calls.
    pub(crate) fn running(&self) -> Option<Arc<Running>> {
        self.running.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was counted since the last start that came to run.
    pub(crate) fn counts(&self) -> Counts {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner).read()
    }

    /// What runs, or why nothing does.
    pub(crate) fn require_running(&self) -> Result<Arc<Running>, Failure> {
        if let Some(running) = self.running() {
            return Ok(running);
        }
        let life = self.life();
        let message = match (life.state, &life.exit, &life.failure) {
            (State::Crashed, Some(exit), _) => {
                format!("plugin {} has crashed: {exit}", self.reference)
            }
            (State::Failed, _, Some(failure)) => {
                format!("plugin {} failed to start: {}", self.reference, failure.message)
            }
            (state, ..) => format!("plugin {} is {state}", self.reference),
        };
        Err(Failure::new(ErrorCode::Unavailable, message).hint("start it first"))
    }

    /// Brings an event to the state machine. `start` is the number of the start that it belongs to;
    /// `None` for what people ask. `note` adds what is known beside.
    fn apply(
        &self,
        start: Option<u64>,
        event: Event,
        note: impl FnOnce(&mut Life, Action),
    ) -> Result<Action, Misfit> {
        let mut result = Ok(Action::Nothing);
        self.life.send_if_modified(|life| {
            let stale = start.is_some_and(|start| start != life.start);
            if stale || (life.retired && event == Event::Start) {
                result = Err(Misfit { state: life.state, event });
                return false;
            }
            match step(life.state, event) {
                Ok((state, action)) => {
                    life.state = state;
                    if action == Action::Release {
                        life.abandon = None;
                        let ran =
                            self.running.write().unwrap_or_else(PoisonError::into_inner).take();
                        if let Some(running) = ran {
                            running.release();
                        }
                    }
                    note(life, action);
                    result = Ok(action);
                    true
                }
                Err(misfit) => {
                    result = Err(misfit);
                    false
                }
            }
        });
        result
    }

    /// Begins a start.
    pub(crate) fn begin(self: &Arc<Self>) -> Result<Attempt, Failure> {
        let abandon = Arc::new(Notify::new());
        let mut number = 0;
        let begun = self.apply(None, Event::Start, |life, _| {
            life.start += 1;
            number = life.start;
            life.exit = None;
            life.failure = None;
            life.abandon = Some(Arc::clone(&abandon));
        });
        match begun {
            Err(_) if self.life().retired => return Err(StoreError::Forgotten.into()),
            begun => begun?,
        };
        Ok(Attempt {
            cell: Arc::clone(self),
            number,
            abandon,
            launched: Mutex::default(),
            open: true,
        })
    }

    /// The instance of this start has ended.
    pub(crate) fn ended(&self, start: u64, exit: &Exit) {
        // A misfit here means that the start was already given up.
        let _ = self.apply(Some(start), Event::Ended { clean: exit.is_clean() }, |life, _| {
            life.exit = Some(exit.clone());
            if life.state == State::Failed {
                life.failure = Some(exit.to_failure());
            }
        });
    }

    /// Has it end; gives what runs where it has to be asked or killed.
    pub(crate) fn end(&self, kill: bool) -> Option<(Action, Arc<Running>)> {
        let event = if kill { Event::Kill } else { Event::Stop };
        let mut abandon = None;
        let running = self.running();
        let action = self.apply(None, event, |life, action| {
            if action == Action::AbandonStart || (action == Action::Kill && running.is_none()) {
                abandon = life.abandon.clone();
            }
        });
        if let Some(abandon) = abandon {
            abandon.notify_one();
        }
        match action {
            Ok(action @ (Action::AskToEnd | Action::Kill)) => running.map(|r| (action, r)),
            _ => None,
        }
    }

    /// Waits until nothing of it runs.
    pub(crate) async fn rests(&self, within: Duration) -> Result<Life, Failure> {
        let mut life = self.life.subscribe();
        let rests = life.wait_for(|life| life.state.is_resting());
        match tokio::time::timeout(within, rests).await {
            Ok(Ok(life)) => Ok(life.clone()),
            _ => Err(Failure::new(
                ErrorCode::Deadline,
                format!("plugin {} has not ended within {} s", self.reference, within.as_secs()),
            )),
        }
    }

    /// Waits, without a bound, until nothing of it runs.
    pub(crate) async fn end_of_run(&self) -> Life {
        let mut life = self.life.subscribe();
        let result = life.wait_for(|life| life.state.is_resting()).await.map(|life| life.clone());
        // The sender is in `self`, so the channel cannot be closed.
        result.unwrap_or_default()
    }

    /// Ends everything without waiting: the host is dropped.
    pub(crate) fn abandon(&self) {
        if let Some(running) = self.running() {
            running.abandon();
        }
        if let Some(abandon) = self.life().abandon {
            abandon.notify_one();
        }
        *self.running.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// A start that is under way. Dropping it gives the start up.
pub(crate) struct Attempt {
    cell: Arc<PluginCell>,
    number: u64,
    abandon: Arc<Notify>,
    launched: Mutex<Option<Watched>>,
    open: bool,
}

impl Attempt {
    /// Which start of this process it is.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Completes when somebody wants the plugin to end before it has started.
    pub(crate) async fn given_up(&self) {
        self.abandon.notified().await;
    }

    /// Notes the instance that belongs to this start.
    pub(crate) fn launched(&self, watched: Watched) {
        *self.launched.lock().unwrap_or_else(PoisonError::into_inner) = Some(watched);
    }

    /// The plugin is ready to be called. Gives a failure where it was stopped or ended meanwhile.
    pub(crate) async fn ready(mut self, running: Arc<Running>) -> Result<(), Failure> {
        let cell = Arc::clone(&self.cell);
        let ready = cell.apply(Some(self.number), Event::Ready, |_, _| {
            *cell.counters.lock().unwrap_or_else(PoisonError::into_inner) =
                Arc::clone(&running.counters);
            *cell.running.write().unwrap_or_else(PoisonError::into_inner) = Some(running);
        });
        match ready {
            Ok(_) => {
                self.open = false;
                Ok(())
            }
            Err(_) => {
                let failure = match cell.life().exit {
                    Some(exit) => exit.to_failure(),
                    None => stopped(),
                };
                self.failed(failure.clone()).await;
                Err(failure)
            }
        }
    }

    /// The start came to nothing. What it launched is killed and waited for.
    pub(crate) async fn failed(mut self, failure: Failure) {
        let launched = self.launched.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(watched) = launched {
            watched.abandon();
            // A kill that takes longer goes on; the state must not wait for it for ever.
            let _ = tokio::time::timeout(REAPED_WITHIN, watched.ended()).await;
        }
        self.close(Some(failure));
    }

    fn close(&mut self, failure: Option<Failure>) {
        self.open = false;
        // A misfit means that the watcher of the instance has brought its end first.
        let _ = self.cell.apply(Some(self.number), Event::StartFailed, |life, _| {
            life.failure = failure;
        });
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.open {
            if let Some(watched) =
                self.launched.lock().unwrap_or_else(PoisonError::into_inner).take()
            {
                watched.abandon();
            }
            self.close(Some(Failure::new(ErrorCode::Cancelled, "whoever started it gave up")));
        }
    }
}

/// The failure of a start during which somebody stopped the plugin.
pub(crate) fn stopped() -> Failure {
    Failure::new(ErrorCode::Cancelled, "the plugin was stopped while it started")
}
