//! What the policy demands of the walls of single plugins.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use palisade_model::{ErrorCode, Guarantee as G, GuaranteeSet, Level, PluginId};
use palisade_policy::{MAX_PLUGINS, OperatorPolicy, PolicyError, demand, parse};
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
fn a_plugin_that_the_policy_names_has_a_floor_of_its_own_on_top_of_the_common_one() {
    let policy =
        parse("[plugins.\"org.example.notes\".floor]\nengine-walled = \"kernel\"").unwrap();
    let common = GuaranteeSet::default_floor();
    assert_eq!(*policy.floor(), common, "the floor of every plugin stays what it is");
    let raised = common.clone().with(G::EngineWalled, Level::Kernel);
    assert_eq!(policy.floor_of(&id("org.example.notes")), raised);
    for other in ["org.example.note", "org.example.notes2", "org.example", "notes"] {
        assert_eq!(policy.floor_of(&id(other)), common, "{other}");
    }
    let [rule] = policy.plugin_floors() else { panic!("{policy:?}") };
    assert_eq!(rule.pattern(), "org.example.notes");
    assert_eq!(rule.rule(), "plugins.\"org.example.notes\".floor");
    // A lower floor for all leaves the one of the plugin alone.
    let policy = parse("floor = {}\nplugins.a.floor.own-kernel = \"kernel\"").unwrap();
    let only = GuaranteeSet::new().with(G::OwnKernel, Level::Kernel);
    assert_eq!(policy.floor_of(&id("a")), only);
    assert_eq!(policy.floor_of(&id("b")), GuaranteeSet::new());
}

#[test]
fn of_all_that_names_a_plugin_the_strongest_holds() {
    let policy = parse(
        r#"
        [floor]
        memory-capped = "policed"
        disk-capped = "kernel"
        [plugins."*".floor]
        pids-capped = "policed"
        [plugins."org.example.*".floor]
        engine-walled = "kernel"
        disk-capped = "policed"
        pids-capped = "kernel"
        [plugins."org.example.notes".floor]
        memory-capped = "kernel"
        pids-capped = "policed"
        "#,
    )
    .unwrap();
    let levels = |name: &str| {
        let floor = policy.floor_of(&id(name));
        [G::MemoryCapped, G::DiskCapped, G::PidsCapped, G::EngineWalled].map(|g| floor.level(g))
    };
    use Level::{Kernel, None, Policed};
    assert_eq!(levels("org.example.notes"), [Kernel, Kernel, Kernel, Kernel]);
    assert_eq!(levels("org.example.other"), [Policed, Kernel, Kernel, Kernel]);
    assert_eq!(levels("org.example"), [Policed, Kernel, Policed, None], "it has no last dot");
    assert_eq!(levels("other"), [Policed, Kernel, Policed, None]);
}

#[test]
fn what_is_said_of_plugins_is_read_strictly_and_errors_name_their_place() {
    assert_eq!(
        message("[plugins.\"a*\"]\nflor = {}"),
        "policy, line 2, column 1: unknown key \"flor\" in what the policy says of a plugin; did you mean \"floor\"?"
    );
    assert_eq!(
        message("[plugins.a.floor]\nengine-waled = \"kernel\""),
        "policy, line 2, column 1: unknown key \"engine-waled\" in floor: not a guarantee; did you mean \"engine-walled\"?"
    );
    assert_eq!(
        message("[plugins.a.floor]\nengine-walled = \"policed\""),
        "policy, line 2, column 17: plugins.\"a\".floor.engine-walled: it holds or does not: \"kernel\" or \"none\""
    );
    assert_eq!(
        message("[plugins.a.floor]\nmemory-capped = \"none\""),
        "policy, line 2, column 17: plugins.\"a\".floor.memory-capped: a plugin's floor only adds to the one of every plugin: \"none\" takes nothing away"
    );
    assert_eq!(
        message("[plugins.a]"),
        "policy, line 1, column 10: plugins.\"a\": it has no floor, so it would be no rule"
    );
    assert!(message("[plugins.a.floor]").contains("it demands nothing"));
    // Without quotes a dot makes another table.
    assert!(message("[plugins.org.example.floor]").contains("unknown key \"example\""));
    assert!(message("[plugin.a.floor]").contains("did you mean \"plugins\"?"));
    for bad in [
        "plugins = []",
        "plugins = \"a\"",
        "plugins.a = \"kernel\"",
        "plugins.a.floor = \"engine-walled\"",
        "plugins.a.floor = [\"engine-walled\"]",
        "plugins.a.floor.engine-walled = true",
    ] {
        let error = parse(bad).unwrap_err();
        assert!(matches!(error, PolicyError::BadValue { line: 1, .. }), "{bad}: {error}");
        assert_eq!(error.code(), ErrorCode::Usage);
    }
    let one = "\" = { floor = { own-uid = \"kernel\" } }\n";
    let many: String = (0..=MAX_PLUGINS).map(|n| format!("\"p{n}{one}")).collect();
    assert!(message(&format!("[plugins]\n{many}")).contains("at most 4096 patterns"));
}

#[test]
fn a_name_that_no_plugin_can_have_is_refused() {
    let with = |name: &str| format!("[plugins.{name:?}.floor]\nengine-walled = \"kernel\"");
    for name in [
        "",
        "Org.Example",
        "org.Example.*",
        "*.example",
        "org.*.notes",
        "**",
        "a b",
        "a..b",
        "a..*",
        ".a*",
        "-*",
        "org.example.",
        "plugin.call:a",
        "a>",
        "a?",
        "\u{e9}*",
        "../*",
    ] {
        let said = message(&with(name));
        assert!(said.contains("a plugin is named by its id"), "{name:?}: {said}");
        assert!(said.starts_with("policy, line 1, column 10: plugins:"), "{name:?}: {said}");
    }
    let longest = "a".repeat(PluginId::MAX_LEN);
    assert!(message(&with(&format!("{longest}a"))).contains("at most 64 characters"));
    for (name, named) in [
        ("*", "anything"),
        ("a*", "a"),
        ("a-*", "a-b"),
        ("a.*", "a.b"),
        ("a_*", "a_b"),
        (&format!("{longest}*"), &longest),
        (&longest, &longest),
    ] {
        let policy = parse(&with(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let level = policy.floor_of(&id(named)).level(G::EngineWalled);
        assert_eq!(level, Level::Kernel, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn whatever_the_policy_says_of_a_plugin_never_lowers_what_is_demanded(
        patterns in proptest::collection::btree_map("[ab]{1,2}\\*?|\\*", (any::<bool>(), 0..3usize), 0..5),
        name in "[ab]{1,3}",
    ) {
        let guarantees = [G::EngineWalled, G::MemoryCapped, G::OwnKernel];
        let text: String = patterns
            .iter()
            .map(|(pattern, (kernel, which))| {
                let guarantee = guarantees[*which];
                let level = if *kernel || guarantee != G::MemoryCapped { "kernel" } else { "policed" };
                format!("[plugins.\"{pattern}\".floor]\n{guarantee} = \"{level}\"\n")
            })
            .collect();
        let policy: OperatorPolicy = parse(&text).unwrap();
        let adds = GuaranteeSet::new().with(G::OwnUid, Level::Kernel);
        let demand = demand(&policy, &id(&name), &adds);
        prop_assert!(demand.covers(policy.floor()) && demand.covers(&adds));
        for (pattern, (_, which)) in &patterns {
            // Another way to say what a pattern names.
            let names = match pattern.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => name == *pattern,
            };
            let rule = policy.plugin_floors().iter().find(|of| of.pattern() == *pattern).unwrap();
            prop_assert_eq!(rule.names(&id(&name)), names);
            let level = demand.level(guarantees[*which]);
            prop_assert!(!names || level >= rule.floor().level(guarantees[*which]));
        }
    }
}
