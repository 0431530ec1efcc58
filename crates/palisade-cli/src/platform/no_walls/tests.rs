use palisade_host::{Host, LoadOptions, Plugin};
use palisade_model::Level;
use serde_json::{Value, json};

use super::*;

/// The arguments of one command.
fn parsed<T: clap::Args>(words: &[&str]) -> T {
    let command = T::augment_args(clap::Command::new("x"));
    T::from_arg_matches(&command.get_matches_from([&["x"], words].concat())).unwrap()
}

fn failure(result: Result<(), Trouble>) -> Failure {
    match result {
        Err(Trouble::Failure(failure)) => failure,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn what_stands_on_linux_walls_is_refused_with_what_which_rule_and_what_to_do() {
    let refused = [
        ("demo", demo(&parsed(&[])).await),
        ("learn", learn(&parsed(&["a-plugin"])).await),
        ("mcp -- COMMAND", serve(&parsed(&["--", "node", "server.js"])).await),
        ("mcp wrap", wrap(&parsed(&["client.json"])).await),
        ("mcp unwrap", unwrap(&parsed(&["client.json"])).await),
        ("doctor --seccomp", filter("python", false)),
        ("doctor --extract-helper", extract_helper().map(drop).map_err(Trouble::from)),
    ];
    for (what, result) in refused {
        let failure = failure(result);
        assert_eq!(failure.code, ErrorCode::NoBackend, "{what}");
        assert_eq!(failure.code.exit_status(), 4);
        let said = format!("palisade {what} stands on the Linux walls, and there are none on ");
        assert!(failure.message.starts_with(&said), "{}", failure.message);
        assert_eq!(failure.rule.as_deref(), Some(RULE));
        assert!(failure.hint.unwrap().contains("WebAssembly components, which run here"));
    }
    assert!(no_native().unwrap().starts_with("it runs on Linux only: "));
    assert!(entered().is_none(), "nobody is the engine behind walls");
}

async fn host(folder: &std::path::Path) -> Host {
    Host::builder().state_dir(folder.join("state")).backends(backends()).build().await.unwrap()
}

/// A plugin whose manifest ends in `rest`, with one file.
async fn plugin(
    host: &Host,
    folder: &std::path::Path,
    rest: &str,
    file: (&str, &[u8]),
    backend: Option<&str>,
) -> Result<Plugin, Failure> {
    let folder = folder.join("plugin");
    std::fs::create_dir_all(&folder).unwrap();
    let manifest = format!("api: palisade/1\nid: a\nversion: 1.0.0\n{rest}");
    std::fs::write(folder.join("plugin.yaml"), manifest).unwrap();
    std::fs::write(folder.join(file.0), file.1).unwrap();
    let options = backend.map_or_else(LoadOptions::new, |name| LoadOptions::new().backend(name));
    let plugin = host.load_with(&folder, options).await.map_err(Failure::from)?;
    plugin.start().await?;
    Ok(plugin)
}

const PYTHON: &str = "entry: { kind: python, file: main.py }\n";
const CALC: &str = "entry: { kind: wasm, file: it.wasm }\n\
                    contributes: { tools: [{ name: calc.add, description: Adds. }] }\n";

/// Adds numbers.
fn calc() -> Vec<u8> {
    let text = r#"(component
        (core module $m
            (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))
        (core instance $i (instantiate $m))
        (func $add (param "a" u32) (param "b" u32) (result u32) (canon lift (core func $i "add")))
        (instance $calc (export "add" (func $add)))
        (export "docs:calculator/calc@0.1.0" (instance $calc)))"#;
    wat::parse_str(text).unwrap()
}

#[tokio::test]
async fn a_native_plugin_does_not_start_and_the_reason_is_given() {
    for backend in [None, Some("process"), Some("landlock")] {
        let folder = tempfile::tempdir().unwrap();
        let host = host(folder.path()).await;
        let started = plugin(&host, folder.path(), PYTHON, ("main.py", b""), backend).await;
        let failure = started.map(|_| ()).unwrap_err();
        assert_eq!(failure.code, ErrorCode::NoBackend, "{failure}");
        assert!(failure.message.contains("its walls are Linux's"), "{failure}");
        assert_eq!(failure.hint.as_deref(), Some(REMEDY));
    }
}

#[tokio::test]
async fn a_component_runs_and_is_not_run_without_the_walls_that_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let host = host(folder.path()).await;
    let code = calc();
    let running = plugin(&host, folder.path(), CALC, ("it.wasm", &code), None).await.unwrap();
    assert_eq!(running.status().backend, Some("wasm"));
    let sum = running.call("calc.add", &json!({ "a": 20, "b": 22 })).await.unwrap();
    assert_eq!(sum.parse::<Value>().unwrap(), json!(42));
    host.shutdown().await.unwrap();

    let host = self::host(folder.path()).await;
    let file = ("it.wasm", &*code);
    let behind = plugin(&host, folder.path(), CALC, file, Some("wasm+process")).await;
    let failure = behind.map(|_| ()).unwrap_err();
    assert_eq!(failure.code, ErrorCode::NoBackend, "{failure}");
    assert!(failure.message.contains("wasm+process: its walls are Linux's"), "{failure}");
}

#[tokio::test]
async fn a_plugin_is_not_explained_where_nothing_reports_its_calls() {
    let folder = tempfile::tempdir().unwrap();
    let host = host(folder.path()).await;
    let running = plugin(&host, folder.path(), CALC, ("it.wasm", &calc()), None).await.unwrap();
    let refused = Explaining::of(&parsed(&["--explain"]), &running, true).map(drop).unwrap_err();
    assert_eq!((refused.code, refused.rule.as_deref()), (ErrorCode::NoBackend, Some(RULE)));
    Explaining::of(&parsed(&[]), &running, true).unwrap().tell(false);
}

#[tokio::test]
async fn the_backends_are_those_of_linux_and_only_webassembly_can_be_used() {
    let mut found = Vec::new();
    for backend in backends() {
        let facts = backend.probe().await;
        found.push((backend.name(), facts.unavailable.is_none()));
        if facts.unavailable.is_some() {
            assert!(facts.guarantees.iter().all(|(_, level)| level == Level::None));
        }
    }
    let linux: Vec<&str> = crate::platform::walls::backends().iter().map(|b| b.name()).collect();
    assert_eq!(found.iter().map(|(name, _)| *name).collect::<Vec<_>>(), linux);
    let usable: Vec<&str> = found.iter().filter(|f| f.1).map(|f| f.0).collect();
    assert_eq!(usable, ["wasm"]);
}
