//! The workers: threads with an event loop each, on which clients live from their first byte to
//! their last.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{Doors, Shared, Start};
use crate::auth::scram::random_bytes;
use crate::catalog::Catalog;
use crate::config::{BackendMode, Config};
use crate::executor::Executor;
use crate::executor::names::NameReader;
use crate::frontend::http::{
    Face, HttpDoor, KeptSessions, METRICS_SOCKETS, Shapes, openapi, usual_headers,
};
use crate::frontend::native::NativeShared;
use crate::frontend::pgwire::{PgDoor, REFUSALS};
use crate::limits::{Gate, recent};
use crate::net::{Listener, Stage};
use crate::session::Opener;
use crate::session::jobs::Jobs;
use crate::supervisor::StartError;
use crate::telemetry::Seldom;

/// Threads per worker for work that would hold it, such as key derivation.
const BLOCKING_THREADS: usize = 2;

/// Time for the last tasks of a worker.
const LAST_TASKS: Duration = Duration::from_millis(200);

/// How many workers the configuration asks for.
pub(super) fn count(config: &Config) -> usize {
    match config.server.worker_threads {
        0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)),
        n => n,
    }
}

/// The running threads.
pub(super) struct Workers(Vec<std::thread::JoinHandle<()>>);

/// What a worker serves with.
struct Adapters {
    postgres: Arc<PgDoor>,
    http: Arc<HttpDoor>,
}

impl Workers {
    /// Starts the threads. PostgreSQL is served when `opened` says so, HTTP at once, but for the
    /// sockets of a process that still serves them.
    pub(super) fn start(
        count: usize,
        shared: &Arc<Shared>,
        doors: Doors,
        start: Start,
        opened: watch::Receiver<bool>,
    ) -> Result<Self, StartError> {
        let adapters = Arc::new(adapters(shared, &doors, start));
        let doors = Arc::new(doors);
        let threads = (0..count).map(|number| {
            let (adapters, doors) = (adapters.clone(), doors.clone());
            let (shared, opened) = (shared.clone(), opened.clone());
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(BLOCKING_THREADS)
                .build()?;
            std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                runtime.block_on(work(number, &shared, &adapters, doors, start, opened));
                runtime.shutdown_timeout(LAST_TASKS);
            })
        });
        let threads: std::io::Result<Vec<_>> = threads.collect();
        threads
            .map(Self)
            .map_err(|e| StartError::runtime(format!("cannot start a worker thread: {e}")))
    }

    /// Waits for their end, which the stage `Stopping` brings.
    pub(super) fn join(&mut self) {
        for thread in self.0.drain(..) {
            let _ = thread.join();
        }
    }
}

fn adapters(shared: &Shared, doors: &Doors, start: Start) -> Adapters {
    let auth = shared.auth.clone();
    // An external PostgreSQL may serve others too, and who is taken over may have jobs to finish.
    let is_alone = shared.config.backend.mode == BackendMode::Embedded && start == Start::Fresh;
    let (drain, metrics) = (shared.drain.clone(), shared.metrics.clone());
    let jobs = Jobs::new(auth.tables().clone(), is_alone, drain, metrics);
    let executor = Executor::new(
        shared.pool.clone(),
        NameReader::new(shared.system_pool.clone(), shared.system.clone()),
        Arc::default(),
        shared.changes.clone(),
        shared.metrics.clone(),
    );
    let opener = Opener::new(shared.sessions.clone(), executor, shared.live.clone());
    let postgres = Arc::new(PgDoor {
        auth: auth.clone(),
        opener: opener.clone(),
        admin: shared.admin.clone(),
        gate: shared.gates.postgres.clone(),
        refusals: Gate::new(REFUSALS),
        users: shared.gates.users.clone(),
        databases: shared.gates.databases.clone(),
        addresses: shared.gates.addresses.clone(),
        tls: shared.tls.clone(),
        native: NativeShared::default(),
        api_port: doors.api_port(),
        config: shared.live.clone(),
        metrics: shared.metrics.clone(),
        drain: shared.drain.clone(),
    });
    let http = Arc::new(HttpDoor {
        auth,
        opener,
        catalog: Arc::new(Catalog::default()),
        requests: shared.gates.requests.clone(),
        sockets: shared.gates.sockets.clone(),
        metrics_sockets: Gate::new(METRICS_SOCKETS),
        tls: shared.tls.clone(),
        config: shared.live.clone(),
        metrics: shared.metrics.clone(),
        health: shared.health.clone(),
        cursor_key: random_bytes(),
        description: openapi().into(),
        usual_headers: usual_headers(),
        admin: shared.admin.clone(),
        transactions: Arc::default(),
        kept: KeptSessions::default(),
        shapes: Shapes::new(shared.metrics.clone()),
        limiter: shared.limiter.clone(),
        limited_notes: Seldom::new(Duration::from_secs(1)),
        replays: Arc::default(),
        jobs,
        drain: shared.drain.clone(),
    });
    Adapters { postgres, http }
}

async fn work(
    number: usize,
    shared: &Arc<Shared>,
    adapters: &Adapters,
    doors: Arc<Doors>,
    start: Start,
    mut opened: watch::Receiver<bool>,
) {
    let health = shared.health.clone();
    tokio::spawn(async move {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        loop {
            second.tick().await;
            health.tick(number);
            recent::tick();
        }
    });
    let listen = |door: &crate::net::Door| match door.listen() {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::error!(%error, "a worker cannot listen");
            None
        }
    };
    for (sockets, face) in [(&doors.api, Face::Api), (&doors.metrics, Face::Metrics)] {
        for listener in sockets.iter().filter_map(listen) {
            let (door, mut opened) = (adapters.http.clone(), opened.clone());
            tokio::spawn(async move {
                let is_served =
                    start == Start::Fresh || opened.wait_for(|open| *open).await.is_ok();
                if is_served {
                    door.serve(listener, face).await;
                }
            });
        }
    }
    let listeners: Vec<Listener> = doors.postgres.iter().filter_map(listen).collect();
    // From here on only the listeners keep the sockets open, so a drain closes them.
    drop(doors);
    let mut drain = shared.drain.clone();
    tokio::select! {
        _ = opened.wait_for(|open| *open) => {
            for listener in listeners {
                tokio::spawn(adapters.postgres.clone().serve(listener));
            }
        }
        () = drain.reached(Stage::Stopping) => return,
    }
    drain.reached(Stage::Stopping).await;
}
