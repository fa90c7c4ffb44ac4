// Java's stand-ins for PostgreSQL's infinite dates.
package io.rustydb;

import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.OffsetDateTime;

/** What {@code infinity} and {@code -infinity} are in Java, as results and as parameters. */
public final class Infinity {
    /** The date {@code infinity}. */
    public static final LocalDate DATE = LocalDate.MAX;
    /** The date {@code -infinity}. */
    public static final LocalDate NEGATIVE_DATE = LocalDate.MIN;
    /** The timestamp {@code infinity}. */
    public static final LocalDateTime TIMESTAMP = LocalDateTime.MAX;
    /** The timestamp {@code -infinity}. */
    public static final LocalDateTime NEGATIVE_TIMESTAMP = LocalDateTime.MIN;
    /** The timestamptz {@code infinity}. */
    public static final OffsetDateTime TIMESTAMPTZ = OffsetDateTime.MAX;
    /** The timestamptz {@code -infinity}. */
    public static final OffsetDateTime NEGATIVE_TIMESTAMPTZ = OffsetDateTime.MIN;

    private Infinity() {
    }
}
