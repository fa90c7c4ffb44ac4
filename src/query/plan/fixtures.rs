//! A small database for tests: people who write, what they write, and what is said about it.

use crate::query::schema::{
    Argument, Builder, Column, Function, Origin, Schema, Table, TableKind, TypeEntry, TypeKind,
    Volatility, oid,
};

const TYPES: &[(&str, u32, u32)] = &[
    ("bool", 16, 1000),
    ("int8", 20, 1016),
    ("int4", 23, 1007),
    ("text", 25, 1009),
    ("json", 114, 199),
    ("timestamptz", 1184, 1185),
    ("tsvector", 3614, 3643),
    ("jsonb", 3802, 3807),
    ("_text", 1009, 0),
    ("_int4", 1007, 0),
    ("int4range", 3904, 3905),
];

/// `name type` for each column; `!` after the type: NOT NULL; `*` after it: of the primary key.
const TABLES: &[(&str, &str)] = &[
    ("authors", "id int4*, name text!, mood mood, tags _text, data jsonb, boss int4"),
    ("posts", "id int4*, author int4!, editor int4, title text!, words tsvector"),
    ("comments", "id int4*, post int4!, body text"),
    ("labels", "id int4*, name text!"),
    ("post_labels", "post int4*, label int4*"),
    ("profiles", "author int4*, bio text"),
    ("orders", "shop int4*, number int4*, note text"),
    ("lines", "id int4*, shop int4, number int4"),
    ("odd \"table\"", "a b int4, se\"lect text, x;-- text, count int4, cursor text"),
];

/// Name, table and columns, target and columns.
type Reference = (&'static str, &'static str, &'static [i16], &'static str, &'static [i16]);

const REFERENCES: &[Reference] = &[
    ("authors_boss_fkey", "authors", &[6], "authors", &[1]),
    ("posts_author_fkey", "posts", &[2], "authors", &[1]),
    ("posts_editor_fkey", "posts", &[3], "authors", &[1]),
    ("comments_post_fkey", "comments", &[2], "posts", &[1]),
    ("post_labels_post_fkey", "post_labels", &[1], "posts", &[1]),
    ("post_labels_label_fkey", "post_labels", &[2], "labels", &[1]),
    ("profiles_author_fkey", "profiles", &[1], "authors", &[1]),
    ("lines_order_fkey", "lines", &[2, 3], "orders", &[1, 2]),
];

/// Schema `api` with these tables.
pub(crate) fn schema() -> Schema {
    let mut builder = Builder::default();
    types(&mut builder);
    for (at, (name, columns)) in TABLES.iter().enumerate() {
        let oid = 100 + at as u32;
        add_table(&mut builder, oid, name);
        let mut key = Vec::new();
        for (at, column) in columns.split(", ").enumerate() {
            let (name, kind) = column.rsplit_once(' ').unwrap();
            let number = at as i16 + 1;
            if kind.ends_with('*') {
                key.push(number);
            }
            let type_name = kind.trim_end_matches(['*', '!']);
            let column = Column {
                name: name.into(),
                number,
                type_oid: type_oid(type_name),
                type_modifier: -1,
                not_null: kind.ends_with(['*', '!']),
                default: (name == "title").then(|| "'untitled'::text".into()),
                origin: if name == "id" { Origin::IdentityByDefault } else { Origin::Plain },
                comment: None,
            };
            builder.column(oid, column);
        }
        if !key.is_empty() {
            builder.key(oid, true, key);
        }
    }
    let number = |name: &str| 100 + TABLES.iter().position(|(n, _)| *n == name).unwrap() as u32;
    for (name, from, columns, to, target) in REFERENCES {
        let from = (number(from), columns.to_vec());
        builder.reference((*name).into(), from, (number(to), target.to_vec()));
    }
    functions(&mut builder, 1000 + 101);
    builder.finish()
}

fn type_oid(name: &str) -> u32 {
    TYPES.iter().find(|(n, ..)| *n == name).map_or(5000, |(_, oid, _)| *oid)
}

fn types(builder: &mut Builder) {
    for (name, oid, array) in TYPES {
        let kind = match *oid {
            1009 => TypeKind::Array(oid::TEXT),
            1007 => TypeKind::Array(oid::INT4),
            _ => TypeKind::Base,
        };
        let (schema, name) = ("pg_catalog".into(), (*name).into());
        builder.type_entry(*oid, TypeEntry { schema, name, kind, array: *array });
    }
    let (schema, name) = ("api".into(), "mood".into());
    let kind = TypeKind::Enum(vec!["calm".into()]);
    builder.type_entry(5000, TypeEntry { schema, name, kind, array: 5001 });
}

fn add_table(builder: &mut Builder, oid: u32, name: &str) {
    builder.table(Table {
        oid,
        row_type: 1000 + oid,
        schema: "api".into(),
        name: name.into(),
        kind: TableKind::Table,
        comment: None,
        partition_of: None,
        columns: Vec::new(),
        primary_key: Vec::new(),
        unique_keys: Vec::new(),
        references: Vec::new(),
        referenced_by: Vec::new(),
    });
}

fn functions(builder: &mut Builder, posts: u32) {
    let argument = |name: &str, type_oid, has_default| Argument {
        name: name.into(),
        type_oid,
        has_default,
        variadic: false,
    };
    let mut add = |oid, name: &str, arguments: Vec<Argument>, returns, returns_set| {
        builder.function(Function {
            oid,
            schema: "api".into(),
            name: name.into(),
            is_procedure: false,
            arguments,
            outputs: Vec::new(),
            returns,
            returns_set,
            volatility: if returns_set { Volatility::Stable } else { Volatility::Volatile },
            guides_response: false,
            settings: Vec::new(),
            comment: None,
        });
    };
    let two = vec![argument("a", oid::INT4, false), argument("b", oid::INT4, true)];
    add(1, "add", two, oid::INT4, false);
    add(2, "find", vec![argument("who", oid::INT4, false)], posts, true);
    add(3, "twice", vec![argument("v", oid::INT4, false)], oid::INT4, false);
    add(4, "twice", vec![argument("v", oid::TEXT, false)], oid::TEXT, false);
    add(5, "whole", vec![argument("", oid::JSON, false)], oid::JSON, false);
    add(6, "shout", vec![argument("", posts, false)], oid::TEXT, false);
}
