//! How foreign plugins differ from native ones: wire codecs, method names, lifecycles.
