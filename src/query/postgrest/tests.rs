//! Requests and what becomes of them.

use super::*;
use crate::query::plan::{Statement, fixtures};

fn options() -> Options {
    Options {
        schemas: vec!["api".into(), "other".into()],
        limits: Limits { max_rows: None, aggregates: true },
        may_roll_back: true,
        cursor_key: Some(b"key".to_vec()),
    }
}

fn ask(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Result<Planned, Refusal> {
    ask_in(&fixtures::schema(), (method, url), headers, body)
}

fn ask_in(
    schema: &Schema,
    (method, url): (&str, &str),
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Planned, Refusal> {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let query: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes())
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    let path: Vec<&str> = path.split('/').collect();
    let request = Request { method, path: &path, query: &query, headers, body: body.as_bytes() };
    plan(schema, &options(), &request)
}

fn statement(planned: &Planned) -> Statement {
    let schema = fixtures::schema();
    match &planned.action {
        Action::Read(plan) => plan.statement(&schema),
        Action::Write(plan, _) => plan.statement(&schema).unwrap(),
        Action::Call(plan) => plan.statement(&schema).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// The statement with its parameters, as `value:type`.
fn shown(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> String {
    let planned = ask(method, url, headers, body).unwrap_or_else(|e| panic!("{url}: {e:?}"));
    let statement = statement(&planned);
    let mut text = statement.sql;
    for param in statement.params {
        let value = String::from_utf8(param.value.unwrap()).unwrap();
        text.push_str(&format!(" {value}:{}", param.type_oid));
    }
    words(&text)
}

/// With one blank between words, so that a long line can be written on several.
fn words(text: &str) -> String {
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn reads() {
    let all = r#"SELECT t0.* FROM "api"."authors" AS t0"#;
    for (url, expected) in [
        ("authors", all.to_owned()),
        ("authors?id=eq.1", format!(r#"{all} WHERE ((t0."id" = $1)) 1:23"#)),
        ("authors?id=not.eq.1", format!(r#"{all} WHERE ((NOT (t0."id" = $1))) 1:23"#)),
        (
            "authors?mood=in.(a,\"b,)\")",
            format!(r#"{all} WHERE ((t0."mood" = ANY ($1))) {{"a","b,)"}}:5001"#),
        ),
        ("authors?id=in.()", format!(r#"{all} WHERE ((t0."id" = ANY ($1))) {{}}:1007"#)),
        (
            "authors?name=like(any).{a*,*b}",
            format!(r#"{all} WHERE ((t0."name" LIKE ANY ($1))) {{a%,%b}}:1009"#),
        ),
        ("authors?tags=cs.{a,b}", format!(r#"{all} WHERE ((t0."tags" @> $1)) {{a,b}}:1009"#)),
        ("authors?mood=is.NOT_NULL", format!(r#"{all} WHERE ((t0."mood" IS NOT NULL))"#)),
        (
            "authors?mood=isdistinct.x",
            format!(r#"{all} WHERE ((t0."mood" IS DISTINCT FROM $1)) x:5000"#),
        ),
        (
            "authors?data->a->>0=eq.5",
            format!(r#"{all} WHERE (((t0."data"->$1->>$2) = $3)) a:25 0:23 5:25"#),
        ),
        (
            "authors?tags->0=eq.5",
            format!(r#"{all} WHERE (((pg_catalog.to_jsonb(t0."tags")->$1) = $2)) 0:23 5:3802"#),
        ),
        (
            "authors?name=wfts(english).x y",
            format!(
                r#"{all} WHERE ((pg_catalog.to_tsvector($1, t0."name") @@
               pg_catalog.websearch_to_tsquery($2, $3))) english:3734 english:3734 x y:25"#
            ),
        ),
        (
            "posts?words=fts.x",
            r#"SELECT t0.* FROM "api"."posts" AS t0 WHERE ((t0."words" @@
               pg_catalog.to_tsquery($1))) x:25"#
                .into(),
        ),
        (
            "authors?or=(id.eq.1,and(name.eq.\"a,b\",not.or(id.gt.2,tags.cs.{x,y})))",
            format!(
                r#"{all} WHERE (((t0."id" = $1) OR ((t0."name" = $2) AND (NOT ((t0."id" > $3) OR
               (t0."tags" @> $4)))))) 1:23 a,b:25 2:23 {{x,y}}:1009"#
            ),
        ),
        (
            "authors?not.and=(id.eq.1,id.eq.2)",
            format!(r#"{all} WHERE ((NOT ((t0."id" = $1) AND (t0."id" = $2)))) 1:23 2:23"#),
        ),
        (
            "authors?order=name.desc,id.asc.nullsfirst&limit=5&offset=2",
            format!(
                r#"{all} ORDER BY t0."name" DESC NULLS FIRST, t0."id" ASC NULLS FIRST LIMIT 5
               OFFSET $1 2:20"#
            ),
        ),
        (
            "authors?select=n:name,id::text,data->a->>b",
            r#"SELECT t0."name" AS "n",
               CAST(t0."id" AS "pg_catalog"."text") AS "id", (t0."data"->$1->>$2) AS "b" FROM
               "api"."authors" AS t0 a:25 b:25"#
                .into(),
        ),
        (
            "authors?select=mood,id.sum()::text,count()",
            r#"SELECT t0."mood" AS "mood",
               CAST(pg_catalog.sum(t0."id") AS "pg_catalog"."text") AS "sum",
               pg_catalog.count(*) AS "count" FROM "api"."authors" AS t0 GROUP BY 1"#
                .into(),
        ),
        (
            "posts?select=shout",
            r#"SELECT "api"."shout"(t0.*) AS "shout" FROM "api"."posts" AS
               t0"#
            .into(),
        ),
        (
            "odd \"table\"?select=\"a b\",\"se\\\"lect\"&\"x;--\"=eq.'; drop",
            r#"SELECT t0."a b"
               AS "a b", t0."se""lect" AS "se""lect" FROM "api"."odd ""table""" AS t0 WHERE
               ((t0."x;--" = $1)) '; drop:25"#
                .into(),
        ),
        (
            "odd \"table\"?select=count&cursor=eq.1",
            r#"SELECT t0."count" AS "count" FROM
               "api"."odd ""table""" AS t0 WHERE ((t0."cursor" = $1)) 1:25"#
                .into(),
        ),
        ("authors?select=", r#"SELECT  FROM "api"."authors" AS t0"#.into()),
    ] {
        assert_eq!(shown("GET", &url.replace('+', "%2B"), &[], ""), words(&expected), "{url}");
    }
}

#[test]
fn embeds() {
    let comments = r#"SELECT t0."id" AS "id", (SELECT
               pg_catalog.string_agg(pg_catalog.record_send(ROW(s."id", s."post", s."body")), '')
               AS a FROM (SELECT t1.* FROM "api"."comments" AS t1 WHERE
               t1."post" = t0."id") AS s) AS "comments" FROM "api"."posts" AS t0"#;
    assert_eq!(shown("GET", "posts?select=id,comments(*)", &[], ""), words(comments));
    for (url, parts) in [
        (
            "posts?select=id,comments!inner(*)&comments.body=eq.x&comments.limit=1",
            &[
                r#"WHERE EXISTS (SELECT 1 FROM "api"."comments" AS t1 WHERE t1."post" =
               t0."id" AND"#,
                r#"LIMIT 1"#,
            ][..],
        ),
        (
            "posts?select=id,labels(name)",
            &[r#"FROM "api"."post_labels" AS j1 JOIN "api"."labels" AS t1 ON j1."label" =
               t1."id" WHERE j1."post" = t0."id""#],
        ),
        (
            "posts?select=id,writer:authors!author(name)&order=writer(name).desc",
            &[
                r#"SELECT pg_catalog.record_send(ROW(s."name")) AS a FROM (SELECT t1."name" AS
               "name" FROM "api"."authors" AS t1 WHERE t1."id" = t0."author") AS s) AS e1"#,
                r#"ORDER BY o0x0.o DESC"#,
            ],
        ),
        ("posts?select=id,...authors!editor(who:name)", &[r#"e1."who" AS "who""#]),
        (
            "authors?select=id,...posts!posts_author_fkey(title)",
            &[
                r#"coalesce(e1."title", '[]') AS "title""#,
                r#"pg_catalog.json_agg(s."title") AS "title""#,
            ],
        ),
        (
            "authors?select=id,boss(name),authors(id)",
            &[r#"t1."id" = t0."boss""#, r#"t2."boss" = t0."id""#],
        ),
        ("authors?select=id,profiles(bio)", &[r#"record_send(ROW(s."bio"))"#]),
        // What PostgreSQL makes JSON of is JSON down to the last level.
        (
            "authors?select=id,...posts!posts_author_fkey(title,comments(id))",
            &[
                r#"pg_catalog.json_agg(s."comments") AS "comments""#,
                r#"coalesce((SELECT pg_catalog.json_agg(s.*) AS a FROM (SELECT t2."id""#,
            ],
        ),
        (
            "posts?select=comments(id,body,id)",
            &[r#"coalesce((SELECT pg_catalog.json_agg(s.*) AS a FROM (SELECT t1."id""#],
        ),
        (
            "lines?select=id,orders(note)",
            &[r#"t1."shop" = t0."shop" AND t1."number" = t0."number""#],
        ),
        (
            "authors?select=id,profiles()&profiles=is.null",
            &[r#"SELECT t0."id" AS "id" FROM "api"."authors" AS t0 WHERE (NOT EXISTS (SELECT
               1 FROM "api"."profiles""#],
        ),
        (
            "posts?select=id,comments(id)&limit=3&order=title",
            &[r#"AS "comments" FROM "api"."posts" AS t0 ORDER BY t0."title" ASC NULLS LAST
               LIMIT 3"#],
        ),
        // Nothing is made for the rows before the page, and nothing joined to those behind it.
        (
            "posts?select=id,comments(id)&limit=3&offset=5&order=title",
            &[r#"FROM (SELECT t0."id", t0."title" FROM "api"."posts" AS t0 ORDER BY
               t0."title" ASC NULLS LAST LIMIT 3 OFFSET $1) AS t0 ORDER BY"#],
        ),
        (
            "posts?select=id,writer:authors!author(name)&limit=3&order=title",
            &[r#"ORDER BY t0."title" ASC NULLS LAST LIMIT 3) AS t0 LEFT JOIN LATERAL"#],
        ),
        (
            "authors?select=id,p:posts!posts_author_fkey(id,c:comments(body))&p.c.body=eq.1\
             &p.order=id.desc&p.c.offset=1",
            &[
                r#"WHERE t2."post" = t1."id" AND ((t2."body" = $1)) OFFSET $2"#,
                r#"ORDER BY t1."id" DESC"#,
            ],
        ),
    ] {
        let sql = shown("GET", url, &[], "");
        for part in parts {
            assert!(sql.contains(&words(part)), "{url}\n{sql}\n{part}");
        }
    }
}

#[test]
fn counts_and_pages() {
    let exact = [("prefer", "count=exact"), ("range", "5-9")];
    let sql = shown("GET", "authors?id=gt.1", &exact, "");
    assert_eq!(
        sql,
        words(
            r#"SELECT c.n, r.* FROM (SELECT pg_catalog.count(*) AS n FROM "api"."authors" AS t0
               WHERE ((t0."id" > $1))) AS c LEFT JOIN LATERAL (SELECT TRUE AS "rustydb.row",
               t0.* FROM "api"."authors" AS t0 WHERE ((t0."id" > $2)) LIMIT 5 OFFSET $3) AS r
               ON TRUE 1:23 1:23 5:20"#
        )
    );
    let planned = ask("GET", "authors?limit=7", &[("range", "3-5")], "").unwrap();
    let Action::Read(plan) = &planned.action else { panic!() };
    assert_eq!((plan.offset(), plan.limit(), planned.headers_only), (3, Some(3), false));
    let planned = ask("HEAD", "authors?limit=7&offset=-4", &[("range", "3-5")], "").unwrap();
    let Action::Read(plan) = &planned.action else { panic!() };
    assert_eq!((plan.offset(), plan.limit(), planned.headers_only), (0, Some(7), true));
    assert!(plan.estimate(&fixtures::schema()).sql.starts_with("EXPLAIN (FORMAT JSON) SELECT 1"));
    assert_eq!(content_range(5, 5, Some(20)), "5-9/20");
    assert_eq!(content_range(0, 0, None), "*/*");
    assert_eq!(read_status(5, 5, Some(20)).unwrap(), 206);
    assert_eq!(read_status(0, 5, Some(5)).unwrap(), 200);
    assert_eq!(read_status(6, 0, Some(5)).unwrap_err().status, 416);
}

#[test]
fn changes() {
    let full = [("prefer", "return=representation")];
    let merge = [("prefer", "resolution=merge-duplicates")];
    let default = [("prefer", "missing=default")];
    for (method, url, headers, body, expected) in [
        (
            "POST",
            "labels",
            &[][..],
            r#"{"id":1,"name":"a"}"#,
            r#"INSERT INTO "api"."labels" AS t0 ("id", "name") SELECT b."id", b."name" FROM
               pg_catalog.json_to_record($1) AS b("id" "pg_catalog"."int4", "name"
               "pg_catalog"."text") {"id":1,"name":"a"}:114"#,
        ),
        (
            "POST",
            "labels?select=id",
            &full,
            r#"[{"id":1}]"#,
            r#"INSERT INTO "api"."labels" AS t0 ("id") SELECT b."id" FROM
               pg_catalog.json_to_recordset($1) AS b("id" "pg_catalog"."int4") RETURNING
               t0."id" AS "id" [{"id":1}]:114"#,
        ),
        (
            "POST",
            "labels",
            &merge,
            r#"{"id":1}"#,
            r#"INSERT INTO "api"."labels" AS t0 ("id") SELECT b."id" FROM
               pg_catalog.json_to_record($1) AS b("id" "pg_catalog"."int4") ON CONFLICT ("id")
               DO UPDATE SET "id" = excluded."id" {"id":1}:114"#,
        ),
        (
            "POST",
            "labels?on_conflict=name",
            &[("prefer", "resolution=ignore-duplicates")],
            "{}",
            r#"INSERT INTO "api"."labels" AS t0 SELECT  ON CONFLICT ("name") DO NOTHING"#,
        ),
        (
            "POST",
            "posts?columns=id,title",
            &default,
            r#"[{"id":1},{"title":"x"}]"#,
            r#"INSERT INTO "api"."posts" AS t0 ("id", "title") SELECT CASE WHEN g.v ? $1 THEN
               b."id" ELSE pg_catalog.nextval(pg_catalog.pg_get_serial_sequence($2,
               $3)::pg_catalog.regclass) END, CASE WHEN g.v ? $4 THEN b."title" ELSE
               ('untitled'::text) END FROM pg_catalog.jsonb_array_elements($5) AS g(v),
               LATERAL pg_catalog.jsonb_to_record(g.v) AS b("id" "pg_catalog"."int4", "title"
               "pg_catalog"."text") id:25 "api"."posts":25 id:25 title:25
               [{"id":1},{"title":"x"}]:3802"#,
        ),
        (
            "POST",
            "posts?columns=id,title",
            &default,
            r#"{"id":1}"#,
            r#"INSERT INTO "api"."posts" AS t0 ("id") SELECT b."id" FROM
               pg_catalog.json_to_record($1) AS b("id" "pg_catalog"."int4") {"id":1}:114"#,
        ),
        (
            "PATCH",
            "labels?id=eq.1",
            &[],
            r#"{"name":"b"}"#,
            r#"UPDATE "api"."labels" AS t0 SET "name" = b."name" FROM (SELECT * FROM
               pg_catalog.json_to_record($1) AS r("name" "pg_catalog"."text") LIMIT 1) AS b
               WHERE ((t0."id" = $2)) {"name":"b"}:114 1:23"#,
        ),
        (
            "PATCH",
            "labels?id=eq.1",
            &full,
            "{}",
            r#"SELECT t0.* FROM "api"."labels" AS t0 WHERE FALSE"#,
        ),
        (
            "PATCH",
            "posts?id=eq.1&columns=author,title",
            &default,
            r#"[{"author":2},{"title":"x"}]"#,
            r#"UPDATE "api"."posts" AS t0 SET "author" = b."author", "title" = DEFAULT FROM
               (SELECT * FROM pg_catalog.json_to_record($1) AS r("author" "pg_catalog"."int4")
               LIMIT 1) AS b WHERE ((t0."id" = $2)) {"author":2}:114 1:23"#,
        ),
        (
            "DELETE",
            "labels?id=gt.1&select=id&order=name.desc",
            &full,
            "",
            r#"WITH w AS (DELETE FROM "api"."labels" AS t0 WHERE ((t0."id" > $1)) RETURNING
               t0."id", t0."name") SELECT t0."id" AS "id" FROM w AS t0 ORDER BY t0."name" DESC
               NULLS FIRST 1:23"#,
        ),
        (
            "DELETE",
            "labels?id=eq.1",
            &[],
            "",
            r#"DELETE FROM "api"."labels" AS t0 WHERE ((t0."id" = $1)) 1:23"#,
        ),
        (
            "PUT",
            "labels?id=eq.1",
            &full,
            r#"{"id":1,"name":"c"}"#,
            r#"INSERT INTO "api"."labels" AS t0 ("id", "name") SELECT b."id", b."name" FROM
               pg_catalog.json_to_record($1) AS b("id" "pg_catalog"."int4", "name"
               "pg_catalog"."text") WHERE ((b."id" = $2)) ON CONFLICT ("id") DO UPDATE SET
               "id" = excluded."id", "name" = excluded."name" RETURNING t0.*
               {"id":1,"name":"c"}:114 1:23"#,
        ),
    ] {
        assert_eq!(shown(method, url, headers, body), words(expected), "{method} {url}");
    }
    let embedded = shown("DELETE", "posts?id=eq.1&select=title,comments(id)", &full, "");
    let start = r#"WITH w AS (DELETE FROM "api"."posts" AS t0 WHERE ((t0."id" = $1)) RETURNING
               t0."title", t0."id") SELECT t0."title" AS "title""#;
    assert!(embedded.starts_with(&words(start)), "{embedded}");
}

#[test]
fn calls() {
    let json = r#"{"a":1,"b":2}"#;
    for (method, url, headers, body, expected) in [
        ("GET", "rpc/add?a=1", &[][..], "", r#"SELECT "api"."add"("a" => $1) AS "add" 1:23"#),
        (
            "POST",
            "rpc/add",
            &[],
            json,
            r#"SELECT "api"."add"("a" => b."a", "b" => b."b") AS "add" FROM
               pg_catalog.json_to_record($1) AS b("a" "pg_catalog"."int4", "b"
               "pg_catalog"."int4") {"a":1,"b":2}:114"#,
        ),
        (
            "GET",
            "rpc/find?who=1&title=eq.x&select=id&limit=1",
            &[],
            "",
            r#"WITH w AS MATERIALIZED (SELECT f.* FROM "api"."find"("who" => $1) AS f) SELECT
               t0."id" AS "id" FROM w AS t0 WHERE ((t0."title" = $2)) LIMIT 1 1:23 x:25"#,
        ),
        (
            "POST",
            "rpc/add",
            &[],
            r#"[{"a":1},{"a":2}]"#,
            r#"SELECT "api"."add"("a" => b."a") AS "add" FROM pg_catalog.json_to_record($1) AS
               b("a" "pg_catalog"."int4") {"a":1}:114"#,
        ),
        ("POST", "rpc/whole", &[], "[1]", r#"SELECT "api"."whole"($1) AS "whole" [1]:114"#),
        (
            "POST",
            "rpc/whole",
            &[],
            json,
            r#"SELECT "api"."whole"($1) AS "whole" {"a":1,"b":2}:114"#,
        ),
    ] {
        assert_eq!(shown(method, url, headers, body), words(expected), "{method} {url}");
    }
    let planned = ask("POST", "rpc/add", &[], json).unwrap();
    assert!(!planned.read_only);
    assert!(ask("GET", "rpc/add?a=1", &[], "").unwrap().read_only);
}

#[test]
fn refusals() {
    let strict = [("prefer", "handling=strict, anything")];
    for (method, url, headers, body, code, status, message) in [
        (
            "GET",
            "authors?id=noop.1",
            &[][..],
            "",
            "PGRST100",
            400,
            "failed to parse filter (noop.1)",
        ),
        ("GET", "authors?id=eq().1", &[], "", "PGRST100", 400, "line 1, column 3"),
        ("GET", "authors?select=id,clients(name[])", &[], "", "PGRST100", 400, "column 16"),
        ("GET", "authors?select=id)", &[], "", "PGRST100", 400, "column 3"),
        ("GET", "authors?select=id,", &[], "", "PGRST100", 400, "column 4"),
        ("GET", "authors?or=()", &[], "", "PGRST100", 400, "column 2"),
        ("GET", "authors?order=id.ac", &[], "", "PGRST100", 400, "column 4"),
        ("GET", "authors?data->>a->b=eq.1", &[], "", "PGRST100", 400, "tree path"),
        ("GET", "authors?limit=x", &[], "", "PGRST100", 400, "limit"),
        ("GET", "authors?cursor=AAAA", &[], "", "PGRST100", 400, "cursor"),
        ("GET", "authors?limit=-1", &[], "", "PGRST103", 416, "not satisfiable"),
        ("GET", "authors", &[("range", "5-1")], "", "PGRST103", 416, "not satisfiable"),
        ("GET", "authors?nope=eq.1", &[], "", "42703", 400, "column authors.nope does not exist"),
        ("GET", "authors?select=id::nope", &[], "", "42704", 400, "type \"nope\""),
        ("GET", "author", &[], "", "PGRST205", 404, "'api.author'"),
        ("GET", "authors?select=labels(id)", &[], "", "PGRST200", 400, "'authors' and 'labels'"),
        ("GET", "authors?select=posts(id)", &[], "", "PGRST201", 300, "'authors' and 'posts'"),
        ("GET", "authors?posts.id=eq.1", &[], "", "PGRST108", 400, "'posts' is not an embedded"),
        (
            "GET",
            "posts?select=id,comments(id)&order=comments(id)",
            &[],
            "",
            "PGRST118",
            400,
            "'comments'",
        ),
        (
            "GET",
            "posts?select=id,comments(id)&comments=eq.1",
            &[],
            "",
            "PGRST120",
            400,
            "'comments'",
        ),
        (
            "GET",
            "posts?select=id,...authors!author(id.sum())",
            &[],
            "",
            "PGRST127",
            400,
            "not implemented",
        ),
        ("GET", "authors", &strict, "", "PGRST122", 400, "Invalid preferences"),
        ("GET", "authors", &[("accept-profile", "secret")], "", "PGRST106", 406, "secret"),
        ("GET", "a/b", &[], "", "PGRST125", 404, "Invalid path"),
        ("TRACE", "authors", &[], "", "PGRST117", 405, "TRACE"),
        ("PUT", "rpc/add", &[], "", "PGRST101", 405, "PUT"),
        ("GET", "rpc/add?c=1", &[], "", "PGRST202", 404, "api.add(c)"),
        ("GET", "rpc/twice?v=1", &[], "", "PGRST203", 300, "api.twice(v => integer)"),
        ("POST", "labels", &[], "x", "PGRST102", 400, "invalid json"),
        ("POST", "labels", &[], r#"[{"id":1},{"name":2}]"#, "PGRST102", 400, "keys must match"),
        ("POST", "labels", &[], r#"{"nope":1}"#, "PGRST204", 400, "'nope' column of 'labels'"),
        ("POST", "labels", &[("content-type", "image/png")], "x", "PGRST102", 400, "image/png"),
        ("PUT", "labels?name=eq.1", &[], "{}", "PGRST105", 405, "primary key"),
        ("PUT", "labels?id=gt.1", &[], "{}", "PGRST105", 405, "primary key"),
        ("PUT", "labels?id=eq.1&limit=1", &[], "{}", "PGRST114", 400, "limit/offset"),
    ] {
        let refusal = match ask(method, &url.replace('+', "%2B"), headers, body) {
            Err(refusal) => refusal,
            Ok(planned) => panic!("{url}: {planned:?}"),
        };
        assert_eq!((refusal.code, refusal.status), (code, status), "{url}: {refusal:?}");
        let text = refusal.to_json().to_string();
        assert!(refusal.message.contains(message) || text.contains(message), "{url}: {text}");
    }
    let ambiguous = ask("GET", "authors?select=posts(id)", &[], "").unwrap_err();
    assert_eq!(ambiguous.details.as_array().unwrap().len(), 2);
    let hint = ambiguous.hint.unwrap();
    assert!(hint.contains("'posts!posts_author_fkey'") && hint.contains("'posts!posts_editor"));
    let hint = |url: &str| ask("GET", url, &[], "").unwrap_err().hint.unwrap_or_default();
    assert_eq!(hint("author"), "Perhaps you meant the table 'api.authors'");
    for (url, function) in
        [("rpc/ad?a=1", "add"), ("rpc/add", "add(a, b)"), ("rpc/find?whom=1", "find(who)")]
    {
        let expected = format!("Perhaps you meant to call the function api.{function}");
        assert_eq!(hint(url), expected, "{url}");
    }
    assert_eq!(hint("rpc/nothing_like_it"), "");
}

#[test]
fn preferences() {
    let text = "count=exact,  tx=rollback ,return=minimal, return=representation, max-affected=5,\
                timezone=Europe/Berlin, handling=strict, missing=default";
    let preferences = Preferences::parse([text], true);
    assert_eq!(preferences.representation, Some(Representation::Minimal));
    assert_eq!(preferences.most_affected(), Some(5));
    assert!(preferences.invalid.is_empty(), "{preferences:?}");
    let applied = "missing=default, return=minimal, count=exact, tx=rollback, handling=strict, \
                   timezone=Europe/Berlin, max-affected=5";
    assert_eq!(preferences.applied().as_deref(), Some(applied));
    let odd = ["timezone=Mars/Olympus", "tx=rollback; x, max-affected=-1", "a", "=,"];
    assert_eq!(Preferences::parse(odd, false).invalid.len(), 5);
    assert_eq!(Preferences::parse(["tx=rollback"], false).applied(), None);
    let merge = [("prefer", "resolution=merge-duplicates")];
    for (method, url, is_applied) in [
        ("POST", "labels", true),
        ("POST", "odd \"table\"", false),
        ("POST", "odd \"table\"?on_conflict=count", true),
        ("PUT", "labels?id=eq.1", false),
        ("GET", "labels", false),
    ] {
        let applied = ask(method, url, &merge, "{}").unwrap().preferences.applied();
        assert_eq!(applied.is_some(), is_applied, "{method} {url}");
    }
}

/// Whatever comes in, names and values stay apart: the text has no character of a value.
#[test]
fn nothing_that_a_client_writes_becomes_sql() {
    const EVIL: &str = "x'\";drop table t;--\\$1";
    for url in [
        format!("authors?name=eq.{EVIL}"),
        format!("authors?name=like.{EVIL}"),
        format!("authors?name=in.(\"{}\")", EVIL.replace('\\', "\\\\").replace('"', "\\\"")),
        format!("authors?name=fts({}).{EVIL}", "english"),
        format!("authors?or=(name.eq.\"{}\")", EVIL.replace('\\', "\\\\").replace('"', "\\\"")),
        format!("authors?data->\"{}\"=eq.{EVIL}", EVIL.replace('\\', "\\\\").replace('"', "\\\"")),
        format!("rpc/add?a={EVIL}"),
    ] {
        let encoded = url.replace(';', "%3B").replace('$', "%24").replace('\\', "%5C");
        let planned = ask("GET", &encoded, &[], "").unwrap_or_else(|e| panic!("{url}: {e:?}"));
        let statement = statement(&planned);
        assert!(!statement.sql.contains("drop"), "{url}: {}", statement.sql);
        let is_there = |p: &crate::query::plan::Param| {
            p.value.as_ref().is_some_and(|v| String::from_utf8_lossy(v).contains("drop table"))
        };
        assert!(statement.params.iter().any(is_there), "{url}");
    }
    for url in [
        "authors?na\"me=eq.1",
        "authors?name;drop=eq.1",
        "authors?select=name::text;drop",
        "authors?order=name;drop",
        "authors?select=id,x;drop(id)",
        "authors;drop",
        "authors?name=fts(english;drop).1",
        "rpc/add;drop",
        "labels?on_conflict=id;drop",
    ] {
        let encoded = url.replace(';', "%3B");
        let refused = ask("GET", &encoded, &[], "").is_err()
            || ask("POST", &encoded, &[("prefer", "resolution=merge-duplicates")], "{}").is_err();
        assert!(refused, "{url}");
    }
    let alias = shown("GET", "authors?select=\"a\\\"%3B drop\":id", &[], "");
    assert_eq!(alias, r#"SELECT t0."id" AS "a""; drop" FROM "api"."authors" AS t0"#);
}

#[test]
fn no_query_string_stops_the_server() {
    let mut seed = 0x5eed_1234_abcd_0001_u64;
    const LIKELY: &[&str] = &[
        "select", "=", "&", "authors", "posts", "(", ")", ",", ".", "eq", "not", "in", "\"", "\\",
        "->", "->>", "::", "!", "inner", "...", "*", "or", "and", "order", "limit", "id", "é", "{",
        "}", "count()", "is.null", "-", "1", ":", "desc", " ", "\0", "any", "fts",
    ];
    let schema = fixtures::schema();
    for _ in 0..20_000 {
        let mut url = String::from("authors?");
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..next() % 24 {
            url.push_str(LIKELY[(next() % LIKELY.len() as u64) as usize]);
        }
        if let Ok(Planned { action: Action::Read(plan), .. }) =
            ask_in(&schema, ("GET", &url), &[], "")
        {
            let _ = plan.statement(&schema);
        }
    }
    let deep = format!("authors?or={}", "(or".repeat(10_000));
    assert!(ask("GET", &deep, &[], "").is_err());
    let nested = format!("authors?select={}", "boss(".repeat(10_000));
    assert!(ask("GET", &nested, &[], "").is_err());
}
