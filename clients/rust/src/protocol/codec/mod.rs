//! How a message becomes the body of a frame: bincode, unless another form was agreed on.
//!
//! JSON and MessagePack have the messages in their serde form: an enum is an object of the
//! variant's name and its content (the name alone if it has none), a struct an object of its
//! fields. What comes in these forms is a stranger's, as bincode is, and has the same limits.

mod limited;
pub mod numbers;
mod outline;

use serde::Deserialize as _;

use super::messages::Message;
use super::wire::{self, Fault, Violation};
use limited::{Budget, Limited};

pub use outline::outline;

/// A form of messages.
pub trait Codec {
    /// Name of the extension that it is agreed on with; empty = what is used without one.
    const NAME: &'static str;

    /// Appends a message to `out`.
    ///
    /// # Errors
    /// It cannot be written; `out` may end with a part of it.
    fn encode(message: &Message, out: &mut Vec<u8>) -> Result<(), Violation>;

    /// Reads a message that is all of `body`.
    ///
    /// # Errors
    /// [`Violation`] if the bytes are no message or break a limit.
    fn decode(body: &[u8]) -> Result<Message, Violation>;
}

/// Bincode 2, `config::standard()`.
pub struct Bincode;

/// JSON, RFC 8259.
pub struct Json;

/// MessagePack; structs are maps with the names of their fields.
pub struct MessagePack;

impl Codec for Bincode {
    const NAME: &'static str = "";

    fn encode(message: &Message, out: &mut Vec<u8>) -> Result<(), Violation> {
        wire::encode(message, out);
        Ok(())
    }

    fn decode(body: &[u8]) -> Result<Message, Violation> {
        wire::decode(body)
    }
}

impl Codec for Json {
    const NAME: &'static str = "codec.json";

    fn encode(message: &Message, out: &mut Vec<u8>) -> Result<(), Violation> {
        serde_json::to_writer(out, message)
            .map_err(|_| Violation::malformed("a message cannot be written as JSON"))
    }

    fn decode(body: &[u8]) -> Result<Message, Violation> {
        let mut input = serde_json::Deserializer::from_slice(body);
        // The depth is limited where values lie inside each other, as in bincode.
        input.disable_recursion_limit();
        let budget = Budget::default();
        let read = Message::deserialize(Limited::new(&mut input, &budget));
        let message = read.and_then(|message| input.end().map(|()| message));
        message.map_err(|_| budget.violation("the body is not a message in JSON"))
    }
}

impl Codec for MessagePack {
    const NAME: &'static str = "codec.msgpack";

    fn encode(message: &Message, out: &mut Vec<u8>) -> Result<(), Violation> {
        // Bytes as what they are, not as a list of numbers.
        let bytes = rmp_serde::config::BytesMode::ForceAll;
        let mut output = rmp_serde::Serializer::new(out).with_struct_map().with_bytes(bytes);
        serde::Serialize::serialize(message, &mut output)
            .map_err(|_| Violation::malformed("a message cannot be written as MessagePack"))
    }

    fn decode(body: &[u8]) -> Result<Message, Violation> {
        let text = "the body is not a message in MessagePack";
        let mut input = rmp_serde::Deserializer::new(std::io::Cursor::new(body));
        let budget = Budget::default();
        let message = Message::deserialize(Limited::new(&mut input, &budget))
            .map_err(|_| budget.violation(text))?;
        match input.position() == body.len() as u64 {
            true => Ok(message),
            false => Err(Violation::malformed("bytes are left over after the message")),
        }
    }
}

/// The form that a connection has agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// [`Bincode`].
    #[default]
    Bincode,
    /// [`Json`].
    Json,
    /// [`MessagePack`].
    MessagePack,
}

impl Encoding {
    /// Those that are agreed on as an extension.
    pub const OPTIONAL: [Self; 2] = [Self::Json, Self::MessagePack];

    /// Name of the extension that stands for it; empty = what is used without one.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bincode => Bincode::NAME,
            Self::Json => Json::NAME,
            Self::MessagePack => MessagePack::NAME,
        }
    }

    /// Appends a message to `out`.
    ///
    /// # Errors
    /// As [`Codec::encode`].
    pub fn encode(self, message: &Message, out: &mut Vec<u8>) -> Result<(), Violation> {
        match self {
            Self::Bincode => Bincode::encode(message, out),
            Self::Json => Json::encode(message, out),
            Self::MessagePack => MessagePack::encode(message, out),
        }
    }

    /// Reads a message that is all of `body`.
    ///
    /// # Errors
    /// As [`Codec::decode`].
    pub fn decode(self, body: &[u8]) -> Result<Message, Violation> {
        match self {
            Self::Bincode => Bincode::decode(body),
            Self::Json => Json::decode(body),
            Self::MessagePack => MessagePack::decode(body),
        }
    }

    /// Puts in the place of the bincode that is in `out` from `at` on the same message in this
    /// form.
    ///
    /// # Errors
    /// It takes too much memory when it is decoded; `out` ends at `at` then.
    pub fn transcode(self, out: &mut Vec<u8>, at: usize) -> Result<(), Violation> {
        if self == Self::Bincode {
            return Ok(());
        }
        let message = Bincode::decode(&out[at..]);
        out.truncate(at);
        let put = message.and_then(|message| self.encode(&message, out));
        if put.is_err() {
            out.truncate(at);
        }
        put
    }

    /// How many times longer than in bincode a row can be, at most.
    pub fn expansion(self) -> usize {
        match self {
            Self::Bincode => 1,
            // An empty range within a multirange: three bytes in bincode, 55 in JSON.
            Self::Json | Self::MessagePack => 20,
        }
    }

    /// Longest payload of an urgent frame, in bytes.
    pub fn max_urgent_payload(self) -> u32 {
        match self {
            Self::Bincode => 64,
            // Names and numbers in decimal.
            Self::Json | Self::MessagePack => 128,
        }
    }

    /// Whether a body is part of the handshake or the log-in, as it is written here.
    pub fn is_secret(self, body: &[u8]) -> bool {
        match self {
            // Handshake, Auth and AuthReply have the numbers 0 to 2.
            Self::Bincode => body.first().is_some_and(|variant| *variant <= 2),
            Self::Json => [&b"{\"Handshake\""[..], b"{\"Auth\"", b"{\"AuthReply\""]
                .iter()
                .any(|begin| body.starts_with(begin)),
            // A map of one entry, whose key is a short string.
            Self::MessagePack => [&b"\x81\xa9Handshake"[..], b"\x81\xa4Auth", b"\x81\xa9AuthReply"]
                .iter()
                .any(|begin| body.starts_with(begin)),
        }
    }
}

/// A message is too large in a way that only its decoding tells.
fn too_large(text: &'static str) -> Violation {
    Violation { fault: Fault::TooLarge, text }
}
