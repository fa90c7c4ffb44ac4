//! What RustyDB knows of a database's types and columns, remembered for a short time.
//!
//! Built-in types are known without asking. For others this module says which query to run and
//! reads its answer; running it is the session's business.

mod names;
mod snapshot;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use names::{DatabaseNames, MAX_ROWS, NameStore, SequenceRule, query as names_query};
use postgres_types::{Kind, Type};
pub use snapshot::{
    DatabaseSnapshot, Look, MAX_SNAPSHOT_ROWS, Snapshots, read as read_snapshot, snapshot_query,
};

use crate::limits::recent::is_younger;
use crate::proto::json::{Field, Shape};
use crate::types::Database;

/// Types and tables remembered over all databases; when full, all are forgotten.
const MAX_ENTRIES: usize = 10_000;

/// How long a composite type or a NOT NULL is believed in.
const FRESH_FOR: Duration = Duration::from_secs(60);

/// Deepest nesting of arrays, composites and domains that is followed.
const MAX_DEPTH: usize = 16;

/// Types within one type that are followed; the rest is text.
const MAX_TYPES: usize = 1000;

/// Types that were looked at, and whether they are known.
type Seen = BTreeMap<u32, bool>;

/// A type as JSON needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct TypeInfo {
    /// Name, without its schema.
    pub name: Arc<str>,
    /// How its text becomes JSON.
    pub shape: Shape,
}

/// A row of `sql/types.sql`.
#[derive(Clone, Debug)]
struct TypeRow {
    name: Arc<str>,
    kind: TypeKind,
}

#[derive(Clone, Debug)]
enum TypeKind {
    Array { element: u32, delimiter: u8 },
    Composite(Vec<(String, u32)>),
    Domain(u32),
    Other,
}

/// The memory, shared by all sessions.
#[derive(Default)]
pub struct Catalog {
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    types: HashMap<(Database, u32), (Instant, TypeRow)>,
    not_null: HashMap<(Database, u32), NotNull>,
}

/// Numbers of the NOT NULL columns of a table, and when they were read.
type NotNull = (Instant, Arc<[i16]>);

/// A row of a catalog query, in text.
pub type Row = Vec<Option<String>>;

impl Catalog {
    /// The query that must be run before these types are known; `None` = they are.
    pub fn missing_types(&self, database: &Database, oids: &[u32]) -> Option<String> {
        let entries = self.entries.lock();
        let mut seen = BTreeMap::new();
        for oid in oids {
            entries.collect(database, *oid, MAX_DEPTH, &mut seen);
        }
        let missing: Vec<u32> =
            seen.into_iter().filter(|(_, known)| !known).map(|(oid, _)| oid).collect();
        let list = join(&missing)?;
        Some(include_str!("../../sql/types.sql").replace("$1", &list))
    }

    /// Learns from the answer to [`Catalog::missing_types`].
    pub fn learn_types(&self, database: &Database, rows: &[Row]) {
        let mut entries = self.entries.lock();
        entries.make_room();
        for row in rows {
            if let Some((oid, info)) = type_row(row) {
                entries.types.insert((database.clone(), oid), (Instant::now(), info));
            }
        }
    }

    /// A type. One that nobody knows is text.
    pub fn type_info(&self, database: &Database, oid: u32) -> TypeInfo {
        self.entries.lock().type_info(database, oid, MAX_DEPTH, &mut HashMap::new())
    }

    /// The query that must be run before the columns of these tables are known.
    pub fn missing_tables(&self, database: &Database, tables: &[u32]) -> Option<String> {
        let entries = self.entries.lock();
        let known = |table: u32| {
            let entry = entries.not_null.get(&(database.clone(), table));
            entry.is_some_and(|(at, _)| is_younger(*at, FRESH_FOR))
        };
        let mut missing: Vec<u32> =
            tables.iter().copied().filter(|t| *t != 0 && !known(*t)).collect();
        missing.sort_unstable();
        missing.dedup();
        let list = join(&missing)?;
        Some(include_str!("../../sql/not_null.sql").replace("$1", &list))
    }

    /// Learns from the answer to [`Catalog::missing_tables`]; a table without an answer has no
    /// NOT NULL column.
    pub fn learn_tables(&self, database: &Database, tables: &[u32], rows: &[Row]) {
        let mut by_table: HashMap<u32, Vec<i16>> =
            tables.iter().map(|table| (*table, Vec::new())).collect();
        for row in rows {
            if let (Some(table), Some(number)) = (number(row, 0), number(row, 1)) {
                by_table.entry(table).or_default().push(number);
            }
        }
        let mut entries = self.entries.lock();
        entries.make_room();
        for (table, columns) in by_table {
            entries.not_null.insert((database.clone(), table), (Instant::now(), columns.into()));
        }
    }

    /// Whether a column can be NULL, as far as is known.
    pub fn is_nullable(&self, database: &Database, table: u32, attribute: i16) -> bool {
        let entries = self.entries.lock();
        let columns = entries.not_null.get(&(database.clone(), table));
        columns.is_none_or(|(_, not_null)| !not_null.contains(&attribute))
    }
}

impl Entries {
    fn make_room(&mut self) {
        if self.types.len() + self.not_null.len() >= MAX_ENTRIES {
            self.types.clear();
            self.not_null.clear();
        }
    }

    fn row(&self, database: &Database, oid: u32) -> Option<&TypeRow> {
        let (at, row) = self.types.get(&(database.clone(), oid))?;
        is_younger(*at, FRESH_FOR).then_some(row)
    }

    /// Visits every type within a type once, and notes whether it is known.
    fn collect(&self, database: &Database, oid: u32, depth: usize, seen: &mut Seen) {
        if depth == 0 || seen.len() >= MAX_TYPES || builtin(oid).is_some() {
            return;
        }
        let row = self.row(database, oid);
        if seen.insert(oid, row.is_some()).is_some() {
            return;
        }
        match row.map(|row| &row.kind) {
            Some(TypeKind::Array { element: inner, .. } | TypeKind::Domain(inner)) => {
                self.collect(database, *inner, depth - 1, seen);
            }
            Some(TypeKind::Composite(fields)) => {
                for (_, inner) in fields {
                    self.collect(database, *inner, depth - 1, seen);
                }
            }
            Some(TypeKind::Other) | None => {}
        }
    }

    /// Builds the shape of a type; a type that occurs again shares the shape that was built.
    fn type_info(
        &self,
        database: &Database,
        oid: u32,
        depth: usize,
        built: &mut HashMap<u32, TypeInfo>,
    ) -> TypeInfo {
        if let Some(info) = builtin(oid).or_else(|| built.get(&oid).cloned()) {
            return info;
        }
        let known = self.row(database, oid).filter(|_| depth > 0 && built.len() < MAX_TYPES);
        let Some(row) = known else {
            return TypeInfo { name: "unknown".into(), shape: Shape::Text };
        };
        let mut inner = |oid| self.type_info(database, oid, depth - 1, built).shape;
        let shape = match &row.kind {
            TypeKind::Array { element, delimiter } => {
                Shape::Array { element: Arc::new(inner(*element)), delimiter: *delimiter }
            }
            TypeKind::Composite(fields) => {
                let mut field = |(name, oid): &(String, u32)| Field {
                    name: name.as_str().into(),
                    shape: inner(*oid),
                };
                Shape::Composite(fields.iter().map(&mut field).collect())
            }
            TypeKind::Domain(base) => inner(*base),
            TypeKind::Other => Shape::Text,
        };
        let info = TypeInfo { name: row.name.clone(), shape };
        built.insert(oid, info.clone());
        info
    }
}

/// Types with a number below 16384 are the same in every database.
fn builtin(oid: u32) -> Option<TypeInfo> {
    let known = Type::from_oid(oid)?;
    let shape = match (known.kind(), &known) {
        // Printed with blanks between the elements, unlike arrays.
        (_, &Type::INT2_VECTOR | &Type::OID_VECTOR) => Shape::Text,
        (Kind::Array(element), _) => Shape::Array {
            element: Arc::new(scalar(element)),
            delimiter: if *element == Type::BOX { b';' } else { b',' },
        },
        (_, other) => scalar(other),
    };
    Some(TypeInfo { name: known.name().into(), shape })
}

fn scalar(known: &Type) -> Shape {
    match *known {
        Type::BOOL => Shape::Bool,
        Type::INT2 | Type::INT4 => Shape::Int,
        Type::OID => Shape::Oid,
        Type::INT8 => Shape::Int8,
        Type::FLOAT4 | Type::FLOAT8 => Shape::Float,
        Type::NUMERIC => Shape::Numeric,
        Type::JSON | Type::JSONB => Shape::Json,
        Type::BYTEA => Shape::Bytea,
        Type::TIMESTAMP => Shape::Timestamp,
        Type::TIMESTAMPTZ => Shape::Timestamptz,
        _ => Shape::Text,
    }
}

fn number<T: std::str::FromStr>(row: &Row, at: usize) -> Option<T> {
    row.get(at)?.as_deref()?.parse().ok()
}

fn text(row: &Row, at: usize) -> Option<&str> {
    row.get(at)?.as_deref()
}

fn type_row(row: &Row) -> Option<(u32, TypeRow)> {
    let oid = number(row, 0)?;
    let kind = match text(row, 2)? {
        "array" => TypeKind::Array {
            element: number(row, 3)?,
            delimiter: text(row, 4).and_then(|d| d.bytes().next()).unwrap_or(b','),
        },
        "domain" => TypeKind::Domain(number(row, 3)?),
        "composite" => TypeKind::Composite(serde_json::from_str(text(row, 5)?).ok()?),
        _ => TypeKind::Other,
    };
    Some((oid, TypeRow { name: text(row, 1)?.into(), kind }))
}

fn join(oids: &[u32]) -> Option<String> {
    let list: Vec<String> = oids.iter().map(u32::to_string).collect();
    (!list.is_empty()).then(|| list.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Row {
        cells.iter().map(|c| (*c != "-").then(|| (*c).to_owned())).collect()
    }

    #[test]
    fn types_are_asked_for_until_all_are_known() {
        let (catalog, db) = (Catalog::default(), Database::from("d"));
        assert_eq!(catalog.missing_types(&db, &[23, 1007]), None);
        let query = catalog.missing_types(&db, &[20_000, 23]).unwrap();
        assert!(query.contains("(20000)"), "{query}");
        catalog.learn_types(&db, &[row(&["20000", "_pair", "array", "20001", ",", "-"])]);
        assert!(catalog.missing_types(&db, &[20_000]).unwrap().contains("(20001)"));
        let fields = r#"[["a",23],["b",20002]]"#;
        catalog.learn_types(&db, &[row(&["20001", "pair", "composite", "-", "-", fields])]);
        catalog.learn_types(&db, &[row(&["20002", "mood", "other", "-", "-", "-"])]);
        assert_eq!(catalog.missing_types(&db, &[20_000]), None);
        let info = catalog.type_info(&db, 20_000);
        let Shape::Array { element, .. } = info.shape else { panic!("{info:?}") };
        let Shape::Composite(fields) = &*element else { panic!("{element:?}") };
        assert_eq!((&*fields[0].name, &fields[0].shape), ("a", &Shape::Int));
        assert!(catalog.missing_types(&Database::from("other"), &[20_000]).is_some());
    }

    #[test]
    fn a_type_that_holds_another_many_times_is_built_once() {
        let (catalog, db) = (Catalog::default(), Database::from("d"));
        for level in 1..=12u32 {
            let oid = (20_000 + level).to_string();
            let inner = if level == 1 { 23 } else { 20_000 + level - 1 };
            let field = format!("[\"f\",{inner}]");
            let fields = format!("[{}]", [field.as_str(); 10].join(","));
            catalog.learn_types(&db, &[row(&[&oid, "t", "composite", "-", "-", &fields])]);
        }
        assert_eq!(catalog.missing_types(&db, &[20_012]), None);
        let mut shape = catalog.type_info(&db, 20_012).shape;
        for _ in 0..12 {
            let Shape::Composite(fields) = &shape else { panic!("{shape:?}") };
            assert_eq!(fields.len(), 10);
            shape = fields[9].shape.clone();
        }
        assert_eq!(shape, Shape::Int);
    }

    #[test]
    fn columns_are_nullable_until_told_otherwise() {
        let (catalog, db) = (Catalog::default(), Database::from("d"));
        assert!(catalog.missing_tables(&db, &[0, 7]).unwrap().contains("(7)"));
        catalog.learn_tables(&db, &[7], &[row(&["7", "2"])]);
        assert_eq!(catalog.missing_tables(&db, &[7]), None);
        assert!(catalog.is_nullable(&db, 7, 1));
        assert!(!catalog.is_nullable(&db, 7, 2));
    }
}
