//! Attempts 7 to 9: what /proc gives, of init, of the host and of the kernel.
//!
//! Nothing is written to /proc: being able to open for writing is the goal there. Outside, a victim
//! of our own stands in for init and the host; pid 1 of the machine is never touched.

use crate::files::judge_secret;
use crate::outcome::{At, Attempted, Errno, blocked, succeeded};
use crate::sys::{self, VICTIM_SECRET, Victim, close, open, openat, read_fd, read_path};
use crate::table::{Attempt, Control, Ctx, Tally, contains};

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    Attempt::new(7, "self", "open the running program for writing", Control::None("the kernel answers ETXTBSY for a running program; `init` shows the full way"), &[], exe_self),
    Attempt::new(7, "self-chmod", "change the mode of the program's own file", Control::Root, &[], exe_chmod),
    Attempt::new(7, "self-replace", "create a file beside the program's own file", Control::Root, &[], exe_sibling),
    Attempt::new(7, "init", "hold init's program and reopen it for writing when it ends", Control::Victim, &[], exe_init),
    Attempt::new(8, "root-shadow", "/proc/1/root/etc/shadow", Control::Root, &[], |x| with_init(x, |pid, _| root_of(pid, "/etc/shadow"))),
    Attempt::new(8, "root-secret", "/proc/1/root and the secret's path", Control::RootParams, &["secret_path!", "secret"], root_secret),
    Attempt::new(8, "init-environ", "read init's environment", Control::Root, &[], |x| with_init(x, |pid, _| environ(pid))),
    Attempt::new(8, "init-cwd", "climb from /proc/1/cwd", Control::RootParams, &["secret_path!", "secret"], init_cwd),
    Attempt::new(8, "init-fd", "reopen a descriptor of init", Control::Victim, &[], init_fd),
    Attempt::new(8, "init-mem", "read init's memory", Control::Victim, &[], |x| with_init(x, mem)),
    Attempt::new(8, "init-maps", "read init's memory map", Control::Victim, &[], |x| with_init(x, |pid, _| maps(pid))),
    Attempt::new(8, "init-map-files", "open a mapped file of init", Control::Root, &[], |x| with_init(x, |pid, _| map_files(pid))),
    Attempt::new(8, "parent-environ", "read the parent's environment", Control::Victim, &[], |x| with_parent(x, |pid, _| environ(pid))),
    Attempt::new(8, "host-environ", "read the host's environment", Control::Victim, &["host_pid"], |x| with_host(x, |pid, _| environ(pid))),
    Attempt::new(8, "host-root", "/proc/<host>/root/etc/shadow", Control::Root, &["host_pid"], |x| with_host(x, |pid, _| root_of(pid, "/etc/shadow"))),
    Attempt::new(8, "host-mem", "read the host's memory", Control::Victim, &["host_pid"], |x| with_host(x, mem)),
    Attempt::new(8, "thread-self", "/proc/self/task/../../1 and /proc/thread-self/root", Control::RootParams, &["secret_path!", "secret"], |x| judge_secret(x, &read_path(&format!("/proc/thread-self/root{}", x.need("secret_path")?))?, "/proc/thread-self/root")),
    Attempt::new(9, "sysrq", "open /proc/sysrq-trigger for writing", Control::Root, &[], |_| for_writing("/proc/sysrq-trigger")),
    Attempt::new(9, "core-pattern", "open core_pattern for writing", Control::Root, &[], |_| for_writing("/proc/sys/kernel/core_pattern")),
    Attempt::new(9, "modprobe", "open the module loader's path for writing", Control::Root, &[], |_| for_writing("/proc/sys/kernel/modprobe")),
    Attempt::new(9, "hostname", "open the host name for writing", Control::Root, &[], |_| for_writing("/proc/sys/kernel/hostname")),
    Attempt::new(9, "max-user-namespaces", "open the user namespace limit for writing", Control::None("needs CAP_SYS_RESOURCE, which this machine withholds from root too"), &[], |_| for_writing("/proc/sys/user/max_user_namespaces")),
    Attempt::new(9, "drop-caches", "open drop_caches for writing", Control::Root, &[], |_| for_writing("/proc/sys/vm/drop_caches")),
    Attempt::new(9, "ip-forward", "open ip_forward for writing", Control::Root, &[], |_| for_writing("/proc/sys/net/ipv4/ip_forward")),
    Attempt::new(9, "oom-score", "make itself immune to the OOM killer", Control::None("needs CAP_SYS_RESOURCE, which this machine withholds from root too"), &[], oom_score),
    Attempt::new(9, "kcore", "read /proc/kcore", Control::Root, &[], |_| read_any("/proc/kcore")),
    Attempt::new(9, "kallsyms", "read kernel addresses", Control::Root, &[], kallsyms),
    Attempt::new(9, "kmsg", "open /proc/kmsg", Control::Root, &[], |_| for_reading("/proc/kmsg")),
];

fn exe_self(_: &Ctx) -> Attempted {
    let fd = open("/proc/self/exe", libc::O_WRONLY, 0).at("open for writing")?;
    close(fd);
    Ok(succeeded("open for writing"))
}

fn exe_chmod(_: &Ctx) -> Attempted {
    let fd = open("/proc/self/exe", libc::O_RDONLY, 0).setup("open /proc/self/exe")?;
    // SAFETY: fstat fills a zeroed stat.
    let mode = unsafe {
        let mut st: libc::stat = std::mem::zeroed();
        libc::fstat(fd, &mut st);
        st.st_mode & 0o7777
    };
    let changed = sys!(libc::SYS_fchmod, fd, mode);
    close(fd);
    changed.at("fchmod")?;
    Ok(succeeded("its own file can be changed"))
}

fn exe_sibling(_: &Ctx) -> Attempted {
    let exe = std::fs::read_link("/proc/self/exe").setup("readlink /proc/self/exe")?;
    let sibling = format!("{}.new-{}", exe.display(), sys::pid());
    let fd = open(&sibling, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0o700).at("create")?;
    close(fd);
    let _ = std::fs::remove_file(&sibling);
    Ok(succeeded(format!("could replace {}", exe.display())))
}

/// The way of CVE-2019-5736: a handle on the program survives the process, and once nothing runs
/// it any more it opens for writing. Outside, init is a copy of ourselves that can be ended.
fn exe_init(ctx: &Ctx) -> Attempted {
    if !ctx.outside() {
        let held = open("/proc/1/exe", libc::O_RDONLY, 0).at("open /proc/1/exe")?;
        return reopen(held);
    }
    let scratch = ctx.scratch()?;
    let copy = format!("{}/init", scratch.path);
    std::fs::copy("/proc/self/exe", &copy).setup("copy of ourselves")?;
    let mut child =
        std::process::Command::new(&copy).arg("hold").spawn().setup("start the copy")?;
    sys::sleep(std::time::Duration::from_millis(50));
    let held = open(&format!("/proc/{}/exe", child.id()), libc::O_RDONLY, 0);
    let _ = child.kill();
    let _ = child.wait();
    reopen(held.at("open its /proc/<pid>/exe")?)
}

fn reopen(held: i32) -> Attempted {
    let fd = open(&format!("/proc/self/fd/{held}"), libc::O_RDWR, 0).at("reopen for writing")?;
    let first = read_fd(fd).at("read")?;
    // The first byte is put back as it was: the write is real and changes nothing.
    sys!(libc::SYS_pwrite64, fd, first.as_ptr(), 1, 0).at("write")?;
    Ok(succeeded("the program's file was written"))
}

fn root_of(pid: i32, path: &str) -> Attempted {
    let bytes = read_path(&format!("/proc/{pid}/root{path}")).at("open")?;
    if bytes.is_empty() {
        return Ok(blocked(None, "empty"));
    }
    Ok(succeeded(format!("read {} bytes", bytes.len())))
}

fn environ(pid: i32) -> Attempted {
    let bytes = read_path(&format!("/proc/{pid}/environ")).at("open or read environ")?;
    if bytes.is_empty() {
        return Ok(blocked(None, "it has no environment"));
    }
    Ok(succeeded(format!("read {} bytes of its environment", bytes.len())))
}

fn root_secret(ctx: &Ctx) -> Attempted {
    let path = ctx.need("secret_path")?;
    with_init(ctx, |pid, _| {
        let bytes = read_path(&format!("/proc/{pid}/root{path}")).at("open")?;
        judge_secret(ctx, &bytes, "through its root")
    })
}

fn init_cwd(ctx: &Ctx) -> Attempted {
    with_init(ctx, |pid, _| cwd_of(ctx, pid))
}

fn cwd_of(ctx: &Ctx, pid: i32) -> Attempted {
    let secret = ctx.need("secret_path")?.trim_start_matches('/');
    let path = format!("/proc/{pid}/cwd");
    let dir = open(&path, libc::O_PATH | libc::O_DIRECTORY, 0).at("open its cwd")?;
    let up = "../".repeat(32);
    let bytes = openat(dir, &format!("{up}{secret}"), libc::O_RDONLY).and_then(read_fd);
    judge_secret(ctx, &bytes.at("open the secret above it")?, "above its working directory")
}

fn init_fd(ctx: &Ctx) -> Attempted {
    with_init(ctx, |pid, _| {
        let mut tally = Tally::default();
        for fd in 0..16 {
            let path = format!("/proc/{pid}/fd/{fd}");
            match open(&path, libc::O_RDONLY | libc::O_NONBLOCK, 0) {
                // /dev/null of init is no gain.
                Ok(found) => {
                    let link = std::fs::read_link(format!("/proc/self/fd/{found}"));
                    close(found);
                    if !link.is_ok_and(|l| l.as_os_str() == "/dev/null") {
                        tally.win(&path);
                    }
                }
                Err(e) => tally.add::<()>(&fd.to_string(), Err(e)),
            }
        }
        tally.end("init holds nothing but /dev/null")
    })
}

/// The victim, where there is one; its secret lies at the same address as ours.
type Target<'a> = Option<&'a Victim>;

/// Init inside, a victim outside.
pub fn with_init(ctx: &Ctx, attack: impl Fn(i32, Target<'_>) -> Attempted) -> Attempted {
    if !ctx.outside() {
        return attack(1, None);
    }
    let victim = Victim::spawn(|| ()).setup("victim")?;
    attack(victim.pid, Some(&victim))
}

/// The parent inside, a victim outside.
pub fn with_parent(ctx: &Ctx, attack: impl Fn(i32, Target<'_>) -> Attempted) -> Attempted {
    if ctx.outside() {
        return with_init(ctx, attack);
    }
    // SAFETY: no arguments.
    match unsafe { libc::getppid() } {
        0 => Ok(blocked(None, "the parent lies outside the pid namespace")),
        parent => attack(parent, None),
    }
}

/// `host_pid` inside; outside a victim, unless the harness names a pid.
pub fn with_host(ctx: &Ctx, attack: impl Fn(i32, Target<'_>) -> Attempted) -> Attempted {
    if ctx.outside() && ctx.params.get("host_pid").is_none() {
        return with_init(ctx, attack);
    }
    let host = ctx.need_num("host_pid")? as i32;
    if host <= 1 || host == sys::pid() {
        return Ok(blocked(None, "that pid is not the host's in here"));
    }
    attack(host, None)
}

/// Reads memory of another process, at an address where it is known to hold something.
fn mem(pid: i32, victim: Target<'_>) -> Attempted {
    let fd = open(&format!("/proc/{pid}/mem"), libc::O_RDONLY, 0).at("open mem")?;
    let address = match victim {
        Some(_) => VICTIM_SECRET.as_ptr() as u64,
        None => first_mapping(pid)?,
    };
    let mut buf = [0u8; 24];
    let n = sys!(libc::SYS_pread64, fd, buf.as_mut_ptr(), buf.len(), address).at("read mem")?;
    if victim.is_some() && !contains(&buf, &VICTIM_SECRET) {
        return Ok(blocked(None, "read something else"));
    }
    Ok(succeeded(format!("read {n} bytes of its memory")))
}

fn first_mapping(pid: i32) -> Result<u64, crate::outcome::Outcome> {
    let maps = read_path(&format!("/proc/{pid}/maps")).at("open maps")?;
    let text = String::from_utf8_lossy(&maps).into_owned();
    let first = text.split('-').next().unwrap_or_default();
    u64::from_str_radix(first, 16).map_err(|_| blocked(None, "its memory map is empty"))
}

fn maps(pid: i32) -> Attempted {
    let address = first_mapping(pid)?;
    Ok(succeeded(format!("its memory begins at {address:#x}")))
}

fn map_files(pid: i32) -> Attempted {
    let dir = format!("/proc/{pid}/map_files");
    let mut tally = Tally::default();
    match std::fs::read_dir(&dir) {
        Err(e) => tally.add::<()>(&dir, Err(Errno(e.raw_os_error().unwrap_or(0)))),
        Ok(entries) => {
            for file in entries.flatten().take(4) {
                let path = file.path().display().to_string();
                tally.add(&path, open(&path, libc::O_RDONLY, 0).map(close));
            }
        }
    }
    tally.end("no mapped file is listed")
}

fn for_writing(path: &str) -> Attempted {
    let fd = open(path, libc::O_WRONLY, 0).at("open for writing")?;
    close(fd);
    Ok(succeeded(format!("{path} is open for writing (nothing written)")))
}

fn for_reading(path: &str) -> Attempted {
    let fd = open(path, libc::O_RDONLY | libc::O_NONBLOCK, 0).at("open for reading")?;
    close(fd);
    Ok(succeeded(format!("{path} is open for reading")))
}

fn read_any(path: &str) -> Attempted {
    let bytes = read_path(path).at("open or read")?;
    if bytes.is_empty() {
        return Ok(blocked(None, "empty"));
    }
    Ok(succeeded(format!("read {} bytes", bytes.len())))
}

fn oom_score(_: &Ctx) -> Attempted {
    let fd = open("/proc/self/oom_score_adj", libc::O_WRONLY, 0).at("open")?;
    let written = sys::write_fd(fd, b"-1000");
    close(fd);
    written.at("write -1000")?;
    Ok(succeeded("oom_score_adj is -1000"))
}

fn kallsyms(_: &Ctx) -> Attempted {
    let bytes = read_path("/proc/kallsyms").at("open")?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let shown =
        text.lines().any(|l| l.split(' ').next().is_some_and(|a| !a.trim_matches('0').is_empty()));
    if shown {
        Ok(succeeded("kernel addresses are shown"))
    } else {
        Ok(blocked(None, "addresses are zero"))
    }
}
