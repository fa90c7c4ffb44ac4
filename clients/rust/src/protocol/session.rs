//! What opens and steers a session: handshake, authentication, settings, pooling.

define! {
    /// A version of the protocol.
    pub struct Version {
        /// Versions with different major numbers do not understand each other.
        major: u16,
        /// A higher one only adds.
        minor: u16,
    }

    /// How the two sides agree on what they can.
    pub enum Handshake {
        /// The client's first message.
        0 ClientHello(hello: Box<ClientHello>),
        /// The answer.
        1 ServerHello(hello: Box<ServerHello>),
    }

    /// What the client can, and would like.
    pub struct ClientHello {
        /// The highest version it speaks.
        version: Version,
        /// The lowest it accepts.
        min_version: Version,
        /// Name of the library, at most 64 bytes.
        client_name: String,
        /// Version of the library, at most 64 bytes.
        client_version: String,
        /// What it can decompress, best first; empty = nothing is compressed.
        compression: Vec<CompressionType>,
        /// Bits of [`capabilities`](crate::protocol::capabilities).
        capabilities: u32,
        /// Extensions it would use, at most 32.
        extensions: Vec<ExtensionOffer>,
        /// The longest payload it accepts, in bytes; 65,536 to 16 MiB.
        max_message_size: u32,
        /// Bytes it is ready to receive at first on each stream; at least 65,536.
        stream_window: u32,
        /// Bytes it is ready to receive at first in all; at least 65,536.
        connection_window: u32,
    }

    /// What was agreed, and the server's limits.
    pub struct ServerHello {
        /// The version in use.
        version: Version,
        /// Name of the server.
        server_name: String,
        /// Version of the server.
        server_version: String,
        /// Number of the connection, as in the server's log and lists.
        connection_id: u64,
        /// How bodies are compressed from now on.
        compression: CompressionType,
        /// What both sides can.
        capabilities: u32,
        /// The extensions that are in use.
        extensions: Vec<ExtensionOffer>,
        /// The longest payload in either direction.
        max_message_size: u32,
        /// The longest text of a statement, in bytes.
        max_sql_length: u32,
        /// Requests without a final reply, at most.
        max_pending_requests: u32,
        /// Requests that wait to be started, at most.
        max_queued_requests: u32,
        /// Statements in one batch, at most.
        max_batch_statements: u32,
        /// Bytes the server is ready to receive at first on each stream.
        stream_window: u32,
        /// Bytes the server is ready to receive at first in all.
        connection_window: u32,
        /// After so long a silence a side sends a heartbeat, in milliseconds.
        heartbeat_interval_ms: u32,
        /// How a client may prove who it is, in the server's order.
        auth_methods: Vec<AuthMethod>,
    }

    /// An extension by name and version.
    pub struct ExtensionOffer {
        /// Its name.
        name: String,
        /// Its version.
        version: u16,
    }

    /// How a body is compressed.
    #[derive(Copy, Eq)]
    pub enum CompressionType {
        /// Not at all.
        0 None,
        /// LZ4, block format.
        1 Lz4,
        /// Zstandard, one frame.
        2 Zstd,
        /// Snappy, raw format.
        3 Snappy,
    }

    /// How a client proves who it is.
    #[derive(Copy, Eq)]
    pub enum AuthMethod {
        /// SCRAM-SHA-256.
        0 ScramSha256,
        /// The same, bound to the server's certificate.
        1 ScramSha256Plus,
        /// A password in the clear.
        2 Password,
        /// A token of an identity provider.
        3 Token,
        /// A key that the server has given out.
        4 ApiKey,
        /// The client's TLS certificate.
        5 Certificate,
        /// A password that an LDAP server checks.
        6 Ldap,
        /// Kerberos through GSSAPI.
        7 Kerberos,
        /// A SAML assertion.
        8 Saml,
        /// Nothing is proved.
        9 Trust,
    }

    /// What a client says about who it is.
    pub enum Auth {
        /// Begins; every further message of the attempt has the same id.
        0 Start(start: Box<AuthStart>),
        /// First message of a SASL exchange.
        1 SaslInitial {
            /// Name of the mechanism.
            mechanism: String,
            /// The mechanism's message.
            data: Vec<u8>,
        },
        /// A further message of it.
        2 SaslResponse {
            /// The mechanism's message.
            data: Vec<u8>,
        },
        /// A password.
        3 Password {
            /// In the clear.
            password: String,
        },
        /// A token.
        4 Token {
            /// As the provider gave it.
            token: String,
        },
        /// A key.
        5 ApiKey {
            /// As the server gave it.
            key: String,
        },
        /// Asks to be known by the TLS certificate.
        6 Certificate,
        /// A message of GSSAPI.
        7 Gss {
            /// The mechanism's token.
            data: Vec<u8>,
        },
        /// A SAML assertion.
        8 Saml {
            /// In base64.
            assertion: String,
        },
        /// A second factor.
        9 MfaCode {
            /// From [`AuthReply::MfaRequired`].
            challenge_id: String,
            /// What the user entered.
            code: String,
        },
    }

    /// Who wants to log in, where, and how.
    pub struct AuthStart {
        /// The role.
        user: String,
        /// The database.
        database: String,
        /// How identity is proved.
        method: AuthMethod,
        /// As in PostgreSQL's setting of that name.
        application_name: String,
        /// Group of sessions that may share state.
        connection_class: Option<String>,
        /// How clean the PostgreSQL session must be.
        purity: Option<Purity>,
        /// What kind of used session is preferred.
        tag: Option<String>,
        /// Settings of the session: names and values.
        parameters: Vec<(String, String)>,
    }

    /// The server's side of authentication.
    pub enum AuthReply {
        /// The next message of a SASL exchange.
        0 SaslContinue {
            /// The mechanism's message.
            data: Vec<u8>,
        },
        /// The last one; success follows.
        1 SaslFinal {
            /// The mechanism's message.
            data: Vec<u8>,
        },
        /// The next message of GSSAPI.
        2 GssContinue {
            /// The mechanism's token.
            data: Vec<u8>,
        },
        /// A second factor is needed.
        3 MfaRequired {
            /// To be named in the answer.
            challenge_id: String,
            /// What would do.
            methods: Vec<String>,
            /// How long there is, in seconds.
            expires_in_secs: u32,
        },
        /// The session is ready.
        4 Success {
            /// Number of the session.
            session_id: u64,
            /// The role that it runs as.
            user: String,
            /// Roles that it is a member of.
            roles: Vec<String>,
            /// The parameters that PostgreSQL reports: names and values.
            parameters: Vec<(String, String)>,
        },
    }

    /// How clean a PostgreSQL session must be that was used before.
    #[derive(Copy, Eq)]
    pub enum Purity {
        /// As new.
        0 New,
        /// Used by the same user and class.
        #[serde(rename = "Self")]
        1 Own,
        /// Any; its state is reset.
        2 Any,
    }

    /// What steers the session.
    pub enum SessionCommand {
        /// Changes a setting.
        0 Set {
            /// Its name.
            name: String,
            /// The new value.
            value: String,
            /// Only until the end of the transaction.
            local: bool,
        },
        /// Asks for a setting.
        1 Show {
            /// Its name.
            name: String,
        },
        /// Gives a setting the value it had at the start.
        2 Reset {
            /// Its name; none = all.
            name: Option<String>,
        },
        /// Gives up everything that the session holds.
        3 DiscardAll,
        /// Takes a pooled PostgreSQL session.
        4 Acquire {
            /// Group of sessions that may share state.
            connection_class: Option<String>,
            /// What kind of used session is preferred.
            tag: Option<String>,
            /// How clean it must be.
            purity: Purity,
        },
        /// Gives it back.
        5 Release {
            /// What it is good for from now on.
            tag: Option<String>,
        },
    }
}
