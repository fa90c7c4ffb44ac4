// How important a notice is; the order is that of the wire.
package io.rustydb;

/** The level of a {@link Notice}. */
public enum NoticeSeverity {
    /** For developers. */
    DEBUG,
    /** For administrators. */
    LOG,
    /** Asked for by the user. */
    INFO,
    /** Of some interest. */
    NOTICE,
    /** Probably a mistake. */
    WARNING
}
