// Connection strings: rustydb://user:password@host:port/database?options
package io.rustydb;

import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** Everything is percent-encoded; unknown options are an error. */
final class ConnectionUrl {
    private static final String SCHEME = "rustydb://";

    private ConnectionUrl() {
    }

    /** Puts what the text says into the configuration. */
    static void apply(String url, Config config) {
        if (!url.startsWith(SCHEME)) {
            throw bad("it has to begin with " + SCHEME);
        }
        String rest = url.substring(SCHEME.length());
        int question = rest.indexOf('?');
        String options = question < 0 ? "" : rest.substring(question + 1);
        rest = question < 0 ? rest : rest.substring(0, question);
        int slash = rest.indexOf('/');
        if (slash >= 0) {
            config.database = decode(rest.substring(slash + 1));
            rest = rest.substring(0, slash);
        }
        int at = rest.lastIndexOf('@');
        if (at >= 0) {
            applyUser(rest.substring(0, at), config);
        }
        config.hosts = hosts(rest.substring(at + 1));
        for (String option : options.split("&")) {
            if (!option.isEmpty()) {
                int equals = option.indexOf('=');
                if (equals < 0) {
                    throw bad("the option " + option + " has no value");
                }
                applyOption(decode(option.substring(0, equals)),
                        decode(option.substring(equals + 1)), config);
            }
        }
    }

    private static void applyUser(String text, Config config) {
        int colon = text.indexOf(':');
        config.user = decode(colon < 0 ? text : text.substring(0, colon));
        if (colon >= 0) {
            config.password = decode(text.substring(colon + 1));
        }
    }

    private static List<Config.Host> hosts(String text) {
        List<Config.Host> hosts = new ArrayList<>();
        for (String host : text.split(",", -1)) {
            hosts.add(host(host));
        }
        return List.copyOf(hosts);
    }

    private static Config.Host host(String text) {
        int nameEnd;
        String name;
        if (text.startsWith("[")) {
            nameEnd = text.indexOf(']') + 1;
            if (nameEnd == 0) {
                throw bad("the address " + text + " has no closing bracket");
            }
            name = text.substring(1, nameEnd - 1);
        } else {
            int colon = text.indexOf(':');
            nameEnd = colon < 0 ? text.length() : colon;
            name = decode(text.substring(0, nameEnd));
        }
        String port = text.substring(nameEnd);
        if (port.isEmpty() || port.equals(":")) {
            return new Config.Host(name.isEmpty() ? "localhost" : name, Config.DEFAULT_PORT);
        }
        int number = port.startsWith(":") ? number("port", port.substring(1), 65_535) : 0;
        if (number == 0) {
            throw bad("not a port: " + port);
        }
        return new Config.Host(name.isEmpty() ? "localhost" : name, number);
    }

    private static void applyOption(String name, String value, Config config) {
        switch (name) {
            case "timeout" -> config.timeout = seconds(name, value);
            case "pool_size" -> config.poolSize = number(name, value, Integer.MAX_VALUE);
            case "min_pool_size" -> config.minPoolSize = number(name, value, Integer.MAX_VALUE);
            case "idle_timeout" -> config.idleTimeout = seconds(name, value);
            case "tls" -> config.tls = tls(value);
            case "tls_ca" -> config.tlsCa = Path.of(value);
            case "tls_cert" -> config.tlsCert = Path.of(value);
            case "tls_key" -> config.tlsKey = Path.of(value);
            case "auth" -> config.auth = auth(value);
            case "token" -> config.token = value;
            case "api_key" -> config.apiKey = value;
            case "compression" -> config.compression = compression(value);
            case "checksum" -> config.checksum = bool(name, value);
            case "application_name" -> config.applicationName = value;
            case "connection_class" -> config.connectionClass = value;
            case "purity" -> config.purity = purity(value);
            case "tag" -> config.tag = value;
            case "stream_window" -> config.streamWindow = number(name, value, Integer.MAX_VALUE);
            case "connection_window" ->
                    config.connectionWindow = number(name, value, Integer.MAX_VALUE);
            default -> throw bad("unknown option " + name);
        }
    }

    private static Duration seconds(String name, String value) {
        if (!value.matches("[0-9]{1,9}([.][0-9]{1,9})?")) {
            throw bad(name + " must be a number of seconds, not " + value);
        }
        return Duration.ofNanos(new BigDecimal(value).movePointRight(9).longValueExact());
    }

    private static int number(String name, String value, int greatest) {
        try {
            long number = Long.parseLong(value);
            if (number >= 0 && number <= greatest) {
                return (int) number;
            }
        } catch (NumberFormatException e) {
            // The same error as for a number out of range.
        }
        throw bad(name + " must be a number from 0 to " + greatest + ", not " + value);
    }

    private static boolean bool(String name, String value) {
        return switch (value) {
            case "true" -> true;
            case "false" -> false;
            default -> throw bad(name + " must be true or false, not " + value);
        };
    }

    private static TlsMode tls(String value) {
        return Arrays.stream(TlsMode.values())
                .filter(mode -> mode.optionName().equals(value)).findFirst()
                .orElseThrow(() -> bad("tls must be disable, prefer, require, verify-ca or "
                        + "verify-full, not " + value));
    }

    private static AuthMethod auth(String value) {
        return switch (value) {
            case "scram-sha-256" -> AuthMethod.SCRAM_SHA256;
            case "password" -> AuthMethod.PASSWORD;
            case "token" -> AuthMethod.TOKEN;
            case "apikey" -> AuthMethod.API_KEY;
            case "certificate" -> AuthMethod.CERTIFICATE;
            case "ldap" -> AuthMethod.LDAP;
            case "kerberos" -> AuthMethod.KERBEROS;
            case "saml" -> AuthMethod.SAML;
            default -> throw bad("auth must be scram-sha-256, password, token, apikey, "
                    + "certificate, ldap, kerberos or saml, not " + value);
        };
    }

    private static Purity purity(String value) {
        return switch (value) {
            case "new" -> Purity.NEW;
            case "self" -> Purity.SELF;
            case "any" -> Purity.ANY;
            default -> throw bad("purity must be new, self or any, not " + value);
        };
    }

    private static List<CompressionType> compression(String value) {
        List<CompressionType> types = new ArrayList<>();
        for (String name : value.split(",")) {
            switch (name) {
                case "none" -> types.add(CompressionType.NONE);
                case "lz4" -> types.add(CompressionType.LZ4);
                case "zstd" -> types.add(CompressionType.ZSTD);
                case "snappy" -> types.add(CompressionType.SNAPPY);
                default -> throw bad("compression must be a list of zstd, lz4 and snappy, or "
                        + "none, not " + value);
            }
        }
        if (types.contains(CompressionType.NONE) && types.size() > 1) {
            throw bad("compression=none cannot be combined with others");
        }
        return List.copyOf(types);
    }

    private static String decode(String text) {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        ByteBuffer out = ByteBuffer.allocate(bytes.length);
        for (int i = 0; i < bytes.length; i++) {
            if (bytes[i] != '%') {
                out.put(bytes[i]);
                continue;
            }
            int high = i + 2 < bytes.length ? Character.digit(bytes[i + 1], 16) : -1;
            int low = i + 2 < bytes.length ? Character.digit(bytes[i + 2], 16) : -1;
            if (high < 0 || low < 0) {
                throw bad("a percent sign must be followed by two hexadecimal digits");
            }
            out.put((byte) (high << 4 | low));
            i += 2;
        }
        try {
            return StandardCharsets.UTF_8.newDecoder().decode(out.flip()).toString();
        } catch (CharacterCodingException e) {
            throw bad("a percent-encoded text is not valid UTF-8");
        }
    }

    private static IllegalArgumentException bad(String message) {
        return new IllegalArgumentException("connection string: " + message);
    }
}
