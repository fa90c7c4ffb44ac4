//! The extended protocol of the console, for drivers that use nothing else: commands have no
//! parameters, and their columns are known before they run.

use std::collections::HashMap;

use super::command::{Command, parse_all};
use super::show::{Columns, Rows};
use super::{Console, malformed, text_of};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::Cursor;
use crate::proto::backend::tag as reply;
use crate::proto::frontend::tag;
use crate::proto::rows;

/// Statements, and portals, that a client may have at once.
const MOST: usize = 100;

/// What the client has prepared.
#[derive(Default)]
pub(super) struct Prepared {
    statements: HashMap<String, Command>,
    portals: HashMap<String, Portal>,
    /// After an error everything up to the next Sync is passed over.
    failed: bool,
}

struct Portal {
    command: Command,
    formats: Formats,
    /// What is left to send, once it was run; the tag comes after it.
    running: Option<(std::vec::IntoIter<Vec<rows::Cell>>, String)>,
}

/// Formats of the columns, as Bind asks for them.
#[derive(Clone, Default)]
struct Formats(Vec<bool>);

impl Formats {
    fn is_binary(&self, column: usize) -> bool {
        match self.0.as_slice() {
            [all] => *all,
            each => each.get(column).copied().unwrap_or(false),
        }
    }
}

impl Prepared {
    /// A Sync came. Portals end with their transaction.
    pub(super) fn synced(&mut self) {
        self.failed = false;
        self.portals.clear();
    }
}

impl Command {
    fn columns(&self) -> Option<Columns> {
        match self {
            Command::Show(show) => Some(show.columns()),
            _ => None,
        }
    }
}

impl Console {
    /// Carries out a message of the extended protocol.
    pub(super) async fn extended(&mut self, tag: u8, body: &[u8]) {
        if self.prepared.failed {
            return;
        }
        let mut cursor = Cursor(body);
        let done = match tag {
            tag::PARSE => self.parse(&mut cursor),
            tag::BIND => self.bind(&mut cursor),
            tag::DESCRIBE => self.describe(&mut cursor),
            tag::EXECUTE => self.execute_portal(&mut cursor).await,
            _ => self.close(&mut cursor),
        };
        if let Err(error) = done {
            self.prepared.failed = true;
            self.fail(&error);
        }
    }

    fn parse(&mut self, body: &mut Cursor<'_>) -> Result<()> {
        let (name, text) = (text_of(body)?, text_of(body)?);
        if body.i16().map_err(malformed)? != 0 {
            return Err(no_parameters());
        }
        let mut commands = parse_all(text);
        let command = match commands.len() {
            0 => Command::Empty,
            1 => commands.remove(0)?,
            _ => {
                let text = "cannot insert multiple commands into a prepared statement";
                return Err(Error::sql(b"42601", text));
            }
        };
        let statements = &mut self.prepared.statements;
        if !name.is_empty() && statements.contains_key(name) {
            let text = format!("prepared statement \"{name}\" already exists");
            return Err(Error::sql(b"42P05", text));
        }
        bounded(statements.len(), "prepared statements")?;
        statements.insert(name.to_owned(), command);
        rows::put_empty(&mut self.outbound, reply::PARSE_COMPLETE);
        Ok(())
    }

    fn bind(&mut self, body: &mut Cursor<'_>) -> Result<()> {
        let (portal, name) = (text_of(body)?.to_owned(), text_of(body)?);
        for _ in 0..body.i16().map_err(malformed)? {
            body.i16().map_err(malformed)?;
        }
        if body.i16().map_err(malformed)? != 0 {
            return Err(no_parameters());
        }
        let count = body.i16().map_err(malformed)?;
        let formats: Result<Vec<bool>> =
            (0..count).map(|_| body.i16().map(|format| format == 1).map_err(malformed)).collect();
        let command = self.statement(name)?.clone();
        bounded(self.prepared.portals.len(), "portals")?;
        let made = Portal { command, formats: Formats(formats?), running: None };
        self.prepared.portals.insert(portal, made);
        rows::put_empty(&mut self.outbound, reply::BIND_COMPLETE);
        Ok(())
    }

    fn statement(&self, name: &str) -> Result<&Command> {
        self.prepared.statements.get(name).ok_or_else(|| {
            Error::sql(b"26000", format!("prepared statement \"{name}\" does not exist"))
        })
    }

    fn describe(&mut self, body: &mut Cursor<'_>) -> Result<()> {
        let (kind, name) = (body.u8().map_err(malformed)?, text_of(body)?);
        let (columns, formats) = match kind {
            b'S' => {
                let columns = self.statement(name)?.columns();
                rows::put_no_parameters(&mut self.outbound);
                (columns, Formats::default())
            }
            b'P' => {
                let portal = self.prepared.portals.get(name).ok_or_else(|| no_portal(name))?;
                (portal.command.columns(), portal.formats.clone())
            }
            _ => return Err(malformed(crate::proto::Malformed("invalid DESCRIBE message"))),
        };
        let out = &mut self.outbound;
        match columns {
            Some(columns) => rows::put_row_description(out, columns, |at| formats.is_binary(at)),
            None => rows::put_empty(out, reply::NO_DATA),
        }
        Ok(())
    }

    async fn execute_portal(&mut self, body: &mut Cursor<'_>) -> Result<()> {
        let name = text_of(body)?;
        let limit = usize::try_from(body.i32().map_err(malformed)?).unwrap_or(0);
        let limit = if limit == 0 { usize::MAX } else { limit };
        // Taken out, because running it needs the console.
        let taken = self.prepared.portals.remove_entry(name);
        let (name, mut portal) = taken.ok_or_else(|| no_portal(name))?;
        if portal.command == Command::Empty {
            rows::put_empty(&mut self.outbound, reply::EMPTY_QUERY);
            self.prepared.portals.insert(name, portal);
            return Ok(());
        }
        let (mut left, tag) = match portal.running.take() {
            Some(running) => running,
            None => {
                let outcome = self.execute(&portal.command).await?;
                let table: Rows = outcome.table.map_or_else(Vec::new, |(_, rows)| rows);
                (table.into_iter(), outcome.tag)
            }
        };
        let out = &mut self.outbound;
        for row in left.by_ref().take(limit) {
            rows::put_data_row(out, &row, |at| portal.formats.is_binary(at));
        }
        match left.len() {
            0 => rows::put_command_complete(out, &tag),
            _ => rows::put_empty(out, reply::PORTAL_SUSPENDED),
        }
        portal.running = Some((left, tag));
        self.prepared.portals.insert(name, portal);
        Ok(())
    }

    fn close(&mut self, body: &mut Cursor<'_>) -> Result<()> {
        let (kind, name) = (body.u8().map_err(malformed)?, text_of(body)?);
        match kind {
            b'S' => drop(self.prepared.statements.remove(name)),
            _ => drop(self.prepared.portals.remove(name)),
        }
        rows::put_empty(&mut self.outbound, reply::CLOSE_COMPLETE);
        Ok(())
    }
}

fn bounded(have: usize, what: &str) -> Result<()> {
    match have < MOST {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::LimitReached, format!("{MOST} {what} exist already"))
            .with_hint("close some of them")),
    }
}

fn no_parameters() -> Error {
    Error::new(ErrorKind::NotSupported, "the commands of the console have no parameters")
        .with_hint("write the name into the command")
}

fn no_portal(name: &str) -> Error {
    Error::sql(b"34000", format!("portal \"{name}\" does not exist"))
}
