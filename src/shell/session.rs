//! The connection of the shell: made, made again, asked; a running statement can be cancelled.

use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustydb_client::{Config, Connection, Error, Notification, Params, Result, Row};
use tokio::runtime::{Builder, Handle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

/// Environment variables with a password, the first that is set counts.
const PASSWORDS: [&str; 2] = ["RUSTYDB_PASSWORD", "PGPASSWORD"];

/// Exit code of what Ctrl-C has ended, as shells have it.
const INTERRUPTED: i32 = 130;

/// A connection, and what is needed to make it again.
pub(super) struct Session {
    background: Background,
    pub(super) config: Config,
    pub(super) connection: Connection,
    /// Ctrl-C was pressed while something ran.
    pub(super) was_interrupted: bool,
}

/// The thread that moves the bytes and hears of Ctrl-C; the shell itself blocks on the user, and on
/// its output.
#[derive(Clone)]
pub(super) struct Background {
    handle: Handle,
    interrupt: Arc<Interrupt>,
}

/// Ctrl-C.
#[derive(Default)]
pub(super) struct Interrupt {
    /// Something runs that it ends.
    is_awaited: AtomicBool,
    /// Somebody types, so that it ends nothing at other times.
    is_typed: AtomicBool,
    was_pressed: AtomicBool,
    pressed: Notify,
}

impl Interrupt {
    /// Whether it was pressed since the last statement began.
    pub(super) fn was_pressed(&self) -> bool {
        self.was_pressed.load(Ordering::Acquire)
    }

    /// From now on it does not end the shell.
    pub(super) fn spare_shell(&self) {
        self.is_typed.store(true, Ordering::Release);
    }

    fn press(&self) {
        if self.is_awaited.load(Ordering::Acquire) {
            self.was_pressed.store(true, Ordering::Release);
            let _ = writeln!(io::stderr(), "Cancel request sent");
            self.pressed.notify_one();
        } else if !self.is_typed.load(Ordering::Acquire) {
            std::process::exit(INTERRUPTED);
        }
    }
}

impl Background {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has none to give, or no way to hear of signals.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, interrupt) = (runtime.handle().clone(), Arc::new(Interrupt::default()));
        let heard = interrupt.clone();
        let mut signals = {
            let _inside = runtime.enter();
            signal(SignalKind::interrupt())?
        };
        let listen = async move {
            while signals.recv().await.is_some() {
                heard.press();
            }
        };
        std::thread::Builder::new()
            .name("connection".into())
            .spawn(move || runtime.block_on(listen))?;
        Ok(Self { handle, interrupt })
    }
}

impl Session {
    /// Connects; asks for a password if one is needed and somebody is there.
    ///
    /// # Errors
    /// Why that is not possible.
    pub(super) fn open(background: Background, mut config: Config) -> Result<Self> {
        let handle = &background.handle;
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
        Ok(Self { background, config, connection, was_interrupted: false })
    }

    /// The same with another configuration; this one stays as it is if that fails.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub(super) fn reopen(&mut self, config: Config) -> Result<()> {
        *self = Self::open(self.background.clone(), config)?;
        Ok(())
    }

    /// Ctrl-C, for what takes its time without waiting for the server.
    pub(super) fn interrupt(&self) -> &Interrupt {
        &self.background.interrupt
    }

    /// Runs something on the connection; Ctrl-C cancels it.
    pub(super) fn wait<'a, T>(&'a self, run: impl FnOnce(&'a Connection) -> T) -> (T::Output, bool)
    where
        T: Future,
    {
        let interrupt = self.interrupt();
        interrupt.was_pressed.store(false, Ordering::Release);
        interrupt.is_awaited.store(true, Ordering::Release);
        let result = self.background.handle.block_on(async {
            let mut run = pin!(run(&self.connection));
            loop {
                tokio::select! {
                    result = &mut run => return result,
                    () = interrupt.pressed.notified() => {
                        if interrupt.was_pressed() {
                            self.connection.cancel();
                        }
                    }
                }
            }
        });
        interrupt.is_awaited.store(false, Ordering::Release);
        (result, interrupt.was_pressed())
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
    use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, tcgetattr, tcsetattr};
    let terminal = io::stdin();
    let mut error = io::stderr();
    write!(error, "{prompt}")?;
    error.flush()?;
    let before = tcgetattr(&terminal)?;
    let mut hidden = before.clone();
    // Ctrl-C ends the line instead of the shell, which would leave the terminal as it is now.
    let interrupt = hidden.control_chars[SpecialCharacterIndices::VINTR as usize];
    hidden.local_flags.remove(LocalFlags::ECHO | LocalFlags::ISIG);
    hidden.control_chars[SpecialCharacterIndices::VEOL as usize] = interrupt;
    tcsetattr(&terminal, SetArg::TCSAFLUSH, &hidden)?;
    let mut line = String::new();
    let read = terminal.read_line(&mut line);
    tcsetattr(&terminal, SetArg::TCSAFLUSH, &before)?;
    writeln!(error)?;
    read?;
    if line.ends_with(char::from(interrupt)) {
        return Err(io::ErrorKind::Interrupted.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
