//! Columns that are rows: asked for in PostgreSQL's binary format, and JSON from there on.

use crate::catalog::TypeInfo;
use crate::error::{Error, Result};
use crate::proto::backend::DataRow;
use crate::proto::json::{Records, Shape, Style};
use crate::query::plan::Statement;
use crate::query::schema::oid;
use crate::session::{Column, Columns, Known};

/// Places of columns that are rows among those of a whole result, in their order.
pub struct Nested(Vec<(usize, Records)>);

/// Places of those columns among all that a statement has.
fn places<'s>(
    statement: &'s Statement,
    known: &Known,
) -> impl Iterator<Item = (usize, &'s Records)> {
    let layout = statement.layout;
    let leading = if layout.has_total { 2 } else { 0 };
    let columns = known.described.columns.len();
    let own = columns.saturating_sub(leading + layout.cursor_values);
    statement.nested.places(own).map(move |(at, records)| (leading + at, records))
}

/// Formats of the columns of a result; none = all are text.
pub fn formats(statement: &Statement, known: &Known) -> impl Iterator<Item = i16> {
    let mut formats = Vec::new();
    if !statement.nested.is_empty() {
        formats.resize(known.described.columns.len(), 0);
        for (at, _) in places(statement, known) {
            if let Some(format) = formats.get_mut(at) {
                *format = 1;
            }
        }
    }
    formats.into_iter()
}

impl Nested {
    /// Those of a statement; `None` = it has none.
    pub fn of(statement: &Statement, known: &Known) -> Option<Self> {
        let all = || places(statement, known).map(|(at, records)| (at, records.clone())).collect();
        (!statement.nested.is_empty()).then(|| Self(all()))
    }

    /// The columns of a result as those who write them see them.
    pub fn columns(&self, columns: &[Column]) -> Columns {
        let mut columns = columns.to_vec();
        for (at, _) in &self.0 {
            if let Some(column) = columns.get_mut(*at) {
                column.type_oid = oid::JSON;
                column.info = TypeInfo { name: "json".into(), shape: Shape::Json };
            }
        }
        columns.into()
    }

    /// Appends the body of a DataRow as another one, in which these columns are JSON.
    ///
    /// # Errors
    /// The row is not what PostgreSQL has said that it is.
    pub fn unfold(&self, row: &[u8], style: Style, out: &mut Vec<u8>) -> Result<()> {
        let wrong = || Error::backend_lost("rows within a row are not what was asked for");
        let mut nested = self.0.iter().peekable();
        let count = row.get(..2).ok_or_else(wrong)?;
        out.extend_from_slice(count);
        for (at, value) in DataRow::parse(row).map_err(Error::backend_lost)?.enumerate() {
            let value = value.map_err(Error::backend_lost)?;
            let length_at = out.len();
            out.extend_from_slice(&(-1_i32).to_be_bytes());
            match (nested.next_if(|(place, _)| *place == at), value) {
                (Some((_, records)), value) if value.is_some() || !records.is_one => {
                    records.write(value, style, out).map_err(|_| wrong())?;
                }
                (_, Some(value)) => out.extend_from_slice(value),
                (_, None) => continue,
            }
            let length = i32::try_from(out.len() - length_at - 4).map_err(|_| wrong())?;
            if let Some(place) = out.get_mut(length_at..length_at + 4) {
                place.copy_from_slice(&length.to_be_bytes());
            }
        }
        Ok(())
    }
}
