//! Extism's own library, as `pip` brings it, through its C interface (`extism.h`, version 1.41).
//!
//! It is fetched once, into `target/test-packages`, and never unloaded: it has a thread of its own.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_char},
    fs,
    marker::PhantomData,
    path::{Path, PathBuf},
    process::Command,
    ptr,
};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW, Symbol};

use crate::plugin::Result;

/// What is measured, and named in the documentation.
const PACKAGE: &str = "extism-sys==1.41.0";
const FILE: &str = "libextism_sys.so";

/// `ExtismCompiledPlugin`.
#[repr(C)]
struct RawCompiled(u8);
/// `ExtismPlugin`.
#[repr(C)]
struct RawPlugin(u8);

type NewCompiled = unsafe extern "C" fn(
    wasm: *const u8,
    size: u64,
    functions: *const *const u8,
    count: u64,
    wasi: bool,
    error: *mut *mut c_char,
) -> *mut RawCompiled;
type NewPlugin =
    unsafe extern "C" fn(compiled: *const RawCompiled, error: *mut *mut c_char) -> *mut RawPlugin;
type Call = unsafe extern "C" fn(*mut RawPlugin, *const c_char, data: *const u8, size: u64) -> i32;

/// The functions that are used here.
struct Functions {
    compile: Symbol<NewCompiled>,
    free_compiled: Symbol<unsafe extern "C" fn(*mut RawCompiled)>,
    plugin: Symbol<NewPlugin>,
    free_plugin: Symbol<unsafe extern "C" fn(*mut RawPlugin)>,
    free_error: Symbol<unsafe extern "C" fn(*mut c_char)>,
    call: Symbol<Call>,
    error: Symbol<unsafe extern "C" fn(*mut RawPlugin) -> *const c_char>,
    output: Symbol<unsafe extern "C" fn(*mut RawPlugin) -> *const u8>,
    output_length: Symbol<unsafe extern "C" fn(*mut RawPlugin) -> u64>,
    version: Symbol<unsafe extern "C" fn() -> *const c_char>,
}

/// The library, loaded for as long as the process lives.
#[derive(Clone, Copy)]
pub(crate) struct Extism(&'static Functions);

impl Extism {
    /// Fetches the library where it is not there yet, and loads it.
    pub(crate) fn load() -> Result<Self> {
        let path = fetch()?;
        // SAFETY: the library's initialisers are those of a Rust cdylib, which do nothing.
        let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL) }?;
        // SAFETY: the types are those of extism.h 1.41, the version that was asked for; the library is
        // never unloaded, so the symbols stay.
        let functions = unsafe {
            Functions {
                compile: library.get(b"extism_compiled_plugin_new\0")?,
                free_compiled: library.get(b"extism_compiled_plugin_free\0")?,
                plugin: library.get(b"extism_plugin_new_from_compiled\0")?,
                free_plugin: library.get(b"extism_plugin_free\0")?,
                free_error: library.get(b"extism_plugin_new_error_free\0")?,
                call: library.get(b"extism_plugin_call\0")?,
                error: library.get(b"extism_plugin_error\0")?,
                output: library.get(b"extism_plugin_output_data\0")?,
                output_length: library.get(b"extism_plugin_output_length\0")?,
                version: library.get(b"extism_version\0")?,
            }
        };
        std::mem::forget(library);
        let extism = Self(Box::leak(Box::new(functions)));
        match extism.version() {
            version if PACKAGE.ends_with(&version) => Ok(extism),
            other => Err(format!("the library of {PACKAGE} says that it is {other}").into()),
        }
    }

    /// The library's version.
    fn version(self) -> String {
        // SAFETY: takes nothing and gives a constant with a NUL at its end.
        unsafe { CStr::from_ptr((self.0.version)()) }.to_string_lossy().into_owned()
    }

    /// Compiles a module, without WASI and functions of ours.
    pub(crate) fn compile(self, wasm: &[u8]) -> Result<Compiled> {
        let mut error = ptr::null_mut();
        // SAFETY: `wasm` is as long as said and read before the return; no functions are given.
        let raw = unsafe {
            (self.0.compile)(
                wasm.as_ptr(),
                wasm.len() as u64,
                ptr::null(),
                0,
                false,
                &raw mut error,
            )
        };
        if raw.is_null() {
            return Err(self.told(error).into());
        }
        Ok(Compiled { raw, extism: self })
    }

    /// The text of an error that came with no object.
    fn told(self, error: *mut c_char) -> String {
        if error.is_null() {
            return "Extism says nothing".to_owned();
        }
        // SAFETY: a string with a NUL at its end, ours until it is given back, which is once.
        unsafe {
            let text = CStr::from_ptr(error).to_string_lossy().into_owned();
            (self.0.free_error)(error);
            text
        }
    }
}

/// Compiled code.
pub(crate) struct Compiled {
    raw: *mut RawCompiled,
    extism: Extism,
}

impl Compiled {
    /// A plugin of it.
    pub(crate) fn plugin(&self) -> Result<Plugin<'_>> {
        let mut error = ptr::null_mut();
        // SAFETY: `raw` is live until `self` is dropped.
        let raw = unsafe { (self.extism.0.plugin)(self.raw, &raw mut error) };
        if raw.is_null() {
            return Err(self.extism.told(error).into());
        }
        Ok(Plugin { raw, extism: self.extism, _compiled: PhantomData })
    }
}

impl Drop for Compiled {
    fn drop(&mut self) {
        // SAFETY: made by `compile` and freed once; plugins borrow it.
        unsafe { (self.extism.0.free_compiled)(self.raw) }
    }
}

// SAFETY: a `CompiledPlugin` of the crate `extism` holds an engine, modules and a manifest, which may be
// used from any thread.
unsafe impl Send for Compiled {}
// SAFETY: as above; `plugin` takes it by a shared reference.
unsafe impl Sync for Compiled {}

/// A plugin, asked one thing at a time.
pub(crate) struct Plugin<'a> {
    raw: *mut RawPlugin,
    extism: Extism,
    _compiled: PhantomData<&'a Compiled>,
}

// SAFETY: the crate's `Plugin` is `Send` (it is used from a `Mutex` of its pool).
unsafe impl Send for Plugin<'_> {}

impl Plugin<'_> {
    /// Calls `function`; the answer is a copy, as our callers get one.
    pub(crate) fn call(&mut self, function: &CStr, input: &[u8]) -> Result<Vec<u8>> {
        let functions = self.extism.0;
        // SAFETY: `raw` is live, `function` ends with NUL, `input` is as long as said; `&mut` keeps
        // others out. The output stands in the plugin's memory until the next call.
        unsafe {
            let status =
                (functions.call)(self.raw, function.as_ptr(), input.as_ptr(), input.len() as u64);
            if status != 0 {
                let error = (functions.error)(self.raw);
                let text = if error.is_null() { c"?" } else { CStr::from_ptr(error) };
                return Err(format!("Extism: {}", text.to_string_lossy()).into());
            }
            let length = usize::try_from((functions.output_length)(self.raw))?;
            let output = (functions.output)(self.raw);
            if output.is_null() || length == 0 {
                return Ok(Vec::new());
            }
            Ok(std::slice::from_raw_parts(output, length).to_vec())
        }
    }
}

impl Drop for Plugin<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `plugin` and freed once.
        unsafe { (self.extism.0.free_plugin)(self.raw) }
    }
}

/// Takes variables away that make Extism slower: with `RUST_BACKTRACE` it makes a backtrace at each call,
/// which doubles the time of a short one. Called once, at the very start of the process.
pub(crate) fn forget_variables() {
    for name in
        ["RUST_BACKTRACE", "RUST_LIB_BACKTRACE", "EXTISM_DEBUG", "EXTISM_ENABLE_WASI_OUTPUT"]
    {
        // SAFETY: the process has one thread at its start, so nobody reads the environment now.
        unsafe { std::env::remove_var(name) };
    }
}

/// The library's path, after `pip` has brought it.
fn fetch() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-packages/extism-sys");
    if let Some(found) = find(&folder) {
        return Ok(found);
    }
    let status = Command::new("python3")
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--root-user-action=ignore",
            "--no-deps",
            "--target",
        ])
        .arg(&folder)
        .arg(PACKAGE)
        .status()
        .map_err(|e| format!("cannot start python3: {e}"))?;
    if !status.success() {
        return Err(format!("pip does not bring {PACKAGE}").into());
    }
    find(&folder).ok_or_else(|| format!("{PACKAGE} holds no {FILE}").into())
}

fn find(folder: &Path) -> Option<PathBuf> {
    let path = folder.join("extism_sys").join(FILE);
    fs::metadata(&path).is_ok_and(|found| found.is_file()).then_some(path)
}
