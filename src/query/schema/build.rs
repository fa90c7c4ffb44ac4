//! A snapshot in the making: parts come in any order and are put together at the end.

use std::collections::HashMap;

use super::{Column, ForeignKey, Function, Name, Namespace, Schema, Table, TypeEntry, TypeKind};

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
}

#[derive(Debug)]
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

    /// Adds a function.
    pub fn function(&mut self, function: Function) {
        self.schema.functions.push(function);
    }

    /// Adds a type.
    pub fn type_entry(&mut self, oid: u32, entry: TypeEntry) {
        self.schema.types.insert(oid, entry);
    }

    /// Adds a label to the enum of this number, at a place among its labels.
    pub fn label(&mut self, type_oid: u32, place: f32, label: Name) {
        self.labels.push((type_oid, place, label));
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
        for (oid, is_primary, numbers) in self.keys {
            let Some(table) = by_oid.get(&oid).map(|at| &mut schema.tables[*at]) else { continue };
            let Some(columns) = places(table, &numbers) else { continue };
            if is_primary {
                table.primary_key = columns;
            } else {
                table.unique_keys.push(columns);
            }
        }
        self.references.sort_by(|a, b| (&a.name, a.table).cmp(&(&b.name, b.table)));
        for reference in self.references {
            add_reference(schema, &by_oid, reference);
        }
        self.labels.sort_by(|a, b| (a.0, a.1).partial_cmp(&(b.0, b.1)).unwrap_or(a.0.cmp(&b.0)));
        for (oid, _, label) in self.labels {
            if let Some(TypeKind::Enum(labels)) = schema.types.get_mut(&oid).map(|t| &mut t.kind) {
                labels.push(label);
            }
        }
        index(schema);
        self.schema
    }
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
