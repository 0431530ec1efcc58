use proptest::prelude::*;

use super::{
    chunked::{Decoder, Step},
    *,
};

fn request(text: &str) -> Result<RequestHead, EgressError> {
    RequestHead::parse(text.as_bytes())
}

fn framing(fields: &str) -> Result<Framing, EgressError> {
    request(&format!("POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n"))?
        .framing()
}

#[test]
fn an_ordinary_head_is_read() {
    let head =
        request("GET http://a.example/x?y HTTP/1.1\r\nHost: a.example\r\nX:  b c \t\r\n\r\n");
    let head = head.unwrap();
    assert_eq!((head.method.as_str(), head.target.as_str()), ("GET", "http://a.example/x?y"));
    assert_eq!(head.fields.host().unwrap(), Some("a.example"));
    assert_eq!(head.fields.iter().last().unwrap().value(), b"b c");
    assert_eq!(head.framing().unwrap(), Framing::Empty);
    assert!(head.keeps_alive());
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    for bad in [
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\rX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost\r\n\r\n",
        "GET / HTTP/1.1\r\n: a\r\n\r\n",
        "GET / HTTP/1.1\r\nX: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nX: a\x0bb\r\n\r\n",
        "GET / HTTP/1.1\r\nX: a\x7fb\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "GET /a b HTTP/1.1\r\n\r\n",
        "GET\t/ HTTP/1.1\r\n\r\n",
        " GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1 \r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "GET / http/1.1\r\n\r\n",
        "GET /\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\n\r\n",
        "G(T / HTTP/1.1\r\n\r\n",
        "GET /é HTTP/1.1\r\n\r\n",
    ] {
        assert!(request(bad).is_err(), "taken: {bad:?}");
    }
}

#[test]
fn a_body_has_one_end_or_the_request_is_refused() {
    assert_eq!(framing("Content-Length: 10\r\n").unwrap(), Framing::Length(10));
    assert_eq!(framing("Transfer-Encoding: Chunked\r\n").unwrap(), Framing::Chunked);
    for bad in [
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length: 1 \u{b}\r\n",
        "Content-Length:\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding:\r\n",
    ] {
        assert!(framing(bad).is_err(), "taken: {bad:?}");
    }
    let old = request("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    assert!(old.framing().is_err());
    let twice = request("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n").unwrap();
    assert!(twice.fields.host().is_err());
}

#[test]
fn heads_are_bounded() {
    let long = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(MAX_HEAD_LEN));
    assert!(matches!(head_len(long.as_bytes()), Err(EgressError::TooLarge { .. })));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_FIELDS + 1));
    assert!(matches!(request(&many), Err(EgressError::TooLarge { .. })));
    let most = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_FIELDS));
    assert_eq!(request(&most).unwrap().fields.iter().count(), MAX_FIELDS);
}

#[test]
fn fields_of_the_connection_are_not_passed_on() {
    let head = request(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 1\r\n\
         Proxy-Authorization: x\r\nUpgrade: h2c\r\nTE: trailers\r\nAccept: */*\r\n\r\n",
    )
    .unwrap();
    let kept: Vec<&str> = head.fields.forwarded().map(Field::name).collect();
    assert_eq!(kept, ["Accept"]);
    assert!(!head.keeps_alive());
}

#[test]
fn answers_are_read_as_strictly() {
    let head = ResponseHead::parse(b"HTTP/1.1 200 All fine\r\nContent-Length: 3\r\n\r\n").unwrap();
    assert_eq!((head.status, head.framing("GET").unwrap()), (200, Framing::Length(3)));
    assert_eq!(head.framing("HEAD").unwrap(), Framing::Empty);
    let open = ResponseHead::parse(b"HTTP/1.0 200\r\n\r\n").unwrap();
    assert_eq!(open.framing("GET").unwrap(), Framing::UntilClose);
    for bad in [
        "HTTP/1.1 20 x\r\n\r\n",
        "HTTP/1.1 2000 x\r\n\r\n",
        "HTTP/1.1 099 x\r\n\r\n",
        "HTTP/3 200 x\r\n\r\n",
    ] {
        assert!(ResponseHead::parse(bad.as_bytes()).is_err(), "taken: {bad:?}");
    }
}

/// The data of a chunked body given in pieces, or `None` where it is broken or not complete, and how
/// many bytes were taken.
fn unchunk(pieces: &[&[u8]]) -> Option<(Vec<u8>, usize)> {
    let (mut decoder, mut data, mut taken) = (Decoder::new(), Vec::new(), 0);
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let n = match decoder.step(rest).ok()? {
                Step::Skip(n) => n,
                Step::Data(n) => {
                    data.extend_from_slice(&rest[..n]);
                    n
                }
                Step::Done => return Some((data, taken)),
            };
            taken += n;
            rest = &rest[n..];
        }
    }
    decoder.is_done().then_some((data, taken))
}

#[test]
fn chunks_are_read_and_broken_ones_refused() {
    let body = b"4\r\nWiki\r\n5;x=\"y\"\r\npedia\r\n0\r\nTrailer: x\r\n\r\nGET";
    assert_eq!(unchunk(&[body]), Some((b"Wikipedia".to_vec(), body.len() - 3)));
    for bad in [
        "4\nWiki\r\n0\r\n\r\n",
        "4\r\nWikix\r\n0\r\n\r\n",
        "4\r\nWiki0\r\n\r\n",
        "\r\n0\r\n\r\n",
        ";\r\n0\r\n\r\n",
        "+4\r\nWiki\r\n0\r\n\r\n",
        "0x4\r\nWiki\r\n0\r\n\r\n",
        " 4\r\nWiki\r\n0\r\n\r\n",
        "4 \r\nWiki\r\n0\r\n\r\n",
        "4;a\nb\r\nWiki\r\n0\r\n\r\n",
        "00000000000000004\r\nWiki\r\n0\r\n\r\n",
        "0\r\n\n",
        "0\r\nX\n\r\n",
    ] {
        assert_eq!(unchunk(&[bad.as_bytes()]), None, "taken: {bad:?}");
    }
    let long = format!("0\r\n{}", "A: b\r\n".repeat(4000));
    assert_eq!(unchunk(&[long.as_bytes()]), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

    #[test]
    fn nothing_panics_and_what_is_taken_has_no_line_end_inside(
        text in "(GET|POST|[a-z :\r\n\t\0é]){0,4}( |/|a)*( HTTP/1\\.[01])?(\r\n|\n|\r)((Host|X|Content-Length|Transfer-Encoding)[ :]{0,2}[ -~\r\n\té]{0,12}(\r\n|\n)){0,4}(\r\n)?"
    ) {
        if let Ok(head) = request(&text) {
            prop_assert!(!head.target.contains(['\r', '\n', ' ']));
            for field in head.fields.iter() {
                prop_assert!(!field.value().iter().any(|b| b"\r\n\0".contains(b)));
            }
        }
        let _ = ResponseHead::parse(text.as_bytes());
    }

    #[test]
    fn how_chunks_are_split_makes_no_difference(
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..5),
        step in 1_usize..9,
        flip in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut body = Vec::new();
        for part in &parts {
            body.extend(format!("{:X}\r\n", part.len()).into_bytes());
            body.extend(part);
            body.extend(b"\r\n");
        }
        body.extend(b"0\r\n\r\n");
        if let Some((at, byte)) = flip {
            let at = at.index(body.len());
            body[at] = byte;
        } else {
            prop_assert_eq!(unchunk(&[&body]), Some((parts.concat(), body.len())));
        }
        let pieces: Vec<&[u8]> = body.chunks(step).collect();
        prop_assert_eq!(unchunk(&[&body]), unchunk(&pieces));
    }
}
