//! Transactions, settings, channels: requests that are a command of SQL.

use std::sync::atomic::Ordering;

use super::query::Run;
use super::{Done, Failure, Translator};
use crate::frontend::native::errors;
use crate::proto::backend::TxStatus;
use crate::proto::native::{AuthReply, Isolation, Message, Notification, Purity, SessionCommand};
use crate::query::quote_literal;

/// A name as it stands in SQL text.
pub(super) fn quoted(name: &str) -> Result<String, Failure> {
    if name.is_empty() || name.contains('\0') {
        let text = "a name is empty or contains a NUL character";
        return Err(errors::refusal("42602", "VALIDATION_ERROR", text));
    }
    Ok(format!("\"{}\"", name.replace('"', "\"\"")))
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
            SessionCommand::Acquire { connection_class, purity, .. } => {
                return self.acquire(id, connection_class, purity).await;
            }
            SessionCommand::Release { .. } => self.release().await?,
        };
        self.ok(id, done).await
    }

    async fn show(&mut self, id: u64, name: &str) -> Result<(), Failure> {
        let sql = format!("SHOW {}", setting(name)?);
        let run = Run { sql: &sql, params: &[], types: Vec::new(), max_rows: 0, is_last: true };
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

    /// Transactions take pooled connections by themselves, with the session's own state on them;
    /// what remains is to have none of that state.
    async fn acquire(
        &mut self,
        id: u64,
        class: Option<String>,
        purity: Purity,
    ) -> Result<(), Failure> {
        if class.is_some_and(|class| class.len() > 128) {
            let text = "a connection class is longer than 128 bytes";
            return Err(errors::refusal("22023", "VALIDATION_ERROR", text));
        }
        if purity == Purity::New {
            self.discard_all().await?;
        }
        let success = AuthReply::Success {
            session_id: self.session,
            user: self.role.clone(),
            roles: Vec::new(),
            parameters: Vec::new(),
        };
        self.answer(id, &Message::AuthReply(success)).await
    }

    /// Gives up what would keep the session on its connection.
    async fn release(&mut self) -> Result<Done, Failure> {
        if self.tx() != TxStatus::Idle {
            self.command("ROLLBACK").await?;
        }
        self.discard_all().await?;
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
