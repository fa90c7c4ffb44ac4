//! Memory while rows stream, against the server that RUSTYDB_URL names; without it this does nothing.
//! A test of its own process, so that nothing else counts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use rustydb_client::Client;

/// How much more memory is not noticed, in bytes.
const FLAT: u64 = 16 << 20;

/// Memory of this process, in bytes.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or("VmRSS: 0 kB");
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn rows_stream_with_flat_memory() {
    let Ok(url) = std::env::var("RUSTYDB_URL") else { return };
    let client = Client::connect(&url).await.unwrap();
    let sql =
        "SELECT n::int8, 'row ' || n, now(), n::float8 / 3 FROM generate_series(1, 1000000) n";
    let mut rows = client.query_stream(sql, &[]).await.unwrap();
    let (mut count, mut sum, mut least, mut most) = (0u64, 0, u64::MAX, 0);
    while let Some(row) = rows.next().await {
        let row = row.unwrap();
        let n: i64 = row.get(0).unwrap();
        (count, sum) = (count + 1, sum + n);
        if n % 50_000 == 0 {
            assert_eq!(row.get::<&str>(1).unwrap(), format!("row {n}"));
            let now = memory();
            (least, most) = (least.min(now), most.max(now));
        }
    }
    assert_eq!((count, sum), (1_000_000, 500_000_500_000));
    assert_eq!((rows.row_count(), rows.command_tag()), (1_000_000, Some("SELECT 1000000")));
    assert!(most - least < FLAT, "{least} … {most}");

    // A gigabyte that nobody reads.
    let before = memory();
    let sql = "SELECT repeat('x', 10000) FROM generate_series(1, 100000)";
    let mut rows = client.query_stream(sql, &[]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    rows.next().await.unwrap().unwrap();
    assert!(memory().saturating_sub(before) < FLAT, "{before} … {}", memory());
}
