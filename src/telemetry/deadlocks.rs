//! The last deadlocks that PostgreSQL broke in sessions of this server. Errors alone lead here.

use std::collections::VecDeque;
use std::time::SystemTime;

use parking_lot::Mutex;
use prometheus::IntCounter;

use super::Tally;
use crate::types::{Database, Role};

/// Deadlocks that are remembered.
const KEPT: usize = 100;

/// Bytes of PostgreSQL's description of one.
const LONGEST: usize = 4 << 10;

/// A deadlock.
#[derive(Clone, Debug)]
pub struct Deadlock {
    /// When its victim was told.
    pub at: SystemTime,
    /// Session of the victim.
    pub session: u64,
    /// Its role.
    pub role: Role,
    /// Its database.
    pub database: Database,
    /// Who waited for whom, in PostgreSQL's words.
    pub detail: String,
}

/// All of them.
#[derive(Debug)]
pub struct Deadlocks {
    total: IntCounter,
    last: Mutex<VecDeque<Deadlock>>,
}

impl Deadlocks {
    /// None so far.
    pub fn new(total: IntCounter) -> Self {
        Self { total, last: Mutex::default() }
    }

    /// A session was the victim of one.
    pub fn note(&self, victim: &Tally, mut detail: String) {
        self.total.inc();
        let end = (0..=LONGEST).rev().find(|end| detail.is_char_boundary(*end));
        detail.truncate(end.unwrap_or(0));
        let (role, database) = victim.whose();
        let deadlock = Deadlock {
            at: SystemTime::now(),
            session: victim.session(),
            role: role.clone(),
            database: database.clone(),
            detail,
        };
        let mut last = self.last.lock();
        if last.len() >= KEPT {
            last.pop_front();
        }
        last.push_back(deadlock);
    }

    /// How many there were since the start.
    pub fn total(&self) -> u64 {
        self.total.get()
    }

    /// Those that are remembered, the newest first.
    pub fn last(&self) -> Vec<Deadlock> {
        self.last.lock().iter().rev().cloned().collect()
    }
}

impl Deadlock {
    /// Processes that waited in a circle, and what each waited for. PostgreSQL writes
    /// `Process 1 waits for ShareLock on transaction 2; blocked by process 3.` for each.
    pub fn waits(&self) -> Vec<(u32, String)> {
        let line = |line: &str| {
            let digits = line.find(|c: char| c.is_ascii_digit())?;
            let end = line[digits..].find(|c: char| !c.is_ascii_digit())? + digits;
            let pid = line[digits..end].parse().ok()?;
            let rest = line[end..].split(';').next()?;
            let what = rest.split_once("for ").map_or(rest, |(_, what)| what).trim();
            Some((pid, what.to_owned()))
        };
        self.detail.lines().filter_map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn deadlocks_are_remembered_and_read() {
        let total = IntCounter::new("total", "all").unwrap();
        let deadlocks = Deadlocks::new(total);
        let victim = Tally::new(7, Instant::now(), ("r".into(), "d".into()));
        let detail = "Process 11 waits for ShareLock on transaction 765; blocked by process 12.\n\
                      Process 12 waits for AccessExclusiveLock on relation 5 of database 1; \
                      blocked by process 11.";
        (0..=KEPT).for_each(|_| deadlocks.note(&victim, detail.into()));
        deadlocks.note(&victim, "é".repeat(LONGEST));
        let last = deadlocks.last();
        assert_eq!((deadlocks.total(), last.len()), (KEPT as u64 + 2, KEPT));
        assert!(last[0].detail.len() <= LONGEST && last[0].waits().is_empty());
        assert_eq!((last[1].session, last[1].role.as_str()), (7, "r"));
        let waits = [
            (11, "ShareLock on transaction 765"),
            (12, "AccessExclusiveLock on relation 5 of database 1"),
        ];
        assert_eq!(last[1].waits(), waits.map(|(pid, what)| (pid, what.to_owned())));
    }
}
