//! `palisade mcp wrap` and `unwrap` as a person uses them: files, modes, links, secrets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Output,
};

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

const TOKEN: &str = "ghp_0123456789abcdefghij";

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn config(&self) -> (PathBuf, String) {
        fs::create_dir_all(self.path("docs")).unwrap();
        let text = format!(
            r#"{{
  "theme": 1.0,
  "mcpServers": {{
    "github": {{
      "command": "npx",
      "args": ["-y", "server-github", "{}"],
      "env": {{ "GITHUB_TOKEN": "{TOKEN}", "HOST": "example.org" }}
    }},
    "remote": {{ "url": "https://example.org/mcp" }}
  }}
}}
"#,
            self.path("docs").display()
        );
        (self.write("mcp.json", &text, 0o640), text)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("palisade"));
        command
            .env_remove("XDG_STATE_HOME")
            .env("PALISADE_STATE_DIR", self.path("state"))
            .args(args);
        command
    }

    fn mcp(&self, what: &str, config: &Path, more: &[&str]) -> Output {
        let output = self
            .command(&["mcp", what, config.to_str().unwrap()])
            .args(more)
            .timeout(std::time::Duration::from_secs(60))
            .output()
            .unwrap();
        for stream in [&output.stdout, &output.stderr] {
            assert!(!String::from_utf8_lossy(stream).contains(TOKEN), "a secret is shown");
        }
        output
    }

    fn done(&self, what: &str, config: &Path, more: &[&str]) -> String {
        let output = self.mcp(what, config, more);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().mode() & 0o7777
}

fn secrets_on_disk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(secrets_on_disk(&path));
        } else if String::from_utf8_lossy(&fs::read(&path).unwrap()).contains(TOKEN) {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_server_goes_behind_palisade_and_comes_back_byte_for_byte() {
    let place = Place::new();
    let (config, text) = place.config();
    let said = place.done(
        "wrap",
        &config,
        &["--grant-paths", "read", "--grant", "github=net.http:example.org"],
    );
    assert!(said.contains("GITHUB_TOKEN, kept as github.GITHUB_TOKEN"), "{said}");

    let now: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    let server = &now["mcpServers"]["github"];
    let palisade = assert_cmd::cargo::cargo_bin!("palisade").canonicalize().unwrap();
    assert_eq!(server["command"], palisade.to_str().unwrap());
    let docs = place.path("docs");
    let state = place.path("state");
    assert_eq!(
        server["args"],
        serde_json::json!([
            "mcp",
            "--state-dir",
            state,
            "--secret",
            "GITHUB_TOKEN=github.GITHUB_TOKEN",
            "--grant",
            "env:HOST",
            "--grant",
            format!("fs.read:{}/**", docs.display()),
            "--grant",
            "net.http:example.org:443",
            "--",
            "npx",
            "-y",
            "server-github",
            docs,
        ])
    );
    assert_eq!(server["env"], serde_json::json!({ "HOST": "example.org" }));
    assert_eq!(mode(&config), 0o640);

    // The secret is in two places, and nobody else can read either.
    let backup = place.path("mcp.json.palisade-backup");
    assert_eq!(fs::read_to_string(&backup).unwrap(), text);
    let found = secrets_on_disk(place.0.path());
    assert_eq!(found.len(), 2, "{found:?}");
    for path in &found {
        assert_eq!(mode(path), 0o600, "{path:?}");
    }

    let wrapped = fs::read_to_string(&config).unwrap();
    let again = place.done("wrap", &config, &[]);
    assert!(again.contains("it runs behind Palisade already"), "{again}");
    assert_eq!(fs::read_to_string(&config).unwrap(), wrapped);

    let said = place.done("unwrap", &config, &[]);
    assert_eq!(fs::read_to_string(&config).unwrap(), text);
    assert!(!backup.exists() && said.contains("is removed"), "{said}");
    assert_eq!(mode(&config), 0o640);
}

#[test]
fn a_dry_run_changes_nothing_and_creates_nothing() {
    let place = Place::new();
    let (config, text) = place.config();
    let said = place.done("wrap", &config, &["--dry-run"]);
    assert!(said.contains("\"<secret>\"") && said.contains("Nothing was changed"), "{said}");
    assert_eq!(fs::read_to_string(&config).unwrap(), text);
    let mut left: Vec<_> =
        fs::read_dir(place.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["docs", "mcp.json"]);
}

#[test]
fn the_answer_for_programs_has_everything_but_the_values() {
    let place = Place::new();
    let (config, _) = place.config();
    let answer: Value = serde_json::from_str(&place.done("wrap", &config, &["--json"])).unwrap();
    assert_eq!(answer["changed"], true);
    assert_eq!(answer["servers"][0]["action"], "wrap");
    assert_eq!(answer["servers"][0]["secrets"][0]["secret"], "github.GITHUB_TOKEN");
    assert_eq!(answer["servers"][0]["paths_not_granted"][0], place.path("docs").to_str().unwrap());
    assert_eq!(answer["servers"][1]["action"], "remote");
    let answer: Value = serde_json::from_str(&place.done("unwrap", &config, &["--json"])).unwrap();
    assert_eq!(answer["servers"][0]["exact"], true);
    assert_eq!(answer["removed_backups"].as_array().unwrap().len(), 1);
}

#[test]
fn a_link_is_followed_and_stays_a_link() {
    let place = Place::new();
    let (config, text) = place.config();
    let link = place.path("link.json");
    symlink(&config, &link).unwrap();
    place.done("wrap", &link, &[]);
    assert!(link.symlink_metadata().unwrap().file_type().is_symlink());
    assert_ne!(fs::read_to_string(&config).unwrap(), text);
    place.done("unwrap", &link, &[]);
    assert_eq!(fs::read_to_string(&config).unwrap(), text);
}

#[test]
fn servers_that_were_added_since_stay_and_need_no_backup() {
    let place = Place::new();
    let (config, text) = place.config();
    place.done("wrap", &config, &[]);
    let added = r#"    "mine": { "command": "x" },
    "remote""#;
    let edited = fs::read_to_string(&config).unwrap().replace("    \"remote\"", added);
    fs::write(&config, &edited).unwrap();
    // A second wrap has a backup of its own; both entries are found again.
    place.done("wrap", &config, &[]);
    place.done("unwrap", &config, &[]);
    assert_eq!(fs::read_to_string(&config).unwrap(), text.replace("    \"remote\"", added));

    // Without any backup the secret comes from the store.
    place.done("wrap", &config, &[]);
    for entry in fs::read_dir(place.0.path()).unwrap().flatten() {
        if entry.file_name().to_string_lossy().contains("backup") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    place.done("unwrap", &config, &[]);
    let now: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    assert_eq!(now["mcpServers"]["github"]["env"]["GITHUB_TOKEN"], TOKEN);
    assert_eq!(now["mcpServers"]["mine"]["command"], "x");
}

#[test]
fn secrets_stay_out_of_the_file_when_told() {
    let place = Place::new();
    let (config, _) = place.config();
    place.done("wrap", &config, &[]);
    let said = place.done("unwrap", &config, &["--keep-secrets"]);
    assert!(said.contains("its value is kept as the secret github.GITHUB_TOKEN"), "{said}");
    let now = fs::read_to_string(&config).unwrap();
    assert!(!now.contains(TOKEN) && now.contains("\"command\": \"npx\""), "{now}");
}

#[test]
fn two_files_with_servers_of_one_name_keep_their_own_secrets() {
    let place = Place::new();
    let (config, text) = place.config();
    place.done("wrap", &config, &[]);
    let other = place.write("other.json", &text.replace("ghp_0", "ghp_9"), 0o600);
    let said = place.done("wrap", &other, &[]);
    assert!(said.contains("kept as github-2.GITHUB_TOKEN"), "{said}");
    let same = place.write("same.json", &text, 0o600);
    let said = place.done("wrap", &same, &[]);
    assert!(said.contains("kept as github.GITHUB_TOKEN"), "{said}");
    place.done("unwrap", &other, &[]);
    assert!(fs::read_to_string(&other).unwrap().contains("ghp_9"));
}

#[test]
fn what_is_no_configuration_is_refused_with_line_and_column() {
    let place = Place::new();
    for (text, said) in [
        ("{\n  \"mcpServers\": {,\n}", "broken.json:2:18: expected a name in double quotes"),
        ("{\"x\": 1}", "broken.json:1:1: there are no MCP servers in it"),
        (
            "{\"mcpServers\": {},\n \"mcpServers\": {}}",
            "broken.json:2:2: mcpServers stands here twice",
        ),
    ] {
        let config = place.write("broken.json", text, 0o600);
        let output = place.mcp("wrap", &config, &[]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(said), "{stderr}");
        assert_eq!(fs::read_to_string(&config).unwrap(), text);
    }
    assert_eq!(place.mcp("wrap", &place.path("none.json"), &[]).status.code(), Some(2));
    assert_eq!(place.mcp("wrap", place.0.path(), &[]).status.code(), Some(2));
    let bytes = place.write("bytes.json", "", 0o600);
    fs::write(&bytes, b"{\"mcpServers\": {}, \"x\": \"\xff\"}").unwrap();
    assert_eq!(place.mcp("wrap", &bytes, &[]).status.code(), Some(2));
}

#[test]
fn a_file_that_others_can_write_is_warned_of() {
    let place = Place::new();
    let (config, _) = place.config();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o666)).unwrap();
    let output = place.mcp("wrap", &config, &[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("can be written by others (mode 666)"), "{stderr}");
    assert_eq!(mode(&config), 0o666);
}

#[test]
fn a_backup_that_others_could_have_written_is_not_read() {
    let place = Place::new();
    let (config, text) = place.config();
    place.done("wrap", &config, &[]);
    let backup = place.path("mcp.json.palisade-backup");
    fs::set_permissions(&backup, fs::Permissions::from_mode(0o622)).unwrap();
    let answer: Value = serde_json::from_str(&place.done("unwrap", &config, &["--json"])).unwrap();
    assert_eq!(answer["servers"][0]["exact"], false);
    assert!(backup.exists());
    let (now, then): (Value, Value) = (
        serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap(),
        serde_json::from_str(&text).unwrap(),
    );
    assert_eq!(now, then, "its meaning is restored without it");
}

/// Answers `initialize`, has one tool, and that tells the environment.
const SERVER: &str = r#"
import json, os, sys
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    result = {}
    if message["method"] == "initialize":
        result = {"protocolVersion": message["params"]["protocolVersion"], "capabilities": {"tools": {}},
                  "serverInfo": {"name": "env", "version": "1"}}
    elif message["method"] == "tools/list":
        result = {"tools": [{"name": "env", "inputSchema": {"type": "object"}}]}
    elif message["method"] == "tools/call":
        result = {"content": [{"type": "text", "text": json.dumps(dict(os.environ))}]}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"#;

#[test]
fn a_client_that_starts_what_stands_in_the_file_has_a_server_with_its_secret() {
    let place = Place::new();
    let server = place.write("server.py", SERVER, 0o644);
    let text = format!(
        r#"{{"mcpServers": {{"env": {{"command": "python3", "args": ["{}"],
            "env": {{"API_TOKEN": "{TOKEN}", "REGION": "eu", "LD_AUDIT": "/x"}}}}}}}}"#,
        server.display()
    );
    let config = place.write("mcp.json", &text, 0o600);
    let said = place.done("wrap", &config, &[]);
    assert!(said.contains("LD_AUDIT does not reach it"), "{said}");
    let now: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    let entry = &now["mcpServers"]["env"];
    let args = entry["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap().to_owned());
    let args: Vec<String> = args.collect();
    assert!(!args.join(" ").contains(TOKEN), "no secret among the arguments");

    let message = |id: u32, method: &str, params: Value| {
        serde_json::json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
            .to_string()
    };
    let initialize = serde_json::json!({
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"},
    });
    let lines = [
        message(1, "initialize", initialize),
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned(),
        message(2, "tools/list", serde_json::json!({})),
        message(3, "tools/call", serde_json::json!({"name": "env", "arguments": {}})),
    ];
    let mut client = std::process::Command::new(entry["command"].as_str().unwrap())
        .args(&args)
        // As a client does it: its own environment, and what stands in the file.
        .env("CLIENT_VARIABLE", "1")
        .env("REGION", entry["env"]["REGION"].as_str().unwrap())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = client.stdin.take().unwrap();
    let mut stdout = std::io::BufReader::new(client.stdout.take().unwrap());
    let mut answer = String::new();
    for line in lines {
        std::io::Write::write_all(&mut stdin, format!("{line}\n").as_bytes()).unwrap();
        if line.contains("\"id\"") {
            answer.clear();
            std::io::BufRead::read_line(&mut stdout, &mut answer).unwrap();
        }
    }
    drop(stdin);
    let output = client.wait_with_output().unwrap();
    let answer: Value = serde_json::from_str(&answer)
        .unwrap_or_else(|_| panic!("{answer}: {}", String::from_utf8_lossy(&output.stderr)));
    let told =
        answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"));
    let environment: Value = serde_json::from_str(told).unwrap();
    assert_eq!(environment["API_TOKEN"], TOKEN);
    assert_eq!(environment["REGION"], "eu");
    assert_eq!(environment.get("CLIENT_VARIABLE"), None);
}
