//! `cargo xtask fuzz`: libFuzzer on everything that reads a plugin's bytes.
//!
//! Built with the project's own stable compiler: `RUSTC_BOOTSTRAP=1` lets it take the two unstable flags
//! that cargo-fuzz passes to a nightly one, so that no second toolchain is needed. For this build only;
//! nothing that is shipped is compiled this way.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    thread::{self, available_parallelism},
};

use crate::{Result, step, tools};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds for each target
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Another time for one target; repeatable
    #[arg(long = "target", value_name = "NAME=SECONDS", value_parser = own_time)]
    own_times: Vec<(String, u32)>,
    /// Leave out the targets of WebAssembly, whose engine is most of what there is to build
    #[arg(long)]
    without_wasm: bool,
    /// Only this target
    target: Option<String>,
}

fn own_time(text: &str) -> std::result::Result<(String, u32), String> {
    let (name, seconds) = text.split_once('=').ok_or("it is NAME=SECONDS")?;
    match seconds.parse() {
        Ok(seconds @ 1..=86_400) => Ok((name.to_owned(), seconds)),
        _ => Err(format!("`{seconds}` is no number of seconds from 1 to 86400")),
    }
}

/// How long a target runs.
fn seconds_of(name: &str, args: &Args) -> u32 {
    let own = args.own_times.iter().find(|(target, _)| target == name);
    own.map_or(args.seconds, |(_, seconds)| *seconds)
}

/// What cargo-fuzz passes for libFuzzer with AddressSanitizer
/// (<https://llvm.org/docs/LibFuzzer.html#fuzzer-usage>).
const FLAGS: &str = "--cfg fuzzing -Zsanitizer=address -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// A single input that takes longer is a finding, seconds.
const INPUT_TIMEOUT: u32 = 10;
/// More memory is a finding, MiB.
const MEMORY_LIMIT: u32 = 2048;
/// Most targets that run at once: each takes a processor and up to [`MEMORY_LIMIT`].
const MOST_AT_ONCE: usize = 4;

/// A `[[bin]]` table of a manifest.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    name: String,
    /// It is built only with a feature of the manifest's.
    has_feature: bool,
}

/// The `[[bin]]` tables of a manifest.
fn targets(manifest: &str) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    let mut in_bin = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            in_bin = line == "[[bin]]";
            if in_bin {
                targets.push(Target { name: String::new(), has_feature: false });
            }
        } else if in_bin
            && let Some((key, value)) = line.split_once('=')
            && let Some(target) = targets.last_mut()
        {
            match key.trim() {
                "name" => target.name = value.trim().trim_matches('"').to_owned(),
                "required-features" => target.has_feature = true,
                _ => {}
            }
        }
    }
    targets
}

fn triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

fn build(folder: &Path, without_wasm: bool) -> Result<PathBuf> {
    let target = folder.join("target");
    let triple = triple();
    step::run(
        step::cargo(["build", "--release", "--quiet", "--bins", "--target", &triple])
            .args(without_wasm.then_some("--no-default-features"))
            .arg("--target-dir")
            .arg(&target)
            .current_dir(folder)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", FLAGS)
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            // Overflows and failed debug assertions are findings too.
            .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only"),
    )?;
    Ok(target.join(triple).join("release"))
}

fn fuzz(folder: &Path, programs: &Path, name: &str, seconds: u32) -> Result {
    let corpus = folder.join("corpus").join(name);
    let artifacts = folder.join("artifacts").join(name);
    for path in [&corpus, &artifacts] {
        fs::create_dir_all(path).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let mut run = Command::new(programs.join(name));
    // The first folder receives what is new; the seeds are only read.
    run.arg(&corpus);
    let seeds = folder.join("seeds").join(name);
    if seeds.is_dir() {
        run.arg(&seeds);
    } else {
        eprintln!("{name}: no seeds in {}", seeds.display());
    }
    run.arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={INPUT_TIMEOUT}"))
        .arg(format!("-rss_limit_mb={MEMORY_LIMIT}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg("-print_final_stats=1")
        .arg("-verbosity=0")
        // SQLite has static tables of one name in several functions, which the merged file makes look
        // like one symbol that is defined twice.
        .env("ASAN_OPTIONS", "detect_odr_violation=0")
        .current_dir(folder);
    eprintln!("$ fuzz {name}, {seconds} s");
    let output = run.output().map_err(|e| format!("{name} cannot be started: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        let stats = said.lines().filter(|l| l.starts_with("stat::")).map(|l| format!("  {l}\n"));
        eprint!("{name}:\n{}", stats.collect::<String>());
        return Ok(());
    }
    eprint!("{said}");
    let input = newest(&artifacts).map_or_else(|| "none".to_owned(), |p| p.display().to_string());
    Err(format!("{name} failed ({}); the input is {input}", output.status))
}

/// The file that was written last.
fn newest(folder: &Path) -> Option<PathBuf> {
    fs::read_dir(folder)
        .ok()?
        .filter_map(std::result::Result::ok)
        .max_by_key(|entry| entry.metadata().and_then(|m| m.modified()).ok())
        .map(|entry| entry.path())
}

pub(crate) fn run(args: &Args) -> Result {
    tools::ensure(&[tools::CC, tools::CXX])?;
    let folder = step::root().join("fuzz");
    let manifest = folder.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).map_err(|e| format!("{}: {e}", manifest.display()))?;
    // The one feature that a target may need is WebAssembly.
    let is_wanted = |target: &Target| !(args.without_wasm && target.has_feature);
    let all: Vec<String> =
        targets(&text).into_iter().filter(is_wanted).map(|target| target.name).collect();
    let chosen: Vec<&String> = match &args.target {
        Some(name) => vec![
            all.iter()
                .find(|t| *t == name)
                .ok_or_else(|| format!("no target `{name}`; there are {}", all.join(", ")))?,
        ],
        None => all.iter().collect(),
    };
    if chosen.is_empty() {
        return Err(format!("{} names no target", manifest.display()));
    }
    if let Some((name, _)) = args.own_times.iter().find(|(name, _)| !all.contains(name)) {
        return Err(format!("no target `{name}`; there are {}", all.join(", ")));
    }
    let programs = build(&folder, args.without_wasm)?;
    // All of them, so that one finding does not hide another; the long ones first, so that none of them
    // is left alone at the end.
    let mut queue = chosen;
    queue.sort_by_key(|name| seconds_of(name, args));
    let queue = Mutex::new(queue);
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let work = || {
        let mut findings = Vec::new();
        while let Some(name) = next() {
            findings.extend(fuzz(&folder, &programs, name, seconds_of(name, args)).err());
        }
        findings
    };
    let lanes = available_parallelism().map_or(1, |n| n.get().min(MOST_AT_ONCE));
    let findings: Vec<String> = thread::scope(|scope| {
        let started: Vec<_> = (0..lanes).map(|_| scope.spawn(work)).collect();
        let ended = started
            .into_iter()
            .map(|lane| lane.join().unwrap_or_else(|_| vec!["a fuzz lane panicked".to_owned()]));
        ended.flatten().collect()
    });
    if findings.is_empty() { Ok(()) } else { Err(findings.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::{Target, own_time, targets};

    #[test]
    fn targets_are_the_binaries_and_nothing_else() {
        let manifest = "[package]\nname = \"fuzz\"\n\n[[bin]]\nname = \"frames\"\npath = \"a.rs\"\n\
            [dependencies]\nname = \"1\"\n[[bin]]\npath = \"b.rs\"\n name = \"manifest\"\n\
            required-features = [\"wasm\"]\n";
        let target = |name: &str, has_feature| Target { name: name.into(), has_feature };
        assert_eq!(targets(manifest), [target("frames", false), target("manifest", true)]);
        assert!(targets("[package]\nname = \"fuzz\"").is_empty());
    }

    #[test]
    fn a_target_may_have_a_time_of_its_own() {
        assert_eq!(own_time("bpf=60"), Ok(("bpf".to_owned(), 60)));
        for wrong in ["bpf", "bpf=", "bpf=0", "bpf=-1", "bpf=86401", "bpf=x"] {
            assert!(own_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_projects_own_targets_are_found() {
        let path = crate::step::root().join("fuzz/Cargo.toml");
        let found = targets(&std::fs::read_to_string(path).unwrap());
        let has = |name: &str| found.iter().find(|t| t.name == name).map(|t| t.has_feature);
        assert_eq!((has("manifest"), has("inspect")), (Some(false), Some(true)), "{found:?}");
    }
}
