// How one request is to run.
package io.rustydb;

import java.time.Duration;

/** Options of a request; every method returns changed options and leaves these as they are. */
public final class QueryOptions {
    /** The client's time-out, all rows, nothing special. */
    public static final QueryOptions DEFAULT =
            new QueryOptions(null, 0, false, null, null, null, 0);

    private static final long MAX_U32 = 0xffff_ffffL;

    private final Duration timeout;
    private final long maxRows;
    private final boolean readOnly;
    private final String traceparent;
    private final String tracestate;
    private final CancelToken cancelToken;
    private final long chunkRows;

    private QueryOptions(Duration timeout, long maxRows, boolean readOnly, String traceparent,
            String tracestate, CancelToken cancelToken, long chunkRows) {
        this.timeout = timeout;
        this.maxRows = maxRows;
        this.readOnly = readOnly;
        this.traceparent = traceparent;
        this.tracestate = tracestate;
        this.cancelToken = cancelToken;
        this.chunkRows = chunkRows;
    }

    /**
     * How long the request may take, instead of the client's time-out; the server cancels it then,
     * too. Of a stream, how long each part of it may take.
     */
    public QueryOptions timeout(Duration value) {
        if (value.toMillis() < 1 || value.toMillis() > MAX_U32) {
            throw new IllegalArgumentException("a time-out must be 1 to " + MAX_U32 + " ms");
        }
        return new QueryOptions(
                value, maxRows, readOnly, traceparent, tracestate, cancelToken, chunkRows);
    }

    /** Cuts the result after so many rows; 0 for all. */
    public QueryOptions maxRows(long value) {
        return new QueryOptions(timeout, unsigned(value), readOnly, traceparent, tracestate,
                cancelToken, chunkRows);
    }

    /**
     * The statement may not write. It is also repeated where the connection was lost before the
     * answer came, which a statement that may write is not.
     */
    public QueryOptions readOnly() {
        return new QueryOptions(
                timeout, maxRows, true, traceparent, tracestate, cancelToken, chunkRows);
    }

    /** The W3C trace context that the request belongs to; the state may be null. */
    public QueryOptions trace(String parent, String state) {
        return new QueryOptions(timeout, maxRows, readOnly, parent, state, cancelToken, chunkRows);
    }

    /** Lets another thread cancel the request. */
    public QueryOptions cancelToken(CancelToken value) {
        return new QueryOptions(
                timeout, maxRows, readOnly, traceparent, tracestate, value, chunkRows);
    }

    /** How many rows of a stream travel together at most; 0 is the server's choice. */
    public QueryOptions chunkRows(long value) {
        return new QueryOptions(timeout, maxRows, readOnly, traceparent, tracestate, cancelToken,
                unsigned(value));
    }

    private static long unsigned(long value) {
        if (value < 0 || value > MAX_U32) {
            throw new IllegalArgumentException("a number of rows must be 0 to " + MAX_U32);
        }
        return value;
    }

    Duration timeoutOr(Duration other) {
        return timeout == null ? other : timeout;
    }

    boolean isReadOnly() {
        return readOnly;
    }

    CancelToken cancelToken() {
        return cancelToken;
    }

    long chunkRows() {
        return chunkRows;
    }

    /** What the server has to know, or null for nothing. */
    Message.Options onWire() {
        if (timeout == null && maxRows == 0 && !readOnly && traceparent == null) {
            return null;
        }
        return new Message.Options(timeout == null ? 0 : timeout.toMillis(), maxRows, readOnly,
                traceparent, tracestate);
    }
}
