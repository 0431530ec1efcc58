//! `gate_decision`: one decision of the gate among 100 rights, without rate and record.

use std::{hint::black_box, sync::Arc, time::Instant};

use palisade_audit::{MemoryRecorder, Recorder, SystemClock};
use palisade_broker::{Caller, Gate};
use palisade_model::{
    Access, Capability, CapabilitySet, Generation, InstanceId, Kind, Limits, NodeId, Origin,
    PluginId, PluginRef,
};
use palisade_policy::Rules;

use crate::{
    plugin::Result,
    report::{Row, Samples},
};

const ROUNDS: usize = 201;
const DECISIONS: u32 = 5_000;

/// A plugin with 100 rights of five kinds and one forbidden host.
fn caller() -> Result<Arc<Caller>> {
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
    let instance =
        InstanceId { node: NodeId::local(), plugin, generation: Generation(1), serial: 1 };
    let rules = Arc::new(Rules::new(rights, &forbids));
    Ok(Caller::plugin(instance, rules, &Limits::default(), Arc::new(SystemClock)))
}

/// Measures each kind of decision and reports the slowest as `gate_decision`.
pub(crate) fn run() -> Result<Vec<Row>> {
    let caller = caller()?;
    let recorder: Arc<dyn Recorder> = Arc::new(MemoryRecorder::new(16));
    let gate = Gate::new(recorder);
    let asked = [
        ("host_call", Kind::HostCall, "service_19", true),
        ("event_publish", Kind::EventPublish, "app19.x.done", true),
        ("fs_read", Kind::FsRead, "/srv/data/19/a/b/c.txt", true),
        ("net_http", Kind::NetHttp, "api.host19.example.org:443", true),
        ("denied", Kind::HostCall, "service_20", false),
    ];
    for (name, kind, target, allowed) in asked {
        if gate.decide(&caller, &Access::new(kind, target)).is_ok() != allowed {
            return Err(format!("the decision `{name}` is not what the bench measures").into());
        }
    }
    let mut samples = asked.map(|_| Samples::default());
    for _ in 0..ROUNDS {
        for ((_, kind, target, _), samples) in asked.iter().zip(&mut samples) {
            let access = Access::new(*kind, target);
            let start = Instant::now();
            for _ in 0..DECISIONS {
                let _ = black_box(gate.decide(black_box(&caller), black_box(&access)));
            }
            samples.push(start.elapsed().as_nanos() as f64 / f64::from(DECISIONS));
        }
    }
    let mut rows: Vec<Row> = Vec::new();
    for ((name, ..), samples) in asked.iter().zip(&samples) {
        rows.push(Row::new(&format!("gate_decision.{name}"), "ns", samples));
    }
    let slowest = rows.iter().max_by(|a, b| a.value.total_cmp(&b.value)).cloned();
    if let Some(mut slowest) = slowest {
        "gate_decision".clone_into(&mut slowest.name);
        rows.insert(0, slowest.aim(2000.0));
    }
    Ok(rows)
}
