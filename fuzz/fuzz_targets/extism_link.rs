//! Modules for Extism, linked with the kernel: refused or valid, and never more than that.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| palisade_wasm::fuzz::extism_link(input));
