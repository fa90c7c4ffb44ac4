//! The commands beside `serve`.

use crate::harness::{self, Server, eventually};
use crate::{PlainPostgres, SOON, postgres_processes, rustydb, stderr, stdout};

const OPTIONS: [&str; 15] = [
    "--config",
    "--data-dir",
    "--listen",
    "--port",
    "--api-listen",
    "--api-port",
    "--metrics-port",
    "--unix-socket-dir",
    "--backend",
    "--embedded",
    "--log-level",
    "--log-format",
    "--insecure",
    "--set",
    "--lenient",
];

#[test]
fn help_lists_every_command_and_option() {
    let help = stdout(&rustydb(&["--help"], &[]));
    for command in ["serve", "init", "config", "status"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is not in: {help}");
    }
    for text in [help, stdout(&rustydb(&["serve", "--help"], &[]))] {
        for option in OPTIONS {
            let listed = text.split_whitespace().any(|word| word.trim_end_matches(',') == option);
            assert!(listed, "{option} is not in: {text}");
        }
    }
    let init = stdout(&rustydb(&["init", "--help"], &[]));
    assert!(init.contains("--admin-password-file"), "{init}");
}

#[test]
fn version_is_the_version_of_the_package() {
    let output = rustydb(&["--version"], &[]);
    assert_eq!(stdout(&output), concat!("rustydb ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn an_option_before_the_command_is_not_lost() {
    let output = rustydb(&["--set", "pool.max_size=7", "config", "show"], &[]);
    let used = stdout(&output).contains("pool.max_size = 7");
    assert!(used || output.status.code() == Some(2), "the option is ignored: {output:?}");
}

#[test]
fn init_makes_what_serve_then_uses() {
    let home = harness::temp_dir();
    let data = home.path().join("data");
    let file = home.path().join("password");
    std::fs::write(&file, "s3cret from init\n").unwrap();
    let (at, file) = (data.to_str().unwrap(), file.to_str().unwrap());
    let output = rustydb(&["init", "--data-dir", at, "--admin-password-file", file], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("is ready"), "{}", stdout(&output));
    assert!(stdout(&output).contains("has the given password"), "{}", stdout(&output));
    assert!(!data.join("admin-password").exists());
    assert_eq!(postgres_processes(&data), Vec::<i32>::new());

    let again = rustydb(&["init", "--data-dir", at], &[("RUSTYDB_ADMIN_PASSWORD", "other")]);
    assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
    assert!(stdout(&again).contains("keeps the password"), "{}", stdout(&again));

    let mut server = Server::builder().data_dir(&data).start();
    server.password = "s3cret from init".into();
    assert_eq!(server.psql("select 1;").code, Some(0));

    let busy = rustydb(&["init", "--data-dir", at], &[]);
    assert_eq!(busy.status.code(), Some(1));
    assert!(stderr(&busy).contains(&format!("process {}", server.pid())), "{}", stderr(&busy));
}

#[test]
fn init_without_a_password_file_that_exists_makes_nothing() {
    let home = harness::temp_dir();
    let data = home.path().join("data");
    let args = ["init", "--data-dir", data.to_str().unwrap(), "--admin-password-file", "/nowhere"];
    let output = rustydb(&args, &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("/nowhere"), "{}", stderr(&output));
    assert!(!data.exists());
}

#[test]
fn init_without_a_password_makes_a_random_one() {
    let home = harness::temp_dir();
    let data = home.path().join("data");
    let output = rustydb(&["init", "--data-dir", data.to_str().unwrap()], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let file = data.join("admin-password");
    assert!(stdout(&output).contains(file.to_str().unwrap()), "{}", stdout(&output));
    assert!(std::fs::read_to_string(file).unwrap().trim().len() >= 20);
}

#[test]
fn status_tells_healthy_unhealthy_and_unreachable_apart() {
    let plain = PlainPostgres::start();
    let mut server = Server::builder()
        .arg("--backend")
        .arg(&plain.url())
        .set("backend.health_interval_secs=1")
        .set("backend.connect_timeout_secs=1")
        .start();
    let data_dir = server.data_dir.to_str().unwrap().to_owned();
    let status = || rustydb(&["status", "--data-dir", &data_dir], &[]);
    let healthy = status();
    assert_eq!(healthy.status.code(), Some(0), "{}", stdout(&healthy));
    assert!(stdout(&healthy).contains("\"healthy\""), "{}", stdout(&healthy));

    plain.stop();
    eventually("status 2", SOON, || status().status.code() == Some(2));
    let (ready, _) = crate::get(&server.url("/health/ready"), None);
    assert_eq!(ready, 503);

    assert_eq!(server.stop(), Some(0));
    let unreachable = status();
    assert_eq!(unreachable.status.code(), Some(3));
    assert!(stdout(&unreachable).contains("nobody answers"), "{}", stdout(&unreachable));
}
