//! `mcp_overhead`: what `palisade mcp --` adds to the start of an MCP server, from the start of the
//! process to the answer of `initialize`.
//!
//! Both sides start the same `node server.js` and say the same `initialize`. On our side there are also:
//! the start of `palisade`, the analysis of the command, the stores (grants, pins), the walls, the relay
//! with gate and record, and the copy of every message. The rounds are interleaved and their order
//! alternates. One row is for a real server from the registry, one for a server in thirty lines without
//! any library, which starts as quickly as Node.js itself.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use crate::{
    plugin::Result,
    report::{Row, Samples},
};

const ROUNDS: usize = 30;
const WARM_UP: usize = 3;
const PACKAGE: &str = "@modelcontextprotocol/server-everything";
const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#;

const SMALL: &str = r#"
const lines = require("node:readline").createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const message = JSON.parse(line);
  if (message.method !== "initialize") return;
  const result = {
    protocolVersion: message.params.protocolVersion,
    capabilities: { tools: {} },
    serverInfo: { name: "small", version: "1" },
  };
  process.stdout.write(JSON.stringify({ jsonrpc: "2.0", id: message.id, result }) + "\n");
});
"#;

/// Milliseconds from the start to the answer.
fn start(program: &Path, args: &[&str], state: &Path) -> Result<f64> {
    let begun = Instant::now();
    let mut child = Command::new(program)
        .args(args)
        // The same small environment for both: variables such as NODE_EXTRA_CA_CERTS make Node.js start
        // later, and never come behind the walls.
        .env_clear()
        .envs(["PATH", "HOME"].into_iter().filter_map(|n| Some((n, std::env::var_os(n)?))))
        .env("PALISADE_STATE_DIR", state)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let (Some(mut to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("no pipes".into());
    };
    writeln!(to, "{INITIALIZE}")?;
    let mut answer = String::new();
    BufReader::new(from).read_line(&mut answer)?;
    let took = begun.elapsed().as_secs_f64() * 1e3;
    drop(to);
    child.wait()?;
    if answer.contains("\"serverInfo\"") {
        Ok(took)
    } else {
        Err(format!("{} did not answer initialize: {answer:?}", program.display()).into())
    }
}

/// The release build of the command, beside this program.
fn palisade() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("palisade");
    match path.is_file() {
        true => Ok(path),
        false => Err(format!("{} is not there: cargo build --release", path.display()).into()),
    }
}

/// Installs the real server once, by the ordinary client.
fn installed() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-packages/bench");
    let script = root.join("node_modules").join(PACKAGE).join("dist/index.js");
    if !script.is_file() {
        std::fs::create_dir_all(&root)?;
        std::fs::write(root.join("package.json"), r#"{"name": "bench", "private": true}"#)?;
        let done = Command::new("npm")
            .args(["install", "--silent", PACKAGE])
            .current_dir(&root)
            .stdout(Stdio::null())
            .status()?;
        if !done.success() {
            return Err(format!("npm install {PACKAGE} ended with {done}").into());
        }
    }
    Ok(script.canonicalize()?)
}

fn compare(name: &str, script: &Path) -> Result<Row> {
    let (palisade, state) = (palisade()?, tempfile::tempdir()?);
    let script = script.to_str().ok_or("a path that is not UTF-8")?;
    let (mut walled, mut plain) = (Samples::default(), Samples::default());
    for round in 0..WARM_UP + ROUNDS {
        let ours = || start(&palisade, &["mcp", "--", "node", script], state.path());
        let theirs = || start(Path::new("node"), &[script], state.path());
        let (a, b) = match round % 2 {
            0 => {
                let a = ours()?;
                (a, theirs()?)
            }
            _ => {
                let b = theirs()?;
                (ours()?, b)
            }
        };
        if round >= WARM_UP {
            walled.push(a);
            plain.push(b);
        }
    }
    Ok(Row::new(name, "ms", &walled).against(&plain))
}

pub(crate) fn run() -> Result<Vec<Row>> {
    let real = compare("mcp_overhead", &installed()?)?.aim(1.15);
    let dir = tempfile::tempdir()?;
    let small = dir.path().join("server.js");
    std::fs::write(&small, SMALL)?;
    Ok(vec![real, compare("mcp_overhead.small", &small)?])
}
