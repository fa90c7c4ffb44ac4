//! Bodies: JSON, CSV and forms, as the one JSON text that PostgreSQL takes apart. JSON is copied
//! through as it came: numbers keep their digits.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::error::Refusal;
use crate::query::plan::MAX_ITEMS;
use crate::query::plan::ask::Payload;

/// The names of the members of an object, or of the objects of an array.
#[derive(Debug, Default, PartialEq, Eq)]
struct Keys {
    is_array: bool,
    count: usize,
    /// Members of the first object.
    first: Vec<String>,
    /// Members of all of them.
    common: BTreeSet<String>,
    /// Members of any of them.
    any: BTreeSet<String>,
    is_uniform: bool,
    /// A member that an object has twice.
    repeated: Option<String>,
}

/// The names of one object's members, in their order, and one that is there twice.
struct Names(Vec<String>, Option<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Names;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let (mut names, mut repeated): (Vec<String>, _) = (Vec::new(), None);
                let mut seen = BTreeSet::new();
                while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                    match seen.insert(name.clone()) {
                        true => names.push(name),
                        false => repeated = Some(name),
                    }
                    if names.len() > MAX_ITEMS {
                        return Err(serde::de::Error::custom("too many members in an object"));
                    }
                }
                Ok(Names(names, repeated))
            }
        }
        from.deserialize_map(Object)
    }
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Keys;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or an array of objects")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Keys, A::Error> {
                let object = serde::de::value::MapAccessDeserializer::new(map);
                let Names(first, repeated) = Names::deserialize(object)?;
                let common: BTreeSet<String> = first.iter().cloned().collect();
                let any = common.clone();
                let is_uniform = true;
                Ok(Keys { is_array: false, count: 1, first, common, any, is_uniform, repeated })
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Keys, A::Error> {
                let mut keys = Keys { is_array: true, is_uniform: true, ..Keys::default() };
                while let Some(Names(names, repeated)) = seq.next_element()? {
                    keys.repeated = keys.repeated.or(repeated);
                    let names_set: BTreeSet<String> = names.iter().cloned().collect();
                    if keys.count == 0 {
                        keys.first = names;
                        keys.any = names_set.clone();
                        keys.common = names_set;
                    } else if keys.first.len() != names.len() || keys.common != names_set {
                        keys.is_uniform = false;
                        keys.any.extend(names_set.iter().cloned());
                        if keys.any.len() > MAX_ITEMS {
                            return Err(serde::de::Error::custom("too many columns"));
                        }
                        keys.common.retain(|name| names_set.contains(name));
                    }
                    keys.count += 1;
                }
                Ok(keys)
            }
        }
        from.deserialize_any(Either)
    }
}

/// A JSON body for a table. With `columns` these get values; without, every object must have the
/// same members.
pub(super) fn json(
    body: &[u8],
    columns: Option<Vec<String>>,
    missing_default: bool,
) -> Result<Payload, Refusal> {
    let text = utf8(body)?;
    let keys: Keys = match serde_json::from_str(text) {
        Ok(keys) => keys,
        Err(error) => return Err(Refusal::body(format!("Empty or invalid json: {error}"))),
    };
    if columns.is_none() && !keys.is_uniform {
        return Err(Refusal::body("All object keys must match"));
    }
    Ok(Payload {
        json: text.to_owned(),
        is_array: keys.is_array,
        columns: columns.unwrap_or(keys.first),
        present: keys.common.into_iter().collect(),
        missing_default,
        base64: false,
    })
}

/// A JSON body in the form of the other API: its objects need not have the same members.
pub(super) fn uneven(body: &[u8]) -> Result<Payload, Refusal> {
    let text = utf8(body)?;
    let keys: Keys = serde_json::from_str(text)
        .map_err(|error| Refusal::body(format!("Empty or invalid json: {error}")))?;
    if let Some(name) = keys.repeated {
        return Err(Refusal::body(format!("an object has the member \"{name}\" twice")));
    }
    let columns = match keys.is_uniform {
        true => keys.first,
        false => keys.any.into_iter().collect(),
    };
    Ok(Payload {
        json: text.to_owned(),
        is_array: keys.is_array,
        columns,
        present: keys.common.into_iter().collect(),
        missing_default: true,
        base64: true,
    })
}

/// The arguments that a body holds, with their names: of an array of objects the first counts, and
/// one of nothing has none. `None` is JSON that has no names.
pub(super) fn object_names(body: &[u8]) -> Result<Option<(String, Vec<String>)>, Refusal> {
    let text = utf8(body)?;
    if text.trim().is_empty() {
        return Ok(Some(("{}".to_owned(), Vec::new())));
    }
    match serde_json::from_str::<Keys>(text) {
        Ok(keys) if !keys.is_array => Ok(Some((text.to_owned(), keys.first))),
        Ok(keys) => Ok(Some((first_object(text).unwrap_or("{}").to_owned(), keys.first))),
        // Anything else may be meant for a function with one argument of type json.
        _ => match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Ok(None),
            Err(error) => Err(Refusal::body(format!("Empty or invalid json: {error}"))),
        },
    }
}

/// A payload for one row: of several objects the first counts.
pub(super) fn first(payload: Payload) -> Result<Payload, Refusal> {
    match first_object(&payload.json).filter(|_| payload.is_array) {
        Some(one) => json(one.as_bytes(), Some(payload.columns), payload.missing_default),
        None => Ok(payload),
    }
}

/// The first element of an array.
fn first_object(array: &str) -> Option<&str> {
    let objects: Vec<&RawValue> = serde_json::from_str(array).ok()?;
    objects.first().map(|object| object.get())
}

fn utf8(body: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(body).map_err(|_| Refusal::body("the body is not UTF-8"))
}

/// `a=1&b=2`, decoded, as one object.
pub(super) fn form(body: &[u8]) -> Result<Vec<u8>, Refusal> {
    utf8(body)?;
    let pairs = url::form_urlencoded::parse(body);
    let object: Map<String, Value> =
        pairs.map(|(name, value)| (name.into_owned(), value.into_owned().into())).collect();
    Ok(Value::Object(object).to_string().into_bytes())
}

/// CSV with a line of names, as an array of objects. `NULL` without quotes is NULL.
pub(super) fn csv(body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut records = Records { text: utf8(body)?, at: 0 };
    let names = match records.next() {
        Some(names) => names?,
        None => return Err(Refusal::body("the CSV has no line of names")),
    };
    if names.len() > MAX_ITEMS {
        return Err(Refusal::body("the CSV has too many columns"));
    }
    // Written as it is read: a tree of values would be many times the size of the body.
    let mut out = String::from("[");
    for record in records {
        let record = record?;
        if record.len() != names.len() {
            return Err(Refusal::body("All lines must have same number of fields"));
        }
        out.push_str(if out.len() > 1 { ",{" } else { "{" });
        for (at, (name, cell)) in names.iter().zip(&record).enumerate() {
            let value = if cell.is_null() { Value::Null } else { cell.text.as_str().into() };
            out.push_str(if at > 0 { "," } else { "" });
            out.push_str(&format!("{}:{value}", Value::from(name.text.as_str())));
        }
        out.push('}');
    }
    out.push(']');
    Ok(out.into_bytes())
}

/// The names in the first line of CSV.
pub(super) fn csv_names(line: &str) -> Result<Vec<String>, Refusal> {
    match (Records { text: line, at: 0 }).next() {
        Some(names) => Ok(names?.into_iter().map(|cell| cell.text).collect()),
        None => Err(Refusal::body("the CSV has no line of names")),
    }
}

#[derive(Default)]
struct Cell {
    text: String,
    is_quoted: bool,
}

impl Cell {
    fn is_null(&self) -> bool {
        !self.is_quoted && self.text == "NULL"
    }
}

/// Lines of RFC 4180.
struct Records<'t> {
    text: &'t str,
    at: usize,
}

impl Iterator for Records<'_> {
    type Item = Result<Vec<Cell>, Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.text.len() {
            return None;
        }
        let mut record = Vec::new();
        loop {
            match self.cell() {
                Ok(cell) => record.push(cell),
                Err(error) => {
                    self.at = self.text.len();
                    return Some(Err(error));
                }
            }
            match self.text.as_bytes().get(self.at) {
                Some(b',') => self.at += 1,
                Some(b'\r') => {
                    self.at += 1;
                    if self.text.as_bytes().get(self.at) == Some(&b'\n') {
                        self.at += 1;
                    }
                    return Some(Ok(record));
                }
                Some(_) => {
                    self.at += 1;
                    return Some(Ok(record));
                }
                None => return Some(Ok(record)),
            }
        }
    }
}

impl Records<'_> {
    /// Up to the next comma or end of line.
    fn cell(&mut self) -> Result<Cell, Refusal> {
        let rest = &self.text[self.at..];
        let Some(quoted) = rest.strip_prefix('"') else {
            let length = rest.find([',', '\r', '\n']).unwrap_or(rest.len());
            self.at += length;
            return Ok(Cell { text: rest[..length].to_owned(), is_quoted: false });
        };
        let mut text = String::new();
        let mut part = quoted;
        while let Some(end) = part.find('"') {
            text.push_str(&part[..end]);
            part = &part[end + 1..];
            match part.strip_prefix('"') {
                Some(more) => {
                    text.push('"');
                    part = more;
                }
                None => {
                    self.at = self.text.len() - part.len();
                    let ends = part.is_empty() || part.starts_with([',', '\r', '\n']);
                    return match ends {
                        true => Ok(Cell { text, is_quoted: true }),
                        false => Err(Refusal::body("text after a quoted field of the CSV")),
                    };
                }
            }
        }
        Err(Refusal::body("a quoted field of the CSV does not end"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_that_must_be_alike() {
        let same = json(br#" [{"a":1,"b":2},{"b":1e400,"a":null}]"#, None, false).unwrap();
        assert_eq!((same.columns, same.is_array), (vec!["a".into(), "b".into()], true));
        let refused = json(br#"[{"a":1},{"b":2}]"#, None, false).unwrap_err();
        assert_eq!((refused.code, &*refused.message), ("PGRST102", "All object keys must match"));
        let columns = Some(vec!["a".to_owned()]);
        let named = json(br#"[{"a":1,"c":2},{"b":2}]"#, columns, true).unwrap();
        assert_eq!((named.present.len(), named.missing_default), (0, true));
        for bad in ["", "[1]", "1", "{", "[{}", "{\"a\":1}x", "[[]]"] {
            assert_eq!(json(bad.as_bytes(), None, false).unwrap_err().code, "PGRST102", "{bad}");
        }
        assert!(json(&[b'{', 0xff, b'}'], None, false).is_err());
        let deep = format!("{{\"a\":{}}}", "[".repeat(100_000));
        assert!(json(deep.as_bytes(), None, false).is_err());
        assert_eq!(json(b"[]", None, false).unwrap().columns, Vec::<String>::new());
    }

    #[test]
    fn csv_becomes_objects() {
        let text = "a,\"b \"\"c\"\"\"\r\n1,NULL\n\"x\ny\",\"NULL\"\n,z";
        let expected =
            r#"[{"a":"1","b \"c\"":null},{"a":"x\ny","b \"c\"":"NULL"},{"a":"","b \"c\"":"z"}]"#;
        assert_eq!(String::from_utf8(csv(text.as_bytes()).unwrap()).unwrap(), expected);
        for bad in ["", "a,b\n1", "a\n\"1", "a\n\"1\"2"] {
            assert_eq!(csv(bad.as_bytes()).unwrap_err().code, "PGRST102", "{bad:?}");
        }
        assert_eq!(csv(b"a\n").unwrap(), b"[]");
    }

    #[test]
    fn arguments_of_a_body() {
        let some = |json: &str, names: &[&str]| {
            Some((json.to_owned(), names.iter().map(|name| (*name).to_owned()).collect()))
        };
        for (body, expected) in [
            ("", some("{}", &[])),
            (r#"{"a":1e400}"#, some(r#"{"a":1e400}"#, &["a"])),
            (r#"[ {"a":[1], "b":2} ,{"c":3}]"#, some(r#"{"a":[1], "b":2}"#, &["a", "b"])),
            ("[]", some("{}", &[])),
            ("[1]", None),
            ("3", None),
        ] {
            assert_eq!(object_names(body.as_bytes()).unwrap(), expected, "{body}");
        }
    }

    #[test]
    fn forms_become_an_object() {
        assert_eq!(form(b"a=1+2&b=%7B").unwrap(), br#"{"a":"1 2","b":"{"}"#);
    }
}
