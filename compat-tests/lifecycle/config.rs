//! A wrong configuration is refused as a whole, with every path and source.

use crate::harness::{self, Server};
use crate::{refuses, rustydb, stderr, stdout};

/// Options, variables, and what must be said.
type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a [&'a str]);

#[test]
fn every_error_of_every_source_is_reported_at_once() {
    let dir = harness::temp_dir();
    let file = dir.path().join("rustydb.toml");
    std::fs::write(&file, "[network]\nprot = 1\n[pool]\nmax_size = \"many\"\n").unwrap();
    let file = file.to_str().unwrap();
    let args = ["serve", "--config", file, "--port", "70000", "--set", "api.prot=1"];
    let env = [("RUSTYDB_POOL__MAXSIZE", "4"), ("RUSTYDB_LOG_LEVEL", "loud")];
    let output = rustydb(&args, &env);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    for line in [
        "rustydb: 6 errors in the configuration",
        &format!("network.prot: no such key; did you mean network.port? (file {file})"),
        &format!("pool.max_size: expected a whole number, 0 or more (file {file})"),
        "network.port: expected a port, 0 to 65535 (command line --port)",
        "api.prot: no such key; did you mean api.port? (command line --set)",
        "RUSTYDB_POOL__MAXSIZE: no such key; did you mean RUSTYDB_POOL__MAX_SIZE?",
        "monitoring.log_level: expected one of: trace debug info warn error \
         (environment RUSTYDB_LOG_LEVEL)",
    ] {
        assert!(text.contains(line), "{line:?} is not in: {text}");
    }
    assert_eq!(output.stdout, b"");
}

#[test]
fn single_errors_name_what_is_wrong() {
    let cases: [Case; 6] = [
        (&["--set", "pool.max_size"], &[], &["--set pool.max_size", "KEY=VALUE"]),
        (&[], &[("RUSTYDB_PRT", "1")], &["RUSTYDB_PRT", "did you mean RUSTYDB_PORT?"]),
        (&["--set", "security.enable_auth=false"], &[], &["security.enable_auth", "--insecure"]),
        (&["--config", "/nowhere.toml"], &[], &["/nowhere.toml", "No such file"]),
        (&["--set", "backend.mode=external"], &[], &["backend.url", "is missing"]),
        (&["--backend", "mysql://h/d"], &[], &["backend.url", "postgresql://", "--backend"]),
    ];
    for (args, env, words) in cases {
        let output = rustydb(args, env);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        for word in words {
            assert!(stderr(&output).contains(word), "{word:?} is not in: {}", stderr(&output));
        }
    }
}

#[test]
fn lenient_turns_unknown_names_into_warnings() {
    let server = Server::builder().arg("--lenient").set("pool.max_sise=3").start();
    server.log_line(&["did you mean pool.max_size?"]);
}

#[test]
fn insecure_asks_for_no_password_and_listens_on_loopback_only() {
    let server = Server::builder().arg("--insecure").set("network.listen_addr=0.0.0.0").start();
    assert!(server.ready.contains("none is asked for"), "{}", server.ready);
    let output = server
        .psql_command()
        .env_remove("PGPASSWORD")
        .args(["-w", "-Atc", "select current_user"])
        .output()
        .unwrap();
    assert_eq!(stdout(&output), "rustydb\n", "{}", stderr(&output));
    let hex = |port: u16| format!("{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    for port in [server.port, server.api_port, server.metrics_port] {
        let listening = table.lines().filter_map(|line| line.split_whitespace().nth(1));
        let addresses: Vec<_> =
            listening.filter(|local| local.ends_with(&format!(":{}", hex(port)))).collect();
        assert!(!addresses.is_empty());
        assert!(addresses.iter().all(|a| a.starts_with("0100007F:")), "{addresses:?}");
    }
    refuses(Server::builder().set("security.enable_auth=false"), 2, &["--insecure"]);
}

#[test]
fn check_says_whether_the_configuration_is_right() {
    let right = rustydb(&["config", "check", "--port", "5433"], &[]);
    assert_eq!(
        (right.status.code(), stdout(&right).as_str()),
        (Some(0), "the configuration is right\n")
    );
    let wrong = rustydb(&["config", "check", "--set", "pool.max_size=0"], &[]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(stderr(&wrong).contains("pool.max_size: must be at least 1 (command line --set)"));
}

#[test]
fn show_prints_values_with_their_sources_and_no_secret() {
    let url = "postgresql://me:hunter2@db.example/app";
    let args = ["config", "show", "--backend", url, "--set", "pool.max_size=7"];
    let output = rustydb(&args, &[("RUSTYDB_PORT", "6000")]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    for line in [
        "pool.max_size = 7  # command line --set",
        "network.port = 6000  # environment RUSTYDB_PORT",
        "api.port = 8080  # default",
        "backend.mode = \"external\"  # command line --backend",
        "me:***@db.example",
    ] {
        assert!(text.contains(line), "{line:?} is not in: {text}");
    }
    assert!(!text.contains("hunter2"));
}

#[test]
fn the_default_file_can_be_used_as_it_is() {
    let output = rustydb(&["config", "default"], &[]);
    assert_eq!(output.status.code(), Some(0));
    let checked_in = concat!(env!("CARGO_MANIFEST_DIR"), "/config/rustydb.toml");
    assert_eq!(stdout(&output), std::fs::read_to_string(checked_in).unwrap());
    let check = rustydb(&["config", "check", "--config", checked_in], &[]);
    assert_eq!(check.status.code(), Some(0), "{}", stderr(&check));
}
