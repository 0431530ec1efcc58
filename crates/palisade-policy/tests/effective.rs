//! From requests and grants to effective rights.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use palisade_model::{Capability, CapabilitySet, Enforcement, ErrorCode, Kind, Principal};
use palisade_policy::{
    Effective, ForbiddenWhy, Grant, OperatorPolicy, Requested, Unused, UnusedGrant, effective,
    parse,
};
use proptest::prelude::*;

const DIGEST: [u8; 32] = [0xab; 32];
const NOW: u64 = 1_000_000;

fn cap(text: &str) -> Capability {
    text.parse().unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

fn caps(texts: &[&str]) -> CapabilitySet {
    texts.iter().map(|t| cap(t)).collect()
}

fn grant(capability: Capability) -> Grant {
    let by = Principal::Operator("ann".into());
    Grant { capability, by, at: NOW - 10, until: None, manifest_digest: DIGEST }
}

fn decide(required: &[&str], optional: &[&str], grants: &[&str], forbid: &[&str]) -> Effective {
    let requested = Requested { required: caps(required), optional: caps(optional) };
    let grants: Vec<Grant> = grants.iter().map(|g| grant(cap(g))).collect();
    let policy = parse(&format!("forbid = {forbid:?}")).unwrap();
    effective(&requested, &grants, &policy, NOW, &DIGEST)
}

#[test]
fn absent_means_denied() {
    let nothing_granted = decide(&["fs.read:/a"], &["secret:x"], &[], &[]);
    assert!(nothing_granted.rights.is_empty());
    assert_eq!(nothing_granted.missing_required, [cap("fs.read:/a")]);
    assert_eq!(nothing_granted.missing_optional, [cap("secret:x")]);
    let nothing_requested = decide(&[], &[], &["fs.read:/**"], &[]);
    assert!(nothing_requested.rights.is_empty());
    let why = Unused::NotRequested;
    assert_eq!(
        nothing_requested.unused_grants,
        [UnusedGrant { capability: cap("fs.read:/**"), why }]
    );
}

#[test]
fn a_request_within_a_grant_holds_as_requested() {
    let e = decide(&["fs.read:/srv/a/**"], &[], &["fs.read:/srv/**"], &[]);
    assert_eq!(e.rights, caps(&["fs.read:/srv/a/**"]));
    assert!(e.missing_required.is_empty() && e.unused_grants.is_empty());
    assert_eq!(e.require(), Ok(()));
}

#[test]
fn a_person_may_narrow_a_request() {
    let e = decide(
        &["net.http:*.example.org:*"],
        &[],
        &["net.http:a.example.org", "net.http:b.example.org"],
        &[],
    );
    assert_eq!(e.rights, caps(&["net.http:a.example.org", "net.http:b.example.org"]));
    assert!(e.missing_required.is_empty());
}

#[test]
fn no_intersection_of_patterns_is_computed() {
    let e = decide(&["event.publish:a.*"], &[], &["event.publish:*.b"], &[]);
    assert!(e.rights.is_empty());
    assert_eq!(e.missing_required, [cap("event.publish:a.*")]);
    assert_eq!(e.unused_grants.len(), 1);
}

#[test]
fn another_kind_grants_nothing() {
    let e = decide(&["fs.read:/a"], &[], &["fs.write:/a", "exec:/a"], &[]);
    assert!(e.rights.is_empty());
    assert_eq!(e.unused_grants.len(), 2);
}

#[test]
fn a_grant_counts_for_its_manifest_and_until_its_end() {
    let requested = Requested { required: caps(&["secret:t"]), ..Default::default() };
    let with = |until, manifest_digest| {
        let grants = [Grant { until, manifest_digest, ..grant(cap("secret:t")) }];
        effective(&requested, &grants, &OperatorPolicy::default(), NOW, &DIGEST)
    };
    assert!(with(None, DIGEST).missing_required.is_empty());
    assert!(with(Some(NOW + 1), DIGEST).missing_required.is_empty());
    for (until, digest, why) in [
        (Some(NOW), DIGEST, Unused::Expired { until: NOW }),
        (Some(0), DIGEST, Unused::Expired { until: 0 }),
        (None, [0; 32], Unused::OtherManifest),
        (Some(NOW + 1), [0; 32], Unused::OtherManifest),
    ] {
        let e = with(until, digest);
        assert!(e.rights.is_empty());
        assert_eq!(e.missing_required, [cap("secret:t")]);
        assert_eq!(e.unused_grants, [UnusedGrant { capability: cap("secret:t"), why }]);
    }
}

#[test]
fn a_forbid_wins_over_the_grant() {
    let e = decide(&["secret:aws_key"], &[], &["secret:*"], &["secret:aws_*"]);
    assert!(e.rights.is_empty());
    assert_eq!(e.missing_required, [cap("secret:aws_key")]);
    assert_eq!(
        (e.forbidden[0].right.clone(), e.forbidden[0].why),
        (cap("secret:aws_key"), ForbiddenWhy::Within)
    );
    let failure = e.require().unwrap_err();
    assert_eq!(failure.code, ErrorCode::Denied);
    assert!(failure.rule.unwrap().contains("forbidden by the policy's secret:aws_*"));
    assert_eq!(failure.hint, None, "no grant would help");
}

#[test]
fn a_broker_right_that_only_overlaps_a_forbid_stays() {
    let e = decide(&["secret:*"], &[], &["secret:*"], &["secret:aws_*"]);
    assert_eq!(e.rights, caps(&["secret:*"]));
    assert!(e.forbidden.is_empty());
}

#[test]
fn a_mounted_right_that_overlaps_a_forbid_is_refused_whole() {
    for (right, forbid) in [
        ("fs.read:/**", "fs.read:/etc/**"),
        ("fs.read:/etc/**", "fs.read:/etc/shadow"),
        ("fs.write:/home/**", "fs.read:/home/u/.ssh/**"), // writing carries reading in it
        ("exec:/opt/**", "fs.read:/opt/keys/**"),
        ("device:/dev/**", "fs.write:/dev/sda"),
        ("fs.read:/etc", "fs.read:/etc/shadow"), // a folder once mounted
        ("fs.read:/", "fs.read:/etc/**"),
        ("env:*", "env:AWS_*"),
        ("gpu:*", "gpu:0"),
    ] {
        let e = decide(&[right], &[], &[right], &[forbid]);
        assert!(e.rights.is_empty(), "{right} stays beside {forbid}");
        assert_eq!(e.forbidden.len(), 1);
        assert_eq!(e.forbidden[0].why, ForbiddenWhy::MountCannotHoldException, "{right}");
        assert_eq!(e.forbidden[0].rule, cap(forbid));
        assert!(e.forbidden[0].to_string().contains("a mount cannot hold that exception"));
    }
    for (right, forbid) in [
        ("fs.read:/srv/**", "fs.read:/etc/**"),
        ("fs.read:/etcetera", "fs.read:/etc/**"),
        ("fs.read:/etc/**", "fs.write:/etc/x"), // reading may go on
        ("fs.read:/a/b", "fs.read:/a/bc"),
        ("env:PATH", "env:AWS_*"),
    ] {
        let e = decide(&[right], &[], &[right], &[forbid]);
        assert_eq!(e.rights, caps(&[right]), "{right} has nothing to do with {forbid}");
    }
}

#[test]
fn narrowing_a_mounted_right_past_the_forbid_saves_it() {
    let e = decide(
        &["fs.read:/**"],
        &[],
        &["fs.read:/srv/**", "fs.read:/etc/ssl/**"],
        &["fs.read:/etc/**"],
    );
    assert_eq!(e.rights, caps(&["fs.read:/srv/**"]));
    assert!(e.missing_required.is_empty());
    assert_eq!(
        (e.forbidden[0].right.clone(), e.forbidden[0].why),
        (cap("fs.read:/etc/ssl/**"), ForbiddenWhy::Within)
    );
}

#[test]
fn what_no_grant_could_help_is_said_before_anybody_is_asked() {
    let e = decide(&["fs.read:/etc/x"], &[], &[], &["fs.read:/etc/**"]);
    assert_eq!(e.forbidden[0].right, cap("fs.read:/etc/x"));
    assert_eq!(e.require().unwrap_err().hint, None);
}

#[test]
fn missing_rights_come_with_the_options_that_grant_them() {
    let e = decide(
        &["fs.read:/srv/texts/**", "net.http:a.org", "secret:k"],
        &["env:X"],
        &["net.http:a.org"],
        &["secret:k"],
    );
    let failure = e.require().unwrap_err();
    assert_eq!(
        failure.message,
        "required capabilities are missing: fs.read:/srv/texts/**, secret:k"
    );
    assert_eq!(failure.hint.as_deref(), Some("--grant 'fs.read:/srv/texts/**'"));
    assert!(failure.rule.unwrap().contains("secret:k"));
}

#[test]
fn grants_are_stored_as_json_with_the_digest_in_hex() {
    let g = Grant { until: Some(5), ..grant(cap("fs.read:/srv/**")) };
    let json = serde_json::to_value(&g).unwrap();
    assert_eq!(json["manifest_digest"], "ab".repeat(32));
    assert_eq!(json["capability"], "fs.read:/srv/**");
    assert_eq!(serde_json::from_value::<Grant>(json.clone()).unwrap(), g);
    for bad in ["", "ab", &"AB".repeat(32), &"zz".repeat(32), &"ab".repeat(33), &"é".repeat(32)] {
        let mut broken = json.clone();
        broken["manifest_digest"] = (*bad).into();
        assert!(serde_json::from_value::<Grant>(broken).is_err(), "{bad:?}");
    }
    let mut broken = json;
    broken["capability"] = "fs.read:relative".into();
    assert!(serde_json::from_value::<Grant>(broken).is_err());
}

fn capability() -> impl Strategy<Value = Capability> {
    let texts = [
        "fs.read:/",
        "fs.read:/**",
        "fs.read:/a",
        "fs.read:/a/**",
        "fs.read:/a/b/**",
        "fs.write:/a/**",
        "fs.write:/a/b",
        "exec:/a/b",
        "env:*",
        "env:A*",
        "env:AB",
        "secret:*",
        "secret:a*",
        "secret:ab",
        "event.publish:>",
        "event.publish:a.*",
        "event.publish:*.b",
        "event.publish:a.b",
        "net.http:*:*",
        "net.http:*.a.b",
        "net.http:x.a.b",
        "net.tcp:x.a.b",
        "net.tcp:*:443",
    ];
    proptest::sample::select(texts.map(cap).to_vec())
}

fn set() -> impl Strategy<Value = CapabilitySet> {
    proptest::collection::vec(capability(), 0..5).prop_map(CapabilitySet::from_iter)
}

fn any_grant() -> impl Strategy<Value = Grant> {
    (capability(), proptest::option::of(NOW - 1..NOW + 2), 0..4u8).prop_map(|(c, until, digest)| {
        let manifest_digest = if digest == 0 { [0; 32] } else { DIGEST };
        Grant { until, manifest_digest, ..grant(c) }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..Default::default() })]

    #[test]
    fn effective_is_requested_and_granted_and_not_forbidden(
        required in set(), optional in set(),
        grants in proptest::collection::vec(any_grant(), 0..6),
        forbids in set(),
    ) {
        let forbid: Vec<String> = forbids.iter().map(ToString::to_string).collect();
        let policy = parse(&format!("forbid = {forbid:?}")).unwrap();
        let requested = Requested { required, optional };
        let e = effective(&requested, &grants, &policy, NOW, &DIGEST);
        let counting: CapabilitySet = grants.iter()
            .filter(|g| g.manifest_digest == DIGEST && g.until.is_none_or(|u| NOW < u))
            .map(|g| g.capability.clone()).collect();

        prop_assert!(e.rights.is_subset_of(&requested.union()), "more than requested");
        prop_assert!(e.rights.is_subset_of(&counting), "more than granted");
        for right in e.rights.iter() {
            for f in forbids.iter().filter(|f| f.kind() == right.kind()) {
                prop_assert!(!right.is_subset_of(f));
                let mounted = right.kind().enforcement() == Enforcement::Mount;
                prop_assert!(!mounted || !f.is_subset_of(right), "a mount holds the forbidden {}", f);
            }
        }
        for r in requested.required.iter() {
            // A right that lies within the request may have come from another, overlapping one; but a
            // request of which nothing holds is missing, and one that is missing has no right equal to it.
            let held = e.rights.iter().any(|x| x.is_subset_of(r));
            let missing = e.missing_required.contains(r);
            prop_assert!(held || missing);
            prop_assert!(!missing || !e.rights.iter().any(|x| x == r));
        }
        prop_assert_eq!(e.require().is_ok(), e.missing_required.is_empty());
        let reported: Vec<&Capability> = e.unused_grants.iter().map(|u| &u.capability).collect();
        for g in &grants {
            let counts = g.manifest_digest == DIGEST && g.until.is_none_or(|u| NOW < u);
            let used = e.rights.iter().any(|r| r.is_subset_of(&g.capability) || g.capability.is_subset_of(r));
            prop_assert!(counts || reported.contains(&&g.capability));
            prop_assert!(!counts || used || reported.contains(&&g.capability)
                || e.forbidden.iter().any(|f| f.right.kind() == g.capability.kind()));
        }
    }

    #[test]
    fn one_more_forbid_never_gives_a_right(
        required in set(), grants in proptest::collection::vec(any_grant(), 0..6), forbids in set(), one in capability(),
    ) {
        let requested = Requested { required, optional: CapabilitySet::new() };
        let rights = |forbids: &CapabilitySet| {
            let list: Vec<String> = forbids.iter().map(ToString::to_string).collect();
            let policy = parse(&format!("forbid = {list:?}")).unwrap();
            effective(&requested, &grants, &policy, NOW, &DIGEST).rights
        };
        let before = rights(&forbids);
        let mut more = forbids;
        more.insert(one);
        prop_assert!(rights(&more).is_subset_of(&before));
    }
}

#[test]
fn the_kinds_of_mount_are_those_whose_scopes_nest() {
    // Overlap of a right and a forbid is decided by nesting alone, which is exact for paths and names
    // and would not be for subjects.
    use palisade_model::capability::ScopeForm;
    for kind in Kind::ALL.iter().filter(|k| k.enforcement() == Enforcement::Mount) {
        assert!(matches!(kind.scope_form(), ScopeForm::Path | ScopeForm::Name), "{kind}");
    }
}
