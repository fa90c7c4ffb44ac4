//! `rustydb sql`, beside the real psql: the same statements give the same text.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{Psql, Server, binary, command, feed, piped, temp_dir};
use crate::{guarded, open};

fn shell(server: &Server) -> Command {
    let mut shell = command(binary());
    let url = format!("rustydb://rustydb@127.0.0.1:{}/rustydb?tls=disable", server.port);
    shell.args(["sql", &url]).env("RUSTYDB_PASSWORD", &server.password);
    shell
}

fn run(server: &Server, args: &[&str], input: &str) -> Psql {
    feed(shell(server).args(args), input).into()
}

/// The same for psql, without the words that differ on purpose.
fn reference(server: &Server, args: &[&str], input: &str) -> Psql {
    let psql: Psql = feed(server.psql_command().args(args), input).into();
    Psql { stderr: psql.stderr.replace("psql:", "rustydb:"), ..psql }
}

fn agrees(server: &Server, args: &[&str], input: &str) {
    assert_eq!(run(server, args, input), reference(server, args, input), "{args:?}\n{input}");
}

#[test]
fn rows_look_as_in_psql() {
    let script = r#"
SET TimeZone = 'Europe/Berlin';
SELECT 1 AS one, 'zwei' AS "Two words", NULL AS nothing, 4.50 AS four, true, false;
SELECT n, repeat('x', n) AS x, n / 2.0::float8 AS half FROM generate_series(1, 12) n;
SELECT 1 WHERE false;
SELECT;
SELECT E'a\nbc\nd' AS lines, 'e' AS e, E'f\ng' AS more, 42 AS "number";
SELECT 'Grüße' AS "größe", '世界' AS w, '🦀' AS c;
SELECT timestamptz '2026-01-01 12:00Z', timestamptz '2026-07-01 12:00:00.5Z',
       timestamp '2026-07-01 12:00', date '0044-03-15 BC', time '24:00', timetz '01:02+03',
       interval '1 year -2 days 03:04:05.678', timestamptz 'infinity', date '-infinity';
SELECT 1e15::float8, 1e14::float8, 1e-5::float8, 0.1::float4, 123456789::float4,
       'NaN'::float8, '-Infinity'::float4, 12345678901234567890.10::numeric, 'NaN'::numeric;
SELECT '\xdeadbeef'::bytea, B'1010', '12:34:56:78:9a:bc'::macaddr, '10.0.0.1/8'::inet,
       '10.0.0.0/8'::cidr, '{"a": 1}'::json, '{"a":1}'::jsonb, 'b'::"char", 12.34::money,
       '123e4567-e89b-12d3-a456-426614174000'::uuid, '(1,2)'::point, 'a b'::tsvector;
SELECT ARRAY[1,2,NULL], ARRAY['a b','','NULL','q"\'], '{{1,2},{3,4}}'::int[], '[0:1]={5,6}'::int[],
       '{}'::text[], ROW(1, 'a b', NULL, ''), int4range(1, 5), 'empty'::int4range,
       tsrange('2026-01-01', NULL), '{[1,3),[5,7)}'::int4multirange, ARRAY[ROW(1,'x')];
SELECT 'int4'::regtype, 'pg_class'::regclass, 5::oid, 'x'::name, 'abc'::char(5);
SELECT '{int4,text,NULL}'::regtype[], 'pg_class'::regclass::oid = 1259, '{}'::regclass[],
       '1 2 3'::int2vector, '4 5'::oidvector, ''::int2vector, 0::regclass, '{pg_type}'::regclass[];
SELECT E'a\tb\tc' AS "ta	b", E'\x1b[31mred', E'cr\r\nlf', E'del\x7f \u0085 end', E'x\n12345678\ty';
"#;
    agrees(open(), &[], script);
    agrees(open(), &["-x"], script);
    agrees(open(), &["-At"], script);
    agrees(open(), &["-t"], script);
    agrees(open(), &["-A"], script);
    agrees(open(), &["-xt"], script);
    agrees(open(), &["-xA"], "SELECT 1 AS a, 2 AS b; SELECT n FROM generate_series(1, 2) n;");
    agrees(open(), &["-q"], "CREATE TEMP TABLE q (); SELECT 1;");
}

#[test]
fn tags_and_errors_look_as_in_psql() {
    let script = r#"CREATE TEMP TABLE shell_t (id int PRIMARY KEY, v text CHECK (v <> 'bad'));
INSERT INTO shell_t VALUES (1, 'a'), (2, 'b');
INSERT INTO shell_t VALUES (3, 'c') RETURNING *;
UPDATE shell_t SET v = 'x' WHERE id > 1;
DELETE FROM shell_t WHERE id = 9;
SELECT nothing FROM shell_t;
SELECT 1,
       2,
    	wrong(3),
       4;
INSERT INTO shell_t VALUES (1, 'again');
INSERT INTO shell_t VALUES (9, 'bad');
SELECT 'äöü', fehlt, 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa';
SELECT 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', fehlt, 'b';
SELECT 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', fehlt, 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb';
SELEC 1;
DO $$ BEGIN RAISE NOTICE 'look; here'; RAISE WARNING 'and there'; END $$;
DO $$ BEGIN RAISE EXCEPTION 'no' USING DETAIL = 'why', HINT = 'how'; END $$;
BEGIN;
SELECT 1/0;
SELECT 1;
COMMIT;
SELECT 'the end'
"#;
    agrees(open(), &[], script);
}

#[test]
fn exit_codes_are_those_of_psql() {
    let folder = temp_dir();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let good = file("good.sql", "SELECT 1;\nSELECT 2");
    let bad = file("bad.sql", "SELECT 1;\n\nSELECT nothing;\nSELECT 3;\n");
    let outer = file("outer.sql", &format!("\\i {bad}\n\\echo after\n\\i /nonexistent\nSELECT 4;"));
    let stop = ["-v", "ON_ERROR_STOP=1"];
    for args in [
        vec!["-c", "SELECT 1", "-c", "SELECT 2; SELECT 3"],
        vec!["-c", "SELECT 1; SELECT nothing; SELECT 2"],
        vec!["-f", &good, "-c", "SELECT 9", "-f", &good],
        vec!["-f", &bad],
        vec![stop[0], stop[1], "-f", &bad],
        vec![stop[0], stop[1], "-f", &outer],
        vec!["-f", &outer],
        vec!["-c", "\\echo hello"],
    ] {
        let (ours, theirs) = (run(open(), &args, ""), reference(open(), &args, ""));
        assert_eq!((ours.code, &ours.stdout), (theirs.code, &theirs.stdout), "{args:?} {ours:?}");
        let first = |text: &str| text.lines().next().map(str::to_owned);
        if !args.contains(&outer.as_str()) {
            assert_eq!(first(&ours.stderr), first(&theirs.stderr), "{args:?}");
        }
    }
    assert_eq!(run(open(), &["-f", "/nonexistent"], "").code, Some(1));
    assert_eq!(run(open(), &["--no-such-option"], "").code, Some(1));
    assert_eq!(run(open(), &["-v", "X=1"], "").code, Some(1));
    assert_eq!(run(open(), &stop, "SELECT 1;\nSELECT nothing;\nSELECT 2;").code, Some(3));
    assert_eq!(run(open(), &[], "\\set ON_ERROR_STOP on\nSELECT nothing;").code, Some(3));
    // The connection goes, or never was.
    let lost = "SELECT pg_terminate_backend(pg_backend_pid());\nSELECT 1;";
    let stopped = run(open(), &[], lost);
    assert!(!stopped.stdout.contains(" 1\n"), "{stopped:?}");
    let nobody = command(binary()).args(["sql", "rustydb://u@127.0.0.1:1/x"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(2));
    let url = command(binary()).args(["sql", "postgresql://x"]).output().unwrap();
    assert_eq!(url.status.code(), Some(1));
}

#[test]
fn passwords_come_from_the_environment() {
    let server = guarded();
    assert_eq!(run(server, &["-Atc", "SELECT current_user"], "").stdout, "rustydb\n");
    let mut without = shell(server);
    without.env_remove("RUSTYDB_PASSWORD").args(["-c", "SELECT 1"]);
    let refused: Psql = feed(&mut without, "").into();
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("password"), "{}", refused.stderr);
    let mut other = shell(server);
    other.env_remove("RUSTYDB_PASSWORD").env("PGPASSWORD", &server.password);
    assert_eq!(other.args(["-Atc", "SELECT 1"]).output().unwrap().stdout, b"1\n");
}

/// Drops what a pattern of psql's tables has and ours has not: lines that are empty.
fn squeezed(text: &str) -> Vec<String> {
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn the_database_is_described_as_in_psql() {
    let server = open();
    let setup = "CREATE SCHEMA shell_s; SET search_path = shell_s;
        CREATE TABLE parent (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            name text NOT NULL DEFAULT 'x', note varchar(20) COLLATE \"C\", twice int UNIQUE,
            CONSTRAINT named CHECK (name <> ''));
        CREATE TABLE child (id int, parent_id bigint REFERENCES parent, doubled int
            GENERATED ALWAYS AS (id * 2) STORED);
        CREATE INDEX child_idx ON child (parent_id, id DESC) WHERE id > 0;
        CREATE VIEW seen AS SELECT id, name FROM parent;
        CREATE FUNCTION add(a int, b int DEFAULT 1) RETURNS int LANGUAGE sql AS 'SELECT a + b';
        CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER note BEFORE INSERT ON parent FOR EACH ROW EXECUTE FUNCTION noted();";
    assert_eq!(server.psql(setup).code, Some(0));
    let path = "SET search_path = shell_s;\n";
    for command in [
        "\\dt",
        "\\dv",
        "\\di",
        "\\d",
        "\\d parent",
        "\\d child",
        "\\df add",
        "\\df",
        "\\dt par*",
        "\\dn",
        "\\du",
        "\\dt pg_catalog.pg_cl*",
        "\\d pg_am",
    ] {
        let script = format!("{path}{command}\n");
        let (ours, theirs) = (server_text(server, &script), server.psql(&script));
        assert_eq!(squeezed(&ours.stdout), squeezed(&theirs.stdout), "{command} {ours:?}");
    }
    let seen = server_text(server, "\\d shell_s.seen\n").stdout;
    assert!(seen.contains("View \"shell_s.seen\"") && seen.contains("FROM"), "{seen}");
    assert!(server_text(server, "\\du\n").stdout.contains("Superuser"));
    assert!(server_text(server, "\\l\n").stdout.contains("template1"));
    let none = server_text(server, "\\d nothing_like_it\n");
    assert!(none.stderr.contains("Did not find any relation named \"nothing_like_it\"."));
    assert!(server_text(server, "\\nonsense\n").stderr.contains("invalid command \\nonsense"));
    server.psql("DROP SCHEMA shell_s CASCADE");
}

fn server_text(server: &Server, script: &str) -> Psql {
    run(server, &[], script)
}

#[test]
fn commands_switch_and_reconnect() {
    let script = "\\timing on\nSELECT 1;\n\\timing\n\\x\nSELECT 1 AS a;\n\\x off\n\\a\n\\t\n\
                  SELECT 5, 6;\n\\c postgres\n\\conninfo\nSELECT current_database()\\g\n\
                  \\c no_such_database\nSELECT current_database();\n\\q\nSELECT 'never';\n";
    let said = run(open(), &[], script);
    let expected = [
        "Timing is on.",
        "Time: ",
        "Timing is off.",
        "Expanded display is on.",
        "a | 1",
        "Expanded display is off.",
        "5|6",
        "You are now connected to database \"postgres\" as user \"rustydb\".",
        "You are connected to database \"postgres\"",
        "postgres\npostgres\n",
    ];
    let mut rest = said.stdout.as_str();
    for part in expected {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part}: {said:?}"));
        rest = &rest[at + part.len()..];
    }
    assert!(!rest.contains("never"));
    assert!(said.stderr.contains("no_such_database"), "{}", said.stderr);
    assert_eq!(said.code, Some(0));
}

#[test]
fn ctrl_c_cancels_what_runs() {
    let since = Instant::now();
    let mut child = piped(shell(open()).args(["-A", "-t"]));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"SELECT 'begun';\nSELECT pg_sleep(60);\nSELECT 'after';\n").unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "begun");
    std::thread::sleep(Duration::from_millis(500));
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    drop(stdin);
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("Cancel request sent") && said.contains("canceling statement"), "{said}");
    // A script ends there, as in psql.
    assert!(lines.next().is_none());
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert!(since.elapsed() < Duration::from_secs(30));
}

#[test]
fn ctrl_c_ends_what_is_printed() {
    let mut child = piped(shell(open()).args(["-t"]));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"SELECT generate_series(1, 300000);\nSELECT 'after';\n").unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 16];
    stdout.read_exact(&mut first).unwrap();
    // Nobody reads, so that it is in the midst of the rows.
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
    assert_eq!(told.next().unwrap().unwrap(), "Cancel request sent");
    drop(stdin);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("300000") && !rest.contains("after"), "{}", rest.len());
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn somebody_can_type_into_it() {
    if !Path::new("/usr/bin/script").exists() {
        eprintln!("there is no script(1)");
        return;
    }
    let server = open();
    let home = temp_dir();
    let url = format!("rustydb://rustydb@127.0.0.1:{}/rustydb", server.port);
    let line = format!("{} sql '{url}'", binary());
    // script(1) makes a terminal of pipes.
    let mut terminal = command("script");
    terminal.args(["-qec", &line, "/dev/null"]).env("HOME", home.path()).env("TERM", "xterm");
    let typed = "help\rSELECT 40 +\r 2 AS answer;\rBEGIN;\rSELECT nothing;\rROLLBACK;\rexit\r";
    let mut child = piped(&mut terminal);
    let mut stdin = child.stdin.take().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    for part in typed.split_inclusive('\r') {
        stdin.write_all(part.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(200));
    }
    let output = child.wait_with_output().unwrap();
    let seen = String::from_utf8_lossy(&output.stdout);
    for part in [
        "rustydb=# ",
        "rustydb-# ",
        "     42",
        "rustydb=*# ",
        "rustydb=!# ",
        "LINE 1:",
        "\\conninfo",
    ] {
        assert!(seen.contains(part), "{part}: {seen}");
    }
    let history = std::fs::read_to_string(home.path().join(".rustydb_history")).unwrap();
    assert!(history.contains("2 AS answer;"), "{history}");
}
