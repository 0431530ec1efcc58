//! What the machines without a disk get of this host's system: Python, of which the escape suite has a twin and
//! in which the plugins of the attempts against the host are written, and a few programs that those attempts run.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::payload::needed;
use crate::Result;

/// The distribution's own: its library lies where every system has one, and is made for its libraries.
const PYTHON: &str = "/usr/bin/python3";
const PROGRAMS: [&str; 3] = ["/bin/sh", "/bin/sleep", "/usr/bin/cat"];
/// Large parts of Python's library that nothing inside asks for.
const LEFT_OUT: [&str; 8] =
    ["config-", "distutils", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tkinter"];

/// Path inside, path here.
pub(super) fn files() -> Result<Vec<(String, PathBuf)>> {
    let said = Command::new(PYTHON)
        .args(["-I", "-c", "import os, sys; print(os.path.realpath(sys.executable)); print(os.path.dirname(os.__file__))"])
        .output()
        .map_err(|e| format!("{PYTHON} cannot be started: {e}; install the package python3"))?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let [program, library] = said.lines().collect::<Vec<_>>()[..] else {
        return Err(format!("{PYTHON} does not say where it is: {said}"));
    };
    let mut files = vec![(PYTHON.to_owned(), PathBuf::from(program))];
    files.extend(PROGRAMS.map(|path| (path.to_owned(), PathBuf::from(path))));
    below(Path::new(library), &mut files)?;
    let mut libraries = BTreeSet::new();
    for (inside, path) in &files {
        if inside.starts_with("/usr/bin/") || inside.starts_with("/bin/") || inside.ends_with(".so")
        {
            libraries.extend(needed(path)?);
        }
    }
    files.extend(libraries.into_iter().map(|library| (library.clone(), PathBuf::from(library))));
    Ok(files)
}

fn below(folder: &Path, files: &mut Vec<(String, PathBuf)>) -> Result {
    let trouble = |e: std::io::Error| format!("{}: {e}", folder.display());
    for entry in fs::read_dir(folder).map_err(trouble)? {
        let path = entry.map_err(trouble)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if LEFT_OUT.iter().any(|part| name.starts_with(part)) {
            continue;
        }
        if path.is_dir() {
            below(&path, files)?;
        } else if path.is_file() {
            files.push((path.display().to_string(), path));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_left_out() {
        let folder = std::env::temp_dir().join(format!("palisade-python-{}", std::process::id()));
        for file in ["os.py", "json/decoder.py", "test/big.py", "config-3.11/libpython.a"] {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let mut files = Vec::new();
        below(&folder, &mut files).unwrap();
        let mut names: Vec<_> =
            files.iter().map(|(_, p)| p.strip_prefix(&folder).unwrap().to_owned()).collect();
        names.sort();
        assert_eq!(names, [Path::new("json/decoder.py"), Path::new("os.py")]);
        fs::remove_dir_all(&folder).unwrap();
    }
}
