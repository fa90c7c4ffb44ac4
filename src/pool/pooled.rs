//! Pooled sessions: how they are borrowed, parked and displaced. They are connections of the same
//! pool, and count as such; what is parked gives way to everybody who would have to wait.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::classes::{Purity, Tag, Wish};
use super::parked::{Kept, Look, Spot};
use super::reset::{self, Return};
use super::{CancelSlot, Demand, LaneKey, Lease, Pool, Wanted};
use crate::backend::BackendConn;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::backend::TxStatus;
use crate::telemetry::classes::{ClassFigures, MAX_CLASSES};
use crate::telemetry::metrics::Raised;

/// Attempts to get a connection that can be reset.
const RESETS: usize = 3;

/// What of a session does not go to the next one, although it is the same role's: it would hold up
/// others, or act in their name.
const TIDY: &str = "CLOSE ALL; UNLISTEN *; SELECT pg_catalog.pg_advisory_unlock_all(); \
                    SET SESSION AUTHORIZATION DEFAULT";

/// The right to a pooled session; dropping it gives the place back.
pub struct Hold {
    class: Option<Arc<str>>,
    figures: Arc<ClassFigures>,
    uses: usize,
    _held: Raised,
    _place: Option<OwnedSemaphorePermit>,
}

impl Hold {
    /// The client did nothing for too long.
    pub fn taken_away(&self) {
        self.figures.taken_away.inc();
    }
}

/// A pooled session.
pub struct Borrowed {
    /// Its connection.
    pub lease: Lease,
    /// Its place.
    pub hold: Hold,
    /// The state on it; `None` = there is none.
    pub found: Option<Found>,
}

/// The state of a session that was parked.
pub struct Found {
    /// What [`Lease::park`] was given.
    pub kept: Kept,
    /// What it was called.
    pub tag: Tag,
    /// Whether that is exactly what was asked for.
    pub exact: bool,
}

impl Pool {
    /// Borrows a pooled session: a parked one that suits, unless `alone`, else another connection.
    ///
    /// # Errors
    /// As [`Pool::acquire`], and likewise while `session.drcp.max_size` are held; 53400 when there
    /// are too many classes.
    pub async fn borrow_session(
        &self,
        demand: &Demand,
        wish: &Wish,
        alone: bool,
        slot: &Arc<CancelSlot>,
    ) -> Result<Borrowed> {
        let Some(figures) = self.0.metrics.classes.of(wish.class_name()) else {
            let text = format!("{MAX_CLASSES} connection classes have sessions already");
            return Err(Error::new(ErrorKind::LimitReached, text)
                .with_hint("use fewer values of rustydb.connection_class"));
        };
        figures.requests.inc();
        let borrowed = self.borrow_of(demand, wish, alone, slot, &figures).await;
        if borrowed.as_ref().is_err_and(|error| error.kind() == ErrorKind::PoolExhausted) {
            figures.timeouts.inc();
        }
        borrowed
    }

    async fn borrow_of(
        &self,
        demand: &Demand,
        wish: &Wish,
        alone: bool,
        slot: &Arc<CancelSlot>,
        figures: &Arc<ClassFigures>,
    ) -> Result<Borrowed> {
        let place = self.place(slot, figures).await?;
        let mut hold = Hold {
            class: wish.class.clone(),
            figures: figures.clone(),
            uses: 0,
            _held: Raised::new(&figures.held),
            _place: place,
        };
        if wish.purity == Purity::Own
            && !alone
            && let Some((spot, exact)) = self.find(demand, wish).await
        {
            figures.hits.inc();
            figures.tag_hits.inc_by(u64::from(exact));
            hold.uses = spot.uses;
            let found = Found { kept: spot.kept, tag: spot.tag, exact };
            let lease = self.lend(spot.conn, demand, slot, thread::current().id());
            return Ok(Borrowed { lease, hold, found: Some(found) });
        }
        figures.misses.inc();
        self.make_place();
        let lease = self.fresh(demand, wish.purity, slot, figures).await?;
        Ok(Borrowed { lease, hold, found: None })
    }

    /// A place among the pooled sessions, where their number is limited.
    async fn place(
        &self,
        slot: &CancelSlot,
        figures: &ClassFigures,
    ) -> Result<Option<OwnedSemaphorePermit>> {
        let Some(places) = self.0.places.clone() else { return Ok(None) };
        if let Ok(place) = places.clone().try_acquire_owned() {
            return Ok(Some(place));
        }
        figures.waits.inc();
        let config = self.0.config();
        let waiting = self.0.waiting_for_place.load(Ordering::Relaxed) as usize;
        let most = config.drcp.max_size.unwrap_or_default();
        let full = |text: String| {
            let hint = "raise session.drcp.max_size, or try again later";
            Error::new(ErrorKind::PoolExhausted, text).with_hint(hint)
        };
        if waiting >= config.pool.max_wait_queue_size {
            return Err(full(format!(
                "all pooled sessions are held (session.drcp.max_size is {most}) and {waiting} \
                 clients wait already (pool.max_wait_queue_size)"
            )));
        }
        let _wait = slot.waits.begin();
        let _waits = Wanted::new(&self.0.waiting_for_place);
        let limit = config.pool.acquire_timeout_secs.duration();
        match tokio::time::timeout(limit, places.acquire_owned()).await {
            Ok(place) => Ok(place.ok()),
            Err(_) => Err(full(format!(
                "no pooled session was free within {} s: session.drcp.max_size is {most}",
                limit.as_secs()
            ))
            .with_detail("acquire timeout")),
        }
    }

    /// Closes parked connections beyond `session.drcp.max_size`, with one that is about to be
    /// made.
    fn make_place(&self) {
        let (Some(places), Some(most)) = (&self.0.places, self.0.config().drcp.max_size) else {
            return;
        };
        let room = places.available_permits().min(most);
        let surplus = self.0.inner.lock().parking.trim(room);
        surplus.into_iter().for_each(|conn| self.part("displaced", conn));
    }

    /// The parked connection that suits best and still works.
    async fn find(&self, demand: &Demand, wish: &Wish) -> Option<(Spot, bool)> {
        let worker = thread::current().id();
        loop {
            let parked = self.0.parked.notified();
            tokio::pin!(parked);
            // Before the look, so that none is missed.
            parked.as_mut().enable();
            let look = self.0.inner.lock().look(&demand.lane, wish);
            let (mut spot, exact) = match look {
                Look::Found(spot, exact) => (*spot, exact),
                Look::Nothing => return None,
                Look::Soon => {
                    parked.await;
                    continue;
                }
            };
            let Some(conn) = self.ready(spot.conn, spot.worker, worker) else { continue };
            let needs_check = self.0.inner.lock().needs_check(spot.since);
            let conn = match needs_check {
                true => self.checked(conn, spot.since, &demand.lane).await,
                false => Some(conn),
            };
            let Some(conn) = conn else { continue };
            (spot.conn, spot.worker) = (conn, worker);
            return Some((spot, exact));
        }
    }

    /// A connection without the state of anybody.
    async fn fresh(
        &self,
        demand: &Demand,
        purity: Purity,
        slot: &Arc<CancelSlot>,
        figures: &ClassFigures,
    ) -> Result<Lease> {
        let mut failed = 0;
        loop {
            let mut lease = match self.try_acquire(demand, slot) {
                Some(lease) => lease,
                None => {
                    figures.waits.inc_by(u64::from(self.is_full()));
                    self.acquire(demand, slot).await?
                }
            };
            if purity != Purity::New || demand.lane.is_single_use() {
                return Ok(lease);
            }
            let limit = self.0.reset_timeout();
            match tokio::time::timeout(limit, reset::discard_all(lease.conn())).await {
                Ok(Ok(())) => return Ok(lease),
                _ if failed + 1 < RESETS => failed += 1,
                _ => {
                    let text = "no connection could be reset";
                    return Err(Error::new(ErrorKind::ServiceUnavailable, text));
                }
            }
            lease.retire();
        }
    }

    fn is_full(&self) -> bool {
        let inner = self.0.inner.lock();
        inner.total >= inner.policy.max_size
    }

    /// Has a parked connection make room for who waits for one of this lane.
    pub(super) fn displace_for(&self, lane: &LaneKey) {
        let displaced = self.0.inner.lock().give_way(lane);
        if let Some(spot) = displaced {
            let resets = *spot.lane == *lane;
            self.displace(spot, resets);
        }
    }

    /// Takes the state off a connection that was to be parked, or closes it.
    fn displace(&self, spot: Spot, resets: bool) {
        let Spot { lane, worker, conn, .. } = spot;
        let to = thread::current().id();
        let is_stale = conn.ticket.as_ref().is_some_and(|ticket| ticket.is_stale());
        if !resets || is_stale || conn.state.spoiled {
            return self.part("displaced", *conn);
        }
        let Some(conn) = self.ready(conn, worker, to) else { return };
        let slot = Arc::new(CancelSlot::default());
        self.take_back(Return { conn, used: true, worker: to, slot, lane });
    }

    /// Closes what is parked for too long, and has what is parked make way for who waits; runs
    /// every second.
    pub(super) fn tend_parked(&self) {
        let (expired, waiting) = {
            let mut inner = self.0.inner.lock();
            if inner.parking.is_empty() {
                return;
            }
            let drcp = &self.0.config().drcp;
            let inactive = drcp.inactivity_timeout_secs.duration();
            let life = drcp.max_lifetime_secs.duration();
            (inner.expire(drcp.min_size, inactive, life), inner.first_stuck())
        };
        expired.into_iter().for_each(|(reason, conn)| self.part(reason, conn));
        if let Some(lane) = waiting {
            self.displace_for(&lane);
        }
    }

    async fn tidy_and_park(&self, mut spot: Spot, slot: &CancelSlot) {
        slot.quiet().await;
        let limit = self.0.reset_timeout();
        let tidied = tokio::time::timeout(limit, tidy(&mut spot.conn)).await;
        if !matches!(tidied, Ok(Ok(()))) {
            return self.cut("reset_failed", *spot.conn);
        }
        if spot.conn.state.refused_to_write {
            self.suspect(&mut spot.conn);
        }
        let max_tags = self.0.config().drcp.max_tags;
        let displaced = self.0.inner.lock().park(spot, max_tags);
        if let Some(spot) = displaced {
            self.displace(spot, true);
        }
    }
}

async fn tidy(conn: &mut BackendConn) -> Result<()> {
    if conn.state.tx != TxStatus::Idle {
        conn.simple("ROLLBACK", |_| {}).await?;
    }
    conn.simple(TIDY, |_| {}).await?;
    drop(conn.take_asides());
    match conn.is_reusable() && conn.state.tx == TxStatus::Idle {
        true => Ok(()),
        false => Err(Error::internal("bytes after the end of a session")),
    }
}

/// A connection that is being tidied. Dropping it says that there is no more to wait for.
struct Coming {
    pool: Pool,
    lane: Arc<LaneKey>,
    class: Arc<str>,
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.pool.0.inner.lock().has_come(&self.lane, &self.class);
        self.pool.0.parked.notify_waiters();
    }
}

impl Lease {
    /// Gives the connection back with the state that its session left on it, for the next one of
    /// the same lane and class; `kept` says what is there. A session of no class is reset.
    pub fn park(mut self, hold: Hold, tag: Tag, kept: Kept) {
        let drcp = self.pool.0.config().drcp.clone();
        let Some(conn) = self.conn.as_mut() else { return };
        let life: Duration = drcp.max_lifetime_secs.duration();
        if hold.uses + 1 >= drcp.max_use_session || conn.created.elapsed() > life {
            return self.retire();
        }
        conn.inbound.consume_scanned();
        conn.inbound.detach();
        let Some(class) = hold.class.clone().filter(|_| conn.is_reusable()) else {
            self.used = true;
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let Some(conn) = self.conn.take() else { return };
        self.slot.set(None);
        let (pool, slot, lane) = (self.pool.clone(), self.slot.clone(), self.lane.clone());
        pool.0.inner.lock().comes(lane.clone(), class.clone());
        let coming = Coming { pool: pool.clone(), lane: lane.clone(), class: class.clone() };
        let spot = Spot {
            lane,
            worker: self.worker,
            conn,
            class,
            tag,
            kept,
            uses: hold.uses + 1,
            since: 0,
            _counted: Raised::new(&hold.figures.parked),
        };
        runtime.spawn(async move {
            pool.tidy_and_park(spot, &slot).await;
            drop(coming);
            drop(hold);
        });
    }
}

/// What an administrator sees of a class.
#[derive(Clone, Debug)]
pub struct ClassView {
    /// Its name.
    pub name: Arc<str>,
    /// Its figures.
    pub figures: Arc<ClassFigures>,
}

impl Pool {
    /// Every class that was asked for and is not forgotten.
    pub fn classes(&self) -> Vec<ClassView> {
        let all = self.0.metrics.classes.all().into_iter();
        all.map(|(name, figures)| ClassView { name, figures }).collect()
    }
}
