use proptest::prelude::*;

use super::*;

fn vec8(body: &[u8]) -> Vec<u8> {
    [&[u8::try_from(body.len()).unwrap()], body].concat()
}

fn vec16(body: &[u8]) -> Vec<u8> {
    [&u16::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vec16(body)].concat()
}

fn sni(name: &[u8]) -> Vec<u8> {
    extension(SERVER_NAME, &vec16(&[&[HOST_NAME][..], &vec16(name)].concat()))
}

fn handshake(extensions: &[u8]) -> Vec<u8> {
    let body =
        [&[3, 3][..], &[7; 32], &vec8(&[]), &vec16(&[0x13, 0x01]), &vec8(&[0]), &vec16(extensions)]
            .concat();
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[CLIENT_HELLO][..], &len[1..], &body].concat()
}

fn records(message: &[u8], each: usize) -> Vec<u8> {
    message.chunks(each).flat_map(|part| [&[HANDSHAKE, 3, 1][..], &vec16(part)].concat()).collect()
}

fn hello(extensions: &[u8]) -> Vec<u8> {
    records(&handshake(extensions), 4000)
}

fn named(bytes: &[u8]) -> Option<String> {
    parse(bytes).unwrap().expect("complete").server_name().map(ToString::to_string)
}

#[test]
fn the_name_is_found_however_the_hello_is_split_into_records() {
    let extensions =
        [extension(43, &[2, 3, 4]), sni(b"Shop.Example.org"), extension(16, b"")].concat();
    for each in [1, 3, 5, 50, 4000] {
        let bytes = records(&handshake(&extensions), each);
        if bytes.len() / (each + 5) < MAX_RECORDS {
            assert_eq!(named(&bytes).as_deref(), Some("shop.example.org"), "records of {each}");
        } else {
            assert!(parse(&bytes).is_err(), "records of {each}");
        }
    }
    assert_eq!(named(&hello(&extension(43, &[2, 3, 4]))), None);
}

#[test]
fn every_beginning_of_a_hello_is_incomplete_and_not_an_error() {
    let bytes = records(&handshake(&sni(b"a.example")), 30);
    for n in 0..bytes.len() {
        assert_eq!(parse(&bytes[..n]).unwrap(), None, "{n} of {}", bytes.len());
    }
}

#[test]
fn hidden_double_and_strange_names_are_refused() {
    for (why, extensions) in [
        ("ECH", [sni(b"a.example"), extension(ENCRYPTED_CLIENT_HELLO, &[0; 9])].concat()),
        ("two extensions", [sni(b"a.example"), sni(b"b.example")].concat()),
        ("NUL", sni(b"a.example\0.b.example")),
        ("empty", sni(b"")),
        ("trailing dot", sni(b"a.example.")),
        ("an address", sni(b"127.0.0.1")),
        ("an IPv6 address", sni(b"[::1]")),
        ("a hexadecimal address", sni(b"0x7f000001")),
        ("not ASCII", sni("bücher.example".as_bytes())),
        ("space", sni(b"a.example ")),
        ("two names", {
            let one = [&[HOST_NAME][..], &vec16(b"a.example")].concat();
            extension(SERVER_NAME, &vec16(&[one.clone(), one].concat()))
        }),
        (
            "another kind of name",
            extension(SERVER_NAME, &vec16(&[&[1][..], &vec16(b"a")].concat())),
        ),
        ("bytes behind the list", {
            let one = vec16(&[&[HOST_NAME][..], &vec16(b"a.example")].concat());
            extension(SERVER_NAME, &[&one[..], b"x"].concat())
        }),
        ("a cut extension", [sni(b"a.example"), vec![0, 1, 0, 9]].concat()),
    ] {
        assert!(parse(&hello(&extensions)).is_err(), "taken: {why}");
    }
}

#[test]
fn what_is_not_a_client_hello_is_refused_at_once() {
    for bad in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"SSH-2.0-x\r\n",
        &[0x80, 0x2e, 1, 3, 1],               // SSL 2.0
        &[HANDSHAKE, 2, 0],                   // no TLS version
        &[HANDSHAKE, 3, 1, 0, 0],             // an empty record
        &[HANDSHAKE, 3, 1, 0x40, 1],          // a record longer than there can be
        &[HANDSHAKE, 3, 1, 0, 4, 2],          // a ServerHello
        &[HANDSHAKE, 3, 1, 0, 4, 1, 1, 0, 0], // a hello of 64 KiB
        &[21, 3, 1, 0, 2, 2, 40],             // an alert
        &[23, 3, 3, 0, 1, 0],                 // data
    ] {
        assert!(parse(bad).is_err(), "taken: {bad:02x?}");
    }
    let mut more = handshake(&sni(b"a.example"));
    more.push(1);
    assert!(parse(&records(&more, 4000)).is_err(), "a second message in the same record");
    let mut other = records(&handshake(&sni(b"a.example")), 20);
    other[25] = 23;
    assert!(parse(&other).is_err(), "a record of another kind in between");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..Default::default() })]

    #[test]
    fn changed_bytes_never_panic_and_never_make_two_names(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)
    ) {
        let mut bytes = hello(&[sni(b"a.example"), extension(43, &[2, 3, 4])].concat());
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(Some(hello)) = parse(&bytes) && let Some(host) = hello.server_name() {
            prop_assert_eq!(&Host::parse(&host.to_string()).unwrap(), host);
        }
    }

    #[test]
    fn more_bytes_never_change_a_verdict(
        bytes in proptest::collection::vec(prop_oneof![Just(HANDSHAKE), Just(3), Just(1), Just(0), any::<u8>()], 0..80),
        cut in any::<prop::sample::Index>(),
    ) {
        let short = &bytes[..cut.index(bytes.len() + 1)];
        match parse(short) {
            Ok(None) => {}
            Ok(Some(hello)) => if let Ok(whole) = parse(&bytes) { prop_assert_eq!(whole, Some(hello)) },
            Err(_) => prop_assert!(parse(&bytes).is_err()),
        }
    }
}
