//! A tour of the Rust client: tables, transactions, bulk insert, streams, notifications.
//!
//! Run it in this folder, against a RustyDB that listens on port 5432:
//! `cargo run -- rustydb://rustydb:PASSWORD@localhost:5432/rustydb`
//! PASSWORD is the administrator's; the last line of the server's greeting says where it is.

use rustydb_client::{Client, Error, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1);
    let url = url.unwrap_or_else(|| "rustydb://rustydb@localhost:5432/rustydb".into());
    let client = Client::connect(&url).await?;
    println!("connected in {:?}", client.ping().await?);

    client.run_all(
        "DROP TABLE IF EXISTS tour_orders;
         CREATE TABLE tour_orders (id bigint PRIMARY KEY, customer text, total numeric)",
    )
    .await?;

    // Many rows at once.
    let orders = (1..=10_000).map(|n: i64| (n, format!("customer {}", n % 100), n as f64 / 4.0));
    let count = client.bulk_insert("tour_orders", &["id", "customer", "total"], orders).await?;
    println!("{count} orders");

    // A transaction with a savepoint.
    let mut transaction = client.transaction().await?;
    transaction.execute("UPDATE tour_orders SET total = 0 WHERE id = $1", &[&1i64]).await?;
    let savepoint = transaction.savepoint("risky").await?;
    savepoint.execute("DELETE FROM tour_orders", &[]).await?;
    savepoint.rollback().await?;
    transaction.commit().await?;

    // A prepared statement.
    let top = client
        .prepare("SELECT id, total FROM tour_orders WHERE customer = $1 ORDER BY total DESC LIMIT 2")
        .await?;
    for row in client.query(&top, &[&"customer 7"]).await? {
        println!("order {} of {}", row.get::<i64>("id")?, row.get::<String>("total")?);
    }

    // Rows while they come.
    let mut rows = client.query_stream("SELECT id FROM tour_orders", &[]).await?;
    let mut sum = 0;
    while let Some(row) = rows.next().await {
        sum += row?.get::<i64>(0)?;
    }
    drop(rows);
    println!("sum of the numbers: {sum}");

    // An error with its fields.
    let again = client.execute("INSERT INTO tour_orders VALUES (1)", &[]).await;
    if let Err(Error::Server(e)) = again {
        println!("{}: {} (constraint {:?})", e.sqlstate, e.message, e.constraint);
    }

    // Notifications.
    let mut listener = client.listen(&["tour"]).await?;
    client.execute("SELECT pg_notify('tour', 'hello')", &[]).await?;
    println!("heard: {}", listener.next().await?.payload);
    drop(listener);

    client.execute("DROP TABLE tour_orders", &[]).await?;
    client.close().await;
    Ok(())
}
