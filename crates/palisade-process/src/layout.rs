//! The inside of the walls as data: which places exist, what is shown in them, and which rights each has.
//!
//! One description gives both the mounts and the Landlock rules, so that the second wall cannot drift
//! from the first. Nothing here touches the kernel except to look at the granted paths.

#[cfg(feature = "ablation")]
mod host;
mod program;
mod refused;
mod tree;

use std::{
    fs,
    path::{Path, PathBuf},
};

use palisade_model::Kind;
use palisade_sandbox::{LaunchSpec, SandboxError};
use palisade_seccomp::profiles::Profile;

use crate::{
    ablation::Layer,
    assess::is_no_jit,
    backend::Options,
    cgroup::Hierarchy,
    filter::Choice,
    landlock,
    plan::{Bind, Plan, PlanBuilder, format},
    probe::Machine,
    runtime::{Needs, PLUGIN},
    way_out,
};

pub(crate) use refused::unsupported;

use program::common;
use tree::{Node, Tree, attr};

/// What the plugin keeps.
pub(crate) const DATA: &str = "/data";
const TMP: &str = "/tmp";
const SHM: &str = "/dev/shm";
/// User and group inside.
const INSIDE_ID: u32 = 1000;
const MIB: u64 = 1 << 20;
pub(crate) const DEVICES: [&str; 5] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

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
        use format::switch::{INTO_CGROUP, JOIN_GROUPS};
        if !self.grouped {
            return 0;
        }
        let into = if self.cgroups.begins_within() { INTO_CGROUP } else { 0 };
        let join = if self.cgroups.has_more() { JOIN_GROUPS } else { 0 };
        into | join
    }

    /// Whether somebody is told about the system calls.
    pub(crate) fn is_observed(&self) -> bool {
        self.spec.observe.is_some() && self.options.has(Layer::Seccomp)
    }

    /// What the filter of this launch is made of.
    pub(crate) fn filter(&self, namespaces: bool) -> Choice {
        Choice {
            profile: if namespaces { self.needs.profile } else { Profile::Lockdown },
            memory_is_policed: self.memory_is_policed(),
            // Without namespaces nobody samples it.
            cpu_is_policed: namespaces && self.cpu_is_policed(),
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
pub(crate) fn sysctls(plan: &mut PlanBuilder, options: &Options) {
    const NAMESPACES: &str = "/proc/sys/user/max_user_namespaces";
    for (file, value) in [
        (NAMESPACES, "0"),
        ("/proc/sys/user/max_inotify_instances", "128"),
        ("/proc/sys/user/max_inotify_watches", "65536"),
    ] {
        let is_wanted = file != NAMESPACES || options.has(Layer::NamespaceLimit);
        if is_wanted && Path::new(file).exists() {
            plan.sysctl(file, value);
        }
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
    let namespaces = inputs.options.namespaces(NEW);
    if namespaces != NEW && spec.has_way_out() {
        return Err(SandboxError::Artifact {
            what: "a way out of the host's own network was asked for".into(),
            hint: "take that layer away where nothing of the network is granted".into(),
        });
    }
    plan.config(config_words(inputs, namespaces, switches, (uid, gid)));

    let mut tree = Tree::new(inputs);
    let tmp_attributes = attr::NOSUID | attr::NODEV | attr::NOEXEC;
    let is_engine = inputs.needs.is_engine;
    tree.put("/proc", if inputs.options.has(Layer::OwnProc) { Node::Dir } else { hosts_proc() });
    // An engine has nothing to write to.
    let scratch = [(TMP, inputs.tmp_size()), (SHM, (inputs.tmp_size() / 2).max(MIB))];
    for (path, size) in scratch.into_iter().filter(|_| !is_engine) {
        tree.put(path, Node::Tmpfs { size, attributes: tmp_attributes, mode: 0o1777 });
        tree.rule(landlock::READ_WRITE, path, false);
    }
    tree.rule(landlock::READ, "/proc", false);
    devices(&mut tree, inputs);
    etc(&mut tree, spec);
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
        if !tree.below_bind(link) && !tree.has(link) {
            tree.put(link, Node::Link(target.clone()));
        }
    }
    #[cfg(feature = "ablation")]
    if !inputs.options.has(Layer::MountNamespace) {
        tree.host()?;
    }
    tree.emit(&mut plan)?;
    plan.hostname("palisade");
    way_out::plan(&mut plan, spec);
    sysctls(&mut plan, inputs.options);
    let home = if is_engine { PLUGIN } else { DATA };
    common(&mut plan, inputs, PLUGIN, home, TMP, inputs.filter(true))?;
    plan.finish()
}

/// What lies below the /proc of our own, for tests that take that away.
fn hosts_proc() -> Node {
    Node::Bind(Bind {
        source: "/proc".into(),
        target: "/proc".into(),
        attributes: attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC,
        flags: format::bind::RECURSIVE,
        identity: (0, 0),
        idmap: None,
    })
}

/// Device nodes, and the names of a process's own handles.
fn devices(tree: &mut Tree<'_>, inputs: &Inputs<'_>) {
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
        tree.rule(landlock::DEVICE, device, true);
    }
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        tree.put(link, Node::Link(target.into()));
    }
}

/// Files that name users, hosts and where names are looked up.
fn etc(tree: &mut Tree<'_>, spec: &LaunchSpec) {
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
    tree.rule(landlock::READ, "/etc", false);
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
    let sampled = clone != 0 && inputs.options.has(Layer::OwnProc);
    let memory = if inputs.memory_is_policed() && sampled { limits.memory } else { 0 };
    let cpu = if inputs.cpu_is_policed() && sampled { (limits.cpu * 1000.0) as u64 } else { 0 };
    let observe = if inputs.is_observed() { format::switch::OBSERVE } else { 0 };
    let timed = if inputs.timed { format::switch::TIMED } else { 0 };
    let no_jit = if inputs.filter(clone != 0).no_jit { format::switch::NO_JIT } else { 0 };
    let switches = switches | observe | timed | no_jit | inputs.options.switches();
    [clone, switches, uid.into(), gid.into(), INSIDE_ID.into(), INSIDE_ID.into(), memory, cpu]
}
