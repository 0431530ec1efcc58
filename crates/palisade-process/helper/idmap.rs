// User namespaces that exist only to carry an id map: who owns a file on disk appears as the plugin
// (mount_setattr(2), "ID mappings"). Nobody lives in them. Making one takes as long as making pid 1, and
// launches of one plugin want the same again and again, so the spawner keeps the last ones.

use crate::support::Text;
use crate::spawner;
use crate::sys::{self, Fd, new, nr, sys};

/// User on disk, user of the plugin, group on disk, group of the plugin.
pub type Ids = (u32, u32, u32, u32);

/// How many are kept.
const KEPT: usize = 32;
/// Their handles begin here, above all others, so that pid 1 closes them with one call.
pub const FIRST: Fd = 600;

struct Kept {
    maps: [(Ids, Fd); KEPT],
    /// Where the next one goes.
    next: usize,
}

static mut CACHE: Kept = Kept { maps: [((0, 0, 0, 0), -1); KEPT], next: 0 };

/// A namespace for these ids, and whether the caller has to close it.
pub fn namespace(ids: &Ids) -> Result<(Fd, bool), isize> {
    // SAFETY: one thread, and no other reference to the cache lives while this function runs.
    let kept = unsafe { &mut *(&raw mut CACHE) };
    if let Some((_, fd)) = kept.maps.iter().find(|(known, fd)| known == ids && *fd >= 0) {
        return Ok((*fd, false));
    }
    let made = new_namespace(ids);
    if made < 0 {
        return Err(made);
    }
    const F_DUPFD_CLOEXEC: usize = 1030;
    let moved = sys!(nr::FCNTL, made, F_DUPFD_CLOEXEC, FIRST);
    if moved < 0 {
        // The launcher may not have so many handles.
        return Ok((made as Fd, true));
    }
    sys::close(made as Fd);
    if let Some(slot) = kept.maps.get_mut(kept.next) {
        sys::close(slot.1);
        *slot = (*ids, moved as Fd);
        kept.next = (kept.next + 1) % KEPT;
    }
    Ok((moved as Fd, false))
}

/// Its process waits until the map is written and then ends.
fn new_namespace(ids: &Ids) -> isize {
    let mut pipe: [Fd; 2] = [-1; 2];
    let made = sys!(nr::PIPE2, pipe.as_mut_ptr(), sys::O_CLOEXEC);
    if made < 0 {
        return made;
    }
    let args = sys::CloneArgs {
        flags: sys::CLONE_NEWUSER,
        exit_signal: sys::SIGCHLD,
        ..Default::default()
    };
    // The namespace of an undumpable process is opened only with CAP_SYS_PTRACE, which containers do not have. This
    // one can for an instant be looked into by root, and never by a plugin's user.
    let was_dumpable = sys::prctl(sys::pr::GET_DUMPABLE, 0, 0, 0);
    sys::prctl(sys::pr::SET_DUMPABLE, 1, 0, 0);
    let pid = sys::clone3(&args);
    if pid != 0 && was_dumpable == 0 {
        sys::prctl(sys::pr::SET_DUMPABLE, 0, 0, 0);
    }
    if pid == 0 {
        // It is for nobody to look into, and holds nothing but what it waits for.
        if pipe[0] > 0 {
            sys!(new::CLOSE_RANGE, 0, pipe[0] - 1, 0);
        }
        sys!(new::CLOSE_RANGE, pipe[0] + 1, u32::MAX as usize, 0);
        sys::read(pipe[0], &mut [0u8; 1]);
        sys::exit(0);
    }
    sys::close(pipe[0]);
    let mut result = pid;
    if pid > 0 {
        let (disk_uid, plugin_uid, disk_gid, plugin_gid) = *ids;
        for (file, from, to) in
            [(&b"uid_map"[..], disk_uid, plugin_uid), (&b"gid_map"[..], disk_gid, plugin_gid)]
        {
            let mut text = Text::<48>::new();
            text.push_number(u64::from(from)).push(b" ").push_number(u64::from(to)).push(b" 1");
            result = result.min(spawner::write_proc(pid as u64, file, text.bytes()));
        }
        if result >= 0 {
            let mut path = Text::<64>::new();
            path.push(b"/proc/").push_number(pid as u64).push(b"/ns/user");
            result = sys::openat(sys::AT_FDCWD, path.with_nul(), sys::O_RDONLY, 0);
        }
    }
    sys::close(pipe[1]);
    result
}
