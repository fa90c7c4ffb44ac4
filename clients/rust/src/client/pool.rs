//! A pool of connections. A request takes one for itself, so that nothing of one request is seen by
//! another; a request that the server refuses for now, or that never reached it, is tried again.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::batch::Batch;
use super::bulk::BulkInsert;
use super::connection::{Canceller, Connection, Options, Params, only, within};
use super::listen::{Listener, Subscription};
use super::statement::{Statement, ToStatement};
use super::stream::{ObjectStream, RowStream};
use super::transaction::{Home, Transaction, TransactionOptions};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::link::Tls;
use crate::protocol::OnConflict;
use crate::rows::{ResultSet, Row};
use crate::types::to::BulkRow;

/// How often a request is tried in all.
const MOST_ATTEMPTS: u32 = 4;

/// Pause before the second attempt; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// Something that says where and how to connect.
pub trait IntoConfig {
    /// The configuration.
    ///
    /// # Errors
    /// [`Error::Config`] if it cannot be used.
    fn into_config(self) -> Result<Config>;
}

impl IntoConfig for &str {
    fn into_config(self) -> Result<Config> {
        self.parse()
    }
}

impl IntoConfig for &String {
    fn into_config(self) -> Result<Config> {
        self.parse()
    }
}

impl IntoConfig for Config {
    fn into_config(self) -> Result<Config> {
        self.check()?;
        Ok(self)
    }
}

/// A pool of connections, and everything that can be done on one of them. Copies share it; the
/// connections are closed when the last copy is dropped.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    tls: Option<Tls>,
    /// One for each connection that there may be.
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
    /// All connections that there are.
    cancellers: Mutex<Vec<Canceller>>,
    names: Arc<AtomicU64>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

/// Tries again what may be tried again.
macro_rules! attempts {
    ($self:ident, $read_only:expr, |$connection:ident| $run:expr) => {{
        let mut attempts = Attempts::new($read_only);
        loop {
            let tried = match $self.connection().await {
                Ok($connection) => $run.await,
                Err(e) => Err(e),
            };
            match tried {
                Err(e) if attempts.again(&e).await => {}
                result => break result,
            }
        }
    }};
}

impl Client {
    /// Makes a pool and its first connection; the argument is a connection string or a [`Config`].
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::Connect`], or what the server says about the log-in.
    pub async fn connect(config: impl IntoConfig) -> Result<Self> {
        let config = config.into_config()?;
        let tls = Tls::new(&config)?;
        let inner = Arc::new(Inner {
            tls,
            permits: Arc::new(Semaphore::new(config.pool_size)),
            idle: Mutex::default(),
            cancellers: Mutex::default(),
            names: Arc::default(),
            config,
        });
        let least = inner.config.min_pool_size.max(1);
        let mut made = Vec::with_capacity(least);
        for _ in 0..least {
            made.push(inner.open().await?);
        }
        inner.idle.lock().extend(made.into_iter().map(Idle::new));
        tokio::spawn(upkeep(Arc::downgrade(&inner)));
        Ok(Self { inner })
    }

    /// A connection of the pool for oneself; it goes back when it is dropped.
    ///
    /// # Errors
    /// That none becomes free in time, or the server cannot be reached.
    pub async fn connection(&self) -> Result<PooledConnection> {
        let permits = self.inner.permits.clone();
        let closed = || Error::Usage("the client is closed".into());
        let waited = within(self.inner.config.timeout, async {
            permits.acquire_owned().await.map_err(|_| closed())
        });
        let permit = waited.await.map_err(|e| match e {
            Error::Timeout(limit) => Error::Connect(format!(
                "all {} connections of the pool were in use for {} s",
                self.inner.config.pool_size,
                limit.as_secs_f64()
            )),
            other => other,
        })?;
        let connection = match self.inner.take_idle() {
            Some(connection) => connection,
            None => self.inner.open().await?,
        };
        Ok(PooledConnection {
            connection: Some(connection),
            inner: self.inner.clone(),
            _permit: permit,
        })
    }

    /// The rows that a statement gives.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn query<S: ToStatement + ?Sized>(
        &self,
        statement: &S,
        params: &Params<'_>,
    ) -> Result<Vec<Row>> {
        attempts!(self, false, |connection| connection.query(statement, params))
    }

    /// The only row that a statement gives.
    ///
    /// # Errors
    /// As [`Connection::query_one`].
    pub async fn query_one<S: ToStatement + ?Sized>(
        &self,
        statement: &S,
        params: &Params<'_>,
    ) -> Result<Row> {
        attempts!(self, false, |connection| connection.query_one(statement, params))
    }

    /// The only row that a statement gives, or none.
    ///
    /// # Errors
    /// As [`Connection::query_opt`].
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
        attempts!(self, false, |connection| connection.execute(statement, params))
    }

    /// Everything that a statement gives. With [`Options::read_only`] it is run again if a
    /// connection breaks.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn query_with<S: ToStatement + ?Sized>(
        &self,
        options: &Options,
        statement: &S,
        params: &Params<'_>,
    ) -> Result<ResultSet> {
        attempts!(self, options.read_only, |connection| {
            connection.query_with(options, statement, params)
        })
    }

    /// The results of all statements of a text, which run in one transaction.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn run_all(&self, sql: &str) -> Result<Vec<ResultSet>> {
        attempts!(self, false, |connection| connection.run_all(sql))
    }

    /// Prepares a statement, for every connection of this client.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn prepare(&self, sql: &str) -> Result<Statement> {
        attempts!(self, true, |connection| connection.prepare(sql))
    }

    /// Runs a query whose rows are read while they come.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn query_stream<S: ToStatement + ?Sized>(
        &self,
        statement: &S,
        params: &Params<'_>,
    ) -> Result<RowStream> {
        attempts!(self, false, |connection| async {
            let stream = connection.query_stream(statement, params).await?;
            Ok(stream.on(connection))
        })
    }

    /// Reads a large object.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn read_object(
        &self,
        oid: u32,
        offset: u64,
        length: Option<u64>,
    ) -> Result<ObjectStream> {
        let connection = self.connection().await?;
        let stream = connection.read_object(oid, offset, length).await?;
        Ok(stream.on(connection))
    }

    /// Inserts rows, all or none; see [`Connection::bulk_insert`].
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn bulk_insert<R: BulkRow>(
        &self,
        table: &str,
        columns: &[&str],
        rows: impl IntoIterator<Item = R>,
    ) -> Result<u64> {
        self.connection().await?.bulk_insert(table, columns, rows).await
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
        let connection = self.connection().await?;
        let bulk = connection.bulk(table, columns, on_conflict).await?;
        Ok(bulk.on(connection))
    }

    /// Runs several statements in one round trip.
    ///
    /// # Errors
    /// As [`Connection::batch`].
    pub async fn batch(&self, batch: &Batch) -> Result<Vec<Result<ResultSet>>> {
        attempts!(self, false, |connection| connection.batch(batch))
    }

    /// Begins a transaction. Dropped without commit, it is rolled back.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn transaction(&self) -> Result<Transaction<'static>> {
        self.begin(&TransactionOptions::default()).await
    }

    /// Begins a transaction with an isolation level and the like.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn begin(&self, options: &TransactionOptions) -> Result<Transaction<'static>> {
        attempts!(self, true, |connection| {
            Transaction::begin(Home::Pooled(connection), options)
        })
    }

    /// Asks whether the server answers; returns how long that took.
    ///
    /// # Errors
    /// That it does not.
    pub async fn ping(&self) -> Result<Duration> {
        attempts!(self, true, |connection| connection.ping())
    }

    /// Hears of channels from now on.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn listen(&self, channels: &[&str]) -> Result<Listener> {
        Listener::new(self.clone(), channels).await
    }

    /// Subscribes to a stream of events of the server, which has none yet and answers `0A000`.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn subscribe(&self, stream: &str, params: &[(&str, &str)]) -> Result<Subscription> {
        let connection = self.connection().await?;
        let subscription = connection.subscribe(stream, params).await?;
        Ok(subscription.on(connection))
    }

    /// Cancels everything that this client has under way.
    pub fn cancel(&self) {
        self.inner.cancellers.lock().iter().for_each(Canceller::cancel);
    }

    /// Closes the connections that are not in use, and the others when they come back. Requests
    /// are refused from now on.
    pub async fn close(&self) {
        self.inner.permits.close();
        let idle = std::mem::take(&mut *self.inner.idle.lock());
        for one in idle {
            one.connection.close().await;
        }
    }

    /// How many connections there are, and how many of them are not in use.
    pub fn size(&self) -> (usize, usize) {
        let free = self.inner.permits.available_permits();
        let idle = self.inner.idle.lock().len();
        (self.inner.config.pool_size.saturating_sub(free) + idle, idle)
    }
}

impl Idle {
    fn new(connection: Connection) -> Self {
        Self { connection, since: Instant::now() }
    }
}

impl Inner {
    async fn open(&self) -> Result<Connection> {
        let connection = Connection::open(&self.config, self.tls.as_ref(), self.names.clone());
        let connection = connection.await?;
        let mut cancellers = self.cancellers.lock();
        cancellers.retain(|canceller| !canceller.is_gone());
        cancellers.push(connection.canceller());
        Ok(connection)
    }

    /// The connection that was used last, so that the others may grow old.
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock();
        while let Some(one) = idle.pop() {
            if !one.connection.is_closed() {
                return Some(one.connection);
            }
        }
        None
    }

    /// Closes what has not been used for long; returns how many are missing.
    fn sweep(&self) -> usize {
        let mut idle = self.idle.lock();
        idle.retain(|one| !one.connection.is_closed());
        let in_use = self.config.pool_size.saturating_sub(self.permits.available_permits());
        if let Some(limit) = self.config.idle_timeout {
            let spare = (idle.len() + in_use).saturating_sub(self.config.min_pool_size);
            // The ones used longest ago are at the front.
            let old = idle.iter().take_while(|one| one.since.elapsed() >= limit).count();
            idle.drain(..old.min(spare));
        }
        self.config.min_pool_size.saturating_sub(idle.len() + in_use)
    }
}

/// Keeps the number of connections between its bounds, as long as there is a client.
async fn upkeep(pool: Weak<Inner>) {
    loop {
        let pause = match pool.upgrade() {
            Some(inner) => inner.config.idle_timeout.unwrap_or(Duration::from_secs(60)) / 4,
            None => return,
        };
        tokio::time::sleep(pause.clamp(Duration::from_millis(100), Duration::from_secs(10))).await;
        let Some(inner) = pool.upgrade() else { return };
        if inner.permits.is_closed() {
            return;
        }
        for _ in 0..inner.sweep() {
            // The next look tries again.
            let Ok(connection) = inner.open().await else { break };
            inner.idle.lock().insert(0, Idle::new(connection));
        }
    }
}

/// A connection that goes back to its pool when it is dropped.
pub struct PooledConnection {
    /// Only a drop takes it.
    connection: Option<Connection>,
    inner: Arc<Inner>,
    _permit: OwnedSemaphorePermit,
}

impl Deref for PooledConnection {
    type Target = Connection;

    #[allow(clippy::expect_used)]
    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("only a drop takes it")
    }
}

impl DerefMut for PooledConnection {
    #[allow(clippy::expect_used)]
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("only a drop takes it")
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        if connection.is_reusable() && !self.inner.permits.is_closed() {
            self.inner.idle.lock().push(Idle::new(connection));
        }
    }
}

/// How often a request was tried.
struct Attempts {
    count: u32,
    read_only: bool,
}

impl Attempts {
    fn new(read_only: bool) -> Self {
        Self { count: 1, read_only }
    }

    /// Whether to try again, after a pause.
    async fn again(&mut self, error: &Error) -> bool {
        let harmless = self.read_only && matches!(error, Error::Lost { .. });
        if self.count >= MOST_ATTEMPTS || !(error.is_retryable() || harmless) {
            return false;
        }
        // Another connection may do at once.
        let is_lost = matches!(error, Error::Lost { .. });
        let pause = match error.retry_after() {
            Some(pause) => pause,
            None if is_lost && self.count == 1 => Duration::ZERO,
            None => FIRST_PAUSE * 2u32.pow(self.count - 1),
        };
        self.count += 1;
        tokio::time::sleep(pause).await;
        true
    }
}
