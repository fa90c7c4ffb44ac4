//! What comes without being asked for: notifications, and streams of events.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;

use super::connection::stream_event;
use super::pool::{Client, PooledConnection};
use super::replies::{done, message};
use crate::error::{Error, Result};
use crate::link::{Kind, Link, Pending};
use crate::protocol::wire::{Wire, Writer};
use crate::protocol::{Message, Notification};
use crate::types::TimestampTz;

/// Longest pause between two attempts to listen again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A notification of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notified {
    /// The channel.
    pub channel: String,
    /// What was said.
    pub payload: String,
    /// Number of the session that said it.
    pub process_id: i32,
}

pub(super) fn listen(channel: &str) -> Message {
    Message::Notification(Notification::Listen { channel: channel.to_owned() })
}

pub(super) fn unlisten(channel: Option<&str>) -> Message {
    Message::Notification(Notification::Unlisten { channel: channel.map(str::to_owned) })
}

/// Hears of channels, on a connection of its own from the client's pool. If that breaks, it listens
/// on another one; what was said meanwhile is missed.
pub struct Listener {
    client: Client,
    channels: Vec<String>,
    connection: Option<PooledConnection>,
}

impl Listener {
    pub(super) async fn new(client: Client, channels: &[&str]) -> Result<Self> {
        let channels = channels.iter().map(|&channel| channel.to_owned()).collect();
        let mut listener = Self { client, channels, connection: None };
        listener.connect().await?;
        Ok(listener)
    }

    async fn connect(&mut self) -> Result<&PooledConnection> {
        if self.connection.as_ref().is_none_or(|c| c.is_closed()) {
            // Its place in the pool is needed first.
            self.connection = None;
            let connection = self.client.connection().await?;
            for channel in &self.channels {
                connection.listen(channel).await?;
            }
            self.connection = Some(connection);
        }
        self.connection.as_ref().ok_or_else(|| Error::Usage("there is no connection".into()))
    }

    /// Hears of a further channel.
    ///
    /// # Errors
    /// What the server says, or that it cannot be reached.
    pub async fn listen(&mut self, channel: &str) -> Result<()> {
        self.connect().await?.listen(channel).await?;
        self.channels.push(channel.to_owned());
        Ok(())
    }

    /// No longer hears of a channel.
    ///
    /// # Errors
    /// What the server says, or that it cannot be reached.
    pub async fn unlisten(&mut self, channel: &str) -> Result<()> {
        self.channels.retain(|other| other != channel);
        self.connect().await?.unlisten(Some(channel)).await
    }

    /// The next notification. It waits as long as it takes, also for a server that is away.
    ///
    /// # Errors
    /// That the server does not let us in any more.
    pub async fn next(&mut self) -> Result<Notified> {
        let mut pause = Duration::from_millis(50);
        loop {
            match self.connect().await {
                Ok(connection) => {
                    pause = Duration::from_millis(50);
                    if let Ok(notified) = connection.notification().await {
                        return Ok(notified);
                    }
                }
                Err(e) if e.sqlstate().starts_with("28") || matches!(e, Error::Usage(_)) => {
                    return Err(e);
                }
                Err(_) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.link.detached(&unlisten(None));
        }
    }
}

/// An event of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Name of the stream.
    pub stream: String,
    /// Counts the events of the subscription.
    pub sequence: u64,
    /// When it happened.
    pub time: TimestampTz,
    /// What happened, as JSON.
    pub body: String,
}

/// A stream of events. It ends when this is dropped.
pub struct Subscription {
    pending: Pending,
    _connection: Option<PooledConnection>,
}

impl Subscription {
    pub(super) async fn open(link: &Link, stream: &str, params: &[(&str, &str)]) -> Result<Self> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let params = params.iter().map(own).collect();
        let request = Message::Subscribe { stream: stream.to_owned(), params };
        let body = |out: &mut Writer<'_>| request.encode(out);
        let mut pending = link.request(Kind::SUBSCRIPTION, &body).await?;
        done(&pending.reply().await?)?;
        Ok(Self { pending, _connection: None })
    }

    pub(super) fn on(mut self, connection: PooledConnection) -> Self {
        self._connection = Some(connection);
        self
    }

    /// The next event; none = the server has ended it.
    pub async fn next(&mut self) -> Option<Result<Event>> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event>>> {
        if self.pending.is_done() {
            return Poll::Ready(None);
        }
        let reply = ready!(self.pending.poll_reply(cx));
        Poll::Ready(Some(reply.and_then(|reply| stream_event(message(&reply)?))))
    }
}

impl Stream for Subscription {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Event>>> {
        self.poll_event(cx)
    }
}
