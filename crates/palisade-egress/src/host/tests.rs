use proptest::prelude::*;

use super::*;

#[test]
fn one_host_has_one_spelling() {
    for (text, canonical) in [
        ("example.org", "example.org"),
        ("EXAMPLE.Org.", "example.org"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("10.0.0.1", "10.0.0.1"),
        ("[::ffff:10.0.0.1]", "10.0.0.1"),
        ("[::FFFF:a00:1]", "10.0.0.1"),
        ("[2001:DB8:0::1]", "[2001:db8::1]"),
    ] {
        assert_eq!(Host::parse(text).unwrap().to_string(), canonical);
    }
}

#[test]
fn what_others_could_read_differently_is_refused() {
    for text in [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "a.org..",
        "a.org\0.b.org",
        "a.org\0",
        "a.org\r\nX: y",
        "a.org\n",
        "a.org ",
        " a.org",
        "\ta.org",
        "user@a.org",
        "user:pw@a.org",
        "a.org/",
        "a.org#",
        "a.org?",
        "a.org\\b",
        "a%2eorg",
        "a%00",
        "bücher.example",
        "a\u{3002}org",
        "ａ.org",
        "a\u{200b}.org",
        "a.org:80",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "127.0.1",
        "010.0.0.1",
        "10.0.0.1.",
        "1.2.3.4.5",
        "256.0.0.1",
        "1.2.3.0x4",
        "a.0",
        "a.0x",
        "::1",
        "[::1",
        "::1]",
        "[fe80::1%eth0]",
        "[fe80::1%25eth0]",
        "[v1.x]",
        "[127.0.0.1]",
        "[]",
        "-a.org",
        "a-.org",
        "*.a.org",
        "*",
    ] {
        assert!(Host::parse(text).is_err(), "taken: {text:?}");
    }
    assert!(Host::parse(&"a".repeat(64)).is_err());
    assert!(Host::parse(&"a.".repeat(127)).is_ok());
    assert!(Host::parse(&"a.".repeat(128)).is_err());
    assert!(Host::parse_bytes(b"a\xff.org").is_err());
}

#[test]
fn an_authority_has_a_host_and_a_port() {
    for (text, canonical) in [
        ("A.org.:443", "a.org:443"),
        ("[::1]:1", "[::1]:1"),
        ("[::ffff:1.2.3.4]:65535", "1.2.3.4:65535"),
    ] {
        assert_eq!(Authority::parse(text).unwrap().to_string(), canonical);
    }
    for text in [
        "a.org",
        "a.org:",
        "a.org:0",
        "a.org:65536",
        "a.org:080",
        "a.org:+80",
        "a.org:8 0",
        "a.org:80:80",
        "::1:80",
        "[::1]80",
        "[::1]x:80",
        "[::1]:80]:1",
        ":80",
        "a.org:٣",
        "a@b:80",
        "a.org:*",
    ] {
        assert!(Authority::parse(text).is_err(), "taken: {text:?}");
    }
    assert_eq!(Authority::parse_or("a.org", 80).unwrap().port(), 80);
    assert_eq!(Authority::parse_or("[::1]", 80).unwrap().to_string(), "[::1]:80");
    assert!(Authority::parse_or("a.org:", 80).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_is_taken_is_canonical_and_is_what_a_right_would_say(
        text in "(\\[?(::|ffff:|[0-9a-f]{1,2}:){0,3}|[aA0x@%.\\\\é\0\r\n -]|xn--|10\\.|127\\.0\\.0\\.1|org){0,6}\\]?\\.?(:[0-9]{0,5})?"
    ) {
        if let Ok(host) = Host::parse(&text) {
            let shown = host.to_string();
            prop_assert!(!shown.contains(['\0', '\r', '\n', '@', '%', '\\', ' ']));
            prop_assert_eq!(&Host::parse(&shown).unwrap(), &host);
            prop_assert_eq!(parse_host(&text), Some(shown));
            // No name is one that a resolver would read as an address (inet_aton(3)).
            if let Some(name) = host.name() {
                let last = name.rsplit('.').next().unwrap();
                prop_assert!(last.starts_with(|c: char| !c.is_ascii_digit()) || last.contains(|c: char| !c.is_ascii_hexdigit() && c != 'x') || last.parse::<u64>().is_err());
            }
        }
        if let Ok(authority) = Authority::parse(&text) {
            let shown = authority.to_string();
            prop_assert_eq!(&Authority::parse(&shown).unwrap(), &authority);
            let access = palisade_model::Access::new(palisade_model::Kind::NetTcp, &text);
            prop_assert_eq!(access.canonical_target().map(|t| t.into_owned()), Some(shown));
        }
    }
}
