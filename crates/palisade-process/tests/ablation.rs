//! Taking a layer away takes it away, and the helper that is released takes none away. Without this, the escape
//! suite would compare whole walls with whole walls.
#![cfg(all(target_os = "linux", feature = "ablation"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeSet;

use palisade_process::{Layer, Options, ProcessBackend};
use palisade_sandbox::{Backend as _, Runtime};
use serde_json::{Value, json};
use support::{EVAL, bench, children, eval};

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

/// Landlock's, from ABI 4 on: the host of a plugin without a way out answers with an unreachable network.
const TCP: (Layer, &str) =
    (Layer::Landlock, "socket.socket().connect_ex(('127.0.0.1', 1)) == __import__('errno').EACCES");

/// Those that can be seen on this kernel.
async fn looks() -> Vec<(Layer, &'static str)> {
    let probe = ProcessBackend::new(Options::default()).probe().await;
    let abi = probe.findings.iter().find(|f| f.topic == "landlock").unwrap();
    let abi = abi.detail.strip_prefix("ABI ").map_or(0, |number| number.parse::<u32>().unwrap());
    LOOKS.iter().copied().chain((abi >= 4).then_some(TCP)).collect()
}

/// Taken away by the helper; the others are left out of the plan.
const OF_THE_HELPER: [Layer; 6] = [
    Layer::NoNewPrivileges,
    Layer::Capabilities,
    Layer::Undumpable,
    Layer::ProcSubset,
    Layer::ReadOnlyProc,
    Layer::OwnProc,
];

/// The answers to all of [`looks`].
async fn look(options: Options) -> Vec<Value> {
    let bench =
        bench(Runtime::Python { interpreter: None, version: None }, "main.py", EVAL.as_bytes());
    let instance = bench.launch(&ProcessBackend::new(options)).await.unwrap();
    let mut seen = Vec::new();
    for (layer, code) in looks().await {
        seen.push(eval(&instance, code).await.unwrap_or_else(|e| panic!("{layer:?}: {e}")));
    }
    seen
}

#[tokio::test]
async fn exactly_the_layer_that_is_taken_away_is_missing() {
    let (looks, whole) = (looks().await, look(Options::default()).await);
    assert_eq!(whole, vec![json!(true); looks.len()], "{looks:#?}");
    for (layer, _) in &looks {
        let seen = look(Options { without: Some(*layer), ..Options::default() }).await;
        let answers = looks.iter().zip(&seen);
        let missing: Vec<Layer> =
            answers.filter(|(_, seen)| **seen != json!(true)).map(|(look, _)| look.0).collect();
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
        assert_eq!(
            look(options).await,
            vec![json!(true); looks().await.len()],
            "asked for {layer:?}"
        );
    }
}

/// Nothing inside may ask for a namespace, or read the number that there may be: the host looks, as root, since nobody
/// else may look into pid 1.
#[tokio::test]
async fn without_the_limit_of_namespaces_there_may_be_some() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only root can enter the namespaces of a pid 1 that is not dumpable");
        return;
    }
    let most = async |without| {
        let options = Options { without, ..Options::default() };
        let bench =
            bench(Runtime::Python { interpreter: None, version: None }, "main.py", EVAL.as_bytes());
        let before = pids_of_plugins();
        let instance = bench.launch(&ProcessBackend::new(options)).await.unwrap();
        eval(&instance, "1").await.unwrap();
        let new: Vec<u32> = pids_of_plugins().difference(&before).copied().collect();
        let [pid_1] = new[..] else { panic!("one plugin was started (nextest): {new:?}") };
        let file = "/proc/sys/user/max_user_namespaces";
        let output = std::process::Command::new("nsenter")
            .args(["--user", "--preserve-credentials", "--target", &pid_1.to_string(), "cat", file])
            .output();
        let said = output.as_ref().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
        let number = said.ok().and_then(|said| said.parse::<u64>().ok());
        if number.is_none() {
            let in_ci = std::env::var("CI").is_ok_and(|v| v == "true");
            assert!(!in_ci, "in CI nothing may be skipped: {output:?}");
            println!("SKIPPED: this root may not enter a plugin's namespaces: {output:?}");
        }
        number
    };
    let Some(whole) = most(None).await else { return };
    assert_eq!(whole, 0);
    assert_eq!(most(Some(Layer::Landlock)).await, Some(0));
    assert!(most(Some(Layer::NamespaceLimit)).await > Some(0));
}

/// The first processes of all plugins of this test program.
fn pids_of_plugins() -> BTreeSet<u32> {
    children(std::process::id()).into_iter().flat_map(children).collect()
}
