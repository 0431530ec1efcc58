//! A component behind the walls, as a program that speaks the protocol on handle 3: what the conformance
//! suite drives for the backend `wasm+process`. It is also an application with a `main` of its own that is
//! its own engine program.
//!
//! Usage: `walled FILE.wasm CACHE_FOLDER [--extism auto|json|text] [RIGHT...]`; with the variable
//! `PALISADE_WALLED_PREPARE` it compiles into the folder, and ends.

#[cfg(target_os = "linux")]
mod linux {
    use std::{collections::BTreeMap, path::Path, process::ExitCode, sync::Arc};

    use palisade_model::{CapabilitySet, Guarantee, GuaranteeSet, Level, Limits};
    use palisade_sandbox::{
        Artifact, Backend, Calls, Content, ExtismOutput, LaunchSpec, Program, Runtime, Wire,
    };
    use palisade_wasm::{
        engine_process::{Job, enter, here, lane, serve_with},
        walled::{EngineProgram, behind},
    };

    type Wrong = Box<dyn std::error::Error>;

    #[allow(clippy::print_stderr, reason = "this is its log stream")]
    pub(crate) fn main() -> ExitCode {
        if let Some(status) = enter() {
            return status;
        }
        match run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("walled: {error}");
                ExitCode::FAILURE
            }
        }
    }

    fn run() -> Result<(), Wrong> {
        let prepares = std::env::var_os("PALISADE_WALLED_PREPARE").is_some();
        let socket = if prepares { None } else { lane() };
        let mut arguments = std::env::args().skip(1);
        let file = arguments.next().ok_or("which file?")?;
        let cache = arguments.next().ok_or("which folder for compiled code?")?;
        let mut arguments = arguments.peekable();
        let calls = Calls::Stateful;
        let runtime = match arguments.next_if(|word| word == "--extism") {
            None => Runtime::Wasm { calls },
            Some(_) => Runtime::Extism {
                calls,
                output: match arguments.next().as_deref() {
                    Some("json") => ExtismOutput::Json,
                    Some("text") => ExtismOutput::Text,
                    _ => ExtismOutput::Auto,
                },
            },
        };
        let rights: Result<CapabilitySet, _> = arguments.map(|right| right.parse()).collect();
        let path = Path::new(&file).canonicalize()?;
        let (root, name) = path.parent().zip(path.file_name()).ok_or("not a file")?;
        let content = Content { root: root.to_owned(), digest: [0; 32] };
        let spec = LaunchSpec {
            instance: here()?,
            rights: Arc::new(rights?),
            limits: Limits::default(),
            demand: GuaranteeSet::default_floor().with(Guarantee::EngineWalled, Level::Kernel),
            wire: Wire::Native,
            data: root.to_owned(),
            slot: 9,
            env: BTreeMap::new(),
            workdir: None,
            observe: None,
        };
        let file = name.to_string_lossy().into_owned();
        let program = Program { runtime, file, args: Vec::new() };
        let job = Job::new(Artifact { content, program, code: Vec::new() }, spec, None);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let walls = palisade_process::backends();
            let backend: Arc<dyn Backend> =
                behind(&walls, EngineProgram::this()).ok_or("there are no walls here")?;
            backend.keep_in(Path::new(&cache));
            if prepares {
                return backend.prepare(&job.artifact).await.map(drop).map_err(Into::into);
            }
            let socket = socket.ok_or("there is no socket on handle 3")?;
            serve_with(backend, job, socket).await.map_err(|failure| failure.to_string().into())
        })
    }
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {}
