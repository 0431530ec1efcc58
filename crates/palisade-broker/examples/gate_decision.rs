//! Measures the gate: nanoseconds for one decision among 100 rights, and for one whole pass with
//! intent and outcome, with the record in memory and in a file.
//!
//! `cargo run --release -p palisade-broker --example gate_decision`, with `-- --json` for an array of
//! `{name, value, unit}`. Each value is the median of 21 rounds.
#![allow(clippy::print_stdout)]

use std::{error::Error, hint::black_box, sync::Arc, time::Instant};

use palisade_audit::{JsonLinesRecorder, MemoryRecorder, RecordKind, Recorder, SystemClock};
use palisade_broker::{Action, Caller, Gate};
use palisade_model::{
    Access, Capability, CapabilitySet, Failure, Generation, InstanceId, Kind, Limits, NodeId,
    Origin, Payload, PluginId, PluginRef,
};
use palisade_policy::Rules;

const ROUNDS: usize = 21;
const DECISIONS: u32 = 100_000;
const PASSES: u32 = 5_000;

fn plugin() -> Result<Arc<Caller>, Box<dyn Error>> {
    let mut rights = CapabilitySet::new();
    for i in 0..20 {
        for capability in [
            format!("event.publish:app{i}.*.done"),
            format!("event.subscribe:app{i}.>"),
            format!("fs.read:/srv/data/{i}/**"),
            format!("host.call:service_{i}"),
            format!("net.http:*.host{i}.example.org:443"),
        ] {
            rights.insert(capability.parse()?);
        }
    }
    let forbids: Vec<Capability> = vec!["net.http:169.254.169.254:*".parse()?];
    let origin = Origin::Folder { path: "/srv/bench".into(), owner: 1000 };
    let plugin = Arc::new(PluginRef { id: PluginId::parse("bench")?, origin });
    let node = NodeId::local();
    let instance = InstanceId { node, plugin, generation: Generation(1), serial: 1 };
    let rules = Arc::new(Rules::new(rights, &forbids));
    Ok(Caller::plugin(instance, rules, &Limits::default(), Arc::new(SystemClock)))
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

fn decide(gate: &Gate, caller: &Caller, access: Access<'_>) -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        for _ in 0..DECISIONS {
            let _ = black_box(gate.decide(black_box(caller), black_box(&access)));
        }
        start.elapsed().as_nanos() as f64 / f64::from(DECISIONS)
    });
    median(rounds.collect())
}

async fn pass(gate: &Gate, caller: &Caller) -> Result<f64, Failure> {
    let payload = Payload::from_json_text("x".repeat(64));
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..PASSES {
            let action = Action::new(RecordKind::Request)
                .access(Access::new(Kind::HostCall, "service_7"))
                .payload(&payload);
            gate.run(caller, action, || async { Ok::<_, Failure>(()) }).await?;
        }
        rounds.push(start.elapsed().as_nanos() as f64 / f64::from(PASSES));
        gate.recorder().flush().await?;
    }
    Ok(median(rounds))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let caller = plugin()?;
    let file = std::env::temp_dir().join(format!("palisade-gate-{}.jsonl", std::process::id()));
    let memory: Arc<dyn Recorder> = Arc::new(MemoryRecorder::new(10_000));
    let gate = Gate::new(memory);
    let mut results = Vec::new();
    for (name, kind, target) in [
        ("decide host.call, allowed", Kind::HostCall, "service_19"),
        ("decide event.publish, allowed", Kind::EventPublish, "app19.x.done"),
        ("decide fs.read, allowed", Kind::FsRead, "/srv/data/19/a/b/c.txt"),
        ("decide net.http, allowed", Kind::NetHttp, "api.host19.example.org:443"),
        ("decide host.call, denied", Kind::HostCall, "service_20"),
    ] {
        results.push((name, decide(&gate, &caller, Access::new(kind, target))));
    }
    results.push(("pass with record in memory", pass(&gate, &caller).await?));
    let on_disk = Gate::new(Arc::new(JsonLinesRecorder::open(&file)?));
    results.push(("pass with record in a file", pass(&on_disk, &caller).await?));
    drop(on_disk);
    std::fs::remove_file(&file)?;

    if std::env::args().any(|a| a == "--json") {
        let rows: Vec<_> = results
            .iter()
            .map(|(name, ns)| serde_json::json!({"name": name, "value": ns, "unit": "ns"}))
            .collect();
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        for (name, ns) in results {
            println!("{name:32} {ns:8.0} ns");
        }
    }
    Ok(())
}
