//! Life of the process: first start, configuration, signals, faults, and what each of them says.
// The rules for code that a socket can reach; a test may stop where it stands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod cli;
mod config;
mod external;
mod external_tls;
mod failover;
mod faults;
#[path = "../harness/mod.rs"]
mod harness;
mod health;
mod pool;
mod refusals;
mod reload;
mod shutdown;
mod start;
mod takeover;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use harness::{Failure, Psql, SOON, Server, eventually};

fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// The unprivileged user that runs servers when the tests run as root.
fn unprivileged_uid() -> u32 {
    let by_name = |name| nix::unistd::User::from_name(name).ok().flatten();
    by_name("postgres").or_else(|| by_name("nobody")).unwrap().uid.as_raw()
}

/// Runs the binary to its end, away from any configuration file.
fn rustydb(args: &[&str], env: &[(&str, &str)]) -> Output {
    let elsewhere = harness::temp_dir();
    harness::command(harness::binary())
        .args(args)
        .envs(env.iter().copied())
        .current_dir(elsewhere.path())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The server must not start, with this exit code and all of these words on standard error.
#[track_caller]
fn refuses(builder: harness::Builder, code: i32, words: &[&str]) -> Failure {
    let failure = match builder.try_start() {
        Ok(_) => panic!("it starts; expected: {words:?}"),
        Err(failure) => failure,
    };
    assert_eq!(failure.code, Some(code), "{}", failure.stderr);
    let sentence = failure.stderr.rsplit("rustydb: ").next().unwrap();
    for word in words {
        assert!(sentence.contains(word), "{word:?} is not in: {}", failure.stderr);
    }
    failure
}

/// One GET: status and body.
fn get(url: &str, basic: Option<(&str, &str)>) -> (u16, String) {
    let mut request = ureq::get(url).config().http_status_as_error(false).build();
    if let Some((role, password)) = basic {
        request = request.header("authorization", basic_header(role, password));
    }
    let mut response = request.call().unwrap();
    (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
}

fn basic_header(role: &str, password: &str) -> String {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{role}:{password}"));
    format!("Basic {pair}")
}

/// One statement over HTTP: status and body.
fn http_query(server: &Server, role: &str, password: &str, sql: &str) -> (u16, String) {
    let mut response = ureq::post(&server.url("/api/v1/query"))
        .config()
        .http_status_as_error(false)
        .build()
        .header("authorization", basic_header(role, password))
        .content_type("application/json")
        .send(serde_json::json!({ "sql": sql }).to_string())
        .unwrap();
    (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
}

/// A statement in a `psql` of its own.
struct Running(Child);

impl Running {
    fn start(server: &Server, commands: &[&str]) -> Self {
        let mut psql = server.psql_command();
        psql.args(["-At", "-v", "VERBOSITY=verbose"]);
        for command in commands {
            psql.args(["-c", command]);
        }
        let child = psql
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// What it said; fails when it hangs.
    fn end(mut self, limit: Duration) -> Psql {
        let deadline = Instant::now() + limit;
        while self.0.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                let _ = self.0.kill();
                panic!("psql hangs");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.0.wait_with_output().unwrap().into()
    }
}

/// Waits until PostgreSQL executes a statement that contains `text`; returns its process.
fn executing(server: &Server, text: &str) -> i32 {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() \
         AND query LIKE '%{text}%' LIMIT 1"
    );
    let mut pid = String::new();
    eventually(text, SOON, || {
        pid = server.direct_value(&sql);
        !pid.is_empty()
    });
    pid.parse().unwrap()
}

/// Processes whose working directory is the cluster of this data directory: PostgreSQL's.
fn postgres_processes(data_dir: &Path) -> Vec<i32> {
    let cluster = data_dir.join("pg").canonicalize().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers
        .filter(|pid| {
            let cwd = std::fs::read_link(format!("/proc/{pid}/cwd"));
            cwd.is_ok_and(|cwd| cwd == cluster)
        })
        .collect()
}

/// A client on an event loop of its own thread, for what `psql` does not show.
struct Client {
    runtime: tokio::runtime::Runtime,
    client: tokio_postgres::Client,
    connection: tokio::task::JoinHandle<Result<(), tokio_postgres::Error>>,
}

impl Client {
    fn connect(server: &Server, password: &str) -> Result<Self, tokio_postgres::Error> {
        Self::connect_to("127.0.0.1", server.port, "rustydb", password, "rustydb")
    }

    fn connect_to(
        host: &str,
        port: u16,
        role: &str,
        password: &str,
        database: &str,
    ) -> Result<Self, tokio_postgres::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut config = tokio_postgres::Config::new();
        config.host(host).port(port).user(role).password(password).dbname(database);
        config.connect_timeout(Duration::from_secs(20));
        let (client, connection) = runtime.block_on(config.connect(tokio_postgres::NoTls))?;
        let connection = runtime.spawn(connection);
        Ok(Self { runtime, client, connection })
    }

    fn value(&self, sql: &str) -> Result<String, tokio_postgres::Error> {
        let rows = self.runtime.block_on(async {
            let query = self.client.simple_query(sql);
            tokio::time::timeout(SOON, query).await.expect("the statement hangs")
        })?;
        Ok(rows
            .iter()
            .find_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            })
            .unwrap_or_default())
    }

    /// Waits for the end of the connection; returns the server's last word.
    fn last_word(self) -> Option<tokio_postgres::error::DbError> {
        let ended = self.runtime.block_on(async {
            tokio::time::timeout(SOON, self.connection).await.expect("the connection stays open")
        });
        ended.unwrap().err()?.as_db_error().cloned()
    }
}

fn sqlstate(error: &tokio_postgres::Error) -> String {
    error.code().map_or_else(|| format!("none: {error:?}"), |code| code.code().to_owned())
}

/// The newest PostgreSQL of the distribution.
fn postgres_bin() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").unwrap().flatten();
    let newest = versions.filter_map(|v| v.file_name().to_str()?.parse::<u32>().ok()).max();
    PathBuf::from(format!("/usr/lib/postgresql/{}/bin", newest.unwrap()))
}

/// A PostgreSQL that is not ours: TCP on loopback, SCRAM for everybody.
struct PlainPostgres {
    dir: tempfile::TempDir,
    port: u16,
}

impl PlainPostgres {
    const SUPERUSER: &str = "super";
    const PASSWORD: &str = "p@ss/word";
    const URL_PASSWORD: &str = "p%40ss%2Fword";

    fn start() -> Self {
        Self::start_with(|_| String::new())
    }

    /// With further options of `postgres`, for which files may be laid into its directory.
    fn start_with(options: impl FnOnce(&Path) -> String) -> Self {
        let plain = Self::init();
        let more = options(plain.dir.path());
        plain.launch(&more);
        plain
    }

    /// A cluster that is not started yet.
    fn init() -> Self {
        let plain = Self { dir: harness::temp_dir(), port: harness::free_port() };
        let at = plain.dir.path();
        std::fs::write(at.join("password"), Self::PASSWORD).unwrap();
        if is_root() {
            let uid = Some(unprivileged_uid());
            std::os::unix::fs::chown(at, uid, None).unwrap();
            std::os::unix::fs::chown(at.join("password"), uid, None).unwrap();
        }
        let made = plain
            .tool("initdb")
            .args(["--auth=scram-sha-256", "--encoding=UTF8", "--no-sync", "--username"])
            .arg(Self::SUPERUSER)
            .arg("--pwfile")
            .arg(at.join("password"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", stderr(&made));
        plain
    }

    /// Starts it, with further options of the command line.
    fn launch(&self, more: &str) {
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off {more}",
            self.port
        );
        let log = self.dir.path().join("log");
        let started = self
            .tool("pg_ctl")
            .args(["-w", "-o", &options, "-l"])
            .arg(&log)
            .arg("start")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(started.success(), "{:?}", std::fs::read_to_string(log));
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = harness::command(postgres_bin().join(name).to_str().unwrap());
        command.arg("-D").arg(self.dir.path().join("cluster")).current_dir(self.dir.path());
        if is_root() {
            let uid = unprivileged_uid();
            command.uid(uid).gid(uid);
        }
        command
    }

    fn stop(&self) {
        let mut stop = self.tool("pg_ctl");
        let stop = stop.args(["-w", "-m", "immediate", "stop"]);
        let _ = stop.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }

    fn url(&self) -> String {
        let (user, password) = (Self::SUPERUSER, Self::URL_PASSWORD);
        format!("postgresql://{user}:{password}@127.0.0.1:{}/postgres", self.port)
    }

    fn connect(&self) -> Client {
        let (user, password) = (Self::SUPERUSER, Self::PASSWORD);
        Client::connect_to("127.0.0.1", self.port, user, password, "postgres").unwrap()
    }
}

impl Drop for PlainPostgres {
    fn drop(&mut self) {
        self.stop();
    }
}
