//! The smallest parts of the query string's grammar.

use super::error::Refusal;
use crate::query::plan::ask::{Field, Step};

/// A text that is read from left to right.
pub(super) struct Scan<'t> {
    what: &'static str,
    text: &'t str,
    at: usize,
}

pub(super) type Parsed<T> = Result<T, Refusal>;

impl<'t> Scan<'t> {
    /// `what` is for messages.
    pub fn new(what: &'static str, text: &'t str) -> Self {
        Self { what, text, at: 0 }
    }

    pub fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    pub fn place(&self) -> usize {
        self.at
    }

    pub fn back_to(&mut self, place: usize) {
        self.at = place;
    }

    pub fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub fn is_end(&self) -> bool {
        self.at == self.text.len()
    }

    /// Whether a text comes next; then it is passed.
    pub fn take(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    /// The same without regard to ASCII case.
    pub fn take_word(&mut self, word: &str) -> bool {
        let found = self.rest().get(..word.len()).is_some_and(|t| t.eq_ignore_ascii_case(word));
        if found {
            self.at += word.len();
        }
        found
    }

    pub fn blanks(&mut self) {
        self.while_char(|c| c == ' ' || c == '\t');
    }

    /// Passes what is left.
    pub fn all(&mut self) -> &'t str {
        let rest = self.rest();
        self.at = self.text.len();
        rest
    }

    pub fn while_char(&mut self, holds: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let length = rest.find(|c| !holds(c)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    pub fn fail<T>(&self, expecting: &str) -> Parsed<T> {
        let column = self.text[..self.at].chars().count() + 1;
        let unexpected = match self.peek() {
            Some(c) => format!("unexpected {c:?}"),
            None => "unexpected end of input".to_owned(),
        };
        let details = format!("{unexpected} expecting {expecting}");
        Err(Refusal::syntax(self.what, self.text, column, details))
    }

    pub fn expect(&mut self, text: &str) -> Parsed<()> {
        if self.take(text) { Ok(()) } else { self.fail(&format!("{text:?}")) }
    }

    pub fn expect_end(&self) -> Parsed<()> {
        if self.is_end() { Ok(()) } else { self.fail("end of input") }
    }

    /// Letters, digits, `_`, `$` and blanks, without those at its ends.
    pub fn identifier(&mut self) -> Parsed<&'t str> {
        let word = self.while_char(|c| c.is_alphanumeric() || matches!(c, '_' | ' ' | '$'));
        if word.is_empty() { self.fail("letter or digit") } else { Ok(word.trim()) }
    }

    /// A name: quoted, or identifiers with dashes between them.
    pub fn name(&mut self) -> Parsed<String> {
        if self.peek() == Some('"') {
            return self.quoted();
        }
        const NAME: &str = "field name (* or [a..z0..9_$])";
        let mut name = match self.identifier() {
            Ok(word) => word.to_owned(),
            Err(_) => return self.fail(NAME),
        };
        while self.rest().starts_with('-') && !self.rest().starts_with("->") {
            self.at += 1;
            name.push('-');
            name.push_str(self.identifier()?);
        }
        Ok(name)
    }

    /// `"…"` with `\` before what is meant literally.
    pub fn quoted(&mut self) -> Parsed<String> {
        self.expect("\"")?;
        let mut value = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += at + 1;
                    return Ok(value);
                }
                '\\' => match chars.next() {
                    Some((_, c)) => value.push(c),
                    None => break,
                },
                c => value.push(c),
            }
        }
        self.at = self.text.len();
        self.fail("\"\\\"\"")
    }

    /// A name and the path into it.
    pub fn field(&mut self) -> Parsed<Field> {
        self.blanks();
        let name = self.name()?;
        let field = self.path_of(name)?;
        self.blanks();
        Ok(field)
    }

    /// The path into a column.
    pub fn path_of(&mut self, name: String) -> Parsed<Field> {
        let mut field = Field::column(name);
        loop {
            let as_text = self.take("->>");
            if !as_text && !self.take("->") {
                return Ok(field);
            }
            if field.as_text {
                return self.fail("the end of the path after ->>");
            }
            field.as_text = as_text;
            let step = self.step()?;
            field.path.push(step);
        }
    }

    fn step(&mut self) -> Parsed<Step> {
        if let Some(index) = self.index() {
            return Ok(Step::Index(index));
        }
        if self.peek() == Some('"') {
            return Ok(Step::Key(self.quoted()?));
        }
        let is_key = |c: char| !"(-:.,>)".contains(c);
        let mut key = String::new();
        loop {
            let part = self.while_char(is_key);
            if part.is_empty() {
                return self.fail("any non reserved character different from: .,>()");
            }
            key.push_str(part.trim());
            if self.rest().starts_with("->") || !self.take("-") {
                return Ok(Step::Key(key));
            }
            key.push('-');
        }
    }

    /// Digits that the step consists of.
    fn index(&mut self) -> Option<i32> {
        let start = self.at;
        self.take("-");
        self.while_char(|c| c.is_ascii_digit());
        let number = self.text[start..self.at].parse().ok();
        let rest = self.rest();
        let ends = ["->", "::", ".", ",", ")"].iter().any(|end| rest.starts_with(end));
        let number = number.filter(|_| ends || rest.is_empty());
        if number.is_none() {
            self.at = start;
        }
        number
    }
}
