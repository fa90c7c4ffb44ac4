//! Bearer tokens: those of other issuers, and those that RustyDB gives at a log-in.
//!
//! | File | What it knows |
//! |---|---|
//! | [`jws`] | parts and signatures |
//! | [`keys`] | keys as others write them |
//! | [`claims`] | what a token says |
//! | [`issuer`] | who is trusted, with which keys |
//! | [`logins`] | tokens of RustyDB's own, and their end |

pub mod claims;
pub mod issuer;
pub mod jws;
pub mod keys;
pub mod logins;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::rbac::Permission;
use crate::config::{Live, OWN_ISSUER};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::lru::Lru;
use crate::limits::recent::is_younger;
use crate::telemetry::Metrics;
use crate::types::Role;
use claims::Claims;
use issuer::Issuer;
use jws::{Fault, Parsed};
use logins::Logins;

/// Tokens whose signature need not be verified again.
const REMEMBERED: usize = 10_000;

/// How long, at most.
const REMEMBER_FOR: Duration = Duration::from_secs(60);

/// Seconds by which the clocks of nodes on one database may differ.
const OWN_LEEWAY: u32 = 5;

/// What kind of credential somebody has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantKind {
    /// A token of another issuer.
    Jwt,
    /// An access token of RustyDB's own.
    Access,
    /// The session of a browser.
    Session,
    /// An API key.
    ApiKey,
    /// Nothing at all, where `api.anonymous_role` is let in.
    Anonymous,
}

impl GrantKind {
    /// The word used in metrics and the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jwt => "jwt",
            Self::Access => "access_token",
            Self::Session => "session",
            Self::ApiKey => "api_key",
            Self::Anonymous => "anonymous",
        }
    }
}

/// What a credential that is no password grants.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Its kind.
    pub kind: GrantKind,
    /// Whom it is about, in the words of who gave it; the role, unless that is another issuer.
    pub subject: String,
    /// The PostgreSQL role that it stands for.
    pub role: Role,
    /// The role's number when it was given; a role that is made anew under the name is another.
    pub role_oid: Option<u32>,
    /// Whether the role may be a superuser.
    pub may_be_superuser: bool,
    /// The claims as they came, for `request.jwt.claims`.
    pub claims: Option<Arc<str>>,
    /// When it expires, in seconds since 1970, clocks that differ included.
    pub expires_at: Option<u64>,
    /// Its number: `jti`, or the public id of a key.
    pub id: Option<String>,
    /// The log-in that it comes from.
    pub login: Option<String>,
    /// All that it may be used for; `None` = whatever the role may.
    pub permissions: Option<Vec<Permission>>,
    /// Requests a second that it may be used for, if it says so.
    pub rate_limit: Option<u32>,
    /// Who of those who share a role: it, and the subject where another issuer has named him.
    pub principal: Role,
}

/// What a credential grants, and when that was found out.
type Checked = (Instant, Arc<Grant>);

/// Verifies tokens.
pub struct Tokens {
    live: Live,
    metrics: Arc<Metrics>,
    issuers: Mutex<Arc<Vec<Issuer>>>,
    verified: Mutex<Lru<[u8; 32], Checked>>,
    /// RustyDB's own.
    pub logins: Logins,
}

impl Tokens {
    /// A verifier that trusts nobody but RustyDB until [`Self::reload`].
    pub fn new(live: Live, metrics: Arc<Metrics>, logins: Logins) -> Self {
        let verified = Mutex::new(Lru::new(REMEMBERED));
        Self { live, metrics, issuers: Mutex::default(), verified, logins }
    }

    /// Takes the issuers of the configuration over, and reads the files with their keys.
    ///
    /// # Errors
    /// A file that cannot be used; then the issuers from before stay.
    pub fn reload(&self) -> Result<(), String> {
        let config = self.live.now();
        let issuers = config.jwt.issuers.iter().map(|config| Issuer::new(config, &self.metrics));
        let issuers: Vec<Issuer> = issuers.collect::<Result<_, _>>()?;
        *self.issuers.lock() = Arc::new(issuers);
        self.verified.lock().clear();
        Ok(())
    }

    /// Verifies a token.
    ///
    /// # Errors
    /// It is not good, and why; or its keys or its end cannot be asked for.
    pub async fn verify(&self, token: &str) -> Result<Arc<Grant>> {
        if token.len() > jws::LONGEST {
            return Err(refused("it is too long"));
        }
        let tag: [u8; 32] = Sha256::digest(token).into();
        let known = self.verified.lock().get(&tag).cloned();
        let grant = match known {
            Some((at, grant)) if is_younger(at, REMEMBER_FOR) => {
                if grant.expires_at.is_some_and(|end| now() >= end) {
                    self.verified.lock().remove(&tag);
                    return Err(refused("it has expired"));
                }
                grant
            }
            _ => {
                // Boxed: what is seldom needed is not carried by every request.
                let grant = Arc::new(Box::pin(self.verify_anew(token)).await?);
                self.verified.lock().insert(tag, (Instant::now(), grant.clone()));
                grant
            }
        };
        if grant.kind == GrantKind::Access && Box::pin(self.logins.is_revoked(&grant)).await? {
            return Err(refused("it was revoked"));
        }
        Ok(grant)
    }

    async fn verify_anew(&self, token: &str) -> Result<Grant> {
        let parsed = Parsed::of(token).map_err(refused)?;
        let issuer = claims::issuer_of(&parsed.payload).map_err(refused)?;
        if issuer == OWN_ISSUER {
            return self.verify_own(parsed).await;
        }
        let issuers = self.issuers.lock().clone();
        let issuer = issuers.iter().find(|known| known.config.issuer == issuer);
        let issuer = issuer.ok_or_else(|| refused("its issuer is not trusted"))?;
        let key = issuer.key(parsed.kid.as_deref(), parsed.algorithm).await.map_err(refused)?;
        if !parsed.is_signed_with(&key.material) {
            return Err(refused("its signature does not fit"));
        }
        let config = &issuer.config;
        let claims = Claims::of(&parsed.payload).map_err(refused)?;
        let end = claims.check(&config.audience, config.leeway_secs, now()).map_err(refused)?;
        let role = claims::role_at(&parsed.payload, &config.role_claim).map_err(refused)?;
        let role = role.or_else(|| config.default_role.clone());
        let role = role.ok_or_else(|| refused("it names no role"))?;
        let is_named = config.roles.contains(&role) || config.default_role.as_ref() == Some(&role);
        if !config.roles.is_empty() && !is_named {
            return Err(refused("its issuer may not name that role"));
        }
        let principal = [&*role, "/", &claims.sub].concat();
        Ok(Grant {
            kind: GrantKind::Jwt,
            subject: claims.sub,
            role: role.as_str().into(),
            role_oid: None,
            may_be_superuser: is_named,
            claims: Some(parsed.payload.into()),
            expires_at: Some(end),
            id: claims.jti,
            login: None,
            permissions: None,
            rate_limit: None,
            principal: principal.as_str().into(),
        })
    }

    async fn verify_own(&self, parsed: Parsed<'_>) -> Result<Grant> {
        if !self.logins.has_signed(&parsed).await? {
            return Err(refused("its signature does not fit"));
        }
        let claims = Claims::of(&parsed.payload).map_err(refused)?;
        let audience = [OWN_ISSUER.to_owned()];
        let end = claims.check(&audience, OWN_LEEWAY, now()).map_err(refused)?;
        let role = Role::from(claims.sub.as_str());
        Ok(Grant {
            kind: GrantKind::Access,
            principal: role.clone(),
            role,
            subject: claims.sub,
            role_oid: claims.oid,
            may_be_superuser: true,
            claims: Some(parsed.payload.into()),
            expires_at: Some(end),
            id: claims.jti,
            login: claims.sid,
            permissions: None,
            rate_limit: None,
        })
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A token that is not good; the client may know why, since it has the token.
pub(super) fn refused(fault: Fault) -> Error {
    Error::new(ErrorKind::AuthenticationFailed, format!("the token is not valid: {fault}"))
        .with_sqlstate(crate::error::SqlState::new(b"28000"))
}

#[cfg(test)]
mod rsa_vectors;
#[cfg(test)]
mod tests;
