//! What becomes of a request's effects when PostgreSQL answers it: they count if it has succeeded.
//! Each is noted when the request goes, with the number of its batch, so that what is in flight
//! behind one that fails is not lost with it.

use std::sync::Arc;

use super::pooled::is_word;
use super::{APPLICATION_NAME, MAX_CUSTOM, MAX_JOURNAL, Mux};
use crate::backend::{ConnState, Expect, Kind};
use crate::proto::backend::TxStatus;
use crate::query::{Change, Class, Effects, Reference, SettingValue, Settings};

impl Mux {
    /// What a statement of this class, of a text so long, will have done.
    pub(super) fn note(&mut self, class: &Class, bytes: usize, conn: &mut ConnState) {
        let batch = conn.expect.batch();
        self.note_behind(class);
        self.batch.add(class.effects);
        if class.effects.has(Effects::DISCARD_ALL.and(Effects::DEALLOCATE_ALL)) {
            conn.doubt_statements();
        }
        let goes = |reference: &Reference| matches!(reference, Reference::Deallocates(_));
        let all = Effects::DISCARD_ALL.and(Effects::DEALLOCATE_ALL);
        if class.effects.has(all) || class.refers_to.iter().any(goes) {
            self.takes_away = batch;
        }
        // Its buffers stay, whatever becomes of it, and a namespace.
        conn.spoiled |= class.effects.has(Effects::TEMP);
        if class.effects.has(Effects::PREPARE) {
            self.named.requested(class, bytes, batch);
            self.carried_effects = None;
        }
        if class.effects.has(Effects::EXECUTES) {
            let unknown = Effects::UNCLEAR.and(Effects::SEQUENCE);
            self.batch.add(self.carried_effects.unwrap_or(unknown));
        }
        if class.effects.has(Effects::READS_SEQUENCE) {
            self.database.sequence_read();
        }
        for change in &class.changes {
            if self.pending.len() >= MAX_JOURNAL {
                self.batch.add(Effects::SETTING.and(Effects::HIDDEN));
                return;
            }
            self.pending.push_back((batch, change.clone()));
        }
        class.mentions.iter().for_each(|name| self.mention(name.clone()));
        for name in &class.custom_settings {
            if conn.foreign.len() < MAX_CUSTOM && !conn.foreign.contains(name) {
                conn.foreign.push(name.clone());
            }
            if self.custom.len() >= MAX_CUSTOM {
                self.batch.add(Effects::HIDDEN);
            } else if !self.custom.contains(name) {
                self.custom.push(name.clone());
            }
        }
    }

    /// PostgreSQL completed a command.
    pub fn completed(&mut self, conn: &mut ConnState, command: &str) {
        match command.as_bytes() {
            [b'S', b'E', b'T'] | [b'R', b'E', b'S', b'E', b'T'] => self.setting_completed(conn),
            [b'S', b'E', b'L', ..] | [b'I', b'N', ..] | [b'U', b'P', ..] => {}
            b"BEGIN" | b"DELETE" | b"COPY" | b"FETCH" => {}
            b"COMMIT" => self.commit(conn),
            b"ROLLBACK" => self.rollback(),
            b"PREPARE" => {
                self.named.prepared(in_work(conn));
                // All may have been taken away before, in the same text.
                self.native = true;
                self.carried_effects = None;
            }
            b"DEALLOCATE" => self.deallocated(conn),
            b"DISCARD ALL" => self.discarded_all(conn),
            b"DISCARD SEQUENCES" => self.pins = self.pins.without(Effects::SEQUENCE),
            b"DEALLOCATE ALL" => {
                conn.deallocated_all();
                self.deallocated_all(conn);
            }
            // Dropping takes nothing away that others rely on: PostgreSQL itself looks again.
            [b'C', b'R', b'E', ..] | [b'A', b'L', b'T', ..] | [b'I', b'M', ..]
                if self.batch.has(Effects::DDL) && !is_harmless(command) =>
            {
                self.defined = true;
                self.database.defined();
            }
            _ => {}
        }
    }

    /// The first change that was requested in this batch, or one before, and is not made yet.
    fn next_change(&mut self, batch: u64) -> Option<Change> {
        self.pending.front().filter(|(own, _)| *own <= batch)?;
        self.pending.pop_front().map(|(_, change)| change)
    }

    fn setting_completed(&mut self, conn: &ConnState) {
        let change = self.next_change(in_work(conn));
        match &change {
            Some(Change::Set(name, _)) if **name == *APPLICATION_NAME => {
                self.name_is_reset = false;
            }
            Some(Change::Reset(name)) if **name == *APPLICATION_NAME => self.name_is_reset = true,
            Some(Change::ResetAll) => self.name_is_reset = true,
            _ => {}
        }
        match change {
            Some(change) if self.journal.len() < MAX_JOURNAL => self.journal.push(change),
            // Something was set that was not read in the text.
            Some(_) | None => self.batch.add(Effects::SETTING),
        }
    }

    /// The transaction is over, or it is back at a savepoint: then some changes may be in force
    /// if it is committed.
    fn rollback(&mut self) {
        self.failed = false;
        self.rolled_back |= !self.journal.is_empty();
        self.journal.clear();
    }

    fn commit(&mut self, conn: &mut ConnState) {
        if std::mem::take(&mut self.rolled_back) {
            self.batch.add(Effects::SETTING);
        }
        self.settings_moved |= !self.journal.is_empty();
        let journal = std::mem::take(&mut self.journal);
        for change in &journal {
            self.settings = Arc::new(self.settings.after(change, &self.start));
            let applied = conn.applied.after(change, &Settings::default());
            let same = applied == *self.settings;
            conn.applied = if same { self.settings.clone() } else { Arc::new(applied) };
        }
        self.follow_wish(&journal);
        if self.settings.is_too_large() {
            self.batch.add(Effects::HIDDEN);
        }
    }

    /// Settings get the values that PostgreSQL reports: those of DateStyle add up, for instance.
    /// One with a dot that was reset, or was local, has the value of the log-in from now on, or is
    /// empty and not unknown.
    fn settle_settings(&mut self, conn: &mut ConnState) {
        let reported = |name: &str| {
            let same = |(known, _): &&(String, String)| known.eq_ignore_ascii_case(name);
            conn.parameters.iter().find(same).map(|(_, value)| value.as_str())
        };
        let mut values: Vec<(Box<str>, SettingValue)> = Vec::new();
        for name in self.settings.names().filter(|name| *name != APPLICATION_NAME) {
            if let Some(value) = reported(name) {
                values.push((name.into(), SettingValue::Config(value.into())));
            }
        }
        // What asks for pooled sessions is RustyDB's own: absent means something there.
        let is_forgotten = |name: &str| self.settings.get(name).is_none() && !is_word(name);
        let forgotten = self.custom.iter().filter(|name| is_forgotten(name));
        values.extend(forgotten.map(|name| (name.clone(), SettingValue::Sql("DEFAULT".into()))));
        let differs = |(name, value): &(Box<str>, SettingValue)| {
            self.settings.get(name) != Some(value) || conn.applied.get(name) != Some(value)
        };
        if values.iter().any(differs) {
            conn.applied = Arc::new(conn.applied.with(values.iter().cloned()));
            let settings = self.settings.with(values);
            let same = settings == *conn.applied;
            self.settings = if same { conn.applied.clone() } else { Arc::new(settings) };
        }
    }

    fn discarded_all(&mut self, conn: &mut ConnState) {
        conn.discarded_all();
        self.name_is_reset = true;
        self.settings = self.start.clone();
        self.deallocated_all(conn);
        if !conn.expect.is_unnamed_coming() {
            self.unnamed = None;
        }
        self.journal.clear();
        let lasting = Effects::LOAD.and(Effects::SEED).and(Effects::HIDDEN);
        self.pins = self.pins.only(lasting.and(Effects::UNTRACKED).and(Effects::POOLED));
        self.follow_wish(&[Change::ResetAll]);
        if conn.expect.is_single() {
            self.batch = self.batch.only(lasting);
        }
    }

    /// PostgreSQL reported an error.
    pub fn failed(&mut self, conn: &mut ConnState) {
        self.failed = true;
        self.is_over(in_work(conn), conn);
    }

    /// What this batch and those before have requested, and PostgreSQL has not completed, never
    /// happens.
    fn is_over(&mut self, batch: u64, conn: &mut ConnState) {
        while self.next_change(batch).is_some() {}
        self.named.is_over(batch);
        if batch >= self.takes_away {
            self.takes_away = 0;
        }
        if !self.stand_ins.is_empty() {
            self.put_stand_ins_away(batch, conn);
        }
    }

    /// PostgreSQL is ready for the next request.
    pub fn ready(&mut self, conn: &mut ConnState) {
        match conn.tx {
            TxStatus::Idle => {
                if self.failed {
                    self.journal.clear();
                } else if !self.journal.is_empty() {
                    self.commit(conn);
                }
                if self.settings_moved || !self.custom.is_empty() {
                    self.settings_moved = false;
                    self.settle_settings(conn);
                }
                if self.defined {
                    // What others have parsed in between knows nothing of it.
                    self.defined = false;
                    self.database.defined();
                }
                self.failed = false;
            }
            // Back to a savepoint: which changes are gone, nobody says.
            TxStatus::Open if self.rolled_back => self.batch.add(Effects::SETTING),
            TxStatus::Open | TxStatus::Failed => {}
        }
        self.rolled_back = false;
        // What was bound and not run.
        self.is_over(conn.expect.last_ended(), conn);
        if conn.expect.is_lost() {
            self.pins.add(Effects::UNTRACKED);
        }
    }

    /// The books are set right for a request that PostgreSQL skipped, or that failed.
    pub fn undo(&mut self, entry: Expect, conn: &mut ConnState) {
        match entry.kind {
            Kind::Parse | Kind::ParseCached | Kind::Close => {
                let is_unnamed = entry.changes_unnamed();
                match (entry.name, entry.before) {
                    (_, before) if is_unnamed => {
                        if !conn.expect.remember_unnamed(before.as_ref()) {
                            self.unnamed = before;
                        }
                    }
                    (Some(name), Some(before)) => drop(self.named.insert(name, before)),
                    (Some(name), None) => {
                        self.named.remove(&name);
                        // Nor is it on the connection under the client's name.
                        self.is_not_there(&name);
                    }
                    (None, _) => {}
                }
                if let (Kind::Parse, Some(statement)) = (entry.kind, &entry.statement) {
                    conn.statements.remove(statement);
                    conn.unnamed = None;
                }
            }
            Kind::ParseInjected => {
                conn.unnamed = None;
                if let Some(name) = entry.name {
                    self.is_not_there(&name);
                }
                if let Some(statement) = &entry.statement {
                    conn.statements.remove(statement);
                }
            }
            Kind::Attempt => {
                if let Some(name) = entry.name {
                    self.is_not_there(&name);
                }
            }
            Kind::CloseInjected => conn.leftovers.extend(entry.name),
            _ => {}
        }
    }
}

/// Number of the batch that PostgreSQL works on.
fn in_work(conn: &ConnState) -> u64 {
    conn.expect.last_ended() + 1
}

/// Whether a definition cannot change what other statements mean or do. The settings of a role
/// count where another one logs in for it.
fn is_harmless(command: &str) -> bool {
    const KINDS: [&str; 6] = ["INDEX", "ROLE", "DATABASE", "STATISTICS", "TABLESPACE", "SEQUENCE"];
    let kind = command.split(' ').nth(1);
    command != "ALTER ROLE" && kind.is_some_and(|kind| KINDS.contains(&kind))
}
