//! `call_vs_socketpair`: one call of 64 bytes and its answer of 64 bytes, against a raw ping-pong.
//!
//! One caller, one call at a time. Four ways from the caller to the same C program and back, in the same
//! rounds: a raw blocking socket pair; our protocol on such a pair without walls; the lane of an instance
//! behind its walls; and `plugin.call` with gate, rates and a record on disk. In the same rounds, too,
//! `plugin.call` to the same echo written with each SDK.
//!
//! All of it is bound to one processor: across two, most of the time would be the wake-up of an idle
//! processor, which differs from run to run and is the same for all four ways. `.unpinned` shows it.

use std::{
    io::{Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_host::Host;
use palisade_model::{ErrorCode, Failure, Payload};
use palisade_process::{Options, ProcessBackend};
use palisade_protocol::{
    BoxFuture, CloseReason, Deadline, Handler, Peer, PeerConfig, Request, methods,
};
use palisade_sandbox::{Backend, Instance, Invocation, Trace};
use rustix::thread::CpuSet;
use serde_json::value::RawValue;
use tokio::runtime::{Builder, Runtime};

use crate::{
    host,
    plugin::{MESSAGE, Plugin, Result, Silent, initialize},
    report::{Row, Samples},
    sdk::{self, SDKS},
};

const ROUNDS: usize = 300;
const WARM_UP: usize = 20;
/// Calls of each way in one round; a sample is their mean.
const CALLS: u32 = 50;
const TIMEOUT: Duration = Duration::from_secs(20);

/// A handler that is never asked.
struct Nobody;

impl Handler for Nobody {
    fn request(
        &self,
        request: Request,
    ) -> BoxFuture<'static, std::result::Result<Payload, Failure>> {
        let failure = Failure::new(ErrorCode::NotFound, format!("no method {}", request.method));
        Box::pin(async move { Err(failure) })
    }
    fn notification(&self, _method: &str, _params: &[u8]) {}
    fn closed(&self, _reason: &CloseReason) {}
}

/// The plugin's program without walls, its conversation on handle 0.
struct Bare(Child);

impl Bare {
    fn start(plugin: &Plugin, how: &str) -> Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let child = Command::new(plugin.program())
            .arg(how)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        Ok((Self(child), ours))
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The ways, ready.
struct Ways {
    raw: (Bare, UnixStream),
    peer: (Bare, Peer),
    lane: (ProcessBackend, Arc<dyn Instance>),
    host: (Host, palisade_host::Plugin),
    /// In the order of [`SDKS`].
    sdks: Vec<palisade_host::Plugin>,
    args: Box<RawValue>,
}

impl Ways {
    async fn open(plugin: &Plugin, state: &std::path::Path) -> Result<Self> {
        let raw = Bare::start(plugin, "echo")?;
        let (child, socket) = Bare::start(plugin, "wire")?;
        let peer = Peer::spawn(socket, Arc::new(Nobody), PeerConfig::default())?;
        let backend = ProcessBackend::new(Options::default());
        let prepared = backend.prepare(&plugin.artifact()).await?;
        let instance = prepared.launch(plugin.spec(), Arc::new(Silent)).await?;
        initialize(&instance).await?;
        let host = host::open(state, Arc::new(ProcessBackend::new(Options::default()))).await?;
        let manifest = host::echo_manifest("bench", "kind = \"exec\"\nfile = \"plugin\"");
        std::fs::write(plugin.root().join("plugin.toml"), manifest)?;
        let loaded = host.load(plugin.root()).await?;
        loaded.start().await?;
        let mut sdks = Vec::new();
        for name in SDKS {
            let folder = state.join(name);
            sdk::make(name, &folder)?;
            let plugin = host.load(&folder).await?;
            plugin.start().await.map_err(|e| format!("the plugin in {name}: {e}"))?;
            sdks.push(plugin);
        }
        Ok(Self {
            raw,
            peer: (child, peer),
            lane: (backend, instance),
            host: (host, loaded),
            sdks,
            args: RawValue::from_string(MESSAGE.to_owned())?,
        })
    }

    fn raw(&mut self) -> Result<()> {
        let mut answer = [0u8; MESSAGE.len()];
        self.raw.1.write_all(MESSAGE.as_bytes())?;
        self.raw.1.read_exact(&mut answer)?;
        check(&answer)
    }

    async fn peer(&self) -> Result<()> {
        let args = Payload::from_json_text(MESSAGE.to_owned());
        let params = methods::call_params("echo", &args);
        let deadline = Some(Deadline::after(TIMEOUT));
        check(self.peer.1.request(methods::CALL, &params, deadline).await?.bytes())
    }

    async fn lane(&self) -> Result<()> {
        let args = Payload::from_json_text(MESSAGE.to_owned());
        let invocation = Invocation {
            method: methods::CALL,
            payload: methods::call_params("echo", &args),
            tool: None,
            deadline: Instant::now() + TIMEOUT,
            trace: Trace::default(),
        };
        check(self.lane.1.lane().call(invocation).await?.bytes())
    }

    async fn host(&self) -> Result<()> {
        echo(&self.host.1, &self.args).await
    }
}

async fn echo(plugin: &palisade_host::Plugin, args: &RawValue) -> Result<()> {
    check(plugin.call("echo", args).await?.bytes())
}

/// An answer that is not the message would mean that something else was measured.
fn check(answer: &[u8]) -> Result<()> {
    if answer == MESSAGE.as_bytes() { Ok(()) } else { Err("the echo is wrong".into()) }
}

#[derive(Default)]
struct Times {
    raw: Samples,
    peer: Samples,
    lane: Samples,
    host: Samples,
    sdks: [Samples; SDKS.len()],
}

/// Times `CALLS` of one way; the mean is the sample.
macro_rules! time {
    ($call:expr, $samples:expr, $counted:expr) => {{
        let start = Instant::now();
        for _ in 0..CALLS {
            $call?;
        }
        if $counted {
            $samples.push_micros(start.elapsed() / CALLS);
        }
    }};
}

async fn measure() -> Result<Times> {
    let plugin = Plugin::build()?;
    let state = tempfile::tempdir()?;
    let mut ways = Ways::open(&plugin, state.path()).await?;
    let mut times = Times::default();
    for round in 0..WARM_UP + ROUNDS {
        let counted = round >= WARM_UP;
        time!(ways.raw(), times.raw, counted);
        time!(ways.peer().await, times.peer, counted);
        time!(ways.lane().await, times.lane, counted);
        time!(ways.host().await, times.host, counted);
        for (plugin, samples) in ways.sdks.iter().zip(&mut times.sdks) {
            time!(echo(plugin, &ways.args).await, samples, counted);
        }
    }
    ways.host.0.shutdown().await?;
    Ok(times)
}

/// In a task of the runtime, as an application's handlers run.
fn on(runtime: &Runtime) -> Result<Times> {
    let task = runtime.spawn(async { measure().await.map_err(|e| e.to_string()) });
    Ok(runtime.block_on(task)??)
}

/// Binds this thread, and every thread and process that it starts from here on, to one processor.
fn pin() -> Result<()> {
    let allowed = rustix::thread::sched_getaffinity(None)?;
    let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).ok_or("no processor")?;
    let mut one = CpuSet::new();
    one.set(first);
    Ok(rustix::thread::sched_setaffinity(None, &one)?)
}

pub(crate) fn run() -> Result<Vec<Row>> {
    // Before anything is pinned: how the scheduler likes it.
    let unpinned = on(&Builder::new_multi_thread().enable_all().build()?)?;
    // A thread of its own, so that the benches after this one are not pinned.
    let pinned = std::thread::spawn(|| {
        let run = || -> Result<(Times, Times)> {
            pin()?;
            let several = on(&Builder::new_multi_thread().enable_all().build()?)?;
            Ok((several, on(&Builder::new_current_thread().enable_all().build()?)?))
        };
        run().map_err(|e| e.to_string())
    });
    let (several, single) = pinned.join().map_err(|_| "the measuring thread panicked")??;
    let mut rows = Vec::new();
    for (times, suffix) in [(several, ""), (single, ".current_thread"), (unpinned, ".unpinned")] {
        for (name, samples) in [("", &times.host), (".lane", &times.lane), (".peer", &times.peer)] {
            let row = Row::new(&format!("call_vs_socketpair{suffix}{name}"), "us", samples);
            let row = row.against(&times.raw);
            rows.push(if suffix.is_empty() && name.is_empty() { row.aim(2.5) } else { row });
        }
        for (name, samples) in SDKS.iter().zip(&times.sdks) {
            let row = Row::new(&format!("call_vs_socketpair{suffix}.{name}"), "us", samples);
            rows.push(row.against(&times.raw));
        }
        rows.push(Row::new(&format!("call_vs_socketpair{suffix}.raw"), "us", &times.raw));
    }
    Ok(rows)
}
