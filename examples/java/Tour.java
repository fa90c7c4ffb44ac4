// A tour of RustyDB's Java client. Start the server first (`make run`), then:
//   mvn -f clients/java/pom.xml package -DskipTests
//   export RUSTYDB_URL=rustydb://rustydb:PASSWORD@localhost:5432/rustydb
//   java -cp clients/java/target/rustydb-client-0.1.0.jar examples/java/Tour.java
// PASSWORD is the administrator's; the last line of the server's greeting says where it is.

import io.rustydb.BulkTarget;
import io.rustydb.Client;
import io.rustydb.Listener;
import io.rustydb.ResultSet;
import io.rustydb.Row;
import io.rustydb.RowStream;
import io.rustydb.RustyDBException;
import io.rustydb.Session;
import io.rustydb.Transaction;
import java.math.BigDecimal;
import java.time.Duration;
import java.util.List;
import java.util.stream.IntStream;

public class Tour {
    public static void main(String[] args) throws Exception {
        String url = System.getenv("RUSTYDB_URL");
        if (url == null) {
            System.err.println("RUSTYDB_URL is not set: see the top of this file");
            System.exit(2);
        }
        try (Client client = new Client.Builder().url(url).build().connect()) {
            System.out.println("# RustyDB " + client.serverVersion() + ", PostgreSQL "
                    + client.serverParameters().get("server_version") + ", answers in "
                    + client.ping().toNanos() / 1000 + " \u00b5s");
            query(client);
            try (Session session = client.openSession()) {
                insert(session);
            }
            transaction(client);
            stream(client);
            notification(client);
            error(client);
        }
    }

    private static void query(Client client) {
        System.out.println("# a statement with parameters");
        ResultSet result = client.query(
                "SELECT $1::int4 + $2::int4 AS sum, $3::text[] AS words, now() AS now",
                1, 2, List.of("a", "b"));
        while (result.next()) {
            System.out.println(result.getInt("sum") + " " + result.getObject("words") + " "
                    + result.getObject("now"));
        }
    }

    private static void insert(Session session) {
        System.out.println("# many rows at once, into a table of this session");
        session.execute("CREATE TEMP TABLE prices (item text, price numeric)");
        Iterable<Object[]> rows = () -> IntStream.range(0, 10_000)
                .mapToObj(i -> new Object[] {"item " + i, BigDecimal.valueOf(i, 2)}).iterator();
        long inserted = session.bulkInsert(
                BulkTarget.table("prices"), List.of("item", "price"), rows);
        ResultSet result = session.query("SELECT sum(price) FROM prices");
        result.next();
        System.out.println(inserted + " rows, together " + result.getBigDecimal(1));
    }

    private static void transaction(Client client) {
        System.out.println("# a transaction");
        try (Transaction transaction = client.beginTransaction()) {
            transaction.execute("CREATE TABLE seen_by_nobody (a int4)");
            transaction.rollback();
        }
        Row row = client.query("SELECT to_regclass('seen_by_nobody') AS t").iterator().next();
        System.out.println("after the rollback: " + row.getString("t"));
    }

    private static void stream(Client client) {
        System.out.println("# a million rows, one by one");
        long sum = 0;
        try (RowStream stream = client.stream("SELECT generate_series(1, 1000000) AS n")) {
            for (Row row : stream) {
                sum += row.getLong("n");
            }
        }
        System.out.println(sum);
    }

    private static void notification(Client client) throws InterruptedException {
        System.out.println("# a notification");
        try (Listener listener = client.listen("tour")) {
            client.query("SELECT pg_notify('tour', 'hello')");
            System.out.println(listener.poll(Duration.ofSeconds(10)));
        }
    }

    private static void error(Client client) {
        System.out.println("# an error, with PostgreSQL's code and the place");
        try {
            client.query("SELECT * FRM pg_class");
        } catch (RustyDBException e) {
            System.out.println(e.getSqlState() + " at " + e.getPosition() + ": "
                    + e.getMessage());
        }
    }
}
