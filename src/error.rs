//! The one error of the server, and the one table from its kind to SQLSTATE and HTTP.
//!
//! An error carries the decision with it: what went wrong ([`ErrorKind`]), what every client may
//! read (`message`, `detail`, `hint`), whether trying again can help, and the private cause, which
//! is logged and never sent. It is built where the fault is known and rendered once, at the edge.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// Five characters of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState([u8; 5]);

impl SqlState {
    /// A code known at compile time.
    pub const fn new(code: &[u8; 5]) -> Self {
        Self(*code)
    }

    /// A code as it came from the wire; anything but five upper-case letters or digits is `XX000`.
    pub fn parse(code: &[u8]) -> Self {
        match <[u8; 5]>::try_from(code) {
            Ok(c) if c.iter().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase()) => Self(c),
            _ => Self(*b"XX000"),
        }
    }

    /// The five characters.
    pub fn as_str(&self) -> &str {
        // Only ASCII letters and digits get in.
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }

    /// The first two characters.
    pub fn class(&self) -> &str {
        &self.as_str()[..2]
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident, $code:literal, $http:literal, $state:literal;)*) => {
        /// What went wrong, in the words of the public error table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorKind { $($(#[$doc])* $kind,)* }

        impl ErrorKind {
            /// Every kind, in table order.
            pub const ALL: &'static [ErrorKind] = &[$(ErrorKind::$kind),*];

            /// The code of the HTTP error body.
            pub fn code(self) -> &'static str {
                match self { $(ErrorKind::$kind => $code,)* }
            }

            /// The HTTP status.
            pub fn http_status(self) -> u16 {
                match self { $(ErrorKind::$kind => $http,)* }
            }

            /// The SQLSTATE of an error that was born in RustyDB.
            pub fn sqlstate(self) -> SqlState {
                match self { $(ErrorKind::$kind => SqlState::new($state),)* }
            }
        }
    };
}

kinds! {
    /// Bad or missing credentials.
    AuthenticationFailed, "AUTHENTICATION_FAILED", 401, b"28P01";
    /// Known, but not allowed.
    AuthorizationFailed, "AUTHORIZATION_FAILED", 403, b"42501";
    /// Malformed request, bad SQL, bad value.
    ValidationError, "VALIDATION_ERROR", 400, b"22023";
    /// No such path, object, transaction or session.
    NotFound, "NOT_FOUND", 404, b"42704";
    /// A bug, or an internal error of the backend.
    InternalError, "INTERNAL_ERROR", 500, b"XX000";
    /// The backend is down, starting or out of resources.
    ServiceUnavailable, "SERVICE_UNAVAILABLE", 503, b"57P03";
    /// The wait queue is full, or the wait was too long.
    PoolExhausted, "POOL_EXHAUSTED", 503, b"53300";
    /// Statement, request or lock time-out.
    Timeout, "TIMEOUT", 504, b"57014";
    /// Constraint violation, duplicate or busy object, serialization failure.
    Conflict, "CONFLICT", 409, b"55000";
    /// A deadlock that PostgreSQL broke.
    DeadlockDetected, "DEADLOCK_DETECTED", 409, b"40P01";
    /// A statement in, or the commit of, a failed transaction.
    TransactionFailed, "TRANSACTION_FAILED", 409, b"25P02";
    /// A write on a standby or in a read-only transaction.
    ReadOnly, "READ_ONLY", 409, b"25006";
    /// Cancelled by the client or an administrator.
    Cancelled, "CANCELLED", 499, b"57014";
    /// Body, SQL text or message too large.
    PayloadTooLarge, "PAYLOAD_TOO_LARGE", 413, b"54000";
    /// Too many requests or log-ins.
    RateLimitExceeded, "RATE_LIMIT_EXCEEDED", 429, b"53400";
    /// A cookie without its token.
    CsrfFailed, "CSRF_FAILED", 403, b"28000";
    /// A bounded registry is full.
    LimitReached, "LIMIT_REACHED", 409, b"53400";
    /// Too many connections or sessions.
    TooManyConnections, "TOO_MANY_CONNECTIONS", 503, b"53300";
    /// The connection to the backend was lost.
    ConnectionFailure, "CONNECTION_FAILURE", 502, b"08006";
    /// PostgreSQL, or this server, cannot do it.
    NotSupported, "NOT_SUPPORTED", 501, b"0A000";
    /// Install the named extension.
    ExtensionRequired, "EXTENSION_REQUIRED", 501, b"0A000";
    /// Malformed protocol data.
    ProtocolViolation, "PROTOCOL_VIOLATION", 400, b"08P01";
    /// The server is stopping.
    ShuttingDown, "SHUTTING_DOWN", 503, b"57P01";
    /// The session was idle for too long.
    IdleTimeout, "IDLE_TIMEOUT", 401, b"57P05";
    /// Only over TLS.
    TlsRequired, "TLS_REQUIRED", 403, b"28000";
    /// The path exists, the method does not.
    MethodNotAllowed, "METHOD_NOT_ALLOWED", 405, b"0A000";
    /// None of the accepted content types can be produced.
    NotAcceptable, "NOT_ACCEPTABLE", 406, b"0A000";
    /// What the request rests on (`If-Match`) is not so any more.
    PreconditionFailed, "PRECONDITION_FAILED", 412, b"40001";
    /// The content type of the request is not understood.
    UnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE", 415, b"0A000";
}

impl ErrorKind {
    /// The kind of an error that PostgreSQL reported.
    ///
    /// `57014` is a cancellation here; who knows that a time-out caused it says so itself.
    pub fn of_sqlstate(state: SqlState) -> Self {
        use ErrorKind::*;
        match state.as_str() {
            "42501" | "0L000" | "0LP01" | "0P000" => AuthorizationFailed,
            "42P01" | "42704" | "3D000" | "3F000" | "34000" | "26000" | "3B001" => NotFound,
            "42P04" | "42P05" | "42P06" | "42P07" | "42710" | "42723" | "55006" | "55000"
            | "2BP01" | "40001" | "40003" | "25001" => Conflict,
            "40P01" => DeadlockDetected,
            "25P02" | "25000" | "2D000" | "3B000" | "40000" => TransactionFailed,
            "25P01" | "21000" | "P0001" => ValidationError,
            "25006" => ReadOnly,
            "55P03" | "25P03" | "25P04" => Timeout,
            "57014" => Cancelled,
            "57P01" => ShuttingDown,
            "57P05" => IdleTimeout,
            "53300" => TooManyConnections,
            "53400" => LimitReached,
            "08001" => ServiceUnavailable,
            "08P01" => ProtocolViolation,
            "0A000" => NotSupported,
            _ => Self::of_class(state.class()),
        }
    }

    fn of_class(class: &str) -> Self {
        use ErrorKind::*;
        match class {
            "07" | "22" | "42" => ValidationError,
            "23" | "25" | "40" => Conflict,
            "28" => AuthenticationFailed,
            "53" | "57" => ServiceUnavailable,
            "54" => PayloadTooLarge,
            "08" => ConnectionFailure,
            _ => InternalError,
        }
    }
}

/// An error on its way to a client.
///
/// `message`, `detail` and `hint` are public text: they must tell the user what to do and nothing
/// about the inside of the server. Boxed, so that a `Result` stays one word on the hot paths.
#[derive(Debug)]
pub struct Error(Box<Fields>);

#[derive(Debug)]
struct Fields {
    kind: ErrorKind,
    sqlstate: SqlState,
    message: Cow<'static, str>,
    detail: Option<String>,
    named: Option<(&'static str, String)>,
    hint: Option<Cow<'static, str>>,
    position: Option<u32>,
    origin: Option<Box<[u8]>>,
    retry_after: Option<Duration>,
    http_status: Option<u16>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of everything that can fail towards a client.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of a kind, with the kind's SQLSTATE and the text that the client reads.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Fields {
            kind,
            sqlstate: kind.sqlstate(),
            message: message.into(),
            detail: None,
            named: None,
            hint: None,
            position: None,
            origin: None,
            retry_after: None,
            http_status: None,
            cause: None,
        }))
    }

    /// An error with a SQLSTATE of its own; the kind follows from the code.
    pub fn sql(state: &[u8; 5], message: impl Into<Cow<'static, str>>) -> Self {
        let state = SqlState::new(state);
        Self::new(ErrorKind::of_sqlstate(state), message).with_sqlstate(state)
    }

    /// A fault of the server itself: the client learns nothing but that it happened.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(ErrorKind::InternalError, "internal error of the server").with_cause(cause)
    }

    /// The connection to the backend broke, or what came over it was not the protocol.
    pub fn backend_lost(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(ErrorKind::ConnectionFailure, "the connection to PostgreSQL was lost")
            .with_hint("whether the last statement was carried out is not known; connect again")
            .with_cause(cause)
    }

    /// Replaces the kind.
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Replaces the SQLSTATE.
    pub fn with_sqlstate(mut self, state: SqlState) -> Self {
        self.0.sqlstate = state;
        self
    }

    /// Adds the DETAIL line.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Adds a detail that programs look for by its name.
    pub fn with_named(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.named = Some((name, value.into()));
        self
    }

    /// Adds the HINT line: what the user can do.
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds further fields as PostgreSQL reported them, each a type, a text and a NUL.
    pub fn with_origin(mut self, fields: Vec<u8>) -> Self {
        self.0.origin = Some(fields.into());
        self
    }

    /// Says when the same may be tried again.
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Replaces the HTTP status of the kind, where HTTP tells more apart than the error table.
    pub fn with_http_status(mut self, status: u16) -> Self {
        self.0.http_status = Some(status);
        self
    }

    /// The HTTP status.
    pub fn http_status(&self) -> u16 {
        self.0.http_status.unwrap_or(self.0.kind.http_status())
    }

    /// When the same may be tried again, for `Retry-After`.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Further fields as PostgreSQL reported them; for its own protocol only.
    pub fn origin(&self) -> &[u8] {
        self.0.origin.as_deref().unwrap_or_default()
    }

    /// Adds the position in the statement, in characters from 1.
    pub fn with_position(mut self, position: u32) -> Self {
        self.0.position = Some(position);
        self
    }

    /// The same error of a statement that had this many characters of ours before it.
    pub fn behind(mut self, characters: usize) -> Self {
        let characters = u32::try_from(characters).unwrap_or(u32::MAX);
        self.0.position = self.0.position.and_then(|at| at.checked_sub(characters));
        self
    }

    /// Adds the private cause.
    pub fn with_cause(
        mut self,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The SQLSTATE.
    pub fn sqlstate(&self) -> SqlState {
        self.0.sqlstate
    }

    /// The public text.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The DETAIL line.
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// The detail that programs look for, with its name; for HTTP only.
    pub fn named(&self) -> Option<(&'static str, &str)> {
        self.0.named.as_ref().map(|(name, value)| (*name, value.as_str()))
    }

    /// The HINT line.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Position in the statement, in characters from 1.
    pub fn position(&self) -> Option<u32> {
        self.0.position
    }

    /// Whether the same request may succeed when it is sent again.
    pub fn is_retryable(&self) -> bool {
        matches!(self.sqlstate().as_str(), "40001" | "40P01" | "57P03" | "53300" | "08001")
    }

    /// The private cause, for the log only.
    pub fn cause(&self) -> Option<&(dyn std::error::Error + Send + Sync)> {
        self.0.cause.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backend_codes_map_to_the_public_table() {
        for (state, kind, status) in [
            (b"42601", ErrorKind::ValidationError, 400),
            (b"42P01", ErrorKind::NotFound, 404),
            (b"42501", ErrorKind::AuthorizationFailed, 403),
            (b"23505", ErrorKind::Conflict, 409),
            (b"40P01", ErrorKind::DeadlockDetected, 409),
            (b"25P02", ErrorKind::TransactionFailed, 409),
            (b"25006", ErrorKind::ReadOnly, 409),
            (b"57014", ErrorKind::Cancelled, 499),
            (b"57P03", ErrorKind::ServiceUnavailable, 503),
            (b"53200", ErrorKind::ServiceUnavailable, 503),
            (b"54001", ErrorKind::PayloadTooLarge, 413),
            (b"08006", ErrorKind::ConnectionFailure, 502),
            (b"28P01", ErrorKind::AuthenticationFailed, 401),
            (b"22012", ErrorKind::ValidationError, 400),
            (b"P0002", ErrorKind::InternalError, 500),
            (b"58030", ErrorKind::InternalError, 500),
            (b"58P01", ErrorKind::InternalError, 500),
        ] {
            let got = ErrorKind::of_sqlstate(SqlState::new(state));
            assert_eq!((got, got.http_status()), (kind, status), "{:?}", SqlState::new(state));
        }
    }

    #[test]
    fn codes_are_unique_and_well_formed() {
        let mut seen = std::collections::HashSet::new();
        for kind in ErrorKind::ALL {
            assert!(seen.insert(kind.code()), "{kind:?}");
            assert_eq!(SqlState::parse(kind.sqlstate().as_str().as_bytes()), kind.sqlstate());
            assert!((400..600).contains(&kind.http_status()));
        }
    }

    #[test]
    fn a_malformed_sqlstate_becomes_internal() {
        for bad in [&b""[..], b"4260", b"42 01", b"\xff\xff\xff\xff\xff", b"426011"] {
            assert_eq!(SqlState::parse(bad).as_str(), "XX000");
        }
    }
}
