//! Paths and query strings, decoded strictly: what is not UTF-8 names nothing.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::error::{Error, ErrorKind, Result};

fn decoded(text: &str) -> Result<Cow<'_, str>> {
    percent_decode_str(text).decode_utf8().map_err(|_| {
        Error::new(ErrorKind::ValidationError, "the address is not UTF-8, percent-encoded")
    })
}

/// The parts of a path between slashes; those at its ends do not count.
///
/// # Errors
/// One of them is not UTF-8.
pub fn segments(path: &str) -> Result<Vec<Cow<'_, str>>> {
    path.trim_matches('/').split('/').map(decoded).collect()
}

/// A name or value of a query string.
///
/// # Errors
/// It is not UTF-8.
pub fn value(text: &str) -> Result<Cow<'_, str>> {
    match text.contains('+') {
        true => decoded(&text.replace('+', " ")).map(|text| Cow::Owned(text.into_owned())),
        false => decoded(text),
    }
}

/// Names and values of a query string, in their order.
///
/// # Errors
/// One of them is not UTF-8.
pub fn pairs(query: &str) -> Result<Vec<(String, String)>> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let text = |part: &str| value(part).map(Cow::into_owned);
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((text(name)?, text(value)?))
    };
    pairs.map(pair).collect()
}

/// The parameters of a query string, of which some have a meaning of their own.
#[derive(Debug, Default)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads a query string.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub fn of(query: Option<&str>) -> Result<Self> {
        pairs(query.unwrap_or("")).map(Self)
    }

    /// Takes one out.
    ///
    /// # Errors
    /// It is there several times.
    pub fn take(&mut self, name: &str) -> Result<Option<String>> {
        let Some(at) = self.0.iter().position(|(other, _)| other == name) else { return Ok(None) };
        let (_, value) = self.0.remove(at);
        if self.0.iter().any(|(other, _)| other == name) {
            let text = format!("the parameter {name} is there several times");
            return Err(Error::new(ErrorKind::ValidationError, text));
        }
        Ok(Some(value))
    }

    /// Takes one out if it has one of these values: with another one it means something else.
    ///
    /// # Errors
    /// It is there several times.
    pub fn take_if(&mut self, name: &str, values: &[&str]) -> Result<Option<String>> {
        let fits =
            |(other, value): &(String, String)| other == name && values.contains(&value.as_str());
        if self.0.iter().any(fits) { self.take(name) } else { Ok(None) }
    }

    /// Puts one in.
    pub fn put(&mut self, name: &str, value: String) {
        self.0.push((name.to_owned(), value));
    }

    /// Those that nobody has taken out.
    pub fn rest(&self) -> &[(String, String)] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoded_strictly() {
        assert_eq!(segments("/rpc/a%20b/").unwrap(), ["rpc", "a b"]);
        assert_eq!(segments("/").unwrap(), [""]);
        assert!(segments("/%ff").is_err() && pairs("a=%c3%28").is_err());
        let expected = [("a b", "1+2"), ("c", ""), ("d", "x=y")];
        let found = pairs("a+b=1%2B2&&c&d=x=y").unwrap();
        let found: Vec<_> = found.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(found, expected);
    }
}
