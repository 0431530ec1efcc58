//! Bytes of a plugin on the wire and in the dialects: nothing panics, how the stream is split
//! makes no difference, and what is parsed is written and parsed again to the same.
//!
//! The first byte of the input says how long the pieces are that the decoder is fed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use palisade_dialect::{Line, jsonl, mcp};
use palisade_model::{Payload, text::is_deceptive};
use palisade_protocol::{FrameError, Message, Side, frame::Decoder, message, scan};

fuzz_target!(|input: &[u8]| {
    let Some((step, stream)) = input.split_first() else { return };
    let whole = frames(&[stream]);
    let pieces: Vec<&[u8]> = stream.chunks(usize::from(*step).max(1)).collect();
    assert_eq!(whole, frames(&pieces), "the split made a difference");
    for frame in &whole.0 {
        check(frame);
    }
    check(stream);
});

type Frames = (Vec<Vec<u8>>, Option<FrameError>, bool);

fn frames(pieces: &[&[u8]]) -> Frames {
    let mut decoder = Decoder::new();
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.feed(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame.to_vec()),
                Ok(None) => break,
                Err(error) => return (frames, Some(error), decoder.is_mid_frame()),
            }
        }
    }
    (frames, None, decoder.is_mid_frame())
}

fn check(line: &[u8]) {
    // What the scan takes is JSON to others as well, but for numbers beyond a double.
    if scan::validate(line, 64).is_ok()
        && let Err(error) = serde_json::from_slice::<serde_json::Value>(line)
    {
        assert!(error.to_string().contains("out of range"), "{error}");
    }
    if let Ok(parsed) = Message::parse(line) {
        let again = match &parsed {
            Message::Request { id, method, params } => message::encode_request(id, method, params),
            Message::Notification { method, params } => message::encode_notification(method, params),
            Message::Response { id, outcome } => {
                message::encode_response(id, outcome.as_ref().map(|result| *result))
            }
        };
        let (frame, end) = again.split_at(again.len() - 1);
        assert_eq!(end, b"\n");
        assert!(!frame.contains(&b'\n'));
        let reparsed = Message::parse(frame).expect("what was written is read");
        if !line.contains(&b'\n') {
            assert_eq!(reparsed, parsed);
        }
        if let Message::Response { outcome: Err(error), .. } = parsed {
            let failure = error.into_failure(Side::Host);
            assert_eq!(failure.code.exit_status(), 1);
            assert!(!failure.message.chars().any(palisade_model::text::is_deceptive));
        }
    }
    for message in [jsonl::decode_line(line), mcp::decode_line(line)] {
        match message {
            Line::Noise => {}
            Line::Answer { outcome: Ok(json), .. } => {
                assert!(scan::validate(json, 64).is_ok(), "the dialect took what the wire refuses");
                check_mcp(json);
            }
            Line::Request { params: json, .. } | Line::Notification { params: json, .. } => {
                assert!(scan::validate(json, 64).is_ok(), "the dialect took what the wire refuses");
                if let Some(line) = mcp::log_line(json) {
                    assert!(line.len() <= mcp::LOG_LINE_BYTES && !line.chars().any(is_deceptive));
                }
            }
            Line::Answer { outcome: Err(failure), .. } => {
                assert!(!failure.message.chars().any(is_deceptive));
            }
        }
    }
}

/// Reads a result as each of the answers that a server of MCP gives.
fn check_mcp(result: &[u8]) {
    let payload = Payload::from_json_text(result.to_vec());
    let _ = mcp::Server::read(&payload);
    let mut tools = mcp::Tools::default();
    while tools.page(&payload) == Ok(true) {}
    assert!(tools.names().len() <= mcp::TOOLS);
    match mcp::call_result(payload.clone()) {
        Ok(same) => assert_eq!(same, payload),
        Err(failure) => assert!(!failure.message.chars().any(is_deceptive)),
    }
}
