// The log-in without a server: the example of RFC 7677, and servers that do not know the password.
package io.rustydb;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.charset.StandardCharsets;
import org.junit.jupiter.api.Test;

class ScramTest {
    private static final String NONCE = "rOprNGfwEbeRWgbNEkqO";
    private static final String CHALLENGE = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
            + "s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    private static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static String text(byte[] bytes) {
        return new String(bytes, StandardCharsets.UTF_8);
    }

    // The RFC's example has a user's name in the first message, which we leave empty; these are
    // the values for the empty name, worked out with Python's hashlib.
    @Test
    void theProofIsThatOfAnotherImplementation() {
        Scram scram = new Scram("pencil", null, NONCE);
        assertEquals("SCRAM-SHA-256", scram.mechanism());
        assertEquals("n,,n=,r=" + NONCE, text(scram.first()));
        assertEquals("c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
                + ",p=qvT2SWdEH5Q06albL+hjSYuUhCG7VndFyzIb7CK4n9k=",
                text(scram.proof(utf8(CHALLENGE))));
        scram.verify(utf8("v=3HO6Qt1M4MKJrmlKaoOqLAI0/0TV0HZe7J9H3MBtSOg="));
    }

    @Test
    void theProofIsBoundToTheCertificate() {
        byte[] endPoint = new byte[32];
        endPoint[0] = 1;
        Scram scram = new Scram("pencil", endPoint, NONCE);
        assertEquals("SCRAM-SHA-256-PLUS", scram.mechanism());
        assertEquals("p=tls-server-end-point,,n=,r=" + NONCE, text(scram.first()));
        assertEquals("c="
                + "cD10bHMtc2VydmVyLWVuZC1wb2ludCwsAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
                + ",r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
                + ",p=BShjvhpoRxC3oNBuu76MFkvjwBALxufHSB8HqsIyS6A=",
                text(scram.proof(utf8(CHALLENGE))));
    }

    @Test
    void aServerThatDoesNotKnowThePasswordIsRefused() {
        Scram scram = new Scram("pencil", null, NONCE);
        assertThrows(RustyDBException.class, () -> scram.verify(utf8("v=AAAA")));
        scram.proof(utf8(CHALLENGE));
        for (String proof : new String[] {"v=AAAA", "v=", "x", "e=other-error", ""}) {
            assertThrows(RustyDBException.class, () -> scram.verify(utf8(proof)), proof);
        }
    }

    @Test
    void aForeignOrMalformedChallengeIsRefused() {
        for (String challenge : new String[] {
            "r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=" + NONCE + ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            CHALLENGE.replace("i=4096", "i=0"),
            CHALLENGE.replace("i=4096", "i=2000000000"),
            CHALLENGE.replace(",i=4096", ""),
            CHALLENGE.replace("s=W22ZaJ0SNY7soEsUEjb6gQ==,", ""),
            "m=ext," + CHALLENGE,
            ""}) {
            Scram scram = new Scram("pencil", null, NONCE);
            assertThrows(RustyDBException.class, () -> scram.proof(utf8(challenge)), challenge);
        }
    }

    @Test
    void noncesDiffer() {
        assertTrue(!text(new Scram("p", null).first()).equals(text(new Scram("p", null).first())));
    }

    // The examples of RFC 4013, and PostgreSQL's way with what is prohibited.
    @Test
    void passwordsArePrepared() {
        assertEquals("IX", SaslPrep.prepare("I\u00adX"));
        assertEquals("user", SaslPrep.prepare("user"));
        assertEquals("USER", SaslPrep.prepare("USER"));
        assertEquals("a", SaslPrep.prepare("\u00aa"));
        assertEquals("IX", SaslPrep.prepare("\u2168"));
        assertEquals("a b", SaslPrep.prepare("a\u00a0b"));
        assertEquals("\u0007", SaslPrep.prepare("\u0007"));
        assertEquals("\u06271", SaslPrep.prepare("\u06271"));
        assertEquals("\u0627a", SaslPrep.prepare("\u0627a"));
        assertEquals("pa\u00df", SaslPrep.prepare("pa\u00df"));
    }
}
