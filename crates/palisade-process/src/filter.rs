//! The system call filter of a launch: profile and floor, with what these walls add to them, compiled once.
//!
//! What it says can be asked of anybody ([`loaded`]), so that it can be compared with what the kernel answers.

use std::sync::{Arc, Mutex, PoisonError};

use palisade_sandbox::SandboxError;
use palisade_seccomp::{Arch, Policy, compile, merged, profiles::Profile, told};

use crate::additions::{can_be_no_jit, guard_of_init, no_jit, policed_cpu, policed_memory};

/// What the filter of a launch is made of, beside the floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The allow-list of the plugin's runtime; without namespaces it is always [`Profile::Lockdown`].
    pub profile: Profile,
    /// No cgroup holds the plugin's memory.
    pub memory_is_policed: bool,
    /// No cgroup holds the plugin's processor time, and pid 1 samples it.
    pub cpu_is_policed: bool,
    /// The guarantee `no-jit` is demanded.
    pub no_jit: bool,
}

impl Choice {
    /// Every one that a launch can have.
    pub fn all() -> impl Iterator<Item = Self> {
        let all = Profile::ALL.into_iter().flat_map(|profile| {
            (0..8).map(move |bits| Self {
                profile,
                memory_is_policed: bits & 1 != 0,
                cpu_is_policed: bits & 2 != 0,
                no_jit: bits & 4 != 0,
            })
        });
        all.filter(|choice| !choice.no_jit || can_be_no_jit(choice.profile))
    }
}

/// The filter for a launch: floor and profile in one program, with the guard of pid 1 and, where memory is
/// only sampled, without what cannot be counted. Pid 1 is asked about calls that are answered with death,
/// and about nothing else.
pub(crate) fn filter(choice: Choice) -> Result<Arc<Vec<u8>>, SandboxError> {
    // There are few, they depend on nothing else, and compiling one takes longer than building the walls.
    type Known = Vec<(Choice, Arc<Vec<u8>>)>;
    static KNOWN: Mutex<Known> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, program)) = known.iter().find(|(known, _)| *known == choice) {
        return Ok(Arc::clone(program));
    }
    let program = Arc::new(bytes(&loaded(choice, false)?)?);
    known.push((choice, Arc::clone(&program)));
    Ok(program)
}

fn broken(error: palisade_seccomp::Error) -> SandboxError {
    SandboxError::Helper(format!("cannot be given a filter: {error}"))
}

pub(crate) fn arch() -> Result<Arch, SandboxError> {
    Arch::native().ok_or_else(|| SandboxError::Helper("has no filter for this processor".into()))
}

/// What the filter of a launch says: floor, profile and additions, before anybody is asked about anything.
///
/// # Errors
/// [`SandboxError::Helper`] where the rules contradict themselves: a bug, and the tests would fail.
pub fn policy(choice: Choice) -> Result<Policy, SandboxError> {
    let profile = choice.profile.with_floor().map_err(broken)?;
    let mut policy = merged(&guard_of_init().map_err(broken)?, &profile);
    if choice.memory_is_policed {
        policy = merged(&policed_memory().map_err(broken)?, &policy);
    }
    if choice.cpu_is_policed {
        policy = merged(&policed_cpu().map_err(broken)?, &policy);
    }
    if choice.no_jit {
        policy = merged(&no_jit().map_err(broken)?, &policy);
    }
    Ok(policy)
}

/// What the program answers that is loaded for a launch. Pid 1 is asked about each call that [`policy`]
/// answers with death; where somebody observes the launch, the observer about every refusal and about what
/// is watched.
///
/// # Errors
/// As [`policy`].
pub fn loaded(choice: Choice, observed: bool) -> Result<Policy, SandboxError> {
    let policy = policy(choice)?;
    if observed { asking(&policy) } else { Ok(told(&policy)) }
}

fn asking(policy: &Policy) -> Result<Policy, SandboxError> {
    let watched = crate::observe::watched().map_err(broken)?;
    Ok(palisade_seccomp::observed(policy, &watched))
}

fn bytes(loaded: &Policy) -> Result<Vec<u8>, SandboxError> {
    Ok(compile(loaded, arch()?).map_err(broken)?.to_bytes())
}

/// The filter of an observed launch: it asks the listener about what `policy` refuses and about what is
/// watched.
pub(crate) fn observed(policy: &Policy) -> Result<Vec<u8>, SandboxError> {
    bytes(&asking(policy)?)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use palisade_sandbox::{Artifact, Content, Program, Runtime};

    use super::*;
    use crate::runtime;

    #[test]
    fn each_choice_is_compiled_once() {
        for choice in Choice::all().take(8) {
            let (first, second) = (filter(choice).unwrap(), filter(choice).unwrap());
            assert!(Arc::ptr_eq(&first, &second), "{choice:?} was compiled twice");
        }
    }

    fn profile(root: &Path, runtime: Runtime, file: &str) -> Profile {
        let artifact = Artifact {
            content: Content { root: root.to_path_buf(), digest: [0; 32] },
            program: Program { runtime, file: file.to_owned(), args: Vec::new() },
            code: Vec::new(),
        };
        runtime::resolve(&artifact).unwrap_or_else(|e| panic!("{file}: {e}")).profile
    }

    #[test]
    fn each_runtime_gets_its_own_profile() {
        let place = tempfile::tempdir().unwrap();
        let outside = place.path().canonicalize().unwrap();
        let root = outside.join("plugin");
        fs::create_dir(&root).unwrap();
        fs::copy("/bin/true", root.join("program")).unwrap();
        fs::write(root.join("main"), "").unwrap();
        let scripts = [
            ("#!/bin/sh", Profile::Shell),
            ("#!/bin/bash -e", Profile::Shell),
            ("#!/usr/bin/env bash", Profile::Shell),
            ("#!/usr/bin/env python3", Profile::Python),
        ];
        for (line, wanted) in scripts {
            fs::write(root.join("script"), format!("{line}\n")).unwrap();
            assert_eq!(profile(&root, Runtime::Native, "script"), wanted, "{line}");
        }
        assert_eq!(profile(&root, Runtime::Native, "program"), Profile::Native);
        assert_eq!(profile(&root, Runtime::Native, "/bin/true"), Profile::Native);
        assert_eq!(profile(&root, Runtime::Native, "bash"), Profile::Shell);
        let python = Runtime::Python { interpreter: None, version: None };
        assert_eq!(profile(&root, python, "main"), Profile::Python);
        // What looks like an installation of Java is one, to those who look for its files.
        let home = outside.join("jdk");
        fs::create_dir_all(home.join("bin")).unwrap();
        fs::create_dir_all(home.join("lib")).unwrap();
        fs::copy("/bin/true", home.join("bin/java")).unwrap();
        fs::write(home.join("lib/modules"), "").unwrap();
        let java = home.join("bin/java").display().to_string();
        assert_eq!(profile(&root, Runtime::Native, &java), Profile::Jvm);
    }

    #[test]
    fn what_is_loaded_is_what_is_said() {
        for choice in Choice::all() {
            let said = bytes(&loaded(choice, false).unwrap()).unwrap();
            assert_eq!(*filter(choice).unwrap(), said, "{choice:?}");
            let asked = bytes(&loaded(choice, true).unwrap()).unwrap();
            assert_eq!(observed(&policy(choice).unwrap()).unwrap(), asked, "{choice:?}");
        }
    }
}
