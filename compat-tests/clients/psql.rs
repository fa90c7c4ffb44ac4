//! `psql` through RustyDB says, byte for byte, what it says on PostgreSQL.

use std::process::Command;

use crate::guarded;
use crate::harness::{Psql, feed, temp_dir};

/// Replaces numbers that PostgreSQL deals out anew in every session.
fn masked(text: &str) -> String {
    let mut text = text.to_owned();
    for before in ["with PID ", "pg_temp_", "pg_toast_temp_"] {
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find(before) {
            let (head, tail) = rest.split_at(at + before.len());
            out.push_str(head);
            out.push('N');
            rest = tail.trim_start_matches(|c: char| c.is_ascii_digit());
        }
        out.push_str(rest);
        text = out;
    }
    text
}

fn shortened(text: &str) -> &str {
    let mut end = text.len().min(400);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Runs a script on PostgreSQL, then through RustyDB, and returns what both said.
fn check_with(prepare: impl Fn(&mut Command), script: &str) -> Psql {
    let server = guarded();
    let [reference, ours] =
        [server.direct_psql_command(), server.psql_command()].map(|mut command| {
            prepare(&mut command);
            let psql = Psql::from(feed(&mut command, script));
            Psql { stdout: masked(&psql.stdout), stderr: masked(&psql.stderr), code: psql.code }
        });
    for (ours, theirs) in [(&ours.stderr, &reference.stderr), (&ours.stdout, &reference.stdout)] {
        let pairs = ours.lines().zip(theirs.lines());
        let differing = pairs.map(|(ours, theirs)| (shortened(ours), shortened(theirs)));
        assert_eq!(differing.into_iter().find(|(ours, theirs)| ours != theirs), None);
    }
    assert!(ours == reference, "the outputs differ after their beginning: {script}");
    ours
}

fn check(script: &str) -> Psql {
    check_with(|_| {}, script)
}

/// `check` for scripts in which nothing may fail.
fn check_clean(script: &str) -> String {
    let psql = check(script);
    assert_eq!((psql.stderr.as_str(), psql.code), ("", Some(0)), "{script}");
    psql.stdout
}

#[test]
fn psql_describes_objects_alike() {
    let out = check_clean(
        "create schema psql_cat; set search_path = psql_cat;
         create table a (id int primary key, name text not null default 'x' check (name <> ''));
         create table b (a int references a on delete cascade, v numeric(10, 2)[]);
         create index b_a on b (a) where a > 0;
         create view w as select a.name, b.v from a join b on a.id = b.a;
         create type mood as enum ('sad', 'ok'); create domain small as int check (value < 10);
         create function twice(n int) returns int language sql as 'select 2 * n';
         comment on table a is 'the \"first\" one';
         \\d\n\\dt\n\\dt+ a\n\\d a\n\\d+ b\n\\d w\n\\dT\n\\dD\n\\df
         \\sf twice\n\\dv\n\\di\n\\dn psql_cat
         \\l rustydb\n\\dp a\n\\dconfig work_mem\n
         drop view w; drop table b; drop table a; drop function twice; drop type mood;
         drop domain small; drop schema psql_cat;",
    );
    assert!(out.contains("\"a_pkey\" PRIMARY KEY, btree (id)"), "{out}");
    let out = check_clean(
        "create role psql_du_parent; create role psql_du login in role psql_du_parent;
         \\du psql_du*\n drop role psql_du, psql_du_parent;",
    );
    assert!(out.contains("{psql_du_parent}"), "{out}");
}

#[test]
fn psql_copies_in_and_out_alike() {
    let dir = temp_dir();
    let (input, output) = (dir.path().join("in.csv"), dir.path().join("out.csv"));
    let rows: String = (0..20_000).map(|i| format!("{i},\"say \"\"{i}\"\"\",\n")).collect();
    std::fs::write(&input, &rows).unwrap();
    let out = check_clean(
        &format!(
            "create temp table c (id int, t text, n int);
         \\copy c from '{}' csv\n select count(*), sum(id), max(t), count(n) from c;
         \\copy (select * from c order by id) to '{}' csv\n
         copy c to stdout where id < 0;",
            input.display(),
            output.display()
        )
        .replace(
            "copy c to stdout where id < 0;",
            "copy (select * from c where id < 3) to stdout;",
        ),
    );
    assert!(out.contains("COPY 20000") && out.contains("0\tsay \"0\"\t\\N"), "{out}");
    assert_eq!(std::fs::read_to_string(&output).unwrap().len(), rows.len());
    let out = check(
        "create temp table c (id int primary key, t text);
         copy c from stdin;\n1\tone\n2\t\\N\n3\tdrei\\ttab\n\\.\n select * from c;
         copy c from stdin;\n4\tok\nx\tbad\n\\.\n
         copy c from stdin;\n5\tok\n5\ttwice\n\\.\n
         copy c from stdin;\n6\n\\.\n
         copy c from stdin (format csv, header match);\nid,t\n7,\"a\nb\"\n\\.\n
         select count(*) from c; copy nothere from stdin;\n8\n\\.\n select 'goes on';",
    );
    for part in ["invalid input syntax for type integer: \"x\"", "CONTEXT:  COPY c, line 2"] {
        assert!(out.stderr.contains(part), "{}", out.stderr);
    }
}

#[test]
fn psql_shows_errors_and_notices_alike() {
    let out = check(
        "selec 1;\n select *\n from nothere;\n select nocolumn from pg_class;\n select 1/0;
         select 'x'::int;\n select nofunction(1);\n select '{'::jsonb;
         create temp table e (id int primary key, p int references e, c int check (c > 0));
         insert into e values (1); insert into e values (1);\n insert into e values (2, 9);
         insert into e values (3, null, -1);\n insert into e values (null);
         do $$ begin raise exception 'no' using detail = 'd', hint = 'h', errcode = 'AB123'; end $$;
         do $$ begin raise notice 'n %', 1; raise warning 'w' using hint = 'wh'; end $$;
         do $$ begin perform 1/0; end $$;
         do $$ begin raise info 'i'; raise log 'l'; end $$;
         drop table if exists nothere; create temp table if not exists e (); commit; rollback;
         \\set VERBOSITY verbose\n select 1 / 0;\n \\errverbose\n select 'ünï' from \"nö\";
         \\set VERBOSITY sqlstate\n select 1/0;\n \\echo :SQLSTATE :ERROR :LAST_ERROR_MESSAGE\n",
    );
    for part in [
        "DETAIL:  Key (id)=(1) already exists.",
        "LINE 2:  from nothere;",
        "HINT:  wh",
        "CONTEXT:  SQL statement \"SELECT 1/0\"",
        "WARNING:  there is no transaction in progress",
        "LOCATION:  int4div, int.c",
    ] {
        assert!(out.stderr.contains(part), "{part} is missing in {}", out.stderr);
    }
}

#[test]
fn psql_transactions_are_alike() {
    let out = check(
        "create temp table t (id int primary key);
         begin; insert into t values (1); savepoint a; insert into t values (1);
         select 'in a failed transaction'; rollback to a; insert into t values (2); commit;
         select * from t; begin; select 1/0; commit; select count(*) from t;
         begin isolation level serializable read only deferrable; insert into t values (9); end;
         select 1 \\; select 2 \\; select 1/0 \\; select 3;
         insert into t values (3) \\; insert into t values (3); select count(*) from t;
         begin \\; insert into t values (4) \\; commit \\; select 1/0; select count(*) from t;
         start transaction; prepare transaction 'x'; rollback prepared 'x'; begin; begin;
         rollback and chain;
         savepoint s; release s; release s; rollback; rollback;
         create procedure pg_temp.p() language plpgsql as $$ begin commit; end $$; call pg_temp.p();
         \\set AUTOCOMMIT off\n insert into t values (5); rollback; select count(*) from t;
         \\set ON_ERROR_ROLLBACK on\n select 1/0; select 'saved'; commit;",
    );
    assert!(out.stderr.contains("current transaction is aborted"), "{}", out.stderr);
    assert!(out.stdout.contains("saved"), "{}", out.stdout);
}

#[test]
fn psql_session_state_is_alike() {
    let out = check(
        "set work_mem = '7MB'; show work_mem; reset work_mem; show work_mem;
         begin; set local work_mem = '9MB'; show work_mem; rollback; show work_mem;
         set nosuch = 1; set my.own = 'x'; select current_setting('my.own'); reset all;
         set datestyle = 'SQL, DMY'; select date '2024-02-03'; set client_encoding = latin1;
         \\encoding\n reset client_encoding; \\encoding\n set time zone 'Asia/Tokyo';
         show time zone;
         create temp table tt (a int); \\d tt\n insert into tt values (1); select * from tt;
         prepare p (int, text) as select $1 + 1, $2; execute p (1, 'x'); execute p (1);
         select name, statement, parameter_types from pg_prepared_statements;
         deallocate p; execute p (1, 'x'); deallocate all;
         declare c cursor for select 1; begin; declare c scroll cursor with hold for
           select * from generate_series(1, 10); fetch 2 from c; move 3 in c; fetch all in c;
         fetch prior from c; commit; fetch first from c; close c; fetch c;
         listen ch; notify ch, 'one'; select pg_notify('ch', 'two'); unlisten *; notify ch, 'three';
         select pg_advisory_lock(815), pg_advisory_unlock(815), pg_advisory_unlock(815);
         set role pg_monitor; select current_user, session_user; reset role; select current_user;
         discard all; select * from tt;",
    );
    for part in ["Asynchronous notification \"ch\" with payload \"two\"", "7MB"] {
        assert!(out.stdout.contains(part), "{part} is missing in {}", out.stdout);
    }
    assert!(!out.stdout.contains("three"), "{}", out.stdout);
}

#[test]
fn psql_large_objects_are_alike() {
    let dir = temp_dir();
    let (input, output) = (dir.path().join("in"), dir.path().join("out"));
    let bytes: Vec<u8> = (0..300_000u32).map(|i| ((i * 7) >> 3) as u8).collect();
    std::fs::write(&input, &bytes).unwrap();
    check_clean(&format!(
        "\\set QUIET on\n\\lo_import '{}' 'a comment'\n select length(lo_get(:LASTOID));
         \\lo_export :LASTOID '{}'\n\\lo_unlink :LASTOID\n
         select lo_create(7654321); \\lo_list\n begin; select lo_open(7654321, 131072);
         select lowrite(0, '\\x010203'), lo_lseek(0, 1, 0), loread(0, 5); commit;
         \\lo_unlink 7654321\n select count(*) from pg_largeobject_metadata;",
        input.display(),
        output.display()
    ));
    assert_eq!(std::fs::read(output).unwrap(), bytes);
}

#[test]
fn psql_commands_on_results_are_alike() {
    let out = check_clean(
        "select 1 as a, 'x'::text as b, array[1.5] as c, row(1, 2) as d \\gdesc\n
         select 42 as answer, null as nothing \\gset pre_\n \\echo :pre_answer :{?pre_nothing}\n
         select 'select ' || i || ' as made' from generate_series(1, 3) i \\gexec\n
         select i % 2 as r, i % 3 as c, count(*) from generate_series(1, 9) i group by 1, 2
         order by 1, 2 \\crosstabview\n
         \\x\n select 1 as one, 'two' as two; \\x\n \\pset null '(null)'\n select null;
         \\set FETCH_COUNT 7\n select * from generate_series(1, 40);
         \\unset FETCH_COUNT\n select 1 where false; values (1, 'a'), (2, 'b'); table pg_am;
         ; select; select 1; ;",
    );
    assert!(out.contains("double") || out.contains("numeric[]"), "{out}");
    // psql asks this with Describe in the extended protocol, and gets an error in it.
    check("select nothere \\gdesc\n select 1 \\gdesc\n select 1/0 \\gset\n select 'on';");
}

#[test]
fn psql_shows_values_of_all_kinds_alike() {
    let out = check_clean(
        "select 'Grüße, 世界 👋 \t\\', E'a\\nb', '', null, U&'\\00E9', 'a''b';
         select true, 1::int2, -2147483648, 9223372036854775807, 1.10, 'NaN'::numeric,
           -1e-300::float8,
           'infinity'::float8, 0.1::float4, 12345678901234567890.123456789, 1e100::numeric;
         select array[1, null, 3], '{{a,\"b c\"},{\"NULL\",null}}'::text[], '[2:3]={1,2}'::int[];
         select timestamptz '2024-02-29 12:34:56.789+02', timestamp 'infinity',
           date '0044-03-15 BC',
           time '24:00', timetz '12:00+05:30', interval '1 year -2 days 03:04:05.6';
         select '\\xdeadbeef'::bytea, '{\"b\":1,\"a\":[1,2]}'::json, '{\"b\":1,\"a\":[1,2]}'::jsonb,
           '<a>b</a>'::xml::text, '192.168.0.0/24'::cidr, '08:00:2b:01:02:03'::macaddr,
           int4range(1, 5), '{[1,3),[5,7)}'::int4multirange, b'101', point(1, 2), 12.34::money,
           'cat & rat'::tsquery, 'a fat cat'::tsvector, row(1, 'a b', null), 'pg_class'::regclass,
           gen_random_uuid() is not null, '1/2'::pg_lsn;",
    );
    assert!(out.contains("世界 👋"), "{out}");
}

#[test]
fn psql_large_results_are_alike() {
    let quiet = |command: &mut Command| {
        command.args(["-At"]);
    };
    let out = check_with(quiet, "select repeat('0123456789', 1024 * 1024);");
    assert_eq!(out.stdout.len(), 10 * 1024 * 1024 + 1);
    let out = check_with(
        quiet,
        "select i, md5(i::text), null, i * 1.5 from generate_series(1, 100000) i;",
    );
    assert_eq!(out.stdout.lines().count(), 100_000);
    let literal = "ab".repeat(1 << 20);
    let out = check_with(quiet, &format!("select length('{literal}'), md5('{literal}');"));
    assert!(out.stdout.starts_with("2097152|"), "{}", out.stdout);
}

#[test]
fn psql_start_up_parameters_arrive() {
    let show = "show work_mem; show application_name; show client_encoding; show datestyle;
        show statement_timeout; show time zone; select date '2024-02-03', 'é';";
    let with = |pairs: &'static [(&str, &str)]| {
        let output = check_with(
            |command| {
                command.arg("-At").envs(pairs.to_vec());
            },
            show,
        );
        output.stdout
    };
    let out = with(&[("PGOPTIONS", "-c work_mem=3MB -c statement_timeout=90s")]);
    assert!(
        out.starts_with("3MB\npsql\n") && out.contains("90s") || out.contains("1.5min"),
        "{out}"
    );
    let out = with(&[("PGOPTIONS", "--work-mem=4MB"), ("PGAPPNAME", "my own name")]);
    assert!(out.starts_with("4MB\nmy own name\n"), "{out}");
    let out = with(&[("PGCLIENTENCODING", "LATIN1"), ("PGDATESTYLE", "German")]);
    assert!(out.contains("LATIN1\nGerman") && out.contains("03.02.2024|é"), "{out}");
    let out = with(&[("PGTZ", "America/New_York"), ("PGGEQO", "off")]);
    assert!(out.contains("America/New_York"), "{out}");
}
