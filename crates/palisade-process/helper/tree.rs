// New roots that are made once: a tmpfs with the folders, links and small files of a plan. Launches of one
// program want the same again and again, so the spawner keeps the last ones, read-only, and every launch gets
// a mount of its own of the one that its plan describes, byte for byte. Nobody can write to them, inside or
// outside, and what a plugin may write lies in mounts that are made for it alone.
//
// Only root's spawner can do that (an ordinary user's plugins each have a user namespace, which must own what
// is mounted in it), and only where the kernel clones a mount that stands nowhere (Linux 6.15). Elsewhere, and
// for very large plans, pid 1 makes its own root.

use crate::idmap;
use crate::plan::{self, Body, Records};
use crate::sys::{self, Fd, attr, new, nr, sys};
use crate::walls;

/// How many are kept, and the longest description of one.
const KEPT: usize = 8;
const MAX_KEY: usize = 8192;

struct Tree {
    root: Fd,
    length: usize,
    key: [u8; MAX_KEY],
}

struct Kept {
    trees: [Tree; KEPT],
    next: usize,
    /// This kernel does not clone them.
    refused: bool,
}

static mut KEPT_TREES: Kept = Kept {
    trees: [const { Tree { root: -1, length: 0, key: [0; MAX_KEY] } }; KEPT],
    next: 0,
    refused: false,
};
static mut KEY: [u8; MAX_KEY] = [0; MAX_KEY];

/// A mount of the root that this plan describes, or -1 where pid 1 has to make it.
pub fn root_of(plan: &[u8]) -> Fd {
    // SAFETY: one thread, and no other reference to either lives while this function runs.
    let (kept, key) = unsafe { (&mut *(&raw mut KEPT_TREES), &mut *(&raw mut KEY)) };
    if kept.refused {
        return -1;
    }
    let Some(length) = describe(plan, key) else { return -1 };
    let key = &key[..length];
    let known = kept.trees.iter().find(|t| t.root >= 0 && &t.key[..t.length] == key);
    let root = match known {
        Some(tree) => tree.root,
        None => {
            let made = make(plan);
            if made < 0 {
                return -1;
            }
            let tree = &mut kept.trees[kept.next];
            sys::close(tree.root);
            tree.root = made;
            tree.length = length;
            tree.key[..length].copy_from_slice(key);
            kept.next = (kept.next + 1) % KEPT;
            made
        }
    };
    let cloned = sys!(
        new::OPEN_TREE,
        root,
        c"".as_ptr(),
        walls::OPEN_TREE_CLONE | sys::O_CLOEXEC | sys::AT_EMPTY_PATH
    );
    kept.refused = cloned == sys::EINVAL;
    cloned as Fd
}

/// Which records of a plan make the root itself: folders, links and files that do not lie in a tmpfs that the
/// plan mounts before them.
pub struct Nodes<'a> {
    mounted: [&'a [u8]; 4],
    count: usize,
}

impl<'a> Nodes<'a> {
    pub fn new() -> Self {
        Nodes { mounted: [b""; 4], count: 0 }
    }

    /// To be asked of every record, in their order.
    pub fn has(&mut self, tag: u16, body: &'a [u8]) -> bool {
        let mut body = Body(body);
        let path = match tag {
            plan::TAG_DIR | plan::TAG_FILE => body.u32().and_then(|_| body.text()),
            plan::TAG_SYMLINK => body.text().and_then(|_| body.text()),
            plan::TAG_TMPFS => {
                let _ = (body.u64(), body.u64(), body.u32(), body.u32());
                if let (Some(path), Some(slot)) = (body.text(), self.mounted.get_mut(self.count)) {
                    *slot = path.strip_suffix(b"\0").unwrap_or(path);
                    self.count += 1;
                }
                None
            }
            _ => None,
        };
        let below = |path: &[u8], top: &[u8]| {
            path.strip_prefix(top).is_some_and(|rest| rest.first() == Some(&b'/'))
        };
        path.is_some_and(|path| !self.mounted[..self.count].iter().any(|top| below(path, top)))
    }
}

/// The records that make it, one behind the other; their number of bytes.
fn describe(plan: &[u8], key: &mut [u8; MAX_KEY]) -> Option<usize> {
    let mut length = 0;
    let mut records = Records::new(plan);
    let mut nodes = Nodes::new();
    while let Some((tag, body)) = records.next() {
        if nodes.has(tag, body) {
            let size = u32::try_from(body.len()).ok()?;
            for part in [&tag.to_le_bytes()[..], &size.to_le_bytes(), body] {
                key.get_mut(length..length + part.len())?.copy_from_slice(part);
                length += part.len();
            }
        }
    }
    Some(length)
}

fn make(plan: &[u8]) -> Fd {
    let root = walls::empty_root();
    if root < 0 {
        return -1;
    }
    let root = root as Fd;
    let mut done = 0;
    let mut records = Records::new(plan);
    let mut nodes = Nodes::new();
    while let Some((tag, body)) = records.next() {
        if nodes.has(tag, body) && done >= 0 {
            // What fails here fails again in pid 1, which tells the host.
            done = walls::make_node(root, tag, Body(body), 0).map_or_else(|f| f.errno, |()| 0);
        }
    }
    if done >= 0 {
        done = sys::mount_setattr(root, sys::AT_EMPTY_PATH, attr::RDONLY, 0, 0, 0);
    }
    const F_DUPFD_CLOEXEC: usize = 1030;
    let kept = if done < 0 { done } else { sys!(nr::FCNTL, root, F_DUPFD_CLOEXEC, idmap::FIRST) };
    sys::close(root);
    kept as Fd
}
