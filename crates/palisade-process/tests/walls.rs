//! The process backend's walls, seen from inside by a Python plugin.
#![cfg(target_os = "linux")]

mod support;

use palisade_process::{Options, ProcessBackend};
use palisade_sandbox::Runtime;
use serde_json::json;
use support::{EVAL, bench, eval};

fn python() -> Runtime {
    Runtime::Python { interpreter: None }
}

#[tokio::test]
async fn a_python_plugin_runs_and_sees_only_its_own_world() {
    let backend = ProcessBackend::new(Options::default());
    let bench = bench(python(), "main.py", EVAL.as_bytes());
    let instance = bench.launch(&backend).await.unwrap();
    let started = support::call(&instance, "initialize", "{}").await.unwrap();
    assert_eq!(started.parse::<serde_json::Value>().unwrap(), json!({"protocol": 1}));
    assert_eq!(eval(&instance, "os.getpid()").await.unwrap(), json!(2));
    assert_eq!(eval(&instance, "os.getuid()").await.unwrap(), json!(1000));
    assert_eq!(
        eval(&instance, "sorted(p for p in os.listdir('/proc') if p.isdigit())").await.unwrap(),
        json!(["1", "2"])
    );
    assert_eq!(
        eval(&instance, "os.environ['HOME'] + ' ' + os.getcwd()").await.unwrap(),
        json!("/data /plugin")
    );
    assert_eq!(
        eval(&instance, "open('/data/x', 'w').write('hello') and open('/data/x').read()")
            .await
            .unwrap(),
        json!("hello")
    );
    let denied = eval(&instance, "open('/plugin/x', 'w')").await.unwrap_err();
    assert!(
        denied.message.contains("Read-only") || denied.message.contains("Permission"),
        "{denied}"
    );
    let exit = instance.stop(std::time::Duration::from_secs(5)).await;
    assert!(exit.is_clean(), "{exit}");
}
