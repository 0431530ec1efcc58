//! Finding a Java virtual machine and what belongs to it, and telling it its limits.
//!
//! A distribution spreads a Java home over its own folder and /etc; the links between them are followed
//! only to the places where distributions put such files. Nothing is run to find out.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use palisade_model::Limits;
use palisade_sandbox::SandboxError;

use super::{
    Needs, artifact_error,
    interpreter::{outside_plugin, show_tree, too_wide},
    utf8,
};
use crate::programs::{Programs, is_java};

/// Entries of a Java home that are looked at, at most; OpenJDK 25 has about 600.
const MAX_ENTRIES: usize = 20_000;

/// The Java of the host, by path or plain name: the path to start it by.
pub(super) fn host_java(
    needs: &mut Needs,
    root: &Path,
    wanted: &str,
) -> Result<String, SandboxError> {
    let program = if wanted.starts_with('/') {
        outside_plugin(root, Path::new(wanted))?
    } else if is_java(wanted) {
        Programs::of_process().any(wanted)?
    } else {
        return Err(artifact_error(
            format!("{} is no name of Java", palisade_model::text::escape(wanted, 100)),
            "write java, or an absolute path",
        ));
    };
    needs.add_program(&program, false, 1)?;
    let real = program
        .canonicalize()
        .map_err(|e| artifact_error(format!("{}: {e}", program.display()), "name another Java"))?;
    // `HOME/bin/java`, since Java 9 for runtimes and development kits alike (JEP 220).
    let home = real.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    if !home.join("lib/modules").is_file() {
        return Err(artifact_error(
            format!("{} has no library beside it (lib/modules)", program.display()),
            "name the bin/java of a complete Java 11 or later",
        ));
    }
    if !home.starts_with("/usr/lib") {
        if too_wide(home) {
            return Err(artifact_error(
                format!("the Java home {} is too wide to be shown to a plugin", home.display()),
                "install Java in a folder of its own",
            ));
        }
        show_tree(needs, home)?;
    }
    for place in linked_places(home) {
        let folder = place.is_dir();
        needs.show(&place, folder)?;
    }
    Ok(utf8(&program)?.to_owned())
}

/// What the settings and libraries of a Java home link to outside of it and of /usr/lib.
fn linked_places(home: &Path) -> BTreeSet<PathBuf> {
    let mut places = BTreeSet::new();
    let mut todo = vec![home.join("conf"), home.join("lib")];
    let mut seen = 0;
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            seen += 1;
            if seen > MAX_ENTRIES {
                return places;
            }
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                todo.push(entry.path());
            } else if kind.is_symlink()
                && let Ok(target) = entry.path().canonicalize()
            {
                places.extend(place_of(&target));
            }
        }
    }
    places
}

/// What is shown for the end of such a link: Debian's /etc/java-17-openjdk and its like as a whole, a list
/// of certificates by itself. Anything else is none of a Java home's business.
fn place_of(target: &Path) -> Option<PathBuf> {
    let certificates = ["/etc/ssl/certs/java", "/etc/pki/java", "/etc/pki/ca-trust/extracted/java"];
    if certificates.iter().any(|folder| target.starts_with(folder)) {
        return Some(target.to_path_buf());
    }
    let mut parts = target.strip_prefix("/etc").ok()?.components();
    let (Some(Component::Normal(first)), Some(_)) = (parts.next(), parts.next()) else {
        return None;
    };
    first.to_str()?.starts_with("java").then(|| Path::new("/etc").join(first))
}

/// How a virtual machine learns its limits: it would ask cgroups, which it cannot see, and take all of the
/// machine for its own. The heap gets half; code, threads and collectors live in the rest. What the author
/// writes comes later and wins.
pub(crate) fn options(limits: &Limits) -> [String; 4] {
    let processors = limits.cpu.ceil().clamp(1.0, 1024.0) as u32;
    [
        format!("-XX:MaxRAM={}", limits.memory),
        "-XX:MaxRAMPercentage=50".to_owned(),
        format!("-XX:ActiveProcessorCount={processors}"),
        // A file in /tmp that only tools outside of the walls would read.
        "-XX:-UsePerfData".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_to_places_of_java_only() {
        let place = |target: &str| place_of(Path::new(target)).map(|p| p.display().to_string());
        let etc = Some("/etc/java-17-openjdk".to_owned());
        assert_eq!(place("/etc/java-17-openjdk/security/java.policy"), etc);
        let certificates = "/etc/ssl/certs/java/cacerts";
        assert_eq!(place(certificates).as_deref(), Some(certificates));
        for other in
            ["/etc/shadow", "/etc/javaland", "/etc", "/root/.ssh/id_rsa", "/etc/ssl/private/key"]
        {
            assert_eq!(place(other), None, "{other}");
        }
    }

    #[test]
    fn a_home_that_leads_elsewhere_gains_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("conf")).unwrap();
        fs::create_dir_all(dir.path().join("lib")).unwrap();
        std::os::unix::fs::symlink("/etc/shadow", dir.path().join("conf/net.properties")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("lib/etc")).unwrap();
        assert!(linked_places(dir.path()).is_empty());
    }

    #[test]
    fn limits_are_told_in_the_machines_own_words() {
        let limits = Limits { memory: 300 << 20, cpu: 1.5, ..Limits::default() };
        let [memory, _, processors, _] = options(&limits);
        assert_eq!(
            (memory.as_str(), processors.as_str()),
            ("-XX:MaxRAM=314572800", "-XX:ActiveProcessorCount=2")
        );
    }
}
