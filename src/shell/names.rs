//! Names for `regclass`, `regtype` and the like, which the protocol sends as numbers.

use std::collections::BTreeMap;

use rustydb_client::{Connection, Result, ResultSet};

use super::table::Table;

/// The types whose values are shown as names: number, name.
const NAMED: [(u32, &str); 11] = [
    (24, "regproc"),
    (2202, "regprocedure"),
    (2203, "regoper"),
    (2204, "regoperator"),
    (2205, "regclass"),
    (2206, "regtype"),
    (3734, "regconfig"),
    (3769, "regdictionary"),
    (4089, "regnamespace"),
    (4096, "regrole"),
    (4191, "regcollation"),
];

/// Replaces the numbers in such columns.
///
/// # Errors
/// What the server says.
pub(super) async fn resolve(
    connection: &Connection,
    result: &ResultSet,
    table: &mut Table,
) -> Result<()> {
    for (at, column) in result.columns().iter().enumerate() {
        let Some((_, kind)) = NAMED.iter().find(|(oid, _)| *oid == column.type_oid) else {
            continue;
        };
        let mut names: BTreeMap<u32, String> = BTreeMap::new();
        for row in result.rows() {
            names.extend(row.get::<Option<u32>>(at)?.map(|oid| (oid, String::new())));
        }
        let oids: Vec<u32> = names.into_keys().collect();
        let sql = format!(
            "SELECT o, o::pg_catalog.{kind}::pg_catalog.text FROM pg_catalog.unnest($1::oid[]) o"
        );
        let mut names = BTreeMap::new();
        for row in connection.query(&sql, &[&oids]).await? {
            names.insert(row.get::<u32>(0)?.to_string(), row.get::<String>(1)?);
        }
        for value in table.rows.iter_mut().filter_map(|row| row.get_mut(at)) {
            if let Some(name) = names.get(value.as_str()) {
                value.clone_from(name);
            }
        }
    }
    Ok(())
}
