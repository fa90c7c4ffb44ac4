//! Every connection to PostgreSQL that exists or is being made, for who looks at the server or
//! waits for the last of them to go. Entered when a log-in begins, left when the socket closes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;

use super::Statements;
use crate::net::Ends;
use crate::types::{BackendAddr, Database, Role};

/// The list; the pool's size bounds it.
#[derive(Debug, Default)]
pub struct Roster {
    next: AtomicU64,
    by_id: Mutex<HashMap<u64, Arc<Listed>>>,
}

/// One connection as others see it.
#[derive(Debug)]
pub struct Listed {
    /// Number, unique in its roster.
    pub id: u64,
    /// Role.
    pub role: Role,
    /// Database.
    pub database: Database,
    /// When the log-in began.
    pub since: SystemTime,
    pid: AtomicU32,
    stale: AtomicBool,
    borrows: AtomicU64,
    /// [`Cached`], in the order of its fields.
    cached: [AtomicU64; 3],
    reached: Mutex<Option<Reached>>,
}

/// Statements that a connection has prepared, as it was when it was given back last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cached {
    /// How many it has.
    pub size: u64,
    /// How often one was there that was to be run.
    pub hits: u64,
    /// How often PostgreSQL had to parse it.
    pub misses: u64,
}

/// Where a connection leads.
#[derive(Clone, Debug)]
pub struct Reached {
    /// The server as it was configured.
    pub server: BackendAddr,
    /// Its address; `None` = a Unix socket.
    pub address: Option<SocketAddr>,
    /// Our own end, and the encryption.
    pub ends: Ends,
}

impl Listed {
    /// PostgreSQL's process; 0 = not logged in yet.
    pub fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    /// How often it was lent to a session.
    pub fn borrows(&self) -> u64 {
        self.borrows.load(Ordering::Relaxed)
    }

    /// It is lent once more. Only whoever has the connection does that, so nothing is added that
    /// others could miss.
    pub fn lent(&self) {
        self.borrows.store(self.borrows() + 1, Ordering::Relaxed);
    }

    /// What it has prepared.
    pub fn cached(&self) -> Cached {
        let [size, hits, misses] = self.cached.each_ref().map(|n| n.load(Ordering::Relaxed));
        Cached { size, hits, misses }
    }

    /// Shows what it has prepared to whoever looks at the list.
    pub fn show_cached(&self, statements: &Statements) {
        let (hits, misses) = statements.found();
        let now = [statements.len() as u64, hits, misses];
        self.cached.iter().zip(now).for_each(|(shown, now)| shown.store(now, Ordering::Relaxed));
    }

    /// Where it leads; `None` = not logged in yet.
    pub fn reached(&self) -> Option<Reached> {
        self.reached.lock().clone()
    }

    /// Whether it is to be closed when nobody uses it.
    pub fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Relaxed)
    }

    /// Has it closed when it comes back.
    pub fn make_stale(&self) {
        self.stale.store(true, Ordering::Relaxed);
    }
}

impl Roster {
    /// Lists a connection for as long as the ticket lives.
    pub fn enter(self: &Arc<Self>, role: Role, database: Database) -> Ticket {
        let listed = Arc::new(Listed {
            id: self.next.fetch_add(1, Ordering::Relaxed) + 1,
            role,
            database,
            since: SystemTime::now(),
            pid: AtomicU32::new(0),
            stale: AtomicBool::new(false),
            borrows: AtomicU64::new(0),
            cached: Default::default(),
            reached: Mutex::default(),
        });
        self.by_id.lock().insert(listed.id, listed.clone());
        Ticket { roster: self.clone(), listed }
    }

    /// Everything that is listed now, in the order of entry.
    pub fn all(&self) -> Vec<Arc<Listed>> {
        let mut all: Vec<_> = self.by_id.lock().values().cloned().collect();
        all.sort_by_key(|listed| listed.id);
        all
    }
}

/// A place in the roster; dropping it leaves.
#[derive(Debug)]
pub struct Ticket {
    roster: Arc<Roster>,
    listed: Arc<Listed>,
}

impl Ticket {
    /// The log-in is done.
    pub fn logged_in(&self, pid: u32, reached: Reached) {
        *self.listed.reached.lock() = Some(reached);
        self.listed.pid.store(pid, Ordering::Relaxed);
    }
}

impl std::ops::Deref for Ticket {
    type Target = Listed;

    fn deref(&self) -> &Listed {
        &self.listed
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.roster.by_id.lock().remove(&self.listed.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_listed_for_as_long_as_it_lives() {
        let roster = Arc::new(Roster::default());
        let (a, b) = (roster.enter("r".into(), "d".into()), roster.enter("s".into(), "d".into()));
        let server = BackendAddr::Tcp("db".into(), 5432);
        b.logged_in(7, Reached { server: server.clone(), address: None, ends: Ends::default() });
        assert!(a.reached().is_none() && b.reached().is_some_and(|r| r.server == server));
        b.lent();
        b.lent();
        assert_eq!((a.borrows(), b.borrows()), (0, 2));
        let pids: Vec<u32> = roster.all().iter().map(|listed| listed.pid()).collect();
        assert_eq!(pids, [0, 7]);
        drop(a);
        roster.all()[0].make_stale();
        assert!(b.is_stale());
        drop(b);
        assert!(roster.all().is_empty());
    }
}
