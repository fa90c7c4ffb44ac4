// What the package offers.

export { RustyDBClient, type ClientEvents, type Notice } from "./client.js";
export { INFINITY, NEGATIVE_INFINITY } from "./datetime.js";
export { pg, Typed, type Parameter } from "./encode.js";
export { RustyDBError, type Severity } from "./errors.js";
export {
  Subscription, type Notification, type NotificationHandler, type StreamEvent,
} from "./events.js";
export type {
  AuthKind, ClientOptions, MfaChallenge, TlsMode,
} from "./options.js";
export { PreparedStatement, type PrepareOptions } from "./prepared.js";
export type { BatchOptions, BatchStatement, ObjectOptions } from "./queries.js";
export type { BulkOptions, BulkRow } from "./bulk.js";
export type {
  Column, QueryRequestOptions, QueryResult, RequestOptions, Row,
} from "./result.js";
export { Session, type AcquireOptions } from "./session.js";
export { RowStream, type StreamOptions } from "./stream.js";
export {
  Transaction, type EndOptions, type TransactionOptions,
} from "./transaction.js";
export {
  Composite, Interval, Money, Multirange, oid, OtherValue, Range, type IntervalParts,
  type RangeEnd,
} from "./types.js";
