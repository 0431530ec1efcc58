//! Layers that the escape suite takes away, one at a time, to see what stands behind them. In every other
//! build each of them is there, and nothing can be switched.

/// A layer of this wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "ablation"), expect(unreachable_pub, reason = "only tests see it"))]
pub enum Layer {
    /// Imports are held against the rights before anything runs.
    Imports,
    /// Memories and tables are counted.
    Memory,
    /// Resources and handles of one instance are counted.
    Handles,
    /// What is handed to the host in one call is counted.
    HostCallBytes,
    /// Compiled code is believed only with its MAC.
    Mac,
}

#[cfg(all(feature = "ablation", not(debug_assertions)))]
compile_error!(
    "the feature `ablation` weakens the walls and exists for tests only; do not release with it"
);

/// Whether a layer is there.
#[cfg(not(feature = "ablation"))]
pub(crate) const fn has(_: Layer) -> bool {
    true
}

#[cfg(feature = "ablation")]
static WITHOUT: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Whether a layer is there.
#[cfg(feature = "ablation")]
pub(crate) fn has(layer: Layer) -> bool {
    WITHOUT.load(std::sync::atomic::Ordering::SeqCst) & bit(layer) == 0
}

#[cfg(feature = "ablation")]
const fn bit(layer: Layer) -> u8 {
    1 << layer as u8
}

/// Takes a layer away from every instance of this process, until the answer is dropped.
#[cfg(feature = "ablation")]
#[must_use]
pub fn without(layer: Layer) -> Without {
    WITHOUT.fetch_or(bit(layer), std::sync::atomic::Ordering::SeqCst);
    Without(layer)
}

/// Puts the layer back when it is dropped.
#[cfg(feature = "ablation")]
#[derive(Debug)]
pub struct Without(Layer);

#[cfg(feature = "ablation")]
impl Drop for Without {
    fn drop(&mut self) {
        WITHOUT.fetch_and(!bit(self.0), std::sync::atomic::Ordering::SeqCst);
    }
}
