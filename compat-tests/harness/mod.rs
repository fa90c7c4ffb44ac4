//! The real server for tests: the built binary, a temporary data directory, free ports, the real
//! `psql`. Shared by the test binaries; each uses a part of it.
#![allow(dead_code)]

pub mod pki;
pub mod shared;

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longest wait for a server to be ready or gone.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long [`eventually`] waits for what comes in a moment on an idle machine.
pub const SOON: Duration = Duration::from_secs(30);

/// How a server is to be started.
pub struct Builder {
    args: Vec<String>,
    env: Vec<(String, String)>,
    data: Option<PathBuf>,
    user: Option<u32>,
    /// Socket directory and metrics port of another server.
    place: Option<(PathBuf, u16)>,
    /// A script that runs the program, `$0` with its arguments, `$@`, and its standard input.
    script: Option<(String, OwnedFd)>,
}

/// A server that did not start.
#[derive(Debug)]
pub struct Failure {
    pub code: Option<i32>,
    pub stderr: String,
}

/// A running server; ended, and its PostgreSQL with it, when it is dropped.
pub struct Server {
    child: Child,
    /// Everything temporary; kept by `data_dir` when the server was given one.
    _temp: TempDir,
    pub data_dir: PathBuf,
    pub socket_dir: PathBuf,
    pub port: u16,
    pub api_port: u16,
    pub metrics_port: u16,
    pub password: String,
    /// What it printed when it was ready.
    pub ready: String,
    log: PathBuf,
}

/// A directory that the user who runs PostgreSQL can reach.
pub fn temp_dir() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::Builder::new().prefix("rustydb-").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    dir
}

/// A TCP port that nobody listens on. Not one that the system gives out by itself: somebody could
/// get it before it is used.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 20_000).unwrap();
    loop {
        let next = first + NEXT.fetch_add(1, Ordering::Relaxed) % 1000;
        let port = 10_000 + next;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The server under test: cargo's, or that of RUSTYDB_TEST_BINARY.
pub fn binary() -> &'static str {
    static BINARY: LazyLock<String> = LazyLock::new(|| {
        let given = std::env::var("RUSTYDB_TEST_BINARY");
        given.unwrap_or_else(|_| env!("CARGO_BIN_EXE_rustydb").to_owned())
    });
    &BINARY
}

/// A command with nothing of this process's `RUSTYDB_` and `PG` variables.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars() {
        if name.starts_with("RUSTYDB_") || (name.starts_with("PG") && name != "PGDATA") {
            command.env_remove(name);
        }
    }
    command
}

impl Builder {
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.into());
        self
    }

    /// `--set KEY=VALUE`.
    pub fn set(self, pair: &str) -> Self {
        self.arg("--set").arg(pair)
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Uses this data directory instead of a temporary one.
    pub fn data_dir(mut self, path: &Path) -> Self {
        self.data = Some(path.into());
        self
    }

    /// Runs the server as this operating-system user.
    pub fn user(mut self, uid: u32) -> Self {
        self.user = Some(uid);
        self
    }

    /// Takes over from a server, which has to be kept: everything temporary is its.
    pub fn taking_over(mut self, server: &Server) -> Self {
        self.data = Some(server.data_dir.clone());
        self.place = Some((server.socket_dir.clone(), server.metrics_port));
        self.arg("--takeover")
    }

    /// Has a shell run the program.
    pub fn script(mut self, script: &str, stdin: impl Into<OwnedFd>) -> Self {
        self.script = Some((script.into(), stdin.into()));
        self
    }

    pub fn try_start(self) -> Result<Server, Failure> {
        let temp = temp_dir();
        let data_dir = self.data.unwrap_or_else(|| temp.path().join("data"));
        let (socket_dir, metrics_port) = self.place.unwrap_or_else(|| {
            let directory = temp.path().join("sockets");
            std::fs::create_dir(&directory).unwrap();
            (directory, free_port())
        });
        if let Some(uid) = self.user {
            std::os::unix::fs::chown(temp.path(), Some(uid), None).unwrap();
            std::os::unix::fs::chown(&socket_dir, Some(uid), None).unwrap();
        }
        let log = temp.path().join("log");
        let mut program = PathBuf::from(binary());
        if self.user.is_some() {
            // The build's folder may be one that this user cannot enter.
            program = temp.path().join("rustydb");
            std::fs::copy(binary(), &program).unwrap();
        }
        // As on a larger machine, so that connections change threads.
        let threads: &[&str] = match self.args.iter().any(|arg| arg == "--config") {
            true => &[],
            // Tests of the limits turn them on.
            false => &["--set", "server.worker_threads=2", "--set", "rate_limit.enabled=false"],
        };
        let (mut command, stdin) = match self.script {
            None => (command(program.to_str().unwrap()), Stdio::null()),
            Some((script, stdin)) => {
                let mut shell = command("sh");
                shell.args(["-c", &script, program.to_str().unwrap()]);
                (shell, stdin.into())
            }
        };
        command
            .args(["--port", "0", "--api-port", "0", "--listen", "127.0.0.1"])
            .args(["--metrics-port", &metrics_port.to_string()])
            .args(["--set", "backend.embedded.shared_buffers=32MB"])
            .args(threads)
            .args(["--log-format", "plain", "--log-level", "debug"])
            .arg("--unix-socket-dir")
            .arg(&socket_dir)
            .arg("--data-dir")
            .arg(&data_dir)
            .args(&self.args)
            .envs(self.env)
            .current_dir(temp.path())
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap());
        if let Some(uid) = self.user {
            command.uid(uid).gid(uid);
        }
        let mut child = command.spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut ready = String::new();
        let mut byte = [0];
        // The password line is the last one.
        while !ready.contains("\n  password ") || !ready.ends_with('\n') {
            match stdout.read(&mut byte) {
                Ok(1) => ready.push(byte[0] as char),
                _ => {
                    let status = child.wait().unwrap();
                    let stderr = std::fs::read_to_string(&log).unwrap_or_default();
                    return Err(Failure { code: status.code(), stderr });
                }
            }
        }
        let lock = std::fs::read_to_string(data_dir.join("rustydb.lock")).unwrap();
        let lock: serde_json::Value = serde_json::from_str(&lock).unwrap();
        let api = lock["api"].as_str().unwrap();
        let password = std::fs::read_to_string(data_dir.join("admin-password"));
        Ok(Server {
            port: lock["postgres_port"].as_u64().unwrap() as u16,
            api_port: api.rsplit(':').next().unwrap().parse().unwrap(),
            metrics_port,
            password: password.unwrap_or_default().trim().to_owned(),
            child,
            _temp: temp,
            data_dir,
            socket_dir,
            ready,
            log,
        })
    }

    pub fn start(self) -> Server {
        self.try_start().unwrap_or_else(|failure| panic!("the server did not start: {failure:?}"))
    }
}

/// Output of `psql`.
#[derive(Debug, PartialEq, Eq)]
pub struct Psql {
    pub stdout: String,
    pub stderr: String,
    pub code: Option<i32>,
}

impl From<Output> for Psql {
    fn from(output: Output) -> Self {
        Self {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code(),
        }
    }
}

/// Starts a child whose input and outputs are ours.
pub fn piped(command: &mut Command) -> Child {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Feeds a child and collects what it says.
pub fn feed(command: &mut Command, input: &str) -> Output {
    let mut child = piped(command);
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

impl Server {
    pub fn builder() -> Builder {
        Builder {
            args: Vec::new(),
            env: Vec::new(),
            data: None,
            user: None,
            place: None,
            script: None,
        }
    }

    pub fn start() -> Self {
        Self::builder().start()
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The first line of the log that has all of these words. The log is written by a thread of
    /// its own: what has happened may be told a moment later.
    pub fn log_line(&self, words: &[&str]) -> String {
        let mut found = None;
        eventually(&format!("a line of the log with {words:?}"), SOON, || {
            let log = self.log();
            let has_all = |line: &&str| words.iter().all(|word| line.contains(word));
            found = log.lines().find(has_all).map(str::to_owned);
            found.is_some()
        });
        found.unwrap()
    }

    /// `psql` through RustyDB as the administrator, without a start-up file.
    pub fn psql_command(&self) -> Command {
        let mut psql = command("psql");
        psql.args(["-X", "-h", "127.0.0.1", "-U", "rustydb", "-d", "rustydb"])
            .args(["-p", &self.port.to_string()])
            .env("PGPASSWORD", &self.password)
            .env("PGCONNECT_TIMEOUT", "20");
        psql
    }

    /// `psql` directly to the embedded PostgreSQL's private socket: the reference.
    pub fn direct_psql_command(&self) -> Command {
        let mut psql = command("psql");
        psql.args(["-X", "-U", "rustydb", "-d", "rustydb", "-p", "5432", "-h"])
            .arg(self.data_dir.join("run"));
        psql
    }

    /// Runs a script through RustyDB.
    pub fn psql(&self, script: &str) -> Psql {
        feed(&mut self.psql_command(), script).into()
    }

    /// Runs a script directly on PostgreSQL.
    pub fn direct_psql(&self, script: &str) -> Psql {
        feed(&mut self.direct_psql_command(), script).into()
    }

    /// One value, read directly from PostgreSQL.
    pub fn direct_value(&self, sql: &str) -> String {
        let output = self.direct_psql_command().args(["-Atc", sql]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.api_port)
    }

    /// A TCP connection to the PostgreSQL door, with a time limit on reads.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// A value of the metrics page, 0 when it is absent; `name` with its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let url = format!("http://127.0.0.1:{}/metrics", self.metrics_port);
        let text = ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits for a metric: some are counted a moment after the client has its answer.
    pub fn expect_metric(&self, name: &str, value: f64) {
        eventually(&format!("{name} is {value}"), SOON, || self.metric(name) == value);
    }

    /// The same, of one that may be more.
    pub fn expect_metric_of_at_least(&self, name: &str, value: f64) {
        eventually(&format!("{name} is {value} or more"), SOON, || self.metric(name) >= value);
    }

    /// Process number of the embedded postmaster.
    pub fn postmaster(&self) -> i32 {
        let pid = std::fs::read_to_string(self.data_dir.join("pg/postmaster.pid")).unwrap();
        pid.lines().next().unwrap().parse().unwrap()
    }

    /// Resident memory of RustyDB itself, and its peak, in KiB.
    pub fn memory_kib(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    pub fn signal(&self, signal: &str) {
        signal_process(self.pid(), signal);
    }

    /// Waits for the end of the process; returns the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the server does not end; its log:\n{}", self.log());
    }

    /// SIGTERM, and the end of everything.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.wait()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let is_running = |child: &mut Child| child.try_wait().is_ok_and(|s| s.is_none());
        if is_running(&mut self.child) {
            self.signal("QUIT");
            let deadline = Instant::now() + Duration::from_secs(20);
            while Instant::now() < deadline && is_running(&mut self.child) {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the server ---\n{}", self.log());
        }
    }
}

pub fn signal_process(pid: i32, signal: &str) {
    let signal = format!("SIG{signal}").parse::<nix::sys::signal::Signal>().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

/// Whether a process exists and is not a zombie.
pub fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

/// Waits until a condition holds.
pub fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{what}: not within {limit:?}");
}
