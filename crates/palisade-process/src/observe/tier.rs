//! What the observer has to know about a launch before it begins.

use std::path::{Path, PathBuf};

use palisade_model::Kind;
use palisade_sandbox::SandboxError;

use super::{Observing, Tier, Visible};
use crate::{
    filter,
    layout::{DEVICES, Inputs},
    way_out,
};

/// The observer of this launch, where it has one. Without a filter there is nothing to observe.
pub(crate) fn of(inputs: &Inputs<'_>, namespaces: bool) -> Result<Option<Observing>, SandboxError> {
    let Some(observer) = inputs.spec.observe.clone().filter(|_| inputs.is_observed()) else {
        return Ok(None);
    };
    Ok(Some(Observing {
        observer,
        policy: filter::policy(inputs.filter(namespaces))?,
        arch: filter::arch()?,
        tier: if namespaces { Tier::NewRoot } else { Tier::Landlock(visible(inputs)) },
        ids: inputs.host_ids(),
        way_out: (namespaces && inputs.spec.has_way_out()).then_some(way_out::PORT),
        policy_kill: std::sync::Arc::default(),
    }))
}

/// What can be opened without a new root: as `layout::landlocked` has it.
fn visible(inputs: &Inputs<'_>) -> Vec<Visible> {
    let rule = |path: &Path, below: bool, write: bool, execute: bool| Visible {
        path: PathBuf::from(path),
        below,
        write,
        execute,
    };
    let mut rules: Vec<Visible> = inputs
        .needs
        .minimal()
        .into_iter()
        .map(|(path, folder)| rule(Path::new(path), folder, false, true))
        .collect();
    rules.extend(DEVICES.iter().map(|path| rule(Path::new(path), false, true, false)));
    for file in ["/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/hosts"] {
        rules.push(rule(Path::new(file), false, false, false));
    }
    rules.push(rule(inputs.content, true, false, true));
    rules.extend(inputs.code.iter().map(|path| rule(path, true, false, true)));
    rules.push(rule(&inputs.spec.data, true, true, false));
    for right in inputs.spec.rights.iter() {
        let Some(scope) = right.path() else { continue };
        let write = matches!(right.kind(), Kind::FsWrite | Kind::Device);
        rules.push(rule(Path::new(scope.path()), scope.covers_below(), write, false));
    }
    rules
}
