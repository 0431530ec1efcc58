//! What differs between systems, a module for each difference.
//!
//! The walls around native programs are Linux's. On macOS and Windows a WebAssembly component is what can run,
//! and what stands on those walls is refused there with words, before anything is touched: never a weaker wall,
//! and never silence.

pub(crate) mod interrupts;
pub(crate) mod machine;
#[cfg(any(test, not(target_os = "linux")))]
pub(crate) mod no_walls;
pub(crate) mod typed;
#[cfg(target_os = "linux")]
pub(crate) mod walls;

#[cfg(not(target_os = "linux"))]
pub(crate) use no_walls as walls;
