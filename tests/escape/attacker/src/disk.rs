//! Attempts 45, 46 and 51: disks, kernel objects and control groups.
//!
//! Each reports how much it reached; reaching what was asked for is the success. Everything is
//! given back at the end, and outside the walls the amounts are small.

use crate::outcome::{At, Attempted, Errno, Sys, blocked, succeeded};
use crate::resources::raise;
use crate::sys::{self, CWD, c, close, open};
use crate::table::{Attempt, Control, Ctx, Tally};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    Attempt::new(45, "fill", "fill `dir` with data", Control::Run, &["dir", "bytes"], fill),
    Attempt::new(45, "inodes", "fill `dir` with empty files", Control::Run, &["dir", "count"], inodes),
    Attempt::new(45, "sparse", "one sparse file of `bytes`", Control::Run, &["dir", "bytes"], |x| one_file(x, |fd, n| sys!(libc::SYS_ftruncate, fd, n))),
    Attempt::new(45, "fallocate", "one file of `bytes` by fallocate", Control::Run, &["dir", "bytes"], |x| one_file(x, |fd, n| sys!(libc::SYS_fallocate, fd, 0, 0, n))),
    Attempt::new(45, "fallocate-many", "fill `dir` by fallocate with files of the largest size", Control::Run, &["dir", "bytes"], fallocate_many),
    Attempt::new(45, "unlinked", "fill with a file that has no name", Control::Run, &["dir", "bytes"], unlinked),
    Attempt::new(45, "unlinked-many", "fill with many files that have no name", Control::Run, &["dir", "bytes"], unlinked_many),
    Attempt::new(45, "in-flight", "fill with nameless files that wait in a socket", Control::Run, &["dir", "bytes"], in_flight),
    Attempt::new(45, "mapped", "fill with nameless files that are mapped, not open", Control::Run, &["dir", "bytes"], mapped),
    Attempt::new(45, "closed-dir", "fill a file in a folder that nobody may enter", Control::Run, &["dir", "bytes"], closed_dir),
    Attempt::new(45, "deep", "fill files below a tree too deep for paths", Control::Run, &["dir", "bytes"], deep),
    Attempt::new(45, "raise-fsize", "lift RLIMIT_FSIZE", Control::None("needs CAP_SYS_RESOURCE, which this machine withholds from root too"), &[], |_| raise(libc::RLIMIT_FSIZE as i32)),
    Attempt::new(46, "fds", "open descriptors", Control::Run, &["count"], |x| objects(x, 65_536, || fd(sys!(libc::SYS_dup, 1)))),
    Attempt::new(46, "raise-nofile", "lift RLIMIT_NOFILE", Control::None("needs CAP_SYS_RESOURCE, which this machine withholds from root too"), &[], |_| raise(libc::RLIMIT_NOFILE as i32)),
    Attempt::new(46, "inotify", "inotify instances", Control::Run, &["count"], |x| objects(x, 1024, || fd(sys!(libc::SYS_inotify_init1, libc::O_CLOEXEC)))),
    Attempt::new(46, "watches", "inotify watches", Control::Run, &["count"], watches),
    Attempt::new(46, "epoll", "epoll instances", Control::Run, &["count"], |x| objects(x, 65_536, || fd(sys!(libc::SYS_epoll_create1, libc::O_CLOEXEC)))),
    Attempt::new(46, "eventfd", "event descriptors", Control::Run, &["count"], |x| objects(x, 65_536, || fd(sys!(libc::SYS_eventfd2, 0, libc::O_CLOEXEC)))),
    Attempt::new(46, "timers", "POSIX timers", Control::Run, &["count"], timers),
    Attempt::new(46, "keyrings", "keys in the user keyring", Control::Run, &["count"], keys),
    Attempt::new(46, "mqueues", "POSIX message queues", Control::Run, &["count"], mqueues),
    Attempt::new(46, "semaphores", "System V semaphore sets", Control::Run, &["count"], |x| ipc(x, libc::SYS_semget, libc::SYS_semctl)),
    Attempt::new(46, "msgqueues", "System V message queues", Control::Run, &["count"], |x| ipc(x, libc::SYS_msgget, libc::SYS_msgctl)),
    Attempt::new(46, "ptys", "pseudo-terminals", Control::Run, &["count"], |x| objects(x, 4096, || open("/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY, 0))),
    Attempt::new(46, "signals", "queued real-time signals", Control::Run, &["count"], signals),
    Attempt::new(51, "find", "any control group file is visible", Control::Run, &[], |_| find()),
    Attempt::new(51, "own-limit", "open a limit of our own group for writing", Control::Root, &[], |_| limits(&["memory.max", "pids.max", "cpu.max", "memory.limit_in_bytes"])).harmful(),
    Attempt::new(51, "procs", "open cgroup.procs of any group for writing", Control::Root, &[], |_| limits(&["cgroup.procs", "cgroup.threads", "tasks"])).harmful(),
    Attempt::new(51, "release-agent", "open release_agent for writing", Control::Root, &[], |_| limits(&["release_agent", "notify_on_release"])).harmful(),
    Attempt::new(51, "subtree", "make a group below our own", Control::Root, &[], |_| subtree()).harmful(),
    Attempt::new(51, "membership", "learn the host's group path from /proc/self/cgroup", Control::None("a shell outside is in a named group, or in the root one"), &[], |_| membership()),
];

fn fd(result: Sys) -> Sys<i32> {
    result.map(|fd| fd as i32)
}

/// A fresh directory in `dir`, or where the program may write at all.
fn place(ctx: &Ctx) -> Result<crate::table::Scratch, crate::outcome::Outcome> {
    let Some(dir) = ctx.text("dir") else { return ctx.scratch() };
    let path = format!("{dir}/attacker-fill-{}", sys::pid());
    std::fs::create_dir(&path).setup("directory")?;
    Ok(crate::table::Scratch { path, unmount: false })
}

fn bytes_goal(ctx: &Ctx) -> u64 {
    // SAFETY: changes our own disposition: the file size limit must come as an errno.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    ctx.amount("bytes", 1 << 30, 16 * MIB)
}

fn judge(reached: u64, goal: u64, last: Option<Errno>, what: &str) -> Attempted {
    if reached >= goal {
        return Ok(succeeded(format!("{reached} {what}")));
    }
    Ok(blocked(last.map(|e| e.0), format!("{reached} of {goal} {what}")))
}

fn write_up_to(fd: i32, goal: u64) -> (u64, Option<Errno>) {
    let chunk = vec![0x5au8; MIB as usize];
    let end = Instant::now() + Duration::from_secs(40);
    let mut written = 0;
    while written < goal && Instant::now() < end {
        match sys::write_fd(fd, &chunk[..chunk.len().min((goal - written) as usize)]) {
            Ok(n) => written += n as u64,
            Err(e) => return (written, Some(e)),
        }
    }
    (written, None)
}

/// Several files, so that the limit of one file is not the limit of all.
fn fill(ctx: &Ctx) -> Attempted {
    let goal = bytes_goal(ctx);
    let place = place(ctx)?;
    let (mut total, mut last) = (0, None);
    for index in 0..64 {
        let path = format!("{}/{index}", place.path);
        let file = open(&path, libc::O_WRONLY | libc::O_CREAT, 0o600).at("create")?;
        let (written, error) = write_up_to(file, goal - total);
        close(file);
        total += written;
        last = error;
        if total >= goal || !matches!(error, Some(Errno(libc::EFBIG))) {
            break;
        }
    }
    judge(total, goal, last, "bytes written")
}

fn unlinked(ctx: &Ctx) -> Attempted {
    let goal = bytes_goal(ctx);
    let place = place(ctx)?;
    let file = open(&place.path, libc::O_TMPFILE | libc::O_RDWR, 0o600).at("O_TMPFILE")?;
    let (written, last) = write_up_to(file, goal);
    linger(ctx);
    close(file);
    judge(written, goal, last, "bytes written to a file without a name")
}

/// As many nameless files as descriptors allow, each as large as one file may get.
fn unlinked_many(ctx: &Ctx) -> Attempted {
    nameless(ctx, |_| Ok(false))
}

/// One descriptor a message; the receiver never reads.
fn in_flight(ctx: &Ctx) -> Attempted {
    let (a, _b) = sys::socketpair().setup("socket pair")?;
    nameless(ctx, move |file| crate::channel::send_fds(a, &[file], b"x").map(|_| true))
}

fn mapped(ctx: &Ctx) -> Attempted {
    nameless(ctx, |file| {
        sys!(libc::SYS_mmap, 0, 4096, libc::PROT_READ, libc::MAP_SHARED, file, 0).map(|_| true)
    })
}

/// Fills files without a name; where `keep` keeps one in another way, its descriptor is closed.
fn nameless(ctx: &Ctx, keep: impl Fn(i32) -> Sys<bool>) -> Attempted {
    let goal = bytes_goal(ctx);
    let place = place(ctx)?;
    let (mut total, mut files, mut last) = (0, Vec::new(), None);
    while total < goal {
        let path = format!("{}/{}", place.path, files.len());
        let file = match open(&path, libc::O_RDWR | libc::O_CREAT, 0o600) {
            Ok(file) => file,
            Err(e) => {
                last = Some(e);
                break;
            }
        };
        let _ = std::fs::remove_file(&path);
        files.push(file);
        let (written, error) = write_up_to(file, goal - total);
        if keep(file).at("keep it otherwise")? {
            close(file);
            files.pop();
        }
        total += written;
        last = error;
        if !matches!(error, None | Some(Errno(libc::EFBIG))) || written == 0 {
            break;
        }
    }
    linger(ctx);
    files.into_iter().for_each(close);
    judge(total, goal, last, "bytes written to files without a name")
}

/// Holds what was taken for a while, so that whoever measures it has the time to.
fn linger(ctx: &Ctx) {
    if !ctx.outside() {
        sys::sleep(Duration::from_millis(ctx.num("hold_ms", 0).min(10_000)));
    }
}

fn closed_dir(ctx: &Ctx) -> Attempted {
    let goal = bytes_goal(ctx);
    let place = place(ctx)?;
    let folder = format!("{}/closed", place.path);
    std::fs::create_dir(&folder).at("mkdir")?;
    let mut files = Vec::new();
    for index in 0..64 {
        let path = format!("{folder}/{index}");
        files.push(open(&path, libc::O_WRONLY | libc::O_CREAT, 0o600).at("create")?);
    }
    sys!(libc::SYS_fchmodat, CWD, c(&folder).as_ptr(), 0).at("chmod 000")?;
    let (mut total, mut last) = (0, None);
    for file in &files {
        let (written, error) = write_up_to(*file, goal - total);
        total += written;
        last = error;
        if total >= goal || !matches!(error, Some(Errno(libc::EFBIG))) {
            break;
        }
    }
    linger(ctx);
    files.into_iter().for_each(close);
    let _ = sys!(libc::SYS_fchmodat, CWD, c(&folder).as_ptr(), 0o700);
    judge(total, goal, last, "bytes written in a closed folder")
}

fn deep(ctx: &Ctx) -> Attempted {
    let goal = bytes_goal(ctx);
    let place = place(ctx)?;
    let mut dir = open(&place.path, libc::O_RDONLY | libc::O_DIRECTORY, 0).at("open")?;
    let name = "d".repeat(200);
    for _ in 0..40 {
        sys!(libc::SYS_mkdirat, dir, c(&name).as_ptr(), 0o700).at("mkdir")?;
        let next = sys::openat(dir, &name, libc::O_RDONLY | libc::O_DIRECTORY).at("open")?;
        close(dir);
        dir = next;
    }
    let (mut total, mut last) = (0, None);
    for index in 0..64 {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_CLOEXEC;
        let file = sys!(libc::SYS_openat, dir, c(index.to_string()).as_ptr(), flags, 0o600)
            .at("create")? as i32;
        let (written, error) = write_up_to(file, goal - total);
        close(file);
        total += written;
        last = error;
        if total >= goal || !matches!(error, Some(Errno(libc::EFBIG))) {
            break;
        }
    }
    linger(ctx);
    judge(total, goal, last, "bytes written below a deep tree")
}

fn inodes(ctx: &Ctx) -> Attempted {
    let goal = ctx.amount("count", 100_000, 256).min(10_000_000);
    let place = place(ctx)?;
    let end = Instant::now() + Duration::from_secs(30);
    let (mut made, mut last) = (0, None);
    while made < goal && Instant::now() < end {
        match open(&format!("{}/{made}", place.path), libc::O_WRONLY | libc::O_CREAT, 0o600) {
            Ok(file) => close(file),
            Err(e) => {
                last = Some(e);
                break;
            }
        }
        made += 1;
    }
    judge(made, goal, last, "empty files")
}

fn one_file(ctx: &Ctx, grow: fn(i32, u64) -> Sys) -> Attempted {
    let goal = bytes_goal(ctx);
    let place = place(ctx)?;
    let path = format!("{}/one", place.path);
    let file = open(&path, libc::O_RDWR | libc::O_CREAT, 0o600).at("create")?;
    let grown = grow(file, goal);
    close(file);
    grown.at("grow")?;
    Ok(succeeded(format!("one file of {goal} bytes")))
}

/// Blocks that are reserved take no time to write, so no measurement comes in between.
fn fallocate_many(ctx: &Ctx) -> Attempted {
    let goal = bytes_goal(ctx);
    let place = place(ctx)?;
    let mut limit = [0u64; 2];
    sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_FSIZE, 0, limit.as_mut_ptr()).setup("prlimit")?;
    let (mut total, mut last) = (0, None);
    for index in 0..4096 {
        let path = format!("{}/{index}", place.path);
        let file = open(&path, libc::O_WRONLY | libc::O_CREAT, 0o600).at("create")?;
        let size = limit[0].min(goal - total);
        last = sys!(libc::SYS_fallocate, file, 0, 0, size).err();
        close(file);
        total += if last.is_none() { size } else { 0 };
        if last.is_some() || total >= goal {
            break;
        }
    }
    linger(ctx);
    judge(total, goal, last, "bytes reserved")
}

/// Makes descriptors until the goal, an error, or 20 s; closes them all.
pub fn objects(ctx: &Ctx, default: u64, make: fn() -> Sys<i32>) -> Attempted {
    let goal = ctx.amount("count", default, 64).min(10_000_000);
    let end = Instant::now() + Duration::from_secs(20);
    let (mut made, mut last) = (Vec::new(), None);
    while (made.len() as u64) < goal && Instant::now() < end {
        match make() {
            Ok(object) => made.push(object),
            Err(e) => {
                last = Some(e);
                break;
            }
        }
    }
    let reached = made.len() as u64;
    made.into_iter().for_each(close);
    judge(reached, goal, last, "objects")
}

fn watches(ctx: &Ctx) -> Attempted {
    let goal = ctx.amount("count", 65_536, 64).min(1_000_000);
    let place = place(ctx)?;
    let notify = fd(sys!(libc::SYS_inotify_init1, libc::O_CLOEXEC)).at("inotify_init1")?;
    let end = Instant::now() + Duration::from_secs(20);
    let (mut made, mut last) = (0, None);
    while made < goal && Instant::now() < end && last.is_none() {
        let path = format!("{}/{made}", place.path);
        let file = match open(&path, libc::O_WRONLY | libc::O_CREAT, 0o600) {
            Ok(file) => file,
            Err(e) => {
                last = Some(e);
                break;
            }
        };
        close(file);
        match sys!(libc::SYS_inotify_add_watch, notify, c(&path).as_ptr(), libc::IN_MODIFY) {
            Ok(_) => made += 1,
            Err(e) => last = Some(e),
        }
    }
    close(notify);
    judge(made, goal, last, "watches")
}

fn timers(ctx: &Ctx) -> Attempted {
    let goal = ctx.amount("count", 100_000, 64).min(10_000_000);
    let (mut made, mut last) = (Vec::new(), None);
    while (made.len() as u64) < goal {
        let mut id = 0i32;
        // No sigevent: SIGALRM at expiry, which never comes.
        match sys!(libc::SYS_timer_create, libc::CLOCK_MONOTONIC, 0, &raw mut id) {
            Ok(_) => made.push(id),
            Err(e) => {
                last = Some(e);
                break;
            }
        }
    }
    let reached = made.len() as u64;
    for id in made {
        let _ = sys!(libc::SYS_timer_delete, id);
    }
    judge(reached, goal, last, "timers")
}

fn keys(ctx: &Ctx) -> Attempted {
    let goal = ctx.amount("count", 10_000, 64).min(100_000);
    let (mut made, mut last) = (Vec::new(), None);
    while (made.len() as u64) < goal {
        let (kind, name) = (c"user", c(format!("palisade-{}-{}", sys::pid(), made.len())));
        match sys!(libc::SYS_add_key, kind.as_ptr(), name.as_ptr(), b"x".as_ptr(), 1, -4) {
            Ok(key) => made.push(key),
            Err(e) => {
                last = Some(e);
                break;
            }
        }
    }
    let reached = made.len() as u64;
    for key in made {
        let _ = sys!(libc::SYS_keyctl, 9, key, -4, 0, 0);
    }
    judge(reached, goal, last, "keys")
}

fn mqueues(ctx: &Ctx) -> Attempted {
    let goal = ctx.amount("count", 1024, 8).min(100_000);
    let (mut made, mut last) = (Vec::new(), None);
    while (made.len() as u64) < goal {
        let name = c(format!("palisade-{}-{}", sys::pid(), made.len()));
        let flags = libc::O_CREAT | libc::O_RDWR | libc::O_CLOEXEC;
        match sys!(libc::SYS_mq_open, name.as_ptr(), flags, 0o600, 0) {
            Ok(queue) => made.push((queue as i32, name)),
            Err(e) => {
                last = Some(e);
                break;
            }
        }
    }
    let reached = made.len() as u64;
    for (queue, name) in made {
        close(queue);
        let _ = sys!(libc::SYS_mq_unlink, name.as_ptr());
    }
    judge(reached, goal, last, "message queues")
}

fn ipc(ctx: &Ctx, get: i64, control: i64) -> Attempted {
    let goal = ctx.amount("count", 4096, 64).min(100_000);
    let (mut made, mut last) = (Vec::new(), None);
    let semaphores = get == libc::SYS_semget;
    while (made.len() as u64) < goal {
        let result = if semaphores {
            sys!(get, libc::IPC_PRIVATE, 1, 0o600)
        } else {
            sys!(get, libc::IPC_PRIVATE, 0o600)
        };
        match result {
            Ok(id) => made.push(id),
            Err(e) => {
                last = Some(e);
                break;
            }
        }
    }
    let reached = made.len() as u64;
    for id in made {
        // semctl takes the number of the semaphore before the command.
        let _ = if semaphores {
            sys!(control, id, 0, libc::IPC_RMID, 0)
        } else {
            sys!(control, id, libc::IPC_RMID, 0)
        };
    }
    judge(reached, goal, last, "System V objects")
}

/// Blocked real-time signals queue up to RLIMIT_SIGPENDING, which counts per user.
fn signals(ctx: &Ctx) -> Attempted {
    let goal = ctx.amount("count", 100_000, 64).min(1_000_000);
    // Before the child is there: one that a signal has ended takes any number, and queues none.
    // SAFETY: blocks a signal of our own that nothing else uses.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, 40);
        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    }
    let child = sys::fork().setup("fork")?;
    if child == 0 {
        // SAFETY: a plain call in a fresh child; its end drops the queue.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        loop {
            sys::sleep(Duration::from_secs(1));
        }
    }
    let mut info = [0u32; 32];
    (info[0], info[2]) = (40, u32::MAX);
    let (mut sent, mut last) = (0, None);
    while sent < goal && last.is_none() {
        match sys!(libc::SYS_rt_sigqueueinfo, child, 40, info.as_ptr()) {
            Ok(_) => sent += 1,
            Err(e) => last = Some(e),
        }
    }
    sys::end_child(child);
    judge(sent, goal, last, "queued signals")
}

/// Files below /sys/fs/cgroup with one of these names, three levels deep.
fn control_files(names: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![("/sys/fs/cgroup".to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path().display().to_string();
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                if depth < 3 && folders.len() < 500 {
                    folders.push((path, depth + 1));
                }
            } else if names.is_empty() || names.contains(&name.as_str()) {
                found.push(path);
            }
        }
    }
    found
}

fn find() -> Attempted {
    let found = control_files(&[]);
    match found.first() {
        None => Ok(blocked(None, "no control group file is visible")),
        Some(first) => Ok(succeeded(format!("{} files, first {first}", found.len()))),
    }
}

/// Opens for writing and writes nothing.
fn limits(names: &[&str]) -> Attempted {
    let mut tally = Tally::default();
    for path in control_files(names).into_iter().take(16) {
        tally.add(&path, open(&path, libc::O_WRONLY, 0).map(close));
    }
    tally.end("no such control group file is visible")
}

fn subtree() -> Attempted {
    let mut tally = Tally::default();
    for procs in control_files(&["cgroup.procs"]).into_iter().take(16) {
        let path = procs.replace("cgroup.procs", "attacker-group");
        let made = sys!(libc::SYS_mkdirat, CWD, c(&path).as_ptr(), 0o755);
        if made.is_ok() {
            let _ = sys!(libc::SYS_unlinkat, CWD, c(&path).as_ptr(), libc::AT_REMOVEDIR);
        }
        tally.add(&path, made);
    }
    tally.end("no control group is visible")
}

fn membership() -> Attempted {
    let text = std::fs::read_to_string("/proc/self/cgroup").at("open /proc/self/cgroup")?;
    let shown = text.lines().find(|l| !l.ends_with(":/") && !l.contains("/.."));
    match shown {
        Some(line) => Ok(succeeded(line.to_owned())),
        None => Ok(blocked(None, "only the root of its own namespace is shown")),
    }
}
