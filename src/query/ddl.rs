//! Definitions made from their parts: names are quoted, types and expressions are checked to be
//! nothing else before they become part of a statement.

use std::fmt::Write;

use super::lexer::{Lexer, Token};
use super::quote_ident;
use crate::error::{Error, ErrorKind, Result};

/// Longest name that PostgreSQL does not cut (`NAMEDATALEN` − 1).
const MAX_NAME: usize = 63;

/// Columns of a table (`MaxHeapAttributeNumber`).
const MAX_COLUMNS: usize = 1600;

fn invalid(text: String) -> Error {
    Error::new(ErrorKind::ValidationError, text)
}

/// As [`quote_ident`], but a name that PostgreSQL would cut or cannot take is an error.
pub fn quote_name(name: &str) -> Result<String> {
    match name {
        "" => Err(invalid("a name is empty".into())),
        _ if name.contains('\0') => Err(invalid("a name contains U+0000".into())),
        _ if name.len() > MAX_NAME => {
            Err(invalid(format!("the name \"{name}\" is longer than {MAX_NAME} bytes")))
        }
        _ => Ok(quote_ident(name)),
    }
}

/// A name in a schema.
pub fn quote_qualified(schema: &str, name: &str) -> Result<String> {
    Ok(format!("{}.{}", quote_name(schema)?, quote_name(name)?))
}

/// Names with commas.
pub fn quote_list<S: AsRef<str>>(names: &[S]) -> Result<String> {
    let quoted: Result<Vec<_>> = names.iter().map(|name| quote_name(name.as_ref())).collect();
    Ok(quoted?.join(", "))
}

/// Checks that a text is one expression that can stand in parentheses: it ends all of its strings,
/// comments and parentheses, and begins none of another statement.
pub fn check_expression(what: &str, text: &str) -> Result<()> {
    let refused = |why: &str| Err(invalid(format!("{what} is not one expression: {why}")));
    if text.trim().is_empty() {
        return refused("it is empty");
    }
    if text.contains('\0') {
        return refused("it contains U+0000");
    }
    let mut lexer = Lexer::new(text.as_bytes());
    let mut open = Vec::new();
    for token in lexer.by_ref() {
        match token {
            Token::Symbol(b';') => return refused("it contains a semicolon"),
            Token::Symbol(bracket @ (b'(' | b'[')) => open.push(bracket),
            Token::Symbol(b')') if open.pop() != Some(b'(') => {
                return refused("a parenthesis is closed that was not opened");
            }
            Token::Symbol(b']') if open.pop() != Some(b'[') => {
                return refused("a bracket is closed that was not opened");
            }
            _ => {}
        }
    }
    match (open.is_empty(), lexer.unsure) {
        (true, false) => Ok(()),
        (false, _) => refused("a parenthesis is not closed"),
        (_, true) => refused("a string or comment does not end"),
    }
}

/// The expression in parentheses; the line ends before them, because a comment may be open.
fn parenthesized(what: &str, text: &str) -> Result<String> {
    check_expression(what, text)?;
    Ok(format!("({text}\n)"))
}

/// A column of a table that is to be.
#[derive(Clone, Debug, Default)]
pub struct NewColumn<'a> {
    /// Name.
    pub name: &'a str,
    /// Type, which the caller has had PostgreSQL read as one.
    pub data_type: &'a str,
    /// Whether NULL is refused.
    pub not_null: bool,
    /// Expression.
    pub default: Option<&'a str>,
    /// Whether its values are unique.
    pub unique: bool,
    /// Expression.
    pub check: Option<&'a str>,
    /// Schema, table, column and ON DELETE of the table it refers to.
    pub references: Option<References<'a>>,
}

/// What a column refers to.
#[derive(Clone, Debug)]
pub struct References<'a> {
    /// Schema of the table.
    pub schema: &'a str,
    /// The table.
    pub table: &'a str,
    /// The column; `None` = its primary key.
    pub column: Option<&'a str>,
    /// What happens here when the row there is deleted.
    pub on_delete: Option<&'a str>,
}

impl NewColumn<'_> {
    /// Writes the definition of the column.
    pub fn write(&self, sql: &mut String) -> Result<()> {
        let _ = write!(sql, "{} {}", quote_name(self.name)?, self.data_type);
        if let Some(default) = self.default {
            let _ = write!(sql, " DEFAULT {}", default_of(default)?);
        }
        if self.not_null {
            sql.push_str(" NOT NULL");
        }
        if self.unique {
            sql.push_str(" UNIQUE");
        }
        if let Some(check) = self.check {
            let _ = write!(sql, " CHECK {}", parenthesized("check", check)?);
        }
        if let Some(references) = &self.references {
            references.write(sql)?;
        }
        Ok(())
    }
}

impl References<'_> {
    fn write(&self, sql: &mut String) -> Result<()> {
        let _ = write!(sql, " REFERENCES {}", quote_qualified(self.schema, self.table)?);
        if let Some(column) = self.column {
            let _ = write!(sql, " ({})", quote_name(column)?);
        }
        let Some(action) = self.on_delete else { return Ok(()) };
        let action = match action {
            "cascade" => "CASCADE",
            "restrict" => "RESTRICT",
            "no_action" => "NO ACTION",
            "set_null" => "SET NULL",
            "set_default" => "SET DEFAULT",
            other => {
                return Err(invalid(format!("on_delete \"{other}\" is not known"))
                    .with_hint("cascade, restrict, no_action, set_null or set_default"));
            }
        };
        let _ = write!(sql, " ON DELETE {action}");
        Ok(())
    }
}

/// A constraint on the rows of a table.
#[derive(Clone, Debug)]
pub enum NewConstraint<'a> {
    /// Columns that are unique together.
    Unique(&'a [String]),
    /// Expression.
    Check(&'a str),
}

impl NewConstraint<'_> {
    /// Its definition.
    pub fn sql(&self) -> Result<String> {
        match self {
            Self::Unique(columns) => Ok(format!("UNIQUE ({})", quote_list(columns)?)),
            Self::Check(expression) => Ok(format!("CHECK {}", parenthesized("check", expression)?)),
        }
    }
}

/// The value that new rows get in a column: an expression in parentheses.
pub fn default_of(expression: &str) -> Result<String> {
    parenthesized("default", expression)
}

/// A table that is to be.
#[derive(Clone, Debug, Default)]
pub struct NewTable<'a> {
    /// Schema.
    pub schema: &'a str,
    /// Name.
    pub name: &'a str,
    /// Columns in order.
    pub columns: Vec<NewColumn<'a>>,
    /// Columns of the primary key.
    pub primary_key: Vec<&'a str>,
    /// Constraints on whole rows.
    pub constraints: Vec<NewConstraint<'a>>,
    /// Not an error when there is one of this name.
    pub if_not_exists: bool,
    /// `range`, `list` or `hash`, and the columns.
    pub partition_by: Option<(&'a str, Vec<&'a str>)>,
    /// Tablespace.
    pub tablespace: Option<&'a str>,
}

impl NewTable<'_> {
    /// The statement that makes it.
    pub fn sql(&self) -> Result<String> {
        if self.columns.len() > MAX_COLUMNS {
            return Err(invalid(format!("a table has at most {MAX_COLUMNS} columns")));
        }
        let mut sql = String::from("CREATE TABLE ");
        if self.if_not_exists {
            sql.push_str("IF NOT EXISTS ");
        }
        let _ = write!(sql, "{} (", quote_qualified(self.schema, self.name)?);
        let mut parts = Vec::new();
        for column in &self.columns {
            let mut part = String::new();
            column.write(&mut part)?;
            parts.push(part);
        }
        if !self.primary_key.is_empty() {
            parts.push(format!("PRIMARY KEY ({})", quote_list(&self.primary_key)?));
        }
        for constraint in &self.constraints {
            parts.push(constraint.sql()?);
        }
        sql.push_str(&parts.join(", "));
        sql.push(')');
        if let Some((strategy, columns)) = &self.partition_by {
            let strategy = match *strategy {
                "range" => "RANGE",
                "list" => "LIST",
                "hash" => "HASH",
                other => {
                    let text = format!("partition_by.strategy \"{other}\" is not known");
                    return Err(invalid(text).with_hint("range, list or hash"));
                }
            };
            let _ = write!(sql, " PARTITION BY {strategy} ({})", quote_list(columns)?);
        }
        if let Some(tablespace) = self.tablespace {
            let _ = write!(sql, " TABLESPACE {}", quote_name(tablespace)?);
        }
        Ok(sql)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(quote_name(r#"a"b; drop"#).unwrap(), r#""a""b; drop""#);
        assert_eq!(quote_qualified("s", "Ü t").unwrap(), r#""s"."Ü t""#);
        for bad in ["", "a\0b", &"x".repeat(64)] {
            assert!(quote_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn expressions() {
        for good in ["1", "now()", "'it''s (;'", "(a > 0) and b", "$q$;)$q$", "a -- why", "x[1]"] {
            check_expression("default", good).unwrap();
        }
        for bad in ["", " ", "1)", "1; drop table x", "(", "'", "/* x", "1) check (true", "a[1)]"] {
            assert!(check_expression("default", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tables() {
        let id = NewColumn { name: "id", data_type: "int8", ..NewColumn::default() };
        let references = References {
            schema: "app",
            table: "author",
            column: Some("id"),
            on_delete: Some("set_null"),
        };
        let author = NewColumn {
            name: "Author",
            data_type: "integer",
            not_null: true,
            default: Some("7 -- the first"),
            unique: true,
            check: Some("\"Author\" > 0"),
            references: Some(references),
        };
        let together = ["id".to_owned(), "Author".to_owned()];
        let table = NewTable {
            schema: "app",
            name: "post",
            columns: vec![id, author],
            primary_key: vec!["id"],
            constraints: vec![NewConstraint::Unique(&together), NewConstraint::Check("id > 1 --")],
            if_not_exists: true,
            partition_by: Some(("hash", vec!["id"])),
            ..NewTable::default()
        };
        let expected = "CREATE TABLE IF NOT EXISTS \"app\".\"post\" (\"id\" int8, \
            \"Author\" integer DEFAULT (7 -- the first\n) NOT NULL UNIQUE \
            CHECK (\"Author\" > 0\n) \
            REFERENCES \"app\".\"author\" (\"id\") ON DELETE SET NULL, PRIMARY KEY (\"id\"), \
            UNIQUE (\"id\", \"Author\"), CHECK (id > 1 --\n)) PARTITION BY HASH (\"id\")";
        assert_eq!(table.sql().unwrap(), expected);
        let odd = NewTable { partition_by: Some(("x; --", vec!["id"])), ..table };
        assert!(odd.sql().is_err());
    }
}
