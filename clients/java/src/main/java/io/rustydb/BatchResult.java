// What became of one statement of a batch.
package io.rustydb;

/** Either a result or an error. */
public final class BatchResult {
    private final ResultSet result;
    private final RustyDBException error;

    BatchResult(ResultSet result, RustyDBException error) {
        this.result = result;
        this.error = error;
    }

    /** Whether the statement failed. */
    public boolean isError() {
        return error != null;
    }

    /** Why it failed, or null. */
    public RustyDBException error() {
        return error;
    }

    /**
     * Its result.
     *
     * @throws RustyDBException its error, if it failed
     */
    public ResultSet result() {
        if (error != null) {
            throw error;
        }
        return result;
    }
}
