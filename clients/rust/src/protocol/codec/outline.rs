//! Which message a body has, without reading it: for one that is too large to be read and whose
//! sender has to be told so.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, VariantAccess, Visitor};

use super::super::messages::{Bulk, Message, Notification, Prepared, SimpleRequest, Streaming};
use super::super::session::SessionCommand;
use super::Encoding;

/// Names and numbers of the variants of an enum.
type Variants = &'static [(&'static str, u32)];

/// The numbers that the bincode form of the message begins with: of the variant, and of the variant
/// within it if it has one. Nothing if there is no such message.
pub fn outline(encoding: Encoding, body: &[u8]) -> Vec<u8> {
    let found = Found::default();
    let outer = Name { found: &found, variants: Message::VARIANTS };
    // All that is looked for comes first; what is wrong with the rest is of no interest.
    match encoding {
        Encoding::Bincode => return body[..body.len().min(2)].to_vec(),
        Encoding::Json => {
            let _ = outer.deserialize(&mut serde_json::Deserializer::from_slice(body));
        }
        Encoding::MessagePack => {
            let _ = outer.deserialize(&mut rmp_serde::Deserializer::from_read_ref(body));
        }
    }
    [&found.outer, &found.inner].iter().filter_map(|cell| cell.get()).collect()
}

#[derive(Default)]
struct Found {
    outer: Cell<Option<u8>>,
    inner: Cell<Option<u8>>,
}

impl Found {
    fn note(&self, variants: Variants, name: &str) {
        let number = variants.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
        let cell = if self.outer.get().is_none() { &self.outer } else { &self.inner };
        cell.set(number.and_then(|number| u8::try_from(number).ok()));
    }

    /// The enum that the message found so far consists of.
    fn within(&self) -> Option<Variants> {
        let (name, _) = Message::VARIANTS
            .iter()
            .find(|(_, number)| self.outer.get().map(u32::from) == Some(*number))?;
        Some(match *name {
            "PreparedStatement" => Prepared::VARIANTS,
            "BulkInsert" => Bulk::VARIANTS,
            "Streaming" => Streaming::VARIANTS,
            "Notification" => Notification::VARIANTS,
            "Session" => SessionCommand::VARIANTS,
            "Simple" => SimpleRequest::VARIANTS,
            _ => return None,
        })
    }
}

/// Notes the name of an enum's variant.
#[derive(Clone, Copy)]
struct Name<'a> {
    found: &'a Found,
    variants: Variants,
}

fn enough<T, E: Error>() -> Result<T, E> {
    Err(E::custom("the rest is not looked at"))
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_enum("Message", &[], self)
    }
}

impl<'de> Visitor<'de> for Name<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message")
    }

    fn visit_enum<A: EnumAccess<'de>>(self, input: A) -> Result<(), A::Error> {
        let ((), content) = input.variant_seed(Text(self))?;
        match self.found.within() {
            Some(variants) if self.found.inner.get().is_none() => {
                content.newtype_variant_seed(Name { variants, ..self })
            }
            _ => enough(),
        }
    }
}

/// Notes a name.
struct Text<'a>(Name<'a>);

impl<'de> DeserializeSeed<'de> for Text<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Text<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a variant")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<(), E> {
        self.0.found.note(self.0.variants, name);
        Ok(())
    }
}
