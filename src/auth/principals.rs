//! Users and groups as administrators see them: roles of PostgreSQL with what RustyDB's own tables
//! know of them besides.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::rbac::Permission;
use super::scram::Verifier;
use super::tables::SqlRow;
use super::{Authenticator, Identity, Visit};
use crate::audit::{Event, EventType, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::types::Secret;

/// Longest password, in bytes.
const LONGEST_PASSWORD: usize = 1024;

/// A role that may log in.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// Its name in PostgreSQL.
    pub username: String,
    /// Where he can be written to.
    #[schema(required)]
    pub email: Option<String>,
    /// Whether he may log in.
    pub enabled: bool,
    /// Whether he may do everything.
    pub superuser: bool,
    /// Connections at once; null = any number.
    #[schema(required)]
    pub connection_limit: Option<i32>,
    /// When his password ends; null = never.
    #[schema(required, format = DateTime)]
    pub valid_until: Option<String>,
    /// Roles that he has, of PostgreSQL and of RustyDB.
    pub roles: Vec<String>,
}

/// A role of PostgreSQL that nobody logs in as.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Group {
    /// Its name.
    #[serde(skip_serializing)]
    pub name: String,
    /// Whether it may do everything.
    pub superuser: bool,
    /// Whether it may make databases.
    pub create_db: bool,
    /// Whether it may make roles.
    pub create_role: bool,
    /// Roles that it is in.
    pub member_of: Vec<String>,
}

fn read<T: DeserializeOwned>(row: &SqlRow) -> Result<T> {
    let json = row.first().and_then(Option::as_deref).unwrap_or_default();
    serde_json::from_str(json).map_err(Error::internal)
}

impl Authenticator {
    /// Users by name, and how many there are on all pages.
    ///
    /// # Errors
    /// The tables cannot be reached or made.
    pub async fn users(&self, limit: u32, offset: u64) -> Result<(Vec<User>, Option<u64>)> {
        let (limit, after) = (limit.to_string(), offset.to_string());
        let values = [None, Some(limit.as_str()), Some(after.as_str())];
        let rows = self.tables.run(include_str!("../../sql/auth/users.sql"), &values).await?;
        let total = rows.first().and_then(|row| row.last()?.as_ref()?.parse().ok());
        let users: Result<Vec<User>> = rows.iter().map(read).collect();
        Ok((users?, total.or((offset == 0).then_some(0))))
    }

    /// One user.
    ///
    /// # Errors
    /// There is none of that name, or the tables cannot be reached or made.
    pub async fn user(&self, name: &str) -> Result<User> {
        let values = [Some(name), Some("1"), Some("0")];
        let rows = self.tables.run(include_str!("../../sql/auth/users.sql"), &values).await?;
        match rows.first() {
            Some(row) => read(row),
            None => Err(Error::new(ErrorKind::NotFound, format!("there is no user \"{name}\""))),
        }
    }

    /// Keeps a user in mind, also when he may not log in; `email` is his address from now on, if
    /// something is said of it.
    ///
    /// # Errors
    /// The tables cannot be reached or made.
    pub async fn keep_user(&self, name: &str, email: Option<Option<&str>>) -> Result<()> {
        let sql = "INSERT INTO rustydb.principals (role_name, email) VALUES ($1, $2) \
                   ON CONFLICT (role_name) DO UPDATE SET updated_at = now(), email = \
                   CASE WHEN $3::boolean THEN $2 ELSE principals.email END";
        let is_told = email.is_some().to_string();
        self.tables.run(sql, &[Some(name), email.flatten(), Some(&is_told)]).await.map(drop)
    }

    /// Forgets all that is known of a role that is gone: his roles, keys and log-ins.
    ///
    /// # Errors
    /// The tables cannot be reached or made.
    pub async fn forget_user(&self, name: &str) -> Result<()> {
        self.tables.run(include_str!("../../sql/auth/forget_user.sql"), &[Some(name)]).await?;
        self.permissions.forget();
        Ok(())
    }

    /// Roles of PostgreSQL that nobody logs in as, this one or all, by name.
    ///
    /// # Errors
    /// The tables cannot be reached or made.
    pub async fn groups(&self, name: Option<&str>) -> Result<Vec<Group>> {
        let rows = self.tables.run(include_str!("../../sql/auth/groups.sql"), &[name]).await?;
        rows.iter().map(read).collect()
    }

    /// Checks that somebody may hand out permissions: he gives nothing that he has not got.
    ///
    /// # Errors
    /// He has not got one of them.
    pub async fn may_give<'a>(
        &self,
        identity: &Identity,
        wanted: impl IntoIterator<Item = &'a Permission>,
    ) -> Result<()> {
        let (_, own) = self.permissions_of(identity).await?;
        let own: Vec<_> = own.iter().filter_map(|text| Permission::parse(text).ok()).collect();
        let mut wanted = wanted.into_iter();
        match wanted.find(|wanted| !own.iter().any(|own| own.covers(wanted))) {
            None => Ok(()),
            Some(missing) => {
                let text = format!("permission denied: you cannot give {missing}, nor have it");
                Err(Error::new(ErrorKind::AuthorizationFailed, text))
            }
        }
    }

    /// Checks that somebody may give these roles of RustyDB; other names count for nothing.
    ///
    /// # Errors
    /// One of them allows what he is not allowed himself.
    pub async fn may_give_roles(&self, identity: &Identity, names: &[&str]) -> Result<()> {
        let roles = self.roles().await?;
        self.may_give(identity, roles.allowed(names.iter().copied())).await
    }

    /// Tells the audit log what an administrator has done.
    ///
    /// # Errors
    /// It has no room, and is to refuse then.
    pub async fn audit_change(
        &self,
        kind: EventType,
        action: &'static str,
        identity: &Identity,
        about: impl Into<String>,
        visit: &Visit,
    ) -> Result<()> {
        let event = Event::new(kind, Outcome::Success, action);
        let event = event.by(identity.role.as_str()).about(about);
        self.audit.record(visit.mark(event)).await
    }

    /// A new verifier for a password: the password itself goes no further than here.
    ///
    /// # Errors
    /// It is none that PostgreSQL takes, or too short.
    pub async fn verifier(&self, password: Secret) -> Result<String> {
        let text = password.reveal();
        if text.is_empty() || text.len() > LONGEST_PASSWORD || text.contains('\0') {
            let text = format!("a password has 1 to {LONGEST_PASSWORD} bytes, and no U+0000");
            return Err(Error::new(ErrorKind::ValidationError, text));
        }
        let shortest = self.config.now().password.min_length;
        if text.chars().count() < shortest as usize {
            let text = format!("a password has at least {shortest} characters");
            return Err(Error::new(ErrorKind::ValidationError, text)
                .with_hint("security.password.min_length bounds it"));
        }
        // Thousands of hash rounds: not on a thread that serves other clients.
        let made = tokio::task::spawn_blocking(move || Verifier::of_password(&password).to_text());
        made.await.map_err(Error::internal)
    }
}
