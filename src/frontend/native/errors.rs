//! Errors as the native protocol says them.

use std::borrow::Cow;

use crate::error::{Error, ErrorKind, SqlState};
use crate::proto::native::{ErrorBody, Severity, Violation};
use crate::proto::typed::text::BadValue;
use crate::proto::{Cursor, backend};

/// Longest field of PostgreSQL's errors, in bytes: all of them fit into the shortest message that
/// can be agreed on. PostgreSQL quotes values that are as long as they like.
const LONGEST_FIELD: usize = 4 << 10;

/// A field of PostgreSQL's, cut if need be.
fn field(bytes: &[u8]) -> String {
    let mut text: Cow<'_, str> = String::from_utf8_lossy(bytes);
    if text.len() > LONGEST_FIELD {
        let end = (0..=LONGEST_FIELD).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text = format!("{}…", &text[..end]).into();
    }
    text.into_owned()
}

/// An error of the server itself.
pub(super) fn of_error(error: &Error, severity: Severity) -> ErrorBody {
    let state = error.sqlstate();
    let mut body = ErrorBody::new(severity, state.as_str(), error.kind().code(), error.message());
    body.detail = error.detail().map(str::to_owned);
    body.hint = error.hint().map(str::to_owned);
    body.position = error.position();
    body.retryable = error.is_retryable();
    body.retry_after_ms = retry_after(state.as_str());
    add_fields(&mut body, error.origin());
    body
}

/// An error with a SQLSTATE and a code of its own.
pub(super) fn refusal(state: &str, code: &str, text: impl Into<String>) -> Box<ErrorBody> {
    Box::new(ErrorBody::new(Severity::Error, state, code, text))
}

/// An error after which the connection closes.
pub(super) fn fatal(state: &str, code: &str, text: impl Into<String>) -> Box<ErrorBody> {
    Box::new(ErrorBody::new(Severity::Fatal, state, code, text))
}

/// The protocol was broken in a way that cannot be mended.
pub(super) fn violation(text: impl Into<String>) -> Box<ErrorBody> {
    fatal("08P01", ErrorKind::ProtocolViolation.code(), text)
}

/// Bytes that were refused.
pub(super) fn of_violation(violation: Violation) -> Box<ErrorBody> {
    let severity = if violation.is_fatal() { Severity::Fatal } else { Severity::Error };
    let (state, code) = (violation.sqlstate(), violation.code());
    let mut body = Box::new(ErrorBody::new(severity, state, code, violation.text));
    if !violation.is_fatal() {
        body.hint = Some("send fewer rows per message".into());
    }
    body
}

/// A limit of the connection was reached, which ends as requests are answered.
pub(super) fn busy(code: &str, text: &str) -> Box<ErrorBody> {
    /// As long as a statement of the usual kind takes.
    const PRESENTLY_MS: u32 = 100;
    let mut body = refusal("53400", code, text);
    (body.retryable, body.retry_after_ms) = (true, Some(PRESENTLY_MS));
    body
}

/// Something that was not agreed, or does not exist here.
pub(super) fn not_supported(text: impl Into<String>) -> Box<ErrorBody> {
    refusal("0A000", ErrorKind::NotSupported.code(), text)
}

/// A limit of a request was passed.
pub(super) fn too_large(text: impl Into<String>, hint: &str) -> Box<ErrorBody> {
    let mut body = refusal("54000", ErrorKind::PayloadTooLarge.code(), text);
    body.hint = Some(hint.to_owned());
    body
}

/// A value that contradicts itself.
pub(super) fn of_value(bad: BadValue) -> Box<ErrorBody> {
    let state = String::from_utf8_lossy(bad.sqlstate);
    let kind = match bad.sqlstate {
        b"54000" => ErrorKind::PayloadTooLarge,
        _ => ErrorKind::ValidationError,
    };
    refusal(&state, kind.code(), bad.text)
}

/// The request was cancelled before PostgreSQL had anything to do with it.
pub(super) fn cancelled(timed_out: bool) -> Box<ErrorBody> {
    match timed_out {
        true => refusal("57014", ErrorKind::Timeout.code(), TIMED_OUT),
        false => refusal("57014", ErrorKind::Cancelled.code(), CANCELLED),
    }
}

const CANCELLED: &str = "canceling statement due to user request";
const TIMED_OUT: &str = "canceling statement due to statement timeout";

/// PostgreSQL's ErrorResponse; `in_transaction` = a transaction was open. `timed_out` = the request
/// was cancelled because its time was up.
pub(super) fn of_postgres(body: &[u8], timed_out: bool, in_transaction: bool) -> Box<ErrorBody> {
    let Ok(report) = backend::Report::parse(body) else {
        let text = "PostgreSQL reported an error that cannot be read";
        return refusal("XX000", ErrorKind::InternalError.code(), text);
    };
    let state = SqlState::parse(report.sqlstate);
    let kind = ErrorKind::of_sqlstate(state);
    let severity = match report.severity {
        b"FATAL" => Severity::Fatal,
        b"PANIC" => Severity::Panic,
        _ => Severity::Error,
    };
    let message = field(report.message);
    let is_timeout = timed_out || message == TIMED_OUT;
    let code = match state.as_str() {
        "57014" if is_timeout => ErrorKind::Timeout.code(),
        "53300" if message.contains("pool") || message.contains("wait") => {
            ErrorKind::PoolExhausted.code()
        }
        _ => kind.code(),
    };
    let message = match (state.as_str(), timed_out) {
        ("57014", true) => TIMED_OUT.to_owned(),
        _ => message,
    };
    let mut error = Box::new(ErrorBody::new(severity, state.as_str(), code, message));
    error.detail = report.detail.map(field);
    error.hint = report.hint.map(field);
    error.position = report.position;
    error.retryable = match state.as_str() {
        "08006" => !in_transaction,
        _ => Error::new(kind, "").with_sqlstate(state).is_retryable(),
    };
    error.retry_after_ms = retry_after(state.as_str());
    add_fields(&mut error, body);
    error
}

/// How long to wait before something is tried again that has no room, or nobody to do it, now.
fn retry_after(state: &str) -> Option<u32> {
    /// Connections come and go, and PostgreSQL is looked for, in about this time.
    const SOON_MS: u32 = 1000;
    matches!(state, "53300" | "57P03" | "08001").then_some(SOON_MS)
}

/// The same, before it is known in which state it came.
pub(super) fn raw(body: Option<&[u8]>) -> Box<ErrorBody> {
    of_postgres(body.unwrap_or_default(), false, true)
}

/// A fault of the server itself; the cause is for the log.
pub(super) fn of_error_text(cause: &'static str) -> Box<ErrorBody> {
    let error = Error::internal(cause);
    tracing::error!(cause, "{error}");
    Box::new(of_error(&error, Severity::Error))
}

/// The fields that say where it happened, each a type, a text and a NUL.
fn add_fields(error: &mut ErrorBody, fields: &[u8]) {
    let mut cursor = Cursor(fields);
    while let (Ok(kind), Ok(value)) = (cursor.u8(), cursor.cstr()) {
        let place = match kind {
            b'W' => &mut error.context,
            b's' => &mut error.schema,
            b't' => &mut error.table,
            b'c' => &mut error.column,
            b'd' => &mut error.data_type,
            b'n' => &mut error.constraint,
            _ => continue,
        };
        *place = Some(field(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_fields_of_postgres_are_passed_on() {
        let report = b"SERROR\0VERROR\0C23505\0Mduplicate\0Dd\0Hh\0P7\0Wc\0ss\0tt\0cc\0dd\0nk\0\0";
        let error = of_postgres(report, false, false);
        assert_eq!((error.sqlstate.as_str(), error.code.as_str()), ("23505", "CONFLICT"));
        assert_eq!((error.position, error.constraint.as_deref()), (Some(7), Some("k")));
        assert_eq!((error.schema.as_deref(), error.context.as_deref()), (Some("s"), Some("c")));
        assert!(!error.retryable);
    }

    #[test]
    fn long_fields_are_cut() {
        let long = "ä".repeat(100_000);
        let report = format!("SERROR\0VERROR\0C22P02\0M{long}\0D{long}\0W{long}\0\0");
        let error = of_postgres(report.as_bytes(), false, false);
        for text in [Some(&error.message), error.detail.as_ref(), error.context.as_ref()] {
            let text = text.unwrap();
            assert!(text.len() < LONGEST_FIELD + 4 && text.ends_with("ä…"), "{}", text.len());
        }
    }

    #[test]
    fn what_may_be_tried_again_says_so() {
        let of = |code: &str, timed_out, in_transaction| {
            let report = format!("SERROR\0VERROR\0C{code}\0Mm\0\0");
            of_postgres(report.as_bytes(), timed_out, in_transaction)
        };
        assert!(of("40001", false, true).retryable);
        assert!(of("08006", false, false).retryable && !of("08006", false, true).retryable);
        assert_eq!(of("53300", false, false).retry_after_ms, Some(1000));
        assert_eq!(of("57P03", false, true).retry_after_ms, Some(1000));
        assert_eq!(of("40001", false, true).retry_after_ms, None);
        let busy = busy("QUEUE_FULL", "full");
        assert_eq!((busy.retryable, busy.retry_after_ms), (true, Some(100)));
        assert_eq!(of("57014", true, false).code, "TIMEOUT");
        assert_eq!(of("57014", false, false).code, "CANCELLED");
        assert_eq!(of_postgres(b"?", false, false).sqlstate, "XX000");
    }
}
