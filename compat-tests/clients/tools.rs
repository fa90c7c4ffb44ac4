//! PostgreSQL's own tools through RustyDB.

use std::process::Command;
use std::time::Duration;

use crate::harness::{Server, command, eventually, piped, signal_process};
use crate::{guarded, lent};

/// A tool that connects through RustyDB.
fn tool(server: &Server, program: &str) -> Command {
    let mut tool = command(program);
    tool.args(["-h", "127.0.0.1", "-U", "rustydb", "-p", &server.port.to_string()])
        .env("PGPASSWORD", &server.password);
    tool
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn pgbench_runs_in_every_mode() {
    let server = guarded();
    assert_eq!(server.psql("create database tools_bench;").stderr, "");
    run(tool(server, "pgbench").args(["-i", "-q", "tools_bench"]));
    let mut transactions = 0;
    for mode in ["simple", "extended", "prepared"] {
        let args = ["-n", "-c", "4", "-j", "2", "-t", "200", "-M", mode, "tools_bench"];
        let report = run(tool(server, "pgbench").args(args));
        assert!(report.contains("actually processed: 800/800"), "{mode}: {report}");
        assert!(report.contains("failed transactions: 0 (0.000%)"), "{mode}: {report}");
        transactions += 800;
    }
    // Each transaction wrote its row.
    let mut count = server.direct_psql_command();
    count.args(["-d", "tools_bench", "-Atc", "select count(*) from pgbench_history"]);
    assert_eq!(run(&mut count).trim(), transactions.to_string());
    // pgbench's pipeline mode: many requests before one Sync.
    let script = server.data_dir.with_file_name("pipeline.sql");
    let lines = "\\startpipeline\nselect 1;\nselect :client_id + 1;\nselect 2;\n\\endpipeline\n";
    std::fs::write(&script, lines).unwrap();
    for mode in ["extended", "prepared"] {
        let mut pgbench = tool(server, "pgbench");
        let args = ["-n", "-c", "4", "-t", "100", "-M", mode, "-f"];
        let report = run(pgbench.args(args).arg(&script).arg("tools_bench"));
        assert!(report.contains("actually processed: 400/400"), "{mode}: {report}");
    }
    // A connection for each transaction.
    let args = ["-n", "-C", "-S", "-c", "2", "-t", "20", "tools_bench"];
    let report = run(tool(server, "pgbench").args(args));
    assert!(report.contains("actually processed: 40/40"), "{report}");
}

#[test]
fn pg_dump_through_rustydb_equals_pg_dump_directly() {
    let server = guarded();
    assert_eq!(server.psql("create database tools_dump;").stderr, "");
    let mut psql = server.psql_command();
    psql.args(["-d", "tools_dump", "-qc"]).arg(
        "create table t (id serial primary key, name text, at timestamptz, b bytea, j jsonb);
         insert into t (name, at, b, j) select 'n ' || i || E'\\t\\n', now(),
           decode(md5(i::text), 'hex'),
           jsonb_build_object('i', i) from generate_series(1, 5000) i;
         create view v as select name from t where id > 3; create index on t using gin (j);
         create function f() returns trigger language plpgsql as $$ begin return new; end $$;
         create trigger tr before insert on t for each row execute function f();
         create materialized view m as select count(*) from t; select lo_from_bytea(0, 'large');",
    );
    run(&mut psql);
    let dump = |mut command: Command| {
        let dump = run(command.args(["-d", "tools_dump"]));
        // Newer releases put a random key here.
        let is_key =
            |line: &&str| line.starts_with("\\restrict") || line.starts_with("\\unrestrict");
        dump.lines().filter(|line| !is_key(line)).collect::<Vec<_>>().join("\n")
    };
    let mut direct = command("pg_dump");
    direct.args(["-U", "rustydb", "-p", "5432", "-h"]).arg(server.data_dir.join("run"));
    let (reference, ours) = (dump(direct), dump(tool(server, "pg_dump")));
    assert!(reference.contains("COPY public.t (id, name, at, b, j) FROM stdin;"));
    assert!(ours == reference, "the dumps differ");
    // Four connections that share a snapshot.
    let target = server.data_dir.with_file_name("dump");
    let mut parallel = tool(server, "pg_dump");
    run(parallel.args(["-d", "tools_dump", "-Fd", "-j", "3", "-f"]).arg(&target));
    assert_eq!(server.psql("create database tools_restored;").stderr, "");
    let mut restore = tool(server, "pg_restore");
    run(restore.args(["-j", "3", "-d", "tools_restored"]).arg(&target));
    let mut again = tool(server, "pg_dump");
    let restored = run(again.args(["-d", "tools_restored"]));
    assert_eq!(
        restored.lines().count(),
        run(tool(server, "pg_dump").args(["-d", "tools_dump"])).lines().count()
    );
}

#[test]
fn pg_isready_says_yes() {
    let server = guarded();
    let report = run(&mut tool(server, "pg_isready"));
    assert!(report.contains("accepting connections"), "{report}");
    let report = run(tool(server, "pg_isready").arg("-h").arg(&server.socket_dir));
    assert!(report.contains("accepting connections"), "{report}");
    let mut nobody = command("pg_isready");
    nobody.args(["-h", "127.0.0.1", "-p", &crate::harness::free_port().to_string()]);
    assert_eq!(nobody.output().unwrap().status.code(), Some(2));
}

#[test]
fn a_database_can_be_dropped_when_its_clients_have_left() {
    let server = Server::start();
    let run = |program: &str, args: &[&str]| {
        let output = tool(&server, program).args(args).output().unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
    };
    run("createdb", &["--maintenance-db", "rustydb", "passing"]);
    run("psql", &["-X", "-d", "passing", "-c", "create table t (a int)"]);
    run("createdb", &["--maintenance-db", "rustydb", "-T", "passing", "copied"]);
    run("psql", &["-X", "-d", "copied", "-c", "select * from t"]);
    run("dropdb", &["--maintenance-db", "rustydb", "passing"]);
    run("dropdb", &["--maintenance-db", "rustydb", "copied"]);
}

#[test]
fn a_new_role_of_an_old_name_does_not_get_the_old_ones_connection() {
    let server = Server::builder().set("security.verifier_cache_secs=0").start();
    let as_joe = |password: &str| {
        let output = tool(&server, "psql")
            .args(["-X", "-U", "joe", "-d", "rustydb", "-Atc"])
            .arg("select (select oid from pg_roles where rolname = session_user)")
            .env("PGPASSWORD", password)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    server.direct_psql("create role joe login password 'one'");
    let first = as_joe("one");
    assert_eq!(as_joe("one"), first);
    // Directly, so that nothing of it passes through the server.
    server.direct_psql("alter role joe rename to jim; create role joe login password 'two'");
    assert_ne!(as_joe("two"), first);
    let joe = "select oid from pg_roles where rolname = 'joe'";
    assert_eq!(as_joe("two").trim(), server.direct_value(joe));
}

/// A server on which all but sessions for replication share four connections.
fn replicating() -> Server {
    Server::builder().set("pool.pooling_mode=transaction").set("pool.max_size=4").start()
}

/// A replication tool has ended, and the backend that was its own with it.
fn assert_left(server: &Server) {
    let senders = "select count(*) from pg_stat_activity where backend_type = 'walsender'";
    eventually("the WAL senders are gone", Duration::from_secs(20), || {
        server.direct_value(senders) == "0" && lent(server) == 0.0
    });
}

#[test]
fn pg_basebackup_makes_a_sound_copy() {
    let server = replicating();
    assert_eq!(server.psql("create table copied as select generate_series(1, 9999);").stderr, "");
    let target = server.data_dir.with_file_name("copy");
    let mut backup = tool(&server, "pg_basebackup");
    run(backup.args(["-c", "fast", "-X", "stream", "-D"]).arg(&target));
    assert_left(&server);
    // It belongs to the server's programs, which need not be in the path.
    let postgres = std::fs::read_link(format!("/proc/{}/exe", server.postmaster())).unwrap();
    let verify = postgres.with_file_name("pg_verifybackup");
    let verdict = run(command(verify.to_str().unwrap()).arg(&target));
    assert!(verdict.contains("successfully verified"), "{verdict}");
    // As one stream, throttled, with the log at its end.
    let target = server.data_dir.with_file_name("archive");
    let mut backup = tool(&server, "pg_basebackup");
    backup.args(["-c", "fast", "-X", "fetch", "-F", "tar", "-r", "900M", "-D"]);
    run(backup.arg(&target));
    assert!(target.join("base.tar").metadata().unwrap().len() > 20 << 20);
    assert_left(&server);
}

#[test]
fn pg_receivewal_gets_the_log_as_it_was_written() {
    let server = replicating();
    run(tool(&server, "pg_receivewal").args(["--create-slot", "--slot", "receiver"]));
    let target = server.data_dir.with_file_name("received");
    std::fs::create_dir(&target).unwrap();
    let mut receive = tool(&server, "pg_receivewal");
    let receiver = piped(receive.args(["--slot", "receiver", "-n", "-D"]).arg(&target));
    let streaming = "select count(*) from pg_stat_replication where state = 'streaming'";
    let limit = Duration::from_secs(20);
    eventually("it streams", limit, || server.direct_value(streaming) == "1");
    assert_eq!(server.psql("create table logged as select generate_series(1, 9999);").stderr, "");
    let file = server.direct_value("select pg_walfile_name(pg_switch_wal() - 1)");
    let written = std::fs::read(server.data_dir.join("pg/pg_wal").join(&file)).unwrap();
    // Until it is complete, it has another name.
    eventually("the file is there", limit, || target.join(&file).exists());
    signal_process(receiver.id() as i32, "INT");
    let output = receiver.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(std::fs::read(target.join(&file)).unwrap() == written, "{file} differs");
    run(tool(&server, "pg_receivewal").args(["--drop-slot", "--slot", "receiver"]));
    assert_eq!(server.direct_value("select count(*) from pg_replication_slots"), "0");
    assert_left(&server);
}

#[test]
fn pg_recvlogical_gets_every_change() {
    let server = replicating();
    let said = server.psql("create table news (a text); create publication paper for table news;");
    assert_eq!(said.stderr, "");
    let slot = ["-d", "rustydb", "--slot", "reader"];
    let mut create = tool(&server, "pg_recvlogical");
    run(create.args(slot).args(["--create-slot", "-P", "pgoutput"]));
    let insert = "insert into news select 'item ' || i || '.' from generate_series(1, 5000) i;";
    assert_eq!(server.psql(insert).stderr, "");
    let end = server.direct_value("select pg_current_wal_flush_lsn()");
    let target = server.data_dir.with_file_name("changes");
    let mut receive = tool(&server, "pg_recvlogical");
    receive.args(slot).args(["--start", "-n", "--endpos", &end, "-o", "proto_version=1"]);
    run(receive.args(["-o", "publication_names=paper", "-f"]).arg(&target));
    let changes = std::fs::read(&target).unwrap();
    let changes = String::from_utf8_lossy(&changes);
    for number in [1, 2, 2500, 4999, 5000] {
        assert!(changes.contains(&format!("item {number}.")), "{number} is missing");
    }
    assert_eq!(changes.matches("item ").count(), 5000);
    run(tool(&server, "pg_recvlogical").args(slot).arg("--drop-slot"));
    assert_eq!(server.direct_value("select count(*) from pg_replication_slots"), "0");
    assert_left(&server);
}
