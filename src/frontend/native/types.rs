//! Types that a database has of its own: looked up when a result first has them, and kept for all
//! connections.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use postgres_types::Type;

use crate::proto::typed::{FIRST_OWN_OID, Shape, Types, builtin, has_send};
use crate::types::Database;

/// Types kept over all databases; when full, all are forgotten.
const MAX_TYPES: usize = 10_000;

/// How long a type is believed in before it is looked up again.
const FRESH_FOR: Duration = Duration::from_secs(60);

/// Types within one type that are looked at.
const MAX_INNER: usize = 1000;

/// Deepest nesting of domains that is followed.
const MAX_DEPTH: usize = 16;

/// The types of all databases.
#[derive(Default)]
pub struct TypeStore {
    types: Mutex<HashMap<(Database, u32), Known>>,
}

struct Known {
    at: Instant,
    name: Arc<str>,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Plain(Shape),
    /// It has no send or no receive function.
    TextOnly,
    Domain(u32),
    /// A row of these types.
    Composite(Vec<u32>),
}

/// The types of one database.
#[derive(Clone)]
pub(super) struct DatabaseTypes {
    pub(super) store: Arc<TypeStore>,
    pub(super) database: Database,
}

impl Types for DatabaseTypes {
    fn shape(&self, oid: u32) -> Shape {
        match builtin(oid) {
            Some(shape) => shape,
            None if oid < FIRST_OWN_OID => Shape::Other,
            None => self.own_shape(oid),
        }
    }

    fn can_be_binary(&self, oid: u32) -> bool {
        let types = self.store.types.lock();
        let (mut seen, mut open) = (Vec::new(), vec![oid]);
        while let Some(oid) = open.pop() {
            if !has_send(oid) || seen.len() >= MAX_INNER {
                return false;
            }
            if oid < FIRST_OWN_OID || seen.contains(&oid) {
                continue;
            }
            seen.push(oid);
            match types.get(&(self.database.clone(), oid)).map(|known| &known.kind) {
                Some(Kind::TextOnly) => return false,
                Some(kind) => open.extend(kind.inner()),
                None => {}
            }
        }
        true
    }
}

impl Kind {
    /// The types that it consists of.
    fn inner(&self) -> &[u32] {
        match self {
            Self::Domain(inner)
            | Self::Plain(Shape::Array(inner) | Shape::Range(inner) | Shape::Multirange(inner)) => {
                std::slice::from_ref(inner)
            }
            Self::Composite(fields) => fields,
            Self::Plain(_) | Self::TextOnly => &[],
        }
    }
}

impl DatabaseTypes {
    fn own_shape(&self, mut oid: u32) -> Shape {
        let types = self.store.types.lock();
        for _ in 0..MAX_DEPTH {
            match types.get(&(self.database.clone(), oid)).map(|known| &known.kind) {
                Some(Kind::Plain(shape)) => return *shape,
                Some(Kind::Composite(_)) => return Shape::Composite,
                Some(Kind::TextOnly) => return Shape::Other,
                Some(Kind::Domain(base)) => {
                    if let Some(shape) = builtin(*base) {
                        return shape;
                    }
                    oid = *base;
                }
                None => return Shape::Other,
            }
        }
        Shape::Other
    }

    /// The name of a type; empty if it is not known.
    pub(super) fn name(&self, oid: u32) -> String {
        if let Some(known) = Type::from_oid(oid) {
            return known.name().to_owned();
        }
        let types = self.store.types.lock();
        let known = types.get(&(self.database.clone(), oid));
        known.map_or_else(String::new, |known| known.name.as_ref().to_owned())
    }

    /// The query that tells what is not known of these types, and of those within them; `None` =
    /// everything is.
    pub(super) fn missing(&self, oids: impl Iterator<Item = u32>) -> Option<String> {
        let types = self.store.types.lock();
        let (mut missing, mut seen) = (Vec::new(), Vec::new());
        let mut open: Vec<u32> = oids.collect();
        while let Some(oid) = open.pop() {
            if oid < FIRST_OWN_OID || seen.contains(&oid) || seen.len() >= MAX_INNER {
                continue;
            }
            seen.push(oid);
            let known = types.get(&(self.database.clone(), oid));
            match known.filter(|known| known.at.elapsed() < FRESH_FOR).map(|known| &known.kind) {
                None => missing.push(oid.to_string()),
                Some(kind) => open.extend(kind.inner()),
            }
        }
        (!missing.is_empty()).then(|| {
            include_str!("../../../sql/native_types.sql").replace("$1", &missing.join(","))
        })
    }

    /// Learns from a row of the answer: number, name, kind, the type within, the types of a row.
    pub(super) fn learn(&self, row: &[Option<&str>]) {
        let &[Some(oid), Some(name), Some(kind), inner, fields] = row else { return };
        let Ok(oid) = oid.parse() else { return };
        let inner = inner.and_then(|oid| oid.parse().ok()).unwrap_or(0);
        let kind = match kind {
            "text only" => Kind::TextOnly,
            "text" => Kind::Plain(Shape::Text),
            "array" => Kind::Plain(Shape::Array(inner)),
            "range" => Kind::Plain(Shape::Range(inner)),
            "multirange" => Kind::Plain(Shape::Multirange(inner)),
            "domain" => Kind::Domain(inner),
            "composite" => {
                let fields = fields.unwrap_or_default().split(',');
                Kind::Composite(fields.filter_map(|oid| oid.parse().ok()).collect())
            }
            _ => Kind::Plain(Shape::Other),
        };
        let mut types = self.store.types.lock();
        if types.len() >= MAX_TYPES {
            types.clear();
        }
        let known = Known { at: Instant::now(), name: name.into(), kind };
        types.insert((self.database.clone(), oid), known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_asked_for_until_all_within_are_known() {
        let types = DatabaseTypes { store: Arc::default(), database: "d".into() };
        assert_eq!(types.missing([23, 25].into_iter()), None);
        let asks = |types: &DatabaseTypes| types.missing([20_000].into_iter());
        assert!(asks(&types).unwrap().contains("(20000)"));
        types.learn(&[Some("20000"), Some("_pair"), Some("array"), Some("20001"), None]);
        assert!(asks(&types).unwrap().contains("(20001)"));
        types.learn(&[Some("20001"), Some("pair"), Some("composite"), None, Some("23,20002")]);
        assert!(asks(&types).unwrap().contains("(20002)"));
        types.learn(&[Some("20002"), Some("dom"), Some("domain"), Some("20003"), None]);
        types.learn(&[Some("20003"), Some("mood"), Some("text"), None, None]);
        assert_eq!(asks(&types), None);
        assert_eq!(types.shape(20_000), Shape::Array(20_001));
        assert_eq!(types.shape(20_001), Shape::Composite);
        assert_eq!((types.shape(20_002), types.shape(20_009)), (Shape::Text, Shape::Other));
        assert_eq!((types.name(20_003), types.name(23)), ("mood".into(), "int4".into()));
    }

    #[test]
    fn what_has_no_binary_form_is_known_wherever_it_is() {
        let types = DatabaseTypes { store: Arc::default(), database: "d".into() };
        types.learn(&[Some("20000"), Some("pair"), Some("composite"), None, Some("23,20001")]);
        types.learn(&[Some("20001"), Some("odd"), Some("text only"), None, None]);
        types.learn(&[Some("20002"), Some("_pair"), Some("array"), Some("20000"), None]);
        types.learn(&[Some("20003"), Some("acl"), Some("domain"), Some("1034"), None]);
        types.learn(&[Some("20004"), Some("fine"), Some("composite"), None, Some("23,600,20004")]);
        let binary = |oid| crate::proto::typed::is_binary(&types, oid);
        for oid in [20_000, 20_001, 20_002, 20_003, 1033, 1034, 600] {
            assert!(!binary(oid), "{oid}");
        }
        for oid in [23, 1007, 20_004, 2249] {
            assert!(binary(oid), "{oid}");
        }
    }

    #[test]
    fn domains_in_a_circle_end() {
        let types = DatabaseTypes { store: Arc::default(), database: "d".into() };
        types.learn(&[Some("20000"), Some("d"), Some("domain"), Some("20000"), None]);
        assert_eq!(types.shape(20_000), Shape::Other);
        assert_eq!(types.missing([20_000].into_iter()), None);
    }
}
