//! Tools of others against the description of the API, and against the server by it. `setup`
//! installs them; what it could not install is skipped, and says so.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::Server;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn cache() -> Option<PathBuf> {
    if let Some(cache) = std::env::var_os("RUSTYDB_API_TOOLS_CACHE") {
        return Some(cache.into());
    }
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    Some(base.or_else(home)?.join("rustydb/api-tools"))
}

/// The directory of a tool, or nothing and a line that says why.
fn find(name: &str, lock: &str) -> Option<PathBuf> {
    let cache = cache()?;
    let wanted = fs::read(repository().join("compat-tests/rest/tools").join(lock)).unwrap();
    // `setup` leaves a copy of what it has installed.
    if fs::read(cache.join(format!("{name}.installed"))).is_ok_and(|there| there == wanted) {
        return Some(cache.join(name));
    }
    let reason = fs::read_to_string(cache.join(format!("{name}.missing")))
        .unwrap_or_else(|_| "it is not installed; compat-tests/rest/setup does it".into());
    assert!(
        std::env::var_os("RUSTYDB_API_TOOLS_REQUIRED").is_none(),
        "{name} cannot be run: {reason}"
    );
    // Past the test runner, which keeps what a passed test prints to itself.
    let line = format!("\nskipped: {name}: {}\n", reason.trim());
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    None
}

/// Runs a tool; what it says is shown when it is not content.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{command:?}:\n{said}");
    said.into_owned()
}

#[test]
fn linters_find_nothing_in_the_description() {
    let Some(linters) = find("linters", "package-lock.json") else { return };
    let description = repository().join("docs/openapi.json");
    let program = |name: &str| Command::new(linters.join("node_modules/.bin").join(name));
    let rules = linters.join("spectral.yaml");
    fs::write(&rules, "extends: [\"spectral:oas\"]\n").unwrap();
    run(program("spectral")
        .args(["lint", "--fail-severity", "hint", "--ruleset"])
        .arg(rules)
        .arg(&description));
    // `/transactions/locks/{lock_id}` and `/transactions/{id}/commit` are told apart: a number is
    // no word.
    let said = run(program("redocly")
        .args(["lint", "--max-problems", "20", "--format", "stylish"])
        .args(["--skip-rule", "no-ambiguous-paths"])
        .arg(&description)
        .env("REDOCLY_TELEMETRY", "off")
        .env("REDOCLY_SUPPRESS_UPDATE_NOTICE", "true"));
    // It does not fail for those.
    assert!(!said.contains("You have"), "{said}");
}

/// `SCHEMATHESIS_EXAMPLES` = requests that are made up for each operation; a few by default.
#[test]
#[ignore = "takes a minute, and one request may end what another is in; make api runs it"]
fn the_server_does_what_its_description_says() {
    let Some(schemathesis) = find("schemathesis", "requirements.txt") else { return };
    // It logs in with wrong passwords on purpose.
    let server = Server::builder()
        .set("rate_limit.login_per_user=none")
        .set("rate_limit.login_per_address=none")
        .set("security.lockout.duration_secs=0")
        .start();
    let examples = std::env::var("SCHEMATHESIS_EXAMPLES").unwrap_or_else(|_| "3".into());
    let config = repository().join("compat-tests/rest/tools/schemathesis.toml");
    let hooks = repository().join("compat-tests/rest/tools/hooks.py");
    run(Command::new(schemathesis.join("bin/schemathesis"))
        .arg("--config-file")
        .arg(config)
        .args(["run", &server.url("/api/v1/openapi.json"), "--checks", "all", "--no-color"])
        .args(["--auth", &format!("rustydb:{}", server.password)])
        .args(["--generation-deterministic", "--no-shrink"])
        .args(["--max-examples", &examples, "--warnings", "off"])
        .env("SCHEMATHESIS_HOOKS", hooks)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(server.socket_dir.parent().unwrap()));
}
