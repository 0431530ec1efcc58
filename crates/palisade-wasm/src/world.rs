//! Components of the worlds of `palisade:plugin`: each published version of the interface is a module of
//! its own here and stays.

pub(crate) mod json;
pub(crate) mod since_v0_1_0;
