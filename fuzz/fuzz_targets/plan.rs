//! The launch plan: what the host writes, the helper reads, record by record; bytes that nobody wrote are
//! read to no harm.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| palisade_process::fuzz::plan(input));
