//! Load over HTTP/1.1: keep-alive connections that ask again as soon as they have their answer, on
//! one thread.
//!
//! ```text
//! rest-load PORT requests CONNECTIONS SECONDS PATH [HEADER …]
//! rest-load PORT rows ACCEPT SQL [HEADER …]
//! rest-load PORT once PATH [HEADER …]
//! ```
//!
//! `{key}` in PATH becomes a number from 1 to 1000. `requests` asks until the time is over, `rows`
//! asks once for all rows of a statement (`POST /api/v1/query`) and counts lines; both print a line
//! of JSON: `units` of work, `seconds`, `bytes` of the bodies. `once` prints the body.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What can go wrong is only printed.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Bytes that are read at once.
const WINDOW: usize = 64 << 10;

/// A connection, and what of its answers has been read.
struct Connection {
    stream: TcpStream,
    window: Vec<u8>,
    filled: usize,
    taken: usize,
}

/// How the end of a body is found.
enum Length {
    Known(usize),
    Chunked,
}

impl Connection {
    async fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, window: vec![0; WINDOW], filled: 0, taken: 0 })
    }

    /// Sends a request and gives each piece of the body to `take`.
    async fn ask(&mut self, request: &[u8], mut take: impl FnMut(&[u8])) -> Result<()> {
        self.stream.write_all(request).await?;
        match self.head().await? {
            Length::Known(length) => self.piece(length, &mut take).await,
            Length::Chunked => loop {
                let size = self.line().await?;
                let size = usize::from_str_radix(size.split(';').next().unwrap_or("").trim(), 16)?;
                self.piece(size, &mut take).await?;
                self.line().await?;
                if size == 0 {
                    return Ok(());
                }
            },
        }
    }

    /// Reads to the end of the head; another status than 200 ends the run.
    async fn head(&mut self) -> Result<Length> {
        let status = self.line().await?;
        let is_fine = status.starts_with("HTTP/1.1 200 ");
        let mut length = None;
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(Length::Known(value.trim().parse()?));
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                length = Some(Length::Chunked);
            }
        }
        if !is_fine {
            let mut body = Vec::new();
            if let Some(Length::Known(length)) = length {
                self.piece(length, &mut |piece: &[u8]| body.extend_from_slice(piece)).await?;
            }
            return Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into());
        }
        length.ok_or_else(|| "an answer without a length".into())
    }

    async fn line(&mut self) -> Result<String> {
        loop {
            let unread = &self.window[self.taken..self.filled];
            if let Some(end) = unread.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&unread[..end]).into_owned();
                self.taken += end + 2;
                return Ok(line);
            }
            self.window.copy_within(self.taken..self.filled, 0);
            self.filled -= self.taken;
            self.taken = 0;
            self.fill().await?;
        }
    }

    async fn piece(&mut self, mut length: usize, take: &mut impl FnMut(&[u8])) -> Result<()> {
        while length > 0 {
            if self.taken == self.filled {
                (self.taken, self.filled) = (0, 0);
                self.fill().await?;
            }
            let end = self.filled.min(self.taken + length);
            take(&self.window[self.taken..end]);
            length -= end - self.taken;
            self.taken = end;
        }
        Ok(())
    }

    async fn fill(&mut self) -> Result<()> {
        match self.stream.read(&mut self.window[self.filled..]).await? {
            0 => Err("the connection was closed".into()),
            read => {
                self.filled += read;
                Ok(())
            }
        }
    }
}

fn request(line: &str, headers: &[&str], body: &str) -> Vec<u8> {
    let mut text = format!("{line} HTTP/1.1\r\nHost: localhost\r\n");
    for header in headers {
        text += header;
        text += "\r\n";
    }
    if !body.is_empty() {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    text += "\r\n";
    text += body;
    text.into_bytes()
}

/// Numbers from 1 to 1000 in an order that no cache foresees (xorshift).
struct Keys(u32);

impl Keys {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % 1000 + 1
    }
}

/// One connection until the time: how many requests, and bytes.
async fn ask_again(
    port: u16,
    path: String,
    headers: Vec<String>,
    seed: u32,
    until: Instant,
) -> Result<(u64, u64)> {
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    let mut keys = Keys(seed.wrapping_mul(0x9e37_79b9) | 1);
    let mut connection = Connection::open(port).await?;
    let (mut count, mut bytes) = (0, 0);
    while Instant::now() < until {
        let path = path.replace("{key}", &keys.next().to_string());
        let request = request(&format!("GET {path}"), &headers, "");
        connection.ask(&request, |piece| bytes += piece.len() as u64).await?;
        count += 1;
    }
    Ok((count, bytes))
}

async fn work(words: &[&str]) -> Result<()> {
    let (port, words) = words.split_first().ok_or("PORT and what to do are wanted")?;
    let port: u16 = port.parse()?;
    match words {
        ["requests", connections, seconds, path, headers @ ..] => {
            let begun = Instant::now();
            let until = begun + Duration::from_secs_f64(seconds.parse()?);
            let headers: Vec<String> = headers.iter().map(|&header| header.into()).collect();
            let one = |seed| ask_again(port, path.to_string(), headers.clone(), seed, until);
            let all: Vec<_> =
                (0..connections.parse()?).map(|seed| tokio::spawn(one(seed))).collect();
            let (mut count, mut bytes) = (0, 0);
            for task in all {
                let done = task.await??;
                count += done.0;
                bytes += done.1;
            }
            report(count, begun, bytes)
        }
        ["rows", accept, sql, headers @ ..] => {
            let body = serde_json::json!({ "sql": sql }).to_string();
            let accept = format!("Accept: {accept}");
            let mut all = vec!["Content-Type: application/json", accept.as_str()];
            all.extend_from_slice(headers);
            let mut connection = Connection::open(port).await?;
            let begun = Instant::now();
            let (mut lines, mut bytes) = (0, 0);
            let count = |piece: &[u8]| {
                lines += piece.iter().filter(|&&byte| byte == b'\n').count() as u64;
                bytes += piece.len() as u64;
            };
            connection.ask(&request("POST /api/v1/query", &all, &body), count).await?;
            report(lines, begun, bytes)
        }
        ["once", path, headers @ ..] => {
            let mut body = Vec::new();
            let mut connection = Connection::open(port).await?;
            let path = path.replace("{key}", "7");
            let request = request(&format!("GET {path}"), headers, "");
            connection.ask(&request, |piece| body.extend_from_slice(piece)).await?;
            Ok(std::io::stdout().write_all(&body)?)
        }
        _ => Err("requests, rows or once, with what they need, are wanted".into()),
    }
}

fn report(units: u64, begun: Instant, bytes: u64) -> Result<()> {
    let seconds = begun.elapsed().as_secs_f64();
    let line = serde_json::json!({ "units": units, "seconds": seconds, "bytes": bytes });
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(work(&words))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
