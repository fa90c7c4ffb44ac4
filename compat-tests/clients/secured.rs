//! A server with a certificate, an authority for clients, and rules for a cast of roles; and a
//! client that speaks TLS by hand.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::Shared;
use crate::harness::pki::{Authority, Files};
use crate::harness::{Builder, Psql, Server, feed, temp_dir};
use crate::raw::Wire;

/// Who may come in how: each role stands for a rule. Everybody else has none.
const RULES: &str = "
    local all os_user peer map=os
    local all imposter peer
    local all rustydb scram-sha-256
    hostssl all holder all cert
    hostssl all mapped all cert map=names
    hostssl all lettered all cert clientname=SAN
    hostssl all two_factor all scram-sha-256 clientcert=verify-full
    hostssl all signed all trust clientcert=verify-ca
    hostnossl all encrypted all reject
    host all encrypted,free,tls_free samehost trust
    host all clear samenet password
    host postgres rustydb all reject
    host all rustydb all scram-sha-256
    host all ghost all trust";

const ROLES: &str = "
    create role os_user login; create role imposter login; create role holder login;
    create role mapped login; create role lettered login;
    create role two_factor login password 'two things'; create role signed login;
    create role encrypted login; create role free login; create role tls_free login;
    create role clear login password 'in clear'; create role unlisted login password 'x';";

pub struct Secured {
    pub server: &'static Server,
    pub folder: PathBuf,
    pub ca: Authority,
}

/// Settings of TLS with these files.
pub fn with_tls(builder: Builder, files: &Files) -> Builder {
    builder
        .set(&format!("security.tls_cert_path={}", files.cert.display()))
        .set(&format!("security.tls_key_path={}", files.key.display()))
}

pub fn secured() -> &'static Secured {
    static SERVER: OnceLock<(Shared, tempfile::TempDir)> = OnceLock::new();
    static SECURED: OnceLock<Secured> = OnceLock::new();
    SECURED.get_or_init(|| {
        let folder = temp_dir();
        let path = folder.path().to_owned();
        let ca = Authority::new("the authority");
        let files = ca.issue(&path, "server", "server", &["localhost", "127.0.0.1"]);
        let root = ca.write(&path, "ca");
        let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).unwrap().unwrap();
        let map = format!("os {} os_user; names outsider mapped", user.name);
        let builder = with_tls(Server::builder(), &files)
            .set(&format!("security.ca_cert_path={}", root.display()))
            .set(&format!("security.hba={RULES}"))
            .set(&format!("security.ident_map={map}"));
        let (shared, _) = SERVER.get_or_init(|| (Shared::start(builder), folder));
        let made = shared.server.direct_psql(ROLES);
        assert_eq!(made.stderr, "");
        Secured { server: &shared.server, folder: path, ca }
    })
}

impl Secured {
    /// `psql` over TLS as a role, with every check of the server's certificate.
    pub fn psql(&self, role: &str) -> Command {
        let mut psql = self.server.psql_command();
        psql.args(["-U", role, "-v", "VERBOSITY=verbose", "-At"])
            .env_remove("PGPASSWORD")
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", self.folder.join("ca.crt"));
        psql
    }

    /// `psql` with a certificate of its own.
    pub fn psql_with(&self, role: &str, files: &Files) -> Command {
        let mut psql = self.psql(role);
        psql.env("PGSSLCERT", &files.cert).env("PGSSLKEY", &files.key);
        psql
    }

    pub fn root(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }
}

pub fn run(psql: &mut Command) -> Psql {
    feed(psql, "select session_user;").into()
}

/// A client's settings: the authority that it believes, and what it offers by ALPN.
pub fn client_config(root: &Path, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(root).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

pub type TlsSocket = StreamOwned<ClientConnection, TcpStream>;

/// A socket on which the handshake begins with the first byte.
pub fn tls_socket(socket: TcpStream, config: &Arc<ClientConfig>) -> TlsSocket {
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), socket)
}

/// A client that begins with TLS at once, not logged in.
pub fn direct_tls(server: &Server, root: &Path) -> Wire {
    let config = client_config(root, &[b"postgresql"]);
    Wire { socket: Box::new(tls_socket(server.connect(), &config)) }
}
