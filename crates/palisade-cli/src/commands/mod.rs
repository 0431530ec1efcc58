//! What each command does, one file a command.

pub(crate) mod audit;
pub(crate) mod call;
pub(crate) mod check;
pub(crate) mod component;
pub(crate) mod doctor;
#[cfg(target_os = "linux")]
pub(crate) mod explain;
pub(crate) mod grants;
#[cfg(target_os = "linux")]
pub(crate) mod learn;
pub(crate) mod mcp;
pub(crate) mod new;
pub(crate) mod pages;
pub(crate) mod run;
pub(crate) mod seal;
pub(crate) mod secret;
#[cfg(target_os = "linux")]
pub(crate) mod wrap;
