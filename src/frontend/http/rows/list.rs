//! `/api/v1/tables/{name}/rows`: a page of rows.

use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::extract::{Caller, FIXED};
use super::super::formats::{Format, Layout as Form};
use super::super::open::Hold;
use super::super::{HttpDoor, InWork};
use super::uri::Parameters;
use super::{Counting, Job, Settings, Sink, Stream, counting, planned_in, start};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::json::Style;
use crate::query::plan::ask::{Condition, Count, Item, Keyset, Level, Read, Target};
use crate::query::plan::cursor::Position;
use crate::query::plan::{Limits, plan_read};
use crate::query::schema::Schema;
use crate::query::{postgrest, where_json};

/// What any plan may ask for.
pub const LIMITS: Limits = Limits { max_rows: None, aggregates: true };

/// A page that is asked for.
#[derive(Debug)]
pub struct Listing {
    /// Table.
    pub target: Target,
    /// What of it.
    pub level: Level,
    /// How all rows are counted.
    pub count: Count,
    /// Where the page begins, when that is not a number of rows; empty = at the first row.
    pub cursor: Option<String>,
    /// Rows at most; `None` = all of them.
    pub limit: Option<u64>,
    /// Rows left out at the beginning.
    pub offset: u64,
    /// Form.
    pub format: Format,
    /// Numbers or strings.
    pub style: Style,
}

/// Which columns and rows a query string means, after everything else has been taken out of it.
///
/// # Errors
/// It is not understood.
pub fn level(parameters: &mut Parameters) -> Result<Level> {
    let (columns, select) = (parameters.take("columns")?, parameters.take("select")?);
    let order_by = (parameters.take("order_by")?, parameters.take("order")?);
    let (sort, clause) = (parameters.take("sort")?, parameters.take("where")?);
    let one = |name: &str, one: Option<String>, other: Option<String>| match (one, other) {
        (Some(_), Some(_)) => {
            let text = format!("{name} is given twice, by two names");
            Err(Error::new(ErrorKind::ValidationError, text))
        }
        (one, other) => Ok(one.or(other)),
    };
    if let Some(columns) = one("columns", columns, select)? {
        parameters.put("select", columns);
    }
    let order = one("order_by", order_by.0, order_by.1)?;
    if order.is_some() && sort.is_some() {
        let text = "order_by and sort say the same in two ways: send one of them";
        return Err(Error::new(ErrorKind::ValidationError, text));
    }
    if let Some(order) = order {
        parameters.put("order", order);
    }
    let mut level = postgrest::level_of(parameters.rest())?;
    if let Some(sort) = sort {
        level.order = where_json::sort(&sort)?;
    }
    if let Some(clause) = clause {
        let clause: Value = serde_json::from_str(&clause).map_err(|e| {
            Error::new(ErrorKind::ValidationError, format!("where is not valid JSON: {e}"))
        })?;
        let condition = where_json::parse(&clause)?;
        level.filter = Some(match level.filter.take() {
            Some(filter) => Condition::And(vec![filter, condition]),
            None => condition,
        });
    }
    Ok(level)
}

/// How numbers are written.
///
/// # Errors
/// There is no such way.
pub fn style(parameters: &mut Parameters) -> Result<Style> {
    let mut is = |name: &str, word: &str| match parameters.take_if(name, &["number", "string"])? {
        Some(given) => Ok::<_, Error>(given == word),
        None => Ok(false),
    };
    Ok(Style {
        int8_as_string: is("int8", "string")?,
        numeric_as_number: is("numeric", "number")?,
        ..Style::default()
    })
}

/// How all rows are to be counted.
///
/// # Errors
/// There is no such way.
pub fn count(parameters: &mut Parameters) -> Result<Count> {
    Ok(match parameters.take("count")?.as_deref() {
        None | Some("none") => Count::None,
        Some("exact") => Count::Exact,
        Some("planned") => Count::Planned,
        Some("estimated") => Count::Estimated,
        Some(_) => {
            let text = "count is one of none, exact, planned, estimated";
            return Err(Error::new(ErrorKind::ValidationError, text));
        }
    })
}

/// The settings of a statement of this API. What lasts to the end of a transaction is its owner's,
/// but for who asks.
///
/// # Errors
/// Those of [`Settings::of`].
pub fn settings<'c>(caller: &'c Caller, hold: &Hold, schema: &'c Schema) -> Result<Settings<'c>> {
    match hold.is_own() {
        true => Settings::of(&caller.identity, schema, &FIXED),
        false => Ok(Settings::claims(&caller.identity)),
    }
}

/// Whether there are related rows among the results.
pub fn has_embeds(level: &Level) -> bool {
    level.items.iter().any(|item| matches!(item, Item::Embed(_)))
}

/// Answers with a page.
///
/// # Errors
/// What is asked for is not there, or PostgreSQL refuses it.
pub async fn answer(
    door: &Arc<HttpDoor>,
    caller: &Caller,
    in_work: &InWork,
    hold: Hold,
    asked: Listing,
) -> Result<Response> {
    let Listing { target, mut level, count, cursor, limit, offset, format, style } = asked;
    let keyset = match cursor.as_deref() {
        None if format == Format::Json && limit.is_some() => Some(Keyset::Offered),
        None => None,
        Some(_) if offset > 0 => {
            let text = "cursor and offset say the same in two ways: send one of them";
            return Err(Error::new(ErrorKind::ValidationError, text));
        }
        Some("") => Some(Keyset::Start),
        Some(text) => Some(Keyset::After(Position::decode(text, &door.cursor_key)?)),
    };
    // One more tells whether there are more.
    (level.limit, level.offset) = (limit.map(|limit| limit.saturating_add(1)), offset);
    let deadline = Instant::now() + door.config.now().api.request_timeout_secs.duration();
    let deadline = (!format.is_stream()).then_some(deadline);
    let read = Read { target, level, count, keyset };
    let plan = |schema: &Schema| plan_read(schema, LIMITS, &read).map_err(Error::from);
    let (mut hold, schema, plan) = planned_in(hold, plan).await?;
    let settings = settings(caller, &hold, &schema)?.read_only(hold.is_own());
    let counted = counting(door, hold.session()?, &schema, &plan, &settings).await;
    let Counting { with_total, total } = match counted {
        Ok(counting) => counting,
        Err(error) => {
            hold.finish();
            return Err(error);
        }
    };
    let statement = plan.written(&schema, with_total);
    let sink = Sink::Rows(Form { format, rows_as_arrays: false, style });
    let job = Job {
        caller,
        statement: &statement,
        values: statement.values(),
        settings: &settings,
        in_transaction: false,
        sink,
        limit,
        hidden: 0,
        deadline,
    };
    let mut stream = start(door, hold, job).await?;
    if format == Format::Json {
        let order = plan.order_hash().map(|order| (order, door.cursor_key));
        let tail = move |stream: &Stream| envelope(stream, (limit, offset), total, order);
        stream.enclose("{\"items\":", tail);
    }
    let fill = stream.first().await?;
    let total = stream.total().or(total);
    let body = stream.into_body(fill, door, caller.id.clone(), in_work);
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    if let Some(total) = total {
        headers.insert("x-total-count", HeaderValue::from(total));
    }
    Ok(response)
}

/// What follows the rows of a page.
fn envelope(
    stream: &Stream,
    (limit, offset): (Option<u64>, u64),
    total: Option<u64>,
    order: Option<(u64, [u8; 32])>,
) -> String {
    let total = stream.total().or(total);
    let next = order.filter(|_| stream.has_more()).and_then(|(order, key)| {
        let values = stream.last().to_vec();
        Position { order, values }.encode(&key)
    });
    let (total, next) = (json!(total), json!(next));
    format!(
        ",\"total\":{total},\"limit\":{},\"offset\":{offset},\"has_more\":{},\
         \"next_cursor\":{next}}}",
        json!(limit),
        stream.has_more(),
    )
}
