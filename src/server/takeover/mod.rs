//! One RustyDB takes over from another on the same data directory, and no client notices.
//!
//! ```text
//! old (serves)                          new (rustydb --takeover)
//!   listens on <data-dir>/takeover.sock
//!        ◄─────────── hello ────────────  configuration read
//!        ──── listening sockets ────────►  PostgreSQL reached, workers up, nobody accepted
//!        ◄─────────── ready ────────────
//!        ──── lock of the directory ────►  accepts; owns the socket files
//!   accepts nobody; clients stay
//!        ◄── cancel requests, clients left ──►
//!   ends when they are gone
//! ```
//!
//! Until `ready` the old process does nothing but wait, so a new one that fails changes nothing.
//! Both hold the same listening sockets, so the kernel's queue of clients is never without one.

mod give;
mod take;
mod wire;

use std::path::{Path, PathBuf};

pub(super) use give::{Giver, Heir, Offer};
pub(super) use take::{Predecessor, Taking};

/// The control socket of the process that serves a data directory.
fn control_path(data_dir: &Path) -> PathBuf {
    data_dir.join("takeover.sock")
}
