//! `select=` and `order=`: what is wanted, and in which order.

use super::scan::{Parsed, Scan};
use crate::query::plan::MAX_DEPTH;
use crate::query::plan::ask::{Aggregate, Direction, Embed, Field, Item, Level, Nulls, Order};

/// `select=`.
pub(super) fn select(text: &str) -> Parsed<Vec<Item>> {
    let mut scan = Scan::new("select parameter", text);
    let items = items(&mut scan, 0)?;
    scan.expect_end()?;
    Ok(items)
}

fn items(scan: &mut Scan<'_>, depth: usize) -> Parsed<Vec<Item>> {
    let mut found = Vec::new();
    scan.blanks();
    if scan.is_end() || scan.peek() == Some(')') {
        return Ok(found);
    }
    loop {
        scan.blanks();
        found.push(item(scan, depth)?);
        scan.blanks();
        if !scan.take(",") {
            return Ok(found);
        }
    }
}

fn is_over(scan: &Scan<'_>) -> bool {
    matches!(scan.peek(), None | Some(',' | ')'))
}

fn item(scan: &mut Scan<'_>, depth: usize) -> Parsed<Item> {
    if scan.take("...") {
        let target = scan.name()?;
        return embed(scan, depth, (target, None), true);
    }
    let start = scan.place();
    if scan.take("*") {
        scan.blanks();
        if is_over(scan) {
            return Ok(Item::All);
        }
        scan.back_to(start);
    }
    let alias = alias(scan);
    let name = scan.name()?;
    if name == "count" && scan.take("()") {
        let cast = cast(scan)?;
        return Ok(Item::CountAll { alias, cast });
    }
    if matches!(scan.peek(), Some('!' | '(')) {
        return embed(scan, depth, (name, alias), false);
    }
    let field = scan.path_of(name)?;
    scan.blanks();
    let cast_to = cast(scan)?;
    let aggregate = aggregate(scan)?;
    let aggregate_cast = if aggregate.is_some() { cast(scan)? } else { None };
    scan.blanks();
    if !is_over(scan) {
        return scan.fail("\"->>\", \"->\", \"::\", \".\", \")\", \",\" or end of input");
    }
    Ok(Item::Field { field, alias, cast: cast_to, aggregate, aggregate_cast })
}

/// `alias:` but not `column::type`.
fn alias(scan: &mut Scan<'_>) -> Option<String> {
    let start = scan.place();
    match scan.name() {
        Ok(alias) if scan.take(":") && scan.peek() != Some(':') => Some(alias),
        _ => {
            scan.back_to(start);
            None
        }
    }
}

fn cast(scan: &mut Scan<'_>) -> Parsed<Option<String>> {
    if !scan.take("::") {
        return Ok(None);
    }
    scan.identifier().map(|word| Some(word.to_owned()))
}

fn aggregate(scan: &mut Scan<'_>) -> Parsed<Option<Aggregate>> {
    if !scan.take(".") {
        return Ok(None);
    }
    use Aggregate::*;
    let all = [Avg, Count, Max, Min, Sum];
    let found = all.into_iter().find(|aggregate| scan.take(aggregate.as_str()));
    match found {
        Some(aggregate) => scan.expect("()").map(|()| Some(aggregate)),
        None => scan.fail("aggregate function (sum, avg, count, max or min)"),
    }
}

fn embed(
    scan: &mut Scan<'_>,
    depth: usize,
    (target, alias): (String, Option<String>),
    spread: bool,
) -> Parsed<Item> {
    let (mut hint, mut join) = (None, None);
    // At most a hint and a kind of join.
    for _ in 0..2 {
        if !scan.take("!") {
            break;
        }
        let word = scan.name()?;
        match word.as_str() {
            "inner" if join.is_none() => join = Some(true),
            "left" if join.is_none() => join = Some(false),
            _ => hint = Some(word),
        }
    }
    scan.expect("(")?;
    if depth >= MAX_DEPTH {
        return scan.fail(&format!("at most {MAX_DEPTH} levels of embedding"));
    }
    let items = items(scan, depth + 1)?;
    scan.expect(")")?;
    let level = Level { items, ..Level::default() };
    let inner = join == Some(true);
    Ok(Item::Embed(Embed { target, alias, hint, inner, spread, level }))
}

/// `order=`.
pub(super) fn order(text: &str) -> Parsed<Vec<Order>> {
    let mut scan = Scan::new("order", text);
    let mut terms = Vec::new();
    loop {
        terms.push(order_term(&mut scan)?);
        scan.blanks();
        if !scan.take(",") {
            scan.expect_end()?;
            return Ok(terms);
        }
    }
}

fn order_term(scan: &mut Scan<'_>) -> Parsed<Order> {
    scan.blanks();
    let name = scan.name()?;
    let (relation, field): (Option<String>, Field) = match scan.take("(") {
        true => {
            let field = scan.field()?;
            scan.expect(")")?;
            (Some(name), field)
        }
        false => (None, scan.path_of(name)?),
    };
    scan.blanks();
    let mut order = Order { relation, field, direction: Direction::Ascending, nulls: None };
    let is_word = |scan: &mut Scan<'_>, word: &str| {
        let start = scan.place();
        let found = scan.take(word) && matches!(scan.peek(), None | Some('.' | ',' | ' ' | '\t'));
        if !found {
            scan.back_to(start);
        }
        found
    };
    let mut may_be_direction = true;
    while scan.take(".") {
        if may_be_direction && is_word(scan, "asc") {
            may_be_direction = false;
        } else if may_be_direction && is_word(scan, "desc") {
            order.direction = Direction::Descending;
            may_be_direction = false;
        } else if is_word(scan, "nullsfirst") {
            order.nulls = Some(Nulls::First);
            break;
        } else if is_word(scan, "nullslast") {
            order.nulls = Some(Nulls::Last);
            break;
        } else {
            return scan.fail(match may_be_direction {
                true => "\"asc\", \"desc\", \"nullsfirst\" or \"nullslast\"",
                false => "\"nullsfirst\" or \"nullslast\"",
            });
        }
    }
    Ok(order)
}

/// `columns=` and `on_conflict=`.
pub(super) fn columns(what: &'static str, text: &str) -> Parsed<Vec<String>> {
    let mut scan = Scan::new(what, text);
    let mut names = Vec::new();
    loop {
        scan.blanks();
        names.push(scan.name()?);
        scan.blanks();
        if !scan.take(",") {
            scan.expect_end()?;
            return Ok(names);
        }
    }
}
