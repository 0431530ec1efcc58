//! Files of compiled code: changed in any way, they are not believed.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| palisade_wasm::fuzz::compiled(input));
