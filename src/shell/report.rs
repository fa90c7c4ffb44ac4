//! Errors as psql shows them, with the line they are about and a mark below it.

use rustydb_client::Error;
use rustydb_client::protocol::{ErrorBody, Severity};
use unicode_width::UnicodeWidthChar;

/// Columns of the line that are shown.
const SHOWN: usize = 60;

/// Columns that stay visible at the right of the place.
const AT_RIGHT: usize = 10;

/// An error in several lines, without the last line's end.
pub(super) fn report(error: &Error, sql: &str) -> String {
    match error.as_server() {
        Some(body) => of_server(body, sql),
        None => format!("ERROR:  {error}"),
    }
}

fn of_server(body: &ErrorBody, sql: &str) -> String {
    let severity = match body.severity {
        Severity::Error => "ERROR",
        Severity::Fatal => "FATAL",
        Severity::Panic => "PANIC",
    };
    let mut text = format!("{severity}:  {}", body.message);
    if let Some(position) = body.position
        && let Some(place) = place(sql, position as usize)
    {
        text.push('\n');
        text.push_str(&place);
    }
    let parts = [("DETAIL", &body.detail), ("HINT", &body.hint), ("CONTEXT", &body.context)];
    for (name, part) in parts {
        if let Some(part) = part {
            text.push_str(&format!("\n{name}:  {part}"));
        }
    }
    text
}

/// The line of a place, which is counted in characters from 1, and a mark below it.
fn place(sql: &str, position: usize) -> Option<String> {
    let before: String = sql.chars().take(position.checked_sub(1)?).collect();
    if before.len() > sql.len() || position > sql.chars().count() + 1 {
        return None;
    }
    let number = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let end = sql[before.len()..].find('\n').map_or(sql.len(), |at| before.len() + at);
    let cells = |text: &str| -> Vec<(char, usize)> {
        // A tab would move the mark.
        let shown = text.trim_end_matches('\r').chars().map(|c| if c == '\t' { ' ' } else { c });
        shown.map(|c| (c, c.width().unwrap_or(0))).collect()
    };
    let (left, right) = (cells(&before[start..]), cells(&sql[before.len()..end]));
    let total = |cells: &[(char, usize)]| cells.iter().map(|cell| cell.1).sum::<usize>();
    let (mut left, mut right) = (&left[..], &right[..]);
    let (mut cut_left, mut cut_right) = (false, false);
    // As much of the end is cut as may be, then the beginning.
    while total(left) + total(right) > SHOWN && total(right) > AT_RIGHT {
        right = &right[..right.len() - 1];
        cut_right = true;
    }
    while total(left) + total(right) > SHOWN && !left.is_empty() {
        left = &left[1..];
        cut_left = true;
    }
    let dots = |is_cut: bool| if is_cut { "..." } else { "" };
    let label = format!("LINE {number}: {}", dots(cut_left));
    let text = |cells: &[(char, usize)]| cells.iter().map(|cell| cell.0).collect::<String>();
    let mark = " ".repeat(label.len() + total(left));
    Some(format!("{label}{}{}{}\n{mark}^", text(left), text(right), dots(cut_right)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_marked() {
        let sql = "SELECT 1,\n  nothing\nFROM x";
        assert_eq!(place(sql, 13).as_deref(), Some("LINE 2:   nothing\n          ^"));
        assert_eq!(place("SELECT x", 8).as_deref(), Some("LINE 1: SELECT x\n               ^"));
        assert_eq!(place("SELECT", 7).as_deref(), Some("LINE 1: SELECT\n              ^"));
        let wide = "SELECT '世界', x";
        assert_eq!(
            place(wide, 14).as_deref(),
            Some("LINE 1: SELECT '世界', x\n                       ^")
        );
        assert_eq!(place("SELECT", 99), None);
        assert_eq!(place("SELECT", 0), None);
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let sql = format!("SELECT {}, wrong, {}", "a".repeat(80), "b".repeat(80));
        let place = place(&sql, 90).unwrap();
        let (line, mark) = place.split_once('\n').unwrap();
        assert!(line.starts_with("LINE 1: ...aaa") && line.ends_with("b..."), "{line}");
        assert_eq!(&line[mark.len() - 1..][..5], "wrong");
    }

    #[test]
    fn everything_that_is_known_is_told() {
        let mut body = ErrorBody::new(Severity::Error, "42703", "X", "no such column");
        body.position = Some(8);
        (body.detail, body.hint) = (Some("d".into()), Some("h".into()));
        body.context = Some("c".into());
        let expected = "ERROR:  no such column\nLINE 1: SELECT y\n               ^\nDETAIL:  d\n\
                        HINT:  h\nCONTEXT:  c";
        assert_eq!(report(&body.into(), "SELECT y"), expected);
    }
}
