//! Paths that loaders, libraries and interpreters look for wherever they run, and do without. A denial of
//! one of these is probably not why something failed.

use std::path::Path;

use palisade_sandbox::observe::PathAccess;

/// These and everything below them.
const FOLDERS: [&str; 18] = [
    "/etc/ld.so.conf.d",
    "/etc/python3",
    "/lib/locale",
    "/proc",
    "/run/nscd",
    "/run/systemd/userdb",
    "/sys/devices/system",
    "/sys/fs/cgroup",
    "/sys/kernel/mm",
    "/usr/lib/debug",
    "/usr/lib/locale",
    "/usr/lib/ssl",
    "/usr/lib32",
    "/usr/libx32",
    "/usr/share/gcc",
    "/usr/share/locale",
    "/usr/share/zoneinfo",
    "/var/run/nscd",
];

const FILES: [&str; 24] = [
    "/dev/tty",
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/inputrc",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/etc/locale.alias",
    "/etc/machine-id",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/pki/tls/openssl.cnf",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl/openssl.cnf",
    "/etc/terminfo",
    "/etc/timezone",
    "/lib/terminfo",
    "/usr/bin/pyvenv.cfg",
    "/usr/lib/os-release",
    "/usr/share/terminfo",
    "/var/lib/dbus/machine-id",
];

/// Last parts of paths.
const NAMES: [&str; 6] =
    ["pyvenv.cfg", "sitecustomize.py", "usercustomize.py", "orig-prefix.txt", ".hgtags", ".npmrc"];

/// Whether a denial of this is probably harmless.
pub(crate) fn is_probe(path: &Path, access: PathAccess) -> bool {
    let compiled = || {
        // Interpreters keep compiled code beside the source where they may, and go on where they may not.
        path.components().any(|c| c.as_os_str() == "__pycache__")
            || path.extension().is_some_and(|e| e == "pyc")
    };
    match access {
        PathAccess::Write | PathAccess::Change => compiled(),
        _ => {
            FOLDERS.iter().any(|folder| path.starts_with(folder))
                || FILES.iter().any(|file| path == Path::new(file))
                || path.file_name().is_some_and(|n| NAMES.iter().any(|name| n == *name))
                || compiled()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_known_by_place_name_or_kind() {
        let read = |path: &str| is_probe(Path::new(path), PathAccess::Read);
        assert!(read("/etc/ld.so.preload") && read("/usr/share/locale/de/LC_MESSAGES/x.mo"));
        assert!(read("/opt/x/pyvenv.cfg"));
        assert!(!read("/etc/shadow") && !read("/usr/share/localeX") && !read("/home/ada/notes"));
        assert!(is_probe(Path::new("/usr/lib/a/__pycache__/b.pyc"), PathAccess::Change));
        assert!(!is_probe(Path::new("/etc/localtime"), PathAccess::Write));
    }
}
