//! Text that names a destination: nothing panics, what is taken has one spelling, and the guard, the
//! rights and a second reading agree on it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use palisade_egress::{Authority, Host, Network, Target};
use palisade_model::{Access, Kind, capability::parse_host};

fuzz_target!(|input: &[u8]| {
    let host = Host::parse_bytes(input);
    let Ok(text) = std::str::from_utf8(input) else {
        assert!(host.is_err(), "a host that is not UTF-8");
        return;
    };
    if let Ok(host) = host {
        let shown = host.to_string();
        assert!(shown.bytes().all(|b| b.is_ascii_graphic() && !b"@%/\\?#,'\"<>".contains(&b)));
        assert_eq!(Host::parse(&shown).expect("its own text"), host);
        assert_eq!(parse_host(text), Some(shown.clone()));
        // What is kept as a name is nothing that a resolver would take for an address.
        assert_eq!(shown.trim_matches(['[', ']']).parse::<std::net::IpAddr>().ok(), host.address());
        let address = std::ffi::CString::new(shown).expect("no NUL");
        if host.name().is_some() {
            assert!(!is_inet_aton(address.to_str().expect("ASCII")), "{address:?}");
        }
    }
    if let Ok(authority) = Authority::parse(text) {
        let shown = authority.to_string();
        assert_eq!(Authority::parse(&shown).expect("its own text"), authority);
        let access = Access::new(Kind::NetTcp, text);
        assert_eq!(access.canonical_target().as_deref(), Some(shown.as_str()));
    }
    if let Ok(target) = Target::parse(text) {
        let shown = target.to_string();
        assert_eq!(Target::parse(&shown).expect("its own text"), target);
    }
    let base = Target::parse("https://a.example/b/c?d").expect("a URL");
    if let Ok(joined) = base.join(text) {
        assert_eq!(Target::parse(&joined.to_string()).expect("its own text"), joined);
        let other = text.contains("//") || text.contains(':');
        assert!(other || joined.authority() == base.authority(), "a path led elsewhere");
    }
    if let Ok(network) = text.parse::<Network>() {
        assert_eq!(network.to_string().parse(), Ok(network));
    }
});

/// Whether inet_aton(3) would read it: one to four numbers in decimal, octal or hexadecimal.
fn is_inet_aton(text: &str) -> bool {
    let number = |part: &str| match part.strip_prefix("0x").or(part.strip_prefix("0X")) {
        Some(hex) => hex.bytes().all(|b| b.is_ascii_hexdigit()),
        None => !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()),
    };
    text.split('.').count() <= 4 && text.split('.').all(number)
}
