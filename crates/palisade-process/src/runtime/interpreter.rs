//! Finding CPython and Node.js, and what belongs to them, without running what a plugin names.
//!
//! A manifest and a `#!` line are the author's words. An interpreter that they name by path is only
//! read: its folder tells where its library lies. Plain names are looked up by [`crate::programs`].

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use palisade_sandbox::SandboxError;
use semver::{Version, VersionReq};

use super::{Needs, PLUGIN, artifact_error, in_content, utf8};
use crate::programs::{Programs, is_node, is_python};

/// Folders that are too wide to be shown for an interpreter's sake.
pub(super) fn too_wide(path: &Path) -> bool {
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
    version: Option<&VersionReq>,
) -> Result<String, SandboxError> {
    let exe = match wanted.and_then(|w| w.strip_prefix("venv:")) {
        Some(folder) => venv_in_plugin(needs, root, folder)?,
        None => host_python(needs, root, wanted.unwrap_or("python3"))?,
    };
    if let Some(wanted) = version {
        let found = feature_release(needs).ok_or_else(|| {
            artifact_error(
                format!("cannot tell the version of {exe}, and the plugin needs {wanted}"),
                "name an interpreter like python3.12",
            )
        })?;
        if !wanted.matches(&found) {
            let (major, minor) = (found.major, found.minor);
            return Err(artifact_error(
                format!("the plugin needs Python {wanted}, and {exe} is {major}.{minor}"),
                "install one that fits, or name it in the manifest (entry.interpreter)",
            ));
        }
    }
    Ok(exe)
}

/// The version of the Python that is shown: interpreters carry it in the name of their file, or of the
/// folder of their library.
fn feature_release(needs: &Needs) -> Option<Version> {
    let parse = |name: &str| {
        let (major, minor) = name.strip_prefix("python")?.split_once('.')?;
        Some(Version::new(major.parse().ok()?, minor.parse().ok()?, u64::MAX))
    };
    let files = needs.shown.iter().filter(|(_, folder)| !**folder);
    let by_file = files.filter_map(|(path, _)| path.rsplit('/').next()).find_map(parse);
    let folders = needs.shown.iter().filter(|(_, folder)| **folder);
    by_file.or_else(|| {
        folders
            .flat_map(|(path, _)| {
                fs::read_dir(Path::new(path).join("lib")).into_iter().flatten().flatten()
            })
            .find_map(|entry| {
                entry.path().join("os.py").is_file().then(|| parse(entry.file_name().to_str()?))?
            })
    })
}

/// A Python of the host, by path or by plain name.
pub(super) fn host_python(
    needs: &mut Needs,
    root: &Path,
    wanted: &str,
) -> Result<String, SandboxError> {
    needs.env.insert("PYTHONDONTWRITEBYTECODE".into(), "1".into());
    needs.env.insert("PYTHONUNBUFFERED".into(), "1".into());
    let program = if wanted.starts_with('/') {
        outside_plugin(root, Path::new(wanted))?
    } else if is_python(wanted) {
        Programs::of_process().python(wanted)?
    } else {
        return Err(artifact_error(
            format!("{} is no name of a Python", palisade_model::text::escape(wanted, 100)),
            "write python3, python3.12, an absolute path, or venv:FOLDER",
        ));
    };
    add_python(needs, root, &program, 0)?;
    Ok(utf8(&program)?.to_owned())
}

/// A path on the host that does not lead into the plugin's folder.
pub(super) fn outside_plugin(root: &Path, path: &Path) -> Result<PathBuf, SandboxError> {
    let real = path.canonicalize().map_err(|e| {
        artifact_error(
            format!("{}: {e}", palisade_model::text::escape(&path.to_string_lossy(), 200)),
            "name an interpreter of this machine",
        )
    })?;
    if path.starts_with(root) || real.starts_with(root) {
        return Err(artifact_error(
            "the interpreter lies in the plugin's folder",
            "for a virtual environment write venv:FOLDER; to bring a program of your own use entry kind exec",
        ));
    }
    Ok(path.to_path_buf())
}

/// Shows a Python and its library, found by where the program lies: `PREFIX/bin/python3.12` has its
/// library in `PREFIX/lib/python3.12`, and a virtual environment says in `pyvenv.cfg` what it is made of.
fn add_python(
    needs: &mut Needs,
    root: &Path,
    program: &Path,
    depth: usize,
) -> Result<(), SandboxError> {
    needs.add_program(program, false, depth + 1)?;
    let shown = program.display();
    if let Some(environment) = program.parent().and_then(Path::parent) {
        let config = environment.join("pyvenv.cfg");
        if config.is_file() {
            show_tree(needs, environment)?;
            let base = outside_plugin(root, &base_of(&config)?)?;
            if depth > 4 {
                return Err(artifact_error(
                    format!("{shown}: its environments lead in a circle"),
                    "make it anew",
                ));
            }
            return add_python(needs, root, &base, depth + 1);
        }
    }
    let real = program
        .canonicalize()
        .map_err(|e| artifact_error(format!("{shown}: {e}"), "name another"))?;
    let Some(prefix) = real.parent().and_then(Path::parent) else {
        return Err(artifact_error(
            format!("{shown} lies in no bin folder"),
            "name another interpreter",
        ));
    };
    if prefix == Path::new("/usr") || prefix == Path::new("/usr/local") {
        // The library folders of the system are shown already; the rest of /usr is not needed.
        return Ok(());
    }
    let has_library = ["lib", "lib64"].iter().any(|lib| {
        let entries = fs::read_dir(prefix.join(lib)).into_iter().flatten().flatten();
        entries.map(|e| e.path()).any(|p| p.join("os.py").is_file())
    });
    if !has_library {
        return Err(artifact_error(
            format!("{shown} has no library beside it (lib/python3.x)"),
            "name a complete Python installation",
        ));
    }
    if too_wide(prefix) {
        return Err(artifact_error(
            format!(
                "the Python at {shown} keeps its library in {}, which is too wide to be shown to a plugin",
                prefix.display()
            ),
            "install Python in a folder of its own, or name another interpreter",
        ));
    }
    show_tree(needs, prefix)
}

pub(super) fn show_tree(needs: &mut Needs, path: &Path) -> Result<(), SandboxError> {
    let Ok(real) = path.canonicalize() else { return Ok(()) };
    if real != path {
        needs.links.insert(utf8(path)?.to_owned(), utf8(&real)?.to_owned());
    }
    needs.show(&real, true)
}

/// The interpreter that a virtual environment was made with, by its settings.
fn base_of(config: &Path) -> Result<PathBuf, SandboxError> {
    const HINT: &str = "make the environment anew: python3 -m venv";
    let mut text = String::new();
    let read = File::open(config).and_then(|f| f.take(64 * 1024).read_to_string(&mut text));
    read.map_err(|e| artifact_error(format!("pyvenv.cfg: {e}"), HINT))?;
    let value = |key: &str| {
        let pair = text.lines().filter_map(|l| l.split_once('=')).find(|(k, _)| k.trim() == key);
        pair.map(|(_, v)| v.trim().to_owned())
    };
    let home = value("home").ok_or_else(|| artifact_error("pyvenv.cfg has no home", HINT))?;
    let base = Path::new(&home).join("python3");
    if !base.is_absolute() {
        return Err(artifact_error("the home in pyvenv.cfg is no absolute path", HINT));
    }
    Ok(base)
}

/// A virtual environment inside the plugin's folder: its settings are read, nothing of it is run here.
fn venv_in_plugin(needs: &mut Needs, root: &Path, folder: &str) -> Result<String, SandboxError> {
    let config = in_content(root, &format!("{folder}/pyvenv.cfg"))?;
    let base = base_of(&config)?;
    host_python(needs, root, utf8(&base)?)?;
    // The environment's own interpreter is a link to the base one, perhaps by another name.
    let link = root.join(folder).join("bin/python3");
    if let Ok(real) = link.canonicalize()
        && !real.starts_with(root)
    {
        needs.add_program(&real, false, 1)?;
    }
    Ok(format!("{PLUGIN}/{folder}/bin/python3"))
}

/// Node.js, by path or plain name: the path to start it by.
pub(super) fn node(
    needs: &mut Needs,
    root: &Path,
    wanted: Option<&str>,
) -> Result<String, SandboxError> {
    let wanted = wanted.unwrap_or("node");
    let program = if wanted.starts_with('/') {
        outside_plugin(root, Path::new(wanted))?
    } else if is_node(wanted) {
        Programs::of_process().node(wanted)?
    } else {
        let shown = palisade_model::text::escape(wanted, 100);
        return Err(artifact_error(
            format!("{shown} is no name of Node.js"),
            "write node, or an absolute path",
        ));
    };
    needs.add_program(&program, false, 1)?;
    // Debian keeps parts of Node's own library outside the program.
    let shared = Path::new("/usr/share/nodejs");
    if program.starts_with("/usr/") && shared.is_dir() {
        needs.show(shared, true)?;
    }
    Ok(utf8(&program)?.to_owned())
}
