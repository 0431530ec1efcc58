//! `event.publish` through broker, gate and bus.
// The helpers of a test are a test too; the lint sees that only inside `#[test]`.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use palisade_audit::{MemoryRecorder, SystemClock};
use palisade_broker::{
    Broker, Caller, EventBus, Gate, LocalBus, Published, ServiceRegistry, SubscribeOptions,
    bus::MAX_HOPS,
};
use palisade_model::{
    ErrorCode, Failure, Generation, InstanceId, Limits, NodeId, Origin, Payload, PluginId,
    PluginRef, Rates, capability::SubjectPattern,
};
use palisade_policy::Rules;
use palisade_services::events;

fn plugin(rights: &[&str], events_per_second: u32) -> Arc<Caller> {
    let origin = Origin::Folder { path: "/srv/p".into(), owner: 1000 };
    let plugin = Arc::new(PluginRef { id: PluginId::parse("teller").unwrap(), origin });
    let node = NodeId::local();
    let instance = InstanceId { node, plugin, generation: Generation(1), serial: 1 };
    let rules = Rules::new(rights.iter().map(|r| r.parse().unwrap()).collect(), []);
    let rates = Rates { events_per_second, ..Rates::default() };
    let limits = Limits { rates, ..Limits::default() };
    Caller::plugin(instance, Arc::new(rules), &limits, Arc::new(SystemClock))
}

fn broker(bus: Arc<LocalBus>) -> Broker {
    let services = Arc::new(ServiceRegistry::new());
    services.register(events::publish(bus)).unwrap();
    Broker::new(Gate::new(Arc::new(MemoryRecorder::new(100))), services)
}

async fn publish(broker: &Broker, caller: &Arc<Caller>, text: &str) -> Result<Published, Failure> {
    let payload = Payload::from_json_text(text.to_owned());
    let trace = Some("00-trace".into());
    Ok(broker.request(caller, "event.publish", &payload, trace).await?.parse().unwrap())
}

#[tokio::test]
async fn an_event_arrives_with_its_data_as_written_and_its_source_as_known() {
    let bus = LocalBus::new();
    let pattern = SubjectPattern::parse("app.>").unwrap();
    let mut all = bus.subscribe(pattern, SubscribeOptions::default()).await.unwrap();
    let broker = broker(bus);
    let caller = plugin(&["event.publish:app.*"], 100);
    let text = r#"{"subject":"app.done","data":{"n": 12345678901234567890123, "a":[1,2]}}"#;
    let published = publish(&broker, &caller, text).await.unwrap();
    assert_eq!(published, Published { queued: 1, dropped: 0, blocked: 0 });
    let delivery = all.next().await.unwrap();
    let event = delivery.event();
    assert_eq!(&event.data.bytes()[..], br#"{"n": 12345678901234567890123, "a":[1,2]}"#);
    assert_eq!(&event.source, caller.principal());
    assert_eq!((event.hops, event.trace.as_deref()), (0, Some("00-trace")));

    publish(&broker, &caller, r#"{"subject":"app.done"}"#).await.unwrap();
    assert_eq!(all.next().await.unwrap().event().data, Payload::null());
}

#[tokio::test]
async fn only_granted_subjects_can_be_published_to() {
    let broker = broker(LocalBus::new());
    let caller = plugin(&["event.publish:app.*"], 100);
    for subject in ["other", "app", "app.a.b", "app.*", ">", "", "app.a\\n"] {
        let text = format!(r#"{{"subject":"{subject}"}}"#);
        let failure = publish(&broker, &caller, &text).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::Denied, "{subject:?}");
    }
    for text in [r#"{}"#, r#"{"subject":"app.a","source":"x"}"#, r#"{"subject":"app.a","hops":0}"#]
    {
        let failure = publish(&broker, &caller, text).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::InvalidParams, "{text}");
    }
}

#[tokio::test]
async fn events_have_a_rate_of_their_own() {
    let broker = broker(LocalBus::new());
    let caller = plugin(&["event.publish:a"], 2);
    for _ in 0..2 {
        publish(&broker, &caller, r#"{"subject":"a"}"#).await.unwrap();
    }
    let failure = publish(&broker, &caller, r#"{"subject":"a"}"#).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::RateLimited);
    assert_eq!(failure.rule.as_deref(), Some("rate events 2/s"));
    assert!(failure.retry_after_ms.unwrap() > 300);
}

#[tokio::test]
async fn plugins_that_answer_each_other_in_a_circle_are_stopped() {
    let bus = LocalBus::new();
    let pattern = SubjectPattern::parse("ping").unwrap();
    let mut pings = bus.subscribe(pattern, SubscribeOptions::default()).await.unwrap();
    let broker = broker(bus);
    let caller = plugin(&["event.publish:ping"], 1000);
    publish(&broker, &caller, r#"{"subject":"ping"}"#).await.unwrap();
    let mut rounds = 0;
    let stopped = loop {
        let delivery = pings.next().await.unwrap();
        let _handling = caller.handle_delivery(delivery.event().hops);
        match publish(&broker, &caller, r#"{"subject":"ping"}"#).await {
            Ok(_) => rounds += 1,
            Err(failure) => break failure,
        }
        assert!(rounds < 100, "the circle was not noticed");
    };
    assert_eq!(stopped.code, ErrorCode::LimitExceeded);
    assert_eq!(rounds, MAX_HOPS);
}
