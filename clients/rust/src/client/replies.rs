//! From replies to results.

use crate::error::{Error, Result};
use crate::link::{Pending, Reply};
use crate::protocol::wire::{Reader, Violation, Wire, decode};
use crate::protocol::{Message, TxStatus};
use crate::rows::{Columns, Part, ResultSet};

/// Numbers of messages that are looked at before they are decoded.
pub(super) const QUERY: u32 = 3;
pub(super) const QUERY_RESPONSE: u32 = 4;
pub(super) const PREPARED: u32 = 5;
pub(super) const BULK: u32 = 7;
pub(super) const STREAMING: u32 = 8;
pub(super) const BATCH: u32 = 26;

/// What the server says when there is nothing to show.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) affected_rows: u64,
    pub(super) status: TxStatus,
}

/// The number of a reply's message, and a reader of what follows.
pub(super) fn open(reply: &Reply) -> Result<(u32, Reader<'_>)> {
    let mut input = Reader::new(&reply.body);
    let variant = input.variant()?;
    Ok((variant, input))
}

/// The whole message; an error of the server is an error.
pub(super) fn message(reply: &Reply) -> Result<Message> {
    match decode::<Message>(&reply.body)? {
        Message::Error(error) => Err(Error::Server(error)),
        message => Ok(message),
    }
}

/// A reply that must be Ok.
pub(super) fn done(reply: &Reply) -> Result<Done> {
    match message(reply)? {
        Message::Ok { affected_rows, transaction_status, .. } => {
            Ok(Done { affected_rows, status: transaction_status })
        }
        _ => Err(unexpected()),
    }
}

/// A reply that does not fit the request.
pub(super) fn unexpected() -> Error {
    Error::Protocol(Violation::malformed("a reply does not fit its request"))
}

/// The results of several statements, one after the other, as they come.
pub struct Results {
    pending: Pending,
    /// A statement whose result may go on.
    open: Option<(u32, ResultSet)>,
    /// An error that comes after the result before it.
    failed: Option<Error>,
}

impl Results {
    pub(super) fn of(pending: Pending) -> Self {
        Self { pending, open: None, failed: None }
    }

    /// What the next statement gave; none = that was all. After an error of a batch that goes on,
    /// more may follow.
    pub async fn next(&mut self) -> Option<Result<ResultSet>> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        while !self.pending.is_done() {
            match self.part().await {
                Ok(Some(whole)) => return Some(Ok(whole)),
                Ok(None) => {}
                Err(error) => {
                    let before = self.open.take().map(|(_, before)| before);
                    // Rows that came of the statement that has failed are no result.
                    let Some(before) = before.filter(ResultSet::is_whole) else {
                        return Some(Err(error));
                    };
                    self.failed = Some(error);
                    return Some(Ok(before));
                }
            }
        }
        self.open.take().map(|(_, whole)| Ok(whole))
    }

    /// Takes one reply; gives the result before it, if that is complete now.
    async fn part(&mut self) -> Result<Option<ResultSet>> {
        let reply = self.pending.reply().await?;
        let (variant, mut input) = open(&reply)?;
        if variant != QUERY_RESPONSE {
            return Err(match message(&reply) {
                Ok(_) => unexpected(),
                Err(error) => {
                    // The server says so only with results.
                    if !error.is_retryable() {
                        self.pending.note_failure();
                    }
                    error
                }
            });
        }
        let before = self.open.as_ref().map(|(statement, result)| (*statement, &result.columns));
        let Part { statement, result } = Part::read(&reply.body, &mut input, before)?;
        self.pending.note(result.status);
        match &mut self.open {
            Some((same, whole)) if *same == statement => {
                whole.extend(result);
                Ok(None)
            }
            open => Ok(open.replace((statement, result)).map(|(_, whole)| whole)),
        }
    }

    /// The result of the last statement. The first error ends it.
    pub(super) async fn last(mut self) -> Result<ResultSet> {
        // Nearly always there is one reply with everything.
        let mut last = None;
        while let Some(result) = self.next().await {
            last = Some(result?);
        }
        last.ok_or_else(unexpected)
    }

    /// The results of all statements. The first error ends it.
    pub(super) async fn all(mut self) -> Result<Vec<ResultSet>> {
        let mut all = Vec::new();
        while let Some(result) = self.next().await {
            all.push(result?);
        }
        Ok(all)
    }

    /// Asks the server to stop; what is still to come ends with an error then.
    pub fn cancel(&self) {
        self.pending.cancel();
    }
}

/// Takes the columns or rows that `input` stands at.
pub(super) fn columns(reply: &Reply, input: &mut Reader<'_>) -> Result<Columns> {
    let columns = Columns::take(&reply.body, input)?;
    input.finish()?;
    Ok(columns)
}

/// The number that a part of a stream must have.
pub(super) fn in_sequence(input: &mut Reader<'_>, expected: &mut u32) -> Result<()> {
    if u32::decode(input)? != *expected {
        return Err(Error::Protocol(Violation::malformed("a part of a stream is missing")));
    }
    *expected = expected.wrapping_add(1);
    Ok(())
}
