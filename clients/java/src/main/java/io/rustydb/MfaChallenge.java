// A second factor that a log-in needs.
package io.rustydb;

import java.time.Duration;
import java.util.List;

/**
 * The server asks for a code.
 *
 * @param id the challenge's name
 * @param methods the kinds of codes it takes, for example {@code totp}
 * @param expiresIn how long the answer may take
 */
public record MfaChallenge(String id, List<String> methods, Duration expiresIn) {
}
