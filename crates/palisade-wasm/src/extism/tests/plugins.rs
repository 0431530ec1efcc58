//! Whole plugins: modules that the Extism project publishes, and two that these tests build with published
//! PDKs, in Rust and in AssemblyScript.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use palisade_model::{ErrorCode, Failure, Payload};
use palisade_protocol::methods::{
    CONFIGURE, HANDLE_EVENT, HOOK, RESTORE_STATE, RUN_COMMAND, SAVE_STATE,
};
use serde_json::{Value, json};

use super::room::{Room, Setup};
use crate::guest::Trouble;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the project's folder")
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}:\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Only one process builds at a time; the file system tells.
fn locked<T>(name: &str, work: impl FnOnce() -> T) -> T {
    let folder = root().join("target/test-packages");
    std::fs::create_dir_all(&folder).expect("a folder");
    let lock = std::fs::File::create(folder.join(format!("{name}.lock"))).expect("a file");
    lock.lock().expect("a lock");
    work()
}

fn guest_crate() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests/extism-rust")
}

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(guest_crate()).env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo
}

/// The plugin in Rust, built for `target`.
fn rust_plugin(target: &'static str) -> Vec<u8> {
    locked("extism-rust", || {
        run(Command::new("rustup").args(["target", "add", target]).current_dir(guest_crate()));
        let guests = root().join("target/guests");
        run(cargo()
            .args(["build", "--release", "--locked", "--target", target, "--target-dir"])
            .arg(&guests));
        let built = guests.join(target).join("release/palisade_extism_guest.wasm");
        std::fs::read(built).expect("the plugin")
    })
}

fn unknown_unknown() -> &'static [u8] {
    static MODULE: OnceLock<Vec<u8>> = OnceLock::new();
    MODULE.get_or_init(|| rust_plugin("wasm32-unknown-unknown"))
}

fn wasip1() -> &'static [u8] {
    static MODULE: OnceLock<Vec<u8>> = OnceLock::new();
    MODULE.get_or_init(|| rust_plugin("wasm32-wasip1"))
}

/// The plugin in AssemblyScript, built with its compiler and PDK from npm.
fn assemblyscript() -> &'static [u8] {
    static MODULE: OnceLock<Vec<u8>> = OnceLock::new();
    MODULE.get_or_init(|| {
        locked("extism-assemblyscript", || {
            let folder = root().join("target/test-packages/extism-assemblyscript");
            std::fs::create_dir_all(&folder).expect("a folder");
            if !folder.join("node_modules/@extism/as-pdk").is_dir() {
                let packages = ["assemblyscript@0.28.20", "@extism/as-pdk@1.0.0"];
                std::fs::write(folder.join("package.json"), "{\"private\":true}").expect("a file");
                run(Command::new("npm")
                    .args(["install", "--no-audit", "--no-fund", "--ignore-scripts"])
                    .args(packages)
                    .current_dir(&folder));
            }
            let source = guest_crate().join("../extism-assemblyscript/plugin.ts");
            std::fs::copy(source, folder.join("plugin.ts")).expect("the source");
            run(Command::new("node")
                .args(["node_modules/assemblyscript/bin/asc.js", "plugin.ts", "-O"])
                .args(["--use", "abort=plugin/stop", "--outFile", "plugin.wasm"])
                .current_dir(&folder));
            std::fs::read(folder.join("plugin.wasm")).expect("the plugin")
        })
    })
}

/// A module as the Extism project publishes it in the package of its PDK for Rust.
fn published(file: &str) -> Vec<u8> {
    static PACKAGE: OnceLock<PathBuf> = OnceLock::new();
    let package = PACKAGE.get_or_init(|| {
        let told = locked("extism-rust", || {
            run(cargo().args(["metadata", "--locked", "--format-version", "1"]))
        });
        let told: Value = serde_json::from_slice(&told).expect("JSON");
        let packages = told["packages"].as_array().expect("packages");
        let pdk = packages.iter().find(|package| package["name"] == "extism-pdk").expect("the PDK");
        let manifest = pdk["manifest_path"].as_str().expect("a path");
        Path::new(manifest).parent().expect("a folder").to_owned()
    });
    std::fs::read(package.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// With the rights for what the plugin in Rust imports of the application.
fn allowed() -> Setup {
    let rights = vec!["host.call:lookup".to_owned(), "host.call:combine".into()];
    Setup { rights, ..Setup::default() }
}

async fn room(module: &[u8]) -> Room {
    Room::new(module, allowed()).await.expect("a running plugin")
}

fn failed(result: Result<Value, Trouble>) -> Failure {
    match result {
        Err(Trouble::Failed(failure)) => failure,
        other => panic!("it was to fail and live on: {other:?}"),
    }
}

fn trapped(result: Result<Value, Trouble>) -> Failure {
    match result {
        Err(Trouble::Trapped(failure)) => failure,
        other => panic!("it was to trap: {other:?}"),
    }
}

/// Answers every request with its method, path, `x-from` and body.
fn server() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut request = Vec::new();
            let mut chunk = [0; 4096];
            loop {
                let read = stream.read(&mut chunk).expect("bytes");
                request.extend_from_slice(&chunk[..read]);
                let text = String::from_utf8_lossy(&request);
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let head = head.to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if body.len() >= length.map_or(0, |n| n.parse().expect("a number")) {
                    break;
                }
            }
            let text = String::from_utf8_lossy(&request).into_owned();
            let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            let first = text.lines().next().unwrap_or_default();
            let body = format!("{first}|{body}");
            let from = text.lines().find(|line| line.to_ascii_lowercase().starts_with("x-from"));
            let _ = write!(
                stream,
                "HTTP/1.1 201 Created\r\nx-answer: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                from.unwrap_or("none"),
                body.len()
            );
        }
    });
    address
}

#[tokio::test]
async fn a_published_module_runs_as_it_is() {
    for file in ["test/code.wasm", "count_vowels.wasm"] {
        let mut room = room(&published(file)).await;
        for (text, count) in [("this is a test", 4), ("", 0), ("AEIOU and ä", 6)] {
            let answer = room.text("count_vowels", text).await.expect("an answer");
            assert_eq!(answer["count"], count, "{file} {text:?}");
        }
    }
}

#[tokio::test]
async fn a_published_module_calls_the_applications_function_with_its_right_only() {
    let module = published("test/host_function.wasm");
    let refused = Room::new(&module, Setup::default()).await.err().expect("a refusal");
    assert_eq!(refused.code, ErrorCode::Denied);
    assert!(refused.message.contains("extism:host/user/hello_world"), "{refused}");

    let rights = vec!["host.call:hello_world".to_owned()];
    let mut room =
        Room::new(&module, Setup { rights, ..Setup::default() }).await.expect("a plugin");
    let answer = room.text("count_vowels", "hello there").await.expect("an answer");
    assert_eq!(answer, json!({ "count": 4 }), "an object goes to the service and back as it is");
}

#[tokio::test]
async fn a_published_module_fetches_through_the_guard() {
    let server = server();
    let rights = vec![format!("net.http:{server}")];
    let module = published("test/http.wasm");
    let mut room =
        Room::new(&module, Setup { rights, ..Setup::default() }).await.expect("a plugin");
    let args = json!({ "url": format!("http://{server}/a?b=c") }).to_string();
    let answer = room.call("http_get", &args).await.expect("an answer");
    assert_eq!(answer, "GET /a?b=c HTTP/1.1|");
    let log = room.log();
    assert!(
        log.iter().any(|line| line.starts_with("info Request to: http://127.0.0.1")),
        "{log:?}"
    );

    let refused = trapped(room.call("http_get", r#"{"url":"http://127.0.0.1:9/"}"#).await);
    assert_eq!(refused.code, ErrorCode::Denied, "{refused}");

    let rights = vec![format!("net.http:{server}")];
    let module = published("test/http_headers.wasm");
    let mut room =
        Room::new(&module, Setup { rights, ..Setup::default() }).await.expect("a plugin");
    let answer = room.call("http_get", &args).await.expect("an answer");
    assert_eq!(answer["x-answer"], "none");
}

#[tokio::test]
async fn both_builds_of_a_rust_plugin_answer_alike() {
    for module in [unknown_unknown(), wasip1()] {
        let mut room = room(module).await;
        let big = "ä€x".repeat(20_000);
        for text in ["", "x", "1234567", "12345678", "123456789", &big] {
            assert_eq!(room.text("echo", text).await.expect("an answer"), text);
        }
        assert_eq!(room.call("add", r#"{"a":2,"b":40}"#).await.expect("sum"), json!([2, 40, 42]));
        assert_eq!(room.call("echo", r#"{"a":[1]}"#).await.expect("JSON"), json!({ "a": [1] }));
        assert_eq!(room.call("bytes", "{}").await.expect("bytes"), json!({ "base64": "AP8B" }));
        let args = r#"{"input_base64":"AP8B"}"#;
        assert_eq!(room.call("echo", args).await.expect("bytes"), json!({ "base64": "AP8B" }));
        assert_eq!(room.call("sets_output", "{}").await.expect("text"), "set by hand");
        assert_eq!(room.text("blocks", "12345").await.expect("text"), "Some(9) None None 5");
    }
}

#[tokio::test]
async fn variables_live_as_long_as_the_instance_and_are_bounded() {
    let mut room = room(unknown_unknown()).await;
    for count in 1..4 {
        assert_eq!(room.call("count", "{}").await.expect("text"), count.to_string());
    }
    let full = trapped(room.call("hoard", "{}").await);
    assert_eq!(full.code, ErrorCode::LimitExceeded);
    assert!(full.message.contains("1 MiB"), "{full}");
}

#[tokio::test]
async fn configuration_is_text_by_name_and_can_change() {
    let config = json!({ "word": "blue", "number": 12.5, "list": [1, "x"], "nothing": null });
    let setup = Setup { config: Some(config), ..allowed() };
    let mut room = Room::new(unknown_unknown(), setup).await.expect("a plugin");
    for (name, value) in [
        ("word", "blue"),
        ("number", "12.5"),
        ("list", "none"),
        ("nothing", "none"),
        ("other", "none"),
    ] {
        let answer = room.text("configured", name).await.expect("an answer");
        if name == "list" {
            assert_eq!(answer, json!([1, "x"]));
        } else {
            assert_eq!(answer, value, "{name}");
        }
    }
    let change = Payload::json(&json!({ "config": { "word": "green" } })).expect("JSON");
    room.invoke(CONFIGURE, change, None, Duration::from_secs(5)).await.expect("configured");
    assert_eq!(room.text("configured", "word").await.expect("an answer"), "green");
    assert_eq!(room.text("configured", "number").await.expect("an answer"), "none");
}

#[tokio::test]
async fn what_a_plugin_says_goes_to_its_log() {
    let mut room = room(wasip1()).await;
    room.text("talks", "one").await.expect("an answer");
    assert_eq!(room.log(), ["info info one", "warn warn one", "error error one"]);
    assert_eq!(room.output(), ["Stdout stdout one"]);
}

#[tokio::test]
async fn an_error_is_the_plugins_own_and_the_instance_lives_on() {
    let mut room = room(unknown_unknown()).await;
    let failure = failed(room.text("fails", "luck").await);
    assert_eq!((failure.code, failure.message.as_str()), (ErrorCode::PluginError, "no luck"));
    let failure = failed(room.call("add", r#"{"a":1}"#).await);
    assert!(failure.message.contains("missing field"), "{failure}");
    let failure = failed(room.call("absent", "{}").await);
    assert_eq!(failure.code, ErrorCode::NotFound);
    let failure = failed(room.call("memory", "{}").await);
    assert_eq!(failure.code, ErrorCode::NotFound, "not every export is a function");
    assert_eq!(room.text("echo", "still here").await.expect("an answer"), "still here");
}

#[tokio::test]
async fn a_panic_an_endless_loop_and_a_lie_end_the_instance() {
    let failure = trapped(room(unknown_unknown()).await.call("panics", "{}").await);
    assert_eq!(failure.code, ErrorCode::Crashed);

    let begun = Instant::now();
    let mut busy = room(unknown_unknown()).await;
    let failure = trapped(busy.within(Duration::from_millis(200), "spins", "{}").await);
    assert_eq!(failure.code, ErrorCode::Deadline);
    assert!(begun.elapsed() < Duration::from_secs(20));

    let failure = trapped(room(unknown_unknown()).await.call("lies", "{}").await);
    assert_eq!(failure.message, "log: 12345 is the handle of no block");
    let failure = trapped(room(unknown_unknown()).await.call("reads_nowhere", "{}").await);
    assert_eq!(failure.code, ErrorCode::Crashed);
}

#[tokio::test]
async fn requests_carry_headers_method_and_body_both_ways() {
    let server = server();
    let rights = vec![format!("net.http:{server}"), "host.call:*".into()];
    let mut room =
        Room::new(unknown_unknown(), Setup { rights, ..Setup::default() }).await.expect("a plugin");
    let answer = room.text("fetch", &format!("http://{server}/x")).await.expect("an answer");
    assert_eq!(answer, json!([201, "x-from: extism", "POST /x HTTP/1.1|the body"]));
    let failure = trapped(room.text("fetch", "no url").await);
    assert_eq!(failure.code, ErrorCode::InvalidParams, "{failure}");
}

#[tokio::test]
async fn functions_of_the_application_take_and_give_blocks() {
    let mut room = room(unknown_unknown()).await;
    assert_eq!(room.text("asks", "key").await.expect("text"), r#"found ["key"]"#);
    let answer = room.text("asks_twice", "key").await.expect("text");
    assert_eq!(answer, r#"found ["key",{"base64":"/wA="}]"#);
}

#[tokio::test]
async fn a_plugin_in_assemblyscript_runs() {
    let config = json!({ "greeting": "Servus" });
    let setup = Setup { config: Some(config), ..Setup::default() };
    let mut room = Room::new(assemblyscript(), setup).await.expect("a plugin");
    let long = "0123456789".repeat(5000);
    assert_eq!(room.text("echo", &long).await.expect("text"), long);
    assert_eq!(room.text("reverse", "abcdefghij").await.expect("text"), "jihgfedcba");
    assert_eq!(room.text("remember", "one").await.expect("text"), "nothing");
    assert_eq!(room.text("remember", "two").await.expect("text"), "one");
    assert_eq!(room.text("greeting", "Ada").await.expect("text"), "Servus, Ada");
    assert_eq!(room.log(), ["info greeting Ada"]);
    let failure = failed(room.call("fails", "{}").await);
    assert_eq!(failure.message, "the function ended with 7 and said nothing about it");
    let failure = trapped(room.call("aborts", "{}").await);
    assert_eq!(failure.code, ErrorCode::Crashed);
    assert_eq!(room.log().last().map(String::as_str), Some("error out of ideas"));
}

#[tokio::test]
async fn granted_variables_are_shown_and_no_others() {
    let env = [("LANG".to_owned(), "C".to_owned())].into();
    let mut room = Room::new(wasip1(), Setup { env, ..allowed() }).await.expect("a plugin");
    assert_eq!(room.text("variable", "LANG").await.expect("text"), "C");
    assert_eq!(room.text("variable", "PATH").await.expect("text"), "none");
}

#[tokio::test]
async fn memory_is_bounded_and_used_again() {
    let setup = || Setup { memory: Some(8 << 20), ..allowed() };
    let mut room = Room::new(unknown_unknown(), setup()).await.expect("a plugin");
    let text = "x".repeat(300_000);
    room.text("echo", &text).await.expect("an answer");
    let used = room.memory();
    for _ in 0..50 {
        room.text("echo", &text).await.expect("an answer");
    }
    assert_eq!(room.memory(), used, "a call leaves nothing that the next cannot use");
    assert!(used <= 8 << 20);

    let failure = match room.text("echo", &"x".repeat(9 << 20)).await {
        Err(trouble) => trouble.into_failure(),
        Ok(_) => panic!("more than there is"),
    };
    assert_eq!(failure.code, ErrorCode::LimitExceeded, "{failure}");
    assert_eq!(room.text("echo", "small").await.expect("an answer"), "small", "it was not begun");
}

#[tokio::test]
async fn what_an_extism_module_has_no_words_for_is_refused() {
    let mut room = room(unknown_unknown()).await;
    for (method, params, says) in [
        (
            HANDLE_EVENT,
            json!({ "delivery": "d", "subject": "a.b", "data": 1, "hops": 0 }),
            "events (a.b)",
        ),
        (HOOK, json!({ "hook": "message.received", "data": {} }), "hooks (message.received)"),
        (RUN_COMMAND, json!({ "command": "stats", "args": [] }), "commands (stats)"),
        (SAVE_STATE, Value::Null, "state"),
        (RESTORE_STATE, json!({ "schema": 1, "state": 1 }), "state"),
    ] {
        let params = Payload::json(&params).expect("JSON");
        let refused = room.invoke(method, params, None, Duration::from_secs(5)).await;
        let refused = refused.expect_err("a refusal").into_failure();
        assert_eq!(refused.code, ErrorCode::NotFound, "{refused}");
        assert!(refused.message.contains(&format!("an Extism module has no {says}")), "{refused}");
    }
    let wrong = Payload::json(&json!({ "subject": 7 })).expect("JSON");
    let wrong = room.invoke(HANDLE_EVENT, wrong, None, Duration::from_secs(5)).await;
    assert_eq!(wrong.expect_err("a refusal").into_failure().code, ErrorCode::InvalidParams);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_named_pipe_keeps_no_thread_of_the_host() {
    let ground = tempfile::tempdir().expect("a folder");
    let root = ground.path().canonicalize().expect("its path");
    std::fs::write(root.join("file"), "here").expect("a file");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let pipe = root.join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).expect("one");
    let opening = |name: &str| {
        let length = name.len();
        let module = format!(
            r#"(module
                (import "wasi_snapshot_preview1" "path_open" (func $open
                    (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
                (memory (export "memory") 1) (data (i32.const 16) "{name}")
                (func (export "f") (result i32)
                    (call $open (i32.const 3) (i32.const 1) (i32.const 16) (i32.const {length})
                        (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 1024))))"#
        );
        wat::parse_str(module).expect("a module")
    };
    let rights = vec![format!("fs.read:{}/**", root.display())];
    for (name, says) in [("file", None), ("pipe", Some("63")), ("none", Some("44"))] {
        let setup = Setup { rights: rights.clone(), ..Setup::default() };
        let mut room = Room::new(&opening(name), setup).await.expect("a room");
        let called = room.call("f", "{}").await;
        match says {
            None => assert!(called.is_ok(), "{name}: {called:?}"),
            Some(errno) => {
                let failure = called.expect_err("an error").into_failure();
                assert!(failure.message.contains(errno), "{name}: {failure}");
            }
        }
    }
    // Without the look, the thread is let go here, so that the test can end.
    let _ = std::fs::File::options().read(true).write(true).open(pipe);
}

#[tokio::test]
async fn unknown_imports_are_refused_by_name() {
    for (text, expected) in [
        (r#"(import "extism:host/env" "teleport" (func))"#, "extism:host/env/teleport"),
        (r#"(import "env" "abort" (func (param i32 i32 i32 i32)))"#, "env/abort"),
        (r#"(import "wasi_snapshot_preview1" "sock_listen" (func))"#, "sock_listen"),
        (r#"(import "extism:host/user" "f" (func (param i32)))"#, "something else than blocks"),
    ] {
        let module =
            wat::parse_str(format!(r#"(module {text} (func (export "f")))"#)).expect("a module");
        let rights = vec!["host.call:*".to_owned()];
        let refused = Room::new(&module, Setup { rights, ..Setup::default() })
            .await
            .err()
            .expect("a refusal");
        assert!(refused.message.contains(expected), "{refused}");
    }
}

#[tokio::test]
async fn run_time_systems_are_started_once_and_before_any_call() {
    let module = wat::parse_str(
        r#"(module
            (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
            (import "extism:host/env" "store_u8" (func $store (param i64 i32)))
            (import "extism:host/env" "output_set" (func $output (param i64 i64)))
            (global $started (mut i32) (i32.const 0))
            (func $add (param i32) (global.set $started (i32.add (global.get $started) (local.get 0))))
            (func (export "_initialize") (call $add (i32.const 1)))
            (func (export "hs_init") (param i32 i32) (call $add (i32.const 10)))
            (func (export "tell") (local $block i64)
                (local.set $block (call $alloc (i64.const 1)))
                (call $store (local.get $block) (i32.add (i32.const 48) (global.get $started)))
                (call $output (local.get $block) (i64.const 1))))"#,
    )
    .expect("a module");
    let mut room = room(&module).await;
    for _ in 0..2 {
        assert_eq!(room.call("tell", "{}").await.expect("text"), ";", "48 + 11");
    }
}
