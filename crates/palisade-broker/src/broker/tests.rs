use std::time::Duration;

use palisade_audit::{MemoryRecorder, Phase};
use palisade_model::{Limits, Rates};
use schemars::JsonSchema;
use serde::Serialize;

use super::*;
use crate::{
    BrokerError, Need, Service,
    gate::tests::{memory_gate, plugin, plugin_with},
};

#[derive(Deserialize, JsonSchema)]
struct Query {
    id: u64,
    #[serde(default)]
    verbose: bool,
}

#[derive(Deserialize, JsonSchema)]
struct Options {
    #[serde(default)]
    deep: Nested,
}

#[derive(Deserialize, JsonSchema, Default)]
struct Nested {
    #[serde(default)]
    level: u8,
}

#[derive(Serialize, JsonSchema)]
struct Profile {
    name: String,
}

fn broker() -> (Broker, Arc<MemoryRecorder>) {
    let (gate, recorder) = memory_gate();
    (Broker::new(gate, Arc::new(ServiceRegistry::new())), recorder)
}

fn profile() -> Service<Query> {
    Service::new("get_user_profile", |_cx, q: Query| async move {
        let name = if q.verbose { format!("user number {}", q.id) } else { q.id.to_string() };
        Ok(Profile { name })
    })
}

async fn host_call(broker: &Broker, caller: &Arc<Caller>, text: &str) -> Result<String, Failure> {
    let payload = Payload::from_json_text(text.to_owned());
    let answer = broker.request(caller, HOST_CALL, &payload, None).await?;
    Ok(String::from_utf8(answer.bytes().to_vec()).unwrap())
}

async fn code(broker: &Broker, caller: &Arc<Caller>, method: &str, text: &str) -> ErrorCode {
    let payload = Payload::from_json_text(text.to_owned());
    broker.request(caller, method, &payload, None).await.unwrap_err().code
}

#[tokio::test]
async fn a_service_of_the_application_is_called_with_the_right_for_its_name() {
    let (broker, recorder) = broker();
    broker.services().register(profile()).unwrap();
    let allowed = plugin("a", &["host.call:get_user_profile"]);
    let text = r#"{"method":"get_user_profile","params":{"id":7,"verbose":true}}"#;
    let answer = host_call(&broker, &allowed, text).await.unwrap();
    assert_eq!(answer, r#"{"name":"user number 7"}"#);
    let outcome = recorder.records().pop().unwrap();
    assert_eq!(outcome.phase, Phase::Outcome);
    assert_eq!(outcome.capability.as_deref(), Some("host.call"));
    assert_eq!(outcome.target.as_deref(), Some("get_user_profile"));

    let other = plugin("b", &["host.call:get_user"]);
    let refused = host_call(&broker, &other, text).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Denied);
    assert_eq!(refused.hint.as_deref(), Some("--grant host.call:get_user_profile"));
}

#[tokio::test]
async fn a_service_of_the_application_is_no_method_and_a_method_no_service() {
    let (broker, _) = broker();
    broker.services().register(profile()).unwrap();
    broker
        .services()
        .register(Service::method("echo", |_cx, p: String| async move { Ok(p) }))
        .unwrap();
    let caller = plugin("a", &["host.call:*"]);
    assert_eq!(
        code(&broker, &caller, "get_user_profile", r#"{"id":1}"#).await,
        ErrorCode::NotFound
    );
    let text = r#"{"method":"echo","params":"x"}"#;
    assert_eq!(code(&broker, &caller, HOST_CALL, text).await, ErrorCode::NotFound);
    let payload = Payload::from_json_text(r#""x""#);
    let echoed = broker.request(&caller, "echo", &payload, None).await.unwrap();
    assert_eq!(echoed, payload);
}

#[tokio::test]
async fn what_does_not_exist_is_told_only_to_those_who_might_call_it() {
    let (broker, recorder) = broker();
    broker.services().register(profile()).unwrap();
    let text = r#"{"method":"get_user_profil"}"#;
    let trusted = host_call(&broker, &plugin("a", &["host.call:*"]), text).await.unwrap_err();
    assert_eq!(trusted.code, ErrorCode::NotFound);
    assert_eq!(trusted.hint.as_deref(), Some("did you mean get_user_profile?"));
    let other = host_call(&broker, &plugin("b", &[]), text).await.unwrap_err();
    assert_eq!(other.code, ErrorCode::Denied);
    let exists = r#"{"method":"get_user_profile","params":"no such"}"#;
    let same = host_call(&broker, &plugin("b", &[]), exists).await.unwrap_err();
    assert_eq!(same.code, ErrorCode::Denied, "nor can it be told by wrong parameters");
    assert_eq!(recorder.records().len(), 3, "all refusals are recorded");
}

#[tokio::test]
async fn names_are_unique_and_grantable() {
    let (broker, _) = broker();
    let services = broker.services();
    services.register(profile()).unwrap();
    let again = services.register(profile()).unwrap_err();
    assert_eq!(again, BrokerError::DuplicateService("get_user_profile".into()));
    let own = services.register(Service::method(HOST_CALL, |_cx, (): ()| async move { Ok(()) }));
    assert_eq!(own.unwrap_err(), BrokerError::DuplicateService(HOST_CALL.into()));
    for bad in ["", "two words", "é", "a*", &"x".repeat(129)] {
        let service = Service::new(bad, |_cx, (): ()| async move { Ok(()) });
        let error = services.register(service).unwrap_err();
        assert!(matches!(error, BrokerError::ServiceName(_)), "{bad:?}: {error}");
    }
}

#[tokio::test]
async fn parameters_that_do_not_fit_are_named() {
    let (broker, recorder) = broker();
    broker.services().register(profile()).unwrap();
    broker
        .services()
        .register(Service::new("tune", |_cx, o: Options| async move { Ok(o.deep.level) }))
        .unwrap();
    let caller = plugin("a", &["host.call:*"]);
    for (params, expected) in [
        (r#"{"id":"seven"}"#, "parameter id: invalid type: string \"seven\", expected u64"),
        (r#"{"id":-1}"#, "parameter id: invalid value"),
        (r#"{}"#, "missing field `id`"),
        (r#"{"id":1,"verbos":true}"#, "unknown parameter verbos"),
        (r#"{"id":1,"id":2}"#, "duplicate field `id`"),
        (r#"[]"#, "invalid length 0"),
        (r#"5"#, "invalid type: integer `5`"),
        ("{\"id\":1,\"x\\u001b[31m\\n\":1}", "unknown parameter x\\u{1b}[31m\\n"),
    ] {
        let text = format!(r#"{{"method":"get_user_profile","params":{params}}}"#);
        let failure = host_call(&broker, &caller, &text).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::InvalidParams, "{params}");
        assert!(failure.message.contains(expected), "{params}: {}", failure.message);
    }
    let text = r#"{"method":"tune","params":{"deep":{"level":256}}}"#;
    let failure = host_call(&broker, &caller, text).await.unwrap_err();
    assert!(failure.message.contains("parameter deep.level"), "{}", failure.message);
    let text = r#"{"method":"tune"}"#;
    assert_eq!(host_call(&broker, &caller, text).await.unwrap(), "0", "parameters left out");

    let text = r#"{"method":"tune","extra":1}"#;
    assert_eq!(code(&broker, &caller, HOST_CALL, text).await, ErrorCode::InvalidParams);
    assert_eq!(code(&broker, &caller, HOST_CALL, "garbage").await, ErrorCode::InvalidParams);
    let octets = Payload::octets("{}");
    let failure = broker.request(&caller, "nothing", &octets, None).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::NotFound);
    let denied = recorder.records().into_iter().filter(|r| r.phase == Phase::Note).count();
    assert_eq!(denied, 12, "each refusal is recorded");
}

#[tokio::test]
async fn the_right_is_computed_from_the_parameters() {
    let (broker, _) = broker();
    let service = Service::method("read", |_cx, name: String| async move { Ok(name) })
        .capability("env:NAME", |name: &String| Some(Need::new(Kind::Env, name.as_str())));
    broker.services().register(service).unwrap();
    let caller = plugin("a", &["env:HOME"]);
    let ask = |text: &'static str| {
        let (broker, caller) = (broker.clone(), caller.clone());
        async move {
            let payload = Payload::from_json_text(text);
            broker.request(&caller, "read", &payload, None).await
        }
    };
    assert!(ask(r#""HOME""#).await.is_ok());
    assert_eq!(ask(r#""PATH""#).await.unwrap_err().code, ErrorCode::Denied);
    assert_eq!(ask(r#""HO\nME""#).await.unwrap_err().code, ErrorCode::Denied);
}

#[tokio::test]
async fn sizes_are_bounded_both_ways() {
    let (broker, _) = broker();
    let big =
        Service::method("big", |_cx, n: usize| async move { Ok("x".repeat(n)) }).max_params(8);
    broker.services().register(big).unwrap();
    let caller = plugin("a", &[]);
    assert_eq!(code(&broker, &caller, "big", "        9").await, ErrorCode::LimitExceeded);
    assert_eq!(code(&broker, &caller, "big", "9000000").await, ErrorCode::LimitExceeded);
    let payload = Payload::from_json_text("9000");
    assert_eq!(broker.request(&caller, "big", &payload, None).await.unwrap().len(), 9002);
}

#[tokio::test]
async fn a_handler_that_panics_or_hangs_is_a_failure_and_harms_nobody_else() {
    let (broker, recorder) = broker();
    let services = broker.services();
    let early = |_cx: Context, now: bool| {
        assert!(!now, "panics before there is a future");
        async move {
            tokio::task::yield_now().await;
            Ok(std::hint::black_box(None::<u8>).unwrap())
        }
    };
    services.register(Service::method("panic", early)).unwrap();
    for (name, idempotent) in [("hang", false), ("hang_safely", true)] {
        let hang = Service::method(name, |_cx, (): ()| async move {
            std::future::pending::<()>().await;
            Ok(())
        });
        let hang = hang.deadline(Duration::from_millis(20));
        services.register(if idempotent { hang.idempotent() } else { hang }).unwrap();
    }
    let caller = plugin("a", &[]);
    assert_eq!(code(&broker, &caller, "panic", "true").await, ErrorCode::Internal);
    assert_eq!(code(&broker, &caller, "panic", "false").await, ErrorCode::Internal);
    let ask = |method: &'static str| {
        let (broker, caller) = (broker.clone(), caller.clone());
        async move { broker.request(&caller, method, &Payload::null(), None).await.unwrap_err() }
    };
    let slow = ask("hang").await;
    assert_eq!(slow.code, ErrorCode::Deadline);
    assert!(slow.hint.unwrap().contains("may have been done or not"));
    assert!(ask("hang_safely").await.hint.unwrap().contains("ask again"));
    let outcomes = recorder.records().into_iter().filter(|r| r.phase == Phase::Outcome).count();
    assert_eq!(outcomes, 4);
}

#[tokio::test]
async fn requests_over_the_rate_are_refused_before_they_are_read() {
    let (broker, recorder) = broker();
    broker.services().register(profile()).unwrap();
    let rates = Rates { requests_per_second: 3, ..Rates::default() };
    let caller = plugin_with("a", &[], &Limits { rates, ..Limits::default() });
    for _ in 0..3 {
        assert_eq!(code(&broker, &caller, "nothing", "{}").await, ErrorCode::NotFound);
    }
    for _ in 0..5 {
        assert_eq!(code(&broker, &caller, "nothing", "{}").await, ErrorCode::RateLimited);
    }
    assert_eq!(caller.rates().unwrap().exceeded(Bucket::Requests), 5);
    let limited = recorder.records().into_iter().filter(|r| r.code == Some(ErrorCode::RateLimited));
    assert_eq!(limited.count(), 5);
}

#[tokio::test]
async fn a_dropped_request_is_recorded_as_cancelled() {
    let (broker, recorder) = broker();
    let hang = Service::method("hang", |_cx, (): ()| async move {
        std::future::pending::<()>().await;
        Ok(())
    });
    broker.services().register(hang).unwrap();
    let asked = broker.request(&plugin("a", &[]), "hang", &Payload::null(), None);
    assert!(tokio::time::timeout(Duration::from_millis(5), asked).await.is_err());
    let last = recorder.records().pop().unwrap();
    assert_eq!((last.phase, last.code), (Phase::Outcome, Some(ErrorCode::Cancelled)));
}

#[tokio::test]
async fn a_request_that_takes_several_rights_needs_each() {
    let (broker, recorder) = broker();
    let copy = Service::new("copy", |_cx, ids: Vec<String>| async move { Ok(ids.len()) })
        .capabilities("storage.kv:ID of each", |ids: &Vec<String>| {
            ids.iter().map(|id| Need::new(Kind::StorageKv, id.as_str())).collect()
        });
    broker.services().register(copy).unwrap();
    let caller = plugin("a", &["storage.kv:a", "storage.kv:b"]);
    let ask = |ids: &str| format!(r#"{{"method":"copy","params":{ids}}}"#);
    assert_eq!(host_call(&broker, &caller, &ask(r#"["a","b"]"#)).await.unwrap(), "2");
    assert_eq!(recorder.records().pop().unwrap().target.as_deref(), Some("a"));
    for ids in [r#"["c"]"#, r#"["c","a"]"#, r#"["a","c"]"#, r#"["a","b","c"]"#] {
        let failure = host_call(&broker, &caller, &ask(ids)).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::Denied, "{ids}");
        let record = recorder.records().pop().unwrap();
        assert_eq!((record.target.as_deref(), record.code), (Some("c"), Some(ErrorCode::Denied)));
    }
}

#[tokio::test]
async fn a_right_to_all_of_a_scope_is_no_right_to_its_name() {
    let (broker, recorder) = broker();
    let list = Service::new("list", |_cx, prefix: String| async move { Ok(prefix) })
        .capability("storage.kv:PREFIX*", |prefix: &String| {
            Some(Need::every(Kind::StorageKv, format!("{prefix}*")))
        });
    broker.services().register(list).unwrap();
    let ask = |prefix: &str| format!(r#"{{"method":"list","params":"{prefix}"}}"#);
    let caller = plugin("a", &["storage.kv:notes/*", "storage.kv:one"]);
    for prefix in ["notes/", "notes/2026"] {
        host_call(&broker, &caller, &ask(prefix)).await.unwrap();
        let record = recorder.records().pop().unwrap();
        assert_eq!(record.target, Some(format!("storage.kv:{prefix}*")));
        assert_eq!(record.rule.as_deref(), Some("storage.kv:notes/*"));
    }
    for prefix in ["", "one", "notes", "other"] {
        let failure = host_call(&broker, &caller, &ask(prefix)).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::Denied, "{prefix}");
        assert!(failure.rule.unwrap().contains("covers the whole scope"));
        assert_eq!(failure.hint, Some(format!("--grant 'storage.kv:{prefix}*'")), "{prefix}");
    }
    let invalid = host_call(&broker, &caller, &ask("a b")).await.unwrap_err();
    assert_eq!(invalid.code, ErrorCode::InvalidParams);
}
