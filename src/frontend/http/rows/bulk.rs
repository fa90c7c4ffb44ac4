//! Many new rows as CSV or NDJSON: they go through `COPY` as they come, so that their number does
//! not matter to RustyDB's memory. PostgreSQL copies into no table whose row security holds for the
//! role; there they go through a temporary table.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use http_body_util::BodyExt;
use serde_json::json;
use serde_json::value::RawValue;

use super::super::extract::Caller;
use super::super::open::Hold;
use super::super::{HttpDoor, answer};
use super::list::settings;
use super::{Settings, planned_in, value_of};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::json::{Shape, write_param};
use crate::query::plan::ask::Target;
use crate::query::plan::{Param, PlanError, Statement};
use crate::query::postgrest::csv_header;
use crate::query::quote_ident;
use crate::query::schema::Schema;
use crate::session::Session;

/// Longest line of names.
const LONGEST_HEADER: usize = 256 << 10;

/// The temporary table.
const STAGE: &str = "pg_temp.rustydb_bulk";

/// The definitions of a table's columns, given as a JSON array, if its row security holds.
const SECURED_COLUMNS: &str = "SELECT pg_catalog.string_agg( \
    pg_catalog.format('%I %s', attname, pg_catalog.format_type(atttypid, atttypmod)), ', ') \
    FROM pg_catalog.pg_attribute \
    WHERE attrelid = $1::pg_catalog.oid AND attnum > 0 AND NOT attisdropped \
    AND attname IN (SELECT pg_catalog.json_array_elements_text($2::pg_catalog.json)) \
    AND pg_catalog.row_security_active($1::pg_catalog.oid)";

/// Bytes that go to PostgreSQL at once, about.
const PART: usize = 64 << 10;

/// The form of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BulkFormat {
    /// A line of names, then the rows; what is empty and has no quotes is NULL.
    Csv,
    /// A JSON object in each line; columns that it does not name have their defaults.
    Ndjson,
}

impl BulkFormat {
    /// The form that the headers of a request name; `None` = it is no such form.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        match value.split(';').next().unwrap_or("").trim().to_ascii_lowercase().as_str() {
            "text/csv" => Some(BulkFormat::Csv),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => {
                Some(BulkFormat::Ndjson)
            }
            _ => None,
        }
    }
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::ValidationError, text.into())
}

/// A body that is read in parts.
struct Source {
    body: Body,
    longest: usize,
    left: usize,
    patience: Duration,
}

impl Source {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let frame = tokio::time::timeout(self.patience, self.body.frame()).await;
            let late = |_| Error::new(ErrorKind::Timeout, "the body did not arrive in time");
            let Some(frame) = frame.map_err(late)? else { return Ok(None) };
            let frame = frame.map_err(|_| invalid("the body ended early"))?;
            let Ok(data) = frame.into_data() else { continue };
            self.left = self.left.checked_sub(data.len()).ok_or_else(|| {
                let text = format!("the body is longer than {} bytes", self.longest);
                Error::new(ErrorKind::PayloadTooLarge, text)
                    .with_hint("api.max_bulk_size bounds it")
            })?;
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
    }
}

/// Inserts rows as they come.
///
/// # Errors
/// PostgreSQL refuses one of them, or one is not what it should be; then none is there.
pub async fn load(
    door: &Arc<HttpDoor>,
    caller: &Caller,
    hold: Hold,
    (target, format): (&Target, BulkFormat),
    body: Body,
) -> Result<Response> {
    let config = door.config.now();
    let longest = config.api.max_bulk_size.len();
    let patience = config.api.request_timeout_secs.duration();
    let mut source = Source { body, longest, left: longest, patience };
    let longest_line = match format {
        BulkFormat::Csv => LONGEST_HEADER,
        BulkFormat::Ndjson => config.api.max_row_size.len(),
    };
    let mut lines = Lines { held: Vec::new(), scanned: 0, longest: longest_line, number: 0 };
    let first = loop {
        if let Some(line) = lines.take(format == BulkFormat::Csv)? {
            if !line.trim_ascii().is_empty() {
                break line;
            }
            continue;
        }
        match source.next().await? {
            Some(data) => lines.held.extend_from_slice(&data),
            None => break lines.rest(),
        }
    };
    let first = std::str::from_utf8(&first).map_err(|_| invalid("the body is not UTF-8"))?;
    let first = first.trim_start_matches('\u{feff}').trim();
    let names: Vec<String> = match format {
        BulkFormat::Csv => csv_header(first)?,
        BulkFormat::Ndjson if first.is_empty() => {
            hold.finish();
            return Ok(loaded(0));
        }
        BulkFormat::Ndjson => object(first, 1)?.into_keys().collect(),
    };
    let plan = |schema: &Schema| columns(schema, target, &names);
    let (mut hold, schema, _) = planned_in(hold, plan).await?;
    let settings = settings(caller, &hold, &schema)?;
    let loading = Loading { door, schema: &schema, target, format, known: Vec::new() };
    let rows = loading.run(hold.session()?, &settings, &mut source, &mut lines, names, first);
    let rows = rows.await;
    hold.finish();
    Ok(loaded(rows?))
}

fn loaded(rows: u64) -> Response {
    let status = if rows > 0 { StatusCode::CREATED } else { StatusCode::OK };
    answer(status, &json!({ "affected_rows": rows, "items": [] }))
}

/// The table's number and the types of the columns, which must be its own.
fn columns(schema: &Schema, target: &Target, names: &[String]) -> Result<(u32, Vec<u32>)> {
    let table = schema.table(&target.schema, &target.name).ok_or_else(|| {
        let (schema, name) = (target.schema.clone(), target.name.clone());
        PlanError::UnknownTable { schema, name, similar: None }
    })?;
    let column = |name: &String| {
        let found = table.column(name).map(|column| column.type_oid);
        found.ok_or_else(|| {
            let (table, column) = (table.name.to_string(), name.clone());
            PlanError::UnknownColumn { table, column, is_written: true }.into()
        })
    };
    Ok((table.oid, names.iter().map(column).collect::<Result<_>>()?))
}

/// The definitions of the columns, if row security holds for the role.
async fn secured_columns(
    door: &HttpDoor,
    session: &mut Session,
    (table, names): (u32, &[String]),
) -> Result<Option<String>> {
    let names = serde_json::to_vec(names).map_err(Error::internal)?;
    let text = |value: Vec<u8>| Param { type_oid: 0, value: Some(value) };
    let statement = Statement {
        sql: SECURED_COLUMNS.to_owned(),
        params: vec![text(table.to_string().into_bytes()), text(names)],
        ..Statement::default()
    };
    // The transaction has its settings already.
    value_of(door, session, &statement, &Settings::default()).await
}

fn qualified(target: &Target) -> String {
    format!("{}.{}", quote_ident(&target.schema), quote_ident(&target.name))
}

/// The names are those of the catalog by now.
fn copy_sql(table: &str, names: &[String], format: BulkFormat) -> String {
    let options = match format {
        BulkFormat::Csv => " WITH (FORMAT csv)",
        BulkFormat::Ndjson => "",
    };
    format!("COPY {table} ({}) FROM STDIN{options}", list(names))
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| quote_ident(name)).collect::<Vec<_>>().join(", ")
}

/// The same through a temporary table with these columns; together they are one transaction. As
/// COPY does, it writes values of identity columns as they come.
fn staged_sql(table: &str, names: &[String], format: BulkFormat, columns: &str) -> String {
    let (copy, list) = (copy_sql(STAGE, names, format), list(names));
    format!(
        "CREATE TEMPORARY TABLE {STAGE} ({columns}); {copy}; \
         INSERT INTO {table} ({list}) OVERRIDING SYSTEM VALUE SELECT {list} FROM {STAGE}; \
         DROP TABLE {STAGE}"
    )
}

/// Looks for lines that are only `\.`: before PostgreSQL 18 they end the data, even within quotes
/// (<https://www.postgresql.org/docs/17/sql-copy.html#SQL-COPY-FILE-FORMATS>).
#[derive(Default)]
struct LineStart {
    /// The first bytes of the line, as far as they are there.
    seen: Vec<u8>,
}

impl LineStart {
    /// Longer than such a line with a carriage return.
    const ENOUGH: usize = 4;

    fn check(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let end = data.iter().position(|byte| *byte == b'\n');
            let line = &data[..end.unwrap_or(data.len())];
            let missing = Self::ENOUGH - self.seen.len();
            self.seen.extend_from_slice(&line[..line.len().min(missing)]);
            let Some(end) = end else { return Ok(()) };
            if matches!(&self.seen[..], b"\\." | b"\\.\r") {
                let text = "a line is only \"\\.\", which PostgreSQL takes for the end of the data";
                return Err(invalid(text).with_hint("put the value in quotes with something else"));
            }
            self.seen.clear();
            data = &data[end + 1..];
        }
        Ok(())
    }
}

/// The COPY under way.
struct Copying<'a> {
    session: &'a mut Session,
    is_open: bool,
    /// What was not sent yet.
    out: Vec<u8>,
    /// Those of the COPYs before it.
    rows: u64,
}

impl Copying<'_> {
    async fn begin(&mut self, sql: &str) -> Result<()> {
        self.session.ended_by("error");
        self.session.copy_in(sql).await?;
        self.is_open = true;
        Ok(())
    }

    async fn write(&mut self, data: &[u8]) -> Result<()> {
        let written = self.session.copy_write(data).await;
        // What PostgreSQL refuses is over.
        self.is_open &= written.is_ok();
        written
    }

    async fn flush(&mut self) -> Result<()> {
        let mut out = std::mem::take(&mut self.out);
        let written = self.write(&out).await;
        out.clear();
        self.out = out;
        written
    }

    async fn end(&mut self) -> Result<()> {
        self.flush().await?;
        self.is_open = false;
        self.rows += self.session.copy_end().await?;
        Ok(())
    }
}

/// Rows with the same columns, and how they are copied.
struct Part {
    /// In the order of their text.
    names: Vec<String>,
    sql: String,
    /// Of their values; empty when these are not converted.
    shapes: Vec<Shape>,
}

impl Part {
    /// One object as a line of COPY's text format
    /// (<https://www.postgresql.org/docs/current/sql-copy.html>).
    fn row(&self, values: &Object<'_>, number: u64, out: &mut Vec<u8>) -> Result<()> {
        let mut text = Vec::new();
        for (at, ((name, value), shape)) in values.iter().zip(&self.shapes).enumerate() {
            if at > 0 {
                out.push(b'\t');
            }
            text.clear();
            let is_there = write_param(&mut text, value.get(), shape)
                .map_err(|e| invalid(format!("line {number}, {name}: {e}")))?;
            if is_there {
                escape(&text, out);
            } else {
                out.extend_from_slice(b"\\N");
            }
        }
        out.push(b'\n');
        Ok(())
    }
}

/// Sets of columns that are remembered.
const MAX_PARTS: usize = 32;

struct Loading<'a> {
    door: &'a HttpDoor,
    schema: &'a Schema,
    target: &'a Target,
    format: BulkFormat,
    known: Vec<Arc<Part>>,
}

impl Loading<'_> {
    async fn run(
        mut self,
        session: &mut Session,
        settings: &Settings<'_>,
        source: &mut Source,
        lines: &mut Lines,
        names: Vec<String>,
        first: &str,
    ) -> Result<u64> {
        session.ended_by("error");
        let begins = session.begin_copies(&settings.pairs()).await?;
        let mut copying = Copying { session, is_open: false, out: Vec::new(), rows: 0 };
        let fed = match self.format {
            BulkFormat::Csv => self.csv(&mut copying, source, lines, names).await,
            BulkFormat::Ndjson => self.objects(&mut copying, source, lines, names, first).await,
        };
        let Copying { session, is_open, rows, .. } = copying;
        if is_open {
            session.copy_fail().await?;
        }
        let ended = match begins {
            true => session.end_transaction(fed.is_ok()).await,
            false => Ok(()),
        };
        fed.and(ended)?;
        session.ended_by("closed");
        Ok(rows)
    }

    /// How rows with these columns are copied.
    async fn part(&mut self, session: &mut Session, names: Vec<String>) -> Result<Arc<Part>> {
        if let Some(known) = self.known.iter().find(|part| part.names == names) {
            return Ok(known.clone());
        }
        let (table, types) = columns(self.schema, self.target, &names)?;
        let shapes = match self.format {
            BulkFormat::Csv => Vec::new(),
            BulkFormat::Ndjson => self.shapes(session, &types).await?,
        };
        let name = qualified(self.target);
        let sql = match secured_columns(self.door, session, (table, &names)).await? {
            None => copy_sql(&name, &names, self.format),
            Some(columns) => staged_sql(&name, &names, self.format, &columns),
        };
        if self.known.len() >= MAX_PARTS {
            self.known.clear();
        }
        let part = Arc::new(Part { names, sql, shapes });
        self.known.push(part.clone());
        Ok(part)
    }

    /// How values of these types are written.
    async fn shapes(&self, session: &mut Session, types: &[u32]) -> Result<Vec<Shape>> {
        let places: Vec<String> = (1..=types.len()).map(|at| format!("${at}")).collect();
        let sql = format!("SELECT {}", places.join(", "));
        let known = session.prepare(&self.door.catalog, &sql, types).await?;
        Ok(known.described.parameters.iter().map(|info| info.shape.clone()).collect())
    }

    async fn csv(
        &mut self,
        copying: &mut Copying<'_>,
        source: &mut Source,
        lines: &mut Lines,
        names: Vec<String>,
    ) -> Result<()> {
        let part = self.part(copying.session, names).await?;
        copying.begin(&part.sql).await?;
        let (mut line, rest) = (LineStart::default(), lines.rest());
        line.check(&rest)?;
        copying.write(&rest).await?;
        while let Some(data) = source.next().await? {
            line.check(&data)?;
            copying.write(&data).await?;
        }
        line.check(b"\n")?;
        copying.end().await
    }

    /// Lines whose objects have other members than those before them begin another COPY, so that
    /// columns that they do not name have their defaults.
    async fn objects(
        &mut self,
        copying: &mut Copying<'_>,
        source: &mut Source,
        lines: &mut Lines,
        names: Vec<String>,
        first: &str,
    ) -> Result<()> {
        copying.out.reserve(PART + 1024);
        let mut part = self.part(copying.session, names).await?;
        copying.begin(&part.sql).await?;
        part.row(&object(first, lines.number)?, lines.number, &mut copying.out)?;
        let mut is_over = false;
        while !is_over {
            match source.next().await? {
                Some(data) => lines.held.extend_from_slice(&data),
                None => {
                    is_over = true;
                    if !lines.held.is_empty() {
                        lines.held.push(b'\n');
                    }
                }
            }
            while let Some(line) = lines.take(false)? {
                let text = std::str::from_utf8(&line);
                let text = text.map_err(|_| invalid("the body is not UTF-8"))?.trim();
                if text.is_empty() {
                    continue;
                }
                let values = object(text, lines.number)?;
                if !values.keys().eq(&part.names) {
                    let names: Vec<String> = values.keys().cloned().collect();
                    // As long as what is open can be given up: a transaction of the client's fails
                    // with it, and the rows before are not there.
                    columns(self.schema, self.target, &names)?;
                    copying.end().await?;
                    part = self.part(copying.session, names).await?;
                    copying.begin(&part.sql).await?;
                }
                part.row(&values, lines.number, &mut copying.out)?;
                if copying.out.len() >= PART {
                    copying.flush().await?;
                }
            }
        }
        copying.end().await
    }
}

/// An object of a line.
type Object<'l> = BTreeMap<String, &'l RawValue>;

fn object(line: &str, number: u64) -> Result<Object<'_>> {
    let values: Object<'_> = serde_json::from_str(line)
        .map_err(|e| invalid(format!("line {number} is no JSON object: {e}")))?;
    match values.is_empty() {
        true => Err(invalid(format!("line {number} names no column"))),
        false => Ok(values),
    }
}

fn escape(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => out.push(*byte),
        }
    }
}

/// What has come of a body, line by line.
struct Lines {
    held: Vec<u8>,
    /// Bytes at the beginning in which there is no end of a line.
    scanned: usize,
    longest: usize,
    /// Of the last line, from 1.
    number: u64,
}

impl Lines {
    /// Everything that is left.
    fn rest(&mut self) -> Vec<u8> {
        self.scanned = 0;
        std::mem::take(&mut self.held)
    }

    /// The next whole line; with quotes an end of a line between them is none.
    fn take(&mut self, with_quotes: bool) -> Result<Option<Vec<u8>>> {
        let end = match with_quotes {
            false => self.held[self.scanned..].iter().position(|byte| *byte == b'\n'),
            true => {
                self.scanned = 0;
                let mut is_quoted = false;
                self.held.iter().position(|byte| {
                    is_quoted ^= *byte == b'"';
                    *byte == b'\n' && !is_quoted
                })
            }
        };
        let length = end.map_or(self.held.len(), |end| self.scanned + end);
        if length > self.longest {
            let text = format!("line {} is longer than {} bytes", self.number + 1, self.longest);
            return Err(Error::new(ErrorKind::PayloadTooLarge, text));
        }
        if end.is_none() {
            self.scanned = length;
            return Ok(None);
        }
        let rest = self.held.split_off(length + 1);
        let line = std::mem::replace(&mut self.held, rest);
        (self.scanned, self.number) = (0, self.number + 1);
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_body() {
        let mut lines =
            Lines { held: b"a\n\"b\n\",c\nd".to_vec(), scanned: 0, longest: 9, number: 0 };
        assert_eq!(lines.take(true).unwrap().unwrap(), b"a\n");
        assert_eq!(lines.take(true).unwrap().unwrap(), b"\"b\n\",c\n");
        assert_eq!((lines.take(false).unwrap(), lines.number), (None, 2));
        lines.held.extend_from_slice(b"ef\n");
        assert_eq!(lines.take(false).unwrap().unwrap(), b"def\n");
        assert!(lines.take(false).unwrap().is_none());
        lines.held = b"whole".to_vec();
        assert!(lines.take(false).unwrap().is_none());
        assert_eq!((lines.rest(), lines.take(false).unwrap()), (b"whole".to_vec(), None));
        lines.held = vec![b'x'; 10];
        assert!(lines.take(false).is_err());
    }

    #[test]
    fn what_copy_would_misread_is_escaped() {
        let mut out = Vec::new();
        escape(b"a\\N\t\r\n", &mut out);
        assert_eq!(out, br"a\\N\t\r\n");
    }
}
