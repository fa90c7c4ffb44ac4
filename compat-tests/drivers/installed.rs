//! Whether a language and the packages that a program needs are there. `setup` installs them; what
//! it could not install is skipped, and says so.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `setup` installs in one go.
#[derive(Clone, Copy)]
pub enum Language {
    Python,
    Node,
    Go,
    Java,
    Rust,
    Odbc,
}

impl Language {
    /// The name that `setup` knows, and the file that says which packages there must be.
    fn parts(self) -> (&'static str, &'static str) {
        match self {
            Self::Python => ("python", "python/requirements.txt"),
            Self::Node => ("node", "node/package-lock.json"),
            Self::Go => ("go", "go/go.sum"),
            Self::Java => ("java", "java/pom.xml"),
            Self::Rust => ("rust", "rust/Cargo.lock"),
            Self::Odbc => ("odbc", "python/odbc.txt"),
        }
    }
}

/// The folder of the programs.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("compat-tests/drivers")
}

fn cache() -> Option<PathBuf> {
    if let Some(cache) = std::env::var_os("RUSTYDB_DRIVERS_CACHE") {
        return Some(cache.into());
    }
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    Some(base.or_else(home)?.join("rustydb/drivers"))
}

/// The directory of a language's packages, or nothing and a line that says why.
pub fn find(driver: &str, language: Language) -> Option<PathBuf> {
    let (name, lock) = language.parts();
    let Some(cache) = cache() else {
        skip(driver, "there is no HOME to find its packages in");
        return None;
    };
    let wanted = fs::read(folder().join(lock)).unwrap();
    // `setup` leaves a copy of what it has installed.
    if fs::read(cache.join(format!("{name}.installed"))).is_ok_and(|there| there == wanted) {
        return Some(cache.join(name));
    }
    let reason = fs::read_to_string(cache.join(format!("{name}.missing"))).unwrap_or_else(|_| {
        "its packages are not installed; compat-tests/drivers/setup does it".into()
    });
    skip(driver, reason.trim());
    None
}

/// Translates a program.
pub fn build(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

fn skip(driver: &str, reason: &str) {
    assert!(
        std::env::var_os("RUSTYDB_DRIVERS_REQUIRED").is_none(),
        "{driver} cannot be tested: {reason}"
    );
    // Past the test runner, which keeps what a passed test prints to itself.
    let line = format!("\nskipped: {driver}: {reason}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}
