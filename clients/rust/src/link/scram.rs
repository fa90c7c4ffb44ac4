//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the client's side, without I/O.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// The mechanism without channel binding.
pub(super) const MECHANISM: &str = "SCRAM-SHA-256";

/// The mechanism with it.
pub(super) const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// More iterations would let a server keep the client busy for seconds.
const MAX_ITERATIONS: u32 = 1_000_000;

type Key = [u8; 32];

/// What the channel can be bound to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Channel<'a> {
    /// Nothing.
    Open,
    /// The channel has a binding, but the server did not offer it: if it did, somebody took the
    /// offer away.
    NotOffered,
    /// The data of `tls-server-end-point` (RFC 5929).
    Bound(&'a [u8]),
}

/// An exchange after the client's first message.
pub(super) struct Exchange {
    nonce: String,
    first_bare: String,
    /// The GS2 header, and the binding's data after it.
    binding: Vec<u8>,
}

/// What the server's last message must prove.
pub(super) struct Expected(Key);

impl Exchange {
    /// Begins; the second value is the client's first message.
    pub(super) fn begin(channel: Channel<'_>) -> Result<(Self, String)> {
        let mut random = [0; 18];
        getrandom::fill(&mut random)
            .map_err(|e| Error::Connect(format!("there is no randomness: {e}")))?;
        Ok(Self::begin_with(channel, BASE64.encode(random)))
    }

    fn begin_with(channel: Channel<'_>, nonce: String) -> (Self, String) {
        // The role is named by the protocol; the server does not look at the name here.
        let first_bare = format!("n=,r={nonce}");
        let (header, data): (&str, &[u8]) = match channel {
            Channel::Open => ("n,,", b""),
            Channel::NotOffered => ("y,,", b""),
            Channel::Bound(data) => ("p=tls-server-end-point,,", data),
        };
        let first = format!("{header}{first_bare}");
        (Self { nonce, first_bare, binding: [header.as_bytes(), data].concat() }, first)
    }

    /// Answers the server's first message. Takes milliseconds by design.
    pub(super) fn answer(self, server_first: &[u8], password: &str) -> Result<(String, Expected)> {
        let text = std::str::from_utf8(server_first).map_err(|_| malformed())?;
        let mut parts = text.split(',');
        let mut part = |name| parts.next().and_then(|p: &str| p.strip_prefix(name));
        let nonce = part("r=").ok_or_else(malformed)?;
        let salt = part("s=").and_then(|s| BASE64.decode(s).ok()).ok_or_else(malformed)?;
        let iterations = part("i=").and_then(|i| i.parse::<u32>().ok()).ok_or_else(malformed)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(malformed());
        }
        if !(1..=MAX_ITERATIONS).contains(&iterations) {
            return Err(failed("the server asks for an absurd number of iterations"));
        }
        // As PostgreSQL: a password that SASLprep refuses is used as it is.
        let prepared = stringprep::saslprep(password);
        let bytes = prepared.as_deref().unwrap_or(password).as_bytes();
        let mut salted = Key::default();
        pbkdf2::pbkdf2_hmac::<Sha256>(bytes, &salt, iterations, &mut salted);
        let client_key = hmac(&salted, &[b"Client Key"]);
        let stored_key: Key = Sha256::digest(client_key).into();
        let without_proof = format!("c={},r={nonce}", BASE64.encode(&self.binding));
        let message =
            [self.first_bare.as_bytes(), b",", server_first, b",", without_proof.as_bytes()];
        let signature = hmac(&stored_key, &message);
        let proof: Key = std::array::from_fn(|i| client_key[i] ^ signature[i]);
        let expected = hmac(&hmac(&salted, &[b"Server Key"]), &message);
        Ok((format!("{without_proof},p={}", BASE64.encode(proof)), Expected(expected)))
    }
}

impl Expected {
    /// Checks that the server knows the password too.
    pub(super) fn check(&self, server_final: &[u8]) -> Result<()> {
        let signature = server_final.strip_prefix(b"v=").and_then(|s| BASE64.decode(s).ok());
        match signature {
            Some(signature) if signature == self.0 => Ok(()),
            _ => Err(failed("the server does not know the password")),
        }
    }
}

fn malformed() -> Error {
    failed("the server's SCRAM message is malformed")
}

fn failed(text: &str) -> Error {
    Error::Connect(text.to_owned())
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    // HMAC takes keys of every length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Key::default() };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3, whose client names a user.
    fn example() -> Exchange {
        let nonce = "rOprNGfwEbeRWgbNEkqO".to_owned();
        let (mut exchange, first) = Exchange::begin_with(Channel::Open, nonce);
        assert_eq!(first, "n,,n=,r=rOprNGfwEbeRWgbNEkqO");
        exchange.first_bare = "n=user,r=rOprNGfwEbeRWgbNEkqO".into();
        exchange
    }

    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                                s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    #[test]
    fn the_example_of_the_standard_is_reproduced() {
        let (last, expected) = example().answer(SERVER_FIRST.as_bytes(), "pencil").unwrap();
        assert_eq!(
            last,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        expected.check(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
        assert!(expected.check(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=").is_err());
        assert!(expected.check(b"e=other-error").is_err());
    }

    #[test]
    fn servers_that_cheat_are_refused() {
        for first in [
            "r=other,s=AAAA,i=4096",
            "r=rOprNGfwEbeRWgbNEkqO,s=AAAA,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=0",
            "r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=4000000000",
            "r=rOprNGfwEbeRWgbNEkqOx,s=!,i=1",
            "i=1",
            "",
        ] {
            assert!(example().answer(first.as_bytes(), "pencil").is_err(), "{first}");
        }
    }

    #[test]
    fn the_channel_is_named_and_repeated() {
        let begin = |channel| Exchange::begin_with(channel, "abc".into());
        assert_eq!(begin(Channel::NotOffered).1, "y,,n=,r=abc");
        let (exchange, first) = begin(Channel::Bound(b"hash"));
        assert_eq!(first, "p=tls-server-end-point,,n=,r=abc");
        let (last, _) = exchange.answer(b"r=abcdef,s=AAAA,i=1", "x").unwrap();
        let binding = BASE64.encode("p=tls-server-end-point,,hash");
        assert!(last.starts_with(&format!("c={binding},r=abcdef,p=")));
    }
}
