//! Rows as text, laid out as psql does.

use std::io::{self, Write};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How rows are laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Style {
    /// One line for each value.
    pub(super) is_expanded: bool,
    /// Without padding.
    pub(super) is_unaligned: bool,
    /// Without names and count.
    pub(super) is_bare: bool,
}

/// Rows of text.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    /// Over the table.
    pub(super) title: Option<String>,
    /// Names of the columns.
    pub(super) names: Vec<String>,
    /// Which columns are numbers and stand at the right.
    pub(super) is_number: Vec<bool>,
    /// The values.
    pub(super) rows: Vec<Vec<String>>,
    /// Under the table, instead of the count.
    pub(super) footers: Option<Vec<String>>,
}

impl Table {
    /// Writes the table.
    pub(super) fn write(&self, style: Style, out: &mut dyn Write) -> io::Result<()> {
        if style.is_unaligned {
            return self.unaligned(style, out);
        }
        // What moves the cursor would break the layout, or do worse to the terminal.
        if let Some(visible) = self.visible() {
            return visible.laid_out(style, out);
        }
        self.laid_out(style, out)
    }

    /// The same with names for control characters; `None` = there are none.
    fn visible(&self) -> Option<Self> {
        let has_controls = |text: &String| text.chars().any(|c| c.is_control() && c != '\n');
        if !self.names.iter().chain(self.rows.iter().flatten()).any(has_controls) {
            return None;
        }
        let mut table = self.clone();
        for text in table.names.iter_mut().chain(table.rows.iter_mut().flatten()) {
            if has_controls(text) {
                *text = visible(text);
            }
        }
        Some(table)
    }

    fn laid_out(&self, style: Style, out: &mut dyn Write) -> io::Result<()> {
        match style.is_expanded {
            true if self.rows.is_empty() || self.names.is_empty() => {
                if !style.is_bare {
                    self.write_footers(out)?;
                }
                writeln!(out)
            }
            true => self.expanded(style, out),
            false => self.aligned(style, out),
        }
    }

    fn unaligned(&self, style: Style, out: &mut dyn Write) -> io::Result<()> {
        if style.is_expanded {
            for (at, row) in self.rows.iter().enumerate() {
                if at > 0 {
                    writeln!(out)?;
                }
                for (name, value) in self.names.iter().zip(row) {
                    writeln!(out, "{name}|{value}")?;
                }
            }
            return Ok(());
        }
        if !style.is_bare {
            if let Some(title) = &self.title {
                writeln!(out, "{title}")?;
            }
            writeln!(out, "{}", self.names.join("|"))?;
        }
        for row in self.rows.iter().filter(|row| !row.is_empty()) {
            writeln!(out, "{}", row.join("|"))?;
        }
        if !style.is_bare {
            self.write_footers(out)?;
        }
        Ok(())
    }

    fn write_footers(&self, out: &mut dyn Write) -> io::Result<()> {
        match (&self.footers, self.rows.len()) {
            (Some(footers), _) => footers.iter().try_for_each(|line| writeln!(out, "{line}")),
            (None, 1) => writeln!(out, "(1 row)"),
            (None, count) => writeln!(out, "({count} rows)"),
        }
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.names.iter().map(|name| width(name)).collect();
        for row in &self.rows {
            for (widest, value) in widths.iter_mut().zip(row) {
                *widest = (*widest).max(width(value));
            }
        }
        widths
    }

    fn aligned(&self, style: Style, out: &mut dyn Write) -> io::Result<()> {
        let widths = self.widths();
        if !style.is_bare {
            self.write_head(&widths, out)?;
        }
        for row in &self.rows {
            self.write_row(row, &widths, out)?;
        }
        if !style.is_bare {
            self.write_footers(out)?;
        }
        writeln!(out)
    }

    fn write_head(&self, widths: &[usize], out: &mut dyn Write) -> io::Result<()> {
        // Three characters between two columns, one at each side.
        let total = widths.iter().sum::<usize>() + (3 * widths.len()).saturating_sub(1);
        if let Some(title) = &self.title {
            let space = total.saturating_sub(width(title)) / 2;
            writeln!(out, "{}{title}", " ".repeat(space))?;
        }
        let names = self.names.iter().zip(widths).map(|(name, widest)| {
            let space = widest - width(name);
            let (left, right) = (space / 2, space.div_ceil(2));
            format!(" {}{name}{} ", " ".repeat(left), " ".repeat(right))
        });
        if self.names.is_empty() {
            return writeln!(out, "--");
        }
        writeln!(out, "{}", names.collect::<Vec<_>>().join("|"))?;
        let rules = widths.iter().map(|widest| "-".repeat(widest + 2));
        writeln!(out, "{}", rules.collect::<Vec<_>>().join("+"))
    }

    fn write_row(&self, row: &[String], widths: &[usize], out: &mut dyn Write) -> io::Result<()> {
        let cells: Vec<Vec<&str>> = row.iter().map(|value| value.split('\n').collect()).collect();
        let height = cells.iter().map(Vec::len).max().unwrap_or(0);
        for line in 0..height {
            for (at, cell) in cells.iter().enumerate() {
                let text = cell.get(line).copied();
                // As in psql: what has ended is not at the right any more.
                let is_at_right = text.is_some() && self.is_number.get(at) == Some(&true);
                let text = text.unwrap_or_default();
                let space = " ".repeat(widths[at] - width(text));
                let is_last = at + 1 == cells.len();
                let goes_on = line + 1 < cell.len();
                match is_at_right {
                    true => write!(out, " {space}{text}")?,
                    _ if is_last && !goes_on => write!(out, " {text}")?,
                    _ => write!(out, " {text}{space}")?,
                }
                out.write_all(match (goes_on, is_last) {
                    (true, _) => b"+",
                    (false, true) => b"",
                    (false, false) => b" ",
                })?;
                out.write_all(if is_last { b"" } else { b"|" })?;
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn expanded(&self, style: Style, out: &mut dyn Write) -> io::Result<()> {
        let names = self.names.iter().map(|name| width(name)).max().unwrap_or(0);
        let values = self.rows.iter().flatten().map(|value| width(value)).max().unwrap_or(0);
        if let Some(title) = self.title.as_ref().filter(|_| !style.is_bare) {
            writeln!(out, "{title}")?;
        }
        for (at, row) in self.rows.iter().enumerate() {
            let label = match style.is_bare {
                true => String::new(),
                false => format!("[ RECORD {} ]", at + 1),
            };
            if at > 0 || !style.is_bare {
                writeln!(out, "{}", record_line(&label, names, values))?;
            }
            for (name, value) in self.names.iter().zip(row) {
                let space = " ".repeat(names - width(name));
                let mut lines = value.split('\n').peekable();
                let mut label = format!("{name}{space}");
                while let Some(line) = lines.next() {
                    let (fill, plus) = match lines.peek() {
                        Some(_) => (" ".repeat(values - width(line)), "+"),
                        None => (String::new(), ""),
                    };
                    writeln!(out, "{label} | {line}{fill}{plus}")?;
                    label = " ".repeat(names);
                }
            }
        }
        let footers = self.footers.iter().flatten().filter(|_| !style.is_bare);
        footers.into_iter().try_for_each(|line| writeln!(out, "{line}"))?;
        writeln!(out)
    }
}

/// The line over a record: `-[ RECORD 1 ]---+-----`, as wide as the record.
fn record_line(label: &str, names: usize, values: usize) -> String {
    let mut line = format!("-{label}");
    // The rule: `names` and a blank, the crossing, a blank and `values`.
    let used = line.len();
    for at in used..names + 3 + values {
        line.push(if at == names + 1 { '+' } else { '-' });
    }
    line
}

/// A text as psql lays it out (`pg_wcsformat`): tabs to the next of every eight columns, names for
/// other control characters.
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len() + 8);
    let mut column = 0;
    for character in text.chars() {
        match character {
            '\n' => {
                shown.push('\n');
                column = 0;
            }
            '\t' => {
                let spaces = 8 - column % 8;
                shown.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            '\r' => {
                shown.push_str("\\r");
                column += 2;
            }
            c if c.is_ascii_control() => {
                shown.push_str(&format!("\\x{:02X}", u32::from(c)));
                column += 4;
            }
            c if c.is_control() => {
                shown.push_str(&format!("\\u{:04X}", u32::from(c)));
                column += 6;
            }
            c => {
                shown.push(c);
                column += c.width().unwrap_or(0);
            }
        }
    }
    shown
}

/// How many columns of a terminal the widest line takes.
fn width(text: &str) -> usize {
    text.split('\n').map(UnicodeWidthStr::width).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(names: &[&str], is_number: &[bool], rows: &[&[&str]]) -> Table {
        let own = |list: &&[&str]| list.iter().map(|&text| text.to_owned()).collect();
        Table {
            names: own(&names),
            is_number: is_number.to_vec(),
            rows: rows.iter().map(own).collect(),
            ..Table::default()
        }
    }

    fn written(table: &Table, style: Style) -> String {
        let mut out = Vec::new();
        table.write(style, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn people() -> Table {
        table(
            &["id", "name"],
            &[true, false],
            &[&["1", "Ann"], &["20", "Jürgen\nMüller"], &["3", "世界"]],
        )
    }

    // The expected texts are psql's (15).

    #[test]
    fn tables_are_aligned() {
        let expected = " id |  name  \n\
                        ----+--------\n  \
                        1 | Ann\n \
                        20 | Jürgen+\n    \
                        | Müller\n  \
                        3 | 世界\n\
                        (3 rows)\n\n";
        assert_eq!(written(&people(), Style::default()), expected);
        let one = table(&["n"], &[true], &[&["1"]]);
        assert_eq!(written(&one, Style::default()), " n \n---\n 1\n(1 row)\n\n");
        let none = table(&[], &[], &[&[], &[]]);
        assert_eq!(written(&none, Style::default()), "--\n(2 rows)\n\n");
    }

    #[test]
    fn records_are_expanded() {
        let style = Style { is_expanded: true, ..Style::default() };
        let expected = "-[ RECORD 1 ]\n\
                        id   | 1\n\
                        name | Ann\n\
                        -[ RECORD 2 ]\n\
                        id   | 20\n\
                        name | Jürgen+\n     \
                             | Müller\n\
                        -[ RECORD 3 ]\n\
                        id   | 3\n\
                        name | 世界\n\n";
        assert_eq!(written(&people(), style), expected);
        let wide = table(&["a"], &[false], &[&["a value that is wide"]]);
        let expected = "-[ RECORD 1 ]-----------\na | a value that is wide\n\n";
        assert_eq!(written(&wide, style), expected);
        let long = table(&["a name that is long"], &[false], &[&["xyz"]]);
        let expected = "-[ RECORD 1 ]-------+----\na name that is long | xyz\n\n";
        assert_eq!(written(&long, style), expected);
        assert_eq!(written(&table(&["a"], &[false], &[]), style), "(0 rows)\n\n");
    }

    #[test]
    fn tables_can_be_bare_or_unaligned() {
        let bare = Style { is_bare: true, ..Style::default() };
        let two = table(&["id", "x"], &[true, false], &[&["1", "a"], &["10", ""]]);
        assert_eq!(written(&two, bare), "  1 | a\n 10 | \n\n");
        let unaligned = Style { is_unaligned: true, ..Style::default() };
        assert_eq!(written(&two, unaligned), "id|x\n1|a\n10|\n(2 rows)\n");
        let records = Style { is_expanded: true, ..bare };
        assert_eq!(written(&two, records), "id | 1\nx  | a\n---+---\nid | 10\nx  | \n\n");
        let both = Style { is_bare: true, ..unaligned };
        assert_eq!(written(&two, both), "1|a\n10|\n");
    }

    #[test]
    fn titles_and_footers_frame_a_table() {
        let mut titled = table(&["Column", "Type"], &[false, false], &[&["id", "bigint"]]);
        titled.title = Some("Table \"public.t\"".into());
        titled.footers = Some(vec!["Indexes:".into(), "    \"t_pkey\"".into()]);
        let expected = "Table \"public.t\"\n Column |  Type  \n--------+--------\n \
                        id     | bigint\n\
                        Indexes:\n    \"t_pkey\"\n\n";
        assert_eq!(written(&titled, Style::default()), expected);
    }
}
