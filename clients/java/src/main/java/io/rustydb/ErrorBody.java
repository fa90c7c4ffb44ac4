// The fields of an error as they travel.
package io.rustydb;

/** What the server says about an error; what does not apply is null. */
record ErrorBody(
        Severity severity,
        String sqlstate,
        String code,
        String message,
        String detail,
        String hint,
        Long position,
        String context,
        String schema,
        String table,
        String column,
        String dataType,
        String constraint,
        boolean retryable,
        Long retryAfterMs,
        String traceId) implements java.io.Serializable {

    static ErrorBody read(WireReader in) {
        return new ErrorBody(
                in.variant(Severity.values()), in.string(), in.string(), in.string(),
                in.option(WireReader::string), in.option(WireReader::string),
                in.option(WireReader::u32), in.option(WireReader::string),
                in.option(WireReader::string), in.option(WireReader::string),
                in.option(WireReader::string), in.option(WireReader::string),
                in.option(WireReader::string), in.bool(),
                in.option(WireReader::u32), in.option(WireReader::string));
    }

    void write(WireWriter out) {
        out.variant(severity);
        out.string(sqlstate);
        out.string(code);
        out.string(message);
        out.option(detail, WireWriter::string);
        out.option(hint, WireWriter::string);
        out.option(position, WireWriter::u32);
        out.option(context, WireWriter::string);
        out.option(schema, WireWriter::string);
        out.option(table, WireWriter::string);
        out.option(column, WireWriter::string);
        out.option(dataType, WireWriter::string);
        out.option(constraint, WireWriter::string);
        out.bool(retryable);
        out.option(retryAfterMs, WireWriter::u32);
        out.option(traceId, WireWriter::string);
    }
}
