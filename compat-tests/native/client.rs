//! A client that sends what it is told and reads frames.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustydb_client::protocol::frame::{self, HEADER, Header, MAX_PAYLOAD, flags};
use rustydb_client::protocol::*;

use crate::harness::Server;

/// A connection.
pub struct Wire<S = TcpStream> {
    pub stream: S,
    pub agreed: Agreed,
    inbound: Vec<u8>,
    next: u64,
}

/// A reply.
#[derive(Debug)]
pub struct Reply {
    pub header: Header,
    pub message: Message,
}

pub fn hello() -> ClientHello {
    ClientHello {
        version: VERSION,
        min_version: VERSION,
        client_name: "test".into(),
        client_version: "1".into(),
        compression: Vec::new(),
        capabilities: capabilities::ALL & !capabilities::CHECKSUM,
        extensions: Vec::new(),
        max_message_size: MAX_PAYLOAD,
        stream_window: 1 << 20,
        connection_window: 16 << 20,
    }
}

pub fn start(user: &str, method: AuthMethod) -> AuthStart {
    AuthStart {
        user: user.into(),
        database: "rustydb".into(),
        method,
        application_name: "native-test".into(),
        connection_class: None,
        purity: None,
        tag: None,
        parameters: Vec::new(),
    }
}

pub fn query(sql: &str, params: Vec<Value>) -> Message {
    Message::Query(Box::new(Query {
        sql: sql.into(),
        params,
        param_types: Vec::new(),
        options: None,
    }))
}

impl Wire<TcpStream> {
    /// Connects and sends the preface.
    pub fn connect(server: &Server) -> Self {
        Self::with_preface(server, &PREFACE)
    }

    pub fn with_preface(server: &Server, preface: &[u8]) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self::over(stream, preface)
    }

    /// A session with these offers.
    pub fn open_with(server: &Server, hello: ClientHello) -> Self {
        let mut wire = Self::connect(server);
        wire.handshake(hello);
        wire.send(2, 0, &Message::Auth(Auth::Start(Box::new(start("rustydb", AuthMethod::Trust)))));
        match wire.read() {
            Reply { message: Message::AuthReply(AuthReply::Success { .. }), .. } => wire,
            other => panic!("{other:?}"),
        }
    }

    /// A session.
    pub fn open(server: &Server) -> Self {
        Self::open_with(server, hello())
    }
}

impl<S: Read + Write> Wire<S> {
    /// Sends a preface over a socket.
    pub fn over(stream: S, preface: &[u8]) -> Self {
        let agreed = Agreed::default();
        let mut wire = Self { stream, agreed, inbound: Vec::new(), next: 100 };
        wire.raw(preface);
        wire
    }

    pub fn handshake(&mut self, hello: ClientHello) -> ServerHello {
        let hello = Message::Handshake(Handshake::ClientHello(Box::new(hello)));
        self.send(1, 0, &hello);
        match self.read().message {
            Message::Handshake(Handshake::ServerHello(reply)) => {
                self.agreed = Agreed {
                    compression: reply.compression,
                    checksum: reply.capabilities & capabilities::CHECKSUM != 0,
                    max_message_size: reply.max_message_size,
                    encoding: Encoding::OPTIONAL
                        .into_iter()
                        .find(|form| reply.extensions.iter().any(|e| e.name == form.name()))
                        .unwrap_or_default(),
                    ..Agreed::default()
                };
                *reply
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        // The server may have closed already; what it said is read later.
        let _ = self.stream.write_all(bytes);
    }

    pub fn send(&mut self, id: u64, flags: u16, message: &Message) {
        let bytes = self.frame(id, flags, message);
        self.raw(&bytes);
    }

    pub fn frame(&self, id: u64, flags: u16, message: &Message) -> Vec<u8> {
        let mut bytes = Vec::new();
        let start = frame::begin(&mut bytes);
        self.agreed.encoding.encode(message, &mut bytes).unwrap();
        frame::finish(&mut bytes, start, flags, id, &self.agreed).unwrap();
        bytes
    }

    /// The next frame; `None` = the server has closed.
    pub fn try_read(&mut self) -> Option<Reply> {
        loop {
            if let Some((header, payload)) = frame::split(&self.inbound, MAX_PAYLOAD).unwrap() {
                let mut scratch = Vec::new();
                let body = frame::open(&header, payload, &self.agreed, &mut scratch).unwrap();
                let message = self.agreed.encoding.decode(body);
                let message = message.unwrap_or_else(|e| panic!("{e}: {body:02x?}"));
                self.inbound.drain(..HEADER + header.length as usize);
                return Some(Reply { header, message });
            }
            let mut bytes = [0; 65_536];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(n) => self.inbound.extend_from_slice(&bytes[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return None,
                Err(e) => panic!("{e}"),
            }
        }
    }

    pub fn read(&mut self) -> Reply {
        self.try_read().expect("the server has closed")
    }

    /// The next frame of a request; what comes without being asked for is passed over.
    pub fn read_of(&mut self, id: u64) -> Reply {
        loop {
            let reply = self.read();
            if reply.header.message_id == id {
                return reply;
            }
            assert_eq!(reply.header.message_id, 0, "{reply:?}");
        }
    }

    /// Sends a request and reads all of its replies.
    pub fn ask(&mut self, message: &Message) -> Vec<Message> {
        self.next += 1;
        let id = self.next;
        self.send(id, 0, message);
        self.all_of(id)
    }

    /// The replies up to the final one.
    pub fn all_of(&mut self, id: u64) -> Vec<Message> {
        let mut replies = Vec::new();
        loop {
            let reply = self.read_of(id);
            assert!(reply.header.has(flags::RESPONSE), "{reply:?}");
            replies.push(reply.message);
            if !reply.header.has(flags::MORE) {
                return replies;
            }
        }
    }

    /// Sends a request that has one reply.
    pub fn one(&mut self, message: &Message) -> Message {
        let mut replies = self.ask(message);
        assert_eq!(replies.len(), 1, "{replies:?}");
        replies.pop().unwrap()
    }

    /// Rows of a query.
    pub fn rows(&mut self, sql: &str, params: Vec<Value>) -> Vec<Vec<Value>> {
        self.response(sql, params).rows
    }

    pub fn response(&mut self, sql: &str, params: Vec<Value>) -> QueryResponse {
        match self.one(&query(sql, params)) {
            Message::QueryResponse(response) => *response,
            other => panic!("{sql}: {other:?}"),
        }
    }

    /// The error of a request.
    pub fn refused(&mut self, message: &Message) -> ErrorBody {
        match self.ask(message).pop() {
            Some(Message::Error(error)) => *error,
            other => panic!("{other:?}"),
        }
    }

    /// The fatal error that comes next, and the end after it.
    pub fn fatal(&mut self) -> ErrorBody {
        loop {
            match self.read().message {
                Message::Error(error) if error.severity == Severity::Fatal => {
                    assert!(self.try_read().is_none(), "the server goes on after {error:?}");
                    return *error;
                }
                Message::Error(_) | Message::Notification(_) | Message::Heartbeat { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}
