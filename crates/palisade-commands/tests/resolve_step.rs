//! The resolve step against registries of the test's own: where it goes, what it keeps, what it refuses.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use common::{argv, context, launch, options, registry::Registry};
use palisade_commands::{
    Command, CommandError, Context, Package, Start, analyse,
    resolve::{self, Options, Watch},
};
use palisade_egress::{Entry, decide::Verdict};
use serde_json::json;

/// A server of MCP in a few lines, that tells its version.
const SERVER: &str = r#"#!/usr/bin/env node
const v = require('./package.json').version;
require('readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const m = JSON.parse(line);
  const result = {
    initialize: { protocolVersion: '2025-06-18', capabilities: { tools: {} }, serverInfo: { name: 'x', version: v } },
    'tools/list': { tools: [{ name: 'v' + v, inputSchema: { type: 'object' } }] },
    'tools/call': { content: [{ type: 'text', text: JSON.stringify(process.env) }] },
  }[m.method];
  if (m.id !== undefined) process.stdout.write(JSON.stringify({ jsonrpc: '2.0', id: m.id, result }) + '\n');
});
"#;

const PYTHON: &str = r#"
import json, os, sys
def main():
    for line in sys.stdin:
        m = json.loads(line)
        result = {
            "initialize": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}},
            "tools/list": {"tools": [{"name": "dep" + __import__("test_dep").VERSION, "inputSchema": {"type": "object"}}]},
        }.get(m["method"])
        if "id" in m:
            print(json.dumps({"jsonrpc": "2.0", "id": m["id"], "result": result}), flush=True)
"#;

#[derive(Default)]
struct Seen {
    refused: Mutex<Vec<String>>,
    lines: Mutex<Vec<String>>,
}

impl Watch for Seen {
    fn line(&self, line: &str) {
        self.lines.lock().unwrap().push(line.to_owned());
    }
    fn egress(&self, entry: &Entry<'_>) {
        if let Verdict::Refused { .. } = entry.verdict {
            self.refused.lock().unwrap().push(entry.authority.to_string());
        }
    }
}

struct Bench {
    registry: Registry,
    context: Context,
    options: Options,
    seen: Arc<Seen>,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::start();
        let home = dir.path().join("home");
        fs::create_dir_all(&home).unwrap();
        let mut context =
            context(&[], &[("UV_DEFAULT_INDEX", &format!("{}/simple", registry.url()))]);
        context.home = Some(home);
        context.env.retain(|name, _| !name.to_ascii_lowercase().starts_with("npm_config_"));
        context.env.insert("npm_config_registry".into(), registry.url());
        context.env.insert("npm_config_globalconfig".into(), "/nowhere".into());
        let options = options(&dir.path().join("cache"));
        Self { registry, context, options, seen: Arc::default(), _dir: dir }
    }

    /// Publishes a server for npm that needs nothing.
    fn publish(&self, version: &str) {
        let manifest = json!({"bin": "server.js", "dependencies": {"test-dep": "*"}});
        self.registry.npm("test-server", version, manifest, &[("server.js", SERVER)]);
    }

    fn package(&self, words: &[&str]) -> Package {
        match analyse(&argv(words), &self.context).unwrap() {
            Command::Package(package) => package,
            other => panic!("{other:?}"),
        }
    }

    async fn resolve(&self, words: &[&str]) -> Result<Start, CommandError> {
        let watch = Arc::clone(&self.seen) as Arc<dyn Watch>;
        resolve::resolve(&self.package(words), &self.context, &self.options, watch).await
    }

    fn cached(&self, words: &[&str]) -> Option<Start> {
        resolve::cached(&self.package(words), &self.context, &self.options).unwrap()
    }

    fn kept(&self) -> usize {
        fs::read_dir(self.options.cache.join("packages")).map_or(0, Iterator::count)
    }
}

const NPX: [&str; 3] = ["npx", "-y", "test-server"];

async fn version_of(start: &Start) -> String {
    let mut server = launch(start, &[]).await.unwrap();
    server.tools().await.unwrap().join(",")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_is_fetched_once_and_started_without_network() {
    let bench = Bench::new();
    bench.registry.npm("test-dep", "1.0.0", json!({}), &[("index.js", "")]);
    bench.publish("1.0.0");
    assert!(bench.cached(&NPX).is_none());
    let start = bench.resolve(&NPX).await.unwrap();
    assert_eq!(start.identity, "npm:test-server");
    assert_eq!(version_of(&start).await, "v1.0.0");
    let asked = bench.registry.seen().len();
    assert!(asked >= 4, "{:?}", bench.registry.seen());

    // The second start: neither a registry nor a process, only a few files.
    let begun = Instant::now();
    let again = bench.cached(&NPX).unwrap();
    assert_eq!(again, start);
    assert!(begun.elapsed() < Duration::from_millis(50), "{:?}", begun.elapsed());
    assert_eq!(bench.resolve(&NPX).await.unwrap(), start);
    assert_eq!(bench.registry.seen().len(), asked, "the registry was asked again");

    // What is kept cannot be changed by accident, and a change is found.
    let tree = start.code[0].clone();
    let script =
        PathBuf::from(start.program.args.iter().find(|a| a.ends_with("server.js")).unwrap());
    for path in [&tree, &script] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o222, 0, "{path:?}");
    }
    let package = bench.package(&NPX);
    assert_eq!(resolve::verify(&package, &bench.context, &bench.options).unwrap(), Some(true));
    fs::set_permissions(&script, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&script, "changed").unwrap();
    assert_eq!(resolve::verify(&package, &bench.context, &bench.options).unwrap(), Some(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_gets_neither_the_registry_s_token_nor_the_host_s_environment() {
    let mut bench = Bench::new();
    bench.registry.npm("test-dep", "1.0.0", json!({}), &[("index.js", "")]);
    bench.publish("1.0.0");
    let npmrc = format!("//{}/:_authToken=t0ken-of-the-user\n", bench.registry.address);
    fs::write(bench.context.home.as_ref().unwrap().join(".npmrc"), npmrc).unwrap();
    bench.context.env.insert("SOME_SECRET".into(), "s3cret-of-the-host".into());
    let start = bench.resolve(&NPX).await.unwrap();
    assert!(bench.registry.credentials().iter().all(|c| c == "Bearer t0ken-of-the-user"));
    assert!(!bench.registry.credentials().is_empty());
    let mut server = launch(&start, &[]).await.unwrap();
    server.tools().await.unwrap();
    let env = server.call("env", json!({})).await.unwrap();
    assert!(!env.contains("t0ken") && !env.contains("s3cret"), "{env}");
    // Nor does the cache keep it.
    let found = std::process::Command::new("grep")
        .args(["-rl", "t0ken"])
        .arg(&bench.options.cache)
        .output()
        .unwrap();
    assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_reaches_its_registry_and_nothing_else() {
    let bench = Bench::new();
    let elsewhere = Registry::start();
    elsewhere.npm("test-dep", "1.0.0", json!({}), &[("index.js", "")]);
    // The registry says that the archive lies on another server of this machine.
    let other = format!("http://127.0.0.1:{}", elsewhere.address.port());
    bench.registry.npm_at("test-dep", "1.0.0", json!({}), &[("index.js", "")], &other);
    bench.publish("1.0.0");
    bench.context.home.as_ref().unwrap();
    let mut strict = bench.context.clone();
    strict.env.insert("npm_config_replace_registry_host".into(), "never".into());
    let watch = Arc::clone(&bench.seen) as Arc<dyn Watch>;
    let package = bench.package(&NPX);
    let refused = resolve::resolve(&package, &strict, &bench.options, Arc::clone(&watch)).await;
    match refused {
        Err(CommandError::Install { hint, .. }) => {
            assert!(hint.contains(&elsewhere.address.to_string()), "{hint}");
        }
        other => panic!("{other:?}"),
    }
    assert!(elsewhere.seen().is_empty(), "{:?}", elsewhere.seen());
    assert!(bench.seen.refused.lock().unwrap().contains(&elsewhere.address.to_string()));
    assert_eq!(bench.kept(), 0);

    // Named by the operator, the same server may be reached.
    let mut wider = bench.options.clone();
    wider.more_hosts.push(elsewhere.address.to_string().parse_authority());
    let start = resolve::resolve(&package, &strict, &wider, watch).await.unwrap();
    assert_eq!(version_of(&start).await, "v1.0.0");
    assert!(!elsewhere.seen().is_empty());
}

trait ParseAuthority {
    fn parse_authority(&self) -> palisade_egress::Authority;
}

impl ParseAuthority for String {
    fn parse_authority(&self) -> palisade_egress::Authority {
        palisade_egress::Authority::parse(self).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn install_scripts_do_not_run_and_who_needs_one_is_named() {
    let bench = Bench::new();
    let marker = bench.options.cache.join("../was-run");
    let script = json!({"bin": "server.js", "scripts": {"postinstall": format!("touch {}; node build.js", marker.display())}});
    // What the script would have made is not there.
    let broken = SERVER.replacen("const v", "require('./built.js');\nconst v", 1);
    bench.registry.npm("test-server", "0.1.0", script.clone(), &[("server.js", &broken)]);
    match bench.resolve(&NPX).await {
        Err(CommandError::NeedsScripts { package, hint, why }) => {
            assert_eq!(package, "test-server");
            assert!(why.contains("node build.js"), "{why}");
            assert!(hint.contains("npm install") && hint.contains("--ignore-scripts"), "{hint}");
        }
        other => panic!("{other:?}"),
    }
    assert!(bench.cached(&NPX).is_none());
    // npm's own option says that it is to be tried anyway.
    let anyway = ["npx", "--ignore-scripts", "-y", "test-server"];
    assert_eq!(bench.resolve(&anyway).await.unwrap().notes.len(), 1);
    // One that starts without its script is taken, with a note.
    bench.registry.npm("test-server", "1.0.0", script, &[("server.js", SERVER)]);
    let start = bench.resolve(&NPX).await.unwrap();
    assert!(start.notes[0].contains("test-server"), "{:?}", start.notes);
    assert_eq!(version_of(&start).await, "v1.0.0");
    assert!(!marker.exists());

    // Of a dependency: a note; a native one that must be built: an error.
    bench.registry.npm(
        "test-dep",
        "1.0.0",
        json!({"scripts": {"postinstall": "node fetch.js"}}),
        &[("index.js", "")],
    );
    bench.publish("2.0.0");
    let start = bench.resolve(&["npx", "-y", "test-server@2.0.0"]).await.unwrap();
    assert!(
        start.notes[0].contains("test-dep") && start.notes[0].contains("node fetch.js"),
        "{:?}",
        start.notes
    );
    bench.registry.npm("test-dep", "1.1.0", json!({}), &[("index.js", ""), ("binding.gyp", "{}")]);
    bench.publish("3.0.0");
    match bench.resolve(&["npx", "-y", "test-server@3.0.0"]).await {
        Err(CommandError::NeedsScripts { package, .. }) => assert_eq!(package, "test-dep"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_stay_until_they_are_asked_for_again_even_if_the_tree_is_lost() {
    let mut bench = Bench::new();
    bench.registry.npm("test-dep", "1.0.0", json!({}), &[("index.js", "")]);
    bench.publish("1.0.0");
    let first = bench.resolve(&NPX).await.unwrap();
    bench.publish("1.1.0");
    assert_eq!(bench.resolve(&NPX).await.unwrap(), first);
    // The tree is lost, the lock file is not: the same versions, and so the same tree.
    fs::rename(&first.code[0], bench.options.cache.join("lost")).unwrap();
    assert!(bench.cached(&NPX).is_none());
    assert_eq!(bench.resolve(&NPX).await.unwrap(), first);
    assert_eq!(version_of(&first).await, "v1.0.0");
    bench.options.refresh = true;
    let newer = bench.resolve(&NPX).await.unwrap();
    assert_eq!(version_of(&newer).await, "v1.1.0");
    bench.options.refresh = false;
    assert_eq!(bench.cached(&NPX).unwrap(), newer);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_starts_at_once_fetch_once() {
    let bench = Bench::new();
    bench.registry.npm("test-dep", "1.0.0", json!({}), &[("index.js", "")]);
    bench.publish("1.0.0");
    let (a, b, c) = tokio::join!(bench.resolve(&NPX), bench.resolve(&NPX), bench.resolve(&NPX));
    let a = a.unwrap();
    assert_eq!((&a, &a), (&b.unwrap(), &c.unwrap()));
    let archives = bench.registry.seen().iter().filter(|path| path.ends_with(".tgz")).count();
    assert_eq!(archives, 2, "{:?}", bench.registry.seen());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_cut_off_leaves_nothing_half_done() {
    let bench = Bench::new();
    bench.registry.npm("test-dep", "1.0.0", json!({}), &[("index.js", "")]);
    bench.publish("1.0.0");
    bench.registry.slow(Duration::from_secs(1));
    let cut = tokio::time::timeout(Duration::from_millis(1500), bench.resolve(&NPX)).await;
    assert!(cut.is_err());
    assert!(bench.cached(&NPX).is_none());
    assert_eq!(bench.kept(), 0);
    let mut impatient = bench.options.clone();
    impatient.deadline = Duration::from_secs(1);
    let watch = Arc::new(resolve::Quiet);
    let late = resolve::resolve(&bench.package(&NPX), &bench.context, &impatient, watch).await;
    assert!(matches!(late, Err(CommandError::Deadline { .. })), "{late:?}");
    bench.registry.slow(Duration::ZERO);
    assert_eq!(version_of(&bench.resolve(&NPX).await.unwrap()).await, "v1.0.0");
    let left: Vec<_> = fs::read_dir(bench.options.cache.join("work")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_in_the_registry_is_said_so() {
    let bench = Bench::new();
    for words in [&["npx", "-y", "no-such-package"][..], &["uvx", "no-such-package"]] {
        match bench.resolve(words).await {
            Err(CommandError::NotFound { what, .. }) => {
                assert!(
                    what.contains("no-such-package") && what.contains(&bench.registry.url()),
                    "{what}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

/// With uv where the machine has it, and with pip where it does not.
async fn python(bench: &mut Bench) {
    bench.registry.wheel("test-dep", "1.0", "VERSION = '1.0'\n", &[]);
    bench.registry.wheel("test-server", "1.0", PYTHON, &["test-dep"]);
    let uvx = ["uvx", "test-server"];
    let start = bench.resolve(&uvx).await.unwrap();
    assert_eq!(start.identity, "pypi:test-server");
    assert_eq!(version_of(&start).await, "dep1.0");
    let asked = bench.registry.seen().len();
    assert_eq!(bench.cached(&uvx).unwrap(), start);
    assert_eq!(bench.registry.seen().len(), asked);
    // Byte code was made then: nothing can be written now.
    let site = fs::read_dir(start.code[0].join("lib")).unwrap().next().unwrap().unwrap().path();
    assert!(site.join("site-packages/__pycache__").is_dir());
    // The lock file has digests; the versions stay.
    bench.registry.wheel("test-dep", "2.0", "VERSION = '2.0'\n", &[]);
    fs::rename(&start.code[0], bench.options.cache.join("lost")).unwrap();
    assert_eq!(version_of(&bench.resolve(&uvx).await.unwrap()).await, "dep1.0");
    bench.options.refresh = true;
    assert_eq!(version_of(&bench.resolve(&uvx).await.unwrap()).await, "dep2.0");
    bench.options.refresh = false;
    // A source distribution would have to be built.
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("x.tar.gz");
    fs::write(&source, "no matter").unwrap();
    bench.registry.file("test-source", "test_source-1.0.tar.gz", &source);
    match bench.resolve(&["uvx", "test-source"]).await {
        Err(CommandError::NeedsScripts { package, .. }) => assert_eq!(package, "test-source"),
        other => panic!("{other:?}"),
    }
    bench.registry.wheel("test-needy", "1.0", PYTHON, &["test-source"]);
    match bench.resolve(&["uvx", "test-needy"]).await {
        Err(CommandError::NeedsScripts { package, .. }) => assert_eq!(package, "test-source"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_package_is_fetched_once_by_uv() {
    let mut bench = Bench::new();
    let uv = common::uv();
    let path = format!("{}:{}", uv.display(), bench.context.env["PATH"]);
    bench.context.env.insert("PATH".into(), path);
    python(&mut bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_package_is_fetched_once_by_pip() {
    let mut bench = Bench::new();
    // A PATH with a Python that has pip, and no uv.
    let python3 = palisade_process::programs::Programs::of_process().python("python3").unwrap();
    let dir = bench.options.cache.parent().unwrap().join("bin");
    fs::create_dir_all(&dir).unwrap();
    std::os::unix::fs::symlink(&python3, dir.join("python3")).unwrap();
    bench.context.env.insert("PATH".into(), dir.display().to_string());
    python(&mut bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_proxy_is_an_error_that_says_so() {
    let mut bench = Bench::new();
    bench.context.env.insert("npm_config_https_proxy".into(), "http://127.0.0.1:1".into());
    match bench.resolve(&NPX).await {
        Err(CommandError::Configuration { what, .. }) => {
            assert!(what.contains("https-proxy"), "{what}")
        }
        other => panic!("{other:?}"),
    }
    assert!(bench.registry.seen().is_empty());
}

/// A client that is itself hostile finds no way out of the step: here npm's own program is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn even_a_hostile_client_reaches_nothing_and_sees_nothing() {
    let mut bench = Bench::new();
    let elsewhere = Registry::start();
    let root = bench.options.cache.parent().unwrap().to_path_buf();
    let secret = root.join("secret");
    fs::write(&secret, "x").unwrap();
    let npm = root.join("g/lib/node_modules/npm/bin/npm-cli.js");
    fs::create_dir_all(npm.parent().unwrap()).unwrap();
    fs::write(
        &npm,
        format!(
            r#"const net = require('net'), http = require('http'), fs = require('fs');
const say = (...a) => console.log(...a);
say('secret', fs.existsSync({secret:?}), 'shadow', fs.existsSync('/etc/shadow'), 'home', fs.readdirSync('/data').join());
const direct = net.connect({port}, '127.0.0.1');
direct.on('error', (e) => say('direct', e.code)).on('connect', () => say('direct open'));
const ask = http.request({{ host: '127.0.0.1', port: 3128, method: 'CONNECT', path: '127.0.0.1:{port}', headers: {{ host: '127.0.0.1:{port}' }} }});
ask.on('connect', (r) => {{ say('proxy', r.statusCode); process.exit(1); }});
ask.on('response', (r) => {{ say('proxy', r.statusCode); process.exit(1); }});
setTimeout(() => ask.end(), 200);
"#,
            port = elsewhere.address.port()
        ),
    )
    .unwrap();
    fs::create_dir_all(root.join("g/bin")).unwrap();
    let node = palisade_process::programs::Programs::of_process().node("node").unwrap();
    std::os::unix::fs::symlink(node, root.join("g/bin/node")).unwrap();
    std::os::unix::fs::symlink("../lib/node_modules/npm/bin/npm-cli.js", root.join("g/bin/npm"))
        .unwrap();
    fs::set_permissions(&npm, fs::Permissions::from_mode(0o755)).unwrap();
    bench.context.env.insert("PATH".into(), root.join("g/bin").display().to_string());
    assert!(bench.resolve(&NPX).await.is_err());
    let lines = bench.seen.lines.lock().unwrap().join("\n");
    assert!(lines.contains("secret false shadow false home package.json"), "{lines}");
    assert!(lines.contains("direct E") && !lines.contains("direct open"), "{lines}");
    assert!(lines.contains("proxy 403"), "{lines}");
    assert!(elsewhere.seen().is_empty());
    let _ = Path::new("");
}
