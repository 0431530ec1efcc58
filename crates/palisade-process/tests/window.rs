//! There is no window: limits hold before a program's first instruction. A program that begins with nothing
//! but an attack on them, at its first instruction and without a library that would start first, gets not
//! one process and not a page more than it may have.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod support;

use std::{process::Command, time::Duration};

use palisade_model::{Guarantee, Level};
use palisade_process::{Options, ProcessBackend};
use palisade_sandbox::{Backend, ExitCause, Runtime, Wire, stream::ByteWire};
use support::{Bench, bench};
use tokio::io::AsyncReadExt as _;

const MIB: u64 = 1 << 20;
/// What the program asks for: far more than the limit.
const ASKED: u64 = 256 * MIB;
const MEMORY: u64 = 8 * MIB;
/// What memory groups may hold beyond the limit for a moment: the kernel charges in batches.
const CGROUP_SLACK: u64 = 4 * MIB;
const EAGAIN: u32 = 11;
/// How often: a window that is open for microseconds is not met every time.
const ROUNDS: usize = 10;

/// Static and freestanding: the first instructions of the process are these. Its only argument says what to
/// take; what it got goes to standard output.
const PROGRAM: &str = r#"
typedef unsigned long word;
#if defined(__x86_64__)
enum { NR_WRITE = 1, NR_MMAP = 9, NR_CLONE = 56, NR_EXIT = 231, NR_SELECT = 270 };
static long call(long number, long a, long b, long c, long d, long e, long f) {
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall" : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
__asm__(".globl _start\n_start: xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call start\n");
#elif defined(__aarch64__)
enum { NR_WRITE = 64, NR_MMAP = 222, NR_CLONE = 220, NR_EXIT = 94, NR_SELECT = 72 };
static long call(long number, long a, long b, long c, long d, long e, long f) {
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b,
                  x2 __asm__("x2") = c, x3 __asm__("x3") = d, x4 __asm__("x4") = e,
                  x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}
__asm__(".globl _start\n_start: mov x29, #0\n mov x0, sp\n bl start\n");
#endif

static char *number(char *to, word n) {
    if (n >= 10) to = number(to, n / 10);
    *to++ = (char)('0' + n % 10);
    return to;
}

static void say(word first, word second) {
    char line[48], *end = number(line, first);
    *end++ = ' ';
    end = number(end, second);
    call(NR_WRITE, 1, (long)line, end - line, 0, 0, 0);
    call(NR_EXIT, 0, 0, 0, 0, 0, 0);
}

/* Each child stays. */
static void processes(void) {
    const long SIGCHLD = 17;
    for (word n = 0; n < 64; n++) {
        long child = call(NR_CLONE, SIGCHLD, 0, 0, 0, 0, 0);
        if (child == 0)
            for (;;) call(NR_SELECT, 0, 0, 0, 0, 0, 0);
        if (child < 0) say(n, (word)-child);
    }
    say(64, 0);
}

static void memory(word bytes) {
    char *at = (char *)call(NR_MMAP, 0, (long)bytes, 3, 0x22, -1, 0);
    if ((word)at > -4096ul) say(0, -(word)at);
    for (word n = 0; n < bytes; n += 4096) *(volatile char *)(at + n) = 1;
    say(bytes, 0);
}

__attribute__((used)) void start(word *stack) {
    char **argument = (char **)(stack + 2);
    if (argument[0][0] == 'p') processes();
    else memory(ASKED);
}
"#;

fn attacker(what: &str) -> Bench {
    let mut bench = bench(Runtime::Native, "first.c", PROGRAM.as_bytes());
    let root = &bench.artifact.content.root;
    let compiled = Command::new("cc")
        .args(["-O1", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector"])
        .args(["-fno-pie", "-no-pie", "-Wall", "-Wextra", "-Werror"])
        .arg(format!("-DASKED={ASKED}ul"))
        .arg("-o")
        .args([root.join("first"), root.join("first.c")])
        .status();
    assert!(compiled.expect("a C compiler").success());
    bench.artifact.program.file = "first".into();
    bench.artifact.program.args = vec![what.into()];
    bench
}

/// Runs it to its end: what it said, and how it ended.
async fn told(bench: &mut Bench, backend: &ProcessBackend) -> (String, palisade_sandbox::Exit) {
    let (wire, ends) = ByteWire::new();
    bench.spec.wire = Wire::Bytes(wire);
    let instance = bench.launch(backend).await.unwrap();
    let mut ends = ends.await.unwrap();
    let mut said = String::new();
    let whole = async {
        ends.from.read_to_string(&mut said).await.unwrap();
        instance.wait().await
    };
    let exit = tokio::time::timeout(Duration::from_secs(20), whole).await.expect("it ends");
    (said, exit)
}

/// Whether the kernel counts it in a group; root in CI always has them.
async fn has_groups(backend: &ProcessBackend, guarantee: Guarantee) -> bool {
    let facts = backend.probe().await;
    let by_kernel = facts.guarantees.level(guarantee) == Level::Kernel;
    println!("{guarantee}: by the kernel: {by_kernel}; {:?}", facts.findings);
    if !by_kernel {
        let in_ci = std::env::var("CI").is_ok_and(|v| v == "true");
        assert!(!in_ci, "in CI nothing may be skipped, and there are no cgroups for {guarantee}");
        eprintln!("SKIPPED: there are no cgroups for {guarantee}");
    }
    by_kernel
}

#[tokio::test]
async fn the_first_process_too_many_is_not_made() {
    for cgroups in [true, false] {
        let mut bench = attacker("processes");
        bench.spec.limits.pids = 2;
        let backend = ProcessBackend::new(Options { cgroups, ..Options::default() });
        for round in 0..ROUNDS {
            let (said, exit) = told(&mut bench, &backend).await;
            // The program is one of the two, and the kernel itself refuses, with or without groups.
            assert_eq!(said, format!("1 {EAGAIN}"), "cgroups {cgroups}, round {round}: {exit}");
            assert_eq!(exit.cause, ExitCause::Exited(0));
        }
    }
}

#[tokio::test]
async fn the_first_page_too_many_ends_it() {
    let mut bench = attacker("memory");
    bench.spec.limits.memory = MEMORY;
    let backend = ProcessBackend::new(Options::default());
    if !has_groups(&backend, Guarantee::MemoryCapped).await {
        return;
    }
    for round in 0..ROUNDS {
        let (said, exit) = told(&mut bench, &backend).await;
        assert_eq!(exit.cause, ExitCause::OutOfMemory, "round {round}: it said {said:?}");
        assert_eq!(said, "", "round {round}");
        let peak = exit.usage.and_then(|u| u.memory_peak).expect("the kernel keeps the peak");
        assert!(
            peak <= MEMORY + CGROUP_SLACK,
            "round {round}: {peak} bytes at a limit of {MEMORY}"
        );
        assert!(peak > MEMORY / 2, "round {round}: {peak} bytes: it took nothing");
    }
}
