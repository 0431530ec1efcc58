//! What the helper would make of a plan, and whether that is what was asked for.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::asked::{Asked, Ground, Use};
use crate::{
    landlock,
    layout::{self, DEVICES},
    plan::format,
    runtime::PLUGIN,
};

/// What the helper would do, in its order.
enum Step {
    Make(PathBuf),
    Tmpfs(PathBuf),
    Mount { source: PathBuf, target: PathBuf, attributes: u64, flags: u64, identity: (u64, u64) },
}

pub(super) struct Laid {
    steps: Vec<Step>,
    idmaps: Vec<u32>,
    rules: Vec<(u64, PathBuf)>,
}

impl Laid {
    pub(super) fn read(plan: &[u8]) -> Self {
        let mut laid = Self { steps: Vec::new(), idmaps: Vec::new(), rules: Vec::new() };
        let path = |body: &mut format::Body<'_>| {
            let text = body.text().expect("a path");
            PathBuf::from(std::str::from_utf8(&text[..text.len() - 1]).expect("UTF-8"))
        };
        let mut records = format::Records::new(plan);
        for (tag, body) in records.by_ref() {
            let mut body = format::Body(body);
            match tag {
                format::TAG_DIR | format::TAG_FILE => {
                    body.u32();
                    laid.steps.push(Step::Make(path(&mut body)));
                }
                format::TAG_SYMLINK => {
                    path(&mut body);
                    laid.steps.push(Step::Make(path(&mut body)));
                }
                format::TAG_TMPFS => {
                    for _ in 0..3 {
                        body.u64();
                    }
                    laid.steps.push(Step::Tmpfs(path(&mut body)));
                }
                format::TAG_BIND => {
                    let (attributes, flags) = (body.u64().expect("a"), body.u64().expect("f"));
                    let identity = (body.u64().expect("device"), body.u64().expect("inode"));
                    let (source, target) = (path(&mut body), path(&mut body));
                    laid.steps.push(Step::Mount { source, target, attributes, flags, identity });
                }
                format::TAG_IDMAP => {
                    body.u32();
                    laid.idmaps.push(body.u32().expect("a user"));
                }
                format::TAG_LANDLOCK_RULE => {
                    let rights = body.u64().expect("rights");
                    laid.rules.push((rights, path(&mut body)));
                }
                _ => {}
            }
        }
        assert!(records.complete());
        laid
    }

    /// Parents first, and nothing made in what belongs to the host.
    pub(super) fn is_in_order(&self) {
        let mut made: Vec<&Path> = vec![Path::new("/")];
        let mut mounted: Vec<&Path> = Vec::new();
        let below = |mounted: &[&Path], path: &Path| {
            mounted.iter().any(|m| path != *m && path.starts_with(m))
        };
        for step in &self.steps {
            match step {
                Step::Make(path) => {
                    assert!(!below(&mounted, path), "{} would be made on the host", path.display());
                    let parent = path.parent().expect("not the root");
                    assert!(made.contains(&parent), "{} has no parent yet", path.display());
                    made.push(path);
                }
                Step::Tmpfs(path) => assert!(made.contains(&path.as_path()), "{}", path.display()),
                Step::Mount { target, .. } => {
                    let has_place = made.contains(&target.as_path()) || below(&mounted, target);
                    assert!(has_place, "{} has no place yet", target.display());
                    assert!(
                        !mounted.iter().any(|m| m.starts_with(target)),
                        "{} hides what was mounted before",
                        target.display()
                    );
                    mounted.push(target);
                }
            }
        }
    }

    /// Each mount is one that was asked for, of the file that was looked at.
    pub(super) fn is_asked_for(&self, asked: &Asked, ground: &Ground, own_uid: Option<u32>) {
        for step in &self.steps {
            let Step::Mount { source, target, attributes, flags, identity } = step else {
                continue;
            };
            assert_ne!(attributes & 2, 0, "{}: nosuid", target.display());
            if DEVICES.iter().any(|d| target == Path::new(d)) {
                assert_eq!(source, target);
                continue;
            }
            assert_ne!(attributes & 4, 0, "{}: nodev", target.display());
            let own = [(PLUGIN, "plugin"), (layout::DATA, "data")];
            if let Some((_, folder)) = own.iter().find(|(inside, _)| target == Path::new(inside)) {
                assert_eq!(source, &ground.root.join(folder));
            } else {
                assert_eq!(source, target, "what is granted is where it was");
                let by_right = asked.rights.iter().filter_map(|r| r.path());
                let is_asked = by_right.map(|p| Path::new(p.path())).any(|p| p == target)
                    || asked.code.contains(target);
                assert!(is_asked, "nobody asked for {}", target.display());
            }
            let meta = fs::symlink_metadata(source).expect("it is there");
            assert_eq!(*identity, (meta.dev(), meta.ino()));
            let map = flags >> format::bind::IDMAP_SHIFT;
            match own_uid {
                Some(uid) if uid != meta.uid() => {
                    assert_eq!(self.idmaps.get(map as usize - 1), Some(&uid), "not the plugin's");
                }
                _ => assert_eq!(map, 0),
            }
            assert_eq!(flags & format::bind::FILE != 0, meta.is_file());
        }
    }

    /// What is mounted over `path` lets it be used as it should, and the second wall no less.
    pub(super) fn agrees(&self, path: &Path, wanted: Use) {
        const RDONLY: u64 = 1;
        const NOEXEC: u64 = 8;
        let over = self.steps.iter().rev().find_map(|step| match step {
            Step::Mount { target, attributes, .. } if path.starts_with(target) => Some(*attributes),
            _ => None,
        });
        let is_device = DEVICES.iter().any(|d| path == Path::new(d));
        let found = match over {
            None => Use::Nothing,
            Some(_) if is_device => Use::Device,
            Some(a) if a & RDONLY == 0 && a & NOEXEC != 0 => Use::Write,
            Some(a) if a & RDONLY != 0 && a & NOEXEC != 0 => Use::Read,
            Some(a) if a & RDONLY != 0 => Use::ReadExecute,
            Some(a) => panic!("{}: writable code ({a:#x})", path.display()),
        };
        assert_eq!(found, wanted, "{}", path.display());
        let rules = self.rules.iter().filter(|(_, rule)| path.starts_with(rule));
        let by_landlock = rules.fold(0, |all, (rights, _)| all | rights);
        let needed = match wanted {
            Use::Nothing => 0,
            Use::Read => landlock::fs::READ_FILE,
            Use::ReadExecute => landlock::fs::READ_FILE | landlock::fs::EXECUTE,
            Use::Write | Use::Device => landlock::fs::READ_FILE | landlock::fs::WRITE_FILE,
        };
        assert_eq!(by_landlock & needed, needed, "{}: Landlock denies it", path.display());
        if wanted == Use::Nothing {
            assert_eq!(by_landlock, 0, "{}: Landlock would allow it", path.display());
        }
    }
}
