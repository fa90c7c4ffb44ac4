//! Requests, one after the other: what each of them asks of PostgreSQL, and how the replies become
//! the client's.

mod ahead;
mod batch;
mod bulk;
mod exchange;
mod extension;
mod known;
mod prepared;
mod query;
mod response;
mod restrict;
mod session;
mod stream;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use super::core::{Core, Request, status};
use super::errors;
use super::extensions::ExtensionRegistry;
use super::greeting::Proven;
use super::trace::trace_id;
use super::types::DatabaseTypes;
use crate::config::Live;
use crate::proto::backend::TxStatus;
use crate::proto::native::{
    Agreed, AuthReply, ErrorBody, Message, QueryOptions, Severity, SimpleRequest, SimpleResponse,
    Wire, Writer,
};
use crate::proto::typed::result::Encoder;
use crate::session::Entry;
use crate::telemetry::Tally;
use ahead::{Sent, Turn};
use known::Known;
use prepared::Statements;
use response::Columns;

/// Why a request was not done.
type Failure = Box<ErrorBody>;

/// The roles that a session may act as.
const ROLES: &str = "SELECT r.rolname FROM pg_catalog.pg_roles r \
     WHERE r.rolname <> current_user AND pg_catalog.pg_has_role(current_user, r.oid, 'MEMBER') \
     AND NOT (SELECT u.rolsuper FROM pg_catalog.pg_roles u WHERE u.rolname = current_user) \
     ORDER BY 1 LIMIT 1000";

/// Carries out the requests of one client.
pub(super) struct Translator {
    core: Arc<Core>,
    config: Live,
    types: DatabaseTypes,
    transactions: Arc<AtomicU64>,
    capabilities: u32,
    /// What the handshake has agreed on.
    agreed: Agreed,
    extensions: Extensions,
    session: u64,
    role: String,
    tally: Arc<Tally>,
    statements: Statements,
    known: Known,
    encoder: Encoder,
    ahead: VecDeque<Turn>,
    /// What the last result consisted of.
    last_columns: Arc<Columns>,
    /// The last command tag that was as usual.
    last_tag: String,
    /// Sync or Query was sent, and ReadyForQuery is to come.
    is_owed: bool,
    /// Something was sent to which a Sync belongs.
    is_unsynced: bool,
    /// When the present request began.
    began: Instant,
    /// The trace that its client says it belongs to.
    trace: Option<String>,
}

/// Extensions of one connection.
pub(super) struct Extensions {
    /// Names of those that were agreed on.
    pub(super) agreed: Vec<String>,
    /// All there are.
    pub(super) registry: Arc<ExtensionRegistry>,
}

/// What a command gave.
#[derive(Debug, Default)]
struct Done {
    tag: String,
    rows: u64,
}

impl Translator {
    pub(super) fn new(
        core: Arc<Core>,
        config: Live,
        types: DatabaseTypes,
        transactions: Arc<AtomicU64>,
        (capabilities, extensions): (u32, Extensions),
        entry: &Entry,
    ) -> Self {
        let agreed = *core.lock().out.agreed();
        Self {
            agreed,
            core,
            config,
            types,
            transactions,
            capabilities,
            extensions,
            session: entry.id.0,
            role: entry.role.as_str().to_owned(),
            tally: entry.tally.clone(),
            statements: Statements::default(),
            known: Known::default(),
            encoder: Encoder::default(),
            ahead: VecDeque::new(),
            last_columns: Arc::default(),
            last_tag: String::new(),
            is_owed: false,
            is_unsynced: false,
            began: Instant::now(),
            trace: None,
        }
    }

    /// Carries out requests until the client has said goodbye and everything is answered.
    ///
    /// # Errors
    /// What the client is to be told before the connection closes, under which id.
    pub(super) async fn serve(&mut self, proven: Box<Proven>) -> Result<(), (u64, Failure)> {
        let id = proven.id;
        // Boxed, as requests are: what they need is not carried by an idle connection.
        Box::pin(self.welcome(proven)).await.map_err(|error| (id, error))?;
        self.core.metrics.native.state("ready");
        while let Some(turn) = self.next_turn().await {
            let id = turn.id();
            self.trace = None;
            let done = match turn {
                Turn::Request(request) | Turn::Again(request) => {
                    Box::pin(self.carry_out(request)).await
                }
                Turn::Sent { request, began, statement } => {
                    self.began = began;
                    match self.answer_sent(id, &statement).await {
                        Ok(Sent::Answered) => Ok(()),
                        Ok(Sent::Again) => {
                            // What was sent behind it is answered first.
                            let behind = self.were_sent();
                            self.core.put_back(id, behind);
                            self.ahead.insert(behind, Turn::Again(request));
                            continue;
                        }
                        Err(failure) => Box::pin(self.report(id, failure)).await,
                    }
                }
            };
            done.map_err(|error| (id, error))?;
            self.core.lock().finish(&self.core, id);
        }
        Ok(())
    }

    async fn welcome(&mut self, proven: Box<Proven>) -> Result<(), Failure> {
        let rows = self.text_rows(ROLES).await?;
        let roles = rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
        let mut parameters = self.core.lock().parameters.take().unwrap_or_default();
        parameters.extend(self.found().await?);
        let success = AuthReply::Success {
            session_id: self.session,
            user: self.role.clone(),
            roles,
            parameters,
        };
        self.answer(proven.id, &Message::AuthReply(success)).await
    }

    async fn carry_out(&mut self, request: Request) -> Result<(), Failure> {
        let id = request.id;
        self.began = Instant::now();
        let message = request.frame.message(&self.agreed);
        drop(request);
        let result = match message {
            Ok(message) => self.dispatch(id, message).await,
            Err(violation) => Err(errors::of_violation(violation)),
        };
        match result {
            Ok(()) => Ok(()),
            Err(failure) => self.report(id, failure).await,
        }
    }

    /// Tells the client that a request has failed.
    ///
    /// # Errors
    /// The connection cannot go on.
    async fn report(&mut self, id: u64, mut failure: Failure) -> Result<(), Failure> {
        self.mark(id, &mut failure);
        if failure.severity != Severity::Error {
            return Err(failure);
        }
        // What is still to come of the request is of no interest, but a fatal error is.
        if let Err(later) = self.settle().await
            && later.severity != Severity::Error
        {
            return Err(later);
        }
        self.answer(id, &Message::Error(failure)).await
    }

    /// Gives an error the number under which the log has it.
    fn mark(&self, id: u64, failure: &mut Failure) {
        let is_ours = failure.sqlstate.starts_with("XX");
        let own = || is_ours.then(|| format!("{:016x}{id:016x}", self.session));
        let Some(trace_id) = self.trace.clone().or_else(own) else { return };
        let sqlstate = failure.sqlstate.as_str();
        match is_ours {
            true => tracing::error!(trace_id, session = self.session, sqlstate, "request failed"),
            false => tracing::info!(trace_id, session = self.session, sqlstate, "request failed"),
        }
        failure.trace_id = Some(trace_id);
    }

    async fn dispatch(&mut self, id: u64, message: Message) -> Result<(), Failure> {
        self.check_cancelled()?;
        match message {
            Message::Query(query) => self.query(id, *query).await,
            Message::PreparedStatement(request) => self.prepared(id, request).await,
            Message::BulkInsert(bulk) => self.bulk(id, bulk).await,
            Message::Streaming(part) => self.stream(id, part).await,
            Message::Notification(notification) => self.notification(id, notification).await,
            Message::Begin { isolation, read_only, deferrable } => {
                let transaction_id = self.begin(isolation, read_only, deferrable).await?;
                self.answer(id, &Message::TransactionStarted { transaction_id }).await
            }
            Message::Commit { and_chain } => {
                let done = self.commit(and_chain).await?;
                self.ok(id, done).await
            }
            Message::Rollback { to_savepoint, and_chain } => {
                let done = self.rollback(to_savepoint.as_deref(), and_chain).await?;
                self.ok(id, done).await
            }
            Message::Savepoint { name, release } => {
                let done = self.savepoint(&name, release).await?;
                self.ok(id, done).await
            }
            Message::Session(command) => self.session(id, command).await,
            Message::Batch { statements, atomic, stop_on_error } => {
                self.batch(id, statements, atomic, stop_on_error).await
            }
            Message::Simple(request) => self.simple_request(id, request).await,
            Message::Extension { name, payload } => self.extension(id, name, payload).await,
            _ => Err(errors::violation("a message that is no request")),
        }
    }

    async fn simple_request(&mut self, id: u64, request: SimpleRequest) -> Result<(), Failure> {
        let result = match request {
            SimpleRequest::Query { sql } => self.simple_query(id, &sql).await.map(|()| None),
            SimpleRequest::BeginTransaction => {
                let number = self.begin(None, None, None).await;
                number.map(|number| Some(SimpleResponse::TransactionId(number)))
            }
            SimpleRequest::Commit => self.commit(false).await.map(|_| Some(SimpleResponse::Ok)),
            SimpleRequest::Rollback => {
                self.rollback(None, false).await.map(|_| Some(SimpleResponse::Ok))
            }
            SimpleRequest::Ping => Ok(Some(SimpleResponse::Pong)),
        };
        let response = match result {
            Ok(None) => return Ok(()),
            Ok(Some(response)) => response,
            Err(failure) if failure.severity != Severity::Error => return Err(failure),
            Err(failure) => {
                self.settle().await.or_else(|later| match later.severity {
                    Severity::Error => Ok(()),
                    _ => Err(later),
                })?;
                SimpleResponse::Error(format!("{}: {}", failure.sqlstate, failure.message))
            }
        };
        self.answer(id, &Message::SimpleReply(response)).await
    }

    /// The final reply, if it is a whole message.
    async fn answer(&self, id: u64, message: &Message) -> Result<(), Failure> {
        let write = |out: &mut Vec<u8>| message.encode(&mut Writer::new(out));
        self.core.reply(false, id, 0, write).await.map_err(errors::of_violation)
    }

    async fn ok(&self, id: u64, done: Done) -> Result<(), Failure> {
        let transaction_status = status(self.tx());
        let ok = Message::Ok {
            affected_rows: done.rows,
            command_tag: Some(done.tag).filter(|tag| !tag.is_empty()),
            transaction_status,
        };
        self.answer(id, &ok).await
    }

    fn tx(&self) -> TxStatus {
        self.core.lock().tx
    }

    fn has(&self, capability: u32) -> bool {
        self.capabilities & capability != 0
    }

    /// A request that was cancelled before anything was sent is not sent.
    fn check_cancelled(&self) -> Result<(), Failure> {
        let state = self.core.lock();
        match state.is_cancelled() {
            true => {
                let timed_out = state.current.as_ref().is_some_and(|current| current.timed_out);
                Err(errors::cancelled(timed_out))
            }
            false => Ok(()),
        }
    }

    /// Takes what concerns the whole request from its options.
    fn apply(&mut self, options: Option<&QueryOptions>) {
        let parent = options.and_then(|options| options.traceparent.as_deref());
        self.trace = parent.and_then(trace_id).map(str::to_owned);
        let Some(timeout) = options.map(|options| options.timeout_ms).filter(|ms| *ms > 0) else {
            return;
        };
        let mut state = self.core.lock();
        if let Some(current) = &mut state.current {
            current.deadline = Some(self.began + Duration::from_millis(timeout.into()));
            state.calls_driver = true;
        }
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}
