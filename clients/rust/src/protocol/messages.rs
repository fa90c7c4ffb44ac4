//! Every message of either side.

use super::session::{Auth, AuthReply, Handshake, SessionCommand};
use super::value::Value;

/// Bits of the capabilities that are agreed in the handshake.
pub mod capabilities {
    /// Results in chunks, large objects.
    pub const STREAMING: u32 = 0x01;
    /// Requests before the reply to the one before.
    pub const PIPELINING: u32 = 0x02;
    /// Every frame after the handshake has a checksum.
    pub const CHECKSUM: u32 = 0x04;
    /// LISTEN and notices.
    pub const NOTIFICATIONS: u32 = 0x08;
    /// Rows in bulk.
    pub const BULK_INSERT: u32 = 0x10;
    /// Prepared statements by name.
    pub const PREPARED: u32 = 0x20;
    /// Streams of events.
    pub const SUBSCRIPTIONS: u32 = 0x40;
    /// The requests of the first protocol.
    pub const SIMPLE: u32 = 0x80;
    /// All of them.
    pub const ALL: u32 = 0xff;
}

define! {
    /// A message of either side.
    pub enum Message {
        /// Either side: what is agreed.
        0 Handshake(handshake: Handshake),
        /// Client: who it is.
        1 Auth(auth: Auth),
        /// Server: how that went.
        2 AuthReply(reply: AuthReply),
        /// Client: SQL.
        3 Query(query: Box<Query>),
        /// Server: what a statement gave.
        4 QueryResponse(response: Box<QueryResponse>),
        /// Client: statements by name.
        5 PreparedStatement(request: Prepared),
        /// Server: what a statement takes and gives.
        6 StatementInfo(info: StatementInfo),
        /// Client: rows for a table.
        7 BulkInsert(bulk: Bulk),
        /// Either side: a result or a large object in parts.
        8 Streaming(part: Streaming),
        /// Either side: still here; is answered by the same message with the same id.
        9 Heartbeat {
            /// The sender's clock, in microseconds.
            sent_at_us: u64,
            /// Requests that the sender has not answered, or has no answer to.
            pending: u32,
        },
        /// Either side: LISTEN, and what comes without being asked for.
        10 Notification(notification: Notification),
        /// Client: begins a transaction.
        11 Begin {
            /// None = the session's default.
            isolation: Option<Isolation>,
            /// None = the session's default.
            read_only: Option<bool>,
            /// None = the session's default.
            deferrable: Option<bool>,
        },
        /// Server: it has begun.
        12 TransactionStarted {
            /// The server's number for it; not PostgreSQL's.
            transaction_id: u64,
        },
        /// Client: commits.
        13 Commit {
            /// Whether a new transaction begins at once.
            and_chain: bool,
        },
        /// Client: rolls back.
        14 Rollback {
            /// Only to this savepoint.
            to_savepoint: Option<String>,
            /// Whether a new transaction begins at once.
            and_chain: bool,
        },
        /// Client: sets or releases a savepoint.
        15 Savepoint {
            /// Its name.
            name: String,
            /// Whether it is released.
            release: bool,
        },
        /// Either side: asks for a [`Message::Pong`].
        16 Ping,
        /// Either side: the answer.
        17 Pong,
        /// Server: done.
        18 Ok {
            /// How many rows were changed.
            affected_rows: u64,
            /// PostgreSQL's tag of the command.
            command_tag: Option<String>,
            /// How the session stands.
            transaction_status: TxStatus,
        },
        /// Server: not done.
        19 Error(error: Box<ErrorBody>),
        /// Client: stops a request.
        20 Cancel {
            /// Its id.
            target: u64,
        },
        /// Either side: may receive more.
        21 WindowUpdate {
            /// Id of the stream; 0 = the connection.
            stream: u64,
            /// So many bytes more.
            credit: u32,
        },
        /// Client: steers the session.
        22 Session(command: SessionCommand),
        /// Client: asks for a stream of events.
        23 Subscribe {
            /// Its name.
            stream: String,
            /// What exactly.
            params: Vec<(String, String)>,
        },
        /// Server: an event.
        24 StreamEvent {
            /// Name of the stream.
            stream: String,
            /// Counts the events of the subscription.
            sequence: u64,
            /// When, in microseconds since 2000-01-01 UTC.
            time_us: i64,
            /// What happened, as JSON.
            body: String,
        },
        /// Client: ends a subscription.
        25 Unsubscribe {
            /// Its id.
            target: u64,
        },
        /// Client: several statements.
        26 Batch {
            /// The statements.
            statements: Vec<Query>,
            /// All or none.
            atomic: bool,
            /// Whether the first error ends it.
            stop_on_error: bool,
        },
        /// Client: a request of the first protocol.
        27 Simple(request: SimpleRequest),
        /// Server: the reply to it.
        28 SimpleReply(response: SimpleResponse),
        /// Either side: a message of an extension.
        29 Extension {
            /// Name of the extension.
            name: String,
            /// Its message.
            payload: Vec<u8>,
        },
        /// Either side: will close the connection.
        30 Close {
            /// Why, for the log.
            reason: String,
        },
    }

    /// SQL and what it runs with.
    pub struct Query {
        /// Text; one statement if there are parameters.
        sql: String,
        /// Values of `$1`, `$2`, ….
        params: Vec<Value>,
        /// Types of the parameters; 0 or missing = PostgreSQL infers it.
        param_types: Vec<u32>,
        /// None = all defaults.
        options: Option<QueryOptions>,
    }

    /// How a statement is run.
    pub struct QueryOptions {
        /// Most milliseconds it may take; 0 = the session's default.
        timeout_ms: u32,
        /// Most rows that are sent; 0 = all.
        max_rows: u32,
        /// Whether it may only read.
        read_only: bool,
        /// W3C Trace Context.
        traceparent: Option<String>,
        /// W3C Trace Context.
        tracestate: Option<String>,
    }

    /// What a statement gave.
    pub struct QueryResponse {
        /// Which statement of the request, from 0.
        statement_index: u32,
        /// What the rows consist of; empty if it gives none, and in all but the first part.
        columns: Vec<Column>,
        /// The rows.
        rows: Vec<Vec<Value>>,
        /// How many rows were changed or given.
        affected_rows: u64,
        /// PostgreSQL's tag of the command.
        command_tag: String,
        /// How long it took, in microseconds.
        execution_time_us: u64,
        /// How the session stands.
        transaction_status: TxStatus,
    }

    /// A column of a result.
    pub struct Column {
        /// Its name.
        name: String,
        /// Its type.
        type_oid: u32,
        /// Name of the type; empty if it is not known.
        type_name: String,
        /// As in `pg_attribute.atttypmod`; -1 = none.
        type_modifier: i32,
        /// Bytes of a value; negative = variable.
        type_size: i16,
        /// The table it comes from; 0 = none.
        table_oid: u32,
        /// Its number in that table.
        column_number: i16,
        /// Whether it may be NULL; none = unknown.
        nullable: Option<bool>,
    }

    /// How a session stands.
    #[derive(Copy, Eq)]
    pub enum TxStatus {
        /// In no transaction.
        0 Idle,
        /// In a transaction.
        1 InTransaction,
        /// In a transaction that has failed.
        2 Failed,
    }

    /// Statements by name.
    pub enum Prepared {
        /// Gives a statement a name.
        0 Prepare {
            /// At most 63 bytes.
            name: String,
            /// One statement.
            sql: String,
            /// Types of the parameters; 0 or missing = PostgreSQL infers it.
            param_types: Vec<u32>,
        },
        /// Runs it.
        1 Execute {
            /// Which.
            name: String,
            /// Values of its parameters.
            params: Vec<Value>,
            /// None = all defaults.
            options: Option<QueryOptions>,
        },
        /// Asks what it takes and gives.
        2 Describe {
            /// Which.
            name: String,
        },
        /// Forgets it.
        3 Deallocate {
            /// Which.
            name: String,
        },
    }

    /// What a statement takes and gives.
    pub struct StatementInfo {
        /// Its name.
        name: String,
        /// Types of its parameters.
        param_types: Vec<u32>,
        /// Columns of its rows; empty if it gives none.
        columns: Vec<Column>,
    }

    /// Rows for a table; all parts have the same id.
    pub enum Bulk {
        /// Which table.
        0 Start {
            /// None = as the search path says.
            schema: Option<String>,
            /// Its name.
            table: String,
            /// Columns in the order of the values; empty = all.
            columns: Vec<String>,
            /// What happens to a row that is there already.
            on_conflict: OnConflict,
        },
        /// Rows.
        1 Rows {
            /// Counts these messages from 0.
            sequence: u32,
            /// The rows.
            rows: Vec<Vec<Value>>,
        },
        /// That was all.
        2 End,
        /// Nothing of it is wanted.
        3 Abort {
            /// Why, for the log.
            reason: String,
        },
    }

    /// What happens to a row that is there already.
    #[derive(Copy, Eq)]
    pub enum OnConflict {
        /// The whole insert fails.
        0 Fail,
        /// The row is left out.
        1 Skip,
    }

    /// A result or a large object in parts; all parts have the same id.
    pub enum Streaming {
        /// Client: asks for a result.
        0 Open {
            /// What is run.
            query: Box<Query>,
            /// Most rows in a part; 0 = the server's choice.
            chunk_rows: u32,
        },
        /// Server: what the rows consist of.
        1 Header {
            /// The columns.
            columns: Vec<Column>,
        },
        /// Server: rows.
        2 Chunk {
            /// Counts the parts from 0.
            sequence: u32,
            /// The rows.
            rows: Vec<Vec<Value>>,
        },
        /// Client: wants no more.
        3 Cancel,
        /// Server: that was all.
        4 End {
            /// How many rows, or bytes of a large object.
            rows: u64,
            /// PostgreSQL's tag of the command.
            command_tag: String,
            /// How the session stands.
            transaction_status: TxStatus,
        },
        /// Client: asks for a large object.
        5 OpenObject {
            /// Which.
            oid: u32,
            /// From which byte.
            offset: u64,
            /// How many bytes; none = to the end.
            length: Option<u64>,
        },
        /// Server: bytes of it.
        6 Data {
            /// Counts the parts from 0.
            sequence: u32,
            /// The bytes.
            bytes: Vec<u8>,
        },
    }

    /// LISTEN, and what comes without being asked for.
    pub enum Notification {
        /// Client: wants to hear of a channel.
        0 Listen {
            /// Its name.
            channel: String,
        },
        /// Client: no longer.
        1 Unlisten {
            /// Its name; none = all.
            channel: Option<String>,
        },
        /// Server: somebody notified a channel.
        2 Event {
            /// The channel.
            channel: String,
            /// What was said.
            payload: String,
            /// Number of the session that said it.
            process_id: i32,
        },
        /// Server: a notice of PostgreSQL.
        3 Notice {
            /// How important.
            severity: NoticeSeverity,
            /// Its SQLSTATE.
            sqlstate: String,
            /// Its text.
            message: String,
        },
        /// Server: a reported parameter has changed.
        4 ParameterStatus {
            /// Its name.
            name: String,
            /// The new value.
            value: String,
        },
        /// Server: something happened to the session.
        5 SessionEvent {
            /// What.
            event: String,
            /// More about it.
            detail: String,
        },
        /// Server: will stop.
        6 Shutdown {
            /// How long running requests have, in milliseconds.
            grace_ms: u32,
            /// Why.
            reason: String,
        },
    }

    /// How important a notice is.
    #[derive(Copy, Eq)]
    pub enum NoticeSeverity {
        /// For developers.
        0 Debug,
        /// For the server's log.
        1 Log,
        /// Was asked for.
        2 Info,
        /// May be helpful.
        3 Notice,
        /// Probably a mistake.
        4 Warning,
    }

    /// Isolation of a transaction.
    #[derive(Copy, Eq)]
    pub enum Isolation {
        /// In PostgreSQL the same as read committed.
        0 ReadUncommitted,
        /// A statement sees what was committed before it.
        1 ReadCommitted,
        /// A transaction sees what was committed before it.
        2 RepeatableRead,
        /// As if transactions ran one after the other.
        3 Serializable,
    }

    /// Why a request was not done. Fields that are not explained are PostgreSQL's.
    pub struct ErrorBody {
        /// What becomes of the connection.
        severity: Severity,
        /// Five characters.
        sqlstate: String,
        /// RustyDB's own code, the same in every protocol.
        code: String,
        /// What went wrong.
        message: String,
        /// More about it.
        detail: Option<String>,
        /// What to do.
        hint: Option<String>,
        /// Where in the statement, in characters from 1.
        position: Option<u32>,
        /// Where it happened inside functions.
        context: Option<String>,
        /// Schema that has to do with it.
        schema: Option<String>,
        /// Table that has to do with it.
        table: Option<String>,
        /// Column that has to do with it.
        column: Option<String>,
        /// Type that has to do with it.
        data_type: Option<String>,
        /// Constraint that has to do with it.
        constraint: Option<String>,
        /// Whether the same request may succeed later.
        retryable: bool,
        /// How long to wait before that, in milliseconds.
        retry_after_ms: Option<u32>,
        /// Finds the request in the server's log.
        trace_id: Option<String>,
    }

    /// What becomes of the connection after an error.
    #[derive(Copy, Eq)]
    pub enum Severity {
        /// It stays.
        0 Error,
        /// It closes.
        1 Fatal,
        /// It closes, and PostgreSQL is in trouble.
        2 Panic,
    }

    /// A request of the first protocol.
    pub enum SimpleRequest {
        /// As [`Message::Query`] without parameters.
        0 Query {
            /// Text.
            sql: String,
        },
        /// As [`Message::Begin`] with defaults.
        1 BeginTransaction,
        /// As [`Message::Commit`].
        2 Commit,
        /// As [`Message::Rollback`].
        3 Rollback,
        /// As [`Message::Ping`].
        4 Ping,
    }

    /// A reply of the first protocol.
    pub enum SimpleResponse {
        /// What the last statement gave.
        0 QueryResult {
            /// Names of the columns.
            columns: Vec<String>,
            /// The rows.
            rows: Vec<Vec<Value>>,
            /// How many rows were changed or given.
            affected_rows: u64,
        },
        /// A transaction has begun.
        1 TransactionId(id: u64),
        /// Done.
        2 Ok,
        /// Not done: `SQLSTATE: message`.
        3 Error(text: String),
        /// Still here.
        4 Pong,
    }
}

impl ErrorBody {
    /// An error with nothing but what every error has.
    pub fn new(severity: Severity, sqlstate: &str, code: &str, message: impl Into<String>) -> Self {
        Self {
            severity,
            sqlstate: sqlstate.to_owned(),
            code: code.to_owned(),
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
            context: None,
            schema: None,
            table: None,
            column: None,
            data_type: None,
            constraint: None,
            retryable: false,
            retry_after_ms: None,
            trace_id: None,
        }
    }
}
