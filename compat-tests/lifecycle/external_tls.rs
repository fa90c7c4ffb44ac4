//! TLS towards a PostgreSQL that RustyDB does not own.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use crate::harness::pki::{Authority, Files};
use crate::harness::{Builder, Server, eventually, temp_dir};
use crate::{Client, PlainPostgres, SOON, is_root, refuses, sqlstate, unprivileged_uid};

/// PostgreSQL with a certificate for `names`.
fn encrypted(ca: &Authority, names: &[&str]) -> PlainPostgres {
    encrypted_by(|folder| ca.issue(folder, "server", "server", names))
}

/// The same with a certificate that is made in its folder.
fn encrypted_by(issue: impl Fn(&Path) -> Files) -> PlainPostgres {
    PlainPostgres::start_with(|folder| {
        let files = issue(folder);
        if is_root() {
            chown(&files.key, Some(unprivileged_uid()), None).unwrap();
        }
        let (cert, key) = (files.cert.display(), files.key.display());
        format!("-c ssl=on -c ssl_cert_file={cert} -c ssl_key_file={key}")
    })
}

fn behind(plain: &PlainPostgres, parameters: &str) -> Builder {
    Server::builder().arg("--backend").arg(&format!("{}?{parameters}", plain.url()))
}

fn client(server: &Server, role: &str, password: &str) -> Client {
    Client::connect_to("127.0.0.1", server.port, role, password, "postgres").unwrap()
}

/// The version of TLS between RustyDB and PostgreSQL, as PostgreSQL says.
fn version(client: &Client) -> String {
    let sql = "select coalesce(version, 'none') from pg_stat_ssl where pid = pg_backend_pid()";
    client.value(sql).unwrap()
}

/// Writes the rules of PostgreSQL itself.
fn rules(plain: &PlainPostgres, text: &str) {
    std::fs::write(plain.dir.path().join("cluster/pg_hba.conf"), text).unwrap();
    plain.connect().value("select pg_reload_conf()").unwrap();
}

fn authority(folder: &Path) -> (Authority, PathBuf) {
    let ca = Authority::new("the authority");
    let root = ca.write(folder, "root");
    (ca, root)
}

#[test]
fn every_sslmode_does_what_it_says() {
    let folder = temp_dir();
    let (ca, root) = authority(folder.path());
    let other = Authority::new("another").write(folder.path(), "other");
    let (root, other) = (root.display(), other.display());
    let plain = encrypted(&ca, &["127.0.0.1"]);
    let (user, password) = (PlainPostgres::SUPERUSER, PlainPostgres::PASSWORD);
    for (parameters, expected) in [
        ("sslmode=disable".to_owned(), "none"),
        // Without a word, loopback is encrypted if that is possible.
        (String::new(), "TLSv1.3"),
        (format!("sslmode=verify-full&sslrootcert={root}"), "TLSv1.3"),
    ] {
        let server = behind(&plain, &parameters).start();
        assert_eq!(version(&client(&server, user, password)), expected, "{parameters}");
    }
    for (parameters, words) in [
        (format!("sslmode=verify-full&sslrootcert={other}"), "UnknownIssuer"),
        (format!("sslmode=verify-ca&sslrootcert={other}"), "UnknownIssuer"),
        (format!("sslmode=require&sslrootcert={other}"), "UnknownIssuer"),
    ] {
        refuses(behind(&plain, &parameters), 3, &["cannot be encrypted", words]);
    }
    refuses(behind(&plain, "sslmode=verify-ca&sslrootcert=/nowhere"), 2, &["/nowhere"]);
    // A certificate for another host is good enough for verify-ca.
    let misnamed = encrypted(&ca, &["db.example"]);
    let full = format!("sslmode=verify-full&sslrootcert={root}");
    refuses(behind(&misnamed, &full), 3, &["cannot be encrypted", "not valid for"]);
    let server = behind(&misnamed, &format!("sslmode=verify-ca&sslrootcert={root}")).start();
    assert_eq!(version(&client(&server, user, password)), "TLSv1.3");
    let clear = PlainPostgres::start();
    refuses(behind(&clear, "sslmode=require"), 3, &["ssl is off"]);
    assert_eq!(version(&client(&behind(&clear, "").start(), user, password)), "none");
}

#[test]
fn a_certificate_that_has_signed_itself_is_its_own_authority() {
    let folder = temp_dir();
    let issue =
        |name: &str| encrypted_by(|folder| Authority::issue_self_signed(folder, "server", &[name]));
    let own = |plain: &PlainPostgres| plain.dir.path().join("server.crt");
    let (user, password) = (PlainPostgres::SUPERUSER, PlainPostgres::PASSWORD);
    let (plain, misnamed) = (issue("127.0.0.1"), issue("db.example"));
    for (plain, mode) in [(&plain, "verify-full"), (&plain, "verify-ca"), (&misnamed, "verify-ca")]
    {
        let parameters = format!("sslmode={mode}&sslrootcert={}", own(plain).display());
        let server = behind(plain, &parameters).start();
        assert_eq!(version(&client(&server, user, password)), "TLSv1.3", "{parameters}");
    }
    let full = format!("sslmode=verify-full&sslrootcert={}", own(&misnamed).display());
    refuses(behind(&misnamed, &full), 3, &["cannot be encrypted", "not valid for"]);
    let (_, other) = authority(folder.path());
    for other in [other, own(&misnamed)] {
        let other = format!("sslmode=verify-ca&sslrootcert={}", other.display());
        refuses(behind(&plain, &other), 3, &["cannot be encrypted"]);
    }
}

#[test]
fn everything_towards_postgres_is_encrypted_and_its_own_certificate_is_shown() {
    let folder = temp_dir();
    let (ca, root) = authority(folder.path());
    let plain = encrypted(&ca, &["127.0.0.1"]);
    let admin = plain.connect();
    admin.value("create role alice login password 'wonder land'").unwrap();
    let authorities = plain.dir.path().join("root.crt");
    std::fs::copy(&root, &authorities).unwrap();
    let sql = format!("alter system set ssl_ca_file = '{}'", authorities.display());
    admin.value(&sql).unwrap();
    // From now on PostgreSQL wants TLS with a certificate, and a password besides.
    rules(
        &plain,
        "hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n\
                   host all super 127.0.0.1/32 scram-sha-256\n",
    );
    let own = ca.issue(folder.path(), "rustydb", "rustydb", &[]);
    let parameters = format!(
        "sslmode=verify-full&sslrootcert={}&sslcert={}&sslkey={}",
        root.display(),
        own.cert.display(),
        own.key.display()
    );
    let server = behind(&plain, &parameters).start();
    let alice = client(&server, "alice", "wonder land");
    assert_eq!(version(&alice), "TLSv1.3");
    let named = "select client_dn from pg_stat_ssl where pid = pg_backend_pid()";
    assert_eq!(alice.value(named).unwrap(), "/CN=rustydb");
    // Large values in both directions.
    let length = alice.value(&format!("select length('{}')", "x".repeat(5_000_000))).unwrap();
    assert_eq!(length, "5000000");
    let long = alice.value("select repeat('y', 20000000)").unwrap();
    assert_eq!(long.len(), 20_000_000);
    // The cancel request goes the same way: PostgreSQL takes no other.
    let token = alice.client.cancel_token();
    let slow = alice.client.simple_query("select pg_sleep(60) -- cancelled_over_tls");
    let cancelled = alice.runtime.block_on(async {
        let cancel = async {
            let sql = "select count(*) from pg_stat_activity where state = 'active' and \
                       query like '%cancelled_over_tls' and pid <> pg_backend_pid()";
            let watcher = client_in_thread(&server);
            tokio::task::spawn_blocking(move || {
                eventually("it runs", SOON, || watcher.value(sql).unwrap() == "1");
                drop(watcher);
            })
            .await
            .unwrap();
            token.cancel_query(tokio_postgres::NoTls).await.unwrap();
        };
        let (result, ()) = tokio::join!(slow, cancel);
        result
    });
    assert_eq!(sqlstate(&cancelled.unwrap_err()), "57014");
    // Without its certificate PostgreSQL does not let it in.
    let without = format!("sslmode=verify-full&sslrootcert={}", root.display());
    let hba = "hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n";
    rules(&plain, hba);
    refuses(behind(&plain, &without), 3, &["client certificate"]);
}

/// A client that another thread may wait with.
fn client_in_thread(server: &Server) -> Client {
    let port = server.port;
    let connect = move || {
        let (user, password) = (PlainPostgres::SUPERUSER, PlainPostgres::PASSWORD);
        Client::connect_to("127.0.0.1", port, user, password, "postgres").unwrap()
    };
    std::thread::spawn(connect).join().unwrap()
}

#[test]
fn the_log_in_to_postgres_is_bound_to_the_channel() {
    let folder = temp_dir();
    let (ca, root) = authority(folder.path());
    let files = ca.issue(folder.path(), "server", "server", &["127.0.0.1"]);
    // A PostgreSQL that says how somebody logged in: another RustyDB.
    let behind = Server::builder()
        .set(&format!("security.tls_cert_path={}", files.cert.display()))
        .set(&format!("security.tls_key_path={}", files.key.display()))
        .start();
    let url = format!(
        "postgresql://rustydb:{}@127.0.0.1:{}/rustydb?sslmode=verify-full&sslrootcert={}",
        behind.password,
        behind.port,
        root.display()
    );
    let server = Server::builder().arg("--backend").arg(&url).start();
    let client = client(&server, "rustydb", &behind.password);
    assert_eq!(client.value("select 'through both'").unwrap(), "through both");
    behind.log_line(&["logged in"]);
    for line in behind.log().lines().filter(|line| line.contains("logged in")) {
        assert!(line.contains("SCRAM-SHA-256-PLUS") && line.contains("TLSv1.3"), "{line}");
    }
}
