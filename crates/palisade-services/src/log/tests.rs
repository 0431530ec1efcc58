use palisade_broker::{Broker, Gate, ServiceRegistry};
use palisade_model::{
    Generation, InstanceId, Limits, NodeId, Origin, Payload, PluginId, PluginRef,
    text::is_deceptive,
};
use palisade_policy::Rules;

use super::*;

fn plugin(log_bytes_per_second: u64) -> Arc<Caller> {
    let origin = Origin::Folder { path: "/srv/p".into(), owner: 1000 };
    let plugin = Arc::new(PluginRef { id: PluginId::parse("talker").unwrap(), origin });
    let node = NodeId::local();
    let instance = InstanceId { node, plugin, generation: Generation(1), serial: 1 };
    let limits = Limits { log_bytes_per_second, ..Limits::default() };
    let clock = Arc::new(palisade_audit::SystemClock);
    Caller::plugin(instance, Arc::new(Rules::default()), &limits, clock)
}

struct Bench {
    broker: Broker,
    tail: Arc<Tail>,
    recorder: Arc<palisade_audit::MemoryRecorder>,
}

fn bench() -> Bench {
    let tail = Arc::new(Tail::new(100, 1 << 20));
    let recorder = Arc::new(palisade_audit::MemoryRecorder::new(100));
    let services = Arc::new(ServiceRegistry::new());
    services.register(service(tail.clone())).unwrap();
    Bench { broker: Broker::new(Gate::new(recorder.clone()), services), tail, recorder }
}

async fn say(bench: &Bench, caller: &Arc<Caller>, params: &Value) -> Result<LogResult, Failure> {
    let payload = Payload::json(params).unwrap();
    let answer = bench.broker.request(caller, "log", &payload, None).await?;
    Ok(answer.parse().unwrap())
}

#[tokio::test]
async fn a_line_is_kept_with_its_level_and_fields_and_takes_no_right() {
    let b = bench();
    let params = serde_json::json!({
        "level": "warn", "message": "low on ink", "fields": {"left": 3, "colour": "red"}
    });
    assert_eq!(say(&b, &plugin(1 << 20), &params).await.unwrap(), LogResult { kept: true });
    let line = b.tail.lines().pop().unwrap();
    assert_eq!((line.level, line.stream), (LogLevel::Warn, LogStream::Log));
    assert_eq!(line.source, "plugin talker@local#1.1");
    assert_eq!(line.message, "low on ink");
    let fields: Vec<_> = line.fields.iter().map(|(n, v)| format!("{n}={v}")).collect();
    assert_eq!(fields, ["colour=red", "left=3"]);
    assert!(b.recorder.records().iter().all(|r| r.capability.is_none() && r.code.is_none()));
}

#[tokio::test]
async fn nothing_in_a_line_steers_the_readers_terminal() {
    let b = bench();
    let hostile = "\u{1b}[2J\u{202e}gpj\r\nFAKE 12:00 INFO all is well\u{2028}";
    let params = serde_json::json!({"message": hostile, "fields": {hostile: hostile}});
    say(&b, &plugin(1 << 20), &params).await.unwrap();
    assert!(output_line(&plugin(1 << 20), &*b.tail, LogStream::Stderr, hostile));
    for line in b.tail.lines() {
        let fields: String = line.fields.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let all = format!("{}{fields}", line.message);
        assert!(all.chars().all(|c| !is_deceptive(c)), "{all:?}");
        assert!(line.message.contains("\\r\\nFAKE"));
    }
}

#[tokio::test]
async fn what_is_too_long_is_cut_and_what_is_too_much_refused() {
    let b = bench();
    let long = serde_json::json!({
        "message": "é".repeat(20_000), "fields": {"f": "y".repeat(5000)}
    });
    say(&b, &plugin(1 << 20), &long).await.unwrap();
    let line = b.tail.lines().pop().unwrap();
    assert_eq!(line.message.chars().filter(|c| *c == 'é').count(), MAX_MESSAGE / 2);
    assert!(line.message.ends_with('…'));
    assert_eq!(line.fields["f"].len(), MAX_FIELD_VALUE + '…'.len_utf8());

    let many: BTreeMap<String, u8> = (0..=MAX_FIELDS).map(|i| (format!("f{i}"), 0)).collect();
    let wide = BTreeMap::from([("n".repeat(MAX_FIELD_NAME + 1), 0)]);
    for fields in [many, wide] {
        let params = serde_json::json!({"message": "x", "fields": fields});
        let refused = say(&b, &plugin(1 << 20), &params).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidParams);
    }
    for bad in [
        serde_json::json!({}),
        serde_json::json!({"message": 5}),
        serde_json::json!({"message": "x", "level": "fatal"}),
        serde_json::json!({"message": "x", "actor": "operator root"}),
    ] {
        let refused = say(&b, &plugin(1 << 20), &bad).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidParams, "{bad}");
    }
    let huge = serde_json::json!({"message": "x".repeat(300 << 10)});
    let refused = say(&b, &plugin(1 << 20), &huge).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::LimitExceeded);
}

#[tokio::test]
async fn log_and_output_share_one_rate_and_what_exceeds_it_is_counted() {
    let b = bench();
    let caller = plugin(1000);
    let half = "x".repeat(500);
    let params = serde_json::json!({"message": half});
    assert!(say(&b, &caller, &params).await.unwrap().kept);
    assert!(output_line(&caller, &*b.tail, LogStream::Stdout, &half));
    assert!(!say(&b, &caller, &params).await.unwrap().kept);
    assert!(!output_line(&caller, &*b.tail, LogStream::Stdout, &half));
    assert_eq!(b.tail.lines().len(), 2);
    assert_eq!(b.tail.dropped_bytes(), 1000);
    assert_eq!(caller.rates().unwrap().log_bytes_dropped(), 1000);
}

#[test]
fn the_tail_is_bounded_in_lines_and_bytes() {
    let lines = Tail::new(3, 1 << 20);
    let bytes = Tail::new(1000, 2000);
    let both = Fanout(vec![]);
    both.dropped(&Principal::Application, 1);
    let owner = Caller::application();
    for i in 0..50 {
        output_line(&owner, &lines, LogStream::Stdout, &i.to_string());
        output_line(&owner, &bytes, LogStream::Stdout, &"x".repeat(400));
    }
    let kept: Vec<_> = lines.lines().into_iter().map(|l| l.message).collect();
    assert_eq!(kept, ["47", "48", "49"]);
    assert_eq!(bytes.lines().len(), 3);
}
