//! The connection of the shell: made, made again, asked; a running statement can be cancelled.

use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::pin::pin;

use rustydb_client::{Config, Connection, Error, Notification, Params, Result, Row};
use tokio::runtime::{Builder, Handle};
use tokio::signal::unix::{SignalKind, signal};

/// Environment variables with a password, the first that is set counts.
const PASSWORDS: [&str; 2] = ["RUSTYDB_PASSWORD", "PGPASSWORD"];

/// A connection, and what is needed to make it again.
pub(super) struct Session {
    handle: Handle,
    pub(super) config: Config,
    pub(super) connection: Connection,
    /// Ctrl-C was pressed while something ran.
    pub(super) was_interrupted: bool,
}

/// Starts the thread that moves the bytes; the shell itself blocks on the user.
pub(super) fn start_runtime() -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("connection".into())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(handle)
}

impl Session {
    /// Connects; asks for a password if one is needed and somebody is there.
    ///
    /// # Errors
    /// Why that is not possible.
    pub(super) fn open(handle: &Handle, mut config: Config) -> Result<Self> {
        if config.password.is_none() {
            let set = PASSWORDS.iter().find_map(|name| std::env::var(name).ok());
            config.password = set.map(Into::into);
        }
        let mut tried = handle.block_on(Connection::connect(config.clone()));
        if matches!(tried, Err(Error::PasswordNeeded)) && io::stdin().is_terminal() {
            let prompt = format!("Password for user {}: ", config.user);
            let entered = ask_hidden(&prompt).map_err(|e| Error::Connect(e.to_string()))?;
            config.password = Some(entered.into());
            tried = handle.block_on(Connection::connect(config.clone()));
        }
        let connection = tried?;
        Ok(Self { handle: handle.clone(), config, connection, was_interrupted: false })
    }

    /// The same with another configuration; this one stays as it is if that fails.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub(super) fn reopen(&mut self, config: Config) -> Result<()> {
        *self = Self::open(&self.handle, config)?;
        Ok(())
    }

    /// Runs something on the connection; Ctrl-C cancels it.
    pub(super) fn wait<'a, T>(&'a self, run: impl FnOnce(&'a Connection) -> T) -> (T::Output, bool)
    where
        T: Future,
    {
        self.handle.block_on(async {
            let mut was_interrupted = false;
            let mut run = pin!(run(&self.connection));
            let Ok(mut interrupts) = signal(SignalKind::interrupt()) else {
                return (run.await, false);
            };
            loop {
                tokio::select! {
                    result = &mut run => return (result, was_interrupted),
                    _ = interrupts.recv() => {
                        was_interrupted = true;
                        let _ = writeln!(io::stderr(), "Cancel request sent");
                        self.connection.cancel();
                    }
                }
            }
        })
    }

    /// The rows of a query about the database.
    ///
    /// # Errors
    /// What the server says.
    pub(super) fn rows(&mut self, sql: &str, params: &Params<'_>) -> Result<Vec<Row>> {
        let (rows, was_interrupted) = self.wait(|connection| connection.query(sql, params));
        self.was_interrupted |= was_interrupted;
        rows
    }

    /// Notices and notifications that have come, as psql says them.
    pub(super) fn notices(&self) -> Vec<String> {
        let mut said = Vec::new();
        while let Some(event) = self.connection.try_event() {
            said.extend(match event {
                Notification::Notice { severity, message, .. } => {
                    let severity = format!("{severity:?}").to_uppercase();
                    Some(format!("{severity}:  {message}"))
                }
                Notification::Event { channel, payload, process_id } => {
                    let with = match payload.is_empty() {
                        true => String::new(),
                        false => format!(" with payload \"{payload}\""),
                    };
                    Some(format!(
                        "Asynchronous notification \"{channel}\"{with} received from server \
                         process with PID {process_id}."
                    ))
                }
                Notification::Shutdown { reason, .. } => {
                    Some(format!("WARNING:  the server will stop: {reason}"))
                }
                _ => None,
            });
        }
        said
    }
}

/// Asks without showing what is typed.
fn ask_hidden(prompt: &str) -> io::Result<String> {
    use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
    let terminal = io::stdin();
    let mut error = io::stderr();
    write!(error, "{prompt}")?;
    error.flush()?;
    let before = tcgetattr(&terminal)?;
    let mut hidden = before.clone();
    hidden.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&terminal, SetArg::TCSAFLUSH, &hidden)?;
    let mut line = String::new();
    let read = terminal.read_line(&mut line);
    tcsetattr(&terminal, SetArg::TCSAFLUSH, &before)?;
    writeln!(error)?;
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
