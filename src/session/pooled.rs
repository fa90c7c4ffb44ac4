//! Pooled sessions: what a client asks for when it comes in, how its session borrows one, and how
//! it loses it: by releasing it, by leaving, or by thinking for too long.

use std::time::{Duration, Instant};

use super::{Client, Session};
use crate::config::PoolingMode;
use crate::error::{Error, ErrorKind, Result};
use crate::executor::mux::{Left, Parcel};
use crate::executor::relay::Pause;
pub use crate::pool::classes::{CLASS, PURITY, TAG, TAG_FOUND, TAG_MATCH};
use crate::pool::classes::{Purity, Tag, class};
use crate::pool::{Hold, Lease};
use crate::proto::backend::TxStatus;
use crate::query::SettingValue;
use crate::telemetry::Tally;
use crate::types::Protocol;

/// Parts of the think time after which it is looked whether the client did something.
const CHECKS: u32 = 8;

/// Checks what a client asks for: class, purity and tag.
///
/// # Errors
/// 22023 for the first that is not right.
pub fn check_pooling(of_class: &str, purity: Option<&str>, tag: &str) -> Result<()> {
    class(of_class)?;
    purity.map_or(Ok(Purity::Any), Purity::parse)?;
    Tag::parse(tag).map(|_| ())
}

/// Settings as the session's state has them.
type Pairs = Vec<(Box<str>, SettingValue)>;

/// What a client asks for when it comes in.
#[derive(Debug)]
pub(super) struct Asked {
    /// How its state is followed: a pooled session's is, whatever the mode.
    pub(super) mode: PoolingMode,
    /// What counts when it does not say.
    pub(super) default: Purity,
    /// Settings of its start-up packet.
    pub(super) start: Pairs,
    /// Settings that are as if it had set them.
    pub(super) preset: Pairs,
}

impl Asked {
    /// Takes what concerns pooled sessions out of the start-up parameters.
    pub(super) fn take(
        can_pool: bool,
        mode: PoolingMode,
        protocol: Protocol,
        options: &mut Vec<(String, String)>,
    ) -> Self {
        let default = match mode {
            PoolingMode::Session => Purity::New,
            PoolingMode::Transaction | PoolingMode::Statement => Purity::Any,
        };
        let mut asked = Self { mode, default, start: Vec::new(), preset: Vec::new() };
        if !can_pool {
            return asked;
        }
        let taken = take_words(options);
        let purity = taken.iter().find(|(name, _)| name == PURITY);
        let purity = purity.and_then(|(_, value)| Purity::parse(value).ok()).unwrap_or(default);
        if mode == PoolingMode::Session {
            if purity == Purity::Any || taken.is_empty() {
                options.extend(taken);
                options.sort();
                return asked;
            }
            asked.mode = PoolingMode::Transaction;
        }
        let pairs = taken.into_iter().map(|(name, value)| {
            (name.into_boxed_str(), SettingValue::Config(value.into_boxed_str()))
        });
        match protocol {
            // The native protocol has them as fields of its own, which are no settings.
            Protocol::Native => asked.preset = pairs.collect(),
            Protocol::Postgres | Protocol::Http => asked.start = pairs.collect(),
        }
        asked
    }
}

/// The name of a setting that says what pooled session is asked for.
fn word(name: &str) -> Option<&'static str> {
    [CLASS, PURITY, TAG].into_iter().find(|word| word.eq_ignore_ascii_case(name))
}

/// Takes them out, also those that the parameter `options` sets; the last value counts, and one
/// with a name of its own counts more than one in `options`, as in PostgreSQL.
fn take_words(options: &mut Vec<(String, String)>) -> Vec<(String, String)> {
    let mut taken: Vec<(String, String)> = Vec::new();
    let mut take = |name: &'static str, value: &str| {
        taken.retain(|(known, _)| known != name);
        taken.push((name.to_owned(), value.to_owned()));
    };
    let lines = options.iter_mut().filter(|(name, _)| name == "options").map(|(_, line)| line);
    for line in lines.filter(|line| line.to_ascii_lowercase().contains("rustydb.")) {
        *line = without_words(line, &mut take);
    }
    options.retain(|(name, value)| {
        if let Some(word) = word(name) {
            take(word, value);
            return false;
        }
        name != "options" || !value.is_empty()
    });
    taken
}

/// A line of command-line options without those that set one of the words.
fn without_words(line: &str, take: &mut impl FnMut(&'static str, &str)) -> String {
    let arguments = arguments(line);
    let (mut kept, mut at) = (Vec::new(), 0);
    while let Some((raw, text)) = arguments.get(at) {
        let (used, assignment) = match (text.as_str(), arguments.get(at + 1)) {
            ("-c", Some((_, next))) => (2, Some(next.clone())),
            (text, _) => {
                let long = text.strip_prefix("--");
                let short = text.strip_prefix("-c").map(str::to_owned);
                let dashes = |long: &str| match long.split_once('=') {
                    Some((name, value)) => format!("{}={value}", name.replace('-', "_")),
                    None => long.to_owned(),
                };
                (1, long.map(dashes).or(short))
            }
        };
        let pair = assignment.as_deref().and_then(|text| text.split_once('='));
        match pair.and_then(|(name, value)| Some((word(name)?, value))) {
            Some((name, value)) => take(name, value),
            None => {
                kept.push(*raw);
                kept.extend(arguments.get(at + 1).filter(|_| used == 2).map(|(raw, _)| *raw));
            }
        }
        at += used;
    }
    kept.join(" ")
}

/// The arguments of a line as they stand there, and what they mean: white space separates them,
/// and a backslash takes the meaning from what follows.
fn arguments(line: &str) -> Vec<(&str, String)> {
    let mut found = Vec::new();
    let (mut from, mut text, mut escaped) = (None, String::new(), false);
    for (at, c) in line.char_indices() {
        if c.is_ascii_whitespace() && !escaped {
            if let Some(from) = from.take() {
                found.push((&line[from..at], std::mem::take(&mut text)));
            }
            continue;
        }
        from.get_or_insert(at);
        escaped = c == '\\' && !escaped;
        if !escaped {
            text.push(c);
        }
    }
    if let Some(from) = from {
        found.push((&line[from..], text));
    }
    found
}

/// A pooled session that this session holds, or has just lost.
pub(super) struct Holding {
    hold: Option<Hold>,
    think: Duration,
    /// Requests at the last look, and since when there are no more.
    seen: (u64, Instant),
    /// What the client is told when it goes on.
    lost: Option<Error>,
}

impl Holding {
    /// When the client must have done something.
    pub(super) fn next_check(&self) -> Option<Duration> {
        self.hold.as_ref()?;
        Some((self.think / CHECKS).max(Duration::from_millis(50)))
    }

    /// Whether it has not.
    fn is_over(&mut self, tally: &Tally) -> bool {
        let requests = tally.totals().queries;
        if tally.request_since().is_some() || requests != self.seen.0 {
            self.seen = (requests, Instant::now());
        }
        self.hold.is_some() && self.seen.1.elapsed() >= self.think
    }
}

/// The earlier of two times, and whether it is the first one.
pub(super) fn earlier(look: Option<Duration>, check: Option<Duration>) -> (bool, Option<Duration>) {
    match (look, check) {
        (Some(look), Some(check)) => (look <= check, Some(look.min(check))),
        (look, check) => (look.is_some(), look.or(check)),
    }
}

impl Session {
    /// Whether what the client asks for makes sense.
    pub(super) fn check_wish(&self) -> Result<()> {
        let text = |name: &str| match self.mux.settings().get(name) {
            Some(SettingValue::Config(text)) => Some(&**text),
            _ => None,
        };
        let purity = text(PURITY).filter(|purity| !purity.is_empty());
        check_pooling(text(CLASS).unwrap_or_default(), purity, text(TAG).unwrap_or_default())
    }

    /// Why the session that the client goes on with is not there any more.
    pub(super) fn lost(&mut self) -> Option<Error> {
        self.pooled.as_mut()?.lost.take()
    }

    /// Nothing came from the client for a while; `looks` = it is time to look at its connection.
    pub(super) fn rested(&mut self, looks: bool) -> Pause {
        let holding = self.pooled.as_mut();
        match holding.is_some_and(|holding| holding.is_over(&self.entry.tally)) {
            true => Pause::Thinks,
            false if looks => Pause::Rests,
            false => Pause::Held,
        }
    }

    /// Borrows a pooled session; `None` = the client did not wait.
    pub(super) async fn borrow(&mut self, client: &mut Client) -> Option<Result<()>> {
        let (wish, alone) = self.mux.wish()?;
        let pool = self.executor.pool();
        let borrowing = pool.borrow_session(&self.demand, &wish, alone, &self.entry.slot);
        let borrowed = match self.wait_for(client, borrowing).await? {
            Ok(borrowed) => borrowed,
            Err(error) => return Some(Err(error)),
        };
        let is_found = borrowed.found.is_some();
        self.mux.take_over_pooled(borrowed.found);
        let think = pool.max_think_time();
        let seen = (self.entry.tally.totals().queries, Instant::now());
        let hold = Some(borrowed.hold);
        self.pooled = Some(Box::new(Holding { hold, think, seen, lost: None }));
        let lease = self.lease.insert(borrowed.lease);
        if is_found {
            self.mux.inherits_stains(&mut lease.conn().state);
        }
        self.note_pins();
        Some(Ok(()))
    }

    fn note_pins(&self) {
        self.executor.note_pins(self.entry.protocol, self.mux.pins(), &self.entry.tally);
    }

    /// The connection of the pooled session was lost: its state is, too.
    pub(super) fn forget_lost(&mut self) {
        if self.lease.is_none() && self.mux.is_pooled() {
            self.release_pooled();
        }
    }

    /// The pooled session, if there is one, goes to the next of its class.
    pub(super) fn release_pooled(&mut self) {
        let Some(hold) = self.pooled.take().and_then(|holding| holding.hold) else { return };
        let left = self.leave();
        let Some(lease) = self.lease.take() else { return };
        match left {
            Some(Left::Parcel(Parcel { tag, kept })) => lease.park(hold, tag, kept),
            Some(Left::Spoiled) => retire(lease),
            None => {}
        }
    }

    fn leave(&mut self) -> Option<Left> {
        if let Some(lease) = &mut self.lease {
            // It was told of every parameter of this connection.
            self.mux.leaves(&mut lease.conn().state);
        }
        let left = self.mux.leave_pooled();
        self.note_pins();
        left
    }

    /// The client has held its pooled session for too long without a request.
    pub(super) fn take_away(&mut self, client: &Client) {
        let idle = |lease: &mut Lease| lease.conn().is_reusable();
        if client.has_input() || !self.lease.as_mut().is_some_and(idle) {
            return;
        }
        let in_transaction =
            self.lease.as_mut().is_some_and(|lease| lease.conn().state.tx != TxStatus::Idle);
        let Some(holding) = &mut self.pooled else { return };
        let Some(hold) = holding.hold.take() else { return };
        hold.taken_away();
        let secs = holding.think.as_secs();
        let text = format!("the pooled session was taken away after {secs} s without a request");
        // Who has begun a transaction would take what comes next for a part of it.
        let error = match in_transaction {
            true => Error::sql(b"25P03", text)
                .with_detail("Its transaction was rolled back, and the session's state is gone.")
                .with_hint("connect again; session.drcp.max_think_time_secs is the limit"),
            false => Error::new(ErrorKind::IdleTimeout, text)
                .with_detail("The session's state is gone.")
                .with_hint("go on; session.drcp.max_think_time_secs is the limit"),
        };
        holding.lost = Some(error);
        let left = self.leave();
        self.entry.tally.transaction_lost();
        // Without the state, it is of use to everybody.
        let Some(lease) = self.lease.take() else { return };
        if matches!(left, Some(Left::Spoiled)) {
            retire(lease);
        }
        drop(hold);
    }
}

/// Closes a connection that no reset gets clean; one that is in the middle of something is
/// cancelled before.
fn retire(mut lease: Lease) {
    if lease.conn().is_reusable() {
        lease.retire();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Options = Vec<(String, String)>;

    fn take(options: &[(&str, &str)]) -> (Options, Options) {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut options: Vec<_> = options.iter().map(owned).collect();
        let taken = take_words(&mut options);
        (taken, options)
    }

    #[test]
    fn words_are_taken_out_of_the_start_up_packet() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let (taken, left) = take(&[("RustyDB.Purity", "self"), ("work_mem", "1MB")]);
        assert_eq!((taken, left), (vec![pair(PURITY, "self")], vec![pair("work_mem", "1MB")]));
        for (line, words, rest) in [
            ("-c rustydb.purity=self", vec![pair(PURITY, "self")], None),
            ("-crustydb.tag=a=1,b=2 -c x=y", vec![pair(TAG, "a=1,b=2")], Some("-c x=y")),
            ("--rustydb.connection-class=Web\\ App", vec![pair(CLASS, "Web App")], None),
            (" -c geqo=off  -c  a.b=x ", vec![], Some(" -c geqo=off  -c  a.b=x ")),
            (
                "-c  a.b=x\\ y  -c rustydb.purity=new ",
                vec![pair(PURITY, "new")],
                Some("-c a.b=x\\ y"),
            ),
            ("-c rustydb.tag=a=1 -c rustydb.tag=b=1", vec![pair(TAG, "b=1")], None),
            ("-c", vec![], Some("-c")),
            ("-c rustydb.other=1", vec![], Some("-c rustydb.other=1")),
        ] {
            let rest: Vec<_> = rest.map(|rest| pair("options", rest)).into_iter().collect();
            assert_eq!(take(&[("options", line)]), (words, rest), "{line}");
        }
        let both = [("options", "-c rustydb.purity=self"), ("rustydb.purity", "new")];
        assert_eq!(take(&both).0, vec![pair(PURITY, "new")]);
    }

    #[test]
    fn a_session_pooled_by_session_is_followed_when_it_is_a_pooled_session() {
        let asked = |mode, options: &[(&str, &str)]| {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            let mut options: Vec<_> = options.iter().map(owned).collect();
            let asked = Asked::take(true, mode, Protocol::Postgres, &mut options);
            (asked.mode, asked.default, asked.start.len(), options.len())
        };
        use PoolingMode::{Session, Transaction};
        assert_eq!(asked(Session, &[]), (Session, Purity::New, 0, 0));
        assert_eq!(asked(Session, &[(PURITY, "any"), (CLASS, "x")]), (Session, Purity::New, 0, 2));
        assert_eq!(asked(Session, &[(CLASS, "x")]), (Transaction, Purity::New, 1, 0));
        assert_eq!(asked(Transaction, &[(CLASS, "x")]), (Transaction, Purity::Any, 1, 0));
    }
}
