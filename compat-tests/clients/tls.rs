//! TLS on the PostgreSQL door, with libpq and by hand.

use std::io::{Read, Write};
use std::process::Command;
use std::time::Duration;

use crate::harness::pki::Authority;
use crate::harness::{SOON, Server, command, eventually, temp_dir};
use crate::raw::{V3, Wire, field, message, query, startup};
use crate::secured::{client_config, direct_tls, run, secured, tls_socket, with_tls};

const SSL_REQUEST: u32 = 80_877_103;

/// The start-up packet of a role that is taken at its word.
fn free() -> Vec<u8> {
    startup(V3, &[b"user", b"free", b"database", b"rustydb"])
}

fn conninfo(psql: &mut Command) -> String {
    let output = psql.args(["-c", "\\conninfo"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn libpq_verifies_the_server_and_is_encrypted() {
    let secured = secured();
    let mut psql = secured.psql("rustydb");
    psql.env("PGPASSWORD", &secured.server.password);
    let info = conninfo(&mut psql);
    assert!(info.contains("protocol: TLSv1.3, cipher: TLS_AES_256_GCM_SHA384"), "{info}");
    secured.server.log_line(&["logged in", "TLSv1.3", "SCRAM-SHA-256"]);
    assert!(!secured.server.log().contains(&secured.server.password));
    let name = "rustydb_network_tls_handshakes_total{result=\"success\",version=\"TLSv1.3\"}";
    secured.server.expect_metric_of_at_least(name, 1.0);
    assert!(secured.server.metric("rustydb_network_tls_cert_expiry_seconds") > 86_400.0);
    // Plain connections are still taken.
    let mut plain = secured.server.psql_command();
    assert!(!conninfo(plain.env("PGSSLMODE", "disable")).contains("cipher"));
}

#[test]
fn libpq_notices_a_certificate_of_somebody_else() {
    let secured = secured();
    let other = Authority::new("another").write(&secured.folder, "another");
    let psql = run(secured.psql("free").env("PGSSLROOTCERT", other));
    assert!(psql.stderr.contains("certificate verify failed"), "{psql:?}");
    eventually("the failure is counted", SOON, || {
        let name = "rustydb_network_tls_handshakes_total{result=\"failure\",version=\"none\"}";
        secured.server.metric(name) >= 1.0
    });
}

#[test]
fn a_log_in_is_bound_to_the_channel() {
    let secured = secured();
    let mut psql = secured.psql("rustydb");
    psql.env("PGPASSWORD", &secured.server.password).env("PGCHANNELBINDING", "require");
    assert_eq!(run(&mut psql).stdout, "rustydb\n");
    psql.env("PGCHANNELBINDING", "disable");
    assert_eq!(run(&mut psql).stdout, "rustydb\n");
    let plain = run(psql.env("PGCHANNELBINDING", "require").env("PGSSLMODE", "disable"));
    assert!(plain.stderr.contains("channel binding"), "{plain:?}");
}

/// The answer to a first SCRAM message over TLS.
fn first_answer(mechanism: &str, first: &str) -> (String, String, String) {
    let secured = secured();
    let mut wire = direct_tls(secured.server, &secured.root());
    wire.send(&startup(V3, &[b"user", b"rustydb", b"database", b"rustydb"]));
    let (_, offered) = wire.next().unwrap();
    assert_eq!(&offered[4..], b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
    let length = (first.len() as u32).to_be_bytes();
    let body = [mechanism.as_bytes(), b"\0", &length, first.as_bytes()].concat();
    wire.send(&message(b'p', &body));
    let (tag, body) = wire.next().unwrap();
    match tag {
        b'E' => (field(&body, b'C'), field(&body, b'M'), field(&body, b'D')),
        _ => (String::new(), String::from_utf8_lossy(&body[4..]).into_owned(), String::new()),
    }
}

#[test]
fn an_offer_that_was_taken_away_is_noticed() {
    let (state, text, detail) = first_answer("SCRAM-SHA-256", "y,,n=,r=abc");
    assert_eq!((&*state, &*text), ("28000", "SCRAM channel binding negotiation error"));
    assert!(detail.contains("this server does support channel binding"), "{detail}");
    assert_eq!(first_answer("SCRAM-SHA-256-PLUS", "n,,n=,r=abc").0, "08P01");
    assert_eq!(first_answer("SCRAM-SHA-256", "p=tls-server-end-point,,n=,r=abc").0, "08P01");
    assert_eq!(first_answer("SCRAM-SHA-256-PLUS", "p=tls-unique,,n=,r=abc").0, "08P01");
    assert_eq!(first_answer("SCRAM-SHA-1", "n,,n=,r=abc").0, "08P01");
    assert!(first_answer("SCRAM-SHA-256", "n,,n=,r=abc").1.starts_with("r=abc"));
    let plus = first_answer("SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,n=,r=abc");
    assert!(plus.1.starts_with("r=abc"), "{plus:?}");
}

#[test]
fn direct_tls_needs_the_protocol_by_name() {
    let secured = secured();
    let mut wire = direct_tls(secured.server, &secured.root());
    wire.send(&free());
    wire.until(b'Z');
    assert_eq!(wire.values("select session_user"), ["free"]);
    // Without ALPN the handshake works, and not one byte of the protocol is said.
    let config = client_config(&secured.root(), &[]);
    let mut socket = tls_socket(secured.server.connect(), &config);
    let mut rest = Vec::new();
    let _ = socket.write_all(&free());
    let _ = socket.read_to_end(&mut rest);
    assert_eq!(rest, b"");
    let config = client_config(&secured.root(), &[b"h2"]);
    let mut socket = tls_socket(secured.server.connect(), &config);
    let error = socket.write_all(&free()).and_then(|()| socket.read_to_end(&mut rest));
    assert!(error.unwrap_err().to_string().contains("NoApplicationProtocol"));
}

#[test]
fn openssl_shakes_hands_both_ways() {
    let secured = secured();
    for way in [["-starttls", "postgres"], ["-alpn", "postgresql"]] {
        let output = command("openssl")
            .args(["s_client", "-brief", "-verify_return_error", "-CAfile"])
            .arg(secured.root())
            .args(["-connect", &format!("127.0.0.1:{}", secured.server.port)])
            .args(way)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("Verification: OK"), "{said}");
    }
}

#[test]
fn what_was_sent_in_clear_before_the_handshake_is_not_used() {
    let secured = secured();
    let request = startup(SSL_REQUEST, &[]);
    let mut wire = Wire::to(secured.server);
    // As somebody on the way would put it there.
    wire.send(&[&request[..], &free(), &query("select 'injected'")].concat());
    let answer = wire.raw_rest();
    assert_eq!(answer.first(), Some(&b'S'));
    // An alert at most; no message of the protocol.
    assert!(answer.len() == 1 || answer[1] == 0x15, "{answer:?}");
    // TLS is asked for once; inside, the request is no version.
    let mut wire = direct_tls(secured.server, &secured.root());
    wire.send(&request);
    let (_, body) = wire.next().unwrap();
    assert_eq!(field(&body, b'C'), "0A000");
}

#[test]
fn large_results_and_copies_pass() {
    let secured = secured();
    let digest = "select md5(string_agg(n::text, ',')) from generate_series(1, 300000) n";
    let mut psql = secured.psql("free");
    let script = format!(
        "create temp table t as select n::int4 from generate_series(1, 300000) n order by n;
         \\copy t to '{0}'
         create temp table u (n int4);
         \\copy u from '{0}'
         select md5(string_agg(n::text, ',' order by n)) from u;
         select repeat('x', 40000000);\n",
        secured.folder.join("numbers").display()
    );
    let output = crate::harness::feed(&mut psql, &script);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&secured.server.direct_value(digest)), "{}", &text[..200]);
    assert!(text.contains(&"x".repeat(40_000_000)));
}

#[test]
fn a_client_that_reads_late_gets_everything() {
    let secured = secured();
    let mut wire = direct_tls(secured.server, &secured.root());
    wire.send(&free());
    wire.until(b'Z');
    let sql = "select repeat('y', 1000) from generate_series(1, 20000)";
    // More than the kernel keeps, in both directions.
    let mut batch = query(sql);
    batch.extend(query(&format!("select length('{}')", "z".repeat(3_000_000))));
    wire.send(&batch);
    std::thread::sleep(Duration::from_millis(500));
    let rows = wire.until(b'Z').iter().filter(|m| m.0 == b'D').count();
    assert_eq!(rows, 20_000);
    let last = wire.until(b'Z');
    assert!(last.iter().any(|m| m.0 == b'D' && m.1.ends_with(b"3000000")));
}

#[test]
fn a_cancel_request_may_be_encrypted() {
    let secured = secured();
    let mut wire = direct_tls(secured.server, &secured.root());
    wire.send(&free());
    let greeting = wire.until(b'Z');
    let key = &greeting.iter().find(|m| m.0 == b'K').unwrap().1;
    wire.send(&query("select pg_sleep(30) -- encrypted_cancel"));
    crate::wait_until_running(secured.server, "encrypted_cancel");
    let mut cancel = direct_tls(secured.server, &secured.root());
    let mut packet = 80_877_102u32.to_be_bytes().to_vec();
    packet.extend_from_slice(key);
    cancel.send(&[&(packet.len() as u32 + 4).to_be_bytes()[..], &packet].concat());
    let messages = wire.until(b'Z');
    assert_eq!(field(&messages[messages.len() - 2].1, b'C'), "57014");
}

#[test]
fn a_new_certificate_is_taken_without_a_restart() {
    let folder = temp_dir();
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let files = first.issue(folder.path(), "server", "server", &["localhost", "127.0.0.1"]);
    let builder = with_tls(Server::builder(), &files)
        .arg("--insecure")
        .set("security.min_tls_version=1.2")
        .set("security.tls_check_secs=1");
    let server = builder.start();
    let old = first.write(folder.path(), "old");
    let new = second.write(folder.path(), "new");
    let verified = |root: &std::path::Path, newest: &str| {
        let mut psql = server.psql_command();
        psql.env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", root)
            .env("PGSSLMAXPROTOCOLVERSION", newest);
        run(&mut psql)
    };
    // Older drivers, too.
    let older = verified(&old, "TLSv1.2");
    assert_eq!(older.stdout.trim_start(), verified(&old, "TLSv1.3").stdout.trim_start());
    assert!(older.stdout.contains("rustydb"), "{older:?}");
    let mut wire = direct_tls(&server, &old);
    wire.send(&free_as_rustydb());
    wire.until(b'Z');
    second.issue(folder.path(), "server", "server", &["localhost", "127.0.0.1"]);
    eventually("the new certificate is shown", Duration::from_secs(20), || {
        verified(&new, "TLSv1.3").code == Some(0)
    });
    assert_ne!(verified(&old, "TLSv1.3").code, Some(0));
    assert_eq!(wire.values("select 'still here'"), ["still here"]);
}

#[test]
fn a_client_sees_the_certificate_of_the_host_that_it_names() {
    let folder = temp_dir();
    let ca = Authority::new("both");
    let root = ca.write(folder.path(), "ca");
    let first = ca.issue(folder.path(), "first", "first", &["127.0.0.1"]);
    let second = ca.issue(folder.path(), "second", "second", &["localhost"]);
    let pair = format!("{}={}", second.cert.display(), second.key.display());
    let server = with_tls(Server::builder(), &first)
        .set(&format!("security.sni_certificates={pair}"))
        .start();
    for host in ["127.0.0.1", "localhost"] {
        let mut psql = server.psql_command();
        psql.args(["-h", host, "-At"])
            .env("PGSSLMODE", "verify-full")
            .env("PGCHANNELBINDING", "require")
            .env("PGSSLROOTCERT", &root);
        let seen = run(&mut psql);
        assert_eq!(seen.stdout, "rustydb\n", "{host}: {seen:?}");
    }
}

#[test]
fn a_revoked_certificate_does_not_come_in() {
    let folder = temp_dir();
    let at = folder.path();
    let ca = Authority::new("revoking");
    let root = ca.write(at, "ca");
    let files = ca.issue(at, "server", "server", &["localhost", "127.0.0.1"]);
    let [kept, lost] = ["kept", "lost"].map(|name| ca.issue(at, name, "rustydb", &[]));
    let lists = at.join("lists.crl");
    ca.revoke(&lists, &[&lost], 2999);
    let server = with_tls(Server::builder(), &files)
        .set(&format!("security.ca_cert_path={}", root.display()))
        .set(&format!("security.crl_path={}", lists.display()))
        .set("security.hba=hostssl all all all cert;local all all trust")
        .start();
    let come = |files: &crate::harness::pki::Files| {
        let mut psql = server.psql_command();
        psql.args(["-At"])
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", &root)
            .env("PGSSLCERT", &files.cert)
            .env("PGSSLKEY", &files.key);
        run(&mut psql)
    };
    let refused = |files: &crate::harness::pki::Files, word: &str| {
        let psql = come(files);
        assert_eq!(psql.code, Some(2), "{psql:?}");
        assert!(psql.stderr.contains(word), "{psql:?}");
    };
    assert_eq!(come(&kept).stdout, "rustydb\n");
    refused(&lost, "certificate revoked");
    // A new list counts from the next reload on.
    ca.revoke(&lists, &[&lost, &kept], 2999);
    server.signal("HUP");
    eventually("the list is read", SOON, || come(&kept).code == Some(2));
    refused(&kept, "certificate revoked");
    // One that is too old says nothing about anybody.
    ca.revoke(&lists, &[&lost], 2021);
    server.signal("HUP");
    eventually("it is noted", SOON, || server.log().contains("past its next update"));
    refused(&kept, "alert");
    ca.revoke(&lists, &[], 2999);
    server.signal("HUP");
    eventually("everybody is back", SOON, || {
        come(&kept).code == Some(0) && come(&lost).code == Some(0)
    });
}

fn free_as_rustydb() -> Vec<u8> {
    crate::raw::usual_startup()
}

#[test]
fn an_old_version_is_refused_by_default() {
    let secured = secured();
    let psql = run(secured.psql("free").env("PGSSLMAXPROTOCOLVERSION", "TLSv1.2"));
    assert!(psql.stderr.contains("protocol version"), "{psql:?}");
}

/// Most that a client with nothing to do may cost the server.
const MOST_KIB_EACH: u64 = 24;

#[test]
fn an_idle_client_costs_little_memory() {
    const CLIENTS: u64 = 200;
    let folder = temp_dir();
    let ca = Authority::new("ca");
    let files = ca.issue(folder.path(), "server", "server", &["localhost"]);
    let root = ca.write(folder.path(), "ca");
    let server = with_tls(Server::builder(), &files).arg("--insecure").start();
    let connect = |_| {
        let mut wire = direct_tls(&server, &root);
        wire.send(&free_as_rustydb());
        wire.until(b'Z');
        assert_eq!(wire.values("select repeat('x', 60000)")[0].len(), 60_000);
        wire
    };
    // What the first ones cost, is not theirs alone.
    let first: Vec<Wire> = (0..20).map(connect).collect();
    let before = server.memory_kib().0;
    let clients: Vec<Wire> = (0..CLIENTS).map(connect).collect();
    // What the allocator gives back meanwhile can be more than they take.
    let each = server.memory_kib().0.saturating_sub(before) as f64 / CLIENTS as f64;
    assert!(each <= MOST_KIB_EACH as f64, "{each} KiB");
    drop((first, clients));
}

#[test]
fn a_key_that_others_can_read_keeps_the_server_from_starting() {
    use std::os::unix::fs::PermissionsExt;
    let folder = temp_dir();
    let files = Authority::new("ca").issue(folder.path(), "server", "server", &["localhost"]);
    std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let failure = with_tls(Server::builder(), &files).try_start().err().unwrap();
    assert_eq!(failure.code, Some(2), "{}", failure.stderr);
    assert!(failure.stderr.contains("group or world access"), "{}", failure.stderr);
}
