//! sqlx: a program that uses what the driver has, and tells what it saw.

mod common;

use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::future::join_all;
use sqlx::postgres::{
    PgArguments, PgConnectOptions, PgConnection, PgDatabaseError, PgErrorPosition, PgListener,
    PgPoolCopyExt, PgPoolOptions, PgRow, PgValueFormat,
};
use sqlx::query::Query;
use sqlx::{
    Column, ConnectOptions, Connection, Either, Executor, PgPool, Postgres, Row, Statement,
    TypeInfo, ValueRef,
};

use common::{cases, clients, digest, schema_of, section, text, variable, zone};

type Asked<'a> = Query<'a, Postgres, PgArguments>;

/// A line of the transcript; it must not depend on time, process or object numbers.
macro_rules! say {
    ($($word:expr),+) => { println!("{}", [$(format!("{:?}", $word)),+].join(" ")) };
}

fn options() -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .host(&variable("PGHOST"))
        .port(variable("PGPORT").parse().unwrap())
        .username(&variable("PGUSER"))
        .password(&variable("PGPASSWORD"))
        .database(&variable("PGDATABASE"))
        .ssl_mode(sqlx::postgres::PgSslMode::Disable)
        .disable_statement_logging()
}

async fn single() -> PgConnection {
    options().connect().await.unwrap()
}

fn pool(clients: u32) -> PgPool {
    PgPoolOptions::new().max_connections(clients).connect_lazy_with(options())
}

/// Everything that PostgreSQL said about an error.
fn describe(error: &sqlx::Error) -> String {
    let sqlx::Error::Database(said) = error else { return error.to_string() };
    let said = said.downcast_ref::<PgDatabaseError>();
    let position = said.position().map(|position| match position {
        PgErrorPosition::Original(at) => format!("{at}"),
        PgErrorPosition::Internal { position, query } => format!("{position} of {query}"),
    });
    let optional = [
        said.detail(),
        said.hint(),
        position.as_deref(),
        said.r#where(),
        said.schema(),
        said.table(),
        said.column(),
        said.data_type(),
        said.constraint(),
        said.routine(),
    ];
    format!("{:?} {} {:?} {optional:?}", said.severity(), said.code(), said.message())
}

/// The values as they came: type, format, bytes.
fn shown(row: &PgRow) -> Vec<String> {
    let value = |column: usize| {
        let value = row.try_get_raw(column).unwrap();
        let name = row.column(column).type_info().name().to_owned();
        if value.is_null() {
            return format!("{name} null");
        }
        let format = value.format();
        let bytes = value.as_bytes().unwrap();
        match format {
            PgValueFormat::Text => format!("{name} {:?}", String::from_utf8_lossy(bytes)),
            PgValueFormat::Binary if bytes.len() > 100 => format!("{name} {}", digest(bytes)),
            PgValueFormat::Binary => format!("{name} {bytes:02x?}"),
        }
    };
    (0..row.len()).map(value).collect()
}

/// The results of all statements of a simple query.
async fn run(conn: &mut PgConnection, sql: &str) -> Result<Vec<String>, sqlx::Error> {
    let mut results = Vec::new();
    let mut stream = sqlx::raw_sql(sql).fetch_many(conn);
    while let Some(next) = stream.try_next().await? {
        results.push(match next {
            Either::Left(done) => format!("{} rows", done.rows_affected()),
            Either::Right(row) => format!("{:?}", shown(&row)),
        });
    }
    Ok(results)
}

/// The rows of an extended query.
async fn ask(conn: &mut PgConnection, query: Asked<'_>) -> Result<Vec<String>, sqlx::Error> {
    let rows = query.fetch_all(conn).await?;
    Ok(rows.iter().map(|row| format!("{:?}", shown(row))).collect())
}

fn tell(what: &str, result: Result<Vec<String>, sqlx::Error>) {
    match result {
        Ok(rows) => say!(what, rows),
        Err(error) => say!(what, describe(&error)),
    }
}

async fn check_values(conn: &mut PgConnection) {
    section("values");
    for line in cases("values.txt") {
        let (kind, literal) = line.split_once('\t').unwrap();
        let quoted = literal.replace('\'', "''");
        let sql = format!("select '{quoted}'::{kind}");
        tell(&line, run(conn, &sql).await);
        tell("binary", ask(conn, sqlx::query(&sql)).await);
        let back = format!("select ($1::text::{kind})::text, $1::text::{kind}");
        tell("back", ask(conn, sqlx::query(&back).bind(literal)).await);
    }
    let sent = "select $1, $2, $3, $4, $5, $6";
    let query = sqlx::query(sent).bind(true).bind(-7_i32).bind(1_i64 << 40).bind(1.5_f64);
    tell("sent", ask(conn, query.bind("é'\\").bind(vec![0_u8, 255])).await);
    let query = sqlx::query("select $1, $2, $3").bind(None::<i32>).bind(vec![1_i32, 2]);
    tell("sent", ask(conn, query.bind(vec!["a", "NULL", "b c"])).await);
}

async fn check_transactions(conn: &mut PgConnection) {
    section("transactions");
    let count = "select count(*) from people";
    let mut tx = conn.begin().await.unwrap();
    tell("insert", run(&mut tx, "insert into people values (10, 'Edsger', 72, null)").await);
    tx.rollback().await.unwrap();
    tell("rolled back", run(conn, count).await);
    let mut tx = conn.begin().await.unwrap();
    tell("insert", run(&mut tx, "insert into people values (11, 'Barbara', 80, 1)").await);
    let mut inner = tx.begin().await.unwrap();
    tell("twice", run(&mut inner, "insert into people values (11, 'B', 80, 1)").await);
    tell("aborted", run(&mut inner, count).await);
    inner.rollback().await.unwrap();
    let mut inner = tx.begin().await.unwrap();
    tell("deeper", run(&mut inner, "delete from people where id = 11").await);
    inner.commit().await.unwrap();
    tell("count", ask(&mut tx, sqlx::query(count)).await);
    tx.commit().await.unwrap();
    let mut tx = conn.begin().await.unwrap();
    tell("left alone", run(&mut tx, "delete from people").await);
    drop(tx);
    tell("count", ask(conn, sqlx::query(count)).await);
    for level in ["serializable", "repeatable read, read only"] {
        let begin = format!("begin isolation level {level}");
        let mut tx = conn.begin_with(begin).await.unwrap();
        tell("level", run(&mut tx, "show transaction_isolation").await);
        tell("delete", run(&mut tx, "delete from people where id = 99").await);
        say!(tx.commit().await.map_err(|error| describe(&error)));
    }
}

async fn check_prepared() {
    section("prepared statements");
    // More statements than it may keep: it closes the oldest.
    let mut conn = options().statement_cache_capacity(100).connect().await.unwrap();
    for turn in 0..4_i32 {
        for n in 0..150 {
            let sql = format!("select {n} + $1::int, name from people where id = $2");
            let mut tx = conn.begin().await.unwrap();
            tell("", ask(&mut tx, sqlx::query(&sql).bind(turn).bind(1 + n % 2)).await);
            tx.commit().await.unwrap();
        }
        let once = sqlx::query("select $1::int").persistent(false).bind(turn);
        tell("unnamed", ask(&mut conn, once).await);
    }
    say!(conn.cached_statements_size());
    let kept = (&mut conn).prepare("select $1::int, name from people").await.unwrap();
    say!(kept.parameters().map(|them| format!("{them:?}")), kept.columns().len());
    tell("kept", ask(&mut conn, kept.query().bind(5_i32)).await);
    run(&mut conn, "create table shape (a int); insert into shape values (1)").await.unwrap();
    for _ in 0..3 {
        tell("shape", ask(&mut conn, sqlx::query("select * from shape")).await);
    }
    run(&mut conn, "alter table shape add b text default 'new'").await.unwrap();
    // Prepared anew: a backend that has not seen the old one has nothing to refuse.
    conn.clear_cached_statements().await.unwrap();
    for _ in 0..2 {
        tell("a changed table", ask(&mut conn, sqlx::query("select * from shape")).await);
    }
    run(&mut conn, "drop table shape").await.unwrap();
    tell("bad", ask(&mut conn, sqlx::query("select nope")).await);
    tell("a wrong value", ask(&mut conn, sqlx::query("select $1::text::int").bind("x")).await);
    conn.clear_cached_statements().await.unwrap();
    let names = "select count(*) from pg_prepared_statements";
    tell("cleared", run(&mut conn, names).await);
    tell("then", ask(&mut conn, sqlx::query("select $1::int").bind(7_i32)).await);
    run(&mut conn, "deallocate all").await.unwrap();
    tell("deallocated", ask(&mut conn, sqlx::query("select $1::int").bind(7_i32)).await);
    conn.close().await.unwrap();
}

async fn check_session() {
    section("session");
    let mut conn = single().await;
    for sql in cases("session.sql") {
        tell(&sql, run(&mut conn, &sql).await);
    }
    conn.close().await.unwrap();
    let own = options().options([("search_path", "other"), ("timezone", "Europe/Berlin")]);
    let mut conn = own.application_name("of its own").connect().await.unwrap();
    tell("start-up", run(&mut conn, "select * from people; show application_name").await);
    run(&mut conn, "set search_path = public; set time zone 'UTC'; reset all").await.unwrap();
    tell("reset", run(&mut conn, "show search_path; show timezone").await);
    say!(conn.server_version_num());
    conn.ping().await.unwrap();
    conn.close().await.unwrap();
}

async fn copy(conn: &mut PgConnection, sql: &str, data: &[u8]) -> Result<u64, sqlx::Error> {
    let mut copy = conn.copy_in_raw(sql).await?;
    for part in data.chunks(5000) {
        copy.send(part).await?;
    }
    copy.finish().await
}

async fn check_copy(conn: &mut PgConnection) {
    section("copy");
    run(conn, "create table copied (id int, name text)").await.unwrap();
    let lines: String = (0..5000).map(|n| format!("{n}\tn\\t{n}\\\\\n")).collect();
    let said = |result: Result<u64, sqlx::Error>| result.map_err(|error| describe(&error));
    say!(said(copy(conn, "copy copied from stdin", lines.as_bytes()).await));
    say!("malformed", said(copy(conn, "copy copied from stdin", b"x\ty\n").await));
    say!("nowhere", said(copy(conn, "copy nowhere from stdin", b"").await));
    let given_up = conn.copy_in_raw("copy copied from stdin").await.unwrap();
    given_up.abort("no more").await.unwrap();
    tell("count", run(conn, "select count(*), sum(id), max(name) from copied").await);
    let out = "copy (select * from copied order by id) to stdout";
    let stream = conn.copy_out_raw(out).await.unwrap();
    let all: Vec<_> = stream.try_collect().await.unwrap();
    say!(digest(&all.concat()));
    let pool = pool(1);
    let mut pooled = pool.copy_in_raw("copy copied from stdin").await.unwrap();
    pooled.send(&b"1\tx\n"[..]).await.unwrap();
    say!(said(pooled.finish().await));
    pool.close().await;
    run(conn, "drop table copied").await.unwrap();
}

async fn check_errors(conn: &mut PgConnection) {
    section("errors");
    for sql in cases("errors.sql") {
        tell(&sql, run(conn, &sql).await);
        tell("extended", ask(conn, sqlx::query(&sql)).await);
        tell("unnamed", ask(conn, sqlx::query(&sql).persistent(false)).await);
    }
    tell("several", run(conn, "select 1; select 2; select 1 / 0").await);
    tell("then", run(conn, "select 'still here'").await);
}

async fn check_notify(sender: &mut PgConnection) {
    section("notifications");
    let pool = pool(2);
    let mut listener = PgListener::connect_with(&pool).await.unwrap();
    listener.listen_all(["news", "Other News"]).await.unwrap();
    let wait = Duration::from_secs(10);
    for sql in ["notify news, 'one'", "select pg_notify('Other News', 'two é')"] {
        run(sender, sql).await.unwrap();
        let heard = tokio::time::timeout(wait, listener.recv()).await.unwrap().unwrap();
        say!(heard.channel(), heard.payload());
    }
    listener.unlisten("news").await.unwrap();
    run(sender, "notify news, 'unheard'; notify \"Other News\", 'heard'").await.unwrap();
    let heard = tokio::time::timeout(wait, listener.recv()).await.unwrap().unwrap();
    say!(heard.channel(), heard.payload());
    listener.unlisten_all().await.unwrap();
    drop(listener);
    pool.close().await;
}

async fn check_interrupted(conn: &mut PgConnection) {
    section("interrupted");
    // The driver cancels nothing; it reads what is left of an answer before the next statement.
    let limit = Duration::from_millis(200);
    let slow = sqlx::query("select pg_sleep(0.6), 'late'").execute(&mut *conn);
    say!(tokio::time::timeout(limit, slow).await.is_err());
    tell("then", ask(conn, sqlx::query("select 'still here'")).await);
    let mut rows = sqlx::query("select generate_series(1, 30000)").fetch(&mut *conn);
    say!(rows.try_next().await.unwrap().map(|row| shown(&row)));
    drop(rows);
    tell("then", ask(conn, sqlx::query("select 'still here'")).await);
    run(conn, "set statement_timeout = '200ms'").await.unwrap();
    tell("timed out", ask(conn, sqlx::query("select pg_sleep(30)")).await);
    run(conn, "reset statement_timeout").await.unwrap();
    tell("then", run(conn, "select 'still here'").await);
}

async fn check_big(conn: &mut PgConnection) {
    section("big values");
    for size in [1 << 20, 20 << 20] {
        let (words, data) = ("0123456789abcdef".repeat(size / 16), b"rustydb!".repeat(size / 8));
        let lengths = "select length($1::text), md5($1::text)";
        tell("sent", ask(conn, sqlx::query(lengths).bind(words)).await);
        tell("back", ask(conn, sqlx::query("select $1::bytea").bind(data)).await);
        let long = sqlx::query("select repeat('é', $1)").bind(size as i32 / 2);
        tell("long", ask(conn, long).await);
    }
    let rows = sqlx::query("select i, md5(i::text) from generate_series(1, 50000) i");
    let rows = rows.fetch_all(conn).await.unwrap();
    say!(digest(rows.iter().map(|row| text(row, 1)).collect::<String>().as_bytes()));
}

/// Must see what it set itself and nothing of the others.
async fn one_of_many(pool: &PgPool, number: usize) -> Vec<String> {
    let mut conn = pool.acquire().await.unwrap();
    let mut seen = Vec::new();
    let mut see = |result: Result<Vec<String>, sqlx::Error>| {
        seen.push(result.map_or_else(|error| describe(&error), |rows| rows.concat()));
    };
    let temporary = number.is_multiple_of(8);
    for sql in [
        format!("set time zone '{}'", zone(number)),
        format!("set my.number = {number}"),
        format!("set search_path = {}", schema_of(number)),
        format!("prepare mine as select {number}"),
    ] {
        see(run(&mut conn, &sql).await);
    }
    if temporary {
        see(run(&mut conn, &format!("create temporary table mine as select {number} n")).await);
    }
    for turn in 0..5_i32 {
        let mut tx = conn.begin().await.unwrap();
        see(run(&mut tx, "show timezone; show my.number").await);
        see(run(&mut tx, "select name from people order by id limit 1").await);
        tx.commit().await.unwrap();
        see(run(&mut conn, "execute mine").await);
        let sum = format!("select {number} + $1::int");
        see(ask(&mut conn, sqlx::query(&sum).bind(turn)).await);
        see(run(&mut conn, "select to_regclass('mine') is null").await);
        if temporary {
            see(run(&mut conn, "select * from mine").await);
        }
        see(ask(&mut conn, sqlx::query("select 1 / $1::int").bind(0_i32)).await);
        see(run(&mut conn, "select name from pg_prepared_statements where name = 'mine'").await);
    }
    see(run(&mut conn, "deallocate mine; discard temp; reset all").await);
    seen
}

async fn check_many() {
    section("many clients");
    let pool = pool(clients() as u32);
    let seen = join_all((0..clients()).map(|number| one_of_many(&pool, number))).await;
    for (number, seen) in seen.iter().enumerate() {
        say!(number, seen);
    }
    pool.close().await;
}

async fn check_reconnect(other: &mut PgConnection) {
    section("reconnect");
    let pool = pool(2);
    let mut conn = pool.acquire().await.unwrap();
    run(&mut conn, "begin").await.unwrap();
    let pid: i32 =
        sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *conn).await.unwrap();
    let terminate = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        run(other, &format!("select pg_terminate_backend({pid})")).await.unwrap();
    };
    let (ended, ()) =
        futures_util::future::join(run(&mut conn, "select pg_sleep(30)"), terminate).await;
    tell("terminated", ended);
    say!("closed", run(&mut conn, "select 1").await.is_err());
    drop(conn);
    let mut conn = pool.acquire().await.unwrap();
    tell("again", run(&mut conn, "select 'a new one works'").await);
    let itself = run(&mut conn, "select pg_terminate_backend(pg_backend_pid())").await;
    tell("by itself", itself);
    drop(conn);
    let mut conn = pool.acquire().await.unwrap();
    tell("again", run(&mut conn, "select 'a new one works'").await);
    drop(conn);
    pool.close().await;
    let nowhere = options().database("nosuch").connect().await;
    say!("no such database", nowhere.err().map(|error| describe(&error)));
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut conn = single().await;
    for sql in cases("schema.sql") {
        run(&mut conn, &sql).await.unwrap();
    }
    check_values(&mut conn).await;
    check_transactions(&mut conn).await;
    check_prepared().await;
    check_session().await;
    check_copy(&mut conn).await;
    check_errors(&mut conn).await;
    check_notify(&mut conn).await;
    check_interrupted(&mut conn).await;
    check_big(&mut conn).await;
    check_many().await;
    check_reconnect(&mut conn).await;
    conn.close().await.unwrap();
    section("end");
}
