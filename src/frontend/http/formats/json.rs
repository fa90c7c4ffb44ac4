//! A row as a JSON object or array.

use super::strip_nulls;
use crate::error::{Error, Result};
use crate::proto::backend::DataRow;
use crate::proto::json::{self, Style};
use crate::session::Columns;

/// Writes the rows of a result as JSON.
pub struct RowWriter {
    columns: Columns,
    as_arrays: bool,
    style: Style,
}

impl RowWriter {
    /// For rows of these columns.
    pub fn new(columns: Columns, as_arrays: bool, style: Style) -> Self {
        Self { columns, as_arrays, style }
    }

    /// Writes the body of a DataRow.
    pub fn write(&self, row: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let (open, close) = if self.as_arrays { (b'[', b']') } else { (b'{', b'}') };
        let start = out.len();
        out.push(open);
        let row = DataRow::parse(row).map_err(Error::backend_lost)?;
        for (at, (value, column)) in row.zip(self.columns.iter()).enumerate() {
            if at > 0 {
                out.push(b',');
            }
            if !self.as_arrays {
                out.extend_from_slice(&column.key);
            }
            match value.map_err(Error::backend_lost)? {
                Some(text) => json::write_value(out, text, &column.info.shape, self.style),
                None => out.extend_from_slice(b"null"),
            }
        }
        out.push(close);
        if self.style.without_nulls {
            strip_nulls(out, start);
        }
        Ok(())
    }
}
