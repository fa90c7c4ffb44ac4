//! A backend's replies on their way: what answers our own requests stays here, what the client must
//! see otherwise is changed where it lies, and the books are kept.

use std::sync::Arc;

use super::Work;
use super::mux::{Mux, Reported};
use crate::backend::{BackendConn, ConnState, READ_LARGE, Reply};
use crate::error::{Error, SqlState};
use crate::pool::CancelSlot;
use crate::proto::backend::{
    self as replies, PARSE_COMPLETE, Report, Severity, command_complete, put_error,
    put_parameter_status,
};
use crate::proto::frame::{FrameBuf, HEADER, Step, Want};

/// Bytes of the longest description: the types of 65,535 parameters; 1,664 columns need less.
const LONGEST_DESCRIPTION: usize = 512 << 10;

/// Where PostgreSQL refuses to give a prepared statement other columns than it had.
const COLUMNS_CHANGED: &[u8] = b"RevalidateCachedQuery";

/// The client must know the parameters of the connection that it has now.
pub fn tell_parameters(mux: &Mux, state: &ConnState, inbound: &mut FrameBuf) {
    let untold = mux.untold(state);
    if !untold.is_empty() {
        let mut bytes = Vec::new();
        for (name, value) in untold {
            put_parameter_status(&mut bytes, name, value);
        }
        inbound.put_scanned(&bytes);
    }
}

/// Puts in ParseComplete messages that PostgreSQL does not send.
pub fn put_owed(owed: u32, inbound: &mut FrameBuf) {
    for _ in 0..owed {
        inbound.put_scanned(&PARSE_COMPLETE);
    }
}

/// Moves over what is understood of the backend's bytes, and learns from it.
pub fn scan_replies(
    conn: &mut BackendConn,
    mux: &mut Mux,
    slot: &Arc<CancelSlot>,
    work: &mut Option<Work>,
) -> Result<(), Error> {
    let BackendConn { inbound, scanner, state, cancel, .. } = conn;
    loop {
        let ours = state.expect.is_ours();
        let expect = &state.expect;
        let rule = |tag| match replies::relay_rule(tag) {
            (Want::Header, longest) if ours => (Want::Body(READ_LARGE), longest),
            (Want::Header, longest) if is_description(tag) && expect.described().is_some() => {
                (Want::Body(LONGEST_DESCRIPTION), longest)
            }
            rule => rule,
        };
        // `passing` is the length of a body that nobody looks at.
        let (tag, body, passing) = match scanner.step(inbound.unscanned(), rule) {
            Step::Pass(n) => {
                inbound.mark_scanned(n);
                continue;
            }
            Step::Begin { tag: replies::tag::DATA_ROW | replies::tag::COPY_DATA, body }
                if !ours =>
            {
                // Another reply came before it, from which everything was learnt.
                let there = body.min(inbound.unscanned().len() - HEADER);
                scanner.took(there);
                inbound.mark_scanned(HEADER + there);
                continue;
            }
            Step::Begin { tag, body } => (tag, None, body),
            Step::Whole { tag, body } => (tag, Some(body), 0),
            Step::More(whole) => {
                // The rest of a wanted body gets room before the next read.
                let missing = whole.saturating_sub(inbound.unscanned().len());
                if whole > HEADER {
                    inbound.tail(missing);
                }
                return Ok(());
            }
            Step::Invalid { .. } => {
                return Err(Error::backend_lost("invalid message length from the server"));
            }
        };
        if let Some(body) = body
            && matches!(tag, replies::tag::ROW_DESCRIPTION | replies::tag::NO_DATA)
            && let Some((statement, looks)) = state.expect.described()
        {
            let statement = statement.clone();
            let columns = &inbound.unscanned()[HEADER..HEADER + body];
            let columns = (tag == replies::tag::ROW_DESCRIPTION).then_some(columns);
            mux.described(state, &statement, looks, columns);
        }
        let mut reply = state.expect.saw(tag);
        put_owed(state.expect.take_owed(), inbound);
        let mut whole = HEADER + body.unwrap_or(0);
        if body.is_some() {
            if tag == replies::tag::ERROR {
                whole = error_as_client(inbound, whole, mux, state);
            }
            if tag == replies::tag::NOTIFICATION {
                rename_sender(inbound, cancel.pid, mux.pid());
            }
            let body = &inbound.unscanned()[HEADER..whole];
            state.saw(tag, body).map_err(Error::backend_lost)?;
            if reply == Reply::Pass && tag == replies::tag::PARAMETER_STATUS {
                match mux.reported(body) {
                    Reported::Pass => {}
                    Reported::Keep => reply = Reply::Keep,
                    Reported::Instead(message) => {
                        inbound.splice(0, whole, &message);
                        inbound.mark_scanned(message.len());
                        continue;
                    }
                }
            }
            let body = &inbound.unscanned()[HEADER..whole];
            if reply == Reply::Pass {
                account(tag, body, state, mux, work);
            }
        }
        if tag == replies::tag::ERROR {
            state.expect.take_undone().into_iter().for_each(|entry| mux.undo(entry, state));
        }
        match reply {
            Reply::Pass => {
                let there = passing.min(inbound.unscanned().len() - whole);
                scanner.took(there);
                inbound.mark_scanned(whole + there);
            }
            Reply::Keep => {
                inbound.splice(0, whole, b"");
                if tag == replies::tag::READY_FOR_QUERY {
                    own_request_done(state, mux, slot, inbound)?;
                }
            }
        }
        put_owed(state.expect.flush_owed(), inbound);
    }
}

fn is_description(tag: u8) -> bool {
    use replies::tag::{NO_DATA, PARAMETER_DESCRIPTION, ROW_DESCRIPTION};
    matches!(tag, NO_DATA | PARAMETER_DESCRIPTION | ROW_DESCRIPTION)
}

/// The settings of the session are in force, and its own request comes next.
fn own_request_done(
    state: &ConnState,
    mux: &mut Mux,
    slot: &Arc<CancelSlot>,
    inbound: &mut FrameBuf,
) -> Result<(), Error> {
    if state.expect.has_failed() {
        return Err(Error::internal("PostgreSQL refused a setting that it had accepted before"));
    }
    if !state.expect.is_ours() {
        slot.show();
        tell_parameters(mux, state, inbound);
    }
    Ok(())
}

/// The error that stands for a refusal of ours says so; PostgreSQL's own reports name statements as
/// the client does. Returns the length of the message.
fn error_as_client(inbound: &mut FrameBuf, whole: usize, mux: &Mux, state: &ConnState) -> usize {
    let Some(excess) = state.expect.refused() else {
        return name_as_client(inbound, whole, mux, state);
    };
    let report = Report::parse(&inbound.unscanned()[HEADER..whole]);
    // Something else may have come before it: a cancellation, the end of the server.
    if report.is_ok_and(|report| report.sqlstate != b"42601") {
        return whole;
    }
    let mut message = Vec::new();
    put_error(&mut message, Severity::Error, &mux.refuse(excess));
    inbound.splice(0, whole, &message);
    message.len()
}

fn name_as_client(inbound: &mut FrameBuf, whole: usize, mux: &Mux, state: &ConnState) -> usize {
    let Some((range, name)) = mux.renamed(state, &inbound.unscanned()[HEADER..whole]) else {
        return whole;
    };
    let now = whole - range.len() + name.len();
    inbound.splice(HEADER + range.start, range.len(), &name);
    let length = u32::try_from(now - 1).unwrap_or(u32::MAX);
    inbound.overwrite(1, &length.to_be_bytes());
    now
}

/// A notification that the session sent to itself carries the number that it knows itself by.
fn rename_sender(inbound: &mut FrameBuf, backend: u32, session: u32) {
    if inbound.unscanned().get(HEADER..HEADER + 4) == Some(&backend.to_be_bytes()[..]) {
        inbound.overwrite(HEADER, &session.to_be_bytes());
    }
}

fn account(tag: u8, body: &[u8], state: &mut ConnState, mux: &mut Mux, work: &mut Option<Work>) {
    match tag {
        replies::tag::COMMAND_COMPLETE => {
            if let Ok(tag) = command_complete(body) {
                mux.completed(state, tag.command);
                if let Some(work) = work {
                    work.completed(tag);
                }
            }
        }
        replies::tag::ERROR => {
            mux.failed(state);
            if let (Ok(report), Some(work)) = (Report::parse(body), work) {
                if report.routine == Some(COLUMNS_CHANGED) {
                    mux.refused_columns();
                }
                let detail = report.detail.unwrap_or_default();
                let detail = || String::from_utf8_lossy(detail).into_owned();
                work.failed(SqlState::parse(report.sqlstate), detail);
            }
        }
        replies::tag::READY_FOR_QUERY => {
            mux.ready(state);
            if let Some(work) = work {
                work.ready(body != b"I");
            }
        }
        _ => {}
    }
}
