//! What handlers take from a request: who it is, and its JSON body.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::Method;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http_body_util::BodyExt;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use super::formats::{MSGPACK, unpack};
use super::routes::is_absent;
use super::words::plain;
use super::{HttpDoor, InWork, Peer, RequestId, pipeline, tables, within};
use crate::auth::rbac::{OfTable, Permission, Plain};
use crate::auth::{Credential, Identity, Visit};
use crate::config::Config;
use crate::error::{Error, ErrorKind};
use crate::session::{Session, Start};
use crate::types::{Protocol, Role, Secret};

/// Arrays and objects that a JSON body may have within each other.
const DEEPEST: usize = 64;

/// Bytes of a name that is kept whole (PostgreSQL's NAMEDATALEN - 1).
const LONGEST_NAME: usize = 63;

/// The cookie of a browser's session.
pub const SESSION_COOKIE: &str = "rustydb_session";

/// Parameters that make text values of PostgreSQL unambiguous, and JSON of them possible.
const SESSION_PARAMETERS: [(&str, &str); 3] = [
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("options", "-c bytea_output=hex -c extra_float_digits=1"),
];

/// The same for times. PostgREST leaves them to the database and the role.
const TIMES: [(&str, &str); 2] = [("IntervalStyle", "iso_8601"), ("TimeZone", "UTC")];

/// The names of [`TIMES`].
pub const FIXED: [&str; 2] = [TIMES[0].0, TIMES[1].0];

/// Start-up parameters: names and values.
type Parameters<'p> = &'p [(&'p str, &'p str)];

/// The header that names a session.
static APPLICATION_NAME: HeaderName = HeaderName::from_static("x-application-name");

/// The name of sessions that were given none.
const APPLICATION: &str = "rustydb-http";

/// A client that has proved who it is, and may ask for what it asks for.
pub struct Caller {
    /// Who it is.
    pub identity: Identity,
    /// Where it is.
    pub peer: Arc<Peer>,
    /// The request.
    pub id: RequestId,
    /// The same for the authentication chain.
    pub visit: Visit,
    /// The cookie of a browser's session, if that is what it has shown.
    pub cookie: Option<Secret>,
    /// `application_name` of its sessions, if the request says.
    pub application: Option<String>,
    /// The configuration as it was when that was found out.
    pub config: Arc<Config>,
}

impl Caller {
    /// A session of the caller's in a database; `None` = `api.database`.
    pub fn session(&self, door: &HttpDoor, database: Option<&str>) -> Result<Box<Session>, Error> {
        let name = self.application.as_deref().unwrap_or(APPLICATION);
        self.open(door, &self.identity, database, (&TIMES, &[("application_name", name)]))
    }

    /// A session of a job of this name, for as long as its statements take.
    pub fn session_of_job(
        &self,
        door: &HttpDoor,
        database: Option<&str>,
        name: &str,
    ) -> Result<Box<Session>, Error> {
        let further = [("application_name", name), ("statement_timeout", "0")];
        self.open(door, &self.identity, database, (&TIMES, &further))
    }

    /// A session for statements that RustyDB makes. Where the caller's role may not log in, another
    /// one has, and each statement takes on the caller's (`rows::Settings::of`).
    pub fn session_for_rows(
        &self,
        door: &HttpDoor,
        database: Option<&str>,
    ) -> Result<Box<Session>, Error> {
        let name = self.application.as_deref().unwrap_or(APPLICATION);
        let identity = self.identity.stand_in.as_deref().unwrap_or(&self.identity);
        self.open(door, identity, database, (&TIMES, &[("application_name", name)]))
    }

    /// The same for PostgREST's dialect.
    pub fn session_for_rest(&self, door: &HttpDoor) -> Result<Box<Session>, Error> {
        let name = self.application.as_deref().unwrap_or(APPLICATION);
        let identity = self.identity.stand_in.as_deref().unwrap_or(&self.identity);
        self.open(door, identity, None, (&[], &[("application_name", name)]))
    }

    fn open(
        &self,
        door: &HttpDoor,
        identity: &Identity,
        database: Option<&str>,
        (times, further): (Parameters<'_>, Parameters<'_>),
    ) -> Result<Box<Session>, Error> {
        let database = database.unwrap_or(&self.config.api.database);
        if database.is_empty() || database.contains('\0') {
            // PostgreSQL would take none for the one with the role's name.
            let text = "database is empty, or contains U+0000";
            return Err(Error::new(ErrorKind::ValidationError, text));
        }
        let options: &Start<'_> = &[&SESSION_PARAMETERS, times, further];
        let peer = self.peer.address.clone();
        let session = door.opener.open_http(identity, database, options, peer);
        session.entry().set_ends(self.peer.ends.clone());
        Ok(Box::new(session))
    }

    /// Checks that the caller may read tables that a statement reads besides.
    ///
    /// # Errors
    /// One of them is not for him.
    pub async fn may_read(
        &self,
        door: &HttpDoor,
        tables: &[(String, String)],
    ) -> Result<(), Error> {
        for (schema, name) in tables {
            let of_all = Plain::of("read:tables");
            let wanted = OfTable { of_all, actions: &[], schema, name };
            door.auth.authorize(&self.identity, &wanted, &self.visit).await?;
        }
        Ok(())
    }

    /// Whether the caller may do something besides; asked without a word in the audit log.
    pub async fn may(&self, door: &HttpDoor, permission: &str) -> Result<bool, Error> {
        door.auth.allows(&self.identity, &Permission::parse(permission)?).await
    }
}

impl FromRequestParts<Arc<HttpDoor>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        door: &Arc<HttpDoor>,
    ) -> Result<Self, Self::Rejection> {
        if let Some(caller) = pipeline::known_caller(parts) {
            return Ok(caller);
        }
        let (begun, config) = (Instant::now(), door.config.now());
        let (peer, id, visit) = whence(parts)?;
        let application = application(&parts.headers)?;
        let shown = presented(&parts.headers)?;
        let cookie = match &shown {
            Some(Credential::Session(cookie)) => Some(Secret::new(cookie.reveal())),
            _ => None,
        };
        let identity = match shown {
            Some(credential) => {
                let limit = config.api.request_timeout_secs.duration();
                let checked = pin!(door.auth.credentials(credential, &visit));
                let late = |_| Error::new(ErrorKind::Timeout, "the log-in took too long");
                tokio::time::timeout(limit, checked).await.map_err(late)??
            }
            // Without required authentication a request acts as the administrator.
            None if !door.auth.is_required() => door.auth.trust("rustydb".into())?,
            None => match config.api.anonymous_role.as_deref() {
                Some(role) if serves_rows(parts.uri.path()) => {
                    door.auth.anonymous(role, &visit).await?
                }
                _ => {
                    let text =
                        "credentials are needed: HTTP Basic, Bearer, X-API-Key, or a session";
                    return Err(Error::new(ErrorKind::AuthenticationFailed, text)
                        .with_hint("curl -u name:password …")
                        .into());
                }
            },
        };
        let is_safe = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        if let Some(cookie) = cookie.as_ref().filter(|_| !is_safe) {
            let token = parts.headers.get("x-csrf-token").and_then(|value| value.to_str().ok());
            door.auth.check_csrf(cookie, token)?;
            pipeline::check_origin(&config.api, &parts.headers, &parts.uri)?;
        }
        if let Some(needed) = needed(&parts.method, parts.uri.path()) {
            let of_all = Plain::of(needed);
            match tables::named(parts, &config.api)? {
                None => door.auth.authorize(&identity, &of_all, &visit).await?,
                Some((schema, name, actions)) => {
                    let (schema, name) = (&*schema, &*name);
                    let wanted = OfTable { of_all, actions, schema, name };
                    door.auth.authorize(&identity, &wanted, &visit).await?;
                }
            }
        }
        check_scope(&identity, &parts.method, parts.uri.path())?;
        pipeline::proven(door, parts, &identity, &visit, begun)?;
        within::check(parts)?;
        Ok(Self { identity, peer, id, visit, cookie, application, config })
    }
}

/// The header X-Application-Name; PostgreSQL would cut a longer one, and replace other characters.
fn application(headers: &HeaderMap) -> Result<Option<String>, Error> {
    let Some(value) = headers.get(&APPLICATION_NAME) else { return Ok(None) };
    let name = value.to_str().ok().filter(|name| (1..=LONGEST_NAME).contains(&name.len()));
    name.map(|name| Some(name.to_owned())).ok_or_else(|| {
        let text = format!("X-Application-Name is not 1 to {LONGEST_NAME} characters of ASCII");
        Error::new(ErrorKind::ValidationError, text)
    })
}

/// Where a request comes from, and its number.
pub fn whence(parts: &Parts) -> Result<(Arc<Peer>, RequestId, Visit), Error> {
    let in_work: Option<&InWork> = parts.extensions.get();
    let id = in_work.ok_or_else(|| Error::internal("the request has no number"))?.id().clone();
    let peer = parts.extensions.get().cloned();
    let peer: Arc<Peer> = peer.ok_or_else(|| Error::internal("the request has no client"))?;
    let address = peer.way.address;
    let mut visit = Visit::new(Protocol::Http, address);
    visit.request_id = Some(id.0.clone());
    Ok((peer, id, visit))
}

/// Whether all SQL that is run there is RustyDB's own.
fn serves_rows(path: &str) -> bool {
    if path == "/rest/v1" || path.starts_with("/rest/v1/") {
        return true;
    }
    let parts = path.strip_prefix("/api/v1/tables/").map(|rest| rest.split('/').nth(1));
    parts == Some(Some("rows"))
}

/// What the permission is called without which a route is closed; PostgreSQL decides the rest.
fn needed(method: &Method, path: &str) -> Option<&'static str> {
    let is_read = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if let Some(rest) = path.strip_prefix("/rest/v1") {
        // Read as the request will be, however it is written.
        let first = rest.trim_start_matches('/').split('/').next().unwrap_or("");
        let is_table = percent_decode_str(first).decode_utf8().is_ok_and(|first| first != "rpc");
        return Some(match (is_table, is_read) {
            (false, _) => "execute:queries",
            (true, true) => "read:tables",
            (true, false) => "write:tables",
        });
    }
    let rest = path.strip_prefix("/api/v1/").filter(|_| !is_absent(path))?;
    // Names from before.
    let rest = rest.strip_prefix("pool/").unwrap_or(rest);
    let mut parts = rest.split('/');
    let group = parts.next().unwrap_or("");
    match (group, method.as_str()) {
        ("tables", _) if !is_read && parts.nth(1) == Some("rows") => Some("write:tables"),
        ("query" | "batch" | "transactions" | "queries" | "prepared", _) => Some("execute:queries"),
        ("sql", "POST") if rest.ends_with("/call") => Some("execute:queries"),
        ("tables" | "schema" | "schemas" | "sql", "GET" | "HEAD") => Some("read:tables"),
        ("tables" | "schema" | "schemas" | "sql", "POST") => Some("create:tables"),
        ("tables" | "schema" | "schemas" | "sql", "DELETE") => Some("delete:tables"),
        ("tables" | "schema" | "schemas" | "sql", _) => Some("update:tables"),
        ("metrics" | "monitoring" | "config", _) => Some("read:monitoring"),
        ("pools" | "connections", "GET" | "HEAD") => Some("read:monitoring"),
        ("pools" | "connections", _) => Some("admin:pools"),
        // His own he may always see; those of others need more, which each route says.
        ("sessions", "GET" | "HEAD") | ("info", _) => None,
        ("sessions", _) => Some("execute:queries"),
        // Of the caller's own log-in, keys and jobs; each says what else it needs.
        ("auth" | "jobs", _) => None,
        ("admin", _) => Some(administration(rest)),
        // What nobody has thought of is the administrator's.
        _ => Some("admin:other"),
    }
}

/// Checks that credentials which are for a few things only are for what their role needs no
/// permission for.
///
/// # Errors
/// They are not, and what they would have to be for.
fn check_scope(identity: &Identity, method: &Method, path: &str) -> Result<(), Error> {
    let wanted = needed_of_key(method, path);
    let Some(first) = wanted.first() else { return Ok(()) };
    for permission in wanted {
        if identity.is_for(&Plain::of(permission)) {
            return Ok(());
        }
    }
    let text = format!("permission denied: the key is not for {first}");
    Err(Error::new(ErrorKind::AuthorizationFailed, text))
}

/// What such credentials must be for where [`needed`] says nothing; one of them is enough.
fn needed_of_key(method: &Method, path: &str) -> &'static [&'static str] {
    let Some(rest) = path.strip_prefix("/api/v1/").filter(|_| !is_absent(path)) else {
        return &[];
    };
    let mut parts = rest.strip_prefix("pool/").unwrap_or(rest).split('/');
    let [group, one, of_it] = [(); 3].map(|()| parts.next().unwrap_or(""));
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    match (group, one, of_it) {
        // The values of its settings.
        ("sessions", _, "state") => &["execute:queries"],
        ("sessions", ..) if is_read => &["execute:queries", "read:monitoring"],
        // Whoever begins one may look what becomes of it.
        ("jobs", ..) if is_read => {
            &["execute:queries", "admin:jobs", "create:tables", "admin:backup", "admin:maintenance"]
        }
        ("jobs", ..) => &["execute:queries", "admin:jobs"],
        // About nobody but who asks, or before anybody is known.
        ("auth", "me" | "validate" | "csrf" | "login" | "logout" | "refresh", _) => &[],
        ("auth", ..) => &["manage:keys", "admin:keys"],
        _ => &[],
    }
}

fn administration(path: &str) -> &'static str {
    match path.split('/').nth(1).unwrap_or("") {
        "config" | "reload" => "admin:config",
        "backup" => "admin:backup",
        "maintenance" => "admin:maintenance",
        "users" => "admin:users",
        "roles" => "admin:roles",
        "extensions" => "admin:extensions",
        _ => "admin:other",
    }
}

/// The credentials of a request: those of the first kind that there is.
fn presented(headers: &HeaderMap) -> Result<Option<Credential>, Error> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let text = value.to_str().ok().and_then(|text| text.split_once(' '));
        return match text {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                Ok(Some(Credential::Bearer(Secret::new(token.trim()))))
            }
            _ => Ok(basic(headers)?.map(|(role, word)| Credential::Password(role, word))),
        };
    }
    if let Some(key) = headers.get("x-api-key") {
        let key = key
            .to_str()
            .map_err(|_| Error::new(ErrorKind::AuthenticationFailed, "X-API-Key is not a key"))?;
        return Ok(Some(Credential::ApiKey(Secret::new(key.trim()))));
    }
    // What clients of Supabase send, a key or a token.
    if let Some(key) = headers.get("apikey") {
        let key = key
            .to_str()
            .map_err(|_| Error::new(ErrorKind::AuthenticationFailed, "apikey is not a key"))?;
        return Ok(Some(Credential::Bearer(Secret::new(key.trim()))));
    }
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == SESSION_COOKIE).then(|| Credential::Session(Secret::new(value)))
    });
    Ok(pairs.next())
}

/// Whether the request shows a token, be it a good one or not.
pub fn shows_token(headers: &HeaderMap) -> bool {
    let is_bearer = |value: &HeaderValue| {
        let scheme = value.as_bytes().split(|byte| *byte == b' ').next();
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer"))
    };
    match headers.get(header::AUTHORIZATION) {
        Some(value) => is_bearer(value),
        None => headers.contains_key("apikey"),
    }
}

/// Reads `Authorization: Basic` (RFC 7617).
///
/// # Errors
/// The header is something else, or malformed.
pub fn basic(headers: &HeaderMap) -> Result<Option<(Role, Secret)>, Error> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let malformed = || {
        let text = "the Authorization header is neither HTTP Basic nor Bearer";
        Error::new(ErrorKind::AuthenticationFailed, text)
    };
    let value = value.to_str().map_err(|_| malformed())?;
    let (scheme, credentials) = value.split_once(' ').ok_or_else(malformed)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(malformed());
    }
    let decoded = BASE64.decode(credentials.trim()).map_err(|_| malformed())?;
    let text = String::from_utf8(decoded).map_err(|_| malformed())?;
    let (name, password) = text.split_once(':').ok_or_else(malformed)?;
    Ok(Some((name.into(), Secret::new(password))))
}

/// The parameters of the query string.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Arc<HttpDoor>> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        _door: &Arc<HttpDoor>,
    ) -> Result<Self, Self::Rejection> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(e) => {
                let text = format!("the query string is not valid: {}", plain(&e.body_text()));
                Err(Error::new(ErrorKind::ValidationError, text).into())
            }
        }
    }
}

/// The parameters of the path.
pub struct InPath<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<HttpDoor>> for InPath<T> {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        door: &Arc<HttpDoor>,
    ) -> Result<Self, Self::Rejection> {
        match Path::<T>::from_request_parts(parts, door).await {
            Ok(Path(params)) => Ok(Self(params)),
            Err(e) => {
                let text = format!("the path is not valid: {}", plain(&e.body_text()));
                Err(Error::new(ErrorKind::ValidationError, text).into())
            }
        }
    }
}

/// A body in JSON, or the same in MessagePack, within `api.max_body_size` and
/// `api.request_timeout_secs`.
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<HttpDoor>> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, door: &Arc<HttpDoor>) -> Result<Self, Self::Rejection> {
        let (parts, body) = request.into_parts();
        // A PUT of nothing would take everything away.
        let is_post = parts.method == Method::POST;
        let json = match parts.headers.contains_key(header::CONTENT_TYPE) || !is_post {
            true => json_body(&parts.headers, body, door).await?,
            // Who sends nothing at all gives no field.
            false if read_body(body, door).await?.is_empty() => Bytes::from_static(b"{}"),
            false => return Err(wrong_type("").into()),
        };
        if json.trim_ascii_start().first() == Some(&b'[') {
            // Its items would be taken for the fields in the order of their declaration.
            return Err(invalid(&"it is an array, not an object").into());
        }
        Ok(Self(serde_json::from_slice(&json).map_err(|e| invalid(&e))?))
    }
}

/// A body as JSON, which came as that or as MessagePack.
///
/// # Errors
/// It came as something else, is malformed, or [`read_body`] says so.
pub async fn json_body(headers: &HeaderMap, body: Body, door: &HttpDoor) -> Result<Bytes, Error> {
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = content_type.split(';').next().unwrap_or("").trim();
    let is_json = essence.eq_ignore_ascii_case("application/json");
    if is_json || MSGPACK.iter().any(|name| essence.eq_ignore_ascii_case(name)) {
        let bytes = read_body(body, door).await?;
        let json = match is_json {
            true => bytes,
            false => unpack(&bytes).map_err(|e| invalid(&e))?.into(),
        };
        check_depth(&json)?;
        return Ok(json);
    }
    Err(wrong_type(essence))
}

fn wrong_type(essence: &str) -> Error {
    let text = format!(
        "the body's content type is \"{essence}\", neither application/json nor application/msgpack"
    );
    Error::new(ErrorKind::UnsupportedMediaType, text)
        .with_hint("send the header Content-Type: application/json")
}

fn invalid(why: &dyn std::fmt::Display) -> Error {
    let why = plain(&why.to_string());
    Error::new(ErrorKind::ValidationError, format!("the body is not valid: {why}"))
}

/// The whole body, within `api.max_body_size` (which the pipeline sees to) and
/// `api.request_timeout_secs`.
pub async fn read_body(body: Body, door: &HttpDoor) -> Result<Bytes, Error> {
    let limit = door.config.now().api.request_timeout_secs.duration();
    match tokio::time::timeout(limit, body.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(e)) => Err(pipeline::unreadable(&e)),
        Err(_) => {
            let text = "the body did not arrive in time";
            Err(Error::new(ErrorKind::Timeout, text).with_http_status(408))
        }
    }
}

/// Refuses JSON that is nested deeper than anything sensible, before anybody walks through it.
/// What is no JSON at all is found later.
fn check_depth(json: &[u8]) -> Result<(), Error> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEEPEST {
            let text = format!("the body is not valid: it is nested deeper than {DEEPEST}");
            return Err(Error::new(ErrorKind::ValidationError, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_each_kind() {
        let headers = |pairs: &[(&'static str, &str)]| {
            pairs.iter().fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(*name, value.parse().unwrap());
                headers
            })
        };
        let kind = |pairs: &[(&'static str, &str)]| match presented(&headers(pairs)).unwrap() {
            Some(Credential::Password(role, _)) => format!("password {role}"),
            Some(Credential::Bearer(token)) => format!("bearer {}", token.reveal()),
            Some(Credential::ApiKey(key)) => format!("key {}", key.reveal()),
            Some(Credential::Session(cookie)) => format!("session {}", cookie.reveal()),
            None => "none".into(),
        };
        let basic = ("authorization", "Basic am9lOnNlYzpyZXQ=");
        assert_eq!(kind(&[]), "none");
        assert_eq!(kind(&[("x-api-key", "sk_live_x"), basic]), "password joe");
        assert_eq!(kind(&[("authorization", "bearer  a.b.c ")]), "bearer a.b.c");
        assert_eq!(kind(&[("x-api-key", "sk_live_x"), ("cookie", "a=b")]), "key sk_live_x");
        assert_eq!(kind(&[("apikey", "a.b.c"), ("cookie", "a=b")]), "bearer a.b.c");
        let cookies = [("cookie", "a=b"), ("cookie", "c=d; rustydb_session=st_1=; e=f")];
        assert_eq!(kind(&cookies), "session st_1=");
    }

    #[test]
    fn depth() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(check_depth(nested(DEEPEST).as_bytes()).is_ok());
        assert!(check_depth(nested(DEEPEST + 1).as_bytes()).is_err());
        let text = format!(r#"{{"a": "\\\"{}", "b": [{}]}}"#, "[".repeat(99), "[], ".repeat(99));
        assert!(check_depth(text.as_bytes()).is_ok(), "{text}");
    }

    #[test]
    fn every_group_of_routes_needs_something() {
        for (method, path, permission) in [
            (Method::POST, "/api/v1/query", Some("execute:queries")),
            (Method::GET, "/api/v1/tables/x", Some("read:tables")),
            (Method::PUT, "/api/v1/tables/x", Some("update:tables")),
            (Method::DELETE, "/api/v1/sql/views/x", Some("delete:tables")),
            (Method::GET, "/api/v1/metrics", Some("read:monitoring")),
            (Method::GET, "/api/v1/monitoring/prometheus", Some("read:monitoring")),
            (Method::GET, "/api/v1/transactions/wal/status", None),
            (Method::GET, "/api/v1/what/comes", Some("admin:other")),
            (Method::GET, "/api/v1/auth/me", None),
            (Method::POST, "/api/v1/sql/procedures/x/call", Some("execute:queries")),
            (Method::GET, "/api/v1/pools", Some("read:monitoring")),
            (Method::DELETE, "/api/v1/pool/connections/x", Some("admin:pools")),
            (Method::GET, "/api/v1/pool/sessions", None),
            (Method::PUT, "/api/v1/sessions/1/state", Some("execute:queries")),
            (Method::GET, "/api/v1/tables/x/rows", Some("read:tables")),
            (Method::DELETE, "/api/v1/tables/x/rows/1", Some("write:tables")),
            (Method::HEAD, "/rest/v1/x", Some("read:tables")),
            (Method::PATCH, "/rest/v1/x", Some("write:tables")),
            (Method::GET, "/rest/v1/rpc/x", Some("execute:queries")),
            (Method::GET, "/rest/v1/%72pc/x", Some("execute:queries")),
            (Method::GET, "/rest/v1//rpc//x", Some("execute:queries")),
            (Method::POST, "/rest/v1/%ff/x", Some("execute:queries")),
            (Method::GET, "/rest/v1/rpc%2fx", Some("read:tables")),
            (Method::GET, "/api/v1/jobs/1", None),
            (Method::GET, "/api/v1/admin/users/joe", Some("admin:users")),
            (Method::POST, "/api/v1/admin/reload", Some("admin:config")),
            (Method::GET, "/api/v1/admin", Some("admin:other")),
        ] {
            assert_eq!(needed(&method, path), permission, "{method} {path}");
        }
    }

    #[test]
    fn what_keys_must_be_for() {
        for (method, path, first) in [
            (Method::GET, "/api/v1/sessions", Some("execute:queries")),
            (Method::GET, "/api/v1/pool/sessions/7", Some("execute:queries")),
            (Method::GET, "/api/v1/sessions/7/state", Some("execute:queries")),
            (Method::DELETE, "/api/v1/jobs/7", Some("execute:queries")),
            (Method::GET, "/api/v1/auth/api-keys", Some("manage:keys")),
            (Method::DELETE, "/api/v1/auth/api-keys/7", Some("manage:keys")),
            (Method::GET, "/api/v1/auth/me", None),
            (Method::GET, "/api/v1/info", None),
            (Method::GET, "/api/v1/graphs", None),
        ] {
            assert_eq!(needed_of_key(&method, path).first().copied(), first, "{method} {path}");
        }
    }

    #[test]
    fn basic_credentials() {
        let headers =
            |value: &str| HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
        let (role, password) = basic(&headers("Basic am9lOnNlYzpyZXQ=")).unwrap().unwrap();
        assert_eq!((role.as_str(), password.reveal()), ("joe", "sec:ret"));
        assert!(basic(&HeaderMap::new()).unwrap().is_none());
        for bad in ["Digest x", "Basic", "Basic !!", "Basic am9l", "Basic /w=="] {
            let error = basic(&headers(bad)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AuthenticationFailed, "{bad}");
        }
    }
}
