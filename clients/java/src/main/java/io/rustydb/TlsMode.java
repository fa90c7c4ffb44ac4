// How much TLS a connection needs.
package io.rustydb;

/** The option {@code tls} of a connection string. */
public enum TlsMode {
    /** No TLS. */
    DISABLE,
    /** TLS if the server has it, without checking who the server is. */
    PREFER,
    /** TLS; the server's certificate is checked only against a given CA. */
    REQUIRE,
    /** TLS, and the server's certificate must come from a trusted CA. */
    VERIFY_CA,
    /** As {@link #VERIFY_CA}, and the certificate must be for the host's name. */
    VERIFY_FULL;

    /** The name in connection strings. */
    String optionName() {
        return name().toLowerCase(java.util.Locale.ROOT).replace('_', '-');
    }
}
