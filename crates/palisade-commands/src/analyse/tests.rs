use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use super::*;
use crate::{Package, Tool};

/// A machine in a folder: `bin` is PATH, `home` the home, `work` the working directory.
struct Machine {
    _dir: tempfile::TempDir,
    root: PathBuf,
    context: Context,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("m");
        let context = Context {
            directory: root.join("work"),
            home: Some(root.join("home")),
            env: [("PATH".to_owned(), root.join("bin").display().to_string())].into(),
        };
        let machine = Self { _dir: dir, root, context };
        for folder in ["bin", "home", "work"] {
            fs::create_dir_all(machine.root.join(folder)).unwrap();
        }
        for program in ["bin/node", "bin/tool", "base/bin/python3.11"] {
            machine.file(program, "\x7fELF");
        }
        machine.link("bin/python3", "../base/bin/python3.11");
        machine
    }

    /// An executable file.
    fn file(&self, path: &str, text: &str) -> String {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    fn analyse(&self, words: &[&str]) -> Result<Command, CommandError> {
        let argv: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        analyse(&argv, &self.context)
    }

    fn start(&self, words: &[&str]) -> Start {
        match self.analyse(words).unwrap() {
            Command::Installed(start) => start,
            other => panic!("{other:?}"),
        }
    }

    fn package(&self, words: &[&str]) -> Package {
        match self.analyse(words).unwrap() {
            Command::Package(package) => package,
            other => panic!("{other:?}"),
        }
    }

    /// The code that is shown, relative to the machine.
    fn code(&self, start: &Start) -> Vec<String> {
        let relative = |p: &PathBuf| p.strip_prefix(&self.root).unwrap().display().to_string();
        start.code.iter().map(relative).collect()
    }

    fn venv(&self, path: &str) -> String {
        self.file(&format!("{path}/pyvenv.cfg"), "home = /usr/bin\n");
        self.link(
            &format!("{path}/bin/python"),
            &self.root.join("bin/python3").display().to_string(),
        );
        self.root.join(path).display().to_string()
    }
}

#[test]
fn a_program_is_found_by_path_or_name() {
    let m = Machine::new();
    let tool = m.root.join("bin/tool").display().to_string();
    for name in ["tool", &tool, "../bin/tool"] {
        let start = m.start(&[name, "--root=/srv/x", "~/notes", "plain"]);
        assert_eq!((start.program.file.as_str(), start.code.len()), (tool.as_str(), 0), "{name}");
        let paths: Vec<&Path> = start.paths.iter().map(|p| p.path.as_path()).collect();
        assert_eq!(paths, [Path::new("/srv/x"), &m.root.join("home/notes")]);
    }
    assert!(matches!(m.analyse(&["nothing"]), Err(CommandError::NotFound { .. })));
    assert!(matches!(m.analyse(&["/nothing"]), Err(CommandError::NotFound { .. })));
    assert!(matches!(m.analyse(&[]), Err(CommandError::Usage { .. })));
}

#[test]
fn env_sets_variables_and_the_folder() {
    let m = Machine::new();
    m.file("other/s.js", "");
    let start =
        m.start(&["/usr/bin/env", "-i", "-u", "X", "A=1", "-C", "../other", "B=", "node", "s.js"]);
    assert_eq!(
        start.env,
        [("A".to_owned(), "1".to_owned()), ("B".to_owned(), String::new())].into()
    );
    assert!(start.identity.ends_with("/other/s.js"));
    assert_eq!(m.package(&["env", "A=1", "npx", "-y", "x"]).env["A"], "1");
    assert!(m.analyse(&["env", "-S", "node x"]).is_err());
}

#[test]
fn a_script_in_a_project_brings_the_project_without_hidden_files_and_keys() {
    let m = Machine::new();
    for file in [
        "package.json",
        "dist/index.js",
        "lib/a.js",
        ".env",
        ".git/config",
        "server.pem",
        "node_modules/x/i.js",
    ] {
        m.file(&format!("p/{file}"), "");
    }
    let script = m.file("p/dist/main.js", "");
    let start = m.start(&["node", "--enable-source-maps", "-r", "x", &script, "--port", "1"]);
    assert_eq!(m.code(&start), ["p/dist", "p/lib", "p/node_modules", "p/package.json"]);
    assert_eq!(start.program.file, m.root.join("bin/node").display().to_string());
    assert_eq!(start.program.args, ["--enable-source-maps", "-r", "x", &script, "--port", "1"]);
    assert_eq!(start.identity, script);
}

#[test]
fn a_script_alone_brings_its_neighbours_that_are_code() {
    let m = Machine::new();
    for file in ["s.mjs", "util.js", "secret.json", ".env", "photos/1.jpg", "lib/x.js"] {
        m.file(&format!("s/{file}"), "");
    }
    let start = m.start(&["node", &m.root.join("s/s.mjs").display().to_string()]);
    assert_eq!(m.code(&start), ["s/lib", "s/s.mjs", "s/util.js"]);
}

#[test]
fn an_installed_package_brings_its_project_or_only_itself_where_it_is_global() {
    let m = Machine::new();
    m.file("p/package.json", "{}");
    let local = m.file("p/node_modules/@s/x/dist/i.js", "#!/usr/bin/env node\n");
    let start = m.start(&["node", &local]);
    assert_eq!(m.code(&start), ["p/node_modules"]);
    m.file("g/lib/node_modules/@s/x/dist/i.js", "#!/usr/bin/env -S node --no-warnings\n");
    m.file("g/lib/node_modules/other/i.js", "");
    m.link("bin/x-server", "../g/lib/node_modules/@s/x/dist/i.js");
    let start = m.start(&["x-server", "a"]);
    assert_eq!(m.code(&start), ["g/lib/node_modules/@s/x"]);
    let script = m.root.join("g/lib/node_modules/@s/x/dist/i.js").display().to_string();
    assert_eq!(start.program.args, ["--no-warnings", &script, "a"]);
    assert!(start.program.file.ends_with("/bin/node"));
}

#[test]
fn a_shell_script_of_pnpm_leads_to_what_it_starts() {
    let m = Machine::new();
    m.file("g/5/node_modules/.modules.yaml", "");
    m.file("g/5/node_modules/.pnpm/x@1/node_modules/x/i.js", "#!/usr/bin/env node\n");
    m.link("g/5/node_modules/x", ".pnpm/x@1/node_modules/x");
    m.file("bin/x", "#!/bin/sh\nbasedir=$(dirname \"$0\")\nexec node \"$basedir/../g/5/node_modules/x/i.js\" \"$@\"\n");
    let start = m.start(&["x"]);
    assert_eq!(m.code(&start), ["g/5/node_modules"]);
    assert!(start.identity.ends_with(".pnpm/x@1/node_modules/x/i.js"));
}

#[test]
fn workspaces_bring_what_they_link_to() {
    let m = Machine::new();
    for file in [
        "w/package.json",
        "w/packages/a/package.json",
        "w/packages/b/package.json",
        "w/packages/b/i.js",
        "w/packages/b/.env",
    ] {
        m.file(file, "{}");
    }
    m.link("w/node_modules/@w/b", "../../packages/b");
    let script = m.file("w/packages/a/main.js", "");
    let code = m.code(&m.start(&["node", &script]));
    for wanted in ["w/node_modules", "w/packages/a/main.js", "w/packages/b/i.js"] {
        assert!(code.iter().any(|c| c == wanted), "{wanted} is missing: {code:?}");
    }
    assert!(!code.iter().any(|c| c.contains(".env")), "{code:?}");
}

#[test]
fn python_runs_scripts_modules_and_console_scripts_of_environments() {
    let m = Machine::new();
    let venv = m.venv("venv");
    let python = format!("{venv}/bin/python");
    let script = m.file("venv/bin/server-x", &format!("#!{python}\n"));
    for words in [vec![script.as_str(), "a"], vec![&python, &script, "a"]] {
        let start = m.start(&words);
        assert_eq!(start.program.file, python);
        assert_eq!(start.program.args, [&script, "a"]);
    }
    // pipx and uv link to it; pip writes a shell's trick where the path is long.
    m.link("bin/server-x", "../venv/bin/server-x");
    assert_eq!(m.start(&["server-x"]).identity, script);
    let tricky = m.file(
        "venv/bin/tricky",
        &format!("#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n"),
    );
    assert_eq!(m.start(&[&tricky]).program.file, python);
    let relative = m.file("venv/bin/rel", "#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'python' \"$0\" \"$@\"\n' '''\n");
    assert_eq!(m.start(&[&relative]).program.file, python);
    let module = m.start(&[&python, "-u", "-m", "server_x", "--flag"]);
    assert_eq!(module.program.args, ["-u", "-m", "server_x", "--flag"]);
    assert_eq!(module.identity, format!("{python}:server_x"));
    assert!(module.code.is_empty());
    assert!(m.analyse(&[&python, "-m", "a;b"]).is_err());
    assert!(m.analyse(&[&python]).is_err());
}

#[test]
fn a_python_project_brings_itself_and_what_is_installed_in_place() {
    let m = Machine::new();
    let venv = m.venv("p/.venv");
    for file in [
        "p/pyproject.toml",
        "p/server.py",
        "p/pkg/__init__.py",
        "p/.env",
        "lib/x/__init__.py",
        "lib/secret.key",
    ] {
        m.file(file, "");
    }
    m.file(
        "p/.venv/lib/python3.11/site-packages/x.pth",
        &format!("{}\nimport os\n", m.root.join("lib").display()),
    );
    let script = m.root.join("p/server.py").display().to_string();
    let start = m.start(&[&format!("{venv}/bin/python"), &script]);
    assert_eq!(m.code(&start), ["lib/x", "p/pkg", "p/pyproject.toml", "p/server.py"]);
    // uv's way to say the same.
    let folder = m.root.join("p").display().to_string();
    for words in [
        ["uv", "--directory", &folder, "run", "server.py"],
        ["uv", "run", "--directory", &folder, "server.py"],
    ] {
        let start = m.start(&words);
        assert_eq!(start.identity, script);
        assert_eq!(start.program.file, format!("{venv}/bin/python"));
    }
    m.file("p/.venv/bin/cmd", &format!("#!{venv}/bin/python\n"));
    assert!(
        m.start(&["uv", "run", "--project", &folder, "cmd", "a"])
            .identity
            .ends_with("/.venv/bin/cmd")
    );
    assert!(matches!(m.analyse(&["uv", "run", "cmd"]), Err(CommandError::NotFound { .. })));
    assert!(matches!(
        m.analyse(&["uv", "run", "--with", "x", "x"]),
        Err(CommandError::Usage { .. })
    ));
}

#[test]
fn a_module_of_the_working_directory_brings_that() {
    let m = Machine::new();
    for file in ["work/srv/__init__.py", "work/other/__init__.py", "work/notes.txt"] {
        m.file(file, "");
    }
    let start = m.start(&["python3", "-m", "srv.main"]);
    assert_eq!(m.code(&start), ["work/other", "work/srv"]);
    assert_eq!(start.env["PYTHONPATH"], m.root.join("work").display().to_string());
}

#[test]
fn packages_of_npm_are_requests() {
    let m = Machine::new();
    let p = m.package(&["npx", "-y", "@s/x@1.2", "--", "a", "-b"]);
    assert_eq!(
        (p.tool, p.specs[0].name.as_str(), p.specs[0].request.as_str()),
        (Tool::Npm, "@s/x", "@s/x@1.2")
    );
    assert_eq!(p.args, ["--", "a", "-b"]);
    assert_eq!(p.identity(), "npm:@s/x");
    let p = m.package(&["npx", "--yes", "--package=x", "-p", "y@2", "cmd", "-p", "z"]);
    assert_eq!((p.specs.len(), p.command.as_deref()), (2, Some("cmd")));
    assert_eq!(p.args, ["-p", "z"]);
    assert_eq!(p.identity(), "npm:x:cmd");
    assert_eq!(m.package(&["npm", "exec", "--", "x", "--", "a"]).args, ["a"]);
    assert_eq!(m.package(&["cmd", "/c", "npx", "-y", "x"]).specs[0].name, "x");
    assert_eq!(m.package(&["pnpm", "dlx", "x"]).specs[0].name, "x");
    assert_eq!(
        m.package(&["npx", "--registry=http://h:1", "x"]).registry.as_deref(),
        Some("http://h:1")
    );
    for bad in [
        &["npx", "-y"][..],
        &["npx", "-c", "x"],
        &["npx", "--unknown", "x"],
        &["npx", "github:a/b"],
    ] {
        assert!(matches!(m.analyse(bad), Err(CommandError::Usage { .. })), "{bad:?}");
    }
}

#[test]
fn npx_takes_what_is_installed_where_no_version_is_asked_for() {
    let m = Machine::new();
    m.file("work/package.json", "{}");
    m.file(
        "work/node_modules/@s/x/package.json",
        r#"{"name": "@s/x", "bin": {"a": "a.js", "x": "x.js"}}"#,
    );
    m.file("work/node_modules/@s/x/x.js", "#!/usr/bin/env node\n");
    assert!(m.start(&["npx", "-y", "@s/x", "a"]).identity.ends_with("/node_modules/@s/x/x.js"));
    assert_eq!(m.package(&["npx", "-y", "@s/x@1"]).specs[0].request, "@s/x@1");
}

#[test]
fn packages_of_pypi_are_requests() {
    let m = Machine::new();
    let p = m.package(&["uvx", "Mcp_Server@1.0", "--flag"]);
    assert_eq!(
        (p.specs[0].request.as_str(), p.command.as_deref()),
        ("mcp-server==1.0", Some("Mcp_Server"))
    );
    assert_eq!(p.identity(), "pypi:mcp-server");
    let p = m.package(&[
        "uv", "tool", "run", "-q", "--python", "3.12", "--with", "a,b", "--from", "x[y]>=1", "cmd",
        "z",
    ]);
    let requests: Vec<&str> = p.specs.iter().map(|s| s.request.as_str()).collect();
    assert_eq!(requests, ["x[y]>=1", "a", "b"]);
    assert_eq!((p.command.as_deref(), p.interpreter.as_deref()), (Some("cmd"), Some("3.12")));
    let p = m.package(&["uvx", "--default-index", "http://h:1/s", "--index=n=http://i:2/s", "x"]);
    assert_eq!(
        (p.registry.as_deref(), p.more_registries.as_slice()),
        (Some("http://h:1/s"), &["http://i:2/s".to_owned()][..])
    );
    let p = m.package(&["pipx", "run", "--spec", "x==1", "cmd"]);
    assert_eq!((p.specs[0].request.as_str(), p.command.as_deref()), ("x==1", Some("cmd")));
    for bad in [
        &["uvx"][..],
        &["uvx", "--from", "git+https://h/x", "x"],
        &["uvx", "--with-editable", ".", "x"],
        &["uvx", "--what", "x"],
        &["uv", "sync"],
        &["pipx", "install", "x"],
    ] {
        assert!(matches!(m.analyse(bad), Err(CommandError::Usage { .. })), "{bad:?}");
    }
}

#[test]
fn what_would_not_run_what_it_names_is_refused_with_a_hint() {
    let m = Machine::new();
    for words in [
        &["sh", "-c", "node x"][..],
        &["bash", "run.sh"],
        &["docker", "run", "-i", "x"],
        &["bunx", "x"],
        &["deno", "run", "x"],
        &["npm", "run", "start"],
        &["go", "run", "."],
        &["sudo", "x"],
    ] {
        match m.analyse(words) {
            Err(CommandError::Usage { hint, .. }) => assert!(!hint.is_empty()),
            other => panic!("{words:?}: {other:?}"),
        }
    }
}

#[test]
fn what_is_too_wide_is_not_shown_for_a_script_s_sake() {
    let m = Machine::new();
    m.file("home/package.json", "{}");
    m.file("home/Downloads/package.json", "{}");
    m.file("home/Downloads/invoice.pdf", "");
    for script in ["home/s.js", "home/Downloads/s.js"] {
        let script = m.file(script, "");
        let start = m.start(&["node", &script]);
        assert_eq!(start.code, [PathBuf::from(&script)], "{script}");
    }
    let script = m.file("home/s.py", "");
    assert_eq!(m.start(&["python3", &script]).code, [PathBuf::from(&script)]);
}
