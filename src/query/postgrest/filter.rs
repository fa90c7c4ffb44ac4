//! Filters: `id=eq.1`, `and=(a.eq.1,or(b.is.null,c.in.(1,2)))`.

use super::scan::{Parsed, Scan};
use crate::query::plan::MAX_CONDITION_DEPTH;
use crate::query::plan::ask::{Condition, Field, Is, Operator, Quantifier, Test, TextQuery};

/// Where a filter's value ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At the end of the parameter.
    Alone,
    /// At the next `,` or `)`.
    InList,
}

/// `films.actors.name->>first`: the embedded resources, and the field.
pub(super) fn path(key: &str) -> Parsed<(Vec<String>, Field)> {
    let mut scan = Scan::new("tree path", key);
    let mut names = vec![scan.name()?];
    while scan.take(".") {
        names.push(scan.name()?);
    }
    let last = names.pop().unwrap_or_default();
    let field = scan.path_of(last)?;
    scan.expect_end()?;
    Ok((names, field))
}

/// `eq.1` on a field.
pub(super) fn filter(field: Field, value: &str) -> Parsed<Condition> {
    let mut scan = Scan::new("filter", value);
    let condition = operation(&mut scan, field, Place::Alone)?;
    scan.expect_end()?;
    Ok(condition)
}

/// `(a.eq.1,b.eq.2)` of `and=` or `or=`; the key has been split into its names.
pub(super) fn logic(is_or: bool, negated: bool, value: &str) -> Parsed<Condition> {
    let mut scan = Scan::new("logic tree", value);
    let tree = group(&mut scan, is_or, 0)?;
    scan.expect_end()?;
    Ok(negate(negated, tree))
}

fn negate(negated: bool, condition: Condition) -> Condition {
    if negated { Condition::Not(Box::new(condition)) } else { condition }
}

fn group(scan: &mut Scan<'_>, is_or: bool, depth: usize) -> Parsed<Condition> {
    if depth >= MAX_CONDITION_DEPTH {
        return scan.fail(&format!("at most {MAX_CONDITION_DEPTH} levels of conditions"));
    }
    scan.blanks();
    scan.expect("(")?;
    let mut all = Vec::new();
    loop {
        scan.blanks();
        all.push(tree(scan, depth + 1)?);
        scan.blanks();
        if !scan.take(",") {
            break;
        }
    }
    scan.expect(")")?;
    scan.blanks();
    Ok(if is_or { Condition::Or(all) } else { Condition::And(all) })
}

fn tree(scan: &mut Scan<'_>, depth: usize) -> Parsed<Condition> {
    let start = scan.place();
    let negated = scan.take("not.");
    for (word, is_or) in [("and", false), ("or", true)] {
        if scan.take(word) {
            scan.blanks();
            if scan.peek() == Some('(') {
                return Ok(negate(negated, group(scan, is_or, depth)?));
            }
        }
        scan.back_to(start);
        if negated {
            scan.take("not.");
        }
    }
    scan.back_to(start);
    let field = scan.field()?;
    scan.expect(".")?;
    operation(scan, field, Place::InList)
}

fn operation(scan: &mut Scan<'_>, field: Field, place: Place) -> Parsed<Condition> {
    let negated = scan.take("not.");
    let test = test(scan, place)?;
    Ok(negate(negated, Condition::Test(field, test)))
}

/// Operators that take one value.
const SIMPLE: [(&str, Operator); 9] = [
    ("neq", Operator::NotEqual),
    ("cs", Operator::Contains),
    ("cd", Operator::ContainedBy),
    ("ov", Operator::Overlaps),
    ("sl", Operator::StrictlyLeft),
    ("sr", Operator::StrictlyRight),
    ("nxr", Operator::NotRightOf),
    ("nxl", Operator::NotLeftOf),
    ("adj", Operator::Adjacent),
];

/// Operators that also take any or all elements of an array.
const QUANTIFIED: [(&str, Operator); 9] = [
    ("eq", Operator::Equal),
    ("gte", Operator::GreaterOrEqual),
    ("gt", Operator::Greater),
    ("lte", Operator::LessOrEqual),
    ("lt", Operator::Less),
    ("like", Operator::Like),
    ("ilike", Operator::ILike),
    ("match", Operator::Match),
    ("imatch", Operator::IMatch),
];

const TEXT: [(&str, TextQuery); 4] = [
    ("fts", TextQuery::Query),
    ("plfts", TextQuery::Plain),
    ("phfts", TextQuery::Phrase),
    ("wfts", TextQuery::WebSearch),
];

const WHAT: &str = "operator (eq, gt, ...)";

fn test(scan: &mut Scan<'_>, place: Place) -> Parsed<Test> {
    let start = scan.place();
    let word = scan.while_char(|c| c.is_ascii_lowercase());
    if let Some((_, operator)) = SIMPLE.iter().find(|(name, _)| *name == word)
        && scan.take(".")
    {
        let value = value(scan, place)?;
        return Ok(Test::Compare { operator: *operator, quantifier: None, value });
    }
    if let Some((_, operator)) = QUANTIFIED.iter().find(|(name, _)| *name == word) {
        return quantified(scan, place, *operator);
    }
    if let Some((_, kind)) = TEXT.iter().find(|(name, _)| *name == word) {
        let config = match scan.take("(") {
            true => {
                let config = scan.identifier()?.to_owned();
                scan.expect(")")?;
                Some(config)
            }
            false => None,
        };
        scan.expect(".")?;
        return Ok(Test::FullText { kind: *kind, config, query: value(scan, place)? });
    }
    match word {
        "in" if scan.take(".") => in_list(scan),
        "is" if scan.take(".") => is(scan),
        "isdistinct" if scan.take(".") => value(scan, place).map(|v| Test::Distinct(Some(v))),
        _ => {
            scan.back_to(start);
            scan.fail(&format!("\"not\" or {WHAT}"))
        }
    }
}

fn quantified(scan: &mut Scan<'_>, place: Place, operator: Operator) -> Parsed<Test> {
    let quantifier = match (scan.take("(any)"), scan.take("(all)")) {
        (true, _) => Some(Quantifier::Any),
        (_, true) => Some(Quantifier::All),
        _ => None,
    };
    if !scan.take(".") {
        return scan.fail(WHAT);
    }
    let mut value = value(scan, place)?;
    // `%` has to be escaped in a URL, so `*` means the same.
    if matches!(operator, Operator::Like | Operator::ILike) {
        value = value.replace('*', "%");
    }
    Ok(Test::Compare { operator, quantifier, value })
}

fn is(scan: &mut Scan<'_>) -> Parsed<Test> {
    const WORDS: [(&str, Is); 5] = [
        ("null", Is::Null),
        ("not_null", Is::NotNull),
        ("true", Is::True),
        ("false", Is::False),
        ("unknown", Is::Unknown),
    ];
    let found = WORDS.iter().find(|(word, _)| scan.take_word(word));
    match found {
        Some((_, is)) => Ok(Test::Is(*is)),
        None => scan.fail("isVal: (null, not_null, true, false, unknown)"),
    }
}

fn in_list(scan: &mut Scan<'_>) -> Parsed<Test> {
    scan.blanks();
    scan.expect("(")?;
    scan.blanks();
    let mut values = Vec::new();
    loop {
        values.push(element(scan)?);
        if !scan.take(",") {
            break;
        }
    }
    scan.expect(")")?;
    scan.blanks();
    // `in.()` is a list without values.
    if values == [""] {
        values.clear();
    }
    Ok(Test::In(values))
}

/// A quoted value, if nothing else follows before the next `,` or `)`.
fn whole_quoted(scan: &mut Scan<'_>) -> Option<String> {
    let start = scan.place();
    if scan.peek() == Some('"')
        && let Ok(value) = scan.quoted()
        && matches!(scan.peek(), None | Some(',' | ')'))
    {
        return Some(value);
    }
    scan.back_to(start);
    None
}

fn element(scan: &mut Scan<'_>) -> Parsed<String> {
    if let Some(value) = whole_quoted(scan) {
        return Ok(value);
    }
    Ok(scan.while_char(|c| c != ',' && c != ')').to_owned())
}

fn value(scan: &mut Scan<'_>, place: Place) -> Parsed<String> {
    if place == Place::Alone {
        return Ok(scan.all().to_owned());
    }
    if let Some(value) = whole_quoted(scan) {
        return Ok(value);
    }
    // An array may have commas.
    let start = scan.place();
    if scan.take("{") {
        let inside = scan.while_char(|c| c != '{' && c != '}');
        if scan.take("}") {
            return Ok(format!("{{{inside}}}"));
        }
        scan.back_to(start);
    }
    element(scan)
}
