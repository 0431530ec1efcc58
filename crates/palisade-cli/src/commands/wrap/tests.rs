use super::{
    files::Backup,
    undo::{Values, unwrapped_text},
    *,
};

const CLAUDE_DESKTOP: &str = r#"{
  "globalShortcut": "Ctrl+Space",
  "mcpServers": {
    "filesystem": {
      "command": "npx",
      "args": [
        "-y",
        "@modelcontextprotocol/server-filesystem",
        "/usr",
        "/nowhere/at/all"
      ]
    },
    "github": {
      "command": "npx",
      "args": ["-y", "@modelcontextprotocol/server-github"],
      "env": {
        "GITHUB_PERSONAL_ACCESS_TOKEN": "ghp_0123456789abcdefghij",
        "GITHUB_HOST": "github.example.org"
      }
    },
    "time": {
      "command": "uvx"
    }
  }
}
"#;

const CLAUDE_CODE: &str = r#"{
	"numStartups": 12345678901234567890123,
	"projects": {
		"/home/ada/work": {
			"allowedTools": [],
			"mcpServers": {
				"db": {
					"type": "stdio",
					"command": "node",
					"args": ["/usr/bin/env", "--root=/usr", "${HOME}/x"],
					"env": { "DATABASE_URL": "postgres://app:hunter2@db.example.org/app" }
				},
				"remote": { "type": "http", "url": "https://example.org/mcp" }
			}
		}
	},
	"mcpServers": {}
}"#;

const CURSOR: &str = r#"{"mcpServers":{"slack":{"command":"node","args":["./server.js"],"env":{"SLACK_BOT_TOKEN":"xoxb-1111-2222-hunter2","SLACK_TEAM_ID":"T01234567"},"envFile":".env"},"web":{"url":"https://example.org/sse"}}}"#;

const WINDSURF: &str = r#"{
    "mcpServers": {
        "maps": {
            "command": "npx",
            "args": ["-y", "server-maps", "--api-key", "hunter2hunter2"],
            "disabled": true,
            "env": { "KEY": "${env:MAPS_KEY}", "NODE_OPTIONS": "--inspect", "EMPTY_TOKEN": "" }
        },
        "remote": { "serverUrl": "https://example.org/mcp" }
    }
}
"#;

const VS_CODE: &str = r#"{
  // Asked once, kept by the editor.
  "inputs": [
    { "type": "promptString", "id": "key", "description": "API key", "password": true },
  ],
  "servers": {
    "perplexity": {
      "type": "stdio",
      "command": "npx",
      "args": ["-y", "server-perplexity-ask"], /* pinned? */
      "env": { "PERPLEXITY_API_KEY": "${input:key}" },
    },
    "docker": { "type": "stdio", "command": "docker", "args": ["run", "-i", "--rm", "x"] },
    "remote": { "type": "sse", "url": "https://example.org/sse" },
  },
}
"#;

const ZED: &str = r#"{
  // Zed settings
  "theme": "One Dark",
  "context_servers": {
    "new": {
      "source": "custom",
      "command": "uv",
      "args": ["--directory", "/usr/lib", "run", "main.py"],
      "env": {}
    },
    "old": {
      "command": {
        "path": "npx",
        "args": [],
        "env": { "API_TOKEN": "hunter2" }
      },
      "settings": {}
    },
    "installed": { "source": "extension", "settings": {} }
  },
  "buffer_font_size": 15.0, // points
}
"#;

fn plans(text: &str) -> (Node, Vec<Planned>) {
    let root = jsonc::parse(text).unwrap();
    let mut plans: Vec<Planned> =
        servers::servers(&root).unwrap().iter().map(planned::plan).collect();
    for plan in &mut plans {
        plan.paths.iter_mut().for_each(|path| path.access = Access::Read);
        let server = planned::name_part(&plan.name);
        for secret in &mut plan.secrets {
            secret.name = format!("{server}.{}", secret.variable);
        }
    }
    (root, plans)
}

/// What a person is told, and the text afterwards. Checks on the way that it can be undone, and that a
/// second time changes nothing.
fn wrapped(before: &str) -> String {
    let (root, plans) = plans(before);
    let found = servers::servers(&root).unwrap();
    let after = wrapped_text(before, &found, &plans, "/usr/bin/palisade", None);
    let new = check(&after, &found, &plans).unwrap();
    let told: Vec<String> = plans.iter().map(|plan| plan.in_words(Paint::NONE)).collect();
    let told = told.join("\n");
    let changes = show::diff((before, &root), (&after, &new), Paint::NONE);
    for secret in ["hunter2", "ghp_", "xoxb-"] {
        assert!(!told.contains(secret) && !changes.contains(secret), "{told}\n{changes}");
        let in_args = before.contains("\"hunter2hunter2\"");
        assert!(in_args || !after.contains(secret), "{after}");
    }

    let again = servers::servers(&new).unwrap();
    let second: Vec<Planned> = again.iter().map(planned::plan).collect();
    assert_eq!(wrapped_text(&after, &again, &second, "/other/palisade", None), after);
    assert!(second.iter().all(|plan| plan.action != Action::Wrap));

    let backup = Backup {
        path: "/unused".into(),
        text: before.to_owned(),
        root: jsonc::parse(before).unwrap(),
    };
    let (back, restored) = unwrapped_text(&after, &again, &[backup], Some(&Values::new()));
    assert!(restored.iter().all(|server| server.exact && server.warnings.is_empty()));
    assert_eq!(back, before);
    format!("{told}\n\n{after}")
}

#[test]
fn each_client_s_file_is_changed_as_reviewed() {
    for (name, text) in [
        ("claude-desktop", CLAUDE_DESKTOP),
        ("claude-code", CLAUDE_CODE),
        ("cursor", CURSOR),
        ("windsurf", WINDSURF),
        ("vs-code", VS_CODE),
        ("zed", ZED),
    ] {
        insta::assert_snapshot!(name, wrapped(text));
    }
}

#[test]
fn a_dry_run_shows_what_changes_without_secrets() {
    let (root, plans) = plans(CLAUDE_DESKTOP);
    let found = servers::servers(&root).unwrap();
    let after =
        wrapped_text(CLAUDE_DESKTOP, &found, &plans, "/usr/bin/palisade", Some("/srv/state"));
    let new = jsonc::parse(&after).unwrap();
    insta::assert_snapshot!(show::diff((CLAUDE_DESKTOP, &root), (&after, &new), Paint::NONE));
}

#[test]
fn secrets_that_were_set_anew_since_are_the_ones_that_come_back() {
    let (root, plans) = plans(CLAUDE_DESKTOP);
    let found = servers::servers(&root).unwrap();
    let after = wrapped_text(CLAUDE_DESKTOP, &found, &plans, "/usr/bin/palisade", None);
    let new = jsonc::parse(&after).unwrap();
    let again = servers::servers(&new).unwrap();
    let name = "github.GITHUB_PERSONAL_ACCESS_TOKEN".to_owned();
    let values = Values::from([((None, name), SecretValue::new("ghp_\"rotated\"").unwrap())]);
    let backup = || Backup {
        path: "/unused".into(),
        text: CLAUDE_DESKTOP.to_owned(),
        root: jsonc::parse(CLAUDE_DESKTOP).unwrap(),
    };
    let (back, _) = unwrapped_text(&after, &again, &[backup()], Some(&values));
    assert_eq!(back, CLAUDE_DESKTOP.replace("ghp_0123456789abcdefghij", "ghp_\\\"rotated\\\""));

    // Without the backup too.
    let (back, restored) = unwrapped_text(&after, &again, &[], Some(&values));
    let value = jsonc::parse(&back).unwrap();
    let back_servers = servers::servers(&value).unwrap();
    let Shape::Stdio(launch) = &back_servers[1].shape else { panic!("{back}") };
    let env = launch.env.and_then(Node::members).unwrap();
    assert_eq!(env[1].node.text(), Some("ghp_\"rotated\""));
    assert_eq!(restored[1].variables, ["GITHUB_PERSONAL_ACCESS_TOKEN"]);

    // Kept out of the file when the person says so, and when they are gone.
    for values in [None, Some(&Values::new())] {
        let backups: &[Backup] = if values.is_some() { &[] } else { &[backup()] };
        let (back, restored) = unwrapped_text(&after, &again, backups, values);
        assert!(!back.contains("ghp_"), "{back}");
        assert!(restored[1].warnings[0].contains("GITHUB_PERSONAL_ACCESS_TOKEN"));
        assert!(back.contains("\"GITHUB_HOST\""), "{back}");
    }
}

#[test]
fn only_a_clear_answer_gives_access_to_a_path() {
    let answer = |typed: &str| {
        let (_, mut plans) = plans(CLAUDE_DESKTOP);
        let mut out = Vec::new();
        ask_paths(&mut plans[0], typed.as_bytes(), &mut out).unwrap();
        (plans[0].paths[0].access, String::from_utf8(out).unwrap())
    };
    for (typed, access) in [
        ("r\n", Access::Read),
        ("WRITE\n", Access::Write),
        ("\n", Access::None),
        ("", Access::None),
        ("n\n", Access::None),
        ("yes\nr\n", Access::Read),
        ("yes\n", Access::None),
    ] {
        assert_eq!(answer(typed).0, access, "{typed:?}");
    }
    assert!(answer("").1.starts_with("filesystem names the folder /usr\n"));
}

#[test]
fn names_are_shown_so_that_they_steer_nothing() {
    let text = "{\"mcpServers\": {\"a\\u001b[31m\\u202e\": {\"command\": \"x\", \"env\": {\"\\u001bK\": \"1\"}}, \"раypal\": {\"command\": \"x\"}}}";
    let (_, plans) = plans(text);
    for plan in &plans {
        let told = plan.in_words(Paint::NONE);
        assert!(
            told.chars().all(|c| c == '\n' || !palisade_model::text::is_deceptive(c)),
            "{told:?}"
        );
    }
    assert!(plans[1].warnings[0].contains("look alike"));
}

#[test]
fn what_a_server_behind_palisade_may_do_is_shown_and_another_palisade_is_told_apart() {
    let text = r#"{"servers": {
        "a": {"command": "palisade", "args": ["mcp", "--grant", "fs.read:/**", "--secret", "A=b", "--", "x"]},
        "b": {"command": "./bin/palisade", "args": ["mcp", "--", "x"]}}}"#;
    let (_, plans) = plans(text);
    assert!(plans.iter().all(|plan| plan.action == Action::Already));
    assert_eq!(plans[0].grants, ["fs.read:/**", "secret A=b"]);
    assert!(plans[0].warnings.is_empty());
    assert_eq!(plans[1].warnings, ["it starts another program than this one: ./bin/palisade"]);
}

#[test]
fn a_capability_is_added_to_the_server_that_is_named() {
    let (_, mut plans) = plans(CLAUDE_DESKTOP);
    let add = |plans: &mut [Planned], text: &str| planned::add_grants(plans, &[text.to_owned()]);
    add(&mut plans, "time=net.http:example.org").unwrap();
    assert_eq!(plans[2].options(None), ["mcp", "--grant", "net.http:example.org:443", "--"]);
    for wrong in ["time", "time=", "time=nothing", "other=env:A", "=env:A", "time=fs.raed:/x"] {
        assert_eq!(add(&mut plans, wrong).unwrap_err().exit_status(), 2, "{wrong}");
    }
}
