//! Families of attempts: which attempts are made together, and how the host judges them.

pub mod ablation;
pub mod channel;
pub mod general;
pub mod host;
pub mod landlock;
pub mod limits;
pub mod network;
pub mod paths;
pub mod survive;
pub mod twins;
pub mod wasm;
