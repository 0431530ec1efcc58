//! Finding CPython and Node.js, and what belongs to them.
//!
//! An interpreter of the host is asked where it and its library live (it runs as the user who started
//! Palisade, exactly as that user would run it). One that lies in a plugin's folder is never run here.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use palisade_sandbox::SandboxError;

use super::{Needs, PLUGIN, artifact_error, find_in_path, utf8};

/// How long an interpreter may take to describe itself.
const DEADLINE: Duration = Duration::from_secs(20);

const ASK_PYTHON: &str = "import sys, sysconfig
for p in (sys.executable, sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, sysconfig.get_path('stdlib'), sysconfig.get_path('platstdlib')): print(p)";

/// Runs `program` with `args` and gives its lines. Answers are kept: the same program is asked once.
fn ask(program: &Path, args: &[&str]) -> Result<Vec<String>, SandboxError> {
    static KNOWN: Mutex<Option<HashMap<PathBuf, Vec<String>>>> = Mutex::new(None);
    let known = |f: &mut dyn FnMut(&mut HashMap<PathBuf, Vec<String>>)| {
        let mut guard = KNOWN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        f(guard.get_or_insert_default());
    };
    let mut cached = None;
    known(&mut |map| cached = map.get(program).cloned());
    if let Some(lines) = cached {
        return Ok(lines);
    }
    let shown = program.display();
    let fail = |what: String| {
        artifact_error(
            format!("{shown} {what}"),
            "check that it runs, or name another interpreter in the manifest",
        )
    };
    let mut child = Command::new(program)
        .args(args)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| fail(format!("cannot be started: {e}")))?;
    let started = Instant::now();
    let status = loop {
        match child.try_wait().map_err(|e| fail(format!("cannot be waited for: {e}")))? {
            Some(status) => break status,
            None if started.elapsed() > DEADLINE => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(fail(format!("did not answer within {DEADLINE:?}")));
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    if !status.success() {
        return Err(fail(format!("ended with {status}")));
    }
    let mut output = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        std::io::Read::read_to_string(&mut stdout, &mut output)
            .map_err(|e| fail(format!("wrote nonsense: {e}")))?;
    }
    let lines: Vec<String> = output.lines().map(str::to_owned).collect();
    known(&mut |map| {
        map.insert(program.to_path_buf(), lines.clone());
    });
    Ok(lines)
}

/// Folders that are too wide to be shown for an interpreter's sake.
fn too_wide(path: &Path) -> bool {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    path.components().count() <= 2 && path != Path::new("/usr") && path != Path::new("/opt")
        || path.parent().is_none()
        || home.is_some_and(|h| h.starts_with(path))
}

/// The Python for a plugin: the path to start it by, inside.
pub(super) fn python(
    needs: &mut Needs,
    root: &Path,
    wanted: Option<&str>,
) -> Result<String, SandboxError> {
    needs.env.insert("PYTHONDONTWRITEBYTECODE".into(), "1".into());
    needs.env.insert("PYTHONUNBUFFERED".into(), "1".into());
    match wanted.and_then(|w| w.strip_prefix("venv:")) {
        Some(folder) => venv_in_plugin(needs, root, folder),
        None => host_python(needs, wanted.unwrap_or("python3")),
    }
}

/// A Python of the host, by path or name.
pub(super) fn host_python(needs: &mut Needs, wanted: &str) -> Result<String, SandboxError> {
    let program =
        if wanted.starts_with('/') { PathBuf::from(wanted) } else { find_in_path(wanted)? };
    let lines = ask(&program, &["-I", "-c", ASK_PYTHON])?;
    let [exe, folders @ ..] = lines.as_slice() else {
        return Err(artifact_error(
            format!("{} does not answer like a Python", program.display()),
            "name another interpreter",
        ));
    };
    needs.add_program(Path::new(exe), false, 1)?;
    for folder in folders {
        let path = Path::new(folder);
        if path == Path::new("/usr") || path == Path::new("/usr/local") {
            // The library folders of the system are shown already; the rest of /usr is not needed.
            continue;
        }
        if too_wide(path) {
            return Err(artifact_error(
                format!(
                    "the Python at {exe} keeps its library in {folder}, which is too wide to be shown to a plugin"
                ),
                "install Python in a folder of its own, or name another interpreter",
            ));
        }
        show_tree(needs, path)?;
    }
    Ok(exe.clone())
}

fn show_tree(needs: &mut Needs, path: &Path) -> Result<(), SandboxError> {
    let Ok(real) = path.canonicalize() else { return Ok(()) };
    if real != path {
        needs.links.insert(utf8(path)?.to_owned(), utf8(&real)?.to_owned());
    }
    needs.show(&real, true)
}

/// A virtual environment inside the plugin's folder: its settings are read, nothing of it is run here.
fn venv_in_plugin(needs: &mut Needs, root: &Path, folder: &str) -> Result<String, SandboxError> {
    let config = super::in_content(root, &format!("{folder}/pyvenv.cfg"))?;
    let text = std::fs::read_to_string(&config)
        .map_err(|e| artifact_error(format!("pyvenv.cfg: {e}"), "make the environment anew"))?;
    let value = |key: &str| {
        text.lines()
            .filter_map(|l| l.split_once('='))
            .find(|(k, _)| k.trim() == key)
            .map(|(_, v)| v.trim().to_owned())
    };
    let home = value("home")
        .ok_or_else(|| artifact_error("pyvenv.cfg has no home", "make the environment anew"))?;
    let base = Path::new(&home).join("python3");
    if !base.is_absolute() || base.canonicalize().is_ok_and(|b| b.starts_with(root)) {
        return Err(artifact_error(
            "the virtual environment's base interpreter lies in the plugin's folder",
            "make the environment with an interpreter of this machine: python3 -m venv",
        ));
    }
    host_python(needs, utf8(&base)?)?;
    let inside = format!("{PLUGIN}/{folder}/bin/python3");
    // The environment's own interpreter is a link to the base one; follow it where it leads on the host.
    let link = root.join(folder).join("bin/python3");
    if let Ok(real) = link.canonicalize() {
        if !real.starts_with(root) {
            needs.add_program(&real, false, 1)?;
        }
    }
    Ok(inside)
}

/// Node.js, by path or name: the path to start it by.
pub(super) fn node(needs: &mut Needs, wanted: Option<&str>) -> Result<String, SandboxError> {
    let wanted = wanted.unwrap_or("node");
    let program =
        if wanted.starts_with('/') { PathBuf::from(wanted) } else { find_in_path(wanted)? };
    let lines = ask(&program, &["-p", "process.execPath"])?;
    let Some(exe) = lines.first() else {
        return Err(artifact_error(
            format!("{} does not answer like Node.js", program.display()),
            "name another interpreter",
        ));
    };
    needs.add_program(Path::new(exe), false, 1)?;
    // Debian keeps parts of Node's own library outside the program.
    let shared = Path::new("/usr/share/nodejs");
    if exe.starts_with("/usr/") && shared.is_dir() {
        needs.show(shared, true)?;
    }
    Ok(exe.clone())
}
