//! The relay over in-memory streams, with hostile and honest peers on both sides.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod asking;
mod endings;
mod passing;
mod sdk;
mod support;
mod tools;
