// Palisade's helper: the spawner, and pid 1 of every plugin.
//
// The host is a large program with many threads; forking it is slow and unsafe, and namespaces want a
// process with one thread. So the host starts this small static program once, and asks it for
// launches over a socket (its standard input). The helper trusts the host and nobody else: the socket is
// a pair that the host made, and is closed in every child before anything of the plugin runs.
//
// It is built by the crate's build script without libc and without the standard library, and embedded.
#![no_std]
#![no_main]
#![deny(unsafe_op_in_unsafe_fn)]

#[allow(dead_code)]
mod plan;
#[allow(dead_code)]
mod sys;

#[cfg(feature = "ablation")]
mod ablation;
mod idmap;
mod init;
mod laps;
mod network;
mod observe;
mod police;
mod program;
mod spawner;
mod support;
mod times;
mod tree;
mod violation;
mod walls;

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "and rsp, -16",
    "call {entry}",
    "ud2",
    entry = sym entry,
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, #0",
    "mov x30, #0",
    "bl {entry}",
    "brk #0",
    entry = sym entry,
);

extern "C" fn entry() -> ! {
    spawner::serve()
}
