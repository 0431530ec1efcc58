//! Sockets of WASI guests: the host is asked for what was named, and for nothing else.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| palisade_wasm::fuzz::sockets(input));
