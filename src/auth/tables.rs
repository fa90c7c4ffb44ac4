//! RustyDB's own tables, the schema `rustydb` of the system role's database: how they are made, and
//! how statements reach them.
//!
//! They are made when something first needs them, so a PostgreSQL whose clients only run SQL stays
//! as it is.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, ErrorKind, Result};
use crate::query::quote_literal;

/// A row, its values as text.
pub type SqlRow = Vec<Option<String>>;

/// A boxed future, because the connection is used as a trait object.
pub type SqlFuture<'a> = Pin<Box<dyn Future<Output = Result<Vec<SqlRow>>> + Send + 'a>>;

/// Runs statements as the system role.
pub trait SystemSql: Send + Sync {
    /// Runs statements without parameters, in one transaction.
    fn run(&self, sql: String) -> SqlFuture<'_>;
}

/// Versions of the tables, oldest first. One that was released is never changed.
const MIGRATIONS: [&str; 2] = [
    include_str!("../../sql/migrations/0001_access.sql"),
    include_str!("../../sql/migrations/0002_jobs.sql"),
];

/// The version that is made.
pub const VERSION: usize = MIGRATIONS.len();

/// Any number; everybody who makes the tables takes the lock of this one.
const LOCK: i64 = 0x7275_7374_7964_6201;

/// The tables.
pub struct Tables {
    sql: Arc<dyn SystemSql>,
    are_ready: AtomicBool,
    turn: tokio::sync::Mutex<()>,
}

impl Tables {
    /// Tables that are reached over a connection; nothing is looked at yet.
    pub fn new(sql: Arc<dyn SystemSql>) -> Self {
        Self { sql, are_ready: AtomicBool::new(false), turn: tokio::sync::Mutex::default() }
    }

    /// Runs a statement; `$1`, `$2`, … in it stand for the values. The tables are made first, if
    /// they are not there.
    ///
    /// # Errors
    /// As PostgreSQL says, or that the tables cannot be made and what would help.
    pub async fn run(&self, statement: &str, values: &[Option<&str>]) -> Result<Vec<SqlRow>> {
        let sql = bind(statement, values)?;
        self.make().await?;
        match self.sql.run(sql.clone()).await {
            // Somebody has dropped them, or restored another database.
            Err(e) if matches!(e.sqlstate().as_str(), "3F000" | "42P01") => {
                self.are_ready.store(false, Ordering::Release);
                self.make().await?;
                self.sql.run(sql).await
            }
            done => done,
        }
    }

    /// As [`Self::run`], but the tables are not made for it; `None` = they are not there.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn ask(
        &self,
        statement: &str,
        values: &[Option<&str>],
    ) -> Result<Option<Vec<SqlRow>>> {
        if !self.are_ready.load(Ordering::Acquire) && !self.are_there().await? {
            return Ok(None);
        }
        self.run(statement, values).await.map(Some)
    }

    /// Runs a statement that needs none of the tables.
    ///
    /// # Errors
    /// As PostgreSQL says.
    pub async fn read(&self, statement: &str, values: &[Option<&str>]) -> Result<Vec<SqlRow>> {
        self.sql.run(bind(statement, values)?).await
    }

    async fn are_there(&self) -> Result<bool> {
        let there = "SELECT to_regclass('rustydb.schema_version')";
        let there = self.sql.run(there.into()).await?;
        Ok(there.first().and_then(|row| row.first()?.as_ref()).is_some())
    }

    /// Makes the tables, or brings them up to date.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn make(&self) -> Result<()> {
        if self.are_ready.load(Ordering::Acquire) {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        if self.are_ready.load(Ordering::Acquire) {
            return Ok(());
        }
        let version = if self.are_there().await? { self.version().await? } else { 0 };
        if version > MIGRATIONS.len() {
            let text = "the tables of the schema rustydb were made by a newer RustyDB";
            return Err(Error::new(ErrorKind::NotSupported, text)
                .with_detail(format!(
                    "Their version is {version}; this RustyDB knows versions up to {}.",
                    MIGRATIONS.len()
                ))
                .with_hint("run the newer version"));
        }
        if version < MIGRATIONS.len() {
            if let Err(error) = self.sql.run(migration()).await {
                return Err(self.explain(error).await);
            }
            tracing::info!(version = MIGRATIONS.len(), "the tables of the schema rustydb are made");
        }
        self.are_ready.store(true, Ordering::Release);
        Ok(())
    }

    async fn version(&self) -> Result<usize> {
        let rows = self.sql.run("SELECT max(version) FROM rustydb.schema_version".into()).await?;
        let version = rows.first().and_then(|row| row.first()?.as_ref()?.parse().ok());
        Ok(version.unwrap_or(0))
    }

    /// What to do when the tables could not be made.
    async fn explain(&self, error: Error) -> Error {
        if error.sqlstate().as_str() != "42501" {
            return error;
        }
        let who = "SELECT quote_ident(current_user), quote_ident(current_database())";
        let who = self.sql.run(who.into()).await.unwrap_or_default();
        let who = who.into_iter().next().unwrap_or_default();
        let mut who = who.into_iter().map(Option::unwrap_or_default);
        let (role, database) = (who.next().unwrap_or_default(), who.next().unwrap_or_default());
        Error::new(
            ErrorKind::AuthorizationFailed,
            format!("the role {role} may not make RustyDB's tables in the database {database}"),
        )
        .with_detail(error.message().to_owned())
        .with_hint(format!(
            "as a superuser: GRANT CREATE ON DATABASE {database} TO {role}; or CREATE SCHEMA \
             rustydb AUTHORIZATION {role}"
        ))
    }
}

/// One statement, so that it is done as a whole or not at all.
fn migration() -> String {
    let mut text = format!(
        "DO $rustydb_migration$\nDECLARE at integer;\nBEGIN\n\
         PERFORM pg_catalog.pg_advisory_xact_lock({LOCK});\n\
         IF pg_catalog.to_regnamespace('rustydb') IS NULL THEN CREATE SCHEMA rustydb; END IF;\n\
         CREATE TABLE IF NOT EXISTS rustydb.schema_version (version integer PRIMARY KEY, \
         made_at timestamptz NOT NULL DEFAULT now());\n\
         SELECT coalesce(max(version), 0) INTO at FROM rustydb.schema_version;\n"
    );
    for (version, migration) in (1..).zip(MIGRATIONS) {
        let migration = quote_literal(migration);
        text.push_str(&format!(
            "IF at < {version} THEN EXECUTE {migration}; INSERT INTO rustydb.schema_version \
             VALUES ({version}); END IF;\n"
        ));
    }
    text.push_str("END\n$rustydb_migration$");
    text
}

/// Puts values into a statement as literals. Its comments are left out: a value with a line break
/// in one would go on as a statement.
///
/// # Errors
/// A value contains U+0000, which PostgreSQL cannot store.
fn bind(statement: &str, values: &[Option<&str>]) -> Result<String> {
    if values.iter().flatten().any(|value| value.contains('\0')) {
        return Err(Error::sql(b"22021", "a text contains the character U+0000"));
    }
    let lines = statement.lines().filter(|line| !line.trim_start().starts_with("--"));
    let statement = lines.collect::<Vec<_>>().join("\n");
    let mut parts = statement.split('$');
    let mut sql = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let number = part[..digits].parse::<usize>().ok().and_then(|n| n.checked_sub(1));
        match number.and_then(|number| values.get(number)) {
            Some(Some(value)) => sql.push_str(&quote_literal(value)),
            Some(None) => sql.push_str("NULL"),
            None => return Err(Error::internal(format!("no value for ${part}"))),
        }
        sql.push_str(&part[digits..]);
    }
    Ok(sql)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_literals_whatever_they_hold() {
        let bind = |values: &[Option<&str>]| bind("SELECT $1, $2, $1::text", values);
        assert_eq!(
            bind(&[Some("a'; DROP $2 --\\"), None]).unwrap(),
            r"SELECT E'a''; DROP $2 --\\', NULL, E'a''; DROP $2 --\\'::text"
        );
        assert!(bind(&[Some("a\0b"), None]).is_err());
        assert!(bind(&[Some("a")]).is_err());
    }

    #[test]
    fn no_value_gets_into_a_comment() {
        let sql = bind("-- About $1.\nSELECT $1\n  -- $1\n", &[Some("a\n; DROP TABLE b; --")]);
        assert_eq!(sql.unwrap(), "SELECT E'a\n; DROP TABLE b; --'");
    }

    /// The lines above are all comments there are.
    #[test]
    fn statements_have_comments_on_lines_of_their_own() {
        for folder in ["auth", "jobs"] {
            let folder = format!("{}/sql/{folder}", env!("CARGO_MANIFEST_DIR"));
            for file in std::fs::read_dir(folder).unwrap() {
                let path = file.unwrap().path();
                let text = std::fs::read_to_string(&path).unwrap();
                let inner = |line: &str| {
                    !line.trim_start().starts_with("--") && (line.contains("--"))
                        || line.contains("/*")
                };
                assert!(!text.lines().any(inner), "{}", path.display());
            }
        }
    }
}
