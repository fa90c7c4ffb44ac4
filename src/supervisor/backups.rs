//! Backups of the embedded PostgreSQL by its own programs: `pg_basebackup` and `pg_dump`.
//!
//! Each is a directory of its own below `backend.embedded.backup_dir`; the file `backup.json`,
//! which is written last, says that it is whole.

use std::fs;
use std::io::ErrorKind as Io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Serialize;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, Command};

use super::install::{RunAs, make_private, run_as};
use super::process::die_with_us;
use super::{Plan, SOCKET_PORT};
use crate::error::{Error, ErrorKind, Result};

/// Bytes that are kept of what a program says.
const LAST_WORDS: usize = 4 << 10;

/// Longest name of a backup.
const LONGEST_NAME: usize = 128;

/// The file that says that a backup is whole.
const WHOLE: &str = "backup.json";

/// What is to be saved.
#[derive(Clone, Debug)]
pub enum BackupKind {
    /// The whole cluster, as files.
    Full,
    /// One database, as an archive for `pg_restore`.
    Logical(String),
}

/// A backup that is whole.
#[derive(Clone, Debug, Serialize)]
pub struct Backup {
    /// Where it is.
    pub path: PathBuf,
    /// full, logical.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The database of a logical one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Whether it is compressed.
    pub compressed: bool,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Version of PostgreSQL.
    pub postgresql: String,
}

/// Makes backups.
#[derive(Clone, Debug)]
pub struct Backups {
    bin: PathBuf,
    run_dir: PathBuf,
    user: RunAs,
    version: String,
    directory: PathBuf,
}

impl Plan {
    /// What makes backups of this server in a directory.
    pub fn backups(&self, directory: PathBuf) -> Backups {
        Backups {
            bin: self.install.bin.clone(),
            run_dir: self.run_dir.clone(),
            user: self.user,
            version: self.install.version.clone(),
            directory,
        }
    }
}

impl Backups {
    /// Refuses what is no name for a backup: a path, for instance.
    ///
    /// # Errors
    /// It is none.
    pub fn check_name(name: &str) -> Result<()> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let is_good = (1..=LONGEST_NAME).contains(&name.len())
            && name.chars().all(fits)
            && name.starts_with(|c: char| c.is_ascii_alphanumeric());
        match is_good {
            true => Ok(()),
            false => {
                Err(Error::new(ErrorKind::ValidationError, "destination is no name for a backup")
                    .with_hint("letters, digits, dots, _ and -: a directory of this name is made"))
            }
        }
    }

    /// Makes a backup of this name. Dropping it in the middle ends the program and removes what it
    /// has written. `application` is what its sessions are called.
    ///
    /// # Errors
    /// There is one of this name, or the program fails, in its own words.
    pub async fn make(
        self,
        name: String,
        kind: BackupKind,
        compressed: bool,
        application: &str,
    ) -> Result<Backup> {
        Self::check_name(&name)?;
        let (this, path) = (self.clone(), self.directory.join(&name));
        let reserved = path.clone();
        let mut begun = blocking(move || this.reserve(&reserved)).await?;
        let child = self.command(&kind, compressed, &path, application).spawn();
        let child = child.map_err(|e| failed(&format!("cannot start the program: {e}")))?;
        begun.run(child).await?;
        let (kind, database) = match kind {
            BackupKind::Full => ("full", None),
            BackupKind::Logical(database) => ("logical", Some(database)),
        };
        let backup = blocking(move || {
            let bytes = size_of(&path).map_err(Error::internal)?;
            let postgresql = self.version;
            let whole = path.join(WHOLE);
            let backup = Backup { path, kind, database, compressed, bytes, postgresql };
            let text = serde_json::to_vec_pretty(&backup).map_err(Error::internal)?;
            fs::write(whole, text).map_err(Error::internal)?;
            Ok(backup)
        });
        let backup = backup.await?;
        begun.is_whole = true;
        Ok(backup)
    }

    /// Makes the directory, which nobody else can then.
    fn reserve(&self, path: &Path) -> Result<Begun> {
        let unusable = |e: std::io::Error| {
            failed(&format!("cannot use {}: {e}", self.directory.display()))
                .with_hint("backend.embedded.backup_dir says where backups go")
        };
        if !self.directory.exists() {
            make_private(&self.directory, self.user).map_err(unusable)?;
        }
        match fs::create_dir(path) {
            Ok(()) => {}
            Err(e) if e.kind() == Io::AlreadyExists => {
                let text = format!("there is a backup at {} already", path.display());
                return Err(Error::new(ErrorKind::Conflict, text));
            }
            Err(e) => return Err(unusable(e)),
        }
        let begun = Begun { path: path.to_owned(), child: None, is_whole: false };
        make_private(path, self.user).map_err(unusable)?;
        Ok(begun)
    }

    fn command(&self, kind: &BackupKind, compressed: bool, path: &Path, name: &str) -> Command {
        let program = match kind {
            BackupKind::Full => "pg_basebackup",
            BackupKind::Logical(_) => "pg_dump",
        };
        let mut command = std::process::Command::new(self.bin.join(program));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command.arg("--host").arg(&self.run_dir);
        command.args(["--port", &SOCKET_PORT.to_string(), "--username", "postgres"]);
        command.arg("--no-password");
        match kind {
            BackupKind::Full => {
                command.arg("--pgdata").arg(path.join("base"));
                command.args(["--wal-method=stream", "--checkpoint=fast", "--progress"]);
                if compressed {
                    command.args(["--format=tar", "--gzip"]);
                }
            }
            BackupKind::Logical(database) => {
                let level = if compressed { "6" } else { "0" };
                command.args(["--format=custom", "--compress", level]);
                command.arg("--file").arg(path.join("dump"));
                command.arg(format!("--dbname=dbname={}", quote_parameter(database)));
            }
        }
        run_as(&mut command, self.user);
        command
            // With all that it starts itself.
            .process_group(0)
            .current_dir("/")
            .env("LC_MESSAGES", "C")
            .env("PGAPPNAME", name)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        die_with_us(&mut command, Signal::SIGTERM);
        Command::from(command)
    }
}

/// A value in a connection string
/// (<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING>).
fn quote_parameter(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A backup that is not whole yet; what is there of it goes when this is dropped.
struct Begun {
    path: PathBuf,
    child: Option<Child>,
    is_whole: bool,
}

impl Begun {
    async fn run(&mut self, mut child: Child) -> Result<()> {
        let stderr = child.stderr.take();
        let child = self.child.insert(child);
        let (status, words) = tokio::join!(child.wait(), last_words(stderr));
        let status = status.map_err(Error::internal)?;
        self.child = None;
        match status.success() {
            true => Ok(()),
            false => Err(failed(&words)),
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let child = self.child.take();
        if let Some(pid) = child.as_ref().and_then(Child::id) {
            // It may have ended in the meantime.
            let _ = killpg(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.is_whole {
            return;
        }
        let path = std::mem::take(&mut self.path);
        runtime.spawn(async move {
            if let Some(mut child) = child {
                let _ = child.wait().await;
            }
            let removed = blocking(move || fs::remove_dir_all(path).map_err(Error::internal)).await;
            if let Err(error) = removed {
                let cause = error.cause().map(tracing::field::display);
                tracing::warn!(cause, "what is left of a backup cannot be removed");
            }
        });
    }
}

/// The end of what a program says: its complaint.
async fn last_words(stderr: Option<ChildStderr>) -> String {
    let Some(mut stderr) = stderr else { return String::new() };
    let (mut kept, mut part) = (Vec::new(), [0; LAST_WORDS]);
    while let Ok(length @ 1..) = stderr.read(&mut part).await {
        kept.extend_from_slice(&part[..length]);
        let excess = kept.len().saturating_sub(LAST_WORDS);
        kept.drain(..excess);
    }
    let text = String::from_utf8_lossy(&kept);
    // Progress is written over itself with carriage returns.
    let lines = text.split(['\n', '\r']).map(str::trim);
    lines.filter(|line| line.contains(": ")).collect::<Vec<_>>().join("; ")
}

fn failed(why: &str) -> Error {
    Error::new(ErrorKind::InternalError, "the backup has failed").with_detail(why)
}

fn size_of(path: &Path) -> std::io::Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        size += match kind.is_dir() {
            true => size_of(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(size)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_the_directory() {
        for good in ["monday", "2026-11-21_full.1", "a"] {
            assert!(Backups::check_name(good).is_ok(), "{good}");
        }
        let long = "x".repeat(LONGEST_NAME + 1);
        for bad in ["", ".", "..", "../x", "a/b", "/etc", ".hidden", "-D", "a b", "ä", "a\0", &long]
        {
            assert!(Backups::check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_database_is_no_connection_string() {
        assert_eq!(quote_parameter("a' host='x\\"), r"'a\' host=\'x\\'");
    }
}
