//! Which rows of a result: `limit=`, `offset=`, the `Range` header, and what is said about it.

use super::error::Refusal;

/// Rows from the first that is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    pub offset: u64,
    pub limit: Option<u64>,
}

/// A number of rows; a negative one to leave out is none.
pub(super) fn number(what: &'static str, text: &str) -> Result<u64, Refusal> {
    let refused = || {
        let bits = if what == "offset" { 63 } else { 64 };
        let details = format!("unexpected {text:?} expecting a whole number below 2^{bits}");
        Refusal::syntax(what, text, 1, details)
    };
    if what == "offset" {
        let number = text.trim().parse::<i64>().map_err(|_| refused())?;
        return Ok(u64::try_from(number).unwrap_or(0));
    }
    match text.trim().parse::<i128>() {
        Ok(..0) => Err(Refusal::range("Limit should be greater than or equal to zero.")),
        Ok(number) => u64::try_from(number).map_err(|_| refused()),
        Err(_) => Err(refused()),
    }
}

/// The `Range` header; what is not of the form `0-9` or `10-` is none.
pub(super) fn header(text: &str) -> Result<Option<Rows>, Refusal> {
    let Some((first, last)) = text.trim().split_once('-') else { return Ok(None) };
    let Ok(offset) = first.parse::<u64>() else { return Ok(None) };
    if last.is_empty() {
        return Ok(Some(Rows { offset, limit: None }));
    }
    let Ok(last) = last.parse::<u64>() else { return Ok(None) };
    if last < offset {
        return Err(Refusal::range(
            "The lower boundary must be lower than or equal to the upper boundary in the Range \
             header.",
        ));
    }
    Ok(Some(Rows { offset, limit: Some((last - offset).saturating_add(1)) }))
}

/// The rows that both mean.
pub(super) fn both(one: Rows, other: Rows) -> Rows {
    let end = |rows: Rows| rows.limit.map(|limit| rows.offset.saturating_add(limit));
    let offset = one.offset.max(other.offset);
    let end = match (end(one), end(other)) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    Rows { offset, limit: end.map(|end| end.saturating_sub(offset)) }
}

/// The `Content-Range` header: `0-9/100`, `*/0`, `0-9/*`.
pub fn content_range(offset: u64, rows: u64, total: Option<u64>) -> String {
    let mut text = String::with_capacity(24);
    let put = |text: &mut String, number: u64| text.push_str(itoa::Buffer::new().format(number));
    match rows {
        0 => text.push('*'),
        rows => {
            put(&mut text, offset);
            text.push('-');
            put(&mut text, offset.saturating_add(rows - 1));
        }
    }
    text.push('/');
    match total {
        Some(total) => put(&mut text, total),
        None => text.push('*'),
    }
    text
}

/// The status of rows that were read: 206 when there are more, 416 when there are fewer than were
/// to be left out.
pub fn read_status(offset: u64, rows: u64, total: Option<u64>) -> Result<u16, Refusal> {
    match total {
        Some(total) if offset > total => Err(Refusal::beyond(offset, total)),
        Some(total) if rows < total => Ok(206),
        _ => Ok(200),
    }
}
