//! The work over PostgreSQL's protocol.

use std::pin::pin;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use futures_util::TryStreamExt;
use tokio::task::LocalSet;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls};

use crate::{COLUMNS, Driver, Keys, Result, SELECT, STREAM, Sum, TABLE, row};

/// A connection without TLS.
pub struct Postgres(Client);

impl Driver for Postgres {
    async fn connect(port: u16, database: &str) -> Result<Self> {
        let address = format!("host=127.0.0.1 port={port} user=postgres dbname={database}");
        let (client, connection) = tokio_postgres::connect(&address, NoTls).await?;
        // What ends it, ends its requests too.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self(client))
    }

    async fn select(self, depth: u32, until: Instant) -> Result<u64> {
        let statement = self.0.prepare(SELECT).await?;
        let client = Rc::new(self.0);
        let set = LocalSet::new();
        let lane = |seed: u32| {
            let (client, statement) = (client.clone(), statement.clone());
            set.spawn_local(async move {
                let (mut keys, mut done) = (Keys::new(seed), 0u64);
                while Instant::now() < until {
                    let row = client.query_one(&statement, &[&keys.next()]).await?;
                    std::hint::black_box(row.try_get::<_, i32>(0)?);
                    done += 1;
                }
                Ok::<u64, tokio_postgres::Error>(done)
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
        let mut stream = pin!(self.0.query_raw(STREAM, [rows]).await?);
        while let Some(row) = stream.try_next().await? {
            let at: SystemTime = row.try_get(2)?;
            sum.add(row.try_get(0)?, row.try_get(1)?, at, row.try_get(3)?);
        }
        Ok(())
    }

    async fn insert(self, rows: i64) -> Result<u64> {
        let sql = format!("COPY {TABLE} ({}) FROM STDIN BINARY", COLUMNS.join(", "));
        let types = [Type::INT8, Type::TEXT, Type::TIMESTAMPTZ, Type::FLOAT8];
        let writer = BinaryCopyInWriter::new(self.0.copy_in(&sql).await?, &types);
        let mut writer = pin!(writer);
        let mut name = String::new();
        for number in 0..rows {
            let (id, name, at, value) = row(number, &mut name);
            let values: [&(dyn ToSql + Sync); 4] = [&id, &name, &at, &value];
            writer.as_mut().write(&values).await?;
        }
        Ok(writer.finish().await?)
    }

    async fn run(&self, sql: &str) -> Result<()> {
        self.0.simple_query(sql).await?;
        Ok(())
    }
}
