//! Where a statement ends: at a semicolon outside of quotes, comments, parentheses and the body of
//! a function in standard SQL.

/// What text is inside of, at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Inside {
    /// Nothing.
    Plain,
    /// `'…'`; whether a backslash takes the next character's meaning.
    Quote { escapes: bool },
    /// `"…"`.
    Name,
    /// `$tag$…$tag$`, with the dollars.
    Dollar(String),
    /// `/* … */`, so deep.
    Comment(usize),
}

/// Collects lines until statements are complete.
#[derive(Debug)]
pub(super) struct Splitter {
    /// The statement so far.
    text: String,
    inside: Inside,
    parens: usize,
    /// How many `BEGIN` and `CASE` are open in the body of a function.
    bodies: usize,
    /// The first words of the statement, as far as they matter.
    words: Vec<String>,
}

/// What a line gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A statement, with its semicolon if it had one.
    Statement(String),
    /// A command of the shell, without its backslash; it ends with the line.
    Command(String),
}

impl Default for Splitter {
    fn default() -> Self {
        Self { text: String::new(), inside: Inside::Plain, parens: 0, bodies: 0, words: Vec::new() }
    }
}

impl Splitter {
    /// Whether nothing waits for its end.
    pub(super) fn is_empty(&self) -> bool {
        self.inside == Inside::Plain && is_blank(&self.text)
    }

    /// What waits.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The statement that waits, as if it had ended.
    pub(super) fn take_rest(&mut self) -> Option<String> {
        let rest = std::mem::take(self).text;
        (!is_blank(&rest)).then(|| rest.trim().to_owned())
    }

    /// What the prompt shows while a statement waits.
    pub(super) fn mark(&self) -> char {
        match self.inside {
            Inside::Quote { .. } => '\'',
            Inside::Name => '"',
            Inside::Dollar(_) => '$',
            Inside::Comment(_) => '*',
            Inside::Plain if self.parens > 0 => '(',
            Inside::Plain if self.is_empty() => '=',
            Inside::Plain => '-',
        }
    }

    /// Takes a line without its end.
    pub(super) fn line(&mut self, line: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut rest = line;
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        while let Some(c) = rest.chars().next() {
            if self.inside == Inside::Plain && c == '\\' {
                pieces.push(Piece::Command(rest[1..].trim().to_owned()));
                return pieces;
            }
            let ends =
                c == ';' && self.inside == Inside::Plain && self.parens == 0 && self.bodies == 0;
            if ends {
                let ended = |rest| Piece::Statement(rest + ";");
                pieces.extend(self.take_rest().map(ended));
                rest = &rest[1..];
                continue;
            }
            let length = self.step(rest);
            self.text.push_str(&rest[..length]);
            rest = &rest[length..];
        }
        if is_blank(&self.text) && self.inside == Inside::Plain {
            self.clear();
        }
        pieces
    }

    /// Passes one token; returns its length.
    fn step(&mut self, rest: &str) -> usize {
        let first = rest.chars().next().map_or(0, char::len_utf8);
        match &mut self.inside {
            Inside::Plain => self.plain(rest, first),
            Inside::Quote { escapes: true } if rest.starts_with('\\') => {
                first + rest[first..].chars().next().map_or(0, char::len_utf8)
            }
            Inside::Quote { .. } => {
                if rest.starts_with('\'') {
                    self.inside = Inside::Plain;
                }
                first
            }
            Inside::Name => {
                if rest.starts_with('"') {
                    self.inside = Inside::Plain;
                }
                first
            }
            Inside::Dollar(tag) if rest.starts_with(tag.as_str()) => {
                let length = tag.len();
                self.inside = Inside::Plain;
                length
            }
            Inside::Dollar(_) => first,
            Inside::Comment(depth) if rest.starts_with("/*") => {
                *depth += 1;
                2
            }
            Inside::Comment(depth) if rest.starts_with("*/") => {
                *depth -= 1;
                if *depth == 0 {
                    self.inside = Inside::Plain;
                }
                2
            }
            Inside::Comment(_) => first,
        }
    }

    fn plain(&mut self, rest: &str, first: usize) -> usize {
        if rest.starts_with("--") {
            return rest.len();
        }
        if rest.starts_with("/*") {
            self.inside = Inside::Comment(1);
            return 2;
        }
        match rest.as_bytes()[0] {
            b'\'' => self.inside = Inside::Quote { escapes: false },
            b'"' => self.inside = Inside::Name,
            b'(' => self.parens += 1,
            b')' => self.parens = self.parens.saturating_sub(1),
            b'$' => {
                if let Some(tag) = dollar_tag(rest) {
                    self.inside = Inside::Dollar(tag.to_owned());
                    return tag.len();
                }
            }
            b'e' | b'E' if rest[1..].starts_with('\'') => {
                self.inside = Inside::Quote { escapes: true };
                return 2;
            }
            _ => {}
        }
        let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
        let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if word == 0 || rest.starts_with('$') {
            return first;
        }
        self.word(&rest[..word].to_ascii_lowercase());
        word
    }

    /// Notes a word that may open or close the body of a function: `CREATE FUNCTION … BEGIN ATOMIC
    /// … END`.
    fn word(&mut self, word: &str) {
        if self.words.len() < 4 {
            self.words.push(word.to_owned());
        }
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let creates = matches!(
            words.as_slice(),
            ["create", "function" | "procedure", ..]
                | ["create", "or", "replace", "function" | "procedure", ..]
        );
        if !creates || self.parens > 0 {
            return;
        }
        match word {
            "begin" => self.bodies += 1,
            "case" if self.bodies > 0 => self.bodies += 1,
            "end" => self.bodies = self.bodies.saturating_sub(1),
            _ => {}
        }
    }
}

/// The opening of a dollar quote: `$$` or `$tag$`.
fn dollar_tag(rest: &str) -> Option<&str> {
    let end = rest[1..].find('$')? + 1;
    let tag = &rest[1..end];
    let starts_well = !tag.starts_with(|c: char| c.is_ascii_digit());
    let is_tag = tag.chars().all(|c| c.is_alphanumeric() || c == '_');
    (starts_well && is_tag).then(|| &rest[..=end])
}

/// Whether there is nothing to be run: blanks and comments.
fn is_blank(text: &str) -> bool {
    let mut rest = text.trim_start();
    loop {
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, after)| after).trim_start();
        } else if rest.starts_with("/*") {
            let Some(length) = comment_length(rest) else { return false };
            rest = rest[length..].trim_start();
        } else {
            return rest.is_empty();
        }
    }
}

fn comment_length(text: &str) -> Option<usize> {
    let (mut depth, mut at) = (0usize, 0);
    loop {
        let rest = text.get(at..)?;
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += rest.chars().next()?.len_utf8();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> (Vec<Piece>, Splitter) {
        let mut splitter = Splitter::default();
        let pieces = text.split('\n').flat_map(|line| splitter.line(line)).collect();
        (pieces, splitter)
    }

    fn statements(text: &str) -> Vec<String> {
        let (pieces, mut splitter) = split(text);
        let mut all: Vec<String> = pieces
            .into_iter()
            .map(|piece| match piece {
                Piece::Statement(text) => text.strip_suffix(';').unwrap().to_owned(),
                Piece::Command(text) => format!("\\{text}"),
            })
            .collect();
        all.extend(splitter.take_rest().map(|rest| format!("…{rest}")));
        all
    }

    #[test]
    fn semicolons_end_statements_where_they_stand_alone() {
        for (text, expected) in [
            ("select 1; select 2", vec!["select 1", "…select 2"]),
            ("select\n 1;", vec!["select\n 1"]),
            ("select 'a;b', \"c;d\";", vec!["select 'a;b', \"c;d\""]),
            ("select 'it''s;';", vec!["select 'it''s;'"]),
            (r"select E'a\';', 'b\';", vec![r"select E'a\';', 'b\'"]),
            ("select $$a;b$$, $x$;$$;$x$;", vec!["select $$a;b$$, $x$;$$;$x$"]),
            ("select $1; select a$b$c;", vec!["select $1", "select a$b$c"]),
            ("select 1 -- no; end\n;", vec!["select 1 -- no; end"]),
            ("select /* ; /* ; */ ; */ 1;", vec!["select /* ; /* ; */ ; */ 1"]),
            ("create rule r as on x do (a; b); c;", vec!["create rule r as on x do (a; b)", "c"]),
            (";;  ; -- nothing\n;/* nothing */;", vec![]),
            ("select 'über'; \\d x", vec!["select 'über'", "\\d x"]),
            ("\\d+ a;b", vec!["\\d+ a;b"]),
        ] {
            assert_eq!(statements(text), expected, "{text}");
        }
    }

    #[test]
    fn bodies_of_functions_stay_whole() {
        let body = "create or replace function f() returns int begin atomic\n select case when \
                    true then 1 end;\n select 2;\nend";
        assert_eq!(statements(&format!("{body}; select 3;")), [body, "select 3"]);
        assert_eq!(statements("begin; select 1; end;"), ["begin", "select 1", "end"]);
    }

    #[test]
    fn the_prompt_tells_what_is_missing() {
        for (text, mark) in [
            ("", '='),
            ("-- x", '='),
            ("select", '-'),
            ("select 'a", '\''),
            ("select \"a", '"'),
            ("select $a$", '$'),
            ("/* a", '*'),
            ("select (", '('),
        ] {
            assert_eq!(split(text).1.mark(), mark, "{text}");
        }
    }

    #[test]
    fn a_statement_may_go_on_after_a_command() {
        let (pieces, mut splitter) = split("select 1 \\timing\n, 2");
        assert_eq!(pieces, [Piece::Command("timing".into())]);
        assert_eq!(splitter.take_rest().as_deref(), Some("select 1 \n, 2"));
    }
}
