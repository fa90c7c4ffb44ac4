//! What a typed client must know of a statement: the shapes of its parameters and columns.

use std::ops::Deref;
use std::sync::Arc;

use super::Session;
use crate::catalog::{Catalog, Row, TypeInfo};
use crate::error::Result;
use crate::executor::typed::Prepared;
use crate::proto::json;

/// Rounds of questions for types within types; PostgreSQL's own types need one or two.
const MAX_ROUNDS: usize = 16;

/// A statement with everything that JSON needs.
#[derive(Clone, Debug)]
pub struct Described {
    /// Parameters in order.
    pub parameters: Vec<TypeInfo>,
    /// Columns in order.
    pub columns: Columns,
}

/// Columns of a result, or of a part of it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Columns {
    all: Arc<[Column]>,
    from: usize,
    end: usize,
}

impl Columns {
    /// Those from here to there; none of those that there are not.
    pub fn part(&self, from: usize, end: usize) -> Self {
        let end = end.min(self.len());
        let from = from.min(end);
        Self { all: self.all.clone(), from: self.from + from, end: self.from + end }
    }
}

impl From<Vec<Column>> for Columns {
    fn from(columns: Vec<Column>) -> Self {
        Self { from: 0, end: columns.len(), all: columns.into() }
    }
}

impl Deref for Columns {
    type Target = [Column];

    fn deref(&self) -> &[Column] {
        self.all.get(self.from..self.end).unwrap_or_default()
    }
}

/// A column of the result.
#[derive(Clone, Debug)]
pub struct Column {
    /// Name.
    pub name: String,
    /// The name as that of a member of a JSON object: `"name":`.
    pub key: Box<[u8]>,
    /// Number of the type.
    pub type_oid: u32,
    /// Type.
    pub info: TypeInfo,
    /// Whether it can be NULL, as far as is known.
    pub nullable: bool,
}

/// What [`Column::key`] is for a name.
fn key_of(name: &str) -> Box<[u8]> {
    let mut key = Vec::with_capacity(name.len() + 3);
    json::write_string(&mut key, name.as_bytes());
    key.push(b':');
    key.into()
}

impl Session {
    /// Looks up what the catalog does not know yet, over the session's own connection.
    pub(super) async fn describe(
        &mut self,
        catalog: &Catalog,
        prepared: &Prepared,
    ) -> Result<Described> {
        let database = self.entry.database.clone();
        let columns = &prepared.columns;
        let oids: Vec<u32> = prepared
            .parameters
            .iter()
            .copied()
            .chain(columns.iter().map(|column| column.type_oid))
            .collect();
        for _ in 0..MAX_ROUNDS {
            let Some(query) = catalog.missing_types(&database, &oids) else { break };
            let rows = self.look_up(&query).await?;
            if rows.is_empty() {
                break;
            }
            catalog.learn_types(&database, &rows);
        }
        let tables: Vec<u32> = columns.iter().map(|column| column.table).collect();
        if let Some(query) = catalog.missing_tables(&database, &tables) {
            let rows = self.look_up(&query).await?;
            catalog.learn_tables(&database, &tables, &rows);
        }
        let info = |oid: u32| catalog.type_info(&database, oid);
        let column = |c: &crate::executor::typed::ColumnInfo| Column {
            name: c.name.clone(),
            key: key_of(&c.name),
            type_oid: c.type_oid,
            info: info(c.type_oid),
            nullable: catalog.is_nullable(&database, c.table, c.attribute),
        };
        Ok(Described {
            parameters: prepared.parameters.iter().map(|oid| info(*oid)).collect(),
            columns: columns.iter().map(column).collect::<Vec<_>>().into(),
        })
    }

    async fn look_up(&mut self, query: &str) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let conn = super::held(&mut self.lease)?.conn();
        conn.simple(query, |row| rows.push(row)).await?;
        Ok(rows)
    }
}
