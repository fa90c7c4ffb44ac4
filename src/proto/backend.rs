//! Messages of a PostgreSQL server: reading the ones that RustyDB must understand, and writing the
//! ones that it sends to its own clients.
//! (<https://www.postgresql.org/docs/current/protocol-message-formats.html>)

use super::frame::Want;
use super::{Cursor, Malformed};
use crate::error::{Error, ErrorKind, SqlState};

/// Types of the messages that a server sends.
pub mod tag {
    #![allow(missing_docs)]
    pub const AUTHENTICATION: u8 = b'R';
    pub const BACKEND_KEY_DATA: u8 = b'K';
    pub const BIND_COMPLETE: u8 = b'2';
    pub const CLOSE_COMPLETE: u8 = b'3';
    pub const COMMAND_COMPLETE: u8 = b'C';
    pub const COPY_BOTH: u8 = b'W';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_IN: u8 = b'G';
    pub const COPY_OUT: u8 = b'H';
    pub const DATA_ROW: u8 = b'D';
    pub const EMPTY_QUERY: u8 = b'I';
    pub const ERROR: u8 = b'E';
    pub const NEGOTIATE_PROTOCOL: u8 = b'v';
    pub const NO_DATA: u8 = b'n';
    pub const NOTICE: u8 = b'N';
    pub const NOTIFICATION: u8 = b'A';
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    pub const PARAMETER_STATUS: u8 = b'S';
    pub const PARSE_COMPLETE: u8 = b'1';
    pub const PORTAL_SUSPENDED: u8 = b's';
    pub const READY_FOR_QUERY: u8 = b'Z';
    pub const ROW_DESCRIPTION: u8 = b'T';
}

/// The message ParseComplete.
pub const PARSE_COMPLETE: [u8; 5] = [tag::PARSE_COMPLETE, 0, 0, 0, 4];

/// Longest body that the relay keeps to look at; errors longer than this pass unseen.
const LOOK_AT: usize = 64 << 10;

/// The scanner's rule for relaying: the bodies that say how the session stands.
pub fn relay_rule(tag: u8) -> (Want, usize) {
    match tag {
        tag::READY_FOR_QUERY => (Want::Body(1), 1),
        tag::COMMAND_COMPLETE | tag::ERROR | tag::PARAMETER_STATUS | tag::NOTIFICATION => {
            (Want::Body(LOOK_AT), i32::MAX as usize)
        }
        _ => (Want::Header, i32::MAX as usize),
    }
}

/// Transaction status of ReadyForQuery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxStatus {
    /// `I`: no transaction.
    Idle,
    /// `T`: in a transaction.
    Open,
    /// `E`: in a failed transaction.
    Failed,
}

impl TxStatus {
    /// Reads the body of ReadyForQuery.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        match body {
            b"I" => Ok(Self::Idle),
            b"T" => Ok(Self::Open),
            b"E" => Ok(Self::Failed),
            _ => Err(Malformed("unknown transaction status")),
        }
    }
}

/// The fields of ErrorResponse and NoticeResponse that RustyDB uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report<'a> {
    /// `V`, or `S` before PostgreSQL 9.6: never translated.
    pub severity: &'a [u8],
    /// `C`.
    pub sqlstate: &'a [u8],
    /// `M`.
    pub message: &'a [u8],
    /// `D`.
    pub detail: Option<&'a [u8]>,
    /// `H`.
    pub hint: Option<&'a [u8]>,
    /// `P`.
    pub position: Option<u32>,
    /// `R`: the function in PostgreSQL's source.
    pub routine: Option<&'a [u8]>,
    /// All of them.
    fields: &'a [u8],
}

impl<'a> Report<'a> {
    /// Reads the fields; unknown ones are skipped, as the protocol demands.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(body);
        let mut report = Self { fields: body, ..Self::default() };
        loop {
            let field = cursor.u8()?;
            if field == 0 {
                return Ok(report);
            }
            let value = cursor.cstr()?;
            match field {
                b'S' if report.severity.is_empty() => report.severity = value,
                b'V' => report.severity = value,
                b'C' => report.sqlstate = value,
                b'M' => report.message = value,
                b'D' => report.detail = Some(value),
                b'H' => report.hint = Some(value),
                b'R' => report.routine = Some(value),
                b'P' => {
                    report.position = std::str::from_utf8(value).ok().and_then(|p| p.parse().ok());
                }
                _ => {}
            }
        }
    }

    /// Whether the server closes the connection after it.
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity, b"FATAL" | b"PANIC")
    }

    /// The extension whose files PostgreSQL does not find, if that is what this tells.
    fn missing_extension(&self) -> Option<&'a [u8]> {
        const LOADERS: [&[u8]; 2] = [b"parse_extension_control_file", b"internal_load_library"];
        let is_missing = matches!(self.sqlstate, b"0A000" | b"58P01");
        self.routine.filter(|routine| is_missing && LOADERS.contains(routine))?;
        // In whatever language: its name, or the path of its file, is what stands in quotes.
        let quoted = self.message.split(|byte| *byte == b'"').nth(1)?;
        let name = quoted.rsplit(|byte| *byte == b'/').next()?;
        let suffix = |suffix: &[u8]| name.strip_suffix(suffix);
        Some(suffix(b".control").or_else(|| suffix(b".so")).unwrap_or(name))
    }

    /// The error for a client of RustyDB.
    pub fn to_error(&self) -> Error {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let state = SqlState::parse(self.sqlstate);
        let mut error = Error::new(ErrorKind::of_sqlstate(state), text(self.message));
        error = error.with_sqlstate(state);
        if let Some(extension) = self.missing_extension() {
            error = error
                .with_kind(ErrorKind::ExtensionRequired)
                .with_named("extension", text(extension));
        }
        if let Some(detail) = self.detail {
            error = error.with_detail(text(detail));
        }
        if let Some(hint) = self.hint {
            error = error.with_hint(text(hint));
        }
        if let Some(position) = self.position {
            error = error.with_position(position);
        }
        error.with_origin(self.further())
    }

    /// The fields that say where in PostgreSQL, or in the database, it happened.
    fn further(&self) -> Vec<u8> {
        let mut cursor = Cursor(self.fields);
        let mut further = Vec::new();
        while let (Ok(field), Ok(value)) = (cursor.u8(), cursor.cstr()) {
            if !b"SVCMDHP".contains(&field) {
                further.push(field);
                further.extend_from_slice(value);
                further.push(0);
            }
        }
        further
    }
}

/// Reads ParameterStatus: name and value.
pub fn parameter_status(body: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut cursor = Cursor(body);
    Ok((cursor.cstr()?, cursor.cstr()?))
}

/// One column of RowDescription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column<'a> {
    /// Name.
    pub name: &'a [u8],
    /// The table it comes from, or 0.
    pub table: u32,
    /// Its number in that table, or 0.
    pub attribute: i16,
    /// Type.
    pub type_oid: u32,
    /// Bytes of a value; negative = variable.
    pub type_size: i16,
    /// `atttypmod`; -1 = none.
    pub type_modifier: i32,
    /// Whether the values come in binary.
    pub binary: bool,
}

/// Reads RowDescription.
pub fn row_description(body: &[u8]) -> Result<Vec<Column<'_>>, Malformed> {
    let mut cursor = Cursor(body);
    let count = cursor.i16()?;
    // At most 1664 columns can exist, and each takes 19 bytes, so the count cannot lie for long.
    (0..count)
        .map(|_| {
            let name = cursor.cstr()?;
            let table = cursor.i32()? as u32;
            let attribute = cursor.i16()?;
            let type_oid = cursor.i32()? as u32;
            let (type_size, type_modifier) = (cursor.i16()?, cursor.i32()?);
            let binary = cursor.i16()? == 1;
            Ok(Column { name, table, attribute, type_oid, type_size, type_modifier, binary })
        })
        .collect()
}

/// Reads ParameterDescription: the types of `$1`, `$2`, …
pub fn parameter_description(body: &[u8]) -> Result<Vec<u32>, Malformed> {
    let mut cursor = Cursor(body);
    let count = cursor.i16()? as u16;
    (0..count).map(|_| Ok(cursor.i32()? as u32)).collect()
}

/// The values of a DataRow; `None` = NULL.
pub struct DataRow<'a> {
    cursor: Cursor<'a>,
    left: u16,
}

impl<'a> DataRow<'a> {
    /// Begins to read.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(body);
        let left = cursor.i16()? as u16;
        Ok(Self { cursor, left })
    }

    /// The bytes of the values that are still to come.
    pub fn rest(&self) -> &'a [u8] {
        self.cursor.0
    }
}

impl<'a> Iterator for DataRow<'a> {
    type Item = Result<Option<&'a [u8]>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let value = self.cursor.i32().and_then(|length| match usize::try_from(length) {
            Ok(length) => self.cursor.take(length).map(Some),
            Err(_) => Ok(None),
        });
        if value.is_err() {
            self.left = 0;
        }
        Some(value)
    }
}

/// What a CommandComplete tag says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandTag<'a> {
    /// The tag without its numbers, for instance `CREATE TABLE`.
    pub command: &'a str,
    /// Rows selected, inserted, copied, …; 0 where the command has no number.
    pub rows: u64,
}

/// Reads CommandComplete.
pub fn command_complete(body: &[u8]) -> Result<CommandTag<'_>, Malformed> {
    // One digit is what most selects of a row by its key end with.
    if let [b'S', b'E', b'L', b'E', b'C', b'T', b' ', digit @ b'0'..=b'9', 0] = body {
        return Ok(CommandTag { command: "SELECT", rows: u64::from(digit - b'0') });
    }
    let text = Cursor(body).cstr()?;
    let last = text.iter().rposition(|b| !matches!(b, b' ' | b'0'..=b'9'));
    let (command, numbers) = text.split_at(last.map_or(0, |last| last + 1));
    let digits = numbers.iter().rposition(|b| *b == b' ').map_or(&[][..], |at| &numbers[at + 1..]);
    let add = |n: u64, digit: &u8| n.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    let rows = digits.iter().try_fold(0, add).unwrap_or(0);
    let command = match command {
        // The most frequent ones need no check.
        b"SELECT" => "SELECT",
        b"INSERT" => "INSERT",
        b"UPDATE" => "UPDATE",
        b"BEGIN" => "BEGIN",
        b"COMMIT" => "COMMIT",
        other => std::str::from_utf8(other).map_err(|_| Malformed("command tag is not UTF-8"))?,
    };
    Ok(CommandTag { command, rows })
}

pub(super) fn put(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

pub(super) fn put_cstr(out: &mut Vec<u8>, text: &str) {
    // A NUL would end the string early and let the rest be read as another field.
    out.extend(text.bytes().filter(|b| *b != 0));
    out.push(0);
}

/// How much an error ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The statement.
    Error,
    /// The connection.
    Fatal,
}

/// Writes ErrorResponse.
pub fn put_error(out: &mut Vec<u8>, severity: Severity, error: &Error) {
    let word = match severity {
        Severity::Error => "ERROR",
        Severity::Fatal => "FATAL",
    };
    put(out, tag::ERROR, |out| {
        let mut field = |name: u8, text: &str| {
            out.push(name);
            put_cstr(out, text);
        };
        field(b'S', word);
        field(b'V', word);
        field(b'C', error.sqlstate().as_str());
        field(b'M', error.message());
        if let Some(detail) = error.detail() {
            field(b'D', detail);
        }
        if let Some(hint) = error.hint() {
            field(b'H', hint);
        }
        if let Some(position) = error.position() {
            field(b'P', &position.to_string());
        }
        out.extend_from_slice(error.origin());
        out.push(0);
    });
}

/// Writes AuthenticationOk.
pub fn put_authentication_ok(out: &mut Vec<u8>) {
    put(out, tag::AUTHENTICATION, |out| out.extend_from_slice(&0u32.to_be_bytes()));
}

/// Writes AuthenticationCleartextPassword.
pub fn put_authentication_password(out: &mut Vec<u8>) {
    put(out, tag::AUTHENTICATION, |out| out.extend_from_slice(&3u32.to_be_bytes()));
}

/// Writes AuthenticationSASL with the mechanisms, best first.
pub fn put_authentication_sasl(out: &mut Vec<u8>, mechanisms: &[&str]) {
    put(out, tag::AUTHENTICATION, |out| {
        out.extend_from_slice(&10u32.to_be_bytes());
        mechanisms.iter().for_each(|mechanism| put_cstr(out, mechanism));
        out.push(0);
    });
}

/// Writes AuthenticationSASLContinue.
pub fn put_authentication_sasl_continue(out: &mut Vec<u8>, data: &[u8]) {
    put(out, tag::AUTHENTICATION, |out| {
        out.extend_from_slice(&11u32.to_be_bytes());
        out.extend_from_slice(data);
    });
}

/// Writes AuthenticationSASLFinal.
pub fn put_authentication_sasl_final(out: &mut Vec<u8>, data: &[u8]) {
    put(out, tag::AUTHENTICATION, |out| {
        out.extend_from_slice(&12u32.to_be_bytes());
        out.extend_from_slice(data);
    });
}

/// Writes ParameterStatus.
pub fn put_parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    put(out, tag::PARAMETER_STATUS, |out| {
        put_cstr(out, name);
        put_cstr(out, value);
    });
}

/// Writes BackendKeyData.
pub fn put_backend_key(out: &mut Vec<u8>, pid: u32, key: &[u8]) {
    put(out, tag::BACKEND_KEY_DATA, |out| {
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(key);
    });
}

/// Writes ReadyForQuery outside a transaction.
pub fn put_ready(out: &mut Vec<u8>) {
    put(out, tag::READY_FOR_QUERY, |out| out.push(b'I'));
}

/// Writes NegotiateProtocolVersion: the newest minor version known, and the options that are not.
pub fn put_negotiate(out: &mut Vec<u8>, newest_minor: u32, unknown: &[String]) {
    put(out, tag::NEGOTIATE_PROTOCOL, |out| {
        out.extend_from_slice(&(3 << 16 | newest_minor).to_be_bytes());
        out.extend_from_slice(&u32::try_from(unknown.len()).unwrap_or(0).to_be_bytes());
        unknown.iter().for_each(|name| put_cstr(out, name));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_tags() {
        for (text, command, rows) in [
            ("SELECT 3", "SELECT", 3),
            ("INSERT 0 7", "INSERT", 7),
            ("CREATE TABLE", "CREATE TABLE", 0),
            ("COPY 12", "COPY", 12),
            ("COPY 18446744073709551615", "COPY", u64::MAX),
            ("COPY 18446744073709551616", "COPY", 0),
            ("COPY12 ", "COPY", 0),
            ("COPY12", "COPY", 0),
            ("12", "", 0),
            ("", "", 0),
        ] {
            let body = format!("{text}\0");
            assert_eq!(command_complete(body.as_bytes()), Ok(CommandTag { command, rows }));
        }
    }

    #[test]
    fn an_error_survives_a_round_trip_and_loses_its_nuls() {
        let error = Error::sql(b"42601", "syntax\0 error").with_detail("d").with_position(3);
        let mut bytes = Vec::new();
        put_error(&mut bytes, Severity::Error, &error);
        let report = Report::parse(&bytes[5..]).unwrap();
        assert_eq!((report.sqlstate, report.message), (&b"42601"[..], &b"syntax error"[..]));
        assert_eq!((report.position, report.is_fatal()), (Some(3), false));
        assert_eq!(report.to_error().kind(), ErrorKind::ValidationError);
    }

    #[test]
    fn rows_are_read_without_trusting_their_counts() {
        let row = b"\0\x02\0\0\0\x01a\xff\xff\xff\xff";
        let values: Result<Vec<_>, _> = DataRow::parse(row).unwrap().collect();
        assert_eq!(values, Ok(vec![Some(&b"a"[..]), None]));
        let short = DataRow::parse(b"\x7f\xff\0\0\0\x09a").unwrap();
        assert_eq!(short.collect::<Vec<_>>().len(), 1);
        assert!(row_description(b"\x7f\xffname\0").is_err());
        assert!(parameter_description(b"\x00\x02\0\0\0\x17").is_err());
    }
}
