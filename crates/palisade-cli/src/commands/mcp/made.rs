//! A manifest for a command line: what a server is called, what it asks for (exactly what is granted) and
//! how much it may use.

use palisade_commands::Start;
use palisade_manifest::{Manifest, ManifestError, Syntax};
use palisade_model::{Capability, Kind, Limits};
use palisade_policy::Ceilings;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Longest readable part of an id.
const MAX_READABLE: usize = 40;
/// Names that say nothing about a server; the folder around says more.
const SAYS_NOTHING: [&str; 11] =
    ["index", "main", "server", "cli", "app", "dist", "build", "src", "lib", "bin", "__main__"];

/// What an MCP server may use where nobody says otherwise: Node.js and Python servers work with it.
pub(crate) fn limits(ceilings: &Ceilings) -> Limits {
    ceilings.lower(Limits {
        cpu: 4.0,
        memory: 1 << 30,
        pids: 256,
        files: 4096,
        disk: 512 << 20,
        start_timeout: std::time::Duration::from_secs(60),
        call_timeout: std::time::Duration::from_secs(600),
        stop_timeout: std::time::Duration::from_secs(2),
        ..Limits::default()
    })
}

/// The id of a server: readable, and of this very server alone.
pub(crate) fn id(identity: &str) -> String {
    let package = identity.split_once(':').filter(|(tool, _)| !tool.contains('/'));
    let path = package.map_or(identity, |(_, package)| package);
    let mut readable = String::new();
    for part in path.rsplit('/') {
        let stem = match part.rsplit_once('.') {
            Some((stem, "js" | "mjs" | "cjs" | "ts" | "py" | "sh")) if !stem.is_empty() => stem,
            _ => part,
        };
        let plain: String = stem
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .collect();
        let plain = plain.trim_matches('-').to_owned();
        if plain.is_empty() {
            continue;
        }
        let says_nothing = SAYS_NOTHING.contains(&plain.as_str());
        readable = plain;
        if !says_nothing {
            break;
        }
    }
    readable.truncate(MAX_READABLE);
    let readable = match readable.trim_matches('-') {
        "" => "server",
        readable => readable,
    };
    let digest: String =
        Sha256::digest(identity.as_bytes()).iter().take(4).map(|b| format!("{b:02x}")).collect();
    format!("{readable}-{digest}")
}

fn milliseconds(time: std::time::Duration) -> String {
    format!("{}ms", time.as_millis().max(1))
}

/// The manifest of what `start` names. It asks for what is granted and for nothing else.
pub(crate) fn manifest(
    start: &Start,
    granted: &[Capability],
    limits: &Limits,
) -> Result<Manifest, ManifestError> {
    let mut required: Vec<Value> = Vec::new();
    for capability in granted.iter().filter(|c| c.kind() != Kind::Tool) {
        let wanted = json!({ "capability": capability.to_string(), "reason": "Granted on the command line." });
        if !required.contains(&wanted) {
            required.push(wanted);
        }
    }
    let text = json!({
        "api": palisade_manifest::API,
        "id": id(&start.identity),
        "version": "0.0.0",
        "entry": { "kind": "mcp", "command": start.program.file, "args": start.program.args },
        "capabilities": { "required": required },
        "resources": {
            "cpu": limits.cpu,
            "memory": limits.memory,
            "pids": limits.pids,
            "files": limits.files,
            "disk": limits.disk,
            "timeouts": {
                "start": milliseconds(limits.start_timeout),
                "call": milliseconds(limits.call_timeout),
                "stop": milliseconds(limits.stop_timeout),
            },
        },
    });
    palisade_manifest::parse(&text.to_string(), Syntax::Json)
}

#[cfg(test)]
mod tests {
    use palisade_sandbox::{Program, Runtime};

    use super::*;

    #[test]
    fn an_id_is_readable_and_of_one_server_alone() {
        for (identity, readable) in [
            ("npm:@modelcontextprotocol/server-everything", "server-everything-"),
            ("pypi:mcp-server-time", "mcp-server-time-"),
            ("/srv/weather/dist/index.js", "weather-"),
            ("/usr/bin/My Tool", "my-tool-"),
            ("/", "server-"),
            ("/a/Über.py", "ber-"),
            (&format!("/x/{}", "long".repeat(30)), &"long".repeat(10)),
        ] {
            let id = id(identity);
            assert!(id.starts_with(readable), "{identity}: {id}");
            assert!(palisade_model::PluginId::parse(&id).is_ok(), "{id}");
        }
        assert_ne!(id("/a/index.js"), id("/a/main.js"));
        assert_eq!(id("/a/index.js"), id("/a/index.js"));
    }

    #[test]
    fn the_manifest_asks_for_what_is_granted() {
        let start = Start {
            program: Program {
                runtime: Runtime::Native,
                file: "/usr/bin/node".into(),
                args: vec!["/srv/x.js".into(), "--a=\"b\"".into(), String::new()],
            },
            code: vec![],
            env: Default::default(),
            identity: "/srv/x.js".into(),
            paths: vec![],
            programs: vec![],
            notes: vec![],
        };
        let granted: Vec<Capability> =
            ["fs.read:/srv/docs/**", "env:TOKEN", "tool:a", "mcp.sampling:*", "env:TOKEN"]
                .iter()
                .map(|c| c.parse().unwrap())
                .collect();
        let mut ceilings = Ceilings::default();
        let made = manifest(&start, &granted, &limits(&ceilings)).unwrap();
        let asked: Vec<String> =
            made.capabilities.required.iter().map(|r| r.capability.to_string()).collect();
        assert_eq!(asked, ["fs.read:/srv/docs/**", "env:TOKEN", "mcp.sampling:*"]);
        assert_eq!(made.resources.over(&Limits::default()), limits(&ceilings));
        ceilings.memory = Some(300 << 20);
        assert_eq!(limits(&ceilings).memory, 300 << 20, "the operator's ceiling");
    }
}
