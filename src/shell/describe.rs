//! What there is in a database: the queries behind `\d` and its relatives.

use rustydb_client::{Error, Result, Row};

use super::session::Session;
use super::table::Table;

/// A name or a pattern as it is written after `\d`: parts for schema and name, as regular
/// expressions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Pattern {
    schema: Option<String>,
    name: Option<String>,
}

impl Pattern {
    /// Reads `schema.name`, where `*` and `?` stand for others; what is not quoted is folded to
    /// lower case.
    fn parse(text: &str) -> Self {
        let mut parts = vec![String::new()];
        let mut is_quoted = false;
        for c in text.trim().chars() {
            let part = parts.last_mut();
            match (c, part) {
                ('"', _) => is_quoted = !is_quoted,
                ('.', _) if !is_quoted => parts.push(String::new()),
                ('*', Some(part)) if !is_quoted => part.push_str(".*"),
                ('?', Some(part)) if !is_quoted => part.push('.'),
                (c, Some(part)) => {
                    if !c.is_alphanumeric() && c != '_' && !c.is_whitespace() {
                        part.push('\\');
                    }
                    match is_quoted {
                        true => part.push(c),
                        false => part.extend(c.to_lowercase()),
                    }
                }
                (_, None) => {}
            }
        }
        let mut named = parts.into_iter().rev().map(|part| format!("^({part})$"));
        let name = named.next().filter(|name| name != "^()$");
        Self { name, schema: named.next() }
    }
}

/// The kinds of relations behind a letter of `\d`.
fn kinds(letters: &str) -> String {
    let mut kinds = String::new();
    for letter in letters.chars() {
        kinds.push_str(match letter {
            't' => "rp",
            'v' => "v",
            'm' => "m",
            'i' => "iI",
            's' => "S",
            'E' => "f",
            _ => "",
        });
    }
    kinds
}

/// Carries out a command that begins with `d` or `l`; `None` = there is no such command.
///
/// # Errors
/// What the server says.
pub(super) fn describe(
    session: &mut Session,
    command: &str,
    arg: &str,
) -> Result<Option<Vec<Table>>> {
    let letters = command.trim_end_matches(['+', 'S']);
    let with_system = command.contains('S') || !arg.is_empty();
    let pattern = Pattern::parse(arg);
    let one = |table: Table| Ok(Some(vec![table]));
    match letters {
        "l" | "list" => one(databases(session)?),
        "d" if !arg.is_empty() => details(session, arg, &pattern).map(Some),
        "d" => one(relations(session, "rpvmSf", &pattern, with_system)?),
        "dn" => one(schemas(session, &pattern, with_system)?),
        "df" => one(functions(session, &pattern, with_system)?),
        "du" | "dg" => one(roles(session, &pattern)?),
        _ => match letters.strip_prefix('d') {
            Some(kind) if !kind.is_empty() && kind.chars().all(|c| "tvmisE".contains(c)) => {
                one(relations(session, &kinds(kind), &pattern, with_system)?)
            }
            _ => Ok(None),
        },
    }
}

fn table(title: &str, names: &[&str], rows: &[Row]) -> Result<Table> {
    let text = |row: &Row| {
        let value = |at| Ok(row.get::<Option<String>>(at)?.unwrap_or_default());
        (0..names.len()).map(value).collect::<Result<Vec<String>>>()
    };
    Ok(Table {
        title: Some(title.to_owned()),
        names: names.iter().map(|&name| name.to_owned()).collect(),
        is_number: vec![false; names.len()],
        rows: rows.iter().map(text).collect::<Result<_>>()?,
        footers: None,
    })
}

const RELATION_KIND: &str = "CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' \
    WHEN 'm' THEN 'materialized view' WHEN 'i' THEN 'index' WHEN 'S' THEN 'sequence' \
    WHEN 't' THEN 'TOAST table' WHEN 'f' THEN 'foreign table' WHEN 'p' THEN 'partitioned table' \
    WHEN 'I' THEN 'partitioned index' END";

fn relations(
    session: &mut Session,
    kinds: &str,
    pattern: &Pattern,
    with_system: bool,
) -> Result<Table> {
    let sql = format!(
        "SELECT n.nspname, c.relname, {RELATION_KIND}, pg_catalog.pg_get_userbyid(c.relowner), \
                t.relname \
         FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid \
         LEFT JOIN pg_catalog.pg_class t ON t.oid = i.indrelid \
         WHERE pg_catalog.strpos($1::text, c.relkind::text) > 0 \
           AND ($2::text IS NULL OR c.relname ~ $2) AND ($3::text IS NULL OR n.nspname ~ $3) \
           AND ($3 IS NOT NULL OR pg_catalog.pg_table_is_visible(c.oid)) \
           AND ($4::bool OR n.nspname NOT IN ('pg_catalog', 'information_schema')) \
           AND n.nspname !~ '^pg_toast' \
         ORDER BY 1, 2"
    );
    let rows = session.rows(&sql, &[&kinds, &pattern.name, &pattern.schema, &with_system])?;
    if rows.is_empty() {
        return Err(Error::Usage("Did not find any relations.".to_owned()));
    }
    let with_table = kinds.contains('i');
    let names = ["Schema", "Name", "Type", "Owner", "Table"];
    table("List of relations", &names[..if with_table { 5 } else { 4 }], &rows)
}

fn databases(session: &mut Session) -> Result<Table> {
    let sql = "SELECT datname, pg_catalog.pg_get_userbyid(datdba), \
                      pg_catalog.pg_encoding_to_char(encoding), datcollate, datctype, \
                      pg_catalog.array_to_string(datacl, E'\\n') \
               FROM pg_catalog.pg_database ORDER BY 1";
    let names = ["Name", "Owner", "Encoding", "Collate", "Ctype", "Access privileges"];
    table("List of databases", &names, &session.rows(sql, &[])?)
}

fn schemas(session: &mut Session, pattern: &Pattern, with_system: bool) -> Result<Table> {
    let sql = "SELECT nspname, pg_catalog.pg_get_userbyid(nspowner) FROM pg_catalog.pg_namespace \
               WHERE ($1::text IS NULL OR nspname ~ $1) \
                 AND ($2::bool OR (nspname !~ '^pg_' AND nspname <> 'information_schema')) \
               ORDER BY 1";
    let rows = session.rows(sql, &[&pattern.name, &with_system])?;
    table("List of schemas", &["Name", "Owner"], &rows)
}

fn functions(session: &mut Session, pattern: &Pattern, with_system: bool) -> Result<Table> {
    let sql = "SELECT n.nspname, p.proname, pg_catalog.pg_get_function_result(p.oid), \
                      pg_catalog.pg_get_function_arguments(p.oid), \
                      CASE p.prokind WHEN 'a' THEN 'agg' WHEN 'w' THEN 'window' \
                                     WHEN 'p' THEN 'proc' ELSE 'func' END \
               FROM pg_catalog.pg_proc p \
               JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
               WHERE ($1::text IS NULL OR p.proname ~ $1) AND ($2::text IS NULL OR n.nspname ~ $2) \
                 AND ($2 IS NOT NULL OR pg_catalog.pg_function_is_visible(p.oid)) \
                 AND ($3::bool OR n.nspname NOT IN ('pg_catalog', 'information_schema')) \
               ORDER BY 1, 2, 4";
    let rows = session.rows(sql, &[&pattern.name, &pattern.schema, &with_system])?;
    let names = ["Schema", "Name", "Result data type", "Argument data types", "Type"];
    table("List of functions", &names, &rows)
}

fn roles(session: &mut Session, pattern: &Pattern) -> Result<Table> {
    let sql = "SELECT r.rolname, pg_catalog.concat_ws(', ', \
                      CASE WHEN r.rolsuper THEN 'Superuser' END, \
                      CASE WHEN NOT r.rolinherit THEN 'No inheritance' END, \
                      CASE WHEN r.rolcreaterole THEN 'Create role' END, \
                      CASE WHEN r.rolcreatedb THEN 'Create DB' END, \
                      CASE WHEN NOT r.rolcanlogin THEN 'Cannot login' END, \
                      CASE WHEN r.rolreplication THEN 'Replication' END, \
                      CASE WHEN r.rolbypassrls THEN 'Bypass RLS' END), \
                      '{' || pg_catalog.array_to_string(ARRAY( \
                          SELECT b.rolname FROM pg_catalog.pg_auth_members m \
                          JOIN pg_catalog.pg_roles b ON m.roleid = b.oid \
                          WHERE m.member = r.oid ORDER BY 1), ',') || '}' \
               FROM pg_catalog.pg_roles r \
               WHERE ($1::text IS NULL OR r.rolname ~ $1) \
                 AND ($1 IS NOT NULL OR r.rolname !~ '^pg_') ORDER BY 1";
    let rows = session.rows(sql, &[&pattern.name])?;
    let mut table = table("List of roles", &["Role name", "Attributes", "Member of"], &rows)?;
    table.footers = Some(Vec::new());
    Ok(table)
}

fn details(session: &mut Session, arg: &str, pattern: &Pattern) -> Result<Vec<Table>> {
    let sql = format!(
        "SELECT c.oid, n.nspname, c.relname, {RELATION_KIND}, \
                CASE WHEN c.relkind = 'v' THEN pg_catalog.pg_get_viewdef(c.oid, true) END \
         FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE ($1::text IS NULL OR c.relname ~ $1) AND ($2::text IS NULL OR n.nspname ~ $2) \
           AND ($2 IS NOT NULL OR pg_catalog.pg_table_is_visible(c.oid)) \
         ORDER BY 2, 3"
    );
    let found = session.rows(&sql, &[&pattern.name, &pattern.schema])?;
    if found.is_empty() {
        let text = format!("Did not find any relation named \"{arg}\".");
        return Err(Error::Usage(text));
    }
    found.iter().map(|relation| one_relation(session, relation)).collect()
}

fn one_relation(session: &mut Session, relation: &Row) -> Result<Table> {
    let oid: u32 = relation.get(0)?;
    let (schema, name): (String, String) = (relation.get(1)?, relation.get(2)?);
    let kind = relation.get::<Option<String>>(3)?.unwrap_or_else(|| "relation".to_owned());
    let mut title = kind;
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let columns = "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), \
                          CASE WHEN a.attcollation <> t.typcollation THEN l.collname END, \
                          CASE WHEN a.attnotnull THEN 'not null' END, \
                          CASE WHEN a.attidentity = 'a' THEN 'generated always as identity' \
                               WHEN a.attidentity = 'd' THEN 'generated by default as identity' \
                               WHEN a.attgenerated = 's' THEN 'generated always as (' || \
                                    pg_catalog.pg_get_expr(d.adbin, d.adrelid, true) || ') stored' \
                               ELSE pg_catalog.pg_get_expr(d.adbin, d.adrelid, true) END \
                   FROM pg_catalog.pg_attribute a \
                   JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
                   LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation \
                   LEFT JOIN pg_catalog.pg_attrdef d \
                     ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
                   WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped \
                   ORDER BY a.attnum";
    let rows = session.rows(columns, &[&oid])?;
    let names = ["Column", "Type", "Collation", "Nullable", "Default"];
    let mut table = table(&format!("{title} \"{schema}.{name}\""), &names, &rows)?;
    let mut footers = Vec::new();
    for (head, sql) in FOOTERS {
        let lines = session.rows(sql, &[&oid])?;
        if !lines.is_empty() {
            footers.push(head.to_owned());
        }
        for line in lines {
            footers.push(format!("    {}", line.get::<String>(0)?));
        }
    }
    if let Some(definition) = relation.get::<Option<String>>(4)? {
        footers.push("View definition:".to_owned());
        footers.push(definition);
    }
    table.footers = Some(footers);
    Ok(table)
}

/// What is said below the columns of a relation: a heading, and the query for the lines.
const FOOTERS: [(&str, &str); 6] = [
    (
        "Indexes:",
        "SELECT '\"' || c.relname || '\"' || \
                CASE WHEN i.indisprimary THEN ' PRIMARY KEY,' \
                     WHEN x.contype = 'u' THEN ' UNIQUE CONSTRAINT,' \
                     WHEN i.indisunique THEN ' UNIQUE,' ELSE '' END || ' ' || \
                pg_catalog.regexp_replace(pg_catalog.pg_get_indexdef(i.indexrelid, 0, true), \
                                          '^.* USING ', '') || \
                CASE WHEN NOT i.indisvalid THEN ' INVALID' ELSE '' END \
         FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
         LEFT JOIN pg_catalog.pg_constraint x ON x.conindid = i.indexrelid \
           AND x.conrelid = i.indrelid AND x.contype IN ('p', 'u', 'x') \
         WHERE i.indrelid = $1 ORDER BY i.indisprimary DESC, c.relname",
    ),
    (
        "Check constraints:",
        "SELECT '\"' || conname || '\" ' || pg_catalog.pg_get_constraintdef(oid, true) \
         FROM pg_catalog.pg_constraint WHERE conrelid = $1 AND contype = 'c' ORDER BY conname",
    ),
    (
        "Foreign-key constraints:",
        "SELECT '\"' || conname || '\" ' || pg_catalog.pg_get_constraintdef(oid, true) \
         FROM pg_catalog.pg_constraint WHERE conrelid = $1 AND contype = 'f' ORDER BY conname",
    ),
    (
        "Referenced by:",
        "SELECT 'TABLE \"' || conrelid::pg_catalog.regclass || '\" CONSTRAINT \"' || conname || \
                '\" ' || pg_catalog.pg_get_constraintdef(oid, true) \
         FROM pg_catalog.pg_constraint WHERE confrelid = $1 AND contype = 'f' ORDER BY conname",
    ),
    (
        "Triggers:",
        "SELECT pg_catalog.regexp_replace(pg_catalog.pg_get_triggerdef(oid, true), \
                                          '^CREATE (CONSTRAINT )?TRIGGER ', '') \
         FROM pg_catalog.pg_trigger WHERE tgrelid = $1 AND NOT tgisinternal ORDER BY tgname",
    ),
    (
        "Partition of:",
        "SELECT inhparent::pg_catalog.regclass || ' ' || \
                pg_catalog.pg_get_expr(c.relpartbound, c.oid) \
         FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid \
         WHERE i.inhrelid = $1 AND c.relispartition",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_become_regular_expressions() {
        let parsed = |text| {
            let pattern = Pattern::parse(text);
            (pattern.schema, pattern.name)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(parsed(""), (None, None));
        assert_eq!(parsed("Users"), (None, some("^(users)$")));
        assert_eq!(parsed("\"Us.ers*\""), (None, some("^(Us\\.ers\\*)$")));
        assert_eq!(parsed("app.u?er*"), (some("^(app)$"), some("^(u.er.*)$")));
        assert_eq!(parsed("a+b"), (None, some("^(a\\+b)$")));
        assert_eq!(parsed("app."), (some("^(app)$"), None));
    }

    #[test]
    fn letters_become_kinds() {
        assert_eq!(kinds("ti"), "rpiI");
        assert_eq!(kinds("vms"), "vmS");
    }
}
