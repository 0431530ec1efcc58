//! Real servers from the public registries, not changed in any way: installed beforehand in each of the
//! usual ways, and by `npx` and `uvx`. Each says hello, lists its tools and runs one.
//!
//! What they need is installed under `target/test-packages` once, by the ordinary clients.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use common::{Server, argv, context, launch, once, options, place, run};
use palisade_commands::{Command, CommandError, Start, analyse, resolve};
use serde_json::json;

const NPM: [&str; 3] = [
    "@modelcontextprotocol/server-everything",
    "@modelcontextprotocol/server-filesystem",
    "@modelcontextprotocol/server-memory",
];
const PYPI: [&str; 3] = ["mcp-server-time", "mcp-server-git", "mcp-server-fetch"];

async fn start_of(words: &[&str]) -> Start {
    let context = context(&[common::uv()], &[]);
    let options = options(&place("cache"));
    let start = async {
        match analyse(&argv(words), &context)? {
            Command::Package(package) => {
                resolve::resolve(&package, &context, &options, Arc::new(resolve::Quiet)).await
            }
            Command::Installed(start) => Ok(start),
            other => panic!("{words:?}: {other:?}"),
        }
    };
    start.await.unwrap_or_else(|e: CommandError| {
        let failure: palisade_model::Failure = e.into();
        panic!("{words:?}: {failure:?}")
    })
}

/// Starts a command with what it is known to need, and these rights.
async fn server(words: &[&str], rights: &[String]) -> Server {
    let start = start_of(words).await;
    let programs = start.programs.iter().map(|p| format!("exec:{}", p.display()));
    let all: Vec<String> = rights.iter().cloned().chain(programs).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    launch(&start, &all).await.unwrap_or_else(|e| panic!("{words:?}: {e}"))
}

async fn everything(words: &[&str]) {
    let mut server = server(words, &[]).await;
    let tools = server.tools().await.unwrap();
    assert!(tools.contains(&"echo".to_owned()), "{tools:?}");
    let said = server.call("echo", json!({"message": "hello"})).await.unwrap();
    assert!(said.contains("hello"), "{said}");
    let env = server.call("get-env", json!({})).await.unwrap();
    for (name, value) in std::env::vars().filter(|(_, value)| value.len() > 12) {
        let harmless = ["PATH", "HOME", "LANG", "TZ"].contains(&name.as_str());
        assert!(harmless || !env.contains(&value), "{name} of the host is in {env}");
    }
}

async fn filesystem(words: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let (shown, hidden) = (root.join("shown"), root.join("hidden"));
    for (folder, text) in [(&shown, "granted"), (&hidden, "not granted")] {
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join("a.txt"), text).unwrap();
    }
    let grant = format!("fs.read:{}/**", shown.display());
    // The server itself is told that it may read everything.
    let words: Vec<&str> = words.iter().copied().chain(["/"]).collect();
    let mut server = server(&words, &[grant]).await;
    assert!(server.tools().await.unwrap().contains(&"read_text_file".to_owned()));
    let read = |folder: &Path| json!({"path": folder.join("a.txt")});
    assert_eq!(server.call("read_text_file", read(&shown)).await.unwrap(), "granted");
    let refused = server.call("read_text_file", read(&hidden)).await.unwrap_err();
    assert!(refused.contains("ENOENT") || refused.contains("EACCES"), "{refused}");
}

async fn memory(words: &[&str]) {
    let mut server = server(words, &[]).await;
    assert!(server.tools().await.unwrap().contains(&"create_entities".to_owned()));
    let entity =
        json!({"entities": [{"name": "Ada", "entityType": "person", "observations": ["counts"]}]});
    server.call("create_entities", entity).await.unwrap();
    let graph = server.call("read_graph", json!({})).await.unwrap();
    assert!(graph.contains("Ada"), "{graph}");
}

async fn time(words: &[&str]) {
    let mut server = server(words, &[]).await;
    assert!(server.tools().await.unwrap().contains(&"convert_time".to_owned()));
    let now = server.call("get_current_time", json!({"timezone": "Europe/Berlin"})).await.unwrap();
    assert!(now.contains("Europe/Berlin"), "{now}");
}

async fn git(words: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let repository = dir.path().canonicalize().unwrap().join("r");
    std::fs::create_dir(&repository).unwrap();
    let name = ["-c", "user.name=A", "-c", "user.email=a@example.org"];
    run("git", &["init", "-q"], &repository, &[]);
    let commit = [&name[..], &["commit", "-q", "--allow-empty", "-m", "the first"]].concat();
    run("git", &commit, &repository, &[]);
    let mut server = server(words, &[format!("fs.read:{}/**", repository.display())]).await;
    assert!(server.tools().await.unwrap().contains(&"git_log".to_owned()));
    let log = server.call("git_log", json!({"repo_path": repository})).await.unwrap();
    assert!(log.contains("the first"), "{log}");
}

async fn fetch(words: &[&str]) {
    let mut server = server(words, &[]).await;
    assert!(server.tools().await.unwrap().contains(&"fetch".to_owned()));
    // Without a grant it has no network, says so, and lives on.
    for _ in 0..2 {
        let refused =
            server.call("fetch", json!({"url": "http://127.0.0.1:9/"})).await.unwrap_err();
        assert!(refused.contains("127.0.0.1"), "{refused}");
    }
}

fn local_npm() -> PathBuf {
    once("npm-local", |folder| {
        std::fs::write(folder.join("package.json"), r#"{"name": "x", "private": true}"#).unwrap();
        std::fs::write(folder.join(".env"), "SECRET=1").unwrap();
        run("npm", &[&["install", "--silent"], &NPM[..]].concat(), folder, &[]);
    })
}

fn script(root: &Path, package: &str) -> String {
    root.join("node_modules").join(package).join("dist/index.js").display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn npm_packages_of_a_project_run_by_node() {
    let root = local_npm();
    everything(&["node", &script(&root, NPM[0])]).await;
    filesystem(&["node", &script(&root, NPM[1])]).await;
    memory(&["node", &script(&root, NPM[2])]).await;
    // Of the project nothing but the packages is shown.
    let start = start_of(&["node", &script(&root, NPM[0])]).await;
    assert_eq!(start.code, [root.join("node_modules")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn npm_packages_that_are_installed_globally_run_by_their_names() {
    let root = once("npm-global", |folder| {
        let prefix = folder.display().to_string();
        run(
            "npm",
            &[&["install", "--silent", "-g", "--prefix", &prefix], &NPM[..]].concat(),
            folder,
            &[],
        );
    });
    let command = |name: &str| root.join("bin").join(name).display().to_string();
    everything(&[&command("mcp-server-everything")]).await;
    filesystem(&[&command("mcp-server-filesystem")]).await;
    memory(&[&command("mcp-server-memory")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn npx_fetches_and_runs() {
    everything(&["npx", "-y", NPM[0]]).await;
    filesystem(&["npx", "-y", NPM[1]]).await;
    memory(&["npx", "-y", NPM[2]]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_packages_of_a_virtual_environment_run_as_commands_and_modules() {
    let root = once("venv", |folder| {
        run("python3", &["-m", "venv", "venv"], folder, &[]);
        run("venv/bin/pip", &[&["-q", "install"], &PYPI[..]].concat(), folder, &[]);
    });
    let bin = |name: &str| root.join("venv/bin").join(name).display().to_string();
    time(&[&bin("mcp-server-time")]).await;
    git(&[&bin("mcp-server-git")]).await;
    fetch(&[&bin("mcp-server-fetch")]).await;
    time(&[&bin("python"), "-m", "mcp_server_time", "--local-timezone", "Europe/Berlin"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_packages_that_uv_installed_as_tools_run_by_their_names() {
    let uv = common::uv().join("uv").display().to_string();
    let root = once("uv-tools", |folder| {
        let (tools, bin) = (folder.join("tools"), folder.join("bin"));
        let env =
            [("UV_TOOL_DIR", tools.to_str().unwrap()), ("UV_TOOL_BIN_DIR", bin.to_str().unwrap())];
        for package in PYPI {
            run(&uv, &["tool", "install", "-q", package], folder, &env);
        }
    });
    let bin = |name: &str| root.join("bin").join(name).display().to_string();
    time(&[&bin("mcp-server-time")]).await;
    git(&[&bin("mcp-server-git")]).await;
    fetch(&[&bin("mcp-server-fetch")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uvx_and_pipx_run_fetch_and_run() {
    time(&["uvx", PYPI[0]]).await;
    git(&["uv", "tool", "run", PYPI[1]]).await;
    fetch(&["pipx", "run", PYPI[2]]).await;
}
