//! From a connected socket to a session: preface, handshake, authentication.

use std::future::poll_fn;

use bytes::{Buf, BytesMut};

use super::scram::{Channel, Exchange, MECHANISM, MECHANISM_PLUS};
use super::socket::Socket;
use crate::config::{AuthKind, Config, Hidden};
use crate::error::{Error, Result};
use crate::protocol::wire::{decode, encode};
use crate::protocol::{
    Agreed, Auth, AuthMethod, AuthReply, AuthStart, ClientHello, CompressionType, Handshake,
    Message, PREFACE, ServerHello, VERSION, capabilities, frame,
};

/// Ids of the two exchanges; the first request has the next one.
const HANDSHAKE: u64 = 1;
const LOGIN: u64 = 2;

/// How much is read at once before there is a session.
const READ: usize = 4096;

/// A session, and the socket it is reached by.
pub(crate) struct LoggedIn {
    pub(super) socket: Socket,
    /// What was read beyond the last message.
    pub(super) input: BytesMut,
    pub(super) agreed: Agreed,
    pub(super) hello: ServerHello,
    pub(super) session: Session,
    /// Payload sent so far, which counts against the server's window.
    pub(super) sent: u64,
}

/// What the server says about a session that has begun.
#[derive(Clone, Debug)]
pub struct Session {
    /// Number of the session.
    pub id: u64,
    /// The role that it runs as.
    pub user: String,
    /// Roles that it is a member of.
    pub roles: Vec<String>,
    /// PostgreSQL's parameters.
    pub(crate) parameters: Vec<(String, String)>,
}

/// Opens a session on a connected socket.
pub(super) async fn login(socket: Socket, config: &Config) -> Result<LoggedIn> {
    let mut talk =
        Talk { socket, input: BytesMut::new(), agreed: Agreed::default(), id: HANDSHAKE, sent: 0 };
    let hello = talk.handshake(config).await?;
    talk.id = LOGIN;
    // The handshake's frames came before the window was agreed on.
    talk.sent = 0;
    let session = talk.authenticate(config, &hello).await?;
    let Talk { socket, input, agreed, sent, .. } = talk;
    Ok(LoggedIn { socket, input, agreed, hello, session, sent })
}

/// One message after the other, before requests may be many.
struct Talk {
    socket: Socket,
    input: BytesMut,
    agreed: Agreed,
    id: u64,
    sent: u64,
}

impl Talk {
    async fn handshake(&mut self, config: &Config) -> Result<ServerHello> {
        let mut wanted = capabilities::ALL & !capabilities::SIMPLE & !capabilities::CHECKSUM;
        if config.checksum {
            wanted |= capabilities::CHECKSUM;
        }
        let hello = Message::Handshake(Handshake::ClientHello(Box::new(ClientHello {
            version: VERSION,
            min_version: VERSION,
            client_name: crate::NAME.into(),
            client_version: env!("CARGO_PKG_VERSION").into(),
            compression: config.compression.clone(),
            capabilities: wanted,
            extensions: Vec::new(),
            max_message_size: frame::MAX_PAYLOAD,
            stream_window: config.stream_window,
            connection_window: config.connection_window,
        })));
        let mut out = PREFACE.to_vec();
        self.append(&hello, &mut out)?;
        self.write(&out).await?;
        let Message::Handshake(Handshake::ServerHello(hello)) = self.receive().await? else {
            return Err(unexpected());
        };
        self.agreed = Agreed {
            compression: hello.compression,
            checksum: hello.capabilities & capabilities::CHECKSUM != 0,
            max_message_size: hello.max_message_size,
            ..Agreed::default()
        };
        let offered = [CompressionType::None].iter().chain(&config.compression);
        if !offered.clone().any(|one| *one == hello.compression) {
            return Err(Error::Connect("the server chose a compression nobody offered".into()));
        }
        if config.checksum && !self.agreed.checksum {
            return Err(Error::Connect("the server makes no checksums".into()));
        }
        Ok(*hello)
    }

    async fn authenticate(&mut self, config: &Config, hello: &ServerHello) -> Result<Session> {
        let binding = self.socket.binding();
        let method = choose(config, &hello.auth_methods, &self.socket, binding.is_some())?;
        let start = AuthStart {
            user: config.user.clone(),
            database: config.database.clone(),
            method,
            application_name: config.application_name.clone(),
            connection_class: config.connection_class.clone(),
            purity: config.purity,
            tag: config.tag.clone(),
            parameters: config.parameters.clone(),
        };
        let mut out = Vec::new();
        self.append(&Message::Auth(Auth::Start(Box::new(start))), &mut out)?;
        let secret = |secret: &Option<Hidden>| {
            secret.as_ref().map(|s| s.reveal().to_owned()).unwrap_or_default()
        };
        let then = match method {
            AuthMethod::ScramSha256 | AuthMethod::ScramSha256Plus => {
                return self.scram(config, out, method, binding).await;
            }
            AuthMethod::Password | AuthMethod::Ldap => {
                Some(Auth::Password { password: secret(&config.password) })
            }
            AuthMethod::Token => Some(Auth::Token { token: secret(&config.token) }),
            AuthMethod::ApiKey => Some(Auth::ApiKey { key: secret(&config.api_key) }),
            AuthMethod::Saml => Some(Auth::Saml { assertion: secret(&config.token) }),
            AuthMethod::Certificate => Some(Auth::Certificate),
            AuthMethod::Trust | AuthMethod::Kerberos => None,
        };
        if let Some(then) = then {
            self.append(&Message::Auth(then), &mut out)?;
        }
        self.write(&out).await?;
        let reply = self.reply(config).await?;
        success(reply)
    }

    async fn scram(
        &mut self,
        config: &Config,
        mut out: Vec<u8>,
        method: AuthMethod,
        binding: Option<Vec<u8>>,
    ) -> Result<Session> {
        let (mechanism, channel) = match (&binding, method) {
            (Some(data), AuthMethod::ScramSha256Plus) => (MECHANISM_PLUS, Channel::Bound(data)),
            (Some(_), _) => (MECHANISM, Channel::NotOffered),
            (None, _) => (MECHANISM, Channel::Open),
        };
        let password = config.password.as_ref().map(Hidden::reveal).unwrap_or_default();
        let (exchange, first) = Exchange::begin(channel)?;
        let initial = Auth::SaslInitial { mechanism: mechanism.into(), data: first.into_bytes() };
        self.append(&Message::Auth(initial), &mut out)?;
        self.write(&out).await?;
        let data = match self.reply(config).await? {
            AuthReply::SaslContinue { data } => data,
            // A rule of the server trusts this user; who asks for SCRAM wants the server's proof.
            reply @ AuthReply::Success { .. } if config.auth.is_none() => return success(reply),
            AuthReply::Success { .. } => {
                let text = "the server does not prove itself, on which auth=scram-sha-256 insists";
                return Err(Error::Connect(text.into()));
            }
            _ => return Err(unexpected()),
        };
        let (last, expected) = exchange.answer(&data, password)?;
        self.send(&Message::Auth(Auth::SaslResponse { data: last.into_bytes() })).await?;
        let AuthReply::SaslFinal { data } = self.reply(config).await? else {
            return Err(unexpected());
        };
        expected.check(&data)?;
        success(self.reply(config).await?)
    }

    /// The next reply, after a second factor if one is asked for.
    async fn reply(&mut self, config: &Config) -> Result<AuthReply> {
        loop {
            match self.receive().await? {
                Message::AuthReply(AuthReply::MfaRequired { challenge_id, methods, .. }) => {
                    let code = config.mfa.as_ref().and_then(|answer| answer(&methods));
                    let code = code.ok_or(Error::MfaRequired { methods })?;
                    self.send(&Message::Auth(Auth::MfaCode { challenge_id, code })).await?;
                }
                Message::AuthReply(reply) => return Ok(reply),
                _ => return Err(unexpected()),
            }
        }
    }

    fn append(&mut self, message: &Message, out: &mut Vec<u8>) -> Result<()> {
        let start = frame::begin(out);
        encode(message, out);
        let length = frame::finish(out, start, 0, self.id, &self.agreed)?;
        self.sent += u64::from(length);
        Ok(())
    }

    async fn send(&mut self, message: &Message) -> Result<()> {
        let mut out = Vec::new();
        self.append(message, &mut out)?;
        self.write(&out).await
    }

    async fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let written = poll_fn(|cx| self.socket.poll_write(cx, bytes)).await.map_err(broken)?;
            bytes = bytes.get(written.max(1)..).unwrap_or_default();
        }
        poll_fn(|cx| self.socket.poll_flush(cx)).await.map_err(broken)
    }

    /// The next message of the exchange; an error of the server is an error.
    async fn receive(&mut self) -> Result<Message> {
        let mut scratch = Vec::new();
        loop {
            let most = self.agreed.max_message_size;
            while let Some((header, payload)) = frame::split(&self.input, most)? {
                let body = frame::open(&header, payload, &self.agreed, &mut scratch)?;
                let message = decode::<Message>(body)?;
                let whole = frame::HEADER + header.length as usize;
                self.input.advance(whole);
                match message {
                    Message::Error(error) => return Err(Error::Server(error)),
                    message if header.message_id == self.id => return Ok(message),
                    Message::Notification(_) => {}
                    _ => return Err(unexpected()),
                }
            }
            self.input.reserve(READ);
            let count = poll_fn(|cx| self.socket.poll_read(cx, &mut self.input));
            if count.await.map_err(broken)? == 0 {
                let text = "the server closed the connection before it was ready";
                return Err(Error::Connect(text.into()));
            }
        }
    }
}

fn broken(error: std::io::Error) -> Error {
    Error::Connect(error.to_string())
}

fn unexpected() -> Error {
    Error::Connect("the server sent something unexpected; is it RustyDB?".into())
}

fn success(reply: AuthReply) -> Result<Session> {
    match reply {
        AuthReply::Success { session_id, user, roles, parameters } => {
            Ok(Session { id: session_id, user, roles, parameters })
        }
        _ => Err(unexpected()),
    }
}

/// The way to log in: the one that was asked for, else the first one that is offered and needs only
/// what is there. A password is not given away unless that was asked for.
fn choose(
    config: &Config,
    offered: &[AuthMethod],
    socket: &Socket,
    can_bind: bool,
) -> Result<AuthMethod> {
    use AuthMethod as M;
    let has = |method: &M| offered.contains(method);
    let scram = match can_bind && has(&M::ScramSha256Plus) {
        true => M::ScramSha256Plus,
        false => M::ScramSha256,
    };
    let given = [
        (config.token.is_some(), M::Token),
        (config.api_key.is_some(), M::ApiKey),
        (config.password.is_some(), scram),
        (config.tls_cert.is_some() && socket.is_tls(), M::Certificate),
        (true, M::Trust),
    ];
    let possible = |(is_given, method): &(bool, M)| *is_given && has(method);
    let wanted = match config.auth {
        Some(kind) => Some(asked_for(kind, scram)),
        None => given.into_iter().find(possible).map(|(_, method)| method),
    };
    let takes_password =
        matches!(wanted, Some(M::ScramSha256 | M::ScramSha256Plus | M::Password | M::Ldap));
    if takes_password && config.password.is_none() {
        return Err(Error::PasswordNeeded);
    }
    let Some(wanted) = wanted.filter(has) else { return Err(no_way(config, offered)) };
    let is_secret = matches!(wanted, M::Password | M::Ldap | M::Token | M::ApiKey | M::Saml);
    if is_secret && !socket.is_private() {
        let text = "a password, token or key is not sent to another host without TLS";
        return Err(Error::Connect(text.into()));
    }
    Ok(wanted)
}

fn asked_for(kind: AuthKind, scram: AuthMethod) -> AuthMethod {
    match kind {
        AuthKind::Scram => scram,
        AuthKind::Password => AuthMethod::Password,
        AuthKind::Token => AuthMethod::Token,
        AuthKind::ApiKey => AuthMethod::ApiKey,
        AuthKind::Certificate => AuthMethod::Certificate,
        AuthKind::Ldap => AuthMethod::Ldap,
        AuthKind::Kerberos => AuthMethod::Kerberos,
        AuthKind::Saml => AuthMethod::Saml,
    }
}

fn no_way(config: &Config, offered: &[AuthMethod]) -> Error {
    let scram = [AuthMethod::ScramSha256, AuthMethod::ScramSha256Plus];
    if config.password.is_none()
        && config.auth.is_none_or(|auth| auth == AuthKind::Scram)
        && offered.iter().any(|method| scram.contains(method))
    {
        return Error::PasswordNeeded;
    }
    Error::Connect(format!("no way to log in: the server offers {offered:?}"))
}
