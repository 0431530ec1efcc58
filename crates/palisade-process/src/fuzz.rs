//! What the fuzzer holds the launch plan to: that both sides read it alike, and that what it mounts is what
//! was granted. Built for the fuzzer and for this crate's own tests only.
//!
//! The bytes are not trusted to mean anything; they choose.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use palisade_model::{
    Capability, CapabilitySet, Generation, GuaranteeSet, InstanceId, Kind, Limits, NodeId, Origin,
    PluginId, PluginRef,
};
use palisade_sandbox::{LaunchSpec, Wire};

use crate::{
    backend::Options,
    cgroup::Hierarchy,
    landlock,
    layout::{self, DEVICES, Inputs},
    plan::{Bind, PlanBuilder, format},
    probe::Machine,
    runtime::{Needs, PLUGIN},
};

/// Bytes as choices; zeros when they are used up.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u64 {
        (0..8).fold(0, |n, _| n << 8 | u64::from(self.byte()))
    }

    fn text(&mut self) -> String {
        let len = usize::from(self.byte() % 24).min(self.0.len());
        let (text, rest) = self.0.split_at(len);
        self.0 = rest;
        String::from_utf8_lossy(text).into_owned()
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.byte()) % all.len()]
    }
}

/// A record as it was written, to be compared with what is read.
#[derive(Debug, PartialEq)]
enum Part {
    U32(u32),
    U64(u64),
    Text(String),
    Rest(Vec<u8>),
}

/// Writes records chosen by `input` with the host's writer, and reads them with the helper's reader.
///
/// # Panics
/// Where the two disagree.
pub fn plan(input: &[u8]) {
    read_anything(input);
    let mut choices = Choices(input);
    let mut plan = PlanBuilder::new();
    let mut written: Vec<(u16, Vec<Part>)> = Vec::new();
    let mut texts = String::new();
    while !choices.0.is_empty() {
        let (a, b) = (choices.text(), choices.text());
        let (n, m) = (choices.number(), choices.byte());
        texts.extend([a.as_str(), b.as_str()]);
        let small = u32::from(m);
        let text = Part::Text;
        let record = match choices.byte() % 16 {
            0 => {
                plan.dir(&a, small);
                (format::TAG_DIR, vec![Part::U32(small), text(a)])
            }
            1 => {
                plan.symlink(&a, &b);
                (format::TAG_SYMLINK, vec![text(a), text(b)])
            }
            2 => {
                // The content ends with the record, and may hold anything.
                let content = b.clone();
                texts.truncate(texts.len() - b.len());
                plan.file(&a, small, &content);
                (
                    format::TAG_FILE,
                    vec![Part::U32(small), text(a), Part::Rest(content.into_bytes())],
                )
            }
            3 => {
                plan.tmpfs(&a, n, n >> 3, small, 7);
                let parts = vec![Part::U64(n), Part::U64(n >> 3), Part::U32(small), Part::U32(7)];
                (format::TAG_TMPFS, parts.into_iter().chain([text(a)]).collect())
            }
            4 => {
                let idmap = (m & 1 != 0).then_some(usize::from(m >> 1));
                let flags = n & 0xf;
                let (source, target) = (a.clone(), b.clone());
                let identity = (n, n ^ 1);
                plan.bind(&Bind { source, target, attributes: n, flags, identity, idmap });
                let map = idmap.map_or(0, |i| i as u64 + 1) << format::bind::IDMAP_SHIFT;
                let parts = [n, flags | map, n, n ^ 1].map(Part::U64);
                (format::TAG_BIND, parts.into_iter().chain([text(a), text(b)]).collect())
            }
            5 => {
                plan.idmap(small, 1, 2, 3);
                (format::TAG_IDMAP, [small, 1, 2, 3].map(Part::U32).into())
            }
            6 => {
                plan.exe(&a);
                (format::TAG_EXE, vec![text(a)])
            }
            7 => {
                plan.arg(&a);
                (format::TAG_ARG, vec![text(a)])
            }
            8 => {
                plan.env(&a, &b);
                (format::TAG_ENV, vec![text(format!("{a}={b}"))])
            }
            9 => {
                plan.cwd(&a);
                (format::TAG_CWD, vec![text(a)])
            }
            10 => {
                plan.rlimit("limit", u64::from(m), n);
                (format::TAG_RLIMIT, [u64::from(m), n, n].map(Part::U64).into())
            }
            11 => {
                plan.seccomp(b.as_bytes());
                texts.truncate(texts.len() - b.len());
                (format::TAG_SECCOMP, vec![Part::Rest(b.into_bytes())])
            }
            12 => {
                plan.landlock(n, 1, 2);
                (format::TAG_LANDLOCK, [n, 1, 2].map(Part::U64).into())
            }
            13 => {
                plan.landlock_rule(n, &a);
                (format::TAG_LANDLOCK_RULE, vec![Part::U64(n), text(a)])
            }
            14 => {
                plan.sysctl(&a, &b);
                (format::TAG_SYSCTL, vec![text(a), text(b)])
            }
            _ => {
                plan.hostname(&a);
                (format::TAG_HOSTNAME, vec![text(a)])
            }
        };
        written.push(record);
    }
    // A text with a NUL in a place that cannot have one, or too much of all, is refused as a whole.
    let has_nul = written.iter().flat_map(|(_, parts)| parts).any(|part| match part {
        Part::Text(text) => text.contains('\0'),
        _ => false,
    });
    let plan = match plan.finish() {
        Err(_) => return assert!(has_nul || input.len() > 8192, "a good plan was refused"),
        Ok(plan) => plan,
    };
    assert!(!has_nul, "a text that ends early for the helper was written");
    let mut records = format::Records::new(&plan.bytes);
    for (index, (tag, parts)) in written.iter().enumerate() {
        let (read, body) = records.next().expect("as many records as were written");
        assert_eq!((read, records.index as usize), (*tag, index));
        let mut body = format::Body(body);
        for part in parts {
            let read = match part {
                Part::U32(_) => Part::U32(body.u32().expect("a number")),
                Part::U64(_) => Part::U64(body.u64().expect("a number")),
                Part::Text(_) => {
                    let text = body.text().expect("a text");
                    assert_eq!(text.last(), Some(&0), "the kernel is handed it where it lies");
                    Part::Text(String::from_utf8(text[..text.len() - 1].to_vec()).expect("UTF-8"))
                }
                Part::Rest(_) => Part::Rest(std::mem::take(&mut body.0).to_vec()),
            };
            assert_eq!(&read, part);
        }
        assert!(body.0.is_empty(), "nothing more in the record");
    }
    assert!(records.next().is_none() && records.complete());
}

/// Reads bytes that nobody wrote, in every way in which the helper reads.
fn read_anything(input: &[u8]) {
    let mut records = format::Records::new(input);
    let mut consumed = 0;
    for (_, bytes) in records.by_ref() {
        consumed += 8 + bytes.len();
        assert!(consumed <= input.len(), "read past the end");
        for first in 0..3 {
            let mut body = format::Body(bytes);
            loop {
                let more = match first {
                    0 => body.u32().is_some(),
                    1 => body.u64().is_some(),
                    _ => body
                        .text()
                        .is_some_and(|t| t.last() == Some(&0) && !t[..t.len() - 1].contains(&0)),
                };
                if !more {
                    break;
                }
            }
        }
    }
    assert_eq!(records.complete(), consumed == input.len());
}

/// Real folders and files that can be granted: the layout looks at them.
struct Ground {
    root: PathBuf,
    /// Paths below the root, whether each is a folder, a file or neither.
    places: Vec<(String, Thing)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Thing {
    Folder,
    File,
    Link,
    Missing,
}

fn ground() -> &'static Ground {
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
enum Use {
    Nothing,
    Read,
    ReadExecute,
    Write,
    Device,
}

/// What was asked for, with the words of the rules and none of the layout's.
struct Asked {
    rights: Vec<Capability>,
    code: Vec<PathBuf>,
}

impl Asked {
    /// What `path` should be good for: the code of this machine stays as it is unless something at or below
    /// it is granted; rights add up.
    fn of(&self, path: &Path) -> Use {
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
    fn is_possible(&self, ground: &Ground) -> bool {
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

/// Lays out random rights and code, and compares what is mounted with what was asked for.
///
/// # Panics
/// Where something more, less or else is visible than what was asked for, where a mount would come before
/// the one that it lies on, or where something would be made in a folder of the host.
pub fn mounts(input: &[u8]) {
    let ground = ground();
    let mut choices = Choices(input);
    let privileged = choices.byte() & 1 != 0;
    let asked = ask(&mut choices, ground);
    let rights: CapabilitySet = asked.rights.iter().cloned().collect();
    let spec = spec(ground, rights);
    let needs = Needs::none(&ground.root.join("plugin"));
    let machine = Machine { privileged, landlock: 6, ..Machine::look() };
    let content = ground.root.join("plugin");
    let inputs = Inputs {
        spec: &spec,
        needs: &needs,
        content: &content,
        code: &asked.code,
        machine: &machine,
        options: &Options::default(),
        cgroups: &Hierarchy::default(),
        grouped: false,
        timed: false,
    };
    let plan = match layout::namespaced(&inputs) {
        Ok(plan) => plan,
        Err(error) => {
            return assert!(!asked.is_possible(ground), "refused: {error}: {:?}", asked.rights);
        }
    };
    assert!(asked.is_possible(ground), "accepted: {:?} {:?}", asked.rights, asked.code);
    let laid = Laid::read(&plan.bytes);
    laid.is_in_order();
    laid.is_asked_for(&asked, ground, privileged.then(|| inputs.host_ids().0));
    for (path, thing) in &ground.places {
        if matches!(thing, Thing::Folder | Thing::File) {
            laid.agrees(Path::new(path), asked.of(Path::new(path)));
        }
    }
    for device in DEVICES.into_iter().filter(|d| *d != "/dev/zero") {
        laid.agrees(Path::new(device), Use::Device);
    }
}

fn ask(choices: &mut Choices<'_>, ground: &Ground) -> Asked {
    let (mut rights, mut code) = (Vec::new(), Vec::new());
    for _ in 0..choices.byte() % 8 {
        let place = choices.of(&(0..ground.places.len()).collect::<Vec<_>>());
        let path = &ground.places[place].0;
        let text = match choices.byte() % 8 {
            0 | 1 => format!("fs.read:{path}/**"),
            2 => format!("fs.read:{path}"),
            3 | 4 => format!("fs.write:{path}/**"),
            5 => format!("fs.write:{path}"),
            6 => {
                code.push(PathBuf::from(path));
                continue;
            }
            _ => {
                // Of those that are bound already; /dev/zero is not, where memory is sampled.
                format!("device:{}", choices.of(&["/dev/null", "/dev/full"]))
            }
        };
        rights.push(text.parse().expect("a right"));
    }
    Asked { rights, code }
}

fn spec(ground: &Ground, rights: CapabilitySet) -> LaunchSpec {
    let origin = Origin::Folder { path: ground.root.display().to_string(), owner: 0 };
    let plugin = PluginRef { id: PluginId::parse("fuzz").expect("an id"), origin };
    LaunchSpec {
        instance: InstanceId {
            node: NodeId::local(),
            plugin: Arc::new(plugin),
            generation: Generation(1),
            serial: 1,
        },
        rights: Arc::new(rights),
        limits: Limits::default(),
        demand: GuaranteeSet::default_floor(),
        wire: Wire::Native,
        data: ground.root.join("data"),
        slot: 7,
        env: BTreeMap::new(),
        workdir: None,
        observe: None,
    }
}

/// What the helper would do, in its order.
enum Step {
    Make(PathBuf),
    Tmpfs(PathBuf),
    Mount { source: PathBuf, target: PathBuf, attributes: u64, flags: u64, identity: (u64, u64) },
}

struct Laid {
    steps: Vec<Step>,
    idmaps: Vec<u32>,
    rules: Vec<(u64, PathBuf)>,
}

impl Laid {
    fn read(plan: &[u8]) -> Self {
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
    fn is_in_order(&self) {
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
    fn is_asked_for(&self, asked: &Asked, ground: &Ground, own_uid: Option<u32>) {
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
    fn agrees(&self, path: &Path, wanted: Use) {
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

#[cfg(test)]
mod tests {
    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

        #[test]
        fn plans_are_read_as_they_were_written(input in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            super::plan(&input);
        }

        #[test]
        fn mounts_are_what_was_asked_for(input in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            super::mounts(&input);
        }
    }
}
