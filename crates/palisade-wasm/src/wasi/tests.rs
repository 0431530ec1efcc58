//! What WASI shows to a real program, built from Rust for `wasm32-wasip2`.

use std::{sync::Arc, time::Duration};

use palisade_egress::{Decide, Guard};
use palisade_model::{ErrorCode, Limits};
use serde_json::json;

use crate::{
    guest::Trouble,
    reflect::Reflected,
    testing::{Launch, reflect, wasi_guest, wasi3_guest},
};

#[cfg(target_os = "linux")]
mod lists;
#[path = "../../../palisade-egress/tests/common/mod.rs"]
mod net;
mod sockets;
mod web;

use net::{guard_for, rights};

/// What the guest writes when it does one thing.
async fn does(task: &str, what: &str, granted: &[&str]) -> Vec<String> {
    with(task, what, Launch { rights: granted, ..Launch::default() }).await
}

async fn with(task: &str, what: &str, launch: Launch<'_>) -> Vec<String> {
    // The guest imports wasi:http, for which it takes some right; this one leads nowhere.
    let mut granted = vec!["net.http:nowhere.example:80"];
    granted.extend(launch.rights);
    let env: Vec<(&str, &str)> =
        [("TASK", task), ("WHAT", what)].into_iter().chain(launch.env.iter().copied()).collect();
    let launch = Launch { rights: &granted, env: &env, ..launch };
    let mut launched = launch.of(wasi_guest()).await.unwrap();
    let answer = launched.call("run", json!({})).await;
    assert!(matches!(answer, Ok(serde_json::Value::Null)), "{answer:?} {:?}", launched.lines());
    launched.lines()
}

/// A folder with `texts/one`, `private/key`, and in `texts` links that lead out.
fn ground() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    for name in ["texts", "texts/inner", "private"] {
        std::fs::create_dir(root.join(name)).unwrap();
    }
    std::fs::write(root.join("texts/one"), "first").unwrap();
    std::fs::write(root.join("texts/inner/two"), "second").unwrap();
    std::fs::write(root.join("private/key"), "secret").unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;
        symlink("../private/key", root.join("texts/relative")).unwrap();
        symlink(root.join("private/key"), root.join("texts/absolute")).unwrap();
        symlink("../private", root.join("texts/folder")).unwrap();
        symlink("inner/two", root.join("texts/within")).unwrap();
    }
    let path = root.to_str().unwrap().to_owned();
    (folder, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_folder_is_there_and_nothing_else_is() {
    let (_ground, root) = ground();
    let texts = format!("fs.read:{root}/texts/**");
    let one = format!("{root}/texts/one");
    assert_eq!(does("read", &one, &[&texts]).await, ["Ok(\"first\")"]);
    assert_eq!(
        does("read", &format!("{root}/texts/inner/two"), &[&texts]).await,
        ["Ok(\"second\")"]
    );
    // Without the right there is nothing at all, and beside the folder neither.
    for (path, granted) in [
        (&one, &[][..]),
        (&format!("{root}/private/key"), &[texts.as_str()][..]),
        (&format!("{root}/texts/../private/key"), &[texts.as_str()][..]),
        (&"/etc/passwd".to_owned(), &[texts.as_str()][..]),
    ] {
        let seen = does("read", path, granted).await;
        assert!(seen[0].starts_with("Err("), "{path}: {seen:?}");
    }
    let seen = does("write", &format!("{root}/texts/new"), &[&texts]).await;
    assert!(seen[0].starts_with("Err("), "{seen:?}");
    assert!(!std::path::Path::new(&format!("{root}/texts/new")).exists());

    let writes = format!("fs.write:{root}/texts/**");
    assert_eq!(does("write", &format!("{root}/texts/new"), &[&writes]).await, ["Ok(())"]);
    assert_eq!(std::fs::read_to_string(format!("{root}/texts/new")).unwrap(), "written");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn no_link_leads_out_of_a_granted_folder() {
    let (_ground, root) = ground();
    let writes = format!("fs.write:{root}/texts/**");
    // The positive control: links that stay inside are followed.
    assert_eq!(does("read", &format!("{root}/texts/within"), &[&writes]).await, ["Ok(\"second\")"]);
    for name in ["relative", "absolute", "folder/key"] {
        let seen = does("read", &format!("{root}/texts/{name}"), &[&writes]).await;
        assert!(seen[0].starts_with("Err("), "{name}: {seen:?}");
    }
    let seen = does("list", &format!("{root}/texts/folder"), &[&writes]).await;
    assert!(seen[0].starts_with("Err("), "{seen:?}");
    // A link that the guest makes itself leads no farther.
    for target in ["../private/key", "/etc/passwd", "../../../../../../../../etc/passwd"] {
        let name = format!("own{}", target.len());
        let seen = does("link", &format!("{root}/texts/{name} {target}"), &[&writes]).await;
        assert!(seen[1].starts_with("Err("), "{target}: {seen:?}");
    }
    assert_eq!(std::fs::read_to_string(format!("{root}/private/key")).unwrap(), "secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_has_what_was_granted_and_stdin_is_empty() {
    let launch = Launch { env: &[("LANG", "C")], ..Launch::default() };
    assert_eq!(
        with("environment", "", launch).await,
        [
            r#"[("LANG", "C"), ("TASK", "environment"), ("WHAT", "")]"#,
            "arguments []",
            "stdin Ok(0)",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn output_over_the_log_rate_is_dropped_and_counted() {
    let limits = Limits { log_bytes_per_second: 64 << 10, ..Limits::default() };
    let env = [("TASK", "spam"), ("WHAT", "2000")];
    let granted = ["net.http:nowhere.example:80"];
    let launch = Launch { limits: Some(limits), env: &env, rights: &granted, ..Launch::default() };
    let mut launched = launch.of(wasi_guest()).await.unwrap();
    launched.call("run", json!({})).await.unwrap();
    let kept: usize = launched.lines().iter().map(String::len).sum();
    let dropped = *launched.host.dropped.lock().unwrap();
    assert!(kept >= 1000 && dropped > 1_000_000, "{kept} kept, {dropped} dropped");
    assert!(kept < 1_000_000, "{kept}");
}

/// A wait of a minute in the host, for a call that has less than a second.
async fn ends_with_its_call(guest: &Reflected) {
    let env = [("TASK", "sleep"), ("WHAT", "60000")];
    let granted = ["net.http:nowhere.example:80"];
    let launch = Launch { env: &env, rights: &granted, ..Launch::default() };
    let mut launched = launch.of(guest).await.unwrap();
    let begun = std::time::Instant::now();
    let answer = launched.call_within("run", json!({}), Duration::from_millis(300)).await;
    let Err(Trouble::Trapped(failure)) = answer else { panic!("{answer:?}") };
    assert_eq!(failure.code, ErrorCode::Deadline);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_in_the_host_ends_with_the_calls_deadline() {
    ends_with_its_call(wasi_guest()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_anew_with_each_call_and_its_status_counts() {
    let granted = ["net.http:nowhere.example:80"];
    let env = [("TASK", "exit"), ("WHAT", "0")];
    let mut launched =
        Launch { env: &env, rights: &granted, ..Launch::default() }.of(wasi_guest()).await.unwrap();
    for _ in 0..3 {
        launched.call("run", json!({})).await.unwrap();
    }
    let env = [("TASK", "exit"), ("WHAT", "3")];
    let mut launched =
        Launch { env: &env, rights: &granted, ..Launch::default() }.of(wasi_guest()).await.unwrap();
    let failure = launched.call("run", json!({})).await.unwrap_err().into_failure();
    assert_eq!(failure.code, ErrorCode::PluginError, "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_for_one_call_is_the_limit_that_it_is() {
    let granted = ["net.http:nowhere.example:80"];
    for (task, fits, over, rule, says) in [
        ("random-bytes", "65536", "65537", "random", "at most 65536"),
        ("insecure", "65536", "65537", "random", "asked for 65537"),
        // Sets of fields with a name and a value of 1000 bytes each.
        ("fields", "1\n29000", "1\n40000", "headers", "at most 32 KiB"),
        // More than the stream says that it takes.
        ("body-piece", "65536", "65537", "body", "at once"),
    ] {
        let reached = does(task, fits, &[]).await;
        assert!(reached[0].starts_with("reached"), "{task}: {reached:?}");
        let env = [("TASK", task), ("WHAT", over)];
        let launch = Launch { env: &env, rights: &granted, ..Launch::default() };
        let mut launched = launch.of(wasi_guest()).await.unwrap();
        let failure = launched.call("run", json!({})).await.unwrap_err().into_failure();
        assert_eq!(failure.code, ErrorCode::LimitExceeded, "{task}: {failure}");
        assert_eq!(failure.rule.as_deref(), Some(rule), "{task}: {failure}");
        assert!(failure.message.contains(says), "{task}: {failure}");
    }
    // Bodies that are kept and never sent take what their streams take, and no more.
    let pieces = does("requests", "100\n1048576", &[]).await;
    assert_eq!(pieces, ["reached 100 requests"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_right_for_requests_the_component_is_not_instantiated() {
    // What it imports beside that takes one of two.
    let launch = Launch { rights: &["net.tcp:db.example:5432"], ..Launch::default() };
    let Err(failure) = launch.of(wasi_guest()).await else { panic!("it was started") };
    assert_eq!(failure.code, ErrorCode::Denied);
    assert!(
        failure.message.contains("wasi:http/outgoing-handler")
            && failure.message.contains("net.http"),
        "{failure}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wasi_0_3_runs_on_the_engine_for_it() {
    let text = r#"(component
        (import "wasi:random/random@0.3.0" (instance $random
            (export "get-random-u64" (func (result u64)))
        ))
        (core module $m
            (import "" "random" (func $random (result i64)))
            (func (export "roll") (result i64) call $random)
        )
        (core func $random (canon lower (func $random "get-random-u64")))
        (core instance $i (instantiate $m (with "" (instance (export "random" (func $random))))))
        (func (export "roll") (result u64) (canon lift (core func $i "roll")))
    )"#;
    let code = reflect(&wat::parse_str(text).unwrap()).unwrap();
    let mut launched = Launch::default().of(&code).await.unwrap();
    let one = launched.call("roll", json!({})).await.unwrap();
    let two = launched.call("roll", json!({})).await.unwrap();
    assert!(one.is_u64() && one != two, "{one} {two}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_files_are_open_than_the_launch_may_have() {
    let (_ground, root) = ground();
    let texts = format!("fs.read:{root}/texts/**");
    let one = format!("{root}/texts/one");
    let limits = || Some(Limits { files: 16, ..Limits::default() });
    let launch = Launch { rights: &[&texts], limits: limits(), ..Launch::default() };
    let lines = with("many-files", &format!("{one}\n20"), launch).await;
    assert_eq!(lines, ["stderr: 16 files", "blocked EDQUOT"]);
    // What is closed is given back, and a stream takes no place beside its file.
    let launch = Launch { rights: &[&texts], limits: limits(), ..Launch::default() };
    let lines = with("again", &one, launch).await;
    assert_eq!(lines, [r#"(16, "blocked EDQUOT") (16, "blocked EDQUOT")"#]);
    // In WASI 0.3 a stream outlives the handle, and takes its place.
    let granted = ["net.http:nowhere.example:80", &texts];
    for task in ["again", "again-streams"] {
        let env = [("TASK", task), ("WHAT", &*one)];
        let launch = Launch { env: &env, rights: &granted, limits: limits(), ..Launch::default() };
        let mut launched = launch.of(wasi3_guest()).await.unwrap();
        launched.call("run", json!({})).await.unwrap();
        assert_eq!(launched.lines(), ["(16, ErrorCode::Quota) (16, ErrorCode::Quota)"], "{task}");
    }
}

/// What the guest of WASI 0.3 writes when it does one thing, behind a guard.
async fn third(task: &str, what: &str, granted: &[&str], guard: Guard) -> (Vec<String>, usize) {
    let decide = rights(granted);
    let way_out = Some((guard, Arc::clone(&decide) as Arc<dyn Decide>));
    let env = [("TASK", task), ("WHAT", what)];
    // As `with`: it takes some right for requests.
    let mut rights = vec!["net.http:nowhere.example:80"];
    rights.extend(granted);
    let launch = Launch { rights: &rights, env: &env, way_out, ..Launch::default() };
    let mut launched = launch.of(wasi3_guest()).await.unwrap();
    let answer = launched.call("run", json!({})).await;
    assert!(answer.is_ok(), "{answer:?} {:?}", launched.lines());
    (launched.lines(), decide.recorded("deny"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_of_wasi_0_3_ends_with_the_calls_deadline() {
    ends_with_its_call(wasi3_guest()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_and_not_given_back_is_bounded() {
    let granted = ["net.http:nowhere.example:80"];
    let streams = async |what| {
        let env = [("TASK", "streams"), ("WHAT", what)];
        let launch = Launch { env: &env, rights: &granted, ..Launch::default() };
        launch.of(wasi3_guest()).await.unwrap().call("run", json!({})).await
    };
    assert!(streams("500").await.is_ok());
    let failure = streams("50000").await.unwrap_err().into_failure();
    assert_eq!(failure.code, ErrorCode::LimitExceeded, "{failure}");

    // Files: a launch has a part of what the process may have open, and gives it back.
    let (_ground, root) = ground();
    let texts = format!("fs.read:{root}/texts/**");
    let one = |most: u32| format!("{root}/texts/one\n{most}");
    for _ in 0..3 {
        assert_eq!(does("many-files", &one(20), &[&texts]).await, ["reached 20 files"]);
        let lines = does("many-files", &one(400), &[&texts]).await;
        assert_eq!(lines.last().unwrap(), "blocked EDQUOT", "{lines:?}");
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_named_pipe_keeps_no_thread_of_the_host() {
    let (_ground, root) = ground();
    let pipe = format!("{root}/texts/pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let texts = format!("fs.read:{root}/texts/**");
    let begun = std::time::Instant::now();
    assert_eq!(does("open", &pipe, &[&texts]).await, ["blocked EPERM"]);
    let granted = ["net.http:nowhere.example:80", &texts];
    let (lines, _) = third("open", &pipe, &granted, guard_for(&[])).await;
    assert!(lines[0].contains("NotPermitted"), "{lines:?}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_named_pipe_that_is_swapped_in_keeps_no_thread_either() {
    use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};
    let (_ground, root) = ground();
    let (file, pipe) = (format!("{root}/texts/one"), format!("{root}/texts/pipe"));
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let swapping = std::thread::spawn({
        let (stop, file, pipe) = (Arc::clone(&stop), file.clone(), pipe.clone());
        move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                renameat_with(CWD, &file, CWD, &pipe, RenameFlags::EXCHANGE).unwrap();
            }
        }
    });
    let texts = format!("fs.read:{root}/texts/**");
    let env = [("TASK", "race"), ("WHAT", &*format!("{file}\n1500"))];
    let granted = ["net.http:nowhere.example:80", &texts];
    let launch = Launch { env: &env, rights: &granted, ..Launch::default() };
    let mut launched = launch.of(wasi_guest()).await.unwrap();
    let answer = launched.call_within("run", json!({}), Duration::from_secs(10)).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    swapping.join().unwrap();
    // Whoever waits at a pipe after all is let go, so that the runtime of the test can end.
    for path in [&file, &pipe] {
        let _ = std::fs::File::options().read(true).write(true).open(path);
    }
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(launched.lines(), ["blocked inside"]);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn files_are_opened_as_they_are_wished() {
    let (_ground, root) = ground();
    let writes = format!("fs.write:{root}/texts/**");
    let at = |name: &str| format!("{root}/texts/{name}");
    for (task, name, says) in [
        ("create", "new", "reached made"),
        ("create", "new", "blocked EEXIST"),
        ("append", "new", "reached written"),
        ("append", "missing", "blocked ENOENT"),
        ("open", "new", "reached more"),
        ("truncate", "new", "reached cut"),
        ("open", "new", "reached "),
        ("write-through", "new", "reached made"),
        ("open", "new", "reached made"),
        ("open", "inner", "blocked EISDIR"),
        ("open", "inner/two", "reached second"),
        ("open", "within", "reached second"),
        ("open", "relative", "blocked EPERM"),
        ("open", "one/two", "blocked ENOTDIR"),
    ] {
        assert_eq!(does(task, &at(name), &[&writes]).await, [says], "{task} {name}");
    }
    let reads = format!("fs.read:{root}/texts/**");
    assert_eq!(does("append", &at("one"), &[&reads]).await, ["blocked EPERM"]);
    assert_eq!(std::fs::read_to_string(at("one")).unwrap(), "first");
}
