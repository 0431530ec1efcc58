//! Where a plugin may run: the seam between the host and every kind of wall.
//!
//! A [`Backend`] knows one kind of wall. It probes the machine, assesses what it would guarantee for a
//! launch, prepares an artifact once and launches it many times. What runs is an [`Instance`]; calls
//! go in through its [`Lane`], requests come out through [`HostCalls`]. The [`resolver`] picks the
//! cheapest backend that covers a demand and never falls back to a weaker one.
//!
//! Nothing here isolates anything: that is the work of the backend crates.
#![forbid(unsafe_code)]

pub mod absent;
pub mod backend;
pub mod error;
pub mod instance;
pub mod lane;
pub mod launch;
pub mod observe;
pub mod resolver;
pub mod stream;

pub use absent::AbsentBackend;
pub use backend::{Assessment, Backend, Facts, Finding, Prepared, Unavailable};
pub use error::SandboxError;
pub use instance::{Deadline, Exit, ExitCause, Instance, KillReason, RightsChange, Usage};
pub use lane::{
    HostCalls, HostRequest, Invocation, Lane, OutputStream, Stream, ToolCall, Trace, WayOut,
};
pub use launch::{
    Artifact, Calls, Content, ExtismOutput, LaunchSpec, Program, Runtime, Wire, slots,
};
pub use observe::{Observation, Observer};
pub use resolver::{Candidate, NoBackend, Resolved, Resolver};

/// A boxed future: what object-safe asynchronous methods return here.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
