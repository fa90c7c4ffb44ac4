//! The statements of a text, as PostgreSQL would find them.

use std::ops::Range;

use super::lexer::{Lexer, Token};

/// Where the statements of a text are, without what separates them. Semicolons in parentheses and
/// in the bodies of SQL functions (`BEGIN ATOMIC … END`) separate nothing.
pub fn statements(sql: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut lexer = Lexer::new(sql.as_bytes());
    let mut open = Open::default();
    let mut begin = None;
    while let Some(token) = lexer.next() {
        if token == Token::Symbol(b';') && open.is_empty() {
            if let Some(begin) = begin.take() {
                found.push(begin..lexer.begin);
            }
            open = Open::default();
            continue;
        }
        begin.get_or_insert(lexer.begin);
        open.saw(token);
    }
    if let Some(begin) = begin {
        found.push(begin..sql.len());
    }
    found
}

/// What is open within a statement.
#[derive(Default)]
struct Open {
    parentheses: u32,
    blocks: u32,
    words: u32,
    /// The statement creates a function or procedure.
    is_routine: bool,
    /// It begins with CREATE.
    is_create: bool,
}

impl Open {
    fn is_empty(&self) -> bool {
        self.parentheses == 0 && self.blocks == 0
    }

    fn saw(&mut self, token: Token<'_>) {
        match token {
            Token::Symbol(b'(') => self.parentheses += 1,
            Token::Symbol(b')') => self.parentheses = self.parentheses.saturating_sub(1),
            Token::Word(..) => self.word(token),
            _ => {}
        }
    }

    fn word(&mut self, word: Token<'_>) {
        self.words += 1;
        let is = |keyword: &[u8]| word.is_word(keyword);
        match self.words {
            1 => self.is_create = is(b"create"),
            2..=4 if self.is_create && (is(b"function") || is(b"procedure")) => {
                self.is_routine = true;
            }
            _ if !self.is_routine => {}
            _ if is(b"begin") || self.blocks > 0 && is(b"case") => self.blocks += 1,
            _ if is(b"end") => self.blocks = self.blocks.saturating_sub(1),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_found() {
        let body = "create or replace function f() returns int begin atomic select 1; \
                    select case when true then 2 end; end";
        let rule =
            "create rule r as on insert to t do also (insert into u values (1); delete from v)";
        for (sql, expected) in [
            ("", &[][..]),
            (" ; ;; -- nothing\n", &[]),
            ("select 1", &["select 1"]),
            ("select 1;", &["select 1"]),
            ("select 1; select ';' ;select $$;$$", &["select 1", "select ';' ", "select $$;$$"]),
            ("begin; commit", &["begin", "commit"]),
            ("/* a; */ select 1 -- ;\n; x", &["select 1 -- ;\n", "x"]),
            (body, &[body]),
            (rule, &[rule]),
            ("select 1); select 2", &["select 1)", "select 2"]),
        ] {
            let found: Vec<&str> = statements(sql).into_iter().map(|range| &sql[range]).collect();
            assert_eq!(found, expected, "{sql}");
        }
        let two = format!("{body}; select 2");
        assert_eq!(statements(&two).len(), 2);
    }
}
