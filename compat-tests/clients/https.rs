//! HTTP over TLS, on the port of HTTP.

use std::net::{IpAddr, UdpSocket};
use std::process::{Command, Output};

use crate::harness::pki::Authority;
use crate::harness::{Server, command, temp_dir};
use crate::secured::{secured, with_tls};

/// The user's password is that of the harness's server; the answer's head comes along.
fn curl(server: &Server, root: &std::path::Path, url: &str, more: &[&str]) -> Output {
    let mut curl: Command = command("curl");
    curl.args(["-sS", "-i", "--max-time", "60", "--cacert"])
        .arg(root)
        .args(["-u", &format!("rustydb:{}", server.password)])
        .args(more)
        .arg(url);
    curl.output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn query(sql: &str) -> Vec<String> {
    let body = serde_json::json!({ "sql": sql, "row_format": "array" }).to_string();
    let line = ["-H", "Content-Type: application/json", "-d", &body];
    line.into_iter().map(str::to_owned).collect()
}

#[test]
fn one_port_takes_http_and_https() {
    let secured = secured();
    let (server, root) = (secured.server, secured.root());
    let ask = |scheme: &str, sql: &str| {
        let url = format!("{scheme}://127.0.0.1:{}/api/v1/query", server.api_port);
        let arguments = query(sql);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        text(&curl(server, &root, &url, &arguments))
    };
    let encrypted = ask("https", "select 'over TLS'");
    assert!(encrypted.starts_with("HTTP/2 200"), "{encrypted}");
    assert!(encrypted.contains("over TLS"), "{encrypted}");
    assert!(encrypted.contains("strict-transport-security: max-age="), "{encrypted}");
    let plain = ask("http", "select 'in clear'");
    assert!(plain.contains("in clear"), "{plain}");
    assert!(!plain.contains("strict-transport-security"), "{plain}");
    // More than fits into any buffer, byte for byte.
    let large = "select repeat(md5(n::text), 10) from generate_series(1, 30000) n";
    let body = |answer: String| {
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let mut body: serde_json::Value = serde_json::from_str(body).unwrap();
        body["rows"].take()
    };
    let rows = body(ask("https", large));
    assert_eq!(rows.as_array().unwrap().len(), 30_000);
    assert_eq!(rows, body(ask("http", large)));
}

#[test]
fn several_requests_share_a_connection() {
    let secured = secured();
    let (server, root) = (secured.server, secured.root());
    let url = format!("https://localhost:{}/api/v1/health", server.api_port);
    for (how, head) in [("--http2", "HTTP/2 200"), ("--http1.1", "HTTP/1.1 200")] {
        let output = command("curl")
            .args(["-sS", "-v", how, "--cacert"])
            .arg(&root)
            .args([&url, &url])
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{log}");
        assert!(log.contains("Re-using existing") || log.contains("Reusing existing"), "{log}");
        assert_eq!(log.matches(head).count(), 2, "{log}");
    }
}

#[test]
fn somebody_elses_certificate_and_noise_are_noticed() {
    let secured = secured();
    let server = secured.server;
    let url = format!("https://127.0.0.1:{}/health/live", server.api_port);
    let other = Authority::new("another").write(&secured.folder, "another-https");
    let output = curl(server, &other, &url, &[]);
    assert!(!output.status.success());
    // It begins like TLS and is not: the connection ends, and the next one works.
    use std::io::{Read, Write};
    let mut noise = std::net::TcpStream::connect(("127.0.0.1", server.api_port)).unwrap();
    noise.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    noise.write_all(b"\x16\x03\x01\x00\x05noise of no protocol").unwrap();
    let mut answer = Vec::new();
    let _ = noise.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert!(text(&curl(server, &secured.root(), &url, &[])).contains("alive"));
}

/// An address of this machine that is not loopback.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the kernel only chooses a way.
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|addr| addr.ip()).filter(|ip| !ip.is_loopback())
}

#[test]
fn encryption_can_be_required_of_other_hosts() {
    let Some(address) = own_address() else {
        eprintln!("skipped: this machine has no address but loopback");
        return;
    };
    let folder = temp_dir();
    let ca = Authority::new("required");
    let root = ca.write(folder.path(), "ca");
    let names = ["localhost", "127.0.0.1", &address.to_string()];
    let files = ca.issue(folder.path(), "server", "server", &names);
    let server = with_tls(Server::builder(), &files).set("security.require_tls=true").start();
    let ask = |scheme: &str, host: &str, path: &str| {
        let url = format!("{scheme}://{host}:{}{path}", server.api_port);
        let arguments = match path {
            "/api/v1/query" => query("select 'let in'"),
            _ => Vec::new(),
        };
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        text(&curl(&server, &root, &url, &arguments))
    };
    let far = address.to_string();
    let refused = ask("http", &far, "/api/v1/query");
    assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("TLS_REQUIRED"), "{refused}");
    assert!(ask("https", &far, "/api/v1/query").contains("let in"));
    assert!(ask("http", "127.0.0.1", "/api/v1/query").contains("let in"));
    // Whoever watches the server knows no certificate, and learns nothing.
    assert!(ask("http", &far, "/health/live").starts_with("HTTP/1.1 200"));
}
