//! `palisade learn` and `--explain`, end to end: what is drafted passes, and nothing else does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::Value;
use support::{Launcher, Place, launchers, manifest, program};

/// A web server on loopback. Gives its port, and how often it was asked.
fn server() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            counter.fetch_add(1, Ordering::SeqCst);
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
        }
    });
    (port, asked)
}

/// Reads two files, writes one, asks a server; with `more`, does one thing more.
fn worker(place: &Place, port: u16) -> String {
    format!(
        r#"
import urllib.request
base, args = {base:?}, message["params"]["args"]
def attempt(what):
    try: return what()
    except Exception as e: return type(e).__name__
def write(name):
    with open(f"{{base}}/out/{{name}}", "w") as out: out.write("x")
    return "written"
answer = {{
    "read": [attempt(lambda: open(f"{{base}}/in/{{n}}").read()) for n in ("a", "b")],
    "write": attempt(lambda: write("result")),
    "net": attempt(lambda: urllib.request.urlopen("http://127.0.0.1:{port}/", timeout=10).read().decode()),
    "env": os.environ.get("WORKER_VARIABLE"),
}}
more = {{
    "other": lambda: open(f"{{base}}/in/other").read(),
    "list": lambda: sorted(os.listdir(f"{{base}}/in")),
    "up": lambda: open(f"{{base}}/secret").read(),
    "overwrite": lambda: open(f"{{base}}/in/a", "w").write("x"),
    "exec": lambda: os.execv("/usr/bin/env", ["env"]),
    "port": lambda: urllib.request.urlopen("http://127.0.0.1:1/", timeout=10).read().decode(),
}}
answer["more"] = attempt(more[args["more"]]) if "more" in args else None
reply(answer)"#,
        base = place.text("work")
    )
}

fn place_with_work(launcher: Launcher, port: u16) -> Place {
    let place = Place::new(launcher);
    let make = |name: &str| {
        fs::create_dir_all(place.path(name)).unwrap();
        // Whoever launches, and the plugin's user after it, may come here.
        fs::set_permissions(place.path(name), fs::Permissions::from_mode(0o777)).unwrap();
    };
    ["work", "work/in", "work/out"].into_iter().for_each(make);
    for (file, text) in
        [("in/a", "one"), ("in/b", "two"), ("in/other", "other"), ("secret", "SECRET")]
    {
        fs::write(place.path("work").join(file), text).unwrap();
    }
    place.plugin("worker", &manifest("worker", ""), &program(&worker(&place, port)));
    place
}

#[test]
fn what_was_learned_passes_again_and_anything_else_is_refused() {
    for launcher in launchers() {
        let (port, asked) = server();
        let place = place_with_work(launcher, port);
        let net = format!("--net=127.0.0.1:{port}");
        let draft = place.text("home/draft.yaml");
        let run = |args: &[&str]| {
            let mut command = place.palisade(args);
            command.env("WORKER_VARIABLE", "value");
            let output = command.output().unwrap();
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
        };
        let (status, out, err) = run(&[
            "learn",
            "plugins/worker",
            "--call",
            "go {}",
            "--call",
            "go {\"more\": \"up\"}",
            "--read",
            "work/in",
            "--write",
            "work/out",
            &net,
            "--env",
            "WORKER_VARIABLE",
            "--out",
            &draft,
        ]);
        assert_eq!(status, 0, "{launcher:?}: {err}");
        let first: Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
        let work = serde_json::json!({
            "read": ["one", "two"], "write": "written", "net": "hi", "env": "value", "more": null,
        });
        assert_eq!(first, work, "{launcher:?}");
        assert!(err.contains("/work/secret: not there inside"), "what is beyond is told: {err}");
        // The file is made again: its folder is what changes.
        let text = fs::read_to_string(&draft).unwrap();
        let asked_for: Vec<String> = text
            .lines()
            .filter_map(|l| l.strip_prefix("    - capability: "))
            .map(|l| l.trim_matches('"').to_owned())
            .collect();
        let base = place.text("work");
        assert_eq!(
            asked_for,
            [
                format!("fs.read:{base}/in/a"),
                format!("fs.read:{base}/in/b"),
                format!("fs.write:{base}/out/**"),
                format!("net.http:127.0.0.1:{port}"),
                "env:WORKER_VARIABLE".to_owned(),
            ],
            "{text}"
        );
        assert!(text.contains(&format!("# - capability: \"fs.read:{base}/secret\"")), "{text}");
        assert!(text.contains("reason: \"TODO by the author"), "{text}");

        fs::copy(&draft, place.path("plugins/worker/plugin.yaml")).unwrap();
        let (status, out, err) = run(&["check", "plugins/worker"]);
        assert_eq!(status, 0, "{err}");
        assert!(out.contains("a draft:"), "{out}");
        let call = |arguments: &str| {
            let (status, out, err) =
                run(&["call", "plugins/worker", "go", arguments, "--grant-all"]);
            assert_eq!(status, 0, "{launcher:?} {arguments}: {err}");
            serde_json::from_str::<Value>(&out).unwrap()
        };
        let before = asked.load(Ordering::SeqCst);
        assert_eq!(call("{}"), work, "{launcher:?}: the same work passes");
        assert!(asked.load(Ordering::SeqCst) > before);
        for (more, refused) in [
            ("other", &["FileNotFoundError", "PermissionError"][..]),
            ("up", &["FileNotFoundError", "PermissionError"]),
            ("overwrite", &["OSError", "PermissionError"]),
            ("exec", &["FileNotFoundError", "PermissionError"]),
            ("port", &["HTTPError"]),
        ] {
            let answer = call(&format!("{{\"more\": \"{more}\"}}"));
            let got = answer["more"].as_str().unwrap_or_default();
            assert!(refused.contains(&got), "{launcher:?} {more}: {answer}");
        }
        assert_eq!(fs::read_to_string(place.path("work/in/a")).unwrap(), "one");
        let listed = call("{\"more\": \"list\"}");
        assert_eq!(listed["more"], serde_json::json!(["a", "b"]), "only what was granted is there");
    }
}

#[test]
fn learning_hands_out_no_more_than_the_ceiling() {
    for launcher in launchers() {
        let (port, asked) = server();
        let place = place_with_work(launcher, port);
        let (status, out, err) = place.run(&[
            "learn",
            "plugins/worker",
            "--call",
            "go {\"more\": \"up\"}",
            "--read",
            "work/in/a",
            "--out",
            &place.text("home/draft.yaml"),
        ]);
        assert_eq!(status, 0, "{err}");
        let answer: Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
        assert_eq!(answer["read"][0], "one");
        for refused in [&answer["read"][1], &answer["write"], &answer["net"], &answer["more"]] {
            let name = refused.as_str().unwrap();
            assert!(name.ends_with("Error"), "{launcher:?}: {answer}");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 0);
        let text = fs::read_to_string(place.path("home/draft.yaml")).unwrap();
        let base = place.text("work");
        assert_eq!(text.matches("\n    - capability: ").count(), 1, "{text}");
        // What it tried stands there as a comment.
        for tried in [
            format!("fs.read:{base}/in/b"),
            format!("fs.write:{base}/out/**"),
            format!("net.tcp:127.0.0.1:{port}"),
        ] {
            assert!(text.contains(&format!("    # - capability: \"{tried}\"")), "{tried}: {text}");
        }
    }
}

#[test]
fn a_ceiling_that_would_be_all_of_the_machine_is_refused() {
    let place = Place::new(Launcher::Me);
    let out = place.text("draft.yaml");
    for args in [&["--read", "/"][..], &["--write", "/tmp"], &["--env", "NO_SUCH_VARIABLE_HERE"]] {
        let mut all = vec!["learn", "plugins/checksum", "--out", &out];
        all.extend(args);
        let (status, _, err) = place.run(&all);
        assert_eq!(status, 2, "{args:?}: {err}");
        assert!(!place.path("draft.yaml").exists(), "{args:?}");
    }
}

#[test]
fn a_draft_that_is_there_is_not_written_over() {
    let place = Place::new(Launcher::Me);
    fs::write(place.path("draft.yaml"), "mine").unwrap();
    let out = place.text("draft.yaml");
    let (status, _, err) =
        place.run(&["learn", "plugins/checksum", "--read", "texts", "--out", &out]);
    assert!(status == 2 && err.contains("exists"), "{status} {err}");
    assert_eq!(fs::read_to_string(place.path("draft.yaml")).unwrap(), "mine");
}

const JOB: &str = r#"
import os, sys
name = sys.stdin.read().strip()
for file in name.split():
    try: print(open(file).read().strip())
    except Exception as e: print(type(e).__name__)
"#;

#[test]
fn a_job_is_learned_from_and_held_to_its_draft() {
    for launcher in launchers() {
        let place = place_with_work(launcher, 1);
        fs::create_dir(place.path("jobs")).unwrap();
        fs::set_permissions(place.path("jobs"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(place.path("jobs/job.py"), JOB).unwrap();
        let run = |stdin: &str, args: &[&str]| {
            let mut command = place.palisade(&["learn"]);
            let script = place.text("jobs/job.py");
            let output = command
                .args(args)
                .args(["--", "/usr/bin/python3", &script])
                .write_stdin(stdin)
                .output()
                .unwrap();
            let err = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{launcher:?}: {err}");
            (String::from_utf8(output.stdout).unwrap(), err)
        };
        let draft = place.text("home/job.yaml");
        let (a, b) = (place.text("work/in/a"), place.text("work/in/b"));
        let (out, _) = run(&a, &["--read", "work", "--out", &draft]);
        assert_eq!(out, "one\n");
        let text = fs::read_to_string(&draft).unwrap();
        assert_eq!(text.matches("\n    - capability: ").count(), 1, "{text}");
        assert!(text.contains(&format!("\n    - capability: \"fs.read:{a}\"")), "{text}");
        let again = place.text("home/again.yaml");
        let (out, err) = run(&format!("{a} {b}"), &["--within", &draft, "--out", &again]);
        assert_eq!(out, "one\nFileNotFoundError\n", "{err}");
        assert!(err.contains(&format!("--grant fs.read:{b}")), "{err}");
    }
}

const MCP: &str = r#"
import json, sys
for line in sys.stdin:
    m = json.loads(line)
    if "id" not in m: continue
    if m["method"] == "initialize":
        r = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}}
    elif m["method"] == "tools/list":
        r = {"tools": [{"name": n, "description": n + "s a file", "inputSchema": {"type": "object"}} for n in ("show", "drop")]}
    else:
        try: text = open(m["params"]["arguments"]["path"]).read()
        except OSError as e: text = str(e)
        r = {"content": [{"type": "text", "text": text}]}
    print(json.dumps({"jsonrpc": "2.0", "id": m["id"], "result": r}), flush=True)
"#;

/// What a client says that starts, lists the tools and calls one.
fn client(tool: &str, path: &str) -> String {
    let messages = [
        serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}}),
        serde_json::json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        serde_json::json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}),
        serde_json::json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call",
            "params": {"name": tool, "arguments": {"path": path}}}),
    ];
    messages.iter().map(|m| format!("{m}\n")).collect()
}

#[test]
fn an_mcp_server_is_learned_from_with_the_tools_that_were_called() {
    for launcher in launchers() {
        let place = place_with_work(launcher, 1);
        fs::create_dir(place.path("servers")).unwrap();
        fs::set_permissions(place.path("servers"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(place.path("servers/server.py"), MCP).unwrap();
        let (draft, script) = (place.text("home/mcp.yaml"), place.text("servers/server.py"));
        let (a, b) = (place.text("work/in/a"), place.text("work/in/b"));
        let run = |args: &[&str], client: String| {
            let output = place
                .palisade(args)
                .args(["--", "/usr/bin/python3", &script])
                .write_stdin(client)
                .output()
                .unwrap();
            let err = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{launcher:?}: {err}");
            let out = String::from_utf8(output.stdout).unwrap();
            let answer = out
                .lines()
                .map(|l| serde_json::from_str::<Value>(l).unwrap())
                .find(|m| m["id"] == 3)
                .unwrap_or_else(|| panic!("no answer in {out}; {err}"));
            (answer, err)
        };
        let learn = ["learn", "--read", "work", "--out", &draft];
        let (answer, _) = run(&learn, client("show", &a));
        assert_eq!(answer["result"]["content"][0]["text"], "one");
        let text = fs::read_to_string(&draft).unwrap();
        let found = palisade_manifest::parse(&text, palisade_manifest::Syntax::Yaml).unwrap();
        let tools: Vec<&str> = found.contributes.tools.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(tools, ["show"], "{text}");
        assert!(text.contains("kind: \"mcp\"") && text.contains("nobody called: drop"), "{text}");
        let asked: Vec<String> =
            found.requested().required.iter().map(ToString::to_string).collect();
        assert_eq!(asked, [format!("fs.read:{a}")], "{text}");

        let behind = ["mcp", "--manifest", &draft, "--grant-all", "--explain"];
        let (answer, err) = run(&behind, client("show", &a));
        assert_eq!(answer["result"]["content"][0]["text"], "one", "the same work passes: {err}");
        let (answer, err) = run(&behind, client("show", &b));
        assert!(!answer.to_string().contains("two"), "{answer}");
        let refused = format!("--grant fs.read:{b}, once the manifest asks for it");
        assert!(err.contains(&refused), "{launcher:?}: {err}");
        let (answer, _) = run(&behind, client("drop", &a));
        assert!(answer.get("error").is_some(), "a tool that is not drafted: {answer}");
    }
}

#[test]
fn explain_names_path_call_address_and_grant() {
    for launcher in launchers() {
        let place = place_with_work(launcher, 1);
        fs::write(place.path("work/\u{1b}[2J"), "x").unwrap();
        let body = format!(
            r#"
for attempt in (
    lambda: open({:?}),
    lambda: os.stat({:?} + "\x1b[2J"),
    lambda: socket.socket(17, 3, 0),
    lambda: socket.create_connection(("192.0.2.7", 443), 1),
):
    try: attempt()
    except Exception: pass
reply(None)"#,
            place.text("work/secret"),
            place.text("work/")
        );
        let asks = "capabilities: { required: [] }\n";
        place.plugin("tries", &manifest("tries", asks), &program(&body));
        let (status, out, err) = place.run(&["call", "plugins/tries", "go", "--explain"]);
        assert_eq!((status, out.trim()), (0, "null"), "{err}");
        let base = place.text("work");
        for part in [
            format!("read {base}/secret: not there inside (openat)"),
            format!("--grant fs.read:{base}/secret, once the manifest asks for it"),
            "socket(domain=AF_PACKET): refused by the filter (errno 97)".to_owned(),
            "connect 192.0.2.7:443: no network leads there (connect)".to_owned(),
            "--grant net.tcp:192.0.2.7:443".to_owned(),
            "\\u{1b}[2J: not there inside".to_owned(),
            "nothing would allow this: its path cannot be written as a capability".to_owned(),
        ] {
            assert!(err.contains(&part), "{launcher:?}: no {part:?} in {err}");
        }
        assert!(!err.contains('\u{1b}'), "{err:?}");
        // The latest first.
        assert!(err.find("192.0.2.7").unwrap() < err.find("/secret").unwrap(), "{err}");
        let (_, _, err) = place.run(&["call", "plugins/tries", "go"]);
        assert!(!err.contains("refused by the walls"), "only where it is asked for: {err}");
    }
}

#[test]
fn explain_of_a_run_is_json_where_json_is_asked_for() {
    let place = place_with_work(Launcher::Me, 1);
    let ends = format!(
        "import os\ntry: open({:?})\nexcept OSError: pass\nos._exit(3)\n",
        place.text("work/secret")
    );
    place.plugin("ends", &manifest("ends", ""), &ends);
    let (status, out, _) = place.run(&["run", "plugins/ends", "--explain", "--json"]);
    assert_ne!(status, 0);
    let lines: Vec<Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let denied: Vec<&Value> = lines.iter().filter(|l| l["event"] == "denied").collect();
    let secret = denied.iter().find(|l| l["what"] == place.text("work/secret")).unwrap();
    assert_eq!(secret["grant"], format!("fs.read:{}", place.text("work/secret")));
    assert_eq!((&secret["calls"][0], &secret["count"]), (&"openat".into(), &1.into()));
    let end = lines.iter().find(|l| l["event"] == "explained").unwrap();
    assert_eq!(end["denied"], denied.len());
}

#[test]
fn a_call_that_ends_the_plugin_is_named() {
    for launcher in launchers() {
        let place = Place::new(launcher);
        let body = "import ctypes\nctypes.CDLL(None).syscall(321, 0, 0, 0)\nreply(1)";
        place.plugin("kills", &manifest("kills", ""), &program(body));
        let (status, _, err) = place.run(&["call", "plugins/kills", "go", "--explain"]);
        assert_eq!(status, 5, "{launcher:?}: {err}");
        assert!(err.contains("bpf: the filter ends the process"), "{launcher:?}: {err}");
        assert!(err.contains("forbidden system call"), "{launcher:?}: {err}");
    }
}
