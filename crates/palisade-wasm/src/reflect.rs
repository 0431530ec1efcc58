//! Any component as a plugin: its exported functions are tools.
//!
//! The types of a function give the JSON Schema of the tool ([`schema`]), its arguments become values of the
//! component ([`read`]) and its result becomes JSON ([`mod@write`]). There is nothing to write or to generate on
//! either side; what has no form in JSON (handles, streams, futures) is refused with words.

mod guest;
pub mod read;
pub mod schema;
pub mod shape;
mod tools;
pub mod write;

pub(crate) use guest::Reflected;
pub(crate) use tools::{Found, tools};
pub use tools::{Signature, Tool};

#[cfg(test)]
mod tests;
