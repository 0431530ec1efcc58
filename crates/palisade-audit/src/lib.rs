//! The record of everything that was asked.
//!
//! What is about to happen is an [`Act`]; a [`Recorder`] takes its intent before the effect and its
//! outcome after it. Acts that change who may do what ([`Class::FailClosed`]) are on disk before they
//! happen, and do not happen when that fails. Everything else ([`Class::Bulk`]) costs the caller less
//! than a microsecond and is written by one thread in groups.
//!
//! In the file each line is tied to all before it ([`Chain`]), so that [`verify()`] sees what was changed in it, taken
//! out or put in; a record that was written anew, or has lost its end, is told by a `chain` that somebody has noted
//! elsewhere. This crate decides nothing about rights.
//!
//! ```
//! use std::sync::Arc;
//! use palisade_audit::{Act, MemoryRecorder, Outcome, Phase, RecordKind, Recorder};
//! use palisade_model::Principal;
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let recorder = MemoryRecorder::new(100);
//! let act = Act::new(RecordKind::Grant, Arc::new(Principal::Application)).target("fs.read:/srv/**");
//! let intent = recorder.intent(act).await?;
//! recorder.outcome(intent, Outcome::Done, None);
//! let phases: Vec<Phase> = recorder.records().iter().map(|r| r.phase).collect();
//! assert_eq!(phases, [Phase::Intent, Phase::Outcome]);
//! # Ok::<(), palisade_audit::RecordError>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod act;
pub mod chain;
pub mod clock;
pub mod error;
mod follow;
pub mod jsonl;
pub mod memory;
pub mod record;
pub mod recorder;
pub mod tally;
pub mod verify;

pub use act::{Act, Class, Decision, Intent, Outcome, Phase, RecordKind};
pub use chain::Chain;
pub use clock::{Clock, Stamp, SystemClock};
pub use error::RecordError;
pub use follow::Head;
pub use jsonl::{JsonLinesRecorder, Options};
pub use memory::MemoryRecorder;
pub use record::Record;
pub use recorder::Recorder;
pub use tally::Tally;
pub use verify::{Verified, VerifyError, verify};

/// A boxed future: what object-safe asynchronous methods return here.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
