//! The groups of one instance: its limits, and what it uses.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use palisade_model::Limits;
use rustix::fs::{Mode, OFlags, open};

use super::{Cgroups, SOCKET_SHARE, is_in_use};

/// Period of the CPU limit, microseconds (the kernel's default).
const CPU_PERIOD: u64 = 100_000;
/// Pid 1 of the plugin is counted too.
const OWN_PIDS: u32 = 1;

/// How its processor time is weighed against that of others who want the same processor: of its siblings, and
/// with version 1 of the host's own threads too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    #[default]
    Ordinary,
    /// A sixteenth of that.
    Light,
    /// Only what nobody else wants (`cpu.idle`, in both versions since Linux 5.15; before that it is light).
    Behind,
}

/// The groups of one instance; dropping it removes them.
#[derive(Debug)]
pub(crate) struct Group {
    cgroups: Arc<Cgroups>,
    name: String,
    /// Sockets are counted by themselves.
    sockets: AtomicBool,
    removed: AtomicBool,
}

impl Drop for Group {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Group {
    /// Makes its folders and sets its limits.
    pub(super) fn make(cgroups: Arc<Cgroups>, name: String, limits: &Limits) -> io::Result<Self> {
        let (sockets, removed) = (AtomicBool::new(false), AtomicBool::new(false));
        let group = Self { cgroups, name, sockets, removed };
        let mut is_leftover = false;
        for path in group.folders() {
            match fs::create_dir(&path) {
                Ok(()) => {}
                // A leftover of an earlier process with our pid: empty, so it can be used.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => is_leftover = true,
                Err(e) => return Err(io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
            }
        }
        group.set_limits(limits)?;
        if is_leftover {
            // Its place among the others is left too. Where groups have no weights, it has none.
            let _ = group.stand(Standing::Behind, Standing::Ordinary);
        }
        Ok(group)
    }

    /// Removes it, once. Waits up to 50 milliseconds for processes that are on their way out.
    pub(crate) fn remove(&self) {
        if self.removed.swap(true, Ordering::Relaxed) {
            return;
        }
        for path in self.folders() {
            // The last process may still be on its way out of the group; for longer on a busy machine, and then
            // the next launch removes it.
            let mut tries = 50;
            while is_in_use(&fs::remove_dir(&path)) {
                tries -= 1;
                if tries == 0 {
                    let left = self.cgroups.left.lock();
                    left.unwrap_or_else(PoisonError::into_inner).push(path);
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn file(&self, folder: &Option<PathBuf>, file: &str) -> Option<PathBuf> {
        folder.as_ref().map(|f| self.below(f).join(file))
    }

    /// Where this group is, of those that a controller's folder holds.
    ///
    /// The processor time of version 1 is shared out beside the host itself, so that a group that gives
    /// way (`cpu.idle` counts among siblings) does so to the host too. No other controller shares
    /// anything out, and what version 2 delegates is one folder.
    fn below(&self, folder: &Path) -> PathBuf {
        let hierarchy = &self.cgroups.hierarchy;
        match (folder.file_name(), folder.parent()) {
            (Some(name), Some(parent))
                if !hierarchy.unified && hierarchy.cpu.as_deref() == Some(folder) =>
            {
                parent.join(format!("{}-{}", name.to_string_lossy(), self.name))
            }
            _ => folder.join(&self.name),
        }
    }

    pub(super) fn folders(&self) -> Vec<PathBuf> {
        self.cgroups.hierarchy.folders().into_iter().map(|f| self.below(f)).collect()
    }

    /// The group of version 2.
    fn second(&self) -> Option<PathBuf> {
        self.cgroups.hierarchy.second.as_ref().map(|folder| folder.join(&self.name))
    }

    /// Kills everything in the group at once, however it forks (`cgroup.kill`, Linux 5.14). Version 1 has
    /// nothing like it.
    pub(crate) fn kill_all(&self) {
        if let Some(folder) = self.second() {
            // Fails only on an older kernel, where pid 1 alone has to do it.
            let _ = fs::write(folder.join("cgroup.kill"), "1");
        }
    }

    /// What lets pid 1 in: first the folder of version 2 that it is cloned into, if there is one; then the `tasks`
    /// files of version 1 that it enters by.
    pub(crate) fn entries(&self) -> io::Result<Vec<OwnedFd>> {
        let second = self.second();
        let named = |path: &Path, e: io::Error| {
            io::Error::new(e.kind(), format!("{}: {e}", path.display()))
        };
        let mut entries = Vec::new();
        if let Some(folder) = &second {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            entries.push(open(folder, flags, Mode::empty()).map_err(|e| named(folder, e.into()))?);
        }
        for folder in self.folders().into_iter().filter(|folder| Some(folder) != second.as_ref()) {
            let path = folder.join("tasks");
            let file = fs::OpenOptions::new().write(true).open(&path);
            entries.push(file.map_err(|e| named(&path, e))?.into());
        }
        Ok(entries)
    }

    /// Sets (or changes) the limits.
    pub(crate) fn set_limits(&self, limits: &Limits) -> io::Result<()> {
        let write = |path: Option<PathBuf>, value: String| match path {
            Some(path) => fs::write(&path, value)
                .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
            None => Ok(()),
        };
        let h = &self.cgroups.hierarchy;
        let pids = limits.pids.saturating_add(OWN_PIDS).to_string();
        let quota = ((limits.cpu * CPU_PERIOD as f64) as u64).max(1000);
        write(self.file(&h.pids, "pids.max"), pids)?;
        if h.unified {
            write(self.file(&h.memory, "memory.max"), limits.memory.to_string())?;
            // Swap would make the cap soft. Absent where the kernel accounts no swap.
            let _ = write(self.file(&h.memory, "memory.swap.max"), "0".into());
            let _ = write(self.file(&h.memory, "memory.oom.group"), "1".into());
            write(self.file(&h.cpu, "cpu.max"), format!("{quota} {CPU_PERIOD}"))
        } else {
            // The cap on memory and swap may never be below the cap on memory: the order depends on whether
            // it rises or falls, so try both ways.
            let value = limits.memory.to_string();
            let total = self.file(&h.memory, "memory.memsw.limit_in_bytes");
            let first = write(self.file(&h.memory, "memory.limit_in_bytes"), value.clone());
            let _ = write(total, value.clone());
            if first.is_err() {
                write(self.file(&h.memory, "memory.limit_in_bytes"), value)?;
            }
            if self.sockets.load(Ordering::Relaxed) {
                self.cap_sockets(limits)?;
            }
            write(self.file(&h.cpu, "cpu.cfs_period_us"), CPU_PERIOD.to_string())?;
            write(self.file(&h.cpu, "cpu.cfs_quota_us"), quota.to_string())
        }
    }

    fn number(&self, folder: &Option<PathBuf>, file: &str) -> Option<u64> {
        fs::read_to_string(self.file(folder, file)?).ok()?.trim().parse().ok()
    }

    fn keyed(&self, folder: &Option<PathBuf>, file: &str, key: &str) -> Option<u64> {
        let text = fs::read_to_string(self.file(folder, file)?).ok()?;
        text.lines()
            .filter_map(|l| l.split_once(' '))
            .find(|(k, _)| *k == key)?
            .1
            .trim()
            .parse()
            .ok()
    }

    /// How many processes the kernel has killed because the group was out of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        let h = &self.cgroups.hierarchy;
        let file = if h.unified { "memory.events" } else { "memory.oom_control" };
        self.keyed(&h.memory, file, "oom_kill").unwrap_or(0)
    }

    /// Bytes of memory now.
    pub(crate) fn memory(&self) -> Option<u64> {
        let h = &self.cgroups.hierarchy;
        let file = if h.unified { "memory.current" } else { "memory.usage_in_bytes" };
        Some(self.number(&h.memory, file)? + self.socket_bytes("memory.kmem.tcp.usage_in_bytes"))
    }

    /// Highest bytes of memory.
    pub(crate) fn memory_peak(&self) -> Option<u64> {
        let h = &self.cgroups.hierarchy;
        let file = if h.unified { "memory.peak" } else { "memory.max_usage_in_bytes" };
        Some(
            self.number(&h.memory, file)? + self.socket_bytes("memory.kmem.tcp.max_usage_in_bytes"),
        )
    }

    /// Caps what the sockets of a network of its own hold: version 1 counts that by itself, and only where
    /// it has a cap (`memory.kmem.tcp.limit_in_bytes`, which holds datagrams too). It comes on top of the
    /// cap on memory.
    pub(crate) fn cap_sockets(&self, limits: &Limits) -> io::Result<()> {
        let h = &self.cgroups.hierarchy;
        let Some(path) = self.file(&h.memory, "memory.kmem.tcp.limit_in_bytes") else {
            return Ok(());
        };
        if h.unified {
            return Ok(());
        }
        fs::write(&path, (limits.memory / SOCKET_SHARE).to_string())
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
        self.sockets.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Bytes of sockets that version 1 counts by themselves.
    fn socket_bytes(&self, file: &str) -> u64 {
        let capped = self.sockets.load(Ordering::Relaxed);
        let bytes = capped.then(|| self.number(&self.cgroups.hierarchy.memory, file));
        bytes.flatten().unwrap_or(0)
    }

    /// Processor time that everything in the group has used, up to a tick of the scheduler; `None` where no
    /// group counts it.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        let h = &self.cgroups.hierarchy;
        if h.time == h.second {
            self.keyed(&h.time, "cpu.stat", "usage_usec").map(Duration::from_micros)
        } else {
            self.number(&h.time, "cpuacct.usage").map(Duration::from_nanos)
        }
    }

    /// How often the quota has stopped it.
    pub(crate) fn quota_stops(&self) -> Option<u64> {
        self.keyed(&self.cgroups.hierarchy.cpu, "cpu.stat", "nr_throttled")
    }

    /// Processors that the quota is worth.
    pub(crate) fn quota(&self) -> Option<f64> {
        let h = &self.cgroups.hierarchy;
        let micros: u64 = if h.unified {
            let text = fs::read_to_string(self.file(&h.cpu, "cpu.max")?).ok()?;
            text.split(' ').next()?.parse().ok()?
        } else {
            self.number(&h.cpu, "cpu.cfs_quota_us")?
        };
        Some(micros as f64 / CPU_PERIOD as f64)
    }

    /// Its threads, as this process numbers them.
    pub(crate) fn threads(&self) -> Vec<i32> {
        let h = &self.cgroups.hierarchy;
        let file = if h.unified { "cgroup.threads" } else { "tasks" };
        let text = self.file(&h.cpu, file).and_then(|path| fs::read_to_string(path).ok());
        text.iter().flat_map(|t| t.lines()).filter_map(|l| l.parse().ok()).collect()
    }

    /// Whether its version of cgroups weighs it against its siblings only.
    pub(crate) fn is_unified(&self) -> bool {
        self.cgroups.hierarchy.unified
    }

    /// Has it go from one standing to another.
    pub(crate) fn stand(&self, from: Standing, to: Standing) -> io::Result<()> {
        let h = &self.cgroups.hierarchy;
        let write = |file, text: &str| match self.file(&h.cpu, file) {
            Some(path) => fs::write(path, text),
            None => Ok(()),
        };
        let (file, light, ordinary) =
            if h.unified { ("cpu.weight", "6", "100") } else { ("cpu.shares", "64", "1024") };
        if from == Standing::Behind {
            // An idle group takes no weight. There is nothing to take back before Linux 5.15.
            let _ = write("cpu.idle", "0");
        }
        match to {
            Standing::Behind => write("cpu.idle", "1").or_else(|_| write(file, light)),
            Standing::Light => write(file, light),
            Standing::Ordinary => write(file, ordinary),
        }
    }

    /// Processes and threads, ours not counted.
    pub(crate) fn pids(&self) -> Option<u32> {
        let n = self.number(&self.cgroups.hierarchy.pids, "pids.current")?;
        u32::try_from(n).ok().map(|n| n.saturating_sub(OWN_PIDS))
    }
}
