//! Finding an installed PostgreSQL and making a cluster with it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Gid, Uid, User};

use super::StartError;
use crate::config::Embedded;

/// Major versions that RustyDB works with.
pub const SUPPORTED: std::ops::RangeInclusive<u32> = 13..=18;

/// An installed PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    /// Directory of `postgres` and `initdb`.
    pub bin: PathBuf,
    /// Major version.
    pub major: u32,
    /// Full version, for people.
    pub version: String,
}

/// The operating-system user that runs the server; `None` = the one that runs RustyDB.
pub type RunAs = Option<(Uid, Gid)>;

impl Install {
    /// The configured installation, else the one that made the cluster, else the newest.
    pub fn find(config: &Embedded, cluster: &Path) -> Result<Self, StartError> {
        let directories = match &config.pg_bin_dir {
            Some(bin) => vec![bin.clone()],
            None => usual_directories(),
        };
        let found: Vec<Self> = directories.iter().filter_map(|bin| Self::probe(bin)).collect();
        let made_by = cluster_major(cluster);
        let supported = found.iter().filter(|install| SUPPORTED.contains(&install.major));
        let best = match made_by {
            Some(major) => supported.clone().find(|install| install.major == major),
            None => supported.clone().max_by_key(|install| install.major),
        };
        best.cloned().ok_or_else(|| StartError::backend(missing(config, &found, made_by)))
    }

    fn probe(bin: &Path) -> Option<Self> {
        // A link from the search path leads to an installation, but has no libraries beside it.
        let real = fs::canonicalize(bin.join("postgres")).ok()?;
        let bin = real.parent().filter(|real| real.join("initdb").exists()).unwrap_or(bin);
        if !bin.join("initdb").exists() {
            return None;
        }
        let output = Command::new(bin.join("postgres")).arg("--version").output().ok()?;
        // "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"
        let text = String::from_utf8(output.stdout).ok()?;
        let version = text.split_whitespace().nth(2)?.to_owned();
        let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
        Some(Self { bin: bin.to_owned(), major: digits.parse().ok()?, version })
    }

    /// Whether a library can be preloaded.
    pub fn has_library(&self, name: &str) -> bool {
        let output = Command::new(self.bin.join("pg_config")).arg("--pkglibdir").output();
        let told = output.ok().and_then(|o| String::from_utf8(o.stdout).ok());
        let told = told.map(|text| PathBuf::from(text.trim()));
        let near = self.bin.parent().map(|root| root.join("lib"));
        let file = format!("{name}.so");
        told.into_iter().chain(near).any(|dir| dir.join(&file).exists())
    }

    /// Makes a cluster; a half-made one is never taken for whole.
    pub fn init_cluster(&self, cluster: &Path, user: RunAs) -> Result<(), StartError> {
        let fresh = cluster.with_extension("new");
        let io = |e: std::io::Error| StartError::backend(format!("cannot make a cluster: {e}"));
        if fresh.exists() {
            fs::remove_dir_all(&fresh).map_err(io)?;
        }
        make_private(&fresh, user).map_err(io)?;
        let mut command = Command::new(self.bin.join("initdb"));
        command
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8"])
            .arg(format!("--locale={}", if has_c_utf8() { "C.UTF-8" } else { "C" }))
            .arg("--pgdata")
            .arg(&fresh)
            .current_dir("/")
            .env("LC_MESSAGES", "C");
        run_as(&mut command, user);
        let output = command.output().map_err(io)?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(StartError::backend(format!("initdb failed: {}", why.trim())));
        }
        let hba = fresh.join("pg_hba.conf");
        fs::write(&hba, include_str!("pg_hba.conf")).map_err(io)?;
        fs::rename(&fresh, cluster).map_err(io)
    }
}

fn cluster_major(cluster: &Path) -> Option<u32> {
    fs::read_to_string(cluster.join("PG_VERSION")).ok()?.trim().parse().ok()
}

fn missing(config: &Embedded, found: &[Install], made_by: Option<u32>) -> String {
    let (oldest, newest) = (SUPPORTED.start(), SUPPORTED.end());
    let list: Vec<_> =
        found.iter().map(|i| format!("{} in {}", i.version, i.bin.display())).collect();
    let seen =
        if list.is_empty() { String::new() } else { format!(" (found {})", list.join(", ")) };
    match (made_by, &config.pg_bin_dir) {
        (Some(major), _) => format!(
            "the data directory was made by PostgreSQL {major}, which is not installed{seen}; \
             install it, for instance: apt-get install postgresql-{major}"
        ),
        (None, Some(bin)) => format!(
            "{} has no PostgreSQL {oldest} to {newest}{seen}; correct backend.embedded.pg_bin_dir",
            bin.display()
        ),
        (None, None) => format!(
            "no PostgreSQL {oldest} to {newest} is installed{seen}; install one, for instance: \
             apt-get install postgresql-15 — or name a running server with --backend \
             postgresql://user:password@host:5432/database"
        ),
    }
}

fn usual_directories() -> Vec<PathBuf> {
    let mut directories = Vec::new();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        directories.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    for root in ["/usr/lib/postgresql", "/usr/lib64/postgresql", "/opt/postgresql"] {
        let versions = fs::read_dir(root).into_iter().flatten().flatten();
        directories.extend(versions.map(|version| version.path().join("bin")));
    }
    directories.extend(SUPPORTED.map(|major| format!("/usr/pgsql-{major}/bin").into()));
    directories.push("/usr/local/pgsql/bin".into());
    if let Some(path) = std::env::var_os("PATH") {
        directories.extend(std::env::split_paths(&path));
    }
    directories
}

fn has_c_utf8() -> bool {
    let output = Command::new("locale").arg("-a").output();
    output.is_ok_and(|o| {
        String::from_utf8_lossy(&o.stdout)
            .lines()
            .any(|l| l.eq_ignore_ascii_case("C.UTF-8") || l.eq_ignore_ascii_case("C.utf8"))
    })
}

/// PostgreSQL refuses to run as root, so as root another user has to do it.
pub fn choose_user(config: &Embedded, cluster: &Path) -> Result<RunAs, StartError> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let owner = fs::metadata(cluster).ok().map(|m| m.uid()).filter(|uid| *uid != 0);
    let by_name = |name: &str| User::from_name(name).ok().flatten();
    let user = match (&config.run_as, owner) {
        (Some(name), _) => by_name(name).ok_or_else(|| {
            StartError::config(format!("backend.embedded.run_as: there is no user \"{name}\""))
        })?,
        (None, Some(uid)) => {
            User::from_uid(Uid::from_raw(uid)).ok().flatten().ok_or_else(|| {
                StartError::config(format!("the owner of {} has no name", cluster.display()))
            })?
        }
        (None, None) => by_name("postgres").ok_or_else(|| {
            StartError::config("set backend.embedded.run_as to an unprivileged user".into())
        })?,
    };
    if user.uid.is_root() {
        let text = "backend.embedded.run_as must not be root: PostgreSQL refuses that";
        return Err(StartError::config(text.into()));
    }
    Ok(Some((user.uid, user.gid)))
}

/// Checks that the user can get to the directory through every folder above it.
pub fn check_reachable(path: &Path, user: RunAs) -> Result<(), StartError> {
    let Some((uid, gid)) = user else { return Ok(()) };
    for folder in path.ancestors() {
        let Ok(meta) = fs::metadata(folder) else { continue };
        let bit = match (meta.uid() == uid.as_raw(), meta.gid() == gid.as_raw()) {
            (true, _) => 0o100,
            (_, true) => 0o010,
            _ => 0o001,
        };
        if meta.mode() & bit == 0 {
            let name = User::from_uid(uid).ok().flatten().map_or(uid.to_string(), |u| u.name);
            return Err(StartError::config(format!(
                "PostgreSQL runs as user {name} here, who may not enter {}; choose another \
                 --data-dir, for instance /var/lib/rustydb",
                folder.display()
            )));
        }
    }
    Ok(())
}

/// Makes a directory that only the server's user can enter.
pub fn make_private(path: &Path, user: RunAs) -> std::io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    match user {
        Some((uid, gid)) => chown(path, Some(uid.as_raw()), Some(gid.as_raw())),
        None => Ok(()),
    }
}

/// Lets a command run as the server's user.
pub fn run_as(command: &mut Command, user: RunAs) {
    if let Some((uid, gid)) = user {
        command.uid(uid.as_raw()).gid(gid.as_raw());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        let config = Embedded::default();
        assert!(missing(&config, &[], None).contains("apt-get install postgresql-15"));
        let old = Install { bin: "/opt/pg9/bin".into(), major: 9, version: "9.6.24".into() };
        let text = missing(&config, std::slice::from_ref(&old), None);
        assert!(text.contains("found 9.6.24 in /opt/pg9/bin"), "{text}");
        assert!(missing(&config, &[old], Some(16)).contains("install postgresql-16"));
    }
}
