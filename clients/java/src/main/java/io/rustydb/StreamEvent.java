// What a subscription brings.
package io.rustydb;

import java.time.OffsetDateTime;

/**
 * An event of a subscription.
 *
 * @param stream the stream's name
 * @param sequence counts the events of the subscription
 * @param time when it happened
 * @param body a JSON document
 */
public record StreamEvent(String stream, long sequence, OffsetDateTime time, String body) {
}
