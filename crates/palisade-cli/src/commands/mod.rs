//! What each command does, one file a command.

pub(crate) mod call;
pub(crate) mod check;
pub(crate) mod component;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod grants;
pub(crate) mod learn;
pub(crate) mod mcp;
pub(crate) mod new;
pub(crate) mod pages;
pub(crate) mod run;
pub(crate) mod secret;
pub(crate) mod wrap;
