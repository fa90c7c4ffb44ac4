//! From any credential to an identity, and the log-ins and log-outs of HTTP.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::api_keys::{ApiKeys, KeyInfo, NewKey};
use super::rbac::{Permission, RoleDefinition, Roles, Wanted};
use super::tokens::logins::{
    BrowserSession, REFRESH_PREFIX, Refreshed, SESSION_PREFIX, TokenPair, csrf_fits, csrf_of,
};
use super::tokens::{Grant, GrantKind};
use super::{Authenticator, Identity, RoleRecord};
use crate::audit::{AuditLog, Event, EventType, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::lru::Lru;
use crate::limits::recent::is_younger;
use crate::types::{Protocol, Role, Secret};

/// How often the audit log hears of the same success over HTTP, where every request proves itself.
const NOTE_EVERY: Duration = Duration::from_secs(60);

/// Pairs of role and address that it has heard of.
const NOTED: usize = 10_000;

/// What somebody shows.
#[derive(Debug)]
pub enum Credential {
    /// A role's name and password.
    Password(Role, Secret),
    /// `Authorization: Bearer`: a token, a session or an API key.
    Bearer(Secret),
    /// `X-API-Key`.
    ApiKey(Secret),
    /// The cookie of a browser's session.
    Session(Secret),
}

/// Where somebody comes from.
#[derive(Clone, Debug, Default)]
pub struct Visit {
    /// The client's address; `None` = a Unix socket.
    pub address: Option<IpAddr>,
    /// The door.
    pub protocol: Option<Protocol>,
    /// The request, for the audit log.
    pub request_id: Option<Arc<str>>,
}

impl Visit {
    /// A client of a door.
    pub fn new(protocol: Protocol, address: Option<IpAddr>) -> Self {
        Self { address, protocol: Some(protocol), request_id: None }
    }

    /// An event with what is known of the visitor.
    pub fn mark(&self, event: Event) -> Event {
        Event {
            client_ip: self.address,
            protocol: self.protocol,
            request_id: self.request_id.as_deref().map(str::to_owned),
            ..event
        }
    }
}

/// What a log-in over HTTP gives.
#[derive(Debug)]
pub enum Login {
    /// For a program.
    Tokens(TokenPair),
    /// For a browser.
    Session(BrowserSession),
}

/// Whose success was noted when.
pub(super) struct Noted(Mutex<Lru<(Role, Option<IpAddr>), Instant>>);

impl Default for Noted {
    fn default() -> Self {
        Self(Mutex::new(Lru::new(NOTED)))
    }
}

impl Authenticator {
    /// Takes the issuers of tokens over from the configuration in force.
    ///
    /// # Errors
    /// A file with keys cannot be used; then the issuers from before stay.
    pub fn reload(&self) -> Result<(), String> {
        self.tokens.reload()
    }

    /// The audit log.
    pub fn audit(&self) -> &AuditLog {
        &self.audit
    }

    /// Says who shows a credential.
    ///
    /// # Errors
    /// It is not good, or whether it is cannot be found out now.
    pub async fn credentials(&self, credential: Credential, visit: &Visit) -> Result<Identity> {
        let (kind, checked) = match credential {
            Credential::Password(role, password) => {
                return Box::pin(self.password_from(role, password, visit)).await;
            }
            Credential::Bearer(text) if text.reveal().starts_with(SESSION_PREFIX) => {
                (GrantKind::Session, Box::pin(self.tokens.logins.session(&text)).await)
            }
            Credential::Bearer(text) if ApiKeys::is_key(text.reveal()) => {
                (GrantKind::ApiKey, Box::pin(self.keys.check(&text, visit.address)).await)
            }
            Credential::Bearer(text) if text.reveal().starts_with(REFRESH_PREFIX) => {
                let text = "a refresh token is for getting new tokens only";
                (GrantKind::Access, Err(Error::new(ErrorKind::AuthenticationFailed, text)))
            }
            Credential::Bearer(text) => (GrantKind::Jwt, self.tokens.verify(text.reveal()).await),
            Credential::ApiKey(text) => {
                (GrantKind::ApiKey, Box::pin(self.keys.check(&text, visit.address)).await)
            }
            Credential::Session(text) => {
                (GrantKind::Session, Box::pin(self.tokens.logins.session(&text)).await)
            }
        };
        let identity = match checked {
            Ok(grant) => self.granted(grant, visit).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &identity
            && error.kind() == ErrorKind::AuthenticationFailed
        {
            self.metrics.auth_attempt(kind.as_str(), false);
            let event =
                Event::new(EventType::AuthenticationFailure, Outcome::Denied, kind.as_str());
            let event = Event { error: Some(error.to_string()), ..event };
            Box::pin(self.audit.record(visit.mark(event))).await?;
        }
        identity
    }

    /// The role that a grant stands for must be there, and be the same one.
    async fn granted(&self, grant: Arc<Grant>, visit: &Visit) -> Result<Identity> {
        let role = grant.role.clone();
        let refused = |text: String| Err(Error::new(ErrorKind::AuthenticationFailed, text));
        let Some(record) = self.record(&role).await? else {
            return refused(format!("role \"{role}\" does not exist"));
        };
        let stand_in = match record.can_login {
            true => None,
            false => self.stand_in(&grant, visit).await?,
        };
        if !record.can_login && stand_in.is_none() {
            return refused(format!("role \"{role}\" is not permitted to log in"));
        }
        if grant.role_oid.is_some_and(|oid| oid != record.oid) {
            return refused(format!("role \"{role}\" is not the one of then"));
        }
        if record.is_superuser && !grant.may_be_superuser {
            return refused(format!(
                "role \"{role}\" is a superuser, which security.jwt.issuers does not name"
            ));
        }
        self.metrics.auth_attempt(grant.kind.as_str(), true);
        self.audit_login(grant.kind.as_str(), &role, visit, None).await?;
        Ok(Identity { grant: Some(grant), stand_in, ..self.known(role, &record) })
    }

    /// A role as it is recorded. Whoever has shown its password before has left what a backend asks
    /// for.
    fn known(&self, role: Role, record: &RoleRecord) -> Identity {
        let keys = self.cache.lock().passwords.get(&role).and_then(|known| {
            (Some(&known.verifier) == record.verifier.as_ref()).then(|| known.keys.clone())
        });
        Identity { keys, ..Identity::new(role, Some(record)) }
    }

    /// Who logs in over HTTP for a role that may not: `api.authenticator_role`. What RustyDB itself
    /// gave to a role ends with its LOGIN.
    async fn stand_in(&self, grant: &Grant, visit: &Visit) -> Result<Option<Arc<Identity>>> {
        let may = matches!(grant.kind, GrantKind::Jwt | GrantKind::Anonymous)
            && visit.protocol == Some(Protocol::Http);
        let role = self.config.now().api.authenticator_role.clone().filter(|_| may);
        let Some(role) = role.as_deref().map(Role::from) else { return Ok(None) };
        let record = self.record(&role).await?;
        // A superuser could become anybody, and functions of a database can put a role off.
        let record = record.filter(|record| record.can_login && !record.is_superuser);
        let record = record.ok_or_else(|| {
            let text = format!("api.authenticator_role \"{role}\" cannot log in for others");
            Error::new(ErrorKind::AuthenticationFailed, text)
                .with_hint("it must exist, have LOGIN, and be no superuser")
        })?;
        Ok(Some(Arc::new(self.known(role, &record))))
    }

    /// Lets a request in that shows nothing, as a role that was set aside for that.
    ///
    /// # Errors
    /// The role cannot be used.
    pub async fn anonymous(&self, role: &str, visit: &Visit) -> Result<Identity> {
        let grant = Grant {
            kind: GrantKind::Anonymous,
            subject: String::new(),
            role: role.into(),
            role_oid: None,
            may_be_superuser: false,
            claims: Some(serde_json::json!({ "role": role }).to_string().into()),
            expires_at: None,
            id: None,
            login: None,
            permissions: None,
            rate_limit: None,
            principal: role.into(),
        };
        self.granted(Arc::new(grant), visit).await
    }

    /// Tells the audit log of a log-in; `why` not.
    pub(super) async fn audit_login(
        &self,
        method: &'static str,
        role: &Role,
        visit: &Visit,
        why: Option<&str>,
    ) -> Result<()> {
        if why.is_none() && visit.protocol == Some(Protocol::Http) {
            let mut noted = self.noted.0.lock();
            let key = (role.clone(), visit.address);
            if noted.get(&key).is_some_and(|at| is_younger(*at, NOTE_EVERY)) {
                return Ok(());
            }
            noted.insert(key, Instant::now());
        }
        let (kind, outcome) = match why {
            None => (EventType::AuthenticationSuccess, Outcome::Success),
            Some(_) => (EventType::AuthenticationFailure, Outcome::Denied),
        };
        let event = Event::new(kind, outcome, method).by(role.as_str());
        let event = Event { error: why.map(str::to_owned), ..event };
        Box::pin(self.audit.record(visit.mark(event))).await
    }

    /// Gives tokens, or a browser's session, to somebody who has proved himself with a password.
    ///
    /// # Errors
    /// He has shown something else, which could be prolonged for ever this way; or the tables
    /// cannot be reached or made.
    pub async fn log_in(
        &self,
        identity: &Identity,
        for_browser: bool,
        visit: &Visit,
    ) -> Result<Login> {
        let oid = match (&identity.grant, identity.role_oid) {
            (None, Some(oid)) => oid,
            (None, None) => {
                let text = "nobody logs in while authentication is off";
                return Err(Error::new(ErrorKind::NotSupported, text));
            }
            (Some(_), _) => {
                let text = "a log-in needs a password";
                return Err(Error::new(ErrorKind::AuthorizationFailed, text));
            }
        };
        let logins = &self.tokens.logins;
        let login = match for_browser {
            true => Login::Session(logins.begin_session(&identity.role, oid).await?),
            false => Login::Tokens(logins.begin(&identity.role, oid).await?),
        };
        let id = match &login {
            Login::Tokens(pair) => &pair.login,
            Login::Session(session) => &session.login,
        };
        let event = Event::new(EventType::SessionCreated, Outcome::Success, "login");
        let event = event.by(identity.role.as_str()).about(id.clone());
        Box::pin(self.audit.record(visit.mark(event))).await?;
        Ok(login)
    }

    /// Takes a refresh token and gives the next pair; the old one is not good any more.
    ///
    /// # Errors
    /// It is not good. If it had been used before, the whole log-in has ended.
    pub async fn refresh(&self, token: &Secret, visit: &Visit) -> Result<TokenPair> {
        let refreshed = self.tokens.logins.refresh(token).await;
        self.metrics.auth_attempt("refresh_token", matches!(refreshed, Ok(Refreshed::Pair(_))));
        let pair = match refreshed? {
            Refreshed::Pair(pair) => pair,
            Refreshed::Reused { role, login } => {
                let event =
                    Event::new(EventType::SuspiciousActivity, Outcome::Denied, "refresh_token");
                let event = event.by(role.as_str()).about(login);
                let why = "a refresh token was used twice; the log-in has ended";
                tracing::warn!(%role, address = ?visit.address, "{why}");
                let event = Event { error: Some(why.to_owned()), ..event };
                Box::pin(self.audit.record(visit.mark(event))).await?;
                return Err(Error::new(ErrorKind::AuthenticationFailed, why)
                    .with_hint("log in again; if you did not use it twice, somebody else did"));
            }
        };
        // A role that is gone, or may not log in any more, gets no further.
        let record = self.record(&pair.role).await?;
        if !record.is_some_and(|record| record.can_login) {
            self.tokens.logins.end(&pair.login).await?;
            let text = format!("role \"{}\" is not permitted to log in", pair.role);
            return Err(Error::new(ErrorKind::AuthenticationFailed, text));
        }
        Ok(pair)
    }

    /// Ends the log-in that an identity comes from, with all its tokens.
    ///
    /// # Errors
    /// It comes from none, or the tables cannot be reached.
    pub async fn log_out(&self, identity: &Identity, visit: &Visit) -> Result<()> {
        let grant = identity.grant.as_deref();
        let Some(login) = grant.and_then(|grant| grant.login.as_deref()) else {
            let text = "there is no log-in that could end: the request has shown no token of one";
            return Err(Error::new(ErrorKind::ValidationError, text));
        };
        self.tokens.logins.end(login).await?;
        let event = Event::new(EventType::SessionTerminated, Outcome::Success, "logout");
        let event = event.by(identity.role.as_str()).about(login);
        self.audit.record(visit.mark(event)).await
    }

    /// Ends a single access token of RustyDB's own before its time, by its `jti`.
    ///
    /// # Errors
    /// The tables cannot be reached.
    pub async fn revoke_token(&self, jti: &str, expires_at: u64) -> Result<()> {
        self.tokens.logins.revoke(jti, expires_at).await
    }

    /// The CSRF token of a browser's session.
    pub fn csrf_token(&self, session_token: &Secret) -> Secret {
        csrf_of(session_token)
    }

    /// Checks the header `X-CSRF-Token` of a request that a browser's cookie came with.
    ///
    /// # Errors
    /// It is missing or belongs to another session.
    pub fn check_csrf(&self, session_token: &Secret, csrf_token: Option<&str>) -> Result<()> {
        match csrf_token {
            Some(token) if csrf_fits(session_token, token) => Ok(()),
            _ => Err(Error::new(
                ErrorKind::CsrfFailed,
                "the header X-CSRF-Token is missing or does not belong to the session",
            )),
        }
    }

    /// Makes an API key for the role of an identity; returns its public id and the key.
    ///
    /// # Errors
    /// It would grant more than the key that made it, a value is out of bounds, there are too many,
    /// or the tables cannot be reached.
    pub async fn create_key(
        &self,
        identity: &Identity,
        new: &NewKey,
        visit: &Visit,
    ) -> Result<(String, Secret)> {
        let oid = identity.role_oid.ok_or_else(|| {
            Error::new(ErrorKind::NotSupported, "no keys are made while authentication is off")
        })?;
        if identity.grant.as_ref().is_some_and(|grant| grant.kind == GrantKind::ApiKey) {
            let text = "an API key cannot make another";
            return Err(Error::new(ErrorKind::AuthorizationFailed, text));
        }
        let (id, key) = self.keys.create(&identity.role, oid, new).await?;
        let event = Event::new(EventType::KeyCreated, Outcome::Success, "create_key");
        let event = event.by(identity.role.as_str()).about(id.clone());
        Box::pin(self.audit.record(visit.mark(event))).await?;
        Ok((id, key))
    }

    /// Revokes an API key of the role of an identity, or of anybody; returns whether there was one.
    ///
    /// # Errors
    /// It is another key than the one that was shown, or the tables cannot be reached.
    pub async fn revoke_key(
        &self,
        identity: &Identity,
        key_id: &str,
        anybodys: bool,
        visit: &Visit,
    ) -> Result<bool> {
        let shown = identity.grant.as_ref().filter(|grant| grant.kind == GrantKind::ApiKey);
        if shown.is_some_and(|key| key.id.as_deref() != Some(key_id)) {
            let text = "an API key can revoke none but itself";
            return Err(Error::new(ErrorKind::AuthorizationFailed, text));
        }
        let role = (!anybodys).then_some(&identity.role);
        let was_there = self.keys.revoke(key_id, role).await?;
        if was_there {
            let event = Event::new(EventType::KeyRevoked, Outcome::Success, "revoke_key");
            let event = event.by(identity.role.as_str()).about(key_id);
            Box::pin(self.audit.record(visit.mark(event))).await?;
        }
        Ok(was_there)
    }

    /// The API keys of a role, or of everybody, newest first.
    ///
    /// # Errors
    /// The tables cannot be reached.
    pub async fn list_keys(&self, role: Option<&Role>, most: usize) -> Result<Vec<KeyInfo>> {
        self.keys.list(role, most).await
    }

    /// Checks that an identity may do something beside what PostgreSQL decides.
    ///
    /// # Errors
    /// It may not, and which permission is missing.
    pub async fn authorize(
        &self,
        identity: &Identity,
        wanted: &dyn Wanted,
        visit: &Visit,
    ) -> Result<()> {
        let Err(error) = self.permissions.check(identity, wanted).await else { return Ok(()) };
        if error.kind() == ErrorKind::AuthorizationFailed {
            let event =
                Event::new(EventType::AuthorizationFailure, Outcome::Denied, wanted.to_string());
            let event = event.by(identity.role.as_str());
            Box::pin(self.audit.record(visit.mark(event))).await?;
        }
        Err(error)
    }

    /// Whether an identity may do something, where it is no fault that it may not.
    ///
    /// # Errors
    /// The tables cannot be reached.
    pub async fn allows(&self, identity: &Identity, wanted: &Permission) -> Result<bool> {
        match self.permissions.check(identity, wanted).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AuthorizationFailed => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Forgets what is remembered of roles and their members; the next request asks again.
    pub fn look_again(&self) {
        self.permissions.forget();
    }

    /// The roles of RustyDB that an identity has, and what they allow it.
    ///
    /// # Errors
    /// The tables cannot be reached.
    pub async fn permissions_of(&self, identity: &Identity) -> Result<(Vec<String>, Vec<String>)> {
        self.permissions.of(identity).await
    }

    /// Every role of RustyDB.
    ///
    /// # Errors
    /// The tables cannot be reached.
    pub async fn roles(&self) -> Result<Arc<Roles>> {
        self.permissions.roles().await
    }

    /// Adds a role of RustyDB or changes it; `None` removes it.
    ///
    /// # Errors
    /// As [`Roles::put`] and [`Roles::remove`], or the tables cannot be reached or made.
    pub async fn change_role(
        &self,
        identity: &Identity,
        name: &str,
        role: Option<RoleDefinition>,
        visit: &Visit,
    ) -> Result<()> {
        let what = if role.is_some() { "put_role" } else { "remove_role" };
        self.permissions.change(name, role).await?;
        let event = Event::new(EventType::RoleChanged, Outcome::Success, what);
        let event = event.by(identity.role.as_str()).about(name);
        self.audit.record(visit.mark(event)).await
    }

    /// Gives a PostgreSQL role these roles of RustyDB and no others.
    ///
    /// # Errors
    /// There is no such role of RustyDB, or the tables cannot be reached or made.
    pub async fn grant_roles(
        &self,
        identity: &Identity,
        to: &Role,
        roles: &[String],
        visit: &Visit,
    ) -> Result<()> {
        self.permissions.grant(to, roles).await?;
        let event = Event::new(EventType::RoleChanged, Outcome::Success, "grant_roles");
        let mut event = event.by(identity.role.as_str()).about(to.as_str());
        event.metadata.insert("roles".into(), roles.join(", "));
        self.audit.record(visit.mark(event)).await
    }

    /// What has to be done about once a minute: uses of keys are written, what expired is removed.
    pub async fn upkeep(&self) {
        let done = async {
            self.keys.write_uses().await?;
            self.tokens.logins.sweep().await
        };
        if let Err(error) = done.await {
            tracing::debug!(%error, "the tables of log-ins and keys cannot be kept up");
        }
    }
}
