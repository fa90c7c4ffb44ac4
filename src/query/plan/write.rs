//! Changes of a table, with what is wanted of the changed rows, as one statement.
//!
//! Values come as one JSON parameter, which PostgreSQL itself takes apart with the types of the
//! columns. What is wanted of the rows is `RETURNING`, or a statement over `WITH w AS (…)` when
//! related rows or an order are wanted too.

use super::ask::{self, Change, Item, Payload, Resolution, Returning, Write};
use super::error::PlanError;
use super::resolve::{Base, Cond, Expr, Level, Limits, Out, Resolver, Scope, needed};
use super::rows::{Page, Source, Writer};
use super::sql::Statement;
use super::{MAX_ITEMS, MAX_LIST};
use crate::query::schema::{Column, Name, Origin, Schema, Table, oid};

/// A statement that changes rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WritePlan {
    table: usize,
    change: Step,
    /// `None` = nothing is wanted of the rows.
    returning: Option<Level>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Insert { values: Values, conflict: Option<(Resolution, Vec<Name>)>, only: Option<Cond> },
    Update { values: Values, filter: Option<Cond> },
    Delete { filter: Option<Cond> },
}

/// Columns and where their values come from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Values {
    json: String,
    is_array: bool,
    /// Positions of the columns that get values.
    columns: Vec<usize>,
    /// Those of them that are to have their default.
    defaults: Vec<usize>,
    /// Those that have it in the rows that do not name them.
    partial: Vec<usize>,
    /// Those whose values are bytes in base64.
    base64: Vec<usize>,
    /// Those whose values are arrays of such.
    base64_arrays: Vec<usize>,
}

/// Resolves what is asked to be done to a table.
pub fn plan_write(schema: &Schema, limits: Limits, asked: &Write) -> Result<WritePlan, PlanError> {
    // A change is not cut to a page.
    let mut resolver = Resolver::new(schema, Limits { max_rows: None, ..limits });
    let table = resolver.table(&asked.target)?;
    let own = &schema.tables[table];
    let returning = match &asked.returning {
        Returning::Nothing => None,
        Returning::Keys => {
            let key = |name: &Name| Item::Field {
                field: ask::Field::column(&**name),
                alias: None,
                cast: None,
                aggregate: None,
                aggregate_cast: None,
            };
            let items = own.key_names().map(key).collect();
            let level = ask::Level { items, ..ask::Level::default() };
            Some(resolver.level(Scope::Table(table), &level, 0)?)
        }
        Returning::Rows(level) => Some(resolver.level(Scope::Table(table), level, 0)?),
    };
    let mut plain = resolver.level(Scope::Table(table), &ask::Level::default(), 0)?;
    // Conditions are about the row that is changed, whatever level has been numbered before.
    plain.number = 0;
    let mut condition = |filter: &Option<ask::Condition>| match filter {
        Some(filter) => resolver.condition(&plain, filter, 0).map(Some),
        None => Ok(None),
    };
    let change = match &asked.change {
        Change::Insert { payload, conflict, only } => Step::Insert {
            values: values(schema, own, payload)?,
            conflict: match conflict {
                None => None,
                Some((resolution, columns)) => {
                    Some((*resolution, conflict_columns(own, columns.as_deref())?))
                }
            },
            only: condition(only)?,
        },
        Change::Update { payload, filter } => {
            Step::Update { values: values(schema, own, payload)?, filter: condition(filter)? }
        }
        Change::Delete { filter } => Step::Delete { filter: condition(filter)? },
    };
    Ok(WritePlan { table, change, returning })
}

fn column_at(table: &Table, name: &str) -> Result<usize, PlanError> {
    let found = table.columns.iter().position(|column| &*column.name == name);
    found.ok_or_else(|| PlanError::UnknownColumn {
        table: table.name.to_string(),
        column: name.to_owned(),
        is_written: true,
    })
}

fn conflict_columns(table: &Table, asked: Option<&[String]>) -> Result<Vec<Name>, PlanError> {
    let Some(asked) = asked else { return Ok(table.key_names().cloned().collect()) };
    if asked.len() > MAX_LIST.min(table.columns.len()) {
        return Err(PlanError::BadPayload("on_conflict names a column twice".into()));
    }
    let column = |name: &String| Ok(table.columns[column_at(table, name)?].name.clone());
    asked.iter().map(column).collect()
}

fn values(schema: &Schema, table: &Table, payload: &Payload) -> Result<Values, PlanError> {
    if payload.columns.len() > MAX_ITEMS {
        return Err(PlanError::TooMuch("columns", MAX_ITEMS));
    }
    let mut values = Values {
        json: payload.json.clone(),
        is_array: payload.is_array,
        columns: Vec::new(),
        defaults: Vec::new(),
        partial: Vec::new(),
        base64: Vec::new(),
        base64_arrays: Vec::new(),
    };
    for name in &payload.columns {
        let at = column_at(table, name)?;
        if values.columns.contains(&at) || values.defaults.contains(&at) {
            continue;
        }
        match payload.missing_default && !payload.present.contains(name) {
            false => values.columns.push(at),
            true if payload.is_array => {
                values.columns.push(at);
                values.partial.push(at);
            }
            true => values.defaults.push(at),
        }
        if payload.base64 {
            match schema.base_type(table.columns[at].type_oid) {
                oid::BYTEA => values.base64.push(at),
                oid::BYTEA_ARRAY => values.base64_arrays.push(at),
                _ => {}
            }
        }
    }
    Ok(values)
}

impl WritePlan {
    /// Whether rows come back.
    pub fn returns_rows(&self) -> bool {
        self.returning.is_some()
    }

    /// Whether rows that are there already are dealt with.
    pub fn resolves_conflicts(&self) -> bool {
        let Step::Insert { conflict: Some((_, columns)), .. } = &self.change else { return false };
        !columns.is_empty()
    }

    /// The statement.
    pub fn statement(&self, schema: &Schema) -> Result<Statement, PlanError> {
        let mut writer =
            Writer { schema, out: Statement::begin(), source: Source::Table, as_json: false };
        let Some(level) = &self.returning else {
            self.change(&mut writer)?;
            return Ok(writer.out);
        };
        let simple = level.embeds.is_empty()
            && level.filter.is_none()
            && level.order.is_empty()
            && !level.is_grouped();
        // `RETURNING` of nothing is not SQL.
        if simple && !level.items.is_empty() {
            self.change(&mut writer)?;
            writer.out.push(if self.is_empty_update() { "" } else { " RETURNING " });
            if !self.is_empty_update() {
                writer.returned(level);
            }
            return Ok(writer.out);
        }
        writer.out.push("WITH w AS (");
        self.change(&mut writer)?;
        if !self.is_empty_update() {
            writer.out.push(" RETURNING ");
            match needed(schema, level).filter(|_| !uses_row(level)) {
                Some(columns) if !columns.is_empty() => {
                    writer.out.list(&columns, |out, name| out.column("t0", name));
                }
                Some(_) => writer.out.push("1"),
                None => writer.out.push("t0.*"),
            }
        }
        writer.out.push(") ");
        writer.source = Source::With;
        writer.rows(level, Page::default(), false);
        Ok(writer.out)
    }

    fn is_empty_update(&self) -> bool {
        match &self.change {
            Step::Update { values, .. } => values.columns.is_empty() && values.defaults.is_empty(),
            _ => false,
        }
    }

    fn change(&self, writer: &mut Writer<'_>) -> Result<(), PlanError> {
        let table = &writer.schema.tables[self.table];
        match &self.change {
            Step::Insert { values, conflict, only } => {
                self.insert(writer, table, values, only.as_ref())?;
                on_conflict(writer, table, values, conflict.as_ref());
                Ok(())
            }
            // Nothing to set: no row is changed.
            Step::Update { .. } if self.is_empty_update() => {
                writer.out.push("SELECT t0.* FROM ");
                writer.out.qualified(&table.schema, &table.name);
                writer.out.push(" AS t0 WHERE FALSE");
                Ok(())
            }
            Step::Update { values, filter } => {
                self.update(writer, table, values)?;
                self.filter(writer, filter.as_ref());
                Ok(())
            }
            Step::Delete { filter } => {
                writer.out.push("DELETE FROM ");
                writer.out.qualified(&table.schema, &table.name);
                writer.out.push(" AS t0");
                self.filter(writer, filter.as_ref());
                Ok(())
            }
        }
    }

    fn filter(&self, writer: &mut Writer<'_>, filter: Option<&Cond>) {
        if let Some(filter) = filter {
            writer.out.push(" WHERE ");
            writer.plain_cond("t0", filter);
        }
    }

    fn insert(
        &self,
        writer: &mut Writer<'_>,
        table: &Table,
        values: &Values,
        only: Option<&Cond>,
    ) -> Result<(), PlanError> {
        let out = &mut writer.out;
        out.push("INSERT INTO ");
        out.qualified(&table.schema, &table.name);
        out.push(" AS t0");
        let names: Vec<&Name> = values.columns.iter().map(|at| &table.columns[*at].name).collect();
        if !names.is_empty() {
            out.push(" (");
            out.names(names.iter().copied());
            out.push(")");
        }
        out.push(" SELECT ");
        let partial = !values.partial.is_empty();
        let mut is_first = true;
        for at in &values.columns {
            out.push(if std::mem::take(&mut is_first) { "" } else { ", " });
            let column = &table.columns[*at];
            match values.partial.contains(at) {
                true => given_or_default(out, table, column, |out| values.given(out, table, *at)),
                false => values.given(out, table, *at),
            }
        }
        match (values.columns.is_empty(), values.is_array, partial) {
            // Rows of defaults only.
            (true, true, _) => {
                out.push(" FROM pg_catalog.json_array_elements(");
                out.bind(oid::JSON, values.json.as_str());
                out.push(") AS b");
            }
            (true, false, _) => {}
            (false, _, true) => {
                out.push(" FROM pg_catalog.jsonb_array_elements(");
                out.bind(oid::JSONB, values.json.as_str());
                out.push(") AS g(v), LATERAL pg_catalog.jsonb_to_record(g.v) AS b(");
                record(writer, table, values)?;
            }
            (false, is_array, false) => {
                out.push(" FROM pg_catalog.");
                out.push(if is_array { "json_to_recordset(" } else { "json_to_record(" });
                out.bind(oid::JSON, values.json.as_str());
                out.push(") AS b(");
                record(writer, table, values)?;
            }
        }
        if let Some(only) = only {
            writer.out.push(" WHERE ");
            writer.plain_cond("b", only);
        }
        Ok(())
    }

    fn update(
        &self,
        writer: &mut Writer<'_>,
        table: &Table,
        values: &Values,
    ) -> Result<(), PlanError> {
        let out = &mut writer.out;
        out.push("UPDATE ");
        out.qualified(&table.schema, &table.name);
        out.push(" AS t0 SET ");
        let mut is_first = true;
        for at in &values.columns {
            out.push(if std::mem::take(&mut is_first) { "" } else { ", " });
            let name = &table.columns[*at].name;
            out.name(name);
            out.push(" = ");
            values.given(out, table, *at);
        }
        for at in &values.defaults {
            out.push(if std::mem::take(&mut is_first) { "" } else { ", " });
            out.name(&table.columns[*at].name);
            out.push(" = DEFAULT");
        }
        if !values.columns.is_empty() {
            out.push(" FROM (SELECT * FROM pg_catalog.");
            let function = if values.is_array { "json_to_recordset(" } else { "json_to_record(" };
            out.push(function);
            out.bind(oid::JSON, values.json.as_str());
            out.push(") AS r(");
            record(writer, table, values)?;
            writer.out.push(" LIMIT 1) AS b");
        }
        Ok(())
    }
}

impl Values {
    /// The value that the body names.
    fn given(&self, out: &mut Statement, table: &Table, at: usize) {
        if self.base64_arrays.contains(&at) {
            return array_of_base64(out, &table.columns[at].name);
        }
        let is_base64 = self.base64.contains(&at);
        out.push(if is_base64 { "pg_catalog.decode(" } else { "" });
        out.column("b", &table.columns[at].name);
        out.push(if is_base64 { ", 'base64')" } else { "" });
    }
}

/// An array of bytes, in base64 each. One of several dimensions is refused: its text is no base64.
fn array_of_base64(out: &mut Statement, name: &Name) {
    let mut part = |before: &str, after: &str| {
        out.push(before);
        out.column("b", name);
        out.push(after);
    };
    part("CASE WHEN ", " IS NULL THEN NULL");
    part(" WHEN pg_catalog.array_ndims(", ") > 1");
    part(" THEN ARRAY[pg_catalog.decode(", "::pg_catalog.text, 'base64')]");
    part(
        " ELSE ARRAY(SELECT pg_catalog.decode(u.v, 'base64') FROM pg_catalog.unnest(",
        ") WITH ORDINALITY AS u(v, n) ORDER BY u.n) END",
    );
}

/// `"a" type, "b" type)`
fn record(writer: &mut Writer<'_>, table: &Table, values: &Values) -> Result<(), PlanError> {
    for (place, at) in values.columns.iter().enumerate() {
        let column = &table.columns[*at];
        writer.out.push(if place > 0 { ", " } else { "" });
        writer.out.name(&column.name);
        writer.out.push(" ");
        let type_oid = match () {
            () if values.base64.contains(at) => oid::TEXT,
            () if values.base64_arrays.contains(at) => oid::TEXT_ARRAY,
            // A domain may not allow that there is none, before the default takes its place.
            () if values.partial.contains(at) => writer.schema.base_type(column.type_oid),
            () => column.type_oid,
        };
        if !writer.out.type_name(writer.schema, type_oid) {
            return Err(PlanError::UnknownType(format!("of column {}", column.name)));
        }
    }
    writer.out.push(")");
    Ok(())
}

/// The value that a row names, or else the column's default.
fn given_or_default(
    out: &mut Statement,
    table: &Table,
    column: &Column,
    given: impl FnOnce(&mut Statement),
) {
    out.push("CASE WHEN g.v ? ");
    out.bind(oid::TEXT, &*column.name);
    out.push(" THEN ");
    given(out);
    match (&column.origin, &column.default) {
        (Origin::IdentityAlways | Origin::IdentityByDefault, _) => {
            out.push(" ELSE pg_catalog.nextval(pg_catalog.pg_get_serial_sequence(");
            let mut quoted = Statement::default();
            quoted.qualified(&table.schema, &table.name);
            out.bind(oid::TEXT, quoted.sql);
            out.push(", ");
            out.bind(oid::TEXT, &*column.name);
            out.push(")::pg_catalog.regclass)");
        }
        // Text of the catalog, which PostgreSQL printed from the expression itself.
        (Origin::Plain, Some(default)) => {
            out.push(" ELSE (");
            out.push(default);
            out.push(")");
        }
        _ => {}
    }
    out.push(" END");
}

fn on_conflict(
    writer: &mut Writer<'_>,
    table: &Table,
    values: &Values,
    conflict: Option<&(Resolution, Vec<Name>)>,
) {
    let Some((resolution, columns)) = conflict.filter(|(_, columns)| !columns.is_empty()) else {
        return;
    };
    let out = &mut writer.out;
    out.push(" ON CONFLICT (");
    out.names(columns);
    out.push(") DO ");
    if *resolution == Resolution::Ignore || values.columns.is_empty() {
        return out.push("NOTHING");
    }
    out.push("UPDATE SET ");
    out.list(values.columns.iter().chain(&values.defaults), |out, at| {
        let name = &table.columns[*at].name;
        out.name(name);
        out.push(" = ");
        out.column("excluded", name);
    });
}

/// Whether functions over the row are among the results.
fn uses_row(level: &Level) -> bool {
    let computed = |expr: &Expr| matches!(expr.base, Base::Computed { .. });
    level.items.iter().any(|item| matches!(item, Out::Expr { expr, .. } if computed(expr)))
}
