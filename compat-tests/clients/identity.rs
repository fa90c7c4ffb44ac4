//! A client is its role and nobody else, and nothing of a client reaches the next one.

use std::io::Write;

use crate::harness::{Psql, SOON, Server, eventually, feed, piped};
use crate::http::{Client, post};
use crate::{guarded, lent};

fn psql_as(server: &Server, role: &str, script: &str) -> Psql {
    let mut command = server.psql_command();
    command.args(["-At", "-U", role]).env("PGPASSWORD", "pw");
    feed(&mut command, script).into()
}

#[test]
fn sql_runs_as_the_role_that_logged_in() {
    let server = guarded();
    let setup = server.psql(
        "create role id_one login password 'pw'; create role id_two login password 'pw';
         create table id_secret (v text); insert into id_secret values ('of one');
         alter table id_secret owner to id_one;",
    );
    assert_eq!(setup.stderr, "");
    let who = "select session_user, current_user, usesysid = 'ROLE'::regrole, usename
        from pg_stat_activity where pid = pg_backend_pid();";
    for role in ["id_one", "id_two"] {
        let psql = psql_as(server, role, &who.replace("ROLE", role));
        assert_eq!(psql.stdout, format!("{role}|{role}|t|{role}\n"), "{}", psql.stderr);
        let client = Client { user: role, password: "pw" };
        let sql = "select session_user::text || current_user::text as who";
        let answer = post(server, &client, &serde_json::json!({ "sql": sql }));
        assert_eq!(answer.json["rows"][0]["who"], format!("{role}{role}"), "{answer:?}");
    }
    assert_eq!(psql_as(server, "id_one", "select v from id_secret;").stdout, "of one\n");
    let denied = "permission denied for table id_secret";
    for trick in [
        "",
        "reset role;",
        "reset session authorization;",
        "set session authorization default;",
        "set role none;",
        "set role id_one;",
        "set session authorization id_one;",
        "set session authorization rustydb;",
        "discard all;",
        "reset all;",
        "begin; set local role rustydb; commit;",
    ] {
        let script = format!("{trick} select v from id_secret; select session_user, current_user;");
        let psql = psql_as(server, "id_two", &script);
        assert!(psql.stderr.contains(denied), "{trick}: {psql:?}");
        assert!(psql.stdout.ends_with("id_two|id_two\n"), "{trick}: {psql:?}");
        let client = Client { user: "id_two", password: "pw" };
        let body = serde_json::json!({ "sql": "select v from id_secret" });
        if !trick.is_empty() {
            // In a session before, on what may be the same connection.
            post(server, &client, &serde_json::json!({ "sql": trick }));
        }
        let answer = post(server, &client, &body);
        assert_eq!(answer.status, 403, "{trick}: {answer:?}");
    }
    // Neither a role nor a database can be chosen by start-up options.
    for options in ["-c role=id_one", "-c session_authorization=id_one"] {
        let mut command = server.psql_command();
        command.args(["-At", "-U", "id_two"]).env("PGPASSWORD", "pw").env("PGOPTIONS", options);
        let psql = Psql::from(feed(&mut command, "select v from id_secret;"));
        assert_eq!(psql.stdout, "", "{options}: {psql:?}");
        assert!(psql.stderr.contains("permission denied"), "{options}: {psql:?}");
    }
}

#[test]
fn nothing_leaks_from_one_client_to_the_next() {
    let server = Server::builder().set("pool.max_size=1").start();
    let setup = server.psql(
        "create table leak (a int); create role leak_role;
         create function leak_backend() returns int language sql as 'select pg_backend_pid()';",
    );
    assert_eq!(setup.stderr, "");
    let traces = "select current_setting('work_mem'), current_setting('leak.own', true),
          current_setting('search_path'), current_setting('TimeZone'), current_user;
        select count(*) from pg_prepared_statements; select count(*) from pg_cursors;
        select count(*) from pg_class where relpersistence = 't';
        select count(*) from pg_listening_channels();
        select count(*) from pg_locks where locktype in ('advisory', 'relation')
          and relation is distinct from 'pg_locks'::regclass and pid = pg_backend_pid()
          and locktype = 'advisory';
        select count(*) from leak; select lastval();
        select currval('nothere'); show transaction_isolation; show transaction_read_only;";
    let look = || {
        let mut command = server.psql_command();
        Psql::from(feed(command.arg("-At"), traces))
    };
    let clean = look();
    assert!(clean.stdout.contains("\n0\n0\n0\n0\n0\n0\n"), "{clean:?}");
    let mess = "set work_mem = '77MB'; set leak.own = 'x'; set search_path = pg_catalog;
        set time zone 'Asia/Tokyo'; prepare leak_p as select 1; create temp table leak_t (a int);
        create temp sequence leak_s; select nextval('leak_s');
        declare leak_c cursor with hold for select 1; listen leak_ch;
        select pg_advisory_lock(99); set session characteristics as transaction read only;
        load 'auto_explain'; set role leak_role;";
    let open = "reset role; begin read write; insert into public.leak values (1);
        select 'wait' \\; savepoint s;";
    for (tail, kill) in [("", false), (open, false), ("", true), (open, true)] {
        let mut child = piped(&mut server.psql_command());
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(format!("{mess}{tail}\n\\echo at the end\n").as_bytes()).unwrap();
        if kill {
            // The pool's only connection is held with everything on it.
            let held = if tail.is_empty() { "idle" } else { "idle in transaction" };
            let last = if tail.is_empty() { "set role%" } else { "%savepoint s%" };
            let sql = format!(
                "select count(*) from pg_stat_activity where state = '{held}' \
                 and (query like '{last}' or query like '%pg_my_temp_schema%')"
            );
            eventually("the mess is made", SOON, || server.direct_value(&sql) == "1");
            child.kill().unwrap();
            child.wait().unwrap();
        } else {
            drop(stdin);
            let output = child.wait_with_output().unwrap();
            assert!(String::from_utf8_lossy(&output.stdout).contains("at the end"), "{output:?}");
            assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        }
        assert_eq!(look(), clean, "after {tail:?}, killed: {kill}");
    }
    // The same over HTTP.
    let made = "rustydb_pool_connections_created_total{pool=\"main\"}";
    let made_before = server.metric(made);
    let client = Client { user: "rustydb", password: &server.password };
    for sql in ["set work_mem = '78MB'", "select pg_advisory_lock(98)", "listen x"] {
        assert_eq!(post(&server, &client, &serde_json::json!({ "sql": sql })).status, 200);
    }
    // No transaction stays open behind a request.
    assert_eq!(post(&server, &client, &serde_json::json!({ "sql": "begin" })).status, 400);
    let answer = post(
        &server,
        &client,
        &serde_json::json!({ "sql": "select current_setting('work_mem') as w,
            (select count(*) from pg_locks where locktype = 'advisory') as locks,
            (select count(*) from pg_listening_channels()) as channels,
            (select count(*) from pg_stat_activity where state like 'idle in%') as open" }),
    );
    let expected = serde_json::json!({ "w": "4MB", "locks": 0, "channels": 0, "open": 0 });
    assert_eq!(answer.json["rows"][0], expected);
    server.expect_metric(made, made_before + 1.0);
    assert_eq!(look(), clean);
    eventually("the connection is back", SOON, || lent(&server) == 0.0);
}
