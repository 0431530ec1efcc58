//! The matrix with plugins launched by user 1000 (or by whoever runs the tests), without cgroups.
#![cfg(target_os = "linux")]

mod common;

use common::assert_family;
use palisade_escape::{record::Launcher, suite::Family};

#[test]
fn most_attempts() {
    assert_family(Family::General, Launcher::User);
}

#[test]
fn the_way_out_to_the_network() {
    assert_family(Family::Network, Launcher::User);
}

#[test]
fn the_host_itself() {
    assert_family(Family::Host, Launcher::User);
}

#[test]
fn from_python_and_node() {
    assert_family(Family::Twins, Launcher::User);
}

#[test]
fn the_weaker_tier() {
    assert_family(Family::Landlock, Launcher::User);
}

#[test]
fn from_inside_the_webassembly_wall() {
    assert_family(Family::Wasm, Launcher::User);
}

#[test]
fn from_inside_the_webassembly_wall_with_the_engine_behind_walls() {
    assert_family(Family::Walled, Launcher::User);
}

#[test]
fn granted_paths() {
    assert_family(Family::Paths, Launcher::User);
}

#[test]
fn the_conversation_and_the_log() {
    assert_family(Family::Channel, Launcher::User);
}

#[test]
fn not_ending() {
    assert_family(Family::Survive, Launcher::User);
}

#[test]
fn resources() {
    assert_family(Family::Limits, Launcher::User);
}
