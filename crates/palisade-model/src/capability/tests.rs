//! Behaviour of scopes, checked against brute force.
//!
//! The references here share no code with the matchers: they expand patterns and targets to lists of
//! parts and compare those one by one. Where the alphabet is small enough every pattern is compared with
//! every other over every target; proptest covers longer and stranger text.

use std::{net::IpAddr, path::Path};

use proptest::prelude::*;

use super::*;

fn cap(kind: Kind, scope: &str) -> Capability {
    Capability::new(kind, scope).unwrap_or_else(|e| panic!("{scope:?}: {e}"))
}

fn covers(kind: Kind, scope: &str, target: &str) -> bool {
    cap(kind, scope).covers(&Access::new(kind, target))
}

/// All words over `alphabet` of `1..=max` symbols, joined by `separator`.
fn words(alphabet: &[&str], max: usize, separator: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut last: Vec<String> = vec![String::new()];
    for length in 0..max {
        last = last
            .iter()
            .flat_map(|w| {
                let separator = if length == 0 { "" } else { separator };
                alphabet.iter().map(move |a| format!("{w}{separator}{a}"))
            })
            .collect();
        all.extend(last.iter().cloned());
    }
    all
}

/// One kind of each form.
const FORMS: [Kind; 4] = [Kind::FsRead, Kind::NetHttp, Kind::EventPublish, Kind::Secret];

// ---- slow references -------------------------------------------------------------------------------

mod slow {
    use super::*;

    /// The components of an absolute path without `..`.
    fn components(path: &str) -> Option<Vec<String>> {
        use std::path::Component as C;
        if path.len() > 4095 || path.chars().any(|c| c < ' ' || ('\u{7f}'..='\u{9f}').contains(&c))
        {
            return None;
        }
        let mut parts = Path::new(path).components();
        (parts.next()? == C::RootDir).then_some(())?;
        parts
            .map(|c| match c {
                C::Normal(name) => name.to_str().map(str::to_owned),
                _ => None,
            })
            .collect()
    }

    pub(super) fn path(scope: &str, target: &str) -> bool {
        let Some(target) = components(target) else { return false };
        match scope.split_once("/**") {
            Some((folder, _)) => {
                let folder = components(&format!("{folder}/")).unwrap();
                target.iter().take(folder.len()).eq(folder.iter())
            }
            None => components(scope).unwrap() == target,
        }
    }

    /// The labels of a host from the right, or the address as one label.
    fn labels(host: &str) -> Option<Vec<String>> {
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(host).parse::<IpAddr>() {
            return (address.is_ipv6() == bare.is_some())
                .then(|| vec![address.to_canonical().to_string()]);
        }
        let mut host: Vec<char> = host.chars().map(|c| c.to_ascii_lowercase()).collect();
        if host.last() == Some(&'.') {
            host.pop();
        }
        let labels: Vec<String> = host.rsplit(|c| *c == '.').map(|l| l.iter().collect()).collect();
        let fits = |l: &String| {
            (1..64).contains(&l.len())
                && l.chars().all(|c| "abcdefghijklmnopqrstuvwxyz0123456789-_".contains(c))
                && !(l.starts_with('-') || l.ends_with('-'))
        };
        let number = |l: &String| {
            l.parse::<u128>().is_ok()
                || l == "0x"
                || l.strip_prefix("0x").is_some_and(|h| u128::from_str_radix(h, 16).is_ok())
        };
        (host.len() < 254 && labels.iter().all(fits) && !number(&labels[0])).then_some(labels)
    }

    fn port(text: &str) -> Option<u32> {
        (1..=65535u32).find(|p| p.to_string() == text)
    }

    pub(super) fn authority(scope: &str, target: &str) -> bool {
        let (scope_host, scope_port) = match scope.rsplit_once(':') {
            Some((h, p)) if !p.ends_with(']') => (h, p),
            _ => (scope, "443"),
        };
        let Some((host, target_port)) = target.rsplit_once(':') else { return false };
        let (Some(host), Some(target_port)) = (labels(host), port(target_port)) else {
            return false;
        };
        let host_fits = match scope_host.strip_prefix("*.") {
            _ if scope_host == "*" => true,
            Some(suffix) => {
                let suffix = labels(suffix).unwrap();
                host.len() > suffix.len() && host.iter().take(suffix.len()).eq(suffix.iter())
            }
            None => labels(scope_host).unwrap() == host,
        };
        host_fits && (scope_port == "*" || port(scope_port) == Some(target_port))
    }

    /// The NATS rule by recursion over tokens.
    pub(super) fn subject(scope: &str, target: &str) -> bool {
        fn fit(scope: &[&str], target: &[&str]) -> bool {
            match (scope, target) {
                ([], []) => true,
                ([">"], [_, ..]) => true,
                (["*", s @ ..], [_, t @ ..]) => fit(s, t),
                ([a, s @ ..], [b, t @ ..]) => a == b && fit(s, t),
                _ => false,
            }
        }
        let tokens: Vec<&str> = target.split('.').collect();
        let valid = |t: &&str| {
            !t.is_empty() && t.chars().all(|c| c.is_ascii_alphanumeric() || "_-$/:=".contains(c))
        };
        target.len() <= 256
            && tokens.len() <= 16
            && tokens.iter().all(valid)
            && fit(&scope.split('.').collect::<Vec<_>>(), &tokens)
    }

    pub(super) fn name(scope: &str, target: &str) -> bool {
        let valid = !target.is_empty()
            && target.len() <= 256
            && target.chars().all(|c| c.is_ascii_alphanumeric() || "._-:/@$+".contains(c));
        let (scope, target): (Vec<char>, Vec<char>) =
            (scope.chars().collect(), target.chars().collect());
        valid
            && match scope.split_last() {
                Some(('*', prefix)) => target.iter().take(prefix.len()).eq(prefix.iter()),
                _ => scope == target,
            }
    }

    pub(super) fn covers(kind: Kind, scope: &str, target: &str) -> bool {
        match kind.scope_form() {
            ScopeForm::Path => path(scope, target),
            ScopeForm::Authority => authority(scope, target),
            ScopeForm::Subject => subject(scope, target),
            ScopeForm::Name => name(scope, target),
        }
    }
}

// ---- exhaustive comparison over a small alphabet -----------------------------------------------------

/// All patterns of a form over a small alphabet, and targets enough to tell any two of them apart: two
/// symbols (so that a wildcard can differ from a literal) and one part more than the longest pattern (so
/// that an open end can differ from a closed one).
fn small_world(kind: Kind) -> (Vec<String>, Vec<String>) {
    match kind.scope_form() {
        ScopeForm::Path => {
            let paths = |depth| {
                let mut all: Vec<String> =
                    words(&["a", "b"], depth, "/").iter().map(|w| format!("/{w}")).collect();
                all.push("/".into());
                all
            };
            let mut patterns = paths(3);
            patterns.extend(paths(3).iter().map(|p| format!("{}/**", p.trim_end_matches('/'))));
            (patterns, paths(4))
        }
        ScopeForm::Authority => {
            let hosts = words(&["a", "b"], 3, ".");
            let mut host_patterns: Vec<String> = hosts.clone();
            host_patterns
                .extend(hosts.iter().filter(|h| h.contains('.')).map(|h| format!("*.{h}")));
            host_patterns.extend(["*".into(), "10.0.0.1".into(), "[::1]".into()]);
            let patterns = host_patterns
                .iter()
                .flat_map(|h| ["1", "2", "*"].map(|p| format!("{h}:{p}")))
                .collect();
            let mut target_hosts = words(&["a", "b"], 4, ".");
            target_hosts.extend(["10.0.0.1".into(), "[::1]".into(), "10.0.0.2".into()]);
            let targets = target_hosts
                .iter()
                .flat_map(|h| ["1", "2", "3"].map(|p| format!("{h}:{p}")))
                .collect();
            (patterns, targets)
        }
        ScopeForm::Subject => {
            let patterns = words(&["a", "b", "*", ">"], 3, ".")
                .into_iter()
                .filter(|p| !p.trim_end_matches('>').contains('>'))
                .filter(|p| p.matches('>').count() <= 1)
                .collect();
            (patterns, words(&["a", "b"], 4, "."))
        }
        ScopeForm::Name => {
            let mut patterns = words(&["a", "b"], 3, "");
            patterns.extend(words(&["a", "b"], 3, "").iter().map(|p| format!("{p}*")));
            patterns.push("*".into());
            (patterns, words(&["a", "b"], 4, ""))
        }
    }
}

#[test]
fn every_small_pattern_covers_what_the_reference_covers() {
    for kind in FORMS {
        let (patterns, targets) = small_world(kind);
        for p in &patterns {
            let c = cap(kind, p);
            for t in &targets {
                assert_eq!(
                    c.covers(&Access::new(kind, t)),
                    slow::covers(kind, p, t),
                    "{kind}: {p} on {t}"
                );
            }
        }
    }
}

#[test]
fn every_small_pair_is_a_subset_exactly_when_no_target_tells_them_apart() {
    for kind in FORMS {
        let (patterns, targets) = small_world(kind);
        let covered: Vec<Vec<bool>> = patterns
            .iter()
            .map(|p| targets.iter().map(|t| slow::covers(kind, p, t)).collect())
            .collect();
        let caps: Vec<Capability> = patterns.iter().map(|p| cap(kind, p)).collect();
        let mut subsets = 0;
        for (a, in_a) in caps.iter().zip(&covered) {
            for (b, in_b) in caps.iter().zip(&covered) {
                let shown = in_a.iter().zip(in_b).any(|(a, b)| *a && !*b);
                assert_eq!(a.is_subset_of(b), !shown, "{a} within {b}");
                subsets += usize::from(!shown);
            }
        }
        assert!(subsets > caps.len(), "{kind}: the small world has no true subset");
    }
}

/// The one place where "no" is too strict: the bound on targets, not the pattern, keeps the sets equal.
#[test]
fn at_the_length_bounds_the_form_decides() {
    let name = "n".repeat(256);
    let (open, closed) = (cap(Kind::Secret, &format!("{name}*")), cap(Kind::Secret, &name));
    assert!(closed.is_subset_of(&open) && !open.is_subset_of(&closed));
    let front = "t.".repeat(15);
    let (rest, one) = (
        cap(Kind::EventPublish, &format!("{front}>")),
        cap(Kind::EventPublish, &format!("{front}*")),
    );
    assert!(one.is_subset_of(&rest) && !rest.is_subset_of(&one));
    assert!(!rest.covers(&Access::new(Kind::EventPublish, &format!("{front}t.t"))));
}

#[test]
fn kinds_never_cover_each_other() {
    for a in Kind::ALL {
        for b in Kind::ALL.iter().filter(|b| a != *b && a.scope_form() == b.scope_form()) {
            let scope = match a.scope_form() {
                ScopeForm::Path => "/**",
                ScopeForm::Authority => "*:*",
                ScopeForm::Subject => ">",
                ScopeForm::Name => "*",
            };
            let target = match a.scope_form() {
                ScopeForm::Path => "/x",
                ScopeForm::Authority => "x.org:1",
                ScopeForm::Subject | ScopeForm::Name => "x",
            };
            assert!(covers(*a, scope, target));
            assert!(!cap(*a, scope).covers(&Access::new(*b, target)), "{a} covers {b}");
            assert!(!cap(*a, scope).is_subset_of(&cap(*b, scope)), "{a} within {b}");
        }
    }
}

// ---- random text -------------------------------------------------------------------------------------

/// Targets around the edge of what is valid for a form.
fn odd_target(kind: Kind) -> BoxedStrategy<String> {
    match kind.scope_form() {
        ScopeForm::Path => "(/{0,2}(a|b|A|ab|\\.|\\.\\.|…|\\*|\\*\\*|\u{7}|ａ)){0,5}/{0,2}".boxed(),
        ScopeForm::Authority => {
            "(\\*\\.|[aAbé_@-]|10\\.|0x|\\[::1\\]|1|\\.){0,6}(:(0|1|2|443|65535|65536|0?1|\\*|))?"
                .boxed()
        }
        ScopeForm::Subject => "(a|b|A|\\*|>|é|a b|)(\\.(a|b|A|\\*|>|)){0,4}".boxed(),
        ScopeForm::Name => "([abA.:/é\n*-]){0,5}".boxed(),
    }
}

fn form() -> impl Strategy<Value = Kind> {
    proptest::sample::select(FORMS.to_vec())
}

fn scope_and_target() -> impl Strategy<Value = (Kind, String, String)> {
    form().prop_flat_map(|k| {
        let scopes = small_world(k).0;
        (Just(k), proptest::sample::select(scopes), odd_target(k))
    })
}

fn any_capability() -> impl Strategy<Value = Capability> {
    form()
        .prop_flat_map(|k| proptest::sample::select(small_world(k).0).prop_map(move |s| cap(k, &s)))
}

fn any_set(most: usize) -> impl Strategy<Value = CapabilitySet> {
    proptest::collection::vec(any_capability(), 0..most).prop_map(CapabilitySet::from_iter)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..Default::default() })]

    #[test]
    fn odd_targets_are_covered_as_the_reference_says((kind, scope, target) in scope_and_target()) {
        prop_assert_eq!(covers(kind, &scope, &target), slow::covers(kind, &scope, &target));
    }

    #[test]
    fn odd_scopes_parse_or_are_refused_and_then_match_as_the_reference_says(
        (kind, scope, target) in form().prop_flat_map(|k| (Just(k), odd_target(k), odd_target(k)))
    ) {
        if let Ok(c) = Capability::new(kind, &scope) {
            prop_assert_eq!(
                c.covers(&Access::new(kind, &target)),
                slow::covers(kind, &scope, &target),
                "{} on {:?}", c, target
            );
        }
    }

    #[test]
    fn the_canonical_target_is_covered_by_the_same_rights((kind, scope, target) in scope_and_target()) {
        let c = cap(kind, &scope);
        let access = Access::new(kind, &target);
        match access.canonical_target() {
            Some(canonical) => {
                let again = Access::new(kind, &canonical);
                prop_assert_eq!(c.covers(&access), c.covers(&again));
                let twice = again.canonical_target();
                prop_assert_eq!(twice.as_deref(), Some(&*canonical));
            }
            None => prop_assert!(!c.covers(&access)),
        }
    }

    #[test]
    fn printed_capabilities_parse_back(
        (kind, scope) in form().prop_flat_map(|k| (Just(k), odd_target(k)))
    ) {
        if let Ok(c) = Capability::new(kind, &scope) {
            prop_assert_eq!(&c.to_string().parse::<Capability>().unwrap(), &c);
            let json = serde_json::to_string(&c).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Capability>(&json).unwrap(), &c);
        }
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in any::<String>(), target in any::<String>()) {
        let _ = text.parse::<Capability>();
        for kind in Kind::ALL {
            if let Ok(c) = Capability::new(*kind, &text) {
                let _ = c.covers(&Access::new(*kind, &target));
                prop_assert!(c.is_subset_of(&c));
                prop_assert_eq!(&c.to_string().parse::<Capability>().unwrap(), &c);
            }
        }
        let _ = (parse_host(&text), normalize_path(&text), is_valid_subject(&text));
    }

    #[test]
    fn a_subset_of_rights_allows_nothing_more(a in any_set(4), b in any_set(100)) {
        if a.is_subset_of(&b) {
            for kind in FORMS {
                for t in small_world(kind).1 {
                    let access = Access::new(kind, &t);
                    prop_assert!(a.allows(&access).is_none() || b.allows(&access).is_some(), "{}", access);
                }
            }
        }
        prop_assert!(a.is_subset_of(&a));
        let mut both = a.clone();
        both.extend(b.iter().cloned());
        prop_assert!(a.is_subset_of(&both) && b.is_subset_of(&both));
    }

    #[test]
    fn a_set_allows_what_one_of_its_members_covers(set in any_set(6), (kind, _, target) in scope_and_target()) {
        let access = Access::new(kind, &target);
        let expected = set.iter().any(|c| slow::covers(c.kind(), &c.scope().to_string(), &target) && c.kind() == kind);
        prop_assert_eq!(set.allows(&access).is_some(), expected);
        prop_assert!(set.allows(&access).is_none_or(|c| c.covers(&access)));
    }
}

// ---- named cases ---------------------------------------------------------------------------------------

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
