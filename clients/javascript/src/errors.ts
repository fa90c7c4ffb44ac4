// The one error class of the library, for errors of the server and of the client alike.

import type { ErrorBody } from "./wire/message.js";

/** How bad an error is: after anything but `Error` the connection is gone. */
export type Severity = "Error" | "Fatal" | "Panic";

/** What an error may carry beside its SQLSTATE, code and message. */
export interface ErrorFields {
  severity?: Severity;
  detail?: string | null;
  hint?: string | null;
  position?: number | null;
  context?: string | null;
  schema?: string | null;
  table?: string | null;
  column?: string | null;
  dataType?: string | null;
  constraint?: string | null;
  retryable?: boolean;
  retryAfterMs?: number | null;
  traceId?: string | null;
  cause?: unknown;
}

/**
 * Everything that goes wrong: what PostgreSQL or RustyDB answered, and what the client itself found
 * (a lost connection, a time-out, a value that does not fit). Fields without a value are undefined.
 */
export class RustyDBError extends Error {
  override readonly name = "RustyDBError";
  /** `Error` leaves the connection usable, `Fatal` and `Panic` end it. */
  readonly severity: Severity;
  /** PostgreSQL's five-character code, for example `23505`. */
  readonly sqlstate: string;
  /** RustyDB's name for the kind of error, for example `CONFLICT`. */
  readonly code: string;
  readonly detail: string | undefined;
  readonly hint: string | undefined;
  /** Where in the SQL text, in characters from 1. */
  readonly position: number | undefined;
  /** Where PostgreSQL was, for example the line of a function. */
  readonly context: string | undefined;
  readonly schema: string | undefined;
  readonly table: string | undefined;
  readonly column: string | undefined;
  readonly dataType: string | undefined;
  readonly constraint: string | undefined;
  /** Whether the same request, or transaction, may succeed when it is tried again. */
  readonly retryable: boolean;
  /** How long to wait before that, in milliseconds. */
  readonly retryAfterMs: number | undefined;
  /** To find the error in the server's log. */
  readonly traceId: string | undefined;

  constructor(sqlstate: string, code: string, message: string, fields: ErrorFields = {}) {
    super(message, fields.cause === undefined ? undefined : { cause: fields.cause });
    this.severity = fields.severity ?? "Error";
    this.sqlstate = sqlstate;
    this.code = code;
    this.detail = fields.detail ?? undefined;
    this.hint = fields.hint ?? undefined;
    this.position = fields.position ?? undefined;
    this.context = fields.context ?? undefined;
    this.schema = fields.schema ?? undefined;
    this.table = fields.table ?? undefined;
    this.column = fields.column ?? undefined;
    this.dataType = fields.dataType ?? undefined;
    this.constraint = fields.constraint ?? undefined;
    this.retryable = fields.retryable ?? false;
    this.retryAfterMs = fields.retryAfterMs ?? undefined;
    this.traceId = fields.traceId ?? undefined;
  }

  /** The error that the server sent. */
  static fromBody(body: ErrorBody): RustyDBError {
    return new RustyDBError(body.sqlstate, body.code, body.message, body);
  }
}

/** Bytes that are not what the protocol says. The connection cannot go on. */
export function protocolViolation(message: string, code = "PROTOCOL_VIOLATION"): RustyDBError {
  return new RustyDBError("08P01", code, message, { severity: "Fatal" });
}

/** The connection is gone; `retryable` says that the request certainly never left. */
export function connectionLost(message: string, retryable: boolean, cause?: unknown): RustyDBError {
  const fields: ErrorFields = { severity: "Fatal", retryable, cause };
  return new RustyDBError("08006", "CONNECTION_FAILURE", message, fields);
}

/** Something in the program's use of the library is wrong: an option, an order of calls. */
export function usageError(message: string, hint?: string): RustyDBError {
  return new RustyDBError("22023", "VALIDATION_ERROR", message, { hint });
}

/** A value that does not fit the type it is sent as. */
export function outOfRange(message: string): RustyDBError {
  return new RustyDBError("22003", "VALIDATION_ERROR", message);
}

/** A value whose text or shape is not that of its type. */
export function malformedValue(message: string): RustyDBError {
  return new RustyDBError("22P02", "VALIDATION_ERROR", message);
}

export function timedOut(message: string): RustyDBError {
  return new RustyDBError("57014", "TIMEOUT", message);
}
