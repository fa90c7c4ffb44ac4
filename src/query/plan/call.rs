//! A call of a function as one statement.

use super::ask::{Arguments, Call, Count};
use super::error::PlanError;
use super::resolve::{Level, Limits, Resolver, Scope, distance, least, similar};
use super::rows::{Page, Source, Writer};
use super::sql::{Statement, array_text};
use super::{MAX_LIST, ask};
use crate::query::schema::{Argument, Function, Name, Schema, TypeKind, Volatility, oid};

/// Functions of one name whose arguments are looked at for a hint.
const MAX_SIMILAR: usize = 100;

/// What a function gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returns {
    /// Nothing.
    Nothing,
    /// One value, in a row with one column.
    Scalar,
    /// Values, each in a row with one column.
    Scalars,
    /// One row.
    Row,
    /// Rows.
    Rows,
}

/// A statement that calls a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallPlan {
    function: u32,
    arguments: Arguments,
    level: Option<Level>,
    /// Most values, and those that are left out before them, when there is no level.
    page: (Option<u64>, u64),
    returns: Returns,
    count: Count,
    is_read_only: bool,
    guides_response: bool,
}

/// Chooses the function and resolves what is wanted of its result.
pub fn plan_call(schema: &Schema, limits: Limits, asked: &Call) -> Result<CallPlan, PlanError> {
    let (function, arguments) = choose(schema, asked)?;
    let returns = returns(schema, function);
    let mut resolver = Resolver::new(schema, limits);
    let level = match returns {
        Returns::Nothing | Returns::Scalar | Returns::Scalars => None,
        Returns::Row | Returns::Rows => {
            let row_type = schema.base_type(function.returns);
            let scope = match schema.table_of_row_type(row_type) {
                Some(at) => Scope::Table(at),
                None => Scope::Outputs(function.name.clone(), columns(schema, function)),
            };
            Some(resolver.level(scope, &asked.level, 0)?)
        }
    };
    let page = match returns {
        Returns::Scalars => (least(asked.level.limit, limits.max_rows), asked.level.offset),
        _ => (None, 0),
    };
    Ok(CallPlan {
        function: function.oid,
        arguments,
        level,
        page,
        returns,
        count: asked.count,
        is_read_only: function.volatility != Volatility::Volatile,
        guides_response: function.guides_response,
    })
}

/// PostgREST's rule: the names given must be all that are required and no others; a function with
/// one argument without a name comes last.
fn choose<'s>(schema: &'s Schema, asked: &Call) -> Result<(&'s Function, Arguments), PlanError> {
    let target = &asked.target;
    let all: Vec<&Function> =
        schema.functions(&target.schema, &target.name).filter(|f| !f.is_procedure).collect();
    let names = asked.arguments.names();
    if names.len() > MAX_LIST {
        return Err(PlanError::TooMuch("arguments", MAX_LIST));
    }
    let named: Vec<&Function> =
        all.iter().copied().filter(|function| fits(function, &names)).collect();
    match (&named[..], &asked.arguments) {
        ([only], Arguments::Named(_) | Arguments::Json { .. }) => {
            return Ok((only, asked.arguments.clone()));
        }
        ([_, _, ..], Arguments::Named(_) | Arguments::Json { .. }) => {
            return Err(ambiguous(schema, &named));
        }
        _ => {}
    }
    let single = match &asked.arguments {
        Arguments::Single { .. } => Some(&asked.arguments),
        _ => asked.fallback.as_ref(),
    };
    if let Some(Arguments::Single { types, .. }) = single {
        let takes = |function: &&Function| match &function.arguments[..] {
            [only] => only.name.is_empty() && types.contains(&only.type_oid),
            _ => false,
        };
        let fitting: Vec<&Function> = all.iter().copied().filter(takes).collect();
        match (&fitting[..], single) {
            ([only], Some(single)) => return Ok((only, single.clone())),
            ([_, _, ..], _) => return Err(ambiguous(schema, &fitting)),
            _ => {}
        }
    }
    Err(PlanError::UnknownFunction {
        schema: target.schema.clone(),
        name: target.name.clone(),
        arguments: names.iter().map(|name| (*name).to_owned()).collect(),
        similar: match &all[..] {
            [] => similar(&target.name, schema.functions_of(&target.schema)),
            all => similar_arguments(all, &names).map(|list| format!("{}{list}", target.name)),
        },
    })
}

/// The arguments of the function that takes those which are most like these, if any are alike.
fn similar_arguments(functions: &[&Function], names: &[&str]) -> Option<String> {
    let list = |mut names: Vec<&str>| {
        names.sort_unstable();
        format!("({})", names.join(", "))
    };
    let given = list(names.to_vec());
    let near = functions.iter().take(MAX_SIMILAR).filter_map(|function| {
        let taken = list(function.arguments.iter().map(|a| &*a.name).collect());
        let (distance, longest) = (distance(&given, &taken), given.len().max(taken.len()));
        (distance * 3 <= longest * 2).then_some((distance, taken))
    });
    near.min().map(|(_, taken)| taken)
}

fn fits(function: &Function, names: &[&str]) -> bool {
    let is_known = |name: &&str| function.arguments.iter().any(|a| *a.name == **name);
    let is_given = |a: &Argument| a.has_default || a.variadic || names.contains(&&*a.name);
    names.iter().all(|name| !name.is_empty() && is_known(name))
        && function.arguments.iter().all(is_given)
}

fn ambiguous(schema: &Schema, functions: &[&Function]) -> PlanError {
    let argument = |a: &Argument| format!("{} => {}", a.name, schema.sql_name(a.type_oid));
    let describe = |function: &&Function| {
        let arguments: Vec<String> = function.arguments.iter().map(argument).collect();
        format!("{}.{}({})", function.schema, function.name, arguments.join(", "))
    };
    PlanError::AmbiguousFunction(functions.iter().map(describe).collect())
}

impl Arguments {
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = match self {
            Arguments::Named(pairs) => pairs.iter().map(|(name, _)| name.as_str()).collect(),
            Arguments::Json { names, .. } => names.iter().map(String::as_str).collect(),
            Arguments::Single { .. } => Vec::new(),
        };
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn returns(schema: &Schema, function: &Function) -> Returns {
    let base = schema.base_type(function.returns);
    let is_composite = schema.table_of_row_type(base).is_some()
        || base == oid::RECORD && !function.outputs.is_empty()
        || matches!(schema.type_entry(base).map(|t| &t.kind), Some(TypeKind::Composite(_)));
    match (base, is_composite, function.returns_set) {
        (oid::VOID, ..) => Returns::Nothing,
        (_, true, true) => Returns::Rows,
        (_, true, false) => Returns::Row,
        (_, false, true) if function.outputs.is_empty() => Returns::Scalars,
        (_, false, true) => Returns::Rows,
        (_, false, false) if function.outputs.is_empty() => Returns::Scalar,
        (_, false, false) => Returns::Row,
    }
}

/// The columns of a result that is no row of a table.
fn columns(schema: &Schema, function: &Function) -> Vec<(Name, u32)> {
    let base = schema.base_type(function.returns);
    match schema.type_entry(base).map(|entry| &entry.kind) {
        Some(TypeKind::Composite(fields)) if function.outputs.is_empty() => fields.clone(),
        _ => function.outputs.clone(),
    }
}

/// Whether only the rows themselves tell which columns they have.
fn is_bare_record(function: &Function) -> bool {
    function.returns == oid::RECORD && function.outputs.is_empty()
}

impl CallPlan {
    /// What the function gives.
    pub fn returns(&self) -> Returns {
        self.returns
    }

    /// Whether the function says that it changes nothing.
    pub fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// Whether the function may say something about the answer that it is given in.
    pub fn guides_response(&self) -> bool {
        self.guides_response
    }

    /// Settings that the function wants, which must hold before it is called.
    pub fn settings<'s>(&self, schema: &'s Schema) -> &'s [(Name, Name)] {
        let found = schema.functions.binary_search_by_key(&self.function, |f| f.oid);
        found.map_or(&[], |at| &schema.functions[at].settings)
    }

    /// Whether the number of all rows is wanted, and how. It is always counted.
    pub fn count(&self) -> Count {
        self.count
    }

    /// Rows that the statement leaves out at the beginning.
    pub fn offset(&self) -> u64 {
        self.level.as_ref().map_or(self.page.1, |level| level.offset)
    }

    /// The statement. The function is called once, also when its rows are counted.
    pub fn statement(&self, schema: &Schema) -> Result<Statement, PlanError> {
        let found = schema.functions.binary_search_by_key(&self.function, |f| f.oid);
        let function = found.ok().map(|at| &schema.functions[at]);
        let function = function.ok_or(PlanError::Unsupported("the function is gone"))?;
        let mut writer =
            Writer { schema, out: Statement::begin(), source: Source::With, as_json: false };
        match &self.level {
            None if self.page != (None, 0)
                || self.returns == Returns::Scalars && self.count != Count::None =>
            {
                writer.out.push("WITH w AS MATERIALIZED (SELECT ");
                if is_bare_record(function) {
                    self.value(&mut writer.out, schema, function)?;
                    writer.out.push(" AS v");
                    self.source(&mut writer.out, schema, function, " FROM ")?;
                    writer.out.push(") ");
                } else {
                    writer.out.push("f.v FROM ");
                    self.from(&mut writer.out, schema, function)?;
                    writer.out.push(" AS f(v)) ");
                }
                self.values(&mut writer.out, &function.name);
            }
            None => {
                writer.out.push("SELECT ");
                self.value(&mut writer.out, schema, function)?;
                writer.out.named(&function.name);
                self.source(&mut writer.out, schema, function, " FROM ")?;
            }
            Some(level) => {
                writer.out.push("WITH w AS MATERIALIZED (SELECT f.* FROM ");
                self.from(&mut writer.out, schema, function)?;
                writer.out.push(" AS f) ");
                writer.rows(level, Page::default(), self.count != Count::None);
            }
        }
        Ok(writer.out)
    }

    /// The call as a value. Without columns a record cannot be selected from, but it can be JSON.
    fn value(
        &self,
        out: &mut Statement,
        schema: &Schema,
        function: &Function,
    ) -> Result<(), PlanError> {
        let is_bare = is_bare_record(function);
        out.push(if is_bare { "pg_catalog.to_json(" } else { "" });
        self.call(out, schema, function)?;
        out.push(if is_bare { ")" } else { "" });
        Ok(())
    }

    /// The call as something to select from.
    fn from(
        &self,
        out: &mut Statement,
        schema: &Schema,
        function: &Function,
    ) -> Result<(), PlanError> {
        self.source(out, schema, function, "")?;
        let has_source = self.json_arguments(function).next().is_some();
        out.push(if has_source { ", LATERAL " } else { "" });
        self.call(out, schema, function)
    }

    /// A page of the values in `w`, under this name.
    fn values(&self, out: &mut Statement, name: &str) {
        let with_total = self.count != Count::None;
        out.layout.has_total = with_total;
        if with_total {
            out.push("SELECT c.n, r.* FROM (SELECT pg_catalog.count(*) AS n FROM w) AS c ");
            out.push("LEFT JOIN LATERAL (SELECT TRUE AS \"rustydb.row\", w.v");
        } else {
            out.push("SELECT w.v");
        }
        out.named(name);
        out.push(" FROM w");
        let (limit, offset) = self.page;
        for (word, number) in [(" LIMIT ", limit), (" OFFSET ", Some(offset).filter(|n| *n > 0))] {
            if let Some(number) = number {
                out.push(word);
                out.bind(oid::INT8, number.min(i64::MAX as u64).to_string());
            }
        }
        out.push(if with_total { ") AS r ON TRUE" } else { "" });
    }

    /// Arguments whose values come out of a JSON object.
    fn json_arguments<'f>(&self, function: &'f Function) -> impl Iterator<Item = &'f Argument> {
        let names = match &self.arguments {
            Arguments::Json { names, .. } => names.clone(),
            _ => Vec::new(),
        };
        function.arguments.iter().filter(move |a| names.iter().any(|name| **name == *a.name))
    }

    /// The JSON object as a row.
    fn source(
        &self,
        out: &mut Statement,
        schema: &Schema,
        function: &Function,
        before: &str,
    ) -> Result<(), PlanError> {
        let Arguments::Json { json, .. } = &self.arguments else { return Ok(()) };
        let mut arguments = self.json_arguments(function).peekable();
        if arguments.peek().is_none() {
            return Ok(());
        }
        out.push(before);
        out.push("pg_catalog.json_to_record(");
        out.bind(oid::JSON, json.as_str());
        out.push(") AS b(");
        let mut known = true;
        out.list(arguments, |out, argument| {
            out.name(&argument.name);
            out.push(" ");
            known &= out.type_name(schema, argument.type_oid);
        });
        out.push(")");
        known
            .then_some(())
            .ok_or_else(|| PlanError::UnknownType(format!("of an argument of {}", function.name)))
    }

    fn call(
        &self,
        out: &mut Statement,
        schema: &Schema,
        function: &Function,
    ) -> Result<(), PlanError> {
        out.qualified(&function.schema, &function.name);
        out.push("(");
        match &self.arguments {
            Arguments::Single { value, .. } => {
                let type_oid = function.arguments.first().map_or(oid::UNKNOWN, |a| a.type_oid);
                out.bind(type_oid, single_text(type_oid, value));
            }
            Arguments::Json { .. } => {
                out.list(self.json_arguments(function), |out, argument| {
                    out.push(if argument.variadic { "VARIADIC " } else { "" });
                    out.name(&argument.name);
                    out.push(" => ");
                    out.column("b", &argument.name);
                });
            }
            Arguments::Named(pairs) => {
                let given = |a: &&Argument| pairs.iter().any(|(name, _)| **name == *a.name);
                out.list(function.arguments.iter().filter(given), |out, argument| {
                    out.push(if argument.variadic { "VARIADIC " } else { "" });
                    out.name(&argument.name);
                    out.push(" => ");
                    out.bind(argument.type_oid, named_text(schema, argument, pairs));
                });
            }
        }
        out.push(")");
        Ok(())
    }
}

/// The last value of a name; all of them for an array. Of a variadic argument each value is an
/// element, also one that looks like an array.
fn named_text(schema: &Schema, argument: &Argument, pairs: &[(String, String)]) -> String {
    let values: Vec<&str> = pairs
        .iter()
        .filter(|(name, _)| **name == *argument.name)
        .map(|(_, value)| value.as_str())
        .collect();
    let base = schema.base_type(argument.type_oid);
    let is_array = matches!(schema.type_entry(base).map(|t| &t.kind), Some(TypeKind::Array(_)));
    let is_list = argument.variadic || is_array && values.len() > 1;
    match is_list {
        true => array_text(values),
        false => values.last().copied().unwrap_or_default().to_owned(),
    }
}

/// PostgreSQL's text form of the only argument.
fn single_text(type_oid: u32, value: &[u8]) -> Vec<u8> {
    if type_oid != oid::BYTEA {
        return value.to_vec();
    }
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = b"\\x".to_vec();
    for byte in value {
        text.push(DIGITS[usize::from(byte >> 4)]);
        text.push(DIGITS[usize::from(byte & 15)]);
    }
    text
}

/// Every row, every column.
impl Default for Call {
    fn default() -> Self {
        Self {
            target: ask::Target { schema: String::new(), name: String::new() },
            arguments: Arguments::Named(Vec::new()),
            fallback: None,
            level: ask::Level::default(),
            count: Count::None,
        }
    }
}
