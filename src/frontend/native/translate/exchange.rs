//! Messages to PostgreSQL and their replies.

use std::borrow::Cow;
use std::convert::Infallible;

use super::{Done, Failure, Translator};
use crate::frontend::native::errors;
use crate::proto::backend::{Column, DataRow, TxStatus, command_complete, row_description, tag};
use crate::proto::frontend::{self, tag as ask};
use crate::proto::native::{Reader, Value, Wire};
use crate::proto::typed::{self, parameter};

use super::known::Formats;
use super::prepared::WireName;

/// Rounds of questions for types within types.
const MAX_ROUNDS: usize = 16;

/// A column of a statement.
#[derive(Clone, Debug)]
pub(super) struct ColumnInfo {
    pub(super) name: String,
    pub(super) table: u32,
    pub(super) attribute: i16,
    pub(super) oid: u32,
    pub(super) size: i16,
    pub(super) modifier: i32,
    pub(super) binary: bool,
}

impl From<Column<'_>> for ColumnInfo {
    fn from(column: Column<'_>) -> Self {
        Self {
            name: String::from_utf8_lossy(column.name).into_owned(),
            table: column.table,
            attribute: column.attribute,
            oid: column.type_oid,
            size: column.type_size,
            modifier: column.type_modifier,
            binary: column.binary,
        }
    }
}

/// Reads RowDescription.
pub(super) fn columns(body: Option<&[u8]>) -> Result<Vec<ColumnInfo>, Failure> {
    let read = body.and_then(|body| row_description(body).ok());
    let columns =
        read.ok_or_else(|| errors::of_error_text("a RowDescription that cannot be read"))?;
    Ok(columns.into_iter().map(ColumnInfo::from).collect())
}

/// What a statement takes and gives.
#[derive(Debug, Default)]
pub(super) struct Description {
    pub(super) parameters: Vec<u32>,
    pub(super) columns: Vec<ColumnInfo>,
}

fn put(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let done: Result<(), Infallible> = try_put(out, tag, |out| {
        body(out);
        Ok(())
    });
    let Ok(()) = done;
}

fn try_put<E>(
    out: &mut Vec<u8>,
    tag: u8,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    out.extend_from_slice(&[tag, 0, 0, 0, 0]);
    let at = out.len() - 4;
    body(out)?;
    let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// Writes Parse of the unnamed statement.
pub(super) fn put_parse(out: &mut Vec<u8>, sql: &str, types: &[u32]) {
    put_parse_as(out, "", sql, types);
}

/// Writes Parse of the statement of this name.
fn put_parse_as(out: &mut Vec<u8>, name: &str, sql: &str, types: &[u32]) {
    put(out, ask::PARSE, |out| {
        put_name(out, name);
        out.extend_from_slice(sql.as_bytes());
        out.push(0);
        out.extend_from_slice(&u16::try_from(types.len()).unwrap_or(u16::MAX).to_be_bytes());
        types.iter().for_each(|oid| out.extend_from_slice(&oid.to_be_bytes()));
    });
}

/// Writes Bind of the unnamed statement to the unnamed portal.
pub(super) fn put_bind(out: &mut Vec<u8>, parameters: &[u8], formats: &Formats) {
    put(out, ask::BIND, |out| {
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(parameters);
        formats.put(out);
    });
}

fn put_name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(name.as_bytes());
    out.push(0);
}

/// Writes Bind of the statement of this name to the unnamed portal, with values that are read from
/// a frame one by one: as many as there are types.
///
/// # Errors
/// There is another number of values, or one cannot be read or has no form for PostgreSQL.
pub(super) fn put_bind_of(
    out: &mut Vec<u8>,
    name: &str,
    values: &mut Reader<'_>,
    types: &[u32],
    formats: &Formats,
) -> Result<(), Unfit> {
    try_put(out, ask::BIND, |out| {
        out.push(0);
        put_name(out, name);
        let given = values.count(size_of::<Value>()).map_err(|_| Unfit)?;
        let count = u16::try_from(types.len()).map_err(|_| Unfit)?;
        if given != types.len() {
            return Err(Unfit);
        }
        let at = begin_parameters(out, count);
        for (number, declared) in types.iter().enumerate() {
            let value = Value::decode(values).map_err(|_| Unfit)?;
            let format = parameter::put(out, &value, *declared).map_err(|_| Unfit)?;
            put_format(out, at, number, format);
        }
        formats.put(out);
        Ok(())
    })
}

/// A request that is not sent in the short way.
#[derive(Debug)]
pub(super) struct Unfit;

/// Writes Execute of the unnamed portal.
pub(super) fn put_execute(out: &mut Vec<u8>, rows: u32) {
    // PostgreSQL reads the number as signed.
    let rows = rows.min(i32::MAX as u32);
    put(out, ask::EXECUTE, |out| {
        out.push(0);
        out.extend_from_slice(&rows.to_be_bytes());
    });
}

/// Writes Describe of the unnamed portal.
pub(super) fn put_describe(out: &mut Vec<u8>) {
    put(out, ask::DESCRIBE, |out| out.extend_from_slice(b"P\0"));
}

/// Writes Close of the unnamed portal.
pub(super) fn put_close_portal(out: &mut Vec<u8>) {
    put(out, ask::CLOSE, |out| out.extend_from_slice(b"P\0"));
}

pub(super) fn put_flush(out: &mut Vec<u8>) {
    put(out, ask::FLUSH, |_| {});
}

pub(super) fn put_copy_fail(out: &mut Vec<u8>, reason: &str) {
    put(out, ask::COPY_FAIL, |out| {
        out.extend(reason.bytes().filter(|byte| *byte != 0));
        out.push(0);
    });
}

pub(super) fn put_copy_done(out: &mut Vec<u8>) {
    put(out, ask::COPY_DONE, |_| {});
}

pub(super) fn put_copy_data(out: &mut Vec<u8>, data: &[u8]) {
    put(out, ask::COPY_DATA, |out| out.extend_from_slice(data));
}

/// The types that a statement's parameters are said to have.
pub(super) fn parameter_types(params: &[Value], given: &[u32]) -> Vec<u32> {
    let of = |(at, value)| match given.get(at) {
        None | Some(0) => parameter::natural_oid(value),
        Some(oid) => *oid,
    };
    params.iter().enumerate().map(of).chain(given.iter().skip(params.len()).copied()).collect()
}

/// The part of Bind that has the parameters: formats and values.
pub(super) fn parameters(params: &[Value], types: &[u32]) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::with_capacity(4 + 16 * params.len());
    put_parameters(&mut out, params, types)?;
    Ok(out)
}

/// Appends that part.
///
/// # Errors
/// A value has no form for PostgreSQL; `out` has some of the part then.
pub(super) fn put_parameters(
    out: &mut Vec<u8>,
    params: &[Value],
    types: &[u32],
) -> Result<(), Failure> {
    let Ok(count) = u16::try_from(params.len()) else {
        return Err(errors::too_large("more than 65535 parameters", "pass arrays"));
    };
    let at = begin_parameters(out, count);
    for (number, value) in params.iter().enumerate() {
        let declared = types.get(number).copied().unwrap_or(0);
        let format = parameter::put(out, value, declared).map_err(|bad| {
            let mut failure = errors::of_value(bad);
            failure.detail = Some(format!("parameter ${}", number + 1));
            failure
        })?;
        put_format(out, at, number, format);
    }
    Ok(())
}

/// Leaves room for the formats, which go before the values; returns where.
fn begin_parameters(out: &mut Vec<u8>, count: u16) -> usize {
    out.extend_from_slice(&count.to_be_bytes());
    let at = out.len();
    out.resize(at + 2 * usize::from(count), 0);
    out.extend_from_slice(&count.to_be_bytes());
    at
}

fn put_format(out: &mut [u8], at: usize, number: usize, format: u16) {
    let place = at + 2 * number;
    out[place..place + 2].copy_from_slice(&format.to_be_bytes());
}

impl Translator {
    /// Sends something to which a Sync belongs.
    pub(super) fn send_open(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.core.send(write);
        self.is_unsynced = true;
    }

    /// Sends something that ends with ReadyForQuery.
    pub(super) fn send_closed(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.core.send(write);
        (self.is_unsynced, self.is_owed) = (false, true);
    }

    /// What PostgreSQL reported.
    pub(super) fn reported(&self, body: Option<&[u8]>) -> Failure {
        let state = self.core.lock();
        let timed_out = state.current.as_ref().is_some_and(|current| current.timed_out);
        let in_transaction = state.tx != TxStatus::Idle;
        errors::of_postgres(body.unwrap_or_default(), timed_out, in_transaction)
    }

    /// Waits for the end of what was begun.
    ///
    /// # Errors
    /// The first error of PostgreSQL on the way.
    pub(super) async fn settle(&mut self) -> Result<(), Failure> {
        if self.is_unsynced {
            self.send_closed(frontend::put_sync);
        }
        if !self.is_owed {
            return Ok(());
        }
        let mut failure: Option<Vec<u8>> = None;
        self.core
            .replies(|tag, body| match tag {
                tag::READY_FOR_QUERY => Some(()),
                tag::ERROR => {
                    let body = body.unwrap_or_default();
                    let ends = !is_plain_error(body);
                    failure.get_or_insert_with(|| body.to_vec());
                    ends.then_some(())
                }
                _ => None,
            })
            .await;
        self.is_owed = false;
        match failure {
            Some(body) => Err(self.reported(Some(&body))),
            None => Ok(()),
        }
    }

    /// Runs a command without rows.
    pub(super) async fn command(&mut self, sql: &str) -> Result<Done, Failure> {
        self.send_closed(|out| frontend::put_query(out, sql.as_bytes()));
        let mut done = Done::default();
        let failure = self
            .core
            .replies(|tag, body| match tag {
                tag::COMMAND_COMPLETE => {
                    done = complete(body);
                    None
                }
                tag::ERROR => Some(Some(body.unwrap_or_default().to_vec())),
                tag::READY_FOR_QUERY => Some(None),
                _ => None,
            })
            .await;
        self.conclude(failure).await?;
        Ok(done)
    }

    /// Runs a statement whose rows are wanted as texts.
    pub(super) async fn text_rows(
        &mut self,
        sql: &str,
    ) -> Result<Vec<Vec<Option<String>>>, Failure> {
        self.send_closed(|out| frontend::put_query(out, sql.as_bytes()));
        let mut rows = Vec::new();
        let failure = self
            .core
            .replies(|tag, body| match tag {
                tag::DATA_ROW => {
                    rows.push(texts(body.unwrap_or_default()));
                    None
                }
                tag::ERROR => Some(Some(body.unwrap_or_default().to_vec())),
                tag::READY_FOR_QUERY => Some(None),
                _ => None,
            })
            .await;
        self.conclude(failure).await?;
        Ok(rows)
    }

    /// After ReadyForQuery, or an error after which it is still to come.
    async fn conclude(&mut self, failure: Option<Vec<u8>>) -> Result<(), Failure> {
        match failure {
            None => {
                self.is_owed = false;
                Ok(())
            }
            Some(body) => {
                let failure = self.reported(Some(&body));
                if is_plain_error(&body) {
                    self.settle().await.or(Ok::<(), Failure>(()))?;
                }
                Err(failure)
            }
        }
    }

    /// Asks what a statement takes and gives; it is parsed, and the batch is open, afterwards.
    pub(super) async fn describe(
        &mut self,
        sql: &str,
        types: &[u32],
    ) -> Result<Description, Failure> {
        self.describe_as("", &[], sql, types).await
    }

    /// The same under a name, by which it can be bound then; `closed` are names that are not
    /// needed any more.
    pub(super) async fn describe_as(
        &mut self,
        name: &str,
        closed: &[WireName],
        sql: &str,
        types: &[u32],
    ) -> Result<Description, Failure> {
        self.send_open(|out| {
            closed.iter().for_each(|name| frontend::put_close(out, name.as_bytes()));
            put_parse_as(out, name, sql, types);
            frontend::put_describe(out, name.as_bytes());
            put_flush(out);
        });
        let mut described = Description::default();
        let ended = self
            .core
            .replies(|tag, body| match tag {
                tag::PARAMETER_DESCRIPTION => {
                    let body = body.unwrap_or_default();
                    let read = crate::proto::backend::parameter_description(body);
                    described.parameters = read.unwrap_or_default();
                    None
                }
                tag::ROW_DESCRIPTION => Some(columns(body).map(|columns| {
                    described.columns = columns;
                })),
                tag::NO_DATA => Some(Ok(())),
                tag::ERROR => Some(Err(errors::raw(body))),
                _ => None,
            })
            .await;
        match ended {
            Ok(()) => {}
            Err(failure) => return Err(self.dated(failure)),
        }
        self.look_up(&described).await?;
        Ok(described)
    }

    /// An error of PostgreSQL with what only the translator knows of it.
    fn dated(&self, mut failure: Failure) -> Failure {
        let state = self.core.lock();
        if failure.sqlstate == "57014"
            && state.current.as_ref().is_some_and(|current| current.timed_out)
        {
            failure = errors::cancelled(true);
        }
        if failure.sqlstate == "08006" {
            failure.retryable = state.tx == TxStatus::Idle;
        }
        failure
    }

    /// Looks types up that are not known yet, within the open batch.
    async fn look_up(&mut self, described: &Description) -> Result<(), Failure> {
        for _ in 0..MAX_ROUNDS {
            let oids = described.columns.iter().map(|column| column.oid);
            let Some(sql) = self.types.missing(oids) else { break };
            self.send_open(|out| {
                put_parse(out, &sql, &[]);
                put_bind(out, &[0, 0, 0, 0], &Formats::Each(Box::new([])));
                put_execute(out, 0);
                put_flush(out);
            });
            let mut found = 0;
            let types = &self.types;
            let ended = self
                .core
                .replies(|tag, body| match tag {
                    tag::DATA_ROW => {
                        let row = texts(body.unwrap_or_default());
                        types.learn(&row.iter().map(Option::as_deref).collect::<Vec<_>>());
                        found += 1;
                        None
                    }
                    tag::COMMAND_COMPLETE => Some(Ok(())),
                    tag::ERROR => Some(Err(errors::raw(body))),
                    _ => None,
                })
                .await;
            ended.map_err(|failure| self.dated(failure))?;
            if found == 0 {
                break;
            }
        }
        Ok(())
    }

    /// How the columns of a result are asked for.
    pub(super) fn formats(&self, described: &Description) -> Formats {
        let is_binary = |column: &ColumnInfo| typed::is_binary(&self.types, column.oid);
        let columns: Vec<bool> = described.columns.iter().map(is_binary).collect();
        Formats::of(&columns)
    }
}

/// Whether PostgreSQL goes on after an error.
fn is_plain_error(body: &[u8]) -> bool {
    crate::proto::backend::Report::parse(body).is_ok_and(|report| !report.is_fatal())
}

/// Reads CommandComplete.
pub(super) fn complete(body: Option<&[u8]>) -> Done {
    let (rows, tag) = completed(body);
    Done { rows, tag: tag.into_owned() }
}

/// The rows and the tag of a CommandComplete.
pub(super) fn completed(body: Option<&[u8]>) -> (u64, Cow<'_, str>) {
    let body = body.unwrap_or_default();
    let tag = body.strip_suffix(b"\0").unwrap_or(body);
    (command_complete(body).map_or(0, |tag| tag.rows), String::from_utf8_lossy(tag))
}

fn texts(body: &[u8]) -> Vec<Option<String>> {
    let Ok(row) = DataRow::parse(body) else { return Vec::new() };
    row.map_while(Result::ok)
        .map(|value| value.map(|text| String::from_utf8_lossy(text).into_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::native::Writer;

    #[test]
    fn values_of_a_frame_are_bound_as_decoded_ones() {
        let values = vec![Value::Int4(7), Value::Null, Value::Text("x".into()), Value::Bool(true)];
        let types = [23, 20, 25, 16];
        let mut frame = Vec::new();
        values.encode(&mut Writer::new(&mut frame));
        let (mut direct, mut decoded) = (Vec::new(), Vec::new());
        let bind = |out: &mut Vec<u8>, frame: &[u8], types: &[u32]| {
            put_bind_of(out, "", &mut Reader::new(frame), types, &Formats::Binary)
        };
        bind(&mut direct, &frame, &types).unwrap();
        put_bind(&mut decoded, &parameters(&values, &types).unwrap(), &Formats::Binary);
        assert_eq!(direct, decoded);
        let mut out = Vec::new();
        assert!(bind(&mut out, &frame, &types[..3]).is_err(), "one value too many");
        for end in 0..frame.len() {
            assert!(bind(&mut out, &frame[..end], &types).is_err());
        }
    }

    #[test]
    fn what_was_done_and_how_often() {
        for (body, tag, rows) in [
            (&b"SELECT 12\0"[..], "SELECT 12", 12),
            (b"INSERT 0 3\0", "INSERT 0 3", 3),
            (b"CREATE TABLE\0", "CREATE TABLE", 0),
            (b"", "", 0),
        ] {
            let done = complete(Some(body));
            assert_eq!((done.tag.as_str(), done.rows), (tag, rows));
        }
    }
}
