//! The tokens of SQL text, found without copying: as much of PostgreSQL's lexical structure as is
//! needed to tell names from literals and comments.
//! (<https://www.postgresql.org/docs/current/sql-syntax-lexical.html>)

/// A piece of SQL text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A keyword or a name without quotes.
    Word(&'a [u8]),
    /// A name in double quotes, as it stands between them.
    Quoted(&'a [u8]),
    /// A string constant of any kind, as it stands between its quotes.
    Text(&'a [u8]),
    /// A number or a parameter.
    Number,
    /// Anything else, one byte at a time.
    Symbol(u8),
}

impl Token<'_> {
    /// Whether it is this keyword, which is given in lower case.
    pub fn is_word(&self, keyword: &[u8]) -> bool {
        matches!(self, Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }
}

const SEED: u64 = 0xcbf2_9ce4_8422_2325;
const STEP: u64 = 0x0000_0100_0000_01b3;

/// The hash of a name as PostgreSQL keeps it. Collisions only make the reader more careful.
pub fn hash_name(name: &[u8]) -> u64 {
    hash(name.iter().copied())
}

/// The hash of the name that a word without quotes stands for.
pub(super) fn hash_word(word: &[u8]) -> u64 {
    hash(word.iter().map(u8::to_ascii_lowercase))
}

fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(SEED, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(STEP))
}

/// Walks over SQL text.
#[derive(Clone)]
pub struct Lexer<'a> {
    sql: &'a [u8],
    at: usize,
    /// Where the last token began.
    pub begin: usize,
    /// Something was met that can be read in two ways, or that does not end.
    pub unsure: bool,
}

/// Whether a word may have a byte after its first.
const WORD_PART: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = is_word_part(byte as u8);
        byte += 1;
    }
    table
};

/// What a byte begins, for who passes over most tokens.
#[derive(Clone, Copy)]
enum Begins {
    /// A blank, or a symbol that is one token whatever follows.
    Plain,
    Word,
    Number,
    /// What has to be looked at.
    Other,
}

const BEGINS: [Begins; 256] = {
    let mut table = [Begins::Plain; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'\'' | b'"' | b'$' | b';' | b'-' | b'/' => Begins::Other,
            b'0'..=b'9' => Begins::Number,
            other if is_word_start(other) => Begins::Word,
            _ => Begins::Plain,
        };
        byte += 1;
    }
    table
};

const fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

const fn is_word_part(byte: u8) -> bool {
    is_word_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

impl<'a> Lexer<'a> {
    /// A walk from the beginning.
    pub fn new(sql: &'a [u8]) -> Self {
        Self { sql, at: 0, begin: 0, unsure: false }
    }

    /// Where the next token is looked for.
    pub fn position(&self) -> usize {
        self.at
    }

    fn byte(&self, ahead: usize) -> u8 {
        self.sql.get(self.at + ahead).copied().unwrap_or(0)
    }

    /// The first byte of the next token.
    fn skip_blanks(&mut self) -> Option<u8> {
        loop {
            let byte = *self.sql.get(self.at)?;
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => self.at += 1,
                b'-' if self.byte(1) == b'-' => {
                    let rest = &self.sql[self.at..];
                    let line = rest.iter().position(|b| matches!(b, b'\n' | b'\r'));
                    self.at += line.unwrap_or(rest.len());
                }
                b'/' if self.byte(1) == b'*' => self.skip_comment(),
                _ => return Some(byte),
            }
        }
    }

    fn skip_comment(&mut self) {
        let mut depth = 0u32;
        while self.at < self.sql.len() {
            match (self.byte(0), self.byte(1)) {
                (b'/', b'*') => (depth, self.at) = (depth + 1, self.at + 2),
                (b'*', b'/') => {
                    (depth, self.at) = (depth - 1, self.at + 2);
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
        self.unsure = true;
    }

    /// A quoted piece whose opening quote is at the position; a doubled quote is part of it.
    fn quoted(&mut self, quote: u8, escapes: bool) -> &'a [u8] {
        self.at += 1;
        let from = self.at;
        while self.at < self.sql.len() {
            let byte = self.sql[self.at];
            if byte == b'\\' && quote == b'\'' {
                // In a plain constant it depends on standard_conforming_strings.
                self.unsure |= !escapes;
                self.at += 1 + usize::from(escapes);
                continue;
            }
            if byte == quote {
                if self.byte(1) != quote {
                    self.at += 1;
                    return &self.sql[from..self.at - 1];
                }
                self.at += 1;
            }
            self.at += 1;
        }
        self.unsure = true;
        self.at = self.sql.len();
        &self.sql[from.min(self.at)..]
    }

    fn dollar(&mut self) -> Token<'a> {
        let rest = &self.sql[self.at..];
        let tag = rest[1..].iter().position(|b| !is_word_part(*b) || *b == b'$');
        let tag = match tag {
            Some(length) if rest[1 + length] == b'$' && !rest[1].is_ascii_digit() => {
                &rest[..length + 2]
            }
            _ => {
                self.at += 1;
                while self.byte(0).is_ascii_digit() {
                    self.at += 1;
                }
                return Token::Number;
            }
        };
        let from = self.at + tag.len();
        let body = &self.sql[from..];
        let end = body.windows(tag.len()).position(|window| window == tag);
        self.unsure |= end.is_none();
        let length = end.unwrap_or(body.len());
        self.at = (from + length + tag.len()).min(self.sql.len());
        Token::Text(&body[..length])
    }

    /// The word that begins at the position.
    fn word_ahead(&self) -> &'a [u8] {
        let rest = self.sql.get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|byte| !WORD_PART[usize::from(*byte)]);
        &rest[..end.unwrap_or(rest.len())]
    }

    fn pass_number(&mut self) {
        let is_part = |byte: &u8| matches!(byte, b'.' | b'_') || byte.is_ascii_alphanumeric();
        let rest = self.sql.get(self.at..).unwrap_or_default();
        self.at += rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
    }

    /// Passes over symbols but the semicolon, over numbers, and over words for which `matters` is
    /// false; says whether there were such words, and returns the first token that is left. That
    /// may still be one of those.
    pub fn next_noted(&mut self, matters: impl Fn(&[u8]) -> bool) -> (bool, Option<Token<'a>>) {
        let mut words = false;
        while let Some(byte) = self.sql.get(self.at) {
            match BEGINS[usize::from(*byte)] {
                Begins::Plain => self.at += 1,
                Begins::Number => self.pass_number(),
                Begins::Word => {
                    let word = self.word_ahead();
                    // A single letter may belong to the constant that follows.
                    if word.len() == 1 || matters(word) {
                        break;
                    }
                    self.at += word.len();
                    words = true;
                }
                Begins::Other => break,
            }
        }
        (words, self.next())
    }

    fn word(&mut self) -> Token<'a> {
        let word = self.word_ahead();
        self.at += word.len();
        if word.len() > 1 {
            return Token::Word(word);
        }
        match (word, self.byte(0), self.byte(1)) {
            (b"e" | b"E", b'\'', _) => Token::Text(self.quoted(b'\'', true)),
            (b"b" | b"B" | b"x" | b"X" | b"n" | b"N", b'\'', _) => {
                Token::Text(self.quoted(b'\'', false))
            }
            (b"u" | b"U", b'&', b'\'' | b'"') => {
                // Escapes could spell any name.
                self.unsure = true;
                self.at += 1;
                let quote = self.byte(0);
                Token::Text(self.quoted(quote, false))
            }
            _ => Token::Word(word),
        }
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let first = self.skip_blanks();
        self.begin = self.at;
        Some(match first? {
            b'\'' => Token::Text(self.quoted(b'\'', false)),
            b'"' => Token::Quoted(self.quoted(b'"', false)),
            b'$' => self.dollar(),
            byte if is_word_start(byte) => self.word(),
            b'0'..=b'9' => {
                self.pass_number();
                Token::Number
            }
            byte => {
                self.at += 1;
                Token::Symbol(byte)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(sql: &str) -> Vec<String> {
        let mut lexer = Lexer::new(sql.as_bytes());
        let tokens = lexer.by_ref().map(|token| match token {
            Token::Word(word) => {
                assert_eq!(hash_word(word), hash_name(&word.to_ascii_lowercase()));
                String::from_utf8_lossy(word).into_owned()
            }
            Token::Quoted(name) => format!("\"{}\"", String::from_utf8_lossy(name)),
            Token::Text(text) => format!("'{}'", String::from_utf8_lossy(text)),
            Token::Number => "0".to_owned(),
            Token::Symbol(byte) => char::from(byte).to_string(),
        });
        let mut words: Vec<String> = tokens.collect();
        if lexer.unsure {
            words.push("?".to_owned());
        }
        words
    }

    #[test]
    fn tokens() {
        for (sql, expected) in [
            ("select a.b, 1.5e3 -- x\n from t", "select a . b , 0 from t"),
            ("/* a /* b */ c */ x", "x"),
            ("'it''s' \"a\"\"b\"", "'it''s' \"a\"\"b\""),
            (r"E'a\'b' c", r"'a\'b' c"),
            (r"'a\' c", r"'a\' c ?"),
            ("$$a $b$ c$$ $1 $x$ $$ $x$", "'a $b$ c' 0 ' $$ '"),
            ("'open", "'open' ?"),
            ("/* open", "?"),
            ("U&\"d\\0061t\"", "'d\\0061t' ?"),
            ("SeT x=$$", "SeT x = '' ?"),
        ] {
            assert_eq!(words(sql).join(" "), expected, "{sql}");
        }
    }

    #[test]
    fn every_prefix_ends() {
        let sql = "select $a$ x $a$, E'\\'', \"q\", u&'x', /* c */ $1 -- end";
        for length in 0..sql.len() {
            words(&sql[..length]);
        }
    }
}
