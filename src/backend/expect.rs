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
    /// The client's name of the statement; `None` = the unnamed one, or not concerned.
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
    /// ReadyForQuery messages that must still come.
    pending: u32,
    /// Those that came, or will not.
    ended: u64,
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
        self.queue.len() < MAX_IN_FLIGHT && self.held < MAX_HELD && !looks
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
            return self.pop();
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
                    self.undone.push(entry);
                }
            }
        }
    }

    /// The server reads COPY data now: what the client sent before it knew is read as such.
    fn begin_copy(&mut self) {
        let mut at = 1;
        self.copying = true;
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

fn ends(kind: Kind) -> bool {
    matches!(kind, Kind::Query | Kind::Sync | Kind::Apply | Kind::Attempt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::World;

    fn statement(body: Box<[u8]>) -> Arc<Statement> {
        let world = World { context: 0, version: 0, definitions: 0 };
        Arc::new(Statement::new(body, 0, world, crate::query::Class::default()))
    }

    /// Runs a script: `>x` sends, `<x` receives, `+x` sends one of ours: `p` Parse that the
    /// connection has, `i` injected Parse, `l` Look, `a` Apply. Returns what the client gets.
    fn run(script: &str) -> (String, Expectations, usize) {
        let (mut queue, mut client, mut undone) = (Expectations::default(), String::new(), 0);
        let owed = |n: u32, client: &mut String| client.push_str(&"1".repeat(n as usize));
        for step in script.split_whitespace() {
            let (direction, tag) = step.split_at(1);
            let tag = tag.as_bytes()[0];
            match direction {
                ">" => {
                    queue.sent(tag);
                    owed(queue.flush_owed(), &mut client);
                }
                "+" => queue.push(
                    match tag {
                        b'p' => Kind::ParseCached,
                        b'i' => Kind::ParseInjected,
                        b'l' => Kind::Look,
                        _ => Kind::Apply,
                    }
                    .into(),
                ),
                _ => {
                    let reply = queue.saw(tag);
                    undone += queue.take_undone().len();
                    owed(queue.take_owed(), &mut client);
                    if reply == Reply::Pass {
                        client.push(char::from(tag));
                    }
                    owed(queue.flush_owed(), &mut client);
                }
            }
        }
        (client, queue, undone)
    }

    #[test]
    fn replies_find_their_requests() {
        for (script, client, idle) in [
            (">Q <T <D <C <Z", "TDCZ", true),
            (">Q >Q <C <Z", "CZ", false),
            ("+p >B >D >E >S <2 <T <D <C <Z", "12TDCZ", true),
            ("+p >B >E +p >B >E >S <2 <C <2 <C <Z", "12C12CZ", true),
            ("+i >B >E >S <1 <2 <C <Z", "2CZ", true),
            ("+i +l <1 <t <T >B >E >S <2 <C <Z", "2CZ", true),
            ("+p +i +l <1 <t <n >B >E >S <2 <C <Z", "12CZ", true),
            ("+i +l <E >S <Z", "EZ", true),
            ("+p >H", "1", false),
            (">B +p >H <2", "21", false),
            (">P >B >E >H <1 <2 <C", "12C", false),
            (">P >B >E >H <1 <2 <C >S <Z", "12CZ", true),
            (">H", "", true),
            ("+p >S <Z", "1Z", true),
            (">P >B >E >S <E <Z", "EZ", true),
            (">P >B >E <E", "E", false),
            (">P >B >E <E >B >E >Q >S <Z", "EZ", true),
            (">P >B >Q >S <E <Z", "EZ", true),
            ("+p >B >E >S >B >E >S <2 <E <Z <2 <C <Z", "12EZ2CZ", true),
            ("+a >Q <S <C <Z <T <C <Z", "TCZ", true),
            ("+a >Q <A <N <Z <C <Z", "ACZ", true),
            (">Q <N <S <A <C <Z <A", "NSACZA", true),
            // COPY: a Sync that was sent together with the COPY goes into it.
            (">P >B >E >S <1 <2 <G >d >c >S <C <Z", "12GCZ", true),
            (">P >B >E >d >c >S <1 <2 <G <C <Z", "12GCZ", true),
            (">Q <G >d >c <C <Z", "GCZ", true),
            (">Q >d >c >Q <G <C <Z <C <Z", "GCZCZ", true),
            (">Q <G >d <E <Z >d >c", "GEZ", true),
            (">P >B >E >S <1 <2 <G >d <E >c >S <Z", "12GEZ", true),
            (">Q <G >Q <E <Z", "GEZ", false),
            (">E >S <s <Z", "sZ", true),
            (">P >Q <1 <C <Z", "1CZ", true),
        ] {
            let (got, queue, _) = run(script);
            assert_eq!((&*got, queue.is_idle()), (client, idle), "{script}: {queue:?}");
        }
    }

    #[test]
    fn what_is_skipped_is_undone() {
        assert_eq!(run(">P >B +p >B >E >S <1 <E").2, 4);
        assert_eq!(run(">Q >P <E <Z").2, 0);
        assert!(run("+a >Q <E <Z").1.has_failed());
    }

    #[test]
    fn batches_are_numbered_by_the_readyforquery_that_ends_them() {
        // What is sent, the batch of the next request, the last one that is over.
        for (script, next, over) in [
            ("", 1, 0),
            (">Q", 2, 0),
            (">P >B >E", 1, 0),
            (">P >B >E >S >Q", 3, 0),
            (">P >B >E >S >Q <1 <2 <C <Z", 3, 1),
            ("+a >Q <C <Z <E <Z", 3, 2),
            // A Query in a batch that failed is never answered.
            (">P >Q >P >S >Q <E", 4, 1),
            (">P >Q >P >S >Q <E <Z <C <Z", 4, 3),
            (">P >B >E >S <1 <2 <G >d >c >S <C <Z", 3, 2),
        ] {
            let (_, queue, _) = run(script);
            assert_eq!((queue.batch(), queue.last_ended()), (next, over), "{script}: {queue:?}");
        }
    }

    #[test]
    fn a_statement_that_is_gone_does_not_come_back_with_a_failure() {
        let old = statement((*b"x").into());
        let entry = |kind, name: &[u8]| Expect {
            before: Some(old.clone()),
            ..Expect::named(kind, name.into())
        };
        let mut queue = Expectations::default();
        queue.sent(request::QUERY);
        queue.push(entry(Kind::Close, b"a"));
        queue.push(entry(Kind::Parse, b"b"));
        queue.push(entry(Kind::ParseCached, b"b"));
        queue.push(entry(Kind::ParseInjected, b"c"));
        let names = [(*b"b").into()].into_iter().collect();
        assert_eq!((queue.coming_names(), queue.is_unnamed_coming()), (names, false));
        assert!(!queue.is_gone(Some(b"a")) && queue.is_gone(Some(b"b")) && queue.is_gone(None));
        queue.saw(tag::COMMAND_COMPLETE);
        queue.saw(tag::READY_FOR_QUERY);
        queue.saw(tag::ERROR);
        let undone = queue.take_undone();
        let kept: Vec<_> = undone.iter().rev().map(|entry| entry.before.is_some()).collect();
        assert_eq!((kept, queue.held), (vec![false, false, true, true], 0));
    }

    #[test]
    fn an_attempt_that_fails_says_whose_it_was() {
        let mut queue = Expectations::default();
        queue.push(Expect::named(Kind::Attempt, (*b"p").into()));
        queue.sent(request::QUERY);
        assert_eq!(queue.saw(tag::ERROR), Reply::Keep);
        let undone = queue.take_undone();
        assert_eq!((undone.len(), undone[0].name.as_deref()), (1, Some(&b"p"[..])));
        assert!(!queue.has_failed());
    }

    #[test]
    fn a_refusal_is_known_by_its_error() {
        let mut queue = Expectations::default();
        queue.sent(request::BIND);
        queue.push(Kind::Refused(Refusal::Number).into());
        queue.sent(request::EXECUTE);
        queue.sent(request::SYNC);
        queue.saw(tag::BIND_COMPLETE);
        assert_eq!(queue.refused(), None);
        queue.saw(tag::ERROR);
        assert_eq!(queue.refused(), Some(Refusal::Number));
        assert_eq!(queue.take_undone().len(), 2);
        queue.saw(tag::READY_FOR_QUERY);
        assert!(queue.is_idle() && queue.refused().is_none());
        // The error of an earlier request is not the refusal's.
        queue.sent(request::BIND);
        queue.push(Kind::Refused(Refusal::Bytes).into());
        queue.saw(tag::ERROR);
        assert_eq!(queue.refused(), None);
    }

    #[test]
    fn long_statements_are_bounded_and_their_answers_asked_for() {
        let long = statement(vec![b'x'; 1 << 20].into());
        let entry = || Expect { before: Some(long.clone()), ..Kind::Parse.into() };
        let (mut queue, mut flushes) = (Expectations::default(), 0);
        while queue.has_room() {
            flushes += usize::from(queue.needs_flush());
            queue.push(entry());
        }
        assert_eq!((queue.queue.len(), flushes), (16, 3));
        // Each Flush brings the answers to what came before it.
        (0..12).for_each(|_| assert_eq!(queue.saw(tag::PARSE_COMPLETE), Reply::Pass));
        assert!(queue.has_room() && queue.needs_flush());
        queue.saw(tag::ERROR);
        assert_eq!((queue.take_undone().len(), queue.held), (4, 0));
        assert_eq!(entry().holds(), 1 << 20);
    }

    #[test]
    fn nothing_follows_a_look() {
        let mut queue = Expectations::default();
        queue.push(Kind::ParseInjected.into());
        queue.push(Kind::Look.into());
        queue.saw(tag::PARSE_COMPLETE);
        assert!(!queue.has_room());
        queue.saw(tag::NO_DATA);
        assert!(queue.has_room());
        queue.push(Kind::Look.into());
        queue.saw(tag::ERROR);
        assert!(queue.has_room() && queue.is_skipping());
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut queue = Expectations::default();
        (0..MAX_IN_FLIGHT).for_each(|_| queue.sent(request::SYNC));
        assert!(!queue.has_room());
    }
}
