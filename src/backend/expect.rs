//! What a connection still owes: one entry for each request that was sent, in order, so that every
//! reply is known to belong to a request, and the end of the last one is known for certain.
//! (<https://www.postgresql.org/docs/current/protocol-flow.html>)

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::statements::Statement;
use crate::proto::backend::tag;
use crate::proto::frontend::tag as request;

/// Requests in flight on one connection; a client that pipelines more is not read until some are
/// answered.
pub const MAX_IN_FLIGHT: usize = 16 << 10;

/// Bytes of statements that the requests in flight may refer to, likewise.
const MAX_HELD: usize = 16 << 20;

/// Bytes of them after which PostgreSQL is asked to send the answers that it has: it keeps them
/// back until its own buffer is full. A quarter, so that this is always on its way before the
/// client is not read any more.
const FLUSH_AFTER: usize = MAX_HELD / 4;

/// A request, by the way it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Query and FunctionCall: ReadyForQuery at the end.
    Query,
    /// Ends an extended batch: ReadyForQuery.
    Sync,
    /// Ours, before the client's first request: all of its replies are kept from the client.
    Apply,
    /// The same, but it may fail: what depends on it will tell.
    Attempt,
    /// A client's Parse that was passed on.
    Parse,
    /// A client's Parse of a statement that the connection has: nothing was sent, and
    /// ParseComplete must be put in at its place.
    ParseCached,
    /// Ours: the connection lacked a statement of the client. ParseComplete is kept back.
    ParseInjected,
    /// Ours: a statement had to make room. CloseComplete is kept back.
    CloseInjected,
    /// Bind.
    Bind,
    /// Describe.
    Describe,
    /// Execute.
    Execute,
    /// A client's Close.
    Close,
    /// CopyDone or CopyFail, sent before the COPY was known to be open. No reply.
    CopyEnd,
    /// Ours, a Describe: what it tells of a statement is not for the client, which is not listened
    /// to until it is answered.
    Look,
    /// Ours, in the place of a request that is refused: a Parse that fails, so that PostgreSQL
    /// treats the rest of the batch as it does after any failure.
    Refused(Refusal),
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There would be too many prepared statements of the session.
    Number,
    /// There would be too many bytes of their texts.
    Bytes,
    /// The statement has other columns than those that the client was told.
    Columns,
}

/// An entry. What the request did to the books can be undone when PostgreSQL skips it.
#[derive(Clone, Debug)]
pub struct Expect {
    /// How it is answered.
    pub kind: Kind,
    /// The client's name of the statement; `None` = the unnamed one, or not concerned. A Close of
    /// the unnamed one has the empty name.
    pub name: Option<Box<[u8]>>,
    /// What the name meant before.
    pub before: Option<Arc<Statement>>,
    /// The statement that the connection gained or lost, or whose columns a Describe will tell.
    pub statement: Option<Arc<Statement>>,
}

impl Expect {
    /// One that concerns a name.
    pub fn named(kind: Kind, name: Box<[u8]>) -> Self {
        Self { name: Some(name), ..kind.into() }
    }

    /// Whether what a client means by this name depends on it.
    pub fn changes(&self, name: &[u8]) -> bool {
        (parses(self.kind) || self.kind == Kind::Close) && self.name.as_deref() == Some(name)
    }

    /// Whether what the unnamed statement is depends on it.
    pub fn changes_unnamed(&self) -> bool {
        match self.kind {
            Kind::Close => self.name.as_deref() == Some(b""),
            kind => parses(kind) && self.name.is_none(),
        }
    }

    /// Whether it depends on it that the connection has this statement.
    pub fn prepares(&self, statement: &Statement) -> bool {
        matches!(self.kind, Kind::Parse | Kind::ParseInjected)
            && self.statement.as_ref().is_some_and(|own| own.hash == statement.hash)
    }

    /// Bytes of statements that it keeps in memory.
    fn holds(&self) -> usize {
        let length = |statement: &Option<Arc<Statement>>| {
            statement.as_ref().map_or(0, |statement| statement.body.len())
        };
        length(&self.before) + length(&self.statement)
    }
}

impl From<Kind> for Expect {
    fn from(kind: Kind) -> Self {
        Self { kind, name: None, before: None, statement: None }
    }
}

/// What to do with a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is the client's.
    Pass,
    /// It answers a request of our own.
    Keep,
}

/// The queue.
#[derive(Debug, Default)]
pub struct Expectations {
    queue: VecDeque<Expect>,
    /// Bytes of statements that its entries keep in memory.
    held: usize,
    /// Those of them that came after the last Flush of ours.
    unflushed: usize,
    /// Those on which it depends what a statement is.
    changing: usize,
    /// ReadyForQuery messages that must still come.
    pending: u32,
    /// Those that came, or will not.
    ended: u64,
    /// The batch that must be over before anything else is sent.
    awaited: u64,
    /// An extended batch failed and its Sync was not sent yet: the server skips what comes.
    skipping: bool,
    /// An extended batch was begun and its Sync was not sent yet: its transaction is open, even
    /// when a Flush has brought every answer.
    unsynced: bool,
    /// The server reads COPY data, and the client has not ended it.
    copying: bool,
    /// Sync messages that went into an open COPY.
    syncs_in_copy: bool,
    /// ParseComplete messages that are due before the next reply.
    owed: u32,
    /// A client asked for a Flush while a ParseComplete of ours was outstanding.
    flush: bool,
    /// The order of replies is not certain any more.
    lost: bool,
    /// A request of our own failed.
    failed: bool,
    /// Requests that PostgreSQL skipped, last first.
    undone: Vec<Expect>,
}

impl Expectations {
    /// Whether every request was answered, and the next one will be looked at.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && !self.skipping
            && !self.unsynced
            && !self.copying
            && !self.lost
            && self.owed == 0
    }

    /// Whether the next request of the client is the first that is not answered.
    pub fn is_between(&self) -> bool {
        let ours = |entry: &Expect| matches!(entry.kind, Kind::Apply | Kind::Attempt);
        !self.unsynced && !self.skipping && !self.copying && self.queue.iter().all(ours)
    }

    /// Whether the next request of the client begins a batch.
    pub fn is_fresh(&self) -> bool {
        !self.unsynced && !self.skipping && !self.copying
    }

    /// Whether something depends on a request of a batch that is not over. What the batch of the
    /// next request itself does is so when PostgreSQL gets there.
    pub fn is_in_doubt(&self, depends: impl Fn(&Expect) -> bool) -> bool {
        // Who sends requests into a COPY gets PostgreSQL's error for it.
        if self.changing == 0 || self.pending == 0 || self.lost || self.copying {
            return false;
        }
        let own = self.queue.iter().rev().take_while(|entry| !ends(entry.kind)).count();
        let earlier = self.queue.len() - own;
        self.queue.range(..earlier).any(&depends) && !self.queue.range(earlier..).any(&depends)
    }

    /// Nothing more is sent before the batches that were sent are over.
    pub fn await_all(&mut self) {
        self.awaited = self.ended + u64::from(self.pending);
    }

    /// A request came to nothing before which the unnamed statement was this one: the next one that
    /// changes it remembers that. Returns whether there is one.
    pub fn remember_unnamed(&mut self, before: Option<&Arc<Statement>>) -> bool {
        let drops = |entry: &&mut Expect| entry.changes_unnamed() || entry.kind == Kind::Query;
        let Some(next) = self.queue.iter_mut().find(drops) else { return false };
        if next.kind != Kind::Query {
            self.held -= next.holds();
            next.before = before.cloned();
            self.held += next.holds();
        }
        true
    }

    /// ReadyForQuery messages that must still come.
    pub fn pending(&self) -> u32 {
        self.pending
    }

    /// Number of the batch that the next request belongs to. A batch is what one ReadyForQuery
    /// ends; numbers ascend.
    pub fn batch(&self) -> u64 {
        self.ended + u64::from(self.pending) + 1
    }

    /// Number of the last batch that is over.
    pub fn last_ended(&self) -> u64 {
        self.ended
    }

    /// Names of statements that are being parsed.
    pub fn coming_names(&self) -> HashSet<Box<[u8]>> {
        let coming = self.queue.iter().filter(|entry| parses(entry.kind));
        coming.filter_map(|entry| entry.name.clone()).collect()
    }

    /// Whether the unnamed statement is being parsed.
    pub fn is_unnamed_coming(&self) -> bool {
        self.queue.iter().any(|entry| parses(entry.kind) && entry.name.is_none())
    }

    /// Statements that are being prepared on the connection.
    pub fn coming_statements(&self) -> impl Iterator<Item = &Arc<Statement>> {
        self.queue.iter().filter_map(|entry| match entry.kind {
            Kind::Parse | Kind::ParseInjected => entry.statement.as_ref(),
            _ => None,
        })
    }

    /// A statement of this name, or of any, is gone: no request in flight that fails brings it
    /// back. Returns whether another one of this name is being parsed.
    pub fn is_gone(&mut self, name: Option<&[u8]>) -> bool {
        let mut seen: HashSet<Box<[u8]>> = HashSet::new();
        let mut comes = false;
        for entry in &mut self.queue {
            let Some(own) = entry.name.as_ref().filter(|own| name.is_none_or(|n| n == &***own))
            else {
                continue;
            };
            if !(parses(entry.kind) || entry.kind == Kind::Close) {
                continue;
            }
            comes |= parses(entry.kind);
            if seen.insert(own.clone()) {
                // The first one alone remembers it; the next ones remember each other's.
                self.held -= entry.before.take().map_or(0, |before| before.body.len());
            }
        }
        comes
    }

    /// From now on it is not certain what the connection owes.
    pub fn lose_track(&mut self) {
        self.lost = true;
    }

    /// Whether it is not certain what the connection owes.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Whether a request of our own failed.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether the server will not look at what is sent before the next Sync.
    pub fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// Whether only one request is in work.
    pub fn is_single(&self) -> bool {
        self.queue.len() <= 1
    }

    /// Whether more requests may be sent.
    pub fn has_room(&self) -> bool {
        let looks = self.queue.back().is_some_and(|entry| entry.kind == Kind::Look);
        let waits = self.ended < self.awaited && !self.lost;
        self.queue.len() < MAX_IN_FLIGHT && self.held < MAX_HELD && !looks && !waits
    }

    /// The statement whose columns the next reply may tell, and whether that is a look of ours.
    #[inline]
    pub fn described(&self) -> Option<(&Arc<Statement>, bool)> {
        let unanswered = |entry: &&Expect| matches!(entry.kind, Kind::ParseCached | Kind::CopyEnd);
        let next = self.queue.iter().find(|entry| !unanswered(entry))?;
        match next.kind {
            Kind::Describe | Kind::Look => {
                Some((next.statement.as_ref()?, next.kind == Kind::Look))
            }
            _ => None,
        }
    }

    /// Whether a Flush of ours has to go before the next request; it is noted as sent.
    pub fn needs_flush(&mut self) -> bool {
        let needs = self.unflushed >= FLUSH_AFTER;
        if needs {
            self.unflushed = 0;
        }
        needs
    }

    /// Notes a message of the given type that is on its way.
    pub fn sent(&mut self, tag: u8) {
        let kind = match tag {
            request::QUERY | request::FUNCTION_CALL => Kind::Query,
            request::SYNC => Kind::Sync,
            request::PARSE => Kind::Parse,
            request::BIND => Kind::Bind,
            request::DESCRIBE => Kind::Describe,
            request::EXECUTE => Kind::Execute,
            request::CLOSE => Kind::Close,
            request::COPY_DONE | request::COPY_FAIL => Kind::CopyEnd,
            request::FLUSH => {
                self.flush |= self.queue.iter().any(|entry| entry.kind == Kind::ParseCached);
                return;
            }
            _ => return,
        };
        self.push(kind.into());
    }

    /// Notes a request that is on its way.
    pub fn push(&mut self, entry: Expect) {
        if self.copying {
            match entry.kind {
                Kind::CopyEnd => self.copying = false,
                // Copy mode ignores it; the client sends another one after the end.
                Kind::Sync => self.syncs_in_copy = true,
                _ => self.lost = true,
            }
            return;
        }
        match entry.kind {
            Kind::CopyEnd if self.queue.is_empty() => return,
            Kind::CopyEnd => {}
            Kind::Sync => (self.skipping, self.unsynced) = (false, false),
            _ if self.skipping => return,
            Kind::Query | Kind::Apply | Kind::Attempt => self.unsynced = false,
            _ => self.unsynced = true,
        }
        self.pending += u32::from(ends(entry.kind));
        self.held += entry.holds();
        self.unflushed += entry.holds();
        self.changing += usize::from(changes(entry.kind));
        self.queue.push_back(entry);
    }

    /// Takes the ParseComplete messages that must stand at this place of the stream.
    #[inline]
    pub fn take_owed(&mut self) -> u32 {
        std::mem::take(&mut self.owed)
    }

    /// After a Flush: those that need not wait for another reply.
    #[inline]
    pub fn flush_owed(&mut self) -> u32 {
        if !self.flush {
            return 0;
        }
        self.come_to_front();
        self.flush = !self.queue.is_empty();
        self.take_owed()
    }

    fn front(&self) -> Option<Kind> {
        self.queue.front().map(|entry| entry.kind)
    }

    fn pop(&mut self) {
        if let Some(entry) = self.queue.pop_front() {
            self.ended(entry.kind);
            self.held -= entry.holds();
            self.changing -= usize::from(changes(entry.kind));
        }
    }

    /// A ReadyForQuery came, or will not.
    fn ended(&mut self, kind: Kind) {
        if ends(kind) {
            self.pending -= 1;
            self.ended += 1;
        }
    }

    /// Entries that no reply will answer make way for the one that the next reply answers.
    #[inline]
    fn come_to_front(&mut self) {
        loop {
            match self.front() {
                Some(Kind::ParseCached) => self.owed += 1,
                Some(Kind::CopyEnd) => {}
                _ => return,
            }
            self.pop();
        }
    }

    /// The requests that PostgreSQL skips after an error, last first.
    #[inline]
    pub fn take_undone(&mut self) -> Vec<Expect> {
        std::mem::take(&mut self.undone)
    }

    /// The name that meant this statement before a request that is not done, or came to nothing.
    pub fn name_before(&self, statement: &Arc<Statement>) -> Option<&[u8]> {
        let meant = |entry: &&Expect| {
            entry.before.as_ref().is_some_and(|before| Arc::ptr_eq(before, statement))
        };
        self.undone.iter().chain(&self.queue).find(meant)?.name.as_deref()
    }

    /// Why the request was refused that the last reply, an error, answers.
    pub fn refused(&self) -> Option<Refusal> {
        match self.undone.last()?.kind {
            Kind::Refused(excess) => Some(excess),
            _ => None,
        }
    }

    /// Whether the next reply answers a request of our own, whatever it is.
    #[inline]
    pub fn is_ours(&self) -> bool {
        matches!(self.front(), Some(Kind::Apply | Kind::Attempt))
    }

    /// Learns from a reply, and says whose it is.
    pub fn saw(&mut self, reply: u8) -> Reply {
        if matches!(reply, tag::NOTIFICATION) {
            return Reply::Pass;
        }
        if self.is_ours() {
            return self.saw_ours(reply);
        }
        if matches!(reply, tag::NOTICE | tag::PARAMETER_STATUS) {
            return Reply::Pass;
        }
        let mut front = self.front();
        if matches!(front, Some(Kind::ParseCached | Kind::CopyEnd)) {
            self.come_to_front();
            front = self.front();
        }
        match (reply, front) {
            (tag::PARSE_COMPLETE, Some(Kind::ParseInjected))
            | (tag::CLOSE_COMPLETE, Some(Kind::CloseInjected)) => {
                self.pop();
                return Reply::Keep;
            }
            (tag::PARAMETER_DESCRIPTION, Some(Kind::Look)) => return Reply::Keep,
            (tag::ROW_DESCRIPTION | tag::NO_DATA, Some(Kind::Look)) => {
                self.pop();
                return Reply::Keep;
            }
            (tag::PARSE_COMPLETE, Some(Kind::Parse))
            | (tag::BIND_COMPLETE, Some(Kind::Bind))
            | (tag::CLOSE_COMPLETE, Some(Kind::Close))
            | (tag::ROW_DESCRIPTION | tag::NO_DATA, Some(Kind::Describe))
            | (tag::EMPTY_QUERY | tag::PORTAL_SUSPENDED, Some(Kind::Execute)) => self.pop(),
            (tag::COMMAND_COMPLETE, front) => {
                self.end_copy();
                if front == Some(Kind::Execute) {
                    self.pop();
                }
            }
            (tag::COPY_IN | tag::COPY_BOTH, _) => self.begin_copy(),
            (tag::ERROR, _) => self.error(),
            (tag::READY_FOR_QUERY, _) => self.ready(),
            _ => {}
        }
        Reply::Pass
    }

    fn saw_ours(&mut self, reply: u8) -> Reply {
        if reply == tag::ERROR {
            self.failed |= self.front() == Some(Kind::Apply);
            let attempt = self.queue.front_mut().filter(|entry| entry.kind == Kind::Attempt);
            let name = attempt.and_then(|entry| entry.name.take());
            self.undone.extend(name.map(|name| Expect::named(Kind::Attempt, name)));
        }
        if reply == tag::READY_FOR_QUERY {
            self.pop();
        }
        Reply::Keep
    }

    fn ready(&mut self) {
        self.end_copy();
        if self.front().is_some_and(ends) {
            self.pop();
            // They were sent to end a COPY that never was.
            while self.front() == Some(Kind::CopyEnd) {
                self.pop();
            }
            return;
        }
        self.lost |= !self.queue.is_empty();
    }

    fn error(&mut self) {
        // Whether the server took such a Sync for the end of the COPY or of the failed batch,
        // only it knows.
        self.lost |= self.copying && self.syncs_in_copy;
        self.end_copy();
        match self.front() {
            None | Some(Kind::Query | Kind::Sync | Kind::Apply | Kind::Attempt) => {}
            Some(_) => {
                let sync = self.queue.iter().position(|entry| entry.kind == Kind::Sync);
                let skipped = sync.unwrap_or(self.queue.len());
                self.skipping = sync.is_none();
                let skipped: Vec<_> = self.queue.drain(..skipped).collect();
                for entry in skipped.into_iter().rev() {
                    // A Query in a failed batch is skipped too.
                    self.ended(entry.kind);
                    self.held -= entry.holds();
                    self.changing -= usize::from(changes(entry.kind));
                    self.undone.push(entry);
                }
                if let Some(failed) =
                    self.undone.last_mut().filter(|own| own.name.is_none() && parses(own.kind))
                {
                    // PostgreSQL drops it before it reads the next one (`exec_parse_message`).
                    failed.before = None;
                }
            }
        }
    }

    /// The server reads COPY data now: what the client sent before it knew is read as such.
    fn begin_copy(&mut self) {
        let mut at = 1;
        self.copying = true;
        self.awaited = 0;
        while let Some(kind) = self.queue.get(at).map(|entry| entry.kind) {
            match kind {
                Kind::CopyEnd => {
                    self.queue.remove(at);
                    self.copying = false;
                    return;
                }
                Kind::Sync => {
                    self.queue.remove(at);
                    self.ended(Kind::Sync);
                }
                _ => {
                    self.lost = true;
                    at += 1;
                }
            }
        }
    }

    fn end_copy(&mut self) {
        self.copying = false;
        self.syncs_in_copy = false;
    }
}

/// Whether a client's statement gets its name by it.
fn parses(kind: Kind) -> bool {
    matches!(kind, Kind::Parse | Kind::ParseCached)
}

/// Whether it depends on it what a statement is, or whether the connection has one.
fn changes(kind: Kind) -> bool {
    parses(kind) || matches!(kind, Kind::Close | Kind::ParseInjected)
}

fn ends(kind: Kind) -> bool {
    matches!(kind, Kind::Query | Kind::Sync | Kind::Apply | Kind::Attempt)
}

#[cfg(test)]
#[path = "expect_tests.rs"]
mod tests;
