//! Which rule of `security.hba` a connection falls under, and whether a name from outside (of a
//! certificate or of the operating system) may be a role.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{ClientCert, ClientName, Config, HbaMethod, HbaName, HbaRule, HbaType};
use crate::error::Error;
use crate::net::PeerCertificate;

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

    fn fits(&self, rule: &HbaRule) -> bool {
        let kind = match (rule.kind, self.address) {
            (HbaType::Local, None) | (HbaType::Host, Some(_)) => true,
            (HbaType::HostSsl, Some(_)) => self.has_tls,
            (HbaType::HostNoSsl, Some(_)) => !self.has_tls,
            _ => false,
        };
        let inside = || match (rule.network, self.address) {
            (Some(network), Some(ip)) => {
                network.contains(&ip) || network.contains(&ip.to_canonical())
            }
            (network, _) => network.is_none(),
        };
        let role = |name: &HbaName| match name {
            HbaName::All => true,
            HbaName::Name(name) => name == self.role,
            HbaName::SameUser | HbaName::Replication => false,
        };
        let database = |name: &HbaName| match name {
            HbaName::Replication => self.is_replication,
            _ if self.is_replication => false,
            HbaName::All => true,
            HbaName::SameUser => self.database == self.role,
            HbaName::Name(name) => name == self.database,
        };
        kind && inside() && rule.databases.iter().any(database) && rule.roles.iter().any(role)
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

impl Rules {
    /// The rules of this configuration.
    pub fn new(config: Arc<Config>) -> Self {
        Self(config)
    }

    /// The rule for a connection.
    ///
    /// # Errors
    /// There is none, or it says no.
    pub fn decide(&self, knock: &Knock<'_>) -> Result<&HbaRule, Error> {
        let security = &self.0.security;
        if security.require_tls && !knock.is_private() {
            let text = "connections from other hosts must be encrypted";
            return Err(Error::sql(b"28000", text).with_hint("connect with sslmode=require"));
        }
        let rule = security.hba.iter().find(|rule| knock.fits(rule)).ok_or_else(|| {
            let begin = if knock.is_replication {
                "no pg_hba.conf entry for"
            } else {
                "no pg_hba.conf entry"
            };
            knock.refusal(begin, if knock.is_replication { "from" } else { "for" })
        })?;
        match rule.method {
            HbaMethod::Reject => {
                let end = if knock.is_replication { "for" } else { "connection for" };
                Err(knock.refusal("pg_hba.conf rejects", end))
            }
            _ => Ok(rule),
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
            if knock.fits(&whoever) && !found.contains(&rule.method) {
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
        rules.decide(knock).map(|rule| rule.method).map_err(|e| e.to_string())
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
