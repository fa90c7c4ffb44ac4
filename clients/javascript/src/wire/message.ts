// Every message of the protocol, in both directions. Variants and fields are in the wire's order.

import { Reader, Writer } from "./buffer.js";
import {
  bool, bytes, i16, i32, i64, names, option, pair, str, struct, u16, u32, u64, unit, variants,
  vec, type TypeOf,
} from "./codec.js";
import { valueCodec as value } from "./value.js";

export const compressionType = names("None", "Lz4", "Zstd", "Snappy");
export type CompressionType = TypeOf<typeof compressionType>;

const authMethod = names(
  "ScramSha256", "ScramSha256Plus", "Password", "Token", "ApiKey", "Certificate", "Ldap",
  "Kerberos", "Saml", "Trust",
);
export type AuthMethod = TypeOf<typeof authMethod>;

/** What both sides have to agree on before it is used. */
export const capability = {
  STREAMING: 0x01,
  PIPELINING: 0x02,
  CHECKSUM: 0x04,
  NOTIFICATIONS: 0x08,
  BULK_INSERT: 0x10,
  PREPARED: 0x20,
  SUBSCRIPTIONS: 0x40,
  SIMPLE: 0x80,
} as const;

const txStatus = names("Idle", "InTransaction", "Failed");
/** How a session stands after a request. */
export type TxStatus = TypeOf<typeof txStatus>;

const isolation = names("ReadUncommitted", "ReadCommitted", "RepeatableRead", "Serializable");
export type Isolation = TypeOf<typeof isolation>;

const purity = names("New", "Self", "Any");
export type Purity = TypeOf<typeof purity>;

const version = struct({ major: u16, minor: u16 });
const extension = struct({ name: str, version: u16 });
const setting = pair(str, str);

const clientHello = struct({
  version,
  minVersion: version,
  clientName: str,
  clientVersion: str,
  compression: vec(compressionType),
  capabilities: u32,
  extensions: vec(extension),
  maxMessageSize: u32,
  streamWindow: u32,
  connectionWindow: u32,
});

const serverHello = struct({
  version,
  serverName: str,
  serverVersion: str,
  connectionId: u64,
  compression: compressionType,
  capabilities: u32,
  extensions: vec(extension),
  maxMessageSize: u32,
  maxSqlLength: u32,
  maxPendingRequests: u32,
  maxQueuedRequests: u32,
  maxBatchStatements: u32,
  streamWindow: u32,
  connectionWindow: u32,
  heartbeatIntervalMs: u32,
  authMethods: vec(authMethod),
});
export type ServerHello = TypeOf<typeof serverHello>;

const auth = variants({
  Start: struct({
    user: str,
    database: str,
    method: authMethod,
    applicationName: str,
    connectionClass: option(str),
    purity: option(purity),
    tag: option(str),
    parameters: vec(setting),
  }),
  SaslInitial: struct({ mechanism: str, data: bytes }),
  SaslResponse: struct({ data: bytes }),
  Password: struct({ password: str }),
  Token: struct({ token: str }),
  ApiKey: struct({ key: str }),
  Certificate: unit,
  Gss: struct({ data: bytes }),
  Saml: struct({ assertion: str }),
  MfaCode: struct({ challengeId: str, code: str }),
});
export type Auth = TypeOf<typeof auth>;

const authReply = variants({
  SaslContinue: struct({ data: bytes }),
  SaslFinal: struct({ data: bytes }),
  GssContinue: struct({ data: bytes }),
  MfaRequired: struct({ challengeId: str, methods: vec(str), expiresInSecs: u32 }),
  Success: struct({ sessionId: u64, user: str, roles: vec(str), parameters: vec(setting) }),
});
export type AuthReply = TypeOf<typeof authReply>;

const queryOptions = struct({
  timeoutMs: u32,
  maxRows: u32,
  readOnly: bool,
  traceparent: option(str),
  tracestate: option(str),
});
export type QueryOptions = TypeOf<typeof queryOptions>;

const query = struct({
  sql: str,
  params: vec(value),
  paramTypes: vec(u32),
  options: option(queryOptions),
});
export type Query = TypeOf<typeof query>;

const column = struct({
  name: str,
  typeOid: u32,
  typeName: str,
  typeModifier: i32,
  typeSize: i16,
  tableOid: u32,
  columnNumber: i16,
  nullable: option(bool),
});
/** A column of a result, as the server describes it. */
export type Column = TypeOf<typeof column>;

const row = vec(value);

const queryResponse = struct({
  statementIndex: u32,
  columns: vec(column),
  rows: vec(row),
  affectedRows: u64,
  commandTag: str,
  executionTimeUs: u64,
  transactionStatus: txStatus,
});
export type QueryResponse = TypeOf<typeof queryResponse>;

const prepared = variants({
  Prepare: struct({ name: str, sql: str, paramTypes: vec(u32) }),
  Execute: struct({ name: str, params: vec(value), options: option(queryOptions) }),
  Describe: struct({ name: str }),
  Deallocate: struct({ name: str }),
});

const statementInfo = struct({ name: str, paramTypes: vec(u32), columns: vec(column) });
export type StatementInfo = TypeOf<typeof statementInfo>;

const bulk = variants({
  Start: struct({
    schema: option(str),
    table: str,
    columns: vec(str),
    onConflict: names("Fail", "Skip"),
  }),
  Rows: struct({ sequence: u32, rows: vec(row) }),
  End: unit,
  Abort: struct({ reason: str }),
});

const streaming = variants({
  Open: struct({ query, chunkRows: u32 }),
  Header: struct({ columns: vec(column) }),
  Chunk: struct({ sequence: u32, rows: vec(row) }),
  Cancel: unit,
  End: struct({ rows: u64, commandTag: str, transactionStatus: txStatus }),
  OpenObject: struct({ oid: u32, offset: u64, length: option(u64) }),
  Data: struct({ sequence: u32, bytes }),
});

const notification = variants({
  Listen: struct({ channel: str }),
  Unlisten: struct({ channel: option(str) }),
  Event: struct({ channel: str, payload: str, processId: i32 }),
  Notice: struct({
    severity: names("Debug", "Log", "Info", "Notice", "Warning"),
    sqlstate: str,
    message: str,
  }),
  ParameterStatus: struct({ name: str, value: str }),
  SessionEvent: struct({ event: str, detail: str }),
  Shutdown: struct({ graceMs: u32, reason: str }),
});
export type ServerNotification = TypeOf<typeof notification>;

const ok = struct({ affectedRows: u64, commandTag: option(str), transactionStatus: txStatus });
export type Ok = TypeOf<typeof ok>;

const errorBody = struct({
  severity: names("Error", "Fatal", "Panic"),
  sqlstate: str,
  code: str,
  message: str,
  detail: option(str),
  hint: option(str),
  position: option(u32),
  context: option(str),
  schema: option(str),
  table: option(str),
  column: option(str),
  dataType: option(str),
  constraint: option(str),
  retryable: bool,
  retryAfterMs: option(u32),
  traceId: option(str),
});
export type ErrorBody = TypeOf<typeof errorBody>;

const sessionCommand = variants({
  Set: struct({ name: str, value: str, local: bool }),
  Show: struct({ name: str }),
  Reset: struct({ name: option(str) }),
  DiscardAll: unit,
  Acquire: struct({ connectionClass: option(str), tag: option(str), purity }),
  Release: struct({ tag: option(str) }),
});
export type SessionCommand = TypeOf<typeof sessionCommand>;

const streamEvent = struct({ stream: str, sequence: u64, timeUs: i64, body: str });
export type StreamEventBody = TypeOf<typeof streamEvent>;

const simpleRequest = variants({
  Query: struct({ sql: str }),
  BeginTransaction: unit,
  Commit: unit,
  Rollback: unit,
  Ping: unit,
});

const simpleResponse = variants({
  QueryResult: struct({ columns: vec(str), rows: vec(row), affectedRows: u64 }),
  TransactionId: u64,
  Ok: unit,
  Error: str,
  Pong: unit,
});

const message = variants({
  Handshake: variants({ ClientHello: clientHello, ServerHello: serverHello }),
  Auth: auth,
  AuthReply: authReply,
  Query: query,
  QueryResponse: queryResponse,
  PreparedStatement: prepared,
  StatementInfo: statementInfo,
  BulkInsert: bulk,
  Streaming: streaming,
  Heartbeat: struct({ sentAtUs: u64, pending: u32 }),
  Notification: notification,
  Begin: struct({
    isolation: option(isolation),
    readOnly: option(bool),
    deferrable: option(bool),
  }),
  TransactionStarted: struct({ transactionId: u64 }),
  Commit: struct({ andChain: bool }),
  Rollback: struct({ toSavepoint: option(str), andChain: bool }),
  Savepoint: struct({ name: str, release: bool }),
  Ping: unit,
  Pong: unit,
  Ok: ok,
  Error: errorBody,
  Cancel: struct({ target: u64 }),
  WindowUpdate: struct({ stream: u64, credit: u32 }),
  Session: sessionCommand,
  Subscribe: struct({ stream: str, params: vec(setting) }),
  StreamEvent: streamEvent,
  Unsubscribe: struct({ target: u64 }),
  Batch: struct({ statements: vec(query), atomic: bool, stopOnError: bool }),
  Simple: simpleRequest,
  SimpleReply: simpleResponse,
  Extension: struct({ name: str, payload: bytes }),
  Close: struct({ reason: str }),
});

/** One message of either direction: `kind` names it, `value` has its fields. */
export type Message = TypeOf<typeof message>;

/** The fields of one kind of message. */
export type MessageOf<K extends Message["kind"]> = Extract<Message, { kind: K }>;

/** The bytes of a message, after `reserve` bytes that are left for the frame's header. */
export function encodeMessage(content: Message, reserve = 0): Buffer {
  const writer = new Writer(reserve);
  message.write(writer, content);
  return writer.finish();
}

/** The message that `body` is, all of it. */
export function decodeMessage(body: Buffer): Message {
  const reader = new Reader(body);
  const content = message.read(reader);
  reader.finish();
  return content;
}
