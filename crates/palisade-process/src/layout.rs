//! The inside of the walls as data: which places exist, what is shown in them, and which rights each has.
//!
//! One description gives both the mounts and the Landlock rules, so that the second wall cannot drift
//! from the first. Nothing here touches the kernel except to look at the granted paths.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use palisade_model::{Capability, Kind};
use palisade_sandbox::{LaunchSpec, SandboxError};
use palisade_seccomp::profiles::Profile;

use crate::{
    assess::is_no_jit,
    backend::Options,
    cgroup::Hierarchy,
    filter::{self, Choice},
    landlock,
    plan::{Bind, Plan, PlanBuilder, format},
    probe::Machine,
    runtime::{self, Needs, PLUGIN},
    way_out,
};

/// What the plugin keeps.
pub(crate) const DATA: &str = "/data";
const TMP: &str = "/tmp";
const SHM: &str = "/dev/shm";
/// User and group inside.
const INSIDE_ID: u32 = 1000;
const MIB: u64 = 1 << 20;
/// Most files and folders of a private tmpfs.
const TMP_INODES: u64 = 16_384;
/// Folders that cannot be granted: they are the wall's own, or the kernel's.
const RESERVED: [&str; 9] = ["/", "/proc", "/sys", "/dev", "/tmp", "/run", PLUGIN, DATA, "/etc"];
pub(crate) const DEVICES: [&str; 5] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

mod attr {
    pub(super) const RDONLY: u64 = 1;
    pub(super) const NOSUID: u64 = 2;
    pub(super) const NODEV: u64 = 4;
    pub(super) const NOEXEC: u64 = 8;
}

/// Everything that a plan is made of.
pub(crate) struct Inputs<'a> {
    pub(crate) spec: &'a LaunchSpec,
    pub(crate) needs: &'a Needs,
    pub(crate) content: &'a Path,
    /// Installed software, shown under its own paths.
    pub(crate) code: &'a [PathBuf],
    pub(crate) machine: &'a Machine,
    pub(crate) options: &'a Options,
    pub(crate) cgroups: &'a Hierarchy,
    /// The instance has cgroups (not only the machine).
    pub(crate) grouped: bool,
    /// Somebody wants to know how long each step takes.
    pub(crate) timed: bool,
}

impl Inputs<'_> {
    /// Host user and group of the plugin.
    pub(crate) fn host_ids(&self) -> (u32, u32) {
        if self.machine.privileged {
            let id = self.options.first_uid.saturating_add(self.spec.slot);
            (id, id)
        } else {
            (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
        }
    }

    /// How pid 1 gets into its cgroups.
    fn group_switch(&self) -> u64 {
        match (self.grouped, self.cgroups.is_unified()) {
            (false, _) => 0,
            (true, true) => format::switch::INTO_CGROUP,
            (true, false) => format::switch::JOIN_GROUPS,
        }
    }

    /// Whether somebody is told about the system calls.
    pub(crate) fn is_observed(&self) -> bool {
        self.spec.observe.is_some() && self.options.has_seccomp()
    }

    /// What the filter of this launch is made of.
    pub(crate) fn filter(&self, namespaces: bool) -> Choice {
        Choice {
            profile: if namespaces { self.needs.profile } else { Profile::Lockdown },
            memory_is_policed: self.memory_is_policed(),
            no_jit: namespaces && is_no_jit(self.spec),
        }
    }

    pub(crate) fn memory_is_policed(&self) -> bool {
        !(self.grouped && self.cgroups.has_memory())
    }

    fn cpu_is_policed(&self) -> bool {
        !(self.grouped && self.cgroups.has_cpu())
    }

    /// Cap of the private `/tmp`: the disk limit, but at most half of the memory it is made of.
    fn tmp_size(&self) -> u64 {
        self.spec.limits.disk.min(self.spec.limits.memory / 2).max(MIB)
    }
}

/// Asked of the host's /proc from inside the new user namespace: no further namespaces for the plugin,
/// whatever it finds to ask for them with.
pub(crate) fn sysctls(plan: &mut PlanBuilder) {
    for (file, value) in [
        ("/proc/sys/user/max_user_namespaces", "0"),
        ("/proc/sys/user/max_inotify_instances", "128"),
        ("/proc/sys/user/max_inotify_watches", "65536"),
    ] {
        if Path::new(file).exists() {
            plan.sysctl(file, value);
        }
    }
}

/// Why a right cannot be made true by these walls; `None` if it can.
pub(crate) fn unsupported(right: &Capability, namespaces: bool) -> Option<String> {
    use palisade_model::Enforcement;
    match right.kind().enforcement() {
        Enforcement::Egress if namespaces => return None,
        Enforcement::Egress => {
            return Some(
                "without a network namespace there is no way out that only this plugin can take"
                    .into(),
            );
        }
        Enforcement::Link => return Some("only WebAssembly backends link imports".into()),
        Enforcement::Broker | Enforcement::Registration => return None,
        Enforcement::Mount => {}
    }
    match right.kind() {
        Kind::Gpu => Some("these walls cannot share a GPU safely".into()),
        Kind::FsRead | Kind::FsWrite | Kind::Exec | Kind::Device => {
            let path = right.path().map(|p| p.path())?;
            let device = right.kind() == Kind::Device;
            let reserved = is_reserved(path) && !(device && path.starts_with("/dev/"));
            reserved.then(|| {
                format!("{path} is part of the wall itself (or all of the machine); grant the folders that are needed")
            })
        }
        _ => None,
    }
}

/// Whether a path is the wall's own, the kernel's, or all of the machine.
fn is_reserved(path: &str) -> bool {
    RESERVED.contains(&path)
        || ["/proc", "/sys", "/dev", PLUGIN, DATA].iter().any(|r| Path::new(path).starts_with(r))
}

/// What stands at a path that is to be shown. A link is refused: what it leads to may change.
fn checked(path: &str) -> Result<fs::Metadata, SandboxError> {
    let error =
        |what: String| SandboxError::Path { path: palisade_model::text::escape(path, 300), what };
    let meta = fs::symlink_metadata(path).map_err(|e| error(e.to_string()))?;
    if meta.file_type().is_symlink() {
        return Err(error("is a symbolic link; grant what it leads to".into()));
    }
    Ok(meta)
}

/// Refuses a granted path with a link anywhere in it, where it is not bound and the helper does not look.
fn plain(path: &str) -> Result<(), SandboxError> {
    checked(path)?;
    if fs::canonicalize(path).is_ok_and(|real| real == Path::new(path)) {
        return Ok(());
    }
    let what = "a symbolic link stands in the path; grant what it leads to".to_owned();
    Err(SandboxError::Path { path: palisade_model::text::escape(path, 300), what })
}

/// A place of the new root.
enum Node {
    Dir,
    Link(String),
    File(String),
    Tmpfs { size: u64, attributes: u64, mode: u32 },
    Bind(Bind),
}

struct Tree<'a> {
    inputs: &'a Inputs<'a>,
    nodes: BTreeMap<String, Node>,
    rules: Vec<(u64, String, bool)>,
    idmaps: Vec<[u32; 4]>,
}

impl Tree<'_> {
    fn put(&mut self, path: &str, node: Node) {
        for parent in Path::new(path).ancestors().skip(1) {
            if let Some(p) = parent.to_str().filter(|p| *p != "/" && !p.is_empty()) {
                self.nodes.entry(p.to_owned()).or_insert(Node::Dir);
            }
        }
        self.nodes.insert(path.to_owned(), node);
    }

    /// Whether `path` lies below something that is bound, and so is not ours to make.
    fn below_bind(&self, path: &str) -> bool {
        Path::new(path)
            .ancestors()
            .skip(1)
            .any(|a| a.to_str().is_some_and(|a| matches!(self.nodes.get(a), Some(Node::Bind(_)))))
    }

    /// Whether a folder above `path` is granted for writing.
    fn is_granted_above(&self, path: &str) -> bool {
        self.inputs.spec.rights.of_kind(Kind::FsWrite).any(|right| {
            right.path().is_some_and(|scope| {
                scope.covers_below()
                    && scope.path() != path
                    && Path::new(path).starts_with(scope.path())
            })
        })
    }

    /// Shows a file or folder of the runtime, read-only.
    fn show(&mut self, path: &str, folder: bool) {
        let flags = format::bind::OPTIONAL
            | if folder { format::bind::RECURSIVE } else { format::bind::FILE };
        let attributes = attr::RDONLY | attr::NOSUID | attr::NODEV;
        self.put(
            path,
            Node::Bind(Bind {
                source: path.into(),
                target: path.into(),
                attributes,
                flags,
                identity: (0, 0),
                idmap: None,
            }),
        );
        self.rules.push((landlock::READ_EXECUTE, path.to_owned(), !folder));
    }

    /// Binds a checked path, its owner shown as the plugin where the launcher can do that.
    fn bind_checked(
        &mut self,
        source: &str,
        target: &str,
        attributes: u64,
        rights: u64,
        writable: bool,
    ) -> Result<(), SandboxError> {
        let meta = checked(source)?;
        let folder = meta.is_dir();
        let mut flags = if folder { format::bind::RECURSIVE } else { format::bind::FILE };
        let mut idmap = None;
        if self.inputs.machine.privileged {
            let (uid, gid) = self.inputs.host_ids();
            let map = [meta.uid(), uid, meta.gid(), gid];
            if meta.uid() != uid {
                let index = self.idmaps.iter().position(|m| *m == map).unwrap_or_else(|| {
                    self.idmaps.push(map);
                    self.idmaps.len() - 1
                });
                idmap = Some(index);
                if !writable {
                    flags |= format::bind::IDMAP_OPTIONAL;
                }
            }
        }
        let bind = Bind {
            source: source.into(),
            target: target.into(),
            attributes,
            flags,
            identity: (meta.dev(), meta.ino()),
            idmap,
        };
        self.put(target, Node::Bind(bind));
        self.rules.push((rights, target.to_owned(), !folder));
        Ok(())
    }

    /// Shows installed software under its own paths.
    fn code(&mut self) -> Result<(), SandboxError> {
        for path in self.inputs.code {
            let text = path.to_str().unwrap_or_default();
            if text.is_empty() || is_reserved(text) {
                return Err(SandboxError::Path {
                    path: palisade_model::text::escape(&path.to_string_lossy(), 300),
                    what: "is part of the wall itself, or all of the machine, and cannot be shown as software".into(),
                });
            }
            let shown = matches!(self.nodes.get(text), Some(Node::Bind(_)));
            // A folder granted for writing will lie over what is shown above it, but not over this.
            if !shown && (!self.below_bind(text) || self.is_granted_above(text)) {
                const ATTRIBUTES: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV;
                self.bind_checked(text, text, ATTRIBUTES, landlock::READ_EXECUTE, false)?;
            }
        }
        Ok(())
    }

    fn grants(&mut self) -> Result<(), SandboxError> {
        const RO: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
        const RW: u64 = attr::NOSUID | attr::NODEV | attr::NOEXEC;
        // Parents before what lies below them; reading before writing of the same path.
        let mut rights: Vec<&Capability> =
            self.inputs.spec.rights.iter().filter(|c| c.path().is_some()).collect();
        rights.sort_by_key(|c| (c.path().map(|p| p.path().to_owned()), c.kind()));
        for right in rights {
            let Some(scope) = right.path() else { continue };
            let path = scope.path();
            if let Some(why) = unsupported(right, true) {
                return Err(SandboxError::Unsupported { capability: right.to_string(), why });
            }
            let is_dir = fs::metadata(path).is_ok_and(|m| m.is_dir());
            if is_dir && !scope.covers_below() {
                return Err(SandboxError::Unsupported {
                    capability: right.to_string(),
                    why: format!("a folder is shown with all that it holds; write {path}/**"),
                });
            }
            match right.kind() {
                Kind::FsRead => {
                    // Rights add up: what is shown, or granted for writing, can be read already.
                    let already = matches!(self.nodes.get(path), Some(Node::Bind(_)));
                    if already || self.below_bind(path) {
                        plain(path)?;
                    } else {
                        self.bind_checked(path, path, RO, landlock::READ, false)?;
                    }
                }
                Kind::FsWrite => self.bind_checked(path, path, RW, landlock::READ_WRITE, true)?,
                Kind::Device => self.bind_checked(
                    path,
                    path,
                    attr::RDONLY | attr::NOSUID | attr::NOEXEC,
                    landlock::DEVICE,
                    false,
                )?,
                // Made part of the runtime by `programs`.
                _ => {}
            }
        }
        Ok(())
    }

    fn emit(self, plan: &mut PlanBuilder) -> Result<(), SandboxError> {
        for [disk_uid, plugin_uid, disk_gid, plugin_gid] in &self.idmaps {
            plan.idmap(*disk_uid, *plugin_uid, *disk_gid, *plugin_gid);
        }
        for (path, node) in &self.nodes {
            // Below a bind nothing can be made, and nothing need be: what is bound has it, or the plan
            // fails at the target.
            let ours = !self.below_bind(path);
            match node {
                Node::Dir if ours => plan.dir(path, 0o755),
                Node::Link(target) if ours => plan.symlink(target, path),
                Node::File(content) if ours => plan.file(path, 0o644, content),
                Node::Tmpfs { size, attributes, mode } => {
                    if ours {
                        plan.dir(path, 0o755);
                    }
                    plan.tmpfs(
                        path,
                        *size,
                        TMP_INODES,
                        *mode,
                        u32::try_from(*attributes).unwrap_or(0),
                    );
                }
                Node::Bind(bind) => {
                    if ours {
                        if bind.flags & format::bind::FILE != 0 {
                            plan.file(path, 0o644, "");
                        } else {
                            plan.dir(path, 0o755);
                        }
                    }
                    plan.bind(bind);
                }
                _ => {}
            }
        }
        let abi = self.inputs.machine.abi();
        if abi.0 > 0 && self.inputs.options.has_landlock() {
            plan.landlock(abi.handled_fs(), abi.connecting(), abi.scopes());
            for (rights, path, is_file) in &self.rules {
                plan.landlock_rule(abi.fit(*rights, *is_file), path);
            }
            if abi.connecting() != 0 {
                way_out::landlock(plan, self.inputs.spec);
            }
        }
        Ok(())
    }
}

/// What the granted `exec:` rights add to the runtime.
pub(crate) fn programs(needs: &mut Needs, spec: &LaunchSpec) -> Result<(), SandboxError> {
    for right in spec.rights.of_kind(Kind::Exec) {
        if let Some(scope) = right.path() {
            if let Some(why) = unsupported(right, true) {
                return Err(SandboxError::Unsupported { capability: right.to_string(), why });
            }
            needs.add_granted_program(scope.path())?;
        }
    }
    Ok(())
}

/// The plan for the full walls.
pub(crate) fn namespaced(inputs: &Inputs<'_>) -> Result<Plan, SandboxError> {
    const NEW: u64 =
        0x1000_0000 | 0x2000_0000 | 0x0002_0000 | 0x4000_0000 | 0x0800_0000 | 0x0400_0000;
    let spec = inputs.spec;
    let (uid, gid) = inputs.host_ids();
    let mut switches = format::switch::NEW_ROOT | format::switch::CGROUP_NS;
    if inputs.machine.privileged {
        switches |= format::switch::PRIVILEGED;
    }
    switches |= inputs.group_switch();
    let mut plan = PlanBuilder::new();
    plan.config(config_words(inputs, NEW, switches, (uid, gid)));

    let mut tree = Tree { inputs, nodes: BTreeMap::new(), rules: Vec::new(), idmaps: Vec::new() };
    let tmp_attributes = attr::NOSUID | attr::NODEV | attr::NOEXEC;
    let is_engine = inputs.needs.is_engine;
    tree.put("/proc", Node::Dir);
    // An engine has nothing to write to.
    let scratch = [(TMP, inputs.tmp_size()), (SHM, (inputs.tmp_size() / 2).max(MIB))];
    for (path, size) in scratch.into_iter().filter(|_| !is_engine) {
        tree.put(path, Node::Tmpfs { size, attributes: tmp_attributes, mode: 0o1777 });
        tree.rules.push((landlock::READ_WRITE, path.into(), false));
    }
    tree.rules.push((landlock::READ, "/proc".into(), false));
    // A shared mapping of /dev/zero is shared anonymous memory by another name.
    let devices = DEVICES.into_iter().filter(|d| *d != "/dev/zero" || !inputs.memory_is_policed());
    for device in devices {
        let bind = Bind {
            source: device.into(),
            target: device.into(),
            // Read-only is about the node itself (chmod, touch); what is behind it stays writable.
            attributes: attr::RDONLY | attr::NOSUID | attr::NOEXEC,
            flags: format::bind::FILE,
            identity: (0, 0),
            idmap: None,
        };
        tree.put(device, Node::Bind(bind));
        tree.rules.push((landlock::DEVICE, device.into(), true));
    }
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        tree.put(link, Node::Link(target.into()));
    }
    let hosts = if spec.has_way_out() { "files dns" } else { "files" };
    if spec.has_way_out() {
        tree.put("/etc/resolv.conf", Node::File(way_out::RESOLVER.to_owned()));
    }
    for (path, content) in [
        (
            "/etc/passwd",
            format!("plugin:x:{INSIDE_ID}:{INSIDE_ID}:plugin:{DATA}:/usr/sbin/nologin\n"),
        ),
        ("/etc/group", format!("plugin:x:{INSIDE_ID}:\n")),
        ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n".to_owned()),
        ("/etc/nsswitch.conf", format!("passwd: files\ngroup: files\nhosts: {hosts}\n")),
    ] {
        tree.put(path, Node::File(content));
    }
    tree.rules.push((landlock::READ, "/etc".into(), false));
    for (path, folder) in inputs.needs.minimal() {
        tree.show(path, folder);
    }
    for (path, folder) in way_out::certificates(spec) {
        tree.show(path, folder);
    }
    tree.code()?;
    let content = inputs.content.to_str().unwrap_or_default();
    const READ_ONLY: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV;
    if is_engine {
        tree.bind_checked(content, PLUGIN, READ_ONLY | attr::NOEXEC, landlock::READ, false)?;
    } else {
        tree.bind_checked(content, PLUGIN, READ_ONLY, landlock::READ_EXECUTE, false)?;
        let data = spec.data.to_str().unwrap_or_default();
        tree.bind_checked(data, DATA, tmp_attributes, landlock::READ_WRITE, true)?;
    }
    tree.grants()?;
    for (link, target) in &inputs.needs.links {
        // Below a folder that is shown, the link is there already.
        if !tree.below_bind(link) && !tree.nodes.contains_key(link) {
            tree.put(link, Node::Link(target.clone()));
        }
    }
    tree.emit(&mut plan)?;
    plan.hostname("palisade");
    way_out::plan(&mut plan, spec);
    sysctls(&mut plan);
    let home = if is_engine { PLUGIN } else { DATA };
    common(&mut plan, inputs, PLUGIN, home, TMP, inputs.filter(true))?;
    plan.finish()
}

/// The plan for the tier without namespaces: the same program on the host's own paths, with Landlock,
/// a filter without sockets, and resource limits.
pub(crate) fn landlocked(inputs: &Inputs<'_>) -> Result<Plan, SandboxError> {
    let spec = inputs.spec;
    let (uid, gid) = inputs.host_ids();
    let mut switches = 0;
    if inputs.machine.privileged {
        switches |= format::switch::PRIVILEGED | format::switch::SET_IDS;
    }
    switches |= inputs.group_switch();
    let mut plan = PlanBuilder::new();
    plan.config(config_words(inputs, 0, switches, (uid, gid)));
    let abi = inputs.machine.abi();
    plan.landlock(abi.handled_fs(), abi.handled_net(), abi.scopes());
    let data = spec.data.to_str().unwrap_or_default();
    let content = inputs.content.to_str().unwrap_or_default();
    let mut rule =
        |rights: u64, path: &str, is_file: bool| plan.landlock_rule(abi.fit(rights, is_file), path);
    for (path, folder) in inputs.needs.minimal() {
        rule(landlock::READ_EXECUTE, path, !folder);
    }
    for device in DEVICES {
        rule(landlock::DEVICE, device, true);
    }
    for file in ["/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/hosts"] {
        rule(landlock::READ, file, true);
    }
    if inputs.needs.is_engine {
        rule(landlock::READ, content, false);
    } else {
        rule(landlock::READ_EXECUTE, content, false);
        rule(landlock::READ_WRITE, data, false);
    }
    for right in spec.rights.iter() {
        let Some(scope) = right.path() else { continue };
        if let Some(why) = unsupported(right, false) {
            return Err(SandboxError::Unsupported { capability: right.to_string(), why });
        }
        let path = scope.path();
        let meta = fs::symlink_metadata(path).map_err(|e| SandboxError::Path {
            path: palisade_model::text::escape(path, 300),
            what: e.to_string(),
        })?;
        match right.kind() {
            Kind::FsRead => rule(landlock::READ, path, !meta.is_dir()),
            Kind::FsWrite => rule(landlock::READ_WRITE, path, !meta.is_dir()),
            Kind::Device => rule(landlock::DEVICE, path, true),
            _ => {}
        }
    }
    common(&mut plan, inputs, content, data, data, inputs.filter(false))?;
    plan.finish()
}

fn config_words(
    inputs: &Inputs<'_>,
    clone: u64,
    switches: u64,
    (uid, gid): (u32, u32),
) -> [u64; format::word::COUNT] {
    let limits = &inputs.spec.limits;
    // Without a pid namespace, /proc would have the memory of everybody else in it.
    let memory = if inputs.memory_is_policed() && clone != 0 { limits.memory } else { 0 };
    let cpu = if inputs.cpu_is_policed() && clone != 0 { (limits.cpu * 1000.0) as u64 } else { 0 };
    let observe = if inputs.is_observed() { format::switch::OBSERVE } else { 0 };
    let timed = if inputs.timed { format::switch::TIMED } else { 0 };
    let no_jit = if inputs.filter(clone != 0).no_jit { format::switch::NO_JIT } else { 0 };
    let switches = switches | observe | timed | no_jit;
    [clone, switches, uid.into(), gid.into(), INSIDE_ID.into(), INSIDE_ID.into(), memory, cpu]
}

/// What both tiers share: limits, filter, program, environment.
fn common(
    plan: &mut PlanBuilder,
    inputs: &Inputs<'_>,
    plugin: &str,
    data: &str,
    tmp: &str,
    choice: Choice,
) -> Result<(), SandboxError> {
    let limits = &inputs.spec.limits;
    let rlimits: [(&str, u64, u64); 9] = [
        ("RLIMIT_FSIZE", 1, limits.disk),
        // 1 and not 0: a core pattern that is a pipe ignores 0 but not 1 (core(5)).
        ("RLIMIT_CORE", 4, 1),
        ("RLIMIT_NPROC", 6, u64::from(limits.pids) + 1),
        ("RLIMIT_NOFILE", 7, limits.files.into()),
        ("RLIMIT_MEMLOCK", 8, (8 * MIB).min(limits.memory / 4)),
        ("RLIMIT_SIGPENDING", 11, 1024),
        ("RLIMIT_MSGQUEUE", 12, 64 * 1024),
        ("RLIMIT_NICE", 13, 0),
        ("RLIMIT_RTPRIO", 14, 0),
    ];
    for (name, number, value) in rlimits {
        // Without a user namespace of its own the plugin shares its user's count of processes.
        let shared_count = name == "RLIMIT_NPROC" && tmp == data && !inputs.machine.privileged;
        if !shared_count {
            plan.rlimit(name, number, value);
        }
    }
    if inputs.options.has_seccomp() {
        if inputs.is_observed() {
            plan.seccomp(&filter::observed(&filter::policy(choice)?)?);
        } else {
            plan.seccomp(&filter::filter(choice)?);
        }
    }
    let here = |path: &str| match path.strip_prefix(PLUGIN) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{plugin}{rest}"),
        _ => path.to_owned(),
    };
    plan.exe(&here(&inputs.needs.exe));
    plan.cwd(inputs.spec.workdir.as_deref().unwrap_or(plugin));
    let mut argv = inputs.needs.argv.iter();
    if let Some(name) = argv.next() {
        plan.arg(&here(name));
    }
    if inputs.needs.is_java {
        runtime::java_options(limits).iter().for_each(|option| plan.arg(option));
    }
    for arg in argv {
        plan.arg(&here(arg));
    }
    let mut path: Vec<&str> = inputs.needs.path_dirs.iter().map(String::as_str).collect();
    for dir in ["/usr/local/bin", "/usr/bin", "/bin"] {
        if !path.contains(&dir) {
            path.push(dir);
        }
    }
    let mut env: BTreeMap<&str, String> =
        inputs.spec.env.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
    env.extend(inputs.needs.env.iter().map(|(k, v)| (k.as_str(), v.clone())));
    env.entry("LANG").or_insert_with(|| "C.UTF-8".into());
    if inputs.spec.has_way_out() {
        env.extend(way_out::environment());
    }
    for (name, value) in [
        ("PATH", path.join(":")),
        ("HOME", data.to_owned()),
        ("TMPDIR", tmp.to_owned()),
        ("PALISADE", "1".to_owned()),
    ] {
        env.insert(name, value);
    }
    for (name, value) in &env {
        plan.env(name, value);
    }
    Ok(())
}
