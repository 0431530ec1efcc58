//! Attempts 20 to 24: going round the system call filter.
//!
//! Other call conventions (int 0x80, x32), bits above the 32 that the kernel looks at, io_uring,
//! and filters of our own.

use crate::outcome::{At, Attempted, Errno, blocked, impossible, succeeded};
use crate::sys::{self, c};
use crate::table::{Attempt, Control, Ctx};

const HIGH: u64 = 1 << 32;

#[rustfmt::skip]
pub const TABLE: &[Attempt] = &[
    Attempt::new(20, "getpid", "getpid by int 0x80", Control::Run, &[], |_| int80_getpid()),
    Attempt::new(20, "unshare", "unshare NEWUSER by int 0x80", Control::Run, &[], |_| int80_result(310, 0x1000_0000, 0, 0, "unshare")),
    Attempt::new(20, "socket", "nf_tables socket by int 0x80 (call 359)", Control::Run, &[], |_| int80_result(359, 16, 3, 12, "socket")),
    Attempt::new(20, "ptrace-number", "the number of a permitted x86_64 call that is another i386 call (26, ptrace)", Control::Run, &[], |_| int80_result(26, 0, 0, 0, "ptrace TRACEME")),
    Attempt::new(21, "getpid", "getpid with the x32 bit", Control::None("this kernel has no x32 calls (CONFIG_X86_X32_ABI); proven on the filter evaluator"), &[], |_| x32(libc::SYS_getpid, &[], "getpid")),
    Attempt::new(21, "unshare", "unshare NEWUSER with the x32 bit", Control::None("this kernel has no x32 calls (CONFIG_X86_X32_ABI); proven on the filter evaluator"), &[], |_| x32(libc::SYS_unshare, &[libc::CLONE_NEWUSER as u64], "unshare")),
    Attempt::new(21, "execve", "the x32-only numbers (520, execve)", Control::None("this kernel has no x32 calls (CONFIG_X86_X32_ABI); proven on the filter evaluator"), &[], |_| x32(520, &[0, 0, 0], "execve")),
    Attempt::new(22, "socket-packet", "socket(AF_PACKET) with bit 32 set", Control::Root, &[], |_| socket(17 | HIGH, 3, 0)),
    Attempt::new(22, "socket-alg", "socket(AF_ALG) with bit 32 set", Control::Run, &[], |_| socket(38 | HIGH, 5, 0)),
    Attempt::new(22, "socket-vsock", "socket(AF_VSOCK) with bit 32 set", Control::Run, &[], |_| socket(40 | HIGH, 1, 0)),
    Attempt::new(22, "socket-netfilter", "socket(AF_NETLINK) with bit 32 of the protocol set", Control::Run, &[], |_| socket(16, 3, 12 | HIGH)),
    Attempt::new(22, "socket-raw", "SOCK_RAW with bit 32 of the type set", Control::Root, &[], |_| socket(2, 3 | HIGH, 1)),
    Attempt::new(22, "socket-raw-sign", "SOCK_RAW with all high bits of the type set", Control::Root, &[], |_| socket(2, 3 | !0 << 32, 1)),
    Attempt::new(22, "prctl-set-mm", "PR_SET_MM with bit 32 set", Control::Run, &[], |_| set_mm(HIGH)),
    Attempt::new(22, "prctl-ptracer", "PR_SET_PTRACER with bit 32 set", Control::Run, &[], |_| set_ptracer(HIGH)),
    Attempt::new(22, "personality", "personality(READ_IMPLIES_EXEC) with bit 32 set", Control::Run, &[], |_| personality(HIGH)),
    Attempt::new(22, "sched-fifo", "sched_setscheduler(SCHED_FIFO) with bit 32 set", Control::Root, &[], |_| sched_fifo(HIGH)),
    Attempt::new(23, "setup", "io_uring_setup", Control::Run, &[], |_| uring_setup()),
    Attempt::new(23, "openat", "IORING_OP_OPENAT", Control::Run, &["secret_path"], uring_openat),
    Attempt::new(23, "socket", "IORING_OP_SOCKET", Control::Run, &[], |_| uring_socket()),
    Attempt::new(23, "enter", "io_uring_enter on a descriptor that is not a ring", Control::Run, &[], |_| reached(sys!(libc::SYS_io_uring_enter, -1, 0, 0, 0, 0, 0), &[libc::EBADF], "io_uring_enter")),
    Attempt::new(23, "register", "io_uring_register on a descriptor that is not a ring", Control::Run, &[], |_| reached(sys!(libc::SYS_io_uring_register, 1_000_000, 2, 0, 0), &[libc::EBADF], "io_uring_register")),
    Attempt::new(24, "listener", "a notify listener of our own", Control::Run, &[], |_| listener()),
    Attempt::new(24, "looser", "a nested filter that allows what the first denies", Control::None("the kernel takes the strictest of all filters"), &[], |_| looser()),
    Attempt::new(24, "strict-mode", "prctl(PR_SET_SECCOMP, STRICT)", Control::Run, &[], |_| strict()),
];

/// For calls that are made with arguments which no kernel accepts: the errno that only the kernel
/// itself gives shows that no wall stood before it.
pub fn reached(result: Result<i64, Errno>, kernel: &[i32], what: &str) -> Attempted {
    match result {
        Ok(value) => Ok(succeeded(format!("{what} answered {value}"))),
        Err(e) if kernel.contains(&e.0) => Ok(succeeded(format!(
            "{what} reached the kernel ({})",
            crate::outcome::errno_name(e.0)
        ))),
        Err(e) => Err(blocked(e.0, what)),
    }
}

/// One i386 call; the answer as the 32-bit kernel entry gives it.
#[cfg(target_arch = "x86_64")]
fn int80(nr: u32, a: u32, b: u32, c: u32) -> Option<i32> {
    let answer: i32;
    // SAFETY: rbx belongs to LLVM and is put back; the entry clears r8 to r11.
    unsafe {
        std::arch::asm!(
            "push rbx", "mov ebx, {a:e}", "int 0x80", "pop rbx",
            a = in(reg) a, inlateout("eax") nr => answer, in("ecx") b, in("edx") c,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    Some(answer)
}

#[cfg(not(target_arch = "x86_64"))]
fn int80(_: u32, _: u32, _: u32, _: u32) -> Option<i32> {
    None
}

fn int80_getpid() -> Attempted {
    match int80(20, 0, 0, 0) {
        None => Ok(impossible("not an x86_64 machine")),
        Some(answer) if answer == sys::pid() => Ok(succeeded("the i386 entry answers")),
        Some(answer) => Ok(blocked(-answer, "getpid")),
    }
}

fn int80_result(nr: u32, a: u32, b: u32, c: u32, what: &str) -> Attempted {
    match int80(nr, a, b, c) {
        None => Ok(impossible("not an x86_64 machine")),
        Some(answer) if answer >= 0 => Ok(succeeded(format!("i386 {what} answered {answer}"))),
        Some(answer) => Ok(blocked(-answer, format!("i386 {what}"))),
    }
}

fn x32(number: i64, args: &[u64], what: &str) -> Attempted {
    if !cfg!(target_arch = "x86_64") {
        return Ok(impossible("not an x86_64 machine"));
    }
    let arg = |i: usize| args.get(i).copied().unwrap_or(0);
    let answer = sys!(number | 0x4000_0000, arg(0), arg(1), arg(2));
    // The x32 execve was given a null path: EFAULT is its own.
    reached(answer, &[libc::EFAULT], what)
}

fn socket(domain: u64, kind: u64, protocol: u64) -> Attempted {
    let fd = sys!(libc::SYS_socket, domain, kind, protocol).at("socket")?;
    sys::close(fd as i32);
    Ok(succeeded(format!("socket({domain:#x}, {kind:#x}, {protocol:#x})")))
}

/// PR_SET_MM_MAP_SIZE only asks for a size, so that it needs no capability.
pub fn set_mm(high: u64) -> Attempted {
    let mut size = 0u32;
    let option = libc::PR_SET_MM as u64 | high;
    sys!(libc::SYS_prctl, option, libc::PR_SET_MM_MAP_SIZE, &raw mut size, 0, 0).at("prctl")?;
    Ok(succeeded(format!("PR_SET_MM answered {size}")))
}

pub fn set_ptracer(high: u64) -> Attempted {
    let option = libc::PR_SET_PTRACER as u64 | high;
    match sys!(libc::SYS_prctl, option, u64::MAX, 0, 0, 0) {
        Ok(_) => Ok(succeeded("any process may trace us now")),
        Err(Errno(libc::EINVAL)) => Ok(succeeded("reached the kernel (EINVAL: no Yama here)")),
        Err(e) => Err(blocked(e.0, "prctl")),
    }
}

pub fn personality(high: u64) -> Attempted {
    const READ_IMPLIES_EXEC: u64 = 0x0040_0000;
    sys!(libc::SYS_personality, READ_IMPLIES_EXEC | high).at("personality")?;
    let now = sys!(libc::SYS_personality, 0xffff_ffffu64).unwrap_or(0);
    let _ = sys!(libc::SYS_personality, 0);
    if now as u64 & READ_IMPLIES_EXEC == 0 {
        return Ok(blocked(None, format!("answered yes, but the personality is {now:#x}")));
    }
    Ok(succeeded("READ_IMPLIES_EXEC is set"))
}

pub fn sched_fifo(high: u64) -> Attempted {
    let priority = 1i32;
    let policy = libc::SCHED_FIFO as u64 | high;
    sys!(libc::SYS_sched_setscheduler, 0, policy, &raw const priority).at("sched_setscheduler")?;
    let now = sys!(libc::SYS_sched_getscheduler, 0).unwrap_or(0);
    let normal = 0i32;
    let _ = sys!(libc::SYS_sched_setscheduler, 0, libc::SCHED_OTHER, &raw const normal);
    if now != i64::from(libc::SCHED_FIFO) {
        return Ok(blocked(None, format!("answered yes, but the policy is {now}")));
    }
    Ok(succeeded("SCHED_FIFO is set"))
}

/// `struct io_uring_params` as words of 32 bits; sizes from `linux/io_uring.h`.
type RingParams = [u32; 30];

fn ring() -> Result<(i32, RingParams), Errno> {
    let mut params: RingParams = [0; 30];
    let fd = sys!(libc::SYS_io_uring_setup, 4, params.as_mut_ptr())?;
    Ok((fd as i32, params))
}

fn uring_setup() -> Attempted {
    let (fd, _) = ring().at("io_uring_setup")?;
    sys::close(fd);
    Ok(succeeded("a ring was made"))
}

/// Submits one entry and gives its result.
fn submit(entry: &[u64; 8]) -> Result<i32, crate::outcome::Outcome> {
    let (fd, p) = ring().at("io_uring_setup")?;
    // Offsets: sq_off begins at word 10 (head, tail, ring_mask, ring_entries, flags, dropped,
    // array), cq_off at word 20 (head, tail, ring_mask, ring_entries, overflow, cqes).
    let (sq_tail, sq_array) = (p[11] as usize, p[16] as usize);
    let (cq_tail, cqes) = (p[21] as usize, p[25] as usize);
    let (rw, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    let rings = sys!(libc::SYS_mmap, 0, 16384, rw, shared, fd, 0).at("mmap of the ring")?;
    let entries =
        sys!(libc::SYS_mmap, 0, 4096, rw, shared, fd, 0x1000_0000u64).at("mmap of the entries")?;
    // SAFETY: both maps are live, and the offsets are the kernel's own for this ring.
    let answered = unsafe {
        let rings = rings as *mut u8;
        std::ptr::copy_nonoverlapping(entry.as_ptr(), entries as *mut u64, 8);
        rings.add(sq_array).cast::<u32>().write_volatile(0);
        rings.add(sq_tail).cast::<u32>().write_volatile(1);
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        sys!(libc::SYS_io_uring_enter, fd, 1, 1, 1, 0, 0).at("io_uring_enter")?;
        let done = rings.add(cq_tail).cast::<u32>().read_volatile();
        (done > 0).then(|| rings.add(cqes + 8).cast::<i32>().read_volatile())
    };
    sys::close(fd);
    answered.ok_or_else(|| blocked(None, "the ring gave no completion"))
}

fn uring_openat(ctx: &Ctx) -> Attempted {
    let path = c(ctx.text("secret_path").unwrap_or("/"));
    // opcode 18, fd AT_FDCWD; addr is the path, open_flags are zero (O_RDONLY).
    let head = 18u64 | (libc::AT_FDCWD as u32 as u64) << 32;
    match submit(&[head, 0, path.as_ptr() as u64, 0, 0, 0, 0, 0])? {
        fd if fd >= 0 => Ok(succeeded(format!("{} opened by io_uring", path.to_string_lossy()))),
        errno => Ok(blocked(-errno, "IORING_OP_OPENAT")),
    }
}

fn uring_socket() -> Attempted {
    // opcode 45: fd is the domain, off the type, len the protocol. AF_INET, SOCK_STREAM.
    match submit(&[45 | 2 << 32, 1, 0, 0, 0, 0, 0, 0])? {
        fd if fd >= 0 => Ok(succeeded("a socket was made by io_uring")),
        errno => Ok(blocked(-errno, "IORING_OP_SOCKET")),
    }
}

/// Installs a filter; `flags` as in seccomp(2).
fn install(program: &[libc::sock_filter], flags: u64) -> Result<i64, Errno> {
    let _ = sys!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    let program =
        libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    sys!(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
}

const ALLOW_ALL: [libc::sock_filter; 1] =
    [libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }];

fn listener() -> Attempted {
    let fd = install(&ALLOW_ALL, 1 << 3).at("seccomp NEW_LISTENER")?;
    sys::close(fd as i32);
    Ok(succeeded("a listener was given"))
}

fn looser() -> Attempted {
    let before = sys!(libc::SYS_unshare, libc::CLONE_NEWUSER);
    install(&ALLOW_ALL, 0).at("seccomp SET_MODE_FILTER")?;
    match (before, sys!(libc::SYS_unshare, libc::CLONE_NEWUSER)) {
        (Err(_), Ok(_)) => Ok(succeeded("unshare was denied and is allowed now")),
        (_, Err(e)) => Ok(blocked(e.0, "unshare after the nested filter")),
        (Ok(_), Ok(_)) => Ok(impossible("unshare was never denied here")),
    }
}

fn strict() -> Attempted {
    // In a child: it may only read, write and exit afterwards, by the bare `exit` call.
    let child = sys::fork().setup("fork")?;
    if child == 0 {
        let set = sys!(libc::SYS_prctl, libc::PR_SET_SECCOMP, 1, 0, 0, 0);
        let status = set.map_or_else(|e| e.0, |_| 0);
        let _ = sys!(libc::SYS_exit, status);
    }
    match sys::wait_child(child, std::time::Duration::from_secs(5), 0) {
        Some(s) if libc::WIFEXITED(s) && libc::WEXITSTATUS(s) == 0 => {
            Ok(succeeded("strict mode is set"))
        }
        Some(s) if libc::WIFEXITED(s) => Ok(blocked(libc::WEXITSTATUS(s), "prctl")),
        other => Ok(blocked(None, format!("the child ended with {other:?}"))),
    }
}
