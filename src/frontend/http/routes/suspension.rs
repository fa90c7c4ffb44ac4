//! Sessions that rest: one that was opened over HTTP gives up its connection, and does nothing
//! until it is resumed.

use super::super::HttpDoor;
use super::super::extract::Caller;
use super::super::fetch;
use super::super::kept::Client;
use super::super::shelf::Borrowed;
use super::session_state::{Settings, apply, borrow, look, readable};
use super::unsupported::unsupported;
use crate::error::{Error, ErrorKind, Result};

/// Suspends a session: its transaction is rolled back, and its connection is given up with all that
/// is on it. Settings, variables and prepared statements are kept.
///
/// # Errors
/// It is busy, suspended, of another door, or not the caller's to suspend.
pub(super) async fn suspend(door: &HttpDoor, caller: &Caller, id: u64) -> Result<()> {
    check_door(door, id)?;
    let mut borrowed = borrow(door, caller, id).await?;
    let rested = rest(door, &mut borrowed).await;
    borrowed.give_back();
    rested
}

async fn rest(door: &HttpDoor, borrowed: &mut Borrowed<Client>) -> Result<()> {
    let session = borrowed.session()?;
    if session.is_in_transaction() {
        fetch::run(door, session, "ROLLBACK", &[]).await?;
    }
    let settings = readable(look(door, borrowed).await?.settings)?;
    borrowed.session()?.give_up_connection();
    let mut state = borrowed.kept().about.state.lock();
    state.settings.clone_from(&settings);
    state.suspended = Some(settings);
    state.note("suspend", None);
    Ok(())
}

/// Resumes a suspended session of somebody whom the caller may do that for.
///
/// # Errors
/// It is not suspended, or its settings cannot be given any more: then it stays suspended.
pub(super) async fn resume(door: &HttpDoor, id: u64) -> Result<()> {
    check_door(door, id)?;
    let mut borrowed = door.kept.borrow_suspended(id)?;
    let woken = wake(door, &mut borrowed).await;
    borrowed.give_back();
    woken
}

async fn wake(door: &HttpDoor, borrowed: &mut Borrowed<Client>) -> Result<()> {
    let kept = borrowed.kept().clone();
    let Some(settings) = kept.about.state.lock().suspended.clone() else {
        let text = format!("the session {} is not suspended", kept.id);
        return Err(Error::new(ErrorKind::Conflict, text));
    };
    let settings: Settings = settings.into_iter().map(|(name, v)| (name, Some(v))).collect();
    apply(door, borrowed.session()?, &settings).await?;
    let mut state = kept.about.state.lock();
    state.suspended = None;
    state.note("resume", None);
    Ok(())
}

fn check_door(door: &HttpDoor, id: u64) -> Result<()> {
    match door.kept.look(id) {
        Some(_) => Ok(()),
        None => Err(unsupported("session_suspension")),
    }
}
