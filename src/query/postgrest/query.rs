//! A query string as a whole: which parameter is what, and which embedded resource it is about.

use super::error::Refusal;
use super::{filter, range, select};
use crate::query::plan::PlanError;
use crate::query::plan::ask::{Condition, Item, Level, Order};

/// What the query string belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Rows that are read.
    Rows,
    /// Rows that are changed: limits of the first level mean nothing.
    Change,
    /// A call whose arguments are in the query string too.
    Call,
}

/// A query string, understood.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    /// What is wanted, with the filters of embedded resources but not those of the first level.
    pub level: Level,
    pub filter: Option<Condition>,
    pub columns: Option<Vec<String>>,
    pub on_conflict: Option<Vec<String>>,
    pub arguments: Vec<(String, String)>,
    pub cursor: Option<String>,
    /// Whether there are limits of the first level.
    pub has_range: bool,
}

/// Names with a meaning of their own, also after the name of an embedded resource.
const ENDINGS: [&str; 5] = ["order", "limit", "offset", "and", "or"];

impl Query {
    pub fn parse(pairs: &[(String, String)], kind: Kind) -> Result<Self, Refusal> {
        let mut query = Query::default();
        let select = pairs.iter().find(|(name, _)| name == "select");
        query.level.items = match select {
            Some((_, text)) => select::select(text)?,
            None => vec![Item::All],
        };
        for (name, value) in pairs {
            query.parameter(name, value, kind)?;
        }
        Ok(query)
    }

    fn parameter(&mut self, name: &str, value: &str, kind: Kind) -> Result<(), Refusal> {
        match name {
            "select" => return Ok(()),
            "columns" => {
                if !value.is_empty() && self.columns.is_none() {
                    self.columns = Some(select::columns("columns parameter", value)?);
                }
                return Ok(());
            }
            "on_conflict" => {
                if !value.is_empty() && self.on_conflict.is_none() {
                    self.on_conflict = Some(select::columns("on_conflict parameter", value)?);
                }
                return Ok(());
            }
            // A column of that name is filtered with an operator, which has a dot.
            "cursor" if kind == Kind::Rows && !value.contains('.') => {
                self.cursor = Some(value.to_owned());
                return Ok(());
            }
            _ => {}
        }
        let last = name.rsplit('.').next().unwrap_or(name);
        if ENDINGS.contains(&last) {
            return self.special(name, last, value, kind);
        }
        if kind == Kind::Call && !name.contains('.') {
            let condition = filter::path(name).and_then(|(_, field)| filter::filter(field, value));
            match condition {
                Ok(condition) => self.add(condition),
                Err(_) => self.arguments.push((name.to_owned(), value.to_owned())),
            }
            return Ok(());
        }
        let (path, field) = filter::path(name)?;
        let condition = filter::filter(field, value)?;
        self.add_at(&path, condition)
    }

    fn special(&mut self, name: &str, last: &str, value: &str, kind: Kind) -> Result<(), Refusal> {
        let (mut path, _) = filter::path(name)?;
        match last {
            "and" | "or" => {
                let negated = path.iter().any(|part| part == "not");
                path.retain(|part| part != "not");
                let condition = filter::logic(last == "or", negated, value)?;
                self.add_at(&path, condition)
            }
            "order" => {
                let order: Vec<Order> = match value {
                    "" => Vec::new(),
                    value => select::order(value)?,
                };
                let level = level_at(&mut self.level, &path)?;
                if level.order.is_empty() {
                    level.order = order;
                }
                Ok(())
            }
            _ => self.limit(&path, last, value, kind),
        }
    }

    fn limit(
        &mut self,
        path: &[String],
        last: &str,
        value: &str,
        kind: Kind,
    ) -> Result<(), Refusal> {
        let what = if last == "limit" { "limit" } else { "offset" };
        let number = range::number(what, value)?;
        if path.is_empty() {
            self.has_range = true;
            if kind == Kind::Change {
                return Ok(());
            }
        }
        let level = level_at(&mut self.level, path)?;
        match last {
            "limit" => level.limit = Some(number),
            _ => level.offset = number,
        }
        Ok(())
    }

    fn add(&mut self, condition: Condition) {
        self.filter = Some(both(self.filter.take(), condition));
    }

    fn add_at(&mut self, path: &[String], condition: Condition) -> Result<(), Refusal> {
        if path.is_empty() {
            self.add(condition);
            return Ok(());
        }
        let level = level_at(&mut self.level, path)?;
        level.filter = Some(both(level.filter.take(), condition));
        Ok(())
    }
}

fn both(one: Option<Condition>, other: Condition) -> Condition {
    match one {
        // A group of its own stays one.
        None => Condition::And(vec![other]),
        Some(all) => all.and(other),
    }
}

/// The level of an embedded resource, which is called by its alias or its name.
fn level_at<'l>(level: &'l mut Level, path: &[String]) -> Result<&'l mut Level, Refusal> {
    let Some((first, rest)) = path.split_first() else { return Ok(level) };
    let found = level.items.iter_mut().find_map(|item| match item {
        Item::Embed(embed) if embed.alias.as_ref() == Some(first) || embed.target == *first => {
            Some(&mut embed.level)
        }
        _ => None,
    });
    match found {
        Some(level) => level_at(level, rest),
        None => Err(PlanError::NotEmbedded(first.clone()).into()),
    }
}
