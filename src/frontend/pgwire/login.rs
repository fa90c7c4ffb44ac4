//! The log-in on the wire: the rule of `security.hba` that a client falls under, and the messages
//! of the method that it names.

use super::{PgDoor, Refusal};
use crate::auth::hba::{Knock, Rules};
use crate::auth::scram::{Channel, MECHANISM, MECHANISM_PLUS};
use crate::auth::{Identity, Visit, hba};
use crate::config::{HbaMethod, HbaRule};
use crate::error::{Error, ErrorKind};
use crate::net::{ReadAhead, Stream, TlsFacts};
use crate::proto::frame::HEADER;
use crate::proto::{Cursor, backend as replies, frontend};
use crate::types::{Protocol, Secret};

/// Longest password or SASL message; PostgreSQL's own limit is 1024.
const LONGEST_ANSWER: usize = 4096;

/// A client that is asked who it is.
pub(super) struct Login<'a> {
    pub(super) door: &'a PgDoor,
    pub(super) stream: &'a mut Stream,
    pub(super) ahead: &'a mut ReadAhead,
    pub(super) tls: Option<&'a TlsFacts>,
    pub(super) knock: Knock<'a>,
}

impl Login<'_> {
    /// Proves who the client is, and says by which method; `reply` gets what belongs before
    /// AuthenticationOk.
    pub(super) async fn prove(
        &mut self,
        reply: &mut Vec<u8>,
    ) -> Result<(Identity, &'static str), Refusal> {
        let auth = &self.door.auth;
        // One set of rules for the whole log-in, whatever is reloaded meanwhile.
        let Some(rules) = auth.rules() else {
            return Ok((auth.trust(self.knock.role.into())?, "trust"));
        };
        let rule = rule(self.door, &rules, &self.knock, self.tls, &self.visit()).await?;
        let identity = match rule.method {
            HbaMethod::Scram => return self.scram(reply).await,
            HbaMethod::Password => self.password().await?,
            _ => {
                let visit = self.visit();
                vouched(self.door, self.stream, &self.knock, (&rules, rule), &visit).await?
            }
        };
        Ok((identity, rule.method.word()))
    }

    async fn scram(&mut self, reply: &mut Vec<u8>) -> Result<(Identity, &'static str), Refusal> {
        let binding = self.tls.and_then(|facts| facts.binding.as_deref());
        let offered: &[&'static str] =
            if binding.is_some() { &[MECHANISM_PLUS, MECHANISM] } else { &[MECHANISM] };
        let mut ask = Vec::new();
        replies::put_authentication_sasl(&mut ask, offered);
        self.stream.write_all(&ask).await?;
        let initial = self.answer().await?;
        let (mechanism, client_first) = initial_response(&initial)?;
        let Some(chosen) = offered.iter().find(|name| name.as_bytes() == mechanism) else {
            let text = "client selected an invalid SASL authentication mechanism";
            return Err(Error::new(ErrorKind::ProtocolViolation, text).into());
        };
        let channel = Channel { binding, plus: *chosen == MECHANISM_PLUS };
        let auth = &self.door.auth;
        let (login, server_first) =
            auth.scram_begin(self.knock.role.into(), client_first, channel, &self.visit()).await?;
        let mut challenge = Vec::new();
        replies::put_authentication_sasl_continue(&mut challenge, server_first.as_bytes());
        self.stream.write_all(&challenge).await?;
        let client_final = self.answer().await?;
        let (identity, server_final) = self.door.auth.scram_finish(login, &client_final).await?;
        replies::put_authentication_sasl_final(reply, server_final.as_bytes());
        Ok((identity, chosen))
    }

    fn visit(&self) -> Visit {
        Visit::new(Protocol::Postgres, self.knock.address)
    }

    async fn password(&mut self) -> Result<Identity, Refusal> {
        if !self.knock.is_private() {
            let text = "a password in clear text needs an encrypted connection";
            return Err(Error::sql(b"28000", text)
                .with_hint("connect with sslmode=require")
                .into());
        }
        let mut ask = Vec::new();
        replies::put_authentication_password(&mut ask);
        self.stream.write_all(&ask).await?;
        let answer = self.answer().await?;
        let password = match answer.split_last() {
            Some((0, text)) if !text.contains(&0) => std::str::from_utf8(text).ok(),
            _ => None,
        };
        let password = password
            .map(Secret::new)
            .ok_or_else(|| Error::new(ErrorKind::ProtocolViolation, "invalid password packet"))?;
        let role = self.knock.role.into();
        Ok(self.door.auth.password_from(role, password, &self.visit()).await?)
    }

    /// Reads a message of type `p`.
    async fn answer(&mut self) -> Result<Vec<u8>, Refusal> {
        let (tag, length) = match self.ahead.peek(self.stream, HEADER).await? {
            Some(&[tag, a, b, c, d, ..]) => (tag, u32::from_be_bytes([a, b, c, d]) as usize),
            _ => return Err(Refusal::Silent),
        };
        if tag != frontend::tag::PASSWORD {
            let text = format!("expected SASL response, got message type {tag}");
            return Err(Error::new(ErrorKind::ProtocolViolation, text).into());
        }
        match length.checked_sub(4) {
            Some(body) if body <= LONGEST_ANSWER => {
                let Some(bytes) = self.ahead.peek(self.stream, HEADER + body).await? else {
                    return Err(Refusal::Silent);
                };
                let message = bytes[HEADER..HEADER + body].to_vec();
                self.ahead.take(HEADER + body);
                Ok(message)
            }
            _ => {
                self.door.metrics.protocol_error("startup");
                let text = "invalid length of a SASL message";
                Err(Error::new(ErrorKind::ProtocolViolation, text).into())
            }
        }
    }
}

/// The rule that a client falls under, whatever it speaks. Its certificate has passed, if the rule
/// wants one.
pub(in crate::frontend) async fn rule<'r>(
    door: &PgDoor,
    rules: &'r Rules,
    knock: &Knock<'_>,
    tls: Option<&TlsFacts>,
    visit: &Visit,
) -> Result<&'r HbaRule, Refusal> {
    let (auth, role) = (&door.auth, knock.role);
    let rule = auth.rule(rules, knock).await.inspect_err(|error| {
        door.metrics.connection_rejected("hba");
        let (database, address) = (knock.database, knock.address.map(tracing::field::display));
        tracing::info!(role, database, address, tls = knock.has_tls, "{error}");
    })?;
    let certificate = tls.and_then(|facts| facts.certificate.as_ref());
    rules
        .check_certificate(rule, certificate, role)
        .map_err(|error| auth.refuse(rule.method, role, visit, error))?;
    Ok(rule)
}

/// Proves a client by what it need not say itself.
pub(in crate::frontend) async fn vouched(
    door: &PgDoor,
    stream: &Stream,
    knock: &Knock<'_>,
    (rules, rule): (&Rules, &HbaRule),
    visit: &Visit,
) -> Result<Identity, Refusal> {
    match rule.method {
        HbaMethod::Peer => peer(door, stream, knock, (rules, rule), visit).await,
        HbaMethod::Trust | HbaMethod::Cert => {
            Ok(door.auth.vouched(rule.method, knock.role.into(), visit).await?)
        }
        _ => Err(hba::failed(rule.method, knock.role).into()),
    }
}

/// The operating system says who is at the other end of the Unix socket.
async fn peer(
    door: &PgDoor,
    stream: &Stream,
    knock: &Knock<'_>,
    (rules, rule): (&Rules, &HbaRule),
    visit: &Visit,
) -> Result<Identity, Refusal> {
    let (auth, role) = (&door.auth, knock.role);
    let uid = stream.peer_user();
    // The user database may be a file or a server far away.
    let name = tokio::task::spawn_blocking(move || {
        let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid?));
        user.ok().flatten().map(|user| user.name)
    });
    match name.await.ok().flatten() {
        Some(name) if rules.maps(rule, &name, role) => {
            Ok(auth.vouched(HbaMethod::Peer, role.into(), visit).await?)
        }
        _ => Err(auth.refuse(rule.method, role, visit, hba::failed(rule.method, role)).into()),
    }
}

/// Reads SASLInitialResponse: mechanism, length, data.
fn initial_response(body: &[u8]) -> Result<(&[u8], &[u8]), Error> {
    let malformed = |_| Error::new(ErrorKind::ProtocolViolation, "malformed SASL response");
    let mut cursor = Cursor(body);
    let mechanism = cursor.cstr().map_err(malformed)?;
    let length = cursor.i32().map_err(malformed)?;
    match usize::try_from(length) {
        Ok(length) if length == cursor.0.len() => Ok((mechanism, cursor.0)),
        _ => Err(Error::new(ErrorKind::ProtocolViolation, "malformed SASL response")),
    }
}
