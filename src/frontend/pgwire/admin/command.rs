//! The console's command language, PgBouncer's as far as it goes.

use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::types::Database;

/// What `SHOW` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    Classes,
    Clients,
    Config,
    Databases,
    Help,
    Lists,
    Mem,
    Pools,
    Servers,
    State,
    Stats,
    StatsAverages,
    StatsTotals,
    Users,
    Version,
}

impl Show {
    pub(super) const ALL: [(&str, Show); 15] = [
        ("CLASSES", Show::Classes),
        ("CLIENTS", Show::Clients),
        ("CONFIG", Show::Config),
        ("DATABASES", Show::Databases),
        ("HELP", Show::Help),
        ("LISTS", Show::Lists),
        ("MEM", Show::Mem),
        ("POOLS", Show::Pools),
        ("SERVERS", Show::Servers),
        ("STATE", Show::State),
        ("STATS", Show::Stats),
        ("STATS_AVERAGES", Show::StatsAverages),
        ("STATS_TOTALS", Show::StatsTotals),
        ("USERS", Show::Users),
        ("VERSION", Show::Version),
    ];
}

/// Whom `KILL` ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Victim {
    /// One session.
    Client(u64),
    /// Every session of a database.
    Database(Database),
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Empty,
    Show(Show),
    Pause(Option<Database>),
    Resume(Option<Database>),
    Reconnect(Option<Database>),
    Kill(Victim),
    /// A key of the configuration and its value.
    Set(String, String),
    Reload,
    Drain,
    Shutdown {
        at_once: bool,
    },
    /// What drivers send of themselves and what means nothing here; the word is its tag.
    Ignored(&'static str),
    /// BEGIN and COMMIT of drivers: whether a transaction is open afterwards, and the tag.
    Transaction(bool, &'static str),
}

impl Command {
    /// What the log says of a command that changes something. Values may be secrets.
    pub(super) fn to_log(&self) -> Option<String> {
        let of = |verb: &str, database: &Option<Database>| match database {
            Some(name) => format!("{verb} {name}"),
            None => verb.to_owned(),
        };
        Some(match self {
            Self::Empty | Self::Show(_) | Self::Ignored(_) | Self::Transaction(..) => return None,
            Self::Pause(database) => of("PAUSE", database),
            Self::Resume(database) => of("RESUME", database),
            Self::Reconnect(database) => of("RECONNECT", database),
            Self::Kill(Victim::Client(id)) => format!("KILL {id}"),
            Self::Kill(Victim::Database(name)) => format!("KILL {name}"),
            Self::Set(key, _) => format!("SET {key}"),
            Self::Reload => "RELOAD".to_owned(),
            Self::Drain => "DRAIN".to_owned(),
            Self::Shutdown { at_once: false } => "SHUTDOWN".to_owned(),
            Self::Shutdown { at_once: true } => "SHUTDOWN IMMEDIATE".to_owned(),
        })
    }
}

/// What drivers and psql set of themselves when they connect; it means nothing here.
const SET_BY_DRIVERS: [&str; 16] = [
    "application_name",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "intervalstyle",
    "lock_timeout",
    "names",
    "search_path",
    "session",
    "standard_conforming_strings",
    "statement_timeout",
    "time",
    "timezone",
];

/// Every command with what it does, for HELP.
pub(super) const HELP: [(&str, &str); 13] = [
    ("SHOW what", "clients, config, databases, help, lists, pools, servers, state, …"),
    ("PAUSE [database]", "give out no connections; returns when all are back and closed"),
    ("RESUME [database]", "end a pause; without a name, every pause"),
    ("RECONNECT [database]", "replace connections: idle ones now, others as they come back"),
    ("KILL database", "end its sessions with 57P01"),
    ("KILL id", "end one session; SHOW CLIENTS tells its id"),
    ("KILL_CLIENT id", "the same"),
    ("SET key = value", "change a key of SHOW CONFIG until the next RELOAD or restart"),
    ("RELOAD", "read the configuration again"),
    ("DRAIN", "accept nobody, wait for everybody, then stop"),
    ("SHUTDOWN", "stop; statements and transactions get server.shutdown_grace_secs"),
    ("SHUTDOWN IMMEDIATE", "stop at once"),
    ("HELP", "this list"),
];

/// The commands of a simple query, separated by semicolons.
pub(super) fn parse_all(text: &str) -> Vec<Result<Command>> {
    let parts = split(text).into_iter().filter(|part| !part.trim().is_empty());
    parts.map(parse).collect()
}

/// Splits at semicolons that are not quoted.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut begin, mut quoted) = (Vec::new(), 0, None);
    for (at, c) in text.char_indices() {
        match (quoted, c) {
            (None, ';') => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            (None, '"' | '\'') => quoted = Some(c),
            (Some(quote), _) if quote == c => quoted = None,
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    parts
}

/// One command, with or without its semicolon.
pub(super) fn parse(text: &str) -> Result<Command> {
    let text = text.trim().trim_end_matches(';').trim();
    let (verb, rest) = match text.find(|c: char| c.is_whitespace()) {
        Some(at) => (&text[..at], text[at..].trim()),
        None => (text, ""),
    };
    let upper = rest.to_ascii_uppercase();
    Ok(match (verb.to_ascii_uppercase().as_str(), upper.as_str()) {
        ("", _) => Command::Empty,
        ("SHOW", "") | ("HELP", "") => Command::Show(Show::Help),
        ("SHOW", what) => {
            let found = Show::ALL.iter().find(|(name, _)| *name == what);
            Command::Show(found.ok_or_else(|| unknown_show(rest))?.1)
        }
        ("PAUSE", _) => Command::Pause(database(rest)?),
        ("RESUME", _) => Command::Resume(database(rest)?),
        ("RECONNECT", _) => Command::Reconnect(database(rest)?),
        ("KILL", _) => Command::Kill(victim(rest)?),
        ("KILL_CLIENT", _) => {
            let id = rest.parse().map_err(|_| {
                syntax(format!("\"{rest}\" is no client id"))
                    .with_hint("SHOW CLIENTS tells the id of each")
            })?;
            Command::Kill(Victim::Client(id))
        }
        ("RELOAD", "") => Command::Reload,
        ("DRAIN", "") | ("SHUTDOWN", "WAIT_FOR_CLIENTS") => Command::Drain,
        ("SHUTDOWN", "") => Command::Shutdown { at_once: false },
        ("SHUTDOWN", "IMMEDIATE") => Command::Shutdown { at_once: true },
        ("BEGIN", _) | ("START", "TRANSACTION") => Command::Transaction(true, "BEGIN"),
        ("COMMIT" | "END", _) => Command::Transaction(false, "COMMIT"),
        ("ROLLBACK" | "ABORT", _) => Command::Transaction(false, "ROLLBACK"),
        ("SET", what) if !what.is_empty() => set(rest)?,
        ("RESET", what) if !what.is_empty() => Command::Ignored("RESET"),
        ("DISCARD", "ALL") => Command::Ignored("DISCARD ALL"),
        ("DEALLOCATE", "ALL") => Command::Ignored("DEALLOCATE ALL"),
        _ => return Err(unknown(text)),
    })
}

/// A key of the configuration; what drivers set of themselves means nothing here.
fn set(text: &str) -> Result<Command> {
    let end = text.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(text.len());
    let (key, rest) = (text[..end].to_ascii_lowercase(), text[end..].trim());
    let is_ours = |(table, _): &(&str, &str)| {
        key.strip_prefix(table).is_some_and(|name| name.starts_with('.'))
    };
    if SET_BY_DRIVERS.contains(&&*key) {
        return Ok(Command::Ignored("SET"));
    }
    if !Config::sections().iter().any(is_ours) {
        let text = format!("unrecognized configuration parameter \"{key}\"");
        return Err(Error::sql(b"42704", text).with_hint("SHOW CONFIG tells the keys"));
    }
    let to = rest.get(..3).is_some_and(|word| word.trim_end().eq_ignore_ascii_case("to"));
    let value = match rest.strip_prefix('=') {
        Some(value) => value.trim(),
        None if to => rest[2..].trim(),
        None => "",
    };
    if value.is_empty() {
        return Err(syntax(format!("there is no value for {key}"))
            .with_hint("for instance: SET pool.max_size = 50"));
    }
    let quoted = value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    let value = quoted.map_or_else(|| value.to_owned(), |inner| inner.replace("''", "'"));
    Ok(Command::Set(key, value))
}

fn victim(text: &str) -> Result<Victim> {
    // A quoted number is a name.
    if let Ok(id) = text.parse() {
        return Ok(Victim::Client(id));
    }
    let named = database(text)?.map(Victim::Database);
    named.ok_or_else(|| {
        syntax("KILL needs a database or the id of a client".into())
            .with_hint("SHOW CLIENTS tells both; DRAIN and SHUTDOWN end everybody")
    })
}

/// A name as it is, or quoted as an SQL identifier. It is not folded to lower case.
fn database(text: &str) -> Result<Option<Database>> {
    if text.is_empty() {
        return Ok(None);
    }
    let quoted = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let name = match quoted {
        Some(inner) => inner.replace("\"\"", "\""),
        None if text.contains(|c: char| c.is_whitespace() || c == '"') => {
            return Err(syntax(format!("\"{text}\" is not one name"))
                .with_hint("put a name with spaces into double quotes"));
        }
        None => text.to_owned(),
    };
    Ok(Some(name.as_str().into()))
}

fn syntax(text: String) -> Error {
    Error::sql(b"42601", text)
}

fn unknown_show(what: &str) -> Error {
    if what.eq_ignore_ascii_case("FDS") {
        return Error::new(ErrorKind::NotSupported, "there is no SHOW FDS: it is PgBouncer's own")
            .with_hint("SHOW CLIENTS and SHOW SERVERS tell what is connected");
    }
    let names = Show::ALL.map(|(name, _)| name).join(", ");
    syntax(format!("there is no SHOW {what}")).with_hint(format!("SHOW knows: {names}"))
}

fn unknown(text: &str) -> Error {
    let text: String = text.chars().take(80).collect();
    let verbs = HELP.map(|(command, _)| command).join("; ");
    syntax(format!("the administration console does not know: {text}"))
        .with_hint(format!("it knows: {verbs}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_people_type_them() {
        let db = |name: &str| Some(Database::from(name));
        for (text, command) in [
            ("show pools", Command::Show(Show::Pools)),
            ("  SHOW\tStats_Totals ; ", Command::Show(Show::StatsTotals)),
            ("help", Command::Show(Show::Help)),
            ("", Command::Empty),
            (";", Command::Empty),
            ("PAUSE", Command::Pause(None)),
            ("pause App", Command::Pause(db("App"))),
            ("RESUME \"my \"\"db\"", Command::Resume(db("my \"db"))),
            ("RECONNECT;", Command::Reconnect(None)),
            ("KILL 7", Command::Kill(Victim::Client(7))),
            ("KILL_CLIENT 7", Command::Kill(Victim::Client(7))),
            ("KILL \"7\"", Command::Kill(Victim::Database("7".into()))),
            ("kill app", Command::Kill(Victim::Database("app".into()))),
            ("drain", Command::Drain),
            ("SHUTDOWN WAIT_FOR_CLIENTS", Command::Drain),
            ("SHUTDOWN immediate", Command::Shutdown { at_once: true }),
            ("SET extra_float_digits = 3", Command::Ignored("SET")),
            ("SET search_path to a.b", Command::Ignored("SET")),
            ("set Pool.Max_Size=7", Command::Set("pool.max_size".into(), "7".into())),
            ("SET pool.max_size TO 7", Command::Set("pool.max_size".into(), "7".into())),
            (
                "SET pool.validation_sql = 'select ''a'';'",
                Command::Set("pool.validation_sql".into(), "select 'a';".into()),
            ),
            ("begin read only", Command::Transaction(true, "BEGIN")),
        ] {
            assert_eq!(parse(text).unwrap(), command, "{text}");
        }
        let all: Vec<_> = parse_all("show pools; PAUSE \"a;b\";").into_iter().flatten().collect();
        assert_eq!(all, [Command::Show(Show::Pools), Command::Pause(db("a;b"))]);
        assert!(parse_all(" ; ").is_empty());
    }

    #[test]
    fn what_is_not_known_is_told_what_is() {
        for (text, word) in [
            ("select 1", "RECONNECT [database]"),
            ("show everything", "STATS_AVERAGES"),
            ("KILL", "SHOW CLIENTS"),
            ("KILL_CLIENT x", "SHOW CLIENTS"),
            ("PAUSE a b", "double quotes"),
            ("SHUTDOWN later", "SHUTDOWN IMMEDIATE"),
            ("SET pool.max_size", "SET pool.max_size = 50"),
            ("SET pool.max_size tomorrow", "SET pool.max_size = 50"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.sqlstate().as_str(), "42601", "{text}");
            assert!(error.hint().unwrap().contains(word), "{text}: {:?}", error.hint());
        }
        for text in ["SET pool_x.y = 1", "SET max_client_conn TO 5"] {
            assert_eq!(parse(text).unwrap_err().sqlstate().as_str(), "42704", "{text}");
        }
    }

    #[test]
    fn what_changes_something_is_logged_without_values() {
        let logged = |text| parse(text).unwrap().to_log();
        assert_eq!(logged("set security.jwt_secret = 'x'").unwrap(), "SET security.jwt_secret");
        assert_eq!(logged("pause \"a\"").unwrap(), "PAUSE a");
        assert_eq!(logged("show pools"), None);
    }
}
