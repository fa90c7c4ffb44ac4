//! SCRAM-SHA-256 (RFC 5802, RFC 7677), both sides, without I/O.
//!
//! The server side verifies against PostgreSQL's own verifiers and never learns the password, but
//! it learns the *client key* from a correct proof; with it the client side can log in to an
//! external PostgreSQL as the same role, as long as that server keeps the same verifier.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::types::Secret;

/// The mechanism's name on the wire.
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// The mechanism with channel binding.
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Iterations of a new verifier, PostgreSQL's default.
const ITERATIONS: u32 = 4096;

/// Iterations above this would let a server, or a verifier, keep a thread busy for seconds.
const MAX_ITERATIONS: u32 = 1_000_000;

type Key = [u8; 32];

/// What a verifier is made of; enough to log in, so it is treated like a password.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    client_key: Key,
    server_key: Key,
}

impl std::fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScramKeys(***)")
    }
}

impl Drop for ScramKeys {
    fn drop(&mut self) {
        self.client_key = [0; 32];
        self.server_key = [0; 32];
        std::hint::black_box(&self.client_key);
    }
}

/// PostgreSQL's verifier, `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`
/// (<https://www.postgresql.org/docs/current/catalog-pg-authid.html>).
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: Key,
    server_key: Key,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier(***)")
    }
}

impl Verifier {
    /// Reads `pg_authid.rolpassword`; `None` when it is not a SCRAM verifier.
    pub fn parse(text: &str) -> Option<Self> {
        let (head, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let key = |text: &str| Key::try_from(BASE64.decode(text).ok()?).ok();
        let iterations = iterations.parse().ok().filter(|n| (1..=MAX_ITERATIONS).contains(n))?;
        Some(Self {
            iterations,
            salt: BASE64.decode(salt).ok().filter(|salt| !salt.is_empty())?,
            stored_key: key(stored)?,
            server_key: key(server)?,
        })
    }

    /// A new verifier for a password.
    pub fn of_password(password: &Secret) -> Self {
        let salt = random_bytes::<16>().to_vec();
        let keys = derive(password, &salt, ITERATIONS);
        Self {
            iterations: ITERATIONS,
            stored_key: sha256(&keys.client_key),
            server_key: keys.server_key,
            salt,
        }
    }

    /// A verifier that no password fits, the same salt each time for the same name, so that a
    /// client cannot tell an unknown role from a wrong password (as PostgreSQL does).
    pub fn mock(secret: &[u8], name: &str) -> Self {
        let salt = hmac(secret, &[name.as_bytes()])[..16].to_vec();
        Self {
            iterations: ITERATIONS,
            salt,
            stored_key: random_bytes(),
            server_key: random_bytes(),
        }
    }

    /// The text that PostgreSQL stores.
    pub fn to_text(&self) -> String {
        format!(
            "SCRAM-SHA-256${}:{}${}:{}",
            self.iterations,
            BASE64.encode(&self.salt),
            BASE64.encode(self.stored_key),
            BASE64.encode(self.server_key)
        )
    }

    /// Checks a password, and gives the keys when it fits. Takes milliseconds by design.
    pub fn check(&self, password: &Secret) -> Option<ScramKeys> {
        let keys = derive(password, &self.salt, self.iterations);
        let fits = sha256(&keys.client_key).ct_eq(&self.stored_key);
        bool::from(fits).then_some(keys)
    }
}

fn derive(password: &Secret, salt: &[u8], iterations: u32) -> ScramKeys {
    // As PostgreSQL: a password that SASLprep refuses is used as it is.
    let prepared = stringprep::saslprep(password.reveal());
    let bytes = prepared.as_deref().unwrap_or(password.reveal()).as_bytes();
    let mut salted = Key::default();
    pbkdf2::pbkdf2_hmac::<Sha256>(bytes, salt, iterations, &mut salted);
    ScramKeys {
        client_key: hmac(&salted, &[b"Client Key"]),
        server_key: hmac(&salted, &[b"Server Key"]),
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    // HMAC takes keys of every length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Key::default() };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn sha256(bytes: &[u8]) -> Key {
    Sha256::digest(bytes).into()
}

fn xor(a: &Key, b: &Key) -> Key {
    std::array::from_fn(|i| a[i] ^ b[i])
}

/// Bytes from the operating system.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[allow(clippy::expect_used)]
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    bytes
}

/// Why an exchange failed; a client only learns that it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScramError {
    /// The message is not what RFC 5802 says.
    Malformed,
    /// The client chose the mechanism with channel binding and does not bind.
    BindingMissing,
    /// The client binds, but chose the mechanism without.
    BindingUnexpected,
    /// The client believes that channel binding was not offered: somebody took it away.
    BindingDowngraded,
    /// Another channel binding than `tls-server-end-point`.
    BindingType,
    /// The client sees another certificate than ours: somebody is in between.
    BindingMismatch,
    /// The proof does not fit.
    WrongProof,
    /// The server does not know the password.
    WrongServer,
}

/// What the server knows of the channel, and what the client chose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Channel<'a> {
    /// The binding's data; with it the mechanism with channel binding was offered too.
    pub binding: Option<&'a [u8]>,
    /// The client chose that mechanism.
    pub plus: bool,
}

impl Channel<'_> {
    /// Checks the flag of the GS2 header (RFC 5802, section 6).
    fn check(self, flag: &str) -> Result<(), ScramError> {
        match flag.split_once('=') {
            None if self.plus && matches!(flag, "n" | "y") => Err(ScramError::BindingMissing),
            None if flag == "y" && self.binding.is_some() => Err(ScramError::BindingDowngraded),
            None if matches!(flag, "n" | "y") => Ok(()),
            Some(("p", _)) if !self.plus => Err(ScramError::BindingUnexpected),
            Some(("p", "tls-server-end-point")) => Ok(()),
            Some(("p", _)) => Err(ScramError::BindingType),
            _ => Err(ScramError::Malformed),
        }
    }
}

/// The server's side after its first message.
#[derive(Debug)]
pub struct ServerExchange {
    verifier: Verifier,
    /// What the client must repeat: the GS2 header, and the binding's data after it.
    binding: Vec<u8>,
    nonce: String,
    /// client-first-message-bare "," server-first-message
    auth_prefix: String,
}

impl ServerExchange {
    /// Reads the client's first message; returns the exchange and the server's first message.
    pub fn begin(
        client_first: &[u8],
        verifier: Verifier,
        channel: Channel<'_>,
    ) -> Result<(Self, String), ScramError> {
        let nonce = BASE64.encode(random_bytes::<18>());
        Self::begin_with_nonce(client_first, verifier, channel, &nonce)
    }

    fn begin_with_nonce(
        client_first: &[u8],
        verifier: Verifier,
        channel: Channel<'_>,
        server_nonce: &str,
    ) -> Result<(Self, String), ScramError> {
        let text = std::str::from_utf8(client_first).map_err(|_| ScramError::Malformed)?;
        // gs2-header: flag "," [authzid] ","
        let (flag, rest) = text.split_once(',').ok_or(ScramError::Malformed)?;
        let (authzid, bare) = rest.split_once(',').ok_or(ScramError::Malformed)?;
        channel.check(flag)?;
        if !authzid.is_empty() {
            return Err(ScramError::Malformed);
        }
        // The name in `n=` is ignored, as PostgreSQL does: the start-up packet named the role.
        let (name, nonce) = bare.split_once(",r=").ok_or(ScramError::Malformed)?;
        let client_nonce = nonce.split(',').next().unwrap_or("");
        let printable = |b: u8| (0x21..=0x7e).contains(&b);
        if !name.starts_with("n=")
            || client_nonce.is_empty()
            || !client_nonce.bytes().all(printable)
        {
            return Err(ScramError::Malformed);
        }
        let nonce = format!("{client_nonce}{server_nonce}");
        let salt = BASE64.encode(&verifier.salt);
        let server_first = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let mut binding = format!("{flag},,").into_bytes();
        if channel.plus {
            binding.extend_from_slice(channel.binding.ok_or(ScramError::Malformed)?);
        }
        let exchange =
            Self { binding, auth_prefix: format!("{bare},{server_first}"), nonce, verifier };
        Ok((exchange, server_first))
    }

    /// Checks the client's last message; returns the keys and the server's last message.
    pub fn finish(self, client_final: &[u8]) -> Result<(ScramKeys, String), ScramError> {
        let text = std::str::from_utf8(client_final).map_err(|_| ScramError::Malformed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let (binding, nonce) = without_proof.split_once(",r=").ok_or(ScramError::Malformed)?;
        if binding.strip_prefix("c=") != Some(&BASE64.encode(&self.binding)) {
            return Err(ScramError::BindingMismatch);
        }
        if nonce != self.nonce {
            return Err(ScramError::Malformed);
        }
        let proof = BASE64.decode(proof).map_err(|_| ScramError::Malformed)?;
        let proof = Key::try_from(proof).map_err(|_| ScramError::Malformed)?;
        let message = [self.auth_prefix.as_bytes(), b",", without_proof.as_bytes()];
        let client_key = xor(&proof, &hmac(&self.verifier.stored_key, &message));
        if !bool::from(sha256(&client_key).ct_eq(&self.verifier.stored_key)) {
            return Err(ScramError::WrongProof);
        }
        let signature = BASE64.encode(hmac(&self.verifier.server_key, &message));
        let keys = ScramKeys { client_key, server_key: self.verifier.server_key };
        Ok((keys, format!("v={signature}")))
    }
}

/// What a client proves itself with.
#[derive(Clone, Debug)]
pub enum ClientSecret {
    /// A password.
    Password(Secret),
    /// Keys gained from another exchange for the same verifier.
    Keys(ScramKeys),
}

/// What the client knows of the channel, and what the server offered.
#[derive(Clone, Copy, Debug)]
pub enum ClientChannel<'a> {
    /// The channel has nothing to bind to.
    Open,
    /// It has, but the server did not offer it: if it did, somebody took the offer away.
    NotOffered,
    /// The binding's data (`tls-server-end-point`, RFC 5929).
    Bound(&'a [u8]),
}

/// The client's side.
#[derive(Debug)]
pub struct ClientExchange {
    secret: ClientSecret,
    nonce: String,
    first_bare: String,
    /// The GS2 header, and the binding's data after it.
    binding: Vec<u8>,
    expected_signature: Key,
}

impl ClientExchange {
    /// Begins, bound to the channel or not; the second value is the client's first message.
    pub fn begin(secret: ClientSecret, channel: ClientChannel<'_>) -> (Self, String) {
        let nonce = BASE64.encode(random_bytes::<18>());
        let first_bare = format!("n=,r={nonce}");
        let (header, data): (&str, &[u8]) = match channel {
            ClientChannel::Open => ("n,,", b""),
            ClientChannel::NotOffered => ("y,,", b""),
            ClientChannel::Bound(data) => ("p=tls-server-end-point,,", data),
        };
        let first = format!("{header}{first_bare}");
        let binding = [header.as_bytes(), data].concat();
        (Self { secret, nonce, first_bare, binding, expected_signature: Key::default() }, first)
    }

    /// Answers the server's first message.
    pub fn answer(&mut self, server_first: &[u8]) -> Result<String, ScramError> {
        let text = std::str::from_utf8(server_first).map_err(|_| ScramError::Malformed)?;
        let mut fields = text.split(',');
        let mut field = |name: &str| fields.next().and_then(|f| f.strip_prefix(name));
        let (nonce, salt, iterations) =
            match (field("r="), field("s="), field("i=").and_then(|i| i.parse().ok())) {
                (Some(r), Some(s), Some(i)) => (r, s, i),
                _ => return Err(ScramError::Malformed),
            };
        let salt = BASE64.decode(salt).map_err(|_| ScramError::Malformed)?;
        if !nonce.starts_with(&self.nonce) || iterations == 0 || iterations > MAX_ITERATIONS {
            return Err(ScramError::Malformed);
        }
        let keys = match &self.secret {
            ClientSecret::Password(password) => derive(password, &salt, iterations),
            ClientSecret::Keys(keys) => keys.clone(),
        };
        let without_proof = format!("c={},r={nonce}", BASE64.encode(&self.binding));
        let message =
            [self.first_bare.as_bytes(), b",", server_first, b",", without_proof.as_bytes()];
        let proof = xor(&keys.client_key, &hmac(&sha256(&keys.client_key), &message));
        self.expected_signature = hmac(&keys.server_key, &message);
        Ok(format!("{without_proof},p={}", BASE64.encode(proof)))
    }

    /// Checks the server's last message: it must know the verifier too.
    pub fn finish(self, server_final: &[u8]) -> Result<(), ScramError> {
        let signature = server_final.strip_prefix(b"v=").ok_or(ScramError::WrongServer)?;
        let signature = BASE64.decode(signature).map_err(|_| ScramError::Malformed)?;
        match bool::from(signature.ct_eq(&self.expected_signature)) {
            true => Ok(()),
            false => Err(ScramError::WrongServer),
        }
    }
}

/// A hash of a password that only this process can compare, for caches of checked passwords.
pub fn password_tag(secret: &[u8], password: &Secret) -> Key {
    hmac(secret, &[password.reveal().as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3.
    #[test]
    fn the_rfc_example() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let keys = derive(&Secret::new("pencil"), &salt, 4096);
        let verifier = Verifier {
            iterations: 4096,
            salt,
            stored_key: sha256(&keys.client_key),
            server_key: keys.server_key,
        };
        let (exchange, first) = ServerExchange::begin_with_nonce(
            b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            verifier,
            Channel::default(),
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        )
        .unwrap();
        assert_eq!(
            first,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                     p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let (_, server_final) = exchange.finish(last).unwrap();
        assert_eq!(server_final, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    fn log_in(secret: ClientSecret, verifier: &Verifier) -> Result<ScramKeys, ScramError> {
        bound_log_in(secret, verifier, ClientChannel::Open, Channel::default())
    }

    fn bound_log_in(
        secret: ClientSecret,
        verifier: &Verifier,
        seen: ClientChannel<'_>,
        channel: Channel<'_>,
    ) -> Result<ScramKeys, ScramError> {
        let (mut client, first) = ClientExchange::begin(secret, seen);
        let (server, server_first) =
            ServerExchange::begin(first.as_bytes(), verifier.clone(), channel)?;
        let last = client.answer(server_first.as_bytes())?;
        let (keys, server_final) = server.finish(last.as_bytes())?;
        client.finish(server_final.as_bytes())?;
        Ok(keys)
    }

    #[test]
    fn a_password_logs_in_and_its_keys_log_in_again() {
        let verifier = Verifier::of_password(&Secret::new("pässword"));
        let verifier = Verifier::parse(&verifier.to_text()).unwrap();
        let keys = log_in(ClientSecret::Password(Secret::new("pässword")), &verifier).unwrap();
        assert_eq!(verifier.check(&Secret::new("pässword")), Some(keys.clone()));
        assert_eq!(log_in(ClientSecret::Keys(keys.clone()), &verifier), Ok(keys));
        let wrong = log_in(ClientSecret::Password(Secret::new("password")), &verifier);
        assert_eq!(wrong, Err(ScramError::WrongProof));
        assert_eq!(verifier.check(&Secret::new("")), None);
    }

    #[test]
    fn a_bound_log_in_needs_the_same_certificate_on_both_sides() {
        let verifier = Verifier::of_password(&Secret::new("x"));
        let log_in = |seen, channel| {
            let secret = ClientSecret::Password(Secret::new("x"));
            bound_log_in(secret, &verifier, seen, channel).map(|_| ())
        };
        let bound = Channel { binding: Some(b"hash"), plus: true };
        let unbound = Channel { plus: false, ..bound };
        use ClientChannel::{Bound, NotOffered, Open};
        assert_eq!(log_in(Bound(b"hash"), bound), Ok(()));
        assert_eq!(log_in(Bound(b"other"), bound), Err(ScramError::BindingMismatch));
        assert_eq!(log_in(Open, bound), Err(ScramError::BindingMissing));
        assert_eq!(log_in(Open, unbound), Ok(()));
        assert_eq!(log_in(Bound(b"hash"), unbound), Err(ScramError::BindingUnexpected));
        assert_eq!(log_in(NotOffered, unbound), Err(ScramError::BindingDowngraded));
        assert_eq!(log_in(NotOffered, Channel::default()), Ok(()));
        for (flag, channel, error) in [
            ("y", unbound, Some(ScramError::BindingDowngraded)),
            ("y", bound, Some(ScramError::BindingMissing)),
            ("y", Channel::default(), None),
            ("p=tls-unique", bound, Some(ScramError::BindingType)),
            ("p=tls-unique", unbound, Some(ScramError::BindingUnexpected)),
            ("p", bound, Some(ScramError::Malformed)),
            ("n=", unbound, Some(ScramError::Malformed)),
        ] {
            let first = format!("{flag},,n=,r=abc");
            let begun = ServerExchange::begin(first.as_bytes(), verifier.clone(), channel);
            assert_eq!(begun.err(), error, "{flag} {channel:?}");
        }
    }

    #[test]
    fn a_mock_verifier_keeps_its_salt_and_fits_nothing() {
        let (a, b) = (Verifier::mock(b"s", "joe"), Verifier::mock(b"s", "joe"));
        assert_eq!(a.salt, b.salt);
        assert_ne!(a.salt, Verifier::mock(b"s", "jim").salt);
        assert!(a.check(&Secret::new("")).is_none());
    }

    #[test]
    fn malformed_messages_are_refused() {
        let verifier = Verifier::of_password(&Secret::new("x"));
        for (first, error) in [
            (&b""[..], ScramError::Malformed),
            (b"n,,", ScramError::Malformed),
            (b"n,a=admin,n=,r=abc", ScramError::Malformed),
            (b"p=tls-unique,,n=,r=abc", ScramError::BindingUnexpected),
            (b"n,,n=,r=", ScramError::Malformed),
            (b"n,,n=,r=a\x01b", ScramError::Malformed),
            (b"\xff,,n=,r=abc", ScramError::Malformed),
        ] {
            let got =
                ServerExchange::begin(first, verifier.clone(), Channel::default()).map(|_| ());
            assert_eq!(got, Err(error), "{first:?}");
        }
        for last in [&b""[..], b"c=biws", b"c=biws,r=abc,p=!!", b"c=biws,r=abc,p=YQ=="] {
            let none = Channel::default();
            let (server, _) =
                ServerExchange::begin(b"n,,n=,r=abc", verifier.clone(), none).unwrap();
            assert!(server.finish(last).is_err());
        }
        for text in ["", "md5abc", "SCRAM-SHA-256$0:YQ==$YQ==:YQ==", "SCRAM-SHA-256$4096:$:"] {
            assert_eq!(Verifier::parse(text), None);
        }
    }
}
