//! Arrays in text form, for elements that have no other form here
//! (<https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO>).

use super::MAX_DEPTH;
use super::result::{ARRAY, NULL, OTHER};
use crate::proto::Malformed;
use crate::proto::native::Writer;

/// Dimensions that an array can have.
const MOST_DIMENSIONS: usize = 6;

/// The only built-in type whose elements are not separated by commas.
const BOX: u32 = 603;

const BAD: Malformed = Malformed("not an array in text form");

/// What was found in a text.
enum Token<'a> {
    Open,
    Close,
    Comma,
    Null,
    Element(std::borrow::Cow<'a, [u8]>),
}

struct Reader<'a> {
    text: &'a [u8],
    delimiter: u8,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<Token<'a>>, Malformed> {
        let Some((&first, rest)) = self.text.split_first() else { return Ok(None) };
        let token = match first {
            b'{' => Token::Open,
            b'}' => Token::Close,
            byte if byte == self.delimiter => Token::Comma,
            b'"' => return self.quoted(rest).map(Some),
            _ => return self.plain().map(Some),
        };
        self.text = rest;
        Ok(Some(token))
    }

    fn quoted(&mut self, text: &'a [u8]) -> Result<Token<'a>, Malformed> {
        let mut element = Vec::new();
        let mut bytes = text.iter().enumerate();
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'"' => {
                    self.text = &text[at + 1..];
                    return Ok(Token::Element(element.into()));
                }
                b'\\' => element.push(*bytes.next().ok_or(BAD)?.1),
                byte => element.push(*byte),
            }
        }
        Err(BAD)
    }

    fn plain(&mut self) -> Result<Token<'a>, Malformed> {
        let ends = |byte: &u8| *byte == self.delimiter || matches!(byte, b'{' | b'}' | b'"');
        let end = self.text.iter().position(ends).ok_or(BAD)?;
        let (element, rest) = self.text.split_at(end);
        self.text = rest;
        Ok(match element.eq_ignore_ascii_case(b"null") {
            true => Token::Null,
            false => Token::Element(element.into()),
        })
    }
}

/// Appends an array whose elements travel as their texts.
///
/// # Errors
/// The text is no array; `out` has a part of it then.
pub(super) fn put(
    out: &mut Vec<u8>,
    element: u32,
    raw: &[u8],
    depth: usize,
) -> Result<(), Malformed> {
    if depth >= MAX_DEPTH {
        return Err(BAD);
    }
    let (lowers, text) = bounds(raw)?;
    let delimiter = if element == BOX { b';' } else { b',' };
    let (lengths, count) = lengths(Reader { text, delimiter })?;
    let mut w = Writer::new(out);
    w.variant(ARRAY);
    w.unsigned(element.into());
    w.unsigned(lengths.len() as u64);
    for (at, length) in lengths.iter().enumerate() {
        w.unsigned(*length);
        w.signed(lowers.get(at).copied().unwrap_or(1));
    }
    w.unsigned(count);
    let mut reader = Reader { text, delimiter };
    while let Some(token) = reader.next()? {
        match token {
            Token::Null => w.variant(NULL),
            Token::Element(bytes) => {
                w.variant(OTHER);
                w.unsigned(element.into());
                w.byte(0);
                w.counted(&bytes);
            }
            Token::Open | Token::Close | Token::Comma => {}
        }
    }
    Ok(())
}

/// Reads `[2:3][0:1]=`, if it is there.
fn bounds(raw: &[u8]) -> Result<(Vec<i64>, &[u8]), Malformed> {
    if raw.first() != Some(&b'[') {
        return Ok((Vec::new(), raw));
    }
    let end = raw.iter().position(|byte| *byte == b'=').ok_or(BAD)?;
    let text = std::str::from_utf8(&raw[..end]).map_err(|_| BAD)?;
    let lower = |part: &str| part.trim_start_matches('[').split(':').next()?.parse().ok();
    let lowers: Option<Vec<i64>> = text.trim_end_matches(']').split(']').map(lower).collect();
    Ok((lowers.ok_or(BAD)?, &raw[end + 1..]))
}

/// The length of each dimension, and how many elements there are.
fn lengths(mut reader: Reader<'_>) -> Result<(Vec<u64>, u64), Malformed> {
    let mut lengths: Vec<u64> = Vec::new();
    // Parts so far on each level that is open.
    let mut open: Vec<u64> = Vec::new();
    let mut count = 0;
    while let Some(token) = reader.next()? {
        match token {
            Token::Open => {
                if let Some(parts) = open.last_mut() {
                    *parts += 1;
                }
                open.push(0);
                if open.len() > MOST_DIMENSIONS {
                    return Err(BAD);
                }
            }
            Token::Close => {
                let level = open.len().checked_sub(1).ok_or(BAD)?;
                let parts = open.pop().ok_or(BAD)?;
                lengths.resize(lengths.len().max(level + 1), 0);
                lengths[level] = parts;
            }
            Token::Comma => {}
            Token::Null | Token::Element(_) => {
                *open.last_mut().ok_or(BAD)? += 1;
                count += 1;
            }
        }
    }
    if lengths.is_empty() {
        return Err(BAD);
    }
    if count == 0 {
        lengths.clear();
    }
    let whole = if lengths.is_empty() { 0 } else { lengths.iter().product() };
    match open.is_empty() && whole == count {
        true => Ok((lengths, count)),
        false => Err(BAD),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::native::{Value, decode};

    /// Dimensions, and the texts of the elements.
    type Found = (Vec<(u32, i32)>, Vec<Option<String>>);

    fn array(element: u32, text: &str) -> Option<Found> {
        let mut out = Vec::new();
        put(&mut out, element, text.as_bytes(), 0).ok()?;
        let Value::Array { dims, values, element_oid } = decode(&out).unwrap() else { panic!() };
        assert_eq!(element_oid, element);
        let text = |value| match value {
            Value::Null => None,
            Value::Other { bytes, .. } => Some(String::from_utf8(bytes).unwrap()),
            other => panic!("{other:?}"),
        };
        let dims = dims.iter().map(|dim| (dim.len, dim.lower)).collect();
        Some((dims, values.into_iter().map(text).collect()))
    }

    #[test]
    fn arrays() {
        let some = |texts: &[&str]| texts.iter().map(|t| Some((*t).to_owned())).collect::<Vec<_>>();
        assert_eq!(array(600, "{}"), Some((vec![], vec![])));
        let found = array(600, r#"{"(1,2)",NULL}"#).unwrap();
        assert_eq!(found, (vec![(2, 1)], vec![Some("(1,2)".into()), None]));
        let found = array(603, "{(1,1),(0,0);(2,2),(1,1)}").unwrap();
        assert_eq!(found, (vec![(2, 1)], some(&["(1,1),(0,0)", "(2,2),(1,1)"])));
        let found = array(3220, "[0:1][5:5]={{0/1},{0/2}}").unwrap();
        assert_eq!(found, (vec![(2, 0), (1, 5)], some(&["0/1", "0/2"])));
        let found = array(3614, r#"{"a\"\\","NULL",null}"#).unwrap().1;
        assert_eq!(found, [Some("a\"\\".into()), Some("NULL".into()), None]);
        for bad in ["", "{", "}", "{a", "{\"a}", "a", "{{a},{b,c}}", "[x]={a}", "{{{{{{{a}}}}}}}"] {
            assert_eq!(array(600, bad), None, "{bad}");
        }
    }
}
