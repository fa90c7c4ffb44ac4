//! Writes the levels of a plan: results, where the rows come from, which rows, in which order.
//!
//! Aliases: `t` a level's table, `j` the table between it and the level above, `e` an embedded
//! resource, `o` a value that only an order needs, each with the level's number; `s` what is being
//! made JSON.

use std::borrow::Cow;

use super::ask::Aggregate;
use super::condition::Row;
use super::cursor::Position;
use super::resolve::{Base, Cond, Embedded, Expr, Level, OrderBy, Out, Scope, needed};
use super::sql::{Layout, Statement};
use crate::query::schema::{Relation, Schema, oid};

/// Name of the result that is a row's version.
pub(super) const VERSION: &str = "rustydb.version";

/// Limits up to this one are part of the statement's text, so each is a statement of its own.
const PLAIN_LIMIT: u64 = 100;

/// Where the rows of the first level come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The table itself.
    Table,
    /// `w`, which stands before the statement.
    With,
}

/// Where a page of the first level begins.
#[derive(Clone, Copy, Default)]
pub(super) struct Page<'a> {
    pub keyset: Option<&'a Option<Position>>,
}

/// The level above, and how it is connected.
#[derive(Clone, Copy)]
pub(super) struct Parent<'a> {
    embed: &'a Embedded,
    number: usize,
}

/// Writes levels.
pub(super) struct Writer<'s> {
    pub schema: &'s Schema,
    pub out: Statement,
    pub source: Source,
    /// What is written is within JSON that PostgreSQL makes.
    pub as_json: bool,
}

/// Whether a function over the row is among the results or in the order.
fn has_computed(level: &Level) -> bool {
    let computed = |expr: &Expr| matches!(expr.base, Base::Computed { .. });
    let in_item = |item: &Out| matches!(item, Out::Expr { expr, .. } if computed(expr));
    level.items.iter().any(in_item) || level.order.iter().any(|term| computed(&term.expr))
}

/// Whether related rows are a subquery among the results: it costs less than a join, and PostgreSQL
/// makes it when the rows are sorted and cut already. A join to one row may be done in better ways.
fn is_nested(level: &Level, embed: &Embedded) -> bool {
    !embed.spread && !embed.relation.cardinality.is_to_one() && !level.is_grouped()
}

fn is_joined(level: &Level, embed: &Embedded) -> bool {
    !embed.level.is_empty() && !is_nested(level, embed)
}

/// Alias of a level's table.
fn alias(level: &Level) -> Cow<'static, str> {
    const FIRST: [&str; 8] = ["t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7"];
    match FIRST.get(level.number) {
        Some(alias) => Cow::Borrowed(alias),
        None => format!("t{}", level.number).into(),
    }
}

impl Writer<'_> {
    fn push(&mut self, sql: &str) {
        self.out.push(sql);
    }

    /// The whole statement of a first level.
    pub fn rows(&mut self, level: &Level, page: Page<'_>, with_total: bool) {
        self.out.layout = Layout {
            has_total: with_total,
            cursor_values: page.keyset.map_or(0, |_| level.order.len()),
        };
        if !level.embeds.is_empty() {
            self.out.nested = self.nested_columns(level);
        }
        if !with_total {
            return self.select(level, None, page, "");
        }
        self.push("SELECT c.n, r.* FROM (");
        self.count(level);
        self.push(") AS c LEFT JOIN LATERAL (");
        self.select(level, None, page, "TRUE AS \"rustydb.row\"");
        self.push(") AS r ON TRUE");
    }

    /// `SELECT count(*)` of all rows.
    pub fn count(&mut self, level: &Level) {
        self.push("SELECT pg_catalog.count(*) AS n");
        self.rows_of(level, None, None);
    }

    /// A row of a subquery has no type that functions know; this is the one it had.
    fn row_type(&self, level: &Level) -> Option<u32> {
        match (&level.scope, self.source) {
            (Scope::Table(at), Source::With) if level.number == 0 => {
                Some(self.schema.tables[*at].row_type)
            }
            _ => None,
        }
    }

    fn expr(&mut self, level: &Level, expr: &Expr) {
        let (alias, schema, row_type) = (alias(level), self.schema, self.row_type(level));
        self.out.expr(Row { schema, alias: &alias, row_type }, expr);
    }

    /// One level: its results, with a marker before them.
    fn select(&mut self, level: &Level, parent: Option<Parent<'_>>, page: Page<'_>, first: &str) {
        self.push("SELECT ");
        self.push(first);
        let mut is_first = first.is_empty();
        for item in &level.items {
            self.item(level, item, &mut is_first);
        }
        if page.keyset.is_some() {
            for (at, term) in level.order.iter().enumerate() {
                self.comma(&mut is_first);
                self.push("CAST(");
                self.expr(level, &term.expr);
                self.push(" AS pg_catalog.text)");
                self.out.named(&format!("rustydb.cursor{at}"));
            }
        }
        // What is nested in the results is made for the rows of the page and for those before it;
        // what is joined, for all.
        let joins = level.embeds.iter().any(|embed| is_joined(level, embed));
        let limited = level.limit.is_some() && joins || level.offset > 0;
        match limited && !level.embeds.is_empty() && !level.is_grouped() {
            true => self.page_first(level, parent, page),
            false => {
                self.from(level, parent);
                self.joins(level);
                self.conditions(level, parent, page.keyset);
                self.group(level, first);
                self.order(level);
                self.range(level);
            }
        }
    }

    fn comma(&mut self, is_first: &mut bool) {
        if !std::mem::take(is_first) {
            self.push(", ");
        }
    }

    /// The rows of the page in a subquery, and only then what is embedded in them.
    fn page_first(&mut self, level: &Level, parent: Option<Parent<'_>>, page: Page<'_>) {
        let alias = alias(level);
        let columns = needed(self.schema, level);
        let by_related = level.order.iter().any(|term| term.embed.is_some());
        // A function over the row needs the row of the table.
        if has_computed(level) || by_related {
            self.from(level, parent);
            self.joins(level);
            self.conditions(level, parent, page.keyset);
            self.order(level);
            return self.range(level);
        }
        self.push(" FROM (SELECT ");
        match columns {
            None => {
                self.push(&alias);
                self.push(".*");
            }
            Some(columns) => {
                self.out.list(&columns, |out, name| out.column(&alias, name));
            }
        }
        self.from(level, parent);
        self.conditions(level, parent, page.keyset);
        self.order(level);
        self.range(level);
        self.push(") AS ");
        self.push(&alias);
        self.joins(level);
        self.order(level);
    }

    fn item(&mut self, level: &Level, item: &Out, is_first: &mut bool) {
        match item {
            // Each column by itself where rows are grouped by them.
            Out::All if level.is_grouped() => {
                for (name, _) in self.columns_of(level) {
                    self.comma(is_first);
                    self.out.column(&alias(level), &name);
                }
            }
            Out::All => {
                self.comma(is_first);
                self.push(&alias(level));
                self.push(".*");
            }
            Out::Expr { expr, name, cast, aggregate, aggregate_cast } => {
                self.comma(is_first);
                self.cast(*aggregate_cast, |writer| {
                    writer.aggregate(*aggregate, |writer| {
                        writer.cast(*cast, |writer| writer.expr(level, expr));
                    });
                });
                self.out.named(name);
            }
            Out::Count { name, cast } => {
                self.comma(is_first);
                self.cast(*cast, |writer| writer.push("pg_catalog.count(*)"));
                self.out.named(name);
            }
            Out::Embed(at) => self.embedded(level, &level.embeds[*at], is_first),
            Out::Version => {
                self.comma(is_first);
                self.version(&alias(level));
                self.out.named(VERSION);
            }
        }
    }

    /// The text of the whole row tells two rows apart in every table and view.
    fn version(&mut self, alias: &str) {
        self.push(&format!("pg_catalog.md5(CAST(({alias}.*) AS pg_catalog.text))"));
    }

    fn has_version(&mut self, alias: &str, version: &str) {
        self.push("(");
        self.version(alias);
        self.push(" = ");
        self.out.bind(oid::TEXT, version);
        self.push(")");
    }

    fn cast(&mut self, to: Option<u32>, inner: impl FnOnce(&mut Self)) {
        let Some(to) = to else { return inner(self) };
        self.push("CAST(");
        inner(self);
        self.push(" AS ");
        self.out.type_name(self.schema, to);
        self.push(")");
    }

    fn aggregate(&mut self, aggregate: Option<Aggregate>, inner: impl FnOnce(&mut Self)) {
        let Some(aggregate) = aggregate else { return inner(self) };
        self.push("pg_catalog.");
        self.push(aggregate.as_str());
        self.push("(");
        inner(self);
        self.push(")");
    }

    fn embedded(&mut self, level: &Level, embed: &Embedded, is_first: &mut bool) {
        if embed.level.is_empty() {
            return;
        }
        let alias = format!("e{}", embed.level.number);
        let is_one = embed.relation.cardinality.is_to_one();
        if embed.spread {
            for (name, _) in self.outputs(&embed.level) {
                self.comma(is_first);
                self.push(if is_one { "" } else { "coalesce(" });
                self.out.column(&alias, &name);
                self.push(if is_one { "" } else { ", '[]')" });
                self.out.named(&name);
            }
            return;
        }
        self.comma(is_first);
        let is_empty_array = !is_one && self.records(level, embed).is_none();
        self.push(if is_empty_array { "coalesce(" } else { "" });
        if is_nested(level, embed) {
            self.push("(");
            self.whole(level, embed);
            self.push(")");
        } else {
            self.push(&alias);
            self.push(".a");
        }
        self.push(if is_empty_array { ", '[]')" } else { "" });
        // `json` has no equality to group by.
        self.push(if level.is_grouped() { "::pg_catalog.jsonb" } else { "" });
        self.out.named(&embed.name);
    }

    /// A statement whose only value is the rows of an embedded resource.
    fn whole(&mut self, level: &Level, embed: &Embedded) {
        let is_one = embed.relation.cardinality.is_to_one();
        let parent = Some(Parent { embed, number: level.number });
        if self.records(level, embed).is_none() {
            self.push(match is_one {
                true => "SELECT pg_catalog.row_to_json(s.*) AS a",
                false => "SELECT pg_catalog.json_agg(s.*) AS a",
            });
            return self.subquery_as_json(embed, parent);
        }
        self.push(match is_one {
            true => "SELECT pg_catalog.record_send(",
            false => "SELECT pg_catalog.string_agg(pg_catalog.record_send(",
        });
        self.record(&embed.level);
        self.push(if is_one { ") AS a" } else { "), '') AS a" });
        self.subquery(embed, parent);
    }

    fn from(&mut self, level: &Level, parent: Option<Parent<'_>>) {
        self.push(" FROM ");
        let junction = parent.and_then(|parent| {
            let relation = &parent.embed.relation;
            relation.junction.as_ref().map(|junction| (junction, relation.foreign_key))
        });
        if let Some((junction, key)) = junction {
            let (table, key) =
                (&self.schema.tables[junction.table], &self.schema.foreign_keys[key]);
            let (between, own) = (Cow::from(format!("j{}", level.number)), alias(level));
            self.out.qualified(&table.schema, &table.name);
            self.push(&format!(" AS {between} JOIN "));
            self.source(level);
            self.push(" ON ");
            let target = &self.schema.tables[key.target];
            for (at, (from, to)) in key.columns.iter().zip(&key.target_columns).enumerate() {
                self.push(if at > 0 { " AND " } else { "" });
                self.out.column(&between, &table.columns[*from].name);
                self.push(" = ");
                self.out.column(&own, &target.columns[*to].name);
            }
            return;
        }
        self.source(level);
    }

    fn source(&mut self, level: &Level) {
        match (&level.scope, self.source) {
            (_, Source::With) if level.number == 0 => self.push("w"),
            (Scope::Table(at), _) => {
                let table = &self.schema.tables[*at];
                self.out.qualified(&table.schema, &table.name);
            }
            (Scope::Outputs(..), Source::Table | Source::With) => self.push("w"),
        }
        self.push(" AS ");
        self.push(&alias(level));
    }

    fn joins(&mut self, level: &Level) {
        for embed in level.embeds.iter().filter(|embed| is_joined(level, embed)) {
            let parent = Some(Parent { embed, number: level.number });
            let is_one = embed.relation.cardinality.is_to_one();
            self.push(" LEFT JOIN LATERAL (");
            match (embed.spread, is_one) {
                (true, true) => self.select(&embed.level, parent, Page::default(), ""),
                (true, false) => {
                    self.push("SELECT ");
                    for (at, (name, _)) in self.outputs(&embed.level).iter().enumerate() {
                        self.push(if at > 0 { ", " } else { "" });
                        self.push("pg_catalog.json_agg(");
                        self.out.column("s", name);
                        self.push(")");
                        self.out.named(name);
                    }
                    self.subquery_as_json(embed, parent);
                }
                (false, _) => self.whole(level, embed),
            }
            self.push(&format!(") AS e{} ON TRUE", embed.level.number));
        }
        for (at, term) in level.order.iter().enumerate() {
            self.order_join(level, at, term);
        }
    }

    fn subquery_as_json(&mut self, embed: &Embedded, parent: Option<Parent<'_>>) {
        let above = std::mem::replace(&mut self.as_json, true);
        self.subquery(embed, parent);
        self.as_json = above;
    }

    fn subquery(&mut self, embed: &Embedded, parent: Option<Parent<'_>>) {
        self.push(" FROM (");
        self.select(&embed.level, parent, Page::default(), "");
        self.push(") AS s");
    }

    /// The value of a related row that an order needs.
    fn order_join(&mut self, level: &Level, at: usize, term: &OrderBy) {
        let Some(embed) = term.embed.map(|at| &level.embeds[at]) else { return };
        let parent = Some(Parent { embed, number: level.number });
        self.push(" LEFT JOIN LATERAL (SELECT ");
        self.expr(&embed.level, &term.expr);
        self.push(" AS o");
        self.rows_of(&embed.level, parent, None);
        self.push(&format!(" LIMIT 1) AS o{}x{at} ON TRUE", level.number));
    }

    /// Where the rows of a level come from, and which.
    pub fn rows_of(
        &mut self,
        level: &Level,
        parent: Option<Parent<'_>>,
        keyset: Option<&Option<Position>>,
    ) {
        self.from(level, parent);
        self.conditions(level, parent, keyset);
    }

    fn conditions(
        &mut self,
        level: &Level,
        parent: Option<Parent<'_>>,
        keyset: Option<&Option<Position>>,
    ) {
        let mut word = " WHERE ";
        if let Some(parent) = parent {
            self.push(std::mem::replace(&mut word, " AND "));
            self.connection(level, parent);
        }
        if let Some(filter) = &level.filter {
            self.push(std::mem::replace(&mut word, " AND "));
            self.cond(level, filter);
        }
        for embed in level.embeds.iter().filter(|embed| embed.inner) {
            self.push(std::mem::replace(&mut word, " AND "));
            self.exists(level, embed);
        }
        if let Some(Some(position)) = keyset {
            self.push(word);
            self.after(level, position);
        }
    }

    /// How a row is connected with the row of the level above.
    fn connection(&mut self, level: &Level, parent: Parent<'_>) {
        let relation = &parent.embed.relation;
        self.note(relation);
        let (above, own) = (format!("t{}", parent.number), alias(level));
        let origin = &self.schema.tables[relation.origin];
        let (inside, table, pairs) = match &relation.junction {
            None => (own, &self.schema.tables[relation.target], relation.pairs(self.schema)),
            Some(junction) => {
                let key = &self.schema.foreign_keys[junction.to_origin];
                let pairs = key.target_columns.iter().copied().zip(key.columns.iter().copied());
                let between = Cow::from(format!("j{}", level.number));
                (between, &self.schema.tables[junction.table], pairs.collect())
            }
        };
        for (at, (theirs, ours)) in pairs.into_iter().enumerate() {
            self.push(if at > 0 { " AND " } else { "" });
            self.out.column(&inside, &table.columns[ours].name);
            self.push(" = ");
            self.out.column(&above, &origin.columns[theirs].name);
        }
    }

    /// Writes down which tables are read besides.
    fn note(&mut self, relation: &Relation) {
        let between = relation.junction.as_ref().map(|junction| junction.table);
        for at in between.into_iter().chain([relation.target]) {
            let table = &self.schema.tables[at];
            let named = (table.schema.to_string(), table.name.to_string());
            if !self.out.related.contains(&named) {
                self.out.related.push(named);
            }
        }
    }

    fn exists(&mut self, level: &Level, embed: &Embedded) {
        self.push("EXISTS (SELECT 1");
        let parent = Parent { embed, number: level.number };
        self.rows_of(&embed.level, Some(parent), None);
        self.push(")");
    }

    /// A condition on a row of a level.
    pub fn cond(&mut self, level: &Level, cond: &Cond) {
        match cond {
            Cond::And(all) => self.join_conds(level, all, (" AND ", "TRUE")),
            Cond::Or(all) => self.join_conds(level, all, (" OR ", "FALSE")),
            Cond::Not(inner) => {
                self.push("(NOT ");
                self.cond(level, inner);
                self.push(")");
            }
            Cond::Test(expr, test) => {
                let (alias, schema) = (alias(level), self.schema);
                let row_type = self.row_type(level);
                self.push("(");
                self.out.test(Row { schema, alias: &alias, row_type }, expr, test);
                self.push(")");
            }
            Cond::Present(at, present) => {
                self.push(if *present { "" } else { "NOT " });
                self.exists(level, &level.embeds[*at]);
            }
            Cond::Version(version) => self.has_version(&alias(level), version),
        }
    }

    /// A condition on a row of this alias; embedded resources do not occur in it.
    pub fn plain_cond(&mut self, alias: &str, cond: &Cond) {
        let (all, word, none) = match cond {
            Cond::Test(expr, test) => {
                let row = Row { schema: self.schema, alias, row_type: None };
                self.push("(");
                self.out.test(row, expr, test);
                return self.push(")");
            }
            Cond::Not(inner) => {
                self.push("(NOT ");
                self.plain_cond(alias, inner);
                return self.push(")");
            }
            Cond::And(all) => (all, " AND ", "TRUE"),
            Cond::Or(all) => (all, " OR ", "FALSE"),
            // Without embedded resources there is no such condition.
            Cond::Present(..) => return self.push("FALSE"),
            Cond::Version(version) => return self.has_version(alias, version),
        };
        if all.is_empty() {
            return self.push(none);
        }
        self.push("(");
        for (at, cond) in all.iter().enumerate() {
            self.push(if at > 0 { word } else { "" });
            self.plain_cond(alias, cond);
        }
        self.push(")");
    }

    /// The results of a level without embedded resources, after `RETURNING`.
    pub fn returned(&mut self, level: &Level) {
        let mut is_first = true;
        for item in &level.items {
            self.item(level, item, &mut is_first);
        }
    }

    fn join_conds(&mut self, level: &Level, all: &[Cond], (word, none): (&str, &str)) {
        if all.is_empty() {
            return self.push(none);
        }
        self.push("(");
        for (at, cond) in all.iter().enumerate() {
            self.push(if at > 0 { word } else { "" });
            self.cond(level, cond);
        }
        self.push(")");
    }

    fn group(&mut self, level: &Level, first: &str) {
        if !level.is_grouped() {
            return;
        }
        // By their places: two expressions with parameters are never the same to PostgreSQL.
        let mut place = usize::from(!first.is_empty());
        let mut places = Vec::new();
        for item in &level.items {
            let (columns, is_key) = match item {
                Out::All => (self.columns_of(level).len(), true),
                Out::Expr { aggregate, .. } => (1, aggregate.is_none()),
                Out::Count { .. } => (1, false),
                Out::Version => (1, true),
                Out::Embed(at) => {
                    let embed = &level.embeds[*at];
                    match (embed.level.is_empty(), embed.spread) {
                        (true, _) => (0, true),
                        (false, true) => (self.outputs(&embed.level).len(), true),
                        (false, false) => (1, true),
                    }
                }
            };
            if is_key {
                places.extend((place + 1..=place + columns).map(|place| place.to_string()));
            }
            place += columns;
        }
        if !places.is_empty() {
            let related = level.order.iter().enumerate().filter(|(_, term)| term.embed.is_some());
            places.extend(related.map(|(at, _)| format!("o{}x{at}.o", level.number)));
            self.push(" GROUP BY ");
            self.push(&places.join(", "));
        }
    }

    fn order(&mut self, level: &Level) {
        for (at, term) in level.order.iter().enumerate() {
            self.push(if at > 0 { ", " } else { " ORDER BY " });
            match term.embed {
                Some(_) => self.push(&format!("o{}x{at}.o", level.number)),
                None => self.expr(level, &term.expr),
            }
            self.push(if term.descends { " DESC" } else { " ASC" });
            self.push(if term.nulls_first { " NULLS FIRST" } else { " NULLS LAST" });
        }
    }

    fn range(&mut self, level: &Level) {
        match level.limit {
            // PostgreSQL plans a statement whose limit it does not know anew each time.
            Some(limit) if limit <= PLAIN_LIMIT => self.push(&format!(" LIMIT {limit}")),
            Some(limit) => {
                self.push(" LIMIT ");
                self.out.bind(oid::INT8, limit.min(i64::MAX as u64).to_string());
            }
            None => {}
        }
        if level.offset > 0 {
            self.push(" OFFSET ");
            self.out.bind(oid::INT8, level.offset.min(i64::MAX as u64).to_string());
        }
    }

    /// The rows that come after a position.
    fn after(&mut self, level: &Level, position: &Position) {
        let terms: Vec<(&OrderBy, Option<&str>)> =
            level.order.iter().zip(position.values.iter().map(Option::as_deref)).collect();
        let plain = |(term, value): &(&OrderBy, Option<&str>)| {
            !term.expr.is_nullable && value.is_some() && term.descends == level.order[0].descends
        };
        // One comparison of rows can use an index.
        if terms.iter().all(plain) {
            self.push("(");
            for (at, (term, _)) in terms.iter().enumerate() {
                self.push(if at > 0 { ", " } else { "" });
                self.expr(level, &term.expr);
            }
            self.push(if level.order[0].descends { ") < (" } else { ") > (" });
            for (at, (term, value)) in terms.iter().enumerate() {
                self.push(if at > 0 { ", " } else { "" });
                self.out.bind(term.expr.type_oid, value.unwrap_or_default());
            }
            return self.push(")");
        }
        self.push("(");
        for at in 0..terms.len() {
            self.push(if at > 0 { " OR (" } else { "(" });
            for (term, value) in &terms[..at] {
                self.same(level, term, *value);
                self.push(" AND ");
            }
            let (term, value) = terms[at];
            self.beyond(level, term, value);
            self.push(")");
        }
        self.push(")");
    }

    fn same(&mut self, level: &Level, term: &OrderBy, value: Option<&str>) {
        self.expr(level, &term.expr);
        match value {
            None => self.push(" IS NULL"),
            Some(value) => {
                self.push(" = ");
                self.out.bind(term.expr.type_oid, value);
            }
        }
    }

    fn beyond(&mut self, level: &Level, term: &OrderBy, value: Option<&str>) {
        match (value, term.nulls_first) {
            // Nothing comes after the NULLs at the end.
            (None, false) => self.push("FALSE"),
            (None, true) => {
                self.expr(level, &term.expr);
                self.push(" IS NOT NULL");
            }
            (Some(value), nulls_first) => {
                self.push("(");
                self.expr(level, &term.expr);
                self.push(if term.descends { " < " } else { " > " });
                self.out.bind(term.expr.type_oid, value);
                if term.expr.is_nullable && !nulls_first {
                    self.push(" OR ");
                    self.expr(level, &term.expr);
                    self.push(" IS NULL");
                }
                self.push(")");
            }
        }
    }
}
