//! What a program needs of this machine to run: its interpreter, its loader, its libraries.
//!
//! Programs are found where they really are: behind symbolic links, version managers' shims (pyenv,
//! nvm), virtual environments and `#!` lines. What belongs to the host is trusted and may be asked to
//! describe itself; what lies in the plugin's folder is only read.

mod elf;
mod engine;
mod interpreter;
mod java;

use palisade_model::path::lexically_normal;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
    path::{Component, Path, PathBuf},
};

use palisade_sandbox::{Artifact, Runtime, SandboxError};
use palisade_seccomp::profiles::Profile;

pub(crate) use java::options as java_options;

use crate::programs::{Programs, is_java, is_node, is_python, is_shell};

/// Where the plugin's folder appears inside.
pub(crate) const PLUGIN: &str = "/plugin";

/// Longest chain of symbolic links or `#!` lines that is followed.
const MAX_CHAIN: usize = 16;

/// See [`Needs::add_common_data`].
const COMMON_DATA: [&str; 11] = [
    "/etc/fonts",
    "/etc/mime.types",
    "/etc/protocols",
    "/etc/services",
    "/usr/local/share/fonts",
    "/usr/share/file",
    "/usr/share/fontconfig",
    "/usr/share/fonts",
    "/usr/share/mime",
    "/usr/share/misc",
    "/usr/share/terminfo",
];

/// What git keeps outside of its program: the commands that it starts, and templates.
const GIT: [&str; 5] = [
    "/usr/libexec/git-core",
    "/usr/local/libexec/git-core",
    "/usr/share/git-core",
    "/usr/local/share/git-core",
    "/usr/lib/git-core",
];

/// A program, ready to be started, and what must be visible for it.
#[derive(Clone, Debug)]
pub(crate) struct Needs {
    /// The plugin's folder on the host.
    root: PathBuf,
    /// Path inside.
    pub(crate) exe: String,
    /// Arguments, the first being the program's name.
    pub(crate) argv: Vec<String>,
    /// Host folders and files to show read-only under the same path: path, whether it is a folder.
    pub(crate) shown: BTreeMap<String, bool>,
    /// Symbolic links to make: path, target.
    pub(crate) links: BTreeMap<String, String>,
    /// Folders for PATH, in order.
    pub(crate) path_dirs: Vec<String>,
    /// Environment that the runtime wants.
    pub(crate) env: BTreeMap<String, String>,
    /// System call profile.
    pub(crate) profile: Profile,
    /// The program is Java's launcher, and takes [`java_options`] before its other arguments.
    pub(crate) is_java: bool,
    /// The program is an engine of Palisade's own ([`Runtime::Engine`]).
    pub(crate) is_engine: bool,
}

fn artifact_error(what: impl Into<String>, hint: impl Into<String>) -> SandboxError {
    SandboxError::Artifact { what: what.into(), hint: hint.into() }
}

/// Finds everything that `artifact` needs. Reads files and may run host interpreters: call it where
/// blocking is allowed.
pub(crate) fn resolve(artifact: &Artifact) -> Result<Needs, SandboxError> {
    let program = &artifact.program;
    let root = artifact.content.root.as_path();
    let mut needs = Needs {
        root: root.to_path_buf(),
        exe: String::new(),
        argv: Vec::new(),
        shown: BTreeMap::new(),
        links: BTreeMap::new(),
        path_dirs: Vec::new(),
        env: BTreeMap::new(),
        profile: Profile::Native,
        is_java: false,
        is_engine: false,
    };
    match &program.runtime {
        Runtime::Native if let Some(venv) = venv_of(root, &program.file) => {
            needs.profile = Profile::Python;
            let exe = interpreter::python(&mut needs, root, Some(&venv), None)?;
            needs.argv.push(exe.clone());
            needs.exe = exe;
        }
        Runtime::Native if is_interpreter(root, &program.file) => {
            let exe = needs.add_named_interpreter(&program.file, 0)?;
            needs.argv.push(exe.clone());
            needs.exe = exe;
            needs.is_java = needs.profile == Profile::Jvm;
        }
        Runtime::Native => {
            let (host, inside) = locate(root, &program.file)?;
            if !host.starts_with(root) && is_shell(base_name(&program.file)) {
                needs.profile = Profile::Shell;
            }
            needs.exe.clone_from(&inside);
            needs.argv.push(inside);
            needs.add_program(&host, host.starts_with(root), 0)?;
        }
        Runtime::Python { interpreter, version } => {
            needs.profile = Profile::Python;
            let script = inside_path(root, &program.file)?;
            let exe =
                interpreter::python(&mut needs, root, interpreter.as_deref(), version.as_ref())?;
            needs.argv.extend([exe.clone(), script]);
            needs.exe = exe;
        }
        Runtime::Node { interpreter } => {
            needs.profile = Profile::Node;
            let script = inside_path(root, &program.file)?;
            let exe = interpreter::node(&mut needs, root, interpreter.as_deref())?;
            needs.argv.extend([exe.clone(), script]);
            needs.exe = exe;
        }
        Runtime::Engine => needs.add_engine(Path::new(&program.file))?,
        other => {
            return Err(artifact_error(
                format!("this backend does not know the runtime {other:?}"),
                "use another backend",
            ));
        }
    }
    needs.argv.extend(program.args.iter().cloned());
    if program.file.starts_with('/') && !needs.is_engine {
        needs.add_common_data()?;
    }
    Ok(needs)
}

/// Whether a program is an interpreter of this machine: it brings a library, and what stands under its
/// name in PATH may be a version manager's shim, which cannot run inside.
fn is_interpreter(root: &Path, file: &str) -> bool {
    let name = base_name(file);
    !is_in_content(root, file) && (is_python(name) || is_node(name) || is_java(name))
}

fn base_name(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or_default()
}

/// The virtual environment of the plugin whose Python a program is, as `venv:FOLDER`: its file is a link
/// to an interpreter of this machine, and so no file of the plugin.
fn venv_of(root: &Path, file: &str) -> Option<String> {
    let (bin, name) = file.strip_prefix("./").unwrap_or(file).rsplit_once('/')?;
    let folder = bin.strip_suffix("/bin")?;
    let is_venv = is_python(name) && root.join(folder).join("pyvenv.cfg").is_file();
    (!file.starts_with('/') && is_venv).then(|| format!("venv:{folder}"))
}

/// A file of the plugin, as the path inside. It must exist, be a regular file, and lie in the folder
/// also after its links are resolved.
fn inside_path(root: &Path, file: &str) -> Result<String, SandboxError> {
    let real = in_content(root, file)?;
    let relative = real.strip_prefix(root).map_err(|_| outside(file))?;
    Ok(format!("{PLUGIN}/{}", relative.display()))
}

fn outside(file: &str) -> SandboxError {
    artifact_error(
        format!("{} leads out of the plugin's folder", palisade_model::text::escape(file, 200)),
        "name a file inside the folder",
    )
}

fn in_content(root: &Path, file: &str) -> Result<PathBuf, SandboxError> {
    let shown = palisade_model::text::escape(file, 200);
    if Path::new(file).components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir))
    {
        return Err(outside(file));
    }
    let real = root.join(file).canonicalize().map_err(|e| {
        artifact_error(
            format!("{shown}: {e}"),
            "the manifest's entry must name a file in the plugin's folder",
        )
    })?;
    if !real.starts_with(root) {
        return Err(outside(file));
    }
    if !real.is_file() {
        return Err(artifact_error(format!("{shown} is not a file"), "name a regular file"));
    }
    real.to_str()
        .map(|_| real.clone())
        .ok_or_else(|| artifact_error(format!("{shown} is not UTF-8"), "rename it"))
}

/// Whether a program's name means a file of the plugin.
fn is_in_content(root: &Path, file: &str) -> bool {
    !file.starts_with('/') && (file.contains('/') || root.join(file).exists())
}

/// The program's path on the host, and inside.
fn locate(root: &Path, file: &str) -> Result<(PathBuf, String), SandboxError> {
    if is_in_content(root, file) {
        let real = in_content(root, file)?;
        let inside = inside_path(root, file)?;
        return Ok((real, inside));
    }
    let host = if file.starts_with('/') { PathBuf::from(file) } else { find_in_path(file)? };
    if host.canonicalize().is_ok_and(|real| real.starts_with(root)) {
        return Err(artifact_error(
            format!("{} is named by a host path but lies in the plugin's folder", host.display()),
            "name it relative to the folder",
        ));
    }
    let inside = utf8(&host)?.to_owned();
    Ok((host, inside))
}

fn utf8(path: &Path) -> Result<&str, SandboxError> {
    path.to_str()
        .ok_or_else(|| artifact_error(format!("{} is not UTF-8", path.display()), "rename it"))
}

/// Looks `name` up in this process's PATH.
fn find_in_path(name: &str) -> Result<PathBuf, SandboxError> {
    Programs::of_process().any(name)
}

impl Needs {
    /// Shows a host folder or file, unless one above it is shown already.
    fn show(&mut self, path: &Path, folder: bool) -> Result<(), SandboxError> {
        let path = utf8(path)?.to_owned();
        self.shown.insert(path, folder);
        Ok(())
    }

    /// Shows a program and what it needs itself: the links on the way to it, its loader and libraries,
    /// the interpreter of its first line.
    fn add_program(
        &mut self,
        path: &Path,
        in_plugin: bool,
        depth: usize,
    ) -> Result<(), SandboxError> {
        let shown = palisade_model::text::escape(&path.to_string_lossy(), 200);
        if depth > MAX_CHAIN {
            return Err(artifact_error(
                format!("{shown}: its interpreters lead in a circle"),
                "mend the #! lines",
            ));
        }
        let real = if in_plugin { path.to_path_buf() } else { self.add_links(path)? };
        let mut head = Vec::with_capacity(4096);
        fs::File::open(&real)
            .and_then(|f| f.take(4096).read_to_end(&mut head))
            .map_err(|e| artifact_error(format!("{shown}: {e}"), "it must be readable"))?;
        if let Some(line) = head.strip_prefix(b"#!") {
            return self.add_shebang(line, &shown, depth);
        }
        match elf::loader(&real)
            .map_err(|e| artifact_error(format!("{shown}: {e}"), "build it for this machine"))?
        {
            None => Ok(()),
            Some(loader) => self.add_libraries(Path::new(&loader)),
        }
    }

    /// Shows the file at the end of `path`'s links under its real path, makes the links, and gives the
    /// real path.
    fn add_links(&mut self, path: &Path) -> Result<PathBuf, SandboxError> {
        let mut current = path.to_path_buf();
        for _ in 0..MAX_CHAIN {
            let (Some(parent), Some(name)) = (current.parent(), current.file_name()) else { break };
            let real_parent = parent.canonicalize().map_err(|e| {
                artifact_error(
                    format!("{}: {e}", parent.display()),
                    "the program's folder must be readable",
                )
            })?;
            if real_parent != parent {
                // /bin is a link to usr/bin on most systems: make the link, not the folder.
                self.add_folder_link(parent, &real_parent)?;
            }
            let here = real_parent.join(name);
            match fs::read_link(&here) {
                Ok(target) => {
                    self.links.insert(utf8(&here)?.to_owned(), utf8(&target)?.to_owned());
                    current = real_parent.join(target);
                    current = lexically_normal(&current);
                }
                Err(_) => {
                    if !here.is_file() {
                        return Err(artifact_error(
                            format!("{} is not a file", here.display()),
                            "name a program",
                        ));
                    }
                    self.show(&here, false)?;
                    return Ok(here);
                }
            }
        }
        Err(artifact_error(
            format!("{}: too many symbolic links", path.display()),
            "name the program itself",
        ))
    }

    fn add_folder_link(&mut self, link: &Path, real: &Path) -> Result<(), SandboxError> {
        // Where the link sits in a folder that is shown anyway, it is there already.
        self.links.insert(utf8(link)?.to_owned(), utf8(real)?.to_owned());
        Ok(())
    }

    fn add_shebang(&mut self, line: &[u8], shown: &str, depth: usize) -> Result<(), SandboxError> {
        let line = line.split(|b| *b == b'\n').next().unwrap_or_default();
        let line = std::str::from_utf8(line)
            .map_err(|_| artifact_error(format!("{shown}: its #! line is not UTF-8"), "mend it"))?
            .trim();
        let (interpreter, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        if !interpreter.starts_with('/') {
            return Err(artifact_error(
                format!("{shown}: its #! line names no absolute path"),
                "begin the file with #!/usr/bin/env NAME",
            ));
        }
        self.add_program(Path::new(interpreter), false, depth + 1)?;
        if interpreter.ends_with("/env") {
            let name =
                rest.split_whitespace().find(|word| !word.starts_with('-') && !word.contains('='));
            if let Some(name) = name {
                return self.add_named_interpreter(name, depth).map(drop);
            }
        }
        // A path is only read, never run here: see `interpreter`.
        let name = base_name(interpreter);
        if is_python(name) || is_node(name) || is_java(name) {
            return self.add_named_interpreter(interpreter, depth).map(drop);
        }
        self.is_script_of(name);
        Ok(())
    }

    /// Shows an interpreter of this machine with its library, and puts it on the PATH inside. Gives the
    /// path to start it by.
    fn add_named_interpreter(&mut self, name: &str, depth: usize) -> Result<String, SandboxError> {
        let base = name.rsplit('/').next().unwrap_or_default();
        let root = self.root.clone();
        let exe = if is_python(base) {
            self.profile = Profile::Python;
            interpreter::host_python(self, &root, name)?
        } else if is_node(base) {
            self.profile = Profile::Node;
            interpreter::node(self, &root, Some(name))?
        } else if is_java(base) {
            self.profile = Profile::Jvm;
            java::host_java(self, &root, name)?
        } else {
            self.is_script_of(base);
            let path =
                if name.starts_with('/') { PathBuf::from(name) } else { find_in_path(name)? };
            self.add_program(&path, false, depth + 1)?;
            utf8(&path)?.to_owned()
        };
        if let Some(dir) = Path::new(&exe).parent() {
            // `env` looks the name up again, inside.
            if Path::new(&exe).file_name().is_some_and(|f| f != base) {
                let link = dir.join(base);
                self.links.entry(utf8(&link)?.to_owned()).or_insert_with(|| exe.clone());
            }
            let dir = utf8(dir)?.to_owned();
            if !self.path_dirs.contains(&dir) {
                self.path_dirs.push(dir);
            }
        }
        Ok(exe)
    }

    /// A shell's script runs as one, unless a runtime has been chosen already that it only wraps.
    fn is_script_of(&mut self, interpreter: &str) {
        if self.profile == Profile::Native && is_shell(interpreter) {
            self.profile = Profile::Shell;
        }
    }

    /// Nothing but the plugin's own folder.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn none(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
            exe: PLUGIN.to_owned(),
            argv: Vec::new(),
            shown: BTreeMap::new(),
            links: BTreeMap::new(),
            path_dirs: Vec::new(),
            env: BTreeMap::new(),
            profile: Profile::Native,
            is_java: false,
            is_engine: false,
        }
    }

    /// The dynamic loader and the system's library folders.
    fn add_libraries(&mut self, loader: &Path) -> Result<(), SandboxError> {
        for dir in ["/lib", "/lib32", "/lib64", "/libx32"] {
            match fs::read_link(dir) {
                Ok(target) => {
                    self.links.insert(dir.to_owned(), utf8(&target)?.to_owned());
                }
                Err(_) if Path::new(dir).is_dir() => self.show(Path::new(dir), true)?,
                Err(_) => {}
            }
        }
        for dir in ["/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/nix/store"] {
            let path = Path::new(dir);
            if path.is_dir() && !path.is_symlink() {
                self.show(path, true)?;
            }
        }
        for file in ["/etc/ld.so.cache", "/etc/localtime"] {
            let path = Path::new(file);
            if let Ok(real) = path.canonicalize() {
                if real == path {
                    self.show(path, false)?;
                } else {
                    self.links.insert(file.to_owned(), utf8(&real)?.to_owned());
                    self.show(&real, false)?;
                }
            }
        }
        let zones = Path::new("/usr/share/zoneinfo");
        if zones.is_dir() {
            self.show(zones, true)?;
        }
        let real = loader.canonicalize().map_err(|e| {
            artifact_error(
                format!("its dynamic loader {}: {e}", loader.display()),
                "install the C library it was built for",
            )
        })?;
        self.show(&real, false)
    }

    /// Data of the system that software of this machine expects to find: names of services and of media
    /// types, fonts, terminals. Nothing in it is about the user or the machine. What a plugin brings itself
    /// does without.
    fn add_common_data(&mut self) -> Result<(), SandboxError> {
        for path in COMMON_DATA {
            let path = Path::new(path);
            match path.canonicalize() {
                Ok(real) if real == path => self.show(path, path.is_dir())?,
                _ => {}
            }
        }
        Ok(())
    }

    /// What is shown, without what lies below a folder that is shown.
    pub(crate) fn minimal(&self) -> Vec<(&str, bool)> {
        let folders: BTreeSet<&str> =
            self.shown.iter().filter(|(_, f)| **f).map(|(p, _)| p.as_str()).collect();
        let covered = |path: &str| {
            Path::new(path)
                .ancestors()
                .skip(1)
                .any(|a| a.to_str().is_some_and(|a| folders.contains(a)))
        };
        self.shown.iter().filter(|(p, _)| !covered(p)).map(|(p, f)| (p.as_str(), *f)).collect()
    }
}

impl Needs {
    /// Shows a program that an `exec:` right names, with what it needs.
    pub(crate) fn add_granted_program(&mut self, path: &str) -> Result<(), SandboxError> {
        let profile = self.profile;
        let root = self.root.clone();
        match path.rsplit('/').next().unwrap_or_default() {
            name if is_python(name) => drop(interpreter::host_python(self, &root, path)?),
            name if is_node(name) => drop(interpreter::node(self, &root, Some(path))?),
            name if is_java(name) => drop(java::host_java(self, &root, path)?),
            name => {
                self.add_program(Path::new(path), false, 0)?;
                for folder in GIT.iter().map(Path::new).filter(|f| name == "git" && f.is_dir()) {
                    self.show(folder, true)?;
                }
            }
        }
        // The filter is the plugin's own; a program that it runs does not loosen it.
        self.profile = profile;
        if let Some(dir) = Path::new(path).parent().and_then(Path::to_str)
            && !self.path_dirs.iter().any(|d| d == dir)
        {
            self.path_dirs.push(dir.to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
