use std::net::SocketAddr;

use palisade_audit::{JsonLinesRecorder, MemoryRecorder, Phase, Record};
use palisade_model::{ErrorCode, Kind};

use super::*;
use crate::testing::{plugin, plugin_forbidden};

fn rights(granted: &[&str], forbidden: &[&str]) -> (Rights, Arc<MemoryRecorder>) {
    let recorder = Arc::new(MemoryRecorder::new(100));
    let caller = plugin_forbidden("p", granted, forbidden);
    (Rights::new(Gate::new(recorder.clone()), caller), recorder)
}

fn http(target: &str) -> Access<'_> {
    Access::new(Kind::NetHttp, target)
}

#[test]
fn the_callers_rules_decide_and_a_change_counts_at_once() {
    let (rights, recorder) = rights(&["net.http:*.example.org:443"], &["net.http:bad.example.org"]);
    assert!(rights.decide(&http("a.example.org:443")).is_ok());
    for refused in ["example.org:443", "a.example.org:80", "bad.example.org:443", "127.0.0.1:443"] {
        assert_eq!(rights.decide(&http(refused)).unwrap_err().code, ErrorCode::Denied, "{refused}");
    }
    assert!(
        rights.decide(&Access::new(Kind::NetTcp, "a.example.org:443")).is_err(),
        "another kind"
    );
    rights.caller().set_rules(Arc::default());
    assert!(rights.decide(&http("a.example.org:443")).is_err());
    assert!(recorder.records().is_empty(), "deciding records nothing");
}

#[test]
fn only_a_right_that_names_an_address_makes_it_named() {
    let (rights, _) = rights(
        &["net.http:*:*", "net.http:10.0.0.9:631", "net.http:[::1]:80", "net.http:localhost:8080"],
        &["net.http:169.254.169.254:*", "net.http:10.0.0.8:*"],
    );
    for (target, standing) in [
        ("10.0.0.9:631", Standing::Named),
        ("[::ffff:10.0.0.9]:631", Standing::Named),
        ("[::1]:80", Standing::Named),
        ("localhost:8080", Standing::Named),
        ("10.0.0.9:632", Standing::Silent),
        ("127.0.0.1:8080", Standing::Silent),
        ("10.0.0.8:80", Standing::Forbidden),
        ("169.254.169.254:80", Standing::Forbidden),
        ("[::ffff:169.254.169.254]:80", Standing::Forbidden),
        ("0x7f.1:80", Standing::Forbidden),
        ("not a host", Standing::Forbidden),
    ] {
        assert_eq!(rights.standing(&http(target)), standing, "{target}");
    }
    let tcp = Access::new(Kind::NetTcp, "10.0.0.9:631");
    assert_eq!(rights.standing(&tcp), Standing::Silent, "a right of another kind");
}

#[test]
fn an_owner_names_no_address() {
    let gate = Gate::new(Arc::new(MemoryRecorder::new(10)));
    let rights = Rights::new(gate, Caller::application());
    assert!(rights.decide(&http("example.org:443")).is_ok());
    assert_eq!(rights.standing(&http("127.0.0.1:80")), Standing::Silent);
}

fn note(rights: &Rights, authority: &str, verdict: Verdict<'_>) {
    let authority = Authority::parse(authority).unwrap();
    rights.record(&Entry { kind: Kind::NetHttp, authority: &authority, verdict });
}

#[test]
fn decisions_and_ends_are_facts_in_the_record() {
    let (rights, recorder) = rights(&["net.http:a.example.org"], &[]);
    let address: SocketAddr = "203.0.113.7:443".parse().unwrap();
    note(&rights, "a.example.org:443", Verdict::Allowed { address });
    let failure = rights.decide(&http("evil.example:443")).unwrap_err();
    note(&rights, "evil.example:443", Verdict::Refused { failure: &failure });
    note(&rights, "a.example.org:443", Verdict::Closed { sent: 5, received: 70, failure: None });
    let failure = Failure::new(ErrorCode::LimitExceeded, "too much\n\u{1b}[31m came");
    let closed = Verdict::Closed { sent: 1, received: 2, failure: Some(&failure) };
    note(&rights, "a.example.org:443", closed);

    let records = recorder.records();
    assert!(records.iter().all(|r| r.phase == Phase::Note && r.plugin.as_deref() == Some("p")));
    let [allowed, refused, closed, broken] = &records[..] else { panic!("{records:?}") };
    assert_eq!(allowed.kind, RecordKind::Egress);
    assert_eq!(allowed.decision, Some(Decision::Allow));
    assert_eq!(allowed.rule.as_deref(), Some("net.http:a.example.org:443"));
    assert_eq!(allowed.detail.as_deref(), Some("at 203.0.113.7:443"));
    assert_eq!(allowed.capability.as_deref(), Some("net.http"));
    assert_eq!(allowed.target.as_deref(), Some("a.example.org:443"));
    assert_eq!(refused.kind, RecordKind::Egress);
    assert_eq!((refused.decision, refused.code), (Some(Decision::Deny), Some(ErrorCode::Denied)));
    assert!(refused.rule.is_some());
    assert_eq!((closed.kind, closed.code), (RecordKind::EgressClosed, None));
    assert!(closed.detail.as_deref().unwrap().starts_with("5 bytes sent, 70 received"));
    assert_eq!(broken.code, Some(ErrorCode::LimitExceeded));
    let detail = broken.detail.as_deref().unwrap();
    assert!(detail.contains("in 2 connections so far 6 sent, 72 received"), "{detail}");
    assert!(detail.contains("too much\\n") && !detail.contains('\u{1b}'), "{detail}");
}

#[test]
fn a_flood_of_connections_is_counted_and_no_byte_of_it_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let recorder = Arc::new(JsonLinesRecorder::open(&path).unwrap());
    let rights = Rights::new(Gate::new(recorder.clone()), plugin("p", &["net.http:*:*"]));
    let address: SocketAddr = "203.0.113.7:443".parse().unwrap();
    for _ in 0..2000 {
        note(&rights, "a.example.org:443", Verdict::Allowed { address });
        let closed = Verdict::Closed { sent: 1, received: 10, failure: None };
        note(&rights, "a.example.org:443", closed);
    }
    drop(rights);
    drop(recorder);
    let text = std::fs::read_to_string(&path).unwrap();
    let records: Vec<Record> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let of = |kind| records.iter().filter(move |r| r.kind == kind);
    for kind in [RecordKind::Egress, RecordKind::EgressClosed] {
        let count: u64 = of(kind).map(|r| r.repeats.unwrap_or(1)).sum();
        assert_eq!(count, 2000, "{kind:?}");
        assert!(of(kind).count() < 20, "{kind:?}: {} lines", of(kind).count());
    }
    let sums = "in 2000 connections so far 2000 sent, 20000 received";
    assert!(of(RecordKind::EgressClosed).any(|r| r.detail.as_deref().unwrap().contains(sums)));
}
