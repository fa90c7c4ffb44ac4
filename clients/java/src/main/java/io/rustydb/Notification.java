// What NOTIFY sends.
package io.rustydb;

/**
 * A notification of a channel.
 *
 * @param channel the channel
 * @param payload the text given to NOTIFY, perhaps empty
 * @param processId the PostgreSQL process that sent it
 */
public record Notification(String channel, String payload, int processId) {
}
