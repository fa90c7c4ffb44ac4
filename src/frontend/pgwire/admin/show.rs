//! The tables of `SHOW`: PgBouncer's column names where the meaning is the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

use super::command::{HELP, Show};
use crate::net::LocalEnd;
use crate::proto::rows::{Cell, ColumnType};
use crate::session::SessionView;
use crate::session::admin::{Admin, ClassView, HeldServer};
use crate::telemetry::{Totals, process_memory};
use crate::types::{BackendAddr, Database, Role};

use ColumnType::{Int8, Text};

/// Name and type of each column.
pub(super) type Columns = &'static [(&'static str, ColumnType)];

/// Rows of cells.
pub(super) type Rows = Vec<Vec<Cell>>;

macro_rules! row {
    ($($cell:expr),* $(,)?) => { vec![$(Cell::from($cell)),*] };
}

const CLIENTS: Columns = &[
    ("type", Text),
    ("user", Text),
    ("database", Text),
    ("state", Text),
    ("addr", Text),
    ("port", Int8),
    ("local_addr", Text),
    ("local_port", Int8),
    ("connect_time", Text),
    ("request_time", Text),
    ("wait", Int8),
    ("wait_us", Int8),
    ("close_needed", Int8),
    ("ptr", Text),
    ("link", Text),
    ("remote_pid", Int8),
    ("tls", Text),
    ("application_name", Text),
    ("id", Int8),
    ("protocol", Text),
    ("pinned", Text),
    ("pool_mode", Text),
    ("xact_start", Text),
    ("xact_count", Int8),
    ("query_count", Int8),
    ("wait_time", Int8),
    ("backend_pid", Int8),
];

const CLASSES: Columns = &[
    ("class", Text),
    ("requests", Int8),
    ("hits", Int8),
    ("misses", Int8),
    ("tag_hits", Int8),
    ("waits", Int8),
    ("timeouts", Int8),
    ("taken_away", Int8),
    ("held", Int8),
    ("parked", Int8),
];

/// What clients and connections have in common.
const SERVERS: Columns = CLIENTS.split_at(19).0;

const POOLS: Columns = &[
    ("database", Text),
    ("user", Text),
    ("cl_active", Int8),
    ("cl_waiting", Int8),
    ("cl_active_cancel_req", Int8),
    ("cl_waiting_cancel_req", Int8),
    ("sv_active", Int8),
    ("sv_active_cancel", Int8),
    ("sv_being_canceled", Int8),
    ("sv_idle", Int8),
    ("sv_used", Int8),
    ("sv_tested", Int8),
    ("sv_login", Int8),
    ("maxwait", Int8),
    ("maxwait_us", Int8),
    ("pool_mode", Text),
    ("cl_pinned", Int8),
];

const DATABASES: Columns = &[
    ("name", Text),
    ("host", Text),
    ("port", Int8),
    ("database", Text),
    ("force_user", Text),
    ("pool_size", Int8),
    ("min_pool_size", Int8),
    ("reserve_pool_size", Int8),
    ("pool_mode", Text),
    ("max_connections", Int8),
    ("current_connections", Int8),
    ("max_client_connections", Int8),
    ("current_client_connections", Int8),
    ("paused", Int8),
    ("disabled", Int8),
];

const STATS: Columns = &[
    ("database", Text),
    ("total_xact_count", Int8),
    ("total_query_count", Int8),
    ("total_received", Int8),
    ("total_sent", Int8),
    ("total_xact_time", Int8),
    ("total_query_time", Int8),
    ("total_wait_time", Int8),
    ("avg_xact_count", Int8),
    ("avg_query_count", Int8),
    ("avg_recv", Int8),
    ("avg_sent", Int8),
    ("avg_xact_time", Int8),
    ("avg_query_time", Int8),
    ("avg_wait_time", Int8),
];

const STATS_PART: Columns = &[
    ("database", Text),
    ("xact_count", Int8),
    ("query_count", Int8),
    ("bytes_received", Int8),
    ("bytes_sent", Int8),
    ("xact_time", Int8),
    ("query_time", Int8),
    ("wait_time", Int8),
];

const USERS: Columns = &[
    ("name", Text),
    ("pool_mode", Text),
    ("current_connections", Int8),
    ("current_client_connections", Int8),
];

/// PgBouncer counts its own caches here, of which there are none; the process has these.
const MEM: Columns =
    &[("name", Text), ("size", Int8), ("used", Int8), ("free", Int8), ("memtotal", Int8)];

const CONFIG: Columns =
    &[("key", Text), ("value", Text), ("default", Text), ("changeable", Text), ("source", Text)];

impl Show {
    /// Its columns, known without looking.
    pub(super) fn columns(self) -> Columns {
        match self {
            Show::Classes => CLASSES,
            Show::Clients => CLIENTS,
            Show::Config => CONFIG,
            Show::Databases => DATABASES,
            Show::Help => &[("command", Text), ("meaning", Text)],
            Show::Lists => &[("list", Text), ("items", Int8)],
            Show::Mem => MEM,
            Show::Pools => POOLS,
            Show::Servers => SERVERS,
            Show::State => &[("key", Text), ("value", Text)],
            Show::Stats => STATS,
            Show::StatsAverages | Show::StatsTotals => STATS_PART,
            Show::Users => USERS,
            Show::Version => &[("version", Text)],
        }
    }

    /// Its rows now.
    pub(super) fn rows(self, admin: &Admin) -> Rows {
        match self {
            Show::Classes => classes(admin),
            Show::Clients => clients(admin),
            Show::Config => config(admin),
            Show::Databases => databases(admin),
            Show::Help => HELP.iter().map(|(command, meaning)| row![*command, *meaning]).collect(),
            Show::Lists => lists(admin),
            Show::Mem => memory(),
            Show::Pools => pools(admin),
            Show::Servers => servers(admin),
            Show::State => state(admin),
            Show::Stats => stats(admin),
            Show::StatsAverages => parts(&admin.averages()),
            Show::StatsTotals => parts(&admin.totals()),
            Show::Users => users(admin),
            Show::Version => vec![row![concat!("RustyDB ", env!("CARGO_PKG_VERSION"))]],
        }
    }
}

fn time(at: SystemTime) -> String {
    let at = time::OffsetDateTime::from(at);
    let (month, day) = (u8::from(at.month()), at.day());
    let (hour, minute, second) = at.to_hms();
    format!("{:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC", at.year())
}

fn secs_and_micros(wait: Option<Duration>) -> (u64, u32) {
    wait.map_or((0, 0), |wait| (wait.as_secs(), wait.subsec_micros()))
}

/// Address and port of a client; a Unix socket has neither.
fn address(peer: &str) -> (&str, u32) {
    match peer.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?))) {
        Some((host, port)) => (host.trim_matches(['[', ']']), port),
        None => ("unix", 0),
    }
}

/// Our end of a connection, and the process at the other end of a Unix socket.
fn local_end(end: LocalEnd) -> (String, u16, u32) {
    match end {
        LocalEnd::Tcp(own) => (own.ip().to_canonical().to_string(), own.port(), 0),
        LocalEnd::Unix { port, pid } => ("unix".to_owned(), port, pid),
        LocalEnd::Unknown => (String::new(), 0, 0),
    }
}

/// PgBouncer has addresses of its memory here: what `link` leads to.
fn ptr(kind: &str, id: u64) -> String {
    format!("{kind}{id}")
}

fn clients(admin: &Admin) -> Rows {
    let servers = admin.servers();
    let held =
        |server: &HeldServer| Some((server.holder.as_ref()?.entry.id, server.server.listed.id));
    let held: HashMap<_, _> = servers.iter().filter_map(held).collect();
    let row = |view: &SessionView| client(view, held.get(&view.entry.id).copied());
    admin.sessions().iter().map(row).collect()
}

fn client(view: &SessionView, server: Option<u64>) -> Vec<Cell> {
    let entry = &view.entry;
    let (wait, wait_us) = secs_and_micros(view.waiting);
    let ends = entry.ends();
    let (local_addr, local_port, pid) = local_end(ends.local);
    let (addr, port) = match ends.local {
        LocalEnd::Unix { port, .. } => ("unix", u32::from(port)),
        _ => address(&entry.peer),
    };
    row![
        "C",
        entry.role.as_str(),
        entry.database.as_str(),
        view.state(),
        addr,
        port,
        local_addr,
        u32::from(local_port),
        time(view.connected_at),
        view.request_at.map(time),
        wait,
        wait_us,
        0u64,
        ptr("C", entry.id.0),
        server.map_or_else(String::new, |id| ptr("S", id)),
        pid,
        ends.tls.as_deref().unwrap_or(""),
        entry.application(),
        entry.id.0,
        entry.protocol.as_str(),
        entry.pinned(),
        entry.mode.word(),
        view.transaction_at.map(time),
        view.totals.transactions(),
        view.totals.queries,
        view.totals.wait_us,
        view.backend_pid,
    ]
}

fn classes(admin: &Admin) -> Rows {
    let row = |view: ClassView| {
        let of = view.figures;
        row![
            &*view.name,
            of.requests.get(),
            of.hits.get(),
            of.misses.get(),
            of.tag_hits.get(),
            of.waits.get(),
            of.timeouts.get(),
            of.taken_away.get(),
            of.held.get(),
            of.parked.get(),
        ]
    };
    admin.classes().into_iter().map(row).collect()
}

fn host_and_port(addr: &BackendAddr) -> (String, u32) {
    match addr {
        BackendAddr::Unix(path) => {
            let folder = path.parent().map_or_else(String::new, |dir| dir.display().to_string());
            let port = path.extension().and_then(|port| port.to_str()?.parse().ok());
            (folder, port.unwrap_or(0))
        }
        BackendAddr::Tcp(host, port) => (host.clone(), u32::from(*port)),
    }
}

fn servers(admin: &Admin) -> Rows {
    let row = |held: &HeldServer| {
        let listed = &held.server.listed;
        let holder = held.holder.as_ref();
        let reached = listed.reached();
        let (addr, port) = match reached.as_ref().map(|reached| (reached.address, &reached.server))
        {
            Some((Some(address), _)) => {
                (address.ip().to_canonical().to_string(), u32::from(address.port()))
            }
            Some((None, server)) => ("unix".to_owned(), host_and_port(server).1),
            None => (String::new(), 0),
        };
        let ends = reached.map(|reached| reached.ends).unwrap_or_default();
        let (local_addr, local_port, _) = local_end(ends.local);
        row![
            "S",
            listed.role.as_str(),
            listed.database.as_str(),
            held.state(),
            addr,
            port,
            local_addr,
            u32::from(local_port),
            time(listed.since),
            holder.and_then(|view| view.request_at).map(time),
            0u64,
            0u64,
            u64::from(listed.is_stale()),
            ptr("S", listed.id),
            holder.map_or_else(String::new, |view| ptr("C", view.entry.id.0)),
            listed.pid(),
            ends.tls.as_deref().unwrap_or(""),
            holder.map_or_else(String::new, |view| view.entry.application()),
            listed.id,
        ]
    };
    admin.servers().iter().map(row).collect()
}

fn pools(admin: &Admin) -> Rows {
    let row = |((database, role), pool): (_, crate::session::admin::PoolView)| {
        let (database, role): (Database, Role) = (database, role);
        let (maxwait, maxwait_us) = secs_and_micros(Some(pool.longest_wait));
        row![
            database.as_str(),
            role.as_str(),
            pool.clients_active,
            pool.clients_waiting,
            pool.clients_cancelling,
            0u64,
            pool.servers_active,
            pool.clients_cancelling,
            0u64,
            pool.servers_idle,
            0u64,
            pool.servers_tested,
            pool.servers_login,
            maxwait,
            maxwait_us,
            admin.pool_mode(&role, &database),
            pool.clients_pinned,
        ]
    };
    admin.pools().into_iter().map(|((d, r), pool)| row(((d, r), pool))).collect()
}

/// How many things there are of each name.
fn count<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    names.for_each(|name| *counts.entry(name.to_owned()).or_default() += 1);
    counts
}

fn databases(admin: &Admin) -> Rows {
    let (host, port) = host_and_port(admin.backend());
    let (sessions, servers) = (admin.sessions(), admin.servers());
    let clients = count(sessions.iter().map(|view| view.entry.database.as_str()));
    let servers = count(servers.iter().map(|held| held.server.listed.database.as_str()));
    let (paused, (_, overrides)) = (admin.paused(), admin.overrides());
    let row = |name: &Database| {
        let name = name.as_str();
        row![
            name,
            host.as_str(),
            port,
            name,
            Cell::Null,
            admin.pool_size(),
            0u64,
            0u64,
            overrides.get(name).and_then(|own| own.pooling_mode).map(|mode| mode.word()),
            overrides.get(name).and_then(|own| own.max_size).unwrap_or(admin.pool_size()),
            servers.get(name).copied().unwrap_or(0),
            admin.max_clients(),
            clients.get(name).copied().unwrap_or(0),
            u64::from(paused.holds(name)),
            0u64,
        ]
    };
    admin.databases().iter().map(row).collect()
}

fn users(admin: &Admin) -> Rows {
    let (sessions, servers) = (admin.sessions(), admin.servers());
    let clients = count(sessions.iter().map(|view| view.entry.role.as_str()));
    let servers = count(servers.iter().map(|held| held.server.listed.role.as_str()));
    let names: BTreeSet<&String> = clients.keys().chain(servers.keys()).collect();
    let of =
        |counts: &BTreeMap<String, usize>, name: &String| counts.get(name).copied().unwrap_or(0);
    let (overrides, _) = admin.overrides();
    let row = |name: &String| {
        let own = overrides.get(name).and_then(|own| own.pooling_mode);
        let mode = own.map(|mode| mode.word());
        row![name.as_str(), mode, of(&servers, name), of(&clients, name)]
    };
    names.into_iter().map(row).collect()
}

fn lists(admin: &Admin) -> Rows {
    let (sessions, servers) = (admin.sessions(), admin.servers());
    let idle = servers.iter().filter(|held| held.server.idle).count();
    let waiting = sessions.iter().filter(|view| view.waiting.is_some()).count();
    let pinned = sessions.iter().filter(|view| view.entry.pinned().is_some()).count();
    vec![
        row!["databases", admin.databases().len()],
        row!["users", users(admin).len()],
        row!["pools", admin.pools().len()],
        row!["free_clients", admin.max_clients().saturating_sub(sessions.len())],
        row!["used_clients", sessions.len()],
        row!["waiting_clients", waiting],
        row!["pinned_clients", pinned],
        row!["free_servers", idle],
        row!["used_servers", servers.len() - idle],
        row!["system_servers", admin.system_servers().len()],
    ]
}

fn memory() -> Rows {
    let row = |(name, bytes)| row![name, Cell::Null, Cell::Null, Cell::Null, bytes];
    process_memory().into_iter().map(row).collect()
}

fn state(admin: &Admin) -> Rows {
    let yes = |is: bool| if is { "yes" } else { "no" };
    let (paused, draining) = (admin.paused().any(), admin.is_draining());
    vec![
        row!["active", yes(!paused && !draining)],
        row!["paused", yes(paused)],
        row!["suspended", "no"],
        row!["draining", yes(draining)],
    ]
}

fn config(admin: &Admin) -> Rows {
    let settings = admin.settings().into_iter();
    let yes = |live| if live { "yes" } else { "no" };
    settings.map(|s| row![s.key, s.value, s.default, yes(s.live), s.source]).collect()
}

/// The columns after the name, in PgBouncer's order.
fn figures(totals: &Totals) -> Vec<Cell> {
    row![
        totals.transactions(),
        totals.queries,
        totals.received,
        totals.sent,
        totals.transaction_us,
        totals.query_us,
        totals.wait_us,
    ]
}

fn parts(by_database: &BTreeMap<Database, Totals>) -> Rows {
    let row = |(name, totals): (&Database, &Totals)| {
        let mut row = row![name.as_str()];
        row.extend(figures(totals));
        row
    };
    by_database.iter().map(row).collect()
}

fn stats(admin: &Admin) -> Rows {
    let averages = admin.averages();
    let row = |(name, totals): (&Database, &Totals)| {
        let mut row = row![name.as_str()];
        row.extend(figures(totals));
        row.extend(figures(&averages.get(name).copied().unwrap_or_default()));
        row
    };
    admin.totals().iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_become_address_and_port() {
        assert_eq!(address("127.0.0.1:5"), ("127.0.0.1", 5));
        assert_eq!(address("[::1]:7"), ("::1", 7));
        assert_eq!(address("local"), ("unix", 0));
    }

    #[test]
    fn times_are_written_as_pgbouncer_does() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        assert_eq!(time(at), "2001-09-09 01:46:40 UTC");
    }
}
