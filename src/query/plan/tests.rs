//! Plans as other doors than HTTP make them, and what they refuse.

use super::ask::*;
use super::cursor::Position;
use super::fixtures::schema;
use super::*;

fn target(name: &str) -> Target {
    Target { schema: "api".into(), name: name.into() }
}

fn read(name: &str, level: Level) -> Read {
    Read { target: target(name), level, count: Count::None, keyset: None }
}

fn by(name: &str) -> Order {
    let field = Field::column(name);
    Order { relation: None, field, direction: Direction::Ascending, nulls: None }
}

#[test]
fn a_page_begins_after_the_last_row() {
    let schema = schema();
    let level = Level { items: vec![Item::All], limit: Some(2), ..Level::default() };
    let mut asked = read("authors", Level { order: vec![by("name")], ..level.clone() });
    asked.keyset = Some(Keyset::Start);
    let first = plan_read(&schema, Limits::default(), &asked).unwrap();
    let statement = first.statement(&schema);
    assert_eq!(statement.layout.cursor_values, 2);
    assert!(!statement.sql.contains("WHERE"), "{}", statement.sql);
    let order = first.order_hash().unwrap();
    let after = |order, values| Some(Keyset::After(Position { order, values }));
    asked.keyset = after(order, vec![Some("x".into()), Some("7".into())]);
    let sql = plan_read(&schema, Limits::default(), &asked).unwrap().statement(&schema).sql;
    assert!(sql.contains(r#"(t0."name", t0."id") > ($1, $2)"#), "{sql}");
    asked.keyset = after(order + 1, vec![Some("x".into()), Some("7".into())]);
    let refused = plan_read(&schema, Limits::default(), &asked).unwrap_err();
    assert!(matches!(refused, PlanError::BadCursor(_)));
    // NULLs cannot be compared, so the terms are looked at one by one.
    asked.level.order = vec![by("mood")];
    asked.keyset = Some(Keyset::Start);
    let order = plan_read(&schema, Limits::default(), &asked).unwrap().order_hash().unwrap();
    asked.keyset = after(order, vec![None, Some("7".into())]);
    let sql = plan_read(&schema, Limits::default(), &asked).unwrap().statement(&schema).sql;
    assert!(sql.contains(r#"(FALSE) OR (t0."mood" IS NULL AND (t0."id" > $1))"#), "{sql}");
    let mut keyless = read("odd \"table\"", level.clone());
    keyless.keyset = Some(Keyset::Start);
    assert!(plan_read(&schema, Limits::default(), &keyless).is_err());
    // Where no cursor can be, none is offered.
    let offered = |mut asked: Read| {
        asked.keyset = Some(Keyset::Offered);
        let plan = plan_read(&schema, Limits::default(), &asked).unwrap();
        (plan.order_hash().is_some(), plan.statement(&schema).layout.cursor_values)
    };
    assert_eq!(offered(keyless), (false, 0));
    assert_eq!(offered(read("authors", level.clone())), (true, 1));
    let name = |name: &str| Item::Field {
        field: Field::column(name),
        alias: None,
        cast: None,
        aggregate: None,
        aggregate_cast: None,
    };
    let only = |items: Vec<Item>| read("authors", Level { items, ..level.clone() });
    assert_eq!(offered(only(vec![name("name")])), (false, 0));
    assert_eq!(offered(only(vec![name("name"), name("id")])), (true, 1));
}

#[test]
fn everything_has_a_limit() {
    let schema = schema();
    let refused = |level: Level| {
        let read = read("authors", level);
        plan_read(&schema, Limits::default(), &read).unwrap_err()
    };
    let test = Condition::Test(Field::column("id"), Test::Is(Is::Null));
    let mut deep = test.clone();
    for _ in 0..=MAX_CONDITION_DEPTH {
        deep = Condition::Not(Box::new(deep));
    }
    let mut nested = Level { items: vec![Item::All], ..Level::default() };
    for at in 0..=MAX_DEPTH {
        let (target, hint) = match at % 2 {
            0 => ("posts", "posts_author_fkey"),
            _ => ("authors", "posts_author_fkey"),
        };
        let embed = Embed {
            target: target.into(),
            alias: None,
            hint: Some(hint.into()),
            inner: false,
            spread: false,
            level: nested,
        };
        nested = Level { items: vec![Item::Embed(embed)], ..Level::default() };
    }
    let long = Field { path: vec![Step::Index(0); MAX_PATH + 1], ..Field::column("data") };
    let filter = |condition| Level { filter: Some(condition), ..Level::default() };
    for level in [
        filter(deep),
        filter(Condition::Or(vec![test; MAX_CONDITIONS + 1])),
        filter(Condition::Test(Field::column("id"), Test::In(vec![String::new(); MAX_LIST + 1]))),
        filter(Condition::Test(long, Test::Is(Is::Null))),
        Level { items: vec![Item::All; MAX_ITEMS + 1], ..Level::default() },
        Level { order: vec![by("id"); MAX_ORDER + 1], ..Level::default() },
        nested,
    ] {
        let error = refused(level);
        assert!(matches!(error, PlanError::TooMuch(..)), "{error:?}");
    }
}

#[test]
fn names_of_results_are_names() {
    let schema = schema();
    for bad in ["", "a\0b", &"x".repeat(64)] {
        let item = Item::CountAll { alias: Some(bad.to_owned()), cast: None };
        let level = Level { items: vec![item], ..Level::default() };
        let limits = Limits { max_rows: None, aggregates: true };
        let error = plan_read(&schema, limits, &read("authors", level)).unwrap_err();
        assert!(matches!(error, PlanError::BadName(_)), "{bad:?}");
    }
}

#[test]
fn the_server_s_limit_is_the_smallest() {
    let schema = schema();
    let limits = Limits { max_rows: Some(10), aggregates: false };
    let written = |limits, asked| {
        let level = Level { items: vec![Item::All], limit: asked, ..Level::default() };
        plan_read(&schema, limits, &read("authors", level)).unwrap().statement(&schema)
    };
    for (asked, expected) in [(None, "10"), (Some(3), "3"), (Some(u64::MAX), "10")] {
        let statement = written(limits, asked);
        assert!(statement.sql.ends_with(&format!(" LIMIT {expected}")), "{}", statement.sql);
        assert!(statement.params.is_empty());
    }
    // There could be a statement for each large number.
    let many = Limits { max_rows: Some(1000), ..limits };
    let params = written(many, Some(u64::MAX)).params;
    assert_eq!(params.len(), 1);
    assert_eq!(params[0].value.as_deref(), Some(&b"1000"[..]));
}
