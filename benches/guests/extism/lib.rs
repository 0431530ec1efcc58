//! Gives back what it is given, as text: no JSON is read on either side of the comparison.

use extism_pdk::{FnResult, plugin_fn};

#[plugin_fn]
pub fn echo(args: String) -> FnResult<String> {
    Ok(args)
}
