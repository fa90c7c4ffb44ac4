//! A statement in the making. Names are quoted here, values become parameters here, and nowhere
//! else.

use std::fmt::Write;

use super::nested::NestedColumns;
use crate::query::schema::{Name, Schema, oid};

/// A parameter of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Its type; 0 is left for PostgreSQL to infer.
    pub type_oid: u32,
    /// Its value in PostgreSQL's text form; `None` is NULL.
    pub value: Option<Vec<u8>>,
}

/// What the columns of a result are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The first column is the number of all rows, the second TRUE, or NULL in the only row of a
    /// page without rows: that row is none.
    pub has_total: bool,
    /// So many columns at the end are the text of the values that order the rows.
    pub cursor_values: usize,
}

/// One statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statement {
    /// Text with `$1`, `$2`, …
    pub sql: String,
    /// Their types and values.
    pub params: Vec<Param>,
    /// What its columns are.
    pub layout: Layout,
    /// Those of its columns that are rows.
    pub nested: NestedColumns,
    /// Schemas and names of the tables whose rows are within those of another.
    pub related: Vec<(String, String)>,
}

impl Statement {
    /// With room for what most statements need.
    pub(super) fn begin() -> Self {
        Self { sql: String::with_capacity(512), params: Vec::with_capacity(4), ..Self::default() }
    }

    /// The values of its parameters.
    pub fn values(&self) -> Vec<Option<&[u8]>> {
        self.params.iter().map(|param| param.value.as_deref()).collect()
    }

    pub(super) fn push(&mut self, sql: &str) {
        self.sql.push_str(sql);
    }

    /// A name, quoted.
    pub(super) fn name(&mut self, name: &str) {
        crate::query::push_ident(&mut self.sql, name);
    }

    /// `"schema"."name"`.
    pub(super) fn qualified(&mut self, schema: &str, name: &str) {
        self.name(schema);
        self.sql.push('.');
        self.name(name);
    }

    /// `alias."name"`; aliases are our own.
    pub(super) fn column(&mut self, alias: &str, name: &str) {
        self.push(alias);
        self.sql.push('.');
        self.name(name);
    }

    /// Names with commas between.
    pub(super) fn names<'n>(&mut self, names: impl IntoIterator<Item = &'n Name>) {
        self.list(names, |out, name| out.name(name));
    }

    /// Things with commas between.
    pub(super) fn list<T>(
        &mut self,
        things: impl IntoIterator<Item = T>,
        mut each: impl FnMut(&mut Self, T),
    ) {
        for (at, thing) in things.into_iter().enumerate() {
            if at > 0 {
                self.push(", ");
            }
            each(self, thing);
        }
    }

    /// ` AS "name"`.
    pub(super) fn named(&mut self, name: &str) {
        self.push(" AS ");
        self.name(name);
    }

    /// A value.
    pub(super) fn bind(&mut self, type_oid: u32, value: impl Into<Vec<u8>>) {
        self.bind_value(type_oid, Some(value.into()));
    }

    /// A value that may be NULL.
    pub(super) fn bind_value(&mut self, type_oid: u32, value: Option<Vec<u8>>) {
        self.params.push(Param { type_oid, value });
        // Writing to a string does not fail.
        let _ = write!(self.sql, "${}", self.params.len());
    }

    /// A value that makes two expressions the same when it is the same: a step into JSON, which
    /// has to be the same parameter in `GROUP BY` and `ORDER BY`.
    pub(super) fn bind_once(&mut self, type_oid: u32, value: &str) {
        let same =
            |p: &Param| p.type_oid == type_oid && p.value.as_deref() == Some(value.as_bytes());
        match self.params.iter().position(same) {
            Some(at) => {
                let _ = write!(self.sql, "${}", at + 1);
            }
            None => self.bind(type_oid, value),
        }
    }

    /// The name of a type; whether it has one.
    pub(super) fn type_name(&mut self, schema: &Schema, type_oid: u32) -> bool {
        if let Some(entry) = schema.type_entry(type_oid) {
            self.qualified(&entry.schema, &entry.name);
            return true;
        }
        let table = schema.table_of_row_type(type_oid).and_then(|at| schema.tables.get(at));
        if let Some(table) = table {
            self.qualified(&table.schema, &table.name);
        }
        table.is_some()
    }
}

/// The text of an array of values
/// (<https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO>).
pub(super) fn array_text<'v>(values: impl IntoIterator<Item = &'v str>) -> String {
    let mut text = String::from("{");
    for (at, value) in values.into_iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push('"');
        for c in value.chars() {
            if c == '"' || c == '\\' {
                text.push('\\');
            }
            text.push(c);
        }
        text.push('"');
    }
    text.push('}');
    text
}

/// Whether a type is one of PostgreSQL's two kinds of JSON.
pub(super) fn is_json(type_oid: u32) -> bool {
    matches!(type_oid, oid::JSON | oid::JSONB)
}
