//! `rustydb sql`: an interactive shell over the native protocol, in the manner of psql.
//!
//! It is a client like every other one and knows nothing of the server's inside.

mod commands;
mod describe;
mod input;
mod names;
mod report;
mod session;
mod split;
mod table;

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Instant;

use rustydb_client::types::text::{Style as TextStyle, Styled};
use rustydb_client::{Config, Connection, Error, ResultSet, Value};

use self::input::Source;
use self::session::{Background, Interrupt, Session};
use self::split::{Piece, Splitter};
use self::table::{Style, Table};

/// Where it connects to if nothing is said.
pub const DEFAULT_URL: &str = "rustydb://rustydb@localhost:5432/rustydb";

// Exit codes, as psql's.
const FAILED: u8 = 1;
const NO_CONNECTION: u8 = 2;
const SCRIPT_ERROR: u8 = 3;

/// What the command line asks for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `rustydb://…`; None = [`DEFAULT_URL`].
    pub url: Option<String>,
    /// What to run, in this order; nothing = what the user types, or standard input.
    pub steps: Vec<Step>,
    /// `NAME=VALUE`; there is `ON_ERROR_STOP`.
    pub variables: Vec<String>,
    /// Rows one value to a line.
    pub is_expanded: bool,
    /// Without padding.
    pub is_unaligned: bool,
    /// Rows only.
    pub is_bare: bool,
    /// No greeting and no tags of commands.
    pub is_quiet: bool,
}

/// One `-c` or `-f`.
#[derive(Clone, Debug)]
pub enum Step {
    /// Text that is run as one, or one command of the shell.
    Command(String),
    /// A file with statements and commands.
    File(PathBuf),
}

/// Runs the shell; returns the exit code: 0 done, 1 usage, file or `-c`, 2 no connection, 3 an
/// error in a script with `ON_ERROR_STOP`.
pub fn run(request: &Request) -> u8 {
    match Shell::open(request) {
        Ok(mut shell) => shell.run(&request.steps),
        Err((code, text)) => {
            complain(&format!("rustydb: {text}"));
            code
        }
    }
}

/// Says something on standard error.
fn complain(text: &str) {
    // There is nobody to tell if that fails.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Why input has ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// `\q`, or the end.
    Quit,
    /// With this exit code.
    Code(u8),
}

/// Settings and the connection.
struct Shell {
    session: Session,
    style: Style,
    is_timed: bool,
    is_quiet: bool,
    stops_on_error: bool,
    is_interactive: bool,
    /// How deep files include each other.
    depth: usize,
}

/// Files that include each other deeper than this probably include themselves.
const DEEPEST: usize = 64;

impl Shell {
    fn open(request: &Request) -> Result<Self, (u8, String)> {
        let url = request.url.as_deref().unwrap_or(DEFAULT_URL);
        let mut config: Config = url.parse().map_err(|e: Error| (FAILED, e.to_string()))?;
        let says = |option: &str| {
            let options = url.split_once('?').map_or("", |(_, options)| options);
            options.split('&').any(|one| one.split('=').next() == Some(option))
        };
        if !says("application_name") {
            config.application_name = "rustydb sql".into();
        }
        // Statements may take as long as they like.
        if !says("timeout") {
            config.timeout = None;
        }
        let mut stops_on_error = false;
        for variable in &request.variables {
            let (name, value) = variable.split_once('=').unwrap_or((variable, "on"));
            match name {
                "ON_ERROR_STOP" => stops_on_error = is_on(value),
                _ => return Err((FAILED, format!("-v {name}: there is only ON_ERROR_STOP"))),
            }
        }
        let background = Background::start().map_err(|e| (FAILED, e.to_string()))?;
        let session =
            Session::open(background, config).map_err(|e| (NO_CONNECTION, e.to_string()))?;
        let style = Style {
            is_expanded: request.is_expanded,
            is_unaligned: request.is_unaligned,
            is_bare: request.is_bare,
        };
        Ok(Self {
            session,
            style,
            is_timed: false,
            is_quiet: request.is_quiet,
            stops_on_error,
            is_interactive: request.steps.is_empty() && io::stdin().is_terminal(),
            depth: 0,
        })
    }

    fn run(&mut self, steps: &[Step]) -> u8 {
        if self.is_interactive {
            self.session.interrupt().spare_shell();
        }
        if steps.is_empty() {
            if self.is_interactive && !self.is_quiet {
                self.greet();
            }
            let source = match self.is_interactive {
                true => Source::terminal(),
                false => Ok(Source::standard_input()),
            };
            return match source {
                Ok(source) => self.read(source).code(),
                Err(e) => {
                    complain(&format!("rustydb: {e}"));
                    FAILED
                }
            };
        }
        for step in steps {
            let stop = match step {
                Step::Command(text) => self.command_line(text),
                Step::File(path) => self.file(path),
            };
            match stop {
                Ok(()) | Err(Stop::Quit) => {}
                Err(Stop::Code(code)) => return code,
            }
        }
        0
    }

    fn greet(&self) {
        let connection = &self.session.connection;
        let postgres = connection.parameter("server_version").unwrap_or_default();
        let server = connection.server();
        self.print(&format!(
            "{} {} (PostgreSQL {postgres})\nType \\? for help.\n\n",
            server.server_name, server.server_version
        ));
    }

    /// `-c`: one command of the shell, or a text that is run as one.
    fn command_line(&mut self, text: &str) -> Result<(), Stop> {
        let done = match text.trim_start().strip_prefix('\\') {
            Some(command) => self.command(command, ""),
            None => self.execute(text, ""),
        };
        match done {
            Ok(true) | Err(Stop::Quit) => Ok(()),
            Ok(false) => Err(Stop::Code(FAILED)),
            Err(stop) => Err(stop),
        }
    }

    /// Runs a file.
    fn file(&mut self, path: &std::path::Path) -> Result<(), Stop> {
        let opened = match self.depth < DEEPEST {
            true => Source::file(path),
            false => Err(io::Error::other("files include each other too deep")),
        };
        match opened {
            Ok(source) => {
                self.depth += 1;
                let was_interactive = std::mem::take(&mut self.is_interactive);
                let stop = self.read(source);
                self.is_interactive = was_interactive;
                self.depth -= 1;
                if stop == Stop::Quit { Ok(()) } else { Err(stop) }
            }
            Err(e) => {
                complain(&format!("rustydb: {}: {e}", path.display()));
                Err(Stop::Code(FAILED))
            }
        }
    }

    /// Runs everything that a source gives.
    fn read(&mut self, mut source: Source) -> Stop {
        let mut splitter = Splitter::default();
        loop {
            let prompt = self.prompt(&splitter);
            let line = match source.line(&prompt) {
                Ok(input::Line::Text(line)) => line,
                Ok(input::Line::Interrupted) => {
                    splitter.clear();
                    continue;
                }
                Ok(input::Line::End) => break,
                Err(e) => {
                    complain(&format!("rustydb: {e}"));
                    return Stop::Code(FAILED);
                }
            };
            let place = source.place();
            if self.is_interactive && splitter.is_empty() {
                match line.trim().trim_end_matches(';') {
                    "quit" | "exit" => break,
                    "help" => {
                        self.help();
                        source.remember();
                        continue;
                    }
                    _ => {}
                }
            }
            for piece in splitter.line(&line) {
                if let Err(stop) = self.piece(piece, &mut splitter, &mut source, &place) {
                    return stop;
                }
            }
            if splitter.is_empty() {
                source.remember();
            }
        }
        // A script's last statement needs no semicolon.
        let place = source.place();
        if !self.is_interactive
            && let Some(rest) = splitter.take_rest()
            && let Err(stop) =
                self.piece(Piece::Statement(rest), &mut splitter, &mut source, &place)
        {
            return stop;
        }
        source.remember();
        Stop::Quit
    }

    fn piece(
        &mut self,
        piece: Piece,
        splitter: &mut Splitter,
        source: &mut Source,
        place: &str,
    ) -> Result<(), Stop> {
        let is_good = match piece {
            Piece::Statement(sql) => self.execute(&sql, place)?,
            Piece::Command(command) => match command.split_whitespace().next() {
                Some("g") => match splitter.take_rest() {
                    Some(sql) => self.execute(&sql, place)?,
                    None => true,
                },
                Some("r" | "reset") => {
                    splitter.clear();
                    true
                }
                Some("p" | "print") => {
                    self.print(&format!("{}\n", splitter.text()));
                    true
                }
                _ => self.command(&command, place)?,
            },
        };
        if self.is_interactive {
            source.remember();
            return Ok(());
        }
        let was_interrupted = std::mem::take(&mut self.session.was_interrupted);
        if was_interrupted || (!is_good && self.stops_on_error) {
            return Err(Stop::Code(SCRIPT_ERROR));
        }
        Ok(())
    }

    fn prompt(&self, splitter: &Splitter) -> String {
        let status = match self.session.connection.status() {
            rustydb_client::TxStatus::Idle => "",
            rustydb_client::TxStatus::InTransaction => "*",
            rustydb_client::TxStatus::Failed => "!",
        };
        let is_superuser = self.session.connection.parameter("is_superuser");
        let end = if is_superuser.as_deref() == Some("on") { '#' } else { '>' };
        format!("{}{}{status}{end} ", self.session.config.database, splitter.mark())
    }

    /// Runs a text; false = there was an error, which has been told.
    fn execute(&mut self, sql: &str, place: &str) -> Result<bool, Stop> {
        let since = Instant::now();
        let shell = &*self;
        let ((is_good, lost), was_interrupted) = self.session.wait(async |connection| {
            let mut results = match connection.run(sql).await {
                Ok(results) => results,
                Err(e) => return shell.failed(&e, sql, place),
            };
            let mut outcome = (true, false);
            while let Some(result) = results.next().await {
                shell.tell_notices(place);
                match result {
                    Ok(result) => shell.show(connection, &result).await,
                    Err(e) => outcome = shell.failed(&e, sql, place),
                }
            }
            outcome
        });
        self.session.was_interrupted = was_interrupted;
        self.tell_notices(place);
        if self.is_timed {
            let millis = since.elapsed().as_secs_f64() * 1000.0;
            self.print(&format!("Time: {millis:.3} ms\n"));
        }
        if lost {
            self.reconnect()?;
        }
        Ok(is_good)
    }

    /// Tells an error; false, and whether the connection is lost.
    fn failed(&self, error: &Error, sql: &str, place: &str) -> (bool, bool) {
        self.tell_notices(place);
        complain(&format!("{place}{}", report::report(error, sql)));
        (false, error.is_fatal())
    }

    /// After the connection is lost: another one for a user, the end for a script.
    fn reconnect(&mut self) -> Result<(), Stop> {
        if !self.is_interactive {
            complain("rustydb: the connection to the server was lost");
            return Err(Stop::Code(NO_CONNECTION));
        }
        let config = self.session.config.clone();
        match self.session.reopen(config) {
            Ok(()) => {
                complain("The connection to the server was lost. Attempting reset: Succeeded.");
                Ok(())
            }
            Err(e) => {
                complain("The connection to the server was lost. Attempting reset: Failed.");
                complain(&format!("rustydb: {e}"));
                Err(Stop::Code(NO_CONNECTION))
            }
        }
    }

    fn tell_notices(&self, place: &str) {
        self.session.notices().iter().for_each(|text| complain(&format!("{place}{text}")));
    }

    async fn show(&self, connection: &Connection, result: &ResultSet) {
        let gives_rows = !result.columns().is_empty()
            || (result.command_tag().starts_with("SELECT") && !result.is_empty());
        if !gives_rows {
            if !self.is_quiet && !result.command_tag().is_empty() {
                self.print(&format!("{}\n", result.command_tag()));
            }
            return;
        }
        let table = async {
            let mut table = self.table(result)?;
            // Where that cannot be asked, numbers will do.
            let _ = names::resolve(connection, result, &mut table).await;
            Ok(table)
        };
        match table.await {
            Ok(table) => {
                self.show_table(&table);
                // A statement that changes rows and gives them says both.
                let tag = result.command_tag();
                let is_change = ["INSERT", "UPDATE", "DELETE", "MERGE"];
                if !self.is_quiet && is_change.iter().any(|word| tag.starts_with(word)) {
                    self.print(&format!("{tag}\n"));
                }
            }
            Err(e) => complain(&report::report(&e, "")),
        }
    }

    fn table(&self, result: &ResultSet) -> rustydb_client::Result<Table> {
        let zone = self.session.connection.parameter("TimeZone").unwrap_or_default();
        let zone = jiff::tz::TimeZone::get(&zone).unwrap_or(jiff::tz::TimeZone::UTC);
        let offset_at = |micros: i64| {
            // From 2000-01-01 to 1970-01-01.
            let since_1970 = micros.saturating_add(946_684_800_000_000);
            let moment = jiff::Timestamp::from_microsecond(since_1970);
            moment.map_or(0, |moment| zone.to_offset(moment).seconds())
        };
        let style = TextStyle { offset_at: &offset_at };
        let vectors: Vec<bool> =
            result.columns().iter().map(|column| is_vector(column.type_oid)).collect();
        let text = |row: &rustydb_client::Row, (at, is_vector): (usize, &bool)| {
            let text = Styled(&row.get::<Value>(at)?, style).to_string();
            Ok(if *is_vector { as_vector(&text) } else { text })
        };
        let row = |row: rustydb_client::Row| {
            vectors.iter().enumerate().map(|column| text(&row, column)).collect()
        };
        let interrupt = self.session.interrupt();
        let rows = result.rows().take_while(|_| !interrupt.was_pressed());
        // The types whose values psql puts at the right.
        let is_number = |oid| matches!(oid, 20 | 21 | 23 | 26 | 28 | 29 | 700 | 701 | 790 | 1700);
        Ok(Table {
            names: result.columns().names().map(str::to_owned).collect(),
            is_number: result.columns().iter().map(|column| is_number(column.type_oid)).collect(),
            rows: rows.map(row).collect::<rustydb_client::Result<_>>()?,
            ..Table::default()
        })
    }

    fn show_table(&self, table: &Table) {
        let out = Stoppable { out: io::stdout().lock(), interrupt: self.session.interrupt() };
        let mut out = BufWriter::new(out);
        // A reader such as `head` may have left, and the user may have seen enough.
        let _ = table.write(self.style, &mut out).and_then(|()| out.flush());
    }

    fn print(&self, text: &str) {
        let mut out = io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

impl Stop {
    fn code(self) -> u8 {
        match self {
            Self::Quit => 0,
            Self::Code(code) => code,
        }
    }
}

/// An output that takes no more after Ctrl-C.
struct Stoppable<'a, W> {
    out: W,
    interrupt: &'a Interrupt,
}

impl<W: Write> Write for Stoppable<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.interrupt.was_pressed() {
            true => Err(io::Error::other("interrupted")),
            false => self.out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// `int2vector` and `oidvector`, which the protocol sends as arrays.
fn is_vector(oid: u32) -> bool {
    matches!(oid, 22 | 30)
}

/// The elements of an array of numbers as PostgreSQL writes a vector.
fn as_vector(array: &str) -> String {
    let elements = array.rsplit('{').next().unwrap_or_default().trim_end_matches('}');
    elements.replace(',', " ")
}

/// As psql reads a truth value.
fn is_on(value: &str) -> bool {
    !matches!(value.to_lowercase().as_str(), "off" | "0" | "false" | "no")
}
