//! How much memory a runner and all that it launched really held: a memory cgroup (version 1) around the
//! runner, made by root before it starts. The kernel keeps the peak; the runner resets and reads it.
//!
//! It limits nothing. Where there is no such hierarchy, peaks are not measured and reports say so.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::trouble::{Result, While};

const PEAK: &str = "memory.max_usage_in_bytes";
const NOW: &str = "memory.usage_in_bytes";

/// A group around a runner; removed when dropped.
pub struct Meter(PathBuf);

impl Meter {
    /// Makes one below this process' own group; `None` where there is no version 1 memory hierarchy or no
    /// right to make groups.
    #[must_use]
    pub fn make(tag: &str, uid: u32) -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = own.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|c| c == "memory").then(|| path.trim_start_matches('/'))
        })?;
        let group = Path::new("/sys/fs/cgroup/memory")
            .join(path)
            .join(format!("palisade-escape-{}-{tag}", std::process::id()));
        fs::create_dir(&group).ok()?;
        let meter = Self(group);
        std::os::unix::fs::chown(meter.0.join(PEAK), Some(uid), Some(uid)).ok()?;
        Some(meter)
    }

    /// Where it is, for the runner.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Moves a process in; its later children follow.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take(&self, pid: u32) -> Result<()> {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).doing("metering a runner")
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        // The runner's host makes a group of its own, which its end leaves behind empty. The last processes
        // may still be going.
        for _ in 0..50 {
            for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
                for inner in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                    let _ = fs::remove_dir(inner.path());
                }
                let _ = fs::remove_dir(entry.path());
            }
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn read(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Bytes in the group now, with the peak set back to it.
#[must_use]
pub fn reset(group: &Path) -> Option<u64> {
    fs::write(group.join(PEAK), "0").ok()?;
    read(&group.join(NOW))
}

/// The peak since the reset, in bytes.
#[must_use]
pub fn peak(group: &Path) -> Option<u64> {
    read(&group.join(PEAK))
}
