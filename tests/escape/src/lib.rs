//! The escape suite.
