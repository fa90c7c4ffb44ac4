//! The PostgreSQL door: clients on port 5432 and on the Unix socket.

mod admin;
mod arrival;
pub(in crate::frontend) mod login;
mod startup;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::Authenticator;
use crate::config::Live;
use crate::error::{Error, ErrorKind};
use crate::frontend::native::{self, NativeShared};
use crate::limits::{Gate, Shares};
use crate::net::{DrainWatch, Listener, ServerTls, Stage, Stream};
use crate::proto::backend::{Severity, put_error};
use crate::session::admin::Admin;
use crate::session::{Client, End, Opener, Session};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Raised;
use crate::types::{Database, Protocol, Role};
pub(in crate::frontend) use arrival::Admission;
use startup::Outcome;
pub(in crate::frontend) use startup::{shares, too_many};

/// Time for a refused client to read why.
const LINGER: Duration = Duration::from_secs(1);

/// Clients beyond the limit that may be told so at once; further ones are just closed.
pub const REFUSALS: usize = 256;

/// What every connection of this door shares.
pub struct PgDoor {
    /// Who may come in.
    pub auth: Arc<Authenticator>,
    /// Makes sessions.
    pub opener: Opener,
    /// What the administrator's console works with.
    pub admin: Admin,
    /// `network.max_connections`.
    pub gate: Arc<Gate>,
    /// [`REFUSALS`].
    pub refusals: Arc<Gate>,
    /// `network.max_connections_per_user`.
    pub users: Arc<Shares<Role>>,
    /// `network.max_connections_per_database`.
    pub databases: Arc<Shares<Database>>,
    /// `network.max_connections_per_address`.
    pub addresses: Arc<Shares<IpAddr>>,
    /// The certificate; `None` = no TLS.
    pub tls: Option<Arc<ServerTls>>,
    /// What native connections share.
    pub native: NativeShared,
    /// Port of the HTTP door, for clients that knock here by mistake.
    pub api_port: u16,
    /// The configuration.
    pub config: Live,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The shutdown.
    pub drain: DrainWatch,
}

/// Why there will be no session.
pub(in crate::frontend) enum Refusal {
    /// The client is to be told.
    Told(Error),
    /// It left, or what it sent is not worth an answer.
    Silent,
}

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Self {
        Refusal::Silent
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Told(error)
    }
}

impl PgDoor {
    /// Accepts until the server drains.
    pub async fn serve(self: Arc<Self>, listener: Listener) {
        let mut drain = self.drain.clone();
        loop {
            let stream = tokio::select! {
                stream = listener.accept() => stream,
                () = drain.reached(Stage::Draining) => return,
            };
            stream.configure(&self.config.now().network);
            let door = self.clone();
            tokio::spawn(async move { door.client(stream).await });
        }
    }

    async fn client(&self, stream: Stream) {
        let metrics = self.metrics.protocol(Protocol::Postgres);
        let Some(admission) = self.admit() else {
            metrics.connections_total.inc();
            return self.metrics.connection_rejected("max_connections");
        };
        let open = Raised::new(&metrics.connections_active);
        let limit = self.config.now().network.connection_timeout_secs.duration();
        let greeting = startup::greet(self, stream, admission);
        // Boxed: the log-in's state is large, and an idle client should not carry it.
        let greeted = tokio::time::timeout(limit, Box::pin(greeting)).await;
        if !matches!(greeted, Ok(Outcome::Native(_))) {
            metrics.connections_total.inc();
        }
        match greeted {
            Ok(Outcome::Ready(mut session, mut client, _held)) => {
                self.attend(&mut session, &mut client).await;
            }
            Ok(Outcome::Native(newcomer)) => {
                drop(open);
                // Boxed: a client of PostgreSQL's protocol does not pay for it.
                Box::pin(native::attend(self, *newcomer)).await;
            }
            Ok(Outcome::Console(console, _admission)) => Box::pin(console.run()).await,
            Ok(Outcome::Done) => {}
            Err(_) => self.metrics.connection_rejected("connection_timeout"),
        }
    }

    /// Over the limit a client is told so, and a cancel request still gets through.
    fn admit(&self) -> Option<Admission> {
        let permit = self.gate.enter();
        let refusal = if permit.is_none() { Some(self.refusals.enter()?) } else { None };
        let over = permit.is_none().then(|| {
            let most = self.gate.most();
            let text =
                format!("sorry, too many clients already: network.max_connections is {most}");
            ("max_connections", text)
        });
        Some(Admission { permit, refusal, address: None, over })
    }

    async fn attend(&self, session: &mut Session, client: &mut Client) {
        match session.relay(client).await {
            End::Closed => {}
            End::Broken(error) => log(session, &error),
            End::Told(error) => {
                log(session, &error);
                tell(&mut client.stream, &error).await;
            }
        }
    }
}

fn log(session: &Session, error: &Error) {
    let entry = session.entry();
    let (id, role, database) = (entry.id, &entry.role, &entry.database);
    let cause = error.cause().map(tracing::field::display);
    match error.kind() {
        ErrorKind::InternalError => {
            tracing::error!(session = %id, %role, %database, cause, "{error}");
        }
        _ => tracing::info!(session = %id, %role, %database, cause, "{error}"),
    }
}

/// Sends the last word before the connection is closed.
async fn tell(stream: &mut Stream, error: &Error) {
    let mut bytes = Vec::new();
    put_error(&mut bytes, Severity::Fatal, error);
    part(stream, &bytes).await;
}

/// Writes and closes without a reset: unread input would make the kernel throw away the answer.
pub(in crate::frontend) async fn part(stream: &mut Stream, bytes: &[u8]) {
    let linger = async {
        stream.write_all(bytes).await?;
        stream.shutdown().await?;
        let mut rest = Vec::with_capacity(4 << 10);
        for _ in 0..64 {
            if stream.read_into(&mut rest).await? == 0 {
                break;
            }
            rest.clear();
        }
        io::Result::Ok(())
    };
    // A client that does not read is not waited for.
    let _ = tokio::time::timeout(LINGER, linger).await;
}
