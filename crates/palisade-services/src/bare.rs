//! A JSON value as it is, for services whose result is somebody else's.

use palisade_model::{ErrorCode, Failure, Payload};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

/// A bare JSON value as result.
#[derive(Serialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Bare(#[schemars(with = "serde_json::Value")] pub(crate) Box<RawValue>);

impl Bare {
    /// The value of a payload.
    ///
    /// # Errors
    /// [`ErrorCode::Internal`] where it is no JSON.
    pub(crate) fn new(payload: &Payload) -> Result<Self, Failure> {
        payload.parse().map(Self).map_err(|e| {
            Failure::new(ErrorCode::Internal, format!("the result is no JSON value: {e}"))
        })
    }
}
