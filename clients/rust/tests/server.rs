//! The client against a real server, named by RUSTYDB_URL; without it these tests do nothing. For
//! TLS also RUSTYDB_TLS_URL and RUSTYDB_TLS_CA.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use futures_util::future::join_all;
use rustydb_client::protocol::{Bound, CompressionType, Dimension, RangeValue};
use rustydb_client::types::{
    Cidr, Date, Inet, Interval, Json, Jsonb, MacAddr, Money, Numeric, Time, TimeTz, Timestamp,
    TimestampTz, Uuid,
};
use rustydb_client::{
    Batch, Client, Config, Connection, Error, Isolation, OnConflict, Options, Result, ToValue,
    TransactionOptions, TxStatus, Value,
};

/// Connects, or tells that there is no server.
async fn client() -> Option<Client> {
    let url = url()?;
    Some(Client::connect(&url).await.unwrap())
}

fn url() -> Option<String> {
    let url = std::env::var("RUSTYDB_URL").ok();
    if url.is_none() {
        eprintln!("RUSTYDB_URL names no server");
    }
    url
}

fn config() -> Option<Config> {
    url().map(|url| url.parse().unwrap())
}

/// A name that nobody else uses.
fn unique(what: &str) -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    format!("rust_{what}_{}_{}", std::process::id(), since.as_nanos())
}

macro_rules! server {
    ($kind:ident) => {
        match $kind().await {
            Some(found) => found,
            None => return,
        }
    };
}

async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0).unwrap()
}

#[tokio::test]
async fn every_type_comes_back_as_it_was_sent() {
    let client = server!(client);
    let int4 = |n| Box::new(Value::Int4(n));
    let one_to_five = RangeValue {
        empty: false,
        lower: Bound::Inclusive(int4(1)),
        upper: Bound::Exclusive(int4(5)),
    };
    let array = Value::Array {
        element_oid: 23,
        dims: vec![Dimension { len: 2, lower: 1 }, Dimension { len: 1, lower: 1 }],
        values: vec![Value::Int4(1), Value::Null],
    };
    let table: Vec<(&str, Value)> = vec![
        ("bool", Value::Bool(true)),
        ("int2", Value::Int2(i16::MIN)),
        ("int4", Value::Int4(i32::MIN)),
        ("int8", Value::Int8(i64::MAX)),
        ("float4", Value::Float4(1.5)),
        ("float8", Value::Float8(-2.25)),
        ("float8", Value::Float8(f64::INFINITY)),
        ("numeric", Value::Numeric("12345678901234567890.1200".into())),
        ("numeric", Value::Numeric("NaN".into())),
        ("text", Value::Text("Grüße, 世界".into())),
        ("varchar(5)", Value::Text("abc".into())),
        ("char(3)", Value::Text("ab ".into())),
        ("name", Value::Text("x".into())),
        ("bytea", Value::Bytea(vec![0, 1, 251, 255])),
        ("date", Value::Date(9497)),
        ("date", Value::Date(i32::MAX)),
        ("time", Value::Time(1_000_001)),
        ("timetz", Value::TimeTz { micros: 3_600_000_000, offset_secs: 7200 }),
        ("timestamp", Value::Timestamp(-1)),
        ("timestamptz", Value::TimestampTz(820_540_800_000_000)),
        ("timestamptz", Value::TimestampTz(i64::MIN)),
        ("interval", Value::Interval { months: 1, days: -2, micros: 3_000_000 }),
        ("uuid", Value::Uuid([0x12; 16])),
        ("json", Value::Json("{\"a\":  1}".into())),
        ("jsonb", Value::Jsonb("{\"a\": [1, null]}".into())),
        ("inet", Value::Inet("10.0.0.1/8".into())),
        ("cidr", Value::Cidr("10.0.0.0/8".into())),
        ("macaddr", Value::MacAddr(vec![8, 0, 0x2b, 1, 2, 3])),
        ("macaddr8", Value::MacAddr(vec![8, 0, 0x2b, 1, 2, 3, 4, 5])),
        ("bit(3)", Value::Bit { len: 3, bytes: vec![0xa0] }),
        ("varbit", Value::Bit { len: 9, bytes: vec![0xff, 0x80] }),
        ("oid", Value::Oid(u32::MAX)),
        ("money", Value::Money(-12_345)),
        ("int4[]", array),
        ("int4[]", Value::Array { element_oid: 23, dims: vec![], values: vec![] }),
        ("int4range", Value::Range { element_oid: 23, range: one_to_five.clone() }),
        ("int4range", Value::Range { element_oid: 23, range: RangeValue::EMPTY }),
        ("int4multirange", Value::Multirange { element_oid: 23, ranges: vec![one_to_five] }),
        ("int8", Value::Null),
    ];
    for (kind, value) in &table {
        let sql = format!("SELECT $1::{kind} AS v");
        let row = client.query_one(&sql, &[value]).await.unwrap_or_else(|e| panic!("{kind}: {e}"));
        assert_eq!(row.get::<Value>("v").unwrap(), *value, "{kind}");
        if *value == Value::Null {
            continue;
        }
        // Our text form is that of PostgreSQL's output functions.
        let sql = format!("SET TimeZone = UTC; SELECT format('%s', {}::{kind})", literal(value));
        let theirs = client.run_all(&sql).await.unwrap()[1].rows().next().unwrap();
        assert_eq!(value.to_string(), theirs.get::<String>(0).unwrap(), "{kind}");
    }
}

/// The value as a literal of SQL.
fn literal(value: &Value) -> String {
    format!("'{}'", value.to_string().replace('\'', "''"))
}

#[tokio::test]
async fn types_of_rust_come_back() {
    let client = server!(client);
    macro_rules! round {
        ($($kind:literal: $value:expr => $type:ty;)*) => {$({
            let value: $type = $value;
            let sql = concat!("SELECT $1::", $kind);
            let row = client.query_one(sql, &[&value]).await.unwrap();
            assert_eq!(row.get::<$type>(0).unwrap(), value, $kind);
        })*};
    }
    round! {
        "bool": false => bool;
        "int2": -5 => i16;
        "int4": 5 => i32;
        "int8": i64::MIN => i64;
        "float4": 0.1 => f32;
        "float8": 1e300 => f64;
        "oid": 7 => u32;
        "text": "a\tb".into() => String;
        "bytea": vec![0, 255] => Vec<u8>;
        "numeric": Numeric("-0.10".into()) => Numeric;
        "date": Date::NEG_INFINITY => Date;
        "time": Time(1) => Time;
        "timetz": TimeTz { micros: 1, offset_secs: -3600 } => TimeTz;
        "timestamp": Timestamp::INFINITY => Timestamp;
        "timestamptz": TimestampTz(1) => TimestampTz;
        "timestamptz": SystemTime::UNIX_EPOCH + Duration::from_secs(1) => SystemTime;
        "interval": Interval { months: 1, days: 2, micros: 3 } => Interval;
        "uuid": Uuid([9; 16]) => Uuid;
        "json": Json("[ ]".into()) => Json;
        "jsonb": Jsonb("[]".into()) => Jsonb;
        "inet": Inet("::1".into()) => Inet;
        "cidr": Cidr("::/0".into()) => Cidr;
        "macaddr": MacAddr(vec![1; 6]) => MacAddr;
        "money": Money(150) => Money;
        "int8[]": vec![1, 2, 3] => Vec<i64>;
        "text[]": vec![Some("a".into()), None] => Vec<Option<String>>;
        "int4": None => Option<i32>;
    }
    // Text is taken for every type; other values fit where PostgreSQL knows the type.
    let row = client.query_one("SELECT $1::date, $2::int8 + 1", &[&"2026-01-01", &1i32]).await;
    let row = row.unwrap();
    assert_eq!((row.get::<Date>(0).unwrap(), row.get::<i64>(1).unwrap()), (Date(9497), 2));
    let row = client.query_one("SELECT ROW(1, 'a'), 'x'::pg_catalog.tsvector", &[]).await.unwrap();
    assert_eq!(row.get::<String>(0).unwrap(), "(1,a)");
    assert!(matches!(row.get::<Value>(1).unwrap(), Value::Other { .. }));
}

#[tokio::test]
async fn errors_have_all_their_fields() {
    let client = server!(client);
    let table = unique("errors");
    client
        .run_all(&format!("CREATE TABLE {table} (id int CONSTRAINT positive CHECK (id > 0))"))
        .await
        .unwrap();
    let insert = format!("INSERT INTO {table} VALUES (-1)");
    let error = client.execute(&insert, &[]).await.unwrap_err();
    let server = error.as_server().unwrap();
    assert_eq!((error.sqlstate(), error.is_fatal()), ("23514", false));
    assert_eq!(server.constraint.as_deref(), Some("positive"));
    assert_eq!(server.table.as_deref(), Some(table.as_str()));
    assert!(server.schema.is_some() && server.detail.is_some() && !server.code.is_empty());
    let error = client.query("SELECT nothing FROM pg_class", &[]).await.unwrap_err();
    assert_eq!((error.sqlstate(), error.as_server().unwrap().position), ("42703", Some(8)));
    let error = client.query("SELECT $1::int2", &[&70_000i32]).await.unwrap_err();
    assert_eq!(error.sqlstate(), "22003");
    let error = client.query("SELECT $1::date", &[&"soon"]).await.unwrap_err();
    assert!(matches!(error.sqlstate(), "22007" | "22P02"), "{error}");
    let error = client.query("DO $$ BEGIN RAISE 'no' USING HINT = 'so'; END $$", &[]).await;
    let error = error.unwrap_err();
    let server = error.as_server().unwrap();
    assert_eq!((server.hint.as_deref(), server.sqlstate.as_str()), (Some("so"), "P0001"));
    assert!(server.context.as_deref().is_some_and(|c| c.contains("PL/pgSQL")));
    client.execute(&format!("DROP TABLE {table}"), &[]).await.unwrap();
}

#[tokio::test]
async fn results_say_what_they_are() {
    let client = server!(client);
    let options = Options { max_rows: 2, ..Options::default() };
    let sql = "SELECT oid, relname FROM pg_class ORDER BY oid";
    let result = client.query_with(&options, sql, &[]).await.unwrap();
    assert_eq!((result.len(), result.affected_rows()), (2, 2));
    let columns: Vec<_> = result.columns().iter().collect();
    assert_eq!((columns[1].name.as_str(), columns[1].type_oid), ("relname", 19));
    assert_eq!((columns[1].table_oid, columns[1].column_number), (1259, 2));
    let results = client.run_all("SELECT 1; CREATE TEMP TABLE x (); SELECT 2, 3").await.unwrap();
    let tags: Vec<_> = results.iter().map(|result| result.command_tag()).collect();
    assert_eq!(tags, ["SELECT 1", "CREATE TABLE", "SELECT 1"]);
    assert_eq!(results[2].columns().len(), 2);
    let read_only = Options { read_only: true, ..Options::default() };
    let refused = client.query_with(&read_only, "CREATE TABLE no_such ()", &[]).await;
    assert_eq!(refused.unwrap_err().sqlstate(), "25006");
    // More than one message can hold.
    let sql = "SELECT repeat('x', 1000) FROM generate_series(1, 30000)";
    let rows = client.query(sql, &[]).await.unwrap();
    assert_eq!(rows.len(), 30_000);
    assert!(rows.iter().all(|row| row.get::<&str>(0).unwrap().len() == 1000));
}

#[tokio::test]
async fn requests_are_pipelined_on_one_connection() {
    let Some(config) = config() else { return };
    let connection = Connection::connect(config).await.unwrap();
    let ask = |n: i64| {
        let connection = &connection;
        async move {
            if n % 10 == 7 {
                return connection.query("SELECT 1/0", &[]).await.map(|_| 0);
            }
            connection.query_one("SELECT $1::int8", &[&n]).await?.get::<i64>(0)
        }
    };
    let answers = join_all((0..2000).map(ask)).await;
    for (n, answer) in (0..).zip(answers) {
        match answer {
            Ok(number) => assert_eq!(number, n),
            Err(e) => assert!(n % 10 == 7 && e.sqlstate() == "22012", "{n}: {e}"),
        }
    }
}

#[tokio::test]
async fn transactions_commit_roll_back_and_have_savepoints() {
    let client = server!(client);
    let table = unique("tx");
    client.execute(&format!("CREATE TABLE {table} (id int)"), &[]).await.unwrap();
    let insert = format!("INSERT INTO {table} VALUES ($1)");
    let count = format!("SELECT count(*) FROM {table}");
    let mut transaction = client.transaction().await.unwrap();
    transaction.execute(&insert, &[&1i32]).await.unwrap();
    assert_eq!(transaction.status(), TxStatus::InTransaction);
    let mut outer = transaction.savepoint("outer one").await.unwrap();
    outer.execute(&insert, &[&2i32]).await.unwrap();
    let inner = outer.savepoint("inner").await.unwrap();
    inner.execute("SELECT 1/0", &[]).await.unwrap_err();
    assert_eq!(inner.execute(&insert, &[&3i32]).await.unwrap_err().sqlstate(), "25P02");
    drop(inner);
    outer.execute(&insert, &[&4i32]).await.unwrap();
    outer.commit().await.unwrap();
    assert_eq!(number(&client, &count).await, 0, "nothing is seen before the commit");
    let kept = transaction.savepoint("kept").await.unwrap();
    kept.execute(&insert, &[&5i32]).await.unwrap();
    kept.rollback().await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(number(&client, &count).await, 3);

    let transaction = client.transaction().await.unwrap();
    transaction.execute(&format!("DELETE FROM {table}"), &[]).await.unwrap();
    drop(transaction);
    assert_eq!(number(&client, &count).await, 3);

    let transaction = client.transaction().await.unwrap();
    transaction.execute("SELECT 1/0", &[]).await.unwrap_err();
    assert_eq!(transaction.commit().await.unwrap_err().sqlstate(), "25P02");

    let options = TransactionOptions {
        isolation: Some(Isolation::Serializable),
        read_only: Some(true),
        deferrable: Some(true),
    };
    let transaction = client.begin(&options).await.unwrap();
    assert_eq!(transaction.show("transaction_isolation").await.unwrap(), "serializable");
    assert_eq!(transaction.execute(&insert, &[&1i32]).await.unwrap_err().sqlstate(), "25006");
    transaction.rollback().await.unwrap();
    client.execute(&format!("DROP TABLE {table}"), &[]).await.unwrap();
}

#[tokio::test]
async fn prepared_statements_are_found_again_everywhere() {
    let client = server!(client);
    let statement = client.prepare("SELECT $1::int8 + 1 AS n").await.unwrap();
    assert_eq!(statement.param_types(), [20]);
    assert_eq!(statement.columns()[0].name, "n");
    let ask = |n: i64| {
        let (client, statement) = (&client, &statement);
        async move { client.query_one(statement, &[&n]).await.unwrap().get::<i64>(0).unwrap() }
    };
    assert_eq!(join_all((0..50).map(ask)).await, (1..51).collect::<Vec<_>>());
    // Forgotten by the session behind our back.
    client.execute("DEALLOCATE ALL", &[]).await.unwrap();
    let held = client.connection().await.unwrap();
    held.discard_all().await.unwrap();
    assert_eq!(held.query_one(&statement, &[&1i64]).await.unwrap().get::<i64>(0).unwrap(), 2);
    let error = client.prepare("SELECT FROM WHERE").await.unwrap_err();
    assert_eq!(error.sqlstate(), "42601");
    // More than a session may have at once.
    for n in 0..1100 {
        held.prepare(&format!("SELECT {n}")).await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_that_is_not_read_waits_and_can_be_left() {
    let client = server!(client);
    let sql = "SELECT repeat('x', 10000) FROM generate_series(1, 100000)";
    let mut rows = client.query_stream(sql, &[]).await.unwrap();
    for _ in 0..10 {
        rows.next().await.unwrap().unwrap();
    }
    drop(rows);
    let since = Instant::now();
    assert_eq!(number(&client, "SELECT 1::int8").await, 1);
    assert!(since.elapsed() < Duration::from_secs(3));
    // As a futures::Stream; an error comes at its place.
    let failing = "SELECT 1/(n - 5000) FROM generate_series(1, 9000) n";
    let rows = client.query_stream(failing, &[]).await.unwrap();
    let results: Vec<Result<_>> = rows.collect().await;
    assert_eq!(results.last().unwrap().as_ref().unwrap_err().sqlstate(), "22012");
    assert!(results.len() <= 5000 && results[..results.len() - 1].iter().all(Result::is_ok));
    let refused = client.query_stream("SELECT nothing", &[]).await.map(drop).unwrap_err();
    assert_eq!(refused.sqlstate(), "42703");
}

#[tokio::test]
async fn bulk_inserts_are_all_or_nothing() {
    let client = server!(client);
    let table = unique("bulk");
    let columns = "id int8 PRIMARY KEY, name text, at timestamptz, ratio float8, note numeric";
    client.execute(&format!("CREATE TABLE {table} ({columns})"), &[]).await.unwrap();
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let rows =
        (0..100_000i64).map(|n| (n, format!("user {n}"), at, n as f64 / 7.0, None::<Numeric>));
    let names = ["id", "name", "at", "ratio", "note"];
    assert_eq!(client.bulk_insert(&table, &names, rows).await.unwrap(), 100_000);
    assert_eq!(number(&client, &format!("SELECT count(*) FROM {table}")).await, 100_000);
    let again = client.bulk_insert(&table, &["id"], (99_999..100_005i64).map(|n| (n,))).await;
    assert_eq!(again.unwrap_err().sqlstate(), "23505");
    assert_eq!(number(&client, &format!("SELECT count(*) FROM {table}")).await, 100_000);
    let mut bulk = client.bulk(&table, &["id"], OnConflict::Skip).await.unwrap();
    for n in 99_990..100_010i64 {
        bulk.row(&(n,)).await.unwrap();
    }
    assert_eq!(bulk.finish().await.unwrap(), 10);
    // Given up: nothing of it is there.
    let mut bulk = client.bulk(&table, &["id"], OnConflict::Fail).await.unwrap();
    bulk.row(&(200_000i64,)).await.unwrap();
    bulk.flush().await.unwrap();
    drop(bulk);
    assert_eq!(number(&client, &format!("SELECT count(*) FROM {table}")).await, 100_010);
    // Many that fail leave nothing behind.
    for _ in 0..20 {
        let none = client.bulk_insert("no_such_table", &[], [(1i32,)]).await;
        assert_eq!(none.unwrap_err().sqlstate(), "42P01");
    }
    client.execute(&format!("DROP TABLE {table}"), &[]).await.unwrap();
}

#[tokio::test]
async fn batches_run_in_one_round_trip() {
    let client = server!(client);
    let table = unique("batch");
    client.execute(&format!("CREATE TABLE {table} (id int PRIMARY KEY)"), &[]).await.unwrap();
    let insert = format!("INSERT INTO {table} VALUES ($1)");
    let fill = |mut batch: Batch| {
        for id in [1i32, 1, 2] {
            batch.add(&insert, &[&id]);
        }
        batch
    };
    let count = format!("SELECT count(*) FROM {table}");
    let clear = format!("DELETE FROM {table}");
    for (batch, expected, left) in [
        (Batch::new(), vec![true, false, true], 2),
        (Batch::new().stop_on_error(), vec![true, false], 1),
        (Batch::new().atomic(), vec![true, false], 0),
    ] {
        let results = client.batch(&fill(batch)).await.unwrap();
        assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), expected);
        assert_eq!(number(&client, &count).await, left);
        client.execute(&clear, &[]).await.unwrap();
    }
    client.execute(&format!("DROP TABLE {table}"), &[]).await.unwrap();
}

#[tokio::test]
async fn rows_of_a_statement_that_fails_are_no_result() {
    let client = server!(client);
    // Long enough for its first rows to be sent before it fails.
    let fails = "SELECT 1 / (100000 - g), repeat('y', 50) FROM generate_series(1, 200000) g";
    for (batch, expected) in [
        (Batch::new(), vec![Ok(7), Err("22012".to_owned()), Ok(8)]),
        (Batch::new().atomic(), vec![Ok(7), Err("22012".to_owned())]),
    ] {
        let mut batch = batch;
        for sql in ["SELECT 7", fails, "SELECT 8"] {
            batch.add(sql, &[]);
        }
        let results = client.batch(&batch).await.unwrap();
        let found = results.iter().map(|result| match result {
            Ok(result) => Ok(result.rows().next().unwrap().get::<i32>(0).unwrap()),
            Err(error) => Err(error.sqlstate().to_owned()),
        });
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn what_runs_can_be_cancelled() {
    let client = server!(client);
    let since = Instant::now();
    let sleep = client.query("SELECT pg_sleep(30)", &[]);
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        client.cancel();
    };
    let (slept, ()) = tokio::join!(sleep, cancel);
    assert_eq!(slept.unwrap_err().sqlstate(), "57014");
    // A time-out stops the statement at the server.
    let mark = unique("sleep");
    let options = Options { timeout: Some(Duration::from_millis(300)), ..Options::default() };
    let sql = format!("SELECT pg_sleep(30) AS {mark}");
    let error = client.query_with(&options, &sql, &[]).await.unwrap_err();
    assert_eq!((error.sqlstate(), error.code()), ("57014", "TIMEOUT"));
    // And so does a future that is dropped.
    let dropped = client.query(&sql, &[]);
    assert!(tokio::time::timeout(Duration::from_millis(300), dropped).await.is_err());
    let running = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%{mark}' \
         AND pid <> pg_backend_pid()"
    );
    while number(&client, &running).await > 0 {
        assert!(since.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(since.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn notifications_arrive() {
    let client = server!(client);
    let (channel, other) = (unique("channel"), unique("other"));
    let mut listener = client.listen(&[&channel]).await.unwrap();
    listener.listen(&other).await.unwrap();
    let say = async |channel: &str, what: &str| {
        client.execute("SELECT pg_notify($1, $2)", &[&channel, &what]).await.unwrap();
    };
    say(&channel, "one").await;
    say(&other, "two").await;
    let heard = [listener.next().await.unwrap(), listener.next().await.unwrap()];
    assert_eq!((heard[0].channel.as_str(), heard[0].payload.as_str()), (channel.as_str(), "one"));
    assert_eq!((heard[1].channel.as_str(), heard[1].payload.as_str()), (other.as_str(), "two"));
    listener.unlisten(&channel).await.unwrap();
    say(&channel, "three").await;
    say(&other, "four").await;
    assert_eq!(listener.next().await.unwrap().payload, "four");
}

#[tokio::test]
async fn sessions_have_settings_notices_and_parameters() {
    let Some(mut config) = config() else { return };
    config.parameters = vec![("TimeZone".into(), "Asia/Tokyo".into())];
    config.application_name = "tour".into();
    let connection = Connection::connect(config).await.unwrap();
    assert_eq!(connection.show("timezone").await.unwrap(), "Asia/Tokyo");
    assert_eq!(connection.show("application_name").await.unwrap(), "tour");
    connection.set("TimeZone", "UTC").await.unwrap();
    assert_eq!(connection.show("timezone").await.unwrap(), "UTC");
    connection.reset(Some("TimeZone")).await.unwrap();
    assert_eq!(connection.show("timezone").await.unwrap(), "Asia/Tokyo");
    assert!(connection.parameter("server_version").is_some());
    assert_eq!(connection.server().server_name, "RustyDB");
    connection.execute("DO $$ BEGIN RAISE NOTICE 'look'; END $$", &[]).await.unwrap();
    let noticed = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            if let rustydb_client::Notification::Notice { message, .. } =
                connection.event().await.unwrap()
            {
                return message;
            }
        }
    });
    assert_eq!(noticed.await.unwrap(), "look");
    assert!(connection.ping().await.unwrap() < Duration::from_secs(5));
    connection.close().await;
}

#[tokio::test]
async fn large_objects_are_read_in_parts() {
    let client = server!(client);
    let mut transaction = client.transaction().await.unwrap();
    let content: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    let row = transaction.query_one("SELECT lo_from_bytea(0, $1)", &[&content]).await.unwrap();
    let oid: u32 = row.get(0).unwrap();
    let inner = transaction.savepoint("read").await.unwrap();
    let mut object = inner.read_object(oid, 1000, Some(200_000)).await.unwrap();
    let mut read = Vec::new();
    while let Some(part) = object.next().await {
        read.extend_from_slice(&part.unwrap());
    }
    assert!(read == content[1000..201_000]);
    inner.commit().await.unwrap();
    transaction.rollback().await.unwrap();
}

#[tokio::test]
async fn the_pool_is_shared_and_survives_lost_connections() {
    let Some(mut config) = config() else { return };
    config.pool_size = 4;
    let client = Client::connect(config).await.unwrap();
    let ask = |n: i64| {
        let client = client.clone();
        async move { client.query_one("SELECT $1::int8", &[&n]).await.unwrap().get::<i64>(0) }
    };
    let answers = join_all((0..200).map(|n| tokio::spawn(ask(n)))).await;
    assert!((0..).zip(answers).all(|(n, answer)| answer.unwrap().unwrap() == n));
    assert!(client.size().0 <= 4);
    // A connection that has been lost does not come back to the pool.
    let lost = client.connection().await.unwrap();
    let after = lost.query("SELECT pg_terminate_backend(pg_backend_pid())", &[]).await;
    assert!(after.is_err());
    drop(lost);
    for n in 0..8 {
        assert_eq!(number(&client, &format!("SELECT {n}::int8")).await, n);
    }
    client.close().await;
    assert!(client.query("SELECT 1", &[]).await.is_err());
}

#[tokio::test]
async fn every_compression_and_the_checksum_work() {
    let Some(config) = config() else { return };
    let kinds = [CompressionType::Zstd, CompressionType::Lz4, CompressionType::Snappy];
    for kind in kinds.into_iter().map(Some).chain([None]) {
        for checksum in [false, true] {
            let mut config = config.clone();
            (config.compression, config.checksum) = (kind.into_iter().collect(), checksum);
            let connection = Connection::connect(config).await.unwrap();
            let agreed = connection.server().compression;
            assert_eq!(agreed, kind.unwrap_or(CompressionType::None));
            let long = "abc".repeat(10_000);
            let sql = "SELECT $1::text || n FROM generate_series(1, 20) n";
            let rows = connection.query(sql, &[&long]).await.unwrap();
            for (n, row) in (1..).zip(&rows) {
                assert_eq!(row.get::<String>(0).unwrap(), format!("{long}{n}"));
            }
        }
    }
}

#[tokio::test]
async fn log_ins_that_must_fail_do() {
    let Some(config) = config() else { return };
    let mut wrong = config.clone();
    wrong.database = "no such database".into();
    let error = Connection::connect(wrong).await.unwrap_err();
    assert!(matches!(error.sqlstate(), "3D000" | "28000"), "{error:?}");
    if config.password.is_some() {
        let mut wrong = config.clone();
        wrong.password = Some("not the password".into());
        assert_eq!(Connection::connect(wrong).await.unwrap_err().sqlstate(), "28P01");
        let mut without = config.clone();
        without.password = None;
        assert!(matches!(Connection::connect(without).await, Err(Error::PasswordNeeded)));
    }
    let mut nobody = config;
    nobody.hosts = vec![rustydb_client::Host::Tcp("127.0.0.1".into(), 1)];
    assert_eq!(Connection::connect(nobody.clone()).await.unwrap_err().sqlstate(), "08001");
    // The second host answers.
    nobody.hosts.extend(url().unwrap().parse::<Config>().unwrap().hosts);
    Connection::connect(nobody).await.unwrap();
}

#[tokio::test]
async fn tls_is_verified_as_asked() {
    let (Ok(url), Ok(ca)) = (std::env::var("RUSTYDB_TLS_URL"), std::env::var("RUSTYDB_TLS_CA"))
    else {
        return;
    };
    let base: Config = url.parse().unwrap();
    let connect = async |tls, ca: Option<&str>| {
        let mut config = base.clone();
        (config.tls, config.tls_ca) = (tls, ca.map(Into::into));
        let connection = Connection::connect(config).await?;
        let params: &[&(dyn ToValue + Sync)] = &[&1i64];
        connection.query_one("SELECT $1::int8", params).await?.get::<i64>(0)
    };
    use rustydb_client::TlsMode::{Prefer, Require, VerifyCa, VerifyFull};
    assert_eq!(connect(Prefer, None).await.unwrap(), 1);
    assert_eq!(connect(Require, None).await.unwrap(), 1);
    assert_eq!(connect(VerifyCa, Some(&ca)).await.unwrap(), 1);
    assert_eq!(connect(VerifyFull, Some(&ca)).await.unwrap(), 1);
    // The operating system does not know this authority.
    assert_eq!(connect(VerifyFull, None).await.unwrap_err().sqlstate(), "08001");
}

#[tokio::test]
async fn a_self_signed_certificate_is_its_own_authority() {
    let variables = ["RUSTYDB_SELF_SIGNED_URL", "RUSTYDB_SELF_SIGNED_CERT"].map(std::env::var);
    let [Ok(url), Ok(certificate)] = variables else { return };
    let mut config: Config = url.parse().unwrap();
    config.tls = rustydb_client::TlsMode::VerifyFull;
    assert_eq!(Connection::connect(config.clone()).await.unwrap_err().sqlstate(), "08001");
    config.tls_ca = Some(certificate.into());
    Connection::connect(config).await.unwrap();
}
