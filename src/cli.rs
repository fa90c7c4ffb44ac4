//! The command line: arguments → configuration → what was asked for.

use std::io::{Read, Write};
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{Config, Flag, Inputs, Loaded, RUNTIME_FILE, Reloader, default_file};
use crate::frontend::http::openapi;
use crate::server::{self, Start};
use crate::shell;
use crate::supervisor::{StartError, data_dir};
use crate::telemetry::log;

/// One server in front of PostgreSQL.
#[derive(Parser)]
#[command(name = "rustydb", version, about, max_term_width = 100)]
// An option before the command would otherwise be read and then ignored.
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeOptions,
}

#[derive(Args)]
struct ServeOptions {
    #[command(flatten)]
    options: Options,
    /// Take the listening sockets over from the RustyDB that runs on the same data directory; its
    /// clients stay there (server.takeover_stay_secs). Needs an external PostgreSQL.
    #[arg(long)]
    takeover: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server (the default).
    Serve(ServeOptions),
    /// Make the data directory, the embedded PostgreSQL and the administrator, without serving.
    Init {
        #[command(flatten)]
        options: Options,
        /// File with the administrator's password; else RUSTYDB_ADMIN_PASSWORD, else random.
        #[arg(long, value_name = "FILE")]
        admin_password_file: Option<PathBuf>,
    },
    /// Look at the configuration.
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Run SQL: an interactive shell over the native protocol, or -c, -f, standard input.
    #[command(long_about = SQL_HELP)]
    Sql(SqlOptions),
    /// Print the description of the HTTP API: OpenAPI 3.1 in JSON.
    Openapi,
    /// Ask a running server how it is: exit code 0 healthy, 1 degraded, 2 unhealthy, 3 unreachable.
    Status(Options),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Check file, environment and options; report everything that is wrong.
    Check(Options),
    /// Print every value and where it comes from.
    Show(Options),
    /// Print the commented default file.
    Default,
}

const SQL_HELP: &str = "\
Run SQL: an interactive shell over the native protocol, or -c, -f, standard input.

The password comes from the URL, RUSTYDB_PASSWORD, PGPASSWORD, or a prompt. Exit code: 0 done; 1 \
usage, a file, or an error of -c; 2 no connection; 3 an error in a script with ON_ERROR_STOP.";

#[derive(Args)]
struct SqlOptions {
    /// Where to connect.
    #[arg(value_name = "URL", default_value = shell::DEFAULT_URL)]
    url: String,
    /// Run this text, or this one command of the shell; may be repeated, also among -f.
    #[arg(short, long, value_name = "SQL")]
    command: Vec<String>,
    /// Run the statements of this file; "-" = standard input.
    #[arg(short, long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Set a variable of the shell: ON_ERROR_STOP.
    #[arg(short = 'v', long = "variable", value_name = "NAME=VALUE")]
    variables: Vec<String>,
    /// One value to a line.
    #[arg(short = 'x', long)]
    expanded: bool,
    /// Without padding, with | between the columns.
    #[arg(short = 'A', long)]
    no_align: bool,
    /// Rows only, without names and count.
    #[arg(short, long)]
    tuples_only: bool,
    /// No greeting and no tags of commands.
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Args, Clone, Default)]
struct Options {
    /// Configuration file.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of everything that is kept.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Addresses of the PostgreSQL door, with commas.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Port of the PostgreSQL door.
    #[arg(long, value_name = "N")]
    port: Option<String>,
    /// Addresses of the HTTP door, with commas.
    #[arg(long, value_name = "ADDR")]
    api_listen: Option<String>,
    /// Port of the HTTP door.
    #[arg(long, value_name = "N")]
    api_port: Option<String>,
    /// Port of the metrics listener; 0 = none.
    #[arg(long, value_name = "N")]
    metrics_port: Option<String>,
    /// Directory of the Unix socket; "none" = no Unix socket.
    #[arg(long, value_name = "DIR")]
    unix_socket_dir: Option<String>,
    /// An external PostgreSQL, postgresql://user:password@host:port/database.
    #[arg(long, value_name = "URL", conflicts_with = "embedded")]
    backend: Option<String>,
    /// The embedded PostgreSQL, whatever the file says.
    #[arg(long)]
    embedded: bool,
    /// trace, debug, info, warn, error.
    #[arg(long, value_name = "L")]
    log_level: Option<String>,
    /// json, plain, auto.
    #[arg(long, value_name = "F")]
    log_format: Option<String>,
    /// Ask nobody for a password; every listener is bound to loopback.
    #[arg(long)]
    insecure: bool,
    /// Set any key of the configuration.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Take unknown keys and variables as warnings.
    #[arg(long)]
    lenient: bool,
}

/// Runs what the command line asks for.
pub fn run() -> ExitCode {
    let (cli, matches) = match parse() {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    let result = match cli.command {
        None => serve(&cli.serve),
        Some(Command::Serve(options)) => serve(&options),
        Some(Command::Init { options, admin_password_file }) => init(&options, admin_password_file),
        Some(Command::Config { what: ConfigCommand::Default }) => print(&default_file()),
        Some(Command::Config { what: ConfigCommand::Check(options) }) => {
            options.load().and_then(|_| print("the configuration is right\n"))
        }
        Some(Command::Config { what: ConfigCommand::Show(options) }) => {
            options.load().and_then(|loaded| print(&loaded.show()))
        }
        Some(Command::Status(options)) => status(&options),
        Some(Command::Openapi) => print(&openapi()),
        Some(Command::Sql(options)) => Ok(shell::run(&options.request(&matches))),
    };
    match result {
        Ok(code) => code.into(),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "rustydb: {error}");
            error.exit_code.into()
        }
    }
}

/// Reads the arguments; help and complaints are written here.
fn parse() -> Result<(Cli, ArgMatches), ExitCode> {
    let read = Cli::command()
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches).map(|cli| (cli, matches)));
    read.map_err(|error| {
        let _ = error.print();
        let is_sql = std::env::args().nth(1).is_some_and(|arg| arg == "sql");
        match error.exit_code() {
            // As psql; for the other commands 2 is clap's.
            2 if is_sql => ExitCode::from(1),
            code => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        }
    })
}

impl SqlOptions {
    fn request(self, matches: &ArgMatches) -> shell::Request {
        // In the order of the command line.
        let places = |name| {
            let sql = matches.subcommand_matches("sql");
            sql.and_then(|sql| sql.indices_of(name)).into_iter().flatten().collect::<Vec<_>>()
        };
        let commands = self.command.into_iter().map(shell::Step::Command);
        let files = self.file.into_iter().map(shell::Step::File);
        let mut steps: Vec<(usize, shell::Step)> = places("command")
            .into_iter()
            .zip(commands)
            .chain(places("file").into_iter().zip(files))
            .collect();
        steps.sort_by_key(|(place, _)| *place);
        shell::Request {
            url: Some(self.url),
            steps: steps.into_iter().map(|(_, step)| step).collect(),
            variables: self.variables,
            is_expanded: self.expanded,
            is_unaligned: self.no_align,
            is_bare: self.tuples_only,
            is_quiet: self.quiet,
        }
    }
}

fn print(text: &str) -> Result<u8, StartError> {
    // A reader such as `head` may have left.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(0)
}

fn serve(serve: &ServeOptions) -> Result<u8, StartError> {
    let start = if serve.takeover { Start::TakeOver } else { Start::Fresh };
    let mut inputs = serve.options.inputs()?;
    let loaded = load(&mut inputs)?;
    let log = log::start(&loaded.config.monitoring);
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    server::serve(Reloader::new(inputs, loaded), log, start)
}

fn init(options: &Options, password_file: Option<PathBuf>) -> Result<u8, StartError> {
    let config = options.load()?.config;
    let _log = log::start(&config.monitoring);
    let password = password_file.map(|file| server::read_password(&file));
    let done = server::initialise(&config, password.transpose()?)?;
    print(&format!("{done}\n"))
}

impl Options {
    fn load(&self) -> Result<Loaded, StartError> {
        load(&mut self.inputs()?)
    }

    fn inputs(&self) -> Result<Inputs, StartError> {
        let mut inputs = Inputs::from_process();
        inputs.file = self.config.clone();
        inputs.insecure = self.insecure;
        inputs.lenient = self.lenient;
        let named = [
            ("--data-dir", "server.data_dir", &self.data_dir),
            ("--listen", "network.listen_addr", &self.listen),
            ("--port", "network.port", &self.port),
            ("--api-listen", "api.listen_addr", &self.api_listen),
            ("--api-port", "api.port", &self.api_port),
            ("--metrics-port", "monitoring.metrics_port", &self.metrics_port),
            ("--unix-socket-dir", "network.unix_socket_dir", &self.unix_socket_dir),
            ("--backend", "backend.url", &self.backend),
            ("--log-level", "monitoring.log_level", &self.log_level),
            ("--log-format", "monitoring.log_format", &self.log_format),
        ];
        let flag = |name: &str, path: &str, value: &str| Flag {
            name: name.into(),
            path: path.into(),
            value: value.into(),
        };
        for (name, path, value) in named {
            inputs.flags.extend(value.as_ref().map(|value| flag(name, path, value)));
        }
        if self.backend.is_some() {
            inputs.flags.push(flag("--backend", "backend.mode", "external"));
        }
        if self.embedded {
            inputs.flags.push(flag("--embedded", "backend.mode", "embedded"));
        }
        for pair in &self.set {
            let (path, value) = pair
                .split_once('=')
                .ok_or_else(|| StartError::config(format!("--set {pair}: expected KEY=VALUE")))?;
            inputs.flags.push(flag("--set", path.trim(), value.trim()));
        }
        Ok(inputs)
    }
}

/// Reads all sources; the others say where the changes made at run time are.
fn load(inputs: &mut Inputs) -> Result<Loaded, StartError> {
    let read =
        |inputs: &Inputs| inputs.load().map_err(|errors| StartError::config(errors.to_string()));
    let loaded = read(inputs)?;
    let file = server::data_dir_of(&loaded.config).join(RUNTIME_FILE);
    inputs.runtime = Some(std::path::absolute(&file).unwrap_or(file));
    read(inputs)
}

/// Time for a server to say how it is.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

fn status(options: &Options) -> Result<u8, StartError> {
    const UNREACHABLE: u8 = 3;
    let config = options.load()?.config;
    let url = api_url(&config);
    let (code, text) = match get(&url, "/api/v1/health") {
        Ok(body) => {
            let health: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
            let code = match health["status"].as_str() {
                Some("healthy") => 0,
                Some("degraded") => 1,
                Some(_) => 2,
                None => UNREACHABLE,
            };
            (code, body)
        }
        Err(e) => (UNREACHABLE, format!("nobody answers at {url}: {e}")),
    };
    print(&format!("{text}\n"))?;
    Ok(code)
}

/// Where the server on this data directory says it listens, else where it would listen.
fn api_url(config: &Config) -> String {
    let status = data_dir::read_status(&server::data_dir_of(config));
    let told = status.and_then(|status| status["api"].as_str().map(str::to_owned));
    told.unwrap_or_else(|| format!("http://localhost:{}", config.api.port))
}

/// One GET over HTTP/1.0, whose body ends with the connection.
fn get(url: &str, path: &str) -> std::io::Result<String> {
    let host = url.trim_start_matches("http://");
    let mut last = std::io::ErrorKind::AddrNotAvailable.into();
    for addr in host.to_socket_addrs()? {
        let mut stream = match std::net::TcpStream::connect_timeout(&addr, STATUS_TIMEOUT) {
            Ok(stream) => stream,
            Err(e) => {
                last = e;
                continue;
            }
        };
        stream.set_read_timeout(Some(STATUS_TIMEOUT))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(1 << 20).read_to_string(&mut answer)?;
        return Ok(answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned());
    }
    Err(last)
}
