//! Names that must not be mixed up: roles, databases, session numbers, addresses, secrets.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as PostgreSQL knows it, unquoted.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type! {
    /// A PostgreSQL role: the identity of every client.
    Role
}
name_type! {
    /// A PostgreSQL database.
    Database
}

/// Number of a session, unique in this process. It is no credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which door a session came through; the `protocol` label of every metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// PostgreSQL's frontend/backend protocol.
    Postgres,
    /// SQL over HTTP.
    Http,
    /// The native binary protocol.
    Native,
}

impl Protocol {
    /// Every protocol, in the order of its index.
    pub const ALL: [Protocol; 3] = [Protocol::Postgres, Protocol::Http, Protocol::Native];

    /// The word used in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Postgres => "postgres",
            Protocol::Http => "http",
            Protocol::Native => "native",
        }
    }
}

/// How bodies of the native protocol are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// LZ4, block format.
    Lz4,
    /// Zstandard.
    Zstd,
    /// Snappy, raw format.
    Snappy,
}

impl Compression {
    /// Every kind, in the order of its number on the wire.
    pub const ALL: [Compression; 4] =
        [Compression::None, Compression::Lz4, Compression::Zstd, Compression::Snappy];

    /// The word used in the configuration and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
            Compression::Snappy => "snappy",
        }
    }
}

/// Where a PostgreSQL server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackendAddr {
    /// The Unix-domain socket file itself, `<directory>/.s.PGSQL.<port>`.
    Unix(PathBuf),
    /// Host name or address, and port.
    Tcp(String, u16),
}

impl fmt::Display for BackendAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackendAddr::Unix(path) => write!(f, "{}", path.display()),
            BackendAddr::Tcp(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// A value that must never be printed. Its memory is overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself; the caller must not log it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        // NUL bytes are valid UTF-8, and `black_box` keeps the store from being optimised away.
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        bytes.fill(0);
        std::hint::black_box(&bytes);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "***");
    }
}
