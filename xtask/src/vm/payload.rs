//! What goes into every machine: the programs of this project, and the libraries that they are linked to.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use super::{Plan, system};
use crate::{Result, step};

/// The folder of all this inside.
const INSIDE: &str = "/palisade";
/// Pid 1, and who looks.
const OWN: &str = "palisade-vm";
const PROGRAMS: [&str; 3] = [OWN, "escape", "palisade"];
/// Test programs that run inside too, and where their sources are.
const TESTS: [&str; 3] = ["walls", "landlock", "no_jit"];
const TESTED: &str = "/crates/palisade-process/tests/";

/// Files for inside.
pub(super) struct Payload {
    /// Path inside, path here.
    files: Vec<(String, PathBuf)>,
    /// The same, where there is no system on a disk.
    system: Vec<(String, PathBuf)>,
    /// Pid 1.
    program: PathBuf,
}

fn trouble(path: &Path) -> impl FnOnce(std::io::Error) -> String {
    let path = path.display().to_string();
    move |e| format!("{path}: {e}")
}

/// Builds the programs, and collects them without their debug information.
pub(super) fn build(folder: &Path, with_tests: bool) -> Result<Payload> {
    let mut here = Vec::new();
    let mut own = None;
    for (program, path) in programs()? {
        let inside = match program {
            Program::Command(name) => format!("{INSIDE}/{name}"),
            Program::Test(_) if !with_tests => continue,
            Program::Test(name) => format!("{INSIDE}/tests/{name}"),
        };
        if inside == format!("{INSIDE}/{OWN}") {
            own = Some(path.clone());
        }
        here.push((inside, path));
    }
    let attacker = step::root().join("tests/escape/attacker/target/release/attacker");
    here.push((format!("{INSIDE}/attacker"), attacker));
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
    let program = own.ok_or_else(|| format!("cargo did not build {OWN}"))?;
    let mut system = Vec::new();
    if with_tests {
        system = system::files()?;
        files.extend(guests(&files, folder)?);
    }
    Ok(Payload { files, system, program })
}

/// The guests of the WebAssembly wall, built here: there is no compiler inside.
fn guests(files: &[(String, PathBuf)], folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let runner = format!("{INSIDE}/escape");
    let runner = files.iter().find(|(inside, _)| *inside == runner);
    let (_, runner) = runner.ok_or("cargo did not build escape")?;
    let built = folder.join("guests");
    if built.exists() {
        fs::remove_dir_all(&built).map_err(trouble(&built))?;
    }
    step::run(Command::new(runner).arg("guests").arg(&built))?;
    let entries = fs::read_dir(&built).map_err(trouble(&built))?.flatten();
    let named = |entry: fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        (format!("{INSIDE}/guests/{name}"), entry.path())
    };
    Ok(entries.map(named).collect())
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
pub(super) fn needed(program: &Path) -> Result<Vec<String>> {
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

/// A program of ours for inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Command(&'static str),
    Test(&'static str),
}

/// Builds them, and gives their paths as cargo names them.
///
/// The whole workspace is selected, and a test, as for `cargo xtask test`: features are then the same for every
/// package, and nothing is compiled a second time.
fn programs() -> Result<Vec<(Program, PathBuf)>> {
    let mut build =
        step::cargo(["build", "--workspace", "--message-format=json-render-diagnostics"]);
    build.args(PROGRAMS.iter().flat_map(|name| ["--bin", name]));
    build.args(TESTS.iter().flat_map(|name| ["--test", name]));
    let begun = Instant::now();
    eprintln!("$ cargo build --workspace --bin … --test …");
    let output = build.stderr(Stdio::inherit()).output();
    let output = output.map_err(|e| format!("cargo cannot be started: {e}"))?;
    eprintln!("  {:.1} s", begun.elapsed().as_secs_f64());
    if !output.status.success() {
        return Err("the programs for inside do not build".into());
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let programs: Vec<(Program, PathBuf)> = said.lines().filter_map(program).collect();
    let wanted = PROGRAMS.len() + TESTS.len();
    match programs.len() == wanted {
        true => Ok(programs),
        false => Err(format!("cargo named {} programs, not {wanted}", programs.len())),
    }
}

/// The program that a line of cargo's is about, and its path.
fn program(line: &str) -> Option<(Program, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let target = message.get("target")?;
    let is_test = message.get("profile")?.get("test")?.as_bool()?;
    let name = target.get("name")?.as_str()?;
    let path = PathBuf::from(message.get("executable")?.as_str()?);
    let one_of = |names: &[&'static str]| names.iter().copied().find(|n| *n == name);
    let is_ours = target.get("src_path")?.as_str()?.contains(TESTED);
    match is_test {
        true => one_of(&TESTS).filter(|_| is_ours).map(|name| (Program::Test(name), path)),
        false => one_of(&PROGRAMS).map(|name| (Program::Command(name), path)),
    }
}

impl Payload {
    /// The initramfs of one machine, with a module of its kernel.
    pub(super) fn initramfs(&self, to: &Path, plan: &Plan, machine: &str, module: &Path) -> Result {
        let system = if plan.disk { &[][..] } else { &self.system };
        let write = || -> std::io::Result<()> {
            let mut archive = super::archive::Archive::create(to)?;
            for folder in ["/dev", "/proc", "/sys", "/run", "/tmp", "/var/tmp", "/root"] {
                archive.folder(folder)?;
            }
            let mut written = BTreeSet::new();
            for (inside, path) in self.files.iter().chain(system) {
                // Programs share libraries.
                if written.insert(inside) {
                    // Python goes by the time of a source when it looks for the compiled one.
                    archive.file_of(inside, &fs::read(path)?, changed(path)?)?;
                }
            }
            let name = module.file_name().unwrap_or_default().to_string_lossy();
            archive.file(&format!("{INSIDE}/modules/{name}"), &fs::read(module)?)?;
            archive.file("/init", &fs::read(self.init())?)?;
            archive.file(&format!("{INSIDE}/machine.json"), machine.as_bytes())?;
            archive.file("/etc/passwd", PASSWD)?;
            archive.file("/etc/group", GROUP)?;
            // What an attacker would look for first.
            archive.secret("/etc/shadow", SHADOW)?;
            archive.file("/root/.profile", b"")?;
            archive.finish().map(drop)
        };
        write().map_err(trouble(to))
    }

    fn init(&self) -> &Path {
        let own = format!("{INSIDE}/{OWN}");
        let stripped = self.files.iter().find(|(inside, _)| *inside == own);
        stripped.map_or(&self.program, |(_, path)| path)
    }
}

/// When a file was last changed.
fn changed(path: &Path) -> std::io::Result<u32> {
    let time = path.metadata()?.modified()?.duration_since(std::time::UNIX_EPOCH);
    Ok(time.map_or(0, |t| u32::try_from(t.as_secs()).unwrap_or(u32::MAX)))
}

const PASSWD: &[u8] =
    b"root:x:0:0:root:/root:/bin/false\ntester:x:1000:1000:tester:/tmp:/bin/false\n";
const SHADOW: &[u8] = b"root:*:20000:0:99999:7:::\ntester:*:20000:0:99999:7:::\n";
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
    fn only_the_wanted_programs_are_taken() {
        let line = |name, test, source| {
            format!(
                r#"{{"target":{{"name":"{name}","src_path":"{source}"}},"profile":{{"test":{test}}},"executable":"/t/{name}"}}"#
            )
        };
        let tests = "/w/crates/palisade-process/tests/walls.rs";
        let of = |name, test, source| program(&line(name, test, source));
        assert_eq!(of("walls", true, tests), Some((Program::Test("walls"), "/t/walls".into())));
        assert_eq!(of("walls", true, "/w/crates/other/tests/walls.rs"), None);
        assert_eq!(of("mcp", true, tests), None);
        let command = Some((Program::Command("escape"), "/t/escape".into()));
        assert_eq!(of("escape", false, "/w/tests/escape/src/bin/escape.rs"), command);
        assert_eq!(of("escape", true, "/w/tests/escape/src/bin/escape.rs"), None, "its unit tests");
        assert_eq!(program("no json"), None);
    }
}
