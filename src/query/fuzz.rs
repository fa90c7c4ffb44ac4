//! What a fuzz target feeds: no request for rows may stop the server, whatever is in it.

use super::plan::cursor::Position;
use super::postgrest::{Options, Request, plan};
use super::schema::Schema;
use super::where_json;

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
        for path in ["t", "rpc/f"] {
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
    #[test]
    fn bytes_that_are_no_request() {
        for data in
            [&b""[..], b"\0\0\0", b"select=*&a=eq.1\0count=exact\0{\"field\":1}", b"\xff=\xff"]
        {
            super::rows_request(data);
        }
    }
}
