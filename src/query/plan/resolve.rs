//! Looks up every name of a request. What comes out holds names of the catalog only, and numbers
//! for what belongs together.

use super::ask::{self, Aggregate, Condition, Direction, Field, Is, Item, Nulls, Step, Test};
use super::error::{Candidate, PlanError};
use super::sql::is_json;
use super::{
    Catalog, MAX_CONDITION_DEPTH, MAX_CONDITIONS, MAX_DEPTH, MAX_EMBEDS, MAX_ITEMS, MAX_LIST,
    MAX_NAME, MAX_ORDER, MAX_PATH,
};
use crate::query::schema::{Name, Relation, Schema, Table, oid};

/// What the caller allows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Most rows of each level.
    pub max_rows: Option<u64>,
    /// Whether functions over many rows may be used.
    pub aggregates: bool,
}

/// Where the columns of a level come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// A table, by its position.
    Table(usize),
    /// The named results of a function.
    Outputs(Name, Vec<(Name, u32)>),
}

/// Where the value of an expression comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Base {
    Column(Name),
    /// A function over the row.
    Computed {
        schema: Name,
        name: Name,
    },
}

/// A value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expr {
    pub base: Base,
    pub path: Vec<Step>,
    pub as_text: bool,
    /// Type of the whole expression.
    pub type_oid: u32,
    /// Whether it must become JSON before the path can be followed.
    pub converts: bool,
    pub is_nullable: bool,
}

/// A result of a level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Out {
    All,
    Expr {
        expr: Expr,
        name: String,
        cast: Option<u32>,
        aggregate: Option<Aggregate>,
        aggregate_cast: Option<u32>,
    },
    Count {
        name: String,
        cast: Option<u32>,
    },
    Embed(usize),
    Version,
}

/// Which rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cond {
    And(Vec<Cond>),
    Or(Vec<Cond>),
    Not(Box<Cond>),
    Test(Expr, Test),
    /// An embedded resource has rows, or has none.
    Present(usize, bool),
    /// The row has this version.
    Version(String),
}

/// A term of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OrderBy {
    pub embed: Option<usize>,
    pub expr: Expr,
    pub descends: bool,
    pub nulls_first: bool,
}

/// One table of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Level {
    pub scope: Scope,
    /// Number of its aliases.
    pub number: usize,
    pub items: Vec<Out>,
    pub filter: Option<Cond>,
    pub order: Vec<OrderBy>,
    pub limit: Option<u64>,
    pub offset: u64,
    pub embeds: Vec<Embedded>,
}

/// A table within another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Embedded {
    pub relation: Relation,
    pub name: String,
    pub inner: bool,
    pub spread: bool,
    pub level: Level,
}

impl Level {
    /// Whether it shows nothing and only tests.
    pub fn is_empty(&self) -> bool {
        let empty = |item: &Out| match item {
            Out::Embed(at) => self.embeds[*at].level.is_empty(),
            _ => false,
        };
        self.items.iter().all(empty)
    }

    /// Whether there are functions over many rows.
    pub fn is_grouped(&self) -> bool {
        let grouped = |item: &Out| match item {
            Out::Expr { aggregate, .. } => aggregate.is_some(),
            Out::Count { .. } => true,
            Out::All | Out::Embed(_) | Out::Version => false,
        };
        self.items.iter().any(grouped)
    }
}

/// Looks names up, and counts.
pub(super) struct Resolver<'s> {
    pub schema: Catalog<'s>,
    pub limits: Limits,
    conditions: usize,
    levels: usize,
}

impl<'s> Resolver<'s> {
    pub fn new(schema: Catalog<'s>, limits: Limits) -> Self {
        Self { schema, limits, conditions: 0, levels: 0 }
    }

    pub fn table(&self, target: &ask::Target) -> Result<usize, PlanError> {
        let found = self.schema.table_at(&target.schema, &target.name);
        found.ok_or_else(|| PlanError::UnknownTable {
            schema: target.schema.clone(),
            name: target.name.clone(),
            similar: similar(&target.name, self.schema.tables_of(&target.schema)),
        })
    }

    /// Everything that is asked of one table.
    pub fn level(
        &mut self,
        scope: Scope,
        asked: &ask::Level,
        depth: usize,
    ) -> Result<Level, PlanError> {
        let number = self.levels;
        self.levels += 1;
        if depth > MAX_DEPTH {
            return Err(PlanError::TooMuch("levels of embedding", MAX_DEPTH));
        }
        if number > MAX_EMBEDS {
            return Err(PlanError::TooMuch("embedded resources", MAX_EMBEDS));
        }
        if asked.items.len() > MAX_ITEMS {
            return Err(PlanError::TooMuch("results", MAX_ITEMS));
        }
        let mut level = Level {
            scope,
            number,
            items: Vec::with_capacity(asked.items.len()),
            filter: None,
            order: Vec::new(),
            limit: least(asked.limit, self.limits.max_rows),
            offset: asked.offset,
            embeds: Vec::new(),
        };
        for item in &asked.items {
            self.item(&mut level, item, depth)?;
        }
        if level.is_grouped() && !self.limits.aggregates {
            return Err(PlanError::AggregatesOff);
        }
        level.filter = match &asked.filter {
            Some(condition) => Some(self.condition(&level, condition, 0)?),
            None => None,
        };
        level.order = self.order(&level, &asked.order)?;
        Ok(level)
    }

    fn item(&mut self, level: &mut Level, item: &Item, depth: usize) -> Result<(), PlanError> {
        let out = match item {
            Item::All => Out::All,
            Item::CountAll { alias, cast } => Out::Count {
                name: result_name(alias.as_deref().unwrap_or("count"))?,
                cast: self.cast(&level.scope, cast.as_deref())?,
            },
            // To PostgreSQL `t.count` is `count(t)` where there is no such column.
            Item::Field { field, alias, cast, aggregate: None, aggregate_cast: None }
                if self.limits.aggregates
                    && *field == Field::column("count")
                    && self.base(&level.scope, "count").is_err() =>
            {
                Out::Count {
                    name: result_name(alias.as_deref().unwrap_or("count"))?,
                    cast: self.cast(&level.scope, cast.as_deref())?,
                }
            }
            Item::Field { field, alias, cast, aggregate, aggregate_cast } => {
                let expr = self.expr(&level.scope, field)?;
                let own: &str = match aggregate {
                    Some(aggregate) => aggregate.as_str(),
                    None => default_name(field),
                };
                Out::Expr {
                    expr,
                    name: result_name(alias.as_deref().unwrap_or(own))?,
                    cast: self.cast(&level.scope, cast.as_deref())?,
                    aggregate: *aggregate,
                    aggregate_cast: self.cast(&level.scope, aggregate_cast.as_deref())?,
                }
            }
            Item::Embed(embed) => {
                let embedded = self.embed(level, embed, depth)?;
                level.embeds.push(embedded);
                Out::Embed(level.embeds.len() - 1)
            }
            Item::Version => Out::Version,
        };
        level.items.push(out);
        Ok(())
    }

    fn embed(
        &mut self,
        parent: &Level,
        embed: &ask::Embed,
        depth: usize,
    ) -> Result<Embedded, PlanError> {
        let Scope::Table(origin) = parent.scope else {
            return Err(self.no_relation(&parent.scope, embed));
        };
        let hint = embed.hint.as_deref();
        let mut found = self.schema.relations(origin, &embed.target, hint);
        let relation = match (found.pop(), found.is_empty()) {
            (Some(only), true) => only,
            (None, _) => return Err(self.no_relation(&parent.scope, embed)),
            (Some(last), false) => {
                found.push(last);
                return Err(self.ambiguous(origin, &embed.target, &found));
            }
        };
        let scope = Scope::Table(relation.target);
        let level = self.level(scope, &embed.level, depth + 1)?;
        if embed.spread && level.is_grouped() {
            return Err(PlanError::Unsupported(
                "Functions over many rows within a spread resource are not possible",
            ));
        }
        let (inner, spread) = (embed.inner, embed.spread);
        Ok(Embedded { relation, name: result_name(embed.name())?, inner, spread, level })
    }

    fn no_relation(&self, scope: &Scope, embed: &ask::Embed) -> PlanError {
        let (schema, origin) = match scope {
            Scope::Table(at) => {
                let table = &self.schema.tables[*at];
                (table.schema.to_string(), table.name.to_string())
            }
            Scope::Outputs(name, _) => (String::new(), name.to_string()),
        };
        let (target, hint) = (embed.target.clone(), embed.hint.clone());
        PlanError::NoRelation { schema, origin, target, hint }
    }

    fn ambiguous(&self, origin: usize, target: &str, found: &[Relation]) -> PlanError {
        let candidates = found.iter().map(|relation| self.candidate(relation)).collect();
        let origin = self.schema.tables[origin].name.to_string();
        PlanError::AmbiguousRelation { origin, target: target.to_owned(), candidates }
    }

    fn candidate(&self, relation: &Relation) -> Candidate {
        let tables = &self.schema.tables;
        let target = &tables[relation.target].name;
        let columns = |table: &Table, columns: &[usize]| {
            let names: Vec<&str> = columns.iter().map(|c| &*table.columns[*c].name).collect();
            format!("{}({})", table.name, names.join(", "))
        };
        let key = &self.schema.foreign_keys[relation.foreign_key];
        let (relationship, hint) = match &relation.junction {
            Some(junction) => {
                let table = &tables[junction.table];
                let first = &self.schema.foreign_keys[junction.to_origin];
                let text = format!(
                    "{} using {}({}) and {}({})",
                    table.name,
                    first.name,
                    list(table, &first.columns),
                    key.name,
                    list(table, &key.columns),
                );
                (text, table.name.to_string())
            }
            None => {
                let (from, to) = (&tables[key.table], &tables[key.target]);
                let (own, other) = (columns(from, &key.columns), columns(to, &key.target_columns));
                let text = match relation.is_own {
                    true => format!("{} using {own} and {other}", key.name),
                    false => format!("{} using {other} and {own}", key.name),
                };
                (text, key.name.to_string())
            }
        };
        Candidate {
            cardinality: relation.cardinality.as_str(),
            embedding: format!("{} with {target}", tables[relation.origin].name),
            relationship,
            hint: format!("{target}!{hint}"),
        }
    }

    /// A value of a row.
    pub fn expr(&self, scope: &Scope, field: &Field) -> Result<Expr, PlanError> {
        if field.path.len() > MAX_PATH {
            return Err(PlanError::TooMuch("steps of a path", MAX_PATH));
        }
        let (base, own_type, is_nullable) = self.base(scope, &field.name)?;
        // Values are compared with what a domain is made of: they need not fulfil its checks.
        let own_type = self.schema.base_type(own_type);
        let (type_oid, converts) = match (field.path.is_empty(), is_json(own_type)) {
            (true, _) | (false, true) => (own_type, false),
            (false, false) => (oid::JSONB, true),
        };
        let as_text = field.as_text && !field.path.is_empty();
        let type_oid = if as_text { oid::TEXT } else { type_oid };
        let is_nullable = is_nullable || !field.path.is_empty();
        Ok(Expr { base, path: field.path.clone(), as_text, type_oid, converts, is_nullable })
    }

    fn base(&self, scope: &Scope, name: &str) -> Result<(Base, u32, bool), PlanError> {
        let unknown = |table: &str| PlanError::UnknownColumn {
            table: table.to_owned(),
            column: name.to_owned(),
            is_written: false,
        };
        match scope {
            Scope::Outputs(function, outputs) => {
                let found = outputs.iter().find(|(output, _)| &**output == name);
                let (name, type_oid) = found.ok_or_else(|| unknown(function))?;
                Ok((Base::Column(name.clone()), *type_oid, true))
            }
            Scope::Table(at) => {
                let table = &self.schema.tables[*at];
                if let Some(column) = table.column(name) {
                    let base = Base::Column(column.name.clone());
                    return Ok((base, column.type_oid, !column.not_null));
                }
                let computed = self.schema.functions(&table.schema, name).find(|function| {
                    function.arguments.len() == 1
                        && function.arguments[0].type_oid == table.row_type
                        && !function.returns_set
                });
                let function = computed.ok_or_else(|| unknown(&table.name))?;
                let (schema, name) = (function.schema.clone(), function.name.clone());
                Ok((Base::Computed { schema, name }, function.returns, true))
            }
        }
    }

    fn cast(&self, scope: &Scope, name: Option<&str>) -> Result<Option<u32>, PlanError> {
        let Some(name) = name else { return Ok(None) };
        let schema = match scope {
            Scope::Table(at) => &*self.schema.tables[*at].schema,
            Scope::Outputs(..) => "public",
        };
        let found = self.schema.type_named(name, &[schema, "public"]);
        found.map(Some).ok_or_else(|| PlanError::UnknownType(name.to_owned()))
    }

    /// Which rows of a level.
    pub fn condition(
        &mut self,
        level: &Level,
        condition: &Condition,
        depth: usize,
    ) -> Result<Cond, PlanError> {
        if depth > MAX_CONDITION_DEPTH {
            return Err(PlanError::TooMuch("conditions within each other", MAX_CONDITION_DEPTH));
        }
        let mut all = |conditions: &[Condition]| -> Result<Vec<Cond>, PlanError> {
            conditions.iter().map(|one| self.condition(level, one, depth + 1)).collect()
        };
        match condition {
            Condition::And(conditions) => Ok(Cond::And(all(conditions)?)),
            Condition::Or(conditions) => Ok(Cond::Or(all(conditions)?)),
            Condition::Not(inner) => {
                Ok(Cond::Not(Box::new(self.condition(level, inner, depth + 1)?)))
            }
            Condition::Test(field, test) => self.test(level, field, test),
            Condition::Version(version) => Ok(Cond::Version(version.clone())),
        }
    }

    fn test(&mut self, level: &Level, field: &Field, test: &Test) -> Result<Cond, PlanError> {
        self.conditions += 1;
        if self.conditions > MAX_CONDITIONS {
            return Err(PlanError::TooMuch("conditions", MAX_CONDITIONS));
        }
        let values = match test {
            Test::In(values) | Test::HasAnyKey(values) | Test::HasAllKeys(values) => values.len(),
            _ => 0,
        };
        if values > MAX_LIST {
            return Err(PlanError::TooMuch("values in a list", MAX_LIST));
        }
        let embed = level.embeds.iter().position(|e| e.name == field.name);
        match (embed, test) {
            (Some(at), Test::Is(Is::Null)) => return Ok(Cond::Present(at, false)),
            (Some(at), Test::Is(Is::NotNull)) => return Ok(Cond::Present(at, true)),
            _ => {}
        }
        match self.expr(&level.scope, field) {
            Ok(expr) => Ok(Cond::Test(expr, test.clone())),
            Err(PlanError::UnknownColumn { .. }) if embed.is_some() => {
                Err(PlanError::BadEmbedTest(field.name.clone()))
            }
            Err(error) => Err(error),
        }
    }

    /// The order of a level.
    fn order(&self, level: &Level, asked: &[ask::Order]) -> Result<Vec<OrderBy>, PlanError> {
        if asked.len() > MAX_ORDER {
            return Err(PlanError::TooMuch("terms of an order", MAX_ORDER));
        }
        asked.iter().map(|term| self.order_term(level, term)).collect()
    }

    fn order_term(&self, level: &Level, term: &ask::Order) -> Result<OrderBy, PlanError> {
        let (embed, scope) = match &term.relation {
            None => (None, &level.scope),
            Some(name) => {
                let found = level.embeds.iter().position(|embed| embed.name == *name);
                let at = found.ok_or_else(|| PlanError::NotEmbedded(name.clone()))?;
                let embed = &level.embeds[at];
                if !embed.relation.cardinality.is_to_one() {
                    let origin = self.schema.tables[embed.relation.origin].name.to_string();
                    return Err(PlanError::OrderNotToOne { origin, target: name.clone() });
                }
                (Some(at), &embed.level.scope)
            }
        };
        let descends = term.direction == Direction::Descending;
        let nulls_first = match term.nulls {
            None => descends,
            Some(nulls) => nulls == Nulls::First,
        };
        Ok(OrderBy { embed, expr: self.expr(scope, &term.field)?, descends, nulls_first })
    }
}

fn list(table: &Table, columns: &[usize]) -> String {
    let names: Vec<&str> = columns.iter().map(|c| &*table.columns[*c].name).collect();
    names.join(", ")
}

/// The smaller of two limits.
pub(super) fn least(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// The name of a result, if it can be one.
fn result_name(name: &str) -> Result<String, PlanError> {
    if name.is_empty() || name.len() > MAX_NAME || name.contains('\0') {
        return Err(PlanError::BadName(name.chars().take(MAX_NAME).collect()));
    }
    Ok(name.to_owned())
}

/// The last key of a path, or the column.
fn default_name(field: &Field) -> &str {
    let keys = field.path.iter().rev().find_map(|step| match step {
        Step::Key(key) => Some(key.as_str()),
        Step::Index(_) => None,
    });
    keys.unwrap_or(&field.name)
}

/// The name that is most like this one, if one is.
pub(super) fn similar<'n>(name: &str, names: impl Iterator<Item = &'n Name>) -> Option<String> {
    // Of a database with very many tables not all are looked at: this is a courtesy.
    let near = names.take(5000).filter_map(|other| {
        let distance = distance(name, other);
        (distance * 3 <= name.len().max(3)).then_some((distance, other))
    });
    near.min().map(|(_, other)| other.to_string())
}

/// Letters to change, add or remove; of the beginnings of the names.
pub(super) fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) =
        (one.chars().take(64).collect(), other.chars().take(64).collect());
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

/// Columns of a level that its results, its order and its embedded tables need; `None` = all.
pub(super) fn needed(schema: &Schema, level: &Level) -> Option<Vec<Name>> {
    let Scope::Table(at) = level.scope else { return None };
    let mut needed: Vec<Name> = Vec::new();
    let mut add = |base: &Base| match base {
        Base::Column(name) => {
            if !needed.contains(name) {
                needed.push(name.clone());
            }
            Some(())
        }
        Base::Computed { .. } => None,
    };
    for item in &level.items {
        match item {
            Out::All | Out::Version => return None,
            Out::Expr { expr, .. } => add(&expr.base)?,
            Out::Count { .. } | Out::Embed(_) => {}
        }
    }
    for term in level.order.iter().filter(|term| term.embed.is_none()) {
        add(&term.expr.base)?;
    }
    let table = &schema.tables[at];
    for embed in &level.embeds {
        let columns: Vec<usize> = match &embed.relation.junction {
            Some(junction) => schema.foreign_keys[junction.to_origin].target_columns.clone(),
            None => embed.relation.pairs(schema).into_iter().map(|(own, _)| own).collect(),
        };
        for column in columns {
            add(&Base::Column(table.columns[column].name.clone()))?;
        }
    }
    Some(needed)
}
