//! The words of Palisade as types.
//!
//! Everything that two rooms must agree on lives here: capabilities and their matching, guarantees,
//! limits, identities, payloads and error codes. There is no I/O and no dependency on another
//! Palisade crate, so every other crate may use it and it builds on every platform.
#![forbid(unsafe_code)]

pub mod capability;
pub mod code;
pub mod failure;
pub mod guarantee;
pub mod identity;
pub mod limits;
pub mod path;
pub mod payload;
pub mod text;

pub use capability::{Access, Capability, CapabilityError, CapabilitySet, Enforcement, Kind, Risk};
pub use code::ErrorCode;
pub use failure::Failure;
pub use guarantee::{Guarantee, GuaranteeSet, Level};
pub use identity::{
    Generation, IdError, InstanceId, NodeId, Origin, PluginId, PluginRef, Principal,
};
pub use limits::{Limits, Rates};
pub use payload::{Encoding, Payload};
