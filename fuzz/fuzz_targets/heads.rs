//! Heads and chunks of HTTP/1 as the proxy reads them: nothing panics, what is passed on has no line end
//! inside, and how a chunked body is split makes no difference.
//!
//! The first byte of the input says how long the pieces of the body are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use palisade_egress::message::{
    Fields, RequestHead, ResponseHead,
    chunked::{Decoder, Step},
    head_len,
};

fuzz_target!(|input: &[u8]| {
    let Some((step, message)) = input.split_first() else { return };
    if let Ok(Some(len)) = head_len(message) {
        let (head, body) = message.split_at(len);
        assert!(head.ends_with(b"\r\n"));
        if let Ok(request) = RequestHead::parse(head) {
            assert!(request.target.bytes().all(|b| b.is_ascii_graphic()));
            check(&request.fields);
            let _ = (request.framing(), request.fields.host(), request.keeps_alive());
        }
        if let Ok(response) = ResponseHead::parse(head) {
            check(&response.fields);
            let _ = (response.framing("GET"), response.framing("HEAD"), response.content_length());
        }
        let pieces: Vec<&[u8]> = body.chunks(usize::from(*step).max(1)).collect();
        assert_eq!(unchunk(&[body]), unchunk(&pieces), "the split made a difference");
    }
});

fn check(fields: &Fields) {
    for field in fields.forwarded() {
        assert!(!field.name().is_empty());
        assert!(field.name().bytes().all(|b| b.is_ascii_graphic() && b != b':'));
        assert!(!field.value().iter().any(|b| b"\r\n\0".contains(b)));
    }
}

/// The data and where the body ended, `None` where it is broken or not complete.
fn unchunk(pieces: &[&[u8]]) -> Option<(Vec<u8>, usize)> {
    let (mut decoder, mut data, mut taken) = (Decoder::new(), Vec::new(), 0);
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let n = match decoder.step(rest).ok()? {
                Step::Done => return Some((data, taken)),
                Step::Skip(n) => n,
                Step::Data(n) => {
                    data.extend_from_slice(&rest[..n]);
                    n
                }
            };
            assert!(n > 0, "nothing was taken");
            taken += n;
            rest = &rest[n..];
        }
    }
    decoder.is_done().then_some((data, taken))
}
