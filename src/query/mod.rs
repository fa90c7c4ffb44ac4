//! SQL text: the only place where a value becomes part of a statement.

/// A string literal, safe whatever `standard_conforming_strings` says
/// (<https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-STRINGS-ESCAPE>).
pub fn quote_literal(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\'', "''");
    format!("E'{escaped}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting() {
        assert_eq!(quote_literal(r"O'Neil\"), r"E'O''Neil\\'");
    }
}
