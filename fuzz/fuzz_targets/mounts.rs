//! The layout of the walls for random rights and code: what is mounted is what was asked for and nothing
//! else, each with exactly its rights, parents first.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| palisade_process::fuzz::mounts(input));
