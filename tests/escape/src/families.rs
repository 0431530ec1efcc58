//! Families of attempts: which attempts are made together, and how the host judges them.

pub mod general;
pub mod limits;
