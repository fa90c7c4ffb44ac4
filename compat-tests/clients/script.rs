//! Wire scripts: `compat-tests/wire/**/*.script` hold protocol messages, one on each line, of
//! several clients. A script is played on PostgreSQL, then through RustyDB; the transcripts must
//! be equal. `compat-tests/wire/README.md` describes the format.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;

use crate::harness::Server;
use crate::raw::{V3, message, parse, query, render, startup, usual_startup};

/// Silence after which nothing more is expected.
const PATIENCE: Duration = Duration::from_secs(5);

/// A play has the schema `wire` of its server for itself.
static STAGES: [Mutex<()>; 2] = [const { Mutex::new(()) }; 2];

/// In a transcript, where an answer should be.
const NOTHING: &str = "(NOTHING CAME)";

/// Which way a script goes.
#[derive(Clone, Copy)]
pub enum Way<'a> {
    Direct(&'a Server),
    Through(&'a Server),
    /// Through RustyDB, with the connection that was used last taken by somebody else before each
    /// write: where transactions are pooled, each one finds itself on another backend.
    Displaced(&'a Server),
}

pub struct Script {
    pub name: String,
    lines: Vec<String>,
}

impl Script {
    fn read(path: &Path, folder: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let name = path.strip_prefix(folder).unwrap().with_extension("");
        Self { name: name.display().to_string(), lines: text.lines().map(str::to_owned).collect() }
    }

    /// Every script of a folder beside this crate's tests, in the order of their names.
    pub fn all(folder: &str) -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("compat-tests").join(folder);
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|e| e == "script"));
        paths.sort();
        paths.iter().map(|path| Self::read(path, &folder)).collect()
    }

    /// What the scripts' clients were told, on this way.
    pub fn play(&self, way: Way) -> String {
        let mut stage = Stage {
            way,
            clients: HashMap::new(),
            current: String::new(),
            holders: [None, None],
            out: vec![],
        };
        for (at, line) in self.lines.iter().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let place = format!("{}.script:{}", self.name, at + 1);
            stage.out.push(format!("{} | {line}", at + 1));
            stage.line(line, &place);
        }
        stage.out.join("\n")
    }
}

/// Plays scripts both ways and describes what differs.
pub fn differences(way: Way, scripts: &[Script]) -> Vec<String> {
    scripts.iter().filter_map(|script| difference(way, script).err()).collect()
}

/// Plays a script both ways: what both said, or what differs.
pub fn difference(way: Way, script: &Script) -> Result<String, String> {
    let (Way::Direct(server) | Way::Through(server) | Way::Displaced(server)) = way;
    let _alone = STAGES[usize::from(matches!(way, Way::Displaced(_)))].lock();
    let fresh = || server.direct_psql("drop schema if exists wire cascade; create schema wire;");
    fresh();
    let reference = script.play(Way::Direct(server));
    if let Ok(folder) = std::env::var("WIRE_TRANSCRIPTS") {
        let path = Path::new(&folder).join(&script.name).with_extension("transcript");
        std::fs::write(path, &reference).unwrap();
    }
    if reference.contains(NOTHING) {
        return Err(format!("{} waits in vain:\n{reference}", script.name));
    }
    fresh();
    let ours = script.play(way);
    if ours == reference {
        return Ok(ours);
    }
    let mut context = Vec::new();
    let (mut left, mut right) = (reference.lines(), ours.lines());
    loop {
        let pair = (left.next(), right.next());
        if let (Some(a), Some(b)) = pair
            && a == b
        {
            context.push(a);
            continue;
        }
        let before = &context[context.len().saturating_sub(8)..];
        let (wanted, got) = (pair.0.unwrap_or("the end"), pair.1.unwrap_or("the end"));
        return Err(format!(
            "{}\n      {}\n  PostgreSQL: {wanted}\n  RustyDB:    {got}\n",
            script.name,
            before.join("\n      ")
        ));
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// One client of a script.
struct Client {
    stream: Stream,
    /// What is to be sent with the next write.
    pending: Vec<u8>,
    /// Number and key for cancel requests.
    key: Vec<u8>,
}

enum Answer {
    Message(u8, Vec<u8>),
    Silence,
    End,
}

impl Client {
    fn connect(way: Way) -> Self {
        let stream = match way {
            Way::Through(server) | Way::Displaced(server) => Stream::Tcp(server.connect()),
            Way::Direct(server) => Stream::Unix(
                UnixStream::connect(server.data_dir.join("run/.s.PGSQL.5432")).unwrap(),
            ),
        };
        let client = Self { stream, pending: Vec::new(), key: Vec::new() };
        client.patience(PATIENCE);
        client
    }

    /// As the usual user.
    fn log_in(way: Way) -> Self {
        let mut client = Self::connect(way);
        client.pending = usual_startup();
        client.send();
        let (messages, end) = collect(&mut client, b'Z', 1);
        assert_eq!(end, "", "{}", render(&messages));
        client
    }

    fn patience(&self, limit: Duration) {
        match &self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(Some(limit)).unwrap(),
            Stream::Unix(stream) => stream.set_read_timeout(Some(limit)).unwrap(),
        }
    }

    fn send(&mut self) {
        let bytes = std::mem::take(&mut self.pending);
        // The other side may have ended; what it said is in the transcript.
        let _ = match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(&bytes),
            Stream::Unix(stream) => stream.write_all(&bytes),
        };
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<(), ErrorKind> {
        let result = match &mut self.stream {
            Stream::Tcp(stream) => stream.read_exact(buffer),
            Stream::Unix(stream) => stream.read_exact(buffer),
        };
        result.map_err(|e| e.kind())
    }

    fn next(&mut self) -> Answer {
        let mut head = [0; 5];
        match self.read(&mut head) {
            Ok(()) => {}
            Err(ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Answer::Silence,
            Err(_) => return Answer::End,
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut body = vec![0; length - 4];
        match self.read(&mut body) {
            Ok(()) => Answer::Message(head[0], body),
            Err(_) => Answer::End,
        }
    }
}

struct Stage<'a> {
    way: Way<'a>,
    clients: HashMap<String, Client>,
    current: String,
    /// Who displaces; one of them is inside of a transaction.
    holders: [Option<Client>; 2],
    out: Vec<String>,
}

impl Stage<'_> {
    fn line(&mut self, line: &str, place: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        match word {
            "client" => self.switch(rest),
            "times" => {
                let (count, line) = rest.split_once(' ').unwrap();
                for n in 0..count.parse::<usize>().unwrap() {
                    self.line(&line.replace("{n}", &n.to_string()), place);
                }
            }
            "until" => self.until(rest),
            "send" => self.write().send(),
            "silence" => self.silence(Duration::from_millis(rest.parse().unwrap())),
            "pause" => std::thread::sleep(Duration::from_millis(rest.parse().unwrap())),
            "vanish" => drop(self.clients.remove(&self.current)),
            "cancel" => self.cancel(rest),
            _ => {
                let bytes = encode(word, rest).unwrap_or_else(|| panic!("{place}: {line}"));
                self.client().pending.extend(bytes);
            }
        }
    }

    fn client(&mut self) -> &mut Client {
        self.clients.get_mut(&self.current).unwrap()
    }

    /// The client, before it writes or reads.
    fn write(&mut self) -> &mut Client {
        if matches!(self.way, Way::Displaced(_)) && !self.client().pending.is_empty() {
            self.displace();
        }
        self.client()
    }

    /// One holder takes the connection that was used last, then the other gives its own back.
    fn displace(&mut self) {
        for (at, sql) in ["begin; select 1", "rollback"].into_iter().enumerate() {
            let holder = self.holders[at].get_or_insert_with(|| Client::log_in(self.way));
            holder.pending = query(sql);
            holder.send();
            let (messages, end) = collect(holder, b'Z', 1);
            assert_eq!(end, "", "{}", render(&messages));
        }
        self.holders.swap(0, 1);
    }

    /// `NAME [greeting] [PARAMETER=VALUE …]`: logs the client in when it is new.
    fn switch(&mut self, rest: &str) {
        let mut words = tokens(rest).into_iter();
        self.current = words.next().unwrap();
        if self.clients.contains_key(&self.current) {
            return;
        }
        let mut parameters: Vec<String> =
            ["user", "rustydb", "database", "rustydb"].map(str::to_owned).into();
        let (mut greeting, mut version) = (false, V3);
        for word in words {
            match word.split_once('=') {
                Some(("version", "3.2")) => version = V3 + 2,
                Some((name, value)) => parameters.extend([name.to_owned(), value.to_owned()]),
                None => greeting = word == "greeting",
            }
        }
        let mut client = Client::connect(self.way);
        let parameters: Vec<&[u8]> = parameters.iter().map(String::as_bytes).collect();
        client.pending = startup(version, &parameters);
        client.send();
        let (mut messages, end) = collect(&mut client, b'Z', 1);
        if let Some((_, key)) = messages.iter_mut().find(|m| m.0 == b'K') {
            client.key = std::mem::take(key);
        }
        // In an order that is not documented.
        messages.sort();
        if messages.iter().any(|m| m.0 == b'E') {
            // Who is refused needs not be told that he was let in before.
            messages.retain(|m| m.0 == b'E');
            messages.iter_mut().for_each(|m| without_source(&mut m.1));
        }
        self.clients.insert(self.current.clone(), client);
        if greeting {
            self.note(&messages, end);
        }
    }

    fn note(&mut self, messages: &[(u8, Vec<u8>)], end: &str) {
        let name = self.current.clone();
        let lines = render(messages);
        self.out.extend(lines.lines().map(|line| format!("  {name} < {line}")));
        if !end.is_empty() {
            self.out.push(format!("  {name} < {end}"));
        }
    }

    /// `TYPE [COUNT]`, or `end`.
    fn until(&mut self, rest: &str) {
        let (what, count) = rest.split_once(' ').unwrap_or((rest, "1"));
        let count = count.parse().unwrap();
        let tag = if what == "end" { 0 } else { what.as_bytes()[0] };
        let client = self.write();
        client.send();
        let (messages, end) = collect(client, tag, count);
        self.note(&messages, end);
    }

    /// Nothing may come for so long; what does is shown.
    fn silence(&mut self, limit: Duration) {
        let client = self.write();
        client.send();
        client.patience(limit);
        let mut messages = Vec::new();
        let end = loop {
            match client.next() {
                Answer::Message(tag, body) => messages.push((tag, body)),
                Answer::Silence => break "(silence)",
                Answer::End => break "(end)",
            }
        };
        client.patience(PATIENCE);
        self.note(&messages, end);
    }

    /// Asks on a connection of its own to cancel what a client runs.
    fn cancel(&mut self, name: &str) {
        let body = [&80_877_102u32.to_be_bytes()[..], &self.clients[name].key].concat();
        let mut client = Client::connect(self.way);
        client.pending = [&(body.len() as u32 + 4).to_be_bytes()[..], &body].concat();
        client.send();
        assert!(matches!(client.next(), Answer::End));
    }
}

/// Takes the place in PostgreSQL's source out of an error: a refused start-up is RustyDB's answer.
fn without_source(body: &mut Vec<u8>) {
    let fields = body.split(|b| *b == 0).filter(|field| !field.is_empty());
    let fields = fields.filter(|field| !b"FLR".contains(&field[0]));
    *body = fields.flat_map(|field| [field, b"\0"].concat()).chain([0]).collect();
}

/// Messages up to a number of one type, and how else it ended.
fn collect(client: &mut Client, tag: u8, mut count: usize) -> (Vec<(u8, Vec<u8>)>, &'static str) {
    let mut messages = Vec::new();
    while count > 0 {
        match client.next() {
            Answer::Message(found, body) => {
                count -= usize::from(found == tag);
                messages.push((found, body));
            }
            Answer::Silence => return (messages, NOTHING),
            Answer::End => return (messages, "(end)"),
        }
    }
    (messages, "")
}

/// A message as its line says; `None` when there is no such message.
fn encode(word: &str, rest: &str) -> Option<Vec<u8>> {
    let z = |text: &str| [text.as_bytes(), b"\0"].concat();
    let named = |name: &str| z(if name == "-" { "" } else { name });
    Some(match word {
        "Query" => message(b'Q', &z(rest)),
        "Parse" => {
            let (name, sql) = rest.split_once(' ').unwrap_or((rest, ""));
            let typed = sql.strip_prefix('[').and_then(|sql| sql.split_once(']'));
            let (oids, sql) = typed.unwrap_or(("", sql));
            let oids = oids.split(',').filter(|oid| !oid.is_empty());
            let oids: Vec<u32> = oids.map(|oid| oid.parse().unwrap()).collect();
            parse(if name == "-" { "" } else { name }, sql.trim(), &oids)
        }
        "Bind" => message(b'B', &bind(&tokens(rest))),
        "Describe" | "Close" => {
            let tag = if word == "Describe" { b'D' } else { b'C' };
            let (kind, name) = rest.split_once(' ')?;
            let kind = if kind == "statement" { b'S' } else { b'P' };
            message(tag, &[vec![kind], named(name)].concat())
        }
        "Execute" => {
            let (name, rows) = rest.split_once(' ').unwrap_or((rest, "0"));
            let rows: u32 = rows.parse().ok()?;
            message(b'E', &[named(name), rows.to_be_bytes().to_vec()].concat())
        }
        "Sync" => message(b'S', b""),
        "Flush" => message(b'H', b""),
        "Terminate" => message(b'X', b""),
        "CopyData" => message(b'd', &unescaped(rest)),
        "CopyDone" => message(b'c', b""),
        "CopyFail" => message(b'f', &z(rest)),
        "FunctionCall" => {
            let words = tokens(rest);
            let oid: u32 = words.first()?.parse().ok()?;
            let arguments: Vec<Vec<u8>> = words[1..].iter().map(|word| value(word)).collect();
            let count = (arguments.len() as u16).to_be_bytes();
            let binary = [0, 1, 0, 1];
            let parts =
                [&oid.to_be_bytes()[..], &binary, &count, &arguments.concat(), &[0, 1]].concat();
            message(b'F', &parts)
        }
        "Message" => {
            let (tag, body) = rest.split_once(' ').unwrap_or((rest, ""));
            message(*tag.as_bytes().first()?, &unescaped(body))
        }
        _ => return None,
    })
}

/// `PORTAL STATEMENT [in=binary] [out=binary] VALUE …`.
fn bind(words: &[String]) -> Vec<u8> {
    let name = |at: usize| if words[at] == "-" { "" } else { words[at].as_str() };
    let has = |word: &str| words.iter().any(|w| w == word);
    let values =
        words[2..].iter().filter(|word| !["in=binary", "out=binary"].contains(&word.as_str()));
    let values: Vec<Vec<u8>> = values.map(|word| value(word)).collect();
    let format = |binary: bool| [0, 1, 0, u8::from(binary)];
    [
        format!("{}\0{}\0", name(0), name(1)).as_bytes(),
        &format(has("in=binary")),
        &(values.len() as u16).to_be_bytes(),
        &values.concat(),
        &format(has("out=binary")),
    ]
    .concat()
}

/// A parameter with its length: `NULL`, `0x` and hexadecimal digits, or a text.
fn value(word: &str) -> Vec<u8> {
    if word == "NULL" {
        return (-1i32).to_be_bytes().to_vec();
    }
    let bytes = match word.strip_prefix("0x") {
        Some(digits) => {
            let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
            (0..digits.len()).step_by(2).map(byte).collect()
        }
        None => word.as_bytes().to_vec(),
    };
    [&(bytes.len() as u32).to_be_bytes()[..], &bytes].concat()
}

/// Words between blanks; single quotes keep blanks together.
fn tokens(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// `\n`, `\t`, `\\` and `\xHH` as the bytes that they mean.
fn unescaped(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'n') => out.push(b'\n'),
            Some(b't') => out.push(b'\t'),
            Some(b'x') => {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                let digits = std::str::from_utf8(&digits).unwrap();
                out.push(u8::from_str_radix(digits, 16).unwrap());
            }
            other => out.extend(other),
        }
    }
    out
}
