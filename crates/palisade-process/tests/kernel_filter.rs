//! The kernel answers as the evaluator and the policy do: every call number, edges of every condition,
//! other interfaces, for every profile and for every filter that a launch can have, observed and not.
//!
//! A child loads the compiled program with each of its answers turned into an errno of its own, so that
//! the kernel tells what it would have answered and executes nothing. The child cannot even exit; it is
//! killed when it has asked everything.
#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "loading a filter, and asking the kernel by number")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

#[path = "../../palisade-seccomp/tests/support/conditions.rs"]
mod conditions;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicI32, Ordering},
    time::{Duration, Instant},
};

use conditions::near;
use palisade_process::filter::{self, Choice};
use palisade_seccomp::{
    Action, Arch, Instruction, Op, Policy, Program, SeccompData, X32_SYSCALL_BIT, code, compile,
    evaluate, evaluate_raw, profiles::Profile, profiles::floor,
};

/// The first errno that stands for an answer; far from what any call gives.
const FIRST: i32 = 3000;
const I386: u32 = 0x4000_0003;

/// The program with its answers as errnos, and what each stands for.
fn distinguishable(program: &Program) -> (Vec<Instruction>, BTreeMap<i32, u32>) {
    let mut answers: BTreeMap<u32, i32> = BTreeMap::new();
    let mut instructions = program.instructions().to_vec();
    for instruction in &mut instructions {
        if instruction.code == code::RET_K {
            let next = FIRST + i32::try_from(answers.len()).unwrap();
            let errno = *answers.entry(instruction.k).or_insert(next);
            instruction.k = Action::Errno(u16::try_from(errno).unwrap()).to_return();
        }
    }
    assert!(answers.len() < 1000, "{} answers", answers.len());
    (instructions, answers.into_iter().map(|(answer, errno)| (errno, answer)).collect())
}

/// Memory that a child shares.
struct Results {
    slots: &'static [AtomicI32],
}

impl Results {
    fn new(count: usize) -> Self {
        let bytes = (count + 1) * size_of::<AtomicI32>();
        // SAFETY: a fresh mapping of that many bytes, zeroed, which is a valid value of every slot; it is
        // never unmapped.
        let slots = unsafe {
            let at = libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert_ne!(at, libc::MAP_FAILED);
            std::slice::from_raw_parts(at.cast::<AtomicI32>(), count + 1)
        };
        Self { slots }
    }

    /// The last slot says how far the child is: -1 for done.
    fn progress(&self) -> &AtomicI32 {
        &self.slots[self.slots.len() - 1]
    }
}

/// The kernel's answer to each call, as the errno that stands for it. `None` if the child died.
fn ask_kernel(filter: &[Instruction], calls: &[SeccompData]) -> Option<Vec<i32>> {
    let program: Vec<libc::sock_filter> = filter
        .iter()
        .map(|i| libc::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k })
        .collect();
    let fprog = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap(),
        filter: program.as_ptr().cast_mut(),
    };
    let results = Results::new(calls.len());
    // SAFETY: the child only makes raw system calls and writes to memory that it has or shares.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        // SAFETY: `fprog` and its instructions are alive; the calls that follow are refused by the filter,
        // whatever their arguments are.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            if libc::syscall(libc::SYS_seccomp, 1, 0, &raw const fprog) != 0 {
                libc::_exit(1);
            }
        }
        for (call, slot) in calls.iter().zip(results.slots) {
            slot.store(raw(call), Ordering::Relaxed);
        }
        results.progress().store(-1, Ordering::Release);
        loop {
            std::hint::spin_loop();
        }
    }
    let end = Instant::now() + Duration::from_secs(60);
    let mut alive = true;
    while results.progress().load(Ordering::Acquire) != -1 && alive && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
        let mut status = 0;
        // SAFETY: `status` lives through the call.
        alive = unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == 0;
        if !alive {
            let asked = results.slots.iter().filter(|s| s.load(Ordering::Relaxed) != 0).count();
            println!("the child ended with {status:#x} at call {asked}");
        }
    }
    let done = results.progress().load(Ordering::Acquire) == -1;
    if alive {
        // SAFETY: the child is ours and was not reaped.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
    }
    done.then(|| results.slots[..calls.len()].iter().map(|s| s.load(Ordering::Relaxed)).collect())
}

/// Makes the call; the errno.
fn raw(call: &SeccompData) -> i32 {
    let [a, b, c, d, e, f] = call.args;
    #[cfg(target_arch = "x86_64")]
    if call.arch == I386 {
        let result: i32;
        // SAFETY: the filter refuses it; ebx is put back.
        unsafe {
            std::arch::asm!(
                "xchg rbx, {b}",
                "int 0x80",
                "xchg rbx, {b}",
                b = inout(reg) a => _,
                inlateout("eax") call.nr.cast_signed() => result,
                in("ecx") b as u32, in("edx") c as u32, in("esi") d as u32, in("edi") e as u32,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
        }
        return -result;
    }
    // SAFETY: the filter refuses it.
    let result = unsafe { libc::syscall(i64::from(call.nr), a, b, c, d, e, f) };
    if result != -1 {
        return 0;
    }
    // SAFETY: this thread's own.
    unsafe { *libc::__errno_location() }
}

/// Values around every constant, with and without bits above the argument's width.
fn edges(op: &Op) -> Vec<u64> {
    near(op)
        .into_iter()
        .flat_map(|v| [v, v ^ 1 << 16, v ^ 1 << 31, v ^ 1 << 32, v ^ 1 << 63])
        .collect()
}

/// Made by the kernel's own trampolines for a tracer's probes; x86_64 lets them past every filter (Linux
/// 6.14 and 6.18, `seccomp_uprobe_exception`) and answers SIGILL to anybody else.
fn past_filters(nr: u32, arch: Arch) -> bool {
    arch == Arch::X86_64 && matches!(arch.syscall_name(nr), Some("uretprobe" | "uprobe"))
}

/// What is asked about a policy, through the machine's own interface.
fn questions(policy: &Policy, arch: Arch) -> Vec<SeccompData> {
    let fillers = [[0; 6], [1; 6], [u64::MAX; 6], [8, 1 << 32 | 2, 3, 1 << 63, 5, 6]];
    let own = SeccompData { arch: arch.audit_arch(), ..SeccompData::default() };
    let mut out = Vec::new();
    let numbers = (0..=547).chain([548, 1023, 4095, 0x3fff_ffff, u32::MAX]);
    let x32 = (0..=547).map(|nr| nr | X32_SYSCALL_BIT);
    let x32 = x32.filter(|_| arch == Arch::X86_64);
    for nr in numbers.chain(x32).filter(|nr| !past_filters(*nr, arch)) {
        out.extend(fillers.map(|args| SeccompData { nr, args, ..own }));
    }
    for syscall in policy.syscalls() {
        for filler in fillers {
            let Some(base) = SeccompData::call(arch, syscall.name(), filler) else { continue };
            if past_filters(base.nr, arch) {
                continue;
            }
            for rule in policy.rules(syscall) {
                let mut near = base;
                for condition in rule.conditions() {
                    near.args[usize::from(condition.index())] = edges(condition.op())[0];
                }
                for condition in rule.conditions() {
                    for value in edges(condition.op()) {
                        for mut call in [base, near] {
                            call.args[usize::from(condition.index())] = value;
                            out.push(call);
                        }
                    }
                }
            }
        }
    }
    out
}

fn agree(name: &str, policy: &Policy, arch: Arch) -> usize {
    let program = compile(policy, arch).unwrap();
    let (filter, answers) = distinguishable(&program);
    let calls = questions(policy, arch);
    let said = ask_kernel(&filter, &calls).expect("the child asks to the end");
    let compare = |calls: &[SeccompData], said: &[i32]| {
        for (call, errno) in calls.iter().zip(said) {
            let by_kernel =
                *answers.get(errno).unwrap_or_else(|| panic!("{name}: {call:?}: {errno}"));
            assert_eq!(evaluate_raw(&program, call), Ok(by_kernel), "{name}: {call:?}");
            let by_policy = policy.decide(call, arch);
            assert_eq!(Action::from_return(by_kernel), Some(by_policy), "{name}: {call:?}");
        }
    };
    compare(&calls, &said);
    let mut count = calls.len();
    if arch == Arch::X86_64 {
        let foreign = |nr| SeccompData { nr, arch: I386, ..SeccompData::default() };
        let calls: Vec<SeccompData> = (0..=547).chain([u32::MAX]).map(foreign).collect();
        // Without 32-bit emulation the instruction is a fault, and there is no such way in.
        if let Some(said) = ask_kernel(&filter, &calls) {
            compare(&calls, &said);
            count += calls.len();
        }
    }
    count
}

#[test]
fn the_kernel_the_evaluator_and_the_policy_agree() {
    let Some(arch) = Arch::native() else { return };
    let mut asked = agree("floor", &floor().unwrap(), arch);
    for profile in Profile::ALL {
        let policy = profile.with_floor().unwrap();
        for nr in (0..=547).filter(|nr| past_filters(*nr, arch)) {
            // So nothing is claimed about them that the kernel does not hold.
            let call = SeccompData { nr, arch: arch.audit_arch(), ..SeccompData::default() };
            assert_eq!(policy.decide(&call, arch), Action::Allow, "{profile} {nr}");
        }
        asked += agree(profile.name(), &policy, arch);
    }
    println!("{asked} calls were asked about");
    assert!(asked > 8 * 4_000, "{asked}");
}

fn agree_about_what_is_loaded(observed: bool) {
    let Some(arch) = Arch::native() else { return };
    let (mut filters, mut asked) = (0, 0);
    for choice in Choice::all() {
        let policy = filter::loaded(choice, observed).unwrap();
        asked += agree(&format!("{choice:?}, observed: {observed}"), &policy, arch);
        filters += 1;
    }
    println!("{asked} calls were asked about, of {filters} filters");
    assert_eq!(
        filters, 40,
        "seven profiles, memory and processor time held or policed; three of them also without code"
    );
    assert!(asked > filters * 4_000, "{asked}");
}

#[test]
fn they_agree_about_every_filter_of_a_normal_launch() {
    agree_about_what_is_loaded(false);
}

#[test]
fn they_agree_about_every_filter_of_an_observed_launch() {
    agree_about_what_is_loaded(true);
}

/// What an addition refuses is refused by the filter that is loaded, and stands open without it where the
/// profile has it: a merge that lost one would not show in a comparison with itself.
#[test]
fn what_the_additions_refuse_is_refused_where_they_are_loaded() {
    let Some(arch) = Arch::native() else { return };
    const SHARED_ANONYMOUS: u64 = 0x21;
    const SHM_EXEC: u64 = 0o100_000;
    let calls: [(&str, &str, [u64; 6]); 10] = [
        ("init-guard", "prlimit64", [1, 0, 0, 0, 0, 0]),
        ("init-guard", "setpriority", [2, 0, 0, 0, 0, 0]),
        ("init-guard", "setpriority", [0, 1, 0, 0, 0, 0]),
        ("policed-memory", "memfd_create", [0; 6]),
        ("policed-memory", "mmap", [0, 4096, 3, SHARED_ANONYMOUS, u64::MAX, 0]),
        ("policed-memory", "setsockopt", [3, 1, 7, 0, 4, 0]),
        ("policed-memory", "vmsplice", [3, 0, 0, 0, 0, 0]),
        ("policed-cpu", "setsid", [0; 6]),
        ("no-jit", "memfd_create", [0; 6]),
        ("no-jit", "shmat", [0, 0, SHM_EXEC, 0, 0, 0]),
    ];
    for choice in Choice::all() {
        let plain = choice.profile.with_floor().unwrap();
        for observed in [false, true] {
            let program = compile(&filter::loaded(choice, observed).unwrap(), arch).unwrap();
            for (of, name, args) in calls {
                let call = SeccompData::call(arch, name, args).unwrap();
                let there = match of {
                    "policed-memory" => choice.memory_is_policed,
                    "policed-cpu" => choice.cpu_is_policed,
                    "no-jit" => choice.no_jit,
                    _ => true,
                };
                let answer = evaluate(&program, &call).unwrap();
                let refused = if observed {
                    answer == Action::UserNotify
                } else {
                    matches!(answer, Action::Errno(_))
                };
                let by_profile = plain.decide(&call, arch) != Action::Allow;
                // Of memory files both additions say the same.
                let by_other =
                    name == "memfd_create" && (choice.memory_is_policed || choice.no_jit);
                let wanted = there || by_profile || by_other;
                assert_eq!(refused, wanted, "{choice:?}, observed: {observed}: {name} {args:?}");
            }
        }
    }
}
