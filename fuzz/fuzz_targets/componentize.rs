//! Core modules that say what component they stand for: refused with words, or made into one that is valid.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| palisade_wasm::fuzz::componentize(input));
