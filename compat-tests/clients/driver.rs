//! A driver of another make: tokio-postgres, which asks for binary and pipelines what it can.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use tokio_postgres::binary_copy::{BinaryCopyInWriter, BinaryCopyOutStream};
use tokio_postgres::error::{ErrorPosition, SqlState};
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::harness::{SOON, Server, eventually};
use crate::{guarded, lent, wait_until_running};

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.unwrap() })
}

fn config(server: &Server) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(server.port).user("rustydb").dbname("rustydb");
    config.password(&server.password);
    config
}

async fn connect(server: &Server) -> Client {
    let (client, connection) = config(server).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A client, and what the server tells it without being asked.
async fn connect_listening(
    server: &Server,
) -> (Client, tokio::sync::mpsc::UnboundedReceiver<AsyncMessage>) {
    let (client, mut connection) = config(server).connect(NoTls).await.unwrap();
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if sender.send(message).is_err() {
                break;
            }
        }
    });
    (client, receiver)
}

#[test]
fn typed_values_go_there_and_back_in_binary() {
    run(async {
        let client = connect(guarded()).await;
        let row = client
            .query_one(
                "select $1::bool, $2::int2, $3::int4, $4::int8, $5::float4, $6::float8, $7::text,
                 $8::bytea, $9::int4[], $10::text[], $11::varchar,
                 null::text, $12::oid, $13::\"char\"",
                &[
                    &true,
                    &-2i16,
                    &7i32,
                    &i64::MIN,
                    &1.5f32,
                    &f64::MAX,
                    &"é👋",
                    &vec![0u8, 255],
                    &vec![Some(1), None],
                    &vec!["a", "b c"],
                    &"v",
                    &42u32,
                    &65i8,
                ],
            )
            .await
            .unwrap();
        assert!(row.get::<_, bool>(0));
        assert_eq!(
            (row.get::<_, i16>(1), row.get::<_, i32>(2), row.get::<_, i64>(3)),
            (-2, 7, i64::MIN)
        );
        assert_eq!((row.get::<_, f32>(4), row.get::<_, f64>(5)), (1.5, f64::MAX));
        assert_eq!((row.get::<_, &str>(6), row.get::<_, &[u8]>(7)), ("é👋", &[0u8, 255][..]));
        assert_eq!(row.get::<_, Vec<Option<i32>>>(8), [Some(1), None]);
        assert_eq!(row.get::<_, Vec<String>>(9), ["a", "b c"]);
        assert_eq!(row.get::<_, Option<&str>>(11), None);
        assert_eq!((row.get::<_, u32>(12), row.get::<_, i8>(13)), (42, 65));
        let now = std::time::SystemTime::now();
        let row =
            client.query_one("select $1::timestamptz, $1 + interval '1 s'", &[&now]).await.unwrap();
        let apart = row.get::<_, std::time::SystemTime>(1).duration_since(row.get(0)).unwrap();
        assert_eq!(apart, Duration::from_secs(1));
        let wide: Vec<String> = (0..1000).map(|n| format!("{n}::int4 as c{n}")).collect();
        let row = client.query_one(&format!("select {}", wide.join(", ")), &[]).await.unwrap();
        assert_eq!((row.len(), row.get::<_, i32>("c999")), (1000, 999));
        let big = "x".repeat(20 << 20);
        let row = client.query_one("select length($1), $1", &[&big]).await.unwrap();
        assert!(row.get::<_, i32>(0) == 20 << 20 && row.get::<_, &str>(1) == big);
    });
}

#[test]
fn statements_transactions_and_portals() {
    run(async {
        let mut client = connect(guarded()).await;
        client.batch_execute("create temp table d (id int primary key, t text)").await.unwrap();
        let insert = client.prepare("insert into d values ($1, $2)").await.unwrap();
        assert_eq!(insert.params(), [Type::INT4, Type::TEXT]);
        for n in 0..20 {
            assert_eq!(client.execute(&insert, &[&n, &"t"]).await.unwrap(), 1);
        }
        let transaction = client.transaction().await.unwrap();
        transaction.execute(&insert, &[&100, &"x"]).await.unwrap();
        assert!(transaction.execute(&insert, &[&100, &"x"]).await.is_err());
        let error = transaction.query("select 1", &[]).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
        drop(transaction);
        let mut transaction = client.transaction().await.unwrap();
        let savepoint = transaction.savepoint("s").await.unwrap();
        savepoint.execute(&insert, &[&101, &"x"]).await.unwrap();
        savepoint.rollback().await.unwrap();
        transaction.execute(&insert, &[&102, &"x"]).await.unwrap();
        transaction.commit().await.unwrap();
        let ids = client.query("select id from d where id >= 100", &[]).await.unwrap();
        assert_eq!(ids.iter().map(|row| row.get(0)).collect::<Vec<i32>>(), [102]);
        let transaction = client.transaction().await.unwrap();
        let portal = transaction.bind("select id from d order by id", &[]).await.unwrap();
        let mut sizes = Vec::new();
        loop {
            let rows = transaction.query_portal(&portal, 8).await.unwrap();
            if rows.is_empty() {
                break;
            }
            sizes.push(rows.len());
        }
        assert_eq!(sizes, [8, 8, 5]);
        transaction.commit().await.unwrap();
        // A prepared statement whose result changes its type.
        let all = client.prepare("select * from d where id = 1").await.unwrap();
        client.batch_execute("alter table d add n int").await.unwrap();
        let error = client.query(&all, &[]).await.unwrap_err();
        assert!(error.to_string().contains("db error"), "{error}");
        assert_eq!(client.query("select * from d where id = 1", &[]).await.unwrap()[0].len(), 3);
    });
}

#[test]
fn copy_in_binary_goes_both_ways() {
    run(async {
        let client = connect(guarded()).await;
        client.batch_execute("create temp table dc (id int4, t text)").await.unwrap();
        let types = [Type::INT4, Type::TEXT];
        let sink = client.copy_in("copy dc from stdin binary").await.unwrap();
        let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
        for n in 0..50_000i32 {
            writer.as_mut().write(&[&n, &format!("row {n}")]).await.unwrap();
        }
        assert_eq!(writer.finish().await.unwrap(), 50_000);
        let out =
            client.copy_out("copy (select * from dc order by id) to stdout binary").await.unwrap();
        let rows: Vec<_> = BinaryCopyOutStream::new(out, &types).try_collect().await.unwrap();
        assert_eq!((rows.len(), rows[49_999].get::<&str>(1)), (50_000, "row 49999"));
        // A COPY that is given up leaves nothing, and the connection goes on.
        let sink = client.copy_in::<_, bytes::Bytes>("copy dc from stdin").await.unwrap();
        let mut sink = Box::pin(sink);
        sink.send(bytes::Bytes::from_static(b"7\tx\n")).await.unwrap();
        drop(sink);
        let count = client.query_one("select count(*) from dc", &[]).await.unwrap();
        assert_eq!(count.get::<_, i64>(0), 50_000);
        // A result that is not read to its end, either.
        let rows =
            client.query_raw("select generate_series(1, 200000)", Vec::<i32>::new()).await.unwrap();
        let mut rows = Box::pin(rows);
        assert_eq!(rows.next().await.unwrap().unwrap().get::<_, i32>(0), 1);
        drop(rows);
        assert_eq!(client.query_one("select 5", &[]).await.unwrap().get::<_, i32>(0), 5);
    });
}

#[test]
fn errors_and_notices_keep_their_fields() {
    run(async {
        let (client, mut messages) = connect_listening(guarded()).await;
        client
            .batch_execute("create temp table de (id int constraint de_key primary key)")
            .await
            .unwrap();
        client.batch_execute("insert into de values (1)").await.unwrap();
        let error = client.execute("insert into de values ($1)", &[&1]).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code(), &SqlState::UNIQUE_VIOLATION);
        assert_eq!(error.detail(), Some("Key (id)=(1) already exists."));
        assert_eq!((error.constraint(), error.table()), (Some("de_key"), Some("de")));
        let error = client.query("select\n nothere", &[]).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.position(), Some(&ErrorPosition::Original(9)));
        assert_eq!((error.severity(), error.code()), ("ERROR", &SqlState::UNDEFINED_COLUMN));
        let notice =
            "do $$ begin raise warning 'careful' using hint = 'h', errcode = '01234'; end $$";
        client.batch_execute(notice).await.unwrap();
        let Some(AsyncMessage::Notice(notice)) = messages.recv().await else { panic!() };
        assert_eq!(
            (notice.message(), notice.hint(), notice.severity()),
            ("careful", Some("h"), "WARNING")
        );
    });
}

#[test]
fn notifications_reach_another_client() {
    run(async {
        let server = guarded();
        let (listener, mut messages) = connect_listening(server).await;
        let speaker = connect(server).await;
        listener.batch_execute("listen driver_channel").await.unwrap();
        for n in 0..3 {
            speaker
                .execute("select pg_notify('driver_channel', $1)", &[&format!("p{n}")])
                .await
                .unwrap();
        }
        for n in 0..3 {
            // The listener is idle: nothing of its own makes them arrive.
            let message = tokio::time::timeout(SOON, messages.recv()).await.unwrap();
            let Some(AsyncMessage::Notification(note)) = message else { panic!("{message:?}") };
            assert_eq!(
                (note.channel(), note.payload()),
                ("driver_channel", format!("p{n}").as_str())
            );
        }
        listener.batch_execute("unlisten driver_channel").await.unwrap();
        speaker.batch_execute("notify driver_channel, 'late'").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(messages.try_recv().is_err());
    });
}

#[test]
fn a_cancel_token_stops_only_its_own_statement() {
    run(async {
        let server = guarded();
        let (one, two) = (connect(server).await, connect(server).await);
        // A client is given its backend with its first statement.
        let other = tokio::spawn(async move { two.query("select pg_sleep(1.5)", &[]).await });
        let token = one.cancel_token();
        // Prepared first: PostgreSQL is active for a moment then too.
        let sleep = one.prepare("select pg_sleep(100) as driver_cancel").await.unwrap();
        let cancel = async {
            tokio::task::spawn_blocking(move || wait_until_running(server, "as driver_cancel"))
                .await
                .unwrap();
            token.cancel_query(NoTls).await.unwrap();
        };
        let (result, ()) = tokio::join!(one.query(&sleep, &[]), cancel);
        assert_eq!(result.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
        // Nothing runs now; a late request must not hit what comes next.
        one.cancel_token().cancel_query(NoTls).await.unwrap();
        // The driver does not wait until it has been looked at.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(one.query_one("select 1", &[]).await.unwrap().get::<_, i32>(0), 1);
        assert!(other.await.unwrap().is_ok());
    });
}

#[test]
fn pipelined_queries_keep_their_order() {
    run(async {
        let client = connect(guarded()).await;
        let echo = client.prepare("select $1::int4, 100 / $1::int4").await.unwrap();
        let values: Vec<i32> = (-100..100).collect();
        let queries = values.iter().map(|n| {
            let (client, echo) = (&client, &echo);
            async move { client.query_one(echo, &[n]).await }
        });
        for (n, row) in values.iter().zip(join_all(queries).await) {
            match row {
                Ok(row) => assert_eq!(row.get::<_, i32>(0), *n),
                Err(e) => assert_eq!((*n, e.code()), (0, Some(&SqlState::DIVISION_BY_ZERO))),
            }
        }
    });
}

#[test]
fn fifty_clients_at_once() {
    let server = Server::builder().set("pool.max_size=60").start();
    run(async {
        let config = config(&server);
        let clients = (0..50).map(|n: i32| {
            let config = config.clone();
            async move {
                let (client, connection) = config.connect(NoTls).await?;
                let task = tokio::spawn(connection);
                client.batch_execute(&format!("set my.number = '{n}'")).await?;
                for _ in 0..10 {
                    let row =
                        client.query_one("select current_setting('my.number')::int4 + $1", &[&1]);
                    assert_eq!(row.await?.get::<_, i32>(0), n + 1);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                drop(client);
                task.await.unwrap()
            }
        });
        try_join_all(clients).await.unwrap();
    });
    eventually("every connection is back", SOON, || lent(&server) == 0.0);
    assert!(server.metric("rustydb_pool_total_connections{pool=\"main\"}") <= 60.0);
}
