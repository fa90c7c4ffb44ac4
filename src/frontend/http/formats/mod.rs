//! Forms of a result: rows as they come from PostgreSQL become bytes at the end of a buffer.
//!
//! | Form | Values | A result that was cut off |
//! |---|---|---|
//! | JSON | as `proto/json.rs` says | is no valid JSON; the error is on its last line |
//! | NDJSON | the same, a row in each line | ends with a line that is `{"error":…}` |
//! | CSV | PostgreSQL's text, as `COPY` writes it | has a part of the rows |
//! | Arrow | as [`arrow`] says | ends with the head of a message that is not there |
//! | MessagePack | as [`msgpack`] says, a map for each | ends with a map, the error |
//!
//! In addition the connection is broken before the end of the body, which every client notices.

mod accept;
mod arrow;
mod csv;
mod json;
mod msgpack;
mod strip;
mod times;
mod unpack;

pub use accept::{Format, MSGPACK, prefers_msgpack};
pub use json::RowWriter;
pub use msgpack::pack_json;
pub use strip::strip_nulls;
pub use unpack::unpack;

use serde_json::Value;

use crate::error::Result;
use crate::proto::json::Style;
use crate::session::Columns;

/// How rows are written.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The form.
    pub format: Format,
    /// Rows as arrays instead of objects, where the form knows both.
    pub rows_as_arrays: bool,
    /// Numbers or strings.
    pub style: Style,
}

/// Writes the rows of one result. Whoever uses it sends what is in the buffer from time to time.
pub struct Encoder {
    form: Form,
    rows: u64,
}

enum Form {
    /// An array.
    Json(RowWriter),
    Ndjson(RowWriter),
    Csv(csv::Rows),
    Arrow(Box<arrow::Rows>),
    Msgpack(msgpack::Rows),
}

impl Encoder {
    /// For rows of these columns; writes what comes before the first of them.
    pub fn begin(layout: Layout, columns: Columns, out: &mut Vec<u8>) -> Result<Self> {
        let json = || RowWriter::new(columns.clone(), layout.rows_as_arrays, layout.style);
        let form = match layout.format {
            Format::Json => {
                out.push(b'[');
                Form::Json(json())
            }
            Format::Ndjson => Form::Ndjson(json()),
            Format::Csv => Form::Csv(csv::Rows::begin(&columns, out)),
            Format::Arrow => Form::Arrow(Box::new(arrow::Rows::begin(&columns, out)?)),
            Format::Msgpack => Form::Msgpack(msgpack::Rows::new(&columns, layout)),
        };
        Ok(Self { form, rows: 0 })
    }

    /// Writes the body of a DataRow, or keeps it for the next batch of a form that has batches.
    pub fn row(&mut self, row: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.rows += 1;
        match &mut self.form {
            Form::Json(writer) => {
                if self.rows > 1 {
                    out.push(b',');
                }
                writer.write(row, out)
            }
            Form::Ndjson(writer) => {
                writer.write(row, out)?;
                out.push(b'\n');
                Ok(())
            }
            Form::Csv(writer) => writer.row(row, out),
            Form::Arrow(writer) => writer.row(row, out),
            Form::Msgpack(writer) => writer.row(row, out),
        }
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Writes what comes after the last row.
    pub fn end(&mut self, out: &mut Vec<u8>) -> Result<()> {
        match &mut self.form {
            Form::Json(_) => out.push(b']'),
            Form::Arrow(writer) => writer.end(out)?,
            Form::Ndjson(_) | Form::Csv(_) | Form::Msgpack(_) => {}
        }
        Ok(())
    }

    /// Writes that no more rows come because of an error: the error body of the API. Nobody can
    /// take what is written then for the whole result.
    pub fn failed(&mut self, error: &Value, out: &mut Vec<u8>) {
        match &self.form {
            Form::Json(_) => out.extend_from_slice(format!("\n{error}\n").as_bytes()),
            Form::Ndjson(_) => out.extend_from_slice(format!("{error}\n").as_bytes()),
            Form::Csv(_) => {}
            Form::Arrow(_) => out.extend_from_slice(&arrow::CUT_OFF),
            Form::Msgpack(_) => msgpack::pack_json(error.to_string().as_bytes(), out),
        }
    }
}
