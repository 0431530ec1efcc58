//! Lanes into instances: one instance for all calls in their order, or a pool of them.
//!
//! A call runs on the caller's task. While it runs, the instance is out of its place; it goes back when
//! the call has ended in order. So an instance that trapped, ran into its deadline or whose caller went
//! away in the middle is never used again, and the next call gets a fresh one, which is initialized as the
//! first was.

use std::{
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use palisade_model::{ErrorCode, Failure, Payload};
use palisade_protocol::methods::{self, ConfigureParams, InitializeParams};
use palisade_sandbox::{BoxFuture, Invocation, Lane, Trace};
use tokio::{
    sync::{Mutex as AsyncMutex, MutexGuard, Semaphore},
    time::timeout_at,
};

use crate::{
    engine::{Place, Places, TICK},
    guest::{Code, Guest, Trouble},
    state::{self, Shared, State, once},
};

/// How long the end of a call under way is waited for when its instance is ended.
const END: Duration = Duration::from_secs(5);

/// A lane that can be emptied.
pub(crate) trait Way: Lane {
    /// Throws away every instance; waits for the call under way, which has been told to end.
    fn empty(&self) -> BoxFuture<'_, ()>;

    /// Throws away what nobody uses now.
    fn abandon(&self);
}

/// An instance, its place among all, and with which configuration it was initialized.
pub(crate) struct Held {
    guest: Box<dyn Guest>,
    told: u64,
    _place: Place,
}

/// What every instance of one launch is made from.
pub(crate) struct Launch {
    code: Arc<dyn Code>,
    shared: Arc<Shared>,
    places: Arc<Places>,
    told: Mutex<Told>,
}

/// What the instances were told when they began.
#[derive(Default)]
struct Told {
    /// Parameters of `initialize`.
    params: Option<Payload>,
    /// How often they changed.
    version: u64,
}

impl Launch {
    pub(crate) fn new(code: Arc<dyn Code>, shared: Arc<Shared>, places: Arc<Places>) -> Self {
        Self { code, shared, places, told: Mutex::default() }
    }

    /// The first instance, which nobody has spoken with.
    pub(crate) async fn first(&self, deadline: Instant) -> Result<Held, Failure> {
        let place = self.places.take(self.code.memories())?;
        let store = state::store(self.code.engine(), &self.shared, deadline);
        let made = self.within(deadline, self.code.instantiate(store).as_mut()).await;
        let guest = made.unwrap_or_else(|trouble| Err(trouble.into_failure()))?;
        Ok(Held { guest, told: self.version(), _place: place })
    }

    /// Another one, initialized as the first was.
    async fn fresh(&self, deadline: Instant) -> Result<Held, Failure> {
        let mut held = self.first(deadline).await?;
        let params = {
            let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            held.told = told.version;
            told.params.clone()
        };
        let Some(payload) = params else { return Ok(held) };
        let trace = Trace::default();
        let method = methods::INITIALIZE;
        let invocation = Invocation { method, payload, tool: None, deadline, trace };
        self.ask(&mut held, &invocation).await.map_err(Trouble::into_failure)?;
        Ok(held)
    }

    fn version(&self) -> u64 {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).version
    }

    /// One call on the instance in `slot`, or on a fresh one. What may be used again is in `slot` then.
    async fn call(
        &self,
        slot: &mut Option<Held>,
        invocation: &Invocation,
    ) -> Result<Payload, Failure> {
        if self.shared.is_closed() {
            return Err(ended());
        }
        if self.shared.is_frozen() {
            let thawed = timeout_at(invocation.deadline.into(), self.shared.thawed());
            Box::pin(thawed).await.map_err(|_| State::late())?;
        }
        let mut held = match slot.take() {
            Some(held) => held,
            None => Box::pin(self.fresh(invocation.deadline)).await?,
        };
        let outcome = self.ask(&mut held, invocation).await;
        match outcome {
            Ok(answer) => {
                self.note(&mut held, invocation);
                *slot = Some(held);
                Ok(answer)
            }
            Err(Trouble::Failed(failure)) => {
                *slot = Some(held);
                Err(failure)
            }
            Err(Trouble::Trapped(failure)) => Err(failure),
        }
    }

    async fn ask(&self, held: &mut Held, invocation: &Invocation) -> Result<Payload, Trouble> {
        state::arm(held.guest.store(), invocation.deadline, invocation.trace.clone());
        let deadline = invocation.deadline;
        let outcome = if invocation.method == methods::CALL
            && let Some(tool) = &invocation.tool
            && let Some(plugin) = held.guest.plugin()
        {
            let work = pin!(plugin.call_tool(&tool.name, &tool.args));
            self.within(deadline, work).await
        } else {
            self.within(deadline, held.guest.call(invocation).as_mut()).await
        };
        self.shared.output.flush();
        outcome?
    }

    /// Does `work` until the deadline or the end of the instance, whichever comes first. Work that ends at
    /// once takes no timer.
    async fn within<F: Future + Send + ?Sized>(
        &self,
        deadline: Instant,
        mut work: Pin<&mut F>,
    ) -> Result<F::Output, Trouble>
    where
        F::Output: Send,
    {
        if let Some(done) = once(work.as_mut()).await {
            return Ok(done);
        }
        // In a box of its own, so that a call that ends at once has a small one.
        let rest: BoxFuture<'_, _> = Box::pin(async {
            tokio::select! {
                biased;
                done = work => Ok(done),
                () = self.shared.closed() => Err(Trouble::Trapped(ended())),
                // A guest that computes is interrupted by its clock, which knows more to say.
                () = tokio::time::sleep_until((deadline + 2 * TICK).into()) => {
                    Err(Trouble::Trapped(State::late()))
                }
            }
        });
        rest.await
    }

    /// Keeps what a fresh instance has to be told.
    fn note(&self, held: &mut Held, invocation: &Invocation) {
        if invocation.method != methods::INITIALIZE && invocation.method != methods::CONFIGURE {
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let params = if invocation.method == methods::INITIALIZE {
            Some(invocation.payload.clone())
        } else {
            told.params.as_ref().and_then(|params| {
                let mut params: InitializeParams = params.parse().ok()?;
                params.config = invocation.payload.parse::<ConfigureParams>().ok()?.config;
                Payload::json(&params).ok()
            })
        };
        if params.is_some() {
            told.params = params;
            told.version += 1;
            held.told = told.version;
        }
    }
}

fn ended() -> Failure {
    Failure::new(ErrorCode::Unavailable, "the instance has ended")
}

/// `stateful`: one instance, one call after the other in the order in which they came.
pub(crate) struct OneByOne {
    launch: Launch,
    slot: AsyncMutex<Option<Held>>,
}

impl OneByOne {
    pub(crate) fn new(launch: Launch, first: Held) -> Self {
        Self { launch, slot: AsyncMutex::new(Some(first)) }
    }

    /// Waits for the calls that came before.
    fn turn(
        &self,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<MutexGuard<'_, Option<Held>>, Failure>> {
        Box::pin(async move {
            tokio::select! {
                biased;
                slot = timeout_at(deadline.into(), self.slot.lock()) => {
                    slot.map_err(|_| late_for("the calls before it have not ended"))
                }
                () = self.launch.shared.closed() => Err(ended()),
            }
        })
    }
}

impl Lane for OneByOne {
    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Result<Payload, Failure>> {
        Box::pin(async move {
            // A free lock is never taken before those who wait for it.
            let mut slot = match self.slot.try_lock() {
                Ok(slot) => slot,
                Err(_) => self.turn(invocation.deadline).await?,
            };
            self.launch.call(&mut slot, &invocation).await
        })
    }
}

impl Way for OneByOne {
    fn empty(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let Ok(mut slot) = tokio::time::timeout(END, self.slot.lock()).await {
                slot.take();
            }
        })
    }

    fn abandon(&self) {
        if let Ok(mut slot) = self.slot.try_lock() {
            slot.take();
        }
    }
}

/// Which instances of a [`Pool`] go back into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// `stateless`: each that ended its call in order. What it kept in its memory is still there.
    Always,
    /// `per-call`: those that were only told their configuration.
    BeforeCalls,
}

impl Reuse {
    fn allows(self, method: &str) -> bool {
        self == Self::Always || matches!(method, methods::INITIALIZE | methods::CONFIGURE)
    }
}

/// `stateless` and `per-call`: each call takes an instance out of a pool, or a fresh one.
pub(crate) struct Pool {
    launch: Launch,
    idle: Mutex<Vec<Held>>,
    permits: Semaphore,
    most: u32,
    reuse: Reuse,
}

impl Pool {
    pub(crate) fn new(launch: Launch, first: Held, most: u32, reuse: Reuse) -> Self {
        let most = most.max(1);
        let permits = Semaphore::new(most as usize);
        Self { launch, idle: Mutex::new(vec![first]), permits, most, reuse }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Held>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An idle instance that was told what counts now; others are thrown away.
    fn pop(&self) -> Option<Held> {
        let version = self.launch.version();
        let mut idle = self.idle();
        loop {
            let held = idle.pop()?;
            if held.told == version {
                return Some(held);
            }
        }
    }
}

impl Lane for Pool {
    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Result<Payload, Failure>> {
        Box::pin(async move {
            if matches!(invocation.method, methods::SAVE_STATE | methods::RESTORE_STATE) {
                let message = "a stateless plugin has no state to hand over";
                return Err(Failure::new(ErrorCode::NotFound, message));
            }
            let _permit = match self.permits.try_acquire() {
                Ok(permit) => permit,
                Err(_) => tokio::select! {
                    biased;
                    permit = timeout_at(invocation.deadline.into(), self.permits.acquire()) => permit
                        .map_err(|_| {
                            late_for(&format!("all {} instances are busy", self.most))
                        })?
                        .map_err(|_| ended())?,
                    () = self.launch.shared.closed() => return Err(ended()),
                },
            };
            let mut slot = self.pop();
            let answer = self.launch.call(&mut slot, &invocation).await;
            let is_kept = !self.launch.shared.is_closed() && self.reuse.allows(invocation.method);
            if let Some(held) = slot.filter(|_| is_kept) {
                self.idle().push(held);
            }
            answer
        })
    }
}

impl Way for Pool {
    fn empty(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let all = self.permits.acquire_many(self.most);
            let _ = tokio::time::timeout(END, all).await;
            self.idle().clear();
        })
    }

    fn abandon(&self) {
        self.idle().clear();
    }
}

fn late_for(why: &str) -> Failure {
    Failure::new(ErrorCode::Deadline, format!("the plugin could not be asked in time: {why}"))
}
