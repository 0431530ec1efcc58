//! Queries to the name server inside the walls: nothing panics, an answer is an answer to what was asked,
//! and every address in it leads back to one host name.
#![no_main]

use libfuzzer_sys::fuzz_target;
use palisade_egress::Names;

fuzz_target!(|input: &[u8]| {
    let names = Names::new();
    let Some(answer) = names.answer(input) else { return };
    assert!(answer.len() >= 12 && answer.len() <= 2 * input.len() + 64);
    assert_eq!(answer.get(..2), input.get(..2), "another id");
    assert_eq!(answer.get(2).map(|b| b & 0x80), Some(0x80), "not an answer");
    if let Some(again) = names.answer(input) {
        assert_eq!(again, answer, "the same question, another answer");
    }
});
