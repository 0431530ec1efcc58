//! How much of anything one side takes from the other. Sizes are bytes unless the name says otherwise.

use std::time::Duration;

/// Longest frame, without its line break: 4 MiB.
pub const FRAME_BYTES: usize = 4 << 20;
/// Deepest nesting of arrays and objects in a frame; the envelope itself is level 1.
pub const DEPTH_LEVELS: u32 = 64;
/// Longest method name.
pub const METHOD_BYTES: usize = 128;
/// Longest textual request id, after its escapes are resolved.
pub const ID_BYTES: usize = 64;
/// Largest numeric request id: 2^53, the largest integer up to which every JSON reader is exact.
pub const ID_MAX: u64 = 1 << 53;
/// Most fields of one envelope, unknown ones included.
pub const ENVELOPE_FIELDS: usize = 32;
/// Most empty lines in a row.
pub const EMPTY_LINES: usize = 1024;
/// Requests in flight in each direction, unless configured otherwise.
pub const IN_FLIGHT_REQUESTS: usize = 256;
/// Most requests in flight in each direction that can be configured.
pub const IN_FLIGHT_REQUESTS_MAX: usize = 1 << 16;
/// Bytes of the other side's requests in flight, and of answers to them that wait to be read, unless
/// configured otherwise: 32 MiB.
pub const IN_FLIGHT_BYTES: usize = 32 << 20;
/// Bytes that wait for the other side to read, unless configured otherwise: 8 MiB.
pub const QUEUE_BYTES: usize = 8 << 20;
/// Further queue bytes for `$/cancel` and refusals, which cannot wait: 64 KiB.
pub const QUEUE_RESERVE_BYTES: usize = 64 << 10;
/// How long a frame waits for room in a full queue where its request has no earlier deadline.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Answers to nothing, double answers and malformed `$/cancel`s that are forgiven on one connection.
pub const STRIKES: u32 = 64;
/// Longest text (message, hint) that is taken over from the other side's errors, in characters.
pub const ERROR_TEXT_CHARS: usize = 2000;
/// Handles that one read has room for (padding may leave room for one or two more). All are closed:
/// none is asked for in this version.
pub const HANDLES: usize = 16;
