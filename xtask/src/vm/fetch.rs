//! What comes from Debian: a kernel, and a whole system as a disk image. Both are kept.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::Kernel;
use crate::{Result, step};

/// What the system has beside the essential packages.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,systemd-container,\
    python3";
/// The module of the kernel that is attacked.
const MODULE: &str = "binfmt_misc.ko";
/// Sizes of the disks; only what is used takes space.
const IMAGE_SIZE: &str = "3G";
const SCRATCH_SIZE: &str = "3G";

fn trouble(path: &Path) -> impl FnOnce(std::io::Error) -> String {
    let path = path.display().to_string();
    move |e| format!("{path}: {e}")
}

/// What a command prints.
fn said(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{name} cannot be started: {e}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// Names of the packages that `apt-cache search --names-only` finds.
fn found(pattern: &str) -> Result<Vec<String>> {
    let lines = said(Command::new("apt-cache").args(["search", "--names-only", pattern]))?;
    Ok(lines.lines().filter_map(|l| l.split(' ').next()).map(str::to_owned).collect())
}

/// The meta packages of the kernels, `linux-image-6.12-cloud-amd64` and the like, oldest first.
fn numbered(names: &[String]) -> Vec<String> {
    let version = |name: &str| -> Option<(u32, u32)> {
        let middle = name.strip_prefix("linux-image-")?.strip_suffix("-cloud-amd64")?;
        let (major, minor) = middle.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let mut all: Vec<_> = names.iter().filter_map(|n| Some((version(n)?, n.clone()))).collect();
    all.sort();
    all.into_iter().map(|(_, name)| name).collect()
}

/// The package that holds the kernel itself.
fn package(kernel: Kernel) -> Result<String> {
    let meta = match kernel {
        Kernel::Stable => "linux-image-cloud-amd64".to_owned(),
        Kernel::Later => {
            let names = found("^linux-image-[0-9.]+-cloud-amd64$")?;
            let none = "apt offers no later kernel than the release's own";
            numbered(&names).pop().ok_or(none)?
        }
    };
    let depends = said(Command::new("apt-cache").args(["depends", "--important", &meta]))?;
    let real = depends.lines().find_map(|l| l.trim().strip_prefix("Depends: "));
    let real = real.map(str::trim).filter(|name| name.starts_with("linux-image-"));
    real.map(str::to_owned).ok_or_else(|| format!("{meta} depends on no kernel: {depends}"))
}

/// A kernel, and the one module that is attacked.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) image: PathBuf,
    /// `binfmt_misc`, compressed or not, as its name says.
    pub(super) module: PathBuf,
}

/// A kernel, fetched once.
pub(super) fn kernel(folder: &Path, kernel: Kernel) -> Result<Files> {
    let name = match kernel {
        Kernel::Stable => "kernel-stable",
        Kernel::Later => "kernel-later",
    };
    let image = folder.join(name);
    let modules = folder.join(format!("{name}.modules"));
    let kept = only(&modules, MODULE);
    if let (true, Ok(module)) = (image.exists(), kept) {
        return Ok(Files { image, module });
    }
    let scratch = folder.join(format!("{name}.new"));
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch).map_err(trouble(&scratch))?;
    let package = match package(kernel) {
        Ok(package) => package,
        // The package lists may be old or absent.
        Err(_) => {
            step::run(Command::new("apt-get").args(["update", "--quiet"]))?;
            package(kernel)?
        }
    };
    step::run(
        Command::new("apt-get").args(["download", "--quiet", &package]).current_dir(&scratch),
    )?;
    let archive = only(&scratch, ".deb")?;
    let root = scratch.join("root");
    step::run(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(&root))?;
    let unpacked = only(&root.join("boot"), "vmlinuz-")?;
    let release = only(&root.join("lib/modules"), "")?;
    let found = only(&release.join("kernel/fs"), MODULE)?;
    fs::create_dir_all(&modules).map_err(trouble(&modules))?;
    let module = modules.join(found.file_name().unwrap_or_default());
    fs::rename(&found, &module).map_err(trouble(&module))?;
    fs::rename(&unpacked, &image).map_err(trouble(&image))?;
    let _ = fs::remove_dir_all(&scratch);
    Ok(Files { image, module })
}

/// The one file of a folder whose name has this in it.
fn only(folder: &Path, part: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).map_err(trouble(folder))?;
    entries
        .flatten()
        .map(|e| e.path())
        .find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().contains(part)))
        .ok_or_else(|| format!("{} has no {part}", folder.display()))
}

/// Debian's name for this release, so that the programs built here find their libraries there.
fn release() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|l| l.strip_prefix("VERSION_CODENAME="));
    name.map_or_else(|| "bookworm".to_owned(), |n| n.trim_matches('"').to_owned())
}

/// An empty disk for what the initramfs machines write.
pub(super) fn scratch(folder: &Path) -> Result<PathBuf> {
    let image = folder.join("scratch.ext4");
    if !image.exists() {
        let new = folder.join("scratch.ext4.new");
        step::run(
            Command::new("mke2fs")
                .args(["-q", "-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=0", "-F"])
                .arg(&new)
                .arg(SCRATCH_SIZE),
        )?;
        fs::rename(&new, &image).map_err(trouble(&image))?;
    }
    Ok(image)
}

/// The disk image of a Debian with systemd, made once.
pub(super) fn disk(folder: &Path) -> Result<PathBuf> {
    let image = folder.join("debian.ext4");
    if image.exists() {
        return Ok(image);
    }
    let (tree, new) = (folder.join("debian.new"), folder.join("debian.ext4.new"));
    let _ = fs::remove_dir_all(&tree);
    step::run(
        Command::new("mmdebstrap")
            .args(["--variant=minbase", "--quiet"])
            .arg(format!("--include={PACKAGES}"))
            .args(["man", "doc", "locale"].map(|f| format!("--dpkgopt=path-exclude=/usr/share/{f}/*")))
            .arg("--customize-hook=useradd --root \"$1\" --uid 1000 --create-home tester")
            .arg("--customize-hook=mkdir \"$1/palisade\"")
            // Nothing may wait for what a small machine does not have.
            .arg("--customize-hook=systemctl --root \"$1\" mask systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer")
            .arg(release())
            .arg(&tree),
    )?;
    step::run(
        Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-O", "^has_journal", "-F", "-d"])
            .arg(&tree)
            .arg(&new)
            .arg(IMAGE_SIZE),
    )?;
    fs::rename(&new, &image).map_err(trouble(&image))?;
    let _ = fs::remove_dir_all(&tree);
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::numbered;

    #[test]
    fn the_latest_kernel_is_the_last() {
        let names = [
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.9-cloud-amd64",
            "linux-image-6.12.100+deb12-cloud-amd64",
            "linux-image-cloud-amd64",
        ]
        .map(str::to_owned);
        assert_eq!(
            numbered(&names),
            ["linux-image-6.9-cloud-amd64", "linux-image-6.12-cloud-amd64"]
        );
    }
}
