//! From the core module that a compiler for `wasm32-unknown-unknown` leaves to the component that it stands
//! for: what it imports and exports is written into a section of it by `wit-bindgen`.
//!
//! A module for `wasm32-wasip2` is linked to a component by its own tools; one for `wasm32-wasip1` would
//! take an adapter, and is refused with these words.

use std::borrow::Cow;

use wit_component::ComponentEncoder;

use crate::WasmError;

/// How the sections are named that say what a core module stands for (`wit-component`).
const SECTION: &str = "component-type";

/// Makes a component of a core module; a component is given back as it is. Imports of the world that the
/// module does not use are none of the component's.
///
/// # Errors
/// [`WasmError::Code`] where the bytes are no WebAssembly, or a module that says nothing of a world.
pub fn componentize(wasm: &[u8]) -> Result<Cow<'_, [u8]>, WasmError> {
    let refuse = |what: String, hint: &str| Err(WasmError::Code { what, hint: hint.to_owned() });
    if wasmparser::Parser::is_component(wasm) {
        return Ok(Cow::Borrowed(wasm));
    }
    if !wasmparser::Parser::is_core_wasm(wasm) {
        let hint = "`entry.file` is a WebAssembly component, as its build leaves it";
        return refuse("the file is no WebAssembly".to_owned(), hint);
    }
    if !names_a_world(wasm) {
        let hint = "build it for wasm32-wasip2, or for wasm32-unknown-unknown with bindings of palisade:plugin; \
                    for a module of Extism write `entry.kind: extism`";
        let what = "the file is a WebAssembly module and no component";
        return refuse(what.to_owned(), hint);
    }
    let encoded = ComponentEncoder::default()
        .module(wasm)
        .and_then(|encoder| encoder.validate(true).encode());
    match encoded {
        Ok(component) => Ok(Cow::Owned(component)),
        Err(error) => {
            let what = format!("no component can be made of the module: {error:#}");
            let what = palisade_model::text::escape(&what, 400);
            let hint = "build it for wasm32-unknown-unknown or wasm32-wasip2; a module for wasm32-wasip1 takes an adapter \
                        that is not here";
            refuse(what, hint)
        }
    }
}

/// Whether a core module has a section that says what it stands for.
fn names_a_world(wasm: &[u8]) -> bool {
    wasmparser::Parser::new(0).parse_all(wasm).map_while(Result::ok).any(|payload| match payload {
        wasmparser::Payload::CustomSection(section) => section.name().starts_with(SECTION),
        _ => false,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn refused(wasm: &[u8]) -> String {
        match componentize(wasm) {
            Err(WasmError::Code { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_no_plugin_is_refused_with_words() {
        assert_eq!(refused(b"MZ"), "the file is no WebAssembly");
        assert_eq!(refused(b""), "the file is no WebAssembly");
        let module = b"\0asm\x01\0\0\0";
        assert!(refused(module).contains("module and no component"));
        // A section that says nothing that can be read.
        let section = [&module[..], &[0, 16, 14], b"component-type", b"x"].concat();
        assert!(refused(&section).contains("no component can be made"));
    }

    #[test]
    fn a_component_stays_as_it_is() {
        let component = b"\0asm\x0d\0\x01\0";
        assert!(matches!(componentize(component), Ok(Cow::Borrowed(same)) if same == component));
    }
}
