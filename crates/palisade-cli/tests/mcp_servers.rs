//! Unmodified servers from the public registries behind `palisade mcp`: installed beforehand, and by `npx`
//! and `uvx`. Each is initialized, lists its tools and runs one.
//!
//! What they need is installed under `target/test-packages` once, by the ordinary clients.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod mcp_client;

use std::{
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use mcp_client::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

const NPM: [&str; 3] = [
    "@modelcontextprotocol/server-everything",
    "@modelcontextprotocol/server-filesystem",
    "@modelcontextprotocol/server-memory",
];
const PYPI: [&str; 3] = ["mcp-server-time", "mcp-server-git", "mcp-server-fetch"];

fn packages(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-packages");
    std::fs::create_dir_all(&root).unwrap();
    root.canonicalize().unwrap().join(name)
}

/// Fills a folder once, even where several tests want it.
fn once(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let target = packages(name);
    let lock = std::fs::File::create(packages(&format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    if !target.join(".done").exists() {
        let _ = std::fs::remove_dir_all(&target);
        std::fs::create_dir_all(&target).unwrap();
        make(&target);
        std::fs::write(target.join(".done"), "").unwrap();
    }
    target
}

/// Runs a program of this machine that a test needs, outside of any walls.
fn run(program: &str, args: &[&str], folder: &Path) {
    let output = Command::new(program).args(args).current_dir(folder).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
}

fn npm(package: &str) -> String {
    let root = once("npm-local", |folder| {
        std::fs::write(folder.join("package.json"), r#"{"name": "x", "private": true}"#).unwrap();
        run("npm", &[&["install", "--silent"], &NPM[..]].concat(), folder);
    });
    root.join("node_modules").join(package).join("dist/index.js").display().to_string()
}

fn venv(program: &str) -> String {
    let root = once("venv", |folder| {
        run("python3", &["-m", "venv", "venv"], folder);
        run("venv/bin/pip", &[&["-q", "install"], &PYPI[..]].concat(), folder);
    });
    root.join("venv/bin").join(program).display().to_string()
}

fn uv() -> PathBuf {
    let place = once("uv", |folder| {
        run("python3", &["-m", "venv", "venv"], folder);
        run("venv/bin/pip", &["-q", "install", "uv"], folder);
    });
    place.join("venv/bin")
}

struct Stage {
    dir: TempDir,
}

impl Stage {
    fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("palisade-mcp-").tempdir().unwrap() }
    }

    fn folder(&self, name: &str) -> PathBuf {
        let folder = self.dir.path().canonicalize().unwrap().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// `palisade mcp OPTIONS -- COMMAND`, in the environment of whoever runs the tests.
    fn start(&self, options: &[&str], command: &[&str]) -> (Client, Vec<String>) {
        let mut child = Command::new(assert_cmd::cargo::cargo_bin!("palisade"));
        let path = std::env::var("PATH").unwrap_or_default();
        child
            .args([&["mcp"], options, &["--"], command].concat())
            .current_dir(self.dir.path())
            .env("PATH", format!("{}:{path}", uv().display()))
            .env("PALISADE_STATE_DIR", self.folder("state"))
            .env("XDG_CACHE_HOME", packages("xdg-cache"))
            .env("A_VARIABLE_OF_THE_HOST", "hunter2");
        let mut client = Client::spawn(child);
        let answer = client.initialize();
        assert!(answer["result"]["serverInfo"]["name"].is_string(), "{command:?}: {answer}");
        let tools = client.tools();
        (client, tools)
    }
}

fn ends(client: Client, command: &[&str]) {
    let (status, said) = client.close();
    assert_eq!(status, 0, "{command:?}: {said}");
}

fn is_error(answer: &Value) -> bool {
    answer["result"]["isError"] == true || answer["error"].is_object()
}

fn everything(command: &[&str]) {
    let stage = Stage::new();
    let (mut client, tools) = stage.start(&[], command);
    assert!(tools.contains(&"get-env".to_owned()), "{tools:?}");
    assert!(client.text("echo", json!({"message": "hello"})).contains("hello"));
    let env = client.text("get-env", json!({}));
    assert!(env.contains("PATH") && !env.contains("hunter2"), "{env}");
    for (name, value) in std::env::vars().filter(|(_, value)| value.len() > 12) {
        let harmless = ["PATH", "HOME", "LANG", "TZ"].contains(&name.as_str());
        assert!(harmless || !env.contains(&value), "{name} of the host is in {env}");
    }
    ends(client, command);
}

fn filesystem(command: &[&str]) {
    let stage = Stage::new();
    let (shown, hidden) = (stage.folder("shown"), stage.folder("hidden"));
    std::fs::write(shown.join("a.txt"), "granted").unwrap();
    std::fs::write(hidden.join("a.txt"), "not granted").unwrap();
    let grant = format!("fs.read:{}/**", shown.display());
    // The server itself is told that it may read everything.
    let command = [command, &["/"]].concat();
    let (mut client, _) = stage.start(&["--grant", &grant], &command);
    let read = |folder: &Path| json!({"path": folder.join("a.txt")});
    assert_eq!(client.text("read_text_file", read(&shown)), "granted");
    let refused = client.call("read_text_file", read(&hidden));
    assert!(is_error(&refused) && !refused.to_string().contains("not granted\""), "{refused}");
    ends(client, &command);
}

fn memory(command: &[&str]) {
    let stage = Stage::new();
    let (mut client, _) = stage.start(&[], command);
    let graph = client.call("read_graph", json!({}));
    assert!(!is_error(&graph), "{graph}");
    ends(client, command);
}

fn time(command: &[&str]) {
    let stage = Stage::new();
    let (mut client, _) = stage.start(&[], command);
    let now = client.text("get_current_time", json!({"timezone": "Europe/Berlin"}));
    assert!(now.contains("Europe/Berlin"), "{now}");
    ends(client, command);
}

fn git(command: &[&str]) {
    let stage = Stage::new();
    let repository = stage.folder("repository");
    run("git", &["init", "-q"], &repository);
    let name = ["-c", "user.name=A", "-c", "user.email=a@example.org"];
    run(
        "git",
        &[&name[..], &["commit", "-q", "--allow-empty", "-m", "the first"]].concat(),
        &repository,
    );
    let grant = format!("fs.read:{}/**", repository.display());
    let (mut client, _) = stage.start(&["--grant", &grant], command);
    let log = client.text("git_log", json!({"repo_path": repository}));
    assert!(log.contains("the first"), "{log}");
    ends(client, command);
}

/// A web server on loopback that has one page.
fn web() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let n = stream.read(&mut head).unwrap();
            let is_page = head[..n].starts_with(b"GET /page ");
            let (status, body) =
                if is_page { ("200 OK", "the page of the test") } else { ("404 Not Found", "") };
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

fn fetch(command: &[&str]) {
    let port = web();
    let url = json!({"url": format!("http://127.0.0.1:{port}/page")});
    // Without this it refuses loopback itself.
    let command = &[command, &["--allow-private-ips"]].concat()[..];
    let stage = Stage::new();
    let (mut client, _) = stage.start(&[], command);
    let refused = client.call("fetch", url.clone());
    assert!(is_error(&refused), "{refused}");
    ends(client, command);
    let grant = format!("net.http:127.0.0.1:{port}");
    let (mut client, _) = stage.start(&["--grant", &grant], command);
    let page = client.text("fetch", url);
    assert!(page.contains("the page of the test"), "{page}");
    ends(client, command);
}

#[test]
fn npm_packages_that_are_installed() {
    everything(&["node", &npm(NPM[0])]);
    filesystem(&["node", &npm(NPM[1])]);
    memory(&["node", &npm(NPM[2])]);
}

#[test]
fn npm_packages_by_npx() {
    everything(&["npx", "-y", NPM[0]]);
    filesystem(&["npx", "-y", NPM[1]]);
    memory(&["npx", "-y", NPM[2]]);
}

#[test]
fn python_packages_that_are_installed() {
    time(&[&venv(PYPI[0])]);
    git(&[&venv("python"), "-m", "mcp_server_git"]);
    fetch(&[&venv(PYPI[2])]);
}

#[test]
fn python_packages_by_uvx() {
    time(&["uvx", PYPI[0]]);
    git(&["uvx", PYPI[1]]);
    fetch(&["uv", "tool", "run", PYPI[2]]);
}
