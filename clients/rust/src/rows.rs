//! Results: rows stay the bytes they came as, and values are read where they are asked for.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::protocol::wire::{Reader, Violation, Wire};
use crate::protocol::{Column, TxStatus};
use crate::types::borrowed::{self, ValueRef};
use crate::types::from::FromValue;

/// What the rows of a result consist of, as it came. Copies share it.
#[derive(Clone, Default)]
pub struct Columns {
    encoded: Bytes,
    count: usize,
}

impl Columns {
    /// Takes the list of columns that `input` stands at; `body` is what it reads from.
    pub(crate) fn take(body: &Bytes, input: &mut Reader<'_>) -> Result<Self, Violation> {
        let count = input.count(1)?;
        let start = input.rest();
        for _ in 0..count {
            skip_column(input)?;
        }
        let length = start.len() - input.rest().len();
        Ok(Self { encoded: body.slice_ref(&start[..length]), count })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Each of them, with all that is known of it.
    pub fn iter(&self) -> impl Iterator<Item = Column> + '_ {
        let mut input = Reader::new(&self.encoded);
        // They have been looked at in `take`; only a name that is no UTF-8 can end this early.
        (0..self.count).map_while(move |_| Column::decode(&mut input).ok())
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let mut input = Reader::new(&self.encoded);
        (0..self.count).map_while(move |_| {
            let name = input.text().ok()?;
            skip_after_name(&mut input).ok()?;
            Some(name)
        })
    }

    /// The place of the first one of this name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.names().position(|other| other == name)
    }
}

impl fmt::Debug for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

fn skip_column(input: &mut Reader<'_>) -> Result<(), Violation> {
    input.counted()?;
    skip_after_name(input)
}

fn skip_after_name(input: &mut Reader<'_>) -> Result<(), Violation> {
    input.unsigned(4)?; // type_oid
    input.counted()?; // type_name
    input.unsigned(4)?; // type_modifier
    input.unsigned(2)?; // type_size
    input.unsigned(4)?; // table_oid
    input.unsigned(2)?; // column_number
    Option::<bool>::decode(input).map(drop)
}

/// Rows that came in one message.
pub(crate) struct Chunk {
    /// The encoded values, one after the other.
    values: Bytes,
    /// Where each value begins, row after row, and where the last one ends.
    offsets: Vec<u32>,
    columns: Columns,
    width: usize,
    count: usize,
}

impl Chunk {
    /// Takes the list of rows that `input` stands at; `body` is what it reads from.
    pub(crate) fn take(
        body: &Bytes,
        input: &mut Reader<'_>,
        columns: &Columns,
    ) -> Result<Arc<Self>, Violation> {
        let count = input.count(1)?;
        let (start, width) = (input.rest(), columns.len());
        // A row takes a byte at least, and so does a value.
        let mut offsets = Vec::with_capacity((count * width).min(start.len()) + 1);
        for _ in 0..count {
            if input.unsigned(8)? != width as u64 {
                return Err(Violation::malformed("a row has not as many values as columns"));
            }
            for _ in 0..width {
                offsets.push((start.len() - input.rest().len()) as u32);
                borrowed::skip(input)?;
            }
        }
        let length = start.len() - input.rest().len();
        offsets.push(length as u32);
        let values = body.slice_ref(&start[..length]);
        Ok(Arc::new(Self { values, offsets, columns: columns.clone(), width, count }))
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn row(self: &Arc<Self>, at: usize) -> Row {
        Row { chunk: self.clone(), at: at as u32 }
    }

    pub(crate) fn rows(self: &Arc<Self>) -> impl Iterator<Item = Row> {
        (0..self.count).map(|at| self.row(at))
    }

    fn value(&self, row: u32, column: usize) -> Option<&[u8]> {
        if column >= self.width {
            return None;
        }
        let at = row as usize * self.width + column;
        let (start, end) = (*self.offsets.get(at)?, *self.offsets.get(at + 1)?);
        // Between two rows lies the next one's count of values, which a reader of one value leaves.
        self.values.get(start as usize..end as usize)
    }
}

/// A row. It shares the bytes of the message it came in, which live as long as a row of it does.
#[derive(Clone)]
pub struct Row {
    chunk: Arc<Chunk>,
    at: u32,
}

/// Says which column: its number from 0, or its name.
pub trait ColumnIndex: fmt::Display {
    /// The number of the column; none = there is no such name.
    fn find(&self, columns: &Columns) -> Option<usize>;
}

impl ColumnIndex for usize {
    fn find(&self, _: &Columns) -> Option<usize> {
        Some(*self)
    }
}

impl ColumnIndex for &str {
    fn find(&self, columns: &Columns) -> Option<usize> {
        columns.position(self)
    }
}

impl ColumnIndex for &String {
    fn find(&self, columns: &Columns) -> Option<usize> {
        columns.position(self)
    }
}

impl Row {
    /// The value of a column, which is named by number (from 0) or name.
    ///
    /// # Errors
    /// [`Error::Value`] if there is no such column, or its value is of another type.
    pub fn get<'a, T: FromValue<'a>>(&'a self, column: impl ColumnIndex) -> Result<T> {
        let place = column.find(&self.chunk.columns);
        let bytes = place.and_then(|place| self.chunk.value(self.at, place));
        let bytes = bytes.ok_or_else(|| Error::Value(format!("there is no column {column}")))?;
        T::from_value(ValueRef::read(bytes)?)
            .map_err(|e| Error::Value(format!("column {column} is {}, not {}", e.found, e.wanted)))
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.chunk.width
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.chunk.width == 0
    }

    /// What the values are.
    pub fn columns(&self) -> &Columns {
        &self.chunk.columns
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (at, name) in self.columns().names().enumerate() {
            match self.get::<ValueRef<'_>>(at) {
                Ok(value) => map.entry(&name, &value),
                Err(e) => map.entry(&name, &format_args!("<{e}>")),
            };
        }
        map.finish()
    }
}

/// What one statement gave.
#[derive(Clone, Debug)]
pub struct ResultSet {
    pub(crate) columns: Columns,
    pub(crate) chunks: Vec<Arc<Chunk>>,
    pub(crate) affected_rows: u64,
    pub(crate) command_tag: String,
    pub(crate) execution_time: Duration,
    pub(crate) status: TxStatus,
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows", self.count)
    }
}

/// One message with a result: which statement it belongs to, and its part of the result.
pub(crate) struct Part {
    pub(crate) statement: u32,
    pub(crate) result: ResultSet,
}

impl Part {
    /// Reads a QueryResponse after the number of its variant. `before` is the part before, whose
    /// columns a continuation has.
    pub(crate) fn read(
        body: &Bytes,
        input: &mut Reader<'_>,
        before: Option<(u32, &Columns)>,
    ) -> Result<Self, Violation> {
        let statement = u32::decode(input)?;
        let mut columns = Columns::take(body, input)?;
        if let Some((_, earlier)) = before.filter(|b| b.0 == statement && columns.is_empty()) {
            columns = earlier.clone();
        }
        let chunk = Chunk::take(body, input, &columns)?;
        let result = ResultSet {
            columns,
            chunks: vec![chunk],
            affected_rows: Wire::decode(input)?,
            command_tag: Wire::decode(input)?,
            execution_time: Duration::from_micros(Wire::decode(input)?),
            status: Wire::decode(input)?,
        };
        input.finish()?;
        Ok(Self { statement, result })
    }
}

impl ResultSet {
    /// What the rows consist of; empty if the statement gives none.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.len()).sum()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows.
    pub fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        self.chunks.iter().flat_map(|chunk| chunk.rows())
    }

    pub(crate) fn into_rows(self) -> Vec<Row> {
        let mut rows = Vec::with_capacity(self.len());
        for chunk in &self.chunks {
            rows.extend(chunk.rows());
        }
        rows
    }

    /// How many rows were changed or given.
    pub fn affected_rows(&self) -> u64 {
        self.affected_rows
    }

    /// PostgreSQL's tag of the command, for instance `INSERT 0 1`.
    pub fn command_tag(&self) -> &str {
        &self.command_tag
    }

    /// How long the server took.
    pub fn execution_time(&self) -> Duration {
        self.execution_time
    }

    /// How the session stood afterwards.
    pub fn transaction_status(&self) -> TxStatus {
        self.status
    }

    /// Whether its last part is there, which alone says what the command was.
    pub(crate) fn is_whole(&self) -> bool {
        self.columns.is_empty() || !self.command_tag.is_empty()
    }

    /// Adds a further part of the same statement's result.
    pub(crate) fn extend(&mut self, later: Self) {
        self.chunks.extend(later.chunks);
        self.affected_rows = later.affected_rows;
        self.command_tag = later.command_tag;
        self.execution_time = later.execution_time;
        self.status = later.status;
    }
}

/// The rows of a chunk that have not been given out.
pub(crate) struct Rest {
    pub(crate) chunk: Arc<Chunk>,
    pub(crate) left: Range<usize>,
}

impl Rest {
    pub(crate) fn of(chunk: Arc<Chunk>) -> Self {
        Self { left: 0..chunk.len(), chunk }
    }

    pub(crate) fn next(&mut self) -> Option<Row> {
        self.left.next().map(|at| self.chunk.row(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Message, QueryResponse, Value, encode};

    fn column(name: &str) -> Column {
        Column {
            name: name.into(),
            type_oid: 20,
            type_name: "int8".into(),
            type_modifier: -1,
            type_size: 8,
            table_oid: 70_000,
            column_number: 3,
            nullable: Some(true),
        }
    }

    fn body(names: &[&str], rows: Vec<Vec<Value>>) -> Bytes {
        let mut out = Vec::new();
        let response = QueryResponse {
            statement_index: 2,
            columns: names.iter().map(|name| column(name)).collect(),
            rows,
            affected_rows: 300,
            command_tag: "SELECT 300".into(),
            execution_time_us: 1000,
            transaction_status: TxStatus::Failed,
        };
        encode(&Message::QueryResponse(Box::new(response)), &mut out);
        out.into()
    }

    fn part(body: &Bytes, before: Option<(u32, &Columns)>) -> Result<Part, Violation> {
        let mut input = Reader::new(body);
        assert_eq!(input.variant(), Ok(4));
        Part::read(body, &mut input, before)
    }

    fn two_rows() -> Vec<Vec<Value>> {
        vec![
            vec![Value::Int8(7), Value::Text("seven".into())],
            vec![Value::Null, Value::Text("é".into())],
        ]
    }

    #[test]
    fn rows_are_read_where_they_lie() {
        let body = body(&["n", "name"], two_rows());
        let part = part(&body, None).unwrap();
        assert_eq!(part.statement, 2);
        let result = part.result;
        assert_eq!((result.affected_rows(), result.command_tag()), (300, "SELECT 300"));
        assert_eq!(result.execution_time(), Duration::from_millis(1));
        assert_eq!(result.columns().names().collect::<Vec<_>>(), ["n", "name"]);
        assert_eq!(result.columns().iter().nth(1), Some(column("name")));
        let rows = result.into_rows();
        assert_eq!(rows[0].get::<i64>("n").unwrap(), 7);
        assert_eq!(rows[0].get::<&str>(1).unwrap(), "seven");
        assert_eq!(rows[1].get::<Option<i64>>(0).unwrap(), None);
        assert_eq!(rows[1].get::<String>("name").unwrap(), "é");
        let text = rows[1].get::<&str>(1).unwrap();
        assert!(body.as_ptr_range().contains(&text.as_ptr()), "nothing was copied");
        assert_eq!(format!("{:?}", rows[0]), r#"{"n": Int8(7), "name": Text("seven")}"#);
    }

    #[test]
    fn what_is_not_there_is_said() {
        let result = part(&body(&["n", "name"], two_rows()), None).unwrap().result;
        let rows = result.into_rows();
        for (error, expected) in [
            (rows[0].get::<i64>(2).unwrap_err(), "there is no column 2"),
            (rows[0].get::<i64>("x").unwrap_err(), "there is no column x"),
            (rows[0].get::<i64>("name").unwrap_err(), "column name is text, not i64"),
            (rows[1].get::<i64>(0).unwrap_err(), "column 0 is NULL, not i64"),
        ] {
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn later_parts_have_the_columns_of_the_first() {
        let first = part(&body(&["n", "name"], two_rows()), None).unwrap();
        let later = body(&[], two_rows());
        let before = Some((2, &first.result.columns));
        let second = part(&later, before).unwrap();
        let mut whole = first.result.clone();
        whole.extend(second.result);
        assert_eq!(whole.len(), 4);
        assert_eq!(whole.rows().nth(2).unwrap().get::<i64>("n").unwrap(), 7);
        assert!(part(&later, None).is_err(), "rows without columns");
        assert!(part(&later, Some((1, &first.result.columns))).is_err());
    }

    #[test]
    fn rows_that_do_not_fit_are_refused() {
        let short = body(&["n", "name"], vec![vec![Value::Int8(7)]]);
        assert!(part(&short, None).is_err());
        let whole = body(&["n", "name"], two_rows());
        for end in 1..whole.len() {
            assert!(part(&whole.slice(..end), None).is_err(), "{end}");
        }
        let none = part(&body(&[], vec![vec![], vec![]]), None).unwrap().result;
        assert_eq!(none.len(), 2);
        assert!(none.rows().next().unwrap().is_empty());
    }
}
