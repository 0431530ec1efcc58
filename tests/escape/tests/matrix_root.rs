//! The matrix with plugins launched by root, limits by cgroups and (for resources) policed.
#![cfg(target_os = "linux")]

mod common;

use common::assert_family;
use palisade_escape::{record::Launcher, suite::Family};

#[test]
fn most_attempts() {
    assert_family(Family::General, Launcher::Root);
}

#[test]
fn the_way_out_to_the_network() {
    assert_family(Family::Network, Launcher::Root);
}

#[test]
fn the_host_itself() {
    assert_family(Family::Host, Launcher::Root);
}

#[test]
fn from_python_and_node() {
    assert_family(Family::Twins, Launcher::Root);
}

#[test]
fn the_weaker_tier() {
    assert_family(Family::Landlock, Launcher::Root);
}

#[test]
fn from_inside_the_webassembly_wall() {
    assert_family(Family::Wasm, Launcher::Root);
}

#[test]
fn from_inside_the_webassembly_wall_with_the_engine_behind_walls() {
    assert_family(Family::Walled, Launcher::Root);
}

#[test]
fn granted_paths() {
    assert_family(Family::Paths, Launcher::Root);
}

#[test]
fn the_conversation_and_the_log() {
    assert_family(Family::Channel, Launcher::Root);
}

#[test]
fn not_ending() {
    assert_family(Family::Survive, Launcher::Root);
}

#[test]
fn resources_with_cgroups() {
    assert_family(Family::Limits, Launcher::Root);
}

#[test]
fn resources_without_cgroups() {
    assert_family(Family::Limits, Launcher::RootPoliced);
}
