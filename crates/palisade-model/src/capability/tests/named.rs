//! Named cases: the tricks that each form must withstand, one by one.

use super::*;

#[test]
fn paths_are_compared_by_whole_components_and_never_traverse() {
    let yes = [
        "/srv/t",
        "/srv/t/",
        "/srv/t/a",
        "//srv//t///a",
        "/srv/./t/./a/.",
        "/srv/t/a b",
        "/srv/t/...",
    ];
    let no = [
        "",
        "/",
        "/srv",
        "/srv/texts",
        "/srv/t.txt",
        "/srv/T/a",
        "srv/t/a",
        "./srv/t",
        "/srv/t/..",
        "/srv/t/../t/a",
        "/srv/x/../t",
        "/../srv/t",
        "/srv/t/a\0",
        "/srv/t\0/a",
        "/srv/t/a\nb",
        "/srv/t/\u{85}",
        "/srv/ｔ",
        "/srv\u{2215}t/a",
        "\u{2044}srv/t",
        "~/t",
        "file:///srv/t",
    ];
    for t in yes {
        assert!(covers(Kind::FsRead, "/srv/t/**", t), "{t:?} is below");
    }
    for t in no {
        assert!(!covers(Kind::FsRead, "/srv/t/**", t), "{t:?} is not below");
    }
    assert!(covers(Kind::FsRead, "/srv/t", "/srv/t/"));
    assert!(!covers(Kind::FsRead, "/srv/t", "/srv/t/a"), "a path without /** is that path only");
    assert!(covers(Kind::FsRead, "/**", "/"));
    assert!(
        covers(Kind::FsRead, "/srv/t/**", "/srv/t/*"),
        "a star in a file name is a letter like others"
    );
    let long = format!("/srv/t/{}", "x".repeat(4095));
    assert!(!covers(Kind::FsRead, "/srv/t/**", &long), "longer than PATH_MAX");
}

#[test]
fn path_scopes_hold_only_what_can_be_mounted() {
    for (given, normal) in [
        ("/", "/"),
        ("///", "/"),
        ("/.", "/"),
        ("/**", "/**"),
        ("//**", "/**"),
        ("/./**", "/**"),
        ("/a/", "/a"),
        ("/a//b/./c/", "/a/b/c"),
        ("/a//**", "/a/**"),
    ] {
        assert_eq!(cap(Kind::FsRead, given).to_string(), format!("fs.read:{normal}"));
    }
    for bad in [
        "",
        "*",
        "**",
        "a",
        "a/**",
        "./a",
        "../a",
        "~",
        "/*",
        "/a/*",
        "/a/*.txt",
        "/a**",
        "/**/a",
        "/a/**/b",
        "/a/**/**",
        "/a/../b",
        "/..",
        "/../**",
        "/a\0",
        "/a\n",
        "\u{feff}/a",
        " /a",
        &format!("/{}", "x".repeat(4095)),
    ] {
        assert!(Capability::new(Kind::FsRead, bad).is_err(), "{bad:?} was accepted");
    }
    assert!(Capability::new(Kind::FsRead, &format!("/{}/**", "x".repeat(4094))).is_ok());
}

#[test]
fn hosts_have_one_spelling() {
    for (given, canonical) in [
        ("Example.ORG", "example.org"),
        ("example.org.", "example.org"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("_dmarc.example.org", "_dmarc.example.org"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "[::1]"),
        ("[0:0:0:0:0:0:0:1]", "[::1]"),
        ("[2001:DB8::0:1]", "[2001:db8::1]"),
        ("[::ffff:169.254.169.254]", "169.254.169.254"),
        ("[::FFFF:a9fe:a9fe]", "169.254.169.254"),
        ("1e100.net", "1e100.net"),
        ("0xg", "0xg"),
        ("localhost", "localhost"),
    ] {
        assert_eq!(parse_host(given).as_deref(), Some(canonical), "{given}");
    }
    for bad in [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "a..",
        "-a.b",
        "a-.b",
        "a b",
        "a/b",
        "a@b",
        "user:pw@host",
        "a:80",
        "http://a",
        "::1",
        "[::1",
        "::1]",
        "[]",
        "[127.0.0.1]",
        "[fe80::1%eth0]",
        "[::1].",
        "2130706433",
        "0x7f000001",
        "0X7F.1",
        "127.1",
        "127.0.1",
        "0177.0.0.1",
        "127.0.0.01",
        "1.2.3.4.",
        "1.2.3.4.5",
        "256.1.1.1",
        "a.0x",
        "foo.09",
        "10.0x1F",
        "1.0X1f",
        &format!("a{}a", "a.".repeat(126)),
        "a\0b",
        "a\n",
        "a\u{ad}b",
        "exаmple.org",
        "example。org",
        "ｅxample.org",
        "１２７.0.0.1",
        "*",
        "*.a.b",
        "%61.org",
        &"a".repeat(64),
        &format!("{}a", "a.".repeat(127)),
    ] {
        assert_eq!(parse_host(bad), None, "{bad:?} was accepted");
    }
    assert!(parse_host(&"a".repeat(63)).is_some());
    assert!(parse_host(&format!("{}a", "a.".repeat(126))).is_some(), "253 bytes are allowed");
}

#[test]
fn authority_wildcards_stop_at_labels() {
    let k = Kind::NetHttp;
    for (scope, target, expected) in [
        ("*.example.org", "a.example.org:443", true),
        ("*.example.org", "a.b.EXAMPLE.org.:443", true),
        ("*.example.org", "example.org:443", false),
        ("*.example.org", "badexample.org:443", false),
        ("*.example.org", ".example.org:443", false),
        ("*.example.org", "example.org.evil.net:443", false),
        ("*.example.org", "evil.net/x.example.org:443", false),
        ("*.example.org", "evil@x.example.org:443", false),
        ("*.example.org", "a.example.org:80", false),
        ("*.example.org:*", "a.example.org:80", true),
        ("example.org", "example.org", false), // an access always names its port
        ("example.org:*", "example.org:0", false),
        ("example.org:*", "example.org:65535", true),
        ("example.org:*", "example.org:65536", false),
        ("example.org:*", "example.org:0443", false),
        ("example.org:*", "example.org:+443", false),
        ("example.org:*", "example.org:443:80", false),
        ("example.org:*", "example.org: 443", false),
        ("169.254.169.254:80", "[::ffff:a9fe:a9fe]:80", true),
        ("[::ffff:10.0.0.1]:80", "10.0.0.1:80", true),
        ("[::1]:80", "[0:0::1]:80", true),
        ("10.0.0.1:80", "167772161:80", false),
        ("*:80", "0xa000001:80", false),
        ("*:80", "012.0.0.1:80", false),
        ("*:*", "[::1]:1", true),
        ("*:*", "x\0.org:1", false),
        ("*:*", "bücher.example:1", false),
    ] {
        assert_eq!(covers(k, scope, target), expected, "{scope} on {target:?}");
    }
    for bad in [
        "",
        ":",
        ":80",
        "a:",
        "a:0",
        "a:65536",
        "a:080",
        "a:-1",
        "a:8*",
        "a:99999999999999999999",
        "a.*.b",
        "a.*",
        "*a.org",
        "**",
        "**.a.org",
        "*.",
        "*.org",
        "*.*.org",
        "*.10.0.0.1",
        "*.[::1]",
        "http://a.org",
        "a.org/x",
        "u@a.org",
        "a.org:80:80",
        "::1",
        "[::1]80",
        "a.org\n",
        "a.org\0:80",
        "é.org",
        "*:*:*",
        "127.1:80",
        "0x7f.1:80",
    ] {
        assert!(Capability::new(k, bad).is_err(), "{bad:?} was accepted");
    }
    assert_eq!(cap(k, "Example.ORG.").to_string(), "net.http:example.org:443");
    assert_eq!(cap(k, "[::FFFF:1.2.3.4]").to_string(), "net.http:1.2.3.4:443");
}

#[test]
fn subjects_take_wildcards_as_whole_tokens() {
    let k = Kind::EventSubscribe;
    for (scope, target, expected) in [
        ("a.*", "a.b", true),
        ("a.*", "a", false),
        ("a.*", "a.b.c", false),
        ("a.>", "a.b.c", true),
        ("a.>", "a", false),
        (">", "a", true),
        ("*.b", "A.b", true),
        ("a", "A", false),
        (">", "a.*", false),
        (">", "a.>", false),
        (">", "a..b", false),
        (">", ".a", false),
        (">", "a.", false),
        (">", "", false),
        (">", "a b", false),
        (">", "a\n", false),
        (">", "a\0", false),
        (">", "а", false),
        ("a.*.c", "a.b.c", true),
        ("a.*.c", "a.b.b", false),
    ] {
        assert_eq!(covers(k, scope, target), expected, "{scope} on {target:?}");
    }
    for bad in [
        "", ".", "a.", ".a", "a..b", ">.a", "a.>.b", "a*", "*a", "a>", "**", ">>", "a b", "é",
        "a\n", "a\0",
    ] {
        assert!(Capability::new(k, bad).is_err(), "{bad:?} was accepted");
    }
    assert!(Capability::new(k, &"t.".repeat(16)).is_err());
    assert!(Capability::new(k, &format!("{}t", "t.".repeat(15))).is_ok());
    assert!(Capability::new(k, &format!("{}t", "t.".repeat(16))).is_err(), "17 tokens");
    assert!(Capability::new(k, &"t".repeat(257)).is_err());
    assert!(!covers(k, ">", &"t".repeat(257)));
}

#[test]
fn names_are_compared_byte_for_byte() {
    let k = Kind::Env;
    for (scope, target, expected) in [
        ("HOME", "HOME", true),
        ("HOME", "home", false),
        ("HOME", "HOME2", false),
        ("APP_*", "APP_X", true),
        ("APP_*", "APP_", true),
        ("APP_*", "APP", false),
        ("*", "X", true),
        ("*", "", false),
        ("*", "A B", false),
        ("*", "A=B", false),
        ("*", "A*", false),
        ("*", "A\0", false),
        ("*", "A\n", false),
        ("*", "НОМЕ", false),
    ] {
        assert_eq!(covers(k, scope, target), expected, "{scope} on {target:?}");
    }
    for bad in
        ["", "**", "*a", "a*b", "a**", " ", "a b", "é", "a\0", "a\n", "a=b", &"n".repeat(257)]
    {
        assert!(Capability::new(k, bad).is_err(), "{bad:?} was accepted");
    }
    assert!(!covers(k, "*", &"n".repeat(257)));
}

#[test]
fn wrong_text_is_answered_with_what_does_not_fit() {
    let error = |t: &str| t.parse::<Capability>().unwrap_err();
    assert_eq!(error(""), CapabilityError::NoScope);
    assert_eq!(error("fs.read"), CapabilityError::NoScope);
    assert!(error("fs.raed:/x").to_string().contains("did you mean fs.read?"));
    assert!(error("FS.READ:/x").to_string().starts_with("unknown capability kind"));
    assert!(matches!(error("fs.read:"), CapabilityError::BadScope { kind: Kind::FsRead, .. }));
    let huge = format!("fs.read:/{}", "x".repeat(1 << 20));
    assert_eq!(error(&huge), CapabilityError::TooLong(huge.len()));
    let hostile = error("\u{1b}[2J\u{202e}\n:x").to_string();
    assert!(!hostile.contains(['\u{1b}', '\u{202e}', '\n']), "{hostile:?}");
    assert!(serde_json::from_str::<Capability>("\"net.http:a b\"").is_err());
    assert!(serde_json::from_str::<CapabilitySet>("[\"tool:x\", \"nonsense\"]").is_err());
}

#[test]
fn everything_of_a_kind_is_riskier_than_a_part() {
    for (text, risk) in [
        ("fs.read:/srv/**", Risk::Medium),
        ("fs.read:/**", Risk::High),
        ("fs.read:/", Risk::Medium),
        ("fs.write:/x", Risk::High),
        ("fs.write:/**", Risk::Critical),
        ("fs.write://./**", Risk::Critical),
        ("net.http:a.org", Risk::Medium),
        ("net.http:*", Risk::High),
        ("net.http:*:*", Risk::High),
        ("net.tcp:*:22", Risk::Critical),
        ("event.subscribe:a.>", Risk::Low),
        ("event.subscribe:>", Risk::Medium),
        ("event.publish:*.>", Risk::High),
        ("event.publish:*", Risk::High),
        ("event.publish:*.a", Risk::Medium),
        ("secret:TOKEN", Risk::High),
        ("secret:*", Risk::Critical),
        ("env:A*", Risk::Medium),
        ("env:*", Risk::High),
        ("storage.kv:*", Risk::Low),
        ("tool:*", Risk::Low),
        ("exec:/**", Risk::High),
    ] {
        assert_eq!(text.parse::<Capability>().unwrap().risk(), risk, "{text}");
    }
    assert_eq!(Risk::Critical.raised(), Risk::Critical);
    assert!(Risk::Low < Risk::Medium && Risk::Medium < Risk::High && Risk::High < Risk::Critical);
}

/// The table of docs/reference/capabilities.md, as the code has it.
#[test]
fn every_kind_has_its_form_risk_enforcement_and_words() {
    use Enforcement::{Broker, Egress, Mount, Registration};
    use ScopeForm::{Authority, Name, Path, Subject};
    let table = [
        ("fs.read", Path, Risk::Medium, Mount),
        ("fs.write", Path, Risk::High, Mount),
        ("net.http", Authority, Risk::Medium, Egress),
        ("net.tcp", Authority, Risk::High, Egress),
        ("event.subscribe", Subject, Risk::Low, Broker),
        ("event.publish", Subject, Risk::Medium, Broker),
        ("storage.kv", Name, Risk::Low, Broker),
        ("db.read", Name, Risk::Medium, Broker),
        ("db.write", Name, Risk::High, Broker),
        ("env", Name, Risk::Medium, Mount),
        ("secret", Name, Risk::High, Broker),
        ("exec", Path, Risk::Medium, Mount),
        ("device", Path, Risk::High, Mount),
        ("gpu", Name, Risk::High, Mount),
        ("frames.in", Name, Risk::Medium, Broker),
        ("frames.out", Name, Risk::Low, Broker),
        ("host.call", Name, Risk::Medium, Broker),
        ("plugin.call", Name, Risk::Medium, Broker),
        ("tool", Name, Risk::Low, Registration),
        ("command", Name, Risk::Low, Registration),
        ("channel", Name, Risk::Low, Registration),
        ("service", Name, Risk::Low, Registration),
        ("hook", Name, Risk::Medium, Registration),
        ("mcp.sampling", Name, Risk::High, Broker),
        ("mcp.elicitation", Name, Risk::High, Broker),
        ("mcp.roots", Name, Risk::Low, Broker),
    ];
    assert_eq!(table.len(), Kind::ALL.len());
    for ((name, form, risk, enforcement), kind) in table.into_iter().zip(Kind::ALL) {
        assert_eq!(kind.as_str(), name);
        assert_eq!(Kind::parse(name), Some(*kind));
        assert_eq!(Kind::parse(&name.to_uppercase()), None);
        assert_eq!(serde_json::to_string(kind).unwrap(), format!("\"{name}\""));
        assert_eq!(serde_json::from_str::<Kind>(&format!("\"{name}\"")).unwrap(), *kind);
        assert_eq!(
            (kind.scope_form(), kind.risk(), kind.enforcement()),
            (form, risk, enforcement),
            "{name}"
        );
        assert!(
            kind.in_words().len() > 5 && !kind.in_words().ends_with('.'),
            "{name}: {}",
            kind.in_words()
        );
    }
}
