//! The operator's policy: its text, its floor, its ceilings.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use palisade_model::{ErrorCode, Failure, Guarantee, GuaranteeSet, Level, Limits, PluginId};
use palisade_policy::{MAX_POLICY_LEN, OperatorPolicy, PolicyError, check_limits, demand, parse};
use proptest::prelude::*;

fn id(text: &str) -> PluginId {
    PluginId::parse(text).unwrap()
}

fn message(text: &str) -> String {
    match parse(text) {
        Ok(policy) => panic!("{text:?} was accepted: {policy:?}"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn no_text_is_the_default_policy() {
    for text in ["", "\n# nothing\n"] {
        let policy = parse(text).unwrap();
        assert_eq!(policy, OperatorPolicy::default());
        assert_eq!(*policy.floor(), GuaranteeSet::default_floor());
        assert!(policy.forbids().is_empty() && policy.allows_consent());
        assert!(policy.plugin_floors().is_empty());
        assert_eq!(policy.backends(), None);
        assert_eq!(policy.candidates(&["b", "a"]), ["b", "a"]);
        assert_eq!(policy.default_limits(), Limits::default());
        assert_eq!(policy.check_consent(), Ok(()));
    }
}

#[test]
fn every_key_is_read() {
    let policy = parse(
        r#"
        forbid = ["net.http:*:*", "fs.read:/etc/**"]
        allow-consent = false
        backends = ["process", "wasm"]
        [floor]
        fs-isolated = "kernel"
        memory-capped = "policed"
        own-uid = "none"
        [max]
        cpu = 2
        memory = "1GiB"
        pids = 100
        files = 0x200
        disk = "10 MB"
        log-bytes-per-second = 4096
        rates = { requests-per-second = 10, events-per-second = 20, calls-per-second = 30 }
        "#,
    )
    .unwrap();
    let forbids: Vec<String> = policy.forbids().iter().map(ToString::to_string).collect();
    assert_eq!(forbids, ["net.http:*:*", "fs.read:/etc/**"]);
    let floor: Vec<_> = policy.floor().iter().collect();
    assert_eq!(
        floor,
        [(Guarantee::FsIsolated, Level::Kernel), (Guarantee::MemoryCapped, Level::Policed)]
    );
    let max = policy.ceilings();
    assert_eq!((max.cpu, max.memory, max.pids), (Some(2.0), Some(1 << 30), Some(100)));
    assert_eq!(
        (max.files, max.disk, max.log_bytes_per_second),
        (Some(512), Some(10_000_000), Some(4096))
    );
    assert_eq!(
        (max.requests_per_second, max.events_per_second, max.calls_per_second),
        (Some(10), Some(20), Some(30))
    );
    assert_eq!(policy.candidates(&["container", "wasm", "process"]), ["process", "wasm"]);
    let refused = policy.check_consent().unwrap_err();
    assert_eq!(
        (refused.code, refused.rule.as_deref()),
        (ErrorCode::Denied, Some("allow-consent = false"))
    );
    assert!(parse("backends = []").unwrap().candidates(&["process"]).is_empty());
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_name() {
    assert_eq!(
        message("\nforbit = []"),
        "policy, line 2, column 1: unknown key \"forbit\" in the policy; did you mean \"forbid\"?"
    );
    assert_eq!(
        message("[max]\n  memroy = 1"),
        "policy, line 2, column 3: unknown key \"memroy\" in max; did you mean \"memory\"?"
    );
    assert_eq!(
        message("max = { rates = { calls = 1 } }"),
        "policy, line 1, column 19: unknown key \"calls\" in max.rates"
    );
    assert_eq!(
        message("floor = { fs-isolate = \"kernel\" }"),
        "policy, line 1, column 11: unknown key \"fs-isolate\" in floor: not a guarantee; did you mean \"fs-isolated\"?"
    );
    assert!(
        message("x-note = 1").contains("unknown key"),
        "a policy has no room for notes but comments"
    );
    assert!(message("\"\\u001b[2J\" = 1").contains("\\\\u{1b}"), "keys are escaped");
}

#[test]
fn wrong_values_name_their_place() {
    assert_eq!(
        message("forbid = [\n  \"fs.read:/etc/**\",\n  \"fs.read:/etc/*.conf\",\n]"),
        "policy, line 3, column 3: forbid: fs.read takes an absolute path, or a folder followed by /**: a wildcard is allowed only as a last /**, because only that can be mounted"
    );
    assert_eq!(
        message("allow-consent = \"no\""),
        "policy, line 1, column 17: allow-consent: it is true or false"
    );
    assert!(
        message("# ümläut\nfloor = { \"fs-isolated\" = \"hard\" }")
            .starts_with("policy, line 2, column 27: floor.fs-isolated:")
    );
    assert!(message("floor.net-isolated = \"policed\"").contains("it holds or does not"));
    assert!(message("floor.pids-capped = 1").contains("\"kernel\", \"policed\" or \"none\""));
    for bad in [
        "forbid = \"fs.read:/x\"",
        "forbid = [1]",
        "forbid = [\"nonsense\"]",
        "floor = []",
        "max = 1",
        "max.rates = 1",
        "max.memory = \"1 gig\"",
        "max.memory = \"GiB\"",
        "max.memory = 1.5",
        "max.memory = -1",
        "max.memory = 0",
        "max.memory = \"99999999999TiB\"",
        "max.memory = \"-1B\"",
        "max.memory = \"1  B\"",
        "max.pids = 0",
        "max.pids = 4294967296",
        "max.pids = \"3\"",
        "max.cpu = 0",
        "max.cpu = 0.001",
        "max.cpu = nan",
        "max.cpu = inf",
        "max.cpu = 1025",
        "max.cpu = \"1\"",
        "backends = \"process\"",
        "backends = [\"Process\"]",
        "backends = [\"\"]",
        "backends = [\"a\", \"a\"]",
        "allow-consent = 1",
    ] {
        assert!(
            matches!(parse(bad), Err(PolicyError::BadValue { line: 1, .. })),
            "{bad:?}: {:?}",
            parse(bad)
        );
    }
}

#[test]
fn a_forbid_names_its_port() {
    assert_eq!(
        message("forbid = [\"net.http:evil.org\"]"),
        "policy, line 1, column 11: forbid: a forbid names its port: net.http:evil.org:* for every port"
    );
    for refused in ["net.http:*", "net.tcp:[::443]", "net.tcp:10.0.0.1"] {
        assert!(
            message(&format!("forbid = [{refused:?}]")).contains("names its port"),
            "{refused}"
        );
    }
    for fine in
        ["net.http:evil.org:443", "net.http:*:*", "net.tcp:[::443]:443", "net.tcp:10.0.0.1:1"]
    {
        assert_eq!(parse(&format!("forbid = [{fine:?}]")).unwrap().forbids().len(), 1, "{fine}");
    }
}

#[test]
fn text_that_is_not_toml_is_answered_with_its_place() {
    for (text, place) in [
        ("forbid = [", "line 1"),
        ("a = 1\nb = = 2", "line 2, column 5"),
        ("allow-consent = true\nallow-consent = true", "line 2, column 1"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(
            matches!(error, PolicyError::Syntax { .. }) && error.to_string().contains(place),
            "{error}"
        );
        assert_eq!(error.code(), ErrorCode::Usage);
    }
    let long = format!("#{}", "x".repeat(MAX_POLICY_LEN));
    assert_eq!(parse(&long), Err(PolicyError::TooLong { len: long.len() }));
    let many = format!("forbid = [{}]", "\"tool:x\",".repeat(palisade_policy::MAX_FORBIDS + 1));
    assert!(message(&many).contains("at most 4096 forbids"));
    let deep = format!("forbid = {}", "[".repeat(100_000));
    assert!(matches!(parse(&deep), Err(PolicyError::Syntax { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_text_makes_the_parser_panic_or_its_words_unsafe(
        text in "(floor|plugins|forbid|max|rates|backends|allow-consent|a\\*|[\\[\\]{}=\"'.,#\n \u{1b}\u{202e}é1]|true|memory|fs-isolated|-1|0x){0,30}"
    ) {
        if let Err(error) = parse(&text) {
            let failure = Failure::from(error);
            prop_assert!(!failure.message.chars().any(palisade_model::text::is_deceptive), "{:?}", failure.message);
        }
    }

    #[test]
    fn what_is_demanded_covers_the_floor_and_the_manifest(
        floor in levels(), adds in levels()
    ) {
        let text: Vec<String> = floor.iter().map(|(g, l)| format!("{g} = \"{l}\"")).collect();
        let policy = parse(&format!("floor = {{ {} }}", text.join(", "))).unwrap();
        prop_assert_eq!(policy.floor(), &floor);
        let demand = demand(&policy, &id("a"), &adds);
        prop_assert!(demand.covers(policy.floor()) && demand.covers(&adds));
        for (g, l) in demand.iter() {
            prop_assert_eq!(l, policy.floor().level(g).max(adds.level(g)), "nothing else is demanded");
        }
    }
}

fn levels() -> impl Strategy<Value = GuaranteeSet> {
    proptest::collection::vec((proptest::sample::select(Guarantee::ALL.to_vec()), 0..3), 0..8)
        .prop_map(|list| {
            let level = |g: Guarantee, l| match l {
                0 => Level::None,
                1 if g.as_str().ends_with("-capped") => Level::Policed,
                _ => Level::Kernel,
            };
            list.into_iter().map(|(g, l)| (g, level(g, l))).collect()
        })
}

#[test]
fn a_manifest_that_asks_for_more_than_the_ceilings_is_refused() {
    let policy = parse(
        "[max]\ncpu = 0.5\nmemory = \"128MiB\"\npids = 10\nfiles = 20\ndisk = 1000\nlog-bytes-per-second = \"1KiB\"\n[max.rates]\nrequests-per-second = 1\nevents-per-second = 2\ncalls-per-second = 3",
    )
    .unwrap();
    let mut limits = policy.default_limits();
    assert_eq!(
        check_limits(&limits, &policy),
        Ok(()),
        "defaults are lowered, since nobody asked for them"
    );
    assert_eq!((limits.memory, limits.pids, limits.cpu), (128 << 20, 10, 0.5));
    assert_eq!(limits.call_timeout, Limits::default().call_timeout);
    limits.memory += 1;
    assert_eq!(
        check_limits(&limits, &policy).unwrap_err().to_string(),
        "asks for more than the operator's policy allows: memory 134217729B (at most 128MiB)"
    );
    let PolicyError::OverCeiling(all) = check_limits(&Limits::default(), &policy).unwrap_err()
    else {
        panic!()
    };
    let keys: Vec<&str> = all.iter().map(|e| e.key).collect();
    assert_eq!(
        keys,
        [
            "memory",
            "pids",
            "files",
            "disk",
            "log-bytes-per-second",
            "rates.requests-per-second",
            "rates.events-per-second",
            "rates.calls-per-second",
            "cpu"
        ]
    );
    let failure = Failure::from(PolicyError::OverCeiling(all));
    assert_eq!(failure.code, ErrorCode::Denied);
    assert!(failure.rule.unwrap().starts_with("max.memory = 128MiB, max.pids = 10"));
    for cpu in [f64::NAN, f64::INFINITY, 0.51] {
        let limits = Limits { cpu, ..policy.default_limits() };
        assert!(check_limits(&limits, &policy).is_err(), "{cpu}");
    }
    assert_eq!(check_limits(&Limits::default(), &OperatorPolicy::default()), Ok(()));
}
