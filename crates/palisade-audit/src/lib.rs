//! The record of everything that was asked: Recorder and a JSON-lines implementation.
