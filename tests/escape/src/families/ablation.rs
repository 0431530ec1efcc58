//! The walls whole, and without one of the layers that can be taken away.

use std::{collections::BTreeMap, sync::Arc};

use palisade_process::{Layer, Options};

use crate::{attacker::Attempt, launch::Walls, record::Launcher, scene::Stage, trouble::Result};

/// A layer that can be taken away, and what is attempted then.
pub struct Removable {
    /// Its name in the matrix.
    pub name: &'static str,
    /// What the backend is told to leave out.
    pub layer: Layer,
    /// The attempts that are made without it, by number and way: all that it may stop, but nothing that could
    /// harm the machine if nothing else stopped it.
    is_about: fn(u16, &str) -> bool,
}

const fn removable(name: &'static str, layer: Layer, is_about: fn(u16, &str) -> bool) -> Removable {
    Removable { name, layer, is_about }
}

/// All of them. The first two are taken away for every attempt.
pub const LAYERS: [Removable; 14] = [
    removable("seccomp", Layer::Seccomp, |_, _| true),
    removable("landlock", Layer::Landlock, |_, _| true),
    removable("nosuid", Layer::Nosuid, |number, _| matches!(number, 12 | 13 | 60)),
    removable("nodev", Layer::Nodev, |number, _| number == 11),
    removable("noexec mounts", Layer::Noexec, |number, _| number == 55),
    removable("mount namespace", Layer::MountNamespace, sees_files),
    removable("network namespace", Layer::NetworkNamespace, uses_the_network),
    removable("namespace limit", Layer::NamespaceLimit, |number, _| matches!(number, 17..=19)),
    removable("no new privileges", Layer::NoNewPrivileges, |number, _| {
        matches!(number, 12 | 13 | 60)
    }),
    // They count in a user namespace that holds nothing but the plugin.
    removable(
        "no capabilities",
        Layer::Capabilities,
        |number, _| matches!(number, 11 | 13..=20 | 22 | 35 | 42 | 44..=46 | 50 | 53 | 54),
    ),
    removable("undumpable init", Layer::Undumpable, |number, way| match number {
        7 => way == "init",
        8 | 19 | 26 | 27 => !way.contains("host"),
        _ => false,
    }),
    removable("proc subset", Layer::ProcSubset, reads_kernel_files),
    removable("read-only proc", Layer::ReadOnlyProc, reads_kernel_files),
    removable("own proc", Layer::OwnProc, |number, way| number == 8 && way.contains("host")),
];

/// Files of the host, as far as the suite made them or they are only read. What a device, a cgroup or a service of
/// the machine itself would be asked stays out.
fn sees_files(number: u16, way: &str) -> bool {
    match number {
        1 | 4 => true,
        2 => !way.starts_with("ro-") && !matches!(way, "bytecode" | "report"),
        5 => way != "fds",
        8 => way == "thread-self",
        23 => way == "openat",
        31 => way.starts_with("path"),
        40 => way == "proxy-unix",
        55 => matches!(way, "interpreter" | "shell" | "spawn-binding"),
        _ => false,
    }
}

/// The suite's own services. What looks for a way to another machine stays out: it could find one.
fn uses_the_network(number: u16, way: &str) -> bool {
    const ELSEWHERE: [&str; 7] =
        ["dns-env", "internet", "internet6", "lan", "link-local6", "metadata", "multicast"];
    match number {
        32 => way != "x11",
        35 => way == "netlink-route",
        36 => !ELSEWHERE.contains(&way),
        40 => true,
        41 => !way.starts_with("inherited"),
        _ => false,
    }
}

fn reads_kernel_files(number: u16, way: &str) -> bool {
    matches!((number, way), (9, _) | (13, "binfmt") | (67, "pattern"))
}

impl Removable {
    /// Whether one of these attempts is made without it.
    pub(super) fn is_about_any(&self, attempts: &[Attempt]) -> bool {
        attempts.iter().any(|a| (self.is_about)(a.number, &a.variant))
    }
}

/// The layer of that name, where it can be taken away.
#[must_use]
pub fn named(name: &str) -> Option<&'static Removable> {
    const ALL: &[Removable] = &LAYERS;
    ALL.iter().find(|l| l.name == name)
}

/// Walls without a layer, by the layer's name.
pub(super) type Thinner = Vec<(&'static str, Arc<Walls>)>;

/// Those behind which an attempt is made while others are.
pub(super) fn of<'a>(
    thinner: &'a Thinner,
    number: u16,
    way: &'a str,
) -> impl Iterator<Item = (&'static str, &'a Walls)> {
    about(thinner, number, way).filter(|(name, _)| !ALONE.contains(name))
}

/// Those behind which it is made when no other attempt is: without these layers some reach the stage's services,
/// whose visitors have no names.
pub(super) fn alone<'a>(
    thinner: &'a Thinner,
    number: u16,
    way: &'a str,
) -> impl Iterator<Item = (&'static str, &'a Walls)> {
    about(thinner, number, way).filter(|(name, _)| ALONE.contains(name))
}

const ALONE: [&str; 2] = ["mount namespace", "network namespace"];

fn about<'a>(
    thinner: &'a Thinner,
    number: u16,
    way: &'a str,
) -> impl Iterator<Item = (&'static str, &'a Walls)> {
    let is_tried = move |name: &str| named(name).is_some_and(|l| (l.is_about)(number, way));
    thinner.iter().filter(move |(name, _)| is_tried(name)).map(|(name, walls)| (*name, &**walls))
}

/// Outcomes behind thinner walls, by the layer that they lack.
pub(super) type Without = BTreeMap<String, String>;

/// Options of a launcher, whole or without a layer.
pub(super) fn options(launcher: Launcher, without: Option<Layer>) -> Options {
    Options { cgroups: launcher.cgroups(), without, ..Options::default() }
}

/// The whole walls of a launcher, and, unless there are to be `whole_only`, the thinner ones.
pub(super) async fn walls(
    stage: &Stage,
    launcher: Launcher,
    whole_only: bool,
) -> Result<(Arc<Walls>, Thinner)> {
    let whole = Arc::new(Walls::new(options(launcher, None), stage).await?);
    let mut thinner = Vec::new();
    for Removable { name, layer, .. } in LAYERS.into_iter().filter(|_| !whole_only) {
        let walls = Walls::new(options(launcher, Some(layer)), stage).await?;
        thinner.push((name, Arc::new(walls)));
    }
    Ok((whole, thinner))
}
