//! What the host can see of itself: its handles, its memory, and the processes below its spawners.

use std::{collections::BTreeSet, fs, time::Duration};

/// What this process' handles lead to. Sockets and pipes carry their inode, so that new ones are seen.
#[must_use]
pub fn handles() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        if let Ok(link) = fs::read_link(entry.path()) {
            let link = link.display().to_string();
            // The listing itself; and the one empty cgroup that a backend keeps ready for its next launch,
            // which is another one each time.
            let kept_ready = link.starts_with("/sys/fs/cgroup/") && link.contains("/palisade-");
            if !link.starts_with("/proc/") && !kept_ready {
                all.insert(link);
            }
        }
    }
    all
}

/// Handles that are here and were not `before`, once things have settled (at most 2 s).
pub async fn new_handles(before: &BTreeSet<String>) -> Vec<String> {
    let mut extra = Vec::new();
    for _ in 0..100 {
        extra = handles().difference(before).cloned().collect();
        if extra.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    extra
}

/// Resident memory of this process, in bytes.
#[must_use]
pub fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
    let kib: u64 = line.trim().split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    kib << 10
}

fn children(pid: &str) -> Vec<String> {
    let mut all = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(list.split_whitespace().map(str::to_owned));
    }
    all
}

/// Processes below this process' spawners: every process of every plugin that still lives.
#[must_use]
pub fn plugin_processes() -> Vec<String> {
    let mut todo: Vec<String> = children("self")
        .into_iter()
        .filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|name| name.trim() == "palisade-spawn")
        })
        .flat_map(|pid| children(&pid))
        .collect();
    let mut found = Vec::new();
    while let Some(pid) = todo.pop() {
        todo.extend(children(&pid));
        found.push(pid);
    }
    found
}

/// What is left of plugins, for 100 ms: a process that ends stays visible for a moment.
pub async fn left_over() -> Vec<String> {
    let mut left = Vec::new();
    for _ in 0..20 {
        left = plugin_processes();
        if left.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    left
}
