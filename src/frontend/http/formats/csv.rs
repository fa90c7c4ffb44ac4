//! Rows as CSV (RFC 4180) with PostgreSQL's texts, as `COPY … WITH (FORMAT csv, HEADER)` writes
//! them but for the end of a line: NULL is nothing, an empty string is `""`.

use crate::error::{Error, Result};
use crate::proto::backend::DataRow;
use crate::session::Column;

/// Writes the rows of a result.
pub struct Rows {
    columns: usize,
}

impl Rows {
    /// Writes the line with the names; a result without columns has none.
    pub fn begin(columns: &[Column], out: &mut Vec<u8>) -> Self {
        for (at, column) in columns.iter().enumerate() {
            separate(at, out);
            field(column.name.as_bytes(), columns.len(), out);
        }
        if !columns.is_empty() {
            out.extend_from_slice(b"\r\n");
        }
        Self { columns: columns.len() }
    }

    /// Writes the body of a DataRow.
    pub fn row(&self, row: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let row = DataRow::parse(row).map_err(Error::backend_lost)?;
        for (at, value) in row.enumerate() {
            separate(at, out);
            if let Some(text) = value.map_err(Error::backend_lost)? {
                field(text, self.columns, out);
            }
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

fn separate(at: usize, out: &mut Vec<u8>) {
    if at > 0 {
        out.push(b',');
    }
}

/// What must not be taken for something else is quoted: the empty string for NULL, and `\.` alone
/// in a line for the end of what COPY reads.
fn field(text: &[u8], columns: usize, out: &mut Vec<u8>) {
    let special = |byte: &u8| matches!(byte, b'"' | b',' | b'\r' | b'\n');
    let is_marker = columns == 1 && text == b"\\.";
    if !text.is_empty() && !is_marker && !text.iter().any(special) {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    for part in text.split_inclusive(|byte| *byte == b'"') {
        out.extend_from_slice(part);
        if part.ends_with(b"\"") {
            out.push(b'"');
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        for (text, columns, expected) in [
            ("", 1, "\"\""),
            ("a b", 2, "a b"),
            ("a,b", 2, "\"a,b\""),
            ("\"", 2, "\"\"\"\""),
            ("say \"x\", y", 2, "\"say \"\"x\"\", y\""),
            ("two\nlines", 2, "\"two\nlines\""),
            ("\\.", 1, "\"\\.\""),
            ("\\.", 2, "\\."),
        ] {
            let mut out = Vec::new();
            field(text.as_bytes(), columns, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
