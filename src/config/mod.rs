//! Configuration as plain data: every key with its type, default and meaning, in one place.
//!
//! The macro below makes of each section a struct, the table that the loader, `config show` and
//! `config default` work from, and nothing else; a key exists when it stands here. `=> live` behind
//! a default means that a reload changes the key of a running server.

mod access;
mod derived;
mod hba;
mod http;
mod live;
mod load;
mod native;
mod overrides;
mod pools;
mod runtime;
mod value;

use std::collections::BTreeMap;
use std::path::PathBuf;

use ipnet::IpNet;

pub use access::{AuditFull, AuditLevel, JwtIssuer, JwtKey, RateAlgorithm, RateRule, RateScope};
pub use hba::{
    ClientCert, ClientName, HbaAddress, HbaMethod, HbaName, HbaRule, HbaType, IdentEntry,
};
pub use http::Encodings;
pub use live::{Changes, Live, Reloader, Setting};
pub use load::{ConfigErrors, Flag, Inputs, Loaded, default_file};
pub use native::{ChecksumMode, Compressions, NativeExtension, NativeExtensions, QueueFullPolicy};
pub use overrides::{PoolOverride, PoolOverrides};
pub use runtime::{Origin, RUNTIME_FILE, Wishes};
pub use value::{
    BackendMode, BackendTls, BackendUrl, BackendUrlParts, ByteSize, LogFormat, LogLevel, Millis,
    PoolingMode, RecyclingStrategy, Secs, SizingMode, SslMode, TlsMode, TlsVersion,
    ValidationLevel, Value,
};

/// Who issued the tokens that RustyDB itself gives, the claim `iss`.
pub const OWN_ISSUER: &str = "rustydb";

/// What the loader knows of one key.
pub struct Key {
    /// Dotted path, for instance `network.port`.
    pub path: String,
    /// Its documentation, as it stands in the default file.
    pub doc: &'static str,
    /// A second, shorter environment variable.
    pub env_alias: Option<&'static str>,
    /// Whether a reload changes it; otherwise it needs a restart.
    pub live: bool,
}

macro_rules! config {
    ($(
        $(#[doc = $section_doc:literal])*
        $field:ident: $section:ident at $table:literal {
            $(
                $(#[doc = $doc:literal])*
                $key:ident: $type:ty = $default:expr $(, env $env:literal)? $(=> $live:ident)?;
            )*
        }
    )*) => {
        /// The whole configuration, checked.
        #[derive(Clone, Debug, Default)]
        pub struct Config { $( $(#[doc = $section_doc])* pub $field: $section, )* }

        $(
            $(#[doc = $section_doc])*
            #[derive(Clone, Debug)]
            pub struct $section { $( $(#[doc = $doc])* pub $key: $type, )* }

            impl Default for $section {
                fn default() -> Self {
                    Self { $($key: $default,)* }
                }
            }
        )*

        impl Config {
            /// Sections as (table, documentation), in the order of the file.
            pub fn sections() -> Vec<(&'static str, &'static str)> {
                vec![$(($table, concat!($($section_doc, "\n"),*)),)*]
            }

            /// Every key, in the order of the file.
            pub fn keys() -> Vec<Key> {
                vec![$($(Key {
                    path: format!("{}.{}", $table, stringify!($key)),
                    doc: concat!($($doc, "\n"),*),
                    env_alias: [$($env)?].first().copied(),
                    live: <[&str]>::first(&[$(stringify!($live))?]).is_some(),
                },)*)*]
            }

            /// Sets one key by its path; `None` when there is no such key.
            fn set(&mut self, path: &str, raw: &toml::Value) -> Option<Result<(), String>> {
                $($(
                    if path == concat!($table, ".", stringify!($key)) {
                        return Some(Value::read(raw).map(|value| self.$field.$key = value));
                    }
                )*)*
                None
            }

            /// Takes the keys that can change at run time from `newer`, and returns the paths of
            /// those that differ (taken, left).
            fn take_live(&mut self, newer: &Self) -> (Vec<&'static str>, Vec<&'static str>) {
                let (mut taken, mut left) = (Vec::new(), Vec::new());
                $($(
                    if self.$field.$key != newer.$field.$key {
                        let path = concat!($table, ".", stringify!($key));
                        if <[&str]>::first(&[$(stringify!($live))?]).is_some() {
                            self.$field.$key = newer.$field.$key.clone();
                            taken.push(path);
                        } else {
                            left.push(path);
                        }
                    }
                )*)*
                (taken, left)
            }

            /// One key by its path, secrets hidden.
            pub fn get(&self, path: &str) -> Option<toml::Value> {
                $($(
                    if path == concat!($table, ".", stringify!($key)) {
                        return Some(self.$field.$key.write());
                    }
                )*)*
                None
            }
        }
    };
}

config! {
    /// The process.
    server: Server at "server" {
        /// Everything RustyDB keeps: the embedded PostgreSQL, the administrator's first password.
        /// Without a value: /var/lib/rustydb where that can be written, else ./data.
        data_dir: Option<PathBuf> = None;
        /// Threads that serve clients, each with its own event loop; 0 = one for every two cores:
        /// a statement costs PostgreSQL more than RustyDB, and both need the cores.
        worker_threads: usize = 0;
        /// Seconds between "not ready" and the end of accepting, for load balancers.
        shutdown_delay_secs: Secs = Secs(0) => live;
        /// Seconds that running statements and open transactions get at shutdown.
        shutdown_grace_secs: Secs = Secs(30) => live;
        /// Seconds that clients may stay connected to this process when another has taken over
        /// (rustydb --takeover); then it shuts down as at SIGTERM. "none" = until the last leaves.
        takeover_stay_secs: Option<Secs> = Some(Secs(3600)) => live;
    }

    /// The door for PostgreSQL and native clients.
    network: Network at "network" {
        /// Addresses to listen on.
        listen_addr: Vec<String> = vec!["0.0.0.0".into()], env "RUSTYDB_LISTEN_ADDR";
        /// TCP port, and the number in the name of the Unix socket; 0 = any free port.
        port: u16 = 5432, env "RUSTYDB_PORT";
        /// Directory of the Unix socket; "none" = no Unix socket.
        unix_socket_dir: Option<PathBuf> = Some("/tmp".into());
        /// Clients connected at once; the next one is refused with 53300.
        max_connections: usize = 10_000, env "RUSTYDB_MAX_CONNECTIONS" => live;
        /// Clients of one role connected at once; "none" = as many as max_connections.
        max_connections_per_user: Option<usize> = None => live;
        /// Clients of one database connected at once; "none" = as many as max_connections.
        max_connections_per_database: Option<usize> = None => live;
        /// Clients of one address connected at once, those that log in included; "none" = as many
        /// as max_connections. The Unix socket has no address and is not counted.
        max_connections_per_address: Option<usize> = None => live;
        /// Expect the PROXY protocol, version 1 or 2, from the addresses of proxy_networks; the
        /// address that it names is then the client's.
        proxy_protocol: bool = false;
        /// Networks of the proxies, for instance ["10.0.0.0/24"]. Others connect directly.
        proxy_networks: Vec<IpNet> = Vec::new();
        /// Longest SQL text that a door keeps in memory (HTTP); at most 16 MiB.
        max_request_size: ByteSize = ByteSize(1 << 20) => live;
        /// Seconds a new connection has to identify itself and log in.
        connection_timeout_secs: Secs = Secs(30) => live;
        /// Seconds after which an idle client is sent away with 57P05; "none" = never.
        idle_timeout_secs: Option<Secs> = None => live;
        /// Send small packets at once (TCP_NODELAY).
        tcp_nodelay: bool = true => live;
        /// Seconds of silence before TCP asks whether the client is still there; "none" = never.
        keepalive_secs: Option<Secs> = Some(Secs(60)) => live;
        /// Connections that the kernel queues before they are accepted.
        backlog: u32 = 1024;
    }

    /// The PostgreSQL protocol.
    pgwire: Pgwire at "network.pgwire" {
        /// Longest start-up packet, as in PostgreSQL.
        max_startup_bytes: ByteSize = ByteSize(10_000) => live;
    }

    /// The native protocol, on the same port and Unix socket.
    native: Native at "network.native" {
        /// How bodies may be compressed: none, lz4, zstd, snappy. The client's order decides.
        compression: Compressions = Compressions::default() => live;
        /// Bodies smaller than this are not compressed.
        compression_threshold: ByteSize = ByteSize(1024) => live;
        /// Checksums: "optional" (when the client wants them), "required" or "off".
        checksum: ChecksumMode = ChecksumMode::Optional => live;
        /// Seconds from the preface to the end of the handshake.
        handshake_timeout_secs: Secs = Secs(10) => live;
        /// Seconds from the handshake to the end of the log-in.
        auth_timeout_secs: Secs = Secs(60) => live;
        /// Milliseconds of silence after which a heartbeat is sent; after two without an answer the
        /// connection is closed.
        heartbeat_interval_ms: Millis = Millis(30_000) => live;
        /// Longest message, 64 KiB to 16 MiB.
        max_message_size: ByteSize = ByteSize(16 << 20);
        /// Requests without a final reply, for each connection.
        max_pending_requests: u32 = 10_000 => live;
        /// Requests that wait to be started, for each connection.
        max_queued_requests: u32 = 1000 => live;
        /// When that many wait: "reject" the next one, or "drop_lowest": refuse the newest of the
        /// lowest priority instead, if the next one is more important.
        queue_full_policy: QueueFullPolicy = QueueFullPolicy::Reject => live;
        /// Bytes of requests and replies that all connections may hold; above it, those that hold
        /// most are not read.
        max_inflight_bytes: ByteSize = ByteSize(1 << 30) => live;
        /// Bytes that a client may send at first for each bulk insert; at least 64 KiB.
        stream_window: ByteSize = ByteSize(1 << 20) => live;
        /// Bytes that a client may send at first in all; at least 64 KiB.
        connection_window: ByteSize = ByteSize(16 << 20) => live;
        /// Bytes of one part of a streamed result, about.
        stream_chunk_bytes: ByteSize = ByteSize(64 << 10) => live;
        /// Seconds that a client may take nothing of its replies before it is disconnected.
        slow_consumer_timeout_secs: Secs = Secs(30) => live;
        /// Subscriptions of one connection; there is nothing to subscribe to yet.
        max_subscriptions: u32 = 100 => live;
        /// Statements in one batch.
        max_batch_statements: u32 = 1000 => live;
        /// When a client gives its connection back, unless pool.users or pool.databases says
        /// otherwise: "session", "transaction" or "statement".
        pooling_mode: PoolingMode = PoolingMode::Transaction => live;
        /// Extensions that clients may agree on: codec.json and codec.msgpack (all messages in that
        /// form), rustydb.echo (gives back what it gets).
        extensions: NativeExtensions = NativeExtensions::default() => live;
    }

    /// The HTTP door.
    api: Api at "api" {
        /// Addresses to listen on.
        listen_addr: Vec<String> = vec!["0.0.0.0".into()], env "RUSTYDB_API_LISTEN_ADDR";
        /// TCP port; 0 = any free port.
        port: u16 = 8080, env "RUSTYDB_API_PORT";
        /// Database that a request works on unless it names another.
        /// Without a value of its own, that of backend.url where there is one.
        database: String = "rustydb".into() => live;
        /// Seconds a request may take unless it says otherwise; streams of rows (NDJSON) are
        /// exempt.
        request_timeout_secs: Secs = Secs(30), env "RUSTYDB_API_TIMEOUT" => live;
        /// Requests a second of one user, or of one address without one: short for
        /// rate_limit.requests, with window_secs = 1 and a burst of twice as many; "none" = those.
        rate_limit_rps: Option<u32> = None => live;
        /// Whether pages of other origins (scheme, host and port) may use the API from a browser.
        enable_cors: bool = true, env "RUSTYDB_API_ENABLE_CORS" => live;
        /// Those origins, for instance `["https://app.example.com"]`; none = only pages that this
        /// server serves itself. ["*"] = all, which needs cors_credentials = false.
        cors_origins: Vec<String> = Vec::new() => live;
        /// Whether such pages may send cookies.
        cors_credentials: bool = true => live;
        /// Seconds that a browser may remember what it may.
        cors_max_age_secs: Secs = Secs(600) => live;
        /// How answers above 1 KiB may be compressed, best first: gzip, br, zstd; "none" = not.
        compression: Encodings = Encodings::default() => live;
        /// Seconds that the answer to a POST with an Idempotency-Key is kept to be repeated.
        idempotency_ttl_secs: Secs = Secs(600) => live;
        /// Longest request body, also when it was compressed.
        max_body_size: ByteSize = ByteSize(10 << 20) => live;
        /// Longest body of rows as NDJSON or CSV, which PostgreSQL reads as they come.
        max_bulk_size: ByteSize = ByteSize(1 << 30) => live;
        /// Entries of a list's page when the request does not say how many.
        default_page_size: u32 = 50 => live;
        /// Entries of a list's page at most; who asks for more gets so many.
        max_page_size: u32 = 1000 => live;
        /// Whether the API is described: /api/v1/openapi.json, and for people /swagger-ui/ and
        /// /redoc/.
        enable_swagger: bool = true => live;
        /// Schemas whose tables and functions are below /rest/v1; the first one is meant when a
        /// request names none (Accept-Profile, Content-Profile).
        rest_schemas: Vec<String> = vec!["public".into()] => live;
        /// Role that logs in for the roles of tokens that may not log in themselves, and becomes
        /// them for a transaction; grant them to it. It serves rows and functions only, no SQL of
        /// clients, and must not be a superuser.
        authenticator_role: Option<String> = None => live;
        /// Role of requests for rows and functions that come without credentials.
        anonymous_role: Option<String> = None => live;
        /// Transactions over several HTTP requests, and sessions that hold a connection, at once.
        max_open_transactions: usize = 1000 => live;
        /// Those of one role, which wait for a connection or have one of the pool's each.
        max_open_transactions_per_role: usize = 20 => live;
        /// Seconds after which such a transaction is rolled back when nobody uses it.
        transaction_idle_timeout_secs: Secs = Secs(60) => live;
        /// Sessions that clients of the API may have open at once, for the header X-Session-Id.
        max_open_sessions: usize = 1000 => live;
        /// Those of one role.
        max_open_sessions_per_role: usize = 100 => live;
        /// Seconds after which such a session ends when nobody uses it.
        session_idle_timeout_secs: Secs = Secs(300) => live;
        /// Longest single row that is turned into JSON.
        max_row_size: ByteSize = ByteSize(16 << 20) => live;
        /// Seconds after which a client that takes nothing of its answer is disconnected.
        stall_timeout_secs: Secs = Secs(60) => live;
        /// Requests in work at once; the next one is answered 503.
        max_connections: usize = 1000 => live;
        /// Open HTTP connections, idle ones included.
        max_sockets: usize = 20_000 => live;
        /// Seconds an idle HTTP connection is kept.
        keep_alive_secs: Secs = Secs(75) => live;
        /// Whether clients may speak HTTP/2: over TLS by ALPN, in clear text by prior knowledge.
        enable_http2: bool = true;
        /// Requests that a client may have in work at once on one HTTP/2 connection.
        http2_max_streams: u32 = 100 => live;
    }

    /// PostgreSQL behind RustyDB.
    backend: Backend at "backend" {
        /// "embedded": a private PostgreSQL that RustyDB starts; "external": the one of `url`.
        mode: BackendMode = BackendMode::Embedded;
        /// postgresql://user:password@host:port/database of an external PostgreSQL. The user is the
        /// system role: it reads the verifiers of the clients' roles and must be a superuser.
        /// With several servers (host1:port1,host2:port2) the primary is found by asking them.
        url: Option<BackendUrl> = None;
        /// Seconds that one attempt to log in to PostgreSQL may take.
        connect_timeout_secs: Secs = Secs(5) => live;
        /// Seconds that a new transaction waits while PostgreSQL is out of reach, or has no
        /// primary, before its client gets 57P03. A log-in is bounded by
        /// network.connection_timeout_secs as well.
        failover_wait_secs: Secs = Secs(60) => live;
        /// Seconds between two looks at the health of PostgreSQL and the disk.
        health_interval_secs: Secs = Secs(5) => live;
    }

    /// The embedded PostgreSQL.
    embedded: Embedded at "backend.embedded" {
        /// Directory with initdb and postgres; without a value the newest installed of 13 to 18.
        pg_bin_dir: Option<PathBuf> = None;
        /// Operating-system user that runs PostgreSQL when RustyDB is root; without a value the
        /// owner of an existing cluster, else postgres.
        run_as: Option<String> = None;
        /// PostgreSQL's shared_buffers; without a value a quarter of the memory, at most 8 GiB.
        shared_buffers: Option<String> = None;
        /// Further settings of postgresql.conf, for instance { work_mem = "16MB" }.
        extra_conf: BTreeMap<String, String> = BTreeMap::new();
        /// Deaths of PostgreSQL within ten minutes that are healed; at the next RustyDB gives up.
        max_restarts: u32 = 5;
        /// Seconds PostgreSQL has to start (recovery after a crash and repeated attempts included)
        /// or to stop.
        start_timeout_secs: Secs = Secs(300);
        /// Where backups go; without a value the directory backups in server.data_dir.
        backup_dir: Option<PathBuf> = None;
    }

    /// Connections to PostgreSQL, shared by all doors.
    pool: Pool at "pool" {
        /// When a PostgreSQL client gives its connection back: "session" (at its end),
        /// "transaction" or "statement" (then transactions of several statements are refused).
        pooling_mode: PoolingMode = PoolingMode::Transaction => live;
        /// Connections in all; PostgreSQL's max_connections must exceed it by reserved_size and 3.
        max_size: usize = 100, env "RUSTYDB_POOL_MAX_SIZE" => live;
        /// Connections that are kept although they are idle, max_size at most, and made again when
        /// they are lost; new ones are for the role and database that were used last.
        min_size: usize = 5 => live;
        /// Connections that the first client causes to be made, its own included, for its role and
        /// database: before it, nobody's are known. 0 = only those that are needed.
        initial_size: usize = 0;
        /// Connections being made at once.
        max_concurrent_creations: usize = 4 => live;
        /// Connections made per second in the long run; a full pool may be made at once.
        /// "none" = as many as are needed.
        creation_throttle: Option<usize> = Some(100) => live;
        /// Connections of the system role, for log-ins and health, beside max_size.
        reserved_size: usize = 5;
        /// Seconds a client waits for a connection before it gets 53300.
        acquire_timeout_secs: Secs = Secs(30), env "RUSTYDB_POOL_TIMEOUT" => live;
        /// Clients that may wait at once; the next one gets 53300 at once. Those of a role or
        /// database with a max_size of its own are counted apart; while PostgreSQL is out of
        /// reach, everybody waits.
        max_wait_queue_size: usize = 1000 => live;
        /// Seconds of waiting after which a client counts as starved in the metrics.
        starvation_threshold_secs: Secs = Secs(10) => live;
        /// Seconds after which a connection is replaced, give or take a tenth; "none" = never.
        max_lifetime_secs: Option<Secs> = Some(Secs(3600)) => live;
        /// How often a connection is lent to sessions before it is replaced; 0 = as often as they
        /// come.
        max_uses: u32 = 0 => live;
        /// Seconds after which an idle connection is closed; "none" = never.
        idle_timeout_secs: Option<Secs> = Some(Secs(600)) => live;
        /// Prepared statements kept on each connection; the least recently used goes first.
        statement_cache_size: usize = 100 => live;
        /// Milliseconds without a request after which a session that keeps its connection is
        /// looked at: if nothing holds it there any more, the connection goes back. Earlier when
        /// others wait.
        unpin_after_ms: u32 = 20 => live;
        /// How a connection that was idle is checked before its next use: "none", "ping" (an empty
        /// query) or "query". A connection that was closed is noticed without a check.
        validation_level: ValidationLevel = ValidationLevel::Ping => live;
        /// What "query" sends.
        validation_sql: String = "SELECT 1".into() => live;
        /// Seconds of being idle before which a connection is not checked.
        validation_skip_recent_secs: Secs = Secs(1) => live;
        /// Seconds after which a check has failed.
        validation_timeout_secs: Secs = Secs(5) => live;
        /// Seconds after which a client that holds a connection and does nothing is reported, but
        /// for clients of session pooling; "none" = never.
        leak_detection_threshold_secs: Option<Secs> = Some(Secs(300)) => live;
        /// A connection that a session gives back is kept, and cleaned where what was left on it is
        /// not known ("adaptive"); it is cleaned ("checked"), or closed ("replace").
        recycling_strategy: RecyclingStrategy = RecyclingStrategy::Adaptive => live;
        /// Seconds to clean a connection (DISCARD ALL) before it is closed instead, and for every
        /// other statement of RustyDB's own on a client's connection.
        reset_timeout_secs: Secs = Secs(5) => live;
        /// Seconds between two looks for connections that are too old.
        maintenance_interval_secs: Secs = Secs(30) => live;
        /// What differs for single roles, for instance
        /// { alice = { max_size = 20, pooling_mode = "session" } }, or a table [pool.users.alice]
        /// for each instead of this line. A role's mode comes before its database's; another mode
        /// counts for clients that come in later.
        users: PoolOverrides = PoolOverrides::new() => live;
        /// What differs for single databases, in the same form.
        databases: PoolOverrides = PoolOverrides::new() => live;
    }

    /// How the number of connections follows the load.
    sizing: Sizing at "pool.sizing" {
        /// "elastic", or "fixed": always pool.max_size.
        mode: SizingMode = SizingMode::Elastic => live;
        /// Part of the connections in use at which some are made in advance.
        scale_up_threshold: f64 = 0.8 => live;
        /// Part of the connections in use below which idle ones are closed.
        scale_down_threshold: f64 = 0.3 => live;
        /// Connections made or closed at one look.
        step: usize = 2 => live;
        /// Seconds between two looks that close connections.
        cool_down_secs: Secs = Secs(60) => live;
    }

    /// Sessions of PostgreSQL and native clients.
    session: Session at "session" {
        /// Prepared statements of one session, unless it is pooled by session: one more is refused
        /// with 54000. Beyond 1024 a session keeps its connection.
        max_prepared_statements: usize = 10_000 => live;
        /// Length of their texts together. Texts of more than 1 MiB are not kept and not counted;
        /// they hold the session on its connection.
        max_prepared_bytes: ByteSize = ByteSize(32 << 20) => live;
        /// Seconds after which a PostgreSQL or native client that does nothing within a transaction
        /// is sent away with 25P03, and its transaction is rolled back; "none" = never.
        idle_in_transaction_timeout_secs: Option<Secs> = None => live;
        /// Seconds after which, or up to a tenth later, a PostgreSQL or native client is sent away
        /// with 57P01 between two transactions, to come again; "none" = never.
        max_session_lifetime_secs: Option<Secs> = None => live;
    }

    /// Pooled sessions, which clients of one connection class share (rustydb.connection_class,
    /// rustydb.purity, rustydb.tag).
    drcp: Drcp at "session.drcp" {
        /// False: what clients ask for is passed over, and nobody shares anything.
        enabled: bool = true => live;
        /// Sessions that are kept although nobody has asked for one for inactivity_timeout_secs.
        min_size: usize = 0 => live;
        /// Pooled sessions at once, held and parked; "none" = as many as pool.max_size.
        max_size: Option<usize> = None;
        /// Seconds after which a session that nobody takes is closed.
        inactivity_timeout_secs: Secs = Secs(300) => live;
        /// Seconds that a client may hold a pooled session without a request; then it is taken
        /// away, and an open transaction is rolled back.
        max_think_time_secs: Secs = Secs(120) => live;
        /// Clients that one session serves, one after the other, before it is closed.
        max_use_session: usize = 500_000 => live;
        /// Seconds after which a session is closed when it is released.
        max_lifetime_secs: Secs = Secs(86_400) => live;
        /// Tags that parked sessions may have; with one more the longest parked session is closed.
        max_tags: usize = 1000 => live;
    }

    /// Who may come in.
    security: Security at "security" {
        /// Ask for passwords. False only together with --insecure, which binds to loopback.
        enable_auth: bool = true, env "RUSTYDB_REQUIRE_AUTH";
        /// Seconds that a role's verifier is kept before PostgreSQL is asked again. Changes of
        /// roles that pass through RustyDB count at once, others at most this much later.
        verifier_cache_secs: Secs = Secs(5) => live;
        /// Who may come in how, PostgreSQL and native clients: lines as in pg_hba.conf, or tables
        /// [[security.hba]] with type, database, role, address, method. The first that fits counts.
        /// Methods: trust, reject, scram-sha-256, password, cert, peer; options: clientcert=,
        /// clientname=CN|SAN, map=. With --insecure nobody is asked, whatever stands here.
        hba: Vec<HbaRule> = HbaRule::defaults() => live;
        /// For the option map=: lines "map system-user role", as in pg_ident.conf. The system user
        /// is the name in the certificate, or that of the operating system's user.
        ident_map: Vec<IdentEntry> = Vec::new() => live;
        /// TLS for PostgreSQL and HTTP clients: "auto" (when tls_cert_path exists), true or false.
        enable_tls: TlsMode = TlsMode::Auto, env "RUSTYDB_ENABLE_TLS";
        /// Refuse clients without TLS from other hosts.
        require_tls: bool = false => live;
        /// The certificate, with those of intermediate authorities after it (PEM). A new one is
        /// taken without a restart.
        tls_cert_path: PathBuf = "/etc/rustydb/server.crt".into(), env "RUSTYDB_TLS_CERT";
        /// Its private key (PEM), which others must not be able to read.
        tls_key_path: PathBuf = "/etc/rustydb/server.key".into(), env "RUSTYDB_TLS_KEY";
        /// Authorities that sign the certificates of clients (PEM); "none" = clients are not asked
        /// for a certificate.
        ca_cert_path: Option<PathBuf> = None, env "RUSTYDB_TLS_CA";
        /// Revocation lists of those authorities (PEM, one after the other), as PostgreSQL's
        /// ssl_crl_file: each authority in the chain of a client's certificate needs one, and one
        /// that is past its next update refuses everybody. A new file is taken without a restart.
        crl_path: Option<PathBuf> = None;
        /// Further certificates with their keys, { "/path/b.crt" = "/path/b.key" }, at most 100: a
        /// client sees the one for the name that it asks for (SNI), else that of tls_cert_path.
        sni_certificates: BTreeMap<String, String> = BTreeMap::new();
        /// Break off with clients that have no certificate.
        require_client_cert: bool = false;
        /// 1.3, or 1.2 for older drivers; 1.2 has forward secrecy and AEAD only.
        min_tls_version: TlsVersion = TlsVersion::V13;
        /// Cipher suites of TLS 1.3, best first; TLS_AES_128_GCM_SHA256 may be added.
        cipher_suites: Vec<String> = vec![
            "TLS_AES_256_GCM_SHA384".into(),
            "TLS_CHACHA20_POLY1305_SHA256".into(),
        ];
        /// Seconds between two looks whether the certificate's files have changed.
        tls_check_secs: Secs = Secs(60) => live;
    }

    /// Tokens of others, JSON Web Tokens: whose are taken, and which role they stand for.
    jwt: Jwt at "security.jwt" {
        /// Tables [[security.jwt.issuers]] with issuer, audience, jwks_url or keys (each with kid
        /// and one of pem_file, jwks_file, secret, secret_file), algorithms, role_claim ("role", or
        /// a path such as "$.app.role"), default_role, roles (that tokens may name; empty = all but
        /// superusers), leeway_secs. A claim that names no role is refused, and so is one that may
        /// not log in, unless api.authenticator_role does so for it.
        issuers: Vec<JwtIssuer> = Vec::new() => live;
    }

    /// Tokens that RustyDB gives at a log-in over HTTP.
    tokens: Tokens at "security.tokens" {
        /// Seconds that an access token is good for.
        access_ttl_secs: Secs = Secs(900) => live;
        /// Seconds that a refresh token is good for, each of them once.
        refresh_ttl_secs: Secs = Secs(604_800) => live;
        /// Seconds that the session of a browser is good for.
        session_ttl_secs: Secs = Secs(86_400) => live;
    }

    /// Keys of programs (X-API-Key).
    api_keys: ApiKeys at "security.api_keys" {
        /// Whether they are taken.
        enabled: bool = true => live;
        /// Keys that one role may have.
        max_per_user: u32 = 100 => live;
        /// Seconds that a key is good for that was made without an end; "none" = for ever.
        default_ttl_secs: Option<Secs> = None => live;
    }

    /// What happens when somebody tries passwords.
    lockout: Lockout at "security.lockout" {
        /// Failed log-ins of a role within window_secs after which it is locked. Clients that have
        /// logged in from the same address before are counted by themselves, so that nobody
        /// elsewhere can lock them out.
        max_failures: u32 = 10 => live;
        /// Seconds in which they are counted.
        window_secs: Secs = Secs(900) => live;
        /// Seconds that the role stays locked; 0 = it is never locked.
        duration_secs: Secs = Secs(900) => live;
    }

    /// Passwords that administrators give to users.
    password: Password at "security.password" {
        /// Characters that one has at least.
        min_length: u32 = 12 => live;
    }

    /// What a role may do over HTTP, beside what PostgreSQL lets it do.
    rbac: Rbac at "security.rbac" {
        /// The role of RustyDB that every log-in has: admin, operator, user, analyst, readonly,
        /// monitor, or one that was made.
        default_role: String = "user".into() => live;
    }

    /// The audit log: who came in, who did not, and what administrators changed.
    audit: Audit at "security.audit" {
        /// Whether it is kept.
        enabled: bool = true;
        /// Which HTTP requests it has a record of: "security" (none), "ddl" (those that change
        /// definitions or the server), "write" (all that may change something, SQL included) or
        /// "all". Log-ins and refusals are always in it.
        level: AuditLevel = AuditLevel::Ddl => live;
        /// The file, a JSON object on each line; without a value audit.jsonl in server.data_dir.
        path: Option<PathBuf> = None;
        /// Length at which a new file is begun.
        rotate_bytes: ByteSize = ByteSize(100 << 20) => live;
        /// Files that are kept, the present one included.
        rotate_files: u32 = 10 => live;
        /// Events that may wait to be written.
        channel: u32 = 10_000;
        /// When that many wait: "block" (a log-in waits for up to a second), "drop" the event, or
        /// "refuse" what it is about.
        on_full: AuditFull = AuditFull::Block => live;
    }

    /// How often requests and log-ins may come.
    rate_limit: RateLimit at "rate_limit" {
        /// Whether requests are limited; log-ins always are.
        enabled: bool = true => live;
        /// token_bucket, sliding_window or fixed_window.
        algorithm: RateAlgorithm = RateAlgorithm::TokenBucket => live;
        /// Requests of one user, or of one address without one, in window_secs.
        requests: u32 = 100, env "RUSTYDB_API_RATE_LIMIT" => live;
        /// Seconds.
        window_secs: Secs = Secs(1) => live;
        /// Requests that a token bucket lets through at once.
        burst: u32 = 200 => live;
        /// Users, addresses and keys that are remembered; who was idle for longest is forgotten.
        max_keys: usize = 100_000 => live;
        /// Failed log-ins a minute of one address (loopback is none) after which it has to wait;
        /// "none" = any number.
        login_per_address: Option<u32> = Some(10) => live;
        /// Failed log-ins a minute of one role after which it has to wait; "none" = any number.
        login_per_user: Option<u32> = Some(5) => live;
        /// Further limits, tables [[rate_limit.rules]] with id, scope (global, address, user,
        /// api_key or route), key, algorithm, requests, window_secs, burst. All must hold.
        rules: Vec<RateRule> = Vec::new() => live;
    }

    /// The database `rustydb_admin`, where psql can look into the server and steer it.
    admin: Admin at "admin" {
        /// Roles that may do everything there, beside PostgreSQL's superusers.
        users: Vec<String> = Vec::new() => live;
        /// Roles that may look (SHOW) and change nothing.
        stats_users: Vec<String> = Vec::new() => live;
    }

    /// Logs and metrics.
    monitoring: Monitoring at "monitoring" {
        /// Serve metrics.
        enable_metrics: bool = true, env "RUSTYDB_ENABLE_METRICS";
        /// Port of the metrics listener; 0 = only /api/v1/metrics on the HTTP door.
        metrics_port: u16 = 9090, env "RUSTYDB_METRICS_PORT";
        /// Address of the metrics listener; it asks for no password.
        metrics_addr: String = "127.0.0.1".into();
        /// trace, debug, info, warn or error.
        log_level: LogLevel = LogLevel::Info, env "RUSTYDB_LOG_LEVEL" => live;
        /// Milliseconds after which a request is counted and logged as slow; 0 = never.
        slow_query_ms: Millis = Millis(1000) => live;
        /// json, plain, or auto: plain on a terminal, else json. Logs go to standard error.
        log_format: LogFormat = LogFormat::Auto, env "RUSTYDB_LOG_FORMAT";
    }
}

impl Config {
    /// What no single key can check, as (path, what is wrong).
    fn contradictions(&self, insecure: bool) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        let mut check = |ok: bool, path, text: &str| {
            if !ok {
                wrong.push((path, text.to_owned()));
            }
        };
        check(
            self.security.enable_auth || insecure,
            "security.enable_auth",
            "is false, which needs --insecure (it also binds every listener to loopback)",
        );
        check(
            self.backend.mode != BackendMode::External || self.backend.url.is_some(),
            "backend.url",
            "is missing; an external backend needs postgresql://user:password@host:port/database",
        );
        let url = self.backend.url.as_ref().map(BackendUrl::hosts);
        if let Some(Err(e)) = url {
            check(false, "backend.url", &e);
        }
        check(
            self.session.max_prepared_statements > 0,
            "session.max_prepared_statements",
            "must be at least 1",
        );
        self.check_sizes(&mut check);
        self.check_drcp(&mut check);
        self.check_native(&mut check);
        self.check_access(&mut check);
        self.check_certificates(&mut check);
        self.check_http(&mut check);
        check(
            self.backend.health_interval_secs.0 > 0,
            "backend.health_interval_secs",
            "must be at least 1",
        );
        check(
            (256..=65_535).contains(&self.pgwire.max_startup_bytes.len()),
            "network.pgwire.max_startup_bytes",
            "must lie between 256 and 65535",
        );
        check(
            (1..=16 << 20).contains(&self.network.max_request_size.0),
            "network.max_request_size",
            "must lie between 1 byte and 16 MiB",
        );
        check(
            !self.network.proxy_protocol || !self.network.proxy_networks.is_empty(),
            "network.proxy_networks",
            "is empty; proxy_protocol needs the networks of the proxies",
        );
        check(self.server.worker_threads <= 256, "server.worker_threads", "must be at most 256");
        check(!self.network.listen_addr.is_empty(), "network.listen_addr", "must not be empty");
        check(!self.api.listen_addr.is_empty(), "api.listen_addr", "must not be empty");
        wrong
    }
}
