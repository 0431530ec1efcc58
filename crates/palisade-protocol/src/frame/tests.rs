use proptest::prelude::*;

use super::*;

/// Everything that comes out of `pieces`, and the error where it ends with one.
fn decode(pieces: &[&[u8]]) -> (Vec<Bytes>, Option<FrameError>, bool) {
    let mut decoder = Decoder::new();
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.feed(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error), decoder.is_mid_frame()),
            }
        }
    }
    (frames, None, decoder.is_mid_frame())
}

#[test]
fn lines_become_frames_and_line_ends_are_cut() {
    let (frames, error, rest) = decode(&[b"a\nbc\r\n\r\n\n\nd\r\r\ne"]);
    assert_eq!(frames, [&b"a"[..], b"bc", b"d\r"]);
    assert_eq!(error, None);
    assert!(rest);
}

#[test]
fn a_frame_of_exactly_the_bound_passes_and_one_byte_more_does_not() {
    for end in [&b"\n"[..], b"\r\n"] {
        let mut line = vec![b'x'; bounds::FRAME_BYTES];
        line.extend_from_slice(end);
        let (frames, error, _) = decode(&line.chunks(100_000).collect::<Vec<_>>());
        assert_eq!((frames.len(), error), (1, None), "{end:?}");
        let longer = [b"x", &line[..]].concat();
        let (frames, error, _) = decode(&longer.chunks(100_000).collect::<Vec<_>>());
        assert_eq!((frames.len(), error), (0, Some(FrameError::TooLong)), "{end:?}");
    }
}

#[test]
fn an_endless_line_is_refused_before_it_is_buffered() {
    let mut decoder = Decoder::new();
    let mut fed = 0;
    let error = loop {
        let space = decoder.space();
        space.fill(b'x');
        let count = space.len();
        decoder.advance(count);
        fed += count;
        if let Err(error) = decoder.next_frame() {
            break error;
        }
    };
    assert_eq!(error, FrameError::TooLong);
    assert!(fed <= 2 * bounds::FRAME_BYTES, "{fed} bytes were taken");
    assert!(decoder.buffer.capacity() <= 3 * bounds::FRAME_BYTES, "{}", decoder.buffer.capacity());
    assert_eq!(decoder.next_frame(), Err(FrameError::TooLong), "the stream stays refused");
}

#[test]
fn empty_lines_are_counted_in_a_row() {
    let many = vec![b'\n'; bounds::EMPTY_LINES];
    assert_eq!(decode(&[&many, b"a\n", &many]).1, None);
    assert_eq!(decode(&[&many, b"\r\n"]).1, Some(FrameError::EmptyLines));
}

#[test]
fn a_large_frame_does_not_keep_its_buffer() {
    let mut decoder = Decoder::new();
    decoder.feed(&vec![b'x'; bounds::FRAME_BYTES]);
    decoder.feed(b"\n");
    assert!(decoder.next_frame().unwrap().is_some());
    let _ = decoder.space();
    assert!(decoder.buffer.capacity() <= KEEP_BYTES, "{}", decoder.buffer.capacity());
}

proptest! {
    #[test]
    fn how_the_stream_is_split_makes_no_difference(
        parts in prop::collection::vec(
            prop_oneof![
                Just(b"\n".to_vec()), Just(b"\r\n".to_vec()), Just(b"\r".to_vec()),
                prop::collection::vec(any::<u8>(), 0..20),
            ],
            0..40,
        ),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let stream = parts.concat();
        let mut at: Vec<usize> = cuts.iter().map(|c| c.index(stream.len() + 1)).collect();
        at.extend([0, stream.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|w| &stream[w[0]..w[1]]).collect();
        prop_assert_eq!(decode(&pieces), decode(&[&stream]));
        let bytewise: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(decode(&bytewise), decode(&[&stream]));
    }

    #[test]
    fn reading_into_the_space_equals_feeding(
        stream in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..600),
        step in 1usize..200,
    ) {
        let mut decoder = Decoder::new();
        let mut frames = Vec::new();
        for piece in stream.chunks(step) {
            decoder.space()[..piece.len()].copy_from_slice(piece);
            decoder.advance(piece.len());
            while let Some(frame) = decoder.next_frame().unwrap() {
                frames.push(frame);
            }
        }
        prop_assert_eq!((frames, None, decoder.is_mid_frame()), decode(&[&stream]));
    }
}
