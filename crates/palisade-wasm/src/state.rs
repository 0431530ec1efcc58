//! What belongs to one store: who it runs for, its deadline, and how much it may use.
//!
//! [`Shared`] stands for one launch and is shared by all its instances (a pool has several), so that a
//! limit counts over all of them. [`State`] is the data of one store. Nothing here knows what the guest
//! speaks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use palisade_model::{ErrorCode, Failure, Payload};
use palisade_sandbox::{HostCalls, HostRequest, LaunchSpec, Trace};
use tokio::sync::Notify;
use wasmtime::{Engine, Store, StoreContextMut, UpdateDeadline, component::ResourceTable};

use crate::{
    ablation::{self, Layer},
    engine::{Clock, TICK},
    wasi::{Files, Trust},
};

mod limiter;
mod meter;
mod output;
mod trap;

pub(crate) use limiter::Limiter;
use meter::Meter;
pub(crate) use output::Output;
pub(crate) use trap::{Exceeded, trouble};

/// Most entries of a store's resource table (open files, streams, requests).
pub(crate) const MAX_RESOURCES: usize = 1024;
/// Most random bytes that one call gives.
pub(crate) const MAX_RANDOM: u64 = 64 << 10;
/// Most handles of a guest's, those of its own resources among them; the host keeps some 32 bytes for each.
pub(crate) const MAX_HANDLES: usize = 16 << 10;
/// Most tasks, streams and futures of the component model under way at once, in code that has them; the host
/// keeps up to some KiB for each.
const MAX_CONCURRENT: usize = 4096;
/// Most bytes that a guest can hand over in one call of a host function: a value of 4 MiB, written with
/// escapes, and what stands around it.
pub(crate) const MAX_HOSTCALL_BYTES: usize = 8 << 20;

/// What all instances of one launch share.
pub(crate) struct Shared {
    /// What was launched: rights, limits at launch, folders, environment.
    pub(crate) spec: LaunchSpec,
    /// The other direction of the lane.
    pub(crate) host: Arc<dyn HostCalls>,
    /// Whom its requests over TLS trust.
    pub(crate) trust: Trust,
    /// Lines for the log.
    pub(crate) output: Arc<Output>,
    /// Files that all instances have open.
    pub(crate) files: Arc<Files>,
    clock: Arc<Clock>,
    meter: Meter,
    memory_limit: AtomicU64,
    memory_used: AtomicU64,
    memory_peak: AtomicU64,
    closed: AtomicBool,
    closing: Notify,
    /// The same as `freezing`, for those who only look.
    frozen: AtomicBool,
    freezing: tokio::sync::watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn new(
        spec: LaunchSpec,
        host: Arc<dyn HostCalls>,
        clock: Arc<Clock>,
        trust: Trust,
    ) -> Arc<Self> {
        let limits = &spec.limits;
        Arc::new(Self {
            output: Arc::new(Output::new(Arc::clone(&host), limits.log_bytes_per_second)),
            files: Arc::new(Files::new(limits.files)),
            meter: Meter::new(limits.cpu),
            memory_limit: AtomicU64::new(limits.memory),
            memory_used: AtomicU64::new(0),
            memory_peak: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            closing: Notify::new(),
            frozen: AtomicBool::new(false),
            freezing: tokio::sync::watch::Sender::new(false),
            host,
            trust,
            clock,
            spec,
        })
    }

    /// Ends everything: what runs is interrupted at the next tick, what waits for the host at once.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.closing.notify_waiters();
        self.freeze(false);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Stops what runs at the next tick, or lets it go on.
    pub(crate) fn freeze(&self, frozen: bool) {
        let frozen = frozen && !self.is_closed();
        self.frozen.store(frozen, Ordering::SeqCst);
        self.freezing.send_replace(frozen);
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Relaxed)
    }

    /// Waits until it is not frozen.
    pub(crate) async fn thawed(&self) {
        let mut frozen = self.freezing.subscribe();
        let _ = frozen.wait_for(|frozen| !frozen).await;
    }

    /// Changes what can be changed in a running instance.
    pub(crate) fn set_limits(&self, memory: u64, cpu: f64, log_bytes_per_second: u64) {
        self.memory_limit.store(memory, Ordering::Relaxed);
        self.meter.set_share(cpu);
        self.output.set_rate(log_bytes_per_second);
    }

    /// Bytes now and at the highest.
    pub(crate) fn memory(&self) -> (u64, u64) {
        (self.memory_used.load(Ordering::Relaxed), self.memory_peak.load(Ordering::Relaxed))
    }

    /// CPU time used, within a tick for each call.
    pub(crate) fn cpu(&self) -> Duration {
        self.meter.used()
    }
}

/// The data of one store.
pub(crate) struct State {
    /// The launch that it belongs to.
    pub(crate) shared: Arc<Shared>,
    /// Memory and tables of this store.
    pub(crate) limiter: Limiter,
    /// Resources that the guest holds handles of; capped.
    pub(crate) table: ResourceTable,
    /// What WASI works on, for a component that imports any of it.
    pub(crate) wasi: Option<Box<crate::wasi::Contexts>>,
    /// What an Extism module has beside its memories.
    pub(crate) extism: Option<Box<crate::extism::Extism>>,
    /// When the call under way ends.
    pub(crate) deadline: Instant,
    /// Where the call under way belongs.
    pub(crate) trace: Trace,
    /// Why the guest was interrupted, where we did it.
    interrupted: Option<Interrupt>,
    /// The guest has waited for the host since the last look at it: the tick that is seen next was not its own.
    waited: Arc<AtomicBool>,
}

/// Why we interrupted a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// The call's deadline passed.
    Deadline,
    /// The instance is ended.
    Closed,
}

/// A store for one instance. Its deadline is that of the launch until a call sets its own.
pub(crate) fn store(engine: &Engine, shared: &Arc<Shared>, deadline: Instant) -> Store<State> {
    let counted = ablation::has(Layer::Handles);
    let mut table = ResourceTable::new();
    if counted {
        table.set_max_capacity(MAX_RESOURCES);
    }
    let state = State {
        limiter: Limiter::new(Arc::clone(shared)),
        shared: Arc::clone(shared),
        table,
        wasi: None,
        extism: None,
        deadline,
        trace: Trace::default(),
        interrupted: None,
        waited: Arc::new(AtomicBool::new(false)),
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limiter);
    if ablation::has(Layer::HostCallBytes) {
        store.set_hostcall_fuel(MAX_HOSTCALL_BYTES);
    }
    if counted {
        store.set_max_component_handles(MAX_HANDLES);
        if let Some(table) = store.concurrent_resource_table() {
            table.set_max_capacity(MAX_CONCURRENT);
        }
    }
    store.epoch_deadline_callback(tick);
    arm(&mut store, deadline, Trace::default());
    store
}

/// Sets the deadline and the trace of the call that comes now.
pub(crate) fn arm(store: &mut Store<State>, deadline: Instant, trace: Trace) {
    let state = store.data_mut();
    state.deadline = deadline;
    state.trace = trace;
    state.interrupted = None;
    state.limiter.begin();
    state.shared.clock.wake();
    store.set_epoch_deadline(1);
}

/// What happens to a guest that has run for a tick: it is ended, or made to wait, or lets others run.
fn tick(mut store: StoreContextMut<'_, State>) -> wasmtime::Result<UpdateDeadline> {
    let state = store.data_mut();
    let shared = &state.shared;
    shared.clock.wake();
    if shared.is_closed() {
        state.interrupted = Some(Interrupt::Closed);
        return Ok(UpdateDeadline::Interrupt);
    }
    let now = Instant::now();
    if now >= state.deadline {
        state.interrupted = Some(Interrupt::Deadline);
        return Ok(UpdateDeadline::Interrupt);
    }
    if shared.is_frozen() {
        let (shared, deadline) = (Arc::clone(shared), state.deadline);
        return Ok(UpdateDeadline::YieldCustom(
            1,
            Box::pin(async move {
                let _ = tokio::time::timeout_at(deadline.into(), shared.thawed()).await;
            }),
        ));
    }
    if state.waited.swap(false, Ordering::Relaxed) {
        return Ok(UpdateDeadline::Continue(1));
    }
    let Some(pause) = shared.meter.charge(TICK, now) else { return Ok(UpdateDeadline::Yield(1)) };
    let until = state.deadline.min(now + pause);
    let shared = Arc::clone(shared);
    Ok(UpdateDeadline::YieldCustom(
        1,
        Box::pin(async move {
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => {}
                () = shared.closed() => {}
            }
        }),
    ))
}

impl Shared {
    /// Waits for the end.
    pub(crate) async fn closed(&self) {
        let closing = self.closing.notified();
        tokio::pin!(closing);
        closing.as_mut().enable();
        if !self.is_closed() {
            closing.await;
        }
    }
}

impl State {
    /// Asks the host, within the call's deadline. The outer error ends the guest.
    pub(crate) fn request(
        &self,
        method: &str,
        payload: Payload,
    ) -> impl Future<Output = wasmtime::Result<Result<Payload, Failure>>> + Send + use<> {
        let request = HostRequest { method: method.to_owned(), payload, trace: self.trace.clone() };
        self.bounded(self.shared.host.request(request))
    }

    /// Does something for the guest that may wait: every host function that can wait goes through here, so
    /// that the time is not counted as the guest's. An error ends the guest.
    pub(crate) fn bounded<F: Future + Send + 'static>(
        &self,
        work: F,
    ) -> impl Future<Output = wasmtime::Result<F::Output>> + Send + use<F>
    where
        F::Output: Send,
    {
        let waited = Arc::clone(&self.waited);
        async move {
            tokio::pin!(work);
            if let Some(done) = once(work.as_mut()).await {
                return Ok(done);
            }
            // The lane ends the whole call at its deadline and with the instance, so nothing is timed here.
            let done = work.await;
            waited.store(true, Ordering::Relaxed);
            Ok(done)
        }
    }

    /// The failure of a call that came too late.
    pub(crate) fn late() -> Failure {
        Failure::new(ErrorCode::Deadline, "the plugin did not answer in time")
    }
}

/// Polls once.
pub(crate) async fn once<F: Future + ?Sized>(mut work: std::pin::Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match work.as_mut().poll(cx) {
            std::task::Poll::Ready(done) => Some(done),
            std::task::Poll::Pending => None,
        })
    })
    .await
}
