//! The host with real parts and an in-process backend: one file a behaviour.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../support/echo.rs"]
mod echo;
mod support;

mod calls;
mod commands;
mod dialects;
mod events;
mod floors;
mod hooks;
mod identity;
mod lifecycle;
mod per_call;
mod plan;
mod registration;
mod rights;
mod services;
