//! The first bytes of a tunnel: nothing panics, a beginning is never judged other than the whole, and a
//! name that is found is a canonical one that stands in the bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use palisade_egress::{Host, proxy::hello};

fuzz_target!(|input: &[u8]| {
    let whole = hello::parse(input);
    if let Ok(Some(found)) = &whole
        && let Some(host) = found.server_name()
    {
        assert!(host.name().is_some(), "an address as a name");
        assert_eq!(&Host::parse(&host.to_string()).expect("its own text"), host);
    }
    // As the proxy reads it: more and more, until there is a verdict.
    let steps = (input.len() / 8).max(1);
    for end in (0..=input.len()).step_by(steps) {
        match (hello::parse(&input[..end]), &whole) {
            (Ok(None), _) | (Err(_), Err(_)) => {}
            (Ok(Some(early)), Ok(Some(late))) => assert_eq!(&early, late, "the verdict changed"),
            // What follows the hello in its own record is refused once it is there.
            (Ok(Some(_)), Err(_)) => {}
            (early, late) => panic!("{end} of {}: {early:?}, then {late:?}", input.len()),
        }
    }
});
