//! Which system calls are watched, and where in their arguments the paths and addresses stand.

use palisade_sandbox::observe::PathAccess;
use palisade_seccomp::{Action, Error, Op, Policy};

/// `open` and its like: what is done follows from their flags.
pub(super) mod open {
    pub(in crate::observe) const WRONLY: u64 = 1;
    pub(in crate::observe) const RDWR: u64 = 2;
    pub(in crate::observe) const CREAT: u64 = 0o100;
    pub(in crate::observe) const EXCL: u64 = 0o200;
    pub(in crate::observe) const TRUNC: u64 = 0o1000;
    pub(in crate::observe) const PATH: u64 = 0o10_000_000;
    #[cfg(target_arch = "aarch64")]
    pub(in crate::observe) const NOFOLLOW: u64 = 0o100_000;
    #[cfg(not(target_arch = "aarch64"))]
    pub(in crate::observe) const NOFOLLOW: u64 = 0o400_000;
    /// The bit of `O_TMPFILE` that is not `O_DIRECTORY`.
    pub(in crate::observe) const TMPFILE: u64 = 0o20_000_000;
}

pub(super) const AT_SYMLINK_NOFOLLOW: u64 = 0x100;
pub(super) const AT_SYMLINK_FOLLOW: u64 = 0x400;
pub(super) const AT_EMPTY_PATH: u64 = 0x1000;

/// What a path argument is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// The same whatever the other arguments say.
    As(PathAccess),
    /// By the open flags in this argument.
    Open(usize),
    /// `creat`: as `open` with `O_CREAT | O_WRONLY | O_TRUNC`.
    Create,
    /// Made; fails where something is there.
    Make,
    /// Made, or put in the place of what is there.
    Put,
    /// Removed, or moved away.
    Remove,
}

/// Whether a link in the last place is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Links {
    Follow,
    Keep,
    /// Unless this argument has `AT_SYMLINK_NOFOLLOW`.
    FollowUnless(usize),
    /// Only if this argument has `AT_SYMLINK_FOLLOW`.
    KeepUnless(usize),
}

/// One path of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PathArgument {
    /// Where the folder handle stands that a relative path begins at; `None`: the working directory.
    pub(super) folder: Option<usize>,
    pub(super) path: usize,
    pub(super) what: Use,
    pub(super) links: Links,
}

/// What is read of a watched call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Paths(&'static [PathArgument]),
    /// A socket address that is gone to: pointer and length.
    Address(usize, usize),
    /// A socket address that is taken; the name of a Unix socket is made in its folder.
    Bind(usize, usize),
}

const fn path(folder: Option<usize>, path: usize, what: Use, links: Links) -> PathArgument {
    PathArgument { folder, path, what, links }
}

use Links::{Follow, FollowUnless, Keep, KeepUnless};
use Use::{Create, Make, Open, Put, Remove};
const LOOK: Use = Use::As(PathAccess::Look);
const READ: Use = Use::As(PathAccess::Read);
const WRITE: Use = Use::As(PathAccess::Write);
const EXECUTE: Use = Use::As(PathAccess::Execute);

/// By name, sorted.
#[rustfmt::skip]
const CALLS: &[(&str, Call)] = &[
    ("access",            Call::Paths(&[path(None, 0, LOOK, Follow)])),
    ("bind",              Call::Bind(1, 2)),
    ("chdir",             Call::Paths(&[path(None, 0, LOOK, Follow)])),
    ("chmod",             Call::Paths(&[path(None, 0, WRITE, Follow)])),
    ("chown",             Call::Paths(&[path(None, 0, WRITE, Follow)])),
    ("connect",           Call::Address(1, 2)),
    ("creat",             Call::Paths(&[path(None, 0, Create, Follow)])),
    ("execve",            Call::Paths(&[path(None, 0, EXECUTE, Follow)])),
    ("execveat",          Call::Paths(&[path(Some(0), 1, EXECUTE, FollowUnless(4))])),
    ("faccessat",         Call::Paths(&[path(Some(0), 1, LOOK, Follow)])),
    ("faccessat2",        Call::Paths(&[path(Some(0), 1, LOOK, FollowUnless(3))])),
    ("fchmodat",          Call::Paths(&[path(Some(0), 1, WRITE, Follow)])),
    ("fchmodat2",         Call::Paths(&[path(Some(0), 1, WRITE, FollowUnless(3))])),
    ("fchownat",          Call::Paths(&[path(Some(0), 1, WRITE, FollowUnless(4))])),
    ("futimesat",         Call::Paths(&[path(Some(0), 1, WRITE, Follow)])),
    ("getxattr",          Call::Paths(&[path(None, 0, LOOK, Follow)])),
    ("inotify_add_watch", Call::Paths(&[path(None, 1, READ, Follow)])),
    ("lchown",            Call::Paths(&[path(None, 0, WRITE, Keep)])),
    ("lgetxattr",         Call::Paths(&[path(None, 0, LOOK, Keep)])),
    ("link",              Call::Paths(&[path(None, 0, READ, Keep), path(None, 1, Make, Keep)])),
    ("linkat",            Call::Paths(&[path(Some(0), 1, READ, KeepUnless(4)), path(Some(2), 3, Make, Keep)])),
    ("lsetxattr",         Call::Paths(&[path(None, 0, WRITE, Keep)])),
    ("lstat",             Call::Paths(&[path(None, 0, LOOK, Keep)])),
    ("mkdir",             Call::Paths(&[path(None, 0, Make, Keep)])),
    ("mkdirat",           Call::Paths(&[path(Some(0), 1, Make, Keep)])),
    ("mknod",             Call::Paths(&[path(None, 0, Make, Keep)])),
    ("mknodat",           Call::Paths(&[path(Some(0), 1, Make, Keep)])),
    ("newfstatat",        Call::Paths(&[path(Some(0), 1, LOOK, FollowUnless(3))])),
    ("open",              Call::Paths(&[path(None, 0, Open(1), Follow)])),
    ("openat",            Call::Paths(&[path(Some(0), 1, Open(2), Follow)])),
    ("readlink",          Call::Paths(&[path(None, 0, LOOK, Keep)])),
    ("readlinkat",        Call::Paths(&[path(Some(0), 1, LOOK, Keep)])),
    ("rename",            Call::Paths(&[path(None, 0, Remove, Keep), path(None, 1, Put, Keep)])),
    ("renameat",          Call::Paths(&[path(Some(0), 1, Remove, Keep), path(Some(2), 3, Put, Keep)])),
    ("renameat2",         Call::Paths(&[path(Some(0), 1, Remove, Keep), path(Some(2), 3, Put, Keep)])),
    ("rmdir",             Call::Paths(&[path(None, 0, Remove, Keep)])),
    ("sendto",            Call::Address(4, 5)),
    ("setxattr",          Call::Paths(&[path(None, 0, WRITE, Follow)])),
    ("stat",              Call::Paths(&[path(None, 0, LOOK, Follow)])),
    ("statfs",            Call::Paths(&[path(None, 0, LOOK, Follow)])),
    ("statx",             Call::Paths(&[path(Some(0), 1, LOOK, FollowUnless(2))])),
    ("symlink",           Call::Paths(&[path(None, 1, Make, Keep)])),
    ("symlinkat",         Call::Paths(&[path(Some(1), 2, Make, Keep)])),
    ("truncate",          Call::Paths(&[path(None, 0, WRITE, Follow)])),
    ("unlink",            Call::Paths(&[path(None, 0, Remove, Keep)])),
    ("unlinkat",          Call::Paths(&[path(Some(0), 1, Remove, Keep)])),
    ("utime",             Call::Paths(&[path(None, 0, WRITE, Follow)])),
    ("utimensat",         Call::Paths(&[path(Some(0), 1, WRITE, FollowUnless(3))])),
    ("utimes",            Call::Paths(&[path(None, 0, WRITE, Follow)])),
];

/// What is read of the call with this name.
pub(super) fn of(name: &str) -> Option<Call> {
    let at = CALLS.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
    CALLS.get(at).map(|(_, call)| *call)
}

/// The calls that a listener is asked about although the filter allows them.
///
/// `sendmsg` and `sendmmsg` are not: their address is behind two pointers, and the helper itself sends its
/// listener with the one. A datagram to an address that only they carry goes unseen; no network inside
/// leads anywhere, with or without it.
pub(crate) fn watched() -> Result<Policy, Error> {
    let by_handle = ["newfstatat", "statx", "sendto"];
    let names: Vec<&str> =
        CALLS.iter().map(|(name, _)| *name).filter(|name| !by_handle.contains(name)).collect();
    Policy::builder("observe", 1, Action::Allow)
        .on(Action::UserNotify, &names)
        // `fstat` by another name, and the commonest call of all.
        .on_when(
            Action::UserNotify,
            &["newfstatat", "statx"],
            &[("flags", Op::MaskedNone(AT_EMPTY_PATH))],
        )
        .on_when(Action::UserNotify, &["sendto"], &[("addr", Op::Ne(0))])
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_names_real_calls() {
        for pair in CALLS.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{} stands before {}", pair[0].0, pair[1].0);
        }
        for (name, _) in CALLS {
            assert!(palisade_seccomp::Syscall::named(name).is_ok(), "{name} is no call");
        }
        watched().unwrap();
    }

    #[test]
    fn the_filter_of_a_normal_launch_asks_about_deaths_only() {
        use palisade_seccomp::{Action, Arch, Program, SeccompData, evaluate};
        let read = |bytes: &[u8]| {
            let instructions = bytes.chunks(8).map(|i| palisade_seccomp::Instruction {
                code: u16::from_ne_bytes([i[0], i[1]]),
                jt: i[2],
                jf: i[3],
                k: u32::from_ne_bytes([i[4], i[5], i[6], i[7]]),
            });
            let arch = Arch::native().unwrap();
            Program::new("read", arch, instructions.collect()).unwrap()
        };
        let arch = Arch::native().unwrap();
        for choice in crate::filter::Choice::all() {
            {
                let profile = choice.profile;
                let policy = crate::filter::policy(choice).unwrap();
                let normal = read(&crate::filter::filter(choice).unwrap());
                for nr in (0..1024).chain([u32::MAX]) {
                    let arch_value = arch.audit_arch();
                    let call = SeccompData { nr, arch: arch_value, ..SeccompData::default() };
                    let expected = match policy.decide(&call, arch) {
                        Action::KillProcess => Action::UserNotify,
                        other => other,
                    };
                    assert_eq!(evaluate(&normal, &call), Ok(expected), "{profile} {call:?}");
                }
                let observed = read(&crate::filter::observed(&policy).unwrap());
                let open = SeccompData::call(arch, "openat", [0; 6]).unwrap();
                assert_eq!(evaluate(&observed, &open), Ok(Action::UserNotify), "{profile}");
                assert_eq!(evaluate(&normal, &open), Ok(Action::Allow), "{profile}");
            }
        }
    }

    #[test]
    fn what_the_helper_calls_between_filter_and_exec_is_never_asked_about() {
        use palisade_seccomp::{Arch, SeccompData, compile, evaluate, observed};
        for choice in crate::filter::Choice::all() {
            {
                let profile = choice.profile;
                let policy = crate::filter::policy(choice).unwrap();
                let program =
                    compile(&observed(&policy, &watched().unwrap()), Arch::X86_64).unwrap();
                for name in ["sendmsg", "close", "exit_group"] {
                    let data =
                        SeccompData::call(Arch::X86_64, name, [5, 1, 0x4000, 0, 0, 0]).unwrap();
                    let answer = evaluate(&program, &data).unwrap();
                    assert_eq!(answer, Action::Allow, "{profile}: {name} would wait for nobody");
                }
            }
        }
    }
}
