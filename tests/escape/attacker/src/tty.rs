//! Attempt 29 (and its twins of 22): pushing input into a terminal.
//!
//! Outside, the attempt gets a terminal of its own as stdin, stdout, stderr and controlling
//! terminal, so that a success types into nothing that anybody reads.

use crate::outcome::{At, Attempted, Outcome, blocked, succeeded};
use crate::sys::{self, close, open};
use crate::table::{Attempt, Control, Ctx};
use std::time::Duration;

const HIGH: u64 = 1 << 32;

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    Attempt::new(29, "sti-stdin", "TIOCSTI on fd 0", Control::Root, &[], |x| on_fd(x, 0, |fd| sti(fd, 0))),
    Attempt::new(29, "sti-stdout", "TIOCSTI on fd 1", Control::Root, &[], |x| on_fd(x, 1, |fd| sti(fd, 0))),
    Attempt::new(29, "sti-stderr", "TIOCSTI on fd 2", Control::Root, &[], |x| on_fd(x, 2, |fd| sti(fd, 0))),
    Attempt::new(29, "sti-dev-tty", "TIOCSTI on /dev/tty", Control::Root, &[], |x| on_tty(x, |fd| sti(fd, 0))),
    Attempt::new(29, "sti-own-pty", "TIOCSTI on a terminal of our own", Control::Root, &[], |_| on_own(|fd| own_sti(fd, 0))),
    Attempt::new(22, "sti-own-pty-high", "TIOCSTI with bit 32 set", Control::Root, &[], |_| on_own(|fd| own_sti(fd, HIGH))),
    Attempt::new(22, "sti-stdout-high", "TIOCSTI with bit 32 set on fd 1", Control::Root, &[], |x| on_fd(x, 1, |fd| sti(fd, HIGH))),
    Attempt::new(29, "linux", "TIOCLINUX on /dev/tty", Control::None("needs a virtual console"), &[], |x| on_tty(x, |fd| ioctl(fd, libc::TIOCLINUX, 6))),
    Attempt::new(29, "setd", "TIOCSETD on a terminal of our own", Control::Run, &[], |_| on_own(set_discipline)),
    Attempt::new(29, "sctty", "TIOCSCTTY on a terminal of our own", Control::Run, &[], |_| on_own(control)),
    Attempt::new(29, "sctty-stdout", "take fd 1 as controlling terminal", Control::Run, &[], |x| on_fd(x, 1, control)),
    Attempt::new(29, "pgrp-stdin", "tcsetpgrp on fd 0", Control::Run, &[], |x| on_fd(x, 0, foreground)),
    Attempt::new(29, "pgrp-stdout", "tcsetpgrp on fd 1", Control::Run, &[], |x| on_fd(x, 1, foreground)),
    Attempt::new(29, "pgrp-dev-tty", "tcsetpgrp on /dev/tty", Control::Run, &[], |x| on_tty(x, foreground)),
    Attempt::new(29, "is-tty", "any of 0, 1, 2 is a terminal", Control::Run, &[], |x| on_fd(x, 0, |_| any_terminal())),
];

/// A terminal pair: (master, the other side).
fn pair() -> Result<(i32, i32), Outcome> {
    let master = open("/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY, 0).at("open /dev/ptmx")?;
    let unlocked = 0i32;
    sys!(libc::SYS_ioctl, master, libc::TIOCSPTLCK, &raw const unlocked).at("unlock the pty")?;
    // TIOCGPTPEER opens the other side without a path.
    let side = sys!(libc::SYS_ioctl, master, 0x5441, libc::O_RDWR | libc::O_NOCTTY)
        .or_else(|_| pts_by_path(master))
        .at("open the other side")?;
    Ok((master, side as i32))
}

fn pts_by_path(master: i32) -> Result<i64, crate::outcome::Errno> {
    let mut number = 0u32;
    sys!(libc::SYS_ioctl, master, libc::TIOCGPTN, &raw mut number)?;
    open(&format!("/dev/pts/{number}"), libc::O_RDWR | libc::O_NOCTTY, 0).map(i64::from)
}

/// Outside: a new session with a terminal of our own on 0, 1 and 2. It runs in a watched child,
/// whose answer goes through a pipe.
fn own_terminal() -> Result<i32, Outcome> {
    let (master, side) = pair()?;
    // SAFETY: plain calls in the watched child.
    unsafe {
        // A group leader cannot make a session: the attempt runs one fork further down.
        libc::setsid();
        libc::ioctl(side, libc::TIOCSCTTY, 0);
        for fd in 0..3 {
            libc::dup2(side, fd);
        }
    }
    Ok(master)
}

/// Forks, so that a session can be made, and runs `attack` there.
fn in_session(attack: impl FnOnce() -> Attempted) -> Attempted {
    Ok(sys::supervise(Duration::from_secs(10), || {
        // `supervise` makes the child a group leader; one fork more is none.
        sys::supervise_in_session(Duration::from_secs(8), || attack().unwrap_or_else(|o| o))
    }))
}

fn on_fd(ctx: &Ctx, fd: i32, attack: fn(i32) -> Attempted) -> Attempted {
    if !ctx.outside() {
        return attack(fd);
    }
    in_session(|| {
        own_terminal()?;
        attack(fd)
    })
}

fn on_tty(ctx: &Ctx, attack: fn(i32) -> Attempted) -> Attempted {
    let with = || {
        let fd = open("/dev/tty", libc::O_RDWR, 0).at("open /dev/tty")?;
        let outcome = attack(fd);
        close(fd);
        outcome
    };
    if !ctx.outside() {
        return with();
    }
    in_session(|| {
        own_terminal()?;
        with()
    })
}

/// On a fresh terminal that a new session of ours controls, inside and outside alike.
fn on_own(attack: fn(i32) -> Attempted) -> Attempted {
    in_session(|| {
        let (_master, side) = pair()?;
        // SAFETY: plain call; the process is no group leader.
        unsafe { libc::setsid() };
        attack(side)
    })
}

/// The kernel wants it to be the controlling terminal; a wall may refuse that already.
fn own_sti(fd: i32, high: u64) -> Attempted {
    let _ = sys!(libc::SYS_ioctl, fd, libc::TIOCSCTTY, 0);
    sti(fd, high)
}

/// Succeeds where the byte can be read back as input.
fn sti(fd: i32, high: u64) -> Attempted {
    let byte = b'\n';
    sys!(libc::SYS_ioctl, fd, libc::TIOCSTI | high, &raw const byte).at("TIOCSTI")?;
    if sys::poll(fd, libc::POLLIN, Duration::from_millis(500)) {
        Ok(succeeded("a key was pressed"))
    } else {
        Ok(blocked(None, "answered yes, but nothing can be read"))
    }
}

fn ioctl(fd: i32, request: u64, argument: u8) -> Attempted {
    sys!(libc::SYS_ioctl, fd, request, &raw const argument).at("ioctl")?;
    Ok(succeeded("answered yes"))
}

fn set_discipline(fd: i32) -> Attempted {
    // N_TTY, which it has already.
    let discipline = 0i32;
    sys!(libc::SYS_ioctl, fd, libc::TIOCSETD, &raw const discipline).at("TIOCSETD")?;
    Ok(succeeded("the line discipline can be set"))
}

fn control(fd: i32) -> Attempted {
    sys!(libc::SYS_ioctl, fd, libc::TIOCSCTTY, 0).at("TIOCSCTTY")?;
    Ok(succeeded("it is our controlling terminal"))
}

fn foreground(fd: i32) -> Attempted {
    // SAFETY: plain calls; SIGTTOU would stop a background process here.
    let group = unsafe {
        libc::signal(libc::SIGTTOU, libc::SIG_IGN);
        libc::getpgrp()
    };
    sys!(libc::SYS_ioctl, fd, libc::TIOCSPGRP, &raw const group).at("TIOCSPGRP")?;
    Ok(succeeded("we are the foreground group"))
}

fn any_terminal() -> Attempted {
    // SAFETY: isatty touches nothing.
    let found: Vec<i32> = (0..3).filter(|fd| unsafe { libc::isatty(*fd) } == 1).collect();
    if found.is_empty() {
        return Ok(blocked(libc::ENOTTY, "none of 0, 1, 2 is a terminal"));
    }
    Ok(succeeded(format!("terminals: {found:?}")))
}
