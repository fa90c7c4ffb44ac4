//! What SQL text may do to the session that runs it. It is not parsed, only read: names that are
//! known to matter are looked for, and whatever is not understood counts as unclear, so that the
//! session keeps its connection until a look at that connection has told.

use super::effects::Effects;
use super::lexer::{Lexer, Token};
use super::names::Names;
use super::settings::{Change, SettingValue, custom_name};

/// Names of prepared statements in one text; what is beyond them is PostgreSQL's alone.
const MOST_REFERENCES: usize = 256;

/// Texts of a statement that are taken for names of settings.
const MOST_MENTIONS: usize = 16;

/// PostgreSQL tells names apart by this many bytes (`NAMEDATALEN` − 1).
const NAME_BYTES: usize = 63;

/// A name of a prepared statement in SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// `EXECUTE name`.
    Executes(Box<str>),
    /// `PREPARE name`: it must not exist.
    Prepares(Box<str>),
    /// `DEALLOCATE name`.
    Deallocates(Box<str>),
}

impl Reference {
    /// The name.
    pub fn name(&self) -> &str {
        let (Reference::Executes(name) | Reference::Prepares(name) | Reference::Deallocates(name)) =
            self;
        name
    }
}

/// What was read from a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Effects of all its statements.
    pub effects: Effects,
    /// A change for each statement that PostgreSQL completes as SET or RESET, in order.
    pub changes: Vec<Change>,
    /// Settings with a dot that are set by a function call.
    pub custom_settings: Vec<Box<str>>,
    /// Texts that may be names of settings with a dot, beside something that may set one.
    pub mentions: Vec<Box<str>>,
    /// Names of prepared statements that it refers to.
    pub refers_to: Vec<Reference>,
    /// It means the same whenever it is parsed: neither its constants nor its columns depend on
    /// what there is at that moment.
    pub timeless: bool,
}

impl Class {
    /// Whether it may set something that is not known by name.
    pub fn may_set(&self) -> bool {
        self.effects.has(Effects::SETTING.and(Effects::UNCLEAR))
    }
}

/// Reads SQL text.
pub fn classify(sql: &[u8], names: &Names) -> Class {
    let mut reader = Reader::new(sql, names);
    reader.all();
    reader.class
}

pub(super) fn settle_sequences(effects: &mut Effects) {
    if effects.has(Effects::HAS_SEQUENCE) && effects.has(Effects::INSERTS) {
        effects.add(Effects::SEQUENCE);
    }
}

pub(super) struct Reader<'a> {
    lexer: Lexer<'a>,
    sql: &'a [u8],
    names: &'a Names,
    pub(super) class: Class,
    statements: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(sql: &'a [u8], names: &'a Names) -> Self {
        let class = Class { timeless: true, ..Class::default() };
        Self { lexer: Lexer::new(sql), sql, names, class, statements: 0 }
    }

    fn all(&mut self) {
        while let Some(token) = self.lexer.next() {
            match token {
                Token::Symbol(b';' | b'(') => {}
                Token::Word(word) => {
                    self.statements += 1;
                    self.statement(word);
                }
                _ => {
                    self.add(Effects::UNCLEAR);
                    self.rest();
                }
            }
        }
        if self.lexer.unsure {
            self.add(Effects::UNCLEAR.and(Effects::SEQUENCE));
            self.class.timeless = false;
        }
        settle_sequences(&mut self.class.effects);
    }

    fn add(&mut self, effects: Effects) {
        self.class.effects.add(effects);
    }

    /// Reads one statement, whose first word this is, up to its semicolon.
    fn statement(&mut self, first: &[u8]) {
        if first.eq_ignore_ascii_case(b"select") {
            return self.rest();
        }
        let mut lower = [0; 12];
        let Some(lower) = lower.get_mut(..first.len()) else {
            self.add(Effects::UNCLEAR);
            return self.rest();
        };
        lower.copy_from_slice(first);
        lower.make_ascii_lowercase();
        match &*lower {
            b"update" => self.update(),
            b"delete" | b"values" | b"table" => self.rest(),
            b"insert" | b"copy" | b"merge" | b"with" | b"explain" => {
                self.add(Effects::INSERTS);
                self.rest();
            }
            b"begin" | b"start" => {
                self.add(Effects::BEGIN);
                self.skip();
            }
            b"commit" | b"end" | b"rollback" | b"abort" | b"savepoint" | b"release" | b"show"
            | b"move" | b"close" | b"lock" | b"notify" | b"checkpoint" => self.skip(),
            b"fetch" => {
                // It gives what its cursor gives. PostgreSQL ends with a segmentation fault when
                // it is to describe one whose cursor is gone.
                self.class.timeless = false;
                self.skip();
            }
            b"set" => self.set(),
            b"reset" => self.reset(),
            b"declare" => self.declare(),
            b"listen" | b"unlisten" => {
                self.add(Effects::LISTEN);
                self.skip();
            }
            b"prepare" => self.prepare(),
            b"execute" => {
                self.execute();
                self.rest();
            }
            b"deallocate" => self.deallocate(),
            b"discard" => self.discard(),
            b"load" => {
                self.add(Effects::LOAD);
                self.skip();
            }
            b"truncate" | b"vacuum" | b"analyze" | b"analyse" | b"cluster" | b"reindex"
            | b"refresh" => self.rest(),
            b"grant" | b"revoke" | b"comment" => self.skip(),
            b"create" | b"alter" | b"drop" => {
                self.add(Effects::DDL.and(Effects::UNCLEAR).and(Effects::INSERTS));
                self.define();
            }
            b"do" | b"call" => {
                self.add(Effects::UNCLEAR.and(Effects::INSERTS));
                self.block();
            }
            _ => {
                self.add(Effects::UNCLEAR.and(Effects::SEQUENCE));
                self.rest();
            }
        }
    }

    /// An update of `pg_settings` is a SET
    /// (<https://www.postgresql.org/docs/current/view-pg-settings.html>).
    fn update(&mut self) {
        if updates_settings(self.lexer.clone()) {
            self.add(Effects::SETTING);
        }
        self.rest();
    }

    /// Passes over the rest of the statement.
    fn skip(&mut self) {
        for token in self.lexer.by_ref() {
            if token == Token::Symbol(b';') {
                return;
            }
        }
    }

    /// Reads the rest of a statement for names that matter.
    fn rest(&mut self) {
        let from = self.lexer.position();
        let mut into = false;
        let mut has_name = false;
        loop {
            let names = self.names;
            let (words, token) = self.lexer.next_noted(|word| names.may_matter(word));
            has_name |= words;
            into &= !words;
            match token {
                Some(Token::Word(word)) => {
                    has_name = true;
                    if names.may_matter(word) {
                        self.keyword(word, into);
                        self.name(names.of_word(word), word);
                    }
                    into = word.eq_ignore_ascii_case(b"into");
                }
                Some(Token::Quoted(name)) => {
                    has_name = true;
                    self.name(names.of(name), name);
                }
                Some(Token::Text(text)) => {
                    self.constant(text);
                    self.settings_in(text);
                }
                Some(Token::Symbol(b';')) | None => break,
                Some(Token::Number | Token::Symbol(_)) => {}
            }
        }
        if has_name && !self.names.is_complete() {
            self.add(Effects::UNCLEAR.and(Effects::SEQUENCE));
        }
        if self.class.may_set() {
            self.mentioned(from);
        }
    }

    /// A function may set what it is told to: the names of settings are among its arguments then.
    fn mentioned(&mut self, from: usize) {
        let sql = self.sql.get(from..self.lexer.position()).unwrap_or_default();
        for token in Lexer::new(sql) {
            if let Token::Text(text) = token
                && let Some(name) = custom_name(text)
                && self.class.mentions.len() < MOST_MENTIONS
            {
                self.class.mentions.push(name);
            }
        }
    }

    /// Looks at what may be one of [`KEYWORDS`].
    fn keyword(&mut self, word: &[u8], after_into: bool) {
        match word.len() {
            4 if after_into && word.eq_ignore_ascii_case(b"temp") => self.temporary(),
            9 if after_into && word.eq_ignore_ascii_case(b"temporary") => self.temporary(),
            6 if word.eq_ignore_ascii_case(b"insert") => self.add(Effects::INSERTS),
            // Constants of these types name objects, which can be replaced by others.
            7 if word.eq_ignore_ascii_case(b"regtype") || word.eq_ignore_ascii_case(b"regproc") => {
                self.class.timeless = false;
            }
            7 if word.eq_ignore_ascii_case(b"execute") => self.execute(),
            6 if word.eq_ignore_ascii_case(b"create") => self.add(Effects::UNCLEAR),
            _ => {}
        }
    }

    fn temporary(&mut self) {
        self.add(Effects::TEMP);
    }

    fn name(&mut self, effects: Effects, word: &[u8]) {
        if effects.is_none() {
            return;
        }
        if effects.has(Effects::SETTING) && word.eq_ignore_ascii_case(b"set_config") {
            return self.set_config();
        }
        self.add(effects);
    }

    /// Constants that PostgreSQL replaces with the time at which the statement is parsed.
    fn constant(&mut self, text: &[u8]) {
        const MOMENTS: [&[u8]; 4] = [b"now", b"today", b"tomorrow", b"yesterday"];
        let holds = |moment: &&[u8]| {
            text.windows(moment.len()).any(|part| part.eq_ignore_ascii_case(moment))
        };
        if text.len() >= 3 && MOMENTS.iter().any(holds) {
            self.class.timeless = false;
        }
    }

    /// A text may be SQL that is run: settings with a dot must be known by name.
    fn settings_in(&mut self, text: &[u8]) {
        if !text.contains(&b'.') || !text.windows(3).any(|part| part.eq_ignore_ascii_case(b"set")) {
            return;
        }
        let text = String::from_utf8_lossy(text).replace("''", "'");
        for name in super::classify_body(text.as_bytes(), self.names).custom_settings {
            self.custom(&name);
        }
    }

    /// `set_config('name', value, is_local)`: nothing remains when it is local.
    pub(super) fn set_config(&mut self) {
        let mut ahead = self.lexer.clone();
        let mut depth = 0;
        // The arguments that are one token each; of others nothing is known.
        let (mut arguments, mut tokens) = ([None; 3], [0; 3]);
        let (mut at, mut is_whole) = (0, false);
        for token in ahead.by_ref().take(64) {
            match token {
                Token::Symbol(b'(') => depth += 1,
                Token::Symbol(b')') if depth <= 1 => {
                    is_whole = true;
                    break;
                }
                Token::Symbol(b')') => depth -= 1,
                Token::Symbol(b',') if depth == 1 => {
                    at += 1;
                    continue;
                }
                // A cast of a constant is that constant.
                Token::Symbol(b':') if matches!(arguments.get(at), Some(Some(_))) => continue,
                _ if token.is_word(b"text") => continue,
                _ => {}
            }
            let is_first = token == Token::Symbol(b'(') && depth == 1;
            if let Some(count) = tokens.get_mut(at).filter(|_| !is_first) {
                *count += 1;
                arguments[at] = Some(token).filter(|_| *count == 1);
            }
        }
        let name = match arguments[0] {
            // Not with an escape, which may be anything.
            Some(Token::Text(name)) if is_whole && !name.contains(&b'\\') => {
                std::str::from_utf8(name).ok()
            }
            _ => None,
        };
        if let Some(name) = name {
            self.custom(&name.to_ascii_lowercase());
        }
        if is_whole && arguments[2].is_some_and(|token| token.is_word(b"true")) {
            return;
        }
        self.add(Effects::SETTING);
        if name.is_none() {
            // It could be any setting, also one that cannot be listed.
            self.add(Effects::HIDDEN);
        }
    }

    /// CREATE, ALTER, DROP. Function bodies are not run now; what they do counts when they are.
    fn define(&mut self) {
        let mut near = 8;
        let mut follows_as = false;
        while let Some(token) = self.lexer.next() {
            // Not that of a trigger or a grant.
            if token.is_word(b"execute") && follows_as {
                self.execute();
            }
            follows_as = token.is_word(b"as");
            match token {
                Token::Symbol(b';') => break,
                Token::Word(word) => {
                    let is_temp = word.eq_ignore_ascii_case(b"temp")
                        || word.eq_ignore_ascii_case(b"temporary");
                    if is_temp && near > 0 {
                        // Nobody else will see it.
                        self.class.effects = self.class.effects.without(Effects::DDL);
                        self.add(Effects::TEMP);
                    }
                    self.name(self.names.of_word(word), word);
                    near -= i32::from(near > 0);
                }
                Token::Quoted(name) => self.name(self.names.of(name), name),
                _ => {}
            }
        }
        if !self.names.is_complete() {
            self.add(Effects::SEQUENCE);
        }
    }

    /// DO and CALL: the code runs now.
    fn block(&mut self) {
        while let Some(token) = self.lexer.next() {
            match token {
                Token::Symbol(b';') => break,
                Token::Text(body) => {
                    let class = super::classify_body(body, self.names);
                    self.add(class.effects);
                    class.custom_settings.iter().for_each(|name| self.custom(name));
                }
                Token::Word(word) => self.name(self.names.of_word(word), word),
                Token::Quoted(name) => self.name(self.names.of(name), name),
                _ => {}
            }
        }
        if !self.names.is_complete() {
            self.add(Effects::SEQUENCE);
        }
    }

    fn declare(&mut self) {
        let mut with = false;
        let mut previous: &[u8] = b"";
        let saved = self.lexer.clone();
        for token in self.lexer.by_ref() {
            match token {
                Token::Symbol(b';') => break,
                Token::Word(word) => {
                    if word.eq_ignore_ascii_case(b"hold") && previous.eq_ignore_ascii_case(b"with")
                    {
                        with = true;
                    }
                    previous = word;
                }
                _ => previous = b"",
            }
        }
        if with {
            self.add(Effects::HOLD);
        }
        self.lexer = saved;
        self.rest();
    }

    fn prepare(&mut self) {
        let mut ahead = self.lexer.clone();
        if ahead.next().is_some_and(|token| token.is_word(b"transaction")) {
            return self.skip();
        }
        self.add(Effects::PREPARE);
        self.refer(Reference::Prepares);
        self.rest();
    }

    fn execute(&mut self) {
        self.add(Effects::EXECUTES);
        // It gives what the statement of that name gives.
        self.class.timeless = false;
        self.refer(Reference::Executes);
    }

    fn deallocate(&mut self) {
        self.add(Effects::PREPARE);
        let mut ahead = self.lexer.clone();
        let first = ahead.next();
        if first.is_some_and(|token| token.is_word(b"prepare")) {
            self.lexer = ahead;
        }
        if self.lexer.clone().next().is_some_and(|token| token.is_word(b"all")) {
            self.add(Effects::DEALLOCATE_ALL);
            return self.skip();
        }
        self.refer(Reference::Deallocates);
        self.skip();
    }

    /// Notes the name that comes next.
    fn refer(&mut self, kind: fn(Box<str>) -> Reference) {
        let mut ahead = self.lexer.clone();
        let mut name = match ahead.next() {
            Some(Token::Word(word)) => String::from_utf8_lossy(word).to_ascii_lowercase(),
            Some(Token::Quoted(name)) => String::from_utf8_lossy(name).replace("\"\"", "\""),
            _ => return,
        };
        while name.len() > NAME_BYTES {
            name.pop();
        }
        if self.class.refers_to.len() < MOST_REFERENCES {
            self.class.refers_to.push(kind(name.into()));
        }
    }

    fn discard(&mut self) {
        let what = self.lexer.next();
        let is = |word: &[u8]| what.is_some_and(|token| token.is_word(word));
        self.add(match () {
            () if is(b"all") => Effects::DISCARD_ALL,
            () if is(b"sequences") => Effects::DISCARD_SEQUENCES,
            () => Effects::UNCLEAR,
        });
        self.skip();
    }

    fn reset(&mut self) {
        let token = self.lexer.next();
        let change = match token {
            Some(token) if token.is_word(b"all") => Some(Change::ResetAll),
            Some(token) if token.is_word(b"role") => {
                self.add(Effects::ROLE);
                Some(Change::Local)
            }
            Some(token) if token.is_word(b"session") => {
                self.add(Effects::ROLE);
                Some(Change::Local)
            }
            Some(token) if token.is_word(b"time") => Some(Change::Reset("timezone".into())),
            Some(token) if token.is_word(b"transaction") => Some(Change::Local),
            Some(token) => self.setting_name(token).map(Change::Reset),
            None => None,
        };
        self.change(change);
        self.skip();
    }

    /// SET in all its forms.
    pub(super) fn set(&mut self) {
        let mut token = self.lexer.next();
        if token.is_some_and(|token| token.is_word(b"local")) {
            self.change(Some(Change::Local));
            return self.rest_of_local();
        }
        if token.is_some_and(|token| token.is_word(b"session")) {
            let mut ahead = self.lexer.clone();
            let next = ahead.next();
            if next.is_some_and(|t| t.is_word(b"authorization")) {
                self.add(Effects::ROLE);
                self.change(Some(Change::Local));
                return self.skip();
            }
            if next.is_some_and(|t| t.is_word(b"characteristics")) {
                // It sets several settings at once.
                self.add(Effects::SETTING);
                self.change(Some(Change::Local));
                return self.skip();
            }
            // `SET SESSION name`; a setting is not called "session".
            token = self.lexer.next();
        }
        let Some(token) = token else { return self.unclear_set() };
        match token {
            _ if token.is_word(b"transaction") || token.is_word(b"constraints") => {
                // SET CONSTRAINTS has a tag of its own.
                if token.is_word(b"transaction") {
                    self.change(Some(Change::Local));
                }
                self.skip();
            }
            _ if token.is_word(b"role") => {
                self.add(Effects::ROLE);
                self.change(Some(Change::Local));
                self.skip();
            }
            _ if token.is_word(b"time") => {
                self.lexer.next();
                self.value("timezone".into());
            }
            _ if token.is_word(b"names") || token.is_word(b"schema") || token.is_word(b"xml") => {
                self.unclear_set();
            }
            _ => match self.setting_name(token) {
                Some(name) => match self.lexer.next() {
                    Some(Token::Symbol(b'=')) => self.value(name),
                    Some(to) if to.is_word(b"to") => self.value(name),
                    _ => self.unclear_set(),
                },
                None => self.unclear_set(),
            },
        }
    }

    fn rest_of_local(&mut self) {
        if let Some(first) = self.lexer.next()
            && let Some(name) = self.setting_name(first)
        {
            self.custom(&name);
        }
        self.skip();
    }

    /// A setting with a dot remains known to its connection, even when its value does not.
    fn custom(&mut self, name: &str) {
        if name.contains('.') && self.class.custom_settings.len() < 16 {
            self.class.custom_settings.push(name.into());
        }
    }

    fn unclear_set(&mut self) {
        self.add(Effects::SETTING);
        self.change(Some(Change::Local));
        self.skip();
    }

    fn change(&mut self, change: Option<Change>) {
        match change {
            Some(change) if self.class.changes.len() < 256 => self.class.changes.push(change),
            _ => self.add(Effects::SETTING.and(Effects::HIDDEN)),
        }
    }

    /// `name` or `prefix.name`, as PostgreSQL keeps it. Settings with a prefix are compared
    /// without regard to case too.
    fn setting_name(&mut self, first: Token<'a>) -> Option<Box<str>> {
        let mut name = String::new();
        let mut token = Some(first);
        loop {
            match token {
                Some(Token::Word(word)) => {
                    name.push_str(&std::str::from_utf8(word).ok()?.to_ascii_lowercase());
                }
                Some(Token::Quoted(word)) if !word.contains(&b'"') && !word.contains(&b'.') => {
                    name.push_str(&std::str::from_utf8(word).ok()?.to_ascii_lowercase());
                }
                _ => return None,
            }
            let mut ahead = self.lexer.clone();
            if ahead.next() != Some(Token::Symbol(b'.')) {
                return Some(name.into());
            }
            name.push('.');
            token = ahead.next();
            self.lexer = ahead;
        }
    }

    /// What follows `SET name TO`, up to the end of the statement.
    fn value(&mut self, name: Box<str>) {
        self.custom(&name);
        let from = self.lexer.position();
        let mut to = from;
        let mut default = 0;
        let mut tokens = 0;
        while let Some(token) = self.lexer.next() {
            if token == Token::Symbol(b';') {
                break;
            }
            tokens += 1;
            default += usize::from(token.is_word(b"default") || token.is_word(b"local"));
            to = self.lexer.position();
        }
        let text = std::str::from_utf8(self.sql.get(from..to).unwrap_or(b""));
        let role = matches!(&*name, "role" | "session_authorization" | "seed");
        match text.map(str::trim) {
            _ if role => {
                self.add(if &*name == "seed" { Effects::SEED } else { Effects::ROLE });
                self.change(Some(Change::Local));
            }
            Ok(_) if tokens == 1 && default == 1 => self.change(Some(Change::Reset(name))),
            // A comment in it could swallow what is written behind it.
            Ok(text) if tokens > 0 && text.len() <= 4096 && !text.contains("--") => {
                // SET TRANSACTION's settings are over with the transaction.
                let local = name.starts_with("transaction_");
                let value = SettingValue::Sql(text.into());
                self.change(Some(if local { Change::Local } else { Change::Set(name, value) }));
            }
            _ => self.change(None),
        }
    }
}

/// Whether what follows UPDATE is the view of the settings.
pub(super) fn updates_settings(lexer: Lexer<'_>) -> bool {
    lexer.take(4).any(|token| token.is_word(b"pg_settings"))
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
