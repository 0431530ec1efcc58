//! Attempt 69: two plugins that were granted the same folder. `role` says which of the two this one is:
//! `attacker` prepares the trap, `neighbour` steps into it; without a role (outside) it is both.

use crate::outcome::{At, Attempted, Errno, Outcome, blocked, impossible, succeeded};
use crate::sys::{self, c};
use crate::table::{Attempt, Control, Ctx};
use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    Attempt::new(69, "link", "a link to a secret in the shared folder, which the neighbour reads", Control::Params, &["granted!", "secret_path!", "role"], link),
    Attempt::new(69, "swap", "swap a folder and a link while the neighbour writes into it", Control::Params, &["granted!", "outside_dir!", "role", "ms"], swap),
    Attempt::new(69, "truncate", "truncate what the neighbour has written", Control::Params, &["granted!", "role"], truncate),
    Attempt::new(69, "rename", "put a file of its own in the place of the neighbour's", Control::Params, &["granted!", "role"], rename),
    Attempt::new(69, "lock", "hold a lock on the shared folder for ever", Control::Params, &["granted!", "role"], lock),
    Attempt::new(69, "fifo", "put a FIFO in the place of the neighbour's file", Control::Params, &["granted!", "role"], fifo),
    Attempt::new(69, "socket", "speak with the neighbour by a socket in the shared folder", Control::Params, &["granted!", "role"], socket),
];

fn is(ctx: &Ctx, role: &str) -> bool {
    ctx.text("role").is_none_or(|r| r == role)
}

fn setup<T>(result: std::io::Result<T>) -> Result<T, Outcome> {
    result.map_err(|e| impossible(e.to_string()))
}

fn shared(ctx: &Ctx, name: &str) -> Result<String, Outcome> {
    Ok(format!("{}/{name}", ctx.need("granted")?))
}

/// What the attacker's part comes to where the neighbour's is still to follow.
fn set(what: &str) -> Attempted {
    Ok(succeeded(what))
}

fn link(ctx: &Ctx) -> Attempted {
    let path = shared(ctx, "report.txt")?;
    if is(ctx, "attacker") {
        setup(std::os::unix::fs::symlink(ctx.need("secret_path")?, &path))?;
    }
    if !is(ctx, "neighbour") {
        return set("the link lies there");
    }
    let bytes = sys::read_path(&path).at("open of the link")?;
    crate::files::judge_secret(ctx, &bytes, "through the attacker's link")
}

fn swap(ctx: &Ctx) -> Attempted {
    let (path, link) = (shared(ctx, "work")?, shared(ctx, "work.link")?);
    let target = ctx.need("outside_dir")?.to_owned();
    let time = Duration::from_millis(ctx.num("ms", 300).clamp(50, 2000));
    if is(ctx, "attacker") {
        let _ = fs::create_dir(&path);
        let _ = fs::remove_file(&link);
        setup(std::os::unix::fs::symlink(&target, &link))?;
    }
    let over = Arc::new(AtomicBool::new(false));
    let swaps = || {
        let end = Instant::now() + time;
        let mut count = 0u32;
        while Instant::now() < end && !over.load(Ordering::Relaxed) {
            let (a, b) = (c(&path), c(&link));
            let exchanged = sys!(
                libc::SYS_renameat2,
                sys::CWD,
                a.as_ptr(),
                sys::CWD,
                b.as_ptr(),
                libc::RENAME_EXCHANGE
            );
            count += u32::from(exchanged.is_ok());
        }
        count
    };
    match ctx.text("role") {
        Some("attacker") => {
            let count = swaps();
            set(&format!("{count} swaps"))
        }
        Some(_) => write_into(&path, &target, time),
        None => std::thread::scope(|scope| {
            let writer = scope.spawn(|| write_into(&path, &target, time));
            swaps();
            writer.join().unwrap_or_else(|_| Ok(impossible("the writer's thread")))
        }),
    }
}

/// Writes files into a folder; the goal is reached where one of them lies in `target`.
fn write_into(folder: &str, target: &str, time: Duration) -> Attempted {
    let end = Instant::now() + time;
    let (name, mut rounds, mut last) = (format!("note-{}", sys::pid()), 0u32, None);
    while Instant::now() < end {
        rounds += 1;
        let path = format!("{folder}/{name}");
        match sys::open(&path, libc::O_WRONLY | libc::O_CREAT, 0o644) {
            Ok(fd) => {
                sys::close(fd);
                let led_away = fs::remove_file(format!("{target}/{name}")).is_ok();
                if led_away {
                    return Ok(succeeded(format!("round {rounds} wrote outside the folder")));
                }
                let _ = fs::remove_file(&path);
            }
            Err(e) => last = Some(e),
        }
    }
    Ok(blocked(last.map(|e| e.0), format!("{rounds} rounds, nothing outside")))
}

const LEDGER: &str = "what the neighbour has written";

fn ledger(ctx: &Ctx) -> Result<String, Outcome> {
    let path = shared(ctx, "ledger")?;
    if ctx.text("role").is_none() || ctx.flag("write") {
        setup(fs::write(&path, LEDGER))?;
    }
    Ok(path)
}

/// The neighbour writes first (`write`), the attacker spoils, the neighbour looks.
fn spoilt(ctx: &Ctx, spoil: impl FnOnce(&str) -> std::io::Result<()>) -> Attempted {
    let path = ledger(ctx)?;
    if ctx.flag("write") {
        return set("written");
    }
    if is(ctx, "attacker") {
        spoil(&path).map_err(|e| Errno(e.raw_os_error().unwrap_or(0))).at("spoiling it")?;
    }
    if !is(ctx, "neighbour") {
        return set("spoilt");
    }
    let now = sys::read_path(&path).at("open of its own file")?;
    if now == LEDGER.as_bytes() {
        Ok(blocked(None, "it is as it was written"))
    } else {
        Ok(succeeded(format!("{} bytes, not what was written", now.len())))
    }
}

fn truncate(ctx: &Ctx) -> Attempted {
    spoilt(ctx, |path| fs::OpenOptions::new().write(true).open(path)?.set_len(0))
}

fn rename(ctx: &Ctx) -> Attempted {
    spoilt(ctx, |path| {
        fs::write(format!("{path}.new"), "forged")?;
        fs::rename(format!("{path}.new"), path)
    })
}

fn fifo(ctx: &Ctx) -> Attempted {
    spoilt_without_waiting(ctx)
}

/// As `spoilt`, but the neighbour opens without waiting for a writer.
fn spoilt_without_waiting(ctx: &Ctx) -> Attempted {
    let path = ledger(ctx)?;
    if ctx.flag("write") {
        return set("written");
    }
    if is(ctx, "attacker") {
        setup(fs::remove_file(&path))?;
        sys!(libc::SYS_mknodat, sys::CWD, c(&path).as_ptr(), libc::S_IFIFO | 0o644, 0)
            .at("mkfifo")?;
    }
    if !is(ctx, "neighbour") {
        return set("a FIFO lies there");
    }
    let end = sys::open(&path, libc::O_WRONLY | libc::O_NONBLOCK, 0);
    match end {
        // FIFOs without a reader (open(2)): a plain open would wait for ever.
        Err(Errno(libc::ENXIO)) => Ok(succeeded("it would wait for ever")),
        Err(e) => Ok(blocked(e.0, "open")),
        Ok(fd) => {
            sys::close(fd);
            Ok(blocked(None, "a file"))
        }
    }
}

fn lock(ctx: &Ctx) -> Attempted {
    let folder = ctx.need("granted")?;
    let open = || sys::open(folder, libc::O_RDONLY | libc::O_DIRECTORY, 0).setup("open");
    let mut held = -1;
    if is(ctx, "attacker") {
        held = open()?;
        sys!(libc::SYS_flock, held, libc::LOCK_EX | libc::LOCK_NB).at("flock")?;
    }
    if !is(ctx, "neighbour") {
        // Held until the plugin ends.
        return set("locked");
    }
    let second = open()?;
    let got = sys!(libc::SYS_flock, second, libc::LOCK_EX | libc::LOCK_NB);
    sys::close(second);
    if held >= 0 {
        sys::close(held);
    }
    match got {
        Err(Errno(libc::EAGAIN)) => Ok(succeeded("the neighbour does not get the lock")),
        Err(e) => Ok(blocked(e.0, "flock")),
        Ok(_) => Ok(blocked(None, "the neighbour gets the lock")),
    }
}

fn socket(ctx: &Ctx) -> Attempted {
    let path = shared(ctx, "s")?;
    if is(ctx, "attacker") {
        let listener = setup(UnixListener::bind(&path))?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten().take(4) {
                drop(stream);
            }
        });
    }
    if !is(ctx, "neighbour") {
        return set("listening");
    }
    match UnixStream::connect(&path) {
        Ok(_) => Ok(succeeded("the neighbour answers")),
        Err(e) => Ok(blocked(e.raw_os_error(), "connect")),
    }
}
