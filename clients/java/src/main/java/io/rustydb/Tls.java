// TLS contexts from PEM files.
package io.rustydb;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.MessageDigest;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateException;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.InvalidKeySpecException;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import java.util.Collection;
import java.util.Locale;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.net.ssl.KeyManager;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManager;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509ExtendedTrustManager;
import javax.net.ssl.X509TrustManager;

/** Wraps sockets as the options tls, tls_ca, tls_cert and tls_key say. */
final class Tls {
    private static final String ALPN = "rustydb/1";
    private static final Pattern KEY =
            Pattern.compile("-----BEGIN PRIVATE KEY-----([^-]+)-----END PRIVATE KEY-----");
    private static final char[] NO_PASSWORD = new char[0];

    private final SSLContext context;
    private final boolean checksName;

    /** @throws RustyDBException 08001 if a file cannot be used */
    Tls(Config config) {
        try {
            context = SSLContext.getInstance("TLS");
            context.init(keys(config), trust(config), null);
        } catch (GeneralSecurityException | IOException e) {
            throw RustyDBException.local("08001", "VALIDATION_ERROR",
                    "TLS cannot be set up: " + e.getMessage(), e);
        }
        checksName = config.tls == TlsMode.VERIFY_FULL;
    }

    /** A TLS connection over the socket; the handshake is still to come. */
    SSLSocket wrap(Socket socket, Config.Host host) throws IOException {
        SSLSocket tls = (SSLSocket) context.getSocketFactory()
                .createSocket(socket, host.name(), host.port(), true);
        SSLParameters parameters = tls.getSSLParameters();
        parameters.setApplicationProtocols(new String[] {ALPN});
        if (checksName) {
            parameters.setEndpointIdentificationAlgorithm("HTTPS");
        }
        tls.setSSLParameters(parameters);
        return tls;
    }

    private static TrustManager[] trust(Config config)
            throws GeneralSecurityException, IOException {
        boolean checksChain = config.tlsCa != null || config.tls == TlsMode.VERIFY_CA
                || config.tls == TlsMode.VERIFY_FULL;
        if (!checksChain || config.tls == TlsMode.PREFER) {
            return new TrustManager[] {new Trust(null)};
        }
        TrustManagerFactory factory =
                TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        factory.init(config.tlsCa == null ? null : authorities(config.tlsCa));
        for (TrustManager manager : factory.getTrustManagers()) {
            if (manager instanceof X509TrustManager chain) {
                // The JDK's own manager is needed as it is where it has to check the name.
                return new TrustManager[] {
                    config.tls == TlsMode.VERIFY_FULL ? manager : new Trust(chain)};
            }
        }
        throw new CertificateException("this Java has no X.509 trust manager");
    }

    private static KeyStore authorities(Path file) throws GeneralSecurityException, IOException {
        KeyStore store = emptyStore();
        int number = 0;
        for (Certificate certificate : certificates(file)) {
            store.setCertificateEntry("ca" + number++, certificate);
        }
        if (number == 0) {
            throw new CertificateException(file + " has no certificate");
        }
        return store;
    }

    private static KeyManager[] keys(Config config) throws GeneralSecurityException, IOException {
        if (config.tlsCert == null) {
            return null;
        }
        KeyStore store = emptyStore();
        store.setKeyEntry("client", privateKey(config.tlsKey), NO_PASSWORD,
                certificates(config.tlsCert).toArray(new Certificate[0]));
        KeyManagerFactory factory =
                KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        factory.init(store, NO_PASSWORD);
        return factory.getKeyManagers();
    }

    private static KeyStore emptyStore() throws GeneralSecurityException, IOException {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        return store;
    }

    private static Collection<? extends Certificate> certificates(Path file)
            throws CertificateException, IOException {
        return CertificateFactory.getInstance("X.509")
                .generateCertificates(new ByteArrayInputStream(Files.readAllBytes(file)));
    }

    private static PrivateKey privateKey(Path file) throws GeneralSecurityException, IOException {
        Matcher pem = KEY.matcher(Files.readString(file, StandardCharsets.US_ASCII));
        if (!pem.find()) {
            throw new InvalidKeySpecException(file + " is not an unencrypted PKCS#8 key; convert "
                    + "it with: openssl pkcs8 -topk8 -nocrypt -in OLD -out NEW");
        }
        byte[] der = Base64.getMimeDecoder().decode(pem.group(1));
        for (String algorithm : new String[] {"RSA", "EC", "Ed25519"}) {
            try {
                return KeyFactory.getInstance(algorithm)
                        .generatePrivate(new PKCS8EncodedKeySpec(der));
            } catch (InvalidKeySpecException e) {
                // A key of another algorithm.
            }
        }
        throw new InvalidKeySpecException(file + " has a key that is neither RSA, EC nor Ed25519");
    }

    /**
     * What a SCRAM-SHA-256-PLUS log-in is bound to: the hash of the server's certificate
     * (RFC 5929, tls-server-end-point), or null where none is defined.
     */
    static byte[] endPoint(SSLSocket socket) throws IOException {
        try {
            X509Certificate certificate =
                    (X509Certificate) socket.getSession().getPeerCertificates()[0];
            String algorithm = certificate.getSigAlgName().toUpperCase(Locale.ROOT);
            Matcher hash = Pattern.compile("^(MD5|SHA1|SHA\\d+)WITH").matcher(algorithm);
            if (!hash.find()) {
                return null;
            }
            String name = switch (hash.group(1)) {
                case "MD5", "SHA1", "SHA256" -> "SHA-256";
                default -> "SHA-" + hash.group(1).substring(3);
            };
            return MessageDigest.getInstance(name).digest(certificate.getEncoded());
        } catch (GeneralSecurityException e) {
            throw new IOException("the server's certificate cannot be read", e);
        }
    }

    /** Checks the chain but no name, or nothing at all. */
    private static final class Trust extends X509ExtendedTrustManager {
        private final X509TrustManager chain;

        Trust(X509TrustManager chain) {
            this.chain = chain;
        }

        @Override
        public void checkServerTrusted(X509Certificate[] certificates, String type)
                throws CertificateException {
            if (chain != null) {
                chain.checkServerTrusted(certificates, type);
            }
        }

        @Override
        public void checkServerTrusted(X509Certificate[] certificates, String type, Socket socket)
                throws CertificateException {
            checkServerTrusted(certificates, type);
        }

        @Override
        public void checkServerTrusted(
                X509Certificate[] certificates, String type, SSLEngine engine)
                throws CertificateException {
            checkServerTrusted(certificates, type);
        }

        @Override
        public void checkClientTrusted(X509Certificate[] certificates, String type)
                throws CertificateException {
            throw new CertificateException("this is not a server");
        }

        @Override
        public void checkClientTrusted(X509Certificate[] certificates, String type, Socket socket)
                throws CertificateException {
            checkClientTrusted(certificates, type);
        }

        @Override
        public void checkClientTrusted(
                X509Certificate[] certificates, String type, SSLEngine engine)
                throws CertificateException {
            checkClientTrusted(certificates, type);
        }

        @Override
        public X509Certificate[] getAcceptedIssuers() {
            return new X509Certificate[0];
        }
    }
}
