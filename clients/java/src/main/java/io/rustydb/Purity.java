// What a borrowed session may have been used for; the order is that of the wire.
package io.rustydb;

/** Which sessions of its connection class a client accepts. */
public enum Purity {
    /** Only a new one. */
    NEW,
    /** One that the same user had before. */
    SELF,
    /** Any. */
    ANY
}
