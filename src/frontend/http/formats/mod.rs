//! Forms of a result: rows as they come from PostgreSQL become bytes at the end of a buffer.

mod accept;
mod csv;

pub use super::body::RowWriter;
pub use accept::Format;

use serde_json::Value;

use crate::error::Result;
use crate::proto::json::Style;
use crate::session::Column;

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
}

impl Encoder {
    /// For rows of these columns; writes what comes before the first of them.
    pub fn begin(layout: Layout, columns: &[Column], out: &mut Vec<u8>) -> Result<Self> {
        let json = || RowWriter::new(columns, layout.rows_as_arrays, layout.style);
        let form = match layout.format {
            Format::Json => {
                out.push(b'[');
                Form::Json(json())
            }
            Format::Ndjson => Form::Ndjson(json()),
            Format::Csv => Form::Csv(csv::Rows::begin(columns, out)),
        };
        Ok(Self { form, rows: 0 })
    }

    /// Writes the body of a DataRow.
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
        }
    }

    /// Writes what comes after the last row.
    pub fn end(&mut self, out: &mut Vec<u8>) -> Result<()> {
        if let Form::Json(_) = &self.form {
            out.push(b']');
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
        }
    }
}
