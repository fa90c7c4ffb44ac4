//! Rows of a table with rows of related tables within them, as one statement: the rows of the table
//! are columns, those within them are records in a column (`nested`).
//!
//! What decides which rows there are (conditions, order, limit) is written in terms of the table
//! alone, with `EXISTS` where related tables matter. So with a limit the related rows are looked
//! for when the page is known.

use std::hash::Hasher;

use super::ask::{Count, Keyset, Read};
use super::cursor::Position;
use super::error::PlanError;
use super::resolve::{Base, Expr, Level, Limits, OrderBy, Out, Resolver, Scope};
use super::rows::{Page, Source, Writer};
use super::sql::Statement;
use crate::query::schema::{Name, Schema, TableKind, oid};

/// A statement that reads, and what counts its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadPlan {
    level: Level,
    keyset: Option<Option<Position>>,
    order_hash: u64,
    count: Count,
}

/// Resolves what is asked of a table.
pub fn plan_read(schema: &Schema, limits: Limits, asked: &Read) -> Result<ReadPlan, PlanError> {
    let mut resolver = Resolver::new(schema, limits);
    let at = resolver.table(&asked.target)?;
    let mut level = resolver.level(Scope::Table(at), &asked.level, 0)?;
    let mut order_hash = 0;
    let keyset = match &asked.keyset {
        None => None,
        Some(Keyset::Offered) => offered(schema, at, &mut level, &mut order_hash),
        Some(keyset) => {
            complete_order(schema, at, &mut level)?;
            order_hash = hash_of_order(schema, at, &level.order);
            Some(position(keyset, &level, order_hash)?)
        }
    };
    Ok(ReadPlan { level, keyset, order_hash, count: asked.count })
}

/// Completes the order if it can be, and no column is needed for it that is not read anyway: that
/// may be one which the role must not read.
fn offered(
    schema: &Schema,
    at: usize,
    level: &mut Level,
    hash: &mut u64,
) -> Option<Option<Position>> {
    let is_read = |name: &Name| {
        let is_it = |expr: &Expr| expr.path.is_empty() && expr.base == Base::Column(name.clone());
        level.order.iter().any(|term| is_it(&term.expr))
            || level.items.iter().any(|item| match item {
                Out::All => true,
                Out::Expr { expr, .. } => is_it(expr),
                Out::Count { .. } | Out::Embed(_) | Out::Version => false,
            })
    };
    let table = &schema.tables[at];
    // What a view says of the order of its rows holds as long as nobody wants another one.
    let has_own_order = table.kind == TableKind::View && level.order.is_empty();
    if has_own_order || !table.key_names().all(is_read) {
        return None;
    }
    complete_order(schema, at, level).ok()?;
    *hash = hash_of_order(schema, at, &level.order);
    Some(None)
}

/// Adds the primary key, so that no two rows are the same in the order.
fn complete_order(schema: &Schema, at: usize, level: &mut Level) -> Result<(), PlanError> {
    let table = &schema.tables[at];
    if level.is_grouped() {
        return Err(PlanError::BadCursor("groups of rows cannot be paged by a cursor"));
    }
    if level.order.iter().any(|term| term.embed.is_some()) {
        return Err(PlanError::BadCursor("an order by related rows cannot be paged by a cursor"));
    }
    if table.primary_key.is_empty() {
        return Err(PlanError::BadCursor("only a table with a primary key has cursors"));
    }
    for name in table.key_names() {
        let is_there = |term: &OrderBy| {
            term.expr.path.is_empty() && term.expr.base == Base::Column(name.clone())
        };
        if !level.order.iter().any(is_there) {
            let column = table.column(name).map_or(oid::UNKNOWN, |column| column.type_oid);
            let expr = Expr {
                base: Base::Column(name.clone()),
                path: Vec::new(),
                as_text: false,
                type_oid: column,
                converts: false,
                is_nullable: false,
            };
            level.order.push(OrderBy { embed: None, expr, descends: false, nulls_first: false });
        }
    }
    Ok(())
}

fn position(keyset: &Keyset, level: &Level, hash: u64) -> Result<Option<Position>, PlanError> {
    let Keyset::After(position) = keyset else { return Ok(None) };
    if position.order != hash || position.values.len() != level.order.len() {
        return Err(PlanError::BadCursor("the cursor belongs to another order"));
    }
    Ok(Some(position.clone()))
}

/// The same for the same order of the same table in every process that has these definitions.
fn hash_of_order(schema: &Schema, at: usize, order: &[OrderBy]) -> u64 {
    let table = &schema.tables[at];
    // With fixed keys: SipHash of the standard library.
    let mut hash = std::hash::DefaultHasher::new();
    let mut add = |text: &str| {
        hash.write(text.as_bytes());
        hash.write_u8(0);
    };
    add(&table.schema);
    add(&table.name);
    for term in order {
        let expr = &term.expr;
        add(&format!("{:?} {:?} {}", expr.base, expr.path, expr.as_text));
        add(&format!("{} {} {}", expr.type_oid, term.descends, term.nulls_first));
    }
    hash.finish()
}

impl ReadPlan {
    /// What a [`Position`] of this order is marked with; only with a keyset.
    pub fn order_hash(&self) -> Option<u64> {
        self.keyset.as_ref().map(|_| self.order_hash)
    }

    /// Whether the number of all rows is wanted, and how.
    pub fn count(&self) -> Count {
        self.count
    }

    /// Most rows that the statement gives.
    pub fn limit(&self) -> Option<u64> {
        self.level.limit
    }

    /// Rows that the statement leaves out at the beginning.
    pub fn offset(&self) -> u64 {
        self.level.offset
    }

    /// The statement. An exact count is in it.
    pub fn statement(&self, schema: &Schema) -> Statement {
        self.written(schema, self.count == Count::Exact)
    }

    /// The statement with or without a count, whatever was asked.
    pub fn written(&self, schema: &Schema, with_total: bool) -> Statement {
        let mut writer =
            Writer { schema, out: Statement::begin(), source: Source::Table, as_json: false };
        let page = Page { keyset: self.keyset.as_ref() };
        writer.rows(&self.level, page, with_total);
        writer.out
    }

    /// `EXPLAIN (FORMAT JSON)` of the rows without limit: `"Plan Rows"` of its first plan is what
    /// PostgreSQL believes the number of rows to be.
    pub fn estimate(&self, schema: &Schema) -> Statement {
        let mut writer =
            Writer { schema, out: Statement::begin(), source: Source::Table, as_json: false };
        writer.out.push("EXPLAIN (FORMAT JSON) SELECT 1");
        writer.rows_of(&self.level, None, None);
        writer.out
    }

    /// The exact number of rows, alone.
    pub fn exact_count(&self, schema: &Schema) -> Statement {
        let mut writer =
            Writer { schema, out: Statement::begin(), source: Source::Table, as_json: false };
        writer.count(&self.level);
        writer.out
    }
}
