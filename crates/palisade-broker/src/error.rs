//! What can go wrong in the broker outside of a request; a request is answered with a
//! [`palisade_model::Failure`].

use palisade_model::{ErrorCode, Failure};

/// An error of registration or of the event bus.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// Two services claim one name.
    #[error("a service named {0} is already registered")]
    DuplicateService(String),
    /// A service's name cannot be a scope of `host.call`.
    #[error(
        "{0:?} is not a name for a service: 1 to 128 characters of A-Z a-z 0-9 . _ - : / @ $ +"
    )]
    ServiceName(String),
    /// The subject of an event is not one.
    #[error("{0:?} is not a subject one can publish to")]
    Subject(String),
    /// The event has gone round too often.
    #[error("the event was passed on {hops} times, more than {max}: it goes in a circle")]
    Loop {
        /// How often it was passed on.
        hops: u8,
        /// How often it may be.
        max: u8,
    },
    /// The event's data is too large.
    #[error("an event has at most {max} bytes, this one has {bytes}")]
    EventTooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The bus has as many subscriptions as it takes.
    #[error("the bus has {0} subscriptions and takes no more")]
    TooManySubscriptions(usize),
    /// The bus cannot be reached now.
    #[error("the event bus is not available: {0}")]
    BusUnavailable(String),
}

impl BrokerError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::DuplicateService(_) => ErrorCode::Conflict,
            Self::ServiceName(_) => ErrorCode::Usage,
            Self::Subject(_) => ErrorCode::InvalidParams,
            Self::Loop { .. } | Self::EventTooLarge { .. } | Self::TooManySubscriptions(_) => {
                ErrorCode::LimitExceeded
            }
            Self::BusUnavailable(_) => ErrorCode::Unavailable,
        }
    }
}

impl From<BrokerError> for Failure {
    fn from(error: BrokerError) -> Failure {
        let hint = match &error {
            BrokerError::DuplicateService(_) => {
                "register each service once, under a name of its own"
            }
            BrokerError::ServiceName(_) => "choose another name",
            BrokerError::Subject(_) => {
                "a subject has 1 to 16 tokens of letters, digits and _ - $ / : = with dots between"
            }
            BrokerError::Loop { .. } => {
                "break the circle of plugins that answer each other's events"
            }
            BrokerError::EventTooLarge { .. } => "send a reference to the data instead of the data",
            BrokerError::TooManySubscriptions(_) => "end subscriptions that are not needed",
            BrokerError::BusUnavailable(_) => "try again later",
        };
        Failure::new(error.code(), error.to_string()).hint(hint)
    }
}
