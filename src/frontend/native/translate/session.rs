//! Transactions, settings, channels: requests that are a command of SQL.

use std::sync::atomic::Ordering;

use super::query::Run;
use super::{Done, Failure, Translator};
use crate::frontend::native::{errors, purity_word};
use crate::proto::backend::TxStatus;
use crate::proto::native::{
    AuthReply, Isolation, Message, Notification, Purity, SessionCommand, Severity,
};
use crate::query::{Effects, quote_ident, quote_literal};
use crate::session::{CLASS, PURITY, TAG, TAG_FOUND, TAG_MATCH, check_pooling};

/// How a pooled session fits.
const FOUND: &str = "SELECT pg_catalog.current_setting('rustydb.tag_match', true), \
     pg_catalog.current_setting('rustydb.tag_found', true)";

/// A name as it stands in SQL text.
pub(super) fn quoted(name: &str) -> Result<String, Failure> {
    if name.is_empty() || name.contains('\0') {
        let text = "a name is empty or contains a NUL character";
        return Err(errors::refusal("42602", "VALIDATION_ERROR", text));
    }
    Ok(quote_ident(name))
}

/// The name of a setting, which may have parts.
fn setting(name: &str) -> Result<String, Failure> {
    let parts: Result<Vec<String>, Failure> = name.split('.').map(quoted).collect();
    Ok(parts?.join("."))
}

/// A text as a constant of SQL.
pub(super) fn literal(text: &str) -> Result<String, Failure> {
    match text.contains('\0') {
        true => Err(errors::refusal("22021", "VALIDATION_ERROR", "a NUL character in a value")),
        false => Ok(quote_literal(text)),
    }
}

/// Whether a setting says what pooled session is asked for.
fn is_wish(name: &str) -> bool {
    [CLASS, PURITY, TAG].iter().any(|word| word.eq_ignore_ascii_case(name))
}

/// A value of such a setting, written so that it is read in the text of the command.
fn wish_literal(value: &str) -> Result<String, Failure> {
    if value.contains(['\\', '\0']) {
        let text = "a backslash or NUL character in a connection class, purity or tag";
        return Err(errors::refusal("22023", "VALIDATION_ERROR", text));
    }
    Ok(format!("'{}'", value.replace('\'', "''")))
}

impl Translator {
    /// Begins a transaction; returns the number that the client knows it by.
    pub(super) async fn begin(
        &mut self,
        isolation: Option<Isolation>,
        read_only: Option<bool>,
        deferrable: Option<bool>,
    ) -> Result<u64, Failure> {
        match self.tx() {
            TxStatus::Idle => {}
            TxStatus::Open => {
                let text = "there is already a transaction in progress";
                return Err(errors::refusal("25001", "VALIDATION_ERROR", text));
            }
            TxStatus::Failed => return Err(aborted()),
        }
        let isolation = match isolation {
            None => "",
            Some(Isolation::ReadUncommitted) => " ISOLATION LEVEL READ UNCOMMITTED",
            Some(Isolation::ReadCommitted) => " ISOLATION LEVEL READ COMMITTED",
            Some(Isolation::RepeatableRead) => " ISOLATION LEVEL REPEATABLE READ",
            Some(Isolation::Serializable) => " ISOLATION LEVEL SERIALIZABLE",
        };
        let read_only = match read_only {
            None => "",
            Some(true) => " READ ONLY",
            Some(false) => " READ WRITE",
        };
        let deferrable = match deferrable {
            None => "",
            Some(true) => " DEFERRABLE",
            Some(false) => " NOT DEFERRABLE",
        };
        self.command(&format!("BEGIN{isolation}{read_only}{deferrable}")).await?;
        Ok(self.transactions.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(super) async fn commit(&mut self, and_chain: bool) -> Result<Done, Failure> {
        self.in_transaction()?;
        self.command(if and_chain { "COMMIT AND CHAIN" } else { "COMMIT" }).await
    }

    pub(super) async fn rollback(
        &mut self,
        savepoint: Option<&str>,
        and_chain: bool,
    ) -> Result<Done, Failure> {
        self.in_transaction()?;
        match savepoint {
            Some(name) => self.command(&format!("ROLLBACK TO SAVEPOINT {}", quoted(name)?)).await,
            None if and_chain => self.command("ROLLBACK AND CHAIN").await,
            None => self.command("ROLLBACK").await,
        }
    }

    pub(super) async fn savepoint(&mut self, name: &str, release: bool) -> Result<Done, Failure> {
        let verb = if release { "RELEASE SAVEPOINT" } else { "SAVEPOINT" };
        self.command(&format!("{verb} {}", quoted(name)?)).await
    }

    fn in_transaction(&self) -> Result<(), Failure> {
        match self.tx() {
            TxStatus::Idle => {
                let text = "there is no transaction in progress";
                Err(errors::refusal("25P01", "VALIDATION_ERROR", text))
            }
            TxStatus::Open | TxStatus::Failed => Ok(()),
        }
    }

    pub(super) async fn session(
        &mut self,
        id: u64,
        command: SessionCommand,
    ) -> Result<(), Failure> {
        let done = match command {
            SessionCommand::Set { name, value, local: false } if is_wish(&name) => {
                // It is read in the text, where a function call would have to be looked for.
                let (name, value) = (setting(&name)?, wish_literal(&value)?);
                self.command(&format!("SET {name} TO {value}")).await?
            }
            SessionCommand::Set { name, value, local } => {
                // SET would read a list as one name.
                let (name, value) = (literal(&name)?, literal(&value)?);
                let sql = format!("SELECT pg_catalog.set_config({name}, {value}, {local})");
                self.command(&sql).await?;
                Done { tag: "SET".into(), rows: 0 }
            }
            SessionCommand::Show { name } => return self.show(id, &name).await,
            SessionCommand::Reset { name: None } => self.command("RESET ALL").await?,
            SessionCommand::Reset { name: Some(name) } => {
                self.command(&format!("RESET {}", setting(&name)?)).await?
            }
            SessionCommand::DiscardAll => self.discard_all().await?,
            SessionCommand::Acquire { connection_class, tag, purity } => {
                return self.acquire(id, connection_class, tag, purity).await;
            }
            SessionCommand::Release { tag } => self.release(tag).await?,
        };
        self.ok(id, done).await
    }

    async fn show(&mut self, id: u64, name: &str) -> Result<(), Failure> {
        let sql = format!("SHOW {}", setting(name)?);
        let run = Run {
            sql: &sql,
            params: &[],
            types: Vec::new(),
            max_rows: 0,
            is_last: true,
            is_alone: true,
        };
        let mut response = self.response(id, 0, false);
        let done = self.run(&run, &mut response).await?;
        self.settle().await?;
        self.conclude_response(response, &done).await
    }

    async fn discard_all(&mut self) -> Result<Done, Failure> {
        let done = self.command("DISCARD ALL").await?;
        self.statements.clear();
        Ok(done)
    }

    /// Asks for a pooled session, as PostgreSQL's clients do: with settings. What the session had
    /// before goes to the next of its class, or is discarded; nothing of it is in the new one.
    async fn acquire(
        &mut self,
        id: u64,
        class: Option<String>,
        tag: Option<String>,
        purity: Purity,
    ) -> Result<(), Failure> {
        if self.tx() != TxStatus::Idle {
            let text = "a session cannot be acquired within a transaction";
            return Err(errors::refusal("25001", "VALIDATION_ERROR", text));
        }
        let (class, tag) = (class.unwrap_or_default(), tag.unwrap_or_default());
        let purity = purity_word(purity);
        check_pooling(&class, Some(purity), &tag)
            .map_err(|error| Box::new(errors::of_error(&error, Severity::Error)))?;
        let is_pooled = self.is_pooled();
        if !is_pooled {
            self.discard_all().await?;
        }
        // In one request, which a session that is held still serves: another connection for it
        // could be the parked one that is wanted.
        let first = if is_pooled { "SET rustydb.purity TO 'any'; " } else { "" };
        let (class, tag) = (wish_literal(&class)?, wish_literal(&tag)?);
        let sql = format!(
            "{first}SET rustydb.connection_class TO {class}; SET rustydb.tag TO {tag}; \
             SET rustydb.purity TO '{purity}'"
        );
        self.command(&sql).await?;
        if is_pooled {
            self.statements.clear();
        }
        let parameters = match purity {
            "any" => vec![(TAG_MATCH.to_owned(), "none".to_owned())],
            _ => {
                // This is the request that borrows it.
                self.command("").await?;
                self.found().await?
            }
        };
        let success = AuthReply::Success {
            session_id: self.session,
            user: self.role.clone(),
            roles: Vec::new(),
            parameters,
        };
        self.answer(id, &Message::AuthReply(success)).await
    }

    /// How the pooled session that is held fits what was asked for.
    pub(super) async fn found(&mut self) -> Result<Vec<(String, String)>, Failure> {
        if !self.is_pooled() {
            return Ok(Vec::new());
        }
        let rows = self.text_rows(FOUND).await?;
        let mut values = rows.into_iter().next().unwrap_or_default().into_iter();
        let mut value = |name: &str| (name.to_owned(), values.next().flatten().unwrap_or_default());
        Ok(vec![value(TAG_MATCH), value(TAG_FOUND)])
    }

    pub(super) fn is_pooled(&self) -> bool {
        Effects::from_bits(self.tally.pinned()).has(Effects::POOLED)
    }

    /// Gives a pooled session to the next of its class; another one gives up what would keep it on
    /// its connection.
    async fn release(&mut self, tag: Option<String>) -> Result<Done, Failure> {
        let tag = tag.unwrap_or_default();
        check_pooling("", None, &tag)
            .map_err(|error| Box::new(errors::of_error(&error, Severity::Error)))?;
        if self.tx() != TxStatus::Idle {
            self.command("ROLLBACK").await?;
        }
        if self.is_pooled() {
            let tag = match tag.as_str() {
                "" => String::new(),
                tag => format!("SET rustydb.tag TO {}; ", wish_literal(tag)?),
            };
            self.command(&format!("{tag}SET rustydb.purity TO 'any'")).await?;
            self.statements.clear();
        } else {
            self.discard_all().await?;
        }
        Ok(Done { tag: "RELEASE".into(), rows: 0 })
    }

    pub(super) async fn notification(
        &mut self,
        id: u64,
        notification: Notification,
    ) -> Result<(), Failure> {
        let sql = match notification {
            Notification::Listen { channel } => format!("LISTEN {}", quoted(&channel)?),
            Notification::Unlisten { channel: Some(channel) } => {
                format!("UNLISTEN {}", quoted(&channel)?)
            }
            Notification::Unlisten { channel: None } => "UNLISTEN *".to_owned(),
            _ => return Err(errors::violation("a message that only a server sends")),
        };
        let done = self.command(&sql).await?;
        self.ok(id, done).await
    }
}

fn aborted() -> Failure {
    let text = "current transaction is aborted, commands ignored until end of transaction block";
    errors::refusal("25P02", "TRANSACTION_FAILED", text)
}
