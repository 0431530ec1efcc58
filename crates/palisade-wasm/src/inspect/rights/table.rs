//! The rows: what is provided, from which version, and what it takes.
//!
//! A name that stands in no row is not provided, and neither is one of another version. The linker links what
//! stands here and nothing else; the tests beside ([`super::super`]) link a real function of each row.

use palisade_model::Kind;

use super::Need;

/// Versions of a package that are one to the linker: `palisade:plugin` exactly, WASI without its last number.
pub(crate) type Versions = &'static [&'static str];

/// WASI 0.2.
const V2: &str = "0.2";
/// WASI 0.3.
const V3: &str = "0.3";
const OURS: Versions = super::PLUGIN_VERSIONS;
pub(super) const IN_2: Versions = &[V2];
pub(super) const IN_3: Versions = &[V3];
const IN_BOTH: Versions = &[V2, V3];

/// Interfaces of components.
pub(crate) struct Row {
    /// `namespace:package`.
    pub(crate) package: &'static str,
    /// The interfaces; none is every one.
    pub(crate) names: &'static [&'static str],
    /// Where they are there.
    pub(crate) versions: Versions,
    pub(crate) need: Need,
    pub(crate) why: &'static str,
}

const fn row(
    package: &'static str,
    names: &'static [&'static str],
    versions: Versions,
    need: Need,
    why: &'static str,
) -> Row {
    Row { package, names, versions, need, why }
}

impl Row {
    /// Whether it is about this interface, in whichever version.
    pub(super) fn is_about(&self, package: &str, interface: &str) -> bool {
        self.package == package && (self.names.is_empty() || self.names.contains(&interface))
    }
}

pub(super) const FILES: &[Kind] = &[Kind::FsRead, Kind::FsWrite];
const NETWORK: &[Kind] = &[Kind::NetTcp, Kind::NetHttp];
const CONNECTIONS: &str = "connections through the guard";
const NAMES: &str = "addresses that stand for names, which the guard looks up";
const NO_UDP: &str = "there are no sockets for datagrams";
const GRANTED_FILES: &str = "shows only granted folders; without one there is nothing to open";
const REQUESTS: &str = "requests through the guard";
const TIME: &str = "what time it is";
const NO_TERMINAL: &str = "there is no terminal";
const LINES: &str = "lines of the plugin's log";
const TYPES: &str = "types only";

/// All of them.
pub(crate) const INTERFACES: &[Row] = &[
    row("palisade:plugin", &["types"], OURS, Need::Nothing, TYPES),
    row("palisade:plugin", &["log"], OURS, Need::Nothing, "the plugin's own log"),
    row("palisade:plugin", &["clock"], OURS, Need::Nothing, TIME),
    row("palisade:plugin", &["random"], OURS, Need::Nothing, "random numbers"),
    row(
        "palisade:plugin",
        &["storage"],
        OURS,
        Need::Right(&[Kind::StorageKv]),
        "the plugin's own storage",
    ),
    row(
        "palisade:plugin",
        &["event-bus"],
        OURS,
        Need::Right(&[Kind::EventPublish]),
        "events of its own",
    ),
    row("palisade:plugin", &["http"], OURS, Need::Right(&[Kind::NetHttp]), REQUESTS),
    row(
        "palisade:plugin",
        &["host-call"],
        OURS,
        Need::Right(&[Kind::HostCall]),
        "the application's services",
    ),
    row(
        "palisade:plugin",
        &["plugin-call"],
        OURS,
        Need::Right(&[Kind::PluginCall]),
        "tools of other plugins",
    ),
    row(
        "palisade:plugin",
        &["secrets"],
        OURS,
        Need::Right(&[Kind::Secret]),
        "secrets of the operator",
    ),
    row("wasi:io", &["error", "poll", "streams"], IN_2, Need::Nothing, "streams and waiting"),
    row("wasi:clocks", &["monotonic-clock"], IN_BOTH, Need::Nothing, TIME),
    row("wasi:clocks", &["wall-clock"], IN_2, Need::Nothing, TIME),
    row("wasi:clocks", &["system-clock"], IN_3, Need::Nothing, TIME),
    row("wasi:clocks", &["types"], IN_3, Need::Nothing, TYPES),
    row(
        "wasi:random",
        &["random", "insecure", "insecure-seed"],
        IN_BOTH,
        Need::Nothing,
        "random numbers",
    ),
    row(
        "wasi:cli",
        &["environment"],
        IN_BOTH,
        Need::Shows(&[Kind::Env]),
        "shows only granted variables, and no arguments",
    ),
    row("wasi:cli", &["stdin"], IN_BOTH, Need::Nothing, "is at its end"),
    row("wasi:cli", &["stdout", "stderr"], IN_BOTH, Need::Nothing, LINES),
    row("wasi:cli", &["exit"], IN_BOTH, Need::Nothing, "ends the instance"),
    row("wasi:cli", &["types"], IN_3, Need::Nothing, TYPES),
    row(
        "wasi:cli",
        &[
            "terminal-input",
            "terminal-output",
            "terminal-stdin",
            "terminal-stdout",
            "terminal-stderr",
        ],
        IN_BOTH,
        Need::Nothing,
        NO_TERMINAL,
    ),
    row("wasi:filesystem", &["types", "preopens"], IN_BOTH, Need::Shows(FILES), GRANTED_FILES),
    row("wasi:http", &["types"], IN_BOTH, Need::Nothing, "requests and answers as values"),
    row("wasi:http", &["outgoing-handler"], IN_2, Need::Right(&[Kind::NetHttp]), REQUESTS),
    row("wasi:http", &["client"], IN_3, Need::Right(&[Kind::NetHttp]), REQUESTS),
    row("wasi:sockets", &["network", "instance-network"], IN_2, Need::Nothing, TYPES),
    row("wasi:sockets", &["tcp", "tcp-create-socket"], IN_2, Need::Right(NETWORK), CONNECTIONS),
    row("wasi:sockets", &["types"], IN_3, Need::Right(NETWORK), CONNECTIONS),
    row("wasi:sockets", &["ip-name-lookup"], IN_BOTH, Need::Right(NETWORK), NAMES),
    row("wasi:sockets", &["udp", "udp-create-socket"], IN_2, Need::Nothing, NO_UDP),
];

/// Functions that core modules import.
pub(crate) struct Functions {
    /// The module.
    pub(crate) module: &'static str,
    /// The functions; none is every one.
    pub(crate) names: &'static [&'static str],
    pub(crate) need: Need,
    pub(crate) why: &'static str,
}

const fn functions(
    module: &'static str,
    names: &'static [&'static str],
    need: Need,
    why: &'static str,
) -> Functions {
    Functions { module, names, need, why }
}

impl Functions {
    pub(super) fn are_about(&self, module: &str, name: &str) -> bool {
        self.module == module && (self.names.is_empty() || self.names.contains(&name))
    }
}

const ENV: &str = "extism:host/env";
const PREVIEW_1: &str = "wasi_snapshot_preview1";

/// All of them.
#[rustfmt::skip]
pub(crate) const MODULES: &[Functions] = &[
    functions(
        ENV,
        &[
            "alloc", "free", "length", "length_unsafe", "load_u8", "load_u64", "store_u8", "store_u64",
            "input_load_u8", "input_load_u64", "input_set", "input_offset", "input_length", "output_set",
            "output_offset", "output_length", "error_set", "error_get", "reset", "memory_bytes",
        ],
        Need::Nothing,
        "the plugin's own memory, input and output",
    ),
    functions(ENV, &["config_get"], Need::Nothing, "the plugin's own configuration"),
    functions(ENV, &["var_get", "var_set"], Need::Nothing, "the plugin's own variables"),
    functions(
        ENV,
        &["log_trace", "log_debug", "log_info", "log_warn", "log_error", "get_log_level"],
        Need::Nothing,
        "the plugin's own log",
    ),
    functions(
        ENV,
        // Kits import it into plugins that never call it.
        &["http_request"],
        Need::Shows(&[Kind::NetHttp]),
        "requests through the guard, each with a right of its own",
    ),
    functions(
        ENV,
        &["http_status_code", "http_headers"],
        Need::Nothing,
        "the answer to the plugin's last request",
    ),
    functions("extism:host/user", &[], Need::Right(&[Kind::HostCall]), "the application's services"),
    functions(
        PREVIEW_1,
        &["environ_get", "environ_sizes_get"],
        Need::Shows(&[Kind::Env]),
        "shows only granted variables",
    ),
    functions(
        PREVIEW_1,
        &["fd_prestat_get", "fd_prestat_dir_name", "path_open"],
        Need::Shows(FILES),
        GRANTED_FILES,
    ),
    functions(
        PREVIEW_1,
        &[
            "args_get", "args_sizes_get", "clock_res_get", "clock_time_get", "poll_oneoff", "proc_exit",
            "proc_raise", "random_get", "sched_yield",
        ],
        Need::Nothing,
        "clocks, random numbers and the instance's end; no arguments",
    ),
    functions(
        PREVIEW_1,
        &[
            "fd_advise", "fd_allocate", "fd_close", "fd_datasync", "fd_fdstat_get", "fd_fdstat_set_flags",
            "fd_fdstat_set_rights", "fd_filestat_get", "fd_filestat_set_size", "fd_filestat_set_times",
            "fd_pread", "fd_pwrite", "fd_read", "fd_readdir", "fd_renumber", "fd_seek", "fd_sync", "fd_tell",
            "fd_write", "path_create_directory", "path_filestat_get", "path_filestat_set_times", "path_link",
            "path_readlink", "path_remove_directory", "path_rename", "path_symlink", "path_unlink_file",
        ],
        Need::Nothing,
        "streams; files only through granted folders",
    ),
    functions(
        PREVIEW_1,
        // C libraries import them beside the others.
        &["sock_accept", "sock_recv", "sock_send", "sock_shutdown"],
        Need::Nothing,
        "there is no socket",
    ),
];
