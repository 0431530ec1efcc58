//! Backend: WebAssembly components on wasmtime.
