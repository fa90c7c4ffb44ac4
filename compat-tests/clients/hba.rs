//! The rules of `security.hba`: who comes in how, and in which words the others are told.

use crate::harness::pki::Authority;
use crate::harness::{Psql, feed};
use crate::secured::{run, secured};

fn comes_in(psql: Psql, role: &str) {
    assert_eq!(
        (psql.stdout.as_str(), psql.code),
        (format!("{role}\n").as_str(), Some(0)),
        "{psql:?}"
    );
}

#[track_caller]
fn is_told(psql: Psql, words: &str) {
    assert!(psql.stderr.contains(words), "{words:?} is not in {psql:?}");
    assert_eq!(psql.code, Some(2), "{psql:?}");
}

#[test]
fn without_a_rule_nobody_comes_in() {
    let secured = secured();
    is_told(
        run(&mut secured.psql("unlisted")),
        "FATAL:  no pg_hba.conf entry for host \"127.0.0.1\", user \"unlisted\", database \
         \"rustydb\", SSL encryption",
    );
    is_told(
        run(secured.psql("unlisted").env("PGSSLMODE", "disable")),
        "user \"unlisted\", database \"rustydb\", no encryption",
    );
    let mut local = secured.psql("free");
    is_told(
        run(local.arg("-h").arg(&secured.server.socket_dir).args(["-p", &port(secured.server)])),
        "no pg_hba.conf entry for host \"[local]\", user \"free\", database \"rustydb\", no \
         encryption",
    );
    let rejected = "rustydb_network_connections_rejected_total{reason=\"hba\"}";
    assert!(secured.server.metric(rejected) >= 3.0);
}

fn port(server: &crate::harness::Server) -> String {
    server.port.to_string()
}

#[test]
fn the_first_rule_that_fits_decides() {
    let secured = secured();
    is_told(
        run(secured.psql("encrypted").env("PGSSLMODE", "disable")),
        "FATAL:  pg_hba.conf rejects connection for host \"127.0.0.1\", user \"encrypted\", \
         database \"rustydb\", no encryption",
    );
    comes_in(run(&mut secured.psql("encrypted")), "encrypted");
    let mut admin = secured.psql("rustydb");
    admin.env("PGPASSWORD", &secured.server.password);
    comes_in(run(&mut admin), "rustydb");
    is_told(run(admin.args(["-d", "postgres"])), "pg_hba.conf rejects connection for host");
}

#[test]
fn trust_is_for_roles_that_exist() {
    let secured = secured();
    comes_in(run(&mut secured.psql("free")), "free");
    is_told(run(&mut secured.psql("ghost")), "FATAL:  role \"ghost\" does not exist");
}

#[test]
fn a_password_may_be_sent_over_a_private_way() {
    let secured = secured();
    for mode in ["verify-full", "disable"] {
        let mut psql = secured.psql("clear");
        psql.env("PGSSLMODE", mode);
        comes_in(run(psql.env("PGPASSWORD", "in clear")), "clear");
        is_told(
            run(psql.env("PGPASSWORD", "wrong")),
            "FATAL:  password authentication failed for user \"clear\"",
        );
    }
    assert!(!secured.server.log().contains("in clear"));
}

#[test]
fn a_certificate_is_a_role_by_its_name() {
    let secured = secured();
    let (ca, folder) = (&secured.ca, secured.folder.as_path());
    let holder = ca.issue(folder, "holder", "holder", &[]);
    comes_in(run(&mut secured.psql_with("holder", &holder)), "holder");
    let words = "FATAL:  certificate authentication failed for user \"mapped\"";
    is_told(run(&mut secured.psql_with("mapped", &holder)), words);
    let none = "FATAL:  connection requires a valid client certificate";
    is_told(run(secured.psql("holder").env("PGSSLCERT", "/nowhere")), none);
    let outsider = ca.issue(folder, "outsider", "outsider", &[]);
    comes_in(run(&mut secured.psql_with("mapped", &outsider)), "mapped");
    let lettered = ca.issue(folder, "lettered", "somebody", &["other.example", "lettered"]);
    comes_in(run(&mut secured.psql_with("lettered", &lettered)), "lettered");
    is_told(run(&mut secured.psql_with("lettered", &outsider)), "certificate authentication");
    // Without TLS there is no certificate, so the rules for it do not fit.
    let plain = run(secured.psql_with("holder", &holder).env("PGSSLMODE", "disable"));
    is_told(plain, "no pg_hba.conf entry");
    // An authority that nobody knows.
    let forged = Authority::new("forger").issue(folder, "forged", "holder", &[]);
    let psql = run(&mut secured.psql_with("holder", &forged));
    assert!(psql.stderr.contains("alert unknown ca") || psql.stderr.contains("alert"), "{psql:?}");
    assert_eq!(psql.code, Some(2));
}

#[test]
fn a_certificate_may_be_asked_for_beside_the_method() {
    let secured = secured();
    let (ca, folder) = (&secured.ca, secured.folder.as_path());
    let both = ca.issue(folder, "two_factor", "two_factor", &[]);
    let other = ca.issue(folder, "another", "another", &[]);
    let password = ("PGPASSWORD", "two things");
    comes_in(run(secured.psql_with("two_factor", &both).env(password.0, password.1)), "two_factor");
    is_told(
        run(secured.psql_with("two_factor", &both).env("PGPASSWORD", "wrong")),
        "password authentication failed for user \"two_factor\"",
    );
    is_told(
        run(secured.psql_with("two_factor", &other).env(password.0, password.1)),
        "authentication failed for user \"two_factor\"",
    );
    comes_in(run(&mut secured.psql_with("signed", &other)), "signed");
    is_told(run(secured.psql("signed").env("PGSSLCERT", "/nowhere")), "valid client certificate");
}

#[test]
fn the_operating_system_vouches_on_the_unix_socket() {
    let secured = secured();
    let local = |role: &str| {
        let mut psql = secured.psql(role);
        psql.arg("-h").arg(&secured.server.socket_dir);
        psql
    };
    comes_in(run(&mut local("os_user")), "os_user");
    is_told(
        run(&mut local("imposter")),
        "FATAL:  Peer authentication failed for user \"imposter\"",
    );
    let mut admin = local("rustydb");
    admin.env("PGPASSWORD", &secured.server.password);
    let psql: Psql = feed(&mut admin, "select session_user;").into();
    comes_in(psql, "rustydb");
}
