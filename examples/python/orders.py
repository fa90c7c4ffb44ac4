"""A table of orders: typed rows, a transaction, a load, a stream, a notification.

Start a server (`make run`), install the client, and run this:

    python3 -m venv venv
    venv/bin/pip install -r examples/python/requirements.txt
    venv/bin/python examples/python/orders.py "rustydb://rustydb:PASSWORD@localhost:5432/rustydb"

The password is where the server's greeting says.
"""

import datetime
import decimal
import sys

import rustydb

TABLE = """
CREATE TABLE example_orders (
    id bigint PRIMARY KEY,
    customer text NOT NULL,
    total numeric(10, 2) CHECK (total > 0),
    placed timestamptz NOT NULL,
    tags text[] NOT NULL
)
"""


def load(client: rustydb.Client, count: int) -> None:
    """Inserts many orders in one statement; they are made as they are sent."""
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    rows = (
        (
            number,
            f"customer {number % 100}",
            decimal.Decimal(number % 5000 + 1) / 100,
            start + datetime.timedelta(minutes=number),
            ["new", "web"] if number % 2 else ["new"],
        )
        for number in range(count)
    )
    columns = ["id", "customer", "total", "placed", "tags"]
    print("loaded:", client.bulk_insert("example_orders", columns, rows))


def order(client: rustydb.Client, number: int, total: decimal.Decimal) -> None:
    """Places an order and tells whoever listens, both or neither."""
    with client.transaction() as txn:
        txn.execute(
            "INSERT INTO example_orders VALUES ($1, 'Ann', $2, now(), $3)", [number, total, []]
        )
        txn.query("SELECT pg_notify('example_orders', $1)", [str(number)])


def main(url: str) -> None:
    with rustydb.connect(url) as client:
        client.query(f"DROP TABLE IF EXISTS example_orders; {TABLE}")
        load(client, 100_000)

        with client.listen("example_orders") as listener:
            order(client, 100_000, decimal.Decimal("12.50"))
            notification = listener.get(timeout=5)
            print("notified:", notification.payload if notification else None)

        try:
            order(client, 100_001, decimal.Decimal("-1"))
        except rustydb.IntegrityError as error:
            print("refused:", error.constraint)

        best = client.prepare(
            "SELECT id, total FROM example_orders WHERE $1 = ANY(tags) ORDER BY total DESC LIMIT 1"
        )
        for tag in ("new", "web"):
            print(f"best of {tag}:", dict(best.query([tag]).one()))

        revenue = sum(row["total"] for row in client.stream("SELECT total FROM example_orders"))
        print("revenue:", revenue)
        client.execute("DROP TABLE example_orders")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
