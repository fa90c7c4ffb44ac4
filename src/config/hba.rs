//! The rules of who may come in how, as PostgreSQL's `pg_hba.conf` and `pg_ident.conf` write them
//! (<https://www.postgresql.org/docs/current/auth-pg-hba-conf.html>): one line each, or a table.

use std::fmt;

use ipnet::IpNet;
use toml::Value as Toml;

use super::value::choice;
use super::{Config, Value};

/// Rules and map entries in a configuration; more would be a mistake.
const MOST_LINES: usize = 1000;

choice! {
    /// How a connection came.
    HbaType {
        /// Over the Unix socket.
        Local = "local",
        /// Over TCP, encrypted or not.
        Host = "host",
        /// Over TCP with TLS.
        HostSsl = "hostssl",
        /// Over TCP without TLS.
        HostNoSsl = "hostnossl",
    }

    /// How a client proves its role.
    HbaMethod {
        /// Not at all.
        Trust = "trust",
        /// It may not come in.
        Reject = "reject",
        /// By a password that is not sent.
        Scram = "scram-sha-256",
        /// By a password that is sent; over TLS, the Unix socket or loopback only.
        Password = "password",
        /// By a client certificate.
        Cert = "cert",
        /// By the operating system's user at the other end of a Unix socket.
        Peer = "peer",
    }

    /// What is asked of the certificate beside the method.
    ClientCert {
        /// One that the client CA signed.
        VerifyCa = "verify-ca",
        /// One that, besides, carries the role's name.
        VerifyFull = "verify-full",
    }

    /// Which name of a certificate is the client's.
    ClientName {
        /// The common name of its subject.
        CommonName = "CN",
        /// Any of its alternative names: DNS, e-mail or URI.
        AltName = "SAN",
    }
}

/// What a rule says of databases or roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HbaName {
    /// Every one; of databases, but for physical replication.
    All,
    /// The database with the name of the role.
    SameUser,
    /// Databases with the name of a role that the role is a member of.
    SameRole,
    /// Physical replication.
    Replication,
    /// One by its name.
    Name(String),
    /// Members of this role, directly or not, and itself.
    Members(String),
    /// Those whose name this regular expression of PostgreSQL's fits somewhere.
    Pattern(String),
}

/// Which addresses a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HbaAddress {
    /// Every one; that of `local` as well, which has none.
    All,
    /// Those of one network.
    Network(IpNet),
    /// The machine's own.
    SameHost,
    /// Those of the networks that the machine is in.
    SameNet,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HbaRule {
    /// How the connection came.
    pub kind: HbaType,
    /// Databases.
    pub databases: Vec<HbaName>,
    /// Roles.
    pub roles: Vec<HbaName>,
    /// Addresses.
    pub address: HbaAddress,
    /// What it takes to come in.
    pub method: HbaMethod,
    /// `clientcert=`.
    pub client_cert: Option<ClientCert>,
    /// `clientname=`.
    pub client_name: ClientName,
    /// `map=`: the entries of the map by which names of the method become roles.
    pub map: Option<String>,
}

/// One line of the map from outside names to roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentEntry {
    /// Name of the map.
    pub map: String,
    /// Name in the certificate or in the operating system.
    pub system_user: String,
    /// Role that it may be.
    pub role: String,
}

/// The fields of a rule as text, before they are checked.
#[derive(Default)]
struct Fields {
    kind: String,
    database: Vec<Word>,
    role: Vec<Word>,
    address: Option<String>,
    method: String,
    options: Vec<(String, String)>,
}

/// A name, without its quotes: they take its special meaning away, but not that of a slash.
#[derive(Clone, Debug)]
struct Word {
    text: String,
    is_quoted: bool,
}

impl Word {
    fn plain(text: &str) -> Self {
        Self { text: text.to_owned(), is_quoted: false }
    }

    /// A text in which quotes may stand; `None` = one is open at its end.
    fn unquote(text: &str) -> Option<Self> {
        let (mut out, mut open) = (String::new(), false);
        let mut letters = text.chars().peekable();
        while let Some(letter) = letters.next() {
            match letter {
                '"' if open && letters.next_if_eq(&'"').is_some() => out.push('"'),
                '"' => open = !open,
                letter => out.push(letter),
            }
        }
        (!open).then(|| Self { text: out, is_quoted: text.starts_with('"') })
    }

    /// As it stands in a line; `special` = it would mean something else without quotes.
    fn write(text: &str, special: bool) -> String {
        let divides = |letter: char| letter.is_whitespace() || matches!(letter, ',' | '"');
        match special || text.is_empty() || text.contains(divides) {
            true => format!("\"{}\"", text.replace('"', "\"\"")),
            false => text.to_owned(),
        }
    }
}

/// The parts of a text between separators that do not stand in quotes.
fn divide(text: &str, divides: impl Fn(char) -> bool) -> Vec<&str> {
    let mut open = false;
    let parts = text.split(|letter: char| {
        open ^= letter == '"';
        !open && divides(letter)
    });
    parts.filter(|part| !part.is_empty()).collect()
}

fn list(text: &str) -> Option<Vec<Word>> {
    divide(text, |letter| letter == ',').into_iter().map(Word::unquote).collect()
}

impl Fields {
    /// `host all all 10.0.0.0/8 scram-sha-256 clientcert=verify-ca`, or with a mask as a word of
    /// its own, and a comment at the end.
    fn of_line(line: &str) -> Option<Self> {
        let words = divide(line, char::is_whitespace).into_iter();
        let mut words = words.take_while(|word| !word.starts_with('#')).peekable();
        let kind = match words.next()? {
            // Nobody is encrypted by GSSAPI here.
            "hostnogssenc" => "host".to_owned(),
            kind => kind.to_owned(),
        };
        let (database, role) = (list(words.next()?)?, list(words.next()?)?);
        let mut address = if kind == "local" { None } else { Some(words.next()?.to_owned()) };
        if let (Some(address), Some(Ok(mask))) = (&mut address, words.peek().map(|w| w.parse())) {
            *address = IpNet::with_netmask(address.parse().ok()?, mask).ok()?.to_string();
            words.next();
        }
        let method = words.next()?.to_owned();
        let options = words.map(|word| {
            word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
        });
        let options = options.collect::<Option<Vec<_>>>()?;
        Some(Self { kind, database, role, address, method, options })
    }

    fn of_table(table: &toml::Table) -> Result<Self, String> {
        let all = || vec![Word::plain("all")];
        let mut fields = Self { database: all(), role: all(), ..Self::default() };
        for (name, value) in table {
            let word = |name: &String| match name.starts_with('"') {
                true => Word::unquote(name).ok_or_else(|| format!("{name}: a quote is open")),
                false => Ok(Word::plain(name)),
            };
            let names =
                || Vec::<String>::read(value)?.iter().map(word).collect::<Result<_, String>>();
            let text = value.as_str().map(str::to_owned);
            let text = text.ok_or_else(|| format!("{name}: expected a string"));
            match name.as_str() {
                "type" => fields.kind = text?,
                "database" | "databases" => fields.database = names()?,
                "role" | "roles" | "user" => fields.role = names()?,
                "address" => fields.address = Some(text?),
                "method" => fields.method = text?,
                _ => fields.options.push((name.clone(), text?)),
            }
        }
        Ok(fields)
    }

    fn check(self) -> Result<HbaRule, String> {
        let kind = HbaType::of(&self.kind)?;
        let method = HbaMethod::of(&self.method)?;
        let address = match (kind, self.address.as_deref()) {
            (HbaType::Local, None) | (_, None | Some("all")) => HbaAddress::All,
            (HbaType::Local, Some(_)) => return Err("local has no address".into()),
            (_, Some("samehost")) => HbaAddress::SameHost,
            (_, Some("samenet")) => HbaAddress::SameNet,
            (_, Some(text)) => HbaAddress::Network(network(text)?),
        };
        let mut rule = HbaRule {
            kind,
            databases: self.database.into_iter().map(database).collect::<Result<_, _>>()?,
            roles: self.role.into_iter().map(role).collect::<Result<_, _>>()?,
            address,
            method,
            client_cert: None,
            client_name: ClientName::CommonName,
            map: None,
        };
        for (name, value) in self.options {
            match name.as_str() {
                "clientcert" => rule.client_cert = Some(ClientCert::of(&value)?),
                "clientname" => rule.client_name = ClientName::of(&value)?,
                "map" => rule.map = Some(value),
                _ => return Err(format!("unknown option {name}")),
            }
        }
        rule.contradiction().map_or(Ok(rule), |text| Err(text.to_owned()))
    }
}

fn database(word: Word) -> Result<HbaName, String> {
    match word.text.as_str() {
        "all" if !word.is_quoted => Ok(HbaName::All),
        "sameuser" if !word.is_quoted => Ok(HbaName::SameUser),
        "samerole" | "samegroup" if !word.is_quoted => Ok(HbaName::SameRole),
        "replication" if !word.is_quoted => Ok(HbaName::Replication),
        _ => name(word),
    }
}

fn role(word: Word) -> Result<HbaName, String> {
    match word.text.strip_prefix('+') {
        Some("") if !word.is_quoted => Err("+ needs the name of a role".into()),
        Some(group) if !word.is_quoted => Ok(HbaName::Members(group.to_owned())),
        _ if word.text == "all" && !word.is_quoted => Ok(HbaName::All),
        _ => name(word),
    }
}

fn name(word: Word) -> Result<HbaName, String> {
    match word.text.strip_prefix('/') {
        Some(pattern) => Ok(HbaName::Pattern(pattern.to_owned())),
        None if word.text.starts_with('@') && !word.is_quoted => {
            Err(format!("{}: names in a file are not supported", word.text))
        }
        None => Ok(HbaName::Name(word.text)),
    }
}

/// A network, or a single address.
fn network(text: &str) -> Result<IpNet, String> {
    let single = text.parse::<std::net::IpAddr>().map(IpNet::from).ok();
    let network = text.parse::<IpNet>().ok().or(single).map(|network| network.trunc());
    let expected = "is no address, no network, and not \"all\", \"samehost\" or \"samenet\"";
    network.ok_or_else(|| format!("{text} {expected}"))
}

impl HbaRule {
    fn contradiction(&self) -> Option<&'static str> {
        let local = self.kind == HbaType::Local;
        let has_cert = self.kind == HbaType::HostSsl;
        match self.method {
            _ if self.databases.is_empty() || self.roles.is_empty() => {
                Some("names no database or no role")
            }
            HbaMethod::Peer if !local => Some("peer is for local connections"),
            HbaMethod::Cert if !has_cert => Some("cert is for hostssl connections"),
            HbaMethod::Cert if self.client_cert == Some(ClientCert::VerifyCa) => {
                Some("cert always checks the name; clientcert=verify-ca is for other methods")
            }
            _ if self.client_cert.is_some() && !has_cert => {
                Some("clientcert is for hostssl connections")
            }
            HbaMethod::Peer | HbaMethod::Cert => None,
            _ if self.map.is_some() && self.client_cert != Some(ClientCert::VerifyFull) => {
                Some("map is for peer, cert and clientcert=verify-full")
            }
            _ => None,
        }
    }

    /// Whether the client must have a certificate.
    pub fn needs_certificate(&self) -> bool {
        self.method == HbaMethod::Cert || self.client_cert.is_some()
    }
}

fn names(list: &[HbaName]) -> String {
    const WORDS: [&str; 5] = ["all", "sameuser", "samerole", "samegroup", "replication"];
    let word = |name: &HbaName| match name {
        HbaName::All => "all".to_owned(),
        HbaName::SameUser => "sameuser".to_owned(),
        HbaName::SameRole => "samerole".to_owned(),
        HbaName::Replication => "replication".to_owned(),
        HbaName::Name(name) => {
            Word::write(name, WORDS.contains(&name.as_str()) || name.starts_with(['+', '@']))
        }
        HbaName::Members(group) => format!("+{}", Word::write(group, false)),
        HbaName::Pattern(pattern) => Word::write(&format!("/{pattern}"), false),
    };
    list.iter().map(word).collect::<Vec<_>>().join(",")
}

impl fmt::Display for HbaRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.kind.word(), names(&self.databases), names(&self.roles))?;
        match (self.kind, self.address) {
            (HbaType::Local, _) => {}
            (_, HbaAddress::All) => f.write_str(" all")?,
            (_, HbaAddress::Network(network)) => write!(f, " {network}")?,
            (_, HbaAddress::SameHost) => f.write_str(" samehost")?,
            (_, HbaAddress::SameNet) => f.write_str(" samenet")?,
        }
        write!(f, " {}", self.method.word())?;
        if let Some(cert) = self.client_cert {
            write!(f, " clientcert={}", cert.word())?;
        }
        if self.client_name != ClientName::CommonName {
            write!(f, " clientname={}", self.client_name.word())?;
        }
        self.map.as_ref().map_or(Ok(()), |map| write!(f, " map={map}"))
    }
}

impl HbaRule {
    /// Reads one line of `pg_hba.conf`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(line: &str) -> Result<Self, String> {
        let shape = "expected: type database role [address [mask]] method [options]";
        Fields::of_line(line).ok_or_else(|| shape.to_owned())?.check()
    }

    /// What is asked without a list: a password, of everybody.
    pub fn defaults() -> Vec<Self> {
        let lines = [
            "local all all scram-sha-256",
            "host all all all scram-sha-256",
            "local replication all scram-sha-256",
            "host replication all all scram-sha-256",
        ];
        lines.iter().filter_map(|line| Self::parse(line).ok()).collect()
    }
}

/// Reads each item of a list, or each line of one text; the error names the item.
fn read_lines<T>(
    raw: &Toml,
    of_line: impl Fn(&str) -> Result<T, String>,
    of_table: impl Fn(&toml::Table) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let item = |(at, raw): (usize, &Toml)| {
        let read = match raw {
            Toml::String(line) => of_line(line),
            Toml::Table(table) => of_table(table),
            _ => Err("expected a line or a table".into()),
        };
        read.map_err(|e| format!("a correct item {}: {e}", at + 1))
    };
    match raw {
        Toml::Array(items) if items.len() <= MOST_LINES => {
            items.iter().enumerate().map(item).collect()
        }
        Toml::String(text) => {
            let lines = text.split(['\n', ';']).map(str::trim).filter(|line| !line.is_empty());
            let lines: Vec<Toml> = lines.map(|line| Toml::String(line.to_owned())).collect();
            lines.iter().take(MOST_LINES).enumerate().map(item).collect()
        }
        _ => Err(format!("a list of at most {MOST_LINES} lines or tables")),
    }
}

fn write_lines(lines: impl Iterator<Item = String>) -> Toml {
    Toml::Array(lines.map(Toml::String).collect())
}

impl Value for Vec<HbaRule> {
    fn read(raw: &Toml) -> Result<Self, String> {
        read_lines(raw, HbaRule::parse, |table| Fields::of_table(table)?.check())
    }

    fn write(&self) -> Toml {
        write_lines(self.iter().map(HbaRule::to_string))
    }
}

impl Value for Vec<IdentEntry> {
    fn read(raw: &Toml) -> Result<Self, String> {
        let of_line = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [map, system_user, role] = words[..] else {
                return Err("expected: map system-user role".to_owned());
            };
            let (map, system_user) = (map.to_owned(), system_user.to_owned());
            Ok(IdentEntry { map, system_user, role: role.to_owned() })
        };
        let of_table = |table: &toml::Table| {
            let text = |name: &str| {
                let value = table.get(name).and_then(Toml::as_str);
                value.map(str::to_owned).ok_or_else(|| format!("{name} is missing"))
            };
            let (map, system_user) = (text("map")?, text("system_user")?);
            Ok(IdentEntry { map, system_user, role: text("role")? })
        };
        read_lines(raw, of_line, of_table)
    }

    fn write(&self) -> Toml {
        let line = |e: &IdentEntry| format!("{} {} {}", e.map, e.system_user, e.role);
        write_lines(self.iter().map(line))
    }
}

impl Value for Vec<IpNet> {
    fn read(raw: &Toml) -> Result<Self, String> {
        let texts = Vec::<String>::read(raw)?;
        texts.iter().map(|text| network(text)).collect()
    }

    fn write(&self) -> Toml {
        write_lines(self.iter().map(IpNet::to_string))
    }
}

impl Config {
    pub(super) fn check_certificates(&self, check: &mut impl FnMut(bool, &'static str, &str)) {
        check(
            !self.security.require_client_cert || self.security.ca_cert_path.is_some(),
            "security.ca_cert_path",
            "is missing; require_client_cert needs the authorities of the clients",
        );
        check(
            self.security.ca_cert_path.is_some()
                || !self.security.hba.iter().any(HbaRule::needs_certificate),
            "security.ca_cert_path",
            "is missing; a rule of security.hba needs the authorities of the clients",
        );
        check(
            self.security.crl_path.is_none() || self.security.ca_cert_path.is_some(),
            "security.ca_cert_path",
            "is missing; crl_path needs the authorities of the clients",
        );
        check(
            self.security.sni_certificates.len() <= 100,
            "security.sni_certificates",
            "must have at most 100 entries",
        );
        check(self.security.tls_check_secs.0 > 0, "security.tls_check_secs", "must be at least 1");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_written_as_it_was_read() {
        for line in [
            "local all all peer map=os",
            "host all all all scram-sha-256",
            "hostssl app,sales joe,jim 10.0.0.0/8 cert clientname=SAN map=m",
            "hostnossl sameuser all ::1/128 reject",
            "host all all samehost trust",
            "hostssl all all samenet cert",
            "hostssl replication all 192.168.1.7/32 scram-sha-256 clientcert=verify-full map=x",
            "host samerole +admins,\"+plain\",+\"a b\" all trust",
            "host \"all\",\"a \"\"b\"\"\",/^db all all trust",
            "host \"/^db\\d{2,4}$\" /^x|y$,joe all trust",
        ] {
            assert_eq!(HbaRule::parse(line).unwrap().to_string(), line);
        }
        assert_eq!(HbaRule::defaults().len(), 4);
        for (line, same) in [
            ("host all all 10.1.2.3 255.0.0.0 trust # all of us", "host all all 10.0.0.0/8 trust"),
            ("hostnogssenc all all fe80:: ffff:: reject", "host all all fe80::/16 reject"),
            ("local all all peer #", "local all all peer"),
        ] {
            assert_eq!(HbaRule::parse(line).unwrap().to_string(), same);
        }
    }

    #[test]
    fn names_mean_what_they_mean_in_pg_hba_conf() {
        let name = |text: &str| HbaName::Name(text.into());
        let pattern = |text: &str| HbaName::Pattern(text.into());
        for (field, databases, roles) in [
            ("all", HbaName::All, HbaName::All),
            ("\"all\"", name("all"), name("all")),
            ("samegroup", HbaName::SameRole, name("samegroup")),
            ("sameuser", HbaName::SameUser, name("sameuser")),
            ("+a", name("+a"), HbaName::Members("a".into())),
            ("\"+a\"", name("+a"), name("+a")),
            ("+\"a b\"", name("+a b"), HbaName::Members("a b".into())),
            ("/^a", pattern("^a"), pattern("^a")),
            ("\"/a, b\"", pattern("a, b"), pattern("a, b")),
            ("x\"y\"\"z\"", name("xy\"z"), name("xy\"z")),
            ("\"@a\"", name("@a"), name("@a")),
        ] {
            let rule = HbaRule::parse(&format!("local {field} {field} trust")).unwrap();
            assert_eq!((&rule.databases[..], &rule.roles[..]), (&[databases][..], &[roles][..]));
            assert_eq!(HbaRule::parse(&rule.to_string()).unwrap(), rule, "{field}");
        }
    }

    #[test]
    fn a_wrong_rule_is_refused() {
        for line in [
            "",
            "host all all scram-sha-256",
            "host all all 10.0.0.0/33 trust",
            "host all all 10.0.0.0 255.0.255.0 trust",
            "host all all all 255.0.0.0 trust",
            "hostgssenc all all all trust",
            "host all all db.example trust",
            "host all all samenet 255.0.0.0 trust",
            "local all all samehost trust",
            "host all + all trust",
            "host @databases all all trust",
            "host all \"joe all trust",
            "host all all all md5",
            "host all all all peer",
            "host all all all cert",
            "host all all all trust clientcert=verify-ca",
            "hostssl all all all cert clientcert=verify-ca",
            "hostssl all all all trust map=m",
            "hostssl all all all trust pamservice=x",
            "local all all all trust x",
        ] {
            assert!(HbaRule::parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_rule_may_be_a_table_and_a_list_may_be_one_text() {
        let text = r#"hba = [{
            type = "hostssl", role = ["joe b", "/a{1,2}"], method = "trust", address = "10.1.2.3/8",
        }]"#;
        let table: toml::Table = text.parse().unwrap();
        let rules = Vec::<HbaRule>::read(&table["hba"]).unwrap();
        let expected = [HbaName::Name("joe b".into()), HbaName::Pattern("a{1,2}".into())];
        assert_eq!(rules[0].roles, expected);
        assert_eq!(rules[0].address, HbaAddress::Network("10.0.0.0/8".parse().unwrap()));
        let lines = Toml::String("local all all trust; host all all all reject".into());
        assert_eq!(Vec::<HbaRule>::read(&lines).unwrap().len(), 2);
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "[security]\nca_cert_path = \"/ca\"\n[[security.hba]]\ntype = \"hostssl\"\n\
                    method = \"cert\"\n[[security.hba]]\ntype = \"local\"\nmethod = \"peer\"\n";
        std::fs::write(&file, text).unwrap();
        let inputs = crate::config::Inputs { file: Some(file.path().into()), ..Default::default() };
        let hba = inputs.load().unwrap().config.security.hba;
        let lines: Vec<String> = hba.iter().map(HbaRule::to_string).collect();
        assert_eq!(lines, ["hostssl all all all cert", "local all all peer"]);
        let wrong = Toml::String("local all all trust; host".into());
        assert!(Vec::<HbaRule>::read(&wrong).unwrap_err().contains("item 2"));
        let map = Toml::String("m CN=joe joe".into());
        assert_eq!(Vec::<IdentEntry>::read(&map).unwrap()[0].system_user, "CN=joe");
    }
}
