//! How several servers stand, seen over a connection to each that is kept for it.

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{BackendConn, Servers};
use crate::telemetry::Standing;

/// The servers, looked at again and again.
pub struct Watch {
    servers: Servers,
    /// In the order of the list; `None` = none yet, or it was lost.
    conns: Vec<Option<BackendConn>>,
}

impl Watch {
    /// A watch over several servers; of a single one the pool knows enough.
    pub fn over(servers: &Servers) -> Option<Self> {
        let number = servers.addresses().count();
        let conns = std::iter::repeat_with(|| None).take(number).collect();
        (number > 1).then(|| Self { servers: servers.clone(), conns })
    }

    /// How each stands, by its address; `None` = it does not answer.
    pub async fn look(&mut self) -> Vec<(String, Option<Standing>)> {
        let mut asked = JoinSet::new();
        for (at, conn) in self.conns.iter_mut().enumerate() {
            let (servers, conn) = (self.servers.clone(), conn.take());
            asked.spawn(async move { (at, ask(&servers, at, conn).await) });
        }
        let mut found: Vec<_> =
            self.servers.addresses().map(|addr| (addr.to_string(), None)).collect();
        while let Some(answer) = asked.join_next().await {
            if let Ok((at, Some((standing, conn)))) = answer {
                found[at].1 = Some(standing);
                self.conns[at] = Some(conn);
            }
        }
        found
    }
}

/// Over the kept connection, or, when that is lost, over a new one.
async fn ask(
    servers: &Servers,
    at: usize,
    kept: Option<BackendConn>,
) -> Option<(Standing, BackendConn)> {
    if let Some(mut conn) = kept
        && let Some(standing) = ask_over(servers, &mut conn).await
    {
        return Some((standing, conn));
    }
    let mut conn = servers.log_in_to_look(at).await?;
    let standing = ask_over(servers, &mut conn).await?;
    Some((standing, conn))
}

async fn ask_over(servers: &Servers, conn: &mut BackendConn) -> Option<Standing> {
    let mut answer = None;
    let asked = conn.simple(include_str!("../../sql/standing.sql"), |row| answer = Some(row));
    timeout(servers.limit(), asked).await.ok()?.ok()?;
    let row = answer?;
    let field = |at: usize| row.get(at)?.as_deref();
    Some(Standing {
        is_standby: field(0)? == "t",
        wal: field(1)?.parse().ok()?,
        behind_secs: field(2).and_then(|secs| secs.parse().ok()),
    })
}
