//! Lifecycle and control: installs, grants, supervisor, calls.
