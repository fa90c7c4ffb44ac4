//! SQL text: the only place where a value becomes part of a statement, and where a statement is
//! looked at.

mod body;
mod classify;
pub mod ddl;
mod effects;
pub mod fuzz;
mod lexer;
mod names;
pub mod plan;
pub mod postgrest;
pub mod schema;
mod seen;
mod settings;
mod split;
pub mod where_json;

pub use body::classify_body;
pub use classify::{Class, Reference, classify};
pub use effects::Effects;
pub use lexer::hash_name;
use lexer::{Lexer, Token};
pub use names::{NameHasher, Names};
pub use seen::classify_again;
pub use settings::{Change, SettingValue, Settings, custom_name};
pub use split::statements;

/// A string literal, safe whatever `standard_conforming_strings` says
/// (<https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-STRINGS-ESCAPE>).
pub fn quote_literal(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\'', "''");
    format!("E'{escaped}'")
}

/// A name in double quotes, whatever it contains
/// (<https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS>).
pub fn quote_ident(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len() + 2);
    push_ident(&mut quoted, name);
    quoted
}

/// The search path for statements about a schema: names without one are looked for there first.
pub fn search_path(schema: &str) -> String {
    match schema {
        "public" => schema.to_owned(),
        schema => quote_ident(schema) + ", public",
    }
}

/// Appends the same.
pub fn push_ident(out: &mut String, name: &str) {
    out.push('"');
    match name.contains('"') {
        false => out.push_str(name),
        true => out.push_str(&name.replace('"', "\"\"")),
    }
    out.push('"');
}

/// Whether a statement drops, renames, copies or moves a whole database, which PostgreSQL refuses
/// while anybody is connected to it.
pub fn changes_database(sql: &[u8]) -> bool {
    let mut words = sql.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let verb = words.next().unwrap_or(b"");
    let is_verb = [&b"drop"[..], b"alter", b"create"].iter().any(|v| v.eq_ignore_ascii_case(verb));
    is_verb && words.next().is_some_and(|word| word.eq_ignore_ascii_case(b"database"))
}

/// Whether a statement inserts, changes or deletes rows, and says so with its first word.
pub fn changes_rows(sql: &str) -> bool {
    const VERBS: [&[u8]; 4] = [b"insert", b"update", b"delete", b"merge"];
    let verb = Lexer::new(sql.as_bytes()).next();
    verb.is_some_and(|verb| VERBS.iter().any(|word| verb.is_word(word)))
}

/// Whether a statement calls a procedure, which can end transactions.
pub fn is_call(sql: &str) -> bool {
    Lexer::new(sql.as_bytes()).next().is_some_and(|verb| verb.is_word(b"call"))
}

/// Whether a statement of a text begins, ends or divides a transaction.
pub fn controls_transaction(sql: &str) -> bool {
    statements(sql).into_iter().any(|range| {
        let mut tokens = Lexer::new(&sql.as_bytes()[range]);
        controls((tokens.next(), tokens.next()))
    })
}

/// The same of the first two words of a statement.
fn controls((verb, next): (Option<Token<'_>>, Option<Token<'_>>)) -> bool {
    const VERBS: [&[u8]; 8] =
        [b"begin", b"start", b"commit", b"end", b"rollback", b"abort", b"savepoint", b"release"];
    let is = |token: Option<Token<'_>>, word| token.is_some_and(|token| token.is_word(word));
    VERBS.iter().any(|word| is(verb, word)) || is(verb, b"prepare") && is(next, b"transaction")
}

/// Whether one statement makes sense only where a transaction stays open behind it, or was open
/// before: [`controls_transaction`], but not COMMIT PREPARED or ROLLBACK PREPARED.
pub fn needs_transaction(sql: &str) -> bool {
    let mut tokens = Lexer::new(sql.as_bytes()).skip_while(|t| *t == Token::Symbol(b';'));
    let (verb, next) = (tokens.next(), tokens.next());
    let is = |token: Option<Token<'_>>, word| token.is_some_and(|token| token.is_word(word));
    let of_prepared = is(next, b"prepared") && (is(verb, b"commit") || is(verb, b"rollback"));
    controls((verb, next)) && !of_prepared
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_looked_into_before_public() {
        assert_eq!(search_path("public"), "public");
        assert_eq!(search_path("a\", b"), "\"a\"\", b\", public");
    }

    #[test]
    fn statements_that_need_a_transaction() {
        for (sql, expected) in [
            ("BEGIN", true),
            (" ; begin", true),
            ("-- x\nstart transaction", true),
            ("commit", true),
            ("savepoint prepared", true),
            ("prepare transaction 'x'", true),
            ("commit prepared 'x'", false),
            ("ROLLBACK PREPARED 'x'", false),
            ("select 1", false),
        ] {
            assert_eq!(needs_transaction(sql), expected, "{sql}");
        }
    }

    #[test]
    fn statements_that_control_transactions() {
        for (sql, expected) in [
            ("select 1; /* x */ COMMIT", true),
            ("Rollback To s", true),
            ("prepare transaction 'x'", true),
            ("prepare x as select 1", false),
            ("select 'commit'; -- commit", false),
            ("create function f() returns int begin atomic select 1; end", false),
            ("", false),
        ] {
            assert_eq!(controls_transaction(sql), expected, "{sql}");
        }
    }

    #[test]
    fn statements_that_change_rows() {
        for (sql, expected) in [
            ("insert into t values (1)", true),
            (" -- x\n/* y */ Update t set a = 1", true),
            ("DELETE FROM t", true),
            ("merge into t using u on true when matched then delete", true),
            ("select 'insert'", false),
            ("COPY t FROM STDIN", false),
            ("/* insert */ copy t from stdin", false),
            ("", false),
        ] {
            assert_eq!(changes_rows(sql), expected, "{sql}");
        }
    }

    #[test]
    fn statements_about_whole_databases() {
        for (sql, expected) in [
            ("drop database x", true),
            ("  CREATE\n DATABASE x TEMPLATE y", true),
            ("Alter Database x rename to y", true),
            ("drop table database", false),
            ("drop", false),
            ("", false),
            ("select 1", false),
        ] {
            assert_eq!(changes_database(sql.as_bytes()), expected, "{sql}");
        }
    }

    #[test]
    fn quoting() {
        assert_eq!(quote_literal(r"O'Neil\"), r"E'O''Neil\\'");
        assert_eq!(quote_ident(r#"a"b; drop"#), r#""a""b; drop""#);
    }
}
