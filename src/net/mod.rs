//! Sockets: listeners that every worker shares, streams over TCP, TLS or a Unix socket, and the
//! word that the server is draining.

mod ends;
mod fetch;
mod inherited;
mod interfaces;
mod listener;
mod socket;
mod stream;
mod tls;

pub use ends::{Ends, LocalEnd};
pub use fetch::fetch;
pub use inherited::Inherited;
pub use interfaces::interfaces;
pub use listener::{BindError, Door, Listener, SocketFile, bind_tcp, bind_unix};
pub use socket::Socket;
pub use stream::{ReadAhead, Stream, Transport};
pub use tls::{Alpn, ClientTls, PeerCertificate, Served, ServerTls, TlsFacts};

use tokio::sync::watch;

/// How far the shutdown is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Clients are accepted.
    Running,
    /// Another process accepts the clients; those that are here stay.
    Replaced,
    /// No new clients; idle ones are sent away, running statements finish.
    Draining,
    /// Everything ends now.
    Stopping,
}

/// The sending side, one per server.
#[derive(Debug)]
pub struct Drain(watch::Sender<Stage>);

/// The receiving side, cheap to clone.
#[derive(Clone, Debug)]
pub struct DrainWatch(watch::Receiver<Stage>);

impl Drain {
    /// A server that runs.
    pub fn new() -> (Self, DrainWatch) {
        let (sender, receiver) = watch::channel(Stage::Running);
        (Self(sender), DrainWatch(receiver))
    }

    /// Moves to a stage; stages do not go back.
    pub fn enter(&self, stage: Stage) {
        self.0.send_if_modified(|now| {
            let later = stage > *now;
            if later {
                *now = stage;
            }
            later
        });
    }
}

impl DrainWatch {
    /// The present stage.
    pub fn stage(&self) -> Stage {
        *self.0.borrow()
    }

    /// Returns when the stage is reached. A server that is gone counts as stopping.
    pub async fn reached(&mut self, stage: Stage) {
        let _ = self.0.wait_for(|now| *now >= stage).await;
    }
}
