//! The native protocol's door: it translates between frames and PostgreSQL's messages, in front of
//! the relay that serves PostgreSQL's own clients. Pooling, settings, statements, pins and cancel
//! are therefore the same for both.
//!
//! A connection is one task with three parts that share a `core`: the `driver` has the socket,
//! the `translate` has one request at a time, the relay has PostgreSQL. Bytes go through a
//! `pipe` of 64 KiB, so a client that does not read stops its backend's socket from being read.

mod core;
mod driver;
mod errors;
mod extensions;
mod flow;
mod greeting;
mod handshake;
mod intake;
mod outbox;
mod pipe;
mod queue;
mod trace;
mod transcode;
mod translate;
mod types;

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use self::core::Core;
use crate::error::{Error, ErrorKind};
use crate::frontend::pgwire::{Admission, PgDoor, part, shares, too_many};
use crate::limits::Share;
use crate::net::{Ends, ReadAhead, Stage, Stream, TlsFacts};
use crate::proto::native::frame::flags;
use crate::proto::native::{Agreed, AuthStart, ErrorBody, Message, Purity, Severity, capabilities};
use crate::session::{CLASS, Client, End, Opening, PURITY, Session, TAG};
use crate::telemetry::metrics::Raised;
use crate::types::{Database, Protocol, Role};
use driver::{Driver, Over, Parts};
use greeting::{Greeting, Proven, Unwelcome, database_of, sealed};
use intake::Intake;
use outbox::{COALESCE, Outbox};
use translate::{Extensions, Translator};
use types::DatabaseTypes;

pub use driver::Inflight;
pub use extensions::{
    Caller, Extension, ExtensionBody, ExtensionHandler, ExtensionRegistry, ExtensionReply,
    ExtensionState, MOST_EXTENSIONS,
};
pub use types::TypeStore;

/// Time for a client that said goodbye to get the rest of its replies.
const GRACE: Duration = Duration::from_secs(5);

/// What all native connections share.
#[derive(Default)]
pub struct NativeShared {
    /// Types of the databases.
    pub types: Arc<TypeStore>,
    /// Bytes that connections hold.
    pub inflight: Arc<Inflight>,
    /// What can be agreed on beside the capabilities.
    pub extensions: Arc<ExtensionRegistry>,
    connections: AtomicU64,
    transactions: Arc<AtomicU64>,
}

/// A client whose preface has been read.
pub(in crate::frontend) struct Newcomer {
    pub(in crate::frontend) stream: Stream,
    /// What it sent after the preface.
    pub(in crate::frontend) ahead: ReadAhead,
    pub(in crate::frontend) admission: Admission,
    pub(in crate::frontend) address: Option<SocketAddr>,
    pub(in crate::frontend) tls: Option<TlsFacts>,
    /// The format of its preface.
    pub(in crate::frontend) format: u8,
}

impl Newcomer {
    /// What is needed until its end, and what was read and not looked at.
    fn into_parts(self: Box<Self>) -> (Stream, Vec<u8>, Admission) {
        let Self { stream, ahead, admission, .. } = *self;
        (stream, ahead.rest().to_vec(), admission)
    }
}

/// Places that are counted for a role and for a database.
type Places = (Share<Role>, Share<Database>);

/// A client that is ready.
struct Ready {
    session: Session,
    proven: Option<Box<Proven>>,
    capabilities: u32,
    extensions: Vec<String>,
    windows: (u32, u32),
    sent: u32,
    agreed: Agreed,
    _shares: Places,
}

/// Serves a client from its preface to its end.
pub(in crate::frontend) async fn attend(door: &PgDoor, mut newcomer: Box<Newcomer>) {
    let metrics = door.metrics.protocol(Protocol::Native);
    metrics.connections_total.inc();
    let _open = Raised::new(&metrics.connections_active);
    // Boxed: its state is large, and an idle client should not carry it.
    let mut agreed = Agreed::default();
    let greeting = Box::pin(greet(door, &mut newcomer, &mut agreed));
    match greeting.await {
        Ok(ready) => {
            let (stream, ahead, admission) = newcomer.into_parts();
            serve(door, stream, ahead, ready).await;
            drop(admission);
        }
        Err(Unwelcome::Told(id, error)) => {
            door.metrics.native.error(&error.code.to_ascii_lowercase());
            tracing::info!(sqlstate = error.sqlstate, "{}", error.message);
            say_goodbye(&mut newcomer.stream, &agreed, id, error).await;
        }
        Err(Unwelcome::Gone) => {}
    }
    door.metrics.native.state("closed");
}

async fn greet(
    door: &PgDoor,
    newcomer: &mut Newcomer,
    known: &mut Agreed,
) -> Result<Box<Ready>, Unwelcome> {
    let told =
        |error: Error| Unwelcome::Told(0, Box::new(errors::of_error(&error, Severity::Fatal)));
    door.metrics.native.state("connected");
    if newcomer.format != 1 {
        let text = format!("preface format {} is not supported", newcomer.format);
        return Err(Unwelcome::Told(0, errors::fatal("0A000", "VERSION_NOT_SUPPORTED", text)));
    }
    if let Some((limit, text)) = newcomer.admission.over.take() {
        return Err(told(too_many(door, limit, text)));
    }
    let config = door.config.now();
    let address = newcomer.address.map(|address| address.ip().to_canonical());
    if config.security.require_tls
        && newcomer.tls.is_none()
        && address.is_some_and(|address| !address.is_loopback())
    {
        let text = "this server wants its clients to use TLS";
        return Err(Unwelcome::Told(0, errors::fatal("28000", "TLS_REQUIRED", text)));
    }
    let mut greeting = Greeting {
        door,
        stream: &mut newcomer.stream,
        ahead: &mut newcomer.ahead,
        tls: newcomer.tls.as_ref(),
        address,
        agreed: Default::default(),
        sent: 0,
    };
    let connection = door.native.connections.fetch_add(1, Ordering::Relaxed) + 1;
    let limit = config.native.handshake_timeout_secs.duration();
    let handshake = greeting.handshake(&config, connection);
    let Ok(agreed) = tokio::time::timeout(limit, handshake).await else {
        door.metrics.connection_rejected("handshake_timeout");
        return Err(Unwelcome::Told(0, errors::fatal("08P01", "TIMEOUT", "handshake timeout")));
    };
    let (hello, windows) = agreed?;
    *known = greeting.agreed;
    door.metrics.native.state("authenticating");
    let limit = config.native.auth_timeout_secs.duration();
    let Ok(proven) = tokio::time::timeout(limit, greeting.log_in()).await else {
        door.metrics.connection_rejected("auth_timeout");
        let text = "authentication timeout";
        return Err(Unwelcome::Told(0, errors::fatal("08P01", "TIMEOUT", text)));
    };
    let proven = proven?;
    door.metrics.native.state("authenticated");
    let (agreed, sent) = (greeting.agreed, greeting.sent);
    let peer = newcomer.address.map_or_else(|| newcomer.stream.peer(), |a| a.to_string());
    let (session, shares) = open(door, peer, &proven).map_err(|error| {
        Unwelcome::Told(proven.id, Box::new(errors::of_error(&error, Severity::Fatal)))
    })?;
    session.entry().set_ends(Ends::of(&newcomer.stream));
    Ok(Box::new(Ready {
        session,
        proven: Some(Box::new(proven)),
        capabilities: hello.capabilities,
        extensions: hello.extensions.into_iter().map(|agreed| agreed.name).collect(),
        windows,
        sent,
        agreed,
        _shares: shares,
    }))
}

fn open(door: &PgDoor, peer: String, proven: &Proven) -> Result<(Session, Places), Error> {
    let start = &proven.start;
    let database: Database = database_of(start).into();
    let shares = shares(door, &proven.identity.role, &database)?;
    let mut options: Vec<(String, String)> = Vec::new();
    let own = [("application_name", start.application_name.as_str()), ("client_encoding", "UTF8")];
    options.extend(session_wish(start));
    let given = start.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in own.into_iter().chain(given) {
        let is_encoding = name.eq_ignore_ascii_case("client_encoding") && value != "UTF8";
        let is_nothing = name == "application_name" && value.is_empty();
        if !is_encoding && !is_nothing {
            options.retain(|(known, _)| known != name);
            options.push((name.to_owned(), value.to_owned()));
        }
    }
    let identity = proven.identity.clone();
    let session =
        door.opener.open(Opening { identity, database, options, protocol: Protocol::Native, peer });
    // After the session is registered, so that a drain finds one or the other.
    if door.drain.stage() >= Stage::Draining {
        let text = "the database system is shutting down";
        return Err(Error::new(ErrorKind::ServiceUnavailable, text));
    }
    tracing::debug!(
        role = %proven.identity.role,
        database = database_of(start),
        method = proven.method,
        "logged in"
    );
    Ok((session, shares))
}

/// What the client says of pooled sessions, as settings.
fn session_wish(start: &AuthStart) -> Vec<(String, String)> {
    let purity = start.purity.map(|purity| purity_word(purity).to_owned());
    let asked =
        [(CLASS, start.connection_class.clone()), (PURITY, purity), (TAG, start.tag.clone())];
    asked.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// As the setting has it.
fn purity_word(purity: Purity) -> &'static str {
    match purity {
        Purity::New => "new",
        Purity::Own => "self",
        Purity::Any => "any",
    }
}

/// How a connection ended.
enum Ended {
    /// The client is gone, or has said goodbye.
    Quietly,
    /// The client is to be told why.
    Told(u64, Box<ErrorBody>),
}

async fn serve(door: &PgDoor, stream: Stream, ahead: Vec<u8>, mut ready: Box<Ready>) {
    // The session stays where it is: moved out, it would leave its place behind.
    let Ready { session, proven, capabilities, windows, sent, agreed, extensions, .. } =
        &mut *ready;
    let extensions =
        Extensions { agreed: std::mem::take(extensions), registry: door.native.extensions.clone() };
    let (capabilities, agreed) = (*capabilities, *agreed);
    let Some(proven) = proven.take() else { return };
    let config = door.config.now();
    let metrics = door.metrics.clone();
    let size = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
    let own_window = size(config.native.connection_window.0);
    let stream_window = size(config.native.stream_window.0);
    drop(config);
    let out = Outbox::new(agreed, windows.1.saturating_sub(*sent), windows.0, metrics.clone());
    let notifies = capabilities & capabilities::NOTIFICATIONS != 0;
    let core = Core::new(out, own_window, notifies, metrics.clone());
    let entry = session.entry_handle();
    let types =
        DatabaseTypes { store: door.native.types.clone(), database: entry.database.clone() };
    let mut translator = Translator::new(
        core.clone(),
        door.config.clone(),
        types,
        door.native.transactions.clone(),
        (capabilities, extensions),
        &entry,
    );
    let mut driver = Driver::new(Parts {
        stream,
        ahead,
        agreed,
        intake: Intake::new(door.config.clone(), capabilities, stream_window),
        entry,
        config: door.config.clone(),
        drain: door.drain.clone(),
        inflight: door.native.inflight.clone(),
        gauge: metrics.native.inflight_bytes.clone(),
    });
    let mut client =
        Box::new(Client::new(Stream::Custom(Box::new(pipe::RelayEnd(core.clone()))), &[]));
    let ended = {
        let requests = pin!(translator.serve(proven));
        // The messages for PostgreSQL's clients are not wanted.
        match Box::pin(session.greet(&mut Vec::new())).await {
            Ok(()) => {
                core.lock().parameters = Some(session.parameters());
                let relay = pin!(session.relay(&mut client));
                run(&core, &mut driver, requests, relay).await
            }
            Err(error) => Ended::Told(0, Box::new(errors::of_error(&error, Severity::Fatal))),
        }
    };
    drop(ready);
    drop(translator);
    Box::pin(finish(&core, driver, ended)).await;
}

/// Polls the three parts until one of them ends.
async fn run(
    core: &Core,
    driver: &mut Driver,
    mut requests: std::pin::Pin<&mut impl Future<Output = Result<(), (u64, Box<ErrorBody>)>>>,
    mut relay: std::pin::Pin<&mut impl Future<Output = End>>,
) -> Ended {
    let mut end = None;
    poll_fn(|cx| {
        let mut knows_rest = false;
        // Whatever has woken the task, each part looks; after that only those that are called.
        let (mut calls_driver, mut calls_relay) = (true, true);
        loop {
            if calls_driver && let Poll::Ready(over) = driver.poll(core, cx) {
                return Poll::Ready(match over {
                    Over::Gone => Ended::Quietly,
                    Over::Broken(id, error) => Ended::Told(id, error),
                    Over::Silent(reason) => {
                        tracing::info!(reason, "a native client is given up");
                        core.metrics.connection_rejected(reason);
                        Ended::Quietly
                    }
                });
            }
            if let Poll::Ready(done) = requests.as_mut().poll(cx) {
                return Poll::Ready(match done {
                    Ok(()) => Ended::Quietly,
                    Err((id, error)) => Ended::Told(id, error),
                });
            }
            // What those two did is seen by the relay, and what is for the driver is called so.
            {
                let mut state = core.lock();
                calls_relay |= state.pipe.calls_relay();
                state.progress = false;
            }
            if calls_relay
                && end.is_none()
                && let Poll::Ready(relay_end) = relay.as_mut().poll(cx)
            {
                end = Some(relay_end);
                let mut state = core.lock();
                (state.has_lost_relay, state.progress) = (true, true);
            }
            let (progress, waiting) = {
                let mut state = core.lock();
                calls_driver = std::mem::take(&mut state.calls_driver);
                let progress = std::mem::take(&mut state.progress) | calls_driver;
                (progress, state.out.ready.rest().len())
            };
            calls_relay = false;
            // Small frames go out together, when there is nothing more to put to them.
            if !progress || waiting >= COALESCE {
                match driver.flush(core, cx) {
                    // Who waited for room may go on.
                    Ok(true) if waiting >= COALESCE => {
                        calls_driver = true;
                        continue;
                    }
                    // The driver has to see that the client does not take what is left.
                    Ok(_) if !knows_rest && core.lock().stalled_since().is_some() => {
                        (knows_rest, calls_driver) = (true, true);
                        continue;
                    }
                    Ok(_) => {}
                    Err(_) => return Poll::Ready(Ended::Quietly),
                }
            }
            if !progress && let Some(end) = end.take() {
                return Poll::Ready(after_relay(core, end));
            }
            if !progress {
                driver.rest(core);
                return Poll::Pending;
            }
        }
    })
    .await
}

/// The relay has ended: with PostgreSQL's own last words, which are still to be passed on, or with
/// ours.
fn after_relay(core: &Core, end: End) -> Ended {
    let id = core.lock().current.as_ref().map_or(0, |current| current.id);
    match end {
        End::Closed => {
            let text = "the connection to PostgreSQL was closed";
            let last_words = core.lock().take_last_words();
            let ours = || errors::fatal("08006", "CONNECTION_FAILURE", text);
            Ended::Told(id, last_words.unwrap_or_else(ours))
        }
        End::Told(error) | End::Broken(error) => {
            if error.kind() == ErrorKind::InternalError {
                let cause = error.cause().map(tracing::field::display);
                tracing::error!(cause, "{error}");
            }
            Ended::Told(id, Box::new(errors::of_error(&error, Severity::Fatal)))
        }
    }
}

/// Sends what is left, and closes.
async fn finish(core: &Core, mut driver: Driver, ended: Ended) {
    core.metrics.native.state("closing");
    if let Ended::Told(id, mut error) = ended {
        if error.severity == Severity::Error {
            error.severity = Severity::Fatal;
        }
        core.metrics.native.error(&error.code.to_ascii_lowercase());
        tracing::info!(sqlstate = error.sqlstate, "{}", error.message);
        let mut state = core.lock();
        let agreed = *state.out.agreed();
        let (bytes, _) = sealed(flags::RESPONSE, id, &Message::Error(error), &agreed);
        state.out.ready.tail().extend_from_slice(&bytes);
    }
    let rest = core.lock().out.ready.rest().to_vec();
    let _ = tokio::time::timeout(GRACE, part(&mut driver.stream, &rest)).await;
}

/// Tells a client that does not get a session why, and closes.
async fn say_goodbye(stream: &mut Stream, agreed: &Agreed, id: u64, error: Box<ErrorBody>) {
    let (bytes, _) = sealed(flags::RESPONSE, id, &Message::Error(error), agreed);
    part(stream, &bytes).await;
}
