//! `palisade-engine FILE.wasm`: a component as a plugin that speaks the protocol on handle 3.
#![deny(unsafe_code)]

#[cfg(target_os = "linux")]
mod linux {
    use std::{collections::BTreeMap, path::Path, process::ExitCode, sync::Arc, time::Duration};

    use palisade_model::{Capability, CapabilitySet, GuaranteeSet, Limits};
    use palisade_sandbox::{
        Artifact, Calls, Content, ExtismOutput, LaunchSpec, Program, Runtime, Wire,
    };
    use palisade_wasm::engine_process::{Job, enter, here, lane, prepare, serve};

    const HELP: &str = "\
Runs a WebAssembly plugin for the host at the other end of the socket on handle 3.

Usage: palisade-engine [OPTIONS] FILE.wasm

  --right KIND:SCOPE      a right that it has (repeatable); what takes others is not linked
  --env NAME=VALUE        an environment variable that it sees (repeatable)
  --memory BYTES          memory and tables of an instance together (default 268435456)
  --cpu SHARE             share of one CPU (default 1.0)
  --start-timeout MS      until it is launched (default 10000)
  --call-timeout MS       of one call (default 30000)
  --log-bytes N           bytes of output a second; the rest is dropped (default 1048576)
  --data FOLDER           its data folder (default /data)
  --instances N           stateless: so many instances, 1 to 1024 (default: one, stateful)
  --per-call              each of them answers one call and is thrown away
  --extism                the file is a module for Extism
  --output MEANING        of what its functions give: auto, json or text (default auto)
  --cache FOLDER          keep compiled code there, for the next start
  --prepare               compile into the cache, and end";

    pub(crate) fn main() -> ExitCode {
        // As an engine behind walls, which is told what to do and has no arguments for it.
        if let Some(status) = enter() {
            return status;
        }
        let (job, is_prepared) = match job(std::env::args().skip(1)) {
            Ok(job) => job,
            Err(wrong) => return end(&format!("palisade-engine: {wrong}\n\n{HELP}"), 2),
        };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return end(&format!("palisade-engine: {error}"), 1),
        };
        if is_prepared {
            return match runtime.block_on(prepare(&job)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(failure) => end(&format!("palisade-engine: {failure}"), 1),
            };
        }
        let Some(socket) = lane() else {
            let words = "this is a part of Palisade: there is no socket on handle 3";
            return end(&format!("palisade-engine: {words}\n\n{HELP}"), 2);
        };
        let outcome = runtime.block_on(serve(job, socket));
        // A guest that computes is not waited for.
        runtime.shutdown_background();
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => end(&format!("palisade-engine: {failure}"), 1),
        }
    }

    #[allow(clippy::print_stderr)]
    fn end(text: &str, status: u8) -> ExitCode {
        eprintln!("{text}");
        ExitCode::from(status)
    }

    /// What is run, and whether it is only compiled.
    fn job(mut arguments: impl Iterator<Item = String>) -> Result<(Job, bool), String> {
        let (mut limits, mut file) = (Limits::default(), None);
        let (mut rights, mut env) = (Vec::new(), BTreeMap::new());
        let (mut data, mut cache, mut calls) = ("/data".to_owned(), None, Calls::Stateful);
        let (mut is_extism, mut is_prepared, mut is_per_call) = (false, false, false);
        let mut output = ExtismOutput::Auto;
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{name} takes a value"));
            match name.as_str() {
                "--right" => {
                    rights.push(value()?.parse::<Capability>().map_err(|e| e.to_string())?);
                }
                "--env" => {
                    let given = value()?;
                    let (name, value) = given.split_once('=').ok_or("--env takes NAME=VALUE")?;
                    env.insert(name.to_owned(), value.to_owned());
                }
                "--memory" => limits.memory = number(&name, &value()?)?,
                "--cpu" => {
                    let share = number::<f64>(&name, &value()?)?;
                    if !(0.01..=1024.0).contains(&share) {
                        return Err("--cpu takes 0.01 to 1024".into());
                    }
                    limits.cpu = share;
                }
                "--start-timeout" => limits.start_timeout = millis(&name, &value()?)?,
                "--call-timeout" => limits.call_timeout = millis(&name, &value()?)?,
                "--log-bytes" => limits.log_bytes_per_second = number(&name, &value()?)?,
                "--data" => data = value()?,
                "--cache" => cache = Some(value()?.into()),
                "--instances" => match number(&name, &value()?)? {
                    instances @ 1..=1024 => calls = Calls::Stateless { instances },
                    _ => return Err("--instances takes 1 to 1024".into()),
                },
                "--per-call" => is_per_call = true,
                "--extism" => is_extism = true,
                "--output" => {
                    output = match value()?.as_str() {
                        "auto" => ExtismOutput::Auto,
                        "json" => ExtismOutput::Json,
                        "text" => ExtismOutput::Text,
                        _ => return Err("--output takes auto, json or text".into()),
                    };
                }
                "--prepare" => is_prepared = true,
                other if other.starts_with('-') || file.is_some() => {
                    return Err(format!("what is {other:?}?"));
                }
                _ => file = Some(name),
            }
        }
        let file = file.ok_or("which file?")?;
        let path = Path::new(&file).canonicalize().map_err(|e| format!("{file}: {e}"))?;
        let (Some(root), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str()))
        else {
            return Err(format!("{file}: not a file"));
        };
        if is_per_call {
            calls = Calls::PerCall { instances: calls.instances() };
        }
        let runtime =
            if is_extism { Runtime::Extism { calls, output } } else { Runtime::Wasm { calls } };
        let program = Program { runtime, file: name.to_owned(), args: Vec::new() };
        let content = Content { root: root.to_owned(), digest: [0; 32] };
        let spec = LaunchSpec {
            instance: here()?,
            rights: Arc::new(rights.into_iter().collect::<CapabilitySet>()),
            limits,
            demand: GuaranteeSet::new(),
            wire: Wire::Native,
            data: data.into(),
            slot: 0,
            env,
            workdir: None,
            observe: None,
        };
        let artifact = Artifact { content, program, code: Vec::new() };
        Ok((Job::new(artifact, spec, cache), is_prepared))
    }

    fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
        value.parse().map_err(|_| format!("{name} takes a number"))
    }

    fn millis(name: &str, value: &str) -> Result<Duration, String> {
        number(name, value).map(Duration::from_millis)
    }
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
#[allow(clippy::print_stderr)]
fn main() -> std::process::ExitCode {
    eprintln!("palisade-engine speaks the protocol on handle 3, which there is on Linux alone");
    std::process::ExitCode::from(4)
}
