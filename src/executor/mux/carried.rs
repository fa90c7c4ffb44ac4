//! Prepared statements that SQL refers to (`PREPARE`, `EXECUTE`, `DEALLOCATE`): they are on the
//! connection under the client's own names. The session stays there as long as nobody else wants
//! the connection; then it leaves, and prepares them again where it comes to.

use crate::backend::{ConnState, Kind};
use crate::executor::mux::Mux;
use crate::proto::frontend::{put_close, put_parse, put_query};
use crate::query::{Class, Effects, Reference, classify};

/// Statements prepared with SQL that are carried along; with more the session stays.
const MAX_CARRIED: usize = 64;

/// What a Parse without a text has behind its name.
const EMPTY_STATEMENT: &[u8] = b"\0\0\0";

/// A statement prepared with SQL.
#[derive(Debug)]
pub struct Carried {
    /// Name.
    pub name: Box<[u8]>,
    /// The whole command, `PREPARE name AS …`.
    pub sql: Box<str>,
}

impl Mux {
    /// Whether only statements prepared with SQL hold the session, which can be prepared again.
    pub fn can_be_carried(&self) -> bool {
        self.pins == Effects::PREPARE && self.carried_effects.is_some() && !self.probe_due
    }

    /// Leaves the connection although there are statements prepared with SQL on it.
    pub fn carry_off(&mut self, conn: &mut ConnState) {
        conn.leftovers.extend(self.carried.iter().map(|one| one.name.clone()));
        conn.leftovers.extend(self.own.drain());
        self.native = false;
        self.pins = Effects::NONE;
    }

    /// Prepares again what was prepared with SQL.
    pub(super) fn carry_on(&mut self, conn: &mut ConnState, batch: &mut Vec<u8>) {
        for one in &self.carried {
            put_query(batch, one.sql.as_bytes());
            conn.expect.push(Kind::Attempt.into());
        }
        self.native = true;
        self.pins.add(Effects::PREPARE);
    }

    /// There are no prepared statements any more.
    pub(super) fn forget_statements(&mut self) {
        self.named.clear();
        self.own.clear();
        self.native = false;
        self.carried.clear();
        self.carried_effects = Some(Effects::NONE);
    }

    /// A look has shown which statements are there under the client's names.
    pub(super) fn learn_statements(
        &mut self,
        conn: &mut ConnState,
        prepared: Vec<Carried>,
        by_protocol: Vec<Box<[u8]>>,
    ) {
        let effects = |one: &Carried| classify(one.sql.as_bytes(), &self.names).effects;
        let all = prepared.iter().fold(Effects::NONE, |all, one| all.and(effects(one)));
        self.carried_effects = (prepared.len() <= MAX_CARRIED)
            .then(|| all.without(Effects::PREPARE.and(Effects::EXECUTES)));
        let gone = self.own.iter().filter(|name| !by_protocol.contains(name));
        for name in gone {
            self.named.remove(name);
        }
        self.own.clear();
        if prepared.is_empty() {
            self.native = false;
            conn.leftovers.extend(by_protocol);
        } else {
            self.own.extend(by_protocol);
        }
        self.carried = prepared;
    }

    /// Puts the statements that SQL is about to refer to on the connection under the client's
    /// names. Returns the messages for it, and how each is answered.
    pub(super) fn under_own_names(
        &mut self,
        conn: &mut ConnState,
        class: &Class,
    ) -> Vec<(Kind, Vec<u8>)> {
        let mut batch = Vec::new();
        let mut push = |kind, write: &dyn Fn(&mut Vec<u8>)| {
            let mut message = Vec::new();
            write(&mut message);
            batch.push((kind, message));
        };
        if class.effects.has(Effects::PREPARE) {
            self.native = true;
        }
        let lists = class.effects.has(Effects::LISTS_STATEMENTS);
        if lists {
            // Ours must not be seen.
            for name in conn.statements.names() {
                push(Kind::CloseInjected, &|out| put_close(out, name.as_bytes()));
            }
            conn.statements.clear();
        }
        for (name, statement) in &self.named {
            let refers = |reference: &&Reference| {
                let (Reference::Executes(other)
                | Reference::Prepares(other)
                | Reference::Deallocates(other)) = reference;
                other.as_bytes() == &**name
            };
            let reference = class.refers_to.iter().find(refers);
            if self.own.contains(name) || (reference.is_none() && !lists) {
                continue;
            }
            // For the others it is enough that there is one.
            let runs = lists || matches!(reference, Some(Reference::Executes(_)));
            let body = if runs { &*statement.body } else { EMPTY_STATEMENT };
            push(Kind::ParseInjected, &|out| put_parse(out, name, body));
            self.own.insert(name.clone());
        }
        if !self.own.is_empty() {
            self.native = true;
            self.batch.add(Effects::PREPARE);
        }
        batch
    }

    /// Statements that SQL takes away are not remembered.
    pub(super) fn deallocate(&mut self, class: &Class) {
        for reference in &class.refers_to {
            if let Reference::Deallocates(name) = reference {
                self.named.remove(name.as_bytes());
                self.own.remove(name.as_bytes());
            }
        }
    }
}
