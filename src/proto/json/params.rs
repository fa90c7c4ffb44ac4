//! JSON parameters as PostgreSQL's text.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use serde_json::value::RawValue;

use super::{BASE64, Field, MAX_DEPTH, Shape, hex_digit};

/// Why a JSON parameter has no text form for its PostgreSQL type; `Display` is for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParamError {
    /// A surrogate without its pair.
    InvalidJson,
    /// Not base64, for bytea.
    Base64,
    /// U+0000, which PostgreSQL's text cannot hold.
    Nul,
    /// A scalar for an array type.
    ExpectedArray,
    /// A scalar for a composite type.
    ExpectedObject,
    /// Fields of the composite type, and values that were given.
    FieldCount(usize, usize),
    /// A key that the composite type does not have.
    UnknownField(String),
    /// Nested too deep.
    TooDeep,
}

impl fmt::Display for ParamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidJson => f.write_str("expected valid JSON and Unicode"),
            Self::Base64 => f.write_str("expected base64 for bytea"),
            Self::Nul => f.write_str("a string must not contain the character U+0000"),
            Self::ExpectedArray => f.write_str("expected an array"),
            Self::ExpectedObject => f.write_str("expected an object"),
            Self::FieldCount(fields, found) => write!(f, "expected {fields} values, found {found}"),
            Self::UnknownField(name) => write!(f, "the composite type has no field {name:?}"),
            Self::TooDeep => write!(f, "nested deeper than {MAX_DEPTH} levels"),
        }
    }
}

impl std::error::Error for ParamError {}

/// The one cause left in JSON whose syntax is valid is an unpaired surrogate escape.
impl From<serde_json::Error> for ParamError {
    fn from(_: serde_json::Error) -> Self {
        Self::InvalidJson
    }
}

/// Appends the text-format value of one JSON parameter; `Ok(false)` is SQL NULL.
///
/// `json` is the raw text of one valid JSON value. Nothing is appended for NULL or on an error.
/// A string for an array or a composite type is a literal that the user wrote, and is not
/// interpreted; nor is JSON for [`Shape::Json`], which the server checks itself. An array for
/// an array type is one more dimension of it, unless its element type takes JSON arrays itself.
pub fn write_param(out: &mut Vec<u8>, json: &str, shape: &Shape) -> Result<bool, ParamError> {
    let start = out.len();
    param(out, json, shape, 0).inspect_err(|_| out.truncate(start))
}

type Done = Result<(), ParamError>;

fn param(out: &mut Vec<u8>, json: &str, shape: &Shape, depth: usize) -> Result<bool, ParamError> {
    let json = json.trim_ascii();
    let first = json.as_bytes().first().ok_or(ParamError::InvalidJson)?;
    match (shape, first) {
        _ if json == "null" => return Ok(false),
        (Shape::Json, _) => out.extend_from_slice(json.as_bytes()),
        (_, b'"') => string_param(out, json, shape)?,
        (_, b'[' | b'{') if depth >= MAX_DEPTH => return Err(ParamError::TooDeep),
        (Shape::Array { .. }, b'[') => array_param(out, json, shape, depth)?,
        (Shape::Array { .. }, _) => return Err(ParamError::ExpectedArray),
        (Shape::Composite(fields), b'{' | b'[') => composite_param(out, json, fields, depth)?,
        (Shape::Composite(_), _) => return Err(ParamError::ExpectedObject),
        _ => out.extend_from_slice(json.as_bytes()),
    }
    Ok(true)
}

fn string_param(out: &mut Vec<u8>, json: &str, shape: &Shape) -> Done {
    let inner = json.strip_prefix('"').and_then(|tail| tail.strip_suffix('"'));
    let text = match inner.ok_or(ParamError::InvalidJson)? {
        inner if !inner.contains('\\') => Cow::Borrowed(inner),
        _ => Cow::Owned(serde_json::from_str(json)?),
    };
    if text.contains('\0') {
        return Err(ParamError::Nul);
    }
    if *shape != Shape::Bytea {
        out.extend_from_slice(text.as_bytes());
        return Ok(());
    }
    let bytes = BASE64.decode(text.as_bytes()).map_err(|_| ParamError::Base64)?;
    out.extend_from_slice(b"\\x");
    out.reserve(bytes.len() * 2);
    out.extend(bytes.iter().flat_map(|byte| [hex_digit(byte >> 4), hex_digit(byte & 15)]));
    Ok(())
}

fn array_param(out: &mut Vec<u8>, json: &str, shape: &Shape, depth: usize) -> Done {
    let Shape::Array { element, delimiter } = shape else { return Err(ParamError::ExpectedArray) };
    let takes_arrays = matches!(**element, Shape::Json | Shape::Composite(_) | Shape::Array { .. });
    let values: Vec<&RawValue> = serde_json::from_str(json)?;
    out.push(b'{');
    for (index, json) in values.into_iter().map(RawValue::get).enumerate() {
        if index > 0 {
            out.push(*delimiter);
        }
        let start = out.len();
        let nested = json.starts_with('[') && !takes_arrays;
        if !param(out, json, if nested { shape } else { element }, depth + 1)? {
            out.extend(b"NULL");
        } else if !nested {
            quote_if_needed(out, start, *delimiter);
        }
    }
    out.push(b'}');
    Ok(())
}

fn composite_param(out: &mut Vec<u8>, json: &str, fields: &[Field], depth: usize) -> Done {
    let values: Vec<Option<&RawValue>> = if json.starts_with('[') {
        serde_json::from_str(json)?
    } else {
        let mut object: BTreeMap<String, &RawValue> = serde_json::from_str(json)?;
        let values = fields.iter().map(|field| object.remove(&*field.name)).collect();
        match object.into_keys().next() {
            Some(name) => return Err(ParamError::UnknownField(name)),
            None => values,
        }
    };
    if fields.len() != values.len() {
        return Err(ParamError::FieldCount(fields.len(), values.len()));
    }
    out.push(b'(');
    for (index, (field, value)) in fields.iter().zip(values).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let start = out.len();
        let json = value.map_or("null", RawValue::get);
        if param(out, json, &field.shape, depth + 1)? {
            quote_if_needed(out, start, b',');
        }
    }
    out.push(b')');
    Ok(())
}

/// Quotes what was appended since `start` if the array or the record syntax needs it: the union
/// of both, because both read quotes that they do not need, and a backslash as an escape.
fn quote_if_needed(out: &mut Vec<u8>, start: usize, delimiter: u8) {
    let text = out.get(start..).unwrap_or_default();
    let plain = |byte: &u8| *byte > b' ' && *byte != delimiter && !b"\"\\{}[]()".contains(byte);
    if text.iter().all(plain) && !text.is_empty() && !text.eq_ignore_ascii_case(b"null") {
        return;
    }
    let text = out.split_off(start);
    out.push(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}
