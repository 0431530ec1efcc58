//! The Pythons of this machine, found by reading folders.

use std::{
    fs,
    path::{Path, PathBuf},
};

use palisade_model::text::escape;
use palisade_process::programs::is_python;

use crate::{CommandError, Context, analyse::SHOWN};

/// Longest chain of environments made from environments.
const MAX_CHAIN: usize = 4;

/// A Python that is no virtual environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interpreter {
    /// Its program, as it is called by: `/usr/bin/python3`.
    pub(crate) program: PathBuf,
    /// The installation around it.
    pub(crate) prefix: PathBuf,
    version: (u32, u32),
}

impl Interpreter {
    fn at(program: PathBuf) -> Option<Self> {
        let mut program = program;
        for _ in 0..MAX_CHAIN {
            let environment = program.parent()?.parent()?;
            let Ok(settings) = fs::read_to_string(environment.join("pyvenv.cfg")) else { break };
            let pairs = settings.lines().filter_map(|line| line.split_once('='));
            let home = pairs
                .filter(|(k, _)| k.trim() == "home")
                .map(|(_, v)| v.trim().to_owned())
                .next()?;
            program = Path::new(&home).join("python3");
        }
        let real = program.canonicalize().ok()?;
        let prefix = real.parent()?.parent()?.to_path_buf();
        let version = version(real.file_name()?.to_str()?).or_else(|| {
            let lib = fs::read_dir(prefix.join("lib")).ok()?.flatten();
            lib.filter(|e| e.path().join("os.py").is_file())
                .find_map(|e| version(e.file_name().to_str()?))
        })?;
        Some(Self { program, prefix, version })
    }

    /// `3.12`.
    pub(crate) fn release(&self) -> String {
        format!("{}.{}", self.version.0, self.version.1)
    }

    /// `python3.12`.
    pub(crate) fn library(&self) -> String {
        format!("python{}", self.release())
    }

    /// The arguments that start its pip, and a wheel that must be visible for that.
    pub(crate) fn pip(&self) -> Option<(Vec<String>, Option<PathBuf>)> {
        let library = self.library();
        let installed = [
            self.prefix.join("lib").join(&library).join("site-packages"),
            Path::new("/usr/local/lib").join(&library).join("dist-packages"),
            PathBuf::from("/usr/lib/python3/dist-packages"),
        ];
        let of_system = self.prefix == Path::new("/usr");
        let own = |folder: &&PathBuf| folder.starts_with(&self.prefix) || of_system;
        if installed.iter().filter(own).any(|folder| folder.join("pip/__main__.py").is_file()) {
            return Some((["-I", "-m", "pip"].map(str::to_owned).to_vec(), None));
        }
        let bundled = self.prefix.join("lib").join(&library).join("ensurepip/_bundled");
        let folders = [bundled, PathBuf::from("/usr/share/python-wheels")];
        let wheel = folders
            .iter()
            .flat_map(|f| fs::read_dir(f).into_iter().flatten().flatten())
            .find(|e| {
                let name = e.file_name();
                name.to_str().is_some_and(|n| n.starts_with("pip-") && n.ends_with(".whl"))
            })?;
        let path = wheel.path();
        Some((vec!["-I".into(), format!("{}/pip", path.display())], Some(path)))
    }

    /// What of it the walls do not show by themselves.
    pub(crate) fn code(&self) -> Vec<PathBuf> {
        self.pip().and_then(|(_, wheel)| wheel).into_iter().collect()
    }
}

/// The feature release in a name like `python3.12`.
fn version(name: &str) -> Option<(u32, u32)> {
    let (major, minor) = name.strip_prefix("python")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The Python to use: the one that is asked for (`3.12`, `python3.12`, a path), or `python3`; and where that
/// is older than `oldest`, or not there, the newest of the machine.
pub(crate) fn choose(
    wanted: Option<&str>,
    oldest: (u32, u32),
    context: &Context,
) -> Result<Interpreter, CommandError> {
    let missing = |what: String| {
        CommandError::not_found(
            what,
            "install one (uv python install 3.12), or name another with --python",
        )
    };
    if let Some(wanted) = wanted.filter(|w| !w.is_empty()) {
        let shown = escape(wanted, SHOWN);
        if wanted.contains('/') {
            let path = context.absolute(wanted);
            return Interpreter::at(path).ok_or_else(|| missing(format!("{shown} is no Python")));
        }
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let number = wanted
            .strip_prefix("cpython")
            .map(|w| w.trim_start_matches(['-', '@']))
            .unwrap_or(wanted);
        let name = if digits(number) { format!("python{number}") } else { number.to_owned() };
        if !is_python(&name) {
            return Err(CommandError::usage(
                format!("{shown} is no version of Python that is understood here"),
                "write --python 3.12, or a path",
            ));
        }
        // 3.12.1 is a patch release; programs are named by feature release.
        let parts: Vec<&str> = name.trim_start_matches("python").split('.').collect();
        let feature = match parts.as_slice() {
            [major, minor, ..] => format!("python{major}.{minor}"),
            _ => name.clone(),
        };
        let asked = version(&feature);
        return context
            .programs()
            .python(&feature)
            .ok()
            .and_then(Interpreter::at)
            .filter(|found| asked.is_none_or(|asked| found.version == asked))
            .or_else(|| {
                others(context).into_iter().find(|found| asked.is_none_or(|a| found.version == a))
            })
            .ok_or_else(|| missing(format!("Python {shown} is not found")));
    }
    let usual = context.programs().python("python3").ok().and_then(Interpreter::at);
    match usual {
        Some(usual) if usual.version >= oldest => Ok(usual),
        usual => {
            let newest = others(context).into_iter().max_by_key(|found| found.version);
            newest
                .filter(|found| usual.as_ref().is_none_or(|u| found.version > u.version))
                .or(usual)
                .ok_or_else(|| missing("no python3 is found in PATH".into()))
        }
    }
}

/// The newest Python of the machine, where it is newer than this one.
pub(crate) fn newer(than: &Interpreter, context: &Context) -> Option<Interpreter> {
    others(context).into_iter().filter(|p| p.version > than.version).max_by_key(|p| p.version)
}

/// Pythons under names with a version in PATH, and those of pyenv and uv.
fn others(context: &Context) -> Vec<Interpreter> {
    let programs = context.programs();
    let mut found = Vec::new();
    let mut roots = Vec::new();
    for folder in programs.folders() {
        if folder.ends_with("shims") {
            roots.extend(folder.parent().map(|root| root.join("versions")));
            continue;
        }
        for minor in (8..=19).rev() {
            found.push(folder.join(format!("python3.{minor}")));
        }
    }
    roots.extend(context.var("UV_PYTHON_INSTALL_DIR").map(PathBuf::from));
    roots.extend(context.home.as_ref().map(|home| home.join(".local/share/uv/python")));
    for root in roots {
        let mut versions: Vec<PathBuf> =
            fs::read_dir(root).into_iter().flatten().flatten().map(|e| e.path()).collect();
        versions.sort();
        found.extend(versions.into_iter().rev().map(|version| version.join("bin/python3")));
    }
    found.into_iter().filter(|path| path.is_file()).filter_map(Interpreter::at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that looks like an installation of Python.
    fn install(root: &Path, release: &str) -> PathBuf {
        let (bin, lib) = (root.join("bin"), root.join(format!("lib/python{release}")));
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(&lib).unwrap();
        fs::write(lib.join("os.py"), "").unwrap();
        let program = bin.join(format!("python{release}"));
        fs::write(&program, "\x7fELF").unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink(format!("python{release}"), bin.join("python3")).unwrap();
        bin
    }

    #[test]
    fn the_usual_one_is_taken_unless_it_is_too_old_or_another_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let old = install(&root.join("old"), "3.8");
        install(&root.join("home/.local/share/uv/python/cpython-3.12.1"), "3.12");
        let new = install(&root.join("new"), "3.11");
        let mut context = Context {
            directory: "/".into(),
            home: Some(root.join("home")),
            env: [("PATH".to_owned(), new.display().to_string())].into(),
        };
        let release =
            |context: &Context, wanted| choose(wanted, (3, 10), context).map(|p| p.release());
        assert_eq!(release(&context, None).unwrap(), "3.11");
        for wanted in ["3.12", "python3.12", "3.12.1", "cpython-3.12", "cpython@3.12"] {
            assert_eq!(release(&context, Some(wanted)).unwrap(), "3.12", "{wanted}");
        }
        assert!(release(&context, Some("3.13")).is_err());
        assert!(release(&context, Some("pypy3")).is_err());
        context.env.insert("PATH".into(), old.display().to_string());
        assert_eq!(release(&context, None).unwrap(), "3.12");
        let path = old.join("python3").display().to_string();
        assert_eq!(release(&context, Some(&path)).unwrap(), "3.8");
    }

    #[test]
    fn an_environment_leads_to_what_it_was_made_from() {
        let dir = tempfile::tempdir().unwrap();
        let bin = install(&dir.path().join("base"), "3.11");
        let venv = dir.path().join("venv");
        fs::create_dir_all(venv.join("bin")).unwrap();
        fs::write(venv.join("pyvenv.cfg"), format!("home = {}\n", bin.display())).unwrap();
        std::os::unix::fs::symlink(bin.join("python3"), venv.join("bin/python3")).unwrap();
        let found = Interpreter::at(venv.join("bin/python3")).unwrap();
        assert_eq!(found.program, bin.join("python3"));
        assert_eq!(found.library(), "python3.11");
    }
}
