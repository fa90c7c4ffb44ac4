//! What there is in a schema, for clients that make types of it: Swagger 2.0, as PostgREST has it
//! (<https://swagger.io/specification/v2/>).

use serde_json::{Map, Value, json};

use crate::query::schema::{Column, Function, Origin, Schema, Table, TableKind, TypeKind, oid};

/// Content type of the description.
pub const CONTENT_TYPE: &str = "application/openapi+json; charset=utf-8";

/// Describes the tables and functions of a schema.
pub fn document(schema: &Schema, name: &str) -> String {
    let comment = schema.schemas.iter().find(|entry| &*entry.name == name);
    let comment = comment.and_then(|entry| entry.comment.as_deref());
    let (mut paths, mut definitions, mut parameters) = (Map::new(), Map::new(), shared());
    paths.insert("/".into(), json!({ "get": operation("Introspection", None, json!([])) }));
    let mut tables: Vec<&Table> = schema.tables.iter().filter(|t| &*t.schema == name).collect();
    tables.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    for table in tables {
        definitions.insert(table.name.to_string(), definition(schema, table));
        paths.insert(format!("/{}", table.name), table_path(table));
        for column in &table.columns {
            let key = format!("rowFilter.{}.{}", table.name, column.name);
            let filter = json!({ "name": &*column.name, "in": "query", "type": "string" });
            parameters.insert(key, filter);
        }
    }
    let mut functions: Vec<&Function> =
        schema.functions.iter().filter(|f| &*f.schema == name && !f.is_procedure).collect();
    functions.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    for function in functions {
        paths.insert(format!("/rpc/{}", function.name), function_path(schema, function));
    }
    json!({
        "swagger": "2.0",
        "info": {
            "title": comment.unwrap_or("RustyDB"),
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Tables and functions of a schema, in PostgREST's dialect.",
        },
        "basePath": super::rest::PREFIX,
        "consumes": ["application/json", "text/csv", "application/vnd.pgrst.object+json"],
        "produces": ["application/json", "text/csv", "application/vnd.pgrst.object+json"],
        "paths": paths,
        "definitions": definitions,
        "parameters": parameters,
    })
    .to_string()
}

/// Parameters that every table has.
fn shared() -> Map<String, Value> {
    let named = |name: &str, place: &str, about: &str| {
        json!({ "name": name, "in": place, "type": "string", "required": false,
            "description": about })
    };
    let all = [
        ("select", "query", "Columns, and related tables."),
        ("order", "query", "Order of the rows."),
        ("limit", "query", "Rows at most."),
        ("offset", "query", "Rows left out at the beginning."),
        ("on_conflict", "query", "Columns that tell whether a row is there."),
        ("Prefer", "header", "return=, count=, resolution=, missing=, handling=, tx=, timezone="),
        ("Range", "header", "Rows of the page."),
    ];
    all.iter().map(|(name, place, about)| ((*name).to_owned(), named(name, place, about))).collect()
}

fn operation(tag: &str, about: Option<&str>, parameters: Value) -> Value {
    json!({
        "tags": [tag],
        "summary": about,
        "parameters": parameters,
        "responses": { "200": { "description": "OK" } },
    })
}

fn table_path(table: &Table) -> Value {
    let reference = |name: &str| json!({ "$ref": format!("#/parameters/{name}") });
    let filter = |column: &Column| reference(&format!("rowFilter.{}.{}", table.name, column.name));
    let filters: Vec<Value> = table.columns.iter().map(filter).collect();
    let with = |names: &[&str], body: bool| {
        let mut list: Vec<Value> = names.iter().map(|name| reference(name)).collect();
        if body {
            let schema = json!({ "$ref": format!("#/definitions/{}", table.name) });
            list.push(json!({ "name": "body", "in": "body", "schema": schema }));
        }
        list
    };
    let about = table.comment.as_deref();
    let on_rows = |names: &[&str], body: bool| [filters.clone(), with(names, body)].concat();
    let path = |parameters: Vec<Value>| operation(&table.name, about, parameters.into());
    let read = path(on_rows(&["select", "order", "limit", "offset", "Range", "Prefer"], false));
    match table.kind {
        TableKind::MaterializedView => json!({ "get": read }),
        _ => json!({
            "get": read,
            "post": path(with(&["select", "on_conflict", "Prefer"], true)),
            "patch": path(on_rows(&["select", "Prefer"], true)),
            "delete": path(on_rows(&["select", "Prefer"], false)),
        }),
    }
}

fn function_path(schema: &Schema, function: &Function) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for argument in function.arguments.iter().filter(|a| !a.name.is_empty()) {
        properties.insert(argument.name.to_string(), type_of(schema, argument.type_oid));
        if !argument.has_default && !argument.variadic {
            required.push(argument.name.to_string());
        }
    }
    let mut arguments = json!({ "type": "object", "properties": properties });
    if !required.is_empty() {
        arguments["required"] = required.into();
    }
    let body = json!([{ "name": "args", "in": "body", "required": true, "schema": arguments }]);
    let tag = format!("(rpc) {}", function.name);
    json!({ "post": operation(&tag, function.comment.as_deref(), body) })
}

fn definition(schema: &Schema, table: &Table) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (at, column) in table.columns.iter().enumerate() {
        let mut described = type_of(schema, column.type_oid);
        if let Some(about) = about(schema, table, at, column) {
            described["description"] = about.into();
        }
        if let (Some(default), Origin::Plain) = (&column.default, column.origin) {
            described["default"] = (&**default).into();
        }
        if column.not_null {
            required.push(Value::from(&*column.name));
        }
        properties.insert(column.name.to_string(), described);
    }
    let mut definition = json!({ "type": "object", "properties": properties });
    if let Some(comment) = &table.comment {
        definition["description"] = (&**comment).into();
    }
    if !required.is_empty() {
        definition["required"] = required.into();
    }
    definition
}

/// The comment, and which key the column belongs to in the words that makers of types look for.
fn about(schema: &Schema, table: &Table, at: usize, column: &Column) -> Option<String> {
    let mut lines: Vec<String> = column.comment.iter().map(|text| text.to_string()).collect();
    if table.primary_key.contains(&at) {
        lines.push("Note:\nThis is a Primary Key.<pk/>".into());
    }
    let references = table.references.iter().filter_map(|key| schema.foreign_keys.get(*key));
    for key in references.filter(|key| key.columns == [at]) {
        let target = &schema.tables[key.target];
        if let Some(to) = key.target_columns.first().and_then(|to| target.columns.get(*to)) {
            let (table, column) = (&target.name, &to.name);
            lines.push(format!(
                "Note:\nThis is a Foreign Key to `{table}.{column}`.\
                 <fk table='{table}' column='{column}'/>"
            ));
        }
    }
    (!lines.is_empty()).then(|| lines.join("\n\n"))
}

fn type_of(schema: &Schema, type_oid: u32) -> Value {
    let base = schema.base_type(type_oid);
    let Some(entry) = schema.type_entry(base) else { return json!({ "type": "object" }) };
    let format = &*entry.name;
    match &entry.kind {
        TypeKind::Enum(labels) => {
            let labels: Vec<&str> = labels.iter().map(|label| &**label).collect();
            json!({ "type": "string", "format": format, "enum": labels })
        }
        TypeKind::Array(element) => {
            json!({ "type": "array", "format": format, "items": type_of(schema, *element) })
        }
        TypeKind::Composite(_) => json!({ "type": "object", "format": format }),
        _ => match (base, format) {
            (oid::BOOL, _) => json!({ "type": "boolean", "format": format }),
            (_, "int2" | "int4" | "int8") => json!({ "type": "integer", "format": format }),
            (_, "float4" | "float8" | "numeric") => json!({ "type": "number", "format": format }),
            (oid::JSON | oid::JSONB, _) => json!({ "format": format }),
            _ => json!({ "type": "string", "format": format }),
        },
    }
}
