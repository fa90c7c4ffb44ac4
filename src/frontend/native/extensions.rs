//! Extensions of the protocol: what a connection can agree on beside the capabilities. Each has a
//! name and a version, is on or off, and either stands for a form of all messages or has messages
//! of its own, which its handler answers.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::config::NativeExtension;
use crate::error::{Error, ErrorKind, SqlState};
use crate::proto::native::{Encoding, ExtensionOffer};
use crate::types::{Database, Role};

/// Extensions that can be registered.
pub const MOST_EXTENSIONS: usize = 64;

/// Longest name of an extension, in bytes.
const LONGEST_NAME: usize = 64;

/// Who sends a message to an extension.
#[derive(Debug)]
pub struct Caller {
    /// Number of the session.
    pub session: u64,
    /// The role that it runs as.
    pub role: Role,
    /// Its database.
    pub database: Database,
}

/// The reply of an extension: the payload, or why there is none.
pub type ExtensionReply<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, Error>> + Send + 'a>>;

/// Answers the messages of an extension.
pub trait ExtensionHandler: Send + Sync {
    /// Answers one message. It is dropped when the request is cancelled or the client has gone.
    fn answer<'a>(&'a self, caller: &'a Caller, payload: Vec<u8>) -> ExtensionReply<'a>;
}

/// What an extension is for.
#[derive(Clone)]
pub enum ExtensionBody {
    /// Bodies of frames are written in this form.
    Codec(Encoding),
    /// It has messages of its own.
    Messages(Arc<dyn ExtensionHandler>),
}

/// An extension as it is registered.
#[derive(Clone)]
pub struct Extension {
    /// Its version; a client that offers a lower one does not get it.
    pub version: u16,
    /// What it is for.
    pub body: ExtensionBody,
}

/// An extension as lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtensionState {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u16,
    /// Whether a new connection can agree on it, and its messages are answered.
    pub is_on: bool,
    /// Whether it is a form of all messages.
    pub is_codec: bool,
}

struct Registered {
    extension: Extension,
    /// What was said at run time; nothing = as the configuration says.
    switch: Option<bool>,
}

/// The extensions that there are.
pub struct ExtensionRegistry(RwLock<BTreeMap<String, Registered>>);

impl Default for ExtensionRegistry {
    /// Those that are built in.
    fn default() -> Self {
        let built_in = Encoding::OPTIONAL
            .map(|encoding| (encoding.name(), ExtensionBody::Codec(encoding)))
            .into_iter()
            .chain([(ECHO, ExtensionBody::Messages(Arc::new(Echo)))]);
        let registered =
            |body| Registered { extension: Extension { version: 1, body }, switch: None };
        let all = built_in.map(|(name, body)| (name.to_owned(), registered(body)));
        Self(RwLock::new(all.collect()))
    }
}

fn unknown(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no extension \"{name}\""))
}

fn is_on(name: &str, registered: &Registered, configured: &[NativeExtension]) -> bool {
    let is_configured = || configured.iter().any(|extension| extension.word() == name);
    registered.switch.unwrap_or_else(is_configured)
}

impl ExtensionRegistry {
    /// Registers an extension, which is on from then on.
    ///
    /// # Errors
    /// [`ErrorKind::ValidationError`] for a name that is empty or too long,
    /// [`ErrorKind::Conflict`] if the name is taken, [`ErrorKind::LimitReached`] if there are
    /// [`MOST_EXTENSIONS`].
    pub fn register(&self, name: &str, extension: Extension) -> Result<(), Error> {
        if name.is_empty() || name.len() > LONGEST_NAME {
            let text = format!("the name of an extension has 1 to {LONGEST_NAME} bytes");
            return Err(Error::new(ErrorKind::ValidationError, text));
        }
        let mut all = self.0.write();
        if all.contains_key(name) {
            let text = format!("the extension \"{name}\" is registered already");
            let state = SqlState::new(b"42710");
            return Err(Error::new(ErrorKind::Conflict, text).with_sqlstate(state));
        }
        if all.len() >= MOST_EXTENSIONS {
            let text = format!("there are {MOST_EXTENSIONS} extensions already");
            return Err(Error::new(ErrorKind::LimitReached, text));
        }
        all.insert(name.to_owned(), Registered { extension, switch: Some(true) });
        Ok(())
    }

    /// Forgets an extension. Connections that have agreed on it get an error for its messages; a
    /// form of messages stays in use where it is.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub fn unregister(&self, name: &str) -> Result<(), Error> {
        self.0.write().remove(name).map(drop).ok_or_else(|| unknown(name))
    }

    /// Switches an extension on or off, whatever the configuration says.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub fn switch(&self, name: &str, on: bool) -> Result<(), Error> {
        let mut all = self.0.write();
        all.get_mut(name).ok_or_else(|| unknown(name))?.switch = Some(on);
        Ok(())
    }

    /// All of them in the order of their names; `configured` = those that the configuration
    /// switches on.
    pub fn list(&self, configured: &[NativeExtension]) -> Vec<ExtensionState> {
        let state = |(name, registered): (&String, &Registered)| ExtensionState {
            name: name.clone(),
            version: registered.extension.version,
            is_on: is_on(name, registered, configured),
            is_codec: matches!(registered.extension.body, ExtensionBody::Codec(_)),
        };
        self.0.read().iter().map(state).collect()
    }

    /// What of a client's offers is agreed on, and the form of messages with it: the first one that
    /// is on.
    pub(super) fn agree(
        &self,
        offers: &[ExtensionOffer],
        configured: &[NativeExtension],
    ) -> (Vec<ExtensionOffer>, Encoding) {
        let (mut agreed, mut form) = (Vec::<ExtensionOffer>::new(), None);
        let all = self.0.read();
        for offer in offers {
            let Some(registered) = all.get(&offer.name) else { continue };
            let Extension { version, body } = &registered.extension;
            let is_twice = agreed.iter().any(|other| other.name == offer.name);
            if is_twice || offer.version < *version || !is_on(&offer.name, registered, configured) {
                continue;
            }
            match body {
                ExtensionBody::Codec(_) if form.is_some() => continue,
                ExtensionBody::Codec(encoding) => form = Some(*encoding),
                ExtensionBody::Messages(_) => {}
            }
            agreed.push(ExtensionOffer { name: offer.name.clone(), version: *version });
        }
        (agreed, form.unwrap_or_default())
    }

    /// Who answers the messages of an extension.
    ///
    /// # Errors
    /// [`ErrorKind::NotSupported`] if nobody does any more, or it has no messages.
    pub(super) fn handler(
        &self,
        name: &str,
        configured: &[NativeExtension],
    ) -> Result<Arc<dyn ExtensionHandler>, Error> {
        let all = self.0.read();
        let on = all.get(name).filter(|registered| is_on(name, registered, configured));
        match on.map(|registered| &registered.extension.body) {
            Some(ExtensionBody::Messages(handler)) => Ok(handler.clone()),
            Some(ExtensionBody::Codec(_)) => {
                let text = format!("the extension \"{name}\" has no messages");
                Err(Error::new(ErrorKind::NotSupported, text))
            }
            None => {
                let text = format!("the extension \"{name}\" is not available any more");
                Err(Error::new(ErrorKind::NotSupported, text))
            }
        }
    }
}

/// Name of the extension that gives back what it gets.
const ECHO: &str = "rustydb.echo";

/// Gives back what it gets: for the tests of a client, and to measure the way through the queue.
struct Echo;

impl ExtensionHandler for Echo {
    fn answer<'a>(&'a self, _: &'a Caller, payload: Vec<u8>) -> ExtensionReply<'a> {
        Box::pin(std::future::ready(Ok(payload)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(names: &[(&str, u16)]) -> Vec<ExtensionOffer> {
        let offer = |(name, version): &(&str, u16)| {
            let (name, version) = ((*name).to_owned(), *version);
            ExtensionOffer { name, version }
        };
        names.iter().map(offer).collect()
    }

    fn echo() -> Extension {
        Extension { version: 1, body: ExtensionBody::Messages(Arc::new(Echo)) }
    }

    const ALL: [NativeExtension; 3] =
        [NativeExtension::Json, NativeExtension::MessagePack, NativeExtension::Echo];

    #[test]
    fn what_is_agreed_on() {
        let registry = ExtensionRegistry::default();
        let of = |names: &[(&str, u16)], configured: &[NativeExtension]| {
            let (agreed, form) = registry.agree(&offers(names), configured);
            (agreed.into_iter().map(|offer| offer.name).collect::<Vec<_>>(), form)
        };
        let both = [("codec.msgpack", 1), ("nobody's", 1), ("codec.json", 7), (ECHO, 1), (ECHO, 1)];
        // Nothing is on unless somebody says so; the client's order decides.
        assert_eq!(of(&both, &[]), (vec![], Encoding::Bincode));
        let agreed = vec!["codec.msgpack".to_owned(), ECHO.to_owned()];
        assert_eq!(of(&both, &ALL), (agreed, Encoding::MessagePack));
        let only_json = (vec!["codec.json".to_owned()], Encoding::Json);
        assert_eq!(of(&both, &[NativeExtension::Json]), only_json);
        assert_eq!(of(&[("codec.json", 0)], &ALL), (vec![], Encoding::Bincode));
        registry.switch("codec.json", true).unwrap();
        assert_eq!(of(&both, &[]), only_json);
        registry.switch("codec.json", false).unwrap();
        assert_eq!(of(&[("codec.json", 1)], &ALL), (vec![], Encoding::Bincode));
    }

    #[test]
    fn so_many_and_each_once() {
        let registry = ExtensionRegistry::default();
        let built_in = registry.list(&[]);
        assert_eq!(built_in.len(), 3);
        assert!(built_in.iter().all(|state| !state.is_on && state.version == 1));
        for n in built_in.len()..MOST_EXTENSIONS {
            registry.register(&format!("x{n}"), echo()).unwrap();
        }
        let code = |result: Result<(), Error>| result.unwrap_err().kind();
        assert_eq!(code(registry.register("one more", echo())), ErrorKind::LimitReached);
        assert_eq!(code(registry.register("x9", echo())), ErrorKind::Conflict);
        for name in ["", &"x".repeat(65)] {
            assert_eq!(code(registry.register(name, echo())), ErrorKind::ValidationError);
        }
        registry.unregister("x9").unwrap();
        assert_eq!(code(registry.unregister("x9")), ErrorKind::NotFound);
        assert_eq!(code(registry.switch("x9", true)), ErrorKind::NotFound);
        registry.register("x9", echo()).unwrap();
        let x9 = registry.list(&[]).into_iter().find(|state| state.name == "x9").unwrap();
        assert!(x9.is_on && !x9.is_codec);
    }

    #[test]
    fn who_answers() {
        let registry = ExtensionRegistry::default();
        assert!(registry.handler(ECHO, &ALL).is_ok());
        let refused = |name: &str, configured: &[NativeExtension]| {
            registry.handler(name, configured).err().map(|error| error.kind())
        };
        for (name, configured) in [(ECHO, &[][..]), ("x", &ALL), ("codec.json", &ALL)] {
            assert_eq!(refused(name, configured), Some(ErrorKind::NotSupported), "{name}");
        }
        registry.unregister(ECHO).unwrap();
        assert_eq!(refused(ECHO, &ALL), Some(ErrorKind::NotSupported));
    }
}
