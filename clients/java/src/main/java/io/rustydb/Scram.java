// SCRAM-SHA-256 (RFC 5802, RFC 7677), the client's side, without I/O.
package io.rustydb;

import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.security.SecureRandom;
import java.util.Base64;
import java.util.HashMap;
import java.util.Map;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/** One log-in: first message, answer to the server's challenge, check of the server's proof. */
final class Scram {
    private static final int MAX_ITERATIONS = 10_000_000;

    private final String password;
    private final String nonce;
    private final String header;
    private final byte[] endPoint;
    private byte[] serverSignature;

    /** Bound to the server's certificate where {@code endPoint} is not null. */
    Scram(String password, byte[] endPoint) {
        this(password, endPoint, randomNonce());
    }

    Scram(String password, byte[] endPoint, String nonce) {
        this.password = SaslPrep.prepare(password);
        this.endPoint = endPoint;
        this.nonce = nonce;
        this.header = endPoint == null ? "n,," : "p=tls-server-end-point,,";
    }

    private static String randomNonce() {
        byte[] bytes = new byte[18];
        new SecureRandom().nextBytes(bytes);
        return Base64.getEncoder().encodeToString(bytes);
    }

    String mechanism() {
        return endPoint == null ? "SCRAM-SHA-256" : "SCRAM-SHA-256-PLUS";
    }

    // The user's name travels in Auth::Start; PostgreSQL does not read this one either.
    private String firstBare() {
        return "n=,r=" + nonce;
    }

    byte[] first() {
        return utf8(header + firstBare());
    }

    /** The proof that answers the server's first message. */
    byte[] proof(byte[] serverFirst) {
        String challenge = new String(serverFirst, StandardCharsets.UTF_8);
        Map<String, String> fields = fields(challenge);
        String combined = fields.getOrDefault("r", "");
        if (!combined.startsWith(nonce) || combined.length() == nonce.length()) {
            throw refused("the server's nonce does not continue ours");
        }
        byte[] salted = salted(decode(fields.get("s")), iterations(fields.get("i")));
        String binding = Base64.getEncoder().encodeToString(bindingData());
        String withoutProof = "c=" + binding + ",r=" + combined;
        byte[] signed = utf8(firstBare() + "," + challenge + "," + withoutProof);
        byte[] clientKey = hmac(salted, utf8("Client Key"));
        byte[] proof = hmac(sha256(clientKey), signed);
        for (int i = 0; i < proof.length; i++) {
            proof[i] ^= clientKey[i];
        }
        serverSignature = hmac(hmac(salted, utf8("Server Key")), signed);
        return utf8(withoutProof + ",p=" + Base64.getEncoder().encodeToString(proof));
    }

    private byte[] bindingData() {
        byte[] prefix = utf8(header);
        if (endPoint == null) {
            return prefix;
        }
        byte[] data = java.util.Arrays.copyOf(prefix, prefix.length + endPoint.length);
        System.arraycopy(endPoint, 0, data, prefix.length, endPoint.length);
        return data;
    }

    /** Checks that the server knows the password, too. */
    void verify(byte[] serverFinal) {
        Map<String, String> fields = fields(new String(serverFinal, StandardCharsets.UTF_8));
        if (fields.containsKey("e")) {
            throw refused("the server refused the log-in: " + fields.get("e"));
        }
        boolean known = serverSignature != null
                && MessageDigest.isEqual(serverSignature, decode(fields.get("v")));
        if (!known) {
            throw refused("the server does not know the password");
        }
    }

    private static Map<String, String> fields(String message) {
        Map<String, String> fields = new HashMap<>();
        for (String field : message.split(",")) {
            int equals = field.indexOf('=');
            if (equals != 1) {
                throw refused("the server's SCRAM message is malformed");
            }
            fields.putIfAbsent(field.substring(0, 1), field.substring(2));
        }
        if (fields.containsKey("m")) {
            throw refused("the server demands an unknown SCRAM extension");
        }
        return fields;
    }

    private static byte[] decode(String base64) {
        try {
            return Base64.getDecoder().decode(base64 == null ? "?" : base64);
        } catch (IllegalArgumentException e) {
            throw refused("the server's SCRAM message is malformed");
        }
    }

    private static int iterations(String text) {
        try {
            int iterations = Integer.parseInt(text);
            if (iterations >= 1 && iterations <= MAX_ITERATIONS) {
                return iterations;
            }
        } catch (NumberFormatException e) {
            // The same error as for a number out of range.
        }
        throw refused("the server demands an impossible number of iterations");
    }

    private byte[] salted(byte[] salt, int iterations) {
        // PBKDF2 with one block.
        Mac mac = mac(utf8(password));
        mac.update(salt);
        byte[] block = mac.doFinal(new byte[] {0, 0, 0, 1});
        byte[] result = block.clone();
        for (int i = 1; i < iterations; i++) {
            block = mac.doFinal(block);
            for (int j = 0; j < result.length; j++) {
                result[j] ^= block[j];
            }
        }
        return result;
    }

    private static byte[] hmac(byte[] key, byte[] data) {
        return mac(key).doFinal(data);
    }

    private static Mac mac(byte[] key) {
        try {
            Mac mac = Mac.getInstance("HmacSHA256");
            // HMAC pads keys with zeros; Java refuses the empty one, so one zero stands for it.
            mac.init(new SecretKeySpec(key.length == 0 ? new byte[1] : key, "HmacSHA256"));
            return mac;
        } catch (GeneralSecurityException e) {
            throw new IllegalStateException("every Java has HMAC-SHA-256", e);
        }
    }

    private static byte[] sha256(byte[] data) {
        try {
            return MessageDigest.getInstance("SHA-256").digest(data);
        } catch (GeneralSecurityException e) {
            throw new IllegalStateException("every Java has SHA-256", e);
        }
    }

    private static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static RustyDBException refused(String why) {
        return RustyDBException.local("28000", "AUTHENTICATION_FAILED", why);
    }
}
