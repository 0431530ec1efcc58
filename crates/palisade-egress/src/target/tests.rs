use proptest::prelude::*;

use super::*;

fn shown(url: &str) -> String {
    Target::parse(url).unwrap().to_string()
}

#[test]
fn urls_are_read_and_brought_into_one_form() {
    for (url, canonical) in [
        ("http://a.org", "http://a.org/"),
        ("HTTPS://A.org.:443/x", "https://a.org/x"),
        ("https://a.org:80", "https://a.org:80/"),
        ("http://a.org?q", "http://a.org/?q"),
        ("http://a.org/x#secret", "http://a.org/x"),
        ("http://a.org#x", "http://a.org/"),
        ("http://[::1]:8080/x?y", "http://[::1]:8080/x?y"),
        ("http://a.org/@b", "http://a.org/@b"),
    ] {
        assert_eq!(shown(url), canonical);
    }
}

#[test]
fn what_others_could_read_differently_is_refused() {
    for url in [
        "",
        "a.org",
        "//a.org",
        "ftp://a.org",
        "file:///etc/passwd",
        "http:a.org",
        "http:/a.org",
        "http://",
        "http:///x",
        "http://user@a.org/",
        "http://a.org:80@b.org/",
        "http://a.org\\@b.org/",
        "http://a.org\\.b.org",
        "http://a.org /",
        " http://a.org",
        "http://a.org/\r\nX: y",
        "http://a.org/\0",
        "http://a.org/é",
        "http://bücher.example/",
        "http://127.1/",
        "http://0x7f.1/",
        "http://2130706433/",
        "http://a.org:/",
        "http://a.org:0/",
        "http://a%2eorg/",
        "http://[::1/",
        "http://a.org#@b.org:x@",
    ] {
        if url == "http://a.org#@b.org:x@" {
            // A fragment, for every reader.
            assert_eq!(shown(url), "http://a.org/");
            continue;
        }
        assert!(Target::parse(url).is_err(), "taken: {url:?}");
    }
    assert!(Target::parse(&format!("http://a.org/{}", "x".repeat(MAX_URL_LEN))).is_err());
}

/// The examples of RFC 3986, 5.4, where the result is a URL that can be requested.
#[test]
fn references_are_joined_as_the_rfc_says() {
    let base = Target::parse("http://a.org/b/c/d;p?q").unwrap();
    for (reference, joined) in [
        ("g", "http://a.org/b/c/g"),
        ("./g", "http://a.org/b/c/g"),
        ("g/", "http://a.org/b/c/g/"),
        ("/g", "http://a.org/g"),
        ("//g.org", "http://g.org/"),
        ("?y", "http://a.org/b/c/d;p?y"),
        ("g?y", "http://a.org/b/c/g?y"),
        ("#s", "http://a.org/b/c/d;p?q"),
        ("g#s", "http://a.org/b/c/g"),
        (";x", "http://a.org/b/c/;x"),
        ("", "http://a.org/b/c/d;p?q"),
        (".", "http://a.org/b/c/"),
        ("./", "http://a.org/b/c/"),
        ("..", "http://a.org/b/"),
        ("../g", "http://a.org/b/g"),
        ("../..", "http://a.org/"),
        ("../../../g", "http://a.org/g"),
        ("/./g", "http://a.org/g"),
        ("/../g", "http://a.org/g"),
        ("g.", "http://a.org/b/c/g."),
        ("..g", "http://a.org/b/c/..g"),
        ("./g/.", "http://a.org/b/c/g/"),
        ("g/../h", "http://a.org/b/c/h"),
        ("g?y/../x", "http://a.org/b/c/g?y/../x"),
        ("https://b.org/x", "https://b.org/x"),
    ] {
        assert_eq!(base.join(reference).unwrap().to_string(), joined, "{reference}");
    }
    for bad in ["ftp://a.org", "javascript:1", "//user@b.org", "\\\\b.org", "/a b", "/\u{e9}"] {
        assert!(base.join(bad).is_err(), "taken: {bad:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_is_taken_reads_the_same_again(
        url in "(https?|ftp)?:?/{0,3}([aA.@:\\[\\]#?/\\\\%-]|org|80|127|é|\n){0,12}",
        reference in "(https?:)?/{0,3}([a.@:#?/\\\\-]|\\.\\./|org){0,8}"
    ) {
        if let Ok(target) = Target::parse(&url) {
            let text = target.to_string();
            prop_assert_eq!(&Target::parse(&text).unwrap(), &target);
            prop_assert!(!text.contains(['\\', '#', '\n']));
            prop_assert!(!target.authority().to_string().contains('@'));
            if let Ok(joined) = target.join(&reference) {
                prop_assert_eq!(&Target::parse(&joined.to_string()).unwrap(), &joined);
            }
        }
    }
}
