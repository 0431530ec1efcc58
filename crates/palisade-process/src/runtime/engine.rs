//! An engine of Palisade's own: the program and the libraries that it is linked with, one by one, and nothing
//! else of the machine.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use palisade_sandbox::SandboxError;
use palisade_seccomp::profiles::Profile;

use super::{Needs, artifact_error, elf, utf8};

/// Most libraries of an engine.
const MAX_LIBRARIES: usize = 64;

impl Needs {
    /// Shows the engine at `path`, which is started with its own name and what the caller adds.
    pub(super) fn add_engine(&mut self, path: &Path) -> Result<(), SandboxError> {
        self.profile = Profile::Engine;
        self.is_engine = true;
        let shown = palisade_model::text::escape(&path.to_string_lossy(), 200);
        let hint = "name a program of this machine by its absolute path";
        if !path.is_absolute() {
            return Err(artifact_error(format!("{shown} is no absolute path"), hint));
        }
        let real =
            path.canonicalize().map_err(|e| artifact_error(format!("{shown}: {e}"), hint))?;
        if real.starts_with(&self.root) {
            let what =
                format!("{shown} lies in the plugin's folder and is no program of Palisade's");
            return Err(artifact_error(what, hint));
        }
        self.show(&real, false)?;
        self.exe = utf8(&real)?.to_owned();
        self.argv.push(self.exe.clone());
        let loader = elf::loader(&real)
            .map_err(|e| artifact_error(format!("{shown}: {e}"), "build it for this machine"))?;
        let Some(loader) = loader else { return Ok(()) };
        match libraries(Path::new(&loader), &real) {
            Some(libraries) => self.add_listed(Path::new(&loader), &libraries),
            // A loader that cannot tell: the system's library folders, as for every program.
            None => self.add_libraries(Path::new(&loader)),
        }
    }

    fn add_listed(&mut self, loader: &Path, libraries: &[PathBuf]) -> Result<(), SandboxError> {
        self.add_links(loader)?;
        let mut folders: Vec<String> = Vec::new();
        for library in libraries {
            self.add_links(library)?;
            let folder = utf8(library.parent().unwrap_or(Path::new("/")))?.to_owned();
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        // Instead of the loader's own list of the machine's libraries.
        if !folders.is_empty() {
            self.env.insert("LD_LIBRARY_PATH".to_owned(), folders.join(":"));
        }
        Ok(())
    }
}

/// The libraries of a program, as its loader finds them (ld.so(8), `--list`; musl's has it too). Nothing of the
/// program runs. `None` where the loader cannot tell.
fn libraries(loader: &Path, program: &Path) -> Option<Vec<PathBuf>> {
    let mut command = Command::new(loader);
    command.arg("--list").arg(program).env_clear().stdin(Stdio::null());
    if let Some(folders) = std::env::var_os("LD_LIBRARY_PATH") {
        command.env("LD_LIBRARY_PATH", folders);
    }
    let said = command.output().ok().filter(|said| said.status.success())?;
    listed(&String::from_utf8(said.stdout).ok()?)
}

/// What the lines name: `name => /path (0x…)`, `/path (0x…)`, or a name alone for what the kernel brings.
fn listed(text: &str) -> Option<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in text.lines() {
        let named = line.split_once("=>").map_or(line, |(_, path)| path).trim();
        let path = named.split(" (").next().unwrap_or_default().trim();
        if path.starts_with('/') && found.len() < MAX_LIBRARIES {
            found.push(PathBuf::from(path));
        } else if line.contains("=>") || path.starts_with('/') {
            // Not found, or more than an engine has.
            return None;
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_the_loader_says() {
        let text = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        let found = listed(text).unwrap();
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(found, expected.map(PathBuf::from));
        assert_eq!(listed("\tlibx.so => not found\n"), None);
        assert_eq!(listed("\tstatically linked\n"), Some(Vec::new()));
        let many = |count| listed(&"\t/lib/liba.so (0x7f)\n".repeat(count));
        assert_eq!(many(MAX_LIBRARIES).map(|all| all.len()), Some(MAX_LIBRARIES));
        assert_eq!(many(MAX_LIBRARIES + 1), None);
    }

    #[test]
    fn an_engine_brings_its_libraries_and_no_folder() {
        let dir = tempfile::tempdir().unwrap();
        let mut needs = Needs::none(&dir.path().canonicalize().unwrap());
        let own = std::env::current_exe().unwrap();
        needs.argv.clear();
        needs.add_engine(&own).unwrap();
        assert!(needs.is_engine);
        assert_eq!(needs.profile, Profile::Engine);
        assert!(needs.shown.values().all(|folder| !folder), "{:?}", needs.shown);
        assert!(needs.shown.keys().any(|path| path.contains("libc")), "{:?}", needs.shown);
        assert!(needs.shown.contains_key(needs.exe.as_str()));
        assert!(needs.env["LD_LIBRARY_PATH"].starts_with('/'));
        // What lies in the plugin's folder is the plugin's.
        let inside = needs.root.join("engine");
        std::fs::copy(own, &inside).unwrap();
        assert!(Needs::none(&needs.root).add_engine(&inside).is_err());
        assert!(Needs::none(&needs.root).add_engine(Path::new("engine")).is_err());
    }
}
