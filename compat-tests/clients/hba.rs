//! The rules of `security.hba`: who comes in how, and in which words the others are told.

use crate::harness::pki::Authority;
use crate::harness::{Psql, Server, feed};
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
    secured.server.expect_metric_of_at_least(rejected, 3.0);
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

#[test]
fn members_of_a_role_and_patterns_of_names_are_postgresqls() {
    let server = Server::builder()
        .set(
            "security.hba=
                host /^team_[ab]$ +staff all trust
                host samerole all all trust
                host team_c,+plain \"/^robot\\d{2,3}$\",/(?i)^ADA$ all trust
                host all rustydb all scram-sha-256",
        )
        .start();
    let made = server.direct_psql(
        "create role staff; create role office in role staff; create role team_c;
         create role ann login in role office; create role bob login; create role carl login
         in role team_c; create role robot12 login; create role robot1 login;
         create role boss login superuser; create role ada login;
         create database team_a; create database team_abc; create database team_c;",
    );
    assert_eq!(made.stderr, "");
    let enters = |role: &str, database: &str| {
        let mut psql = server.psql_command();
        psql.args(["-U", role, "-d", database, "-At"]).env_remove("PGPASSWORD");
        run(&mut psql)
    };
    let refused = |role: &str, database: &str| {
        is_told(enters(role, database), &format!("user \"{role}\", database \"{database}\""));
    };
    // A member of a member; the pattern is for the whole name.
    comes_in(enters("ann", "team_a"), "ann");
    refused("ann", "team_abc");
    refused("bob", "team_a");
    // A superuser is a member of what it was made one of, no more.
    refused("boss", "team_a");
    comes_in(enters("carl", "team_c"), "carl");
    comes_in(enters("robot12", "team_c"), "robot12");
    comes_in(enters("ada", "team_c"), "ada");
    refused("robot1", "team_c");
    refused("robot12", "team_a");
    // It is asked anew each time.
    assert_eq!(server.direct_psql("grant staff to bob; revoke office from ann").stderr, "");
    comes_in(enters("bob", "team_a"), "bob");
    refused("ann", "team_a");
    refused("o'brien\"", "team_a");
}

#[test]
fn a_pattern_that_means_nothing_lets_nobody_in() {
    let rules = "security.hba=host postgres all all trust; host all /x[ all trust; host all all \
                 all trust";
    let server = Server::builder().set(rules).start();
    let enters = |database: &str| {
        run(server.psql_command().args(["-d", database, "-At", "-v", "VERBOSITY=verbose"]))
    };
    comes_in(enters("postgres"), "rustydb");
    is_told(enters("rustydb"), "a regular expression in security.hba is not valid");
    server.log_line(&["brackets [] not balanced"]);
}
