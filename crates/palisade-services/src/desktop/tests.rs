use palisade_audit::SystemClock;
use palisade_broker::{Broker, LocalBus, SubscribeOptions};
use palisade_model::capability::SubjectPattern;
use serde_json::json;

use super::*;
use crate::testing::{ask, broker, plugin};

struct Room {
    _folder: tempfile::TempDir,
    bus: Arc<LocalBus>,
    data: Arc<Data>,
    broker: Broker,
}

fn room() -> Room {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::open(folder.path(), Arc::new(SystemClock)).unwrap();
    let (bus, data) = (LocalBus::new(), Arc::new(Data::new()));
    let (broker, _) = broker(|services, _| {
        register(services, Arc::clone(&data), bus.clone(), &storage).unwrap();
        crate::storage::register(services, &storage).unwrap();
    });
    Room { _folder: folder, bus, data, broker }
}

#[tokio::test]
async fn the_application_gives_named_data_to_those_who_may_have_it() {
    let room = room();
    room.data
        .provide("profile", |cx: Context, params| async move {
            Ok(json!({"for": cx.instance().unwrap().plugin.id, "params": params}))
        })
        .unwrap();
    room.data
        .provide("broken", |_, _| async {
            Err::<Value, _>(Failure::new(ErrorCode::NotFound, "there is no user"))
        })
        .unwrap();
    let p = plugin("p", &["host.call:data.profile", "host.call:data.b*", "host.call:other"]);
    let get = async |params| ask(&room.broker, &p, "data_request", params).await;
    let answer = get(json!({"name": "profile"})).await.unwrap();
    assert_eq!(answer, json!({"for": "p", "params": null}));
    let answer = get(json!({"key": "profile", "args": {"id": 7}})).await.unwrap();
    assert_eq!(answer["params"], json!({"id": 7}));
    assert_eq!(get(json!({"name": "broken"})).await.unwrap_err().code, ErrorCode::NotFound);
    let missing = get(json!({"name": "brokn"})).await.unwrap_err();
    assert_eq!(missing.code, ErrorCode::NotFound);
    assert_eq!(missing.hint.as_deref(), Some("did you mean broken?"));
    for name in ["secrets", "other", "", "*", "profile\n"] {
        let code = get(json!({"name": name})).await.unwrap_err().code;
        assert_eq!(code, ErrorCode::Denied, "{name:?}");
    }
    for params in [json!({}), json!({"name": 1}), json!({"name": "profile", "who": "admin"})] {
        assert_eq!(get(params).await.unwrap_err().code, ErrorCode::InvalidParams);
    }
    let calls = json!({"method": "data.profile", "params": {}});
    let code = ask(&room.broker, &p, "host.call", calls).await.unwrap_err().code;
    assert_eq!(code, ErrorCode::NotFound, "data is not a service of that name");
}

#[test]
fn a_piece_of_data_has_a_name_of_its_own_that_can_be_granted() {
    let data = Data::new();
    let provide = |name: &str| data.provide(name, |_, _| async { Ok(1) });
    provide("a").unwrap();
    assert_eq!(provide("a").unwrap_err(), BrokerError::DuplicateService("data.a".into()));
    for bad in ["", "a b", "a*", "é", &"x".repeat(300)] {
        assert!(matches!(provide(bad), Err(BrokerError::ServiceName(_))), "{bad}");
    }
    assert_eq!(data.names(), ["a"]);
}

#[tokio::test]
async fn an_event_is_posted_as_one_is_published() {
    let room = room();
    let pattern = SubjectPattern::parse("plugin.>").unwrap();
    let mut all = room.bus.subscribe(pattern, SubscribeOptions::default()).await.unwrap();
    let p = plugin("p", &["event.publish:plugin.p.*"]);
    for params in [
        json!({"event": "plugin.p.done", "data": {"n": 1}}),
        json!({"name": "plugin.p.done", "metadata": {"n": 1}}),
        json!({"event_type": "plugin.p.done", "payload": {"n": 1}}),
    ] {
        let answer = ask(&room.broker, &p, "post_event", params).await.unwrap();
        assert_eq!(answer, json!({"queued": 1, "dropped": 0, "blocked": 0}));
        let delivery = all.next().await.unwrap();
        assert_eq!(&delivery.event().data.bytes()[..], br#"{"n":1}"#);
        assert_eq!(&*delivery.event().subject, "plugin.p.done");
        assert_eq!(&delivery.event().source, p.principal());
    }
    for event in ["plugin.q.done", "plugin.p.>", ""] {
        let denied = ask(&room.broker, &p, "post_event", json!({"event": event})).await;
        assert_eq!(denied.unwrap_err().code, ErrorCode::Denied, "{event:?}");
    }
    let twice = json!({"event": "plugin.p.a", "name": "plugin.p.b"});
    let failure = ask(&room.broker, &p, "post_event", twice).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::InvalidParams);
}

#[tokio::test]
async fn data_that_a_plugin_stores_is_in_its_storage() {
    let room = room();
    let p = plugin("p", &["storage.kv:seen"]);
    let get = async |params| ask(&room.broker, &p, "get_plugin_data", params).await;
    assert_eq!(get(json!({"key": "seen"})).await.unwrap(), json!(null));
    assert_eq!(get(json!({"key": "seen", "default": []})).await.unwrap(), json!([]));
    let params = json!({"key": "seen", "data": ["a", 1]});
    ask(&room.broker, &p, "store_plugin_data", params).await.unwrap();
    assert_eq!(get(json!({"key": "seen"})).await.unwrap(), json!(["a", 1]));
    let same = ask(&room.broker, &p, "storage.get", json!({"key": "seen"})).await.unwrap();
    assert_eq!(same["value"], json!(["a", 1]));
    let other = json!({"key": "other", "value": 1});
    let denied = ask(&room.broker, &p, "store_plugin_data", other).await.unwrap_err();
    assert_eq!(denied.code, ErrorCode::Denied);
    assert_eq!(get(json!({"key": "other"})).await.unwrap_err().code, ErrorCode::Denied);
    let of_another = json!({"key": "seen", "value": 1, "plugin_name": "q"});
    let failure = ask(&room.broker, &p, "store_plugin_data", of_another).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::InvalidParams, "whose data it is says the connection");
}
