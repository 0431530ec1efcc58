// System calls, and nothing else. No libc: the helper must be linked without one, so that it is static
// everywhere, small, and free of code that runs before ours.
//
// Every function answers with the kernel's value, or the negative errno.

mod clone;
mod message;
mod numbers;
mod processor;

use core::arch::asm;

pub use clone::*;
pub use message::*;
pub use numbers::{new, nr};
pub use processor::{
    current_processor, leave_processor, processors, share_processors, short_turns,
};

pub type Fd = i32;

pub const EINTR: isize = -4;
pub const EAGAIN: isize = -11;
pub const EINVAL: isize = -22;
pub const ENOSYS: isize = -38;
pub const ENOENT: isize = -2;
pub const ENOTDIR: isize = -20;
pub const EOPNOTSUPP: isize = -95;
pub const EPERM: isize = -1;
pub const EEXIST: isize = -17;
pub const E2BIG: isize = -7;
pub const EBUSY: isize = -16;
pub const EPIPE: isize = -32;
pub const EPROTO: isize = -71;
pub const ESTALE: isize = -116;

/// "All" or "none", where a pid or handle is expected.
pub const EVERY: isize = -1;
pub const AT_FDCWD: Fd = -100;
pub const AT_EMPTY_PATH: usize = 0x1000;
pub const AT_RECURSIVE: usize = 0x8000;
pub const O_RDONLY: usize = 0;
pub const O_WRONLY: usize = 1;
pub const O_CREAT: usize = 0o100;
pub const O_EXCL: usize = 0o200;
#[cfg(target_arch = "x86_64")]
pub const O_DIRECTORY: usize = 0o200000;
#[cfg(target_arch = "aarch64")]
pub const O_DIRECTORY: usize = 0o40000;
pub const O_CLOEXEC: usize = 0o2000000;
pub const O_PATH: usize = 0o10000000;

/// # Safety
/// As the system call `n` with these arguments; pointers must be valid for what the call does with them.
#[cfg(target_arch = "x86_64")]
#[inline]
pub unsafe fn syscall6(n: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let ret: isize;
    // SAFETY: the caller answers for the arguments; rcx and r11 are what the instruction clobbers.
    unsafe {
        asm!("syscall", inlateout("rax") n as isize => ret, in("rdi") a, in("rsi") b, in("rdx") c,
             in("r10") d, in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    ret
}

/// # Safety
/// As for x86_64.
#[cfg(target_arch = "aarch64")]
#[inline]
pub unsafe fn syscall6(n: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let ret: isize;
    // SAFETY: the caller answers for the arguments.
    unsafe {
        asm!("svc 0", in("x8") n, inlateout("x0") a => ret, in("x1") b, in("x2") c, in("x3") d,
             in("x4") e, in("x5") f, options(nostack));
    }
    ret
}

macro_rules! sys {
    ($n:expr) => { sys!($n, 0) };
    ($n:expr, $a:expr) => { sys!($n, $a, 0) };
    ($n:expr, $a:expr, $b:expr) => { sys!($n, $a, $b, 0) };
    ($n:expr, $a:expr, $b:expr, $c:expr) => { sys!($n, $a, $b, $c, 0) };
    ($n:expr, $a:expr, $b:expr, $c:expr, $d:expr) => { sys!($n, $a, $b, $c, $d, 0) };
    ($n:expr, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr) => { sys!($n, $a, $b, $c, $d, $e, 0) };
    ($n:expr, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr) => {
        // SAFETY: every pointer handed over in this program comes from a live reference or a
        // NUL-terminated slice of the plan, valid for the length that is passed with it.
        unsafe { $crate::sys::syscall6($n, $a as usize, $b as usize, $c as usize, $d as usize, $e as usize, $f as usize) }
    };
}
pub(crate) use sys;

pub fn exit(status: i32) -> ! {
    loop {
        sys!(nr::EXIT_GROUP, status);
    }
}

pub fn close(fd: Fd) {
    if fd >= 0 {
        sys!(nr::CLOSE, fd);
    }
}

pub fn read(fd: Fd, buffer: &mut [u8]) -> isize {
    loop {
        let n = sys!(nr::READ, fd, buffer.as_mut_ptr(), buffer.len());
        if n != EINTR {
            return n;
        }
    }
}

pub fn write(fd: Fd, bytes: &[u8]) -> isize {
    loop {
        let n = sys!(nr::WRITE, fd, bytes.as_ptr(), bytes.len());
        if n != EINTR {
            return n;
        }
    }
}

/// `path` must end with a NUL.
pub fn openat(dir: Fd, path: &[u8], flags: usize, mode: usize) -> isize {
    debug_assert!(path.last() == Some(&0));
    sys!(nr::OPENAT, dir, path.as_ptr(), flags | O_CLOEXEC, mode)
}

pub mod resolve {
    pub const NO_MAGICLINKS: u64 = 2;
    pub const NO_SYMLINKS: u64 = 4;
    pub const IN_ROOT: u64 = 16;
}

/// `path` must end with a NUL.
pub fn openat2(dir: Fd, path: &[u8], flags: usize, mode: u64, resolve: u64) -> isize {
    let how: [u64; 3] = [(flags | O_CLOEXEC) as u64, mode, resolve];
    sys!(new::OPENAT2, dir, path.as_ptr(), how.as_ptr(), 24)
}

pub const SIGKILL: i32 = 9;
pub const SIGSTOP: i32 = 19;
pub const SIGCONT: i32 = 18;
pub const SIGCHLD: u64 = 17;

pub fn mount_setattr(fd: Fd, flags: usize, set: u64, clear: u64, propagation: u64, userns: u64) -> isize {
    let attr: [u64; 4] = [set, clear, propagation, userns];
    sys!(new::MOUNT_SETATTR, fd, c"".as_ptr(), flags, attr.as_ptr(), 32)
}

pub mod attr {
    pub const RDONLY: u64 = 1;
    pub const NOSUID: u64 = 2;
    pub const NODEV: u64 = 4;
    pub const NOEXEC: u64 = 8;
    pub const IDMAP: u64 = 0x0010_0000;
}

pub fn prctl(option: usize, a: usize, b: usize, c: usize) -> isize {
    sys!(nr::PRCTL, option, a, b, c, 0)
}

pub mod pr {
    pub const SET_PDEATHSIG: usize = 1;
    pub const GET_DUMPABLE: usize = 3;
    pub const SET_DUMPABLE: usize = 4;
    pub const CAPBSET_DROP: usize = 24;
    pub const SET_SECUREBITS: usize = 28;
    pub const SET_NAME: usize = 15;
    pub const SET_CHILD_SUBREAPER: usize = 36;
    pub const SET_NO_NEW_PRIVS: usize = 38;
    pub const CAP_AMBIENT: usize = 47;
    pub const CAP_AMBIENT_CLEAR_ALL: usize = 4;
    pub const SET_KEEPCAPS: usize = 8;
    pub const SET_MDWE: usize = 65;
}

#[repr(C)]
pub struct PollFd {
    pub fd: Fd,
    pub events: i16,
    pub revents: i16,
}
pub const POLLIN: i16 = 1;
pub const POLLERR: i16 = 8;
pub const POLLHUP: i16 = 16;

/// Waits; `milliseconds` < 0 for ever.
pub fn poll(fds: &mut [PollFd], milliseconds: i64) -> isize {
    let time: [i64; 2] = [milliseconds / 1000, (milliseconds % 1000) * 1_000_000];
    let pointer = if milliseconds < 0 { core::ptr::null() } else { time.as_ptr() };
    sys!(nr::POLL_PPOLL, fds.as_mut_ptr(), fds.len(), pointer, 0, 8)
}

pub fn now_ns() -> u64 {
    const CLOCK_MONOTONIC: usize = 1;
    clock_ns(CLOCK_MONOTONIC)
}

/// What the start times of processes count.
pub fn since_boot_ns() -> u64 {
    const CLOCK_BOOTTIME: usize = 7;
    clock_ns(CLOCK_BOOTTIME)
}

fn clock_ns(clock: usize) -> u64 {
    let mut time = [0i64; 2];
    sys!(nr::CLOCK_GETTIME, clock, time.as_mut_ptr());
    (time[0] as u64).wrapping_mul(1_000_000_000).wrapping_add(time[1] as u64)
}

/// Device and inode of an open handle.
pub fn identity(fd: Fd) -> Option<(u64, u64)> {
    // struct stat begins with st_dev and st_ino (u64 each) on x86_64 and aarch64; 144 and 128 bytes.
    let mut stat = [0u64; 18];
    (sys!(nr::FSTAT, fd, stat.as_mut_ptr()) == 0).then_some((stat[0], stat[1]))
}
