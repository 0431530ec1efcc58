//! Taking a layer away takes it away, and the helper that is released takes none away. Without this, the escape
//! suite would compare whole walls with whole walls.
#![cfg(all(target_os = "linux", feature = "ablation"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use palisade_process::{Layer, Options, ProcessBackend};
use palisade_sandbox::Runtime;
use serde_json::{Value, json};
use support::{EVAL, bench, eval};

/// What a plugin sees of the layers, each as something that is true behind whole walls.
const LOOKS: &[(Layer, &str)] = &[
    (Layer::Seccomp, "'Seccomp:\\t2' in open('/proc/self/status').read()"),
    (Layer::NoNewPrivileges, "'NoNewPrivs:\\t1' in open('/proc/self/status').read()"),
    (Layer::Capabilities, "'CapEff:\\t0000000000000000' in open('/proc/self/status').read()"),
    // What cannot be looked into belongs to root, who is nobody inside.
    (Layer::Undumpable, "os.stat('/proc/1/environ').st_uid != 1000"),
    (Layer::ProcSubset, "not os.path.exists('/proc/sys')"),
    (Layer::ReadOnlyProc, "os.statvfs('/proc').f_flag & os.ST_RDONLY != 0"),
    (Layer::OwnProc, "[p for p in os.listdir('/proc') if p.isdigit()] == ['1', str(os.getpid())]"),
    (Layer::Nosuid, "os.statvfs('/plugin').f_flag & os.ST_NOSUID != 0"),
    (Layer::Nodev, "os.statvfs('/data').f_flag & os.ST_NODEV != 0"),
    (Layer::Noexec, "os.statvfs('/data').f_flag & os.ST_NOEXEC != 0"),
    (Layer::MountNamespace, "not os.path.exists('/var/tmp')"),
    (Layer::NetworkNamespace, "socket.if_nameindex() == [(1, 'lo')]"),
];

/// Taken away by the helper; the others are left out of the plan.
const OF_THE_HELPER: [Layer; 6] = [
    Layer::NoNewPrivileges,
    Layer::Capabilities,
    Layer::Undumpable,
    Layer::ProcSubset,
    Layer::ReadOnlyProc,
    Layer::OwnProc,
];

/// The answers to all of [`LOOKS`].
async fn look(options: Options) -> Vec<Value> {
    let bench =
        bench(Runtime::Python { interpreter: None, version: None }, "main.py", EVAL.as_bytes());
    let instance = bench.launch(&ProcessBackend::new(options)).await.unwrap();
    let mut seen = Vec::new();
    for (layer, code) in LOOKS {
        seen.push(eval(&instance, code).await.unwrap_or_else(|e| panic!("{layer:?}: {e}")));
    }
    seen
}

#[tokio::test]
async fn exactly_the_layer_that_is_taken_away_is_missing() {
    let whole = look(Options::default()).await;
    assert_eq!(whole, vec![json!(true); LOOKS.len()], "{LOOKS:#?}");
    for (layer, _) in LOOKS {
        let seen = look(Options { without: Some(*layer), ..Options::default() }).await;
        let looks = LOOKS.iter().zip(&seen);
        let missing: Vec<Layer> =
            looks.filter(|(_, seen)| **seen != json!(true)).map(|(look, _)| look.0).collect();
        match layer {
            // The host's /proc shows the kernel's files as well.
            Layer::OwnProc => assert_eq!(missing, [Layer::ProcSubset, Layer::OwnProc]),
            other => assert_eq!(missing, [*other]),
        }
    }
}

#[tokio::test]
async fn the_released_helper_takes_nothing_away() {
    for layer in OF_THE_HELPER {
        let options = Options { without: Some(layer), released_helper: true, ..Options::default() };
        assert_eq!(look(options).await, vec![json!(true); LOOKS.len()], "asked for {layer:?}");
    }
}
