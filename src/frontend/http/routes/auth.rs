//! Log-in, tokens, sessions of browsers, and API keys.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::header::SET_COOKIE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::super::error::{ApiError, ApiResult};
use super::super::extract::{Caller, InPath, JsonBody, SESSION_COOKIE, basic, whence};
use super::super::paging::{List, Page};
use super::super::{HttpDoor, answer, no_content, way_of};
use super::Routes;
use super::roles::GivenPermission;
use super::unsupported::unsupported;
use crate::auth::api_keys::{KeyInfo, NewKey};
use crate::auth::tokens::logins::TokenPair;
use crate::auth::{Credential, Identity, Login, Visit};
use crate::error::{Error, ErrorKind, Result};
use crate::types::Secret;

/// Keys that are read for a list.
const MOST_KEYS: usize = 100_000;

/// Routes of this file.
pub fn routes() -> Routes {
    Routes::new()
        .routes(routes!(login))
        .routes(routes!(logout))
        .routes(routes!(refresh))
        .routes(routes!(validate_own, validate))
        .routes(routes!(get_me))
        .routes(routes!(get_csrf))
        .routes(routes!(list_api_keys, create_api_key))
        .routes(routes!(delete_api_key))
}

/// Where a request comes from, which needs no credentials.
struct Visitor {
    visit: Visit,
    has_tls: bool,
}

impl FromRequestParts<Arc<HttpDoor>> for Visitor {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        _door: &Arc<HttpDoor>,
    ) -> std::result::Result<Self, Self::Rejection> {
        let has_tls = way_of(&parts.extensions).has_tls;
        Ok(Self { visit: whence(parts)?.2, has_tls })
    }
}

/// Who wants to log in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LoginRequest {
    /// A PostgreSQL role; without name and password, those of `Authorization: Basic`.
    username: Option<String>,
    /// Its password.
    password: Option<String>,
    /// A second factor: means nothing, as log-ins have one.
    #[allow(dead_code, reason = "taken from clients that always send it")]
    mfa_code: Option<String>,
    /// Who knows it: database.
    provider: Option<Provider>,
    /// For a browser: the answer sets a cookie instead of giving tokens.
    #[serde(default)]
    cookie: bool,
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Provider {
    Database,
    Ldap,
    Kerberos,
    Saml,
    Oauth,
}

/// Tokens. They are secrets, and shown once.
#[derive(Serialize, ToSchema)]
struct Tokens {
    /// For `Authorization: Bearer`.
    access_token: String,
    /// For the next pair; good for one use.
    refresh_token: String,
    /// Bearer.
    token_type: &'static str,
    /// Seconds that the access token is good for.
    expires_in: u64,
    /// The log-in.
    session_id: String,
    /// The role.
    user: String,
}

impl From<TokenPair> for Tokens {
    fn from(pair: TokenPair) -> Self {
        Self {
            access_token: pair.access_token.reveal().to_owned(),
            refresh_token: pair.refresh_token.reveal().to_owned(),
            token_type: "Bearer",
            expires_in: pair.expires_in,
            session_id: pair.login,
            user: pair.role.to_string(),
        }
    }
}

/// The session of a browser; its secret is in the cookie.
#[derive(Serialize, ToSchema)]
struct BrowserLogin {
    /// For the header X-CSRF-Token of requests that change something.
    csrf_token: String,
    /// Seconds that the session is good for.
    expires_in: u64,
    /// The log-in.
    session_id: String,
    /// The role.
    user: String,
}

/// What a log-in gives.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum LoggedIn {
    /// For a program.
    Tokens(Tokens),
    /// For a browser.
    Browser(BrowserLogin),
}

/// Log in
///
/// With a role's password, in the body or as HTTP Basic; gives tokens, or with `cookie` a session
/// for a browser.
#[utoipa::path(
    post, path = "/api/v1/auth/login", tag = "auth", request_body = LoginRequest,
    responses((status = 200, description = "Who it is.", body = LoggedIn))
)]
async fn login(
    State(door): State<Arc<HttpDoor>>,
    visitor: Visitor,
    headers: HeaderMap,
    JsonBody(request): JsonBody<LoginRequest>,
) -> ApiResult {
    match request.provider {
        None | Some(Provider::Database) => {}
        Some(Provider::Ldap) => return Err(unsupported("ldap").into()),
        Some(Provider::Kerberos) => return Err(unsupported("kerberos").into()),
        Some(Provider::Saml) => return Err(unsupported("saml").into()),
        Some(Provider::Oauth) => return Err(unsupported("oauth_login").into()),
    }
    let missing = || Error::new(ErrorKind::ValidationError, "username and password are missing");
    let (role, password) = match (request.username, request.password) {
        (Some(name), Some(password)) => (name.as_str().into(), Secret::new(password)),
        (None, None) => basic(&headers)?.ok_or_else(missing)?,
        _ => return Err(missing().into()),
    };
    let credential = Credential::Password(role, password);
    let limit = door.config.now().api.request_timeout_secs.duration();
    let late = |_| Error::new(ErrorKind::Timeout, "the log-in took too long");
    let checked = door.auth.credentials(credential, &visitor.visit);
    let identity = tokio::time::timeout(limit, checked).await.map_err(late)??;
    match door.auth.log_in(&identity, request.cookie, &visitor.visit).await? {
        Login::Tokens(pair) => Ok(answer(StatusCode::OK, &LoggedIn::Tokens(pair.into()))),
        Login::Session(session) => {
            let body = LoggedIn::Browser(BrowserLogin {
                csrf_token: session.csrf_token.reveal().to_owned(),
                expires_in: session.expires_in,
                session_id: session.login,
                user: identity.role.to_string(),
            });
            let mut response = answer(StatusCode::OK, &body);
            let value = session.session_token.reveal();
            set_cookie(&mut response, value, session.expires_in, visitor.has_tls)?;
            Ok(response)
        }
    }
}

fn set_cookie(response: &mut Response, value: &str, secs: u64, has_tls: bool) -> Result<()> {
    let secure = if has_tls { "; Secure" } else { "" };
    let cookie =
        format!("{SESSION_COOKIE}={value}; Path=/; Max-Age={secs}; HttpOnly; SameSite=Lax{secure}");
    let mut cookie: HeaderValue = cookie.parse().map_err(Error::internal)?;
    cookie.set_sensitive(true);
    response.headers_mut().append(SET_COOKIE, cookie);
    Ok(())
}

/// Log out
///
/// Ends the log-in that the request's token or cookie comes from, with all its tokens.
#[utoipa::path(
    post, path = "/api/v1/auth/logout", tag = "auth",
    responses((status = 204, description = "It is over."))
)]
async fn logout(State(door): State<Arc<HttpDoor>>, visitor: Visitor, caller: Caller) -> ApiResult {
    door.auth.log_out(&caller.identity, &caller.visit).await?;
    let mut response = no_content();
    if caller.cookie.is_some() {
        set_cookie(&mut response, "", 0, visitor.has_tls)?;
    }
    Ok(response)
}

/// A refresh token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RefreshRequest {
    /// The one of the last pair.
    refresh_token: String,
}

/// Get new tokens
///
/// For a refresh token, which is good for one use: who uses it twice ends the log-in.
#[utoipa::path(
    post, path = "/api/v1/auth/refresh", tag = "auth", request_body = RefreshRequest,
    responses((status = 200, description = "The next pair.", body = Tokens))
)]
async fn refresh(
    State(door): State<Arc<HttpDoor>>,
    visitor: Visitor,
    JsonBody(request): JsonBody<RefreshRequest>,
) -> ApiResult {
    let token = Secret::new(request.refresh_token);
    let pair = door.auth.refresh(&token, &visitor.visit).await?;
    Ok(answer(StatusCode::OK, &Tokens::from(pair)))
}

/// What credentials are good for.
#[derive(Serialize, ToSchema)]
struct Validity {
    /// Whether they are good.
    valid: bool,
    /// The PostgreSQL role that they stand for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    user: Option<String>,
    /// Whom they are about, in the words of who gave them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    subject: Option<String>,
    /// password, jwt, access_token, session, api_key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    method: Option<&'static str>,
    /// Roles of RustyDB.
    roles: Vec<String>,
    /// What they may be used for.
    permissions: Vec<String>,
    /// When they expire, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    expires_at: Option<u64>,
}

async fn validity(door: &HttpDoor, identity: &Identity) -> Result<Validity> {
    let (roles, permissions) = door.auth.permissions_of(identity).await?;
    let grant = identity.grant.as_deref();
    Ok(Validity {
        valid: true,
        user: Some(identity.role.to_string()),
        subject: grant.map(|grant| grant.subject.clone()),
        method: Some(grant.map_or("password", |grant| grant.kind.as_str())),
        roles,
        permissions,
        expires_at: grant.and_then(|grant| grant.expires_at),
    })
}

/// Check one's own credentials
///
/// What the credentials of the request are good for.
#[utoipa::path(
    get, path = "/api/v1/auth/validate", tag = "auth",
    responses((status = 200, description = "What they are good for.", body = Validity))
)]
async fn validate_own(State(door): State<Arc<HttpDoor>>, caller: Caller) -> ApiResult {
    Ok(answer(StatusCode::OK, &validity(&door, &caller.identity).await?))
}

/// A token that is to be checked.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ValidateRequest {
    /// A token, or an API key.
    token: String,
}

/// Check a token
///
/// Whether it is good, and what for. One that is not good is no error.
#[utoipa::path(
    post, path = "/api/v1/auth/validate", tag = "auth", request_body = ValidateRequest,
    responses((status = 200, description = "What it is good for.", body = Validity))
)]
async fn validate(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    JsonBody(request): JsonBody<ValidateRequest>,
) -> ApiResult {
    let credential = Credential::Bearer(Secret::new(request.token));
    let validity = match door.auth.credentials(credential, &caller.visit).await {
        Ok(identity) => validity(&door, &identity).await?,
        Err(error) if error.kind() == ErrorKind::AuthenticationFailed => Validity {
            valid: false,
            user: None,
            subject: None,
            method: None,
            roles: Vec::new(),
            permissions: Vec::new(),
            expires_at: None,
        },
        Err(error) => return Err(error.into()),
    };
    Ok(answer(StatusCode::OK, &validity))
}

/// Get oneself
///
/// The caller's role, and what it may do beside what PostgreSQL lets it do.
#[utoipa::path(
    get, path = "/api/v1/auth/me", tag = "auth",
    responses((status = 200, description = "The caller.", body = Validity))
)]
async fn get_me(State(door): State<Arc<HttpDoor>>, caller: Caller) -> ApiResult {
    Ok(answer(StatusCode::OK, &validity(&door, &caller.identity).await?))
}

/// A CSRF token.
#[derive(Serialize, ToSchema)]
struct CsrfToken {
    /// For the header X-CSRF-Token.
    csrf_token: String,
}

/// Get the CSRF token
///
/// That of the session whose cookie the request has.
#[utoipa::path(
    get, path = "/api/v1/auth/csrf", tag = "auth",
    responses((status = 200, description = "The token.", body = CsrfToken))
)]
async fn get_csrf(State(door): State<Arc<HttpDoor>>, caller: Caller) -> ApiResult {
    let Some(cookie) = &caller.cookie else {
        let text = "only a request with the cookie of a session needs a CSRF token";
        return Err(Error::new(ErrorKind::ValidationError, text).into());
    };
    let csrf_token = door.auth.csrf_token(cookie).reveal().to_owned();
    Ok(answer(StatusCode::OK, &CsrfToken { csrf_token }))
}

/// List API keys
///
/// Those of the caller; those of everybody for who may `admin:keys`. A key with permissions of its
/// own lists none unless it is for `manage:keys`.
#[utoipa::path(
    get, path = "/api/v1/auth/api-keys", tag = "auth", params(Page),
    responses((status = 200, description = "A page of them.", body = List<KeyInfo>))
)]
async fn list_api_keys(State(door): State<Arc<HttpDoor>>, caller: Caller, page: Page) -> ApiResult {
    let all = caller.may(&door, "admin:keys").await?;
    let role = (!all).then_some(&caller.identity.role);
    let keys = door.auth.list_keys(role, MOST_KEYS).await?;
    Ok(answer(StatusCode::OK, &page.of_all(keys)?))
}

/// An API key that is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateKey {
    /// Name for people.
    name: String,
    /// All that it may be used for; empty = whatever the role may.
    #[serde(default)]
    permissions: Vec<GivenPermission>,
    /// Networks from where it may be used; empty = from everywhere.
    #[serde(default)]
    #[schema(examples("10.0.0.0/8"))]
    addresses: Vec<String>,
    /// Requests a second.
    #[schema(minimum = 1)]
    rate_limit: Option<u32>,
    /// Seconds that it is good for.
    #[schema(minimum = 1)]
    ttl_secs: Option<u64>,
    /// Only for trying out; nothing differs but its beginning.
    #[serde(default)]
    test: bool,
}

/// An API key. The key is shown this once.
#[derive(Serialize, ToSchema)]
struct NewKeyAnswer {
    /// Its public id.
    key_id: String,
    /// The key, for the header X-API-Key.
    key: String,
}

/// Create an API key
///
/// For the caller's role. The answer shows the key; nothing else ever does.
#[utoipa::path(
    post, path = "/api/v1/auth/api-keys", tag = "auth", request_body = CreateKey,
    responses((status = 201, description = "It is there.", body = NewKeyAnswer))
)]
async fn create_api_key(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    JsonBody(new): JsonBody<CreateKey>,
) -> ApiResult {
    let permissions: Result<Vec<_>> =
        new.permissions.into_iter().map(GivenPermission::read).collect();
    let network = |text: &String| {
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse::<IpNet>().or_else(|_| address()).map_err(|_| {
            let text = format!("\"{text}\" is no address or network");
            Error::new(ErrorKind::ValidationError, text)
        })
    };
    let addresses: Result<Vec<_>> = new.addresses.iter().map(network).collect();
    let wanted = NewKey {
        name: new.name,
        is_test: new.test,
        permissions: permissions?,
        addresses: addresses?,
        rate_limit: new.rate_limit,
        ttl_secs: new.ttl_secs,
    };
    let (key_id, key) = door.auth.create_key(&caller.identity, &wanted, &caller.visit).await?;
    let key = key.reveal().to_owned();
    Ok(answer(StatusCode::CREATED, &NewKeyAnswer { key_id, key }))
}

/// Revoke an API key
///
/// One of the caller's; anybody's for who may `admin:keys`. A key can revoke none but itself.
#[utoipa::path(
    delete, path = "/api/v1/auth/api-keys/{key_id}", tag = "auth",
    params(("key_id" = String, Path, description = "Its public id.")),
    responses((status = 204, description = "It is not good any more."))
)]
async fn delete_api_key(
    State(door): State<Arc<HttpDoor>>,
    caller: Caller,
    InPath(key_id): InPath<String>,
) -> ApiResult {
    let all = caller.may(&door, "admin:keys").await?;
    match door.auth.revoke_key(&caller.identity, &key_id, all, &caller.visit).await? {
        true => Ok(no_content()),
        false => {
            let text = format!("there is no key \"{key_id}\"");
            Err(Error::new(ErrorKind::NotFound, text).into())
        }
    }
}
