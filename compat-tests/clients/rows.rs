//! Requests for rows: what RustyDB writes for them, run by the real PostgreSQL and compared with
//! what a person would have written.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustydb::catalog::{Row, read_snapshot, snapshot_query};
use rustydb::proto::json::Style;
use rustydb::query::plan::ask::{Condition, Count, Item, Level, Read, Target};
use rustydb::query::plan::cursor::Position;
use rustydb::query::plan::{Limits, Statement, plan_read};
use rustydb::query::postgrest::{Action, Options, Request, plan};
use rustydb::query::schema::{Schema, oid};
use rustydb::query::where_json;
use serde_json::{Value, json};
use tokio_postgres::types::{Format, FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::harness::Server;
use crate::harness::shared::Shared;

/// Of its own: other tests' tables are not its business.
fn server() -> &'static Server {
    static SERVER: OnceLock<Shared> = OnceLock::new();
    let start = || {
        let shared = Shared::start(Server::builder().arg("--insecure"));
        let made = shared.server.direct_psql(include_str!("rows.sql"));
        assert_eq!((made.stderr.as_str(), made.code), ("", Some(0)));
        shared
    };
    &SERVER.get_or_init(start).server
}

async fn connect() -> Client {
    let server = server();
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(server.port).user("rustydb").dbname("rustydb");
    config.password(&server.password);
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(120), test).await.unwrap() })
}

/// Rows of the last statement of a script, as text.
async fn rows(client: &Client, sql: &str) -> Result<Vec<Row>, String> {
    let failed = |error: tokio_postgres::Error| match error.as_db_error() {
        Some(error) => format!("{} {}", error.code().code(), error.message()),
        None => error.to_string(),
    };
    let messages = client.simple_query(sql).await.map_err(failed)?;
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
        }
        _ => None,
    };
    Ok(messages.iter().filter_map(row).collect())
}

async fn snapshot(client: &Client) -> Schema {
    read_snapshot(&rows(client, &snapshot_query(0)).await.unwrap())
}

fn literal(value: &[u8]) -> String {
    rustydb::query::quote_literal(std::str::from_utf8(value).unwrap())
}

/// Runs a statement with the types that it gives its parameters, and takes everything back.
async fn execute(
    client: &Client,
    schema: &Schema,
    statement: &Statement,
) -> Result<Vec<Row>, String> {
    let type_name = |type_oid: u32| match schema.type_entry(type_oid) {
        None => "unknown".to_owned(),
        Some(entry) => format!("\"{}\".\"{}\"", entry.schema, entry.name),
    };
    let types: Vec<String> = statement.params.iter().map(|p| type_name(p.type_oid)).collect();
    let values: Vec<String> = statement
        .params
        .iter()
        .map(|p| p.value.as_deref().map_or("NULL".to_owned(), literal))
        .collect();
    let list = |items: &[String]| match items {
        [] => String::new(),
        items => format!("({})", items.join(", ")),
    };
    let script = format!(
        "DEALLOCATE ALL; BEGIN; PREPARE p {} AS {}; EXECUTE p {}; ROLLBACK",
        list(&types),
        statement.sql,
        list(&values)
    );
    let result = rows(client, &script).await;
    if result.is_err() {
        client.simple_query("ROLLBACK").await.unwrap();
    }
    Ok(result?.into_iter().map(|row| unfolded(statement, row)).collect())
}

/// A row whose columns that are rows are JSON.
fn unfolded(statement: &Statement, mut row: Row) -> Row {
    let style = Style { numeric_as_number: true, as_postgres: true, ..Style::default() };
    let leading = if statement.layout.has_total { 2 } else { 0 };
    let own = row.len() - leading - statement.layout.cursor_values;
    for (at, records) in statement.nested.places(own) {
        let cell = &mut row[leading + at];
        let bytes = cell.as_deref().map(|hex| -> Vec<u8> {
            let hex = hex.strip_prefix("\\x").unwrap();
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            (0..hex.len()).step_by(2).map(byte).collect()
        });
        if bytes.is_some() || !records.is_one {
            let mut json = Vec::new();
            records.write(bytes.as_deref(), style, &mut json).unwrap();
            *cell = Some(String::from_utf8(json).unwrap());
        }
    }
    row
}

fn options() -> Options {
    Options {
        schemas: vec!["rows_api".into()],
        limits: Limits { max_rows: None, aggregates: true },
        may_roll_back: true,
        cursor_key: Some(b"key".to_vec()),
    }
}

fn statement(
    schema: &Schema,
    (method, url): (&str, &str),
    headers: &[(&str, &str)],
    body: &[u8],
) -> Statement {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let query: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let path: Vec<&str> = path.split('/').collect();
    let request = Request { method, path: &path, query: &query, headers, body };
    let planned = plan(schema, &options(), &request).unwrap_or_else(|e| panic!("{url}: {e:?}"));
    match planned.action {
        Action::Read(plan) => plan.statement(schema),
        Action::Write(plan, _) => plan.statement(schema).unwrap(),
        Action::Call(plan) => plan.statement(schema).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// JSON is compared by what it means.
fn comparable(rows: Vec<Row>) -> Vec<Vec<Value>> {
    let cell = |cell: Option<String>| match cell {
        None => Value::Null,
        Some(text) if text.starts_with(['{', '[']) => {
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        }
        Some(text) => Value::String(text),
    };
    rows.into_iter().map(|row| row.into_iter().map(cell).collect()).collect()
}

/// The rows of a case's own SQL.
async fn by_hand(client: &Client, sql: &str) -> Vec<Vec<Value>> {
    let script = format!("BEGIN; SET LOCAL search_path = rows_api; {sql}; ROLLBACK");
    match rows(client, &script).await {
        Ok(rows) => comparable(rows),
        Err(error) => panic!("{sql}: {error}"),
    }
}

#[test]
fn reads_are_those_of_sql_written_by_hand() {
    run(async {
        let client = connect().await;
        let schema = snapshot(&client).await;
        for (url, sql) in [
            ("authors", "select * from authors"),
            (
                "authors?select=id,name&order=id.desc&limit=2&offset=1",
                "select id, name from authors order by id desc limit 2 offset 1",
            ),
            ("authors?mood=eq.it's", "select * from authors where mood = 'it''s'"),
            (
                "authors?mood=in.(calm,wild)&order=mood",
                "select * from authors where mood in ('calm', 'wild') order by mood",
            ),
            (
                "authors?name=in.(\"O'Neil \\\"x\\\" \\\\\",Ann)&order=id",
                "select * from authors where id in (1, 3) order by id",
            ),
            ("authors?name=like.100%_*", "select * from authors where id = 4"),
            (
                "authors?name=ilike(any).{a*,b*}&order=id",
                "select * from authors where id in (1, 2) order by id",
            ),
            ("authors?name=eq.longer than its domain allows", "select * from authors where false"),
            ("authors?name=match.^A", "select * from authors where id = 1"),
            ("authors?tags=cs.{\"b c\"}", "select * from authors where id = 1"),
            ("authors?tags=ov.{\"d\\\"q\",zz}", "select * from authors where id = 3"),
            ("authors?tags=eq.{}", "select * from authors where id = 2"),
            (
                "authors?id=eq(any).{1,3}&order=id",
                "select * from authors where id in (1, 3) order by id",
            ),
            ("authors?span=cs.[2,3]", "select * from authors where id = 1"),
            ("authors?span=adj.[9,10)", "select * from authors where id = 2"),
            (
                "authors?span=sl.[5,6)&order=id",
                "select * from authors where span << '[5,6)' order by id",
            ),
            ("authors?data=cs.{\"a\":1}", "select * from authors where id = 2"),
            ("authors?data->a->b->>0=eq.10", "select * from authors where id = 1"),
            ("authors?data->0=eq.1", "select * from authors where id = 4"),
            (
                "authors?select=data->a->b->1,x:data->>n,tags->0&id=eq.1",
                "select '\"x\"', '1.10', '\"a\"'",
            ),
            (
                "authors?data->>n=is.null&order=id",
                "select * from authors where id <> 1 order by id",
            ),
            (
                "authors?score=gte.2.2&order=score",
                "select * from authors where score >= 2.2 order by score",
            ),
            ("authors?joined=lt.2026-02-01&select=id", "select 1"),
            ("authors?mood=isdistinct.calm&order=id&select=id", "values (2), (3), (4)"),
            (
                "authors?or=(id.eq.1,and(id.gt.2,not.or(id.eq.3,name.eq.x)))&order=id&select=id",
                "values (1), (4)",
            ),
            ("authors?order=boss.desc.nullslast,id&select=id", "values (4), (2), (3), (1)"),
            ("authors?order=data->n,id&select=id", "values (1), (2), (3), (4)"),
            ("authors?select=count()", "values (4)"),
            (
                "authors?select=boss,count(),score.sum()::text&order=boss",
                "select boss, count(*), sum(score)::text from authors group by boss order by boss",
            ),
            ("authors?select=data->n,id.max()&order=data->n", "values ('1.10', 1), (null, 4)"),
            ("posts?words=fts(simple).fat&select=id&order=id", "values (1), (4)"),
            ("posts?title=wfts(english).third&select=id", "values (3)"),
            ("posts?select=shout,size&id=eq.1", "select 'FIRST', 5"),
            ("posts?shout=eq.THIRD&select=id", "values (3)"),
            ("calm_authors?select=name", "values ('Ann')"),
            ("parts", "select * from parts"),
            ("odd \"table\"?order=\"a b\"", "select * from \"odd \"\"table\"\"\" order by 1"),
            (
                "odd \"table\"?\"se\\\"lect\"=eq.x'; drop table posts; \
                 --&select=\"日本\",count,t0,\"q\\\"\\\"\":\"x;--\"",
                "values ('語', 5, 6, '$1')",
            ),
            ("odd \"table\"?\"se\\\"lect\"=is.null&select=\"a b\"", "values (2)"),
            ("authors?select=&limit=2", "select from authors limit 2"),
        ] {
            let statement = statement(&schema, ("GET", url), &[], b"");
            let found = execute(&client, &schema, &statement).await;
            let found = found.unwrap_or_else(|e| panic!("{url}: {e}\n{}", statement.sql));
            assert_eq!(comparable(found), by_hand(&client, sql).await, "{url}\n{}", statement.sql);
        }
    });
}

#[test]
fn embedded_rows_are_those_of_sql_written_by_hand() {
    run(async {
        let client = connect().await;
        let schema = snapshot(&client).await;
        for (url, sql) in [
            (
                "posts?select=id,comments(*)&order=id",
                "select id, coalesce((select json_agg(c order by c.id) from comments c where \
                 c.post = p.id), '[]') from posts p order by id",
            ),
            (
                "posts?select=id,comments(id,body)&order=id.desc&limit=2&comments.order=id.desc",
                "select id, coalesce((select json_agg(json_build_object('id', c.id, 'body', \
                 c.body) order by c.id desc) from comments c where c.post = p.id), '[]') from \
                 posts p order by id desc limit 2",
            ),
            (
                "posts?select=id,comments!inner(id)&comments.body=eq.good&order=id",
                "select id, (select json_agg(json_build_object('id', c.id)) from comments c \
                 where c.post = p.id and body = 'good') from posts p where id in (1, 3) order by \
                 id",
            ),
            (
                "posts?select=id,comments(id)&comments.limit=1&comments.offset=1&comments.order=id&order=id",
                "values (1, '[{\"id\":2}]'), (2, '[]'), (3, '[]'), (4, '[]')",
            ),
            (
                "posts?select=id,labels(name)&labels.order=name&order=id",
                "values (1, '[{\"name\":\"blue\"},{\"name\":\"red\"}]'), (2, \
                 '[{\"name\":\"blue\"}]'), (3, '[]'), (4, '[]')",
            ),
            (
                "labels?select=name,posts(title)&order=name&posts.order=id",
                "values ('blue', '[{\"title\":\"first\"},{\"title\":\"second\"}]'), ('none', \
                 '[]'), ('red', '[{\"title\":\"first\"}]')",
            ),
            ("posts?select=id,author(name)&id=eq.1", "select 1, '{\"name\":\"Ann\"}'"),
            (
                "posts?select=id,authors!posts_editor(name)&order=id&id=lt.3",
                "values (1, '{\"name\":\"Bob\"}'), (2, null)",
            ),
            (
                "posts?select=id,e:authors!editor(name)&order=e(name).desc.nullslast,id",
                "select p.id, (select json_build_object('name', name) from authors a where a.id \
                 = p.editor) from posts p left join authors a on a.id = p.editor order by a.name \
                 desc nulls last, p.id",
            ),
            (
                "authors?select=id,boss(id),authors(id)&order=id&authors.order=id",
                "values (1, null, '[{\"id\":2},{\"id\":3}]'), (2, '{\"id\":1}', '[{\"id\":4}]'), \
                 (3, '{\"id\":1}', '[]'), (4, '{\"id\":2}', '[]')",
            ),
            (
                "authors?select=id,profiles(bio)&order=id&id=lt.3",
                "values (1, '{\"bio\":{\"z\": 2}}'), (2, '{\"bio\":null}')",
            ),
            ("authors?select=id,profiles()&profiles=is.null&order=id", "values (3), (4)"),
            (
                "authors?select=id,profiles(author)&or=(profiles.not.is.null,id.eq.4)&order=id",
                "values (1, '{\"author\":1}'), (2, '{\"author\":2}'), (4, null)",
            ),
            (
                "lines?select=id,orders(note)&order=id",
                "values (1, '{\"note\":\"x\"}'), (2, '{\"note\":\"x\"}'), (3, \
                 '{\"note\":\"y\"}'), (4, null)",
            ),
            (
                "orders?select=note,lines(id)&order=note&lines.order=id",
                "values ('x', '[{\"id\":1},{\"id\":2}]'), ('y', '[{\"id\":3}]')",
            ),
            (
                "posts?select=id,...authors!author(who:name,mood)&order=id&limit=2",
                "values (1, 'Ann', 'calm'), (2, 'Ann', 'calm')",
            ),
            (
                "authors?select=id,...posts!author(title)&order=id&posts.order=id",
                "values (1, '[\"first\",\"second\"]'), (2, '[\"third\"]'), (3, '[\"fourth\"]'), \
                 (4, '[]')",
            ),
            (
                "authors?select=id,posts!author(id,comments(id,body),labels(id))&id=eq.2",
                "values (2, \
                 '[{\"id\":3,\"comments\":[{\"id\":4,\"body\":\"good\"}],\"labels\":[]}]')",
            ),
            (
                "authors?select=id,posts!author!inner(id,comments!inner(id))&posts.comments.body=eq.bad",
                "values (1, '[{\"id\":1,\"comments\":[{\"id\":2}]}]')",
            ),
        ] {
            let statement = statement(&schema, ("GET", url), &[], b"");
            let found = execute(&client, &schema, &statement).await;
            let found = found.unwrap_or_else(|e| panic!("{url}: {e}\n{}", statement.sql));
            assert_eq!(comparable(found), by_hand(&client, sql).await, "{url}\n{}", statement.sql);
        }
    });
}

#[test]
fn counts_come_with_the_rows() {
    run(async {
        let client = connect().await;
        let schema = snapshot(&client).await;
        for (url, sql) in [
            ("authors?select=id&order=id&limit=2&id=gt.1", "values (3, 't', 2), (3, 't', 3)"),
            ("authors?select=id&offset=10", "values (4, null, null::int)"),
            ("authors?select=id&id=eq.77", "values (0, null, null::int)"),
            (
                "posts?select=id,comments!inner(id)&comments.body=eq.bad",
                "values (1, 't', 1, '[{\"id\":2}]')",
            ),
            ("rpc/posts_of?who=1&select=id&order=id&limit=1", "values (2, 't', 1)"),
        ] {
            let statement = statement(&schema, ("GET", url), &[("prefer", "count=exact")], b"");
            assert!(statement.layout.has_total);
            let found = execute(&client, &schema, &statement).await;
            let found = found.unwrap_or_else(|e| panic!("{url}: {e}\n{}", statement.sql));
            assert_eq!(comparable(found), by_hand(&client, sql).await, "{url}\n{}", statement.sql);
        }
    });
}

#[test]
fn changes_are_those_of_sql_written_by_hand() {
    run(async {
        let client = connect().await;
        let schema = snapshot(&client).await;
        let full = [("prefer", "return=representation")];
        let keys = [("prefer", "return=headers-only")];
        let merge = [("prefer", "return=representation,resolution=merge-duplicates")];
        let ignore = [("prefer", "return=representation,resolution=ignore-duplicates")];
        let default = [("prefer", "return=representation,missing=default")];
        for (method, url, headers, body, sql) in [
            ("POST", "labels", &full[..], r#"{"id":9,"name":"x"}"#, "values (9, 'x')"),
            (
                "POST",
                "labels",
                &keys,
                r#"[{"id":9,"name":"x"},{"name":"y","id":10}]"#,
                "values (9), (10)",
            ),
            ("POST", "labels", &[], r#"{"id":9,"name":"x"}"#, "select where false"),
            ("POST", "labels", &full, "[]", "select where false"),
            ("POST", "plain", &full, "{}", "values (7, 'n')"),
            ("POST", "plain", &full, "[{},{}]", "values (7, 'n'), (7, 'n')"),
            (
                "POST",
                "plain?columns=id,note",
                &default,
                r#"[{"id":1},{"note":null}]"#,
                "values (1, 'n'), (7, null)",
            ),
            (
                "POST",
                "labels?columns=id,name&select=name",
                &full,
                r#"[{"id":9,"name":"'); drop--","zz":1}]"#,
                "values ('''); drop--')",
            ),
            (
                "POST",
                "labels",
                &merge,
                r#"[{"id":1,"name":"rot"},{"id":9,"name":"x"}]"#,
                "values (1, 'rot'), (9, 'x')",
            ),
            (
                "POST",
                "labels",
                &ignore,
                r#"[{"id":1,"name":"rot"},{"id":9,"name":"x"}]"#,
                "values (9, 'x')",
            ),
            (
                "POST",
                "orders?on_conflict=shop,number",
                &merge,
                r#"[{"shop":1,"number":1,"note":"z"}]"#,
                "values (1, 1, 'z')",
            ),
            (
                "POST",
                "posts?columns=id,author,title&select=title,author",
                &default,
                r#"[{"id":90,"author":1},{"id":91,"author":2,"title":"t"}]"#,
                "values ('untitled', 1), ('t', 2)",
            ),
            (
                "POST",
                "posts?select=title,size,authors!author(name)",
                &full,
                r#"{"id":90,"author":2,"title":"abc"}"#,
                "values ('abc', 3, '{\"name\":\"Bob\"}')",
            ),
            (
                "POST",
                "authors?select=id,score,tags,data,mood",
                &full,
                r#"{"id":9,"name":"n","score":1.005,"tags":["a","b,\"c"],"data":{"k":[1e2]},"mood":"it's"}"#,
                "values (9, '1.01', '{a,\"b,\\\"c\"}', '{\"k\":[100]}', 'it''s')",
            ),
            ("PATCH", "labels?id=eq.1", &full, r#"{"name":"rot"}"#, "values (1, 'rot')"),
            (
                "PATCH",
                "posts?id=lt.3&select=id,title,comments(id)&columns=title",
                &default,
                "{}",
                "values (1, 'untitled', '[{\"id\":1},{\"id\":2}]'), (2, 'untitled', \
                 '[{\"id\":3}]')",
            ),
            ("PATCH", "labels?id=eq.1", &full, "{}", "select where false"),
            ("PATCH", "labels?id=eq.1&select=posts(id)", &full, "{}", "select where false"),
            ("PUT", "labels?id=eq.1", &full, r#"{"id":1,"name":"rot"}"#, "values (1, 'rot')"),
            ("PUT", "labels?id=eq.1", &full, r#"{"id":2,"name":"rot"}"#, "select where false"),
            (
                "PUT",
                "orders?shop=eq.7&number=eq.8",
                &full,
                r#"{"shop":7,"number":8,"note":null}"#,
                "values (7, 8, null)",
            ),
            ("DELETE", "comments?id=gt.2&select=id", &full, "", "values (3), (4)"),
            (
                "DELETE",
                "posts?or=(id.eq.1,id.eq.4)&select=title,shout,labels(name)&labels.order=id",
                &full,
                "",
                "values ('first', 'FIRST', '[{\"name\":\"red\"},{\"name\":\"blue\"}]'), \
                 ('fourth', 'FOURTH', '[]')",
            ),
            ("DELETE", "post_labels?post=eq.1&select=count()", &full, "", "values (2)"),
        ] {
            let statement = statement(&schema, (method, url), headers, body.as_bytes());
            let found = execute(&client, &schema, &statement).await;
            let found = found.unwrap_or_else(|e| panic!("{method} {url}: {e}\n{}", statement.sql));
            let expected = by_hand(&client, sql).await;
            assert_eq!(comparable(found), expected, "{method} {url}\n{}", statement.sql);
        }
    });
}

#[test]
fn calls_are_those_of_sql_written_by_hand() {
    run(async {
        let client = connect().await;
        let schema = snapshot(&client).await;
        let text = [("content-type", "application/octet-stream")];
        for (method, url, headers, body, sql) in [
            ("GET", "rpc/add?a=1", &[][..], &b""[..], "values (11)"),
            ("POST", "rpc/add", &[], br#"{"b":2,"a":1}"#, "values (3)"),
            (
                "GET",
                "rpc/posts_of?who=1&select=id,comments(id)&id=gt.1",
                &[],
                b"",
                "values (2, '[{\"id\":3}]')",
            ),
            (
                "GET",
                "rpc/posts_of?who=1&select=shout&order=id.desc",
                &[],
                b"",
                "values ('SECOND'), ('FIRST')",
            ),
            (
                "POST",
                "rpc/posts_of?select=title&order=title.desc",
                &[],
                br#"{"who":1}"#,
                "values ('second'), ('first')",
            ),
            ("GET", "rpc/pairs?n=3&i=gt.1&select=label", &[], b"", "values ('n2'), ('n3')"),
            ("GET", "rpc/numbers?n=2", &[], b"", "values (1), (2)"),
            ("GET", "rpc/total?v=1&v=2&v=3", &[], b"", "values (6)"),
            ("GET", "rpc/total?v=9", &[], b"", "values (9)"),
            ("POST", "rpc/total", &[], br#"{"v":[1,2]}"#, "values (3)"),
            ("POST", "rpc/echo", &[], br#"[1, {"a": 1e400}]"#, "values ('[1, {\"a\": 1e400}]')"),
            ("POST", "rpc/bytes", &text, b"\x00\xff1", "values (3)"),
            ("POST", "rpc/nothing", &[], b"", "values (null)"),
            ("GET", "rpc/feel?m=it's", &[], b"", "values ('it''s')"),
        ] {
            let statement = statement(&schema, (method, url), headers, body);
            let found = execute(&client, &schema, &statement).await;
            let found = found.unwrap_or_else(|e| panic!("{url}: {e}\n{}", statement.sql));
            assert_eq!(comparable(found), by_hand(&client, sql).await, "{url}\n{}", statement.sql);
        }
    });
}

#[test]
fn where_clauses_in_json_mean_what_they_say() {
    run(async {
        let client = connect().await;
        let schema = snapshot(&client).await;
        for (clause, sql) in [
            (json!({}), "true"),
            (json!({"field": "id", "op": "BETWEEN", "value": [2, 3]}), "id between 2 and 3"),
            (json!({"field": "id", "op": "NOT_IN", "value": []}), "true"),
            (json!({"field": "name", "op": "CONTAINS", "value": "%_"}), "id = 4"),
            (json!({"field": "name", "op": "ENDS_WITH", "value": "\\"}), "id = 3"),
            (json!({"field": "data.a.b.1", "value": "x"}), "id = 1"),
            (json!({"field": "data", "op": "JSON_CONTAINS", "value": {"a": 1}}), "id = 2"),
            (json!({"field": "data", "op": "JSON_HAS_ALL_KEYS", "value": ["a", "n"]}), "id = 1"),
            (json!({"field": "data.a", "op": "JSON_HAS_KEY", "value": "b"}), "id = 1"),
            (json!({"field": "data", "op": "JSON_PATH_EXISTS", "value": "$.a.b"}), "id = 1"),
            (json!({"field": "tags", "op": "ARRAY_CONTAINS", "value": ["b c"]}), "id = 1"),
            (json!({"field": "tags", "op": "ARRAY_OVERLAPS", "value": ["d\"q", null]}), "id = 3"),
            (json!({"field": "span", "op": "RANGE_CONTAINS", "value": 6}), "id = 2"),
            (json!({"field": "span", "op": "RANGE_OVERLAPS", "value": "[1,6)"}), "id in (1, 2)"),
            (json!({"field": "mood", "value": null}), "mood is null"),
            (json!({"field": "mood", "op": "IS_DISTINCT_FROM", "value": "calm"}), "id <> 1"),
            (json!({"field": "name", "op": "FULL_TEXT", "value": "bob"}), "id = 2"),
            (json!({"field": "name", "op": "IREGEX", "value": "^a"}), "id = 1"),
            (
                json!({"not": {"or": [{"field": "id", "value": 1}, {"field": "id", "op": "GREATER_THAN", "value": 2}]}}),
                "id = 2",
            ),
        ] {
            let filter: Option<Condition> = Some(where_json::parse(&clause).unwrap());
            let level = Level { items: vec![Item::All], filter, ..Level::default() };
            let target = Target { schema: "rows_api".into(), name: "authors".into() };
            let read = Read { target, level, count: Count::None, keyset: None };
            let plan = plan_read(&schema, Limits::default(), &read).unwrap();
            let statement = plan.statement(&schema);
            let found = execute(&client, &schema, &statement).await;
            let found = found.unwrap_or_else(|e| panic!("{clause}: {e}\n{}", statement.sql));
            let expected = by_hand(&client, &format!("select * from authors where {sql}")).await;
            assert_eq!(comparable(found), expected, "{clause}\n{}", statement.sql);
        }
    });
}

/// Whatever stands for a value or a name that a client may choose, PostgreSQL never finds fault
/// with the grammar of a statement, and nothing but what was asked for happens.
#[test]
fn nothing_breaks_out_of_its_place() {
    run(async {
        let client = connect().await;
        let schema = snapshot(&client).await;
        let evil = [
            "'",
            "\"",
            "\\",
            "$1",
            "$$",
            "'; drop table rows_api.posts; --",
            "/*",
            "--",
            "{",
            "}",
            "(",
            "%s",
            "\n",
            "E'",
            "x\"; drop schema rows_api cascade; --",
            "\u{2019}",
        ];
        let places = [
            "authors?name=eq.{}",
            "authors?name=like.{}",
            "authors?name=match.{}",
            "authors?mood=eq.{}",
            "authors?tags=cs.{}",
            "authors?tags=cs.{{}}",
            "authors?name=in.(\"{q}\")",
            "authors?or=(name.eq.\"{q}\",id.eq.1)",
            "authors?name=eq(any).{{}}",
            "authors?name=plfts(simple).{}",
            "authors?id=eq.{}",
            "authors?data->\"{q}\"=eq.1",
            "authors?data->>\"{q}\"=eq.{}",
            "authors?data=cs.{}",
            "authors?select=\"{q}\":id",
            "authors?select=data->\"{q}\"",
            "authors?order=data->\"{q}\"",
            "authors?span=ov.{}",
            "authors?name=isdistinct.{}",
            "posts?select=\"{q}\":authors!author(id)&\"{q}\".name=eq.{}",
            "posts?select=...authors!author(\"{q}\":name)",
            "rpc/feel?m={}",
            "rpc/total?v={}",
            "rpc/twice?v={}",
        ];
        for (place, evil) in places.iter().flat_map(|place| evil.map(|evil| (place, evil))) {
            let quoted = evil.replace('\\', "\\\\").replace('"', "\\\"");
            let url = place.replace("{q}", &quoted).replace("{}", evil);
            let (path, query) = url.split_once('?').unwrap();
            let query: Vec<(String, String)> = query
                .split('&')
                .map(|pair| pair.split_once('=').unwrap())
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            let path: Vec<&str> = path.split('/').collect();
            let request =
                Request { method: "GET", path: &path, query: &query, headers: &[], body: b"" };
            // An overloaded function cannot be chosen; that is all right here.
            let Ok(planned) = plan(&schema, &options(), &request) else {
                assert!(url.starts_with("rpc/twice"), "{url}");
                continue;
            };
            let statement = match planned.action {
                Action::Read(plan) => plan.statement(&schema),
                Action::Call(plan) => plan.statement(&schema).unwrap(),
                other => panic!("{other:?}"),
            };
            // Values that are no numbers, enums and so on are PostgreSQL's to refuse.
            if let Err(error) = execute(&client, &schema, &statement).await {
                assert!(error.starts_with("22"), "{url}: {error}\n{}", statement.sql);
            }
        }
        assert_eq!(by_hand(&client, "select count(*) from posts").await, [["4"]]);
    });
}

/// Pages by cursor give every row once and in order, whatever is NULL and whatever is equal.
#[test]
fn pages_by_cursor_have_every_row_once() {
    run(async {
        let client = connect().await;
        let schema = snapshot(&client).await;
        for order in [
            "",
            "mood",
            "mood.desc",
            "boss.desc.nullslast,mood.nullsfirst",
            "name.desc,id.desc",
            "joined",
            "data->n",
        ] {
            let order_by = match order {
                "" => String::new(),
                order => format!("&order={order}"),
            };
            let whole = match order {
                "" => "authors?select=id&order=id".to_owned(),
                order => format!("authors?select=id&order={order},id"),
            };
            let whole = statement(&schema, ("GET", &whole), &[], b"");
            let expected = execute(&client, &schema, &whole).await.unwrap();
            let (mut found, mut cursor) = (Vec::new(), String::new());
            for _ in 0..6 {
                let url = format!("authors?select=id&limit=1{order_by}");
                let (path, query) = url.split_once('?').unwrap();
                let mut query: Vec<(String, String)> = query
                    .split('&')
                    .map(|pair| pair.split_once('=').unwrap())
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect();
                query.push(("cursor".into(), cursor.clone()));
                let path: Vec<&str> = path.split('/').collect();
                let request =
                    Request { method: "GET", path: &path, query: &query, headers: &[], body: b"" };
                let Action::Read(plan) = plan(&schema, &options(), &request).unwrap().action else {
                    panic!()
                };
                let statement = plan.statement(&schema);
                let rows = execute(&client, &schema, &statement).await;
                let rows = rows.unwrap_or_else(|e| panic!("{order}: {e}\n{}", statement.sql));
                let Some(row) = rows.into_iter().next() else { break };
                let (own, values) = row.split_at(row.len() - statement.layout.cursor_values);
                found.push(own.to_vec());
                let position =
                    Position { order: plan.order_hash().unwrap(), values: values.to_vec() };
                cursor = position.encode(b"key").unwrap();
            }
            assert_eq!(found, expected, "{order}");
        }
    });
}

struct Json(Value);

impl<'a> FromSql<'a> for Json {
    fn from_sql(
        _: &Type,
        text: &'a [u8],
    ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Json(serde_json::from_slice(text)?))
    }

    fn accepts(type_: &Type) -> bool {
        *type_ == Type::JSON
    }
}

#[derive(Debug)]
struct Text(Option<Vec<u8>>);

impl ToSql for Text {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut bytes::BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match &self.0 {
            None => Ok(IsNull::Yes),
            Some(value) => {
                out.extend_from_slice(value);
                Ok(IsNull::No)
            }
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// The extended protocol with the types' numbers in it, as RustyDB itself will send it; `EXPLAIN`
/// takes parameters that way only.
#[test]
fn estimates_take_parameters() {
    run(async {
        let client = connect().await;
        let schema = snapshot(&client).await;
        let query = [("id".to_owned(), "gt.1".to_owned())];
        let request =
            Request { method: "GET", path: &["authors"], query: &query, headers: &[], body: b"" };
        let Action::Read(read) = plan(&schema, &options(), &request).unwrap().action else {
            panic!()
        };
        let statement = read.estimate(&schema);
        assert_eq!(statement.params[0].type_oid, oid::INT4);
        let prepared = client.prepare_typed(&statement.sql, &[Type::INT4]).await.unwrap();
        let value = Text(statement.params[0].value.clone());
        let row = client.query_one(&prepared, &[&value]).await.unwrap();
        let Json(plan) = row.get(0);
        assert!(plan[0]["Plan"]["Plan Rows"].as_u64().unwrap() > 0, "{plan}");
        let count = read.exact_count(&schema);
        let prepared = client.prepare_typed(&count.sql, &[Type::INT4]).await.unwrap();
        assert_eq!(client.query_one(&prepared, &[&value]).await.unwrap().get::<_, i64>(0), 3);
    });
}

#[test]
fn a_snapshot_has_what_the_database_has() {
    run(async {
        let client = connect().await;
        let schema = snapshot(&client).await;
        let authors = schema.table("rows_api", "authors").unwrap();
        assert_eq!(authors.comment.as_deref(), Some("who writes"));
        assert_eq!(authors.columns.len(), 9);
        let part = schema.table("rows_api", "parts_a").unwrap();
        assert_eq!(part.partition_of, Some(schema.table("rows_api", "parts").unwrap().oid));
        let again = snapshot(&client).await;
        assert_eq!(again.fingerprint, schema.fingerprint);
        client
            .batch_execute("begin; alter table rows_api.labels add column extra int")
            .await
            .unwrap();
        assert_ne!(snapshot(&client).await.fingerprint, schema.fingerprint);
        client.batch_execute("rollback").await.unwrap();
    });
}

/// Reading ten thousand tables takes no time that anybody notices. `-- --ignored --nocapture`
/// prints it.
#[test]
#[ignore = "makes ten thousand tables"]
fn ten_thousand_tables() {
    run(async {
        let client = connect().await;
        let make = "do $$ begin
            for i in 1..10000 loop
                execute format('create table if not exists many_%s.t%s (id int primary key, a text, b int default 1, c timestamptz)', i % 10, i);
                if i % 500 = 0 then commit; end if;
            end loop; end $$";
        for at in 0..10 {
            client.batch_execute(&format!("create schema many_{at}")).await.unwrap();
        }
        client.batch_execute(make).await.unwrap();
        client.batch_execute("analyze").await.unwrap();
        for _ in 0..3 {
            let start = Instant::now();
            let rows = rows(&client, &snapshot_query(0)).await.unwrap();
            let queried = start.elapsed();
            let schema = read_snapshot(&rows);
            assert!(schema.tables.len() >= 10_000);
            println!("{} rows: {queried:?}, read in {:?}", rows.len(), start.elapsed() - queried);
        }
    });
}
