//! What a role may do beside what PostgreSQL lets it do: permissions, roles that inherit, and the
//! decision. Pure: no database, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// Roles that there may be.
pub const MOST_ROLES: usize = 1000;

/// Permissions that one role may have of its own.
pub const MOST_PERMISSIONS: usize = 1000;

/// How deep roles may inherit.
pub const DEEPEST: usize = 16;

/// Longest permission, in bytes.
const LONGEST: usize = 512;

/// The roles that there always are, with whom they inherit from and their permissions.
const BUILT_IN: [(&str, &[&str], &[&str]); 6] = [
    ("admin", &[], &["*:*"]),
    ("operator", &["monitor"], &["manage:*", "execute:maintenance"]),
    (
        "user",
        &[],
        &[
            "read:tables:*",
            "create:tables:*",
            "update:tables:*",
            "delete:tables:*",
            "write:tables:*",
            "execute:queries",
            "subscribe:tables:*",
        ],
    ),
    ("analyst", &["user"], &["read:tables:*", "execute:queries"]),
    ("readonly", &[], &["read:tables:*", "subscribe:tables:*", "execute:queries"]),
    ("monitor", &[], &["read:monitoring:*", "subscribe:monitoring:*"]),
];

/// `action:resource`, where the resource may have further parts: `read:tables:users`.
///
/// `*` stands for any one part, and at the end for any number of them, none included.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Permission {
    action: String,
    resource: Vec<String>,
}

/// A permission as a structure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PermissionObject {
    /// For instance `tables:users`.
    pub resource: String,
    /// For instance `read`.
    pub action: String,
}

impl Permission {
    /// Reads a permission.
    ///
    /// # Errors
    /// It is not `action:resource` of letters, digits, `_`, `-`, `.`, `/` or `*`.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            let shown: String = text.chars().take(60).collect();
            let text = format!("\"{shown}\" is no permission");
            Error::new(ErrorKind::ValidationError, text)
                .with_hint("a permission is action:resource, for instance read:tables:users")
        };
        let good = |part: &str| {
            let is_word =
                |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '$' | ' ');
            part == "*" || !part.is_empty() && part.chars().all(is_word)
        };
        if text.len() > LONGEST || !text.split(':').all(good) {
            return Err(wrong());
        }
        let (action, resource) = text.split_once(':').ok_or_else(wrong)?;
        Ok(Self {
            action: action.to_owned(),
            resource: resource.split(':').map(str::to_owned).collect(),
        })
    }

    /// Whether everything that `wanted` asks for is granted by this.
    pub fn covers(&self, wanted: &Self) -> bool {
        self.covers_all_of(&wanted.action, &wanted.resource)
    }

    fn covers_all_of(&self, action: &str, resource: &[impl AsRef<str>]) -> bool {
        (self.action == "*" || self.action == action) && covers(&self.resource, resource)
    }

    /// Whether there is anything that both speak of: what is forbidden in part is not allowed as a
    /// whole.
    fn meets(&self, action: &str, resource: &[impl AsRef<str>]) -> bool {
        let same = |a: &str, b: &str| a == "*" || b == "*" || a == b;
        let own: Vec<&str> = self.resource.iter().map(String::as_str).collect();
        let other: Vec<&str> = resource.iter().map(AsRef::as_ref).collect();
        let (short, long) = if own.len() <= other.len() { (own, other) } else { (other, own) };
        same(&self.action, action)
            && short.iter().zip(&long).all(|(a, b)| same(a, b))
            && (short.len() == long.len()
                || short.last() == Some(&"*")
                || long[short.len()..].iter().all(|part| *part == "*"))
    }

    /// Schema and name of the one table that it is about, as in `read:tables:users`,
    /// `read:tables:app.users` or `read:tables:app:users`; one of them may be `*`.
    pub fn table(&self) -> Option<(&str, &str)> {
        let is_tables = |part: &String| part == "tables" || part == "*";
        let (_, named) = self.resource.split_first().filter(|(first, _)| is_tables(first))?;
        match named {
            [table] if table == "*" => None,
            [table] => Some(table.split_once('.').unwrap_or(("public", table))),
            [schema, table] => Some((schema, table)),
            _ => None,
        }
    }

    /// As a structure.
    pub fn to_object(&self) -> PermissionObject {
        PermissionObject { resource: self.resource.join(":"), action: self.action.clone() }
    }
}

fn covers(pattern: &[String], wanted: &[impl AsRef<str>]) -> bool {
    match (pattern.split_first(), wanted.split_first()) {
        (None, None) => true,
        (Some((star, [])), _) if star == "*" => true,
        (Some((part, rest)), Some((other, others))) => {
            (part == "*" || part == other.as_ref()) && covers(rest, others)
        }
        _ => false,
    }
}

impl TryFrom<PermissionObject> for Permission {
    type Error = Error;

    fn try_from(object: PermissionObject) -> Result<Self> {
        if object.action.contains(':') {
            let text = format!("\"{}\" is no action", object.action);
            return Err(Error::new(ErrorKind::ValidationError, text));
        }
        Self::parse(&format!("{}:{}", object.action, object.resource))
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.action, self.resource.join(":"))
    }
}

/// Something that may be allowed, and forbidden.
pub trait Wanted: fmt::Display + Sync {
    /// Whether a permission that somebody has is enough.
    fn is_allowed_by(&self, permission: &Permission) -> bool;
    /// Whether a permission that somebody must not use is too much.
    fn is_denied_by(&self, permission: &Permission) -> bool;
}

impl Wanted for Permission {
    fn is_allowed_by(&self, permission: &Permission) -> bool {
        permission.covers(self)
    }

    fn is_denied_by(&self, permission: &Permission) -> bool {
        permission.meets(&self.action, &self.resource)
    }
}

/// A permission that our own code names, with a resource of one part: nothing of it has to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    action: &'static str,
    resource: [&'static str; 1],
}

impl Plain {
    /// `read:tables`.
    pub fn of(text: &'static str) -> Self {
        let (action, resource) = text.split_once(':').unwrap_or((text, ""));
        Self { action, resource: [resource] }
    }
}

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.action, self.resource[0])
    }
}

impl Wanted for Plain {
    fn is_allowed_by(&self, permission: &Permission) -> bool {
        permission.covers_all_of(self.action, &self.resource)
    }

    fn is_denied_by(&self, permission: &Permission) -> bool {
        permission.meets(self.action, &self.resource)
    }
}

/// Something that is done with one table: a permission for all tables is enough, as is one for this
/// table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfTable<'a> {
    /// What it is for all tables, for instance `read:tables`.
    pub of_all: Plain,
    /// Further words for it where the table is named: to `write` may be to `delete`. One of them
    /// is enough to forbid it, and to allow it if there is no other.
    pub actions: &'static [&'static str],
    /// Schema of the table.
    pub schema: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl OfTable<'_> {
    fn is_named_by(&self, permission: &Permission, actions: &[&str]) -> bool {
        let action = permission.action.as_str();
        let is_done = ["*", self.of_all.action].contains(&action) || actions.contains(&action);
        let is_it = |(schema, name): (&str, &str)| {
            ["*", self.schema].contains(&schema) && ["*", self.name].contains(&name)
        };
        is_done && permission.table().is_some_and(is_it)
    }
}

impl Wanted for OfTable<'_> {
    fn is_allowed_by(&self, permission: &Permission) -> bool {
        let actions = if self.actions.len() == 1 { self.actions } else { &[] };
        self.of_all.is_allowed_by(permission) || self.is_named_by(permission, actions)
    }

    fn is_denied_by(&self, permission: &Permission) -> bool {
        self.of_all.is_denied_by(permission) || self.is_named_by(permission, self.actions)
    }
}

impl fmt::Display for OfTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.of_all, self.schema, self.name)
    }
}

/// A role of RustyDB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleDefinition {
    /// What it allows.
    pub allows: Vec<Permission>,
    /// What it forbids, whoever else allows it.
    pub denies: Vec<Permission>,
    /// The roles whose permissions it has too.
    pub inherits: Vec<String>,
}

/// Every role, and the only way to change them: nothing in here can be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles(BTreeMap<String, RoleDefinition>);

/// Why something may be done, or may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is allowed.
    Allowed,
    /// A role forbids it.
    Denied(Permission),
    /// Nobody allows it.
    NotAllowed,
}

impl Default for Roles {
    fn default() -> Self {
        let parse = |list: &[&str]| list.iter().filter_map(|p| Permission::parse(p).ok()).collect();
        let roles = BUILT_IN.iter().map(|(name, inherits, allows)| {
            let inherits = inherits.iter().map(|name| (*name).to_owned()).collect();
            let definition = RoleDefinition { allows: parse(allows), denies: Vec::new(), inherits };
            ((*name).to_owned(), definition)
        });
        Self(roles.collect())
    }
}

impl Roles {
    /// The built-in roles and these, in any order.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn with(further: impl IntoIterator<Item = (String, RoleDefinition)>) -> Result<Self> {
        let mut roles = Self::default();
        roles.0.extend(further);
        if roles.0.len() > MOST_ROLES {
            return Err(too_many_roles());
        }
        let names: Vec<&String> = roles.0.keys().collect();
        names.into_iter().try_for_each(|name| roles.check(name))?;
        Ok(roles)
    }

    /// A role.
    pub fn get(&self, name: &str) -> Option<&RoleDefinition> {
        self.0.get(name)
    }

    /// Every role by its name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &RoleDefinition)> {
        self.0.iter().map(|(name, role)| (name.as_str(), role))
    }

    /// Whether a role is always there, and the same.
    pub fn is_built_in(name: &str) -> bool {
        BUILT_IN.iter().any(|(built_in, ..)| *built_in == name)
    }

    /// Adds a role or changes it.
    ///
    /// # Errors
    /// It is built in, inherits from itself or from nobody, or there would be too many.
    pub fn put(&mut self, name: &str, role: RoleDefinition) -> Result<()> {
        if Self::is_built_in(name) {
            let text = format!("the role \"{name}\" is built in and cannot be changed");
            return Err(Error::new(ErrorKind::Conflict, text));
        }
        let mut changed = self.clone();
        changed.0.insert(name.to_owned(), role);
        if changed.0.len() > MOST_ROLES {
            return Err(too_many_roles());
        }
        // A change may lengthen the way of roles that inherit from this one.
        changed.0.keys().try_for_each(|name| changed.check(name))?;
        *self = changed;
        Ok(())
    }

    /// Takes a role away.
    ///
    /// # Errors
    /// It is built in, there is none of that name, or others inherit from it.
    pub fn remove(&mut self, name: &str) -> Result<()> {
        let conflict = |text| Err(Error::new(ErrorKind::Conflict, text));
        if Self::is_built_in(name) {
            return conflict(format!("the role \"{name}\" is built in and cannot be removed"));
        }
        let heir = self.0.iter().find(|(_, role)| role.inherits.iter().any(|from| from == name));
        if let Some((heir, _)) = heir {
            return conflict(format!("the role \"{heir}\" inherits from \"{name}\""));
        }
        match self.0.remove(name) {
            Some(_) => Ok(()),
            None => Err(no_such_role(name)),
        }
    }

    fn check(&self, name: &str) -> Result<()> {
        let wrong = |text: String| Err(Error::new(ErrorKind::ValidationError, text));
        let fits = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.len() > 63 || !name.chars().all(fits) {
            return wrong(format!("\"{name}\" is no name for a role"));
        }
        let Some(role) = self.0.get(name) else { return Err(no_such_role(name)) };
        if role.allows.len() + role.denies.len() > MOST_PERMISSIONS {
            return wrong(format!("a role may have {MOST_PERMISSIONS} permissions"));
        }
        // Level by level: a role that is found again below itself closes a circle.
        let mut level: BTreeSet<&str> = [name].into();
        for _ in 0..=DEEPEST {
            let mut next = BTreeSet::new();
            for from in level.iter().filter_map(|name| self.0.get(*name)).flat_map(|r| &r.inherits)
            {
                if !self.0.contains_key(from) {
                    return Err(no_such_role(from));
                }
                if from == name {
                    return wrong(format!("the role \"{name}\" would inherit from itself"));
                }
                next.insert(from.as_str());
            }
            if next.is_empty() {
                return Ok(());
            }
            level = next;
        }
        wrong(format!("the role \"{name}\" inherits over more than {DEEPEST} steps"))
    }

    /// These roles and all that they inherit from. Names that are no roles count for nothing.
    pub fn closure<'a>(&'a self, names: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        let mut open: Vec<&str> = names.into_iter().filter(|n| self.0.contains_key(*n)).collect();
        while let Some(name) = open.pop() {
            if found.insert(name) {
                let inherited = self.0.get(name).map_or(&[][..], |role| &role.inherits);
                open.extend(inherited.iter().map(String::as_str));
            }
        }
        found
    }

    /// Everything that these roles allow, once each.
    pub fn allowed<'a>(&'a self, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a Permission> {
        let roles = self.closure(names);
        let roles = roles.into_iter().filter_map(|name| self.0.get(name));
        let all: BTreeSet<&Permission> = roles.flat_map(|role| &role.allows).collect();
        all.into_iter().collect()
    }

    /// Everything that these roles allow, and forbid.
    pub fn sum<'a>(&'a self, names: impl IntoIterator<Item = &'a str>) -> Sum {
        let names = self.closure(names);
        let roles = || names.iter().filter_map(|name| self.0.get(*name));
        Sum {
            allows: roles().flat_map(|role| &role.allows).cloned().collect(),
            denies: roles().flat_map(|role| &role.denies).cloned().collect(),
        }
    }
}

/// What several roles allow and forbid together.
#[derive(Clone, Debug)]
pub struct Sum {
    allows: Vec<Permission>,
    denies: Vec<Permission>,
}

impl Sum {
    /// Decides: what any of the roles forbids is denied, what one allows is allowed, and everything
    /// else is not.
    pub fn decide(&self, wanted: &dyn Wanted) -> Verdict {
        if let Some(denied) = self.denies.iter().find(|denied| wanted.is_denied_by(denied)) {
            return Verdict::Denied(denied.clone());
        }
        match self.allows.iter().any(|allowed| wanted.is_allowed_by(allowed)) {
            true => Verdict::Allowed,
            false => Verdict::NotAllowed,
        }
    }
}

/// The roles of RustyDB that somebody has: those that were given, those of the same name as
/// PostgreSQL roles that he is in, the default one; a superuser is an administrator.
pub fn roles_of<'a>(
    is_superuser: bool,
    member_of: impl IntoIterator<Item = &'a str>,
    given: impl IntoIterator<Item = &'a str>,
    default_role: &'a str,
) -> BTreeSet<&'a str> {
    let own = [Some(default_role), is_superuser.then_some("admin")];
    let is_plain = |name: &&str| !name.is_empty();
    own.into_iter().flatten().chain(member_of).chain(given).filter(is_plain).collect()
}

fn no_such_role(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no role \"{name}\" in RustyDB"))
}

fn too_many_roles() -> Error {
    Error::new(ErrorKind::LimitReached, format!("there may be {MOST_ROLES} roles"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> Permission {
        Permission::parse(text).unwrap()
    }

    fn role(allows: &[&str], denies: &[&str], inherits: &[&str]) -> RoleDefinition {
        let list = |texts: &[&str]| texts.iter().map(|text| p(text)).collect();
        let inherits = inherits.iter().map(|name| (*name).to_owned()).collect();
        RoleDefinition { allows: list(allows), denies: list(denies), inherits }
    }

    #[test]
    fn which_permission_covers_which() {
        for (pattern, wanted, covers) in [
            ("read:tables", "read:tables", true),
            ("read:tables", "write:tables", false),
            ("read:tables", "read:tables:users", false),
            ("read:tables:users", "read:tables:users", true),
            ("read:tables:users", "read:tables", false),
            ("read:tables:*", "read:tables:users", true),
            ("read:tables:*", "read:tables", true),
            ("read:tables:*", "read:tables:public:users", true),
            ("read:*:users", "read:tables:users", true),
            ("read:*:users", "read:tables:other", false),
            ("read:*:users", "read:tables:x:users", false),
            ("admin:*", "admin:backup", true),
            ("admin:*", "read:backup", false),
            ("*:*", "delete:tables:x:y", true),
            ("*:tables", "delete:tables", true),
            ("read:tables:users", "read:tables:*", false),
            ("read:*", "read:tables:*", true),
            ("read:table", "read:tables", false),
        ] {
            assert_eq!(p(pattern).covers(&p(wanted)), covers, "{pattern} {wanted}");
        }
    }

    #[test]
    fn both_forms_are_one_and_bad_ones_are_refused() {
        for text in ["read:tables", "*:*", "admin:gateway/routes", "read:tables:Straße:x_1"] {
            let object = p(text).to_object();
            assert_eq!(Permission::try_from(object).unwrap(), p(text));
            assert_eq!(p(text).to_string(), text);
        }
        let long = format!("read:{}", "x".repeat(LONGEST));
        for bad in ["", "read", "read:", ":tables", "read::x", "re*d:tables", "read:a;b", &long] {
            assert!(Permission::parse(bad).is_err(), "{bad}");
        }
        let object = PermissionObject { resource: "b".into(), action: "a:x".into() };
        assert!(Permission::try_from(object).is_err());
    }

    #[test]
    fn deny_comes_before_allow_and_the_default_is_no() {
        let mut roles = Roles::default();
        roles.put("keeper", role(&["admin:*"], &["*:tables:secret"], &["readonly"])).unwrap();
        let decide =
            |names: &[&str], wanted: &str| roles.sum(names.iter().copied()).decide(&p(wanted));
        let denied = Verdict::Denied(p("*:tables:secret"));
        for (names, wanted, verdict) in [
            (&["readonly"][..], "read:tables:secret", Verdict::Allowed),
            (&["keeper"], "read:tables:secret", denied.clone()),
            (&["admin", "keeper"], "read:tables:secret", denied.clone()),
            // Everything is not allowed when a part of it is forbidden.
            (&["admin", "keeper"], "read:tables:*", denied.clone()),
            (&["keeper"], "read:tables:users", Verdict::Allowed),
            (&["keeper"], "delete:tables:users", Verdict::NotAllowed),
            (&["keeper"], "admin:backup", Verdict::Allowed),
            (&["readonly"], "admin:backup", Verdict::NotAllowed),
            (&["readonly"], "execute:queries", Verdict::Allowed),
            (&["operator"], "read:monitoring", Verdict::Allowed),
            (&["operator"], "execute:queries", Verdict::NotAllowed),
            (&["monitor"], "read:tables:x", Verdict::NotAllowed),
            (&["analyst"], "create:tables:x", Verdict::Allowed),
            (&["nobody"], "read:tables", Verdict::NotAllowed),
            (&[], "read:tables", Verdict::NotAllowed),
        ] {
            assert_eq!(decide(names, wanted), verdict, "{names:?} {wanted}");
        }
    }

    #[test]
    fn a_table_has_permissions_of_its_own() {
        let mut roles = Roles::default();
        for (name, allows, denies) in [
            ("some", &["read:tables:films", "delete:tables:app:*"][..], &[][..]),
            ("no_films", &[], &["read:tables:public.films"]),
            ("no_app", &[], &["*:tables:app:*"]),
            ("no_delete", &[], &["delete:tables:films"]),
        ] {
            roles.put(name, role(allows, denies, &[])).unwrap();
        }
        type Asked = (&'static str, &'static [&'static str], &'static str);
        let decide = |names: &[&'static str], (all, actions, table): Asked| {
            let (schema, name) = table.split_once('.').unwrap();
            let (schema, name) = (schema.to_owned(), name.to_owned());
            let of_all = Plain::of(all);
            let wanted = OfTable { of_all, actions, schema: &schema, name: &name };
            match roles.sum(names.to_vec()).decide(&wanted) {
                Verdict::Allowed => "yes",
                Verdict::Denied(_) => "denied",
                Verdict::NotAllowed => "no",
            }
        };
        let (read, write) = ("read:tables", "write:tables");
        const NONE: &[&str] = &[];
        let (delete, upsert): (&[&str], &[&str]) = (&["delete"], &["delete", "create"]);
        for (names, wanted, expected) in [
            (&["some"][..], (read, NONE, "public.films"), "yes"),
            (&["some"], (read, NONE, "app.films"), "no"),
            (&["some"], (read, NONE, "public.people"), "no"),
            (&["some"], (write, NONE, "public.films"), "no"),
            (&["some"], (write, delete, "app.films"), "yes"),
            (&["some"], (write, upsert, "app.films"), "no"),
            (&["user", "no_delete"], (write, upsert, "public.films"), "denied"),
            (&["user"], (read, NONE, "public.films"), "yes"),
            (&["user", "no_films"], (read, NONE, "public.films"), "denied"),
            (&["admin", "no_films"], (read, NONE, "public.films"), "denied"),
            (&["user", "no_films"], (read, NONE, "app.films"), "yes"),
            (&["user", "no_films"], (write, delete, "public.films"), "yes"),
            (&["user", "no_app"], (read, NONE, "app.films"), "denied"),
            (&["some", "no_app"], (write, delete, "app.films"), "denied"),
            (&["user", "no_delete"], (write, delete, "public.films"), "denied"),
            (&["user", "no_delete"], (write, NONE, "public.films"), "yes"),
        ] {
            assert_eq!(decide(names, wanted), expected, "{names:?} {wanted:?}");
        }
    }

    #[test]
    fn roles_inherit_without_circles_and_not_too_deep() {
        let mut roles = Roles::default();
        roles.put("r0", role(&["read:zero"], &[], &[])).unwrap();
        for n in 1..=DEEPEST {
            let from = format!("r{}", n - 1);
            roles.put(&format!("r{n}"), role(&[], &[], &[&from])).unwrap();
        }
        let deepest = format!("r{DEEPEST}");
        assert_eq!(roles.sum([deepest.as_str()]).decide(&p("read:zero")), Verdict::Allowed);
        assert!(roles.put("r17", role(&[], &[], &[&deepest])).is_err());
        // Lengthening the other end is the same.
        roles.put("base", RoleDefinition::default()).unwrap();
        assert!(roles.put("r0", role(&["read:zero"], &[], &["base"])).is_err());
        assert!(roles.put("r0", role(&[], &[], &["r5"])).is_err());
        assert!(roles.put("self", role(&[], &[], &["self"])).is_err());
        assert!(roles.put("x", role(&[], &[], &["missing"])).is_err());
        assert!(roles.put("admin", RoleDefinition::default()).is_err());
        assert!(roles.put("a:b", RoleDefinition::default()).is_err());
        assert!(roles.remove("r3").is_err());
        assert!(roles.remove("user").is_err());
        roles.remove(&deepest).unwrap();
        assert!(roles.remove(&deepest).is_err());
        let circle = [("a", "b"), ("b", "a")].map(|(a, b)| (a.to_owned(), role(&[], &[], &[b])));
        assert!(Roles::with(circle).is_err());
        let many = (0..MOST_ROLES).map(|n| (format!("m{n}"), RoleDefinition::default()));
        assert!(Roles::with(many).is_err());
    }

    #[test]
    fn who_has_which_roles() {
        let of = |is_superuser, member_of: &[&'static str], given: &[&'static str]| {
            let roles = roles_of(is_superuser, member_of.iter().copied(), given.to_vec(), "user");
            roles.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(of(false, &[], &[]), ["user"]);
        assert_eq!(of(true, &[], &["monitor"]), ["admin", "monitor", "user"]);
        assert_eq!(of(false, &["analyst", "sales"], &[]), ["analyst", "sales", "user"]);
        let roles = Roles::default();
        for (name, ..) in BUILT_IN {
            assert!(!roles.allowed([name]).is_empty(), "{name}");
        }
    }
}
