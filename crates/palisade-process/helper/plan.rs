// The language between the host and its helper: shared, byte for byte, by both.
//
// A launch plan is a sequence of records: tag (u16), zero (u16), length (u32), body; all numbers little
// endian. Strings in a body end with a NUL, so that the helper can hand them to the kernel where they
// lie. The host writes plans (`src/plan.rs`), the helper reads them; both include this file, and its
// hash is part of the handshake, so the two cannot disagree.

/// Longest plan, in bytes. Fits one message of a SOCK_SEQPACKET socket with default buffers.
pub const MAX_PLAN: usize = 128 * 1024;
/// Most bind mounts of a plan.
pub const MAX_BINDS: usize = 192;
/// Most id maps of a plan.
pub const MAX_IDMAPS: usize = 16;
/// Most arguments, and most environment variables, of a plan.
pub const MAX_STRINGS: usize = 512;

/// How long a turn of the processor a plugin asks for when it begins, in nanoseconds (sched_setattr(2)).
pub const TURN_NS: u64 = 100_000;

/// First word of every message, against crossed wires: "PALI".
pub const MAGIC: u32 = 0x5041_4c49;

/// What is asked of the spawner.
pub mod request {
    /// Launch the plan that follows.
    pub const LAUNCH: u32 = 1;
    /// Build its walls, report [`super::report::WALLS_UP`], and start the program at
    /// [`super::command::START`].
    pub const HELD: u32 = 2;
}

// Records.
/// Numbers that every launch has; body: the words of [`word`].
pub const TAG_CONFIG: u16 = 1;
/// A directory of the new root: mode u32, path.
pub const TAG_DIR: u16 = 2;
/// A symbolic link of the new root: target, path.
pub const TAG_SYMLINK: u16 = 3;
/// A small file of the new root: mode u32, path, content.
pub const TAG_FILE: u16 = 4;
/// A tmpfs: size u64, inodes u64, mode u32, mount attributes u32, path.
pub const TAG_TMPFS: u16 = 5;
/// A bind mount: attributes u64, flags u64, device u64, inode u64, source path, target path.
pub const TAG_BIND: u16 = 6;
/// An id map for bind mounts: uid on disk, uid of the plugin, gid on disk, gid of the plugin (u32 each).
pub const TAG_IDMAP: u16 = 7;
/// The program: path inside.
pub const TAG_EXE: u16 = 8;
/// One argument (the first is argv[0]).
pub const TAG_ARG: u16 = 9;
/// One environment variable, `NAME=value`.
pub const TAG_ENV: u16 = 10;
/// The working directory inside.
pub const TAG_CWD: u16 = 11;
/// A resource limit: resource u64, soft u64, hard u64.
pub const TAG_RLIMIT: u16 = 12;
/// The system call filter: an array of `struct sock_filter`.
pub const TAG_SECCOMP: u16 = 13;
/// Landlock: handled file rights u64, handled network rights u64, scopes u64.
pub const TAG_LANDLOCK: u16 = 14;
/// One Landlock rule: rights u64, path inside.
pub const TAG_LANDLOCK_RULE: u16 = 15;
/// The host name inside.
pub const TAG_HOSTNAME: u16 = 16;
/// A value written to a namespaced sysctl before the host's /proc goes out of sight: path, value.
pub const TAG_SYSCTL: u16 = 17;

/// One socket of the way out: what for (u32, see [`egress`]), port u32. With the first, the loopback
/// interface is brought up.
pub const TAG_EGRESS: u16 = 18;
/// A TCP port that Landlock lets the program connect to: u64.
pub const TAG_LANDLOCK_PORT: u16 = 19;

/// Words of the config record.
pub mod word {
    /// Flags for clone3: the namespaces.
    pub const CLONE_FLAGS: usize = 0;
    /// Switches, see [`super::switch`].
    pub const SWITCHES: usize = 1;
    /// User id of the plugin on the host.
    pub const HOST_UID: usize = 2;
    /// Group id of the plugin on the host.
    pub const HOST_GID: usize = 3;
    /// User id of the plugin inside.
    pub const INSIDE_UID: usize = 4;
    /// Group id of the plugin inside.
    pub const INSIDE_GID: usize = 5;
    /// Policed memory limit in bytes; 0 for none.
    pub const MEMORY_LIMIT: usize = 6;
    /// Policed CPU share in thousandths of a core; 0 for none.
    pub const CPU_MILLIS: usize = 7;
    /// How many words there are.
    pub const COUNT: usize = 8;
}

/// Switches of the config record.
pub mod switch {
    /// The launcher is privileged: bind sources are opened before the new user namespace is entered.
    pub const PRIVILEGED: u64 = 1;
    /// Build a new root and pivot into it.
    pub const NEW_ROOT: u64 = 2;
    /// The helper's own ids are switched to the host ids given (a privileged launcher without
    /// namespaces).
    pub const SET_IDS: u64 = 4;
    /// The handle [`super::handle::CGROUP`] is a directory of cgroups version 2, for CLONE_INTO_CGROUP.
    pub const INTO_CGROUP: u64 = 8;
    /// Unshare the cgroup namespace once the process is in its groups.
    pub const CGROUP_NS: u64 = 16;
    /// Report [`super::report::WALLS_UP`] and end: a trial.
    pub const ONLY_WALLS: u64 = 32;
    /// The handles from [`super::handle::CGROUP`] on, or behind it where [`INTO_CGROUP`] is set too, are
    /// `tasks` files of version 1 groups to join.
    pub const JOIN_GROUPS: u64 = 64;
    /// Load the filter with a listener, and give it to the host ([`super::report::LISTENER`]).
    pub const OBSERVE: u64 = 128;
    /// Memory that was written never becomes executable (PR_SET_MDWE).
    pub const NO_JIT: u64 = 256;
    /// Report how long each step took ([`super::report::LAP`]).
    pub const TIMED: u64 = 512;
}

/// Switches that take a layer away, for tests. A build without the feature has neither these nor what they do.
#[cfg(feature = "ablation")]
pub mod without {
    /// Pid 1 can be looked into by processes of its user.
    pub const UNDUMPABLE: u64 = 1 << 32;
    /// The program may gain rights by an exec.
    pub const NO_NEW_PRIVILEGES: u64 = 1 << 33;
    /// The program keeps all capabilities of its user namespace.
    pub const CAPABILITIES: u64 = 1 << 34;
    /// /proc shows the kernel's files, too.
    pub const PROC_SUBSET: u64 = 1 << 35;
    /// /proc is not mounted read-only.
    pub const READ_ONLY_PROC: u64 = 1 << 36;
    /// /proc is the one that a bind of the plan puts there.
    pub const OWN_PROC: u64 = 1 << 37;
}

/// What the sockets of the way out are for.
pub mod egress {
    /// TCP on 127.0.0.1: clients say whom they want.
    pub const PROXY: u32 = 0;
    /// UDP on 127.0.0.1: a name server.
    pub const NAMES: u32 = 1;
    /// TCP on every address that leads to the loopback interface: clients mean the address.
    pub const DIRECT: u32 = 2;
    /// These lead to the loopback interface besides its own: address and length of the prefix.
    pub const PREFIX: ([u8; 4], u8) = ([198, 18, 0, 0], 15);
}

/// Flags of a bind.
pub mod bind {
    /// With every mount below it.
    pub const RECURSIVE: u64 = 1;
    /// The source is no directory.
    pub const FILE: u64 = 2;
    /// A missing source is no error.
    pub const OPTIONAL: u64 = 4;
    /// If the file system knows no id-mapped mounts, bind without.
    pub const IDMAP_OPTIONAL: u64 = 8;
    /// The id map's index plus one stands in the bits from here; 0 for none.
    pub const IDMAP_SHIFT: u32 = 16;
}

/// Order of the handles that come with a launch message.
pub mod handle {
    /// The socket between host and pid 1.
    pub const STATUS: usize = 0;
    /// The plugin's standard input.
    pub const STDIN: usize = 1;
    /// The plugin's standard output.
    pub const STDOUT: usize = 2;
    /// The plugin's standard error.
    pub const STDERR: usize = 3;
    /// The plugin's lane: handle 3 inside (the same as stdin where there is none).
    pub const LANE: usize = 4;
    /// How many there are without the cgroup.
    pub const COUNT: usize = 5;
    /// The first of what lets pid 1 into its cgroups: [`super::switch::INTO_CGROUP`],
    /// [`super::switch::JOIN_GROUPS`].
    pub const CGROUP: usize = 5;
    /// Most that come: version 1 has a group each for memory, processes and processor time, and a fourth counts time.
    pub const MOST: usize = COUNT + 4;
}

/// Messages from pid 1 to the host: three words (kind, a, b) of u32, i32, u64.
pub mod report {
    /// The walls stand; sent only by a trial or where they are held. b: nanoseconds since the start.
    pub const WALLS_UP: u32 = 1;
    /// The program runs. a: its pid inside. b: nanoseconds from the start of set-up.
    pub const RUNNING: u32 = 2;
    /// A step failed. a: errno. b: the step's number and, from bit 32, an index into the records.
    pub const FAILED: u32 = 3;
    /// The program ended. a: wait status. b: CPU microseconds of the program and all it waited for.
    pub const ENDED: u32 = 4;
    /// A policed limit was exceeded; all is being killed. a: 1 memory. b: bytes seen.
    pub const EXCEEDED: u32 = 5;
    /// Answer to [`super::command::USAGE`]: a: processes and threads. b: bytes of memory.
    pub const USAGE: u32 = 6;
    /// A socket of the way out, as the one handle that comes with the message. a: what for.
    pub const EGRESS: u32 = 7;
    /// The filter's listener, as the one handle that comes with the message; sent by the process that is
    /// about to become the program.
    pub const LISTENER: u32 = 8;
    /// A process made a call that is answered with death, and is being killed. a: the call's number.
    /// b: the interface that it came through (AUDIT_ARCH_*), and [`PROGRAM`] if it is the program itself.
    pub const VIOLATION: u32 = 9;
    /// Whether [`VIOLATION`] is about the program itself, and not a process that it started.
    pub const PROGRAM: u64 = 1 << 32;
    /// The filter could not be given a listener: the kernel itself kills, and does not say for what.
    pub const UNWATCHED: u32 = 10;
    /// How long a step of the launch took; sent only where [`super::switch::TIMED`] is set, before
    /// [`RUNNING`]. a: which, see [`super::lap`]; b: nanoseconds. With a = -1, b is when the spawner took up
    /// the request (CLOCK_MONOTONIC, nanoseconds).
    pub const LAP: u32 = 11;
    /// Processes have run since this was last reported; sent only where limits are sampled. b: microseconds
    /// in all, for which one or more did, estimated upwards.
    pub const RAN: u32 = 12;
}

/// The steps that are timed, in the order in which they are done.
pub mod lap {
    /// The spawner: bind sources as detached mounts, with their id maps.
    pub const SOURCES: usize = 0;
    /// clone3 with the user and the pid namespace, until the first instruction of pid 1.
    pub const CLONE: usize = 1;
    /// Having the network begun, and the other namespaces.
    pub const NAMESPACES: usize = 2;
    /// Pid 1 waits until the spawner has written its id maps.
    pub const GO: usize = 3;
    /// Entering the groups of version 1.
    pub const GROUPS: usize = 4;
    /// User and group, session, name.
    pub const IDS: usize = 5;
    /// Mounts made private.
    pub const PRIVATE: usize = 6;
    /// A tmpfs as the new root.
    pub const ROOT: usize = 7;
    /// Its folders, links and small files.
    pub const NODES: usize = 8;
    /// The tmpfs inside.
    pub const TMPFS: usize = 9;
    /// Attaching the bind sources.
    pub const BINDS: usize = 10;
    /// Host name and namespaced sysctls.
    pub const SYSCTLS: usize = 11;
    /// /proc.
    pub const PROC: usize = 12;
    /// pivot_root, and taking the old root away: the kernel is slow at it while a network is made.
    pub const PIVOT: usize = 13;
    /// Waiting for the network, which was made meanwhile, and entering it.
    pub const NETWORK: usize = 14;
    /// The way out, the keyring.
    pub const REST: usize = 15;
    /// The Landlock ruleset.
    pub const RULESET: usize = 16;
    /// The program's process: cgroup namespace, signals, vfork.
    pub const FORK: usize = 17;
    /// Its handles and resource limits.
    pub const LIMITS: usize = 18;
    /// Its capabilities, given up.
    pub const CAPABILITIES: usize = 19;
    /// Landlock and no_new_privs, applied.
    pub const LANDLOCK: usize = 20;
    /// The filter, loaded.
    pub const FILTER: usize = 21;
    /// exec, until pid 1 goes on.
    pub const EXEC: usize = 22;
    /// How many there are.
    pub const COUNT: usize = 23;
}

/// Messages from the host to pid 1: two words (kind, argument) of u32, u32.
pub mod command {
    /// Send this signal to the program.
    pub const SIGNAL: u32 = 2;
    /// Send this signal to every process inside.
    pub const SIGNAL_ALL: u32 = 3;
    /// Report what is used.
    pub const USAGE: u32 = 4;
    /// Replace the policed memory limit (mebibytes).
    pub const MEMORY_LIMIT: u32 = 5;
    /// End everything now.
    pub const END: u32 = 6;
    /// Start the program; only where the walls are held ([`super::request::HELD`]).
    pub const START: u32 = 7;
}

/// Steps that can fail, in the order in which they are done. The host turns them into words.
pub mod step {
    pub const PLAN: u32 = 1;
    pub const IDMAP: u32 = 2;
    pub const BIND_OPEN: u32 = 3;
    pub const BIND_CHANGED: u32 = 4;
    pub const BIND_CLONE: u32 = 5;
    pub const BIND_ATTR: u32 = 6;
    pub const CLONE: u32 = 7;
    pub const ID_MAP_FILE: u32 = 8;
    pub const SET_IDS: u32 = 9;
    pub const PRIVATE: u32 = 10;
    pub const ROOT: u32 = 11;
    pub const MAKE: u32 = 12;
    pub const TMPFS: u32 = 13;
    pub const PROC: u32 = 14;
    pub const BIND_TARGET: u32 = 15;
    pub const BIND_ATTACH: u32 = 16;
    pub const SYSCTL: u32 = 17;
    pub const PIVOT: u32 = 18;
    pub const ROOT_RO: u32 = 19;
    pub const HOSTNAME: u32 = 20;
    pub const CGROUP_NS: u32 = 21;
    pub const FORK: u32 = 22;
    pub const HANDLES: u32 = 23;
    pub const CWD: u32 = 24;
    pub const RLIMIT: u32 = 25;
    pub const CAPS: u32 = 26;
    pub const NO_NEW_PRIVS: u32 = 27;
    pub const LANDLOCK: u32 = 28;
    pub const SECCOMP: u32 = 29;
    pub const EXEC: u32 = 30;
    pub const KEYRING: u32 = 31;
    pub const SUBREAPER: u32 = 32;
    pub const JOIN_GROUP: u32 = 33;
    pub const EGRESS: u32 = 34;
    pub const NO_JIT: u32 = 35;
    pub const HELD: u32 = 36;
}

/// Walks the records of a plan. Stops at the first malformed one; `complete` tells whether all was read.
pub struct Records<'a> {
    rest: &'a [u8],
    /// Number of the record last given, from 0.
    pub index: u32,
    started: bool,
}

impl<'a> Records<'a> {
    pub fn new(plan: &'a [u8]) -> Self {
        Records { rest: plan, index: 0, started: false }
    }

    /// Whether every byte was part of a record.
    pub fn complete(&self) -> bool {
        self.rest.is_empty()
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let head = self.rest.get(..8)?;
        let tag = u16::from_le_bytes([*head.first()?, *head.get(1)?]);
        let len = u32::from_le_bytes([*head.get(4)?, *head.get(5)?, *head.get(6)?, *head.get(7)?])
            as usize;
        let body = self.rest.get(8..8usize.checked_add(len)?)?;
        self.rest = self.rest.get(8 + len..)?;
        if self.started {
            self.index += 1;
        }
        self.started = true;
        Some((tag, body))
    }
}

/// Reads numbers and strings from a record's body.
pub struct Body<'a>(pub &'a [u8]);

impl<'a> Body<'a> {
    pub fn u32(&mut self) -> Option<u32> {
        let b = self.0.get(..4)?;
        self.0 = self.0.get(4..)?;
        Some(u32::from_le_bytes([*b.first()?, *b.get(1)?, *b.get(2)?, *b.get(3)?]))
    }

    pub fn u64(&mut self) -> Option<u64> {
        let low = self.u32()?;
        let high = self.u32()?;
        Some(u64::from(low) | (u64::from(high) << 32))
    }

    /// A string, its NUL included.
    pub fn text(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|b| *b == 0)?;
        let text = self.0.get(..=end)?;
        self.0 = self.0.get(end + 1..)?;
        Some(text)
    }
}
