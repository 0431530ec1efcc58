//! How the other side can break the wire, and why a connection ended.
//!
//! [`FrameError`] is the one error enum of this crate. Every variant is a breach: the connection is
//! closed, because after it nothing further on the stream can be trusted to mean what it says.

use std::{io, time::Duration};

use palisade_model::{ErrorCode, Failure};

use crate::bounds;

/// What the other side did that the protocol does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A line grew beyond [`bounds::FRAME_BYTES`].
    #[error("a frame is longer than {} bytes", bounds::FRAME_BYTES)]
    TooLong,
    /// More than [`bounds::EMPTY_LINES`] empty lines in a row.
    #[error("more than {} empty lines in a row", bounds::EMPTY_LINES)]
    EmptyLines,
    /// The frame is not UTF-8.
    #[error("a frame is not UTF-8 (byte {at})")]
    NotUtf8 {
        /// Offset in the frame, in bytes.
        at: usize,
    },
    /// The frame is not JSON (RFC 8259).
    #[error("a frame is not JSON (byte {at})")]
    Syntax {
        /// Offset in the frame, in bytes.
        at: usize,
    },
    /// A string holds a raw control character (RFC 8259 section 7 demands an escape).
    #[error("a string holds a raw control character (byte {at})")]
    Control {
        /// Offset in the frame, in bytes.
        at: usize,
    },
    /// A `\u` escape names half of a surrogate pair.
    #[error("a string holds a lone surrogate (byte {at})")]
    LoneSurrogate {
        /// Offset in the frame, in bytes.
        at: usize,
    },
    /// Nesting beyond [`bounds::DEPTH_LEVELS`].
    #[error("a frame is nested deeper than {} levels", bounds::DEPTH_LEVELS)]
    TooDeep,
    /// Something follows the JSON value on its line.
    #[error("something follows the message on its line (byte {at})")]
    Trailing {
        /// Offset in the frame, in bytes.
        at: usize,
    },
    /// A JSON-RPC batch; this protocol has none.
    #[error("a frame is a batch; one message a line is expected")]
    Batch,
    /// The envelope's fields do not make a JSON-RPC 2.0 message.
    #[error("a frame is no JSON-RPC 2.0 message: {0}")]
    Envelope(&'static str),
    /// The id is neither an integer 0..=2^53 nor a string of at most [`bounds::ID_BYTES`] bytes.
    #[error(
        "a request id is neither an integer from 0 to 2^53 nor a string of at most {} bytes",
        bounds::ID_BYTES
    )]
    Id,
    /// The method is not 1..=[`bounds::METHOD_BYTES`] characters of `A-Z a-z 0-9 . _ - / $`.
    #[error("a method name is empty, too long or has characters that none has")]
    Method,
    /// A request came with an id that is in flight.
    #[error("the id {id} is already in flight")]
    DuplicateId {
        /// The id as it is shown.
        id: String,
    },
    /// More than [`bounds::STRIKES`] answers to nothing, double answers or malformed cancellations.
    #[error("more than {} answers that belong to no request", bounds::STRIKES)]
    Strikes,
    /// File handles were passed that nobody asked for. They are closed.
    #[error("{} file handle(s) were passed that nobody asked for", if *.truncated { format!("more than {count}") } else { count.to_string() })]
    UnaskedHandles {
        /// How many were received (and closed).
        count: usize,
        /// Whether the kernel had to drop further ones (`MSG_CTRUNC`).
        truncated: bool,
    },
    /// Requests beyond the bound came faster than their refusals were read.
    #[error("requests beyond the bound came without their refusals being read")]
    Flooded,
    /// An answer waited too long for the other side to read.
    #[error("nothing was read from the connection for {}s", .after.as_secs_f32())]
    Stalled {
        /// How long the answer waited.
        after: Duration,
    },
    /// The protocol version chosen lies outside what was offered.
    #[error("protocol version {chosen} was chosen, {min} to {max} were offered")]
    Version {
        /// What the plugin chose.
        chosen: u32,
        /// Lowest version offered.
        min: u32,
        /// Highest version offered.
        max: u32,
    },
    /// The answer of `initialize` or another typed method does not have its shape.
    #[error("the answer to `{method}` does not fit: {what}")]
    Shape {
        /// Which method.
        method: &'static str,
        /// What does not fit. Escaped.
        what: String,
    },
}

impl FrameError {
    /// The stable name of the breach, for records and tests.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TooLong => "too-long",
            Self::EmptyLines => "empty-lines",
            Self::NotUtf8 { .. } => "not-utf8",
            Self::Syntax { .. } => "syntax",
            Self::Control { .. } => "control-character",
            Self::LoneSurrogate { .. } => "lone-surrogate",
            Self::TooDeep => "too-deep",
            Self::Trailing { .. } => "trailing",
            Self::Batch => "batch",
            Self::Envelope(_) => "envelope",
            Self::Id => "id",
            Self::Method => "method",
            Self::DuplicateId { .. } => "duplicate-id",
            Self::Strikes => "strikes",
            Self::UnaskedHandles { .. } => "unasked-handles",
            Self::Flooded => "flooded",
            Self::Stalled { .. } => "stalled",
            Self::Version { .. } => "version",
            Self::Shape { .. } => "shape",
        }
    }

    /// The stable code: always [`ErrorCode::ProtocolBreach`].
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        ErrorCode::ProtocolBreach
    }
}

impl From<FrameError> for Failure {
    fn from(error: FrameError) -> Self {
        Failure::new(error.code(), format!("the protocol was broken: {error}"))
            .rule(format!("protocol:{}", error.name()))
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The other side closed its end, or ended.
    #[error("the other side closed the connection{}", if *.mid_frame { " in the middle of a message" } else { "" })]
    Closed {
        /// Whether it stopped in the middle of a line.
        mid_frame: bool,
    },
    /// The other side broke the protocol.
    #[error("the protocol was broken: {0}")]
    Breach(#[from] FrameError),
    /// This side closed: [`crate::Peer::close`], the last handle or the driver was dropped.
    #[error("this side closed the connection")]
    Local,
    /// The operating system failed a read, a write or a wait.
    #[error("the connection failed: {0}")]
    Io(io::ErrorKind),
}

impl CloseReason {
    /// What a request that was pending is answered with.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::Breach(error) => error.clone().into(),
            Self::Closed { .. } => Failure::new(ErrorCode::Crashed, self.to_string()),
            Self::Local => Failure::new(ErrorCode::Unavailable, self.to_string()),
            Self::Io(_) => Failure::new(ErrorCode::Internal, self.to_string()),
        }
    }
}
