//! The kernel and the linker by themselves; `plugins` runs whole plugins as PDKs build them.

mod plugins;
mod room;

use proptest::prelude::*;

use super::link::{self, link};
use crate::fuzz;

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn both_sides_of_the_kernel_agree_whatever_a_plugin_passes(
        input in proptest::collection::vec(any::<u8>(), 0..2000),
    ) {
        fuzz::extism_kernel(&input);
    }

    #[test]
    fn a_broken_module_is_refused_or_linked_and_valid(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut module = wat::parse_str(PLUGIN).expect("a module");
        for (place, byte) in changes {
            let place = place.index(module.len());
            module[place] = byte;
        }
        fuzz::extism_link(&module);
    }
}

/// Something of everything that numbers have to be moved in.
const PLUGIN: &str = r#"(module
    (import "other" "first" (func $first (param i32)))
    (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
    (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
    (import "other" "second" (func $second))
    (import "extism:host/env" "load_u64" (func $load (param i64) (result i64)))
    (import "extism:host/env" "config_get" (func $config (param i64) (result i64)))
    (table $t 4 funcref)
    (global $g (mut i32) (i32.const 1))
    (elem (i32.const 0) $alloc $own $second $load)
    (elem declare func $config)
    (func $own (result i32)
        (drop (call $alloc (i64.const 8)))
        (call $second)
        (drop (ref.func $config))
        (drop (call_indirect $t (param i64) (result i64) (i64.const 16) (i32.const 3)))
        (drop (call $load (i64.const 16)))
        i32.const 0)
    (func $begin (call $first (i32.const 1)))
    (export "own" (func $own))
    (export "again" (func $alloc))
    (start $begin))"#;

fn printed(module: &[u8]) -> String {
    let mut text = String::new();
    for payload in wasmparser::Parser::new(0).parse_all(module) {
        if let wasmparser::Payload::ImportSection(section) = payload.expect("a section") {
            for import in section.into_imports() {
                let import = import.expect("an import");
                text.push_str(&format!("{}/{} ", import.module, import.name));
            }
        }
    }
    text
}

#[test]
fn linking_takes_the_kernels_imports_away_and_leaves_the_others() {
    let linked = link(&wat::parse_str(PLUGIN).expect("a module")).expect("a linked module");
    assert_eq!(printed(&linked), "other/first other/second extism:host/env/config_get ");
}

#[test]
fn a_module_that_lies_about_the_kernel_is_refused_by_name() {
    let refusal = |text: &str| {
        link(&wat::parse_str(text).expect("a module")).expect_err("a refusal").to_string()
    };
    let wrong = r#"(module (import "extism:host/env" "alloc" (func (param i32) (result i64)))
        (func (export "f")))"#;
    assert_eq!(refusal(wrong), "it imports alloc of extism:host/env with another type than it has");
    let memory = r#"(module (import "extism:host/env" "memory" (memory 1)) (func (export "f")))"#;
    assert_eq!(refusal(memory), "it imports extism:host/env/memory, which is not a function");
    assert_eq!(refusal("(module)"), "it offers no functions");
    let component = link(b"\0asm\x0d\0\x01\0").expect_err("a refusal").to_string();
    assert_eq!(component, "it is a component, and Extism has modules");
    let taken = format!(r#"(module (memory (export "{}") 1) (func (export "f")))"#, link::STATE);
    let linked = link(&wat::parse_str(taken).expect("a module")).expect("bytes");
    let engine = wasmtime::Engine::default();
    let error = wasmtime::Module::new(&engine, linked).expect_err("a name twice");
    assert!(format!("{error:#}").contains("duplicate export name"), "{error:#}");
}

#[test]
fn a_plugins_code_cannot_name_the_kernels_memories() {
    for text in [
        r#"(module (memory 1) (func (export "f") (i32.store8 1 (i32.const 0) (i32.const 1))))"#,
        r#"(module (func (export "f") (drop (memory.size 0))))"#,
        r#"(module (func (export "f") (call 9)))"#,
    ] {
        let Ok(module) = wat::parse_str(text) else { continue };
        let refused = link(&module).expect_err("a refusal").to_string();
        assert!(refused.starts_with("it is not a valid WebAssembly module"), "{refused}");
    }
}
