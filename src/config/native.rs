//! Values that only the native protocol's keys have, and what they must satisfy.

use toml::Value as Toml;

use super::value::choice;
use super::{ByteSize, Config, Value};
use crate::types::Compression;

choice! {
    /// Whether frames have checksums.
    ChecksumMode {
        /// When the client wants them.
        Optional = "optional",
        /// A client that cannot is refused.
        Required = "required",
        /// Never.
        Off = "off",
    }

    /// What happens to a request that finds the queue full.
    QueueFullPolicy {
        /// It is refused.
        Reject = "reject",
        /// The newest of the lowest priority is refused instead, if it is less important.
        DropLowest = "drop_lowest",
    }

    /// Extensions of the protocol that are built in.
    NativeExtension {
        /// All messages are JSON.
        Json = "codec.json",
        /// All messages are MessagePack.
        MessagePack = "codec.msgpack",
        /// Gives back what it gets.
        Echo = "rustydb.echo",
    }
}

/// Extensions that clients can agree on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NativeExtensions(pub Vec<NativeExtension>);

impl Value for NativeExtensions {
    fn read(raw: &Toml) -> Result<Self, String> {
        let words = Vec::<String>::read(raw)?;
        let known: Result<_, _> = words.iter().map(|word| NativeExtension::of(word)).collect();
        known.map(Self).map_err(|_| "a list of codec.json, codec.msgpack, rustydb.echo".into())
    }

    fn write(&self) -> Toml {
        Toml::Array(self.0.iter().map(|known| Toml::String(known.word().into())).collect())
    }
}

/// How bodies may be compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compressions(pub Vec<Compression>);

impl Default for Compressions {
    fn default() -> Self {
        Self(Compression::ALL.to_vec())
    }
}

impl Value for Compressions {
    fn read(raw: &Toml) -> Result<Self, String> {
        let words = Vec::<String>::read(raw)?;
        let kinds = words
            .iter()
            .map(|word| Compression::ALL.into_iter().find(|kind| kind.as_str() == word.as_str()));
        let kinds: Option<Vec<Compression>> = kinds.collect();
        kinds.map(Self).ok_or_else(|| "a list of none, lz4, zstd, snappy".into())
    }

    fn write(&self) -> Toml {
        Toml::Array(self.0.iter().map(|kind| Toml::String(kind.as_str().into())).collect())
    }
}

impl Config {
    pub(super) fn check_native(&self, check: &mut impl FnMut(bool, &'static str, &str)) {
        const SMALLEST: u64 = 65_536;
        let native = &self.native;
        check(
            (SMALLEST..=16 << 20).contains(&native.max_message_size.0),
            "network.native.max_message_size",
            "must lie between 64 KiB and 16 MiB",
        );
        let window = |size: ByteSize| (SMALLEST..1 << 31).contains(&size.0);
        let text = "must lie between 64 KiB and 2 GiB";
        check(window(native.stream_window), "network.native.stream_window", text);
        check(window(native.connection_window), "network.native.connection_window", text);
        let one = "must be at least 1";
        for (value, path) in [
            (native.handshake_timeout_secs.0, "network.native.handshake_timeout_secs"),
            (native.auth_timeout_secs.0, "network.native.auth_timeout_secs"),
            (native.heartbeat_interval_ms.0, "network.native.heartbeat_interval_ms"),
            (native.max_pending_requests.into(), "network.native.max_pending_requests"),
            (native.max_queued_requests.into(), "network.native.max_queued_requests"),
            (native.max_inflight_bytes.0, "network.native.max_inflight_bytes"),
            (native.stream_chunk_bytes.0, "network.native.stream_chunk_bytes"),
            (native.slow_consumer_timeout_secs.0, "network.native.slow_consumer_timeout_secs"),
            (native.max_batch_statements.into(), "network.native.max_batch_statements"),
        ] {
            check(value > 0, path, one);
        }
        let fits = u32::try_from(native.heartbeat_interval_ms.0).is_ok();
        check(fits, "network.native.heartbeat_interval_ms", "must be below 2^32");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_extensions() {
        let read = |text: &str| NativeExtensions::read(&Toml::String(text.into()));
        let both = NativeExtensions(vec![NativeExtension::MessagePack, NativeExtension::Json]);
        assert_eq!(read("codec.msgpack,codec.json"), Ok(both.clone()));
        assert_eq!(NativeExtensions::read(&both.write()), Ok(both));
        assert!(read("codec.protobuf").is_err());
    }

    #[test]
    fn lists_of_compressions() {
        let read = |text: &str| Compressions::read(&Toml::String(text.into()));
        assert_eq!(read("zstd,none"), Ok(Compressions(vec![Compression::Zstd, Compression::None])));
        assert!(read("gzip").is_err());
        assert_eq!(
            Compressions::read(&Compressions::default().write()),
            Ok(Compressions::default())
        );
    }
}
