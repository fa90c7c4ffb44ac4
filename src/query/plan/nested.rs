//! Rows within rows: a column of records in PostgreSQL's binary format, which become JSON outside
//! of PostgreSQL. That costs it less than `json_agg`, and they look like the rows around them.

use super::ask::Aggregate;
use super::resolve::{Embedded, Level, Out, Scope};
use super::rows::Writer;
use crate::proto::json::{Member, Records, Shape, Value};
use crate::query::schema::oid;

/// A column whose bytes are rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nested {
    /// `*` before it, each as many columns as its table has.
    stars: usize,
    /// Other columns before it.
    plain: usize,
    /// What its bytes are.
    pub records: Records,
}

/// The columns of a result that are rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NestedColumns {
    columns: Vec<Nested>,
    stars: usize,
    plain: usize,
}

impl NestedColumns {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Places of these columns among so many, from 0, and what their bytes are.
    pub fn places(&self, columns: usize) -> impl Iterator<Item = (usize, &Records)> {
        let in_star = columns.saturating_sub(self.plain).checked_div(self.stars).unwrap_or(0);
        self.columns
            .iter()
            .map(move |nested| (nested.stars * in_star + nested.plain, &nested.records))
    }
}

/// What a named result of a level is.
pub(super) enum Made {
    /// A value of this type; 0 is any other.
    Value(u32),
    /// Rows as JSON.
    Json,
    /// Rows as records.
    Records(Records),
}

impl Writer<'_> {
    /// The columns of the first level that are rows.
    pub(super) fn nested_columns(&self, level: &Level) -> NestedColumns {
        let mut all = NestedColumns::default();
        for item in &level.items {
            let Out::Embed(at) = item else {
                match item {
                    Out::All if !level.is_grouped() => all.stars += 1,
                    _ => all.plain += self.made(level, item).len(),
                }
                continue;
            };
            for (_, made) in self.made(level, &Out::Embed(*at)) {
                if let Made::Records(records) = made {
                    let (stars, plain) = (all.stars, all.plain);
                    all.columns.push(Nested { stars, plain, records });
                }
                all.plain += 1;
            }
        }
        all
    }

    /// Names of a level's results, and what they are.
    pub(super) fn outputs(&self, level: &Level) -> Vec<(String, Made)> {
        level.items.iter().flat_map(|item| self.made(level, item)).collect()
    }

    fn made(&self, level: &Level, item: &Out) -> Vec<(String, Made)> {
        match item {
            Out::All => self.columns_of(level),
            Out::Expr { expr, name, cast, aggregate, aggregate_cast } => {
                let type_oid = match (aggregate_cast, aggregate) {
                    (Some(cast), _) => *cast,
                    (None, None) => cast.unwrap_or(expr.type_oid),
                    (None, Some(function)) => of_all(*function, cast.unwrap_or(expr.type_oid)),
                };
                vec![(name.clone(), Made::Value(type_oid))]
            }
            Out::Count { name, cast } => {
                vec![(name.clone(), Made::Value(cast.unwrap_or(oid::INT8)))]
            }
            Out::Version => vec![(super::rows::VERSION.into(), Made::Value(oid::TEXT))],
            Out::Embed(at) => {
                let embed = &level.embeds[*at];
                match (embed.level.is_empty(), embed.spread) {
                    (true, _) => Vec::new(),
                    (false, true) if embed.relation.cardinality.is_to_one() => {
                        self.outputs(&embed.level)
                    }
                    (false, true) => {
                        let names = self.outputs(&embed.level).into_iter();
                        names.map(|(name, _)| (name, Made::Json)).collect()
                    }
                    (false, false) => {
                        let made = self.records(level, embed).map_or(Made::Json, Made::Records);
                        vec![(embed.name.clone(), made)]
                    }
                }
            }
        }
    }

    /// The columns of the table of a level.
    pub(super) fn columns_of(&self, level: &Level) -> Vec<(String, Made)> {
        match &level.scope {
            Scope::Table(at) => {
                let columns = self.schema.tables[*at].columns.iter();
                columns.map(|c| (c.name.to_string(), Made::Value(c.type_oid))).collect()
            }
            Scope::Outputs(_, outputs) => {
                let outputs = outputs.iter();
                outputs.map(|(name, t)| (name.to_string(), Made::Value(*t))).collect()
            }
        }
    }

    /// What the records of an embedded resource are; `None` = it is JSON that PostgreSQL makes,
    /// with all that is within it.
    pub(super) fn records(&self, above: &Level, embed: &Embedded) -> Option<Records> {
        // Rows are grouped by what they show, and a spread makes JSON of it.
        if self.as_json || above.is_grouped() {
            return None;
        }
        let outputs = self.outputs(&embed.level);
        let mut names: Vec<&str> = outputs.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        // There would be no way to name one of two.
        if names.windows(2).any(|two| two[0] == two[1]) {
            return None;
        }
        let member = |(name, made): (String, Made)| Member::new(&name, value_of(made));
        let members = outputs.into_iter().map(member).collect();
        Some(Records { is_one: embed.relation.cardinality.is_to_one(), members })
    }

    /// `ROW(…)` of the results of `s`, which are those of a level.
    pub(super) fn record(&mut self, level: &Level) {
        self.out.push("ROW(");
        let outputs = self.outputs(level);
        self.out.list(&outputs, |out, (name, made)| {
            let (before, after) = match made {
                Made::Value(type_oid) => around(*type_oid),
                Made::Json | Made::Records(_) => ("", ""),
            };
            out.push(before);
            out.column("s", name);
            out.push(after);
        });
        self.out.push(")");
    }
}

/// Type of the result of a function over many rows
/// (<https://www.postgresql.org/docs/current/functions-aggregate.html>).
fn of_all(function: Aggregate, type_oid: u32) -> u32 {
    match (function, type_oid) {
        (Aggregate::Count, _) | (Aggregate::Sum, oid::INT2 | oid::INT4) => oid::INT8,
        (Aggregate::Max | Aggregate::Min, oid::VARCHAR) => oid::TEXT,
        (Aggregate::Max | Aggregate::Min, _) => type_oid,
        (Aggregate::Sum | Aggregate::Avg, oid::INT2 | oid::INT4 | oid::INT8 | oid::NUMERIC) => {
            oid::NUMERIC
        }
        (Aggregate::Avg, oid::FLOAT4) => oid::FLOAT8,
        (Aggregate::Sum | Aggregate::Avg, oid::FLOAT4 | oid::FLOAT8 | oid::INTERVAL) => type_oid,
        (Aggregate::Sum | Aggregate::Avg, _) => oid::UNKNOWN,
    }
}

/// What stands around a value in a record: nothing where its binary format is read, its text, or
/// JSON that PostgreSQL makes of it.
fn around(type_oid: u32) -> (&'static str, &'static str) {
    match value_of(Made::Value(type_oid)) {
        Value::Bool | Value::Int(_) | Value::Jsonb | Value::Records(_) => ("", ""),
        Value::Text(_) if is_text(type_oid) || type_oid == oid::JSON => ("", ""),
        Value::Text(Shape::Json) => ("pg_catalog.to_json(", ")"),
        Value::Text(_) => ("CAST(", " AS pg_catalog.text)"),
    }
}

/// Whether the binary format of a type is its text.
fn is_text(type_oid: u32) -> bool {
    matches!(type_oid, oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME)
}

/// What comes of a value. A cast to text is the output function's text for those types only that
/// have no cast of their own to text, so others are JSON.
fn value_of(made: Made) -> Value {
    match made {
        Made::Records(records) => Value::Records(records),
        Made::Json => Value::Text(Shape::Json),
        Made::Value(type_oid) => match type_oid {
            oid::BOOL => Value::Bool,
            oid::INT2 | oid::INT4 => Value::Int(Shape::Int),
            oid::INT8 => Value::Int(Shape::Int8),
            oid::JSONB => Value::Jsonb,
            oid::FLOAT4 | oid::FLOAT8 => Value::Text(Shape::Float),
            oid::NUMERIC => Value::Text(Shape::Numeric),
            oid::BYTEA => Value::Text(Shape::Bytea),
            oid::TIMESTAMP => Value::Text(Shape::Timestamp),
            oid::TIMESTAMPTZ => Value::Text(Shape::Timestamptz),
            oid::DATE | oid::TIME | oid::TIMETZ | oid::INTERVAL | oid::UUID => {
                Value::Text(Shape::Text)
            }
            text if is_text(text) => Value::Text(Shape::Text),
            _ => Value::Text(Shape::Json),
        },
    }
}
