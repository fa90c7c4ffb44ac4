//! Conditions and values of rows as SQL.

use super::ask::{Is, Operator, Quantifier, Step, Test, TextQuery};
use super::resolve::{Base, Expr};
use super::sql::{Statement, array_text};
use crate::query::schema::{Schema, oid};

/// The row that an expression is about.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub schema: &'a Schema,
    /// Its alias.
    pub alias: &'a str,
    /// The type that functions over the row want, when the row is that of a subquery.
    pub row_type: Option<u32>,
}

impl Operator {
    fn as_str(self) -> &'static str {
        match self {
            Operator::Equal => "=",
            Operator::NotEqual => "<>",
            Operator::Less => "<",
            Operator::LessOrEqual => "<=",
            Operator::Greater => ">",
            Operator::GreaterOrEqual => ">=",
            Operator::Like => "LIKE",
            Operator::ILike => "ILIKE",
            Operator::Match => "~",
            Operator::IMatch => "~*",
            Operator::Contains => "@>",
            Operator::ContainedBy => "<@",
            Operator::Overlaps => "&&",
            Operator::StrictlyLeft => "<<",
            Operator::StrictlyRight => ">>",
            Operator::NotRightOf => "&<",
            Operator::NotLeftOf => "&>",
            Operator::Adjacent => "-|-",
        }
    }

    /// Whether the value on its right is text, whatever is on its left.
    fn takes_text(self) -> bool {
        matches!(self, Operator::Like | Operator::ILike | Operator::Match | Operator::IMatch)
    }
}

impl TextQuery {
    fn as_str(self) -> &'static str {
        match self {
            TextQuery::Query => "pg_catalog.to_tsquery(",
            TextQuery::Plain => "pg_catalog.plainto_tsquery(",
            TextQuery::Phrase => "pg_catalog.phraseto_tsquery(",
            TextQuery::WebSearch => "pg_catalog.websearch_to_tsquery(",
        }
    }
}

impl Statement {
    /// A value of a row.
    pub(super) fn expr(&mut self, row: Row<'_>, expr: &Expr) {
        if expr.path.is_empty() {
            return self.base(row, &expr.base);
        }
        self.push("(");
        if expr.converts {
            self.push("pg_catalog.to_jsonb(");
        }
        self.base(row, &expr.base);
        if expr.converts {
            self.push(")");
        }
        for (at, step) in expr.path.iter().enumerate() {
            let is_last = at + 1 == expr.path.len();
            self.push(if is_last && expr.as_text { "->>" } else { "->" });
            match step {
                Step::Key(key) => self.bind_once(oid::TEXT, key),
                Step::Index(index) => self.bind_once(oid::INT4, &index.to_string()),
            }
        }
        self.push(")");
    }

    fn base(&mut self, row: Row<'_>, base: &Base) {
        match base {
            Base::Column(name) => self.column(row.alias, name),
            Base::Computed { schema, name } => {
                self.qualified(schema, name);
                self.push("(");
                self.whole(row);
                self.push(")");
            }
        }
    }

    fn whole(&mut self, row: Row<'_>) {
        let Some(row_type) = row.row_type else {
            self.push(row.alias);
            return self.push(".*");
        };
        self.push("CAST(ROW(");
        self.push(row.alias);
        self.push(".*) AS ");
        self.type_name(row.schema, row_type);
        self.push(")");
    }

    /// A test of a value.
    pub(super) fn test(&mut self, row: Row<'_>, expr: &Expr, test: &Test) {
        match test {
            Test::Compare { operator, quantifier, value } => {
                self.compare(row, expr, (*operator, *quantifier), value);
            }
            Test::Distinct(value) => {
                self.expr(row, expr);
                self.push(" IS DISTINCT FROM ");
                let value = value.as_ref().map(|value| value.as_bytes().to_vec());
                self.bind_value(expr.type_oid, value);
            }
            Test::Is(is) => {
                self.expr(row, expr);
                self.push(match is {
                    Is::Null => " IS NULL",
                    Is::NotNull => " IS NOT NULL",
                    Is::True => " IS TRUE",
                    Is::False => " IS FALSE",
                    Is::Unknown => " IS UNKNOWN",
                });
            }
            Test::In(values) => {
                self.expr(row, expr);
                self.push(" = ANY (");
                let text = array_text(values.iter().map(String::as_str));
                self.bind(row.schema.array_of(expr.type_oid), text);
                self.push(")");
            }
            Test::Between(low, high) => {
                self.expr(row, expr);
                self.push(" BETWEEN ");
                self.bind(expr.type_oid, low.as_str());
                self.push(" AND ");
                self.bind(expr.type_oid, high.as_str());
            }
            Test::FullText { kind, config, query } => {
                self.full_text(row, expr, (*kind, config.as_deref()), query);
            }
            Test::HasKey(_)
            | Test::HasAnyKey(_)
            | Test::HasAllKeys(_)
            | Test::PathExists(_)
            | Test::JsonContains { .. } => self.json_test(row, expr, test),
        }
    }

    fn compare(
        &mut self,
        row: Row<'_>,
        expr: &Expr,
        (operator, quantifier): (Operator, Option<Quantifier>),
        value: &str,
    ) {
        self.expr(row, expr);
        self.push(" ");
        self.push(operator.as_str());
        let scalar = if operator.takes_text() { oid::TEXT } else { expr.type_oid };
        let Some(quantifier) = quantifier else {
            self.push(" ");
            return self.bind(scalar, value);
        };
        self.push(match quantifier {
            Quantifier::Any => " ANY (",
            Quantifier::All => " ALL (",
        });
        let array = match scalar {
            oid::TEXT => oid::TEXT_ARRAY,
            other => row.schema.array_of(other),
        };
        self.bind(array, value);
        self.push(")");
    }

    fn full_text(
        &mut self,
        row: Row<'_>,
        expr: &Expr,
        (kind, config): (TextQuery, Option<&str>),
        query: &str,
    ) {
        let with_config = |out: &mut Self| {
            if let Some(config) = config {
                out.bind(oid::REGCONFIG, config);
                out.push(", ");
            }
        };
        if row.schema.base_type(expr.type_oid) == oid::TSVECTOR {
            self.expr(row, expr);
        } else {
            self.push("pg_catalog.to_tsvector(");
            with_config(self);
            self.expr(row, expr);
            self.push(")");
        }
        self.push(" @@ ");
        self.push(kind.as_str());
        with_config(self);
        self.bind(oid::TEXT, query);
        self.push(")");
    }

    fn json_test(&mut self, row: Row<'_>, expr: &Expr, test: &Test) {
        let type_oid = row.schema.base_type(expr.type_oid);
        if type_oid == oid::JSONB {
            self.expr(row, expr);
        } else {
            self.push("pg_catalog.to_jsonb(");
            self.expr(row, expr);
            self.push(")");
        }
        match test {
            Test::HasKey(key) => {
                self.push(" ? ");
                self.bind(oid::TEXT, key.as_str());
            }
            Test::HasAnyKey(keys) => {
                self.push(" ?| ");
                self.bind(oid::TEXT_ARRAY, array_text(keys.iter().map(String::as_str)));
            }
            Test::HasAllKeys(keys) => {
                self.push(" ?& ");
                self.bind(oid::TEXT_ARRAY, array_text(keys.iter().map(String::as_str)));
            }
            Test::PathExists(path) => {
                self.push(" @? ");
                self.bind(oid::JSONPATH, path.as_str());
            }
            Test::JsonContains { reversed, value } => {
                self.push(if *reversed { " <@ " } else { " @> " });
                self.bind(oid::JSONB, value.as_str());
            }
            _ => {}
        }
    }
}
