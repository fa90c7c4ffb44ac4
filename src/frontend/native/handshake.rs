//! What a client and the server agree on before anything else.

use super::errors;
use super::extensions::ExtensionRegistry;
use crate::config::{ChecksumMode, Config};
use crate::proto::native::{
    Agreed, AuthMethod, ClientHello, CompressionType, ErrorBody, SMALLEST_WINDOW, ServerHello,
    VERSION, capabilities,
};
use crate::types::Compression;

/// Longest name or version of a client, in bytes.
const LONGEST_NAME: usize = 64;

/// Extensions that a client may offer.
const MOST_EXTENSIONS: usize = 32;

/// What this server can: all but subscriptions.
const CAPABILITIES: u32 = capabilities::ALL & !capabilities::SUBSCRIPTIONS;

/// Answers a client's hello.
///
/// # Errors
/// There is nothing that both sides can, or the hello breaks a rule; the connection closes.
pub(super) fn negotiate(
    hello: &ClientHello,
    config: &Config,
    connection_id: u64,
    auth_methods: Vec<AuthMethod>,
    registry: &ExtensionRegistry,
) -> Result<(ServerHello, Agreed), Box<ErrorBody>> {
    check(hello)?;
    let native = &config.native;
    let size = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
    let max_message_size = hello.max_message_size.min(size(native.max_message_size.0));
    let compression = choose(&hello.compression, &native.compression.0);
    let wants_checksum = hello.capabilities & capabilities::CHECKSUM != 0;
    if native.checksum == ChecksumMode::Required && !wants_checksum {
        return Err(errors::fatal("0A000", "NOT_SUPPORTED", "this server requires checksums"));
    }
    let checksum = wants_checksum && native.checksum != ChecksumMode::Off;
    let mut agreed_capabilities = hello.capabilities & CAPABILITIES & !capabilities::CHECKSUM;
    if checksum {
        agreed_capabilities |= capabilities::CHECKSUM;
    }
    let (extensions, encoding) = registry.agree(&hello.extensions, &native.extensions.0);
    let reply = ServerHello {
        version: VERSION,
        server_name: "RustyDB".into(),
        server_version: env!("CARGO_PKG_VERSION").into(),
        connection_id,
        compression,
        capabilities: agreed_capabilities,
        extensions,
        max_message_size,
        max_sql_length: size(config.network.max_request_size.0),
        max_pending_requests: native.max_pending_requests,
        max_queued_requests: native.max_queued_requests,
        max_batch_statements: native.max_batch_statements,
        stream_window: size(native.stream_window.0),
        connection_window: size(native.connection_window.0),
        heartbeat_interval_ms: size(native.heartbeat_interval_ms.0),
        auth_methods,
    };
    let threshold = native.compression_threshold.len();
    Ok((reply, Agreed { compression, threshold, checksum, max_message_size, encoding }))
}

fn check(hello: &ClientHello) -> Result<(), Box<ErrorBody>> {
    let key = |version: &crate::proto::native::Version| (version.major, version.minor);
    if !(key(&hello.min_version)..=key(&hello.version)).contains(&key(&VERSION)) {
        let text = "no version of the native protocol that both sides speak";
        let mut error = errors::fatal("0A000", "VERSION_NOT_SUPPORTED", text);
        error.detail = Some(format!("supported: {}.{}", VERSION.major, VERSION.minor));
        return Err(error);
    }
    let names = [&hello.client_name, &hello.client_version];
    if names.iter().any(|name| name.len() > LONGEST_NAME) {
        return Err(errors::violation("the name or version of the client is longer than 64 bytes"));
    }
    if hello.extensions.len() > MOST_EXTENSIONS {
        return Err(errors::violation("more than 32 extensions"));
    }
    if hello.max_message_size < SMALLEST_WINDOW {
        return Err(errors::violation("max_message_size is below 65536"));
    }
    let windows = [hello.stream_window, hello.connection_window];
    let allowed = SMALLEST_WINDOW..=i32::MAX as u32;
    if windows.iter().any(|window| !allowed.contains(window)) {
        let text = "a window is below 65536 or above 2147483647";
        return Err(errors::fatal("08P01", "FLOW_CONTROL_ERROR", text));
    }
    Ok(())
}

/// The first that the client can and the configuration allows.
fn choose(offered: &[CompressionType], allowed: &[Compression]) -> CompressionType {
    let is_allowed = |kind: &&CompressionType| allowed.contains(&known(**kind));
    offered.iter().find(is_allowed).copied().unwrap_or(CompressionType::None)
}

/// The kind as the configuration and the metrics know it.
pub(super) fn known(kind: CompressionType) -> Compression {
    match kind {
        CompressionType::None => Compression::None,
        CompressionType::Lz4 => Compression::Lz4,
        CompressionType::Zstd => Compression::Zstd,
        CompressionType::Snappy => Compression::Snappy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Compressions;
    use crate::proto::native::{ExtensionOffer, Version};

    fn hello() -> ClientHello {
        ClientHello {
            version: VERSION,
            min_version: VERSION,
            client_name: "test".into(),
            client_version: "1".into(),
            compression: vec![CompressionType::Zstd, CompressionType::Lz4],
            capabilities: capabilities::ALL,
            extensions: Vec::new(),
            max_message_size: 1 << 30,
            stream_window: 65_536,
            connection_window: 65_536,
        }
    }

    fn answer(
        hello: &ClientHello,
        config: &Config,
    ) -> Result<(ServerHello, Agreed), Box<ErrorBody>> {
        negotiate(hello, config, 7, vec![AuthMethod::Trust], &ExtensionRegistry::default())
    }

    #[test]
    fn the_first_that_both_can_is_agreed() {
        let mut config = Config::default();
        let (reply, agreed) = answer(&hello(), &config).unwrap();
        assert_eq!(
            (reply.compression, agreed.compression),
            (CompressionType::Zstd, reply.compression)
        );
        assert_eq!((reply.max_message_size, reply.max_sql_length), (16 << 20, 1 << 20));
        assert_eq!(reply.capabilities & capabilities::SUBSCRIPTIONS, 0);
        assert!(agreed.checksum && reply.extensions.is_empty());
        config.native.compression = Compressions(vec![Compression::None, Compression::Lz4]);
        config.native.checksum = ChecksumMode::Off;
        let (reply, agreed) = answer(&hello(), &config).unwrap();
        assert_eq!((reply.compression, agreed.checksum), (CompressionType::Lz4, false));
        assert_eq!(reply.capabilities & capabilities::CHECKSUM, 0);
        let none = ClientHello { compression: Vec::new(), capabilities: 0, ..hello() };
        let (reply, _) = answer(&none, &config).unwrap();
        assert_eq!((reply.compression, reply.capabilities), (CompressionType::None, 0));
        config.native.checksum = ChecksumMode::Required;
        assert_eq!(answer(&none, &config).unwrap_err().sqlstate, "0A000");
    }

    #[test]
    fn versions_must_overlap() {
        let config = Config::default();
        let of = |min: (u16, u16), max: (u16, u16)| {
            let version = |(major, minor)| Version { major, minor };
            let hello = ClientHello { min_version: version(min), version: version(max), ..hello() };
            answer(&hello, &config).map(|(reply, _)| reply.version).map_err(|e| e.code)
        };
        assert_eq!(of((1, 0), (1, 9)), Ok(VERSION));
        assert_eq!(of((0, 1), (2, 0)), Ok(VERSION));
        for (min, max) in [((1, 1), (1, 9)), ((2, 0), (2, 0)), ((0, 1), (0, 9)), ((2, 0), (1, 0))] {
            assert_eq!(of(min, max), Err("VERSION_NOT_SUPPORTED".into()));
        }
    }

    #[test]
    fn a_hello_beyond_the_limits_is_refused() {
        let config = Config::default();
        let offer = ExtensionOffer { name: "x".into(), version: 1 };
        for bad in [
            ClientHello { client_name: "x".repeat(65), ..hello() },
            ClientHello { extensions: vec![offer; 33], ..hello() },
            ClientHello { max_message_size: 65_535, ..hello() },
            ClientHello { stream_window: 65_535, ..hello() },
            ClientHello { connection_window: 1 << 31, ..hello() },
        ] {
            assert_eq!(answer(&bad, &config).unwrap_err().sqlstate, "08P01");
        }
    }
}
