//! Attempts 12, 13 and 55: gaining rights by exec, and running code that nobody granted.
//!
//! What is executed is a copy of this program with the word `ids`: it prints who it is and leaves
//! with status 42, which no failed exec gives.

use crate::outcome::{At, Attempted, Errno, Outcome, Sys, blocked, impossible, succeeded};
use crate::sys::{self, CWD, c, close, open, read_fd};
use crate::table::{Attempt, Control, Ctx, Tally};
use serde_json::{Value, json};
use std::time::Duration;

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    Attempt::new(12, "suid", "exec a set-user-id copy of this program", Control::UserParams, &["suid_path!"], |x| privileged(x, x.need("suid_path")?)),
    Attempt::new(12, "sgid", "exec a set-group-id copy of this program", Control::UserParams, &["sgid_path!"], |x| privileged(x, x.need("sgid_path")?)),
    Attempt::new(12, "clear-nnp", "PR_SET_NO_NEW_PRIVS back to 0", Control::None("the kernel never clears it"), &[], clear_nnp),
    Attempt::new(12, "setuid-zero", "setresuid(0) and setresgid(0)", Control::Root, &[], setuid_zero),
    Attempt::new(13, "file-caps", "exec a copy of this program with file capabilities", Control::UserParams, &["caps_path!"], |x| privileged(x, x.need("caps_path")?)),
    Attempt::new(13, "binfmt", "open binfmt_misc/register for writing", Control::Root, &[], |_| binfmt()),
    Attempt::new(13, "capset", "take any capability", Control::Root, &[], any_capability),
    Attempt::new(55, "memfd-procfd", "memfd, then execve of /proc/self/fd/N", Control::Run, &[], |x| memfd(x, 0, false)),
    Attempt::new(55, "memfd-execveat", "memfd, then execveat with AT_EMPTY_PATH", Control::Run, &[], |x| memfd(x, 0, true)),
    Attempt::new(55, "memfd-exec-flag", "memfd with MFD_EXEC", Control::Run, &[], |x| memfd(x, 0x10, false)),
    Attempt::new(55, "memfd-noexec-chmod", "memfd with MFD_NOEXEC_SEAL, then fchmod +x", Control::None("the seal refuses the mode change on every machine"), &[], |x| memfd(x, 0x8, false)),
    Attempt::new(22, "memfd-exec-high", "memfd with MFD_EXEC and bit 32 set", Control::Run, &[], |x| memfd(x, 0x10 | 1 << 32, false)),
    Attempt::new(55, "copy-tmp", "copy this program to /tmp and execute it", Control::Run, &[], |x| copies(x, &["/tmp"])),
    Attempt::new(55, "copy-shm", "copy this program to /dev/shm and execute it", Control::Run, &[], |x| copies(x, &["/dev/shm"])),
    Attempt::new(55, "copy-data", "copy this program to /data and execute it", Control::Params, &["dirs"], |x| copies(x, &["/data"])),
    Attempt::new(55, "copy-dirs", "copy this program to each of `dirs` and execute it", Control::Params, &["dirs!"], copy_dirs),
    Attempt::new(55, "copy-execveat", "copy to /tmp and execveat its descriptor", Control::Run, &[], copy_execveat),
    Attempt::new(55, "interpreter", "run a payload by an interpreter's -c", Control::Run, &["interpreter"], interpreter),
    Attempt::new(55, "mmap-file", "map a written file executable", Control::Run, &["dirs"], mmap_file),
    Attempt::new(55, "wx", "write code to an anonymous page, then make it executable", Control::Run, &[], |x| anonymous(x, false)),
    Attempt::new(55, "rwx", "map a page writable and executable", Control::Run, &[], |x| anonymous(x, true)),
];

/// Who this process is, as `attacker ids` prints it.
pub fn identity() -> Value {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = |name: &str| {
        let found = status.lines().find_map(|l| l.strip_prefix(name));
        found.map(|v| v.trim_start_matches(':').trim().to_owned())
    };
    // SAFETY: no arguments; getauxval reads the program's own vector.
    unsafe {
        json!({
            "ruid": libc::getuid(), "euid": libc::geteuid(),
            "rgid": libc::getgid(), "egid": libc::getegid(),
            "secure": libc::getauxval(libc::AT_SECURE),
            "cap_eff": capabilities().map_or_else(|_| "?".into(), |c| format!("{:016x}", c[0])),
            "nnp": line("NoNewPrivs"),
        })
    }
}

/// Effective and permitted sets of the caller, by `capget`.
fn capabilities() -> Sys<[u64; 2]> {
    let header: [u32; 2] = [0x2008_0522, 0];
    let mut data = [0u32; 6];
    sys!(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr())?;
    let join = |i: usize| u64::from(data[i]) | u64::from(data[i + 3]) << 32;
    Ok([join(0), join(1)])
}

/// What a child did: its exec's errno, or its status and the first bytes that it printed.
pub enum Ran {
    Refused(Errno),
    Ended(i32, Vec<u8>),
}

/// Executes in a child; `exec` makes the call and gives its error.
pub fn run_child(exec: impl FnOnce() -> Errno) -> Result<Ran, Outcome> {
    let (out_r, out_w) = sys::pipe().setup("pipe")?;
    let (err_r, err_w) = sys::pipe().setup("pipe")?;
    let child = sys::fork().setup("fork")?;
    if child == 0 {
        // SAFETY: plain calls in a fresh child.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::dup2(out_w, 1);
        }
        let error = exec();
        let _ = sys::write_fd(err_w, &error.0.to_ne_bytes());
        sys::exit(1);
    }
    close(out_w);
    close(err_w);
    let refused = if sys::poll(err_r, libc::POLLIN, Duration::from_secs(10)) {
        read_fd(err_r).unwrap_or_default()
    } else {
        Vec::new()
    };
    let printed = if sys::poll(out_r, libc::POLLIN, Duration::from_secs(5)) {
        read_fd(out_r).unwrap_or_default()
    } else {
        Vec::new()
    };
    close(out_r);
    close(err_r);
    let status = sys::wait_child(child, Duration::from_secs(5), 0);
    if status.is_none() {
        sys::end_child(child);
    }
    if let Ok(errno) = <[u8; 4]>::try_from(refused.as_slice()) {
        return Ok(Ran::Refused(Errno(i32::from_ne_bytes(errno))));
    }
    Ok(Ran::Ended(status.unwrap_or(-1), printed))
}

/// Succeeds where the executed copy said who it is.
fn judge_ran(ran: Ran, what: &str) -> Attempted {
    match ran {
        Ran::Refused(e) => Err(blocked(e.0, what)),
        Ran::Ended(status, _) if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 42 => {
            Ok(succeeded(format!("{what}: it ran")))
        }
        Ran::Ended(status, _) if libc::WIFSIGNALED(status) => {
            let signal = libc::WTERMSIG(status);
            let detail = format!("{what}: killed by {}", crate::outcome::signal_name(signal));
            Ok(Outcome { killed: Some(signal), ..blocked(None, detail) })
        }
        Ran::Ended(status, _) => Ok(blocked(None, format!("{what}: wait status {status:#x}"))),
    }
}

/// `execve(path, [path, "ids"], [])`, and its error.
fn exec_ids(path: &str) -> Errno {
    let path = c(path);
    let argv = [path.as_ptr(), c"ids".as_ptr(), std::ptr::null()];
    let envp: [*const libc::c_char; 1] = [std::ptr::null()];
    sys!(libc::SYS_execve, path.as_ptr(), argv.as_ptr(), envp.as_ptr()).err().unwrap_or(Errno(0))
}

fn execveat_ids(fd: i32) -> Errno {
    let argv = [c"attacker".as_ptr(), c"ids".as_ptr(), std::ptr::null()];
    let envp: [*const libc::c_char; 1] = [std::ptr::null()];
    let flags = libc::AT_EMPTY_PATH;
    sys!(libc::SYS_execveat, fd, c"".as_ptr(), argv.as_ptr(), envp.as_ptr(), flags)
        .err()
        .unwrap_or(Errno(0))
}

/// Compares what an executed copy says with ourselves: more rights are a success.
fn privileged(_: &Ctx, path: &str) -> Attempted {
    let before = identity();
    let ran = run_child(|| exec_ids(path))?;
    let Ran::Ended(_, printed) = ran else { return judge_ran(ran, "exec") };
    let Ok(after) = serde_json::from_slice::<Value>(&printed) else {
        return Ok(impossible("the program at that path is not a copy of the attacker"));
    };
    let gained = ["euid", "egid"].iter().any(|id| after[*id] != before[*id])
        || caps_of(&after) & !caps_of(&before) != 0;
    let detail = format!("before {before} after {after}");
    if gained { Ok(succeeded(detail)) } else { Ok(blocked(None, detail)) }
}

fn caps_of(identity: &Value) -> u64 {
    u64::from_str_radix(identity["cap_eff"].as_str().unwrap_or_default(), 16).unwrap_or(0)
}

fn clear_nnp(_: &Ctx) -> Attempted {
    let _ = sys!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    sys!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0).at("prctl")?;
    Ok(succeeded("no_new_privs was cleared"))
}

fn setuid_zero(_: &Ctx) -> Attempted {
    sys!(libc::SYS_setresgid, 0, 0, 0).at("setresgid")?;
    sys!(libc::SYS_setresuid, 0, 0, 0).at("setresuid")?;
    // Id 0 of an empty user namespace is worth nothing; capabilities are.
    match capabilities() {
        Ok([effective, _]) if effective != 0 => Ok(succeeded(format!("uid 0, {effective:016x}"))),
        Ok(_) => Ok(blocked(None, "uid 0 without any capability")),
        Err(e) => Err(blocked(e.0, "capget")),
    }
}

fn binfmt() -> Attempted {
    let fd = open("/proc/sys/fs/binfmt_misc/register", libc::O_WRONLY, 0).at("open register")?;
    close(fd);
    Ok(succeeded("binfmt_misc/register is open for writing (nothing written)"))
}

fn any_capability(_: &Ctx) -> Attempted {
    let [_, permitted] = capabilities().at("capget")?;
    let header: [u32; 2] = [0x2008_0522, 0];
    let all = u32::MAX;
    let data = [
        permitted as u32,
        permitted as u32,
        all,
        (permitted >> 32) as u32,
        (permitted >> 32) as u32,
        all,
    ];
    if permitted == 0 {
        // Asks for what it has not: CAP_SYS_ADMIN.
        let ask = [1u32 << 21, 1 << 21, 0, 0, 0, 0];
        sys!(libc::SYS_capset, header.as_ptr(), ask.as_ptr()).at("capset")?;
        return Ok(succeeded("took CAP_SYS_ADMIN"));
    }
    let raised = sys!(libc::SYS_capset, header.as_ptr(), data.as_ptr()).is_ok();
    Ok(succeeded(format!("permitted {permitted:016x}, raised to effective: {raised}")))
}

/// This program's own bytes.
fn own_bytes() -> Result<Vec<u8>, Outcome> {
    std::fs::read("/proc/self/exe").setup("read /proc/self/exe")
}

fn memfd(_: &Ctx, flags: u64, execveat: bool) -> Attempted {
    let bytes = own_bytes()?;
    // Without close-on-exec: the path under /proc/self/fd must outlive the exec's lookup.
    let fd = sys!(libc::SYS_memfd_create, c"x".as_ptr(), flags).at("memfd_create")? as i32;
    let end = std::time::Instant::now() + Duration::from_secs(10);
    sys::write_all(fd, &bytes, end).map_err(|e| e.0).setup("write to the memfd")?;
    if flags & 0x8 != 0 {
        sys!(libc::SYS_fchmod, fd, 0o700).at("fchmod +x")?;
    }
    let ran = if execveat {
        run_child(|| execveat_ids(fd))
    } else {
        run_child(|| exec_ids(&format!("/proc/self/fd/{fd}")))
    };
    close(fd);
    judge_ran(ran?, if execveat { "execveat" } else { "execve" })
}

fn write_copy(dir: &str) -> Result<String, Errno> {
    let path = format!("{dir}/attacker-copy-{}", sys::pid());
    let code = |e: std::io::Error| Errno(e.raw_os_error().unwrap_or(0));
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, std::fs::read("/proc/self/exe").map_err(code)?).map_err(code)?;
    match sys!(libc::SYS_fchmodat, CWD, c(&path).as_ptr(), 0o700) {
        Ok(_) => Ok(path),
        Err(e) => {
            let _ = std::fs::remove_file(&path);
            Err(e)
        }
    }
}

fn copies(_: &Ctx, dirs: &[&str]) -> Attempted {
    if let [dir] = dirs {
        let path = write_copy(dir).at("write the copy")?;
        let ran = run_child(|| exec_ids(&path));
        let _ = std::fs::remove_file(&path);
        return judge_ran(ran?, "execve of the copy");
    }
    let mut tally = Tally::default();
    for dir in dirs {
        let Ok(path) = write_copy(dir).map_err(|e| tally.add::<()>(dir, Err(e))) else { continue };
        match run_child(|| exec_ids(&path))? {
            Ran::Refused(e) => tally.add::<()>(dir, Err(e)),
            Ran::Ended(status, _) if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 42 => {
                tally.win(dir)
            }
            Ran::Ended(..) => tally.add::<()>(dir, Err(Errno(0))),
        }
        let _ = std::fs::remove_file(&path);
    }
    tally.end("no directory")
}

fn copy_dirs(ctx: &Ctx) -> Attempted {
    let dirs = ctx.list("dirs");
    if dirs.is_empty() {
        return Ok(impossible("parameter \"dirs\" is missing"));
    }
    copies(ctx, &dirs)
}

fn copy_execveat(_: &Ctx) -> Attempted {
    let path = write_copy("/tmp").at("write the copy")?;
    let fd = open(&path, libc::O_RDONLY, 0).at("open the copy");
    let _ = std::fs::remove_file(&path);
    let fd = fd?;
    let ran = run_child(|| execveat_ids(fd));
    close(fd);
    judge_ran(ran?, "execveat of the copy")
}

fn interpreter(ctx: &Ctx) -> Attempted {
    let named = ctx.text("interpreter");
    let tries: Vec<(&str, &str)> = match named {
        Some(path) if path.contains("python") => vec![(path, "import os; os._exit(42)")],
        Some(path) => vec![(path, "exit 42")],
        None => vec![("/bin/sh", "exit 42"), ("/usr/bin/python3", "import os; os._exit(42)")],
    };
    let mut last = impossible("no interpreter");
    for (path, payload) in tries {
        let (program, text) = (c(path), c(payload));
        let ran = run_child(|| {
            let argv = [program.as_ptr(), c"-c".as_ptr(), text.as_ptr(), std::ptr::null()];
            let envp: [*const libc::c_char; 1] = [std::ptr::null()];
            sys!(libc::SYS_execve, program.as_ptr(), argv.as_ptr(), envp.as_ptr())
                .err()
                .unwrap_or(Errno(0))
        })?;
        match judge_ran(ran, path) {
            Ok(outcome) if outcome.verdict == crate::outcome::Verdict::Succeeded => {
                return Ok(outcome);
            }
            Ok(outcome) | Err(outcome) => last = outcome,
        }
    }
    Ok(last)
}

fn mmap_file(ctx: &Ctx) -> Attempted {
    let mut tally = Tally::default();
    let named = ctx.list("dirs");
    let dirs = if named.is_empty() { vec!["/tmp", "/dev/shm", "/data"] } else { named };
    for dir in dirs {
        let path = format!("{dir}/attacker-map-{}", sys::pid());
        let mapped = open(&path, libc::O_RDWR | libc::O_CREAT, 0o700).and_then(|fd| {
            let _ = sys::write_fd(fd, &[0xc3; 4096]);
            let prot = libc::PROT_READ | libc::PROT_EXEC;
            let r = sys!(libc::SYS_mmap, 0, 4096, prot, libc::MAP_PRIVATE, fd, 0);
            close(fd);
            r
        });
        let _ = std::fs::remove_file(&path);
        tally.add(dir, mapped);
    }
    tally.end("no directory")
}

/// Machine code for `return 42`.
#[cfg(target_arch = "x86_64")]
const RETURN_42: [u8; 6] = [0xb8, 42, 0, 0, 0, 0xc3];
#[cfg(target_arch = "aarch64")]
const RETURN_42: [u8; 8] = [0x40, 0x05, 0x80, 0x52, 0xc0, 0x03, 0x5f, 0xd6];

fn anonymous(_: &Ctx, at_once: bool) -> Attempted {
    let (rw, rx) = (libc::PROT_READ | libc::PROT_WRITE, libc::PROT_READ | libc::PROT_EXEC);
    let first = if at_once { rw | rx } else { rw };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let page = sys!(libc::SYS_mmap, 0, 4096, first, flags, -1, 0).at("mmap")?;
    // SAFETY: the page is ours and writable; the bytes are a whole function of this architecture.
    unsafe { std::ptr::copy_nonoverlapping(RETURN_42.as_ptr(), page as *mut u8, RETURN_42.len()) };
    if !at_once {
        sys!(libc::SYS_mprotect, page, 4096, rx).at("mprotect")?;
    }
    // SAFETY: as above.
    let answer = unsafe { std::mem::transmute::<i64, extern "C" fn() -> i32>(page)() };
    if answer != 42 {
        return Ok(blocked(None, format!("the code answered {answer}")));
    }
    Ok(succeeded("code made at run time ran"))
}
