//! Builds the helper: one static program without libc or standard library, straight with rustc, so that
//! nothing but a linker is needed and the host's own flags do not matter.

#![allow(clippy::expect_used)] // a build script has nobody to hand an error to

use std::{
    collections::hash_map::DefaultHasher,
    env, fs,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    println!("cargo::rerun-if-changed=helper");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(palisade_helper)");
    println!("cargo::rustc-check-cfg=cfg(fuzzing)");
    let os = env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    if os != "linux" || !matches!(arch.as_str(), "x86_64" | "aarch64") {
        // The crate builds everywhere and answers "no backend here" where there are no Linux walls.
        return;
    }
    let source = Path::new("helper");
    let abi = hash(source);
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let out = folder.join("palisade-helper");
    build(source, &out, &abi, &[]);
    println!("cargo::rustc-env=PALISADE_HELPER_ABI={abi}");
    println!("cargo::rustc-env=PALISADE_HELPER_PATH={}", out.display());
    println!("cargo::rustc-cfg=palisade_helper");
    if env::var_os("CARGO_FEATURE_ABLATION").is_some() {
        // A second one beside it: whole walls are built by the one that is released, in tests too.
        let thinner = folder.join("palisade-helper-ablation");
        build(source, &thinner, &abi, &["--cfg", "feature=\"ablation\""]);
        println!("cargo::rustc-env=PALISADE_ABLATION_HELPER_PATH={}", thinner.display());
    }
}

fn build(source: &Path, out: &Path, abi: &str, more: &[&str]) {
    let target = env::var("TARGET").expect("cargo sets TARGET");
    let mut rustc = Command::new(env::var_os("RUSTC").expect("cargo sets RUSTC"));
    rustc
        .args(["--edition", "2024", "--crate-type", "bin", "--crate-name", "palisade_helper"])
        .args(["--target", &target])
        .args(["-C", "panic=abort", "-C", "opt-level=s", "-C", "lto=fat", "-C", "codegen-units=1"])
        .args(["-C", "relocation-model=static", "-C", "strip=symbols", "-C", "overflow-checks=on"])
        .args(["-C", "link-arg=-nostdlib", "-C", "link-arg=-static", "-C", "link-arg=-no-pie"])
        .args(["--check-cfg", "cfg(feature, values(\"ablation\"))"])
        .args(more)
        .arg("-o")
        .arg(out)
        .arg(source.join("main.rs"))
        .env("PALISADE_HELPER_ABI", abi);
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        rustc.arg("-C").arg({
            let mut arg = std::ffi::OsString::from("linker=");
            arg.push(linker);
            arg
        });
    }
    let status = rustc.status().expect("rustc can be started");
    assert!(status.success(), "the helper did not build");
}

/// Over every source file, names included, in order.
fn hash(folder: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    for file in sources(folder) {
        file.hash(&mut hasher);
        fs::read(&file).expect("readable").hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}

/// Every file below a folder, sorted.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("helper/ is there");
    let mut files = Vec::new();
    for entry in entries.map(|e| e.expect("readable")) {
        match entry.file_type().expect("readable").is_dir() {
            true => files.extend(sources(&entry.path())),
            false => files.push(entry.path()),
        }
    }
    files.sort();
    files
}
