//! The programs that the project's commands need, and how they come onto this machine.
//!
//! Root gets them from the distribution (apt) or from crates.io; on a terminal it is asked first, unless
//! this is CI. What cannot be installed is named; in CI that is a failure, elsewhere the rest goes on.

use std::{
    env,
    io::{IsTerminal, Write},
    path::Path,
    process::Command,
};

use crate::{Result, step};

/// A program and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tool {
    /// The program's name in PATH.
    program: &'static str,
    source: Source,
    /// What goes without it.
    needed_for: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// Package of Debian and Ubuntu.
    Apt(&'static str),
    /// Crate on crates.io, at the version that this project was tested with.
    Crate(&'static str, &'static str),
}

pub(crate) const PYTHON: Tool =
    Tool { program: "python3", source: Source::Apt("python3"), needed_for: "plugins in Python" };
pub(crate) const NODE: Tool =
    Tool { program: "node", source: Source::Apt("nodejs"), needed_for: "plugins in JavaScript" };
/// Packages of Node.js that are not Debian's bring npm with them.
pub(crate) const NPM: Tool = Tool {
    program: "npm",
    source: Source::Apt("npm"),
    needed_for: "the TypeScript compiler, and servers from the npm registry",
};
/// With the runtime that its plugins run on.
pub(crate) const JAVAC: Tool = Tool {
    program: "javac",
    source: Source::Apt("default-jdk-headless"),
    needed_for: "plugins in Java",
};
pub(crate) const BWRAP: Tool = Tool {
    program: "bwrap",
    source: Source::Apt("bubblewrap"),
    needed_for: "bench launch_vs_bwrap",
};
pub(crate) const SOCAT: Tool = Tool {
    program: "socat",
    source: Source::Apt("socat"),
    needed_for: "sandbox-runtime, which is compared with",
};
pub(crate) const RIPGREP: Tool = Tool {
    program: "rg",
    source: Source::Apt("ripgrep"),
    needed_for: "sandbox-runtime, which is compared with",
};
pub(crate) const STRESS_NG: Tool = Tool {
    program: "stress-ng",
    source: Source::Apt("stress-ng"),
    needed_for: "the tests of limits, and bench walls",
};
pub(crate) const CC: Tool =
    Tool { program: "cc", source: Source::Apt("gcc"), needed_for: "everything: it links" };
pub(crate) const CXX: Tool =
    Tool { program: "c++", source: Source::Apt("g++"), needed_for: "libFuzzer" };
pub(crate) const QEMU: Tool = Tool {
    program: "qemu-system-x86_64",
    source: Source::Apt("qemu-system-x86"),
    needed_for: "the small machines",
};
pub(crate) const MMDEBSTRAP: Tool = Tool {
    program: "mmdebstrap",
    source: Source::Apt("mmdebstrap"),
    needed_for: "the small machine with Debian",
};
pub(crate) const MKE2FS: Tool = Tool {
    program: "mke2fs",
    source: Source::Apt("e2fsprogs"),
    needed_for: "the small machines' disks",
};
pub(crate) const NEXTEST: Tool = Tool {
    program: "cargo-nextest",
    source: Source::Crate("cargo-nextest", "0.9.143"),
    needed_for: "the tests",
};
pub(crate) const DENY: Tool = Tool {
    program: "cargo-deny",
    source: Source::Crate("cargo-deny", "0.20.2"),
    needed_for: "the check of dependencies",
};

impl Tool {
    pub(crate) fn is_present(&self) -> bool {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).any(|dir| is_program(&dir.join(self.program)))
    }

    /// The command that a person would type.
    fn remedy(&self) -> String {
        match self.source {
            Source::Apt(package) => format!("apt-get install {package}"),
            Source::Crate(name, version) => {
                format!("cargo install {name} --locked --version {version}")
            }
        }
    }

    fn install(&self) -> Result {
        match self.source {
            Source::Apt(package) => step::run(
                Command::new("apt-get")
                    .args(["install", "--yes", "--quiet", "--no-install-recommends", package])
                    .env("DEBIAN_FRONTEND", "noninteractive"),
            ),
            Source::Crate(name, version) => step::run(&mut step::cargo([
                "install",
                name,
                "--locked",
                "--version",
                version,
                "--quiet",
            ])),
        }
    }
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// What to do about missing tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Install,
    Ask,
    /// Installing is not possible here.
    Leave,
}

/// `needs_root`: something comes from the distribution. `may_apt`: we are root and there is an apt-get.
fn decide(ci: bool, terminal: bool, needs_root: bool, may_apt: bool) -> Decision {
    match (needs_root && !may_apt, ci, terminal) {
        (true, ..) | (false, false, false) => Decision::Leave,
        (false, true, _) => Decision::Install,
        (false, false, true) => Decision::Ask,
    }
}

fn asked(missing: &[Tool]) -> bool {
    let remedies: Vec<String> = missing.iter().map(Tool::remedy).collect();
    eprint!("These commands would be run:\n  {}\nRun them? [y/N] ", remedies.join("\n  "));
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// Installs what is missing where that is allowed, and says what is still missing.
///
/// # Errors
/// In CI, when something is still missing.
pub(crate) fn ensure(tools: &[Tool]) -> Result {
    let missing: Vec<Tool> = tools.iter().copied().filter(|t| !t.is_present()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let may_apt = rustix::process::geteuid().is_root()
        && (Tool { program: "apt-get", source: Source::Apt("apt"), needed_for: "" }).is_present();
    let (from_apt, from_crates): (Vec<Tool>, Vec<Tool>) =
        missing.into_iter().partition(|t| matches!(t.source, Source::Apt(_)));
    let terminal = std::io::stdin().is_terminal();
    for (group, needs_root) in [(from_apt, true), (from_crates, false)] {
        if group.is_empty() {
            continue;
        }
        let install = match decide(step::in_ci(), terminal, needs_root, may_apt) {
            Decision::Install => true,
            Decision::Ask => asked(&group),
            Decision::Leave => false,
        };
        if !install {
            continue;
        }
        if needs_root {
            // The package lists may be old or absent; what is wrong with them shows at the install.
            let _ = step::run(Command::new("apt-get").args(["update", "--quiet"]));
        }
        for tool in group {
            if let Err(error) = tool.install() {
                eprintln!("{error}");
            }
        }
    }
    let absent: Vec<&Tool> = tools.iter().filter(|t| !t.is_present()).collect();
    for tool in &absent {
        eprintln!(
            "missing: {} (needed for {}); install it with `{}`",
            tool.program,
            tool.needed_for,
            tool.remedy()
        );
    }
    match (absent.first(), step::in_ci()) {
        (Some(tool), true) => Err(format!("in CI nothing may be missing, and {} is", tool.program)),
        _ => Ok(()),
    }
}

/// [`ensure`] for what cannot go on without: nothing is built for minutes that then does not run.
///
/// # Errors
/// When something is still missing, in CI or not; what to do about it was printed.
pub(crate) fn require(tools: &[Tool]) -> Result {
    ensure(tools)?;
    match tools.iter().find(|t| !t.is_present()) {
        Some(tool) => Err(format!(
            "{} is missing, and {} cannot go on without it",
            tool.program, tool.needed_for
        )),
        None => Ok(()),
    }
}

/// The compiler's targets that plugins are built for as WebAssembly.
pub(crate) const WASM_TARGETS: [&str; 2] = ["wasm32-unknown-unknown", "wasm32-wasip2"];

/// Adds the standard library of other targets to this toolchain, and gives those that it now has. They
/// lie in the user's own folder and are asked for no further.
///
/// # Errors
/// In CI, when one is still missing.
pub(crate) fn ensure_targets(wanted: &[&'static str]) -> Result<Vec<&'static str>> {
    let installed = || {
        let output = Command::new("rustup").args(["target", "list", "--installed"]).output();
        output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
    };
    let has = |list: &str, target: &str| list.lines().any(|line| line.trim() == target);
    let list = installed();
    let missing: Vec<_> = wanted.iter().copied().filter(|t| !has(&list, t)).collect();
    if !missing.is_empty()
        && let Err(error) = step::run(Command::new("rustup").args(["target", "add"]).args(&missing))
    {
        eprintln!("{error}");
    }
    let list = installed();
    let (present, absent): (Vec<_>, Vec<_>) = wanted.iter().partition(|t| has(&list, t));
    match absent.first() {
        Some(target) if step::in_ci() => {
            Err(format!("in CI nothing may be missing, and Rust's target {target} is"))
        }
        absent => {
            if let Some(target) = absent {
                eprintln!("missing: target {target}; install it with `rustup target add {target}`");
            }
            Ok(present)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ci_installs_without_a_question_and_a_terminal_is_asked() {
        assert_eq!(decide(true, false, true, true), Decision::Install);
        assert_eq!(decide(true, true, false, false), Decision::Install);
        assert_eq!(decide(false, true, true, true), Decision::Ask);
    }

    #[test]
    fn nothing_is_installed_where_nobody_can_be_asked_or_root_is_needed() {
        assert_eq!(decide(false, false, true, true), Decision::Leave);
        assert_eq!(decide(false, true, true, false), Decision::Leave);
        assert_eq!(decide(true, false, true, false), Decision::Leave);
    }

    #[test]
    fn a_folder_is_no_program() {
        assert!(!is_program(Path::new("/usr/bin")));
        assert!(is_program(Path::new("/bin/sh")));
    }
}
