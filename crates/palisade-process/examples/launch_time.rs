//! Launches a static program again and again and prints the median times: from the request to a running
//! program, and to its first answer. `cargo run --release -p palisade-process --example launch_time -- PROGRAM`
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing)]

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use palisade_model::{
    CapabilitySet, Failure, Generation, GuaranteeSet, InstanceId, Limits, NodeId, Origin, Payload,
    PluginId, PluginRef,
};
use palisade_process::{Options, ProcessBackend};
use palisade_sandbox::{
    Artifact, Backend, BoxFuture, Content, HostCalls, HostRequest, Invocation, KillReason,
    LaunchSpec, OutputStream, Program, Runtime, Trace, Wire,
};

struct Deaf;

impl HostCalls for Deaf {
    fn request(&self, _: HostRequest) -> BoxFuture<'static, Result<Payload, Failure>> {
        Box::pin(async { Ok(Payload::null()) })
    }
    fn output(&self, _: OutputStream, _: &str) {}
    fn output_dropped(&self, _: u64) {}
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let program = PathBuf::from(std::env::args().nth(1).unwrap()).canonicalize().unwrap();
    let dir = std::env::temp_dir().join(format!("launch-time-{}", std::process::id()));
    let (root, data) = (dir.join("plugin"), dir.join("data"));
    std::fs::create_dir_all(&root).unwrap();
    std::fs::create_dir_all(&data).unwrap();
    std::fs::copy(&program, root.join("program")).unwrap();
    let plugin = PluginRef {
        id: PluginId::parse("x").unwrap(),
        origin: Origin::Command { path: program.display().to_string() },
    };
    for cgroups in [false, true] {
        let backend = ProcessBackend::new(Options { cgroups, ..Options::default() });
        let artifact = Artifact {
            content: Content { root: root.canonicalize().unwrap(), digest: [0; 32] },
            program: Program { runtime: Runtime::Native, file: "program".into(), args: vec![] },
        };
        let prepared = backend.prepare(&artifact).await.unwrap();
        let (mut launch, mut answer, mut kill) = (vec![], vec![], vec![]);
        for serial in 0..300 {
            let spec = LaunchSpec {
                instance: InstanceId {
                    node: NodeId::local(),
                    plugin: Arc::new(plugin.clone()),
                    generation: Generation(1),
                    serial,
                },
                rights: Arc::new(CapabilitySet::new()),
                limits: Limits::default(),
                demand: GuaranteeSet::default_floor(),
                wire: Wire::Native,
                data: data.clone(),
                slot: 9,
                env: BTreeMap::new(),
            };
            let started = Instant::now();
            let instance = prepared.launch(spec, Arc::new(Deaf)).await.unwrap();
            launch.push(started.elapsed());
            let invocation = Invocation {
                method: "initialize",
                payload: Payload::from_json_text("{}"),
                deadline: Instant::now() + Duration::from_secs(5),
                trace: Trace::default(),
            };
            instance.lane().call(invocation).await.unwrap();
            answer.push(started.elapsed());
            let ending = Instant::now();
            instance.kill(KillReason::Asked).await;
            kill.push(ending.elapsed());
        }
        for (name, times) in
            [("running", &mut launch), ("answer", &mut answer), ("kill", &mut kill)]
        {
            times.sort();
            println!("cgroups {cgroups:5} {name:8} p50 {:?} p90 {:?}", times[150], times[270]);
        }
    }
    std::fs::remove_dir_all(&dir).unwrap();
}
