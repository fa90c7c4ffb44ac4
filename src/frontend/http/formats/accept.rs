//! Which form a client wants (RFC 9110, section 12.5.1).

use axum::http::{HeaderMap, header};

use crate::error::{Error, ErrorKind, Result};

/// A form of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON document.
    Json,
    /// A JSON object in each line.
    Ndjson,
    /// RFC 4180, the names of the columns in the first line.
    Csv,
    /// A stream of Arrow's IPC format.
    Arrow,
    /// A MessagePack map for each row, one after the other.
    Msgpack,
}

/// Names of MessagePack, the registered one first.
pub const MSGPACK: [&str; 3] =
    ["application/msgpack", "application/vnd.msgpack", "application/x-msgpack"];

/// The names of each form, the one that answers bear first. What is further up wins where a
/// client has no preference.
const NAMES: [(Format, &[&str]); 5] = [
    (Format::Json, &["application/json"]),
    (Format::Ndjson, &["application/x-ndjson", "application/ndjson", "application/jsonl"]),
    (Format::Csv, &["text/csv"]),
    (Format::Arrow, &["application/vnd.apache.arrow.stream"]),
    (Format::Msgpack, &MSGPACK),
];

/// How well a form fits, of what is compared: the weight in thousandths, how early it is named.
type Rank = (u16, std::cmp::Reverse<usize>);

impl Format {
    /// The content type of an answer.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Msgpack => "application/msgpack",
        }
    }

    /// Whether rows are sent as they come, for as long as their reader wants. A document waits for
    /// its first bytes, so that an error can still set the status.
    pub fn is_stream(self) -> bool {
        self != Self::Json
    }

    /// The form that the header Accept likes most; JSON without the header.
    pub fn accepted(headers: &HeaderMap) -> Result<Self> {
        let mut values = headers.get_all(header::ACCEPT).iter().peekable();
        if values.peek().is_none() {
            return Ok(Self::Json);
        }
        let text: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
        Self::chosen(&text.join(",")).ok_or_else(|| {
            let names: Vec<&str> =
                NAMES.iter().filter_map(|(_, names)| names.first().copied()).collect();
            let text = format!("results come as {}", names.join(", "));
            Error::new(ErrorKind::NotAcceptable, text).with_hint("send one of them in Accept")
        })
    }

    fn chosen(accept: &str) -> Option<Self> {
        let ranked = NAMES.iter().filter_map(|(format, names)| {
            let best = names.iter().filter_map(|name| rank(accept, name)).max()?;
            Some((best, *format))
        });
        // Of equals the first one stays.
        let best = ranked.reduce(|best, next| if next.0 > best.0 { next } else { best });
        best.map(|(_, format)| format)
    }
}

/// Whether a document is liked better in MessagePack than in JSON.
pub fn prefers_msgpack(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter();
    let text: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
    // Nearly always there is nothing of it.
    text.iter().any(|text| text.contains("msgpack")) && {
        let text = text.join(",");
        let packed = MSGPACK.iter().filter_map(|name| rank(&text, name)).max();
        packed > rank(&text, "application/json")
    }
}

/// How much a media type is liked; `None` = not at all. The range that names it most exactly
/// counts.
fn rank(accept: &str, name: &str) -> Option<Rank> {
    let whole_type = name.split('/').next().unwrap_or("");
    let ranges = accept.split(',').enumerate().filter_map(|(at, item)| {
        let mut parts = item.split(';');
        let range = parts.next()?.trim();
        let exactness = match range.split_once('/')? {
            _ if range.eq_ignore_ascii_case(name) => 3,
            (first, "*") if first.eq_ignore_ascii_case(whole_type) => 2,
            ("*", "*") => 1,
            _ => return None,
        };
        Some((exactness, (weight(parts), std::cmp::Reverse(at))))
    });
    let (_, rank) = ranges.max_by_key(|(exactness, (_, at))| (*exactness, *at))?;
    (rank.0 > 0).then_some(rank)
}

/// The parameter `q` in thousandths. One that is none counts as absent.
fn weight<'a>(mut parameters: impl Iterator<Item = &'a str>) -> u16 {
    let value = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then_some(value.trim())
    });
    let number = value.and_then(|text| text.parse::<f32>().ok());
    number.filter(|q| (0.0..=1.0).contains(q)).map_or(1000, |q| (q * 1000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_form_is_chosen() {
        for (accept, expected) in [
            ("*/*", Some(Format::Json)),
            ("application/*", Some(Format::Json)),
            ("text/*", Some(Format::Csv)),
            ("text/csv", Some(Format::Csv)),
            ("TEXT/CSV; charset=utf-8", Some(Format::Csv)),
            ("application/x-ndjson, application/json", Some(Format::Ndjson)),
            ("application/json, application/x-ndjson", Some(Format::Json)),
            ("application/json;q=0.5, text/csv;q=0.9", Some(Format::Csv)),
            ("text/html, application/xhtml+xml, */*;q=0.8", Some(Format::Json)),
            ("*/*, application/json;q=0", Some(Format::Ndjson)),
            ("application/*;q=0.2, application/vnd.msgpack;q=0.3", Some(Format::Msgpack)),
            ("application/vnd.apache.arrow.stream", Some(Format::Arrow)),
            ("application/json;q=0", None),
            ("text/html", None),
            ("json", None),
            ("", None),
        ] {
            assert_eq!(Format::chosen(accept), expected, "{accept}");
        }
    }

    #[test]
    fn several_headers_are_one_list() {
        let mut headers = HeaderMap::new();
        assert_eq!(Format::accepted(&headers).unwrap(), Format::Json);
        headers.append(header::ACCEPT, "text/html".parse().unwrap());
        assert_eq!(Format::accepted(&headers).unwrap_err().kind(), ErrorKind::NotAcceptable);
        headers.append(header::ACCEPT, "application/msgpack".parse().unwrap());
        assert_eq!(Format::accepted(&headers).unwrap(), Format::Msgpack);
    }
}
