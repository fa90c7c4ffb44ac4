//! What the server is told while it runs: by signals, and by the administrator's console.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::takeover::{Giver, Heir};
use super::{Shared, service};
use crate::audit::{Event, EventType, Outcome};
use crate::config::{BackendMode, Changes, Config, LogLevel, Reloader, Wishes};
use crate::error::{Error, Result};
use crate::session::admin::Order;
use crate::supervisor::StartError;
use crate::telemetry::log::Log;

/// How the server is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// Everybody may finish, however long it takes.
    WhenEmpty,
    /// Everybody may finish within `server.shutdown_grace_secs`.
    Gracefully,
    /// At once.
    Now,
    /// Another process accepts in its place; the clients of this one may stay for
    /// `server.takeover_stay_secs`.
    Replaced,
}

/// Everything that the main loop listens to.
pub(super) struct Control {
    signals: Signals,
    orders: mpsc::Receiver<Order>,
    reload: Reload,
    pub(super) giver: Giver,
    /// The process that is ready to take over.
    pub(super) heir: Option<Heir>,
}

/// Carries out reloads.
pub(super) struct Reload {
    pub(super) reloader: Arc<Reloader>,
    pub(super) log: Log,
    /// SIGUSR1 switches between this and the level of the configuration.
    pub(super) debugging: bool,
    /// With an embedded PostgreSQL: the size of the pool that it was started for.
    pub(super) most_connections: Option<usize>,
}

impl Control {
    pub(super) fn new(
        signals: Signals,
        orders: mpsc::Receiver<Order>,
        reload: Reload,
        giver: Giver,
    ) -> Self {
        Self { signals, orders, reload, giver, heir: None }
    }

    /// Works until something ends the server.
    pub(super) async fn until_told_to_leave(&mut self, shared: &Shared) -> Leave {
        loop {
            tokio::select! {
                _ = self.signals.term.recv() => return Leave::Gracefully,
                _ = self.signals.int.recv() => return Leave::Gracefully,
                _ = self.signals.quit.recv() => return Leave::Now,
                _ = self.signals.hup.recv() => {
                    // The log has said what is wrong.
                    let _ = self.reload.carry_out(shared);
                }
                _ = self.signals.usr1.recv() => self.reload.toggle_debugging(shared),
                _ = self.signals.usr2.recv() => service::start_successor(),
                heir = self.giver.heir() => {
                    self.heir = Some(heir);
                    return Leave::Replaced;
                }
                order = self.orders.recv() => match order {
                    Some(Order::Reload(reply)) => {
                        // A console that is gone does not want to know.
                        let _ = reply.send(self.reload.carry_out(shared));
                    }
                    Some(Order::Set(key, value, reply)) => {
                        let _ = reply.send(self.reload.set(shared, &key, &value));
                    }
                    Some(Order::Change(wishes, reply)) => {
                        let _ = reply.send(self.reload.change(shared, &wishes));
                    }
                    Some(Order::Drain) => return Leave::WhenEmpty,
                    Some(Order::Shutdown { at_once: true }) => return Leave::Now,
                    Some(Order::Shutdown { at_once: false }) => return Leave::Gracefully,
                    None => std::future::pending().await,
                },
            }
        }
    }
}

impl Reload {
    fn carry_out(&mut self, shared: &Shared) -> Result<Changes> {
        let result = self.reload(shared);
        shared.metrics.config_reload(result.is_ok());
        result
    }

    fn reload(&mut self, shared: &Shared) -> Result<Changes> {
        let reloaded = self.reloader.reload();
        let changes = match reloaded {
            Ok(changes) => changes,
            Err(errors) => {
                tracing::error!("nothing was reloaded: {errors}");
                return Err(Error::sql(b"F0000", "the configuration has errors; nothing changed")
                    .with_detail(errors.to_string())
                    .with_hint("correct them; \"rustydb config check\" finds them too"));
            }
        };
        self.apply(shared);
        let changed = changes.taken.join(", ");
        tracing::info!(changed, "the configuration was reloaded");
        audit(shared, "reload", changed);
        if !changes.left.is_empty() {
            let keys = changes.left.join(", ");
            tracing::warn!(keys, "these keys have new values that need a restart");
        }
        if let Some(Err(why)) = shared.tls.as_ref().map(|tls| tls.reload()) {
            tracing::error!(error = why, "the TLS files cannot be used; the old stay");
            let text = "the configuration was reloaded, the TLS files were not";
            return Err(Error::sql(b"F0000", text)
                .with_detail(why)
                .with_hint("the old certificate stays in use; correct the files and try again"));
        }
        Ok(changes)
    }

    fn set(&mut self, shared: &Shared, key: &str, value: &str) -> Result<Changes> {
        let changes = self.reloader.set(key, value).map_err(|errors| {
            Error::sql(b"22023", errors.0.join("; ")).with_hint("SHOW CONFIG lists every key")
        })?;
        if !changes.left.is_empty() {
            let text = format!("{key} cannot be changed now: it needs a restart");
            return Err(Error::sql(b"55P02", text)
                .with_hint("change it where SHOW CONFIG says that its value comes from"));
        }
        self.apply(shared);
        audit(shared, "set", key.to_owned());
        tracing::warn!(key, "an administrator changed the configuration until the next reload");
        Ok(changes)
    }

    /// Who asked for it tells the audit log.
    fn change(&mut self, shared: &Shared, wishes: &Wishes) -> Result<Changes> {
        let changes = self.reloader.change(wishes)?;
        self.apply(shared);
        tracing::warn!(keys = changes.taken.join(", "), "an administrator changed keys for good");
        Ok(changes)
    }

    /// Hands the values in force to the parts that keep some of their own.
    pub(super) fn apply(&mut self, shared: &Shared) {
        let mut config = Config::clone(&shared.live.now());
        self.set_level(&config);
        if let Some(most) = self.most_connections
            && config.pool.max_size > most
        {
            tracing::warn!(
                most,
                "the embedded PostgreSQL was started for fewer connections than pool.max_size; a \
                 restart gives it more"
            );
            config.pool.max_size = most;
        }
        shared.gates.resize(&config);
        shared.pool.resize(&config);
        shared.system_pool.resize(&config);
        shared.metrics.slow_query.set_limit(config.monitoring.slow_query_ms.duration());
        shared.limiter.set_most(config.rate_limit.max_keys);
        if let Err(why) = shared.auth.reload() {
            tracing::error!(error = why, "the issuers of tokens cannot be used; the old stay");
        }
    }

    fn set_level(&self, config: &Config) {
        let configured = config.monitoring.log_level;
        self.log.set_level(if self.debugging { LogLevel::Debug } else { configured });
    }

    fn toggle_debugging(&mut self, shared: &Shared) {
        self.debugging = !self.debugging;
        self.set_level(&shared.live.now());
        tracing::warn!(debugging = self.debugging, "SIGUSR1");
    }
}

/// Tells the audit log of changed keys; their values may be secret.
fn audit(shared: &Shared, action: &str, keys: String) {
    let event = Event::new(EventType::ConfigChanged, Outcome::Success, action);
    shared.auth.audit().note(event.about(keys));
}

/// The most connections that the PostgreSQL behind the server was started for.
pub(super) fn most_connections(config: &Config) -> Option<usize> {
    (config.backend.mode == BackendMode::Embedded).then_some(config.pool.max_size)
}

/// Signals that the process listens to.
pub(super) struct Signals {
    term: Signal,
    int: Signal,
    quit: Signal,
    hup: Signal,
    usr1: Signal,
    usr2: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, StartError> {
        let on = |kind| {
            signal(kind).map_err(|e| StartError::runtime(format!("cannot watch signals: {e}")))
        };
        Ok(Self {
            term: on(SignalKind::terminate())?,
            int: on(SignalKind::interrupt())?,
            quit: on(SignalKind::quit())?,
            hup: on(SignalKind::hangup())?,
            usr1: on(SignalKind::user_defined1())?,
            usr2: on(SignalKind::user_defined2())?,
        })
    }

    /// Returns when a signal ends the process, while there is nothing yet that could be reloaded.
    pub(super) async fn stop(&mut self) {
        loop {
            tokio::select! {
                _ = self.term.recv() => return,
                _ = self.int.recv() => return,
                _ = self.quit.recv() => return,
                _ = self.hup.recv() => tracing::warn!("SIGHUP is ignored during the start"),
                _ = self.usr1.recv() => tracing::warn!("SIGUSR1 is ignored during the start"),
                _ = self.usr2.recv() => tracing::warn!("SIGUSR2 is ignored during the start"),
            }
        }
    }
}
