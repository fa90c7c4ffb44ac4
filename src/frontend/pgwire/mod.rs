//! The PostgreSQL door: clients on port 5432 and on the Unix socket.

mod admin;
mod startup;

use std::sync::Arc;
use std::time::Duration;

use crate::auth::Authenticator;
use crate::config::Live;
use crate::error::{Error, ErrorKind};
use crate::limits::Gate;
use crate::net::{DrainWatch, Listener, Stage, Stream};
use crate::proto::backend::{Severity, put_error};
use crate::session::admin::Admin;
use crate::session::{Client, End, Opener, Session};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Raised;
use crate::types::Protocol;
use startup::{Greeting, Outcome};

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
    /// Port of the HTTP door, for clients that knock here by mistake.
    pub api_port: u16,
    /// The configuration.
    pub config: Live,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The shutdown.
    pub drain: DrainWatch,
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
        metrics.connections_total.inc();
        let permit = self.gate.enter();
        // Over the limit, but a cancel request must still get through.
        let refusal = if permit.is_none() { self.refusals.enter() } else { None };
        if permit.is_none() && refusal.is_none() {
            return self.metrics.connection_rejected("max_connections");
        }
        let _open = Raised::new(&metrics.connections_active);
        let limit = self.config.now().network.connection_timeout_secs.duration();
        let greeting = Greeting { door: self, stream, admitted: permit.is_some() };
        // Boxed: the log-in's state is large, and an idle client should not carry it.
        match tokio::time::timeout(limit, Box::pin(greeting.run())).await {
            Ok(Outcome::Ready(mut session, mut client)) => {
                self.attend(&mut session, &mut client).await;
            }
            Ok(Outcome::Console(console)) => Box::pin(console.run()).await,
            Ok(Outcome::Done) => {}
            Err(_) => self.metrics.connection_rejected("connection_timeout"),
        }
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
async fn part(stream: &mut Stream, bytes: &[u8]) {
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
        std::io::Result::Ok(())
    };
    // A client that does not read is not waited for.
    let _ = tokio::time::timeout(LINGER, linger).await;
}
