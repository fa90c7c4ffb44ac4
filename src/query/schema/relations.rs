//! How one table is connected with another: by a reference of its own, by one to it, or by a third
//! table that references both.

use super::{ForeignKey, Schema, Table, TableKind};

/// How many rows of the target belong to one row of the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cardinality {
    /// The origin references the target.
    ManyToOne,
    /// The target references the origin.
    OneToMany,
    /// Either, over columns that are unique.
    OneToOne,
    /// A third table references both.
    ManyToMany,
}

impl Cardinality {
    /// Whether there is at most one row.
    pub fn is_to_one(self) -> bool {
        matches!(self, Cardinality::ManyToOne | Cardinality::OneToOne)
    }

    /// The word used in answers about ambiguity.
    pub fn as_str(self) -> &'static str {
        match self {
            Cardinality::ManyToOne => "many-to-one",
            Cardinality::OneToMany => "one-to-many",
            Cardinality::OneToOne => "one-to-one",
            Cardinality::ManyToMany => "many-to-many",
        }
    }
}

/// The table between two others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Junction {
    /// Position in [`Schema::tables`].
    pub table: usize,
    /// Its reference to the origin.
    pub to_origin: usize,
    /// Its reference to the target.
    pub to_target: usize,
}

/// A way from one table to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Position of the table it starts from.
    pub origin: usize,
    /// Position of the table it leads to.
    pub target: usize,
    /// How many rows it leads to.
    pub cardinality: Cardinality,
    /// The reference, in [`Schema::foreign_keys`]; the junction's to the target when there is one.
    pub foreign_key: usize,
    /// Whether the origin holds the reference.
    pub is_own: bool,
    /// The table between.
    pub junction: Option<Junction>,
}

impl Relation {
    /// Pairs of columns, the origin's first; without the junction's.
    pub fn pairs(&self, schema: &Schema) -> Vec<(usize, usize)> {
        let Some(key) = schema.foreign_keys.get(self.foreign_key) else { return Vec::new() };
        let pairs = key.columns.iter().copied().zip(key.target_columns.iter().copied());
        if self.is_own { pairs.collect() } else { pairs.map(|(a, b)| (b, a)).collect() }
    }

    /// Names that a client may use to tell this relation from others.
    fn is_hinted(&self, schema: &Schema, hint: &str) -> bool {
        if let Some(junction) = &self.junction {
            return &*schema.tables[junction.table].name == hint;
        }
        let key = &schema.foreign_keys[self.foreign_key];
        &*key.name == hint
            || single(schema, key.table, &key.columns) == Some(hint)
            || single(schema, key.target, &key.target_columns) == Some(hint)
    }
}

fn is_view(table: &Table) -> bool {
    matches!(table.kind, TableKind::View | TableKind::MaterializedView)
}

/// The name of the only column.
fn single<'s>(schema: &'s Schema, table: usize, columns: &[usize]) -> Option<&'s str> {
    match columns {
        [only] => Some(&schema.tables[table].columns[*only].name),
        _ => None,
    }
}

impl Schema {
    /// Every relation from a table that a name (and a hint) means: the target's name, or that of
    /// the reference or of its only column. The target has to be in the same schema as the origin.
    pub fn relations(&self, origin: usize, target: &str, hint: Option<&str>) -> Vec<Relation> {
        let schema = &self.tables[origin].schema;
        let mut found = self.relations_of(origin);
        found.retain(|relation| {
            self.tables[relation.target].schema == *schema && self.is_meant(relation, target, hint)
        });
        found
    }

    /// The rule of PostgREST: a table that references itself is its own children by its name, and
    /// its own parent by the column's.
    fn is_meant(&self, relation: &Relation, target: &str, hint: Option<&str>) -> bool {
        let table = &self.tables[relation.target];
        let by_table = &*table.name == target;
        // A view shares references with its table; it is meant by its own name only.
        let is_view = is_view(table);
        let key = &self.foreign_keys[relation.foreign_key];
        let column = single(self, key.table, &key.columns);
        let is_self = relation.origin == relation.target && relation.junction.is_none();
        match hint {
            None if is_self => match relation.is_own {
                true => column == Some(target),
                false => by_table,
            },
            Some(hint) if is_self => {
                by_table && !relation.is_own && (column == Some(hint) || &*key.name == hint)
            }
            None => {
                by_table
                    || relation.junction.is_none()
                        && !is_view
                        && (&*key.name == target || relation.is_own && column == Some(target))
            }
            Some(hint) => by_table && relation.is_hinted(self, hint),
        }
    }

    /// Every relation from a table.
    pub fn relations_of(&self, origin: usize) -> Vec<Relation> {
        let Some(table) = self.tables.get(origin) else { return Vec::new() };
        let mut found = Vec::new();
        for &at in &table.references {
            let key = &self.foreign_keys[at];
            let cardinality = match table.is_key(&key.columns) {
                true => Cardinality::OneToOne,
                false => Cardinality::ManyToOne,
            };
            found.push(direct(origin, key.target, cardinality, (at, true)));
        }
        for &at in &table.referenced_by {
            let key = &self.foreign_keys[at];
            let cardinality = match self.tables[key.table].is_key(&key.columns) {
                true => Cardinality::OneToOne,
                false => Cardinality::OneToMany,
            };
            found.push(direct(origin, key.table, cardinality, (at, false)));
            self.through(origin, at, &mut found);
        }
        found
    }

    /// Relations over the table that holds a reference: its primary key has to hold both.
    fn through(&self, origin: usize, to_origin: usize, found: &mut Vec<Relation>) {
        let first = &self.foreign_keys[to_origin];
        let table: &Table = &self.tables[first.table];
        // A view over such a table would be a second way between the same rows.
        if is_view(table) {
            return;
        }
        let in_key = |key: &ForeignKey| key.columns.iter().all(|c| table.primary_key.contains(c));
        if !in_key(first) {
            return;
        }
        for &at in &table.references {
            let second = &self.foreign_keys[at];
            // The same columns lead to views of one table.
            if second.columns == first.columns || !in_key(second) {
                continue;
            }
            found.push(Relation {
                origin,
                target: second.target,
                cardinality: Cardinality::ManyToMany,
                foreign_key: at,
                is_own: false,
                junction: Some(Junction { table: first.table, to_origin, to_target: at }),
            });
        }
    }
}

fn direct(
    origin: usize,
    target: usize,
    cardinality: Cardinality,
    (foreign_key, is_own): (usize, bool),
) -> Relation {
    Relation { origin, target, cardinality, foreign_key, is_own, junction: None }
}
