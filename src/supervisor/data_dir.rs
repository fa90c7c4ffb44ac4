//! RustyDB's data directory: whose it is, and that only one process uses it.
//!
//! ```text
//! <data-dir>/RUSTYDB         format of the directory; its absence means "not ours"
//!            rustydb.lock    locked while a process runs; says where it listens
//!            admin-password  the first password of the administrator, mode 0600
//!            takeover.sock   where the next process asks for the sockets, mode 0600
//!            runtime.toml    what administrators have changed, mode 0600
//!            backups/        backups, unless backend.embedded.backup_dir says otherwise
//!            pg/             the embedded PostgreSQL's cluster
//!            run/            its socket
//! ```

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::StartError;
use crate::types::Secret;

const MARKER: &str = "RUSTYDB";
const FORMAT: &str = "1\n";

/// A data directory that this process owns, or is about to.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// `None` = the process that is taken over has it.
    lock: Option<Flock<File>>,
}

/// Where the configuration does not say: `/var/lib/rustydb` if that can be written, else `./data`.
pub fn default_path() -> PathBuf {
    let system = PathBuf::from("/var/lib/rustydb");
    let exists_for_us = system.join(MARKER).exists() && writable(&system);
    let can_be_made = !system.exists() && system.parent().is_some_and(writable);
    let is_empty = std::fs::read_dir(&system).is_ok_and(|mut entries| entries.next().is_none());
    if exists_for_us || can_be_made || (is_empty && writable(&system)) {
        system
    } else {
        PathBuf::from("data")
    }
}

fn writable(path: &Path) -> bool {
    nix::unistd::access(path, nix::unistd::AccessFlags::W_OK).is_ok()
}

/// What the lock file says about the process that holds it.
pub fn read_status(path: &Path) -> Option<serde_json::Value> {
    serde_json::from_str(&std::fs::read_to_string(path.join("rustydb.lock")).ok()?).ok()
}

impl DataDir {
    /// Opens the directory, making it when it does not exist or is empty.
    pub fn open(path: &Path) -> Result<Self, StartError> {
        let fail = |what: &str, e: &dyn std::fmt::Display| {
            StartError::config(format!("cannot {what} the data directory {}: {e}", path.display()))
        };
        if !path.exists() {
            let mode = std::fs::Permissions::from_mode(0o711);
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o711)
                .create(path)
                // A strict umask would lock out the user that runs PostgreSQL.
                .and_then(|()| std::fs::set_permissions(path, mode))
                .map_err(|e| fail("create", &e))?;
        }
        let path = path.canonicalize().map_err(|e| fail("open", &e))?;
        claim(&path).map_err(|e| fail("write", &e))?;
        let file = lock_file(&path).map_err(|e| fail("lock", &e))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { path, lock: Some(lock) }),
            Err((mut file, _)) => {
                let mut text = String::new();
                let _ = file.read_to_string(&mut text);
                let status: Option<serde_json::Value> = serde_json::from_str(&text).ok();
                let pid = status.and_then(|s| s["pid"].as_u64());
                let by = pid.map_or(String::new(), |pid| format!(" (process {pid})"));
                Err(StartError::runtime(format!(
                    "another RustyDB{by} is running on the data directory {}; stop it, or choose \
                     another one with --data-dir",
                    path.display()
                )))
            }
        }
    }

    /// The directory of a process that is about to be taken over, which still has the lock.
    pub fn of_another(path: &Path) -> Result<Self, StartError> {
        let fail = |e: &dyn std::fmt::Display| {
            let path = path.display();
            StartError::config(format!("cannot open the data directory {path}: {e}"))
        };
        let path = path.canonicalize().map_err(|e| fail(&e))?;
        match std::fs::read_to_string(path.join(MARKER)) {
            Ok(text) if text == FORMAT => Ok(Self { path, lock: None }),
            Ok(_) => Err(fail(&"it was made by a newer RustyDB")),
            Err(e) => Err(fail(&e)),
        }
    }

    /// Takes the lock over: the open file that the other process locked, or when that is gone,
    /// one of its own.
    pub fn take_lock(&mut self, handed: Option<File>) -> std::io::Result<()> {
        let file = handed.map_or_else(|| lock_file(&self.path), Ok)?;
        let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock);
        self.lock = Some(locked.map_err(|(_, e)| e)?);
        Ok(())
    }

    /// The locked file, for the process that takes over.
    pub fn lock(&self) -> Option<BorrowedFd<'_>> {
        self.lock.as_ref().map(|lock| lock.as_fd())
    }

    /// Lets go of the lock without unlocking: it belongs to the open file, and another process has
    /// that too.
    pub fn leave_lock(&mut self) {
        let Some(lock) = self.lock.take() else { return };
        let fd = lock.as_raw_fd();
        std::mem::forget(lock);
        // SAFETY: the value that owned the descriptor has just been forgotten.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes into the lock file where this process can be asked.
    pub fn publish(&mut self, status: &serde_json::Value) -> std::io::Result<()> {
        let Some(lock) = &mut self.lock else { return Ok(()) };
        lock.set_len(0)?;
        lock.rewind()?;
        writeln!(lock, "{status}")
    }

    /// The file of the administrator's first password.
    pub fn password_file(&self) -> PathBuf {
        self.path.join("admin-password")
    }

    /// Keeps the administrator's first password, for its owner's eyes only.
    pub fn keep_password(&self, password: &Secret) -> std::io::Result<()> {
        let path = self.password_file();
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        writeln!(file, "{}", password.reveal())?;
        file.sync_all()
    }
}

fn lock_file(directory: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o644)
        .open(directory.join("rustydb.lock"))
}

/// Accepts a directory that is ours, makes an empty one ours, and refuses any other.
fn claim(path: &Path) -> Result<(), String> {
    match std::fs::read_to_string(path.join(MARKER)) {
        Ok(text) if text == FORMAT => return Ok(()),
        Ok(_) => return Err("it was made by a newer RustyDB".into()),
        Err(_) => {}
    }
    let mut entries = std::fs::read_dir(path).map_err(|e| e.to_string())?;
    if entries.next().is_some() {
        return Err("it is not empty and was not made by RustyDB; choose another one with \
                    --data-dir"
            .into());
    }
    std::fs::write(path.join(MARKER), FORMAT).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_directory_is_refused_and_an_empty_one_taken() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.doc"), "").unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert_eq!(error.exit_code, 2);
        assert!(error.message.contains("was not made by RustyDB"), "{}", error.message);
        std::fs::remove_file(dir.path().join("thesis.doc")).unwrap();
        let mut ours = DataDir::open(dir.path()).unwrap();
        ours.publish(&serde_json::json!({ "pid": 7 })).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(error.message.contains("another RustyDB (process 7)"), "{}", error.message);
        drop(ours);
        DataDir::open(dir.path()).unwrap();
    }

    #[test]
    fn the_lock_goes_from_one_process_to_the_next_without_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let is_locked = || DataDir::open(dir.path()).is_err();
        let mut old = DataDir::open(dir.path()).unwrap();
        let mut new = DataDir::of_another(dir.path()).unwrap();
        let handed = old.lock().unwrap().try_clone_to_owned().unwrap();
        new.take_lock(Some(handed.into())).unwrap();
        old.leave_lock();
        drop(old);
        assert!(is_locked());
        drop(new);
        assert!(!is_locked());
        DataDir::of_another(dir.path()).unwrap().take_lock(None).unwrap();
    }
}
