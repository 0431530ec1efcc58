// Layers that a test takes away, to see whether the next one holds. Compiled with the feature `ablation` only:
// the helper that is released has none of this, and does not know the switches.
//
// The walls are built whole by the same code as ever. What is taken away here is taken away afterwards, or
// left out of the last steps; what can be left out of the plan itself is the host's part.

use crate::plan::{step, without, word};
use crate::program;
use crate::spawner::{Failure, Launch, failed};
use crate::sys::{self, Fd, attr, new, nr, pr, sys};

const PROC: &[u8] = b"/proc\0";

fn lacks(launch: &Launch<'_>, layer: u64) -> bool {
    launch.config[word::SWITCHES] & layer != 0
}

fn check(result: isize) -> Result<isize, Failure> {
    if result < 0 { Err(failed(step::PROC, 0, result)) } else { Ok(result) }
}

/// What pid 1 takes away of the walls that it has just built.
pub fn thin(launch: &Launch<'_>) -> Result<(), Failure> {
    if lacks(launch, without::UNDUMPABLE) {
        sys::prctl(pr::SET_DUMPABLE, 1, 0, 0);
    }
    if lacks(launch, without::PROC_SUBSET) {
        cover_proc()?;
    }
    if lacks(launch, without::READ_ONLY_PROC) {
        let proc = check(sys::openat(sys::AT_FDCWD, PROC, sys::O_PATH, 0))? as Fd;
        let changed = sys::mount_setattr(proc, sys::AT_EMPTY_PATH, 0, attr::RDONLY, 0, 0);
        sys::close(proc);
        check(changed)?;
    }
    if lacks(launch, without::OWN_PROC) {
        // The plan has bound the host's to the same place; ours lies on it.
        const MNT_DETACH: usize = 2;
        check(sys!(nr::UMOUNT2, PROC.as_ptr(), MNT_DETACH))?;
    }
    Ok(())
}

/// Covers /proc with one that shows all of the kernel's files, as read-only as the other.
fn cover_proc() -> Result<(), Failure> {
    const CREATE: usize = 6;
    const FROM_EMPTY_PATH: usize = 4;
    let context = check(sys!(new::FSOPEN, c"proc".as_ptr(), 1))?;
    check(sys!(new::FSCONFIG, context, CREATE, 0, 0, 0))?;
    let attributes = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
    let mount = check(sys!(new::FSMOUNT, context, 1, attributes))?;
    let moved = sys!(
        new::MOVE_MOUNT,
        mount,
        c"".as_ptr(),
        sys::AT_FDCWD,
        PROC.as_ptr(),
        FROM_EMPTY_PATH
    );
    sys::close(mount as Fd);
    sys::close(context as Fd);
    check(moved).map(|_| ())
}

/// In the process that becomes the program: gives up its capabilities, or keeps all of them over the exec. They
/// count in the user namespace of the walls and nowhere else.
pub fn drop_capabilities(launch: &Launch<'_>) -> bool {
    if lacks(launch, without::CAPABILITIES) {
        return keep_capabilities();
    }
    if !has_no_new_privileges(launch) {
        // Without that promise, Landlock and the filter ask for this one. The exec takes it: the program's
        // user is not root, and nothing of it is inheritable or ambient.
        const SYS_ADMIN: u32 = 1 << 21;
        program::bound_capabilities();
        return program::set_capabilities([SYS_ADMIN, SYS_ADMIN, 0, 0, 0, 0]);
    }
    program::drop_capabilities()
}

fn keep_capabilities() -> bool {
    const AMBIENT_RAISE: usize = 2;
    let header = program::CAPABILITY_VERSION;
    let mut sets = [0u32; 6];
    if sys!(CAPGET, header.as_ptr(), sets.as_mut_ptr()) < 0 {
        return false;
    }
    let [_, low, _, _, high, _] = sets;
    let kept = program::set_capabilities([low, low, low, high, high, high]);
    let all = u64::from(low) | (u64::from(high) << 32);
    kept && (0..64)
        .filter(|cap| all & (1 << cap) != 0)
        .all(|cap| sys::prctl(pr::CAP_AMBIENT, AMBIENT_RAISE, cap, 0) == 0)
}

#[cfg(target_arch = "x86_64")]
const CAPGET: usize = 125;
#[cfg(target_arch = "aarch64")]
const CAPGET: usize = 90;

/// Whether the program promises never to gain rights by an exec.
pub fn has_no_new_privileges(launch: &Launch<'_>) -> bool {
    !lacks(launch, without::NO_NEW_PRIVILEGES)
}
