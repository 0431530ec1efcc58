//! Cgroups: memory, process and CPU limits that the kernel holds, where this machine lets us.
//!
//! Version 2 first: a subtree that was delegated to us, or one that root makes. Version 1 where the
//! controllers live there. Ours are always below the cgroup that this process is in (or, for root on
//! version 2, beside it), one folder a host process and one below it for each instance; an instance never
//! sees these files, so it cannot raise its own limits. See cgroups(7).

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use palisade_model::Limits;

mod group;

pub(crate) use group::{Group, Standing};

const MOUNT: &str = "/sys/fs/cgroup";
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];
/// Our folders are `palisade-PID`; the leaf that a host steps aside into is `palisade-PID-host`.
const PREFIX: &str = "palisade-";
const LEAF: &str = "-host";
/// How far the ancestors of a process are followed.
const MOST_GENERATIONS: usize = 64;
/// How often processes are moved before giving up.
const MOVES: usize = 5;
const ESRCH: i32 = 3;
const EBUSY: i32 = 16;
/// What sockets may hold, as a part of the cap on memory: one over this.
pub(crate) const SOCKET_SHARE: u64 = 4;

/// Which controllers can be used, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Folder for our groups: memory, pids, cpu; equal for version 2.
    memory: Option<PathBuf>,
    pids: Option<PathBuf>,
    cpu: Option<PathBuf>,
    /// Counts processor time. With version 1 of the controllers that is the folder of version 2 if there is
    /// one, else a folder of its own only where `cpuacct` is apart from `cpu`.
    time: Option<PathBuf>,
    /// The folder of version 2, also where the controllers are version 1's (a hybrid machine): pid 1 begins in
    /// a group there (CLONE_INTO_CGROUP), everything in it can be killed at once, and its time is counted.
    second: Option<PathBuf>,
    /// The controllers are version 2's.
    unified: bool,
    /// Why something is missing, for people.
    pub(crate) note: String,
}

impl Hierarchy {
    pub(crate) fn has_memory(&self) -> bool {
        self.memory.is_some()
    }
    pub(crate) fn has_pids(&self) -> bool {
        self.pids.is_some()
    }
    pub(crate) fn has_cpu(&self) -> bool {
        self.cpu.is_some()
    }
    /// Whether instances get groups at all.
    pub(crate) fn has_any(&self) -> bool {
        self.has_memory() || self.has_pids() || self.has_cpu()
    }
    pub(crate) fn is_unified(&self) -> bool {
        self.unified
    }
    /// Whether pid 1 begins in a group of version 2.
    pub(crate) fn begins_within(&self) -> bool {
        self.second.is_some()
    }
    /// Whether there are groups that pid 1 enters by itself.
    pub(crate) fn has_more(&self) -> bool {
        self.folders().into_iter().any(|folder| Some(folder) != self.second.as_deref())
    }
    fn folders(&self) -> Vec<&Path> {
        let mut all: Vec<&Path> = [&self.memory, &self.pids, &self.cpu, &self.time, &self.second]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Our folders, made once a process; removed when the process's last backend is dropped.
#[derive(Debug)]
pub(crate) struct Cgroups {
    hierarchy: Hierarchy,
    next: AtomicU64,
    /// Folders of groups whose last process was still on its way out when they were dropped.
    left: Mutex<Vec<PathBuf>>,
}

/// This process's folders; made at the first call.
pub(crate) fn of_this_process() -> Arc<Cgroups> {
    static CGROUPS: OnceLock<Arc<Cgroups>> = OnceLock::new();
    Arc::clone(CGROUPS.get_or_init(|| {
        let (hierarchy, next) = (find(), AtomicU64::new(1));
        Arc::new(Cgroups { hierarchy, next, left: Mutex::default() })
    }))
}

/// This process's groups: controller list (empty for version 2) and path.
fn own_groups() -> Vec<(String, String)> {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
        })
        .collect()
}

fn folder_name() -> String {
    format!("{PREFIX}{}", std::process::id())
}

/// Our folder below `parent`, made if it is not there; those of dead hosts go.
fn own_folder(parent: &Path) -> io::Result<PathBuf> {
    sweep(parent);
    let folder = parent.join(folder_name());
    match fs::create_dir(&folder) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(folder),
    }
}

fn find() -> Hierarchy {
    let groups = own_groups();
    match find_unified(&groups) {
        Ok(hierarchy) => hierarchy,
        Err(why_not_2) => find_v1(&groups, &why_not_2),
    }
}

/// Version 2: one folder for as many of the three controllers as may be used below it.
fn find_unified(groups: &[(String, String)]) -> Result<Hierarchy, String> {
    let own = groups
        .iter()
        .find(|(controllers, _)| controllers.is_empty())
        .map(|(_, path)| path.trim_start_matches('/').to_owned())
        .ok_or("this process is in no version 2 cgroup")?;
    let mount = mount_of_version_2().ok_or("no version 2 cgroup file system is mounted")?;
    if missing(mount).len() == CONTROLLERS.len() {
        return Err("the version 2 tree has no memory, pids or cpu controller".into());
    }
    // Root may put its folder beside everything else; a user only below a group delegated to it.
    let mut parents = Vec::new();
    // Seen from inside a cgroup namespace, a group outside of it begins with `..` (cgroup_namespaces(7)).
    if !own.split('/').any(|part| part == "..") {
        parents.push(mount.join(&own));
        parents.extend(above_leaf(&mount.join(&own)));
    }
    if rustix::process::geteuid().is_root() {
        parents.push(mount.to_path_buf());
    }
    let mut why = "this process's cgroup is outside of what is mounted".to_owned();
    for parent in parents {
        match enable_below(&parent) {
            Ok(folder) => return Ok(unified(&parent, folder)),
            // The first says most: the others are ways around it.
            Err(e) if why.starts_with("this process") => {
                why = format!("{}: {e}", parent.display());
            }
            Err(_) => {}
        }
    }
    Err(format!("no delegated version 2 cgroup ({why})"))
}

fn unified(parent: &Path, folder: PathBuf) -> Hierarchy {
    let missing = missing(parent);
    let with = |controller: &str| (!missing.contains(&controller)).then(|| folder.clone());
    Hierarchy {
        memory: with("memory"),
        pids: with("pids"),
        cpu: with("cpu"),
        // Any group of version 2 counts it, with or without the controller.
        time: Some(folder.clone()),
        second: Some(folder),
        unified: true,
        note: if missing.is_empty() {
            String::new()
        } else {
            format!("{} not delegated: {}", parent.display(), missing.join(", "))
        },
    }
}

/// The controllers that a group has not been given.
fn missing(group: &Path) -> Vec<&'static str> {
    let given = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    let is_given = |controller: &&str| given.split_whitespace().any(|c| c == *controller);
    CONTROLLERS.into_iter().filter(|c| !is_given(c)).collect()
}

/// The group that a host stepped aside from into the leaf that this process is in too: a host that was
/// started by a host makes its folder beside the other's.
fn above_leaf(own: &Path) -> Option<PathBuf> {
    let name = own.file_name()?.to_str()?;
    let pid = name.strip_prefix(PREFIX)?.strip_suffix(LEAF)?;
    pid.parse::<u32>().ok()?;
    own.parent().map(Path::to_path_buf)
}

/// Makes our folder below `parent` with the controllers switched on for its children.
fn enable_below(parent: &Path) -> io::Result<PathBuf> {
    let missing = missing(parent);
    let enable: String =
        CONTROLLERS.iter().filter(|c| !missing.contains(c)).map(|c| format!("+{c} ")).collect();
    if enable.is_empty() {
        return Err(io::Error::other("it has none of the controllers"));
    }
    let folder = own_folder(parent)?;
    let result = (|| {
        if fs::write(parent.join("cgroup.subtree_control"), &enable).is_err() {
            step_aside(parent, &enable)?;
        }
        fs::write(folder.join("cgroup.subtree_control"), &enable)
    })();
    match result {
        Ok(()) => Ok(folder),
        Err(e) => {
            let _ = fs::remove_dir(&folder);
            Err(e)
        }
    }
}

/// A group with processes cannot have controlled children ("no internal processes"): moves this process
/// into a leaf with all that it started; the others too where the whole group is marked as given to us.
fn step_aside(parent: &Path, enable: &str) -> io::Result<()> {
    let delegated = is_delegated(parent);
    let here = || fs::read_to_string(parent.join("cgroup.procs"));
    if !delegated && !here()?.split_whitespace().all(is_own) {
        return Err(io::Error::other("other processes share this process's cgroup"));
    }
    let leaf = parent.join(format!("{}{LEAF}", folder_name()));
    match fs::create_dir(&leaf) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let enabled = (|| {
        // Again, because one that was not moved yet may have forked.
        for _ in 0..MOVES {
            for process in here()?.split_whitespace() {
                match fs::write(leaf.join("cgroup.procs"), process) {
                    // It has ended.
                    Err(e) if e.raw_os_error() == Some(ESRCH) => {}
                    other => other?,
                }
            }
            if fs::write(parent.join("cgroup.subtree_control"), enable).is_ok() {
                return Ok(());
            }
        }
        Err(io::Error::other("processes keep coming into this process's cgroup"))
    })();
    if enabled.is_err() {
        // Back to where they were.
        for process in fs::read_to_string(leaf.join("cgroup.procs"))?.split_whitespace() {
            let _ = fs::write(parent.join("cgroup.procs"), process);
        }
        let _ = fs::remove_dir(&leaf);
    }
    enabled
}

/// Whether a process is this one, or was started by it or by one that it started.
fn is_own(pid: &str) -> bool {
    let own = std::process::id().to_string();
    let mut at = pid.to_owned();
    for _ in 0..MOST_GENERATIONS {
        match at.as_str() {
            // The parent of the first process.
            "0" => return false,
            it if it == own => return true,
            _ => {}
        }
        // pid (name) state ppid …; the name may hold anything (proc_pid_stat(5)).
        let stat = fs::read_to_string(format!("/proc/{at}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        match parent {
            Some(parent) => at = parent.to_owned(),
            // It has ended.
            None => return true,
        }
    }
    false
}

/// Whether systemd marked a group as delegated: then everything in it is the unit's own affair
/// (systemd.resource-control(5), `Delegate=`; the attribute since systemd 251).
fn is_delegated(group: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].into_iter().any(|name| {
        let mut value = [0u8; 8];
        rustix::fs::getxattr(group, name, &mut value).is_ok_and(|n| value.get(..n) == Some(b"1"))
    })
}

/// Version 1: one hierarchy a controller, each used by itself.
fn find_v1(groups: &[(String, String)], why_not_2: &str) -> Hierarchy {
    let mut notes = vec![why_not_2.to_owned()];
    if groups.iter().all(|(controllers, _)| controllers.is_empty()) {
        // A machine with version 2 only: what version 1 lacks would say nothing.
        return Hierarchy { note: notes.concat(), ..Hierarchy::default() };
    }
    let folder = |controller: &str| {
        let own = groups.iter().find(|(c, _)| c.split(',').any(|c| c == controller));
        let missing = || format!("no version 1 hierarchy has the {controller} controller");
        let (controllers, path) = own.ok_or_else(missing)?;
        let mount = [controller, controllers.as_str()]
            .map(|name| Path::new(MOUNT).join(name))
            .into_iter()
            .find(|m| m.is_dir())
            .ok_or_else(|| format!("the {controller} controller is not mounted in {MOUNT}"))?;
        let parent = mount.join(path.trim_start_matches('/'));
        own_folder(&parent).map_err(|e| format!("a folder in {}: {e}", parent.display()))
    };
    let mut limit = |controller| folder(controller).map_err(|why| notes.push(why)).ok();
    let (memory, pids, cpu) = (limit("memory"), limit("pids"), limit("cpu"));
    let all = memory.is_some() && pids.is_some() && cpu.is_some();
    let any = memory.is_some() || pids.is_some() || cpu.is_some();
    // Alone these limit nothing, and whoever reads them can do without.
    let second = if any { beside_version_1(groups) } else { None };
    let time = if any { second.clone().or_else(|| folder("cpuacct").ok()) } else { None };
    Hierarchy {
        memory,
        pids,
        cpu,
        time,
        second,
        unified: false,
        note: if all { String::new() } else { notes.join("; ") },
    }
}

/// Our folder in the version 2 tree of a machine whose controllers are version 1's. Where groups below it could
/// not be entered, there is none.
fn beside_version_1(groups: &[(String, String)]) -> Option<PathBuf> {
    let (_, own) = groups.iter().find(|(controllers, _)| controllers.is_empty())?;
    if own.split('/').any(|part| part == "..") {
        return None;
    }
    let parent = mount_of_version_2()?.join(own.trim_start_matches('/'));
    // Who puts a process into a group below has to be allowed to move processes here (cgroups(7)).
    let effective = rustix::fs::AtFlags::EACCESS;
    let (procs, write) = (parent.join("cgroup.procs"), rustix::fs::Access::WRITE_OK);
    rustix::fs::accessat(rustix::fs::CWD, &procs, write, effective).ok()?;
    let folder = own_folder(&parent).ok()?;
    // Below a group of threads there are none for processes.
    let kind = fs::read_to_string(folder.join("cgroup.type")).unwrap_or_default();
    if kind.trim() != "domain" {
        let _ = fs::remove_dir(&folder);
        return None;
    }
    Some(folder)
}

/// Where version 2 is mounted: by itself, or beside version 1.
fn mount_of_version_2() -> Option<&'static Path> {
    let mounts = [MOUNT, "/sys/fs/cgroup/unified"].into_iter().map(Path::new);
    mounts.into_iter().find(|mount| mount.join("cgroup.controllers").exists())
}

/// Removes folders that dead hosts left behind. One that is in use cannot be removed, so nothing of a
/// living host is harmed.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|n| n.strip_prefix(PREFIX))
            .and_then(|n| n.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            for child in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(child.path());
            }
            let _ = fs::remove_dir(entry.path());
        }
    }
}

impl Cgroups {
    pub(crate) fn hierarchy(&self) -> &Hierarchy {
        &self.hierarchy
    }

    /// Makes the groups of one instance and sets their limits. Blocks for some tens of microseconds.
    pub(crate) fn create(self: &Arc<Self>, limits: &Limits) -> io::Result<Option<Group>> {
        if self.hierarchy.folders().is_empty() {
            return Ok(None);
        }
        self.remove_left();
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        Group::make(Arc::clone(self), name, limits).map(Some)
    }

    /// Removes what could not be removed when it was dropped.
    fn remove_left(&self) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(|path| is_in_use(&fs::remove_dir(path)));
    }
}

/// Whether a group could not be removed because a process is still in it.
fn is_in_use(removed: &io::Result<()>) -> bool {
    removed.as_ref().is_err_and(|e| e.raw_os_error() == Some(EBUSY))
}

#[cfg(test)]
pub(crate) mod tests;
