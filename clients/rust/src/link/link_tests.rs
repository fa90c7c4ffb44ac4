//! The client against a server made of frames: what it sends, when, and what it makes of replies.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::protocol::frame::{self, HEADER, Header, flags};
use crate::protocol::*;
use crate::{Batch, Client, Config, Connection, Error, Host, OnConflict, Options, TlsMode};

/// Time in which something that must not happen would have happened.
const QUIET: Duration = Duration::from_millis(50);

pub(super) struct Server {
    listener: TcpListener,
    pub(super) hello: ServerHello,
}

/// One connection of a client, after the login.
pub(super) struct Peer {
    socket: TcpStream,
    input: Vec<u8>,
    agreed: Agreed,
    hello: ServerHello,
}

pub(super) async fn server() -> Server {
    let hello = ServerHello {
        version: VERSION,
        server_name: "fake".into(),
        server_version: "1".into(),
        connection_id: 42,
        compression: CompressionType::None,
        capabilities: 0x7f,
        extensions: Vec::new(),
        max_message_size: 16 << 20,
        max_sql_length: 1 << 20,
        max_pending_requests: 100,
        max_queued_requests: 100,
        max_batch_statements: 10,
        stream_window: 65_536,
        connection_window: 1 << 20,
        heartbeat_interval_ms: 30_000,
        auth_methods: vec![AuthMethod::Trust],
    };
    Server { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), hello }
}

impl Server {
    pub(super) fn config(&self) -> Config {
        let port = self.listener.local_addr().unwrap().port();
        let hosts = vec![Host::Tcp("127.0.0.1".into(), port)];
        let timeout = Some(Duration::from_secs(5));
        Config { hosts, timeout, tls: TlsMode::Disable, ..Config::default() }
    }

    /// A connection after the handshake.
    pub(super) async fn greet(&self) -> Peer {
        let (socket, _) = self.listener.accept().await.unwrap();
        let (input, hello) = (Vec::new(), self.hello.clone());
        let mut peer = Peer { socket, input, agreed: Agreed::default(), hello };
        peer.fill(PREFACE.len()).await;
        assert_eq!(peer.input.drain(..PREFACE.len()).collect::<Vec<_>>(), PREFACE);
        let (id, Message::Handshake(Handshake::ClientHello(client))) = peer.take().await else {
            panic!("no hello")
        };
        peer.hello.capabilities &= client.capabilities;
        let hello = Message::Handshake(Handshake::ServerHello(Box::new(peer.hello.clone())));
        peer.send(flags::RESPONSE, id, &hello).await;
        peer.agreed = Agreed {
            compression: self.hello.compression,
            checksum: peer.hello.capabilities & capabilities::CHECKSUM != 0,
            ..Agreed::default()
        };
        peer
    }

    async fn accept(&self) -> Peer {
        let mut peer = self.greet().await;
        let (id, start) = peer.start().await;
        assert_eq!((start.user.as_str(), start.method), ("rustydb", AuthMethod::Trust));
        peer.welcome(id, &start.user).await;
        peer
    }

    pub(super) async fn connect(&self) -> (Connection, Peer) {
        let (connection, peer) = tokio::join!(Connection::connect(self.config()), self.accept());
        (connection.unwrap(), peer)
    }

    async fn pool(&self, config: Config) -> (Client, Peer) {
        let (client, peer) = tokio::join!(Client::connect(config), self.accept());
        (client.unwrap(), peer)
    }
}

impl Peer {
    async fn fill(&mut self, count: usize) {
        while self.input.len() < count {
            let read = self.socket.read_buf(&mut self.input).await.unwrap();
            assert_ne!(read, 0, "the client has closed");
        }
    }

    async fn frame(&mut self) -> (Header, Message) {
        loop {
            let found = frame::split(&self.input, frame::MAX_PAYLOAD).unwrap();
            if let Some((header, payload)) = found {
                let mut scratch = Vec::new();
                let body = frame::open(&header, payload, &self.agreed, &mut scratch).unwrap();
                let message = decode::<Message>(body).unwrap();
                self.input.drain(..HEADER + header.length as usize);
                return (header, message);
            }
            self.fill(self.input.len() + 1).await;
        }
    }

    pub(super) async fn take(&mut self) -> (u64, Message) {
        let (header, message) = self.frame().await;
        (header.message_id, message)
    }

    /// The beginning of a log-in, and its id.
    pub(super) async fn start(&mut self) -> (u64, Box<AuthStart>) {
        match self.take().await {
            (id, Message::Auth(Auth::Start(start))) => (id, start),
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn welcome(&mut self, id: u64, user: &str) {
        let parameters = vec![("TimeZone".to_owned(), "UTC".to_owned())];
        let (user, roles) = (user.to_owned(), Vec::new());
        let success = AuthReply::Success { session_id: 7, user, roles, parameters };
        self.send(flags::RESPONSE, id, &Message::AuthReply(success)).await;
    }

    /// The SQL of the next query, and its id.
    async fn query(&mut self) -> (u64, String) {
        match self.take().await {
            (id, Message::Query(query)) => (id, query.sql),
            other => panic!("{other:?}"),
        }
    }

    async fn is_quiet(&mut self) -> bool {
        self.input.is_empty()
            && tokio::time::timeout(QUIET, self.socket.read_buf(&mut self.input)).await.is_err()
    }

    async fn send(&mut self, flags: u16, id: u64, message: &Message) {
        let mut out = Vec::new();
        self.seal(&mut out, flags, id, message);
        self.socket.write_all(&out).await.unwrap();
    }

    fn seal(&self, out: &mut Vec<u8>, flags: u16, id: u64, message: &Message) -> u32 {
        let start = frame::begin(out);
        encode(message, out);
        frame::finish(out, start, flags, id, &self.agreed).unwrap()
    }

    async fn answer(&mut self, id: u64, number: i64) {
        self.send(flags::RESPONSE, id, &rows(&[number])).await;
    }

    async fn ok(&mut self, id: u64, tag: &str, status: TxStatus) {
        let ok = Message::Ok {
            affected_rows: 3,
            command_tag: Some(tag.into()),
            transaction_status: status,
        };
        self.send(flags::RESPONSE, id, &ok).await;
    }

    async fn refuse(&mut self, id: u64, sqlstate: &str, retryable: bool) {
        let mut body = ErrorBody::new(Severity::Error, sqlstate, "X", "no");
        body.retryable = retryable;
        self.send(flags::RESPONSE, id, &Message::Error(Box::new(body))).await;
    }
}

fn column() -> Column {
    Column {
        name: "n".into(),
        type_oid: 20,
        type_name: "int8".into(),
        type_modifier: -1,
        type_size: 8,
        table_oid: 0,
        column_number: 0,
        nullable: None,
    }
}

fn response(statement_index: u32, columns: Vec<Column>, numbers: &[i64]) -> Message {
    Message::QueryResponse(Box::new(QueryResponse {
        statement_index,
        columns,
        rows: numbers.iter().map(|n| vec![Value::Int8(*n)]).collect(),
        affected_rows: numbers.len() as u64,
        command_tag: "SELECT".into(),
        execution_time_us: 1,
        transaction_status: TxStatus::Idle,
    }))
}

fn rows(numbers: &[i64]) -> Message {
    response(0, vec![column()], numbers)
}

fn number(row: &crate::Row) -> i64 {
    row.get(0).unwrap()
}

#[tokio::test]
async fn what_is_asked_together_goes_out_in_one_write() {
    let (connection, mut peer) = server().await.connect().await;
    let ask = |n: i64| {
        let connection = &connection;
        async move { number(&connection.query_one("SELECT $1", &[&n]).await.unwrap()) }
    };
    let serve = async {
        peer.socket.readable().await.unwrap();
        peer.input.reserve(1 << 16);
        let read = peer.socket.try_read_buf(&mut peer.input).unwrap();
        let mut ids = Vec::new();
        for _ in 0..16 {
            let (id, sql) = peer.query().await;
            assert_eq!(sql, "SELECT $1");
            ids.push(id);
        }
        assert!(peer.input.is_empty() && read > 16 * HEADER);
        assert!(ids.is_sorted());
        // In another order, and all in one write too.
        let mut out = Vec::new();
        for id in ids.into_iter().rev() {
            peer.seal(&mut out, flags::RESPONSE, id, &rows(&[id as i64 - 3]));
        }
        peer.socket.write_all(&out).await.unwrap();
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all((0..16).map(ask)), serve);
    assert_eq!(answers, (0..16).collect::<Vec<_>>());
}

#[tokio::test]
async fn results_in_parts_and_of_several_statements_are_put_together() {
    let (connection, mut peer) = server().await.connect().await;
    let serve = async {
        let (id, _) = peer.query().await;
        let more = flags::RESPONSE | flags::MORE;
        peer.send(more, id, &response(0, vec![column()], &[1, 2])).await;
        peer.send(more, id, &response(0, vec![], &[3])).await;
        peer.send(more, id, &response(1, vec![], &[])).await;
        peer.refuse(id, "22012", false).await;
    };
    let ask = async {
        let mut results = connection.run("SELECT; DO; SELECT 1/0").await.unwrap();
        let first = results.next().await.unwrap().unwrap();
        assert_eq!(first.rows().map(|row| number(&row)).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(results.next().await.unwrap().unwrap().is_empty());
        let error = results.next().await.unwrap().unwrap_err();
        assert_eq!(error.sqlstate(), "22012");
        assert!(results.next().await.is_none());
    };
    tokio::join!(serve, ask);
}

#[tokio::test]
async fn checksums_and_compression_work_both_ways() {
    for compression in [CompressionType::Zstd, CompressionType::Lz4, CompressionType::Snappy] {
        let mut server = server().await;
        server.hello.compression = compression;
        let mut config = server.config();
        config.checksum = true;
        let (connection, peer) = tokio::join!(Connection::connect(config), server.accept());
        let (connection, mut peer) = (connection.unwrap(), peer);
        let sql = format!("SELECT '{}'", "a".repeat(5000));
        let serve = async {
            let (header, _) = peer.frame().await;
            assert!(header.has(flags::CHECKSUM) && header.has(flags::COMPRESSED));
            let numbers: Vec<i64> = (0..2000).map(|n| n % 5).collect();
            peer.send(flags::RESPONSE, header.message_id, &rows(&numbers)).await;
        };
        let (rows, ()) = tokio::join!(connection.query(&sql, &[]), serve);
        assert_eq!(rows.unwrap().iter().map(number).sum::<i64>(), 4000);
    }
}

#[tokio::test]
async fn a_stream_is_credited_only_as_it_is_used() {
    let (connection, mut peer) = server().await.connect().await;
    let serve = async {
        let (id, Message::Streaming(Streaming::Open { .. })) = peer.take().await else { panic!() };
        let more = flags::RESPONSE | flags::MORE;
        let header = Message::Streaming(Streaming::Header { columns: vec![column()] });
        peer.send(more, id, &header).await;
        // A window full: chunks of 100,000 bytes, while nobody reads a row.
        let wide = vec![Value::Text("x".repeat(100_000))];
        let mut sizes = Vec::new();
        for sequence in 0..10 {
            let chunk = Streaming::Chunk { sequence, rows: vec![wide.clone()] };
            let mut out = Vec::new();
            sizes.push(peer.seal(&mut out, more, id, &Message::Streaming(chunk)));
            peer.socket.write_all(&out).await.unwrap();
        }
        assert!(peer.is_quiet().await, "credit without use");
        (peer, id, sizes)
    };
    let (stream, (mut peer, id, sizes)) =
        tokio::join!(connection.query_stream("SELECT", &[]), serve);
    let mut stream = stream.unwrap();
    for _ in 0..6 {
        let row = stream.next().await.unwrap().unwrap();
        assert_eq!(row.get::<&str>("n").unwrap().len(), 100_000);
    }
    // The header counts too.
    let (header, message) = peer.frame().await;
    let Message::WindowUpdate { stream: stream_id, credit } = message else { panic!() };
    assert_eq!((header.message_id, header.flags), (0, flags::URGENT | flags::ONEWAY));
    assert_eq!(stream_id, id);
    assert!(credit >= 1 << 19 && credit <= sizes[..6].iter().sum::<u32>() + 100);
    // Given up, what still comes is credited unseen.
    drop(stream);
    let (_, message) = peer.take().await;
    let updates = match message {
        Message::Cancel { target } => {
            assert_eq!(target, id);
            0
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(updates, 0);
    peer.refuse(id, "57014", false).await;
    let (row, ()) = tokio::join!(connection.query_one("SELECT", &[]), async {
        let (id, _) = peer.query().await;
        peer.answer(id, 5).await;
    });
    assert_eq!(number(&row.unwrap()), 5);
}

#[tokio::test]
async fn a_bulk_insert_waits_for_the_servers_window() {
    let (connection, mut peer) = server().await.connect().await;
    let insert = async {
        let text = "x".repeat(1000);
        let rows = (0..500).map(|n: i64| (n, text.as_str()));
        connection.bulk_insert("s.t", &["a", "b"], rows).await
    };
    let serve = async {
        let (header, message) = peer.frame().await;
        let id = header.message_id;
        assert!(header.has(flags::MORE));
        let Message::BulkInsert(Bulk::Start { schema, table, columns, on_conflict }) = message
        else {
            panic!()
        };
        assert_eq!((schema.as_deref(), table.as_str()), (Some("s"), "t"));
        assert_eq!((columns.len(), on_conflict), (2, OnConflict::Fail));
        let (mut window, mut count, mut expected) = (65_536 - i64::from(header.length), 0, 0);
        loop {
            if window <= 0 {
                assert!(peer.is_quiet().await, "sent without credit");
                let credit = u32::try_from(65_536 - window).unwrap();
                let update = Message::WindowUpdate { stream: id, credit };
                peer.send(flags::URGENT | flags::ONEWAY, 0, &update).await;
                window += i64::from(credit);
            }
            let (header, message) = peer.frame().await;
            assert_eq!(header.message_id, id);
            window -= i64::from(header.length);
            match message {
                Message::BulkInsert(Bulk::Rows { sequence, rows }) => {
                    assert!(header.has(flags::MORE));
                    assert_eq!(sequence, expected);
                    expected += 1;
                    count += rows.len();
                }
                Message::BulkInsert(Bulk::End) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(count, 500);
        peer.ok(id, "COPY 3", TxStatus::Idle).await;
    };
    let (inserted, ()) = tokio::join!(insert, serve);
    assert_eq!(inserted.unwrap(), 3);
}

#[tokio::test]
async fn a_bulk_insert_that_is_refused_or_given_up_is_ended() {
    let (connection, mut peer) = server().await.connect().await;
    let mut bulk = connection.bulk("t", &[], OnConflict::Skip).await.unwrap();
    bulk.row(&(1i32,)).await.unwrap();
    drop(bulk);
    let (first, _) = peer.take().await;
    let (id, message) = peer.take().await;
    assert!(id == first && matches!(message, Message::BulkInsert(Bulk::Abort { .. })));
    peer.refuse(id, "57014", false).await;

    let mut bulk = connection.bulk("t", &[], OnConflict::Fail).await.unwrap();
    let (id, _) = peer.take().await;
    peer.refuse(id, "42P01", false).await;
    tokio::time::sleep(QUIET).await;
    bulk.row(&(1i32,)).await.unwrap();
    assert_eq!(bulk.finish().await.unwrap_err().sqlstate(), "42P01");
    let (same, message) = peer.take().await;
    assert!(same == id && matches!(message, Message::BulkInsert(Bulk::Abort { .. })));
}

#[tokio::test]
async fn what_is_dropped_or_takes_too_long_is_cancelled() {
    let (connection, mut peer) = server().await.connect().await;
    let options = Options { timeout: Some(Duration::from_millis(20)), ..Options::default() };
    let query = connection.query("SELECT pg_sleep(100)", &[]);
    assert!(tokio::time::timeout(QUIET, query).await.is_err());
    let (id, _) = peer.query().await;
    let (header, message) = peer.frame().await;
    assert_eq!(header.flags, flags::URGENT | flags::ONEWAY);
    assert_eq!(message, Message::Cancel { target: id });
    peer.refuse(id, "57014", false).await;
    // The limit is the server's first, a second later ours.
    let error = connection.query_with(&options, "SELECT pg_sleep(100)", &[]).await.unwrap_err();
    assert!(matches!(error, Error::Timeout(_)), "{error:?}");
    let (id, Message::Query(query)) = peer.take().await else { panic!() };
    assert_eq!(query.options.unwrap().timeout_ms, 20);
    assert_eq!(peer.take().await.1, Message::Cancel { target: id });
}

#[tokio::test]
async fn heartbeats_are_answered_and_a_silent_server_is_left() {
    let mut server = server().await;
    server.hello.heartbeat_interval_ms = 100;
    let (connection, mut peer) = server.connect().await;
    let beat = Message::Heartbeat { sent_at_us: 1_000_000, pending: 0 };
    let id = frame::SERVER_ID | 1;
    peer.send(flags::URGENT, id, &beat).await;
    let (header, message) = peer.frame().await;
    assert_eq!((header.message_id, message), (id, beat));
    let (header, message) = peer.frame().await;
    assert!(matches!(message, Message::Heartbeat { .. }));
    assert!(header.has(flags::URGENT) && header.message_id & frame::SERVER_ID == 0);
    peer.send(flags::RESPONSE | flags::URGENT, header.message_id, &message).await;
    for _ in 0..2 {
        assert!(matches!(peer.take().await.1, Message::Heartbeat { .. }));
    }
    let error = connection.event().await.unwrap_err();
    assert!(error.to_string().contains("heartbeat"), "{error}");
    assert!(connection.is_closed());
}

#[tokio::test]
async fn notifications_are_kept_up_to_a_bound() {
    let (connection, mut peer) = server().await.connect().await;
    for n in 0..1100 {
        let event =
            Notification::Event { channel: "jobs".into(), payload: n.to_string(), process_id: 77 };
        peer.send(flags::RESPONSE, 0, &Message::Notification(event)).await;
    }
    let status = Notification::ParameterStatus { name: "TimeZone".into(), value: "PRC".into() };
    peer.send(flags::RESPONSE, 0, &Message::Notification(status)).await;
    while connection.parameter("timezone").as_deref() != Some("PRC") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let first = connection.notification().await.unwrap();
    assert_eq!((first.payload.as_str(), first.process_id), ("101", 77));
}

#[tokio::test]
async fn a_fatal_error_ends_every_request() {
    let (connection, mut peer) = server().await.connect().await;
    let serve = async {
        peer.query().await;
        peer.query().await;
        let body = ErrorBody::new(Severity::Fatal, "57P01", "SHUTTING_DOWN", "bye");
        peer.send(flags::RESPONSE, 0, &Message::Error(Box::new(body))).await;
    };
    let (a, b, ()) =
        tokio::join!(connection.query("SELECT 1", &[]), connection.query("SELECT 2", &[]), serve);
    for error in [a.unwrap_err(), b.unwrap_err()] {
        assert_eq!((error.sqlstate(), error.is_fatal()), ("57P01", true));
    }
    let after = connection.query("SELECT 3", &[]).await.unwrap_err();
    assert!(after.is_retryable(), "it was not sent");
}

#[tokio::test]
async fn a_transaction_that_is_dropped_is_rolled_back() {
    let (mut connection, mut peer) = server().await.connect().await;
    let serve = async {
        let (id, message) = peer.take().await;
        assert!(matches!(message, Message::Begin { isolation: None, .. }));
        let started = Message::TransactionStarted { transaction_id: 12_345 };
        peer.send(flags::RESPONSE, id, &started).await;
        let (id, message) = peer.take().await;
        assert_eq!(message, Message::Savepoint { name: "s".into(), release: false });
        peer.ok(id, "SAVEPOINT", TxStatus::InTransaction).await;
        for expected in [
            Message::Rollback { to_savepoint: Some("s".into()), and_chain: false },
            Message::Savepoint { name: "s".into(), release: true },
            Message::Rollback { to_savepoint: None, and_chain: false },
        ] {
            let (id, message) = peer.take().await;
            assert_eq!(message, expected);
            peer.ok(id, "ROLLBACK", TxStatus::Idle).await;
        }
        let (id, _) = peer.query().await;
        peer.answer(id, 1).await;
    };
    let run = async {
        let mut transaction = connection.transaction().await.unwrap();
        assert_eq!(transaction.id(), 12_345);
        drop(transaction.savepoint("s").await.unwrap());
        drop(transaction);
        connection.query("SELECT 1", &[]).await.unwrap();
    };
    tokio::join!(run, serve);
}

#[tokio::test]
async fn a_commit_that_rolls_back_is_an_error() {
    let (mut connection, mut peer) = server().await.connect().await;
    let serve = async {
        let (id, _) = peer.take().await;
        let started = Message::TransactionStarted { transaction_id: 1 };
        peer.send(flags::RESPONSE, id, &started).await;
        let (id, message) = peer.take().await;
        assert_eq!(message, Message::Commit { and_chain: false });
        peer.ok(id, "ROLLBACK", TxStatus::Idle).await;
        assert!(peer.is_quiet().await);
    };
    let run = async {
        let transaction = connection.transaction().await.unwrap();
        assert_eq!(transaction.commit().await.unwrap_err().sqlstate(), "25P02");
    };
    tokio::join!(run, serve);
}

#[tokio::test]
async fn the_pool_reconnects_and_tries_again_what_did_nothing() {
    let server = server().await;
    let (client, mut peer) = server.pool(server.config()).await;
    let serve = async {
        // Refused for now, then answered.
        let (id, _) = peer.query().await;
        peer.refuse(id, "53400", true).await;
        let (id, _) = peer.query().await;
        peer.answer(id, 1).await;
    };
    let (row, ()) = tokio::join!(client.query_one("SELECT 1", &[]), serve);
    assert_eq!(number(&row.unwrap()), 1);
    // The idle connection is closed; the next request has another one.
    drop(peer);
    tokio::time::sleep(QUIET).await;
    let serve = async {
        let mut peer = server.accept().await;
        let (id, _) = peer.query().await;
        peer.answer(id, 2).await;
        peer
    };
    let (row, mut peer) = tokio::join!(client.query_one("SELECT 2", &[]), serve);
    assert_eq!(number(&row.unwrap()), 2);
    // Lost while it ran: it may have done something.
    let serve = async move {
        peer.query().await;
    };
    let (lost, ()) = tokio::join!(client.execute("DELETE", &[]), serve);
    assert!(matches!(lost, Err(Error::Lost { sent: true, .. })), "{lost:?}");
    // A statement that only reads is run again.
    let serve = async {
        let mut peer = server.accept().await;
        peer.query().await;
        drop(peer);
        let mut peer = server.accept().await;
        let (id, _) = peer.query().await;
        peer.answer(id, 3).await;
    };
    let options = Options { read_only: true, ..Options::default() };
    let (result, ()) = tokio::join!(client.query_with(&options, "SELECT 3", &[]), serve);
    assert_eq!(number(&result.unwrap().rows().next().unwrap()), 3);
}

#[tokio::test]
async fn the_pool_has_a_limit_and_leaves_nothing_open() {
    let server = server().await;
    let mut config = server.config();
    (config.pool_size, config.timeout) = (1, Some(Duration::from_millis(300)));
    let (client, mut peer) = server.pool(config).await;
    let held = client.connection().await.unwrap();
    assert_eq!(client.size(), (1, 0));
    let error = client.query("SELECT 1", &[]).await.unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    // Somebody leaves a transaction open.
    let (begun, ()) = tokio::join!(held.execute("BEGIN", &[]), async {
        let (id, _) = peer.query().await;
        let mut reply = response(0, vec![], &[]);
        if let Message::QueryResponse(response) = &mut reply {
            response.transaction_status = TxStatus::InTransaction;
        }
        peer.send(flags::RESPONSE, id, &reply).await;
    });
    begun.unwrap();
    drop(held);
    assert_eq!(client.size(), (1, 1));
    let (id, message) = peer.take().await;
    assert_eq!(message, Message::Rollback { to_savepoint: None, and_chain: false });
    peer.ok(id, "ROLLBACK", TxStatus::Idle).await;
    tokio::join!(client.close(), async move {
        assert!(matches!(peer.take().await.1, Message::Close { .. }));
    });
    assert!(client.query("SELECT 1", &[]).await.is_err());
}

#[tokio::test]
async fn prepared_statements_follow_to_other_connections() {
    let server = server().await;
    let (client, mut first) = server.pool(server.config()).await;
    let info = |name: &str| {
        let columns = vec![column()];
        Message::StatementInfo(StatementInfo { name: name.into(), param_types: vec![20], columns })
    };
    let serve = async {
        let (id, Message::PreparedStatement(Prepared::Prepare { name, .. })) = first.take().await
        else {
            panic!()
        };
        first.send(flags::RESPONSE, id, &info(&name)).await;
        (first, name)
    };
    let (statement, (mut first, name)) = tokio::join!(client.prepare("SELECT $1"), serve);
    let statement = statement.unwrap();
    assert_eq!(statement.param_types(), [20]);
    let held = client.connection().await.unwrap();
    let serve = async {
        let mut second = server.accept().await;
        let (id, Message::PreparedStatement(Prepared::Prepare { name: again, sql, .. })) =
            second.take().await
        else {
            panic!()
        };
        assert_eq!((&again, sql.as_str()), (&name, "SELECT $1"));
        second.send(flags::RESPONSE, id, &info(&again)).await;
        let (id, Message::PreparedStatement(Prepared::Execute { params, .. })) =
            second.take().await
        else {
            panic!()
        };
        assert_eq!(params, [Value::Int8(9)]);
        second.answer(id, 9).await;
    };
    let (row, ()) = tokio::join!(client.query_one(&statement, &[&9i64]), serve);
    assert_eq!(number(&row.unwrap()), 9);
    // Dropped, it is forgotten when the next one is prepared.
    drop(statement);
    let serve = async {
        let (id, Message::PreparedStatement(Prepared::Prepare { name, .. })) = first.take().await
        else {
            panic!()
        };
        first.send(flags::RESPONSE, id, &info(&name)).await;
        let (_, message) = first.take().await;
        assert!(matches!(message, Message::PreparedStatement(Prepared::Deallocate { .. })));
    };
    let (prepared, ()) = tokio::join!(held.prepare("SELECT 2"), serve);
    let (other, _peer) = server.connect().await;
    let foreign = other.query(&prepared.unwrap(), &[]).await.unwrap_err();
    assert!(matches!(foreign, Error::Usage(_)));
}

#[tokio::test]
async fn a_batch_has_a_result_or_an_error_for_each_statement() {
    let (connection, mut peer) = server().await.connect().await;
    let mut batch = Batch::new();
    batch.add("SELECT 1", &[]).add("SELECT 1/0", &[]).add("SELECT 3", &[]);
    let serve = async {
        let (id, Message::Batch { statements, .. }) = peer.take().await else { panic!() };
        assert_eq!(statements.len(), 3);
        let more = flags::RESPONSE | flags::MORE;
        peer.send(more, id, &response(0, vec![column()], &[1])).await;
        let error = ErrorBody::new(Severity::Error, "22012", "X", "division by zero");
        peer.send(more, id, &Message::Error(Box::new(error))).await;
        peer.send(flags::RESPONSE, id, &response(2, vec![column()], &[3])).await;
    };
    let (results, ()) = tokio::join!(connection.batch(&batch), serve);
    let results = results.unwrap();
    assert_eq!(results.len(), 3);
    assert_eq!(results[0].as_ref().unwrap().len(), 1);
    assert_eq!(results[1].as_ref().unwrap_err().sqlstate(), "22012");
    assert_eq!(number(&results[2].as_ref().unwrap().rows().next().unwrap()), 3);
}

#[tokio::test]
async fn more_requests_than_the_server_takes_wait() {
    let mut server = server().await;
    server.hello.max_queued_requests = 3;
    let (connection, mut peer) = server.connect().await;
    let ask = |_| connection.query_one("SELECT 1", &[]);
    let serve = async {
        let mut waiting = Vec::new();
        for _ in 0..3 {
            waiting.push(peer.query().await.0);
        }
        assert!(peer.is_quiet().await);
        for _ in 0..7 {
            peer.answer(waiting.remove(0), 1).await;
            waiting.push(peer.query().await.0);
        }
        for id in waiting {
            peer.answer(id, 1).await;
        }
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all((0..10).map(ask)), serve);
    assert!(answers.iter().all(|answer| answer.is_ok()));
}
