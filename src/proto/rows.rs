//! Results that RustyDB makes itself, as a PostgreSQL server would send them.
//! (<https://www.postgresql.org/docs/current/protocol-message-formats.html>)

use super::backend::{put, put_cstr, tag};

/// Types of the columns that RustyDB makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// `text`.
    Text,
    /// `int8`.
    Int8,
}

impl ColumnType {
    /// Number of the type, and its size.
    fn oid_and_size(self) -> (u32, i16) {
        match self {
            ColumnType::Text => (25, -1),
            ColumnType::Int8 => (20, 8),
        }
    }
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Of a text column.
    Text(String),
    /// Of an int8 column.
    Int8(i64),
    /// Of any column.
    Null,
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell::Text(text)
    }
}

impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Cell::Int8(number)
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Cell::Int8(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Cell {
    fn from(number: usize) -> Self {
        Cell::Int8(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Cell {
    fn from(number: u32) -> Self {
        Cell::Int8(i64::from(number))
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Cell::Null, Into::into)
    }
}

fn count(n: usize) -> [u8; 2] {
    u16::try_from(n).unwrap_or(u16::MAX).to_be_bytes()
}

/// Writes RowDescription; `binary` says of each column whether it comes in binary.
pub fn put_row_description(
    out: &mut Vec<u8>,
    columns: &[(&str, ColumnType)],
    binary: impl Fn(usize) -> bool,
) {
    put(out, tag::ROW_DESCRIPTION, |out| {
        out.extend_from_slice(&count(columns.len()));
        for (at, (name, column_type)) in columns.iter().enumerate() {
            let (oid, size) = column_type.oid_and_size();
            put_cstr(out, name);
            out.extend_from_slice(&[0; 6]);
            out.extend_from_slice(&oid.to_be_bytes());
            out.extend_from_slice(&size.to_be_bytes());
            out.extend_from_slice(&(-1i32).to_be_bytes());
            out.extend_from_slice(&u16::from(binary(at)).to_be_bytes());
        }
    });
}

/// Writes DataRow.
pub fn put_data_row(out: &mut Vec<u8>, row: &[Cell], binary: impl Fn(usize) -> bool) {
    put(out, tag::DATA_ROW, |out| {
        out.extend_from_slice(&count(row.len()));
        for (at, cell) in row.iter().enumerate() {
            let mut value = |bytes: &[u8]| {
                let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(bytes);
            };
            match cell {
                Cell::Null => out.extend_from_slice(&(-1i32).to_be_bytes()),
                Cell::Text(text) => value(text.as_bytes()),
                Cell::Int8(number) if binary(at) => value(&number.to_be_bytes()),
                Cell::Int8(number) => value(number.to_string().as_bytes()),
            }
        }
    });
}

/// Writes CommandComplete.
pub fn put_command_complete(out: &mut Vec<u8>, command: &str) {
    put(out, tag::COMMAND_COMPLETE, |out| put_cstr(out, command));
}

/// Writes ParameterDescription of a statement without parameters.
pub fn put_no_parameters(out: &mut Vec<u8>) {
    put(out, tag::PARAMETER_DESCRIPTION, |out| out.extend_from_slice(&[0; 2]));
}

/// Writes a message without a body: ParseComplete, BindComplete, NoData, …
pub fn put_empty(out: &mut Vec<u8>, tag: u8) {
    put(out, tag, |_| {});
}

/// Writes ReadyForQuery.
pub fn put_ready_in(out: &mut Vec<u8>, in_transaction: bool) {
    let status = if in_transaction { b'T' } else { b'I' };
    put(out, tag::READY_FOR_QUERY, |out| out.push(status));
}

#[cfg(test)]
mod tests {
    use super::super::backend::{DataRow, row_description};
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let columns = [("a", ColumnType::Text), ("b", ColumnType::Int8)];
        let mut out = Vec::new();
        put_row_description(&mut out, &columns, |_| false);
        let read = row_description(&out[5..]).unwrap();
        assert_eq!((read[0].name, read[0].type_oid), (&b"a"[..], 25));
        assert_eq!((read[1].name, read[1].type_oid), (&b"b"[..], 20));
        for (binary, number) in [(false, &b"-7"[..]), (true, &(-7i64).to_be_bytes())] {
            let mut out = Vec::new();
            let row = [Cell::from("x"), Cell::from(-7i64), Cell::Null];
            put_data_row(&mut out, &row, |_| binary);
            let values: Vec<_> = DataRow::parse(&out[5..]).unwrap().map(Result::unwrap).collect();
            assert_eq!(values, [Some(&b"x"[..]), Some(number), None]);
        }
    }
}
