// Ways to log in; the order is that of the wire.
package io.rustydb;

/** How a client proves who it is. */
public enum AuthMethod {
    /** SCRAM-SHA-256: the password never leaves the client. */
    SCRAM_SHA256,
    /** SCRAM-SHA-256 bound to the server's certificate. */
    SCRAM_SHA256_PLUS,
    /** The password itself. */
    PASSWORD,
    /** A JWT or an OAuth 2.0 access token. */
    TOKEN,
    /** An API key. */
    API_KEY,
    /** The client certificate of the TLS connection. */
    CERTIFICATE,
    /** The password itself, for the server to check with LDAP; no RustyDB does so yet. */
    LDAP,
    /** Kerberos; this library does not support it. */
    KERBEROS,
    /** A SAML assertion in base64; no RustyDB takes one yet. */
    SAML,
    /** None: the server trusts the client. */
    TRUST
}
