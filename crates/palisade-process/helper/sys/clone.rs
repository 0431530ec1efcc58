// Making processes (clone3(2)).

use core::arch::asm;

use super::{new, sys};

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
pub const CLONE_NEWNS: u64 = 0x0002_0000;
pub const CLONE_NEWUTS: u64 = 0x0400_0000;
pub const CLONE_NEWIPC: u64 = 0x0800_0000;
pub const CLONE_NEWCGROUP: u64 = 0x0200_0000;
pub const CLONE_NEWUSER: u64 = 0x1000_0000;
pub const CLONE_NEWPID: u64 = 0x2000_0000;
pub const CLONE_NEWNET: u64 = 0x4000_0000;
pub const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

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
