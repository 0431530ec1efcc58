//! Memory and tables of a store, counted together with those of the other stores of its launch.
//!
//! What a guest asks for beyond the limit is refused (`memory.grow` gives -1) and noted, so that the
//! trap that usually follows can be told as what it is.

use std::sync::{Arc, atomic::Ordering};

use wasmtime::ResourceLimiter;

use super::Shared;
use crate::{
    ablation::{self, Layer},
    engine::MAX_TABLE,
};

/// Bytes that the engine keeps for one element of a table.
const ELEMENT: u64 = size_of::<usize>() as u64;
/// Most core instances, memories and tables of one store.
const MAX_PARTS: usize = 64;

/// Why growth was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The launch may not use more.
    Limit,
    /// The memory or the table has reached its largest size: its own, or the engine's.
    Largest,
}

/// See the module.
pub(crate) struct Limiter {
    shared: Arc<Shared>,
    used: u64,
    refused: Option<Refused>,
}

impl Limiter {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, used: 0, refused: None }
    }

    /// A call begins.
    pub(crate) fn begin(&mut self) {
        self.refused = None;
    }

    /// Whether the guest was refused memory during the call under way, and why last.
    pub(crate) fn refused(&self) -> Option<Refused> {
        self.refused
    }

    /// Counts `more` bytes, if there are so many left.
    pub(crate) fn take(&mut self, more: u64) -> bool {
        let limit = self.shared.memory_limit.load(Ordering::Relaxed);
        let taken =
            self.shared.memory_used.try_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(more).filter(|sum| *sum <= limit || !ablation::has(Layer::Memory))
            });
        match taken {
            Ok(before) => {
                self.used += more;
                self.shared.memory_peak.fetch_max(before + more, Ordering::Relaxed);
                true
            }
            Err(_) => {
                self.refused = Some(Refused::Limit);
                false
            }
        }
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.shared.memory_used.fetch_sub(self.used, Ordering::Relaxed);
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            self.refused = Some(Refused::Largest);
            return Ok(false);
        }
        Ok(self.take(desired.saturating_sub(current) as u64))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // The pool says the same; instances without a pool have only this.
        if desired > maximum.unwrap_or(MAX_TABLE).min(MAX_TABLE) {
            self.refused = Some(Refused::Largest);
            return Ok(false);
        }
        Ok(self.take((desired.saturating_sub(current) as u64).saturating_mul(ELEMENT)))
    }

    fn instances(&self) -> usize {
        MAX_PARTS
    }

    fn tables(&self) -> usize {
        MAX_PARTS
    }

    fn memories(&self) -> usize {
        MAX_PARTS
    }
}
