//! Places are counted, mappings too; code of one engine is no code of another.

use std::sync::{Arc, atomic::AtomicU64};

use palisade_model::ErrorCode;

use super::{Engines, MAPS_OF_HOST, MAX_PARTS, Places, maps};

/// The mappings of a process of the test's own.
fn counter() -> &'static AtomicU64 {
    Box::leak(Box::new(AtomicU64::new(0)))
}

/// How many instances with so many memories there are places for.
fn places(instances: u32, allowed: Option<u64>, memories: u32) -> usize {
    let places = Arc::new(Places::new(instances, allowed, counter()));
    let taken: Vec<_> = std::iter::from_fn(|| places.take(memories).ok()).collect();
    let refused = places.take(memories).err().expect("one more is refused");
    assert_eq!(refused.code(), ErrorCode::LimitExceeded, "{refused}");
    let count = taken.len();
    drop(taken);
    assert!(places.take(memories).is_ok(), "places are given back");
    count
}

#[test]
fn instances_fit_under_the_kernels_limit_on_mappings() {
    assert_eq!(places(20_000, None, 1), 20_000);
    // The kernel's default holds ten thousand, and the default number of Extism plugins.
    assert_eq!(places(20_000, Some(65_530), 1), 10_239);
    assert_eq!(places(4096, Some(65_530), 1), 4096);
    assert_eq!(places(4096, Some(65_530), 3), 4096);
    assert_eq!(places(4096, Some(0), MAX_PARTS), 1);
    assert_eq!(places(4096, Some(MAPS_OF_HOST + 10 * maps(3)), 3), 18, "at least 258 mappings");
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn code_for_another_processor_or_other_settings_is_other_code() {
    use super::{config, made_by, made_for};
    let here = made_for().expect("an engine");
    assert_eq!(made_by(&mut config(false)).expect("an engine"), here);
    // No feature beyond what every processor of this kind has.
    let mut oldest = config(false);
    oldest.target("x86_64-unknown-linux-gnu").expect("a target");
    assert_ne!(made_by(&mut oldest).expect("an engine"), here);
    let other = made_by(config(false).epoch_interruption(false)).expect("an engine");
    assert_ne!(other, here);
}

#[test]
fn mappings_are_counted_over_all_backends_of_the_process() {
    let (allowed, used) = (Some(MAPS_OF_HOST + maps(1) * 50), counter());
    let [one, other] = [40, 41].map(|most| Arc::new(Places::new(most, allowed, used)));
    let taken: Vec<_> = (0..40).map(|_| one.take(1).expect("a place")).collect();
    let more: Vec<_> = std::iter::from_fn(|| other.take(1).ok()).collect();
    assert_eq!(more.len(), 10, "as many mappings as there are for both");
    drop(taken);
    assert!(other.take(1).is_ok());
}

#[test]
fn instances_of_a_backend_that_is_gone_count_for_the_next_one() {
    // No other test has this number.
    let first = Engines::shared(7).expect("engines");
    let left: Vec<_> = (0..7).map(|_| first.places().take(1).expect("a place")).collect();
    assert!(Arc::ptr_eq(&first, &Engines::shared(7).expect("engines")));
    drop(first);
    let next = Engines::shared(7).expect("engines");
    assert!(next.places().take(1).is_err(), "seven are there");
    drop(left);
    assert!(next.places().take(1).is_ok());
}

#[test]
fn a_lower_limit_of_the_kernel_is_seen_in_what_there_is_room_for() {
    let allowed = MAPS_OF_HOST + maps(1) * 50;
    let engines = Engines::within(4096, Some(allowed)).expect("engines");
    assert_eq!((engines.wanted(), engines.places().most()), (4096, 50));
    let probed = Engines::new(64).expect("engines").places().most();
    assert_eq!(probed, 64, "this machine allows {:?}", super::max_map_count());
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn code_of_one_compiler_is_refused_by_the_engine_of_the_other() {
    use wasmtime::{Module, component::Component};

    let engines = Engines::new(4).expect("engines");
    let plain = engines.plain();
    let winch = &engines.winch_for(plain).expect("Winch").engine;
    let hash = crate::cache::engine_hash;
    assert_ne!(hash(plain), hash(winch));
    let module = wat::parse_str("(module (func (export \"f\")))").expect("a module");
    let component = wat::parse_str("(component (core module (func (export \"f\"))))");
    let component = component.expect("a component");
    for (from, to) in [(plain, winch), (winch, plain)] {
        let code = from.precompile_module(&module).expect("code");
        // SAFETY: this engine's own code, unchanged.
        #[allow(unsafe_code)]
        let load = |engine| unsafe { Module::deserialize(engine, &code) };
        assert!(load(from).is_ok());
        let refused = load(to).expect_err("the other engine's module").to_string();
        assert!(refused.contains("Winch"), "{refused}");

        let code = from.precompile_component(&component).expect("code");
        // SAFETY: as above.
        #[allow(unsafe_code)]
        let load = |engine| unsafe { Component::deserialize(engine, &code) };
        assert!(load(from).is_ok());
        assert!(load(to).is_err(), "the other engine's component");
    }
    // What is compiled on one thread is what the plain engine runs.
    assert_eq!(hash(&super::on_one_thread().expect("an engine")), hash(plain));
    // Code with asynchronous functions is no code for Winch.
    assert!(engines.winch_for(engines.concurrent().expect("an engine")).is_none());
    assert!(engines.winch_for(winch).is_none());
}

/// Whatever a plugin could be made of that Winch is not asked for is refused by it with an error, and not run.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn winch_refuses_what_it_is_not_used_for() {
    let engines = Engines::new(4).expect("engines");
    let winch = &engines.winch_for(engines.plain()).expect("Winch").engine;
    for module in [
        "(module (func (drop (v128.const i64x2 0 0))))",
        "(module (memory i64 1))",
        "(module (table i64 1 funcref))",
        "(module (func $f (return_call $f)))",
    ] {
        let wasm = wat::parse_str(module).expect("a module");
        assert!(engines.plain().precompile_module(&wasm).is_ok(), "{module}");
        assert!(winch.precompile_module(&wasm).is_err(), "{module}");
    }
}
