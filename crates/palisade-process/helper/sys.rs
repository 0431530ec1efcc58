// System calls, and nothing else. No libc: the helper must be linked without one, so that it is static
// everywhere, small, and free of code that runs before ours.
//
// Every function answers with the kernel's value, or the negative errno.

use core::arch::asm;

pub type Fd = i32;

#[cfg(target_arch = "x86_64")]
pub mod nr {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const POLL_PPOLL: usize = 271;
    pub const RT_SIGACTION: usize = 13;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const DUP3: usize = 292;
    pub const GETPID: usize = 39;
    pub const SENDMSG: usize = 46;
    pub const RECVMSG: usize = 47;
    pub const EXECVE: usize = 59;
    pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;
    pub const FCHDIR: usize = 81;
    pub const CHDIR: usize = 80;
    pub const UMASK: usize = 95;
    pub const SETSID: usize = 112;
    pub const SETGROUPS: usize = 116;
    pub const SETRESUID: usize = 117;
    pub const SETRESGID: usize = 119;
    pub const CAPSET: usize = 126;
    pub const PIVOT_ROOT: usize = 155;
    pub const PRCTL: usize = 157;
    pub const UMOUNT2: usize = 166;
    pub const SETHOSTNAME: usize = 170;
    pub const MOUNT: usize = 165;
    pub const GETDENTS64: usize = 217;
    pub const CLOCK_GETTIME: usize = 228;
    pub const EXIT_GROUP: usize = 231;
    pub const KEYCTL: usize = 250;
    pub const OPENAT: usize = 257;
    pub const MKDIRAT: usize = 258;
    pub const MKNODAT: usize = 259;
    pub const FCNTL: usize = 72;
    pub const SYMLINKAT: usize = 266;
    pub const FCHMOD: usize = 91;
    pub const FSTAT: usize = 5;
    pub const FSTATFS: usize = 138;
    pub const UNSHARE: usize = 272;
    pub const SETNS: usize = 308;
    pub const SCHED_SETATTR: usize = 314;
    pub const SCHED_GETATTR: usize = 315;
    pub const SCHED_GETAFFINITY: usize = 204;
    pub const SIGNALFD4: usize = 289;
    pub const PIPE2: usize = 293;
    pub const PRLIMIT64: usize = 302;
    pub const SECCOMP: usize = 317;
    pub const GETEUID: usize = 107;
    pub const IOCTL: usize = 16;
    pub const SOCKET: usize = 41;
    pub const BIND: usize = 49;
    pub const LISTEN: usize = 50;
    pub const SOCKETPAIR: usize = 53;
}

#[cfg(target_arch = "aarch64")]
pub mod nr {
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const CLOSE: usize = 57;
    pub const POLL_PPOLL: usize = 73;
    pub const RT_SIGACTION: usize = 134;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const DUP3: usize = 24;
    pub const GETPID: usize = 172;
    pub const SENDMSG: usize = 211;
    pub const RECVMSG: usize = 212;
    pub const EXECVE: usize = 221;
    pub const WAIT4: usize = 260;
    pub const KILL: usize = 129;
    pub const FCHDIR: usize = 50;
    pub const CHDIR: usize = 49;
    pub const UMASK: usize = 166;
    pub const SETSID: usize = 157;
    pub const SETGROUPS: usize = 159;
    pub const SETRESUID: usize = 147;
    pub const SETRESGID: usize = 149;
    pub const CAPSET: usize = 91;
    pub const PIVOT_ROOT: usize = 41;
    pub const PRCTL: usize = 167;
    pub const UMOUNT2: usize = 39;
    pub const SETHOSTNAME: usize = 161;
    pub const MOUNT: usize = 40;
    pub const GETDENTS64: usize = 61;
    pub const CLOCK_GETTIME: usize = 113;
    pub const EXIT_GROUP: usize = 94;
    pub const KEYCTL: usize = 219;
    pub const OPENAT: usize = 56;
    pub const MKDIRAT: usize = 34;
    pub const MKNODAT: usize = 33;
    pub const FCNTL: usize = 25;
    pub const SYMLINKAT: usize = 36;
    pub const FCHMOD: usize = 52;
    pub const FSTAT: usize = 80;
    pub const FSTATFS: usize = 44;
    pub const UNSHARE: usize = 97;
    pub const SETNS: usize = 268;
    pub const SCHED_SETATTR: usize = 274;
    pub const SCHED_GETATTR: usize = 275;
    pub const SCHED_GETAFFINITY: usize = 123;
    pub const SIGNALFD4: usize = 74;
    pub const PIPE2: usize = 59;
    pub const PRLIMIT64: usize = 261;
    pub const SECCOMP: usize = 277;
    pub const GETEUID: usize = 175;
    pub const IOCTL: usize = 29;
    pub const SOCKET: usize = 198;
    pub const BIND: usize = 200;
    pub const LISTEN: usize = 201;
    pub const SOCKETPAIR: usize = 199;
}

/// Calls added since Linux 5.0 have the same number on every architecture.
pub mod new {
    pub const PIDFD_SEND_SIGNAL: usize = 424;
    pub const PIDFD_OPEN: usize = 434;
    pub const OPEN_TREE: usize = 428;
    pub const MOVE_MOUNT: usize = 429;
    pub const FSOPEN: usize = 430;
    pub const FSCONFIG: usize = 431;
    pub const FSMOUNT: usize = 432;
    pub const CLONE3: usize = 435;
    pub const CLOSE_RANGE: usize = 436;
    pub const OPENAT2: usize = 437;
    pub const MOUNT_SETATTR: usize = 442;
    pub const LANDLOCK_CREATE_RULESET: usize = 444;
    pub const LANDLOCK_ADD_RULE: usize = 445;
    pub const LANDLOCK_RESTRICT_SELF: usize = 446;
}

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

/// `struct clone_args` (clone3(2)), version 2: 88 bytes.
#[repr(C)]
#[derive(Default)]
pub struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}

pub const CLONE_VM: u64 = 0x100;
pub const CLONE_FILES: u64 = 0x400;
pub const CLONE_VFORK: u64 = 0x4000;
pub const CLONE_PIDFD: u64 = 0x1000;
pub const CLONE_NEWCGROUP: u64 = 0x0200_0000;
pub const CLONE_NEWUSER: u64 = 0x1000_0000;
pub const CLONE_NEWPID: u64 = 0x2000_0000;
pub const CLONE_NEWNET: u64 = 0x4000_0000;
pub const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
pub const SIGKILL: i32 = 9;
pub const SIGSTOP: i32 = 19;
pub const SIGCONT: i32 = 18;
pub const SIGCHLD: u64 = 17;

/// Forks. Without CLONE_VM, so the child has its own copy of everything and both return.
pub fn clone3(args: &CloneArgs) -> isize {
    sys!(new::CLONE3, args as *const CloneArgs, core::mem::size_of::<CloneArgs>())
}

/// Clones onto the stack of `args`: the child calls `body(argument)`, which never returns.
///
/// # Safety
/// The stack must be memory that nobody else uses while the child lives, its end aligned to 16 bytes; the
/// rest as clone3(2) demands for these flags.
#[cfg(target_arch = "x86_64")]
pub unsafe fn clone_onto(args: &CloneArgs, argument: *mut u8, body: extern "C" fn(*mut u8) -> !) -> isize {
    let pid: isize;
    // SAFETY: in the child, rsp is the new stack and nothing of this frame is touched; it calls a
    // function that never returns. In the parent, the kernel preserves all registers but rax, rcx, r11.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") new::CLONE3 as isize => pid,
            in("rdi") args as *const CloneArgs, in("rsi") core::mem::size_of::<CloneArgs>(),
            in("r12") argument, in("r13") body,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    pid
}

/// # Safety
/// As for x86_64.
#[cfg(target_arch = "aarch64")]
pub unsafe fn clone_onto(args: &CloneArgs, argument: *mut u8, body: extern "C" fn(*mut u8) -> !) -> isize {
    let pid: isize;
    // SAFETY: as for x86_64.
    unsafe {
        asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, #0",
            "mov x0, x21",
            "blr x22",
            "brk #0",
            "2:",
            in("x8") new::CLONE3,
            inlateout("x0") args as *const CloneArgs => pid,
            in("x1") core::mem::size_of::<CloneArgs>(),
            in("x21") argument, in("x22") body,
        );
    }
    pid
}

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

/// How many processors this process may run on.
pub fn processors() -> u64 {
    let mut mask = [0u64; 128];
    sys!(nr::SCHED_GETAFFINITY, 0, core::mem::size_of_val(&mask), mask.as_mut_ptr());
    let count: u32 = mask.iter().map(|word| word.count_ones()).sum();
    u64::from(count.max(1))
}

#[repr(C)]
pub struct IoVec {
    pub base: *mut u8,
    pub len: usize,
}

/// `struct msghdr` of 64-bit Linux.
#[repr(C)]
pub struct MsgHdr {
    pub name: *mut u8,
    pub namelen: u32,
    pub pad1: u32,
    pub iov: *mut IoVec,
    pub iovlen: usize,
    pub control: *mut u8,
    pub controllen: usize,
    pub flags: i32,
    pub pad2: u32,
}

/// Most handles in one message.
pub const MAX_HANDLES: usize = 8;

/// A control buffer for [`MAX_HANDLES`] handles: `struct cmsghdr` (16 bytes) and the handles.
#[repr(C, align(8))]
pub struct Control {
    pub len: usize,
    pub level: i32,
    pub kind: i32,
    pub fds: [Fd; MAX_HANDLES],
}

/// Receives one message and its handles, all close-on-exec. The length, and how many handles.
pub fn recv(fd: Fd, buffer: &mut [u8], fds: &mut [Fd; MAX_HANDLES]) -> (isize, usize) {
    const MSG_CMSG_CLOEXEC: usize = 0x4000_0000;
    const TRUNCATED: i32 = 0x20 | 0x8;
    let mut iov = IoVec { base: buffer.as_mut_ptr(), len: buffer.len() };
    let mut control = Control { len: 0, level: 0, kind: 0, fds: [-1; MAX_HANDLES] };
    let mut message = MsgHdr {
        name: core::ptr::null_mut(),
        namelen: 0,
        pad1: 0,
        iov: &mut iov,
        iovlen: 1,
        control: (&raw mut control).cast(),
        controllen: core::mem::size_of::<Control>(),
        flags: 0,
        pad2: 0,
    };
    let n = loop {
        let n = sys!(nr::RECVMSG, fd, &raw mut message, MSG_CMSG_CLOEXEC);
        if n != EINTR {
            break n;
        }
    };
    let mut count = 0;
    if n >= 0 && message.controllen >= 16 && control.level == 1 && control.kind == 1 {
        count = (control.len.saturating_sub(16) / 4).min(MAX_HANDLES);
        *fds = control.fds;
    }
    if n >= 0 && message.flags & TRUNCATED != 0 {
        return (E2BIG, count);
    }
    (n, count)
}

/// Sends `bytes`, with one handle if `handle` is not negative.
pub fn send(fd: Fd, bytes: &[u8], handle: Fd) -> isize {
    send_with(fd, bytes, handle, 0)
}

/// Sends `bytes` if there is room for them.
pub fn send_if_room(fd: Fd, bytes: &[u8]) -> isize {
    const MSG_DONTWAIT: usize = 0x40;
    send_with(fd, bytes, -1, MSG_DONTWAIT)
}

fn send_with(fd: Fd, bytes: &[u8], handle: Fd, flags: usize) -> isize {
    const MSG_NOSIGNAL: usize = 0x4000;
    let mut iov = IoVec { base: bytes.as_ptr().cast_mut(), len: bytes.len() };
    let mut control = Control { len: 20, level: 1, kind: 1, fds: [-1; MAX_HANDLES] };
    control.fds[0] = handle;
    let with = handle >= 0;
    let message = MsgHdr {
        name: core::ptr::null_mut(),
        namelen: 0,
        pad1: 0,
        iov: &mut iov,
        iovlen: 1,
        control: if with { (&raw mut control).cast() } else { core::ptr::null_mut() },
        controllen: if with { 24 } else { 0 },
        flags: 0,
        pad2: 0,
    };
    loop {
        let n = sys!(nr::SENDMSG, fd, &raw const message, MSG_NOSIGNAL | flags);
        if n != EINTR {
            return n;
        }
    }
}

/// Asks for short turns of the processor for this process and all that it starts (`sched_runtime` of an
/// ordinary process, a hint since Linux 6.12; sched(7), sched_setattr(2)): who runs need not finish a long
/// one before somebody else who wakes up gets the processor. What each gets in all stays the same.
pub fn short_turns() {
    // struct sched_attr, version 0: size, policy; flags; nice, priority; runtime, deadline, period.
    const SIZE: usize = 48;
    const TURN_NS: u64 = 100_000;
    let mut attributes = [0u64; SIZE / 8];
    if sys!(nr::SCHED_GETATTR, 0, attributes.as_mut_ptr(), SIZE, 0) < 0 || attributes[0] >> 32 != 0 {
        // No ordinary process (SCHED_OTHER): somebody has chosen otherwise.
        return;
    }
    attributes[3] = TURN_NS;
    sys!(nr::SCHED_SETATTR, 0, attributes.as_ptr(), 0);
}

/// Device and inode of an open handle.
pub fn identity(fd: Fd) -> Option<(u64, u64)> {
    // struct stat begins with st_dev and st_ino (u64 each) on x86_64 and aarch64; 144 and 128 bytes.
    let mut stat = [0u64; 18];
    (sys!(nr::FSTAT, fd, stat.as_mut_ptr()) == 0).then_some((stat[0], stat[1]))
}
