//! The types a configuration key can have: how each is read from TOML, from the environment or
//! from a flag (both arrive as strings), and how it is written back.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use toml::Value as Toml;

use crate::types::{BackendAddr, Secret};

/// A type that a configuration key can have.
pub trait Value: Sized {
    /// Reads a value; the error names what is expected, for instance `a port, 0 to 65535`.
    fn read(raw: &Toml) -> Result<Self, String>;
    /// Writes the value as TOML; secrets become `***`.
    fn write(&self) -> Toml;
}

macro_rules! integer {
    ($($type:ty => $expected:literal;)*) => {$(
        impl Value for $type {
            fn read(raw: &Toml) -> Result<Self, String> {
                let number = match raw {
                    Toml::Integer(number) => <$type>::try_from(*number).ok(),
                    Toml::String(text) => text.trim().replace('_', "").parse().ok(),
                    _ => None,
                };
                number.ok_or_else(|| $expected.to_owned())
            }

            fn write(&self) -> Toml {
                Toml::Integer(i64::try_from(*self).unwrap_or(i64::MAX))
            }
        }
    )*};
}

integer! {
    u16 => "a port, 0 to 65535";
    u32 => "a whole number, 0 or more";
    usize => "a whole number, 0 or more";
}

impl Value for f64 {
    fn read(raw: &Toml) -> Result<Self, String> {
        let number = match raw {
            Toml::Float(number) => Some(*number),
            Toml::Integer(number) => i32::try_from(*number).ok().map(f64::from),
            Toml::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.filter(|n| n.is_finite()).ok_or_else(|| "a number".to_owned())
    }

    fn write(&self) -> Toml {
        Toml::Float(*self)
    }
}

impl Value for bool {
    fn read(raw: &Toml) -> Result<Self, String> {
        match raw {
            Toml::Boolean(value) => Ok(*value),
            Toml::String(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "on" | "yes" | "1" => Ok(true),
                "false" | "off" | "no" | "0" => Ok(false),
                _ => Err("true or false".into()),
            },
            _ => Err("true or false".into()),
        }
    }

    fn write(&self) -> Toml {
        Toml::Boolean(*self)
    }
}

impl Value for String {
    fn read(raw: &Toml) -> Result<Self, String> {
        raw.as_str().map(str::to_owned).ok_or_else(|| "a string".into())
    }

    fn write(&self) -> Toml {
        Toml::String(self.clone())
    }
}

impl Value for PathBuf {
    fn read(raw: &Toml) -> Result<Self, String> {
        match raw.as_str() {
            Some(path) if !path.is_empty() => Ok(path.into()),
            _ => Err("a path".into()),
        }
    }

    fn write(&self) -> Toml {
        Toml::String(self.display().to_string())
    }
}

/// A key that may have no value is absent, `0`, `""` or `"none"`.
impl<T: Value> Value for Option<T> {
    fn read(raw: &Toml) -> Result<Self, String> {
        match raw {
            Toml::Integer(0) => Ok(None),
            Toml::String(text) if matches!(text.trim(), "" | "0" | "none") => Ok(None),
            _ => T::read(raw).map(Some).map_err(|expected| format!("{expected}, or \"none\"")),
        }
    }

    fn write(&self) -> Toml {
        self.as_ref().map_or_else(|| Toml::String("none".into()), Value::write)
    }
}

/// A list: a TOML array, or one string with commas.
impl Value for Vec<String> {
    fn read(raw: &Toml) -> Result<Self, String> {
        let items: Option<Vec<String>> = match raw {
            Toml::Array(items) => {
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect()
            }
            Toml::String(text) => Some(
                text.split(',').map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect(),
            ),
            _ => None,
        };
        items.ok_or_else(|| "a string or a list of strings".into())
    }

    fn write(&self) -> Toml {
        Toml::Array(self.iter().cloned().map(Toml::String).collect())
    }
}

/// Extra `name = value` settings: a TOML table, or one string `a=b,c=d`.
impl Value for BTreeMap<String, String> {
    fn read(raw: &Toml) -> Result<Self, String> {
        let pairs: Option<Self> = match raw {
            Toml::Table(table) => {
                table.iter().map(|(key, value)| Some((key.clone(), scalar(value)?))).collect()
            }
            Toml::String(text) => text
                .split(',')
                .filter(|pair| !pair.trim().is_empty())
                .map(|pair| {
                    pair.split_once('=').map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned()))
                })
                .collect(),
            _ => None,
        };
        pairs.ok_or_else(|| "a table of settings, or name=value pairs with commas".into())
    }

    fn write(&self) -> Toml {
        Toml::Table(self.iter().map(|(k, v)| (k.clone(), Toml::String(v.clone()))).collect())
    }
}

fn scalar(value: &Toml) -> Option<String> {
    match value {
        Toml::String(text) => Some(text.clone()),
        Toml::Integer(number) => Some(number.to_string()),
        Toml::Float(number) => Some(number.to_string()),
        Toml::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}

macro_rules! duration {
    ($($(#[$doc:meta])* $name:ident, $unit:ident, $of:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(pub u64);

        impl $name {
            /// As a duration.
            pub fn duration(self) -> Duration {
                Duration::$of(self.0)
            }
        }

        impl Value for $name {
            fn read(raw: &Toml) -> Result<Self, String> {
                let number = match raw {
                    Toml::Integer(number) => u64::try_from(*number).ok(),
                    Toml::String(text) => match text.trim().parse() {
                        Ok(number) => Some(number),
                        Err(_) => parse_duration(text)
                            .and_then(|d| d.$unit().try_into().ok()),
                    },
                    _ => None,
                };
                number.map(Self).ok_or_else(|| {
                    "a duration: a number or a string such as \"30s\", \"5m\", \"250ms\"".into()
                })
            }

            fn write(&self) -> Toml {
                Toml::Integer(i64::try_from(self.0).unwrap_or(i64::MAX))
            }
        }
    )*};
}

duration! {
    /// Whole seconds.
    Secs, as_secs, from_secs;
    /// Whole milliseconds.
    Millis, as_millis, from_millis;
}

fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..split].parse().ok()?;
    let factor = match text[split..].trim() {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return None,
    };
    number.checked_mul(factor).map(Duration::from_secs)
}

/// A number of bytes: an integer, or a string such as `"10 MiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// As a length in memory.
    pub fn len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Whether it is zero.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl Value for ByteSize {
    fn read(raw: &Toml) -> Result<Self, String> {
        let number = match raw {
            Toml::Integer(number) => u64::try_from(*number).ok(),
            Toml::String(text) => parse_size(text),
            _ => None,
        };
        number.map(Self).ok_or_else(|| "a size: bytes or a string such as \"10 MiB\"".into())
    }

    fn write(&self) -> Toml {
        Toml::Integer(i64::try_from(self.0).unwrap_or(i64::MAX))
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..split].parse().ok()?;
    let shift = match text[split..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// The URL of an external backend, `postgresql://user:password@host:port/database`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendUrl(Secret);

impl BackendUrl {
    /// The URL with its password; must not be logged.
    pub fn reveal(&self) -> &str {
        self.0.reveal()
    }
}

choice! {
    /// How far the connection to PostgreSQL is encrypted and its certificate checked, in libpq's
    /// words (<https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-PROTECTION>).
    SslMode {
        /// Not encrypted.
        Disable = "disable",
        /// Encrypted when the server can; its certificate is not checked.
        Prefer = "prefer",
        /// Encrypted; the certificate is checked when sslrootcert is given.
        Require = "require",
        /// Encrypted, with a certificate of a known authority.
        VerifyCa = "verify-ca",
        /// Encrypted, with a certificate of a known authority for the host of the URL.
        VerifyFull = "verify-full",
    }
}

/// TLS to the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendTls {
    /// `sslmode`; without it verify-full for another host, prefer for loopback.
    pub mode: SslMode,
    /// `sslrootcert`: a file; without it, or with `system`, the operating system's authorities.
    pub root: Option<PathBuf>,
    /// `sslcert` and `sslkey`: files with RustyDB's own certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// The parts of a backend URL.
#[derive(Clone, Debug)]
pub struct BackendUrlParts {
    /// Where it listens.
    pub addr: BackendAddr,
    /// The system role.
    pub user: String,
    /// Its password.
    pub password: Option<Secret>,
    /// The database that system connections go to.
    pub database: String,
    /// How the connection is protected.
    pub tls: BackendTls,
}

/// What a URL says of TLS.
#[derive(Default)]
struct SslParameters {
    mode: Option<String>,
    root: Option<String>,
    cert: Option<String>,
    key: Option<String>,
}

impl SslParameters {
    fn check(self, addr: &BackendAddr) -> Result<BackendTls, String> {
        let mode = match (self.mode.as_deref(), addr) {
            // A Unix socket is never encrypted, whatever is asked.
            (_, BackendAddr::Unix(_)) => SslMode::Disable,
            (Some("allow"), _) => SslMode::Prefer,
            (Some(word), _) => SslMode::of(word).map_err(|e| format!("sslmode={word}: {e}"))?,
            (None, BackendAddr::Tcp(host, _)) if is_loopback(host) => SslMode::Prefer,
            (None, _) => SslMode::VerifyFull,
        };
        let identity = match (self.cert, self.key) {
            (Some(cert), Some(key)) => Some((cert.into(), key.into())),
            (None, None) => None,
            _ => return Err("sslcert and sslkey belong together".into()),
        };
        let root = self.root.filter(|root| root != "system").map(PathBuf::from);
        Ok(BackendTls { mode, root, identity })
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// Like libpq, and unlike the URL standard, takes a user without a host: `me@/db?host=/run/pg`.
fn parse_url(text: &str) -> Result<url::Url, url::ParseError> {
    let parsed = url::Url::parse(text);
    match (&parsed, text.find("@/")) {
        (Err(url::ParseError::EmptyHost), Some(at)) => {
            url::Url::parse(&format!("{}@localhost{}", &text[..at], &text[at + 1..]))
        }
        _ => parsed,
    }
}

/// A URL with one host for each that is named, `scheme://user@host1:port1,host2:port2/database`.
fn each_host(text: &str) -> Vec<String> {
    let begin = text.find("://").map_or(0, |at| at + 3);
    let end = text[begin..].find(['/', '?', '#']).map_or(text.len(), |at| begin + at);
    let hosts = text[begin..end].rfind('@').map_or(begin, |at| begin + at + 1);
    let (before, after) = (&text[..hosts], &text[end..]);
    text[hosts..end].split(',').map(|host| format!("{before}{host}{after}")).collect()
}

impl BackendUrl {
    /// The servers of the URL, which differ in nothing but the address.
    pub fn hosts(&self) -> Result<Vec<BackendUrlParts>, String> {
        let urls = each_host(self.reveal()).into_iter();
        urls.map(|url| Self(Secret::new(url)).parts()).collect()
    }

    /// Takes the URL of one server apart, as libpq does
    /// (<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS>).
    pub fn parts(&self) -> Result<BackendUrlParts, String> {
        let url = parse_url(self.reveal()).map_err(|e| e.to_string())?;
        let decode = |text: &str| {
            let bytes = percent_encoding::percent_decode_str(text);
            bytes.decode_utf8().map(|t| t.into_owned()).map_err(|e| e.to_string())
        };
        let mut host = decode(url.host_str().unwrap_or(""))?;
        let mut ssl = SslParameters::default();
        for (name, value) in url.query_pairs() {
            match &*name {
                "host" => host = value.into_owned(),
                "sslmode" => ssl.mode = Some(value.into_owned()),
                "sslrootcert" => ssl.root = Some(value.into_owned()),
                "sslcert" => ssl.cert = Some(value.into_owned()),
                "sslkey" => ssl.key = Some(value.into_owned()),
                name => return Err(format!("unknown parameter {name}")),
            }
        }
        let port = url.port().unwrap_or(5432);
        let addr = match host.as_str() {
            "" => BackendAddr::Tcp("localhost".into(), port),
            path if path.starts_with('/') => {
                BackendAddr::Unix(PathBuf::from(path).join(format!(".s.PGSQL.{port}")))
            }
            name => BackendAddr::Tcp(name.trim_matches(['[', ']']).to_owned(), port),
        };
        let user = match decode(url.username())? {
            user if user.is_empty() => return Err("has no user".into()),
            user => user,
        };
        let database = decode(url.path().trim_start_matches('/'))?;
        Ok(BackendUrlParts {
            tls: ssl.check(&addr)?,
            addr,
            password: url.password().map(decode).transpose()?.map(Secret::new),
            database: if database.is_empty() { user.clone() } else { database },
            user,
        })
    }
}

impl fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls = each_host(self.reveal());
        for (at, text) in urls.iter().enumerate() {
            let separator = if at > 0 { " " } else { "" };
            match parse_url(text) {
                Ok(mut url) => {
                    let hidden = url.password().is_none() || url.set_password(Some("***")).is_ok();
                    write!(f, "{separator}{}", if hidden { url.as_str() } else { "***" })?;
                }
                Err(_) => write!(f, "{separator}***")?,
            }
        }
        Ok(())
    }
}

impl Value for BackendUrl {
    fn read(raw: &Toml) -> Result<Self, String> {
        let expected = || "a URL such as postgresql://user:password@host:5432/database".to_owned();
        let text = raw.as_str().ok_or_else(expected)?;
        let is_ours = |url: &String| {
            parse_url(url).is_ok_and(|url| matches!(url.scheme(), "postgresql" | "postgres"))
        };
        match each_host(text).iter().all(is_ours) {
            true => Ok(Self(Secret::new(text))),
            false => Err(expected()),
        }
    }

    fn write(&self) -> Toml {
        Toml::String(self.to_string())
    }
}

macro_rules! choice {
    ($(
        $(#[$doc:meta])*
        $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }
    )*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// The value with this word.
            ///
            /// # Errors
            /// Which words there are.
            pub fn of(word: &str) -> Result<Self, String> {
                match word {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(concat!("one of:", $(" ", $text),*).into()),
                }
            }

            /// Its word.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl $crate::config::Value for $name {
            fn read(raw: &toml::Value) -> Result<Self, String> {
                // A yes or a no is more often written without quotes.
                match raw {
                    toml::Value::Boolean(yes) => Self::of(if *yes { "true" } else { "false" }),
                    _ => Self::of(raw.as_str().unwrap_or("")),
                }
            }

            fn write(&self) -> toml::Value {
                toml::Value::String(self.word().into())
            }
        }
    )*};
}
pub(super) use choice;

choice! {
    /// Where PostgreSQL comes from.
    BackendMode {
        /// RustyDB starts a private PostgreSQL of its own.
        Embedded = "embedded",
        /// `backend.url` names a running one.
        External = "external",
    }

    /// When a PostgreSQL client gives its connection back.
    PoolingMode {
        /// At its end.
        Session = "session",
        /// At the end of each transaction.
        Transaction = "transaction",
        /// After each statement; transactions of several statements are refused.
        Statement = "statement",
    }

    /// Whether a door speaks TLS.
    TlsMode {
        /// When the certificate's file exists.
        Auto = "auto",
        /// Yes; without a certificate the server does not start.
        On = "true",
        /// No.
        Off = "false",
    }

    /// The oldest version of TLS that is spoken.
    TlsVersion {
        /// TLS 1.2.
        V12 = "1.2",
        /// TLS 1.3.
        V13 = "1.3",
    }

    /// Whether the number of connections follows the load.
    SizingMode {
        /// It does.
        Elastic = "elastic",
        /// It is always the largest.
        Fixed = "fixed",
    }

    /// How an idle connection is checked before its next use.
    ValidationLevel {
        /// Only whether it was closed.
        None = "none",
        /// By an empty query.
        Ping = "ping",
        /// By the configured query.
        Query = "query",
    }

    /// What is done with a connection that a session gives back.
    RecyclingStrategy {
        /// What is known of it stays known; cleaned where that is not enough.
        Adaptive = "adaptive",
        /// It is cleaned.
        Checked = "checked",
        /// It is closed, and another one made when one is needed.
        Replace = "replace",
    }

    /// The least severe record that is written.
    LogLevel {
        /// Everything, wire messages included.
        Trace = "trace",
        /// What a developer needs.
        Debug = "debug",
        /// What an operator needs.
        Info = "info",
        /// What should not happen often.
        Warn = "warn",
        /// What must not happen.
        Error = "error",
    }

    /// How a log record is written.
    LogFormat {
        /// `plain` on a terminal, else `json`.
        Auto = "auto",
        /// One JSON object a line.
        Json = "json",
        /// Text for people.
        Plain = "plain",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(s: &str) -> Toml {
        Toml::String(s.into())
    }

    #[test]
    fn durations_and_sizes_take_numbers_and_units() {
        assert_eq!(Secs::read(&Toml::Integer(30)), Ok(Secs(30)));
        assert_eq!(Secs::read(&text("5m")), Ok(Secs(300)));
        assert_eq!(Secs::read(&text("2000ms")), Ok(Secs(2)));
        assert_eq!(Option::<Secs>::read(&text("none")), Ok(None));
        assert_eq!(Option::<Secs>::read(&Toml::Integer(0)), Ok(None));
        assert_eq!(ByteSize::read(&text("10 MiB")), Ok(ByteSize(10 << 20)));
        for bad in ["", "5 parsecs", "-1", "99999999999999999999s", "m"] {
            assert!(Secs::read(&text(bad)).is_err(), "{bad}");
            assert!(bad.is_empty() || ByteSize::read(&text(bad)).is_err() || bad == "m", "{bad}");
        }
    }

    #[test]
    fn a_backend_url_hides_its_password() {
        let url = BackendUrl::read(&text("postgresql://u:hunter2@h:1/d")).unwrap();
        assert_eq!(url.to_string(), "postgresql://u:***@h:1/d");
        assert!(!format!("{url:?}").contains("hunter2"));
        assert!(BackendUrl::read(&text("http://h")).is_err());
    }

    #[test]
    fn a_backend_url_is_taken_apart() {
        let parts = |url: &str| BackendUrl::read(&text(url)).unwrap().parts();
        let all = parts("postgresql://me:p%40ss@db.example:6000/app").unwrap();
        assert_eq!(all.addr, BackendAddr::Tcp("db.example".into(), 6000));
        assert_eq!((all.user.as_str(), all.database.as_str()), ("me", "app"));
        assert_eq!(all.password.unwrap().reveal(), "p@ss");
        let unix = parts("postgresql://me@/?host=/run/pg").unwrap();
        assert_eq!(unix.addr, BackendAddr::Unix("/run/pg/.s.PGSQL.5432".into()));
        assert_eq!(unix.database, "me");
        let tls = |url: &str| parts(url).unwrap().tls;
        assert_eq!(all.tls.mode, SslMode::VerifyFull);
        assert_eq!(tls("postgresql://me@127.0.0.1").mode, SslMode::Prefer);
        assert_eq!(unix.tls.mode, SslMode::Disable);
        let url = "postgresql://me@h/?sslmode=verify-ca&sslrootcert=/ca&sslcert=/c&sslkey=/k";
        let expected = BackendTls {
            mode: SslMode::VerifyCa,
            root: Some("/ca".into()),
            identity: Some(("/c".into(), "/k".into())),
        };
        assert_eq!(tls(url), expected);
        for wrong in ["sslmode=maybe", "sslcert=/c", "sslpassword=x"] {
            assert!(parts(&format!("postgresql://me@h/?{wrong}")).is_err(), "{wrong}");
        }
        assert!(parts("postgresql://h/d").is_err());
    }

    #[test]
    fn a_backend_url_may_name_several_servers() {
        let url = BackendUrl::read(&text("postgresql://u:a,b@h1:1,[::1]:2,h3/d")).unwrap();
        let hosts = url.hosts().unwrap();
        let expected = [("h1", 1), ("::1", 2), ("h3", 5432)];
        for (parts, (host, port)) in hosts.iter().zip(expected) {
            assert_eq!(parts.addr, BackendAddr::Tcp(host.into(), port));
            assert_eq!((parts.user.as_str(), parts.database.as_str()), ("u", "d"));
            assert_eq!(parts.password.as_ref().unwrap().reveal(), "a,b");
        }
        assert!(!url.to_string().contains("a,b"), "{url}");
        assert!(BackendUrl::read(&text("postgresql://u@h1:x,h2/d")).is_err());
    }

    #[test]
    fn lists_and_tables_come_from_one_string_too() {
        assert_eq!(Vec::<String>::read(&text("a, b,")), Ok(vec!["a".into(), "b".into()]));
        let map = BTreeMap::<String, String>::read(&text("work_mem=8MB, jit=off")).unwrap();
        assert_eq!(map["jit"], "off");
        assert!(BTreeMap::<String, String>::read(&text("jit")).is_err());
    }
}
