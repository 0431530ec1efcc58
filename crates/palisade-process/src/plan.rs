//! Writing launch plans for the helper. The format is in `helper/plan.rs`, shared by both sides.

#[path = "../helper/plan.rs"]
#[allow(dead_code, missing_docs, unreachable_pub)]
pub(crate) mod format;

use format::{MAX_PLAN, step, word};
use palisade_sandbox::SandboxError;

/// One bind mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) source: String,
    pub(crate) target: String,
    /// Mount attributes (MOUNT_ATTR_*).
    pub(crate) attributes: u64,
    /// `format::bind` flags, without the id map.
    pub(crate) flags: u64,
    /// Device and inode that the host saw; inode 0 where it need not be checked.
    pub(crate) identity: (u64, u64),
    /// Index into the plan's id maps.
    pub(crate) idmap: Option<usize>,
}

/// Builds a plan record by record. A string with a NUL inside, or too much of anything, is found at the
/// end, in [`PlanBuilder::finish`].
#[derive(Clone)]
pub(crate) struct PlanBuilder {
    bytes: Vec<u8>,
    /// What each record is about, for error messages.
    labels: Vec<String>,
    bad: Option<String>,
}

impl PlanBuilder {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::with_capacity(8192), labels: Vec::new(), bad: None }
    }

    fn record(&mut self, tag: u16, label: &str, body: impl FnOnce(&mut Self)) {
        self.bytes.extend_from_slice(&tag.to_le_bytes());
        self.bytes.extend_from_slice(&[0; 2]);
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        body(self);
        let len = u32::try_from(self.bytes.len() - at - 4).unwrap_or(u32::MAX);
        if let Some(slot) = self.bytes.get_mut(at..at + 4) {
            slot.copy_from_slice(&len.to_le_bytes());
        }
        self.labels.push(label.to_owned());
    }

    fn u32(&mut self, n: u32) {
        self.bytes.extend_from_slice(&n.to_le_bytes());
    }

    fn u64(&mut self, n: u64) {
        self.bytes.extend_from_slice(&n.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        if text.contains('\0') {
            self.bad.get_or_insert_with(|| palisade_model::text::escape(text, 100));
        }
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
    }

    pub(crate) fn config(&mut self, words: [u64; word::COUNT]) {
        self.record(format::TAG_CONFIG, "configuration", |p| words.iter().for_each(|w| p.u64(*w)));
    }

    pub(crate) fn dir(&mut self, path: &str, mode: u32) {
        self.record(format::TAG_DIR, path, |p| {
            p.u32(mode);
            p.text(path);
        });
    }

    pub(crate) fn symlink(&mut self, target: &str, path: &str) {
        self.record(format::TAG_SYMLINK, path, |p| {
            p.text(target);
            p.text(path);
        });
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &str) {
        self.record(format::TAG_FILE, path, |p| {
            p.u32(mode);
            p.text(path);
            p.bytes.extend_from_slice(content.as_bytes());
        });
    }

    pub(crate) fn tmpfs(&mut self, path: &str, size: u64, inodes: u64, mode: u32, attributes: u32) {
        self.record(format::TAG_TMPFS, path, |p| {
            p.u64(size);
            p.u64(inodes);
            p.u32(mode);
            p.u32(attributes);
            p.text(path);
        });
    }

    pub(crate) fn bind(&mut self, bind: &Bind) {
        self.record(format::TAG_BIND, &bind.source, |p| {
            let map = bind.idmap.map_or(0, |i| i as u64 + 1);
            p.u64(bind.attributes);
            p.u64(bind.flags | (map << format::bind::IDMAP_SHIFT));
            p.u64(bind.identity.0);
            p.u64(bind.identity.1);
            p.text(&bind.source);
            p.text(&bind.target);
        });
    }

    pub(crate) fn idmap(&mut self, disk_uid: u32, plugin_uid: u32, disk_gid: u32, plugin_gid: u32) {
        self.record(format::TAG_IDMAP, "id map", |p| {
            [disk_uid, plugin_uid, disk_gid, plugin_gid].into_iter().for_each(|n| p.u32(n));
        });
    }

    pub(crate) fn exe(&mut self, path: &str) {
        self.record(format::TAG_EXE, path, |p| p.text(path));
    }

    pub(crate) fn arg(&mut self, arg: &str) {
        self.record(format::TAG_ARG, "an argument", |p| p.text(arg));
    }

    pub(crate) fn env(&mut self, name: &str, value: &str) {
        self.record(format::TAG_ENV, name, |p| p.text(&format!("{name}={value}")));
    }

    pub(crate) fn cwd(&mut self, path: &str) {
        self.record(format::TAG_CWD, path, |p| p.text(path));
    }

    pub(crate) fn rlimit(&mut self, name: &str, resource: u64, limit: u64) {
        self.record(format::TAG_RLIMIT, name, |p| {
            [resource, limit, limit].into_iter().for_each(|n| p.u64(n))
        });
    }

    pub(crate) fn seccomp(&mut self, program: &[u8]) {
        self.record(format::TAG_SECCOMP, "system call filter", |p| {
            p.bytes.extend_from_slice(program)
        });
    }

    pub(crate) fn landlock(&mut self, files: u64, network: u64, scopes: u64) {
        self.record(format::TAG_LANDLOCK, "Landlock", |p| {
            [files, network, scopes].into_iter().for_each(|n| p.u64(n))
        });
    }

    pub(crate) fn landlock_rule(&mut self, rights: u64, path: &str) {
        self.record(format::TAG_LANDLOCK_RULE, path, |p| {
            p.u64(rights);
            p.text(path);
        });
    }

    pub(crate) fn egress(&mut self, purpose: u32, port: u16) {
        self.record(format::TAG_EGRESS, "the way out to the network", |p| {
            p.u32(purpose);
            p.u32(port.into());
        });
    }

    pub(crate) fn landlock_port(&mut self, port: u16) {
        self.record(format::TAG_LANDLOCK_PORT, "the port of the way out", |p| p.u64(port.into()));
    }

    pub(crate) fn hostname(&mut self, name: &str) {
        self.record(format::TAG_HOSTNAME, name, |p| p.text(name));
    }

    pub(crate) fn sysctl(&mut self, path: &str, value: &str) {
        self.record(format::TAG_SYSCTL, path, |p| {
            p.text(path);
            p.text(value);
        });
    }

    /// The plan, if it can be sent.
    pub(crate) fn finish(self) -> Result<Plan, SandboxError> {
        if let Some(text) = self.bad {
            return Err(SandboxError::Artifact {
                what: format!("{text:?} holds a NUL character"),
                hint: "remove it".into(),
            });
        }
        if self.bytes.len() > MAX_PLAN {
            return Err(SandboxError::Artifact {
                what: format!(
                    "the launch plan has {} bytes, at most {MAX_PLAN} can be sent",
                    self.bytes.len()
                ),
                hint: "use fewer or shorter arguments, environment variables and granted paths"
                    .into(),
            });
        }
        Ok(Plan { bytes: self.bytes, labels: self.labels })
    }
}

/// A finished plan.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) bytes: Vec<u8>,
    labels: Vec<String>,
}

impl Plan {
    /// The helper's report of a failed step, in words.
    pub(crate) fn failure(&self, place: u64, errno: i32) -> SandboxError {
        let (number, index) = ((place & 0xffff_ffff) as u32, (place >> 32) as usize);
        let label = self
            .labels
            .get(index)
            .map(|l| palisade_model::text::escape(l, 300))
            .unwrap_or_default();
        let path_step =
            |what: &str| SandboxError::Path { path: label.clone(), what: what.to_owned() };
        let source = std::io::Error::from_raw_os_error(errno);
        match number {
            step::BIND_CHANGED => path_step(
                "it is not the file or folder that was there when the rights were checked",
            ),
            step::BIND_OPEN if errno == 40 => path_step(
                "a symbolic link stands in the path; it was none when the rights were checked",
            ),
            step::BIND_OPEN => path_step(&format!("cannot be opened: {source}")),
            step::BIND_TARGET => path_step(&format!("has no place inside the new root: {source}")),
            // EACCES and EPERM: a capability is missing, or the mount has an id map already. EINVAL: the file system
            // knows none (mount_setattr(2)). Anything else is about the user namespace that carries the map.
            step::IDMAP if matches!(errno, 1 | 13) => path_step(&format!(
                "cannot be shown as the plugin's by an id-mapped mount ({source}): it may lie on one already; else give Palisade the capabilities that `docker run` gives and CAP_SYS_ADMIN, or run it as an ordinary user"
            )),
            step::IDMAP if errno != 22 => path_step(&format!(
                "no user namespace for its id-mapped mount can be had: {source}"
            )),
            step::IDMAP => path_step(&format!(
                "its file system does not support id-mapped mounts ({source}), which keep the plugin's files from belonging to root; move it to ext4, xfs or btrfs (tmpfs from Linux 6.3), or run Palisade as an ordinary user"
            )),
            step::EXEC => SandboxError::Artifact {
                what: format!("the program cannot be started: {source}"),
                hint: exec_hint(errno).to_owned(),
            },
            step::HANDLES if errno == 9 => SandboxError::Step {
                step: "placing handles beside each other, for which a process must be allowed 512 open files (ulimit -Hn 512)".to_owned(),
                source,
            },
            step::LANDLOCK if errno == 13 => SandboxError::Step {
                step: format!("applying Landlock to {label}, for which the plugin's user (one of its own, where root started it) must be allowed to pass through every folder above (chmod o+x)"),
                source,
            },
            // Without a record of its own, a step is told of the first, which says nothing about it.
            number if index == 0 => {
                SandboxError::Step { step: step_in_words(number).to_owned(), source }
            }
            number => SandboxError::Step {
                step: format!("{} {label}", step_in_words(number)).trim_end().to_owned(),
                source,
            },
        }
    }
}

fn exec_hint(errno: i32) -> &'static str {
    match errno {
        2 => {
            "the file, its interpreter (first line) or its dynamic loader is not there inside the walls"
        }
        8 => "it is no program for this machine; a script needs a first line like #!/bin/sh",
        13 => {
            "it must be readable and executable (chmod +x), on a file system that is not mounted noexec"
        }
        _ => "run `palisade check` on the plugin",
    }
}

/// What the helper was doing.
fn step_in_words(number: u32) -> &'static str {
    match number {
        step::PLAN => "reading the launch plan",
        step::BIND_CLONE => "cloning the mount",
        step::BIND_ATTR => "setting mount attributes",
        step::CLONE => "creating the namespaces",
        step::ID_MAP_FILE => "writing the user namespace's id map",
        step::SET_IDS => "changing to the plugin's user",
        step::PRIVATE => "making mounts private",
        step::ROOT => "making the new root",
        step::MAKE => "making",
        step::TMPFS => "mounting tmpfs",
        step::PROC => "mounting /proc",
        step::BIND_ATTACH => "attaching the mount",
        step::SYSCTL => "setting",
        step::PIVOT => "pivoting into the new root",
        step::ROOT_RO => "sealing the new root",
        step::HOSTNAME => "setting the host name",
        step::CGROUP_NS => "entering a cgroup namespace",
        step::FORK => "starting the program's process",
        step::HANDLES => "placing handles",
        step::HELD => "waiting to be started",
        step::CWD => "changing to the working directory",
        step::RLIMIT => "setting the limit",
        step::CAPS => "dropping capabilities",
        step::NO_NEW_PRIVS => "setting no_new_privs",
        step::LANDLOCK => "applying Landlock to",
        step::SECCOMP => "loading the system call filter",
        step::KEYRING => "joining a new session keyring",
        step::JOIN_GROUP => "entering its cgroups",
        step::EGRESS => "opening",
        step::NO_JIT => "forbidding written memory to become code",
        step::SUBREAPER => "becoming the reaper of orphans",
        _ => "an unknown step",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_record_by_record() {
        let mut plan = PlanBuilder::new();
        plan.dir("/a", 0o755);
        plan.env("HOME", "/data");
        plan.rlimit("RLIMIT_NOFILE", 7, 256);
        let plan = plan.finish().unwrap();
        let mut records = format::Records::new(&plan.bytes);
        let (tag, body) = records.next().unwrap();
        let mut body = format::Body(body);
        assert_eq!(
            (tag, body.u32(), body.text()),
            (format::TAG_DIR, Some(0o755), Some(&b"/a\0"[..]))
        );
        let (tag, body) = records.next().unwrap();
        assert_eq!((tag, format::Body(body).text()), (format::TAG_ENV, Some(&b"HOME=/data\0"[..])));
        let (tag, body) = records.next().unwrap();
        let mut body = format::Body(body);
        assert_eq!(
            (tag, body.u64(), body.u64(), body.u64()),
            (format::TAG_RLIMIT, Some(7), Some(256), Some(256))
        );
        assert!(records.next().is_none());
        assert!(records.complete());
    }

    #[test]
    fn a_nul_or_too_much_is_refused() {
        let mut plan = PlanBuilder::new();
        plan.arg("a\0b");
        assert!(plan.finish().is_err());
        let mut plan = PlanBuilder::new();
        plan.arg(&"x".repeat(MAX_PLAN));
        assert!(plan.finish().is_err());
    }

    proptest::proptest! {
        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..512)) {
            let mut records = format::Records::new(&bytes);
            for (_, body) in records.by_ref() {
                let mut body = format::Body(body);
                while body.u32().is_some() && body.u64().is_some() && body.text().is_some() {}
            }
            let _ = records.complete();
        }
    }
}
