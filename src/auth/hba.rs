//! Which rule of `security.hba` a connection falls under, and whether a name from outside (of a
//! certificate or of the operating system) may be a role.
//!
//! Members of a role and regular expressions are PostgreSQL's to know: it is asked when a rule
//! depends on them, for each log-in, as it asks its own catalog.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::Authenticator;
use crate::config::{
    ClientCert, ClientName, Config, HbaAddress, HbaMethod, HbaName, HbaRule, HbaType,
};
use crate::error::Error;
use crate::net::{PeerCertificate, interfaces};
use crate::query::quote_literal;

/// What is known of a client before it proves anything.
#[derive(Clone, Copy, Debug)]
pub struct Knock<'a> {
    /// The role that it asks for.
    pub role: &'a str,
    /// The database.
    pub database: &'a str,
    /// It asks for physical replication, which belongs to no database.
    pub is_replication: bool,
    /// Its address; `None` = the Unix socket.
    pub address: Option<IpAddr>,
    /// The connection is encrypted.
    pub has_tls: bool,
}

/// What PostgreSQL says of the names of a client, among those that the rules ask for.
#[derive(Debug, Default)]
pub struct Facts {
    /// Roles that the role is a member of.
    groups: HashSet<String>,
    /// Regular expressions that its name fits.
    role_patterns: HashSet<String>,
    /// The same for the database.
    database_patterns: HashSet<String>,
}

/// The rules of one configuration, and the map that they refer to.
#[derive(Debug)]
pub struct Rules(Arc<Config>);

/// Whether nobody on the way from that address (`None` = the Unix socket) can read what is sent.
pub fn is_private(address: Option<IpAddr>, has_tls: bool) -> bool {
    has_tls || address.is_none_or(|ip| ip.to_canonical().is_loopback())
}

impl Knock<'_> {
    /// Whether nobody on the way can read what is sent.
    pub fn is_private(&self) -> bool {
        is_private(self.address, self.has_tls)
    }

    /// `None` = that depends on what is not known.
    fn fits(&self, rule: &HbaRule, facts: Option<&Facts>) -> Option<bool> {
        let kind = match (rule.kind, self.address) {
            (HbaType::Local, None) | (HbaType::Host, Some(_)) => true,
            (HbaType::HostSsl, Some(_)) => self.has_tls,
            (HbaType::HostNoSsl, Some(_)) => !self.has_tls,
            _ => false,
        };
        let inside = || match self.address {
            Some(ip) => is_inside(rule.address, ip),
            None => rule.address == HbaAddress::All,
        };
        if !kind || !inside() {
            return Some(false);
        }
        let in_group = |group: &str| facts.map(|facts| facts.groups.contains(group));
        let role = |name: &HbaName| match name {
            HbaName::All => Some(true),
            HbaName::Name(name) => Some(name == self.role),
            HbaName::Members(group) => in_group(group),
            HbaName::Pattern(text) => facts.map(|facts| facts.role_patterns.contains(text)),
            HbaName::SameUser | HbaName::SameRole | HbaName::Replication => Some(false),
        };
        let database = |name: &HbaName| match name {
            HbaName::Replication => Some(self.is_replication),
            _ if self.is_replication => Some(false),
            HbaName::All => Some(true),
            HbaName::SameUser => Some(self.database == self.role),
            HbaName::SameRole => in_group(self.database),
            HbaName::Name(name) => Some(name == self.database),
            HbaName::Pattern(text) => facts.map(|facts| facts.database_patterns.contains(text)),
            HbaName::Members(_) => Some(false),
        };
        let database = any(rule.databases.iter().map(database));
        match (database, any(rule.roles.iter().map(role))) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (database, role) => Some(database? && role?),
        }
    }

    /// PostgreSQL's words for a connection that does not come in.
    fn refusal(&self, begin: &str, end: &str) -> Error {
        let host =
            self.address.map_or_else(|| "[local]".into(), |ip| ip.to_canonical().to_string());
        let encryption = if self.has_tls { "SSL encryption" } else { "no encryption" };
        let text = match self.is_replication {
            true => format!(
                "{begin} replication connection {end} host \"{host}\", user \"{}\", {encryption}",
                self.role
            ),
            false => format!(
                "{begin} {end} host \"{host}\", user \"{}\", database \"{}\", {encryption}",
                self.role, self.database
            ),
        };
        Error::sql(b"28000", text).with_hint("the rules are security.hba of RustyDB")
    }
}

fn is_inside(address: HbaAddress, ip: IpAddr) -> bool {
    let own = ip.to_canonical();
    match address {
        HbaAddress::All => true,
        HbaAddress::Network(network) => network.contains(&ip) || network.contains(&own),
        // As PostgreSQL, for each log-in: addresses come and go.
        HbaAddress::SameHost => interfaces().iter().any(|known| known.addr() == own),
        HbaAddress::SameNet => interfaces().iter().any(|known| known.contains(&own)),
    }
}

/// Whether one of them is true; `None` = that depends on one that is not known.
fn any(mut all: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    all.try_fold(Some(false), |any, one| match one {
        Some(true) => Err(()),
        Some(false) => Ok(any),
        None => Ok(None),
    })
    .unwrap_or(Some(true))
}

impl Authenticator {
    /// The rule for a connection; PostgreSQL is asked if it depends on what only that knows.
    ///
    /// # Errors
    /// There is no rule, or it says no; PostgreSQL is out of reach, or does not understand a
    /// regular expression.
    pub async fn rule<'r>(
        &self,
        rules: &'r Rules,
        knock: &Knock<'_>,
    ) -> Result<&'r HbaRule, Error> {
        if let Some(rule) = rules.decide(knock, None)? {
            return Ok(rule);
        }
        let mut facts = Facts::default();
        let rows = self.sql.run(rules.question(knock)).await.map_err(|error| {
            if error.sqlstate().as_str() != "2201B" {
                return error;
            }
            let reason = error.message();
            tracing::error!(reason, "PostgreSQL does not understand a name in security.hba");
            let text = "a regular expression in security.hba is not valid";
            Error::sql(b"F0000", text).with_hint("RustyDB's log says what is wrong with it")
        })?;
        for row in rows {
            let mut row = row.into_iter().flatten();
            let (Some(kind), Some(name)) = (row.next(), row.next()) else { continue };
            match kind.as_str() {
                "group" => facts.groups.insert(name),
                "role" => facts.role_patterns.insert(name),
                _ => facts.database_patterns.insert(name),
            };
        }
        rules.decide(knock, Some(&facts))?.ok_or_else(|| Error::internal("a rule without facts"))
    }
}

impl Rules {
    /// The rules of this configuration.
    pub fn new(config: Arc<Config>) -> Self {
        Self(config)
    }

    /// Asks PostgreSQL for the [`Facts`] about the names of a client.
    fn question(&self, knock: &Knock<'_>) -> String {
        let rules = &self.0.security.hba;
        let roles = || rules.iter().flat_map(|rule| &rule.roles);
        let databases = || rules.iter().flat_map(|rule| &rule.databases);
        let pattern = |name: &HbaName| match name {
            HbaName::Pattern(text) => Some(quote_literal(text)),
            _ => None,
        };
        let group = |name: &HbaName| match name {
            HbaName::Members(group) => Some(quote_literal(group)),
            _ => None,
        };
        let list = |texts: HashSet<String>| texts.into_iter().collect::<Vec<_>>().join(", ");
        let mut groups: HashSet<String> = roles().filter_map(group).collect();
        if databases().any(|name| *name == HbaName::SameRole) {
            groups.insert(quote_literal(knock.database));
        }
        let (groups, role_patterns, database_patterns) = (
            list(groups),
            list(roles().filter_map(pattern).collect()),
            list(databases().filter_map(pattern).collect()),
        );
        let (role, database) = (quote_literal(knock.role), quote_literal(knock.database));
        format!(
            "WITH RECURSIVE own (oid) AS (
                 SELECT oid FROM pg_catalog.pg_authid WHERE rolname = {role}
                 UNION
                 SELECT m.roleid FROM pg_catalog.pg_auth_members m JOIN own ON m.member = own.oid
             )
             SELECT 'group', r.rolname::pg_catalog.text
               FROM pg_catalog.pg_authid r JOIN own USING (oid)
              WHERE r.rolname = ANY (ARRAY[{groups}]::pg_catalog.text[])
             UNION ALL
             SELECT 'role', pattern
               FROM pg_catalog.unnest(ARRAY[{role_patterns}]::pg_catalog.text[]) pattern
              WHERE {role}::pg_catalog.text COLLATE \"C\" ~ pattern
             UNION ALL
             SELECT 'database', pattern
               FROM pg_catalog.unnest(ARRAY[{database_patterns}]::pg_catalog.text[]) pattern
              WHERE {database}::pg_catalog.text COLLATE \"C\" ~ pattern"
        )
    }

    /// The rule for a connection; `None` = that depends on facts, which are not given.
    ///
    /// # Errors
    /// There is none, or it says no.
    fn decide(&self, knock: &Knock<'_>, facts: Option<&Facts>) -> Result<Option<&HbaRule>, Error> {
        let security = &self.0.security;
        if security.require_tls && !knock.is_private() {
            let text = "connections from other hosts must be encrypted";
            return Err(Error::sql(b"28000", text).with_hint("connect with sslmode=require"));
        }
        let first = security.hba.iter().find_map(|rule| match knock.fits(rule, facts) {
            Some(false) => None,
            Some(true) => Some(Some(rule)),
            None => Some(None),
        });
        let Some(rule) = first.ok_or_else(|| {
            let begin = if knock.is_replication {
                "no pg_hba.conf entry for"
            } else {
                "no pg_hba.conf entry"
            };
            knock.refusal(begin, if knock.is_replication { "from" } else { "for" })
        })?
        else {
            return Ok(None);
        };
        match rule.method {
            HbaMethod::Reject => {
                let end = if knock.is_replication { "for" } else { "connection for" };
                Err(knock.refusal("pg_hba.conf rejects", end))
            }
            _ => Ok(Some(rule)),
        }
    }

    /// How somebody from there may log in, whoever it is, in the order of the rules.
    pub fn methods(&self, address: Option<IpAddr>, has_tls: bool) -> Vec<HbaMethod> {
        let mut found = Vec::new();
        for rule in &self.0.security.hba {
            // Whatever the rule says of roles and databases fits itself.
            let whoever = HbaRule {
                databases: vec![HbaName::All],
                roles: vec![HbaName::All],
                ..rule.clone()
            };
            let knock = Knock { role: "", database: "", is_replication: false, address, has_tls };
            if knock.fits(&whoever, None) == Some(true) && !found.contains(&rule.method) {
                found.push(rule.method);
            }
        }
        found
    }

    /// Whether a client with this certificate may be the role, as far as the rule asks.
    ///
    /// # Errors
    /// It has none, or one that does not fit.
    pub fn check_certificate(
        &self,
        rule: &HbaRule,
        certificate: Option<&PeerCertificate>,
        role: &str,
    ) -> Result<(), Error> {
        if !rule.needs_certificate() {
            return Ok(());
        }
        let Some(certificate) = certificate else {
            let text = "connection requires a valid client certificate";
            return Err(Error::sql(b"28000", text));
        };
        if rule.client_cert == Some(ClientCert::VerifyCa) {
            return Ok(());
        }
        let fits = match rule.client_name {
            ClientName::CommonName => {
                certificate.common_name.iter().any(|name| self.maps(rule, name, role))
            }
            ClientName::AltName => {
                certificate.alternative.iter().any(|name| self.maps(rule, name, role))
            }
        };
        match fits {
            true => Ok(()),
            false => Err(failed(rule.method, role)),
        }
    }

    /// Whether a name from outside may be the role.
    pub fn maps(&self, rule: &HbaRule, system_user: &str, role: &str) -> bool {
        match &rule.map {
            None => system_user == role,
            Some(map) => self.0.security.ident_map.iter().any(|entry| {
                entry.map == *map
                    && entry.system_user == system_user
                    && (entry.role == role || entry.role == "all")
            }),
        }
    }
}

/// PostgreSQL's words for a method that said no.
pub fn failed(method: HbaMethod, role: &str) -> Error {
    let method = match method {
        HbaMethod::Trust => "\"trust\"",
        HbaMethod::Reject => "\"reject\"",
        HbaMethod::Cert => "certificate",
        HbaMethod::Peer => "Peer",
        HbaMethod::Scram | HbaMethod::Password => {
            let text = format!("password authentication failed for user \"{role}\"");
            return Error::sql(b"28P01", text);
        }
    };
    Error::sql(b"28000", format!("{method} authentication failed for user \"{role}\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{IdentEntry, Security};

    fn of(security: Security) -> Rules {
        Rules::new(Arc::new(Config { security, ..Config::default() }))
    }

    fn rules(lines: &[&str]) -> Rules {
        let hba = lines.iter().map(|line| HbaRule::parse(line).unwrap()).collect();
        let entry = |map: &str, system_user: &str, role: &str| IdentEntry {
            map: map.into(),
            system_user: system_user.into(),
            role: role.into(),
        };
        let ident_map = vec![entry("m", "Joe", "joe"), entry("m", "root", "all")];
        of(Security { hba, ident_map, ..Security::default() })
    }

    fn knock(address: &str, has_tls: bool) -> Knock<'static> {
        Knock {
            role: "joe",
            database: "app",
            is_replication: false,
            address: address.parse().ok(),
            has_tls,
        }
    }

    fn method(rules: &Rules, knock: &Knock<'_>) -> Result<HbaMethod, String> {
        let rule = rules.decide(knock, None).map_err(|e| e.to_string())?;
        Ok(rule.unwrap().method)
    }

    #[test]
    fn members_and_patterns_are_asked_for_when_a_rule_depends_on_them() {
        let rules = rules(&[
            "local all all peer",
            "host all +admins 10.0.0.0/8 trust",
            "host /^app,samerole joe,/x$ all password",
            "host all all all scram-sha-256",
        ]);
        let near = knock("10.0.0.1", false);
        let far = Knock { database: "other", ..knock("11.0.0.1", false) };
        let facts = |groups: &[&str], role: &[&str], database: &[&str]| {
            let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            Facts {
                groups: set(groups),
                role_patterns: set(role),
                database_patterns: set(database),
            }
        };
        for (knock, facts, expected) in [
            (knock("", false), None, Some(HbaMethod::Peer)),
            (near, None, None),
            (near, Some(facts(&["admins"], &[], &[])), Some(HbaMethod::Trust)),
            (near, Some(facts(&[], &[], &["^app"])), Some(HbaMethod::Password)),
            (far, None, None),
            (far, Some(facts(&["admins"], &[], &[])), Some(HbaMethod::Scram)),
            (far, Some(facts(&["other"], &[], &[])), Some(HbaMethod::Password)),
            (Knock { role: "x", ..far }, Some(facts(&["other"], &[], &[])), Some(HbaMethod::Scram)),
            (
                Knock { role: "x", ..far },
                Some(facts(&["other"], &["x$"], &[])),
                Some(HbaMethod::Password),
            ),
            (Knock { is_replication: true, ..far }, None, None),
        ] {
            let found = rules.decide(&knock, facts.as_ref());
            let method = found.as_ref().map(|rule| rule.map(|rule| rule.method)).ok().flatten();
            assert_eq!(method, expected, "{knock:?} {facts:?}");
        }
        let question = rules.question(&Knock { role: "o'x\n--", ..far });
        for part in [r"ARRAY[E'x$']", r"ARRAY[E'^app']", "E'admins'", "E'other'", "E'o''x\n--'"] {
            assert!(question.contains(part), "{part} is not in {question}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules = rules(&[
            "local sameuser all peer",
            "hostssl app joe,jim 10.0.0.0/8 cert",
            "hostnossl all all 10.0.0.0/8 reject",
            "host app joe 192.168.0.0/16 password",
            "host all all ::1/128 trust",
        ]);
        assert_eq!(method(&rules, &knock("10.1.1.1", true)), Ok(HbaMethod::Cert));
        assert_eq!(method(&rules, &knock("::ffff:10.1.1.1", true)), Ok(HbaMethod::Cert));
        assert_eq!(method(&rules, &knock("192.168.3.4", true)), Ok(HbaMethod::Password));
        assert_eq!(method(&rules, &knock("::1", false)), Ok(HbaMethod::Trust));
        assert_eq!(
            method(&rules, &knock("10.1.1.1", false)).unwrap_err(),
            "pg_hba.conf rejects connection for host \"10.1.1.1\", user \"joe\", database \"app\", \
             no encryption"
        );
        assert_eq!(
            method(&rules, &knock("11.1.1.1", true)).unwrap_err(),
            "no pg_hba.conf entry for host \"11.1.1.1\", user \"joe\", database \"app\", SSL \
             encryption"
        );
        let local = method(&rules, &knock("", false)).unwrap_err();
        assert!(local.contains("host \"[local]\""), "{local}");
        let own = Knock { database: "joe", ..knock("", false) };
        assert_eq!(method(&rules, &own), Ok(HbaMethod::Peer));
    }

    #[test]
    fn this_machine_and_its_networks() {
        let rules = rules(&["host app all samehost trust", "host all all samenet password"]);
        let near = knock("127.0.0.1", false);
        assert_eq!(method(&rules, &near), Ok(HbaMethod::Trust));
        assert_eq!(method(&rules, &knock("::ffff:127.0.0.1", false)), Ok(HbaMethod::Trust));
        assert_eq!(method(&rules, &Knock { database: "x", ..near }), Ok(HbaMethod::Password));
        // Another address of the loopback network.
        assert_eq!(method(&rules, &knock("127.0.0.9", false)), Ok(HbaMethod::Password));
        // Documentation has these to itself (RFC 5737); a machine is not in all of them.
        let networks = interfaces();
        let is_far = |text: &&str| {
            let ip: IpAddr = text.parse().unwrap();
            !networks.iter().any(|network| network.contains(&ip))
        };
        let far = ["192.0.2.1", "198.51.100.1", "203.0.113.1"].into_iter().find(is_far).unwrap();
        for other in [far, ""] {
            assert!(method(&rules, &knock(other, false)).is_err(), "{other}");
        }
    }

    #[test]
    fn all_databases_are_not_replication() {
        let rules = rules(&["host all all all trust", "host replication jim all trust"]);
        let joe = Knock { is_replication: true, ..knock("10.0.0.1", false) };
        assert_eq!(
            method(&rules, &joe).unwrap_err(),
            "no pg_hba.conf entry for replication connection from host \"10.0.0.1\", user \"joe\", \
             no encryption"
        );
        assert!(method(&rules, &Knock { role: "jim", ..joe }).is_ok());
        let defaults = of(Security::default());
        assert_eq!(method(&defaults, &joe), Ok(HbaMethod::Scram));
    }

    #[test]
    fn encryption_can_be_required_of_other_hosts() {
        let rules = of(Security { require_tls: true, ..Security::default() });
        assert!(method(&rules, &knock("10.0.0.1", false)).is_err());
        for private in [knock("10.0.0.1", true), knock("127.0.0.1", false), knock("", false)] {
            assert!(method(&rules, &private).is_ok(), "{private:?}");
        }
    }

    #[test]
    fn a_certificate_must_carry_the_role_or_a_name_that_maps_to_it() {
        let rules = rules(&[]);
        let certificate = PeerCertificate {
            common_name: Some("Joe".into()),
            alternative: vec!["joe".into(), "joe@example".into()],
        };
        let check = |line: &str, role: &str| {
            let rule = HbaRule::parse(line).unwrap();
            rules.check_certificate(&rule, Some(&certificate), role).map_err(|e| e.to_string())
        };
        assert!(check("hostssl all all all cert map=m", "joe").is_ok());
        assert!(check("hostssl all all all cert clientname=SAN", "joe").is_ok());
        assert!(check("hostssl all all all scram-sha-256 clientcert=verify-ca", "x").is_ok());
        assert!(check("hostssl all all all scram-sha-256", "x").is_ok());
        assert_eq!(
            check("hostssl all all all cert", "joe").unwrap_err(),
            "certificate authentication failed for user \"joe\""
        );
        assert!(check("hostssl all all all cert map=m", "jim").is_err());
        assert!(check("hostssl all all all cert map=other", "joe").is_err());
        let full = "hostssl all all all trust clientcert=verify-full";
        assert!(check(full, "joe").unwrap_err().starts_with("\"trust\" authentication failed"));
        let rule = HbaRule::parse(full).unwrap();
        let none = rules.check_certificate(&rule, None, "joe").unwrap_err();
        assert_eq!(none.message(), "connection requires a valid client certificate");
        let peer = HbaRule::parse("local all all peer map=m").unwrap();
        assert!(rules.maps(&peer, "root", "anybody"));
    }
}
