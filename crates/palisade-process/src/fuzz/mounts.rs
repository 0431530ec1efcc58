//! What a plan mounts is what was granted.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use palisade_model::{CapabilitySet, Generation, InstanceId, NodeId, Origin, PluginId, PluginRef};
use palisade_sandbox::LaunchSpec;

use super::{
    Choices,
    asked::{Asked, Ground, Thing, Use, ground},
    laid::Laid,
};
use crate::{
    backend::Options,
    cgroup::Hierarchy,
    layout::{self, DEVICES, Inputs},
    probe::Machine,
    runtime::Needs,
};

/// Lays out random rights and code, and compares what is mounted with what was asked for.
///
/// # Panics
/// Where something more, less or else is visible than what was asked for, where a mount would come before
/// the one that it lies on, or where something would be made in a folder of the host.
pub fn mounts(input: &[u8]) {
    let ground = ground();
    let mut choices = Choices(input);
    let privileged = choices.byte() & 1 != 0;
    let asked = ask(&mut choices, ground);
    let rights: CapabilitySet = asked.rights.iter().cloned().collect();
    let spec = spec(ground, rights);
    let needs = Needs::none(&ground.root.join("plugin"));
    let machine = Machine { privileged, landlock: 6, ..Machine::look() };
    let content = ground.root.join("plugin");
    let inputs = Inputs {
        spec: &spec,
        needs: &needs,
        content: &content,
        code: &asked.code,
        machine: &machine,
        options: &Options::default(),
        cgroups: &Hierarchy::default(),
        grouped: false,
        timed: false,
    };
    let plan = match layout::namespaced(&inputs) {
        Ok(plan) => plan,
        Err(error) => {
            return assert!(!asked.is_possible(ground), "refused: {error}: {:?}", asked.rights);
        }
    };
    assert!(asked.is_possible(ground), "accepted: {:?} {:?}", asked.rights, asked.code);
    let laid = Laid::read(&plan.bytes);
    laid.is_in_order();
    laid.is_asked_for(&asked, ground, privileged.then(|| inputs.host_ids().0));
    for (path, thing) in &ground.places {
        if matches!(thing, Thing::Folder | Thing::File) {
            laid.agrees(Path::new(path), asked.of(Path::new(path)));
        }
    }
    for device in DEVICES.into_iter().filter(|d| *d != "/dev/zero") {
        laid.agrees(Path::new(device), Use::Device);
    }
}

fn ask(choices: &mut Choices<'_>, ground: &Ground) -> Asked {
    let (mut rights, mut code) = (Vec::new(), Vec::new());
    for _ in 0..choices.byte() % 8 {
        let place = choices.of(&(0..ground.places.len()).collect::<Vec<_>>());
        let path = &ground.places[place].0;
        let text = match choices.byte() % 8 {
            0 | 1 => format!("fs.read:{path}/**"),
            2 => format!("fs.read:{path}"),
            3 | 4 => format!("fs.write:{path}/**"),
            5 => format!("fs.write:{path}"),
            6 => {
                code.push(PathBuf::from(path));
                continue;
            }
            _ => {
                // Of those that are bound already; /dev/zero is not, where memory is sampled.
                format!("device:{}", choices.of(&["/dev/null", "/dev/full"]))
            }
        };
        rights.push(text.parse().expect("a right"));
    }
    Asked { rights, code }
}

fn spec(ground: &Ground, rights: CapabilitySet) -> LaunchSpec {
    let origin = Origin::Folder { path: ground.root.display().to_string(), owner: 0 };
    let plugin = PluginRef { id: PluginId::parse("fuzz").expect("an id"), origin };
    let instance = InstanceId {
        node: NodeId::local(),
        plugin: Arc::new(plugin),
        generation: Generation(1),
        serial: 1,
    };
    let data = ground.root.join("data");
    LaunchSpec { rights: Arc::new(rights), ..LaunchSpec::new(instance, data, 7) }
}
