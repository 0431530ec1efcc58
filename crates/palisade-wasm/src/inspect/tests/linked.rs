//! What the table calls provided is what the linker has: a real function of each interface, in each version.

mod samples;

use std::{collections::BTreeSet, sync::Arc};

use palisade_model::ErrorCode;
use palisade_sandbox::ExtismOutput;
use wasmtime::{Linker, Module, Store, component::Component};
use wasmtime_wasi::{WasiCtx, p1::WasiP1Ctx};

use super::{super::*, look};
use crate::{
    engine::Engines,
    extism::{self, ExtismCode},
    reflect::Reflected,
};
use samples::{ELSEWHERE, SAMPLES, Sample};

/// A component that imports what `sample` has, its interface in `version`, and exports a function.
fn component(sample: &Sample, version: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
            {before}
            (import "{interface}@{version}" (instance {body}))
            (core module $m (func (export "f")))
            (core instance $i (instantiate $m))
            (func (export "f") (canon lift (core func $i "f"))))"#,
        before = sample.before.concat().replace("{v}", &format!("{}.0", sample.version)),
        interface = sample.interface,
        body = sample.body.concat(),
    );
    wat::parse_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// Compiles and links, as it is done before a launch.
fn link(engines: &Engines, bytes: &[u8], inspection: Inspection) -> Result<Reflected, WasmError> {
    let concurrent = needs_concurrency(&inspection);
    let engine = if concurrent { engines.concurrent().unwrap() } else { engines.plain() };
    let compiled = Component::new(engine, bytes);
    Reflected::new(&compiled.unwrap_or_else(|e| panic!("{e:?}")), Arc::new(inspection))
}

/// Every last number of one version.
fn versions(of: &str) -> Vec<String> {
    if of.split('.').count() == 3 {
        return vec![of.to_owned()];
    }
    ["0", "12", "99"].iter().map(|last| format!("{of}.{last}")).collect()
}

/// What the table provides: interface and version.
fn provided() -> BTreeSet<(String, &'static str)> {
    rights::INTERFACES
        .iter()
        .flat_map(|row| {
            let name = |name: &&str| format!("{}/{name}", row.package);
            row.names
                .iter()
                .map(name)
                .flat_map(|name| row.versions.iter().map(move |version| (name.clone(), *version)))
        })
        .collect()
}

#[test]
fn every_interface_that_is_called_provided_links() {
    let engines = Engines::new(8).unwrap();
    let sampled: BTreeSet<(String, &str)> =
        SAMPLES.iter().map(|sample| (sample.interface.to_owned(), sample.version)).collect();
    assert_eq!(sampled, provided(), "each row has its sample, and each sample its row");
    assert_eq!(sampled.len(), SAMPLES.len(), "no sample stands twice");
    for sample in SAMPLES {
        for version in versions(sample.version) {
            let name = format!("{}@{version}", sample.interface);
            let bytes = component(sample, &version);
            let seen = inspect(&bytes).unwrap();
            seen.check_known().unwrap_or_else(|e| panic!("{name}: {e}"));
            link(&engines, &bytes, seen).unwrap_or_else(|e| panic!("{name} does not link: {e}"));
        }
    }
}

#[test]
fn what_is_not_called_provided_is_refused_by_name_and_does_not_link() {
    let engines = Engines::new(8).unwrap();
    let provided = provided();
    let mut refused = 0;
    for sample in SAMPLES.iter().chain(ELSEWHERE) {
        for version in ["0.2.0", "0.2.12", "0.3.0", "0.3.99"] {
            let (generation, _) = version.rsplit_once('.').unwrap();
            if provided.contains(&(sample.interface.to_owned(), generation)) {
                continue;
            }
            let name = format!("{}@{version}", sample.interface);
            let bytes = component(sample, version);
            let mut seen = inspect(&bytes).unwrap();
            let error = seen.check_known().unwrap_err();
            assert!(error.to_string().contains(&name), "{name}: {error}");
            assert_eq!(error.code(), ErrorCode::ManifestInvalid, "{name}: {error}");
            assert_eq!(error.code().exit_status(), 2, "{name}");
            let told = seen.imports.iter().find(|import| import.name == name).unwrap();
            assert_eq!(told.need, Need::Unknown, "{name}");
            refused += 1;
            if sample.is_types_only() {
                continue;
            }
            // Were it called provided, the linker would not have it.
            for import in &mut seen.imports {
                import.need = Need::Nothing;
            }
            let Err(error) = link(&engines, &bytes, seen) else { panic!("{name} links") };
            assert!(error.to_string().contains(&name), "{name}: {error}");
        }
    }
    assert!(refused > 60, "{refused}");
}

#[test]
fn only_interfaces_are_provided_and_resources_of_nobody_are_not() {
    let need = |import: &str| look(&format!("(component {import})")).imports[0].need;
    assert_eq!(need(r#"(import "palisade:plugin/log@0.1.0" (instance))"#), Need::Nothing);
    assert_eq!(need(r#"(import "palisade:plugin/log@0.1.0" (func))"#), Need::Unknown);
    assert_eq!(need(r#"(import "wasi:cli/exit@0.2.0" (component))"#), Need::Unknown);
    assert_eq!(need(r#"(import "r" (type (sub resource)))"#), Need::Unknown);
    assert_eq!(need(r#"(type $t u8) (import "t" (type (eq $t)))"#), Need::Nothing);
    let again = look(
        r#"(component
            (import "wasi:io/error@0.2.0" (instance $e (export "error" (type (sub resource)))))
            (alias export $e "error" (type $error))
            (import "error" (type (eq $error))))"#,
    );
    assert_eq!(again.imports[1].need, Need::Nothing, "it is the other import's");
}

/// A module that imports `name` with a type that no function has.
fn module(from: &str, name: &str) -> Vec<u8> {
    let text = format!(
        r#"(module (import "{from}" "{name}" (func (param f32 f32 f32) (result f32)))
            (func (export "f")))"#
    );
    wat::parse_str(text).unwrap()
}

#[test]
fn every_function_that_modules_are_told_is_provided_is_there_and_no_other_is() {
    let engines = Engines::new(8).unwrap();
    let linked = |from: &str, name: &str| -> Result<ExtismCode, WasmError> {
        let bytes = extism::link(&module(from, name))?;
        let module = Module::new(engines.plain(), bytes).unwrap();
        ExtismCode::new(&module, ExtismOutput::Auto)
    };
    for row in rights::MODULES {
        for name in row.names {
            // What is not there is told as that; what is there has another type.
            let Err(error) = linked(row.module, name) else { panic!("{name} has every type") };
            assert!(matches!(error, WasmError::Code { .. }), "{}/{name}: {error}", row.module);
        }
    }
    for (from, name) in [
        ("extism:host/env", "store_u16"),
        ("extism:host/env", "exec"),
        ("wasi_snapshot_preview1", "sock_connect"),
        ("wasi_unstable", "fd_write"),
        ("env", "abort"),
    ] {
        assert_eq!(rights::of_module_import(from, name).0, Need::Unknown, "{from}/{name}");
        let Err(error) = linked(from, name) else { panic!("{from}/{name} links") };
        assert!(matches!(error, WasmError::UnknownImport { .. }), "{from}/{name}: {error}");
        let seen = inspect(&module(from, name)).unwrap();
        let status = seen.check_known().unwrap_err().code().exit_status();
        assert_eq!(status, 2, "{from}/{name}");
    }
    let memory = look(r#"(module (import "extism:host/env" "alloc" (memory 1)))"#);
    assert_eq!(memory.imports[0].need, Need::Unknown);
}

#[test]
fn nothing_that_modules_can_import_is_missing_in_the_table() {
    let named = |module: &str| -> BTreeSet<String> {
        let rows = rights::MODULES.iter().filter(|row| row.module == module);
        rows.flat_map(|row| row.names).map(|name| (*name).to_owned()).collect()
    };
    let engine = wasmtime::Engine::default();
    let mut linker: Linker<WasiP1Ctx> = Linker::new(&engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |ctx| ctx).unwrap();
    let mut store = Store::new(&engine, WasiCtx::builder().build_p1());
    let there: BTreeSet<String> =
        linker.iter(&mut store).map(|(_, name, _)| name.to_owned()).collect();
    assert_eq!(named("wasi_snapshot_preview1"), there);

    let kernel = inspect(extism::link::KERNEL).unwrap();
    let functions = kernel.exports.iter().filter(|export| export.sort == Sort::Function);
    let env = named("extism:host/env");
    for function in functions {
        assert!(env.contains(&function.name), "the kernel's {}", function.name);
    }
}
