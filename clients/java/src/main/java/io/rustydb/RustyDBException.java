// The one exception of the library.
package io.rustydb;

/**
 * An error of the server, of the connection, or of this library.
 *
 * <p>{@link #getSqlState()} and {@link #getCode()} are always there; the other fields are null
 * where they do not apply. Unchecked, because few callers can do more than report it.
 */
public final class RustyDBException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    private final ErrorBody body;
    private final boolean fromServer;
    private final boolean sent;

    private RustyDBException(ErrorBody body, boolean fromServer, boolean sent, Throwable cause) {
        super(body.message(), cause);
        this.body = body;
        this.fromServer = fromServer;
        this.sent = sent;
    }

    /** What the server answered. */
    static RustyDBException fromServer(ErrorBody body) {
        return new RustyDBException(body, true, true, null);
    }

    /** What this library found wrong itself. */
    static RustyDBException local(String sqlState, String code, String message) {
        return local(sqlState, code, message, null);
    }

    static RustyDBException local(String sqlState, String code, String message, Throwable cause) {
        return new RustyDBException(body(sqlState, code, message), false, true, cause);
    }

    static RustyDBException protocol(String message) {
        return local("08P01", "PROTOCOL_VIOLATION", message);
    }

    static RustyDBException tooLarge(String message) {
        return local("54000", "PAYLOAD_TOO_LARGE", message);
    }

    static RustyDBException outOfRange(String message) {
        return local("22003", "VALIDATION_ERROR", message);
    }

    static RustyDBException malformed(String message) {
        return local("22P02", "VALIDATION_ERROR", message);
    }

    static RustyDBException invalidUse(String message) {
        return local("55000", "VALIDATION_ERROR", message);
    }

    static RustyDBException timeout(String message) {
        return local("57014", "TIMEOUT", message);
    }

    /** The connection was lost while requests were under way. */
    static RustyDBException lost(String message, Throwable cause) {
        return local("08006", "CONNECTION_FAILURE", message, cause);
    }

    /** The connection was lost before the request left, so it certainly did not run. */
    RustyDBException beforeSending() {
        return new RustyDBException(body, fromServer, false, this);
    }

    /** The same error, thrown again where another request met it. */
    RustyDBException again() {
        return new RustyDBException(body, fromServer, sent, this);
    }

    private static ErrorBody body(String sqlState, String code, String message) {
        return new ErrorBody(Severity.ERROR, sqlState, code, message, null, null, null, null,
                null, null, null, null, null, false, null, null);
    }

    /** Whether the request may have reached the server. */
    boolean wasSent() {
        return sent;
    }

    /** Whether the server reported the error, and not this library. */
    public boolean isFromServer() {
        return fromServer;
    }

    /** Whether the connection survived. */
    public Severity getSeverity() {
        return body.severity();
    }

    /** The five characters of PostgreSQL's SQLSTATE. */
    public String getSqlState() {
        return body.sqlstate();
    }

    /** RustyDB's code, for example {@code NOT_FOUND}. */
    public String getCode() {
        return body.code();
    }

    /** More about the cause. */
    public String getDetail() {
        return body.detail();
    }

    /** What to do about it. */
    public String getHint() {
        return body.hint();
    }

    /** Where in the SQL text, in characters from 1. */
    public Integer getPosition() {
        return body.position() == null ? null : body.position().intValue();
    }

    /** The functions and statements around the place. */
    public String getContext() {
        return body.context();
    }

    /** The schema that the error is about. */
    public String getSchema() {
        return body.schema();
    }

    /** The table that the error is about. */
    public String getTable() {
        return body.table();
    }

    /** The column that the error is about. */
    public String getColumn() {
        return body.column();
    }

    /** The data type that the error is about. */
    public String getDataType() {
        return body.dataType();
    }

    /** The constraint that was broken. */
    public String getConstraint() {
        return body.constraint();
    }

    /** Whether the same request may succeed when it is sent again. */
    public boolean isRetryable() {
        return body.retryable();
    }

    /** How many milliseconds to wait before that. */
    public Long getRetryAfterMillis() {
        return body.retryAfterMs();
    }

    /** What the server's log calls the request. */
    public String getTraceId() {
        return body.traceId();
    }

    @Override
    public String toString() {
        return "RustyDBException: " + body.message() + " (SQLSTATE " + body.sqlstate() + ", "
                + body.code() + ")";
    }
}
