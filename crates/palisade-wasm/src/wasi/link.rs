//! Links the interfaces of WASI that a component imports, and no others.

use std::collections::HashSet;

use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime_wasi::{
    cli::{WasiCli, WasiCliView as _},
    clocks::{WasiClocks, WasiClocksView as _},
    filesystem::{WasiFilesystem, WasiFilesystemView as _},
    p2::bindings as p2,
    p3::bindings as p3,
    random::{WasiRandom, WasiRandomView as _},
    sockets::{WasiSockets, WasiSocketsView as _},
};
use wasmtime_wasi_http::{
    WasiHttp, WasiHttpView as _, p2::bindings::http as http2, p3::bindings::http as http3,
};

#[cfg(unix)]
use super::list;
use super::{bounds, open, sockets};
use crate::{
    inspect::{Inspection, Need, rights::Interface},
    state::State,
};

struct Table;

impl HasData for Table {
    type Data<'a> = &'a mut ResourceTable;
}

/// Links what `inspection` imports of WASI; whether there was any. What is unknown is not linked. Whether rights suffice is asked before each launch ([`Inspection::check_rights`]).
///
/// # Errors
/// Those of the linker.
pub(crate) fn link(linker: &mut Linker<State>, inspection: &Inspection) -> wasmtime::Result<bool> {
    let mut linked = HashSet::new();
    for import in &inspection.imports {
        if import.need == Need::Unknown {
            continue;
        }
        let Some(name) = Interface::parse(&import.name) else { continue };
        if !name.package.starts_with("wasi:") {
            continue;
        }
        let newer = name.is_wasi_p3();
        // Versions of one interface that differ in their last number are one interface to the linker.
        if linked.insert((name.package, name.interface, newer)) {
            let files = (name.package, name.interface) == ("wasi:filesystem", "types");
            if newer {
                link_p3(linker, name.package, name.interface)?;
                if files {
                    open::guard_p3(linker)?;
                    #[cfg(unix)]
                    list::guard_p3(linker)?;
                }
            } else {
                link_p2(linker, name.package, name.interface)?;
                bounds::guard_p2(linker, name.package, name.interface)?;
                if files {
                    open::guard_p2(linker)?;
                    #[cfg(unix)]
                    list::guard_p2(linker)?;
                }
            }
        }
    }
    Ok(!linked.is_empty())
}

fn link_p2(l: &mut Linker<State>, package: &str, interface: &str) -> wasmtime::Result<()> {
    match (package, interface) {
        ("wasi:io", "error") => {
            p2::io::error::add_to_linker::<_, Table>(l, |state: &mut State| &mut state.table)
        }
        ("wasi:io", "poll") => {
            p2::io::poll::add_to_linker::<_, Table>(l, |state: &mut State| &mut state.table)
        }
        ("wasi:io", "streams") => {
            p2::io::streams::add_to_linker::<_, Table>(l, |state: &mut State| &mut state.table)
        }
        ("wasi:clocks", "wall-clock") => {
            p2::clocks::wall_clock::add_to_linker::<_, WasiClocks>(l, State::clocks)
        }
        ("wasi:clocks", "monotonic-clock") => {
            p2::clocks::monotonic_clock::add_to_linker::<_, WasiClocks>(l, State::clocks)
        }
        ("wasi:random", "random") => {
            p2::random::random::add_to_linker::<_, WasiRandom>(l, State::random)
        }
        ("wasi:random", "insecure") => {
            p2::random::insecure::add_to_linker::<_, WasiRandom>(l, State::random)
        }
        ("wasi:random", "insecure-seed") => {
            p2::random::insecure_seed::add_to_linker::<_, WasiRandom>(l, State::random)
        }
        ("wasi:cli", "environment") => {
            p2::cli::environment::add_to_linker::<_, WasiCli>(l, State::cli)
        }
        ("wasi:cli", "exit") => p2::cli::exit::add_to_linker::<_, WasiCli>(l, State::cli),
        ("wasi:cli", "stdin") => p2::cli::stdin::add_to_linker::<_, WasiCli>(l, State::cli),
        ("wasi:cli", "stdout") => p2::cli::stdout::add_to_linker::<_, WasiCli>(l, State::cli),
        ("wasi:cli", "stderr") => p2::cli::stderr::add_to_linker::<_, WasiCli>(l, State::cli),
        ("wasi:cli", "terminal-input") => {
            p2::cli::terminal_input::add_to_linker::<_, WasiCli>(l, State::cli)
        }
        ("wasi:cli", "terminal-output") => {
            p2::cli::terminal_output::add_to_linker::<_, WasiCli>(l, State::cli)
        }
        ("wasi:cli", "terminal-stdin") => {
            p2::cli::terminal_stdin::add_to_linker::<_, WasiCli>(l, State::cli)
        }
        ("wasi:cli", "terminal-stdout") => {
            p2::cli::terminal_stdout::add_to_linker::<_, WasiCli>(l, State::cli)
        }
        ("wasi:cli", "terminal-stderr") => {
            p2::cli::terminal_stderr::add_to_linker::<_, WasiCli>(l, State::cli)
        }
        ("wasi:filesystem", "types") => {
            p2::filesystem::types::add_to_linker::<_, WasiFilesystem>(l, State::filesystem)
        }
        ("wasi:filesystem", "preopens") => {
            p2::filesystem::preopens::add_to_linker::<_, WasiFilesystem>(l, State::filesystem)
        }
        ("wasi:http", "types") => {
            let options = http2::types::LinkOptions::default();
            http2::types::add_to_linker::<_, WasiHttp>(l, &options, State::http)
        }
        ("wasi:http", "outgoing-handler") => {
            http2::outgoing_handler::add_to_linker::<_, WasiHttp>(l, State::http)
        }
        ("wasi:sockets", "network") => {
            let options = p2::sockets::network::LinkOptions::default();
            p2::sockets::network::add_to_linker::<_, WasiSockets>(l, &options, State::sockets)
        }
        ("wasi:sockets", "instance-network") => {
            p2::sockets::instance_network::add_to_linker::<_, WasiSockets>(l, State::sockets)
        }
        // Libraries that know TCP import it too. Every socket of it is refused (`super::base`).
        ("wasi:sockets", "udp") => {
            p2::sockets::udp::add_to_linker::<_, WasiSockets>(l, State::sockets)
        }
        ("wasi:sockets", "udp-create-socket") => {
            p2::sockets::udp_create_socket::add_to_linker::<_, WasiSockets>(l, State::sockets)
        }
        ("wasi:sockets", _) => sockets::link_p2(l, interface),
        // What is not there is told by the linker when the component is linked.
        _ => Ok(()),
    }
}

fn link_p3(l: &mut Linker<State>, package: &str, interface: &str) -> wasmtime::Result<()> {
    match (package, interface) {
        ("wasi:clocks", "types") => {
            p3::clocks::types::add_to_linker::<_, WasiClocks>(l, State::clocks)
        }
        ("wasi:clocks", "monotonic-clock") => {
            p3::clocks::monotonic_clock::add_to_linker::<_, WasiClocks>(l, State::clocks)
        }
        ("wasi:clocks", "system-clock") => {
            p3::clocks::system_clock::add_to_linker::<_, WasiClocks>(l, State::clocks)
        }
        ("wasi:random", "random") => {
            p3::random::random::add_to_linker::<_, WasiRandom>(l, State::random)
        }
        ("wasi:random", "insecure") => {
            p3::random::insecure::add_to_linker::<_, WasiRandom>(l, State::random)
        }
        ("wasi:random", "insecure-seed") => {
            p3::random::insecure_seed::add_to_linker::<_, WasiRandom>(l, State::random)
        }
        ("wasi:cli", "environment") => {
            p3::cli::environment::add_to_linker::<_, WasiCli>(l, State::cli)
        }
        ("wasi:cli", "exit") => p3::cli::exit::add_to_linker::<_, WasiCli>(l, State::cli),
        ("wasi:cli", "stdin") => p3::cli::stdin::add_to_linker::<_, WasiCli>(l, State::cli),
        ("wasi:cli", "stdout") => p3::cli::stdout::add_to_linker::<_, WasiCli>(l, State::cli),
        ("wasi:cli", "stderr") => p3::cli::stderr::add_to_linker::<_, WasiCli>(l, State::cli),
        ("wasi:cli", "terminal-input") => {
            p3::cli::terminal_input::add_to_linker::<_, WasiCli>(l, State::cli)
        }
        ("wasi:cli", "terminal-output") => {
            p3::cli::terminal_output::add_to_linker::<_, WasiCli>(l, State::cli)
        }
        ("wasi:cli", "terminal-stdin") => {
            p3::cli::terminal_stdin::add_to_linker::<_, WasiCli>(l, State::cli)
        }
        ("wasi:cli", "terminal-stdout") => {
            p3::cli::terminal_stdout::add_to_linker::<_, WasiCli>(l, State::cli)
        }
        ("wasi:cli", "terminal-stderr") => {
            p3::cli::terminal_stderr::add_to_linker::<_, WasiCli>(l, State::cli)
        }
        ("wasi:filesystem", "types") => {
            p3::filesystem::types::add_to_linker::<_, WasiFilesystem>(l, State::filesystem)
        }
        ("wasi:filesystem", "preopens") => {
            p3::filesystem::preopens::add_to_linker::<_, WasiFilesystem>(l, State::filesystem)
        }
        ("wasi:http", "types") => http3::types::add_to_linker::<_, WasiHttp>(l, State::http),
        ("wasi:http", "client") => http3::client::add_to_linker::<_, WasiHttp>(l, State::http),
        ("wasi:sockets", _) => sockets::link_p3(l, interface),
        _ => Ok(()),
    }
}
