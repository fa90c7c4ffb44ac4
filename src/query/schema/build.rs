//! A snapshot in the making: parts come in any order and are put together at the end.

use std::collections::HashMap;

use super::{
    Column, ForeignKey, Function, Name, Namespace, RoleSetting, Schema, Table, TypeEntry, TypeKind,
};

/// References that views add; of more, the rest is left out.
const MAX_DERIVED: usize = 100_000;

/// Views over views that are followed.
const MAX_VIEW_DEPTH: usize = 16;

/// A column: number of its table, and its own.
type Place = (u32, i16);

/// Columns of a constraint, by their numbers in `pg_attribute`.
type Numbers = Vec<i16>;

/// Collects the parts of a [`Schema`].
#[derive(Debug, Default)]
pub struct Builder {
    schema: Schema,
    names: HashMap<Box<str>, Name>,
    columns: Vec<(u32, Column)>,
    keys: Vec<(u32, bool, Numbers)>,
    references: Vec<Reference>,
    labels: Vec<(u32, f32, Name)>,
    view_columns: HashMap<Place, Place>,
    view_bases: HashMap<u32, u32>,
    fields: Vec<(u32, i16, (Name, u32))>,
    role_settings: Vec<(Name, bool, RoleSetting)>,
}

#[derive(Clone, Debug)]
struct Reference {
    name: Name,
    table: u32,
    columns: Numbers,
    target: u32,
    target_columns: Numbers,
}

impl Builder {
    /// A name; the same text is kept once.
    pub fn name(&mut self, text: &str) -> Name {
        if let Some(known) = self.names.get(text) {
            return known.clone();
        }
        let name = Name::from(text);
        self.names.insert(text.into(), name.clone());
        name
    }

    /// Adds to the fingerprint; the order of the parts does not matter.
    pub fn note(&mut self, hash: u64) {
        self.schema.fingerprint = self.schema.fingerprint.wrapping_add(hash);
    }

    /// Adds a schema.
    pub fn namespace(&mut self, namespace: Namespace) {
        self.schema.schemas.push(namespace);
    }

    /// Adds a table, still without columns, keys and references.
    pub fn table(&mut self, table: Table) {
        self.schema.tables.push(table);
    }

    /// Adds a column to the table of this number.
    pub fn column(&mut self, table: u32, column: Column) {
        self.columns.push((table, column));
    }

    /// Adds a key to the table of this number.
    pub fn key(&mut self, table: u32, is_primary: bool, columns: Vec<i16>) {
        self.keys.push((table, is_primary, columns));
    }

    /// Adds a reference between the tables of these numbers.
    pub fn reference(&mut self, name: Name, from: (u32, Vec<i16>), to: (u32, Vec<i16>)) {
        let ((table, columns), (target, target_columns)) = (from, to);
        self.references.push(Reference { name, table, columns, target, target_columns });
    }

    /// Says which column of another table a view's column shows. References of that table, and to
    /// it, are the view's too when it shows all their columns.
    pub fn view_column(&mut self, column: (u32, i16), shows: (u32, i16)) {
        self.view_columns.insert(column, shows);
    }

    /// Says that a view shows rows of this table or view alone, each at most once: the primary key
    /// is the view's too when it shows all its columns.
    pub fn view_base(&mut self, view: u32, shows: u32) {
        self.view_bases.insert(view, shows);
    }

    /// Adds a function.
    pub fn function(&mut self, function: Function) {
        self.schema.functions.push(function);
    }

    /// Adds a setting of a role; one for this database takes the place of one for all.
    pub fn role_setting(&mut self, role: Name, of_database: bool, setting: RoleSetting) {
        self.role_settings.push((role, of_database, setting));
    }

    /// Adds a type.
    pub fn type_entry(&mut self, oid: u32, entry: TypeEntry) {
        self.schema.types.insert(oid, entry);
    }

    /// Adds a label to the enum of this number, at a place among its labels.
    pub fn label(&mut self, type_oid: u32, place: f32, label: Name) {
        self.labels.push((type_oid, place, label));
    }

    /// Adds a field, by its number, to the composite type of this number.
    pub fn field(&mut self, composite: u32, number: i16, name: Name, type_oid: u32) {
        self.fields.push((composite, number, (name, type_oid)));
    }

    /// Puts everything together. What belongs to something that is not there is left out.
    pub fn finish(mut self) -> Schema {
        let schema = &mut self.schema;
        schema.schemas.sort_by(|a, b| a.name.cmp(&b.name));
        schema.tables.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
        let place = |(at, table): (usize, &Table)| (table.oid, at);
        let by_oid: HashMap<u32, usize> = schema.tables.iter().enumerate().map(place).collect();
        self.columns.sort_by_key(|(table, column)| (*table, column.number));
        for (oid, column) in self.columns {
            if let Some(at) = by_oid.get(&oid) {
                schema.tables[*at].columns.push(column);
            }
        }
        derive_keys(&self.view_bases, &self.view_columns, &mut self.keys);
        for (oid, is_primary, numbers) in self.keys {
            let Some(table) = by_oid.get(&oid).map(|at| &mut schema.tables[*at]) else { continue };
            let Some(columns) = places(table, &numbers) else { continue };
            if is_primary {
                table.primary_key = columns;
            } else {
                table.unique_keys.push(columns);
            }
        }
        derive(&self.view_columns, &mut self.references);
        self.references
            .sort_by(|a, b| (&a.name, a.table, a.target).cmp(&(&b.name, b.table, b.target)));
        for reference in self.references {
            add_reference(schema, &by_oid, reference);
        }
        self.labels.sort_by(|a, b| (a.0, a.1).partial_cmp(&(b.0, b.1)).unwrap_or(a.0.cmp(&b.0)));
        for (oid, _, label) in self.labels {
            if let Some(TypeKind::Enum(labels)) = schema.types.get_mut(&oid).map(|t| &mut t.kind) {
                labels.push(label);
            }
        }
        self.fields.sort_by_key(|(composite, number, _)| (*composite, *number));
        for (oid, _, field) in self.fields {
            let kind = schema.types.get_mut(&oid).map(|t| &mut t.kind);
            if let Some(TypeKind::Composite(fields)) = kind {
                fields.push(field);
            }
        }
        self.role_settings.sort_by(|(_, all, a), (_, own, b)| (&a.name, own).cmp(&(&b.name, all)));
        for (role, _, setting) in self.role_settings {
            let settings = schema.role_settings.entry(role).or_default();
            if settings.last().is_none_or(|last: &RoleSetting| last.name != setting.name) {
                settings.push(setting);
            }
        }
        index(schema);
        self.schema
    }
}

/// Adds the primary keys that views have because of the tables they show.
fn derive_keys(
    bases: &HashMap<u32, u32>,
    view_columns: &HashMap<Place, Place>,
    keys: &mut Vec<(u32, bool, Numbers)>,
) {
    let mut shown: HashMap<(u32, Place), i16> = HashMap::new();
    for ((view, number), shows) in view_columns {
        // The first of several columns that show the same.
        let first = shown.entry((*view, *shows)).or_insert(*number);
        *first = (*first).min(*number);
    }
    let primary = keys.iter().filter(|(_, is_primary, _)| *is_primary);
    let mut known: HashMap<u32, Numbers> =
        primary.map(|(table, _, columns)| (*table, columns.clone())).collect();
    // A view over a view has its key a round after that one.
    for _ in 0..MAX_VIEW_DEPTH {
        let own = |view: u32, base: u32| -> Option<(u32, Numbers)> {
            let key = known.get(&base).filter(|_| !known.contains_key(&view))?;
            let own = |column: &i16| shown.get(&(view, (base, *column))).copied();
            Some((view, key.iter().map(own).collect::<Option<_>>()?))
        };
        let found: Vec<_> = bases.iter().filter_map(|(view, base)| own(*view, *base)).collect();
        if found.is_empty() {
            break;
        }
        keys.extend(found.iter().map(|(view, columns)| (*view, true, columns.clone())));
        known.extend(found);
    }
}

/// A view and, for each column of a table that it shows, its own.
type Shown = (u32, HashMap<i16, i16>);

/// Adds the references that views have because of the tables they show.
fn derive(view_columns: &HashMap<Place, Place>, references: &mut Vec<Reference>) {
    let mut views: HashMap<(u32, u32), HashMap<i16, i16>> = HashMap::new();
    let mut columns: Vec<_> = view_columns.iter().collect();
    columns.sort_unstable();
    for ((view, number), shows) in columns {
        let mut base = *shows;
        for _ in 0..MAX_VIEW_DEPTH {
            match view_columns.get(&base) {
                Some(next) => base = *next,
                None => break,
            }
        }
        // The first of several columns that show the same.
        views.entry((base.0, *view)).or_default().entry(base.1).or_insert(*number);
    }
    let mut of_table: HashMap<u32, Vec<Shown>> = HashMap::new();
    for ((table, view), columns) in views {
        of_table.entry(table).or_default().push((view, columns));
    }
    let variants = |table: u32, columns: &Numbers| {
        let mut found = vec![(table, columns.clone())];
        for (view, shown) in of_table.get(&table).into_iter().flatten() {
            let mapped: Option<Numbers> = columns.iter().map(|c| shown.get(c).copied()).collect();
            found.extend(mapped.map(|mapped| (*view, mapped)));
        }
        found
    };
    let mut derived = Vec::new();
    for reference in references.iter() {
        let from = variants(reference.table, &reference.columns);
        let to = variants(reference.target, &reference.target_columns);
        for (table, columns) in &from {
            for (target, target_columns) in &to {
                let is_own = (*table, *target) == (reference.table, reference.target);
                if is_own || derived.len() >= MAX_DERIVED {
                    continue;
                }
                derived.push(Reference {
                    name: reference.name.clone(),
                    table: *table,
                    columns: columns.clone(),
                    target: *target,
                    target_columns: target_columns.clone(),
                });
            }
        }
    }
    references.append(&mut derived);
}

fn places(table: &Table, numbers: &[i16]) -> Option<Vec<usize>> {
    let place = |number: &i16| table.columns.iter().position(|c| c.number == *number);
    numbers.iter().map(place).collect()
}

fn add_reference(schema: &mut Schema, by_oid: &HashMap<u32, usize>, reference: Reference) {
    let (table, target) = (by_oid.get(&reference.table), by_oid.get(&reference.target));
    let (Some(&table), Some(&target)) = (table, target) else { return };
    let columns = places(&schema.tables[table], &reference.columns);
    let target_columns = places(&schema.tables[target], &reference.target_columns);
    let (Some(columns), Some(target_columns)) = (columns, target_columns) else { return };
    if columns.len() != target_columns.len() || columns.is_empty() {
        return;
    }
    let at = schema.foreign_keys.len();
    let name = reference.name;
    schema.foreign_keys.push(ForeignKey { name, table, columns, target, target_columns });
    schema.tables[table].references.push(at);
    schema.tables[target].referenced_by.push(at);
}

fn index(schema: &mut Schema) {
    for (at, table) in schema.tables.iter().enumerate() {
        let names = schema.table_names.entry(table.schema.clone()).or_default();
        names.insert(table.name.clone(), at);
        schema.row_types.insert(table.row_type, at);
    }
    schema.functions.sort_by_key(|function| function.oid);
    for (at, function) in schema.functions.iter().enumerate() {
        let names = schema.function_names.entry(function.schema.clone()).or_default();
        names.entry(function.name.clone()).or_default().push(at);
    }
    for (oid, entry) in &schema.types {
        let names = schema.type_names.entry(entry.schema.clone()).or_default();
        names.insert(entry.name.clone(), *oid);
    }
}
