//! The memory of Extism plugins: whatever a plugin passes, its blocks lie apart and within, and the host's
//! side of the allocator agrees with the plugin's.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| palisade_wasm::fuzz::extism_kernel(input));
