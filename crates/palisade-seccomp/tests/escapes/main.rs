//! The escape attempts that the filter must stop, by their numbers in the catalogue, proven in the
//! evaluator on the programs that are loaded. A test names the attempt it holds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

mod arguments;
mod engine;
mod files;
mod honest;
mod kernel;
mod lockdown;
mod mounts_and_namespaces;
mod numbers;
mod other_processes;
mod sockets;

use palisade_seccomp::profiles::Profile;
use palisade_seccomp::{Action, Arch, Program, SeccompData, errno, evaluate};

const HIGH: u64 = 0xdead_beef << 32;
const KILL: Action = Action::KillProcess;
const ALLOW: Action = Action::Allow;
const EPERM: Action = Action::EPERM;
const ENOSYS: Action = Action::ENOSYS;
const EACCES: Action = Action::EACCES;
const EAFNOSUPPORT: Action = Action::Errno(errno::EAFNOSUPPORT);

/// Every program that is loaded for plugins: all their profiles on all architectures. The engine's, which is
/// for a program of ours and narrower than all of them, is held against the widest in `engine`.
fn programs() -> Vec<(Profile, Program)> {
    let plugins = Profile::ALL.into_iter().filter(|profile| *profile != Profile::Engine);
    plugins
        .flat_map(|profile| Arch::ALL.map(|arch| (profile, profile.program(arch).unwrap())))
        .collect()
}

fn namespaced() -> Vec<(Profile, Program)> {
    programs().into_iter().filter(|(profile, _)| *profile != Profile::Lockdown).collect()
}

fn lockdown() -> Vec<(Profile, Program)> {
    programs().into_iter().filter(|(profile, _)| *profile == Profile::Lockdown).collect()
}

fn answer(program: &Program, name: &str, args: &[u64]) -> Option<Action> {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    let data = SeccompData::call(program.arch(), name, all)?;
    Some(evaluate(program, &data).unwrap())
}

/// Asserts the answer in all given programs whose architecture has the call; at least one must.
fn expect_in(programs: &[(Profile, Program)], name: &str, args: &[u64], expected: Action) {
    let mut seen = false;
    for (profile, program) in programs {
        if let Some(got) = answer(program, name, args) {
            seen = true;
            assert_eq!(got, expected, "{profile} {}: {name} {args:x?}", program.arch());
        }
    }
    assert!(seen, "{name} exists somewhere");
}

fn expect(name: &str, args: &[u64], expected: Action) {
    expect_in(&programs(), name, args, expected);
}
