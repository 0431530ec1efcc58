//! Granted folders, as WASI shows them: each under its own path.
//!
//! A folder is opened without following any link on its path, since what a link leads to may change after
//! the grant; below it, the engine resolves every path inside of the folder (`openat2(2)` with
//! `RESOLVE_BENEATH` where the kernel has it), so that no link in it leads out.

use std::path::Path;

use palisade_model::{
    Capability, CapabilitySet, Enforcement, ErrorCode, Failure, Kind, text::escape,
};
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

/// Most folders of one instance.
const MAX_FOLDERS: usize = 256;
/// Folders that cannot be granted: the kernel's, and all of the machine.
const RESERVED: [&str; 4] = ["/", "/proc", "/sys", "/dev"];

/// Why a right cannot be made true for WebAssembly; `None` where it can.
#[must_use]
pub fn unsupported(right: &Capability) -> Option<String> {
    match (right.kind(), right.kind().enforcement()) {
        (Kind::FsRead | Kind::FsWrite, _) => {
            let scope = right.path()?;
            let path = scope.path();
            if !scope.covers_below() {
                return Some(format!(
                    "WebAssembly is shown whole folders only; write {path}/** where {path} is one"
                ));
            }
            let reserved = RESERVED.contains(&path)
                || RESERVED.iter().skip(1).any(|r| Path::new(path).starts_with(r));
            reserved.then(|| {
                format!("{path} is the kernel's, or all of the machine; grant the folders that are needed")
            })
        }
        (Kind::Env, _) => None,
        (_, Enforcement::Mount) => Some("WebAssembly has no system calls".into()),
        _ => None,
    }
}

/// Opens every granted folder. What lies within another one that gives as much is left out.
///
/// # Errors
/// Where one cannot be opened, or there are too many.
pub(super) fn open(builder: &mut WasiCtxBuilder, rights: &CapabilitySet) -> Result<(), Failure> {
    let mut opened: Vec<(String, bool)> = Vec::new();
    // Those for writing first: they can be read as well.
    for (kind, writes) in [(Kind::FsWrite, true), (Kind::FsRead, false)] {
        for right in rights.of_kind(kind) {
            let Some(scope) = right.path() else { continue };
            if let Some(why) = unsupported(right) {
                return Err(Failure::new(ErrorCode::NoBackend, format!("{right}: {why}")));
            }
            let path = scope.path();
            let within = |(outer, outer_writes): &(String, bool)| {
                (*outer_writes || !writes) && Path::new(path).starts_with(outer)
            };
            if opened.iter().any(within) {
                continue;
            }
            if opened.len() == MAX_FOLDERS {
                return Err(Failure::new(
                    ErrorCode::LimitExceeded,
                    format!("there are more than {MAX_FOLDERS} granted folders"),
                ));
            }
            preopen(builder, path, writes).map_err(|why| {
                Failure::new(
                    ErrorCode::NotFound,
                    format!("the granted folder {} cannot be shown: {why}", escape(path, 300)),
                )
            })?;
            opened.push((path.to_owned(), writes));
        }
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn preopen(builder: &mut WasiCtxBuilder, path: &str, writes: bool) -> Result<(), String> {
    use std::os::fd::AsRawFd as _;

    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        // Older than Linux 5.6, or behind walls, whose filter knows no call that hides what it asks for.
        Err(rustix::io::Errno::NOSYS) => by_steps(path),
        other => other,
    };
    let folder = opened.map_err(|error| match error {
        rustix::io::Errno::LOOP => {
            "there is a symbolic link on its path; grant what it leads to".to_owned()
        }
        other => std::io::Error::from(other).to_string(),
    })?;
    // The very folder that was opened, whatever stands at its path by now (proc(5)).
    let very = format!("/proc/self/fd/{}", folder.as_raw_fd());
    builder.preopened_dir(very, path, perms(writes)).map(drop).map_err(|e| e.to_string())
}

/// The same as `openat2` with `RESOLVE_NO_SYMLINKS`, folder by folder.
#[cfg(target_os = "linux")]
fn by_steps(path: &str) -> rustix::io::Result<std::os::fd::OwnedFd> {
    use rustix::{
        fs::{CWD, Mode, OFlags, openat, readlinkat},
        io::Errno,
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut folder = openat(CWD, "/", flags, Mode::empty())?;
    for part in Path::new(path).components().skip(1) {
        let std::path::Component::Normal(name) = part else { return Err(Errno::INVAL) };
        folder = openat(&folder, name, flags, Mode::empty()).map_err(|error| {
            match readlinkat(&folder, name, Vec::new()) {
                Ok(_) => Errno::LOOP,
                Err(_) => error,
            }
        })?;
    }
    Ok(folder)
}

#[cfg(not(target_os = "linux"))]
fn preopen(builder: &mut WasiCtxBuilder, path: &str, writes: bool) -> Result<(), String> {
    let resolved = std::fs::canonicalize(path).map_err(|e| e.to_string())?;
    if resolved != Path::new(path) {
        return Err("there is a symbolic link on its path; grant what it leads to".to_owned());
    }
    builder.preopened_dir(path, path, perms(writes)).map(drop).map_err(|e| e.to_string())
}

fn perms(writes: bool) -> FsPerms {
    if writes { FsPerms::ReadWrite } else { FsPerms::ReadOnly }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(right: &str) -> Option<String> {
        unsupported(&right.parse().unwrap())
    }

    #[test]
    fn what_webassembly_cannot_hold_is_refused_with_words() {
        assert_eq!(why("fs.read:/srv/texts/**"), None);
        assert_eq!(why("env:LANG"), None);
        assert_eq!(why("net.http:example.org:443"), None);
        assert_eq!(why("net.tcp:db.example.org:5432"), None);
        assert_eq!(why("storage.kv:*"), None);
        assert!(why("fs.read:/srv/texts/one").unwrap().contains("/srv/texts/one/**"));
        for right in
            ["fs.read:/**", "fs.read:/proc/**", "fs.write:/dev/shm/**", "fs.read:/proc/self/**"]
        {
            assert!(why(right).unwrap().contains("machine"), "{right}");
        }
        for right in ["exec:/usr/bin/git", "device:/dev/kvm", "gpu:*"] {
            assert!(why(right).unwrap().contains("no system calls"), "{right}");
        }
    }

    #[test]
    fn a_folder_behind_a_link_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("real")).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(root.join("real"), root.join("link")).unwrap();
        let rights = |name: &str| -> CapabilitySet {
            let right = format!("fs.read:{}/**", root.join(name).display());
            [right.parse().unwrap()].into_iter().collect()
        };
        let mut builder = wasmtime_wasi::WasiCtx::builder();
        open(&mut builder, &rights("real")).unwrap();
        #[cfg(unix)]
        {
            let failure = open(&mut builder, &rights("link")).unwrap_err();
            assert!(failure.message.contains("symbolic link"), "{failure}");
        }
        assert_eq!(open(&mut builder, &rights("none")).unwrap_err().code, ErrorCode::NotFound);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn folders_are_opened_by_steps_as_by_one_call() {
        use rustix::io::Errno;
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/file"), "").unwrap();
        std::os::unix::fs::symlink("a", root.join("link")).unwrap();
        let opened = |path: &str| by_steps(root.join(path).to_str().unwrap()).map(drop);
        assert_eq!(opened("a/b"), Ok(()));
        assert_eq!(opened("link"), Err(Errno::LOOP));
        assert_eq!(opened("link/b"), Err(Errno::LOOP));
        assert_eq!(opened("a/../a/b"), Err(Errno::INVAL));
        assert_eq!(opened("a/file"), Err(Errno::NOTDIR));
        assert_eq!(opened("c"), Err(Errno::NOENT));
        assert_eq!(by_steps("/").map(drop), Ok(()));
    }
}
