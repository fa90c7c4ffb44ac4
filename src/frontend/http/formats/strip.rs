//! JSON without the members of objects that are null, at every depth, as `json_strip_nulls` makes
//! it. Elements of arrays stay.

/// What a value is in.
#[derive(Clone, Copy)]
enum In {
    /// An object; whether one of its members was written.
    Object(bool),
    Array,
}

/// Takes the null members, and the white space, out of a JSON value that begins at `start` and
/// ends with the buffer. What is not JSON stays as it is.
pub fn strip_nulls(out: &mut Vec<u8>, start: usize) {
    let mut strip = Strip { bytes: out, read: start, write: start, within: Vec::new() };
    if let Some(length) = strip.value_and_rest() {
        out.truncate(length);
    }
}

/// Moves what stays to the front: less is written than was read, always.
struct Strip<'a> {
    bytes: &'a mut [u8],
    read: usize,
    write: usize,
    within: Vec<In>,
}

impl Strip<'_> {
    /// Where the value ends then; `None` = it is none.
    fn value_and_rest(&mut self) -> Option<usize> {
        self.value()?;
        while let Some(within) = self.within.last().copied() {
            match (within, self.peek()?) {
                (In::Object(_), b'}') | (In::Array, b']') => {
                    self.keep(1);
                    self.within.pop();
                }
                (In::Object(_), b',') => self.read += 1,
                (In::Object(any), b'"') => self.member(any)?,
                (In::Array, b',') => self.keep(1),
                (In::Array, _) => self.value()?,
                (In::Object(_), _) => return None,
            }
        }
        Some(self.write)
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = self.bytes.get(self.read..)?;
        self.read += rest.iter().position(|byte| !byte.is_ascii_whitespace())?;
        self.bytes.get(self.read).copied()
    }

    fn keep(&mut self, length: usize) {
        self.bytes.copy_within(self.read..self.read + length, self.write);
        self.read += length;
        self.write += length;
    }

    fn member(&mut self, any: bool) -> Option<()> {
        let key = self.read..self.read + self.string()?;
        self.read = key.end;
        (self.peek()? == b':').then_some(())?;
        self.read += 1;
        self.peek()?;
        if self.bytes[self.read..].starts_with(b"null") {
            self.read += 4;
            return Some(());
        }
        if any {
            self.put(b',');
        }
        *self.within.last_mut()? = In::Object(true);
        self.bytes.copy_within(key.clone(), self.write);
        self.write += key.len();
        self.put(b':');
        self.value()
    }

    fn put(&mut self, byte: u8) {
        self.bytes[self.write] = byte;
        self.write += 1;
    }

    /// A value, or the beginning of one that has others in it.
    fn value(&mut self) -> Option<()> {
        let length = match self.peek()? {
            b'{' => {
                self.within.push(In::Object(false));
                1
            }
            b'[' => {
                self.within.push(In::Array);
                1
            }
            b'"' => self.string()?,
            _ => {
                let rest = &self.bytes[self.read..];
                let end =
                    |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t');
                rest.iter().position(end).unwrap_or(rest.len())
            }
        };
        (length > 0).then(|| self.keep(length))
    }

    /// Bytes of the string that begins here.
    fn string(&self) -> Option<usize> {
        let mut rest = self.bytes[self.read..].iter().enumerate().skip(1);
        while let Some((at, byte)) = rest.next() {
            match byte {
                b'"' => return Some(at + 1),
                b'\\' => drop(rest.next()),
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_are_null_are_left_out() {
        for (json, expected) in [
            (r#"{"a":null}"#, "{}"),
            (r#"{"a":1,"b":null,"c":"null"}"#, r#"{"a":1,"c":"null"}"#),
            (r#"{"a":null,"b":2}"#, r#"{"b":2}"#),
            (
                r#"{ "a" : null , "b\"}" : [ null , {"c": null, "d": [ ] } ] }"#,
                r#"{"b\"}":[null,{"d":[]}]}"#,
            ),
            (r#"[null,1.0e5,{"x":{"y":null}},"\\",true]"#, r#"[null,1.0e5,{"x":{}},"\\",true]"#),
            (r#"{"a":"b,}","n":null,"é":"\u00e9"}"#, r#"{"a":"b,}","é":"\u00e9"}"#),
            ("null", "null"),
            ("7", "7"),
            ("{}", "{}"),
            // What is no JSON is nobody's.
            (r#"{"a"#, r#"{"a"#),
            ("", ""),
        ] {
            let mut out = b"before".to_vec();
            out.extend_from_slice(json.as_bytes());
            strip_nulls(&mut out, 6);
            assert_eq!(String::from_utf8_lossy(&out), format!("before{expected}"));
        }
        let deep = format!("{}{}{}", "{\"a\":[".repeat(5000), "{\"b\":null}", "]}".repeat(5000));
        let mut out = deep.clone().into_bytes();
        strip_nulls(&mut out, 0);
        assert_eq!(String::from_utf8(out).unwrap(), deep.replace("\"b\":null", ""));
    }
}
