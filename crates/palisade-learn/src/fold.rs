//! From the files that were used to the fewest rights that cover them, by rules that are stated:
//!
//! 1. A file that is read or asked after is one right, `fs.read:FILE`; a folder that is listed is
//!    `fs.read:FOLDER/**`.
//! 2. What is changed in place is `fs.write:FILE`. What is made, removed or renamed changes the folder that
//!    it is in: `fs.write:FOLDER/**`. A right to write holds the right to read.
//! 3. More than [`MAX_FILES`] such rights in one folder become one to the folder, as long as the ceiling
//!    allows that much.
//! 4. A symbolic link on the way needs the folder that it is in, since a mount shows what a link leads to,
//!    not the link.
//! 5. A folder that is only asked after needs nothing where something below it is granted: then it is there.
//! 6. What others cover is left out; nothing exceeds the ceiling.

use palisade_model::path::lexically_normal;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use palisade_model::{Access, Capability, CapabilitySet, Kind};
use palisade_sandbox::observe::{Found, PathAccess, Subject};

use crate::{explain::right, tally::Seen};

/// Most single rights in one folder before they become one to the folder.
pub const MAX_FILES: usize = 8;
/// Most links that are followed on one path, as in the kernel.
const MAX_LINKS: usize = 40;

/// One thing that was done with a file or folder, and went through.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Use {
    /// The real path.
    pub path: PathBuf,
    /// What was done.
    pub access: PathAccess,
    /// What was there.
    pub found: Found,
}

/// What went through, with the links that it went through. `link` gives where a symbolic link leads, or
/// `None` where a path is none; it is asked after the program has ended.
#[must_use]
pub fn uses(seen: &Seen, link: &dyn Fn(&Path) -> Option<PathBuf>) -> Vec<Use> {
    let mut all = BTreeSet::new();
    for entry in seen.entries.iter().filter(|e| e.outcome.is_passed()) {
        let Subject::Path { path, asked, access, found } = &entry.subject else { continue };
        if *found != Found::Nothing || *access == PathAccess::Change {
            all.insert(Use { path: path.clone(), access: *access, found: *found });
        }
        for path in asked.iter().flat_map(|asked| links_on(asked, link)) {
            all.insert(Use { path, access: PathAccess::Look, found: Found::Other });
        }
    }
    all.into_iter().collect()
}

/// The links that are met on the way along `path`, each where it lies.
fn links_on(path: &Path, link: &dyn Fn(&Path) -> Option<PathBuf>) -> Vec<PathBuf> {
    let mut met = Vec::new();
    let mut way = path.to_owned();
    for _ in 0..MAX_LINKS {
        let mut before: Vec<&Path> = way.ancestors().collect();
        before.reverse();
        let Some((at, to)) = before.iter().find_map(|p| Some((p.to_path_buf(), link(p)?))) else {
            break;
        };
        let rest = way.strip_prefix(&at).unwrap_or(Path::new("")).to_owned();
        let base = at.parent().unwrap_or(Path::new("/")).join(to);
        way = lexically_normal(&base.join(rest));
        met.push(at);
    }
    met
}

/// The rights that cover `uses` and lie within `ceiling`, each of them needed by at least one use. What
/// the ceiling does not cover belongs to the runtime or to the wall, and needs no right.
#[must_use]
pub fn fold(uses: &[Use], ceiling: &CapabilitySet) -> Vec<Capability> {
    let within = |right: &Capability| {
        ceiling.iter().any(|c| {
            right.is_subset_of(c)
                || (right.kind() == Kind::FsRead
                    && c.kind() == Kind::FsWrite
                    && right.path().zip(c.path()).is_some_and(|(inner, outer)| {
                        Path::new(inner.path()).starts_with(outer.path())
                            && (outer.covers_below() || (inner == outer))
                    }))
        })
    };
    let mut rights = BTreeSet::new();
    let (late, early): (Vec<&Use>, Vec<&Use>) =
        uses.iter().partition(|u| u.access == PathAccess::Look && u.found == Found::Folder);
    // Writing before reading: it covers some of it.
    for kind in [Kind::FsWrite, Kind::Device, Kind::Exec, Kind::FsRead] {
        let mut fresh = BTreeSet::new();
        for one in &early {
            let Some(needed) = needed(one).filter(|n| n.kind() == kind && within(n)) else {
                continue;
            };
            if !rights.iter().any(|r| covers(r, one)) {
                fresh.insert(needed);
            }
        }
        if matches!(kind, Kind::FsWrite | Kind::FsRead) {
            gather(&mut fresh, kind, &within);
        }
        rights.extend(fresh);
    }
    for one in late {
        if !rights.iter().any(|r| covers(r, one))
            && let Some(needed) = needed(one).filter(|n| within(n))
        {
            rights.insert(needed);
        }
    }
    only_needed(rights.into_iter().collect(), uses)
}

/// The right that one use takes by itself.
fn needed(one: &Use) -> Option<Capability> {
    let path = one.path.as_path();
    let (kind, path, below) = match (one.access, one.found) {
        (PathAccess::Execute, _) => (Kind::Exec, path, false),
        (PathAccess::Connect, _) => return None,
        (_, Found::Other) if path.starts_with("/dev") => (Kind::Device, path, false),
        (PathAccess::Change, _) => (Kind::FsWrite, path.parent()?, true),
        (PathAccess::Write, Found::Folder) => (Kind::FsWrite, path, true),
        (PathAccess::Write, _) => (Kind::FsWrite, path, false),
        (_, Found::Folder) => (Kind::FsRead, path, true),
        (_, Found::Other) => (Kind::FsRead, path.parent()?, true),
        (_, _) => (Kind::FsRead, path, false),
    };
    right(kind, path, below)
}

/// Whether one right alone covers a use.
fn covers(right: &Capability, one: &Use) -> bool {
    let Some(path) = one.path.to_str() else { return false };
    let covered = |kind, path: &str| right.covers(&Access::new(kind, path));
    let readable = |path: &str| covered(Kind::FsRead, path) || covered(Kind::FsWrite, path);
    match (one.access, one.found) {
        (PathAccess::Execute, _) => covered(Kind::Exec, path),
        (PathAccess::Connect, _) => false,
        (_, Found::Other) if path.starts_with("/dev/") => covered(Kind::Device, path),
        (PathAccess::Change, _) => one
            .path
            .parent()
            .and_then(Path::to_str)
            .is_some_and(|folder| covered(Kind::FsWrite, folder)),
        (PathAccess::Write, _) => covered(Kind::FsWrite, path),
        (PathAccess::Look, Found::Folder) => {
            let is_above = right.path().is_some_and(|p| Path::new(p.path()).starts_with(path));
            readable(path) || is_above
        }
        (_, _) => readable(path),
    }
}

/// Rule 3, from the deepest folder up.
fn gather(rights: &mut BTreeSet<Capability>, kind: Kind, within: &dyn Fn(&Capability) -> bool) {
    loop {
        let mut folders: BTreeMap<PathBuf, Vec<Capability>> = BTreeMap::new();
        for one in rights.iter() {
            let parent = one.path().and_then(|p| Path::new(p.path()).parent());
            if let Some(parent) = parent {
                folders.entry(parent.to_owned()).or_default().push(one.clone());
            }
        }
        let full = folders
            .into_iter()
            .filter(|(_, inside)| inside.len() > MAX_FILES)
            .filter_map(|(folder, _)| Some((right(kind, &folder, true)?, folder)))
            .filter(|(whole, _)| within(whole))
            .max_by_key(|(_, folder)| folder.components().count());
        let Some((whole, _)) = full else { return };
        rights.retain(|one| !one.is_subset_of(&whole));
        rights.insert(whole);
    }
}

/// Takes out, one after the other, every right whose uses others cover too.
fn only_needed(rights: Vec<Capability>, uses: &[Use]) -> Vec<Capability> {
    let covered_by: Vec<Vec<usize>> = uses
        .iter()
        .map(|one| {
            let by = |(at, right): (usize, &Capability)| covers(right, one).then_some(at);
            rights.iter().enumerate().filter_map(by).collect()
        })
        .collect();
    let mut gone = BTreeSet::new();
    // Narrow ones first: what a wide one covers too goes.
    let mut order: Vec<usize> = (0..rights.len()).collect();
    order.sort_by_key(|at| {
        rights.get(*at).map_or((false, 0), |r| {
            let wide = r.path().is_some_and(|p| p.covers_below());
            (wide, usize::MAX - r.to_string().len())
        })
    });
    for at in order {
        let needed = covered_by.iter().any(|by| {
            by.contains(&at) && !by.iter().any(|other| *other != at && !gone.contains(other))
        });
        if !needed {
            gone.insert(at);
        }
    }
    rights.into_iter().enumerate().filter(|(at, _)| !gone.contains(at)).map(|(_, r)| r).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(rights: &[&str]) -> CapabilitySet {
        rights.iter().map(|r| r.parse().unwrap()).collect()
    }

    fn one(path: &str, access: PathAccess, found: Found) -> Use {
        Use { path: path.into(), access, found }
    }

    fn folded(uses: &[Use], ceiling: &[&str]) -> Vec<String> {
        fold(uses, &set(ceiling)).iter().map(ToString::to_string).collect()
    }

    use Found::{File, Folder, Nothing, Other};
    use PathAccess::{Change, Execute, Look, Read, Write};

    #[test]
    fn single_files_stay_single_and_many_become_their_folder() {
        let some: Vec<Use> =
            (0..MAX_FILES).map(|n| one(&format!("/srv/a/{n}"), Read, File)).collect();
        assert_eq!(folded(&some, &["fs.read:/srv/**"]).len(), MAX_FILES);
        let mut many = some;
        many.push(one("/srv/a/one-more", Read, File));
        assert_eq!(folded(&many, &["fs.read:/srv/**"]), ["fs.read:/srv/a/**"]);
        many.push(one("/srv/b", Look, File));
        assert_eq!(folded(&many, &["fs.read:/srv/**"]), ["fs.read:/srv/a/**", "fs.read:/srv/b"]);
    }

    #[test]
    fn writing_in_place_is_the_file_and_making_is_the_folder() {
        let ceiling = ["fs.read:/srv/**", "fs.write:/srv/out/**"];
        let in_place = [one("/srv/out/log", Write, File), one("/srv/out/log", Read, File)];
        assert_eq!(folded(&in_place, &ceiling), ["fs.write:/srv/out/log"]);
        let made = [one("/srv/out/new", Change, Nothing), one("/srv/out/sub/x", Change, Nothing)];
        assert_eq!(folded(&made, &ceiling), ["fs.write:/srv/out/**"]);
        let read_only = [one("/srv/out/log", Read, File)];
        assert_eq!(folded(&read_only, &["fs.write:/srv/out/**"]), ["fs.read:/srv/out/log"]);
    }

    #[test]
    fn a_folder_that_is_only_asked_after_is_there_for_what_is_below_it() {
        let uses =
            [one("/srv", Look, Folder), one("/srv/a", Look, Folder), one("/srv/a/x", Read, File)];
        assert_eq!(folded(&uses, &["fs.read:/srv/**"]), ["fs.read:/srv/a/x"]);
        assert_eq!(folded(&uses[1..2], &["fs.read:/srv/**"]), ["fs.read:/srv/a/**"]);
    }

    #[test]
    fn devices_and_programs_are_rights_of_their_own() {
        let uses = [one("/dev/fuse", Write, Other), one("/usr/bin/git", Execute, File)];
        let ceiling = ["device:/dev/fuse", "exec:/usr/bin/git"];
        assert_eq!(folded(&uses, &ceiling), ["exec:/usr/bin/git", "device:/dev/fuse"]);
    }

    #[test]
    fn nothing_exceeds_the_ceiling() {
        let outside = [one("/etc/passwd", Read, File), one("/usr/bin/python3", Execute, File)];
        assert_eq!(folded(&outside, &["fs.read:/srv/**"]), Vec::<String>::new());
        let many: Vec<Use> = (0..20).map(|n| one(&format!("/srv/{n}"), Read, File)).collect();
        let each: Vec<String> = (0..20).map(|n| format!("fs.read:/srv/{n}")).collect();
        let each: Vec<&str> = each.iter().map(String::as_str).collect();
        assert_eq!(folded(&many, &each).len(), 20, "the folder itself is beyond the ceiling");
    }

    #[test]
    fn links_on_the_way_take_the_folders_that_they_are_in() {
        let link = |path: &Path| match path.to_str().unwrap() {
            "/srv/current" => Some(PathBuf::from("v1")),
            "/srv/v1" => Some(PathBuf::from("/srv/releases/v1")),
            _ => None,
        };
        let met = links_on(Path::new("/srv/current/a.txt"), &link);
        assert_eq!(met, [Path::new("/srv/current"), Path::new("/srv/v1")]);
        let endless = |_: &Path| Some(PathBuf::from("/x"));
        assert_eq!(links_on(Path::new("/x"), &endless).len(), MAX_LINKS);
        let uses = [one("/srv/current", Look, Other), one("/srv/releases/v1/a.txt", Read, File)];
        assert_eq!(folded(&uses, &["fs.read:/srv/**"]), ["fs.read:/srv/**"]);
    }

    fn some_use() -> impl Strategy<Value = Use> {
        let name = prop::sample::select(vec!["a", "b", "c", "d"]);
        let top = prop::sample::select(vec!["/srv/in", "/srv/out", "/etc"]);
        let parts = prop::collection::vec(name, 1..4);
        // Each file is of one sort, whatever is done with it.
        (top, parts, 0..12u8, 0..4u8).prop_map(|(top, parts, number, access)| {
            let path = format!("{top}/{}/f{number}", parts.join("/"));
            let (found, path) = match number {
                0 => (Folder, path),
                1 => (Other, path),
                _ => (File, path),
            };
            let access = match access {
                0 => Look,
                1 => Read,
                2 => Write,
                _ => Change,
            };
            one(&path, access, found)
        })
    }

    proptest! {
        #[test]
        fn every_use_is_covered_and_every_right_is_needed(
            uses in prop::collection::vec(some_use(), 0..80)
        ) {
            let ceiling = set(&["fs.read:/srv/**", "fs.write:/srv/out/**"]);
            let folded = fold(&uses, &ceiling);
            let is_covered =
                |one: &Use, rights: &[Capability]| rights.iter().any(|right| covers(right, one));
            // What the ceiling lets happen, and nothing else, has to be covered.
            let possible = |u: &Use| match u.access {
                Write | Change => u.path.starts_with("/srv/out"),
                _ => u.path.starts_with("/srv"),
            };
            for one in uses.iter().filter(|u| possible(u)) {
                prop_assert!(is_covered(one, &folded), "{one:?} by {folded:?}");
            }
            for (at, right) in folded.iter().enumerate() {
                let inside = ceiling.iter().any(|c| right.is_subset_of(c))
                    || right.to_string().starts_with("fs.read:/srv/out");
                prop_assert!(inside, "{right} exceeds the ceiling");
                let mut rest = folded.clone();
                rest.remove(at);
                prop_assert!(
                    uses.iter().any(|u| is_covered(u, &folded) && !is_covered(u, &rest)),
                    "{right} is not needed in {folded:?}"
                );
            }
        }
    }
}
