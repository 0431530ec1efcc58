//! The engine inside of a program that is something else as well: `palisade` itself, or an application that
//! embeds it.

use std::{
    ffi::OsStr,
    io::{Read as _, Write as _},
    os::{
        fd::{FromRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::ExitCode,
};

use palisade_model::Failure;

use super::serve_when_told;
use crate::{
    backend,
    cache::{CompiledBy, give_way},
    inspect,
};

/// The first argument with which a program is started as the engine.
pub(crate) const ARGUMENT: &str = "--palisade-engine";
/// The second one: compile a component, or a module for Extism, from standard input to standard output.
pub(crate) const COMPILE: [&str; 2] = ["component", "module"];
/// The third one: with Winch, if that takes it; or with Cranelift, where nothing else needs the processor.
pub(crate) const QUICKLY: &str = "quickly";
pub(crate) const LATER: &str = "later";
/// The first byte of what is written then: machine code of Cranelift follows, a failure, or machine code of Winch.
pub(crate) const COMPILED: u8 = 0;
pub(crate) const NOT_COMPILED: u8 = 1;
pub(crate) const COMPILED_BY_WINCH: u8 = 2;

/// The handle on which a plugin finds its host.
const HANDLE: i32 = 3;
/// Most threads that run guests.
const MAX_THREADS: usize = 8;

/// To be called first thing in `main` by a program that
/// [`EngineProgram::this`](crate::walled::EngineProgram::this) names: where the process was started as the
/// engine, does that work to its end and gives the exit status; `None` where it was started as itself.
#[must_use]
pub fn enter() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != ARGUMENT {
        return None;
    }
    let (what, how) = (arguments.next(), arguments.next());
    Some(match what.as_deref().map(|what| (what, what == OsStr::new(COMPILE[1]))) {
        None => converse(),
        Some((what, is_extism)) if is_extism || what == OsStr::new(COMPILE[0]) => {
            compile(is_extism, how.as_deref())
        }
        Some(_) => end("the engine does not know what to do", 2),
    })
}

/// The socket that whoever started this process has put on handle 3.
#[must_use]
pub fn lane() -> Option<OwnedFd> {
    // SAFETY: whoever starts this program gives it the handle to own, and nothing before this line makes
    // a value of its number. Where it is no socket, it is left as it was found, open or not.
    #[allow(unsafe_code)]
    let socket = unsafe { UnixStream::from_raw_fd(HANDLE) };
    if socket.peer_addr().is_err() {
        std::mem::forget(socket);
        return None;
    }
    Some(OwnedFd::from(socket))
}

#[allow(clippy::print_stderr, reason = "this is its log stream")]
fn end(text: &str, status: u8) -> ExitCode {
    eprintln!("palisade-engine: {text}");
    ExitCode::from(status)
}

fn converse() -> ExitCode {
    let Some(socket) = lane() else {
        return end("this is a part of Palisade: there is no socket on handle 3", 2);
    };
    crate::wasi::alone();
    let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, MAX_THREADS);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return end(&error.to_string(), 1),
    };
    let outcome = runtime.block_on(async {
        // A file that gets too long is an error of whoever writes it, and not the end of the engine.
        let _too_long =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(SIGXFSZ));
        serve_when_told(socket).await
    });
    // A guest that computes is not waited for.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => end(&failure.to_string(), 1),
    }
}

/// signal(7); the same number on x86_64 and aarch64.
const SIGXFSZ: i32 = 25;

fn compile(is_extism: bool, how: Option<&OsStr>) -> ExitCode {
    let asked =
        if how == Some(OsStr::new(QUICKLY)) { CompiledBy::Winch } else { CompiledBy::Cranelift };
    if how == Some(OsStr::new(LATER)) {
        // Threads that the compiler makes begin as this one is.
        give_way();
    }
    let mut wasm = Vec::new();
    let most = inspect::MAX_BYTES as u64;
    if let Err(error) = std::io::stdin().lock().take(most + 1).read_to_end(&mut wasm) {
        return end(&error.to_string(), 1);
    }
    let (first, rest) = match backend::machine_code(&wasm, is_extism, asked) {
        Ok((CompiledBy::Cranelift, code)) => (COMPILED, code),
        Ok((CompiledBy::Winch, code)) => (COMPILED_BY_WINCH, code),
        Err(error) => {
            let text = serde_json::to_vec(&Failure::from(error));
            (NOT_COMPILED, text.unwrap_or_default())
        }
    };
    let mut out = std::io::stdout().lock();
    match out.write_all(&[first]).and_then(|()| out.write_all(&rest)).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => end(&error.to_string(), 1),
    }
}
