#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use std::sync::Arc;
use palisade_escape::{attacker, families::limits, record::Launcher, scene::Stage};
#[test]
fn lone() {
    let program = attacker::build().unwrap();
    let stage = Arc::new(Stage::build(&program, Vec::new(), Default::default()).unwrap());
    let mut attempts = attacker::list(&program).unwrap();
    attempts.retain(|a| a.variant.ends_with("tcp") || a.variant.ends_with("udp") || a.variant == "timerfds");
    let rt = tokio::runtime::Runtime::new().unwrap();
    for launcher in [Launcher::Root, Launcher::RootPoliced] {
        for row in rt.block_on(limits::run(&stage, launcher, &attempts, None)).unwrap() {
            eprintln!("{launcher:?} {row:?}");
        }
    }
}
