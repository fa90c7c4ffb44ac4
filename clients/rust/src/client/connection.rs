//! One connection. Requests take `&self`, so that several may be under way: they are sent at once
//! and answered in their order.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::bulk::{self, BulkInsert};
use super::listen::{self, Event, Notified, Subscription};
use super::pool::IntoConfig;
use super::replies::{self, BATCH, Done, PREPARED, QUERY, Results, unexpected};
use super::statement::{Known, Source, Statement, ToStatement};
use super::stream::{ObjectStream, RowStream};
use super::transaction::{Transaction, TransactionOptions};
use crate::config::{Config, Host};
use crate::error::{Error, Result};
use crate::link::{Kind, Link, Pending, Session, Tls};
use crate::protocol::wire::{Wire, Writer};
use crate::protocol::{
    AuthReply, Message, Notification, OnConflict, Purity, ServerHello, SessionCommand, TxStatus,
};
use crate::rows::{ResultSet, Row};
use crate::types::to::{self, BulkRow};

/// Parameters of a statement: `&[&1i64, &"text"]`.
pub use crate::types::to::Params;

/// How a statement is run; the default is as the session says.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Longest time it may take; the server stops it then. None = the connection string's.
    pub timeout: Option<Duration>,
    /// Most rows that are sent; 0 = all.
    pub max_rows: u32,
    /// The statement may only read; it can be repeated if a connection breaks.
    pub read_only: bool,
    /// W3C Trace Context.
    pub traceparent: Option<String>,
    /// W3C Trace Context.
    pub tracestate: Option<String>,
}

impl Options {
    fn write(&self, out: &mut Writer<'_>) {
        let is_default = self.timeout.is_none()
            && self.max_rows == 0
            && !self.read_only
            && self.traceparent.is_none()
            && self.tracestate.is_none();
        if is_default {
            return out.byte(0);
        }
        let millis = self.timeout.map_or(0, |limit| limit.as_millis().max(1));
        out.byte(1);
        u32::try_from(millis).unwrap_or(u32::MAX).encode(out);
        self.max_rows.encode(out);
        self.read_only.encode(out);
        self.traceparent.encode(out);
        self.tracestate.encode(out);
    }
}

/// Writes a [`Query`](crate::protocol::Query).
pub(super) fn write_query(out: &mut Writer<'_>, sql: &str, params: &Params<'_>, options: &Options) {
    out.counted(sql.as_bytes());
    to::write_all(params, out);
    out.unsigned(0);
    options.write(out);
}

/// A connection to the server, with a session. It is closed when it is dropped.
///
/// A request whose future is dropped is cancelled at the server.
pub struct Connection {
    pub(super) link: Link,
    pub(super) known: Known,
    limit: Option<Duration>,
}

/// Stops what runs on a connection, from anywhere.
#[derive(Clone)]
pub struct Canceller(crate::link::Handle);

impl Canceller {
    /// Cancels every request that is under way; each ends with an error (`57014`), or as if nothing
    /// had been asked.
    pub fn cancel(&self) {
        self.0.cancel_all();
    }

    pub(super) fn is_gone(&self) -> bool {
        self.0.is_gone()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.link.hello().connection_id;
        f.debug_struct("Connection").field("id", &number).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects; the argument is a connection string or a [`Config`].
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::Connect`], or what the server says about the log-in.
    pub async fn connect(config: impl IntoConfig) -> Result<Self> {
        let config = config.into_config()?;
        let tls = Tls::new(&config)?;
        Self::open(&config, tls.as_ref(), Arc::default()).await
    }

    pub(super) async fn open(
        config: &Config,
        tls: Option<&Tls>,
        names: Arc<AtomicU64>,
    ) -> Result<Self> {
        let link = Link::connect(config, tls).await?;
        Ok(Self { link, known: Known::new(names), limit: config.timeout })
    }

    /// The rows that a statement gives; of several statements (only without parameters), those of
    /// the last one.
    ///
    /// # Errors
    /// What PostgreSQL says, or that the connection is lost or the time is up.
    pub async fn query<S: ToStatement + ?Sized>(
        &self,
        statement: &S,
        params: &Params<'_>,
    ) -> Result<Vec<Row>> {
        let result = self.query_with(&Options::default(), statement, params).await?;
        Ok(result.into_rows())
    }

    /// The only row that a statement gives.
    ///
    /// # Errors
    /// As [`Connection::query`]; [`Error::Value`] if there is no row, or more than one.
    pub async fn query_one<S: ToStatement + ?Sized>(
        &self,
        statement: &S,
        params: &Params<'_>,
    ) -> Result<Row> {
        let row = self.query_opt(statement, params).await?;
        row.ok_or_else(|| Error::Value("the statement gives no row".into()))
    }

    /// The only row that a statement gives, or none.
    ///
    /// # Errors
    /// As [`Connection::query`]; [`Error::Value`] if there is more than one row.
    pub async fn query_opt<S: ToStatement + ?Sized>(
        &self,
        statement: &S,
        params: &Params<'_>,
    ) -> Result<Option<Row>> {
        only(self.query(statement, params).await?)
    }

    /// How many rows a statement changes or gives.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn execute<S: ToStatement + ?Sized>(
        &self,
        statement: &S,
        params: &Params<'_>,
    ) -> Result<u64> {
        let result = self.query_with(&Options::default(), statement, params).await?;
        Ok(result.affected_rows())
    }

    /// Everything that a statement gives: rows, columns, the command's tag and the time it took.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn query_with<S: ToStatement + ?Sized>(
        &self,
        options: &Options,
        statement: &S,
        params: &Params<'_>,
    ) -> Result<ResultSet> {
        // The server stops first.
        let limit = options.timeout.map(|limit| limit + Duration::from_secs(1)).or(self.limit);
        within(limit, self.run_one(options, statement.source(), params)).await
    }

    async fn run_one(
        &self,
        options: &Options,
        source: Source<'_>,
        params: &Params<'_>,
    ) -> Result<ResultSet> {
        let statement = match source {
            Source::Text(sql) => {
                let body = |out: &mut Writer<'_>| {
                    out.variant(QUERY);
                    write_query(out, sql, params, options);
                };
                return Results::of(self.link.request(Kind::PLAIN, &body).await?).last().await;
            }
            Source::Prepared(statement) => statement,
        };
        let body = |out: &mut Writer<'_>| {
            out.variant(PREPARED);
            out.variant(1);
            out.counted(statement.name().as_bytes());
            to::write_all(params, out);
            options.write(out);
        };
        let was_known = self.known.has(statement)?;
        if !was_known {
            self.prepare_again(statement).await?;
        }
        let result = Results::of(self.link.request(Kind::PLAIN, &body).await?).last().await;
        match result {
            // Somebody has deallocated it, for instance by DISCARD ALL.
            Err(e) if e.sqlstate() == "26000" && was_known && self.status() == TxStatus::Idle => {
                self.known.forget(statement);
                self.prepare_again(statement).await?;
                Results::of(self.link.request(Kind::PLAIN, &body).await?).last().await
            }
            result => result,
        }
    }

    /// Runs the statements of a text, one after the other, in one transaction of their own (as
    /// PostgreSQL's simple query does); results come as they are there.
    ///
    /// # Errors
    /// That the connection is lost.
    pub async fn run(&self, sql: &str) -> Result<Results> {
        let options = Options::default();
        let body = |out: &mut Writer<'_>| {
            out.variant(QUERY);
            write_query(out, sql, &[], &options);
        };
        Ok(Results::of(self.link.request(Kind::PLAIN, &body).await?))
    }

    /// As [`Connection::run`], with all results at once.
    ///
    /// # Errors
    /// As [`Connection::query`]; the first error undoes everything.
    pub async fn run_all(&self, sql: &str) -> Result<Vec<ResultSet>> {
        within(self.limit, async { self.run(sql).await?.all().await }).await
    }

    /// Prepares a statement. It may be used on every connection of the same client, and is
    /// forgotten by the server some time after it is dropped.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn prepare(&self, sql: &str) -> Result<Statement> {
        self.prepare_typed(sql, &[]).await
    }

    /// As [`Connection::prepare`], with types of the parameters (`pg_type.oid`; 0 = PostgreSQL
    /// infers it).
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn prepare_typed(&self, sql: &str, types: &[u32]) -> Result<Statement> {
        within(self.limit, self.known.prepare(&self.link, sql, types)).await
    }

    async fn prepare_again(&self, statement: &Statement) -> Result<()> {
        self.known.prepare_again(&self.link, statement).await
    }

    /// Runs a query whose rows are read while they come, so that they never are in memory together.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn query_stream<S: ToStatement + ?Sized>(
        &self,
        statement: &S,
        params: &Params<'_>,
    ) -> Result<RowStream> {
        let sql = match statement.source() {
            Source::Text(sql) => sql,
            Source::Prepared(statement) => statement.sql(),
        };
        within(self.limit, RowStream::open(&self.link, sql, params, &Options::default())).await
    }

    /// Reads a large object from a byte on; `length` None = to its end.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn read_object(
        &self,
        oid: u32,
        offset: u64,
        length: Option<u64>,
    ) -> Result<ObjectStream> {
        ObjectStream::open(&self.link, oid, offset, length).await
    }

    /// Inserts rows, tuples for instance, all or none; returns how many. `table` may be
    /// `schema.table`, quoted as in SQL; no columns = all of them.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn bulk_insert<R: BulkRow>(
        &self,
        table: &str,
        columns: &[&str],
        rows: impl IntoIterator<Item = R>,
    ) -> Result<u64> {
        let mut bulk = self.bulk(table, columns, OnConflict::Fail).await?;
        for row in rows {
            bulk.row(&row).await?;
        }
        bulk.finish().await
    }

    /// Begins a bulk insert whose rows come one by one.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn bulk(
        &self,
        table: &str,
        columns: &[&str],
        on_conflict: OnConflict,
    ) -> Result<BulkInsert> {
        bulk::begin(&self.link, table, columns, on_conflict).await
    }

    /// Runs several statements in one round trip; each has its own result or error. If the batch is
    /// atomic, its error is the last of the results.
    ///
    /// # Errors
    /// That the connection is lost, or the time is up.
    pub async fn batch(&self, batch: &Batch) -> Result<Vec<Result<ResultSet>>> {
        let body = |out: &mut Writer<'_>| {
            out.variant(BATCH);
            batch.write(out);
        };
        let run = async {
            let mut results = Results::of(self.link.request(Kind::PLAIN, &body).await?);
            let mut all = Vec::new();
            while let Some(result) = results.next().await {
                match result {
                    Err(error @ Error::Lost { .. }) => return Err(error),
                    result => all.push(result),
                }
            }
            Ok(all)
        };
        within(self.limit, run).await
    }

    /// Begins a transaction. Dropped without commit, it is rolled back.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn transaction(&mut self) -> Result<Transaction<'_>> {
        self.begin(&TransactionOptions::default()).await
    }

    /// Begins a transaction with an isolation level and the like.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn begin(&mut self, options: &TransactionOptions) -> Result<Transaction<'_>> {
        Transaction::begin(super::transaction::Home::Borrowed(self), options).await
    }

    /// Asks whether the server still answers; returns how long that took.
    ///
    /// # Errors
    /// That it does not.
    pub async fn ping(&self) -> Result<Duration> {
        let since = Instant::now();
        match self.ask(&Message::Ping).await? {
            Message::Pong => Ok(since.elapsed()),
            _ => Err(unexpected()),
        }
    }

    /// Cancels every request of this connection that is under way.
    pub fn cancel(&self) {
        self.link.cancel_all();
    }

    /// Something that can cancel while the connection is in use.
    pub fn canceller(&self) -> Canceller {
        Canceller(self.link.handle())
    }

    /// Hears of a channel from now on, see [`Connection::notification`].
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn listen(&self, channel: &str) -> Result<()> {
        self.command(&listen::listen(channel)).await.map(drop)
    }

    /// No longer hears of a channel; None = of any.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn unlisten(&self, channel: Option<&str>) -> Result<()> {
        self.command(&listen::unlisten(channel)).await.map(drop)
    }

    /// The next notification of a channel that [`Connection::listen`] has asked for. At most 1,000
    /// messages wait to be taken; the oldest go first.
    ///
    /// # Errors
    /// That the connection is lost.
    pub async fn notification(&self) -> Result<Notified> {
        loop {
            if let Notification::Event { channel, payload, process_id } = self.event().await? {
                return Ok(Notified { channel, payload, process_id });
            }
        }
    }

    /// The next message of the server that answers no request: notifications, notices, changed
    /// parameters, the announcement of a shutdown.
    ///
    /// # Errors
    /// That the connection is lost.
    pub async fn event(&self) -> Result<Notification> {
        self.link.event().await
    }

    /// As [`Connection::event`], if one has come already.
    pub fn try_event(&self) -> Option<Notification> {
        self.link.try_event()
    }

    /// Subscribes to a stream of events of the server, which has none yet and answers `0A000`.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn subscribe(&self, stream: &str, params: &[(&str, &str)]) -> Result<Subscription> {
        within(self.limit, Subscription::open(&self.link, stream, params)).await
    }

    /// Changes a setting of the session.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn set(&self, name: &str, value: &str) -> Result<()> {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.session_command(SessionCommand::Set { name, value, local: false }).await
    }

    /// The value of a setting.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn show(&self, name: &str) -> Result<String> {
        let message = Message::Session(SessionCommand::Show { name: name.to_owned() });
        let body = |out: &mut Writer<'_>| message.encode(out);
        let show = async {
            let result = Results::of(self.link.request(Kind::PLAIN, &body).await?).last().await?;
            only(result.into_rows())?.ok_or_else(unexpected)?.get::<String>(0)
        };
        within(self.limit, show).await
    }

    /// Gives a setting the value it had at the start; None = all of them.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn reset(&self, name: Option<&str>) -> Result<()> {
        self.session_command(SessionCommand::Reset { name: name.map(str::to_owned) }).await
    }

    /// Gives up everything that the session holds.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn discard_all(&self) -> Result<()> {
        self.known.clear();
        self.session_command(SessionCommand::DiscardAll).await
    }

    /// Takes a pooled session of the server.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn acquire(
        &self,
        connection_class: Option<&str>,
        tag: Option<&str>,
        purity: Purity,
    ) -> Result<()> {
        let own = |text: Option<&str>| text.map(str::to_owned);
        let (connection_class, tag) = (own(connection_class), own(tag));
        let command = SessionCommand::Acquire { connection_class, tag, purity };
        match self.ask(&Message::Session(command)).await? {
            Message::AuthReply(AuthReply::Success { .. }) => Ok(()),
            _ => Err(unexpected()),
        }
    }

    /// Gives a pooled session back; `tag` says what it is good for from now on.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn release(&self, tag: Option<&str>) -> Result<()> {
        self.session_command(SessionCommand::Release { tag: tag.map(str::to_owned) }).await
    }

    /// How the session stood at the last reply.
    pub fn status(&self) -> TxStatus {
        self.link.status()
    }

    /// The value of a parameter that PostgreSQL reports, for instance `server_version`.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.link.parameter(name)
    }

    /// What was agreed with the server, and its limits.
    pub fn server(&self) -> &ServerHello {
        self.link.hello()
    }

    /// The session: its number, role and roles.
    pub fn session(&self) -> &Session {
        self.link.session()
    }

    /// Which of the hosts it is connected to.
    pub fn host(&self) -> &Host {
        self.link.host()
    }

    /// Whether it is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.link.is_encrypted()
    }

    /// Whether it is of no further use.
    pub fn is_closed(&self) -> bool {
        self.link.is_lost()
    }

    /// Says good-bye, and waits until the server has closed.
    pub async fn close(self) {
        self.link.close().await;
    }

    async fn session_command(&self, command: SessionCommand) -> Result<()> {
        self.command(&Message::Session(command)).await.map(drop)
    }

    /// A request that is answered by Ok.
    pub(super) async fn command(&self, message: &Message) -> Result<Done> {
        let body = |out: &mut Writer<'_>| message.encode(out);
        let run = async {
            let mut pending: Pending = self.link.request(Kind::PLAIN, &body).await?;
            replies::done(&pending.reply().await?)
        };
        let done = within(self.limit, run).await?;
        self.link.note(done.status);
        Ok(done)
    }

    /// A request that is answered by one message.
    pub(super) async fn ask(&self, message: &Message) -> Result<Message> {
        let body = |out: &mut Writer<'_>| message.encode(out);
        let run = async {
            let mut pending: Pending = self.link.request(Kind::PLAIN, &body).await?;
            replies::message(&pending.reply().await?)
        };
        within(self.limit, run).await
    }

    /// Whether the next one may have it, after what was left open is rolled back.
    pub(super) fn is_reusable(&self) -> bool {
        if self.link.is_lost() || self.link.is_draining() {
            return false;
        }
        if !self.link.settle() {
            // Outside of a transaction this is refused, which does no harm.
            self.link.detached(&Message::Rollback { to_savepoint: None, and_chain: false });
            self.link.note(TxStatus::Idle);
        }
        true
    }
}

/// The event of a subscription, as the server sent it.
pub(super) fn stream_event(message: Message) -> Result<Event> {
    match message {
        Message::StreamEvent { stream, sequence, time_us, body } => {
            Ok(Event { stream, sequence, time: crate::types::TimestampTz(time_us), body })
        }
        _ => Err(unexpected()),
    }
}

/// Waits no longer than allowed; a request that is given up is cancelled.
pub(super) async fn within<T>(
    limit: Option<Duration>,
    run: impl Future<Output = Result<T>>,
) -> Result<T> {
    match limit {
        None => run.await,
        Some(limit) => match tokio::time::timeout(limit, run).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout(limit)),
        },
    }
}

pub(super) fn only(rows: Vec<Row>) -> Result<Option<Row>> {
    let mut rows = rows.into_iter();
    match (rows.next(), rows.next()) {
        (row, None) => Ok(row),
        _ => Err(Error::Value("the statement gives more than one row".into())),
    }
}
