//! A client's requests on their way: names of prepared statements are those of the connection,
//! and a statement that the connection lacks is prepared just before it is needed.

use std::ffi::CStr;
use std::hash::BuildHasher;
use std::sync::Arc;

use super::{MAX_STATEMENTS, Mux};
use crate::backend::{ConnState, Expect, Kind, Refusal, ServerName, Statement, World};
use crate::config::PoolingMode;
use crate::error::{Error, ErrorKind};
use crate::proto::Cursor;
use crate::proto::backend::TxStatus;
use crate::proto::frame::{FrameBuf, HEADER, Want};
use crate::proto::frontend::{self, put_close, put_flush, put_parse, put_sync, tag};
use crate::query::{Class, Effects, Reference, changes_database, classify_again, custom_name};

/// Longest statement that is read. A longer one is passed on unread, and the session keeps its
/// connection.
const LONGEST_TEXT: usize = 1 << 20;

/// Bytes of Bind, Describe and Close that hold the names.
const LONGEST_NAMES: usize = 4 << 10;

/// PostgreSQL tells names apart by this many bytes (`NAMEDATALEN` − 1).
const NAME_BYTES: usize = 63;

/// Functions of the fast-path interface that do nothing to the session: large objects.
const LARGE_OBJECTS: [u32; 13] =
    [715, 764, 765, 952, 953, 954, 955, 956, 957, 958, 964, 1004, 3170];

/// State that makes the same text mean something else in another session.
const OWN_WORLD: Effects = Effects::TEMP
    .and(Effects::UNCLEAR)
    .and(Effects::HIDDEN)
    .and(Effects::SETTING)
    .and(Effects::ROLE);

/// What refers to prepared statements by the client's own names.
const REFERS: Effects = Effects::PREPARE.and(Effects::EXECUTES).and(Effects::LISTS_STATEMENTS);

/// A statement that PostgreSQL refuses, and its name, under which none will ever be.
const REFUSED: (&[u8], &[u8]) = (b"rdb_refused", b"rdb: too many prepared statements\0\0\0");

/// A request that ends its session.
pub struct Refused(pub Error);

/// When a message can be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goes {
    /// At once.
    Now,
    /// When PostgreSQL has answered what was sent before it.
    Later,
}

/// The scanner's rule for requests that are looked at.
pub fn rule(tag: u8) -> (Want, usize) {
    let (_, longest) = frontend::session_rule(tag);
    match looked_at(tag) {
        0 => (Want::Header, longest),
        most => (Want::Prefix(most), longest),
    }
}

/// How much of a request's body is looked at.
fn looked_at(tag: u8) -> usize {
    match tag {
        tag::QUERY | tag::PARSE => LONGEST_TEXT,
        tag::BIND | tag::DESCRIBE | tag::CLOSE => LONGEST_NAMES,
        tag::FUNCTION_CALL => 4,
        _ => 0,
    }
}

/// A message at the beginning of the bytes that are not understood yet.
pub(super) struct Message<'a> {
    buf: &'a mut FrameBuf,
    /// Length of the body, as far as it is looked at; the rest passes.
    body: usize,
    /// Length of the whole body.
    whole: usize,
}

impl Message<'_> {
    fn body(&self) -> &[u8] {
        let bytes = self.buf.unscanned();
        &bytes[HEADER..bytes.len().min(HEADER + self.body)]
    }

    /// Whole messages that go before this one.
    pub(super) fn put_before(&mut self, bytes: &[u8]) {
        self.buf.splice(0, 0, bytes);
        self.buf.mark_scanned(bytes.len());
    }

    /// Replaces `old` bytes of the body.
    fn rename(&mut self, at: usize, old: usize, new: &[u8]) {
        self.buf.splice(HEADER + at, old, new);
        self.body = self.body - old + new.len();
        self.whole = self.whole - old + new.len();
        let length = u32::try_from(self.whole + 4).unwrap_or(u32::MAX);
        self.buf.overwrite(1, &length.to_be_bytes());
    }

    /// Takes it out.
    fn remove(self) {
        self.buf.splice(0, HEADER + self.body, b"");
    }

    /// Lets it pass.
    fn pass(self) {
        self.buf.mark_scanned(HEADER + self.body);
    }
}

fn cstr(bytes: &[u8]) -> Option<&[u8]> {
    CStr::from_bytes_until_nul(bytes).ok().map(CStr::to_bytes)
}

/// What a message means depends on a batch that is not over: it may fail.
fn later(conn: &mut ConnState) -> Goes {
    conn.expect.await_all();
    Goes::Later
}

/// The values of a Bind, whose names were taken off, as far as they are there.
fn values(bind: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut cursor = Cursor(bind);
    let formats = cursor.i16().map_or(0, |n| usize::from(n as u16));
    let skipped = cursor.take(2 * formats).and_then(|_| cursor.i16());
    let count = skipped.map_or(0, |n| n as u16);
    (0..count).map_while(move |_| match usize::try_from(cursor.i32().ok()?) {
        Ok(length) => cursor.take(length).ok(),
        Err(_) => Some(&[][..]),
    })
}

/// The name by which a statement is remembered.
fn key(name: &[u8]) -> &[u8] {
    &name[..name.len().min(NAME_BYTES)]
}

impl Mux {
    /// Looks at the request at the beginning of `buf`, which is there whole or as far as [`rule`]
    /// wants it, and lets it pass, changed where necessary. `idle` closes idle connections.
    /// Returns how many bytes of its body were taken; `None` = it has to wait for PostgreSQL.
    pub fn outgoing(
        &mut self,
        conn: &mut ConnState,
        buf: &mut FrameBuf,
        tag: u8,
        whole: usize,
        idle: &mut dyn FnMut(),
    ) -> Result<Option<usize>, Refused> {
        let seen = buf.unscanned().len().saturating_sub(HEADER).min(whole);
        let longest = looked_at(tag);
        let long = whole > longest && longest > 0;
        let body = if long { seen.min(longest) } else { whole.min(seen) };
        let mut message = Message { buf, body, whole };
        if conn.expect.is_skipping() && tag != tag::SYNC {
            message.pass();
            return Ok(Some(body));
        }
        if conn.expect.needs_flush() {
            let mut flush = Vec::new();
            put_flush(&mut flush);
            message.put_before(&flush);
        }
        self.refresh_names();
        match tag {
            tag::QUERY => {
                if self.query(conn, message, long, idle)? == Goes::Later {
                    return Ok(None);
                }
            }
            tag::PARSE => {
                if self.parse(conn, message, long, idle)? == Goes::Later {
                    return Ok(None);
                }
            }
            tag::BIND => {
                if self.bind(conn, &mut message) == Goes::Later {
                    return Ok(None);
                }
                conn.expect.sent(tag);
                message.pass();
            }
            tag::DESCRIBE => {
                let statement = self.undescribed(message.body());
                let name = message.body().strip_prefix(b"S").and_then(cstr).map(<[u8]>::len);
                if let Some(length) = name
                    && self.refer(conn, &mut message, 1, length, false) == Goes::Later
                {
                    return Ok(None);
                }
                conn.expect.push(Expect { statement, ..Kind::Describe.into() });
                message.pass();
            }
            tag::CLOSE => {
                if self.close(conn, message) == Goes::Later {
                    return Ok(None);
                }
            }
            tag::FUNCTION_CALL => {
                let oid = message.body().first_chunk().map_or(0, |b| u32::from_be_bytes(*b));
                if !LARGE_OBJECTS.contains(&oid) {
                    self.batch.add(Effects::UNCLEAR.and(Effects::SEQUENCE));
                }
                conn.expect.sent(tag);
                message.pass();
            }
            _ => {
                if whole > 0 && matches!(tag, tag::SYNC | tag::FLUSH) {
                    // PostgreSQL refuses them, and passes over what follows as after other errors.
                    conn.expect.lose_track();
                }
                conn.expect.sent(tag);
                message.pass();
            }
        }
        Ok(Some(body))
    }

    fn query(
        &mut self,
        conn: &mut ConnState,
        mut message: Message<'_>,
        long: bool,
        idle: &mut dyn FnMut(),
    ) -> Result<Goes, Refused> {
        let class = if long {
            let effects = Effects::UNCLEAR.and(Effects::SEQUENCE);
            Class { effects, ..Class::default() }
        } else {
            // A NUL before the last byte, and PostgreSQL refuses the message.
            let body = message.body();
            self.read(body.strip_suffix(&[0]).unwrap_or(body), idle)?
        };
        if self.waits(conn, &class) {
            return Ok(later(conn));
        }
        self.unnamed = None;
        if let Some(excess) = self.named.excess_of_sql(&class, message.whole) {
            Self::put_refusal(conn, &mut message, excess);
            let mut sync = Vec::new();
            put_sync(&mut sync);
            message.put_before(&sync);
            conn.expect.sent(tag::SYNC);
            message.remove();
            return Ok(Goes::Now);
        }
        conn.unnamed = None;
        self.refer_by_name(conn, &mut message, &class);
        self.note(&class, message.whole, conn);
        conn.expect.sent(tag::QUERY);
        message.pass();
        Ok(Goes::Now)
    }

    /// Reads a text.
    fn read(&self, text: &[u8], idle: &mut dyn FnMut()) -> Result<Class, Refused> {
        let class = classify_again(text, &self.names);
        self.refuse_transactions(&class)?;
        if class.effects.has(Effects::DDL) && changes_database(text) {
            idle();
        }
        Ok(class)
    }

    /// Has PostgreSQL fail where a request would prepare too much: it ends the transaction, and
    /// passes over what comes up to the Sync, as after any other failure. The error that it reports
    /// is replaced on its way back.
    fn put_refusal(conn: &mut ConnState, message: &mut Message<'_>, excess: Refusal) {
        let (name, body) = REFUSED;
        let mut batch = Vec::new();
        put_parse(&mut batch, name, body);
        conn.expect.push(Kind::Refused(excess).into());
        message.put_before(&batch);
    }

    fn refuse_transactions(&self, class: &Class) -> Result<(), Refused> {
        if self.mode == PoolingMode::Statement && class.effects.has(Effects::BEGIN) {
            let text = "transactions of several statements are not possible: this connection is \
                        pooled by statement";
            return Err(Refused(
                Error::new(ErrorKind::NotSupported, text)
                    .with_hint("pool.pooling_mode = \"transaction\" allows them"),
            ));
        }
        Ok(())
    }

    fn parse(
        &mut self,
        conn: &mut ConnState,
        mut message: Message<'_>,
        long: bool,
        idle: &mut dyn FnMut(),
    ) -> Result<Goes, Refused> {
        let Some(name_length) = cstr(message.body()).map(<[u8]>::len).filter(|_| !long) else {
            // It stays where it is, under its own name, and so does the session.
            self.batch.add(Effects::HIDDEN.and(Effects::SEQUENCE));
            self.unnamed = None;
            conn.unnamed = None;
            if let Some(name) = cstr(message.body()).filter(|name| !name.is_empty()) {
                self.named.remove(key(name));
                self.own.remove(key(name));
            }
            conn.expect.sent(tag::PARSE);
            message.pass();
            return Ok(Goes::Now);
        };
        let body = &message.body()[name_length + 1..];
        let name: Option<Box<[u8]>> =
            (name_length > 0).then(|| key(&message.body()[..name_length]).into());
        if let Some(name) = &name
            && (conn.expect.is_in_doubt(|entry| entry.changes(name)) || self.may_go(conn, name))
        {
            return Ok(later(conn));
        }
        let excess = name.as_ref().and_then(|name| self.named.excess(name, body.len()));
        if let Some(excess) = excess {
            Self::put_refusal(conn, &mut message, excess);
            message.remove();
            return Ok(Goes::Now);
        }
        let context = self.context();
        if let Some(context) = context
            && conn.tx != TxStatus::Failed
            && name.as_ref().is_none_or(|name| !self.native && !self.named.contains(name))
        {
            let hash = self.hash(body, context);
            if let Some(statement) = conn.statements.find(hash, body, context) {
                if conn.expect.is_in_doubt(|entry| entry.prepares(&statement)) {
                    return Ok(later(conn));
                }
                if conn.tx == TxStatus::Open && conn.expect.pending() > 0 {
                    // The transaction may have failed; then PostgreSQL refuses this, too.
                    message.rename(0, name_length, b"");
                    conn.unnamed = Some(statement.clone());
                    let entry = self.remember(Kind::Parse, name, statement, None);
                    conn.expect.push(entry);
                    message.pass();
                    return Ok(Goes::Now);
                }
                let entry = self.remember(Kind::ParseCached, name, statement, None);
                conn.expect.push(entry);
                message.remove();
                return Ok(Goes::Now);
            }
        }
        let class = self.read(cstr(body).unwrap_or(body), idle)?;
        if self.waits(conn, &class) {
            return Ok(later(conn));
        }
        let body: Box<[u8]> = body.into();
        // Before the batch begins, while a failure of ours does no harm.
        self.refer_by_name(conn, &mut message, &class);
        let raw = name.is_none()
            && (context.is_none()
                || !class.timeless
                || class.effects.has(Effects::LISTS_STATEMENTS));
        let context = match context {
            Some(context) if class.timeless => context,
            _ => self.unique_context(),
        };
        let hash = self.hash(&body, context);
        let definitions = self.database.definitions();
        let world = World { context, version: self.version, definitions };
        let mut statement = Statement::new(body, hash, world, class);
        statement.raw = raw;
        let statement = Arc::new(statement);
        self.place(conn, &mut message, name, name_length, statement);
        message.pass();
        Ok(Goes::Now)
    }

    /// Sends a Parse on under the name that suits.
    fn place(
        &mut self,
        conn: &mut ConnState,
        message: &mut Message<'_>,
        name: Option<Box<[u8]>>,
        name_length: usize,
        statement: Arc<Statement>,
    ) {
        let duplicate = name.as_ref().is_some_and(|name| self.named.contains(name));
        let lists = statement.class.effects.has(Effects::LISTS_STATEMENTS);
        let native = (self.native || lists) && name.is_some();
        let gained = if statement.raw {
            conn.unnamed = Some(statement.clone());
            None
        } else if native && (!duplicate || self.own.contains(name.as_deref().unwrap_or(b""))) {
            self.own.extend(name.clone());
            None
        } else if duplicate {
            // PostgreSQL itself must find the name taken.
            let mut batch = Vec::new();
            put_close(&mut batch, name.as_deref().unwrap_or_default());
            conn.expect.push(Kind::CloseInjected.into());
            put_parse(&mut batch, name.as_deref().unwrap_or_default(), b"\0\0\0");
            conn.expect.push(Kind::ParseInjected.into());
            conn.leftovers.extend(name.clone());
            message.put_before(&batch);
            let entry = Expect {
                before: name.as_ref().and_then(|name| self.named.get(name).cloned()),
                name,
                ..Kind::Parse.into()
            };
            return conn.expect.push(entry);
        } else if conn.tx == TxStatus::Failed {
            // It is refused, or ends the transaction; either way it stays out of the cache.
            message.rename(0, name_length, b"");
            conn.unnamed = Some(statement.clone());
            None
        } else {
            self.make_room(conn, message, &statement);
            let server_name = conn.statements.insert(statement.clone());
            message.rename(0, name_length, server_name.as_bytes());
            Some(statement.clone())
        };
        let entry = self.remember(Kind::Parse, name, statement, gained);
        conn.expect.push(entry);
        if self.named.len() > MAX_STATEMENTS {
            self.batch.add(Effects::HIDDEN);
        }
    }

    fn remember(
        &mut self,
        kind: Kind,
        name: Option<Box<[u8]>>,
        statement: Arc<Statement>,
        gained: Option<Arc<Statement>>,
    ) -> Expect {
        let before = match &name {
            Some(name) => self.named.insert(name.clone(), statement),
            None => self.unnamed.replace(statement),
        };
        Expect { kind, name, before, statement: gained }
    }

    fn make_room(&mut self, conn: &mut ConnState, message: &mut Message<'_>, newcomer: &Statement) {
        while let Some((_, name)) = conn.statements.evict(self.cache_size, newcomer) {
            let mut batch = Vec::new();
            put_close(&mut batch, name.as_bytes());
            let entry = Expect { name: Some(name.as_bytes().into()), ..Kind::CloseInjected.into() };
            conn.expect.push(entry);
            message.put_before(&batch);
        }
    }

    /// What a text's meaning depends on beside itself; `None` = it is this session's alone.
    fn context(&self) -> Option<u64> {
        let own = self.pins.and(self.batch).has(OWN_WORLD)
            || !self.journal.is_empty()
            || !self.pending.is_empty();
        let world = self.database.definitions().rotate_left(32) ^ self.version;
        (!own).then(|| self.settings.fingerprint() ^ world.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn unique_context(&mut self) -> u64 {
        self.unique += 1;
        self.hasher.hash_one((self.unique, self.pid))
    }

    fn hash(&self, body: &[u8], context: u64) -> u64 {
        self.hasher.hash_one((body, context))
    }

    fn bind(&mut self, conn: &mut ConnState, message: &mut Message<'_>) -> Goes {
        let body = message.body();
        let names = cstr(body).and_then(|portal| Some((portal, cstr(&body[portal.len() + 1..])?)));
        let Some((portal, name)) = names else {
            // They are longer than any sensible ones.
            self.batch.add(Effects::UNCLEAR.and(Effects::HIDDEN));
            return Goes::Now;
        };
        let (portal, name) = (portal.len(), name.len());
        self.refer(conn, message, portal + 1, name, true)
    }

    /// The statement that the client means by a name.
    pub(super) fn statement(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        self.named.get(key(name))
    }

    /// Makes a message refer to a statement by the name that the connection has for it.
    fn refer(
        &mut self,
        conn: &mut ConnState,
        message: &mut Message<'_>,
        at: usize,
        length: usize,
        runs: bool,
    ) -> Goes {
        let name = &message.body()[at..at + length];
        let is_doubtful = match length {
            0 => conn.expect.is_in_doubt(Expect::changes_unnamed),
            _ => {
                conn.expect.is_in_doubt(|entry| entry.changes(key(name)))
                    || self.may_go(conn, key(name))
            }
        };
        if is_doubtful {
            return later(conn);
        }
        let known = if length == 0 { self.unnamed.clone() } else { self.statement(name).cloned() };
        // One that this batch takes away is gone, or the batch has failed.
        let is_own = length > 0
            && (self.is_own(key(name))
                || self.own.contains(key(name)) && self.takes_away == conn.expect.batch());
        let Some(statement) = known else {
            if length == 0 && conn.unnamed.take().is_some() {
                // It is somebody else's; PostgreSQL must find none.
                let mut batch = Vec::new();
                put_close(&mut batch, b"");
                conn.expect.push(Kind::CloseInjected.into());
                message.put_before(&batch);
            }
            return Goes::Now;
        };
        self.looked_up(&statement);
        if runs {
            if at == 1 {
                self.bound(&statement);
            }
            if statement.class.may_set() {
                values(&message.body()[at + length + 1..])
                    .filter_map(custom_name)
                    .for_each(|name| self.mention(name));
            }
        }
        if runs && self.waits(conn, &statement.class)
            || !is_own && conn.expect.is_in_doubt(|entry| entry.prepares(&statement))
        {
            return later(conn);
        }
        if !is_own && !statement.raw {
            if self.looks_first(conn, message, &statement) {
                return Goes::Later;
            }
            if self.has_changed(&statement) {
                Self::put_refusal(conn, message, Refusal::Columns);
                return Goes::Now;
            }
        }
        if runs && !self.note_use(conn, message, &statement) || is_own {
            return Goes::Now;
        }
        if statement.raw {
            let there = conn.unnamed.as_ref().is_some_and(|there| Arc::ptr_eq(there, &statement));
            if !there {
                let mut batch = Vec::new();
                put_parse(&mut batch, b"", &statement.body);
                conn.expect.push(Kind::ParseInjected.into());
                message.put_before(&batch);
                conn.unnamed = Some(statement);
            }
            return Goes::Now;
        }
        let known = if runs && length > 0 { conn.statements.name_to_run(&statement) } else { None };
        let server_name = known.unwrap_or_else(|| self.ensure(conn, message, &statement));
        message.rename(at, length, server_name.as_bytes());
        Goes::Now
    }

    /// Makes sure that the connection has a statement.
    pub(super) fn ensure(
        &mut self,
        conn: &mut ConnState,
        message: &mut Message<'_>,
        statement: &Arc<Statement>,
    ) -> ServerName {
        if let Some(name) = conn.statements.name_of(statement) {
            return name;
        }
        self.make_room(conn, message, statement);
        let name = conn.statements.insert(statement.clone());
        let mut batch = Vec::new();
        put_parse(&mut batch, name.as_bytes(), &statement.body);
        let entry = Expect { statement: Some(statement.clone()), ..Kind::ParseInjected.into() };
        conn.expect.push(entry);
        message.put_before(&batch);
        name
    }

    /// What running a prepared statement will have done; false = it is refused.
    fn note_use(
        &mut self,
        conn: &mut ConnState,
        message: &mut Message<'_>,
        statement: &Arc<Statement>,
    ) -> bool {
        let class = &statement.class;
        let bytes = statement.body.len();
        if let Some(excess) = self.named.excess_of_sql(class, bytes) {
            Self::put_refusal(conn, message, excess);
            return false;
        }
        self.refer_by_name(conn, message, class);
        let is_quiet = |class: &Class| class.effects.is_none() && class.changes.is_empty();
        if statement.world.version == self.version {
            if !is_quiet(class) {
                self.note(class, bytes, conn);
            }
        } else if !statement.is_quiet(self.version) {
            let text = cstr(&statement.body).unwrap_or(&statement.body);
            let class = classify_again(text, &self.names);
            match is_quiet(&class) {
                true => statement.set_quiet(self.version),
                false => self.note(&class, bytes, conn),
            }
        }
        true
    }

    /// Whether an earlier batch takes a statement away, perhaps.
    fn may_go(&self, conn: &ConnState, name: &[u8]) -> bool {
        self.takes_away > 0
            && self.takes_away < conn.expect.batch()
            && conn.expect.pending() > 0
            && self.named.contains(name)
            && !self.is_own(name)
    }

    /// Whether SQL must wait for the batches that were sent: the statements that it refers to have
    /// to be prepared before it, and only between two batches a failure of ours does no harm.
    fn waits(&self, conn: &ConnState, class: &Class) -> bool {
        let is_first = conn.expect.pending() == 0 || conn.expect.is_between();
        if !class.effects.has(REFERS) || !conn.expect.is_fresh() || is_first {
            return false;
        }
        let is_ours = |reference: &Reference| {
            let name = reference.name().as_bytes();
            let is_there = self.named.contains(name) && !self.is_own(name);
            is_there || conn.expect.is_in_doubt(|entry| entry.changes(name))
        };
        class.effects.has(Effects::LISTS_STATEMENTS) || class.refers_to.iter().any(is_ours)
    }

    /// Prepares for SQL that refers to prepared statements by the client's names.
    fn refer_by_name(&mut self, conn: &mut ConnState, message: &mut Message<'_>, class: &Class) {
        let lists = class.effects.has(Effects::LISTS_STATEMENTS);
        if conn.tx == TxStatus::Failed {
            // Nothing can be prepared; a ROLLBACK may stand before what lists them.
            if lists {
                let batch = Self::without_ours(conn).send(conn);
                message.put_before(&batch);
            }
        } else if class.effects.has(REFERS) {
            let batch = self.under_own_names(conn, class).send(conn);
            message.put_before(&batch);
            self.stand_ins_go_with(conn.expect.batch());
        }
    }

    /// The connection has no statement by that name, which is no error: PostgreSQL answers.
    fn close(&mut self, conn: &mut ConnState, message: Message<'_>) -> Goes {
        let body = message.body();
        let name = match body.split_first() {
            Some((b'S', name)) => cstr(name),
            _ => None,
        };
        if let Some(name) = name
            && conn.expect.is_in_doubt(|entry| entry.changes(key(name)))
        {
            return later(conn);
        }
        let mut entry = Expect::from(Kind::Close);
        match name {
            Some(b"") => {
                entry.before = self.unnamed.take();
                entry.name = Some(Box::default());
            }
            Some(name) => {
                // One that was prepared with SQL must not be carried along any more.
                self.probe_due |= self.carried.iter().any(|one| *one.name == *key(name));
                self.own.remove(key(name));
                entry.before = self.named.remove(key(name));
                entry.name = Some(key(name).into());
            }
            None => {}
        }
        conn.expect.push(entry);
        message.pass();
        Goes::Now
    }
}
