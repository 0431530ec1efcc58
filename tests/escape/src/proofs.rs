//! Proofs on the filter for attempts that have no positive control here: the kernel lacks the call, or the
//! control would harm the machine. What the filter answers is computed by the evaluator, for every profile.
//! So is that the filter comes first where another layer would answer the same.

use palisade_seccomp::{Action, Arch, SeccompData, X32_SYSCALL_BIT, evaluate, profiles::Profile};

use crate::trouble::{Result, Trouble, While};

/// One call and the answer that it must get.
pub struct Proof {
    /// Number in the catalogue.
    pub number: u16,
    /// The way.
    pub variant: &'static str,
    /// Name of the call.
    pub call: &'static str,
    /// First arguments; the others are zero.
    pub args: [u64; 3],
    /// Made by the x32 entry.
    pub x32: bool,
    /// The answer.
    pub answer: Action,
}

const fn proof(
    number: u16,
    variant: &'static str,
    call: &'static str,
    args: [u64; 3],
    answer: Action,
) -> Proof {
    Proof { number, variant, call, args, x32: false, answer }
}

const fn x32(variant: &'static str, call: &'static str, args: [u64; 3]) -> Proof {
    Proof { number: 21, variant, call, args, x32: true, answer: Action::KillProcess }
}

const HIGH: u64 = 1 << 32;
const NO_FAMILY: Action = Action::Errno(97);
const NO_PROTOCOL: Action = Action::Errno(93);
const TIOCLINUX: u64 = 0x541c;
const TIOCSTI: u64 = 0x5412;
const TIOCSETD: u64 = 0x5423;
const TIOCSCTTY: u64 = 0x540e;

/// All of them.
#[rustfmt::skip]
pub const PROOFS: &[Proof] = &[
    x32("getpid", "getpid", [0; 3]), x32("unshare", "unshare", [0x1000_0000, 0, 0]),
    x32("execve", "execve", [0; 3]),
    proof(22, "socket-alg", "socket", [38 | HIGH, 5, 0], NO_FAMILY),
    proof(22, "unshare-user-high", "unshare", [0x1000_0000 | HIGH, 0, 0], Action::EPERM),
    proof(22, "sti-own-pty-high", "ioctl", [3, TIOCSTI | HIGH, 0], Action::EPERM),
    proof(29, "sti-own-pty", "ioctl", [3, TIOCSTI, 0], Action::EPERM),
    proof(29, "linux", "ioctl", [3, TIOCLINUX, 0], Action::EPERM),
    proof(29, "setd", "ioctl", [3, TIOCSETD, 0], Action::EPERM),
    proof(29, "sctty", "ioctl", [3, TIOCSCTTY, 0], Action::EPERM),
    proof(35, "alg", "socket", [38, 5, 0], NO_FAMILY),
    proof(35, "bluetooth", "socket", [31, 3, 1], NO_FAMILY),
    proof(35, "can", "socket", [29, 3, 1], NO_FAMILY),
    proof(35, "dccp", "socket", [2, 6, 33], NO_PROTOCOL),
    proof(35, "kcm", "socket", [41, 2, 0], NO_FAMILY),
    proof(35, "key", "socket", [15, 3, 2], NO_FAMILY),
    proof(35, "rds", "socket", [21, 5, 0], NO_FAMILY),
    proof(35, "sctp", "socket", [2, 1, 132], NO_PROTOCOL),
    proof(35, "smc", "socket", [43, 1, 0], NO_FAMILY),
    proof(35, "tipc", "socket", [30, 1, 0], NO_FAMILY),
    proof(35, "pair-alg", "socketpair", [38, 1, 0], NO_FAMILY),
    proof(53, "delete-module", "delete_module", [0; 3], Action::KillProcess),
    proof(53, "finit-module", "finit_module", [0; 3], Action::KillProcess),
    proof(53, "init-module", "init_module", [0; 3], Action::KillProcess),
    proof(53, "iopl", "iopl", [3, 0, 0], Action::KillProcess),
    proof(53, "kexec-load", "kexec_load", [0; 3], Action::KillProcess),
    proof(53, "kexec-file-load", "kexec_file_load", [0; 3], Action::KillProcess),
    proof(53, "lookup-dcookie", "lookup_dcookie", [0; 3], Action::EPERM),
    proof(68, "mkdir-mode", "mkdirat", [0, 0, 0o2777], Action::EPERM),
    // Without the filter the same errno comes from somewhere else: that the filter comes first is shown here.
    proof(14, "chroot", "chroot", [0; 3], Action::EPERM),
    proof(14, "pivot-root", "pivot_root", [0; 3], Action::EPERM),
    proof(15, "bind", "mount", [0; 3], Action::EPERM),
    proof(15, "cgroup2", "mount", [0; 3], Action::EPERM),
    proof(15, "mount", "mount", [0; 3], Action::EPERM),
    proof(15, "overlay", "mount", [0; 3], Action::EPERM),
    proof(15, "proc", "mount", [0; 3], Action::EPERM),
    proof(15, "propagation", "mount", [0; 3], Action::EPERM),
    proof(15, "remount-exec", "mount", [0; 3], Action::EPERM),
    proof(15, "remount-rw", "mount", [0; 3], Action::EPERM),
    proof(15, "sysfs", "mount", [0; 3], Action::EPERM),
    proof(15, "tmpfs", "mount", [0; 3], Action::EPERM),
    proof(15, "umount", "umount2", [0; 3], Action::EPERM),
    proof(15, "umount-any", "umount2", [0; 3], Action::EPERM),
    proof(16, "fsopen", "fsopen", [0; 3], Action::EPERM),
    proof(16, "fspick", "fspick", [0; 3], Action::EPERM),
    proof(16, "mount-setattr", "mount_setattr", [0; 3], Action::EPERM),
    proof(16, "move-mount", "open_tree", [0; 3], Action::EPERM),
    proof(16, "open-tree", "open_tree", [0; 3], Action::EPERM),
    proof(16, "open-tree-attr", "open_tree_attr", [0; 3], Action::EPERM),
    proof(17, "unshare-cgroup", "unshare", [0x0200_0000, 0, 0], Action::EPERM),
    proof(17, "unshare-ipc", "unshare", [0x0800_0000, 0, 0], Action::EPERM),
    proof(17, "unshare-mnt", "unshare", [0x0002_0000, 0, 0], Action::EPERM),
    proof(17, "unshare-mount", "unshare", [0x0002_0000, 0, 0], Action::EPERM),
    proof(17, "unshare-net", "unshare", [0x4000_0000, 0, 0], Action::EPERM),
    proof(17, "unshare-pid", "unshare", [0x2000_0000, 0, 0], Action::EPERM),
    proof(17, "unshare-uts", "unshare", [0x0400_0000, 0, 0], Action::EPERM),
    proof(19, "setns-self", "setns", [0; 3], Action::EPERM),
    proof(19, "setns-peer", "setns", [0; 3], Action::EPERM),
    proof(19, "setns-pidfd", "setns", [0; 3], Action::EPERM),
    proof(19, "unshare-time", "unshare", [0x80, 0, 0], Action::EPERM),
    proof(22, "sched-fifo", "sched_setscheduler", [0, 1 | HIGH, 0], Action::EPERM),
    proof(26, "attach-init", "ptrace", [16, 1, 0], Action::EPERM),
    proof(26, "attach-parent", "ptrace", [16, 1, 0], Action::EPERM),
    proof(26, "seize-init", "ptrace", [16, 1, 0], Action::EPERM),
    proof(26, "readv-init", "process_vm_readv", [0; 3], Action::EPERM),
    proof(26, "readv-parent", "process_vm_readv", [0; 3], Action::EPERM),
    proof(26, "writev-init", "process_vm_writev", [0; 3], Action::EPERM),
    proof(26, "kcmp-init", "kcmp", [0; 3], Action::EPERM),
    proof(27, "init", "pidfd_getfd", [0; 3], Action::EPERM),
    proof(27, "peer", "pidfd_getfd", [0; 3], Action::EPERM),
    proof(44, "deadline", "sched_setattr", [0; 3], Action::EPERM),
    proof(44, "rr-attr", "sched_setattr", [0; 3], Action::EPERM),
    proof(44, "fifo", "sched_setscheduler", [0, 1, 0], Action::EPERM),
    proof(53, "acct", "acct", [0; 3], Action::EPERM),
    proof(53, "sethostname", "sethostname", [0; 3], Action::EPERM),
    proof(53, "syslog", "syslog", [0; 3], Action::EPERM),
];

impl Proof {
    /// Whether the filter of every profile answers as it must.
    ///
    /// Two of them may refuse by another errno, since they refuse whole calls of which the others let some
    /// arguments pass: the engine's, which no plugin chooses, and that of the tier without namespaces, where
    /// no socket is made at all. An answer that ends the process is the same in all.
    ///
    /// # Errors
    /// With the answer that was found, or why it could not be computed.
    pub fn check(&self) -> Result<()> {
        let arch = Arch::X86_64;
        let [a, b, c] = self.args;
        let mut data = SeccompData::call(arch, self.call, [a, b, c, 0, 0, 0])
            .ok_or_else(|| Trouble(format!("no call {}", self.call)))?;
        if self.x32 {
            data.nr |= X32_SYSCALL_BIT;
        }
        for profile in Profile::ALL {
            let policy = profile.with_floor().doing("a profile")?;
            let program = palisade_seccomp::compile(&policy, arch).doing("a program")?;
            let found = evaluate(&program, &data).doing("evaluating")?;
            let narrower = matches!(profile, Profile::Engine | Profile::Lockdown);
            let refused = matches!((found, self.answer), (Action::Errno(_), Action::Errno(_)));
            if found != self.answer && !(narrower && refused) {
                return Err(Trouble(format!(
                    "{} {}: {:?} answers {found:?}, not {:?}",
                    self.number, self.variant, profile, self.answer
                )));
            }
        }
        Ok(())
    }
}
