//! What wit-bindgen makes of the WIT files in `wit`.
#![allow(missing_docs, unsafe_code, unreachable_pub, unsafe_op_in_unsafe_fn, clippy::all)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::undocumented_unsafe_blocks)]

wit_bindgen::generate!({
    path: "wit/0.1.0",
    world: "full",
    pub_export_macro: true,
    export_macro_name: "export_component",
    default_bindings_module: "palisade_plugin::__component::bindings",
});
