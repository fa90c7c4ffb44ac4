// SASLprep (RFC 4013) for passwords, as PostgreSQL uses it.
package io.rustydb;

import java.text.Normalizer;

/**
 * Where a password may not be prepared, PostgreSQL takes it as it is, and so does this.
 *
 * <p>Unicode's newer characters are prepared, too, although RFC 3454 does not know them.
 */
final class SaslPrep {
    private SaslPrep() {
    }

    static String prepare(String password) {
        if (password.chars().allMatch(c -> c >= ' ' && c < 0x7f)) {
            return password;
        }
        StringBuilder mapped = new StringBuilder();
        password.codePoints().filter(c -> !isMappedToNothing(c))
                .forEach(c -> mapped.appendCodePoint(isSpace(c) ? ' ' : c));
        String prepared = Normalizer.normalize(mapped, Normalizer.Form.NFKC);
        boolean allowed = !prepared.isEmpty()
                && prepared.codePoints().noneMatch(SaslPrep::isProhibited)
                && isConsistentlyDirected(prepared);
        return allowed ? prepared : password;
    }

    // RFC 3454, table B.1.
    private static boolean isMappedToNothing(int c) {
        return c == 0xad || c == 0x34f || c == 0x1806 || c >= 0x180b && c <= 0x180d
                || c >= 0x200b && c <= 0x200d || c == 0x2060 || c >= 0xfe00 && c <= 0xfe0f
                || c == 0xfeff;
    }

    // RFC 3454, table C.1.2.
    private static boolean isSpace(int c) {
        return c == 0xa0 || c == 0x1680 || c >= 0x2000 && c <= 0x200b || c == 0x202f
                || c == 0x205f || c == 0x3000;
    }

    // RFC 3454, tables C.2 to C.9.
    private static boolean isProhibited(int c) {
        return Character.isISOControl(c) || c == 0x6dd || c == 0x70f || c == 0x180e
                || c == 0x200c || c == 0x200d || c >= 0x2028 && c <= 0x202e
                || c >= 0x2060 && c <= 0x2063 || c >= 0x206a && c <= 0x206f || c == 0xfeff
                || c >= 0xfff9 && c <= 0xfffd || c >= 0x1d173 && c <= 0x1d17a
                || Character.getType(c) == Character.PRIVATE_USE
                || Character.getType(c) == Character.SURROGATE
                || (c & 0xfffe) == 0xfffe || c >= 0xfdd0 && c <= 0xfdef
                || c >= 0x2ff0 && c <= 0x2ffb || c == 0x340 || c == 0x341 || c == 0x200e
                || c == 0x200f || c == 0xe0001 || c >= 0xe0020 && c <= 0xe007f;
    }

    // RFC 3454, section 6: text from right to left begins and ends so, and has no other.
    private static boolean isConsistentlyDirected(String text) {
        if (text.codePoints().noneMatch(SaslPrep::isRightToLeft)) {
            return true;
        }
        return text.codePoints()
                .noneMatch(c -> Character.getDirectionality(c)
                        == Character.DIRECTIONALITY_LEFT_TO_RIGHT)
                && isRightToLeft(text.codePointAt(0))
                && isRightToLeft(text.codePointBefore(text.length()));
    }

    private static boolean isRightToLeft(int c) {
        byte direction = Character.getDirectionality(c);
        return direction == Character.DIRECTIONALITY_RIGHT_TO_LEFT
                || direction == Character.DIRECTIONALITY_RIGHT_TO_LEFT_ARABIC;
    }
}
