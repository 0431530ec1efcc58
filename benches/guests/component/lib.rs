//! Gives back what it is given, as text: no JSON is read on either side of the comparison.

wit_bindgen::generate!({ path: "../../../crates/palisade-wasm/wit/0.1.0", world: "minimal" });

use exports::palisade::plugin::guest::{Context, Failure, Guest, Introduction};

struct Echo;

impl Guest for Echo {
    fn initialize(_: Context) -> Result<Introduction, Failure> {
        Ok(Introduction { name: None, version: None, tools: None, state_schemas: Vec::new() })
    }

    fn call(_tool: String, args: String) -> Result<String, Failure> {
        Ok(args)
    }
}

export!(Echo);
