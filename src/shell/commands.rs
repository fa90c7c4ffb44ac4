//! The commands of the shell, which begin with a backslash.

use rustydb_client::{Config, Error, Host};

use super::{Shell, Stop, complain, describe, is_on, report};

const HELP: &str = "\
General
  \\q                     quit (as do quit and exit)
  \\g                     run the statement so far (as a semicolon does)
  \\p, \\r                 show it, forget it
  \\i FILE                run the statements of a file
  \\echo TEXT             write a text
  \\set ON_ERROR_STOP on  stop a script at the first error

Look at the database (NAME may be a pattern, with * and ?; S: system objects too)
  \\d [NAME]              tables, views, sequences; or the columns of one
  \\dt \\dv \\dm \\di \\ds    tables, views, materialized views, indexes, sequences
  \\df [NAME]             functions
  \\dn [NAME]             schemas
  \\du [NAME]             roles
  \\l                     databases

Format
  \\x [on|off]            one value to a line
  \\a                     without padding
  \\t [on|off]            rows only
  \\timing [on|off]       how long statements take

Connection
  \\c [DATABASE|URL] [USER]  connect to another database, or server
  \\conninfo              where the connection leads
";

impl Shell {
    /// Carries out a command; false = there was an error, which has been told.
    pub(super) fn command(&mut self, line: &str, place: &str) -> Result<bool, Stop> {
        let (name, arg) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let arg = arg.trim().trim_end_matches(';').trim_end();
        match name {
            "q" | "quit" => return Err(Stop::Quit),
            "?" | "h" | "help" => self.help(),
            "echo" => self.print(&format!("{arg}\n")),
            "timing" => {
                self.is_timed = switched(self.is_timed, arg);
                self.tell(&format!("Timing is {}.", on_off(self.is_timed)));
            }
            "x" => {
                self.style.is_expanded = switched(self.style.is_expanded, arg);
                self.tell(&format!("Expanded display is {}.", on_off(self.style.is_expanded)));
            }
            "t" => {
                self.style.is_bare = switched(self.style.is_bare, arg);
                self.tell(&format!("Tuples only is {}.", on_off(self.style.is_bare)));
            }
            "a" => {
                self.style.is_unaligned = !self.style.is_unaligned;
                let how = if self.style.is_unaligned { "unaligned" } else { "aligned" };
                self.tell(&format!("Output format is {how}."));
            }
            "set" => return Ok(self.set(arg, place)),
            "i" | "include" => return self.include(arg, place),
            "c" | "connect" => return Ok(self.connect(arg, place)),
            "conninfo" => self.print(&format!("{}\n", self.where_to())),
            _ if name.starts_with(['d', 'l']) => return Ok(self.describe(name, arg, place)),
            _ => return Ok(unknown(name, place)),
        }
        Ok(true)
    }

    /// Says which commands there are.
    pub(super) fn help(&self) {
        self.print(HELP);
    }

    fn tell(&self, text: &str) {
        if !self.is_quiet {
            self.print(&format!("{text}\n"));
        }
    }

    fn set(&mut self, arg: &str, place: &str) -> bool {
        let (name, value) = arg.split_once(char::is_whitespace).unwrap_or((arg, "on"));
        match name {
            "ON_ERROR_STOP" => self.stops_on_error = is_on(value.trim()),
            _ => complain(&format!("{place}\\set: there is only ON_ERROR_STOP")),
        }
        name == "ON_ERROR_STOP"
    }

    fn include(&mut self, arg: &str, place: &str) -> Result<bool, Stop> {
        if arg.is_empty() {
            complain(&format!("{place}\\i: missing required argument"));
            return Ok(false);
        }
        match self.file(std::path::Path::new(arg.trim_matches('\''))) {
            // As in psql, a file that is not there does not end what includes it.
            Err(Stop::Code(super::FAILED)) => Ok(false),
            Ok(()) => Ok(true),
            Err(stop) => Err(stop),
        }
    }

    fn describe(&mut self, name: &str, arg: &str, place: &str) -> bool {
        match describe::describe(&mut self.session, name, arg) {
            Ok(Some(tables)) => {
                tables.iter().for_each(|table| self.show_table(table));
                true
            }
            Ok(None) => unknown(name, place),
            Err(Error::Usage(text)) => {
                complain(&format!("{place}{text}"));
                false
            }
            Err(e) => {
                complain(&format!("{place}{}", report::report(&e, "")));
                false
            }
        }
    }

    fn connect(&mut self, arg: &str, place: &str) -> bool {
        let config = match self.target(arg) {
            Ok(config) => config,
            Err(e) => {
                complain(&format!("{place}\\connect: {e}"));
                return false;
            }
        };
        if let Err(e) = self.session.reopen(config) {
            complain(&format!("{place}\\connect: {e}"));
            if self.is_interactive {
                complain("Previous connection kept");
            }
            return false;
        }
        let Config { database, user, .. } = &self.session.config;
        self.tell(&format!("You are now connected to database \"{database}\" as user \"{user}\"."));
        true
    }

    /// What `\c` asks for; `-` and what is left out stay as they are.
    fn target(&self, arg: &str) -> Result<Config, Error> {
        let mut words = arg.split_whitespace();
        let first = words.next().unwrap_or("-");
        let mut config = self.session.config.clone();
        if first.contains("://") {
            let mut other: Config = first.parse()?;
            other.application_name = config.application_name;
            other.timeout = config.timeout;
            return Ok(other);
        }
        if first != "-" {
            config.database = first.trim_matches('"').to_owned();
        }
        if let Some(user) = words.next().filter(|user| *user != "-" && *user != config.user) {
            config.user = user.to_owned();
            // It belongs to the other user.
            config.password = None;
        }
        Ok(config)
    }

    fn where_to(&self) -> String {
        let Config { database, user, .. } = &self.session.config;
        let connection = &self.session.connection;
        let host = match connection.host() {
            Host::Tcp(name, port) => format!("on host \"{name}\" at port \"{port}\""),
            Host::Unix(folder, port) => {
                format!("via socket in \"{}\" at port \"{port}\"", folder.display())
            }
        };
        let server = connection.server();
        let tls = if connection.is_encrypted() { "by TLS" } else { "not" };
        format!(
            "You are connected to database \"{database}\" as user \"{user}\" {host}.\n\
             {} {}, connection {}, session {}; encrypted: {tls}; compressed: {:?}.",
            server.server_name,
            server.server_version,
            server.connection_id,
            connection.session().id,
            server.compression,
        )
    }
}

fn unknown(name: &str, place: &str) -> bool {
    complain(&format!("{place}invalid command \\{name}\nTry \\? for help."));
    false
}

fn switched(now: bool, arg: &str) -> bool {
    if arg.is_empty() { !now } else { is_on(arg) }
}

fn on_off(is_on: bool) -> &'static str {
    if is_on { "on" } else { "off" }
}
