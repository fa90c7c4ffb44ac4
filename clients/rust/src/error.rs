//! What can go wrong, in one type.

use std::fmt;
use std::time::Duration;

use crate::protocol::{ErrorBody, Severity, Violation};

/// Result with the library's own error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something was not done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The server refused, or PostgreSQL did; with all fields of the error.
    Server(Box<ErrorBody>),
    /// The connection string, or another setting, cannot be used.
    Config(String),
    /// No host could be reached, or the TLS or protocol handshake failed.
    Connect(String),
    /// The connection broke.
    Lost {
        /// How that was noticed.
        reason: String,
        /// Whether the request may have reached the server. If not, it can safely be sent again.
        sent: bool,
    },
    /// It took longer than allowed; a running statement has been cancelled.
    Timeout(Duration),
    /// The server does not follow the protocol, or a message cannot be sent.
    Protocol(Violation),
    /// A value is not of the type that was asked for, or there is no such column.
    Value(String),
    /// The library was asked for something that cannot be.
    Usage(String),
    /// The server asks for a password, and there is none.
    PasswordNeeded,
    /// A second factor is needed, and [`Config::mfa`](crate::Config) has no answer.
    MfaRequired {
        /// What the server would accept.
        methods: Vec<String>,
    },
}

impl Error {
    /// The error as the server sent it.
    pub fn as_server(&self) -> Option<&ErrorBody> {
        match self {
            Self::Server(body) => Some(body),
            _ => None,
        }
    }

    /// SQLSTATE; of the library itself `08006`, `08001`, `57014` and the like.
    pub fn sqlstate(&self) -> &str {
        match self {
            Self::Server(body) => &body.sqlstate,
            Self::Config(_) | Self::Usage(_) => "22023",
            Self::Connect(_) => "08001",
            Self::Lost { .. } => "08006",
            Self::Timeout(_) => "57014",
            Self::Protocol(violation) => violation.sqlstate(),
            Self::Value(_) => "22000",
            Self::PasswordNeeded => "28P01",
            Self::MfaRequired { .. } => "28000",
        }
    }

    /// RustyDB's code of the error, the same in every protocol.
    pub fn code(&self) -> &str {
        match self {
            Self::Server(body) => &body.code,
            Self::Config(_) | Self::Usage(_) | Self::Value(_) => "VALIDATION_ERROR",
            Self::Connect(_) => "SERVICE_UNAVAILABLE",
            Self::Lost { .. } => "CONNECTION_FAILURE",
            Self::Timeout(_) => "TIMEOUT",
            Self::Protocol(violation) => violation.code(),
            Self::PasswordNeeded | Self::MfaRequired { .. } => "AUTHENTICATION_FAILED",
        }
    }

    /// Whether the same request, outside a transaction, may succeed later and did nothing so far.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Server(body) => body.retryable,
            Self::Lost { sent, .. } => !sent,
            _ => false,
        }
    }

    /// Whether the connection it happened on is of no further use.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Server(body) => body.severity != Severity::Error,
            Self::Connect(_)
            | Self::Lost { .. }
            | Self::PasswordNeeded
            | Self::MfaRequired { .. } => true,
            Self::Protocol(violation) => violation.is_fatal(),
            _ => false,
        }
    }

    /// How long the server asks to wait before the next attempt.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let after = self.as_server()?.retry_after_ms?;
        Some(Duration::from_millis(after.into()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(body) => {
                write!(f, "{} ({})", body.message, body.sqlstate)?;
                if let Some(detail) = &body.detail {
                    write!(f, ": {detail}")?;
                }
                Ok(())
            }
            Self::Config(text) | Self::Connect(text) | Self::Value(text) | Self::Usage(text) => {
                f.write_str(text)
            }
            Self::Lost { reason, .. } => write!(f, "the connection is lost: {reason}"),
            Self::Timeout(limit) => write!(f, "no answer within {} s", limit.as_secs_f64()),
            Self::Protocol(violation) => write!(f, "{violation}"),
            Self::PasswordNeeded => f.write_str("the server asks for a password"),
            Self::MfaRequired { methods } => {
                write!(f, "a second factor is needed: {}", methods.join(", "))
            }
        }
    }
}

impl std::error::Error for Error {}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        Self::Protocol(violation)
    }
}

impl From<ErrorBody> for Error {
    fn from(body: ErrorBody) -> Self {
        Self::Server(Box::new(body))
    }
}
