//! How `/api/v1` and GraphQL say which rows: sort fields, keys, and the where clause as JSON:
//! `{"field": "age", "op": "GREATER_THAN", "value": 18}`, with `and`, `or` and `not`. Several
//! members of one object must all hold; `op` is EQUALS when there is a value and no `op`. A field
//! may be a path into JSON: `address.city`.

use serde_json::{Map, Value};

use super::plan::ask::{Condition, Direction, Field, Is, Operator, Order, Step, Test, TextQuery};
use super::plan::{MAX_CONDITION_DEPTH, MAX_ORDER, PlanError};
use super::schema::Table;

/// Values of one list.
pub const MAX_LIST: usize = 1000;

/// Reads a where clause. An empty object means all rows.
pub fn parse(clause: &Value) -> Result<Condition, PlanError> {
    parse_at(clause, 0)
}

/// The row with this primary key: its text, or a JSON array of values when it has several columns.
pub fn by_key(table: &Table, id: &str) -> Result<Condition, PlanError> {
    let names: Vec<&str> = table.key_names().map(|name| &**name).collect();
    let values = match names.len() {
        0 => return bad(format!("{} has no primary key", table.name)),
        1 => vec![id.to_owned()],
        _ => match serde_json::from_str(id) {
            Ok(list) => scalars("the key", &list)?,
            Err(_) => return bad("a key of several columns is a JSON array"),
        },
    };
    if values.len() != names.len() {
        return bad(format!("the key has {} columns", names.len()));
    }
    let equal = |(name, value): (&str, String)| {
        let test = Test::Compare { operator: Operator::Equal, quantifier: None, value };
        Condition::Test(Field::column(name), test)
    };
    Ok(Condition::And(names.into_iter().zip(values).map(equal).collect()))
}

/// `name,-age`: fields, the largest first where a `-` stands before.
pub fn sort(text: &str) -> Result<Vec<Order>, PlanError> {
    if text.split(',').nth(MAX_ORDER).is_some() {
        return Err(PlanError::TooMuch("terms of an order", MAX_ORDER));
    }
    let term = |word: &str| {
        let (name, direction) = match word.strip_prefix('-') {
            Some(name) => (name, Direction::Descending),
            None => (word, Direction::Ascending),
        };
        Ok(Order { relation: None, field: field(name, true)?, direction, nulls: None })
    };
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(term).collect()
}

fn bad<T>(reason: impl Into<String>) -> Result<T, PlanError> {
    Err(PlanError::BadPayload(reason.into()))
}

fn parse_at(clause: &Value, depth: usize) -> Result<Condition, PlanError> {
    if depth > MAX_CONDITION_DEPTH {
        return Err(PlanError::TooMuch("conditions within each other", MAX_CONDITION_DEPTH));
    }
    let Value::Object(members) = clause else { return bad("a where clause is an object") };
    let known = ["field", "op", "value", "and", "or", "not"];
    if let Some(other) = members.keys().find(|key| !known.contains(&key.as_str())) {
        let other: String = other.chars().take(100).collect();
        return bad(format!("a where clause has no member \"{other}\""));
    }
    let mut all = Vec::new();
    if let Some(field) = members.get("field") {
        all.push(leaf(field, members)?);
    } else if members.contains_key("op") || members.contains_key("value") {
        return bad("a where clause with \"op\" or \"value\" needs a \"field\"");
    }
    let each = |list: &Value, word: &str| match list {
        Value::Array(list) if list.len() <= MAX_LIST => {
            list.iter().map(|one| parse_at(one, depth + 1)).collect()
        }
        Value::Array(_) => Err(PlanError::TooMuch("conditions in a list", MAX_LIST)),
        _ => bad(format!("\"{word}\" of a where clause is a list")),
    };
    if let Some(list) = present(members, "and") {
        all.push(Condition::And(each(list, "and")?));
    }
    if let Some(list) = present(members, "or") {
        all.push(Condition::Or(each(list, "or")?));
    }
    if let Some(inner) = present(members, "not") {
        all.push(Condition::Not(Box::new(parse_at(inner, depth + 1)?)));
    }
    Ok(match (all.pop(), all.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            all.extend(last);
            Condition::And(all)
        }
    })
}

/// A member that is not null: clients of GraphQL send null for what they leave out.
fn present<'m>(members: &'m Map<String, Value>, name: &str) -> Option<&'m Value> {
    members.get(name).filter(|value| !value.is_null())
}

fn leaf(field: &Value, members: &Map<String, Value>) -> Result<Condition, PlanError> {
    let Value::String(field) = field else { return bad("\"field\" is a string") };
    let op = match present(members, "op") {
        None => "EQUALS",
        Some(Value::String(op)) => op,
        Some(_) => return bad("\"op\" is a string"),
    };
    let value = members.get("value");
    if value.is_none() && !matches!(op, "IS_NULL" | "IS_NOT_NULL") {
        return bad(format!("{op} needs a \"value\""));
    }
    let value = value.unwrap_or(&Value::Null);
    let (negated, test, as_text) = test(op, value)?;
    let condition = Condition::Test(self::field(field, as_text)?, test);
    Ok(if negated { Condition::Not(Box::new(condition)) } else { condition })
}

/// `column.key.0`; what a path leads to is text, unless the operator wants JSON.
fn field(text: &str, as_text: bool) -> Result<Field, PlanError> {
    let mut parts = text.split('.');
    let mut field = Field::column(parts.next().unwrap_or_default());
    for part in parts {
        field.path.push(match part.parse() {
            Ok(index) => Step::Index(index),
            Err(_) => Step::Key(part.to_owned()),
        });
    }
    field.as_text = as_text && !field.path.is_empty();
    Ok(field)
}

/// The test, whether it is negated, and whether it is about text when a path was followed.
fn test(op: &str, value: &Value) -> Result<(bool, Test, bool), PlanError> {
    use Operator::*;
    let compare = |operator| -> Result<Test, PlanError> {
        Ok(Test::Compare { operator, quantifier: None, value: scalar(op, value)? })
    };
    let text = || match value {
        Value::String(text) => Ok(text.as_str()),
        _ => bad(format!("{op} needs a string")),
    };
    let like = |before: &str, after: &str| -> Result<Test, PlanError> {
        let value = format!("{before}{}{after}", escape_like(text()?));
        Ok(Test::Compare { operator: Like, quantifier: None, value })
    };
    let json = |reversed| Test::JsonContains { reversed, value: value.to_string() };
    let is_null = Test::Is(Is::Null);
    Ok(match op {
        "EQUALS" if value.is_null() => (false, is_null, true),
        "NOT_EQUALS" if value.is_null() => (true, is_null, true),
        "EQUALS" => (false, compare(Equal)?, true),
        "NOT_EQUALS" => (false, compare(NotEqual)?, true),
        "LESS_THAN" => (false, compare(Less)?, true),
        "LESS_THAN_OR_EQUAL" => (false, compare(LessOrEqual)?, true),
        "GREATER_THAN" => (false, compare(Greater)?, true),
        "GREATER_THAN_OR_EQUAL" => (false, compare(GreaterOrEqual)?, true),
        "IN" | "NOT_IN" => (op == "NOT_IN", Test::In(scalars(op, value)?), true),
        "BETWEEN" | "NOT_BETWEEN" => {
            let [low, high]: [String; 2] = match scalars(op, value)?.try_into() {
                Ok(both) => both,
                Err(_) => return bad(format!("{op} needs two values")),
            };
            (op == "NOT_BETWEEN", Test::Between(low, high), true)
        }
        "IS_NULL" | "IS_NOT_NULL" => (op == "IS_NOT_NULL", is_null, true),
        "IS_DISTINCT_FROM" | "IS_NOT_DISTINCT_FROM" => {
            let other = if value.is_null() { None } else { Some(scalar(op, value)?) };
            (op == "IS_NOT_DISTINCT_FROM", Test::Distinct(other), true)
        }
        "LIKE" | "NOT_LIKE" => (op == "NOT_LIKE", pattern(Like, text()?), true),
        "ILIKE" | "NOT_ILIKE" => (op == "NOT_ILIKE", pattern(ILike, text()?), true),
        "STARTS_WITH" => (false, like("", "%")?, true),
        "ENDS_WITH" => (false, like("%", "")?, true),
        "CONTAINS" => (false, like("%", "%")?, true),
        "REGEX" => (false, pattern(Match, text()?), true),
        "IREGEX" => (false, pattern(IMatch, text()?), true),
        "FULL_TEXT" => {
            let query = text()?.to_owned();
            (false, Test::FullText { kind: TextQuery::WebSearch, config: None, query }, true)
        }
        "JSON_CONTAINS" => (false, json(false), false),
        "JSON_CONTAINED_BY" => (false, json(true), false),
        "JSON_HAS_KEY" => (false, Test::HasKey(text()?.to_owned()), false),
        "JSON_HAS_ANY_KEYS" => (false, Test::HasAnyKey(scalars(op, value)?), false),
        "JSON_HAS_ALL_KEYS" => (false, Test::HasAllKeys(scalars(op, value)?), false),
        "JSON_PATH_EXISTS" => (false, Test::PathExists(text()?.to_owned()), false),
        "ARRAY_CONTAINS" => (false, array(op, Contains, value)?, false),
        "ARRAY_CONTAINED_BY" => (false, array(op, ContainedBy, value)?, false),
        "ARRAY_OVERLAPS" => (false, array(op, Overlaps, value)?, false),
        "RANGE_CONTAINS" => (false, pattern(Contains, &range(&scalar(op, value)?)), false),
        "RANGE_OVERLAPS" => (false, pattern(Overlaps, &range(&scalar(op, value)?)), false),
        other => {
            let other: String = other.chars().take(100).collect();
            return bad(format!("there is no operator {other}"));
        }
    })
}

fn pattern(operator: Operator, value: &str) -> Test {
    Test::Compare { operator, quantifier: None, value: value.to_owned() }
}

/// One value in PostgreSQL's text form.
fn scalar(op: &str, value: &Value) -> Result<String, PlanError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::Null => bad(format!("{op} needs a value that is not null")),
        Value::Array(_) | Value::Object(_) => bad(format!("{op} needs a single value")),
    }
}

fn scalars(op: &str, value: &Value) -> Result<Vec<String>, PlanError> {
    match value {
        Value::Array(list) if list.len() > MAX_LIST => {
            Err(PlanError::TooMuch("values in a list", MAX_LIST))
        }
        Value::Array(list) => list.iter().map(|one| scalar(op, one)).collect(),
        _ => bad(format!("{op} needs a list")),
    }
}

/// The text of an array, which may have arrays within.
fn array(op: &str, operator: Operator, value: &Value) -> Result<Test, PlanError> {
    fn write(value: &Value, depth: usize, out: &mut String) -> bool {
        match value {
            // PostgreSQL's arrays have at most six dimensions.
            Value::Array(list) if depth < 6 => {
                out.push('{');
                for (at, one) in list.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    if !write(one, depth + 1, out) {
                        return false;
                    }
                }
                out.push('}');
                true
            }
            Value::Null => {
                out.push_str("NULL");
                true
            }
            Value::Array(_) | Value::Object(_) => false,
            Value::String(text) => {
                let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
                out.push_str(&format!("\"{escaped}\""));
                true
            }
            other => {
                out.push_str(&other.to_string());
                true
            }
        }
    }
    let mut text = String::new();
    if !value.is_array() || !write(value, 0, &mut text) {
        return bad(format!("{op} needs a list of values"));
    }
    Ok(Test::Compare { operator, quantifier: None, value: text })
}

/// A range; a single value is the range that holds it alone.
fn range(text: &str) -> String {
    if text.starts_with(['[', '(']) || text.eq_ignore_ascii_case("empty") {
        return text.to_owned();
    }
    let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("[\"{quoted}\",\"{quoted}\"]")
}

/// What is to be found as it stands.
fn escape_like(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(clause: Value) -> String {
        match parse(&clause) {
            Ok(condition) => format!("{condition:?}"),
            Err(error) => error.message(),
        }
    }

    #[test]
    fn members_are_joined() {
        let clause = json!({"field": "a", "value": 1, "or": [{"field": "b", "op": "IS_NULL"}]});
        let Condition::And(all) = parse(&clause).unwrap() else { panic!() };
        assert!(matches!(&all[..], [Condition::Test(..), Condition::Or(_)]));
        assert_eq!(parse(&json!({})).unwrap(), Condition::And(Vec::new()));
        assert_eq!(parse(&json!({"or": []})).unwrap(), Condition::Or(Vec::new()));
    }

    #[test]
    fn values_become_text() {
        let cases = [
            (json!({"field": "a.b.0", "value": true}), "as_text: true"),
            (json!({"field": "a.b.0", "value": true}), "Index(0)"),
            (json!({"field": "a", "value": null}), "Is(Null)"),
            (json!({"field": "a", "op": "CONTAINS", "value": "5%_\\"}), r#""%5\\%\\_\\\\%""#),
            (
                json!({"field": "a", "op": "ARRAY_OVERLAPS", "value": ["x\"", null, 1]}),
                r#"NULL,1}"#,
            ),
            (json!({"field": "a", "op": "RANGE_CONTAINS", "value": 5}), r#""[\"5\",\"5\"]""#),
            (json!({"field": "a", "op": "NOT_IN", "value": []}), "Not(Test"),
            (
                json!({"field": "a", "op": "EQUALS", "value": 12345678901234567890_u64}),
                "12345678901234567890",
            ),
        ];
        for (clause, expected) in cases {
            let shown = shown(clause.clone());
            assert!(shown.contains(expected), "{clause}: {shown}");
        }
    }

    #[test]
    fn keys_and_sort_fields() {
        let schema = crate::query::plan::fixtures::schema();
        let table = |name| schema.table("api", name).unwrap();
        let shown = |condition: Result<Condition, PlanError>| match condition {
            Ok(condition) => format!("{condition:?}"),
            Err(error) => error.message(),
        };
        assert!(shown(by_key(table("authors"), "[1]")).contains("\"[1]\""));
        assert!(shown(by_key(table("orders"), "[1, \"2\"]")).contains("number"));
        for (name, id) in [("orders", "1"), ("orders", "[1]"), ("odd \"table\"", "1")] {
            assert!(by_key(table(name), id).is_err(), "{name} {id}");
        }
        let order = sort("name, -data.a").unwrap();
        assert_eq!((order.len(), order[1].direction), (2, Direction::Descending));
        assert_eq!(order[1].field.path, [Step::Key("a".into())]);
        assert!(sort(&"a,".repeat(MAX_ORDER + 1)).is_err() && sort("").unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mut deep = json!({"field": "a", "value": 1});
        for _ in 0..=MAX_CONDITION_DEPTH {
            deep = json!({"not": deep});
        }
        for (clause, expected) in [
            (json!([]), "is an object"),
            (json!({"fields": "a"}), "no member \"fields\""),
            (json!({"value": 1}), "needs a \"field\""),
            (json!({"field": 1, "value": 1}), "is a string"),
            (json!({"field": "a"}), "EQUALS needs a \"value\""),
            (json!({"field": "a", "op": "DROP", "value": 1}), "no operator DROP"),
            (json!({"field": "a", "op": "IN", "value": 1}), "needs a list"),
            (json!({"field": "a", "op": "IN", "value": [null]}), "not null"),
            (json!({"field": "a", "op": "BETWEEN", "value": [1]}), "two values"),
            (json!({"field": "a", "op": "LIKE", "value": 1}), "needs a string"),
            (json!({"field": "a", "op": "LESS_THAN", "value": {}}), "single value"),
            (json!({"field": "a", "op": "ARRAY_CONTAINS", "value": [{}]}), "list of values"),
            (json!({"and": {}}), "is a list"),
            (deep, "at most 32"),
        ] {
            let shown = shown(clause.clone());
            assert!(shown.contains(expected), "{clause}: {shown}");
        }
    }
}
