//! Names for `regclass`, `regtype` and the like, which the protocol sends as numbers.

use std::collections::{BTreeSet, HashMap};

use rustydb_client::{Connection, Result, ResultSet};

use super::table::Table;

/// The types whose values are shown as names: their number, that of their arrays, their name.
const NAMED: [(u32, u32, &str); 11] = [
    (24, 1008, "regproc"),
    (2202, 2207, "regprocedure"),
    (2203, 2208, "regoper"),
    (2204, 2209, "regoperator"),
    (2205, 2210, "regclass"),
    (2206, 2211, "regtype"),
    (3734, 3735, "regconfig"),
    (3769, 3770, "regdictionary"),
    (4089, 4090, "regnamespace"),
    (4096, 4097, "regrole"),
    (4191, 4192, "regcollation"),
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
        let oid = column.type_oid;
        let named = NAMED.iter().find(|(one, array, _)| *one == oid || *array == oid);
        let Some((one, _, name)) = named else { continue };
        let dimension = if *one == oid { "" } else { "[]" };
        let values = table.rows.iter().filter_map(|row| row.get(at));
        let numbers: BTreeSet<&str> =
            values.map(String::as_str).filter(|value| !value.is_empty()).collect();
        let numbers: Vec<&str> = numbers.into_iter().collect();
        let sql = format!(
            "SELECT n, n::pg_catalog.oid{dimension}::pg_catalog.{name}{dimension}\
             ::pg_catalog.text FROM pg_catalog.unnest($1::pg_catalog.text[]) n"
        );
        let mut names = HashMap::new();
        for row in connection.query(&sql, &[&numbers]).await? {
            names.insert(row.get::<String>(0)?, row.get::<String>(1)?);
        }
        for value in table.rows.iter_mut().filter_map(|row| row.get_mut(at)) {
            if let Some(name) = names.get(value.as_str()) {
                value.clone_from(name);
            }
        }
    }
    Ok(())
}
