// Something the server mentions on the side.
package io.rustydb;

/**
 * A notice or warning of PostgreSQL, for example of {@code RAISE NOTICE}.
 *
 * @param severity its level
 * @param sqlState the five characters of PostgreSQL's SQLSTATE
 * @param message its text
 */
public record Notice(NoticeSeverity severity, String sqlState, String message) {
}
