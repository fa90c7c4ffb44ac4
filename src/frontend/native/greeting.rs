//! From the preface to the log-in: the handshake, then the messages of one method.

use std::io;

use super::errors;
use super::handshake;
use crate::auth::hba::{self, Knock, Rules};
use crate::auth::rbac::Permission;
use crate::auth::scram::{Channel, MECHANISM, MECHANISM_PLUS};
use crate::auth::{Credential, Identity, Visit};
use crate::config::{Config, HbaMethod};
use crate::error::{Error, ErrorKind};
use crate::frontend::pgwire::{PgDoor, Refusal, login};
use crate::net::{ReadAhead, Stream, TlsFacts};
use crate::proto::native::frame::{self, HEADER, Header, flags};
use crate::proto::native::{
    Agreed, Auth, AuthMethod, AuthReply, AuthStart, ErrorBody, Handshake, Message, ServerHello,
    Severity,
};
use crate::types::{Protocol, Secret};

/// Longest frame before the session is ready, in bytes.
const LONGEST_FRAME: u32 = 64 << 10;

/// A client that is not ready yet.
pub(super) struct Greeting<'a> {
    pub(super) door: &'a PgDoor,
    pub(super) stream: &'a mut Stream,
    pub(super) ahead: &'a mut ReadAhead,
    pub(super) tls: Option<&'a TlsFacts>,
    pub(super) address: Option<std::net::IpAddr>,
    pub(super) agreed: Agreed,
    /// Payload bytes that were sent after the handshake.
    pub(super) sent: u32,
}

/// Why there will be no session.
pub(super) enum Unwelcome {
    /// The client is to be told, with the id of its message.
    Told(u64, Box<ErrorBody>),
    /// It is gone.
    Gone,
}

impl From<io::Error> for Unwelcome {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// Who a client is, and what it asked for.
pub(super) struct Proven {
    pub(super) identity: Identity,
    pub(super) start: Box<AuthStart>,
    pub(super) method: &'static str,
    /// The id of all messages of the attempt.
    pub(super) id: u64,
}

impl Greeting<'_> {
    /// Agrees on how to go on. Returns what the client offered and what was agreed.
    pub(super) async fn handshake(
        &mut self,
        config: &Config,
        connection_id: u64,
    ) -> Result<(ServerHello, (u32, u32)), Unwelcome> {
        let (header, message) = self.message().await?;
        let id = header.message_id;
        let told = |error| Unwelcome::Told(id, error);
        let Message::Handshake(Handshake::ClientHello(hello)) = message else {
            return Err(told(errors::violation("the first message is not ClientHello")));
        };
        let methods = self.methods();
        let registry = &self.door.native.extensions;
        let (reply, agreed) =
            handshake::negotiate(&hello, config, connection_id, methods, registry).map_err(told)?;
        tracing::debug!(
            connection = connection_id,
            client = hello.client_name,
            version = hello.client_version,
            "native handshake"
        );
        let answer = Message::Handshake(Handshake::ServerHello(Box::new(reply.clone())));
        self.send(0, id, &answer).await?;
        (self.agreed, self.sent) = (agreed, 0);
        Ok((reply, (hello.stream_window, hello.connection_window)))
    }

    /// How somebody from there may log in, whoever it is.
    fn methods(&self) -> Vec<AuthMethod> {
        let Some(rules) = self.door.auth.rules() else { return vec![AuthMethod::Trust] };
        let mut found = Vec::new();
        for method in rules.methods(self.address, self.tls.is_some()) {
            let offered: &[AuthMethod] = match method {
                HbaMethod::Scram if self.binding().is_some() => {
                    &[AuthMethod::ScramSha256Plus, AuthMethod::ScramSha256]
                }
                HbaMethod::Scram => &[AuthMethod::ScramSha256],
                HbaMethod::Password => &[AuthMethod::Password],
                HbaMethod::Cert => &[AuthMethod::Certificate],
                HbaMethod::Trust | HbaMethod::Peer => &[AuthMethod::Trust],
                HbaMethod::Reject => &[],
            };
            found.extend(
                offered.iter().filter(|m| !found.contains(*m)).copied().collect::<Vec<_>>(),
            );
        }
        let takes_secrets = |method: &AuthMethod| {
            matches!(method, AuthMethod::ScramSha256 | AuthMethod::Password | AuthMethod::Trust)
        };
        let is_private = hba::is_private(self.address, self.tls.is_some());
        if is_private && found.iter().any(takes_secrets) {
            found.extend([AuthMethod::Token, AuthMethod::ApiKey]);
        }
        found
    }

    fn binding(&self) -> Option<&[u8]> {
        self.tls.and_then(|facts| facts.binding.as_deref())
    }

    /// Proves who the client is.
    pub(super) async fn log_in(&mut self) -> Result<Proven, Unwelcome> {
        let (id, auth) = self.auth(None).await?;
        let Auth::Start(mut start) = auth else {
            let error = errors::violation("the first message of a log-in is not Start");
            return Err(Unwelcome::Told(id, error));
        };
        check_start(&start).map_err(|error| Unwelcome::Told(id, error))?;
        match self.prove(id, &start).await {
            Ok((identity, method)) => {
                // A token names the role where Start does not.
                if start.user.is_empty() {
                    identity.role.as_str().clone_into(&mut start.user);
                }
                Ok(Proven { identity, start, method, id })
            }
            Err(Failed::Unwelcome(unwelcome)) => Err(unwelcome),
            Err(Failed::Refused(Refusal::Silent)) => Err(Unwelcome::Gone),
            Err(Failed::Refused(Refusal::Told(error))) => {
                Err(Unwelcome::Told(id, Box::new(errors::of_error(&error, Severity::Fatal))))
            }
        }
    }

    async fn prove(
        &mut self,
        id: u64,
        start: &AuthStart,
    ) -> Result<(Identity, &'static str), Failed> {
        let door = self.door;
        let knock = Knock {
            role: &start.user,
            database: database_of(start),
            is_replication: false,
            address: self.address,
            has_tls: self.tls.is_some(),
        };
        let method = start.method;
        let unknown = matches!(method, AuthMethod::Ldap | AuthMethod::Kerberos | AuthMethod::Saml);
        if unknown {
            let mut error = errors::fatal(
                "28000",
                "AUTHENTICATION_FAILED",
                format!("this server does not know the authentication method {method:?}"),
            );
            error.hint = Some("the methods it knows are in its ServerHello".into());
            return Err(Failed::Unwelcome(Unwelcome::Told(id, error)));
        }
        // One set of rules for the whole log-in, whatever is reloaded meanwhile.
        let Some(rules) = door.auth.rules() else {
            self.hear_out(id, method).await?;
            return Ok((door.auth.trust(start.user.as_str().into())?, "trust"));
        };
        let visit = Visit::new(Protocol::Native, knock.address);
        if matches!(method, AuthMethod::Token | AuthMethod::ApiKey) {
            return self.token(id, knock, &rules, &visit).await;
        }
        let rule = login::rule(door, &rules, &knock, self.tls, &visit).await?;
        match (rule.method, method) {
            (HbaMethod::Scram, AuthMethod::ScramSha256 | AuthMethod::ScramSha256Plus) => {
                self.scram(id, start, &visit).await
            }
            (HbaMethod::Password, AuthMethod::Password) => {
                if !knock.is_private() {
                    return Err(cleartext().into());
                }
                let password = self.password(id).await?;
                let role = start.user.as_str().into();
                Ok((door.auth.password_from(role, password, &visit).await?, rule.method.word()))
            }
            (HbaMethod::Trust | HbaMethod::Peer, _)
            | (HbaMethod::Cert, AuthMethod::Certificate) => {
                let identity =
                    login::vouched(door, self.stream, &knock, (&rules, rule), &visit).await?;
                self.hear_out(id, method).await?;
                Ok((identity, rule.method.word()))
            }
            (wanted, _) => {
                door.metrics.auth_attempt(wanted.word(), false);
                let text = format!("the rule for this connection asks for {}", wanted.word());
                Err(Error::sql(b"28000", text).into())
            }
        }
    }

    /// A client that wants to prove itself although nobody asks has said so before it knows.
    async fn hear_out(&mut self, id: u64, method: AuthMethod) -> Result<(), Unwelcome> {
        if method != AuthMethod::Trust {
            self.auth(Some(id)).await?;
        }
        Ok(())
    }

    async fn scram(
        &mut self,
        id: u64,
        start: &AuthStart,
        visit: &Visit,
    ) -> Result<(Identity, &'static str), Failed> {
        let Auth::SaslInitial { mechanism, data } = self.auth(Some(id)).await?.1 else {
            return Err(unexpected(id, "SaslInitial").into());
        };
        let plus = mechanism == MECHANISM_PLUS;
        if !plus && mechanism != MECHANISM || plus && self.binding().is_none() {
            return Err(unexpected(id, "a SASL mechanism that was offered").into());
        }
        let auth = &self.door.auth;
        let channel = Channel { binding: self.binding(), plus };
        let role = start.user.as_str().into();
        let (login, first) = auth.scram_begin(role, &data, channel, visit).await?;
        let data = first.into_bytes();
        self.send(flags::MORE, id, &Message::AuthReply(AuthReply::SaslContinue { data })).await?;
        let Auth::SaslResponse { data } = self.auth(Some(id)).await?.1 else {
            return Err(unexpected(id, "SaslResponse").into());
        };
        let (identity, last) = self.door.auth.scram_finish(login, &data).await?;
        let data = last.into_bytes();
        self.send(flags::MORE, id, &Message::AuthReply(AuthReply::SaslFinal { data })).await?;
        Ok((identity, if plus { MECHANISM_PLUS } else { MECHANISM }))
    }

    /// A token or an API key: it says whom it stands for. Where the rules ask that role for a
    /// secret of its own, this one will do; where they ask for something else, it will not.
    async fn token(
        &mut self,
        id: u64,
        knock: Knock<'_>,
        rules: &Rules,
        visit: &Visit,
    ) -> Result<(Identity, &'static str), Failed> {
        if !knock.is_private() {
            return Err(cleartext().into());
        }
        let credential = match self.auth(Some(id)).await?.1 {
            Auth::Token { token } => Credential::Bearer(Secret::new(token)),
            Auth::ApiKey { key } => Credential::ApiKey(Secret::new(key)),
            _ => return Err(unexpected(id, "Token or ApiKey").into()),
        };
        let auth = &self.door.auth;
        let identity = auth.credentials(credential, visit).await?;
        let role = identity.role.as_str();
        if !knock.role.is_empty() && knock.role != role {
            let text = format!("the token stands for another role than \"{}\"", knock.role);
            return Err(Error::new(ErrorKind::AuthenticationFailed, text).into());
        }
        let database = if knock.database.is_empty() { role } else { knock.database };
        let knock = Knock { role, database, ..knock };
        let rule = login::rule(self.door, rules, &knock, self.tls, visit).await?;
        if !matches!(rule.method, HbaMethod::Scram | HbaMethod::Password | HbaMethod::Trust) {
            let text = format!("the rule for this connection asks for {}", rule.method.word());
            return Err(Error::sql(b"28000", text).into());
        }
        let wanted = Permission::parse("execute:queries")?;
        auth.authorize(&identity, &wanted, visit).await?;
        let method = identity.grant.as_ref().map_or("token", |grant| grant.kind.as_str());
        Ok((identity, method))
    }

    async fn password(&mut self, id: u64) -> Result<Secret, Unwelcome> {
        match self.auth(Some(id)).await?.1 {
            Auth::Password { password } => Ok(Secret::new(password)),
            _ => Err(unexpected(id, "Password")),
        }
    }

    /// The next message of the log-in; pings are answered meanwhile.
    async fn auth(&mut self, expected: Option<u64>) -> Result<(u64, Auth), Unwelcome> {
        loop {
            let (header, message) = self.message().await?;
            let id = header.message_id;
            match message {
                Message::Ping => self.send(flags::URGENT, id, &Message::Pong).await?,
                Message::Close { .. } => return Err(Unwelcome::Gone),
                Message::WindowUpdate { .. } | Message::Heartbeat { .. } => {}
                Message::Auth(auth)
                    if id != 0 && expected.is_none_or(|expected| expected == id) =>
                {
                    return Ok((id, auth));
                }
                _ => {
                    let error = errors::violation("the session is not open yet");
                    return Err(Unwelcome::Told(id, error));
                }
            }
        }
    }

    async fn message(&mut self) -> Result<(Header, Message), Unwelcome> {
        let Some(bytes) = self.ahead.peek(self.stream, HEADER).await? else {
            return Err(Unwelcome::Gone);
        };
        let broken = |id| move |refused| Unwelcome::Told(id, errors::of_violation(refused));
        let header = Header::parse(bytes, self.agreed.max_message_size).map_err(broken(0))?;
        let Some(header) = header else { return Err(Unwelcome::Gone) };
        let id = header.message_id;
        if header.length > LONGEST_FRAME {
            let text = "a message before the session is open is longer than 64 KiB";
            let error = errors::fatal("08P01", "PAYLOAD_TOO_LARGE", text);
            return Err(Unwelcome::Told(id, error));
        }
        let whole = HEADER + header.length as usize;
        let Some(bytes) = self.ahead.peek(self.stream, whole).await? else {
            self.door.metrics.native.error("truncated_frame");
            return Err(Unwelcome::Gone);
        };
        let payload = bytes[HEADER..whole].to_vec();
        self.ahead.take(whole);
        let received = &self.door.metrics.native.received;
        received.wire.inc_by((HEADER + payload.len()) as u64);
        let mut scratch = Vec::new();
        let body =
            frame::open(&header, &payload, &self.agreed, &mut scratch).map_err(broken(id))?;
        received.raw.inc_by(body.len() as u64);
        let message = self.agreed.encoding.decode(body).map_err(broken(id))?;
        received.message(message.number());
        Ok((header, message))
    }

    /// Sends a message of the server.
    pub(super) async fn send(&mut self, flags: u16, id: u64, message: &Message) -> io::Result<()> {
        let (bytes, payload) = sealed(flags | flags::RESPONSE, id, message, &self.agreed);
        self.sent += payload;
        let sent = &self.door.metrics.native.sent;
        sent.wire.inc_by(bytes.len() as u64);
        sent.message(message.number());
        self.stream.write_all(&bytes).await
    }
}

/// A whole frame, and the length of its payload. What is sent here is always short enough.
pub(super) fn sealed(flags: u16, id: u64, message: &Message, agreed: &Agreed) -> (Vec<u8>, u32) {
    let mut bytes = Vec::new();
    let start = frame::begin(&mut bytes);
    let put = agreed.encoding.encode(message, &mut bytes);
    let sealed = put.and_then(|()| frame::finish(&mut bytes, start, flags, id, agreed));
    (bytes, sealed.unwrap_or(0))
}

/// Why a log-in did not succeed.
enum Failed {
    Unwelcome(Unwelcome),
    Refused(Refusal),
}

impl From<Unwelcome> for Failed {
    fn from(unwelcome: Unwelcome) -> Self {
        Self::Unwelcome(unwelcome)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Unwelcome(error.into())
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Refused(error.into())
    }
}

fn unexpected(id: u64, wanted: &str) -> Unwelcome {
    Unwelcome::Told(id, errors::violation(format!("expected {wanted}")))
}

fn cleartext() -> Error {
    Error::sql(b"28000", "a password in clear text needs an encrypted connection")
        .with_hint("connect with TLS")
}

/// The database that a client asks for; without one, that of its own name.
pub(super) fn database_of(start: &AuthStart) -> &str {
    if start.database.is_empty() { &start.user } else { &start.database }
}

/// What PostgreSQL would take for something else than a setting.
fn check_start(start: &AuthStart) -> Result<(), Box<ErrorBody>> {
    let bad = |text: String| Err(errors::fatal("22023", "VALIDATION_ERROR", text));
    let names_itself = matches!(start.method, AuthMethod::Token | AuthMethod::ApiKey);
    if start.user.is_empty() && !names_itself {
        let text = "no PostgreSQL user name specified";
        return Err(errors::fatal("28000", "AUTHENTICATION_FAILED", text));
    }
    let names = [&start.user, &start.database, &start.application_name];
    let pairs = start.parameters.iter().flat_map(|(name, value)| [name, value]);
    if names.into_iter().chain(pairs).any(|text| text.contains('\0')) {
        return bad("a NUL character in a name or setting".into());
    }
    for (name, value) in &start.parameters {
        let lower = name.to_ascii_lowercase();
        if name.is_empty() || matches!(lower.as_str(), "user" | "database" | "replication") {
            return bad(format!("\"{name}\" is not a setting"));
        }
        let is_utf8 = matches!(value.to_ascii_lowercase().as_str(), "utf8" | "utf-8" | "unicode");
        if lower == "client_encoding" && !is_utf8 {
            return bad("the native protocol is UTF-8, whatever client_encoding says".into());
        }
    }
    Ok(())
}
