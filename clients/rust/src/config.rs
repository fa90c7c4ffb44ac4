//! Where and how to connect: the connection string `rustydb://…` and what it says.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::error::{Error, Result};
use crate::protocol::{CompressionType, Purity, SMALLEST_WINDOW};

/// The server's port, if none is named.
pub const DEFAULT_PORT: u16 = 5432;

/// Most connections that a client may keep.
const LARGEST_POOL: usize = 10_000;

/// A place where a server may listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name or address, and a port.
    Tcp(String, u16),
    /// The directory of a Unix socket, and the port in the socket's name.
    Unix(PathBuf, u16),
}

impl Host {
    fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(..))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(name, port) if name.contains(':') => write!(f, "[{name}]:{port}"),
            Self::Tcp(name, port) => write!(f, "{name}:{port}"),
            Self::Unix(folder, port) => write!(f, "{}/.s.PGSQL.{port}", folder.display()),
        }
    }
}

/// Whether a connection is encrypted, and what the server must prove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// If the server can; its certificate is not looked at.
    #[default]
    Prefer,
    /// Always; the certificate is checked only if `tls_ca` is given.
    Require,
    /// Always, with a certificate of a known authority.
    VerifyCa,
    /// Always, with a certificate of a known authority for the host that was named.
    VerifyFull,
}

impl TlsMode {
    /// Whether nothing goes without TLS.
    fn is_needed(self) -> bool {
        !matches!(self, Self::Disable | Self::Prefer)
    }
}

/// How a user proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthKind {
    /// SCRAM-SHA-256, bound to the server's certificate where that is possible.
    Scram,
    /// The password itself; only over TLS, loopback or a Unix socket.
    Password,
    /// A token of an identity provider.
    Token,
    /// A key that the server has given out.
    ApiKey,
    /// The client's TLS certificate.
    Certificate,
    /// A password that an LDAP server checks, sent as for `Password`. RustyDB does not offer it
    /// yet.
    Ldap,
    /// Kerberos; not supported by this library.
    Kerberos,
    /// A SAML assertion, which is given as `token`. RustyDB does not offer it yet.
    Saml,
}

/// A secret that is not shown by accident.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Hidden(String);

impl Hidden {
    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Hidden {
    fn from(secret: String) -> Self {
        Self(secret)
    }
}

impl From<&str> for Hidden {
    fn from(secret: &str) -> Self {
        Self(secret.to_owned())
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Gives the code of a second factor; the argument lists what the server would accept.
pub type MfaAnswer = Arc<dyn Fn(&[String]) -> Option<String> + Send + Sync>;

/// Everything that a connection string says; it can also be filled in by hand, from
/// [`Config::default`].
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// Tried in this order.
    pub hosts: Vec<Host>,
    /// The role; empty only with a token.
    pub user: String,
    /// Its password.
    pub password: Option<Hidden>,
    /// The database.
    pub database: String,
    /// Longest time to connect, and for each request. None = no limit.
    pub timeout: Option<Duration>,
    /// Most connections of a client.
    pub pool_size: usize,
    /// Connections that a client keeps even if they are not used.
    pub min_pool_size: usize,
    /// After this time an unused connection is closed. None = never.
    pub idle_timeout: Option<Duration>,
    /// Encryption.
    pub tls: TlsMode,
    /// PEM file of the authorities that may have signed the server's certificate. None = those of
    /// the operating system, where a certificate is checked.
    pub tls_ca: Option<PathBuf>,
    /// PEM file of the client's certificate.
    pub tls_cert: Option<PathBuf>,
    /// PEM file of its key.
    pub tls_key: Option<PathBuf>,
    /// Only this way to log in. None = the first of these that is given and that the server offers:
    /// the token, the key, the password (by SCRAM), the certificate; else nothing.
    pub auth: Option<AuthKind>,
    /// A token, or a SAML assertion.
    pub token: Option<Hidden>,
    /// A key of the server.
    pub api_key: Option<Hidden>,
    /// Compression in the order of preference; empty = none.
    pub compression: Vec<CompressionType>,
    /// Whether every frame has a checksum.
    pub checksum: bool,
    /// As in PostgreSQL's setting of that name.
    pub application_name: String,
    /// Group of sessions that may share state.
    pub connection_class: Option<String>,
    /// How clean a pooled session must be.
    pub purity: Option<Purity>,
    /// What kind of used session is preferred.
    pub tag: Option<String>,
    /// Bytes that may be under way on each stream of rows at first; at least 65,536.
    pub stream_window: u32,
    /// Bytes that may be under way on a connection; at least 65,536.
    pub connection_window: u32,
    /// Settings of the session, for instance `("TimeZone", "UTC")`.
    pub parameters: Vec<(String, String)>,
    /// Gives the code when a second factor is asked for.
    pub mfa: Option<MfaAnswer>,
}

impl Default for Config {
    /// `rustydb://rustydb@localhost:5432/rustydb`: user and database of a server that is new.
    fn default() -> Self {
        Self {
            hosts: vec![Host::Tcp("localhost".into(), DEFAULT_PORT)],
            user: "rustydb".into(),
            password: None,
            database: "rustydb".into(),
            timeout: Some(Duration::from_secs(30)),
            pool_size: 10,
            min_pool_size: 0,
            idle_timeout: Some(Duration::from_secs(600)),
            tls: TlsMode::Prefer,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            auth: None,
            token: None,
            api_key: None,
            compression: vec![CompressionType::Zstd, CompressionType::Lz4, CompressionType::Snappy],
            checksum: false,
            application_name: crate::NAME.into(),
            connection_class: None,
            purity: None,
            tag: None,
            stream_window: 1 << 20,
            connection_window: 16 << 20,
            parameters: Vec::new(),
            mfa: None,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("hosts", &self.hosts)
            .field("user", &self.user)
            .field("database", &self.database)
            .field("tls", &self.tls)
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}

impl FromStr for Config {
    type Err = Error;

    /// Reads `rustydb://user:password@host:port/database?option=value&…`.
    fn from_str(url: &str) -> Result<Self> {
        let rest = url
            .strip_prefix("rustydb://")
            .ok_or_else(|| wrong("a connection string begins with rustydb://"))?;
        let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (who, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = match who.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (who, None),
        };
        let mut config = Self {
            hosts: hosts.split(',').map(host).collect::<Result<_>>()?,
            user: decoded(user)?,
            password: password.map(decoded).transpose()?.map(Hidden),
            database: decoded(database)?,
            ..Self::default()
        };
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option
                .split_once('=')
                .ok_or_else(|| wrong(&format!("option {option}: expected name=value")))?;
            config.set(name, decoded(value)?)?;
        }
        if config.user.is_empty() && config.token.is_none() && config.api_key.is_none() {
            return Err(wrong("the connection string names no user"));
        }
        if config.database.is_empty() {
            config.database.clone_from(&config.user);
        }
        config.check()?;
        Ok(config)
    }
}

impl Config {
    /// Sets one option by its name in a connection string.
    fn set(&mut self, name: &str, value: String) -> Result<()> {
        let number = || {
            value.parse::<u64>().map_err(|_| wrong(&format!("{name}={value}: expected a number")))
        };
        let small = || u32::try_from(number()?).map_err(|_| too_large(name, &value));
        let size = || usize::try_from(number()?).map_err(|_| too_large(name, &value));
        let unknown = |allowed: &str| wrong(&format!("{name}={value}: expected {allowed}"));
        match name {
            "timeout" => self.timeout = seconds(&value).ok_or_else(|| unknown("seconds"))?,
            "idle_timeout" => {
                self.idle_timeout = seconds(&value).ok_or_else(|| unknown("seconds"))?;
            }
            "pool_size" => self.pool_size = size()?,
            "min_pool_size" => self.min_pool_size = size()?,
            "tls" => {
                self.tls = tls_mode(&value)
                    .ok_or_else(|| unknown("disable, prefer, require, verify-ca or verify-full"))?;
            }
            "tls_ca" => self.tls_ca = Some(value.into()),
            "tls_cert" => self.tls_cert = Some(value.into()),
            "tls_key" => self.tls_key = Some(value.into()),
            "auth" => {
                let kinds = "scram-sha-256, password, token, apikey, certificate, ldap, kerberos \
                             or saml";
                self.auth = Some(auth_kind(&value).ok_or_else(|| unknown(kinds))?);
            }
            "token" => self.token = Some(Hidden(value)),
            "api_key" => self.api_key = Some(Hidden(value)),
            "compression" => {
                self.compression = compressions(&value)
                    .ok_or_else(|| unknown("zstd, lz4 and snappy with commas, or none"))?;
            }
            "checksum" => {
                self.checksum = match value.as_str() {
                    "true" => true,
                    "false" => false,
                    _ => return Err(unknown("true or false")),
                };
            }
            "application_name" => self.application_name = value,
            "connection_class" => self.connection_class = Some(value),
            "purity" => {
                self.purity = Some(match value.as_str() {
                    "new" => Purity::New,
                    "self" => Purity::Own,
                    "any" => Purity::Any,
                    _ => return Err(unknown("new, self or any")),
                });
            }
            "tag" => self.tag = Some(value),
            "stream_window" => self.stream_window = small()?,
            "connection_window" => self.connection_window = small()?,
            _ => return Err(wrong(&format!("unknown option {name} in the connection string"))),
        }
        Ok(())
    }

    /// Checks what belongs together.
    ///
    /// # Errors
    /// [`Error::Config`] in one sentence.
    pub fn check(&self) -> Result<()> {
        let windows = [self.stream_window, self.connection_window];
        if self.hosts.is_empty() {
            Err(wrong("no host is named"))
        } else if !(1..=LARGEST_POOL).contains(&self.pool_size) {
            Err(wrong(&format!("pool_size must be from 1 to {LARGEST_POOL}")))
        } else if self.min_pool_size > self.pool_size {
            Err(wrong("min_pool_size is above pool_size"))
        } else if windows.iter().any(|w| !(SMALLEST_WINDOW..=1 << 30).contains(w)) {
            Err(wrong("a window must be from 65536 to 1073741824 bytes"))
        } else if self.tls_cert.is_some() != self.tls_key.is_some() {
            Err(wrong("tls_cert and tls_key must be given together"))
        } else if self.tls.is_needed() && self.hosts.iter().any(Host::is_unix) {
            Err(wrong("there is no TLS on a Unix socket: use tls=disable or tls=prefer"))
        } else {
            self.check_login()
        }
    }

    /// Checks that what the way to log in takes is there. A password may be asked for later.
    fn check_login(&self) -> Result<()> {
        match self.auth {
            Some(AuthKind::Kerberos) => Err(wrong("this library cannot log in by Kerberos")),
            Some(AuthKind::Token) if self.token.is_none() => {
                Err(wrong("auth=token needs the option token"))
            }
            Some(AuthKind::Saml) if self.token.is_none() => {
                Err(wrong("auth=saml needs the option token"))
            }
            Some(AuthKind::ApiKey) if self.api_key.is_none() => {
                Err(wrong("auth=apikey needs the option api_key"))
            }
            Some(AuthKind::Certificate) if self.tls_cert.is_none() => {
                Err(wrong("auth=certificate needs the options tls_cert and tls_key"))
            }
            _ => Ok(()),
        }
    }
}

fn wrong(text: &str) -> Error {
    Error::Config(text.to_owned())
}

fn too_large(name: &str, value: &str) -> Error {
    wrong(&format!("{name}={value} is too large"))
}

fn decoded(text: &str) -> Result<String> {
    let broken = || wrong("a percent-encoded part of the connection string is not UTF-8");
    Ok(percent_decode_str(text).decode_utf8().map_err(|_| broken())?.into_owned())
}

fn host(text: &str) -> Result<Host> {
    let port = |text: &str| match text {
        "" => Ok(DEFAULT_PORT),
        digits => digits
            .parse::<u16>()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| wrong(&format!("{digits} is no port"))),
    };
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) =
            rest.split_once(']').ok_or_else(|| wrong("a bracket is not closed"))?;
        let digits = match rest {
            "" => "",
            _ => rest.strip_prefix(':').ok_or_else(|| wrong(&format!("{text} is no host")))?,
        };
        return Ok(Host::Tcp(address.to_owned(), port(digits)?));
    }
    let (name, digits) = text.split_once(':').unwrap_or((text, ""));
    let name = decoded(name)?;
    Ok(match name.as_str() {
        "" => Host::Tcp("localhost".into(), port(digits)?),
        folder if folder.starts_with('/') => Host::Unix(folder.into(), port(digits)?),
        _ => Host::Tcp(name, port(digits)?),
    })
}

/// Seconds, perhaps with a fraction; 0 = no limit.
fn seconds(value: &str) -> Option<Option<Duration>> {
    let seconds: f64 = value.parse().ok()?;
    let duration = Duration::try_from_secs_f64(seconds).ok()?;
    Some(Some(duration).filter(|duration| !duration.is_zero()))
}

fn tls_mode(value: &str) -> Option<TlsMode> {
    Some(match value {
        "disable" => TlsMode::Disable,
        "prefer" => TlsMode::Prefer,
        "require" => TlsMode::Require,
        "verify-ca" => TlsMode::VerifyCa,
        "verify-full" => TlsMode::VerifyFull,
        _ => return None,
    })
}

fn auth_kind(value: &str) -> Option<AuthKind> {
    Some(match value {
        "scram-sha-256" => AuthKind::Scram,
        "password" => AuthKind::Password,
        "token" => AuthKind::Token,
        "apikey" => AuthKind::ApiKey,
        "certificate" => AuthKind::Certificate,
        "ldap" => AuthKind::Ldap,
        "kerberos" => AuthKind::Kerberos,
        "saml" => AuthKind::Saml,
        _ => return None,
    })
}

fn compressions(value: &str) -> Option<Vec<CompressionType>> {
    if value == "none" {
        return Some(Vec::new());
    }
    let one = |name| match name {
        "zstd" => Some(CompressionType::Zstd),
        "lz4" => Some(CompressionType::Lz4),
        "snappy" => Some(CompressionType::Snappy),
        _ => None,
    };
    value.split(',').map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Config {
        url.parse().unwrap_or_else(|e| panic!("{url}: {e}"))
    }

    #[test]
    fn the_parts_of_a_connection_string_are_read() {
        let config = read("rustydb://admin:secret@localhost:5433/mydb?timeout=5&pool_size=3");
        assert_eq!(config.hosts, [Host::Tcp("localhost".into(), 5433)]);
        assert_eq!((config.user.as_str(), config.database.as_str()), ("admin", "mydb"));
        assert_eq!(config.password, Some("secret".into()));
        assert_eq!((config.timeout, config.pool_size), (Some(Duration::from_secs(5)), 3));
        let config = read("rustydb://ann%40x:p%2Fw%3A@[::1],b:7,%2Frun%2Fdb:9/d%20b");
        let unix = Host::Unix("/run/db".into(), 9);
        assert_eq!(config.hosts, [Host::Tcp("::1".into(), 5432), Host::Tcp("b".into(), 7), unix]);
        assert_eq!(config.user, "ann@x");
        assert_eq!(config.password, Some("p/w:".into()));
        assert_eq!(config.database, "d b");
        assert_eq!(read("rustydb://u@h").database, "u");
        assert_eq!(read("rustydb://u@:1/").hosts, [Host::Tcp("localhost".into(), 1)]);
    }

    #[test]
    fn every_option_is_read() {
        let config = read(
            "rustydb://h/d?token=t&timeout=0&idle_timeout=1.5&min_pool_size=2&tls=verify-full\
             &tls_ca=%2Fca&tls_cert=c&tls_key=k&auth=token&compression=lz4,snappy&checksum=true\
             &application_name=a%20b&connection_class=web&purity=self&tag=x\
             &stream_window=65536&connection_window=70000",
        );
        assert_eq!((config.timeout, config.min_pool_size), (None, 2));
        assert_eq!(config.idle_timeout, Some(Duration::from_millis(1500)));
        assert_eq!((config.tls, config.auth), (TlsMode::VerifyFull, Some(AuthKind::Token)));
        assert_eq!(config.tls_ca.unwrap().to_str(), Some("/ca"));
        assert_eq!(config.compression, [CompressionType::Lz4, CompressionType::Snappy]);
        assert!(config.checksum);
        assert_eq!(config.application_name, "a b");
        assert_eq!(config.purity, Some(Purity::Own));
        assert_eq!((config.stream_window, config.connection_window), (65_536, 70_000));
        assert!(read("rustydb://u@h/?compression=none").compression.is_empty());
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (url, part) in [
            ("postgresql://u@h/d", "rustydb://"),
            ("rustydb://h/d", "no user"),
            ("rustydb://u@h:0/d", "no port"),
            ("rustydb://u@h:70000/d", "no port"),
            ("rustydb://u@[::1/d", "bracket"),
            ("rustydb://u@h/d?colour=red", "unknown option colour"),
            ("rustydb://u@h/d?timeout", "name=value"),
            ("rustydb://u@h/d?timeout=-1", "seconds"),
            ("rustydb://u@h/d?pool_size=0", "pool_size"),
            ("rustydb://u@h/d?pool_size=2&min_pool_size=3", "above"),
            ("rustydb://u@h/d?tls=yes", "verify-full"),
            ("rustydb://u@h/d?compression=gzip", "snappy"),
            ("rustydb://u@h/d?checksum=1", "true or false"),
            ("rustydb://u@h/d?purity=old", "self"),
            ("rustydb://u@h/d?auth=kerberos", "Kerberos"),
            ("rustydb://u@h/d?auth=md5", "scram-sha-256"),
            ("rustydb://u@h/d?stream_window=1", "window"),
            ("rustydb://u@h/d?tls_cert=x", "together"),
            ("rustydb://u%ff@h/d", "UTF-8"),
            ("rustydb://u@%2Frun/d?tls=require", "no TLS on a Unix socket"),
            ("rustydb://u@h,%2Frun/d?tls=verify-full", "no TLS on a Unix socket"),
            ("rustydb://u@h/d?auth=token", "auth=token needs the option token"),
            ("rustydb://u@h/d?auth=token&api_key=k", "auth=token needs the option token"),
            ("rustydb://u@h/d?auth=saml", "auth=saml needs the option token"),
            ("rustydb://u@h/d?auth=apikey", "auth=apikey needs the option api_key"),
            ("rustydb://u@h/d?auth=certificate", "auth=certificate needs the options tls_cert"),
        ] {
            let said = url.parse::<Config>().unwrap_err().to_string();
            assert!(said.contains(part), "{url}: {said}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = read("rustydb://u:hush@h/d?token=hush&api_key=hush");
        assert!(!format!("{config:?} {:?}", config.password).contains("hush"));
    }
}
