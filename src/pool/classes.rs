//! The words of pooled sessions: class, purity, tag. Pure.
//!
//! A client that asks for a *pooled session* holds one connection from its first request to its
//! release. What it leaves there, its settings, temporary tables and prepared statements, is kept
//! for the next client of the same role and *connection class*; the *tag* says what state it is.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};

/// Setting that names the class.
pub const CLASS: &str = "rustydb.connection_class";

/// Setting that says what state the client takes.
pub const PURITY: &str = "rustydb.purity";

/// Setting that describes the state.
pub const TAG: &str = "rustydb.tag";

/// Setting that tells how the session that was found fits: `exact`, `partial` or `none`.
pub const TAG_MATCH: &str = "rustydb.tag_match";

/// Setting that tells the tag of the session that was found.
pub const TAG_FOUND: &str = "rustydb.tag_found";

/// The class that shares nothing.
pub const SHARED: &str = "SHARED";

/// Longest name of a class, in bytes.
const LONGEST_CLASS: usize = 128;

/// Longest tag, in bytes.
const LONGEST_TAG: usize = 1024;

/// What both consist of, for people.
const PLAIN: &str = "all printable ASCII and no backslash";

/// What state of others a client takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purity {
    /// None: the connection is new, or was fully reset.
    New,
    /// That of the same role and class.
    Own,
    /// Any connection, which has none either; it is not held between transactions.
    Any,
}

impl Purity {
    /// Reads `new`, `self` or `any`, in capitals or not.
    ///
    /// # Errors
    /// 22023 for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "new" => Ok(Self::New),
            "self" => Ok(Self::Own),
            "any" => Ok(Self::Any),
            _ => Err(invalid(PURITY, text).with_hint("it is new, self or any")),
        }
    }
}

/// Reads the name of a class; `None` = [`SHARED`].
///
/// # Errors
/// 22023 when it is longer than 128 bytes, or not printable ASCII without a backslash.
pub fn class(text: &str) -> Result<Option<Arc<str>>> {
    let name = text.trim();
    if name.len() > LONGEST_CLASS || !is_plain(name) {
        let hint = format!("a class has at most {LONGEST_CLASS} bytes, {PLAIN}");
        return Err(
            invalid(CLASS, &text.chars().take(LONGEST_CLASS).collect::<String>()).with_hint(hint)
        );
    }
    let is_shared = name.is_empty() || name.eq_ignore_ascii_case(SHARED);
    Ok((!is_shared).then(|| name.into()))
}

/// A backslash could mean something else where the text becomes part of a command.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'\\')
}

fn invalid(setting: &str, value: &str) -> Error {
    Error::sql(b"22023", format!("invalid value for parameter \"{setting}\": \"{value}\""))
}

/// Pairs of key and value that describe the state of a session, sorted by key.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag(Vec<(Box<str>, Box<str>)>);

impl Tag {
    /// Reads `key=value` pairs with commas between them. Spaces around them do not count, nor does
    /// their order; of several pairs with one key the last counts.
    ///
    /// # Errors
    /// 22023 when a part is no pair, or the whole is longer than 1,024 bytes or not printable
    /// ASCII without a backslash.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > LONGEST_TAG || !is_plain(text) {
            let hint = format!("a tag has at most {LONGEST_TAG} bytes, {PLAIN}");
            return Err(invalid(TAG, &text.chars().take(80).collect::<String>()).with_hint(hint));
        }
        let mut pairs: Vec<(Box<str>, Box<str>)> = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let pair = part.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
            let Some((key, value)) = pair.filter(|(key, _)| !key.is_empty()) else {
                let hint = "a tag consists of key=value pairs with commas between them";
                return Err(invalid(TAG, text).with_hint(hint));
            };
            pairs.retain(|(known, _)| **known != *key);
            pairs.push((key.into(), value.into()));
        }
        pairs.sort();
        Ok(Self(pairs))
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How well a session with tag `found` suits who asks for this one; `None` = not at all. Who
    /// asks for none gets one without a tag first, then any.
    pub(super) fn fit(&self, found: &Tag) -> Option<Fit> {
        if self == found {
            return Some(Fit::Exact);
        }
        let equal = self.0.iter().filter(|pair| found.0.contains(pair)).count();
        (equal > 0 || self.is_empty()).then_some(Fit::Pairs(equal))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (key, value)) in self.0.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

/// How a tag fits another; what is greater is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// So many pairs are equal.
    Pairs(usize),
    /// All of them, and there are no others.
    Exact,
}

/// What a session asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The class; `None` = [`SHARED`].
    pub class: Option<Arc<str>>,
    /// What state it takes.
    pub purity: Purity,
    /// The state that it would like best.
    pub tag: Tag,
}

impl Wish {
    /// Name of the class.
    pub fn class_name(&self) -> &str {
        self.class.as_deref().unwrap_or(SHARED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(text: &str) -> Tag {
        Tag::parse(text).unwrap()
    }

    #[test]
    fn tags_are_normalised() {
        for (text, normal) in [
            ("", ""),
            (" , ", ""),
            ("a=1", "a=1"),
            (" b = 2 ,a=1,", "a=1,b=2"),
            ("a=1,a=2", "a=2"),
            ("a=x=y", "a=x=y"),
            ("a=", "a="),
        ] {
            assert_eq!(tag(text).to_string(), normal, "{text}");
        }
        for wrong in ["a", "=1", "a=1,b", "a=\u{e4}", "a=\n1", "a=\\", &"a=1,".repeat(300)] {
            let error = Tag::parse(wrong).unwrap_err();
            assert_eq!(error.sqlstate().as_str(), "22023", "{wrong}");
        }
    }

    #[test]
    fn the_best_tag_is_the_same_one_then_that_with_most_equal_pairs() {
        let wish = tag("language=en,zone=utc,app=x");
        let fits = |found| wish.fit(&tag(found));
        assert_eq!(fits("app=x,zone=utc,language=en"), Some(Fit::Exact));
        assert_eq!(fits("language=en,zone=utc"), Some(Fit::Pairs(2)));
        assert_eq!(fits("language=en,zone=cet"), Some(Fit::Pairs(1)));
        assert_eq!((fits("language=de"), fits("")), (None, None));
        assert!(fits("app=x,zone=utc,language=en") > fits("language=en,zone=utc,app=y"));
        assert_eq!(tag("").fit(&tag("")), Some(Fit::Exact));
        assert_eq!(tag("").fit(&tag("a=1")), Some(Fit::Pairs(0)));
    }

    #[test]
    fn the_shared_class_is_no_class() {
        assert_eq!((class("").unwrap(), class(" shared ").unwrap()), (None, None));
        assert_eq!(class(" Web App").unwrap().as_deref(), Some("Web App"));
        assert!(class(&"x".repeat(129)).is_err() && class("a\0").is_err());
        assert!(class("a\\b").is_err());
        assert_eq!(Purity::parse(" SELF ").unwrap(), Purity::Own);
        assert_eq!(Purity::parse("own").unwrap_err().sqlstate().as_str(), "22023");
    }
}
