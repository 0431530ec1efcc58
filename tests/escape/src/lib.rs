//! The escape suite: every known attempt to leave the walls, made by a hostile plugin, with exact outcomes.
//!
//! The attacker is a static program of its own (`attacker/`). This library builds it, sets the scene,
//! launches it behind the walls once for each attempt, judges from the host's side, makes the same attempt
//! outside as positive control, and takes layers away to see whether the next one holds. What must come of
//! each attempt is data in `expected/`. `docs/explanation/escapes.md` tells how it works and how to add to
//! it.
#![forbid(unsafe_code)]

pub mod attacker;
pub(crate) mod careless;
pub mod command;
pub mod control;
pub mod elsewhere;
pub mod expected;
pub mod families;
pub mod host_side;
pub mod judge;
pub mod launch;
pub mod layers;
pub mod meter;
pub mod proofs;
pub mod record;
pub mod report;
pub mod runner;
pub mod scene;
pub mod services;
pub mod suite;
pub mod trouble;
pub mod turns;
pub mod way_out;

pub use suite::matrix;
