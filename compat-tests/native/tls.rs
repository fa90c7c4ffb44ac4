//! TLS: direct, with the protocol named by ALPN or by its preface.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustydb_client::protocol::*;
use tempfile::TempDir;

use crate::client::{Wire, hello, query, start};
use crate::harness::pki::{Authority, Files};
use crate::harness::{Server, temp_dir};

struct Secured {
    server: Server,
    root: PathBuf,
    _folder: TempDir,
}

fn secured(settings: &[&str]) -> Secured {
    let folder = temp_dir();
    let authority = Authority::new("test authority");
    let root = authority.write(folder.path(), "ca");
    let files = authority.issue(folder.path(), "server", "localhost", &["localhost"]);
    let mut builder = Server::builder()
        .set(&format!("security.tls_cert_path={}", files.cert.display()))
        .set(&format!("security.tls_key_path={}", files.key.display()));
    for setting in settings {
        builder = builder.set(setting);
    }
    Secured { server: builder.start(), root, _folder: folder }
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn connect(server: &Server, root: &Path, alpn: &[&[u8]]) -> Tls {
    connect_as(server, root, alpn, None)
}

/// Over TLS, with a certificate of the client's own.
fn connect_as(server: &Server, root: &Path, alpn: &[&[u8]], certificate: Option<&Files>) -> Tls {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(root).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match certificate {
        Some(files) => {
            let chain = vec![CertificateDer::from_pem_file(&files.cert).unwrap()];
            let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), server.connect())
}

#[test]
fn the_protocol_is_named_by_alpn_or_by_its_preface() {
    let secured = secured(&["security.hba=hostssl all all all password"]);
    let server = &secured.server;
    for alpn in [&[&b"rustydb/1"[..]][..], &[]] {
        let mut wire = Wire::over(connect(server, &secured.root, alpn), &PREFACE);
        let offered = [AuthMethod::Password, AuthMethod::Token, AuthMethod::ApiKey];
        assert_eq!(wire.handshake(hello()).auth_methods, offered);
        let begin = start("rustydb", AuthMethod::Password);
        wire.send(2, 0, &Message::Auth(Auth::Start(Box::new(begin))));
        let password = server.password.clone();
        wire.send(2, 0, &Message::Auth(Auth::Password { password }));
        let reply = wire.read();
        assert!(
            matches!(reply.message, Message::AuthReply(AuthReply::Success { .. })),
            "{reply:?}"
        );
        let Message::QueryResponse(response) = wire.one(&query("SELECT 1", vec![])) else {
            panic!()
        };
        assert_eq!(response.rows, [[Value::Int4(1)]]);
    }
    // Who has asked for PostgreSQL gets PostgreSQL.
    let mut wire = Wire::over(connect(server, &secured.root, &[b"postgresql"]), &PREFACE);
    assert!(wire.try_read().is_none());
}

#[test]
fn scram_plus_is_offered_over_tls() {
    let secured = secured(&[]);
    let stream = connect(&secured.server, &secured.root, &[b"rustydb/1"]);
    let mut wire = Wire::over(stream, &PREFACE);
    let methods = wire.handshake(hello()).auth_methods;
    assert_eq!(methods[..2], [AuthMethod::ScramSha256Plus, AuthMethod::ScramSha256]);
    let begin = start("rustydb", AuthMethod::ScramSha256Plus);
    wire.send(2, 0, &Message::Auth(Auth::Start(Box::new(begin))));
    let mechanism = "SCRAM-SHA-256-PLUS".to_owned();
    let data = b"p=tls-server-end-point,,n=,r=abc".to_vec();
    wire.send(2, 0, &Message::Auth(Auth::SaslInitial { mechanism, data }));
    let Message::AuthReply(AuthReply::SaslContinue { data }) = wire.read().message else {
        panic!()
    };
    assert!(data.starts_with(b"r=abc"));
}

#[test]
fn a_certificate_of_the_client_is_a_log_in() {
    let folder = temp_dir();
    let clients = Authority::new("client authority");
    let ca = clients.write(folder.path(), "clients");
    let own = clients.issue(folder.path(), "own", "rustydb", &[]);
    let other = clients.issue(folder.path(), "other", "somebody", &[]);
    let ca = format!("security.ca_cert_path={}", ca.display());
    let secured = secured(&["security.hba=hostssl all all all cert", &ca]);
    let log_in = |certificate: Option<&Files>, method| {
        let stream = connect_as(&secured.server, &secured.root, &[b"rustydb/1"], certificate);
        let mut wire = Wire::over(stream, &PREFACE);
        assert_eq!(wire.handshake(hello()).auth_methods, [AuthMethod::Certificate]);
        let begin = start("rustydb", method);
        wire.send(2, 0, &Message::Auth(Auth::Start(Box::new(begin))));
        wire.send(2, 0, &Message::Auth(Auth::Certificate));
        wire
    };
    let mut wire = log_in(Some(&own), AuthMethod::Certificate);
    let reply = wire.read().message;
    assert!(matches!(reply, Message::AuthReply(AuthReply::Success { .. })), "{reply:?}");
    assert_eq!(wire.rows("SELECT current_user::text", vec![]), [[Value::Text("rustydb".into())]]);
    // Somebody else's, and none at all.
    for certificate in [Some(&other), None] {
        let error = log_in(certificate, AuthMethod::Certificate).fatal();
        assert_eq!(error.sqlstate, "28000", "{error:?}");
        assert_eq!(error.code, "AUTHENTICATION_FAILED");
    }
    // A certificate does not do for who claims another method.
    let error = log_in(Some(&own), AuthMethod::ScramSha256).fatal();
    assert_eq!(error.sqlstate, "28000", "{error:?}");
}
