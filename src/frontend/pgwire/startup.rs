//! From the start-up packet to ReadyForQuery: version, limits, log-in, greeting.
//! (<https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>)

use super::admin::Console;
use super::arrival::{Admission, Arrival, Arrived};
use super::login::Login;
use super::{PgDoor, Refusal, tell};
use crate::auth::Identity;
use crate::auth::hba::Knock;
use crate::error::{Error, ErrorKind};
use crate::frontend::native::Newcomer;
use crate::limits::Share;
use crate::net::{Ends, Stage, Stream};
use crate::proto::backend as replies;
use crate::proto::startup::{NEWEST_MINOR, StartupMessage};
use crate::session::admin;
use crate::session::{Client, Opening, Session};
use crate::types::{Database, Protocol, Role};

/// Room for what a client is told at its log-in.
const GREETING: usize = 1024;

/// What a client holds for as long as it is connected.
pub(super) struct Held {
    _admission: Admission,
    _user: Share<Role>,
    _database: Share<Database>,
}

/// How a greeting ended.
pub(super) enum Outcome {
    /// A session is open.
    Ready(Box<Session>, Box<Client>, Box<Held>),
    /// The client speaks the native protocol.
    Native(Box<Newcomer>),
    /// An administrator's console is open.
    Console(Box<Console>, Box<Admission>),
    /// Nothing more is to be done: a cancel request, a refusal, a client that left.
    Done,
}

/// Shares of the limits that apply once it is known who the client is.
pub(in crate::frontend) type Shares = (Share<Role>, Share<Database>);

pub(super) async fn greet(door: &PgDoor, stream: Stream, admission: Admission) -> Outcome {
    let (mut arrival, refusal) = match Arrival::new(door, stream, admission).run().await {
        Arrived::Start(mut arrival, message) if is_for_console(&message) => {
            match start_console(&mut arrival, &message).await {
                Ok((place, authority)) => {
                    let Arrival { door, stream, ahead, admission, .. } = arrival;
                    let console = Console::new(stream, ahead, door.admin.clone(), place, authority);
                    return Outcome::Console(Box::new(console), Box::new(admission));
                }
                Err(Refusal::Silent) => return Outcome::Done,
                Err(Refusal::Told(error)) => (arrival, error),
            }
        }
        Arrived::Start(mut arrival, message) => match start(&mut arrival, &message).await {
            Ok((session, (user, database))) => {
                let client = Client::new(arrival.stream, arrival.ahead.rest());
                let held = Held { _admission: arrival.admission, _user: user, _database: database };
                return Outcome::Ready(Box::new(session), Box::new(client), Box::new(held));
            }
            Err(Refusal::Silent) => return Outcome::Done,
            Err(Refusal::Told(error)) => (arrival, error),
        },
        Arrived::Native(arrival, format) => {
            let Arrival { stream, ahead, admission, address, tls, .. } = arrival;
            let newcomer = Newcomer { stream, ahead, admission, address, tls, format };
            return Outcome::Native(Box::new(newcomer));
        }
        Arrived::Refused(arrival, error) => (arrival, error),
        Arrived::Done => return Outcome::Done,
    };
    if let Some(cause) = refusal.cause() {
        tracing::warn!(%cause, "{refusal}");
    }
    tell(&mut arrival.stream, &refusal).await;
    Outcome::Done
}

async fn start(
    arrival: &mut Arrival<'_>,
    message: &StartupMessage,
) -> Result<(Session, Shares), Refusal> {
    let door = arrival.door;
    if let Some((limit, text)) = arrival.admission.over.take() {
        return Err(too_many(door, limit, text).into());
    }
    let name = user_of(message)?;
    let database = message.get("database").filter(|d| !d.is_empty()).unwrap_or(name);
    negotiate(arrival, message).await?;
    let mut reply = Vec::with_capacity(GREETING);
    let peer = arrival.peer();
    let identity = log_in(arrival, message, name, database, &mut reply).await?;
    let shares = shares(door, &identity.role, &database.into())?;
    let mut session = open(door, peer, identity, database, message);
    session.entry().set_ends(Ends::of(&arrival.stream));
    // After the session is registered, so that a drain finds one or the other.
    if door.drain.stage() >= Stage::Draining {
        return Err(crate::session::Stop::Drain.error().into());
    }
    replies::put_authentication_ok(&mut reply);
    session.greet(&mut reply).await?;
    // Longer keys are what protocol 3.2 is about.
    let (pid, key) = session.cancel_key(message.minor >= 2);
    replies::put_backend_key(&mut reply, pid, &key);
    replies::put_ready(&mut reply);
    arrival.stream.write_all(&reply).await?;
    Ok((session, shares))
}

fn is_for_console(message: &StartupMessage) -> bool {
    message.get("database") == Some(admin::DATABASE)
}

fn user_of(message: &StartupMessage) -> Result<&str, Error> {
    let name = message.get("user").filter(|user| !user.is_empty());
    name.ok_or_else(|| Error::sql(b"28000", "no PostgreSQL user name specified in startup packet"))
}

async fn negotiate(arrival: &mut Arrival<'_>, message: &StartupMessage) -> Result<(), Refusal> {
    if message.minor > NEWEST_MINOR || !message.protocol_options.is_empty() {
        let mut reply = Vec::new();
        let minor = message.minor.min(NEWEST_MINOR);
        replies::put_negotiate(&mut reply, minor.into(), &message.protocol_options);
        arrival.stream.write_all(&reply).await?;
    }
    Ok(())
}

/// Opens a console. Who looks after the server comes in when it is full.
async fn start_console(
    arrival: &mut Arrival<'_>,
    message: &StartupMessage,
) -> Result<(admin::Console, admin::Authority), Refusal> {
    let door = arrival.door;
    let name = user_of(message)?;
    negotiate(arrival, message).await?;
    let mut reply = Vec::new();
    let peer = arrival.peer();
    let identity = log_in(arrival, message, name, admin::DATABASE, &mut reply).await?;
    let authority = door.admin.authority(&identity)?;
    let application = message.get("application_name").unwrap_or_default();
    let place = door.admin.open(identity.role.clone(), application.to_owned(), peer);
    place.entry().set_ends(Ends::of(&arrival.stream));
    replies::put_authentication_ok(&mut reply);
    for (name, value) in [
        ("application_name", application),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("integer_datetimes", "on"),
        ("IntervalStyle", "postgres"),
        ("server_encoding", "UTF8"),
        ("server_version", &door.admin.server_version()),
        ("session_authorization", identity.role.as_str()),
        ("standard_conforming_strings", "on"),
        ("TimeZone", "UTC"),
    ] {
        replies::put_parameter_status(&mut reply, name, value);
    }
    let (pid, key) = place.cancel_key(message.minor >= 2);
    replies::put_backend_key(&mut reply, pid, &key);
    replies::put_ready(&mut reply);
    arrival.stream.write_all(&reply).await?;
    Ok((place, authority))
}

pub(in crate::frontend) fn too_many(door: &PgDoor, limit: &str, text: String) -> Error {
    door.metrics.connection_rejected(limit);
    tracing::info!(limit, reason = text, "connection refused");
    Error::new(ErrorKind::TooManyConnections, text)
}

/// Counts the client for its role and its database.
pub(in crate::frontend) fn shares(
    door: &PgDoor,
    role: &Role,
    database: &Database,
) -> Result<Shares, Error> {
    let over = |what: String, limit: &str, most: usize| {
        let text = format!("too many connections for {what}: network.{limit} is {most}");
        too_many(door, limit, text)
    };
    let user = door
        .users
        .enter(role)
        .map_err(|most| over(format!("role \"{role}\""), "max_connections_per_user", most))?;
    let database = door.databases.enter(database).map_err(|most| {
        over(format!("database \"{database}\""), "max_connections_per_database", most)
    })?;
    Ok((user, database))
}

async fn log_in(
    arrival: &mut Arrival<'_>,
    message: &StartupMessage,
    role: &str,
    database: &str,
    reply: &mut Vec<u8>,
) -> Result<Identity, Refusal> {
    let tls = arrival.tls.as_ref();
    let knock = Knock {
        role,
        database,
        is_replication: message.is_physical_replication(),
        address: arrival.address.map(|address| address.ip()),
        has_tls: tls.is_some(),
    };
    let version = tls.map(|facts| facts.version);
    let address = arrival.address.map(tracing::field::display);
    let Arrival { stream, ahead, .. } = arrival;
    let mut login = Login { door: arrival.door, stream, ahead, tls, knock };
    let (identity, method) = login.prove(reply).await?;
    tracing::debug!(role, database, address, tls = version, method, "logged in");
    Ok(identity)
}

fn open(
    door: &PgDoor,
    peer: String,
    identity: Identity,
    database: &str,
    message: &StartupMessage,
) -> Session {
    let own = |name: &str| name == "user" || name == "database";
    let options = message.parameters.iter().filter(|(name, _)| !own(name)).cloned().collect();
    let opening = Opening {
        identity,
        database: database.into(),
        options,
        protocol: Protocol::Postgres,
        peer,
    };
    door.opener.open(opening)
}
