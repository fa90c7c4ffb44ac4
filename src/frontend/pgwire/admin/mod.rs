//! The console behind the database `rustydb_admin`: a small server of the PostgreSQL protocol whose
//! statements are commands to RustyDB. It borrows no connection, so it works when there is none.

mod command;
mod extended;
mod show;

use std::io;
use std::time::Duration;

use command::{Command, Victim, parse_all};
use extended::Prepared;
use show::{Columns, Rows};

use super::tell;
use crate::error::{Error, ErrorKind, Result};
use crate::net::{ReadAhead, Stream};
use crate::proto::backend::{self as replies, Severity, put_error};
use crate::proto::frame::HEADER;
use crate::proto::frontend::tag;
use crate::proto::{Cursor, rows};
use crate::session::admin::{self, Admin, Authority, Order};
use crate::session::{Entry, Stop};

/// Longest message of a console's client.
const LONGEST: usize = 64 << 10;

/// Bytes of answers that are collected before they are sent.
const BATCH: usize = 64 << 10;

/// Time for a client to take an answer.
const WRITE_LIMIT: Duration = Duration::from_secs(60);

/// How often the client is looked after while a command runs.
const CLIENT_CHECK: Duration = Duration::from_millis(250);

/// A console with its client.
pub(super) struct Console {
    stream: Stream,
    admin: Admin,
    place: admin::Console,
    authority: Authority,
    /// The message that is being read.
    inbound: ReadAhead,
    outbound: Vec<u8>,
    in_transaction: bool,
    prepared: Prepared,
}

/// What a command gives.
struct Outcome {
    table: Option<(Columns, Rows)>,
    tag: String,
}

/// Why a console ends.
enum End {
    /// The client left, or cannot be told anything.
    Gone,
    /// The client is to be told.
    Told(Error),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        End::Gone
    }
}

impl Console {
    pub(super) fn new(
        stream: Stream,
        ahead: ReadAhead,
        admin: Admin,
        place: admin::Console,
        authority: Authority,
    ) -> Self {
        Self {
            stream,
            admin,
            place,
            authority,
            inbound: ahead,
            outbound: Vec::new(),
            in_transaction: false,
            prepared: Prepared::default(),
        }
    }

    /// Serves until one side ends.
    pub(super) async fn run(mut self) {
        let end = loop {
            let Self { stream, inbound, place, .. } = &mut self;
            let message = tokio::select! {
                message = message(stream, inbound) => message,
                stop = place.stopped() => {
                    place.ended_by(stop.reason());
                    Err(End::Told(stop.error()))
                }
            };
            let carried_out = match message {
                Ok((tag, body)) => self.carry_out(tag, &body).await,
                Err(end) => Err(end),
            };
            if let Err(end) = carried_out {
                break end;
            }
        };
        if let End::Told(error) = end {
            tell(&mut self.stream, &error).await;
        }
    }

    async fn carry_out(&mut self, tag: u8, body: &[u8]) -> Result<(), End> {
        match tag {
            tag::TERMINATE => return Err(End::Gone),
            tag::QUERY => {
                self.query(body).await;
                self.ready();
                self.flush().await?;
            }
            tag::SYNC => {
                self.prepared.synced();
                self.ready();
                self.flush().await?;
            }
            tag::FLUSH => self.flush().await?,
            tag::FUNCTION_CALL => {
                let text = "the administration console has no functions";
                self.fail(&Error::new(ErrorKind::NotSupported, text));
                self.ready();
                self.flush().await?;
            }
            // What the client had on its way for a COPY that there is not.
            tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL => {}
            tag::PARSE | tag::BIND | tag::DESCRIBE | tag::EXECUTE | tag::CLOSE => {
                self.extended(tag, body).await;
                if self.outbound.len() > BATCH {
                    self.flush().await?;
                }
            }
            _ => {
                let text = format!("invalid frontend message type {tag}");
                return Err(End::Told(Error::new(ErrorKind::ProtocolViolation, text)));
            }
        }
        Ok(())
    }

    async fn query(&mut self, body: &[u8]) {
        let commands = match text_of(&mut Cursor(body)) {
            Ok(text) => parse_all(text),
            Err(error) => return self.fail(&error),
        };
        if commands.is_empty() {
            rows::put_empty(&mut self.outbound, replies::tag::EMPTY_QUERY);
        }
        for command in commands {
            let outcome = match command {
                Ok(command) => self.execute(&command).await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(outcome) => self.put(&outcome),
                Err(error) => return self.fail(&error),
            }
        }
    }

    fn put(&mut self, outcome: &Outcome) {
        let out = &mut self.outbound;
        if let Some((columns, rows)) = &outcome.table {
            rows::put_row_description(out, columns, |_| false);
            rows.iter().for_each(|row| rows::put_data_row(out, row, |_| false));
        }
        rows::put_command_complete(out, &outcome.tag);
    }

    fn fail(&mut self, error: &Error) {
        put_error(&mut self.outbound, Severity::Error, error);
    }

    fn ready(&mut self) {
        rows::put_ready_in(&mut self.outbound, self.in_transaction);
    }

    async fn flush(&mut self) -> Result<(), End> {
        let written = tokio::time::timeout(WRITE_LIMIT, self.stream.write_all(&self.outbound));
        written.await.map_err(|_| End::Gone)??;
        // What a long table took is given back.
        self.outbound = Vec::new();
        Ok(())
    }

    /// Carries out a command. What takes long ends early when the client cancels, or leaves.
    async fn execute(&mut self, command: &Command) -> Result<Outcome> {
        self.check_authority(command)?;
        if let Command::Transaction(open, _) = command {
            self.in_transaction = *open;
        }
        let Self { admin, place, stream, .. } = self;
        if let Some(command) = command.to_log() {
            let Entry { id, role, .. } = place.entry();
            tracing::info!(session = %id, %role, command, "an administrator's command");
        }
        tokio::select! {
            biased;
            outcome = carry_out(admin, place.entry(), command) => outcome,
            stop = place.stopped() => Err(stop.error()),
            () = gone(stream) => Err(Stop::Now.error()),
            () = place.interrupted() => {
                let text = "canceling statement due to user request";
                let error = Error::new(ErrorKind::Cancelled, text);
                Err(match command {
                    Command::Pause(_) => error.with_hint("the pause is in force; RESUME ends it"),
                    _ => error,
                })
            }
        }
    }

    fn check_authority(&self, command: &Command) -> Result<()> {
        let looks = matches!(
            command,
            Command::Empty | Command::Show(_) | Command::Ignored(_) | Command::Transaction(..)
        );
        if looks || self.authority == Authority::All {
            return Ok(());
        }
        Err(Error::sql(b"42501", "permission denied: your role may look, and change nothing")
            .with_hint("log in as a superuser or as a role of admin.users"))
    }
}

async fn carry_out(admin: &Admin, own: &Entry, command: &Command) -> Result<Outcome> {
    let done = |tag: &str| Outcome { table: None, tag: tag.to_owned() };
    Ok(match command {
        Command::Empty => done(""),
        Command::Show(show) => {
            Outcome { table: Some((show.columns(), show.rows(admin))), tag: "SHOW".to_owned() }
        }
        Command::Pause(database) => {
            if let Some(database) = database {
                admin.must_exist(database).await?;
            }
            admin.pause(database.as_ref()).await?;
            done("PAUSE")
        }
        Command::Resume(database) => {
            admin.resume(database.as_ref())?;
            done("RESUME")
        }
        Command::Reconnect(database) => {
            if let Some(database) = database {
                admin.must_exist(database).await?;
            }
            admin.reconnect(database.as_ref());
            done("RECONNECT")
        }
        Command::Kill(victim) => {
            let killed = match victim {
                Victim::Client(id) => admin.kill(|entry| entry.id.0 == *id),
                Victim::Database(name) => {
                    admin.kill(|entry| entry.database == *name && entry.id != own.id)
                }
            };
            match (killed, victim) {
                (0, Victim::Client(id)) => {
                    return Err(Error::sql(b"42704", format!("there is no client {id}"))
                        .with_hint("SHOW CLIENTS tells the id of each"));
                }
                (0, Victim::Database(name)) => admin.must_exist(name).await?,
                _ => {}
            }
            done(&format!("KILL {killed}"))
        }
        Command::Set(key, value) => {
            admin.set(key, value).await?;
            done("SET")
        }
        Command::Reload => {
            admin.reload().await?;
            done("RELOAD")
        }
        Command::Drain => {
            admin.order(Order::Drain)?;
            done("DRAIN")
        }
        Command::Shutdown { at_once } => {
            admin.order(Order::Shutdown { at_once: *at_once })?;
            done("SHUTDOWN")
        }
        Command::Ignored(tag) | Command::Transaction(_, tag) => done(tag),
    })
}

/// Returns when the client has closed its side.
async fn gone(stream: &Stream) {
    while !stream.peer_has_closed() {
        tokio::time::sleep(CLIENT_CHECK).await;
    }
}

/// The next message; what was read of it is kept when this is dropped on the way.
async fn message(stream: &mut Stream, inbound: &mut ReadAhead) -> Result<(u8, Vec<u8>), End> {
    let (tag, length) = match inbound.peek(stream, HEADER).await? {
        Some(&[tag, a, b, c, d, ..]) => (tag, u32::from_be_bytes([a, b, c, d]) as usize),
        _ => return Err(End::Gone),
    };
    if !(4..=LONGEST).contains(&length) {
        let text = format!("invalid message length {length}");
        return Err(End::Told(Error::new(ErrorKind::ProtocolViolation, text)));
    }
    match inbound.peek(stream, 1 + length).await? {
        Some(bytes) => {
            let body = bytes[HEADER..=length].to_vec();
            inbound.take(1 + length);
            Ok((tag, body))
        }
        None => Err(End::Gone),
    }
}

/// The next string of a message.
fn text_of<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str> {
    let bytes = cursor.cstr().map_err(malformed)?;
    let invalid = |_| Error::sql(b"22021", "invalid byte sequence for encoding \"UTF8\"");
    std::str::from_utf8(bytes).map_err(invalid)
}

fn malformed(cause: crate::proto::Malformed) -> Error {
    Error::new(ErrorKind::ProtocolViolation, cause.0)
}
