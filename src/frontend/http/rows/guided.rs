//! What a function says about the answer that it is given in: the settings `response.status` and
//! `response.headers` of its transaction
//! (<https://docs.postgrest.org/en/v12/references/transactions.html#response-headers>).

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Map, Value};

use crate::query::postgrest::Refusal;

/// Reads both as one text, in the transaction of the function.
pub const SETTINGS: &str = "SELECT pg_catalog.json_build_array( \
    pg_catalog.current_setting('response.status', true), \
    pg_catalog.current_setting('response.headers', true))::pg_catalog.text";

/// Headers at most, and bytes of their names and values.
const MOST: usize = 50;
const LONGEST: usize = 8 << 10;

/// Headers that say how an answer is sent. That is nobody's choice.
const OURS: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
];

/// A status and headers for an answer.
#[derive(Debug, Default, PartialEq)]
pub struct Guided {
    status: Option<StatusCode>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Guided {
    /// Understands what [`SETTINGS`] gives.
    ///
    /// # Errors
    /// A function has set something that is no status, or are no headers.
    pub fn read(settings: Option<&str>) -> Result<Self, Refusal> {
        let read = settings.and_then(|text| serde_json::from_str(text).ok());
        let (status, headers): (Option<String>, Option<String>) = read.unwrap_or_default();
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let status = given(status).map(|text| {
            let status = text.parse().ok().and_then(|code| StatusCode::from_u16(code).ok());
            let is_final = |status: &StatusCode| (200..600).contains(&status.as_u16());
            status.filter(is_final).ok_or_else(Refusal::guided_status)
        });
        let headers = given(headers).map(|text| named(&text).ok_or_else(Refusal::guided_headers));
        Ok(Self { status: status.transpose()?, headers: headers.transpose()?.unwrap_or_default() })
    }

    /// Makes an answer what the function has said.
    pub fn apply(self, response: &mut Response) {
        if let Some(status) = self.status {
            *response.status_mut() = status;
            if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
                *response.body_mut() = Body::empty();
            }
        }
        let mut said = HeaderMap::new();
        for (name, value) in self.headers {
            said.append(name, value);
        }
        // A name that comes first takes the place of what was there.
        response.headers_mut().extend(said);
    }
}

/// An array of objects, of which each has one header.
fn named(text: &str) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let list: Vec<Map<String, Value>> = serde_json::from_str(text).ok()?;
    let mut headers = Vec::new();
    let mut bytes = 0;
    for object in &list {
        let mut pairs = object.iter();
        let ((name, value), None) = (pairs.next()?, pairs.next()) else { return None };
        let value = value.as_str()?;
        bytes += name.len() + value.len();
        let name = HeaderName::try_from(name.as_str()).ok().filter(|name| !OURS.contains(name))?;
        headers.push((name, HeaderValue::from_str(value).ok()?));
    }
    (headers.len() <= MOST && bytes <= LONGEST).then_some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: &str, headers: &str) -> Result<(u16, Vec<String>), String> {
        let text = serde_json::json!([status, headers]).to_string();
        let guided = Guided::read(Some(&text)).map_err(|e| e.to_json()["code"].to_string())?;
        let mut response = Response::new(Body::from("body"));
        response.headers_mut().insert("content-type", HeaderValue::from_static("usual"));
        guided.apply(&mut response);
        let headers = response.headers().iter();
        let shown = headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        Ok((response.status().as_u16(), shown.collect()))
    }

    #[test]
    fn what_functions_say() {
        let usual = || vec!["content-type: usual".to_owned()];
        assert_eq!(read("", ""), Ok((200, usual())));
        assert_eq!(read("418", "[]"), Ok((418, usual())));
        let two = r#"[{"Set-Cookie":"a=b"},{"Set-Cookie":"c=d"},{"content-type":"text/x"}]"#;
        let expected = ["content-type: text/x", "set-cookie: a=b", "set-cookie: c=d"];
        let (status, mut shown) = read("", two).unwrap();
        shown.sort();
        assert_eq!((status, shown), (200, expected.map(str::to_owned).to_vec()));
        for status in ["x", "99", "100", "600", "2000", " "] {
            assert_eq!(read(status, ""), Err("\"PGRST112\"".into()), "{status}");
        }
        let many = format!("[{}]", vec![r#"{"a":"b"}"#; MOST + 1].join(","));
        let long = format!(r#"[{{"a":"{}"}}]"#, "x".repeat(LONGEST));
        for headers in [
            "x",
            "{}",
            r#"[{"a":1}]"#,
            r#"[{}]"#,
            r#"[{"a":"b","c":"d"}]"#,
            r#"[{"a b":"c"}]"#,
            r#"[{"a":"b\nc"}]"#,
            r#"[{"Content-Length":"3"}]"#,
            &many,
            &long,
        ] {
            assert_eq!(read("", headers), Err("\"PGRST111\"".into()), "{headers}");
        }
    }
}
