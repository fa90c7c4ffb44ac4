//! What fuzz targets feed: no SQL text and no request for rows may stop the server, whatever is in
//! it.

use std::sync::Arc;

use super::lexer::{Lexer, Token};
use super::plan::cursor::Position;
use super::postgrest::{Options, Request, plan};
use super::schema::Schema;
use super::{
    Effects, Names, changes_database, classify, classify_again, classify_body, quote_ident,
    quote_literal, statements, where_json,
};

/// SQL text as a client sends it, or as the body of a function.
pub fn sql_text(data: &[u8]) {
    let mut names = Names::default();
    names.learn(b"audited", Effects::UNCLEAR);
    for complete in [false, true] {
        if complete {
            names.complete();
        }
        let class = classify(data, &names);
        let shared = Arc::new(names.clone());
        for _ in 0..2 {
            assert!(classify_again(data, &shared) == class, "it is read in two ways");
        }
        assert!(class.changes.len() <= 256 && class.refers_to.len() <= 256, "without bounds");
        classify_body(data, &names);
    }
    changes_database(data);
    let mut lexer = Lexer::new(data);
    let mut at = 0;
    while lexer.next().is_some() {
        assert!(lexer.begin >= at && lexer.position() > lexer.begin, "it does not move on");
        at = lexer.position();
    }
    assert!(lexer.position() <= data.len(), "behind the end");
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut end = 0;
    for range in statements(text) {
        assert!(end <= range.start && !text[range.clone()].is_empty(), "they overlap");
        end = range.end;
    }
    let tokens = |sql: &str| {
        let mut lexer = Lexer::new(sql.as_bytes());
        let first = lexer.next().map(|token| match token {
            Token::Text(_) => "text",
            Token::Quoted(_) => "name",
            _ => "something else",
        });
        (first, lexer.next().is_some(), lexer.unsure)
    };
    assert_eq!(tokens(&quote_literal(text)), (Some("text"), false, false), "it leaves its quotes");
    assert_eq!(tokens(&quote_ident(text)), (Some("name"), false, false), "it leaves its quotes");
}

/// A query string, a body and headers, cut out of the bytes at NULs.
pub fn rows_request(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == 0);
    let mut next = || parts.next().unwrap_or_default();
    let (query, prefer, body) = (next(), next(), next());
    let query: Vec<(String, String)> = url::form_urlencoded::parse(query)
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    let prefer = String::from_utf8_lossy(prefer);
    let options = Options { cursor_key: Some(vec![1]), ..Options::default() };
    for (method, content) in [
        ("GET", "application/json"),
        ("POST", "application/json"),
        ("POST", "text/csv"),
        ("PATCH", "application/x-www-form-urlencoded"),
    ] {
        let headers = [("prefer", &*prefer), ("range", &*prefer), ("content-type", content)];
        for path in [&["t"][..], &["rpc", "f"]] {
            let request = Request { method, path, query: &query, headers: &headers, body };
            // There is no such table: what is looked at is the grammar.
            assert!(plan(&Schema::default(), &options, &request).is_err());
        }
    }
    if let Ok(clause) = serde_json::from_slice(body) {
        let _ = where_json::parse(&clause);
    }
    assert!(Position::decode(&prefer, b"key").is_err(), "a signature was guessed");
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::{Names, classify, classify_body};

    #[test]
    fn bytes_that_are_no_sql() {
        for data in [
            &b""[..],
            b"select 'a' \"b\" $$ c $$ /* d",
            b"set a = 'b'; reset all; prepare x as select 1; deallocate all",
            b"do $$ begin set x = 1; perform set_config('a', 'b', true); end $$",
            b"'\\",
            b"U&\"",
            b"$a",
            b"$1a$",
            b"\xff'\xfe",
            b"--",
            b"/*/",
        ] {
            super::sql_text(data);
        }
    }

    /// A client must not keep a thread busy by a text that is read again and again.
    #[test]
    fn the_time_is_in_proportion_to_the_text() {
        let names = Names::default();
        for piece in [
            "then set ",
            "set_config(",
            "execute ",
            "declare with hold ",
            "prepare a as ",
            "$a$ ",
            "/*",
            "'",
            "\"",
            "(",
            ";set a = b",
            "e'",
            "set local a.b ",
            "do '",
            "set a.",
        ] {
            let text = piece.repeat((256 << 10) / piece.len());
            let begun = Instant::now();
            classify(text.as_bytes(), &names);
            classify_body(text.as_bytes(), &names);
            super::statements(&text);
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(10), "{piece}: {took:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_request() {
        for data in
            [&b""[..], b"\0\0\0", b"select=*&a=eq.1\0count=exact\0{\"field\":1}", b"\xff=\xff"]
        {
            super::rows_request(data);
        }
    }
}
