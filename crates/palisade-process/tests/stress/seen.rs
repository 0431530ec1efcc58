//! What a plugin uses, seen from outside: by /proc, and by a memory group around it that limits nothing.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// One process of the plugin.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Bytes of anonymous and shared pages.
    pub(crate) memory: u64,
    pub(crate) threads: u64,
    /// Open handles.
    pub(crate) handles: u64,
    /// It is stopped or has ended.
    pub(crate) stands: bool,
    /// Processor time, hundredths of a second, with that of children it has waited for.
    pub(crate) ticks: u64,
    /// SCHED_FIFO, SCHED_RR or SCHED_DEADLINE.
    pub(crate) realtime: bool,
}

/// Number and parent of each process, whether it stands, and its fields behind the name (proc_pid_stat(5)),
/// which begin at the state.
fn all() -> Vec<(u32, u32, bool, Vec<u64>)> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let rest = stat.rsplit_once(") ")?.1;
        let fields: Vec<u64> = rest.split(' ').map(|f| f.trim().parse().unwrap_or(0)).collect();
        let stands = rest.starts_with(['T', 't', 'Z', 'X']);
        Some((pid, u32::try_from(*fields.get(1)?).ok()?, stands, fields))
    })
    .collect()
}

/// This process's plugin: what stands below pid 1, which stands below the spawner.
pub(crate) fn plugin() -> Vec<Process> {
    let all = all();
    let below = |parents: &HashSet<u32>| -> HashSet<u32> {
        let children = all.iter().filter(|(_, parent, ..)| parents.contains(parent));
        children.map(|(pid, ..)| *pid).collect()
    };
    let spawners = below(&HashSet::from([std::process::id()]));
    let mut level = below(&below(&spawners));
    let mut found = HashSet::new();
    while !level.is_empty() {
        found.extend(level.iter().copied());
        level = below(&level);
    }
    let of_plugin = all.iter().filter(|(pid, ..)| found.contains(pid));
    of_plugin.map(|(pid, _, stands, fields)| look(*pid, *stands, fields)).collect()
}

fn look(pid: u32, stands: bool, fields: &[u64]) -> Process {
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    Process {
        pid,
        memory: (kib("RssAnon:") + kib("RssShmem:")) << 10,
        threads: field(20),
        handles: fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |fds| fds.count() as u64),
        stands,
        ticks: (14..=17).map(field).sum(),
        realtime: matches!(field(41), 1 | 2 | 6),
    }
}

/// Bytes of blocks below `folder`, and in files without a name that `processes` hold open on the same disk.
pub(crate) fn on_disk(folder: &Path, processes: &[Process]) -> u64 {
    let device = fs::metadata(folder).unwrap().dev();
    let mut files = HashSet::new();
    let handles = processes.iter().filter_map(|p| fs::read_dir(format!("/proc/{}/fd", p.pid)).ok());
    let nameless = handles.flatten().flatten().filter_map(|handle| {
        let meta = fs::metadata(handle.path()).ok()?;
        let counts = meta.is_file() && meta.nlink() == 0 && meta.dev() == device;
        (counts && files.insert(meta.ino())).then(|| meta.blocks() * 512)
    });
    let nameless: u64 = nameless.sum();
    nameless + named(folder)
}

fn named(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let meta = entry.metadata().ok()?;
        let inside = if meta.is_dir() { named(&entry.path()) } else { 0 };
        Some(meta.blocks() * 512 + inside)
    });
    sizes.sum()
}

/// A memory group of version 1 around this process's children. It limits nothing; the kernel keeps the peak.
pub(crate) struct Meter(PathBuf);

const PEAK: &str = "memory.max_usage_in_bytes";

impl Meter {
    /// `None` where there is no such hierarchy, or no right to make groups in it.
    pub(crate) fn around_children() -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = own.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|c| c == "memory").then(|| path.trim_start_matches('/'))
        })?;
        let name = format!("palisade-stress-{}", std::process::id());
        let group = Path::new("/sys/fs/cgroup/memory").join(path).join(name);
        match fs::create_dir(&group) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return None,
            _ => {}
        }
        let meter = Self(group);
        let children = all().into_iter().filter(|(_, parent, ..)| *parent == std::process::id());
        for (pid, ..) in children {
            fs::write(meter.0.join("cgroup.procs"), pid.to_string()).ok()?;
        }
        Some(meter)
    }

    fn read(&self, file: &str) -> u64 {
        fs::read_to_string(self.0.join(file)).unwrap().trim().parse().unwrap()
    }

    /// Begins anew; the bytes that are in the group already.
    pub(crate) fn reset(&self) -> u64 {
        fs::write(self.0.join(PEAK), "0").unwrap();
        self.read("memory.usage_in_bytes")
    }

    /// The most bytes since then.
    pub(crate) fn peak(&self) -> u64 {
        self.read(PEAK)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let Some(above) = self.0.parent() else { return };
        for _ in 0..100 {
            // The spawner lives for a moment longer than its backend: back to where it came from.
            let left = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
            for pid in left.lines() {
                let _ = fs::write(above.join("cgroup.procs"), pid);
            }
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}
