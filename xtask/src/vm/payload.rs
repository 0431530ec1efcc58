//! What goes into every machine: the programs of this project, and the libraries that they are linked to.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Result, step};

/// The folder of all this inside.
const INSIDE: &str = "/palisade";
const PROGRAMS: [&str; 3] = ["palisade-vm", "escape", "palisade"];
/// Test programs of `palisade-process` that run inside too.
const TESTS: [&str; 3] = ["walls", "landlock", "no_jit"];

/// Files for inside.
pub(super) struct Payload {
    /// Path inside, path here.
    files: Vec<(String, PathBuf)>,
    /// Measures the clock; also pid 1.
    pub(super) program: PathBuf,
}

fn trouble(path: &Path) -> impl FnOnce(std::io::Error) -> String {
    let path = path.display().to_string();
    move |e| format!("{path}: {e}")
}

/// Builds the programs, and collects them without their debug information.
pub(super) fn build(folder: &Path, with_tests: bool) -> Result<Payload> {
    let packages = ["palisade-vm", "palisade-escape", "palisade-cli"];
    let mut build = step::cargo(["build", "--quiet", "--bins"]);
    build.args(packages.iter().flat_map(|p| ["--package", p]));
    step::run(&mut build)?;
    let built = step::root().join("target/debug");
    let mut here: Vec<(String, PathBuf)> =
        PROGRAMS.iter().map(|name| (format!("{INSIDE}/{name}"), built.join(name))).collect();
    let attacker = step::root().join("tests/escape/attacker/target/release/attacker");
    here.push((format!("{INSIDE}/attacker"), attacker));
    if with_tests {
        for (name, path) in test_programs()? {
            here.push((format!("{INSIDE}/tests/{name}"), path));
        }
    }
    let stripped = folder.join("stripped");
    fs::create_dir_all(&stripped).map_err(trouble(&stripped))?;
    let mut files = Vec::new();
    let mut libraries = BTreeSet::new();
    for (inside, path) in here {
        libraries.extend(needed(&path)?);
        let small = stripped.join(inside.trim_start_matches('/').replace('/', "-"));
        strip(&path, &small)?;
        files.push((inside, small));
    }
    for library in libraries {
        files.push((library.clone(), PathBuf::from(library)));
    }
    let expected = step::root().join("tests/escape/expected");
    for entry in fs::read_dir(&expected).map_err(trouble(&expected))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        files.push((format!("{INSIDE}/expected/{name}"), entry.path()));
    }
    Ok(Payload { files, program: built.join("palisade-vm") })
}

/// Copies without debug information, unless the copy is newer.
fn strip(from: &Path, to: &Path) -> Result {
    let time = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
    if time(to).is_some_and(|copy| time(from).is_some_and(|original| original < copy)) {
        return Ok(());
    }
    step::run(Command::new("strip").arg("-o").arg(to).arg(from))
}

/// Shared libraries that a program needs, by path, its loader among them (ldd(1)).
fn needed(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd").arg(program).output().map_err(|e| format!("ldd: {e}"))?;
    Ok(paths(&String::from_utf8_lossy(&output.stdout)))
}

fn paths(ldd: &str) -> Vec<String> {
    ldd.lines()
        .filter_map(|line| {
            let found = line.split_once("=>").map_or(line, |(_, path)| path);
            let path = found.trim().split(' ').next()?;
            path.starts_with('/').then(|| path.to_owned())
        })
        .collect()
}

/// The test programs, as cargo names them.
fn test_programs() -> Result<Vec<(String, PathBuf)>> {
    let mut build = step::cargo([
        "test",
        "--quiet",
        "--no-run",
        "--message-format=json",
        "--package",
        "palisade-process",
    ]);
    for name in TESTS {
        build.args(["--test", name]);
    }
    eprintln!("$ cargo test --no-run --package palisade-process");
    let output = build.output().map_err(|e| format!("cargo cannot be started: {e}"))?;
    if !output.status.success() {
        return Err(format!("the tests do not build: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let programs: Vec<(String, PathBuf)> = said.lines().filter_map(test_program).collect();
    match programs.len() == TESTS.len() {
        true => Ok(programs),
        false => Err(format!("cargo named {} test programs, not {}", programs.len(), TESTS.len())),
    }
}

/// Name and path of the test program that a line of cargo's is about.
fn test_program(line: &str) -> Option<(String, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let name = message.get("target")?.get("name")?.as_str()?;
    let path = message.get("executable")?.as_str()?;
    TESTS.contains(&name).then(|| (name.to_owned(), PathBuf::from(path)))
}

impl Payload {
    /// The initramfs of one machine.
    pub(super) fn initramfs(&self, to: &Path, machine: &str) -> Result {
        let write = || -> std::io::Result<()> {
            let mut archive = super::archive::Archive::create(to)?;
            for folder in ["/dev", "/proc", "/sys", "/run", "/tmp", "/var/tmp", "/root"] {
                archive.folder(folder)?;
            }
            for (inside, path) in &self.files {
                archive.file(inside, &fs::read(path)?)?;
            }
            archive.file("/init", &fs::read(self.init())?)?;
            archive.file(&format!("{INSIDE}/machine.json"), machine.as_bytes())?;
            archive.file("/etc/passwd", PASSWD)?;
            archive.file("/etc/group", GROUP)?;
            archive.finish().map(drop)
        };
        write().map_err(trouble(to))
    }

    fn init(&self) -> &Path {
        let own = format!("{INSIDE}/palisade-vm");
        let stripped = self.files.iter().find(|(inside, _)| *inside == own);
        stripped.map_or(&self.program, |(_, path)| path)
    }
}

const PASSWD: &[u8] =
    b"root:x:0:0:root:/root:/bin/false\ntester:x:1000:1000:tester:/tmp:/bin/false\n";
const GROUP: &[u8] = b"root:x:0:\ntester:x:1000:\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_both_shapes_of_line() {
        let said = "\tlinux-vdso.so.1 (0x00007)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007)\n";
        assert_eq!(
            super::paths(said),
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
        );
        assert!(super::paths("\tstatically linked\n").is_empty());
    }

    #[test]
    fn only_the_wanted_test_programs_are_taken() {
        let line = r#"{"target":{"name":"walls"},"executable":"/t/walls-1"}"#;
        assert_eq!(test_program(line), Some(("walls".into(), "/t/walls-1".into())));
        assert_eq!(test_program(r#"{"target":{"name":"mcp"},"executable":"/t/mcp-1"}"#), None);
        assert_eq!(test_program("no json"), None);
    }
}
