//! The processes of one instance, as this host sees them in `/proc`: found from pid 1 downwards.
//!
//! For what must be seen from outside, and for the tier without a pid namespace, whose pid 1 sees everybody's
//! processes and could not tell which are the plugin's.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd},
};

/// The process behind a pidfd; `None` once it has ended.
pub(crate) fn pid_of(pidfd: impl AsFd) -> Option<i32> {
    let info =
        fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd())).ok()?;
    let pid = info.lines().find_map(|l| l.strip_prefix("Pid:"))?.trim().parse().ok()?;
    (pid > 0).then_some(pid)
}

/// Children of all threads of a process (proc_pid_task(5), needs CONFIG_PROC_CHILDREN).
fn children(pid: i32) -> Vec<i32> {
    let mut all = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(list.split_whitespace().filter_map(|word| word.parse::<i32>().ok()));
    }
    all
}

/// Every process below `init`, which itself is left out. What is orphaned becomes a child of `init` again.
pub(crate) fn below(init: i32) -> Vec<i32> {
    let mut all = children(init);
    let mut at = 0;
    while let Some(pid) = all.get(at) {
        let more = children(*pid);
        // One that was handed over to `init` meanwhile would come a second time.
        let new: Vec<i32> = more.into_iter().filter(|pid| !all.contains(pid)).collect();
        all.extend(new);
        at += 1;
    }
    all
}

/// Threads of all processes below `init`, and their memory in bytes: anonymous and shared pages that are
/// there, and page tables. Pages that several share are counted for each.
pub(crate) fn usage(init: i32) -> (u32, u64) {
    let (mut threads, mut kib) = (0u64, 0u64);
    for pid in below(init) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |key: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(key));
            line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        threads += field("Threads:");
        kib += field("RssAnon:") + field("RssShmem:") + field("VmPTE:");
    }
    (u32::try_from(threads).unwrap_or(u32::MAX), kib.saturating_mul(1024))
}

/// Clock ticks that the processes below `init` have used, with those that they waited for, and whether one of
/// them runs, is ready to, or waits for a disk (proc_pid_stat(5)).
pub(crate) fn activity(init: i32) -> (u64, bool) {
    let (mut ticks, mut busy) = (0u64, false);
    for pid in below(init) {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name in parentheses may hold anything.
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        busy |= rest.starts_with(['R', 'D']);
        let times = rest.split(' ').skip(11).take(4);
        ticks += times.filter_map(|t| t.parse::<u64>().ok()).sum::<u64>();
    }
    (ticks, busy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn who_spins_is_busy_and_uses_time() {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", "(while :; do :; done) & read x; kill $!; wait"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let init = shell.id().cast_signed();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while activity(init).0 < 3 && std::time::Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let (ticks, busy) = activity(init);
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert!(busy && ticks >= 3, "{ticks} ticks");
        assert_eq!(activity(init), (0, false), "nothing is below it any more");
    }

    #[test]
    fn only_what_a_process_started_is_below_it() {
        // A shell with two children, which reads until its input ends.
        let mut shell = Command::new("/bin/sh")
            .args(["-c", "sleep 30 & a=$!; sleep 30 & read x; kill $a $!; wait"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let init = shell.id().cast_signed();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while below(init).len() < 2 && std::time::Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let (found, used) = (below(init), usage(init));
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(used.0, 2);
        assert!((1..1 << 30).contains(&used.1), "{} bytes", used.1);
        let own = std::process::id().cast_signed();
        assert!(!found.contains(&own));
    }
}
