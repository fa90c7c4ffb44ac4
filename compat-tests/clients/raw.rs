//! The PostgreSQL protocol by hand: messages that no driver would send, and transcripts.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::harness::Server;

const PATIENCE: Duration = Duration::from_secs(20);

/// A message with its length.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
    out
}

pub fn startup(code: u32, parameters: &[&[u8]]) -> Vec<u8> {
    let mut body = code.to_be_bytes().to_vec();
    for text in parameters {
        body.extend_from_slice(text);
        body.push(0);
    }
    if !parameters.is_empty() {
        body.push(0);
    }
    let mut out = (body.len() as u32 + 4).to_be_bytes().to_vec();
    out.extend_from_slice(&body);
    out
}

pub const V3: u32 = 3 << 16;

pub fn usual_startup() -> Vec<u8> {
    startup(V3, &[b"user", b"rustydb", b"database", b"rustydb"])
}

/// CancelRequest with what BackendKeyData said: process number and key.
pub fn cancel_request(pid_and_key: &[u8]) -> Vec<u8> {
    let length = pid_and_key.len() as u32 + 8;
    [&length.to_be_bytes()[..], &80_877_102u32.to_be_bytes(), pid_and_key].concat()
}

pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &[sql.as_bytes(), b"\0"].concat())
}

pub fn parse(name: &str, sql: &str, oids: &[u32]) -> Vec<u8> {
    let mut body = [name.as_bytes(), b"\0", sql.as_bytes(), b"\0"].concat();
    body.extend_from_slice(&(oids.len() as u16).to_be_bytes());
    oids.iter().for_each(|oid| body.extend_from_slice(&oid.to_be_bytes()));
    message(b'P', &body)
}

/// Bind; formats apply to all parameters and all columns.
pub fn bind(
    portal: &str,
    statement: &str,
    values: &[Option<&[u8]>],
    formats: (u16, u16),
) -> Vec<u8> {
    let mut body = [portal.as_bytes(), b"\0", statement.as_bytes(), b"\0"].concat();
    body.extend_from_slice(&[0, 1]);
    body.extend_from_slice(&formats.0.to_be_bytes());
    body.extend_from_slice(&(values.len() as u16).to_be_bytes());
    for value in values {
        match value {
            Some(bytes) => {
                body.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
                body.extend_from_slice(bytes);
            }
            None => body.extend_from_slice(&(-1i32).to_be_bytes()),
        }
    }
    body.extend_from_slice(&[0, 1]);
    body.extend_from_slice(&formats.1.to_be_bytes());
    message(b'B', &body)
}

/// Bind of texts to texts, unnamed.
pub fn bind_text(values: &[&str]) -> Vec<u8> {
    let values: Vec<_> = values.iter().map(|v| Some(v.as_bytes())).collect();
    bind("", "", &values, (0, 0))
}

/// Describe (`D`) or Close (`C`) of a statement (`S`) or a portal (`P`).
pub fn about(tag: u8, kind: u8, name: &str) -> Vec<u8> {
    message(tag, &[&[kind], name.as_bytes(), b"\0"].concat())
}

pub fn execute(portal: &str, rows: u32) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), b"\0", &rows.to_be_bytes()].concat())
}

pub fn sync() -> Vec<u8> {
    message(b'S', b"")
}

pub fn flush() -> Vec<u8> {
    message(b'H', b"")
}

/// Parse, Bind, Describe, Execute, all unnamed.
pub fn extended(sql: &str, values: &[&str]) -> Vec<u8> {
    [parse("", sql, &[]), bind_text(values), about(b'D', b'P', ""), execute("", 0)].concat()
}

pub trait Socket: Read + Write + Send {}
impl<T: Read + Write + Send> Socket for T {}

/// A connection with what was read of it.
pub struct Wire {
    pub socket: Box<dyn Socket>,
}

impl Wire {
    /// To RustyDB, not logged in.
    pub fn to(server: &Server) -> Self {
        Self { socket: Box::new(server.connect()) }
    }

    /// To PostgreSQL itself, not logged in.
    pub fn direct(server: &Server) -> Self {
        let stream = UnixStream::connect(server.data_dir.join("run/.s.PGSQL.5432")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket: Box::new(stream) }
    }

    pub fn over(stream: TcpStream) -> Self {
        Self { socket: Box::new(stream) }
    }

    /// Logged in and ready, on a server without passwords.
    pub fn ready(mut self) -> Self {
        self.send(&usual_startup());
        self.until(b'Z');
        self
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
        self.socket.flush().unwrap();
    }

    /// Sends what the other side may refuse to take.
    pub fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    /// The next message; `None` at the end of the connection.
    pub fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        if let Err(e) = self.socket.read_exact(&mut head) {
            use std::io::ErrorKind::{ConnectionReset, UnexpectedEof};
            assert!(matches!(e.kind(), UnexpectedEof | ConnectionReset), "{e}");
            return None;
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut body = vec![0; length - 4];
        self.socket.read_exact(&mut body).unwrap();
        Some((head[0], body))
    }

    /// Messages up to and including one of this type.
    pub fn until(&mut self, tag: u8) -> Vec<(u8, Vec<u8>)> {
        let mut messages = Vec::new();
        loop {
            let Some(message) = self.next() else {
                panic!("the connection ended before {:?}: {}", tag as char, render(&messages));
            };
            let last = message.0 == tag;
            messages.push(message);
            if last {
                return messages;
            }
        }
    }

    /// Messages up to this number of ReadyForQuery.
    pub fn until_ready(&mut self, times: usize) -> Vec<(u8, Vec<u8>)> {
        (0..times).flat_map(|_| self.until(b'Z')).collect()
    }

    /// Everything up to the end of the connection.
    pub fn rest(&mut self) -> Vec<(u8, Vec<u8>)> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// Everything up to the end of the connection, as bytes.
    pub fn raw_rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.socket.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset, "{bytes:?}"),
        }
        bytes
    }

    /// Runs a simple query and returns the first value of each row.
    pub fn values(&mut self, sql: &str) -> Vec<String> {
        self.send(&query(sql));
        let messages = self.until(b'Z');
        assert!(!messages.iter().any(|m| m.0 == b'E'), "{}", render(&messages));
        let value = |body: &Vec<u8>| String::from_utf8_lossy(&body[6..]).into_owned();
        messages.iter().filter(|m| m.0 == b'D').map(|m| value(&m.1)).collect()
    }
}

/// One line for each message, without the numbers that are dealt out anew in every session.
pub fn render(messages: &[(u8, Vec<u8>)]) -> String {
    let line = |(tag, body): &(u8, Vec<u8>)| {
        let mut body = body.clone();
        match tag {
            b'A' => body[..4].fill(0),
            b'T' => mask_tables(&mut body),
            _ => {}
        }
        body.truncate(300);
        let text = body.escape_ascii().to_string();
        format!("{} {}\n", *tag as char, mask_schema(&text))
    };
    messages.iter().map(line).collect()
}

/// Blanks the numbers of users' tables in a RowDescription.
fn mask_tables(body: &mut [u8]) {
    let mut at = 2;
    while let Some(name) = body.get(at..).and_then(|rest| rest.iter().position(|b| *b == 0)) {
        at += name + 1;
        let Some(oid) = body.get_mut(at..at + 4) else { return };
        if *oid > [0, 0, 0x3f, 0xff][..] {
            oid.fill(0);
        }
        at += 18;
    }
}

fn mask_schema(text: &str) -> String {
    let Some((before, after)) = text.split_once("pg_temp_") else { return text.to_owned() };
    let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{before}pg_temp_N{after}")
}

/// A field of an ErrorResponse.
pub fn field(body: &[u8], code: u8) -> String {
    let found = body.split(|b| *b == 0).find_map(|field| field.strip_prefix(&[code]));
    String::from_utf8_lossy(found.unwrap_or_default()).into_owned()
}
