//! What is asked for, on real folders, and what it should come to: with the words of the rules and none of the
//! layout's.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use palisade_model::{Capability, Kind};

use crate::layout::DEVICES;

/// Real folders and files that can be granted: the layout looks at them.
pub(super) struct Ground {
    pub(super) root: PathBuf,
    /// Paths below the root, whether each is a folder, a file or neither.
    pub(super) places: Vec<(String, Thing)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Thing {
    Folder,
    File,
    Link,
    Missing,
}

pub(super) fn ground() -> &'static Ground {
    static GROUND: OnceLock<Ground> = OnceLock::new();
    GROUND.get_or_init(|| {
        use Thing::{File, Folder, Link, Missing};
        // Not in /tmp, which is a place of the wall's own. The same for every run, so that one is left.
        let root = PathBuf::from("/var/tmp/palisade-fuzz");
        fs::create_dir_all(&root).expect("a folder for the fuzzer");
        let root = root.canonicalize().expect("just made");
        let places = [
            ("", Folder),
            ("/a", Folder),
            ("/a-b", Folder),
            ("/a/b", Folder),
            ("/a/b/c", Folder),
            ("/a/b/c/file", File),
            ("/a/b/file", File),
            ("/a/file", File),
            ("/ab", Folder),
            ("/ab/file", File),
            ("/d", Folder),
            ("/d/e", Folder),
            ("/file", File),
            ("/link", Link),
            ("/a/link", Link),
            ("/missing", Missing),
            ("/d/missing", Missing),
            ("/plugin", Folder),
            ("/data", Folder),
        ];
        for (place, thing) in places {
            let path = PathBuf::from(format!("{}{place}", root.display()));
            match thing {
                Folder => fs::create_dir_all(&path).expect("a folder"),
                File => fs::write(&path, place).expect("a file"),
                Link => {
                    let _ = std::os::unix::fs::symlink("d", &path);
                }
                Missing => {}
            }
        }
        let places = places.map(|(p, t)| (format!("{}{p}", root.display()), t)).into();
        Ground { root, places }
    })
}

/// What a place inside may be used for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Use {
    Nothing,
    Read,
    ReadExecute,
    Write,
    Device,
}

/// What was asked for, with the words of the rules and none of the layout's.
pub(super) struct Asked {
    pub(super) rights: Vec<Capability>,
    pub(super) code: Vec<PathBuf>,
}

impl Asked {
    /// What `path` should be good for: the code of this machine stays as it is unless something at or below
    /// it is granted; rights add up.
    pub(super) fn of(&self, path: &Path) -> Use {
        let covers = |right: &Capability| {
            right.path().is_some_and(|scope| {
                let granted = Path::new(scope.path());
                granted == path || (scope.covers_below() && path.starts_with(granted))
            })
        };
        let depth = |path: &Path| path.components().count();
        let code = self.code.iter().filter(|c| path.starts_with(c)).map(|c| depth(c)).max();
        let granted = |kind: Kind| {
            let paths = self.rights.iter().filter(|r| r.kind() == kind && covers(r));
            paths.filter_map(|r| r.path().map(|p| depth(Path::new(p.path())))).max()
        };
        match (granted(Kind::FsWrite), code, granted(Kind::FsRead)) {
            _ if granted(Kind::Device).is_some() => Use::Device,
            (Some(write), Some(code), _) if write < code => Use::ReadExecute,
            (Some(_), ..) => Use::Write,
            (None, Some(_), _) => Use::ReadExecute,
            (None, None, Some(_)) => Use::Read,
            (None, None, None) => Use::Nothing,
        }
    }

    /// Whether all of it can be made true: what is granted or shown is there, is what the scope says, and
    /// is no link.
    pub(super) fn is_possible(&self, ground: &Ground) -> bool {
        let thing = |path: &str| ground.places.iter().find(|(p, _)| p == path).map(|(_, t)| *t);
        let rights = self.rights.iter().all(|right| {
            let Some(scope) = right.path() else { return true };
            match thing(scope.path()) {
                Some(Thing::Folder) => scope.covers_below(),
                Some(Thing::File) => true,
                Some(Thing::Link | Thing::Missing) => false,
                None => DEVICES.contains(&scope.path()),
            }
        });
        rights
            && self.code.iter().enumerate().all(|(n, path)| {
                // What lies in a folder that is shown already needs no mount and is not looked at, unless a
                // folder between the two is granted for writing.
                let written =
                    self.rights.iter().filter(|r| r.kind() == Kind::FsWrite).any(|right| {
                        right.path().is_some_and(|scope| {
                            let granted = Path::new(scope.path());
                            scope.covers_below() && path != granted && path.starts_with(granted)
                        })
                    });
                let repeated = self.code.iter().take(n).any(|other| other == path);
                let above = self.code.iter().take(n).any(|above| path.starts_with(above));
                repeated
                    || (above && !written)
                    || matches!(thing(&path.to_string_lossy()), Some(Thing::Folder | Thing::File))
            })
    }
}
