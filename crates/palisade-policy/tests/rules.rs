//! Decisions: compiled rules against the definition, and the words of a denial.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::borrow::Cow;

use palisade_model::{Access, Capability, CapabilitySet, Enforcement, ErrorCode, Kind};
use palisade_policy::{
    Decision, Denial, DenyRule, OperatorPolicy, Rules, grant_option, parse, registration_allowed,
};
use proptest::prelude::*;

fn cap(text: &str) -> Capability {
    text.parse().unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

fn caps(texts: &[&str]) -> CapabilitySet {
    texts.iter().map(|t| cap(t)).collect()
}

fn denial<'r, 'a>(rules: &'r Rules, kind: Kind, target: &'a str) -> Denial<'r, 'a> {
    match rules.decide(&Access::new(kind, target)) {
        Decision::Deny(denial) => denial,
        Decision::Allow { by } => panic!("{kind}:{target} is allowed by {by}"),
    }
}

/// Which kinds of forbid an access falls under: its own, and those of what the access carries in it.
fn falls_under(access: Kind, forbid: Kind) -> bool {
    access == forbid
        || matches!(
            (access, forbid),
            (Kind::FsWrite | Kind::Exec | Kind::Device, Kind::FsRead)
                | (Kind::Device, Kind::FsWrite)
                | (Kind::NetTcp, Kind::NetHttp)
        )
}

/// The definition: some right covers the access and no forbid does.
fn naive(rights: &[Capability], forbids: &[Capability], access: &Access<'_>) -> bool {
    let forbidden = forbids.iter().any(|f| {
        falls_under(access.kind, f.kind()) && f.covers(&Access::new(f.kind(), access.target))
    });
    !forbidden && rights.iter().any(|r| r.covers(access))
}

const KINDS: [Kind; 9] = [
    Kind::FsRead,
    Kind::FsWrite,
    Kind::Exec,
    Kind::Device,
    Kind::NetHttp,
    Kind::NetTcp,
    Kind::EventPublish,
    Kind::Secret,
    Kind::Tool,
];

fn scope(kind: Kind) -> BoxedStrategy<String> {
    use palisade_model::capability::ScopeForm as F;
    match kind.scope_form() {
        F::Path => "(/(a|b|a-|é|a!)){1,3}(/\\*\\*)?|/|/\\*\\*".boxed(),
        F::Authority => {
            "(((a|b|a-b)\\.){0,3}(a|b|ab)|\\*(\\.(a|b|a-b)){2,3}|\\*|10\\.0\\.0\\.1|\\[::1\\])(:(1|2|\\*))?".boxed()
        }
        F::Subject => "(a|b|\\*)(\\.(a|b|\\*)){0,3}(\\.>)?|>".boxed(),
        F::Name => "[ab./]{1,4}\\*?|\\*".boxed(),
    }
}

fn target(kind: Kind) -> BoxedStrategy<String> {
    use palisade_model::capability::ScopeForm as F;
    match kind.scope_form() {
        F::Path => "(/{1,2}(a|b|a-|é|a!|\\.|\\.\\.)){0,4}/?|(/(a|b|a!)){1,4}".boxed(),
        F::Authority => {
            "(((a|b|a-b|A)\\.){0,4}(a|b|ab|B)\\.?|10\\.0\\.0\\.1|\\[(0:)?:1\\]|\\[::ffff:10\\.0\\.0\\.1\\]|x y)(:(1|2|443|0))?".boxed()
        }
        F::Subject => "(a|b|c|)(\\.(a|b|c|\\*)){0,4}".boxed(),
        F::Name => "[abc./ ]{0,5}".boxed(),
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    proptest::sample::select(KINDS.to_vec())
}

fn capability() -> impl Strategy<Value = Capability> {
    kind().prop_flat_map(|k| {
        scope(k).prop_filter_map("not a scope", move |s| Capability::new(k, &s).ok())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..Default::default() })]

    #[test]
    fn compiled_rules_decide_as_the_definition_says(
        rights in proptest::collection::vec(capability(), 0..40),
        forbids in proptest::collection::vec(capability(), 0..6),
        accesses in proptest::collection::vec(kind().prop_flat_map(|k| (Just(k), target(k))), 1..60),
    ) {
        let rules = Rules::new(rights.iter().cloned().collect(), &forbids);
        for (kind, target) in &accesses {
            let access = Access::new(*kind, target);
            let decision = rules.decide(&access);
            prop_assert_eq!(decision.is_allowed(), naive(&rights, &forbids, &access), "{}", access);
            match decision {
                Decision::Allow { by } => prop_assert!(by.covers(&access) && rights.contains(by)),
                Decision::Deny(denial) => match denial.rule {
                    DenyRule::Forbidden(rule) => {
                        prop_assert!(forbids.contains(rule));
                        prop_assert!(falls_under(*kind, rule.kind()));
                        prop_assert!(rule.covers(&Access::new(rule.kind(), target)));
                    }
                    DenyRule::NotATarget => prop_assert_eq!(access.canonical_target(), None),
                    _ => prop_assert!(!rights.iter().any(|r| r.covers(&access))),
                },
            }
        }
    }

    #[test]
    fn a_grant_made_from_the_hint_allows_the_access_and_no_other(
        (kind, target, other) in kind().prop_flat_map(|k| (Just(k), target(k), target(k)))
    ) {
        let nothing = Rules::default();
        let access = Access::new(kind, &target);
        let denial = denial(&nothing, kind, &target);
        let hint = denial.how_to_grant();
        if let Some(option) = hint.strip_prefix("--grant ") {
            let granted = cap(&option.trim_matches('\'').replace(r"'\''", "'"));
            let rules = Rules::new([granted].into_iter().collect(), []);
            prop_assert!(rules.decide(&access).is_allowed());
            let other = Access::new(kind, &other);
            let same = other.canonical_target().is_some() && other.canonical_target() == access.canonical_target();
            prop_assert_eq!(rules.decide(&other).is_allowed(), same);
        }
    }

    #[test]
    fn a_denial_of_any_text_is_safe_to_show(target in any::<String>()) {
        let rules = Rules::default();
        for kind in Kind::ALL {
            let failure = denial(&rules, *kind, &target).to_failure();
            prop_assert_eq!(failure.code, ErrorCode::Denied);
            for text in [failure.message, failure.rule.unwrap(), failure.hint.unwrap()] {
                prop_assert!(!text.chars().any(palisade_model::text::is_deceptive), "{:?}", text);
            }
        }
    }
}

/// Forbids are found by the index alone, so every pair of neighbours is tried: parts that begin or end
/// alike, and bytes that sort before the separator.
#[test]
fn every_pair_of_open_forbids_is_found_and_nothing_else() {
    let parts = ["a", "a-", "a!", "b"];
    let mut folders: Vec<String> = parts.iter().map(|a| format!("/{a}")).collect();
    folders.extend(parts.iter().flat_map(|a| parts.map(|b| format!("/{a}/{b}"))));
    let labels = ["a", "b", "a-a", "aa"];
    let names: Vec<String> =
        labels.iter().flat_map(|a| labels.map(|b| format!("{a}.{b}"))).collect();
    let below = |more: [&str; 5], all: &[String], front: bool| -> Vec<String> {
        let join = |t: &String, m: &str| if front { format!("{m}{t}") } else { format!("{t}{m}") };
        all.iter().flat_map(|t| more.map(|m| join(t, m))).collect()
    };
    let worlds = [
        (
            Kind::FsRead,
            "/**",
            folders.clone(),
            ["", "/**"],
            below(["", "/a", "-", "!", "/a-/b"], &folders, false),
        ),
        (
            Kind::NetHttp,
            "*:*",
            names.clone(),
            ["*.", ""],
            below(["", "a.", "a-", "b", "a.a-a."], &names, true),
        ),
        (
            Kind::Secret,
            "*",
            names.clone(),
            ["", "*"],
            below(["", "a", "-", ".", "b.a"], &names, false),
        ),
    ];
    for (kind, everything, all, [front, back], targets) in worlds {
        let port = if kind == Kind::NetHttp { ":443" } else { "" };
        let forbids: Vec<Capability> =
            all.iter().map(|f| cap(&format!("{kind}:{front}{f}{back}{port}"))).collect();
        let right = [cap(&format!("{kind}:{everything}"))];
        for a in &forbids {
            for b in &forbids {
                let pair = [a.clone(), b.clone()];
                let rules = Rules::new(right.iter().cloned().collect(), &pair);
                for target in &targets {
                    let target = format!("{target}{port}");
                    let access = Access::new(kind, &target);
                    let allowed = rules.decide(&access).is_allowed();
                    assert_eq!(allowed, naive(&right, &pair, &access), "{access} beside {a}, {b}");
                }
            }
        }
    }
}

#[test]
fn many_rights_are_found_each() {
    let texts: Vec<String> = (0..200)
        .flat_map(|i| {
            [
                format!("fs.read:/srv/{i}/**"),
                format!("net.http:*.h{i}.example.org:443"),
                format!("net.http:h{i}.example.com:443"),
                format!("event.publish:a.*.t{i}"),
                format!("secret:S{i}_*"),
            ]
        })
        .collect();
    let rules = Rules::new(texts.iter().map(|t| cap(t)).collect(), &[cap("secret:S7_x")]);
    assert_eq!(rules.rights().len(), 1000);
    for i in 0..200 {
        for (kind, target, by) in [
            (Kind::FsRead, format!("/srv/{i}/x/y"), format!("fs.read:/srv/{i}/**")),
            (
                Kind::NetHttp,
                format!("a.b.h{i}.example.org:443"),
                format!("net.http:*.h{i}.example.org:443"),
            ),
            (
                Kind::NetHttp,
                format!("h{i}.example.com:443"),
                format!("net.http:h{i}.example.com:443"),
            ),
            (Kind::EventPublish, format!("a.b.t{i}"), format!("event.publish:a.*.t{i}")),
            (Kind::Secret, format!("S{i}_y"), format!("secret:S{i}_*")),
        ] {
            let access = Access::new(kind, &target);
            assert_eq!(rules.decide(&access), Decision::Allow { by: &cap(&by) });
            // What is in canonical form already is looked up where it stands, without a copy.
            assert!(matches!(access.canonical_target(), Some(Cow::Borrowed(_))), "{target}");
        }
    }
    assert!(matches!(denial(&rules, Kind::Secret, "S7_x").rule, DenyRule::Forbidden(_)));
    assert_eq!(denial(&rules, Kind::FsRead, "/srv/200").rule, DenyRule::NotGranted);
}

#[test]
fn a_forbid_wins_over_every_right_and_names_itself() {
    let rules = Rules::new(caps(&["net.http:*:*"]), &[cap("net.http:169.254.169.254:*")]);
    assert!(rules.decide(&Access::new(Kind::NetHttp, "a.org:80")).is_allowed());
    for target in ["169.254.169.254:80", "[::ffff:169.254.169.254]:80"] {
        let denial = denial(&rules, Kind::NetHttp, target);
        assert_eq!(denial.rule, DenyRule::Forbidden(&cap("net.http:169.254.169.254:*")));
        let failure = denial.to_failure();
        assert_eq!(failure.rule.as_deref(), Some("forbid net.http:169.254.169.254:*"));
        let hint = failure.hint.unwrap();
        assert!(hint.starts_with("no grant helps") && !hint.contains("--grant"), "{hint}");
    }
}

#[test]
fn a_forbid_holds_for_rights_that_carry_the_forbidden_one_in_them() {
    let forbids = [cap("fs.read:/etc/**"), cap("net.http:10.0.0.1:80")];
    let rules =
        Rules::new(caps(&["exec:/**", "fs.write:/**", "device:/**", "net.tcp:*:*"]), &forbids);
    for (kind, target) in [
        (Kind::FsWrite, "/etc/shadow"),
        (Kind::Exec, "/etc/x"),
        (Kind::Device, "/etc/x"),
        (Kind::NetTcp, "10.0.0.1:80"),
    ] {
        let denial = denial(&rules, kind, target);
        let DenyRule::Forbidden(rule) = denial.rule else { panic!("{kind}: {:?}", denial.rule) };
        assert!(forbids.contains(rule), "{rule} is not as written in the policy");
    }
    assert!(rules.decide(&Access::new(Kind::NetTcp, "10.0.0.1:81")).is_allowed());
    // And not the other way round: who may not open raw connections may still speak HTTP.
    let rules = Rules::new(
        caps(&["net.http:*:*", "fs.read:/**"]),
        &[cap("net.tcp:*:*"), cap("fs.write:/**")],
    );
    assert!(rules.decide(&Access::new(Kind::NetHttp, "a.org:80")).is_allowed());
    assert!(rules.decide(&Access::new(Kind::FsRead, "/x")).is_allowed());
}

#[test]
fn a_denial_says_what_which_rule_and_how_to_grant() {
    let rules = Rules::new(caps(&["net.http:a.org"]), []);
    let failure = denial(&rules, Kind::NetHttp, "B.org.:8080").to_failure();
    assert_eq!(failure.message, "net.http:B.org.:8080 is not granted");
    assert_eq!(failure.rule.as_deref(), Some("no effective net.http right covers it"));
    assert_eq!(failure.hint.as_deref(), Some("--grant net.http:b.org:8080"));

    let rules = rules.with_requested(caps(&["net.http:*.b.org"]));
    assert_eq!(
        denial(&rules, Kind::NetHttp, "x.b.org:443").how_to_grant(),
        "--grant net.http:x.b.org:443"
    );
    let unasked = denial(&rules, Kind::NetHttp, "c.org:443").how_to_grant();
    assert_eq!(
        unasked,
        "the manifest does not ask for it; once it does: --grant net.http:c.org:443"
    );
}

#[test]
fn a_hint_never_grants_more_than_was_asked_and_never_runs_anything() {
    let rules = Rules::default();
    // A plugin that names a file "**" must not get a hint that grants the folder.
    let wide = denial(&rules, Kind::FsRead, "/home/u/**").how_to_grant();
    assert!(!wide.contains("--grant"), "{wide}");
    let wide = denial(&rules, Kind::EventPublish, ">").how_to_grant();
    assert!(!wide.contains("--grant"), "{wide}");
    for (target, option) in [
        ("/a b", "--grant 'fs.read:/a b'"),
        ("/$(reboot)", "--grant 'fs.read:/$(reboot)'"),
        ("/a';reboot;'", r"--grant 'fs.read:/a'\'';reboot;'\'''"),
        ("/-x", "--grant fs.read:/-x"),
    ] {
        assert_eq!(denial(&rules, Kind::FsRead, target).how_to_grant(), option);
    }
    let hidden = denial(&rules, Kind::FsRead, "/a\u{202e}b").how_to_grant();
    assert!(!hidden.contains("--grant") && !hidden.contains('\u{202e}'), "{hidden}");
    assert_eq!(grant_option(&cap(&format!("fs.read:/{}", "x".repeat(2000)))), None);
    assert_eq!(grant_option(&cap("fs.read:/srv/**")).unwrap(), "--grant 'fs.read:/srv/**'");
}

#[test]
fn only_declared_contributions_are_registered() {
    let policy: OperatorPolicy = parse(r#"forbid = ["tool:rm*"]"#).unwrap();
    let declared = Rules::new(caps(&["tool:count", "tool:rm_all", "hook:pre.*"]), policy.forbids());
    let ask = |kind, name: &str| registration_allowed(&declared, &Access::new(kind, name)).cloned();
    assert_eq!(ask(Kind::Tool, "count").unwrap(), cap("tool:count"));
    assert_eq!(ask(Kind::Hook, "pre.call").unwrap(), cap("hook:pre.*"));
    let undeclared = ask(Kind::Tool, "delete").unwrap_err();
    assert_eq!(undeclared.code, ErrorCode::Denied);
    assert_eq!(undeclared.message, "tool:delete is not declared in the manifest");
    assert!(undeclared.hint.unwrap().contains("declares tool:delete"));
    assert!(ask(Kind::Command, "count").is_err(), "declared as a tool, not as a command");
    assert_eq!(ask(Kind::Tool, "rm_all").unwrap_err().rule.as_deref(), Some("forbid tool:rm*"));
    for kind in Kind::ALL.iter().filter(|k| k.enforcement() != Enforcement::Registration) {
        assert!(
            registration_allowed(&Rules::new(caps(&["secret:*"]), []), &Access::new(*kind, "x"))
                .is_err()
        );
    }
}
