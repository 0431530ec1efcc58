//! WebAssembly files of plugins: nothing panics, what is told is bounded, and what is said to be free of
//! asynchronous parts is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use palisade_model::CapabilitySet;
use palisade_wasm::inspect::{MAX_NAMES, Need, compare, inspect, needs_concurrency};

fuzz_target!(|input: &[u8]| {
    let Ok(seen) = inspect(input) else { return };
    assert!(seen.imports.len() + seen.exports.len() <= MAX_NAMES);
    let nothing = CapabilitySet::new();
    let free = |need: Need| matches!(need, Need::Nothing | Need::Shows(_));
    assert_eq!(seen.check_rights(&nothing).is_ok(), seen.imports.iter().all(|i| free(i.need)));
    assert!(needs_concurrency(&seen) || !seen.asynchronous);
    let _ = compare(&seen, &[], &["run"]);
    for tool in &seen.tools {
        assert_eq!(tool.input_schema().is_some(), tool.signature.is_ok());
        assert_eq!(tool.wit().is_some(), tool.output_schema().is_some());
    }
    serde_json::to_vec(&seen).expect("it is JSON");
});
