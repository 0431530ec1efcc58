//! Parameters of every built-in service, through the broker: each is answered, and none fails within.
#![no_main]

#[path = "../../crates/palisade-services/tests/common/mod.rs"]
mod common;

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use common::Room;
use libfuzzer_sys::fuzz_target;
use palisade_broker::Reach;
use palisade_model::{ErrorCode, Payload};
use palisade_services::log::Tail;
use tokio::runtime::Runtime;

struct Fixture {
    runtime: Runtime,
    room: Room,
    methods: Vec<String>,
}

fn fixture() -> Fixture {
    // In memory where there is such a place, since each write is synced; emptied by the next run.
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = parent.join("palisade-fuzz-services");
    let _ = std::fs::remove_dir_all(&folder);
    let room = common::room(&folder, Arc::new(Tail::new(100, 1 << 16)));
    let methods = room.services.names(Reach::Method);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    Fixture { runtime, room, methods }
}

fuzz_target!(|data: &[u8]| {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    let Fixture { runtime, room, methods } = FIXTURE.get_or_init(fixture);
    // A line is a request: one byte for the method, then the parameters.
    for line in data.split(|byte| *byte == b'\n').take(16) {
        let Some((which, params)) = line.split_first() else { continue };
        let which = usize::from(*which) % (methods.len() + 1);
        let method = methods.get(which).map_or("host.call", String::as_str);
        let params = Payload::from_json_text(params.to_vec());
        let answer = room.broker.request(&room.caller, method, &params, None);
        if let Err(failure) = runtime.block_on(answer) {
            assert_ne!(failure.code, ErrorCode::Internal, "{method}: {failure}");
        }
    }
});
