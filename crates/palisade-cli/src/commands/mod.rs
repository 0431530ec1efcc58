//! What each command does, one file a command.

pub(crate) mod call;
pub(crate) mod check;
pub(crate) mod doctor;
pub(crate) mod pages;
pub(crate) mod run;
