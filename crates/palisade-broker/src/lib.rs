//! The gate: every request is decided, rated, recorded and served here. Services and the event bus.
