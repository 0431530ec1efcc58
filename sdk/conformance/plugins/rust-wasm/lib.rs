//! The reference plugin as a component.
#![forbid(unsafe_code)]

#[path = "../rust/plugin.rs"]
mod plugin;

use plugin::plugin;

palisade_plugin::component!(plugin);
