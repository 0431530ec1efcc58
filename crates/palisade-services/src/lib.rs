//! What the broker can do for a plugin, one module a capability family.
