// A parameter whose type the server is told.
package io.rustydb;

/**
 * A parameter with the OID of its type, where the server could not infer it from the statement.
 *
 * @param value anything that {@link Value#of} takes
 * @param typeOid the OID of PostgreSQL's type
 */
public record Parameter(Object value, long typeOid) {
}
