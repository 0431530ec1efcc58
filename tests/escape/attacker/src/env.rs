//! Attempts 56, 57 and 67: what was inherited, and what a crash gives away.
//!
//! Names are reported, values never, so that a log of the suite holds no secret of the machine.

use crate::outcome::{At, Attempted, blocked, impossible, succeeded};
use crate::sys::{self, read_path};
use crate::table::{Attempt, Control, Ctx, contains};
use std::time::Duration;

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    Attempt::new(56, "loader", "variables that steer a loader or an interpreter", Control::Params, &["env"], loader),
    Attempt::new(57, "environ", "forbidden words in the environment", Control::Params, &["forbidden_values"], |x| judge(x, &environment(), &names())),
    Attempt::new(57, "proc-environ", "forbidden words in /proc/self/environ", Control::Params, &["forbidden_values"], |x| file(x, "/proc/self/environ")),
    Attempt::new(57, "argv", "forbidden words in the arguments", Control::Params, &["forbidden_values"], |x| judge(x, &arguments(), "")),
    Attempt::new(57, "auxv", "forbidden words in AT_EXECFN and AT_PLATFORM", Control::Params, &["forbidden_values"], auxv),
    Attempt::new(57, "stack", "forbidden words anywhere above the first stack frame", Control::Params, &["forbidden_values"], stack),
    Attempt::new(57, "mountinfo", "forbidden words (host paths) in mountinfo", Control::Params, &["forbidden_values"], |x| file(x, "/proc/self/mountinfo")),
    Attempt::new(57, "maps", "forbidden words in /proc/self/maps", Control::Params, &["forbidden_values"], |x| file(x, "/proc/self/maps")),
    Attempt::new(57, "cgroup", "forbidden words in /proc/self/cgroup", Control::Params, &["forbidden_values"], |x| file(x, "/proc/self/cgroup")),
    Attempt::new(57, "cmdline-others", "forbidden words in the arguments of other processes", Control::Params, &["forbidden_values"], others),
    Attempt::new(57, "exe-path", "forbidden words in the path of the program and the working directory", Control::Params, &["forbidden_values"], links),
    Attempt::new(57, "uname", "forbidden words in the host name and domain", Control::Params, &["forbidden_values"], uname),
    Attempt::new(57, "passwd", "other users in /etc/passwd, /etc/hosts, /etc/machine-id", Control::Params, &["forbidden_values"], etc),
    Attempt::new(67, "limits", "a core could be written: RLIMIT_CORE and dumpable", Control::Run, &[], limits),
    Attempt::new(67, "pattern", "read core_pattern", Control::Run, &[], pattern),
    Attempt::new(67, "dump", "crash in a child and leave a core", Control::Run, &[], |x| dump(x, false)),
    Attempt::new(67, "dump-raised", "raise RLIMIT_CORE and dumpable, then crash in a child", Control::Run, &[], |x| dump(x, true)),
    Attempt::new(67, "crash", "crash the plugin itself by SIGSEGV", Control::Run, &["after"], |x| crash(x, libc::SIGSEGV)).host_judges(),
    Attempt::new(67, "abort", "crash the plugin itself by SIGABRT", Control::Run, &["after"], |x| crash(x, libc::SIGABRT)).host_judges(),
];

/// Names that steer loaders and runtimes.
const STEERING: [&str; 24] = [
    "LD_PRELOAD",
    "LD_AUDIT",
    "LD_LIBRARY_PATH",
    "LD_DEBUG",
    "GCONV_PATH",
    "LOCPATH",
    "NLSPATH",
    "MALLOC_CHECK_",
    "GLIBC_TUNABLES",
    "BASH_ENV",
    "ENV",
    "IFS",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "PYTHONHOME",
    "NODE_OPTIONS",
    "NODE_PATH",
    "PERL5LIB",
    "PERL5OPT",
    "RUBYOPT",
    "RUBYLIB",
    "JAVA_TOOL_OPTIONS",
    "GIT_SSH_COMMAND",
    "PROMPT_COMMAND",
];

fn loader(_: &Ctx) -> Attempted {
    let found: Vec<&str> = STEERING.into_iter().filter(|n| std::env::var_os(n).is_some()).collect();
    if found.is_empty() {
        return Ok(blocked(None, format!("none of them; names: {}", names())));
    }
    Ok(succeeded(found.join(" ")))
}

fn environment() -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    std::env::vars_os()
        .flat_map(|(k, v)| [k.as_bytes(), b"=", v.as_bytes(), b"\0"].concat())
        .collect()
}

fn names() -> String {
    let names: Vec<String> =
        std::env::vars_os().map(|(k, _)| k.to_string_lossy().into_owned()).collect();
    names.join(" ")
}

fn arguments() -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    std::env::args_os().flat_map(|a| [a.as_bytes(), b"\0"].concat()).collect()
}

/// Succeeds where one of the forbidden words occurs. In arguments outside, the words stand in
/// `--params` themselves; the harness passes one there that is elsewhere too.
fn judge(ctx: &Ctx, bytes: &[u8], about: &str) -> Attempted {
    let words = ctx.list("forbidden_values");
    if words.is_empty() {
        return Ok(impossible("parameter \"forbidden_values\" is missing"));
    }
    let found: Vec<String> = words
        .iter()
        .enumerate()
        .filter(|(_, w)| contains(bytes, w.as_bytes()))
        .map(|(i, _)| i.to_string())
        .collect();
    if found.is_empty() {
        return Ok(blocked(None, format!("{} bytes, none of the words {about}", bytes.len())));
    }
    Ok(succeeded(format!("words number {} occur {about}", found.join(", "))))
}

fn file(ctx: &Ctx, path: &str) -> Attempted {
    let bytes = std::fs::read(path).at("open")?;
    judge(ctx, &bytes, "")
}

fn auxv(ctx: &Ctx) -> Attempted {
    let mut bytes = Vec::new();
    for kind in [libc::AT_EXECFN, libc::AT_PLATFORM] {
        // SAFETY: these two are pointers to texts on our own stack, or zero.
        unsafe {
            let text = libc::getauxval(kind) as *const libc::c_char;
            if !text.is_null() {
                bytes.extend(std::ffi::CStr::from_ptr(text).to_bytes());
                bytes.push(0);
            }
        }
    }
    judge(ctx, &bytes, &format!("in {:?}", String::from_utf8_lossy(&bytes)))
}

/// From the program's name (the highest text the kernel put there) down to the arguments.
fn stack(ctx: &Ctx) -> Attempted {
    // SAFETY: the range lies within the stack: from AT_RANDOM, which is below all texts, to the
    // end of AT_EXECFN, which is above them.
    let bytes = unsafe {
        let low = libc::getauxval(libc::AT_RANDOM) as *const u8;
        let name = libc::getauxval(libc::AT_EXECFN) as *const libc::c_char;
        if low.is_null() || name.is_null() {
            return Ok(impossible("no auxiliary vector"));
        }
        let high = name.cast::<u8>().add(libc::strlen(name) + 1);
        std::slice::from_raw_parts(low, high.offset_from(low).clamp(0, 4 << 20) as usize)
    };
    judge(ctx, bytes, "")
}

fn others(ctx: &Ctx) -> Attempted {
    if ctx.outside() {
        // The supervisor has our arguments; nobody else is looked into.
        // SAFETY: no arguments.
        let parent = unsafe { libc::getppid() };
        let bytes = read_path(&format!("/proc/{parent}/cmdline")).at("open")?;
        return judge(ctx, &bytes, "");
    }
    let mut bytes = Vec::new();
    let mine = sys::pid().to_string();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.parse::<i32>().is_ok() && name != mine {
            bytes.extend(read_path(&format!("/proc/{name}/cmdline")).unwrap_or_default());
        }
    }
    judge(ctx, &bytes, "")
}

fn links(ctx: &Ctx) -> Attempted {
    let mut bytes = Vec::new();
    for link in ["exe", "cwd", "root", "fd/0", "fd/1", "fd/2"] {
        let target = std::fs::read_link(format!("/proc/self/{link}")).unwrap_or_default();
        bytes.extend(target.display().to_string().bytes().chain([0]));
    }
    judge(ctx, &bytes, "")
}

fn uname(ctx: &Ctx) -> Attempted {
    let mut bytes = vec![0u8; 65 * 6];
    sys!(libc::SYS_uname, bytes.as_mut_ptr()).at("uname")?;
    let node = bytes[65..130].to_vec();
    let domain = bytes[325..390].to_vec();
    judge(ctx, &[node, domain].concat(), "")
}

fn etc(ctx: &Ctx) -> Attempted {
    let mut bytes = Vec::new();
    for path in ["/etc/passwd", "/etc/group", "/etc/hosts", "/etc/hostname", "/etc/machine-id"] {
        bytes.extend(std::fs::read(path).unwrap_or_default());
    }
    judge(ctx, &bytes, "")
}

/// A limit of 0 keeps a core from a file, only 1 keeps it from a piped helper (core(5)).
fn limits(_: &Ctx) -> Attempted {
    let mut now = [0u64; 2];
    sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_CORE, 0, now.as_mut_ptr()).at("prlimit")?;
    let dumpable = sys!(libc::SYS_prctl, libc::PR_GET_DUMPABLE, 0, 0, 0, 0).at("prctl")?;
    let detail = format!("RLIMIT_CORE {:?}, dumpable {dumpable}", now);
    if now[1] > 1 && dumpable == 1 { Ok(succeeded(detail)) } else { Ok(blocked(None, detail)) }
}

fn pattern(_: &Ctx) -> Attempted {
    let text = read_path("/proc/sys/kernel/core_pattern").at("open")?;
    Ok(succeeded(String::from_utf8_lossy(&text).trim_end().to_owned()))
}

/// The kernel says in the wait status whether a core was written (or piped).
fn dump(ctx: &Ctx, raised: bool) -> Attempted {
    let scratch = ctx.scratch()?;
    let child = sys::fork().setup("fork")?;
    if child == 0 {
        let _ = std::env::set_current_dir(&scratch.path);
        if raised {
            let all = [u64::MAX, u64::MAX];
            if sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_CORE, all.as_ptr(), 0).is_err() {
                let mut now = [0u64; 2];
                let _ = sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_CORE, 0, now.as_mut_ptr());
                let most = [now[1], now[1]];
                let _ = sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_CORE, most.as_ptr(), 0);
            }
            let _ = sys!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        }
        // SAFETY: ends the child.
        unsafe {
            libc::signal(libc::SIGSEGV, libc::SIG_DFL);
            libc::kill(sys::pid(), libc::SIGSEGV);
        }
        sys::exit(0);
    }
    match sys::wait_child(child, Duration::from_secs(10), 0) {
        Some(s) if libc::WIFSIGNALED(s) && libc::WCOREDUMP(s) => Ok(succeeded("a core was dumped")),
        Some(s) if libc::WIFSIGNALED(s) => Ok(blocked(None, "crashed without a core")),
        other => Ok(blocked(None, format!("the child ended with {other:?}"))),
    }
}

/// Outside the plugin itself is stood in for by a child.
fn crash(ctx: &Ctx, signal: i32) -> Attempted {
    if ctx.outside() {
        let child = sys::fork().setup("fork")?;
        if child == 0 {
            die(signal);
        }
        let status = sys::wait_child(child, Duration::from_secs(10), 0);
        return Ok(match status {
            Some(s) if libc::WIFSIGNALED(s) && libc::WTERMSIG(s) == signal => succeeded("crashed"),
            other => blocked(None, format!("the child ended with {other:?}")),
        });
    }
    if ctx.flag("after") {
        ctx.answer_early(&succeeded("crashing now"));
    }
    die(signal)
}

fn die(signal: i32) -> ! {
    if signal == libc::SIGSEGV {
        // SAFETY: a write to address 8, which is never mapped: the crash is the attempt.
        unsafe {
            libc::signal(libc::SIGSEGV, libc::SIG_DFL);
            (8 as *mut u32).write_volatile(1);
        }
    }
    std::process::abort()
}
