//! The escape suite.
#![forbid(unsafe_code)]

pub mod attacker;
pub mod control;
pub mod families;
pub mod host_side;
pub mod judge;
pub mod launch;
pub mod meter;
pub mod record;
pub mod runner;
pub mod scene;
pub mod services;
pub mod trouble;
