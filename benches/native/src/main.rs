//! Load for the benchmarks: the same work over the native protocol (`rustydb-client`) and over
//! PostgreSQL's (`tokio-postgres`), on one thread and, but for `idle`, on one connection.
//!
//! ```text
//! native-load PROTOCOL PORT DATABASE select DEPTH SECONDS
//! native-load PROTOCOL PORT DATABASE stream ROWS
//! native-load PROTOCOL PORT DATABASE insert ROWS
//! native-load PROTOCOL PORT DATABASE idle CLIENTS
//! ```
//!
//! PROTOCOL is `native` or `postgres`. The first three print what they did as a line of JSON:
//! `units` of work (statements, rows), the `seconds` it took. `idle` connects, prints a line, and
//! then runs every line of its standard input on each of its clients, one after the other, and
//! prints a line after that.

mod native;
mod postgres;

use std::future::Future;
use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

/// What can go wrong is only printed.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The statement of `select`: pgbench's own.
const SELECT: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = $1";

/// Keys of `pgbench_accounts` at scale 10.
const KEYS: u32 = 1_000_000;

/// The statement of `stream`.
const STREAM: &str = "SELECT id, name, at, value FROM typed_out LIMIT $1";

/// The table of `insert`, and its columns.
const TABLE: &str = "typed_in";
const COLUMNS: [&str; 4] = ["id", "name", "at", "value"];

/// One protocol.
trait Driver: Sized {
    async fn connect(port: u16, database: &str) -> Result<Self>;

    /// Runs `SELECT` with `depth` of them under way until the time; returns how many were run.
    async fn select(self, depth: u32, until: Instant) -> Result<u64>;

    /// Gives every row of `STREAM` to `sum`.
    async fn stream(self, rows: i64, sum: &mut Sum) -> Result<()>;

    /// Inserts `row(0)` to `row(rows - 1)`; returns how many were inserted.
    async fn insert(self, rows: i64) -> Result<u64>;

    async fn run(&self, sql: &str) -> Result<()>;
}

/// What all values of the rows come to: both drivers have to make each of them.
#[derive(Default)]
struct Sum {
    rows: u64,
    ids: i64,
    name_bytes: usize,
    latest: Option<SystemTime>,
    values: f64,
}

impl Sum {
    fn add(&mut self, id: i64, name: &str, at: SystemTime, value: f64) {
        self.rows += 1;
        self.ids = self.ids.wrapping_add(id);
        self.name_bytes += name.len();
        self.latest = self.latest.max(Some(at));
        self.values += value;
    }

    /// Every name has at least a byte, and the moments and numbers are not those of nothing.
    fn is_complete(&self, rows: i64) -> bool {
        self.rows == rows.unsigned_abs()
            && self.ids == rows * (rows + 1) / 2
            && self.name_bytes as u64 >= self.rows
            && self.latest > Some(SystemTime::UNIX_EPOCH)
            && self.values > 0.0
    }
}

/// A row to insert; `name` is where its text is made.
fn row(number: i64, name: &mut String) -> (i64, &str, SystemTime, f64) {
    use std::fmt::Write;
    name.clear();
    // To a String this cannot fail.
    let _ = write!(name, "name of row {number}");
    let at = SystemTime::UNIX_EPOCH
        + Duration::from_micros(1_767_225_600_000_000)
        + Duration::from_micros(number.unsigned_abs() * 1_000_003);
    (number, name, at, number as f64 * 0.37)
}

/// Keys in an order that no cache foresees (xorshift).
struct Keys(u32);

impl Keys {
    fn new(seed: u32) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9) | 1)
    }

    fn next(&mut self) -> i32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        (self.0 % KEYS + 1).cast_signed()
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(Into::into).and_then(|runtime| match words.first() {
        Some(&"native") => runtime.block_on(work::<native::Native>(&words[1..])),
        Some(&"postgres") => runtime.block_on(work::<postgres::Postgres>(&words[1..])),
        _ => Err("the first word is native or postgres".into()),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("error: {error}");
            let mut cause = error.source();
            while let Some(inner) = cause {
                text += &format!(": {inner}");
                cause = inner.source();
            }
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

async fn work<D: Driver>(words: &[&str]) -> Result<()> {
    let &[port, database, what, ref rest @ ..] = words else {
        return Err("PROTOCOL PORT DATABASE and what to do are wanted".into());
    };
    let port = port.parse()?;
    let connect = || D::connect(port, database);
    match (what, rest) {
        ("select", [depth, seconds]) => {
            let (driver, depth) = (connect().await?, depth.parse()?);
            let length = Duration::from_secs_f64(seconds.parse()?);
            timed(async { driver.select(depth, Instant::now() + length).await }).await
        }
        ("stream", [rows]) => {
            let (driver, rows) = (connect().await?, rows.parse()?);
            timed(async {
                let mut sum = Sum::default();
                driver.stream(rows, &mut sum).await?;
                match sum.is_complete(rows) {
                    true => Ok(sum.rows),
                    false => Err("not all rows have come, or not as they are".into()),
                }
            })
            .await
        }
        ("insert", [rows]) => {
            let (driver, rows) = (connect().await?, rows.parse::<i64>()?);
            timed(async {
                match driver.insert(rows).await? {
                    inserted if inserted == rows.unsigned_abs() => Ok(inserted),
                    inserted => Err(format!("{inserted} rows were inserted").into()),
                }
            })
            .await
        }
        ("idle", [count]) => {
            let mut clients = Vec::new();
            for _ in 0..count.parse()? {
                clients.push(connect().await?);
            }
            idle(&clients).await
        }
        _ => Err("select, stream, insert or idle, with their numbers, are wanted".into()),
    }
}

async fn timed(work: impl Future<Output = Result<u64>>) -> Result<()> {
    let begun = Instant::now();
    let units = work.await?;
    let seconds = begun.elapsed().as_secs_f64();
    say(&format!("{{\"units\": {units}, \"seconds\": {seconds:.6}}}"))
}

/// Waits for lines while nothing is under way: the server's heartbeats find nobody meanwhile, which
/// it bears for a minute.
async fn idle<D: Driver>(clients: &[D]) -> Result<()> {
    let count = clients.len();
    say(&format!("{{\"units\": {count}}}"))?;
    for line in std::io::stdin().lock().lines() {
        let sql = line?;
        for client in clients {
            client.run(&sql).await?;
        }
        say(&format!("{{\"units\": {count}}}"))?;
    }
    Ok(())
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
