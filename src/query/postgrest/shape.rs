//! Requests for rows that differ only in what columns are compared with have the same shape, and
//! are planned once.
//!
//! What may differ is found in the text alone. Whether it does nothing but become the value of a
//! parameter is seen by planning the request once more with other values.

use super::{Action, Options, Planned, Request, plan};
use crate::query::plan::Statement;
use crate::query::plan::ask::Count;
use crate::query::schema::Schema;

/// Bytes of a shape's text.
const LONGEST: usize = 2 << 10;

/// Values of a request that has a shape.
const MOST_VALUES: usize = 16;

/// Comparisons whose value is all that follows.
const COMPARISONS: [&str; 6] = ["eq.", "neq.", "gt.", "gte.", "lt.", "lte."];

/// What stands for a value in the text; no address has it.
const VALUE: u8 = 0;

/// What ends a part of the text; no address, and no header, has it.
const END: u8 = 1;

/// A request without its values.
#[derive(Debug)]
pub struct Shape<'r> {
    text: Vec<u8>,
    values: Vec<Value<'r>>,
}

/// A value, where it is.
#[derive(Debug)]
struct Value<'r> {
    /// Number of its parameter.
    pair: usize,
    comparison: &'static str,
    text: &'r str,
}

impl<'r> Shape<'r> {
    /// The shape of a `GET` of this path and query string, both still encoded; `None` = it is too
    /// long to be remembered.
    pub fn of<'h>(
        path: &str,
        query: &'r str,
        headers: impl Iterator<Item = (&'h str, &'h [u8])>,
    ) -> Option<Self> {
        let mut text = Vec::with_capacity(path.len() + query.len() + 64);
        let mut values = Vec::new();
        text.extend_from_slice(path.as_bytes());
        text.push(END);
        // As many as there are when it is decoded.
        for (pair, parameter) in query.split('&').filter(|pair| !pair.is_empty()).enumerate() {
            match comparison(parameter) {
                Some((before, comparison, value)) => {
                    text.extend_from_slice(before.as_bytes());
                    text.push(VALUE);
                    values.push(Value { pair, comparison, text: value });
                }
                None => text.extend_from_slice(parameter.as_bytes()),
            }
            text.push(b'&');
        }
        for (name, value) in headers {
            text.push(END);
            text.extend_from_slice(name.as_bytes());
            text.push(END);
            text.extend_from_slice(value);
        }
        let is_short = text.len() <= LONGEST && values.len() <= MOST_VALUES;
        is_short.then_some(Self { text, values })
    }

    /// The same for requests of the same shape.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The values, still encoded.
    pub fn values(&self) -> impl Iterator<Item = &'r str> {
        self.values.iter().map(|value| value.text)
    }
}

/// A comparison of something that has a plain name: what is before its value, how it compares, and
/// the value.
fn comparison(parameter: &str) -> Option<(&str, &'static str, &str)> {
    let end = parameter.bytes().position(|byte| byte == b'=')?;
    let (name, rest) = (parameter.get(..end)?, parameter.get(end + 1..)?);
    let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'));
    let comparison = COMPARISONS.into_iter().find(|word| rest.starts_with(word))?;
    let (before, value) = parameter.split_at(name.len() + 1 + comparison.len());
    is_plain.then_some((before, comparison, value))
}

/// How requests of a shape are answered.
#[derive(Debug)]
pub struct Template {
    /// The request as it was when it was planned. In its plan are the values of that one.
    pub planned: Planned,
    /// The statement; parameters that a request's values are for have none.
    pub statement: Statement,
    /// Which value of the request each parameter has.
    slots: Vec<Option<usize>>,
}

impl Template {
    /// What a planned request has in common with all of its shape. `None` = it does not read rows,
    /// or its values may decide more than what the values of parameters are.
    pub fn of(
        schema: &Schema,
        options: &Options,
        request: &Request<'_>,
        shape: &Shape<'_>,
        planned: &Planned,
    ) -> Option<Self> {
        let mut statement = written(schema, planned)?;
        let (mut pairs, mut marks) = (request.query.to_vec(), Vec::new());
        for (at, value) in shape.values.iter().enumerate() {
            let (_, text) = pairs.get_mut(value.pair)?;
            let own = text.strip_prefix(value.comparison)?.to_owned();
            let mark = format!("~value {at}~");
            if own == mark {
                return None;
            }
            *text = [value.comparison, &mark].concat();
            marks.push((own, mark));
        }
        let other = plan(schema, options, &Request { query: &pairs, ..*request }).ok()?;
        if !is_same_but_for_its_plan(planned, &other) {
            return None;
        }
        let other = written(schema, &other)?;
        let mut slots = Vec::with_capacity(statement.params.len());
        for (param, other) in statement.params.iter_mut().zip(&other.params) {
            let is =
                |text: &str, value: &Option<Vec<u8>>| value.as_deref() == Some(text.as_bytes());
            let slot = marks.iter().position(|(_, mark)| is(mark, &other.value));
            match slot {
                Some(slot) if is(&marks[slot].0, &param.value) => param.value = None,
                None if *param == *other => {}
                _ => return None,
            }
            slots.push(slot);
        }
        let without_values = |mut statement: Statement| {
            for (param, _) in statement.params.iter_mut().zip(&slots).filter(|(_, s)| s.is_some()) {
                param.value = None;
            }
            statement
        };
        let is_whole = (0..marks.len()).all(|at| slots.contains(&Some(at)));
        let is_same = statement == without_values(other);
        (is_whole && is_same).then(|| Self { planned: planned.clone(), statement, slots })
    }

    /// Values of the statement's parameters, by those of a request of this shape.
    pub fn values<'v>(&'v self, given: &'v [impl AsRef<str>]) -> Vec<Option<&'v [u8]>> {
        let params = self.statement.params.iter().zip(&self.slots);
        let value = |(param, slot): (&'v crate::query::plan::Param, &Option<usize>)| match slot {
            Some(slot) => given.get(*slot).map(|value| value.as_ref().as_bytes()),
            None => param.value.as_deref(),
        };
        params.map(value).collect()
    }

    /// About how many bytes it has.
    pub fn size(&self) -> usize {
        let params = self.statement.params.iter();
        let values: usize = params.filter_map(|param| Some(param.value.as_ref()?.len())).sum();
        // The plan is about as long as what is made of it.
        2 * (self.statement.sql.len() + values) + size_of::<Self>()
    }
}

/// The statement of a request that reads rows, and needs no other one.
fn written(schema: &Schema, planned: &Planned) -> Option<Statement> {
    let Action::Read(plan) = &planned.action else { return None };
    let is_one = matches!(plan.count(), Count::None | Count::Exact) && !planned.headers_only;
    is_one.then(|| plan.statement(schema))
}

fn is_same_but_for_its_plan(one: &Planned, other: &Planned) -> bool {
    let (Action::Read(plan), Action::Read(others)) = (&one.action, &other.action) else {
        return false;
    };
    (plan.limit(), plan.offset(), plan.count()) == (others.limit(), others.offset(), others.count())
        && *one == Planned { action: one.action.clone(), ..other.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::plan::{Limits, fixtures};

    fn options() -> Options {
        Options {
            schemas: vec!["api".into()],
            limits: Limits { max_rows: None, aggregates: true },
            ..Options::default()
        }
    }

    fn pairs(query: &str) -> Vec<(String, String)> {
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
    }

    fn shape(query: &str) -> Shape<'_> {
        Shape::of("/posts", query, std::iter::empty()).unwrap()
    }

    fn planned(query: &str) -> (Option<Template>, Option<Statement>) {
        let (schema, pairs) = (fixtures::schema(), pairs(query));
        let request =
            Request { method: "GET", path: &["posts"], query: &pairs, headers: &[], body: b"" };
        let Ok(planned) = plan(&schema, &options(), &request) else { return (None, None) };
        let template = Template::of(&schema, &options(), &request, &shape(query), &planned);
        (template, written(&schema, &planned))
    }

    #[test]
    fn a_template_gives_what_planning_gives() {
        for (first, second) in [
            ("id=eq.1", "id=eq.2"),
            ("select=*&id=gte.10&id=lt.20", "select=*&id=gte.~value%201~&id=lt."),
            ("title=neq.a&limit=5&order=id", "title=neq.null&limit=5&order=id"),
            ("title=eq.x&id=eq.1", "title=eq.(any),%22%2C.%7B&id=eq.eq.1"),
            ("title=eq.&or=(id.eq.1,id.eq.2)", "title=eq.a+b%2Bc&or=(id.eq.1,id.eq.2)"),
            (
                "select=id,comments(id)&comments.body=eq.x",
                "select=id,comments(id)&comments.body=eq.%C3%A4",
            ),
        ] {
            let template = planned(first).0.unwrap_or_else(|| panic!("{first}"));
            let (one, other) = (shape(first), shape(second));
            assert_eq!(one.text(), other.text(), "{first}");
            let given: Vec<(String, String)> =
                other.values().flat_map(|value| pairs(&format!("v={value}"))).collect();
            let given: Vec<&String> = given.iter().map(|(_, value)| value).collect();
            let expected = planned(second).1.unwrap();
            assert_eq!(template.values(&given), expected.values(), "{second}");
            assert_eq!(template.statement.sql, expected.sql, "{second}");
        }
    }

    #[test]
    fn what_decides_more_has_no_template() {
        for query in [
            "order=eq.desc&select=id",
            "limit=eq.1",
            "select=eq.id",
            "id=eq.~value+0~",
            "nothing=eq.1",
            "comments.order=eq.asc&select=id,comments(id)",
        ] {
            assert!(planned(query).0.is_none(), "{query}");
        }
    }

    #[test]
    fn only_values_of_plain_comparisons_may_differ() {
        for (one, other) in [
            ("id=in.(1,2)", "id=in.(1,3)"),
            ("id=not.eq.1", "id=not.eq.2"),
            ("id=eq(any).{1}", "id=eq(any).{2}"),
            ("data->>a=eq.1", "data->>a=eq.2"),
            ("id=eq.1&limit=1", "id=eq.1&limit=2"),
            ("id=eq.1", "id=neq.1"),
            ("id=eq.1", "title=eq.1"),
        ] {
            assert_ne!(shape(one).text(), shape(other).text(), "{one}");
        }
        let of = |headers: &[(&'static str, &'static [u8])]| {
            let shape = Shape::of("/posts", "id=eq.1", headers.iter().copied()).unwrap();
            shape.text().to_vec()
        };
        assert_ne!(of(&[("prefer", b"count=exact")]), of(&[("accept", b"count=exact")]));
        assert_ne!(of(&[]), of(&[("accept", b"")]));
        assert!(Shape::of("/posts", &"a=1&".repeat(LONGEST), std::iter::empty()).is_none());
        assert!(Shape::of("/p", &"a=eq.1&".repeat(MOST_VALUES + 1), std::iter::empty()).is_none());
    }
}
