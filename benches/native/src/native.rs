//! The work over the native protocol.

use std::rc::Rc;
use std::time::{Instant, SystemTime};

use rustydb_client::{Connection, OnConflict};
use tokio::task::LocalSet;

use crate::{COLUMNS, Driver, Keys, Result, SELECT, STREAM, Sum, TABLE, row};

/// A connection without TLS and compression, as the other protocol's has none.
pub struct Native(Connection);

impl Driver for Native {
    async fn connect(port: u16, database: &str) -> Result<Self> {
        let url =
            format!("rustydb://postgres@127.0.0.1:{port}/{database}?tls=disable&compression=none");
        Ok(Self(Connection::connect(&*url).await?))
    }

    async fn select(self, depth: u32, until: Instant) -> Result<u64> {
        let statement = Rc::new(self.0.prepare(SELECT).await?);
        let connection = Rc::new(self.0);
        let set = LocalSet::new();
        let lane = |seed: u32| {
            let (connection, statement) = (connection.clone(), statement.clone());
            set.spawn_local(async move {
                let (mut keys, mut done) = (Keys::new(seed), 0u64);
                while Instant::now() < until {
                    let row = connection.query_one(&*statement, &[&keys.next()]).await?;
                    std::hint::black_box(row.get::<i32>(0)?);
                    done += 1;
                }
                Ok::<u64, rustydb_client::Error>(done)
            })
        };
        let lanes: Vec<_> = (1..=depth).map(lane).collect();
        set.await;
        let mut done = 0;
        for lane in lanes {
            done += lane.await??;
        }
        Ok(done)
    }

    async fn stream(self, rows: i64, sum: &mut Sum) -> Result<()> {
        let mut stream = self.0.query_stream(STREAM, &[&rows]).await?;
        while let Some(row) = stream.next().await {
            let row = row?;
            let at: SystemTime = row.get(2)?;
            sum.add(row.get(0)?, row.get(1)?, at, row.get(3)?);
        }
        Ok(())
    }

    async fn insert(self, rows: i64) -> Result<u64> {
        let mut bulk = self.0.bulk(TABLE, &COLUMNS, OnConflict::Fail).await?;
        let mut name = String::new();
        for number in 0..rows {
            bulk.row(&row(number, &mut name)).await?;
        }
        Ok(bulk.finish().await?)
    }

    async fn run(&self, sql: &str) -> Result<()> {
        self.0.query(sql, &[]).await?;
        Ok(())
    }
}
