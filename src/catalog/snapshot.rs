//! The definitions of a database, read in one query and kept until they change. The old snapshot
//! serves while a new one is read.
//!
//! Who needs one asks [`Snapshots::of`] for the database, reads when [`DatabaseSnapshot::look`]
//! says so, and gives the answer to [`Look::learn`].

use std::collections::HashMap;
use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::{Row, number, text};
use crate::limits::recent::is_younger;
use crate::query::schema::{
    Argument, Builder, Column, Function, Namespace, Origin, RoleSetting, Schema, Table, TableKind,
    TypeEntry, TypeKind, Volatility,
};
use crate::types::Database;

/// Rows of the catalog that are read; a larger database has no snapshot.
pub const MAX_SNAPSHOT_ROWS: usize = 500_000;

/// Databases remembered; when full, all are forgotten.
const MAX_DATABASES: usize = 64;

/// How long a snapshot is believed in: somebody may define things behind our back.
const FRESH_FOR: Duration = Duration::from_secs(60);

/// Shortest time between two looks.
const PAUSE: Duration = Duration::from_millis(250);

/// The memory, shared by all sessions.
#[derive(Default)]
pub struct Snapshots {
    databases: Mutex<HashMap<Database, Arc<DatabaseSnapshot>, RandomState>>,
}

/// What is known of one database.
#[derive(Debug, Default)]
pub struct DatabaseSnapshot {
    state: Mutex<State>,
    is_loading: AtomicBool,
    /// Wakes when a look is over.
    looked: Notify,
}

#[derive(Debug, Default)]
struct State {
    schema: Option<Arc<Schema>>,
    version: u64,
    looked: Option<Instant>,
    /// How often something had been defined when the last look began.
    definitions: u64,
    is_stale: bool,
}

/// The right and duty to read a database's definitions; nobody else does meanwhile.
#[derive(Debug)]
pub struct Look {
    database: Arc<DatabaseSnapshot>,
    definitions: u64,
}

impl Snapshots {
    /// What is known of a database.
    pub fn of(&self, database: &Database) -> Arc<DatabaseSnapshot> {
        let mut databases = self.databases.lock();
        if let Some(known) = databases.get(database) {
            return known.clone();
        }
        if databases.len() >= MAX_DATABASES {
            databases.clear();
        }
        databases.entry(database.clone()).or_default().clone()
    }
}

/// The query whose answer [`Look::learn`] takes; it needs no parameters. PostgreSQL leaves out the
/// schema of what its `search_path` finds when it prints defaults, so that should be `pg_catalog`
/// while it runs. `major` is the server's version.
pub fn snapshot_query(major: u32) -> String {
    // GRANT SET ON PARAMETER came with 15.
    let may_set = match major {
        15.. => "pg_catalog.has_parameter_privilege(l.oid, x.name, 'SET')",
        _ => "false",
    };
    include_str!("../../sql/snapshot.sql").replace("may_set(l.oid, x.name)", may_set)
}

impl DatabaseSnapshot {
    /// The snapshot, if there is one, and its version: a number that moves when a look has found
    /// something different.
    pub fn current(&self) -> Option<(u64, Arc<Schema>)> {
        let state = self.state.lock();
        state.schema.clone().map(|schema| (state.version, schema))
    }

    /// Whether the caller should read the definitions now. `definitions` is how often something was
    /// defined through RustyDB ([`super::DatabaseNames::definitions`]).
    pub fn look(self: &Arc<Self>, definitions: u64) -> Option<Look> {
        let due = {
            let state = self.state.lock();
            match state.looked {
                None => true,
                Some(at) if state.is_stale || state.definitions != definitions => {
                    at.elapsed() > PAUSE
                }
                Some(at) => !is_younger(at, FRESH_FOR),
            }
        };
        let taken = due && !self.is_loading.swap(true, Ordering::AcqRel);
        taken.then(|| Look { database: self.clone(), definitions })
    }

    /// Whether something was defined after the last look began.
    pub fn is_behind(&self, definitions: u64) -> bool {
        let state = self.state.lock();
        state.schema.is_none() || state.is_stale || state.definitions < definitions
    }

    /// The end of the look that is under way, or of the next one.
    pub fn looked(&self) -> Notified<'_> {
        self.looked.notified()
    }

    /// Somebody says that the definitions have changed: the next look is due.
    pub fn reload(&self) {
        self.state.lock().is_stale = true;
    }
}

impl Look {
    /// Learns from the answer to [`snapshot_query`]. Without one the old snapshot stays, and the
    /// next look comes after the usual pause.
    pub fn learn(self, rows: Option<&[Row]>) {
        let schema = rows.filter(|rows| rows.len() <= MAX_SNAPSHOT_ROWS).map(read);
        let mut state = self.database.state.lock();
        state.looked = Some(Instant::now());
        let Some(schema) = schema else { return };
        state.definitions = self.definitions;
        state.is_stale = false;
        let same = state.schema.as_ref().is_some_and(|s| s.fingerprint == schema.fingerprint);
        if !same {
            state.version += 1;
            state.schema = Some(Arc::new(schema));
        }
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        self.database.is_loading.store(false, Ordering::Release);
        self.database.looked.notify_waiters();
    }
}

/// Makes a snapshot of the query's answer; rows that are not understood are left out.
pub fn read(rows: &[Row]) -> Schema {
    let mut builder = Builder::default();
    for row in rows {
        builder.note(fingerprint(row));
        // A row that lacks something says nothing.
        let _ = match text(row, 0) {
            Some("schema") => namespace(&mut builder, row),
            Some("table") => table(&mut builder, row),
            Some("column") => column(&mut builder, row),
            Some("key") => key(&mut builder, row),
            Some("reference") => reference(&mut builder, row),
            Some("view") => view(&mut builder, row),
            Some("function") => function(&mut builder, row),
            Some("type") => type_entry(&mut builder, row),
            Some("label") => label(&mut builder, row),
            Some("field") => field(&mut builder, row),
            Some("setting") => role_setting(&mut builder, row),
            _ => None,
        };
    }
    builder.finish()
}

/// FNV-1a: the same in every process and version of the server.
fn fingerprint(row: &Row) -> u64 {
    struct Fnv(u64);
    impl Hasher for Fnv {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    for cell in row {
        hash.write(cell.as_deref().unwrap_or("\u{1}").as_bytes());
        hash.write(&[0]);
    }
    hash.finish()
}

fn comment(builder: &mut Builder, row: &Row, at: usize) -> Option<Arc<str>> {
    text(row, at).map(|comment| builder.name(comment))
}

fn namespace(builder: &mut Builder, row: &Row) -> Option<()> {
    let name = builder.name(text(row, 1)?);
    let comment = comment(builder, row, 2);
    builder.namespace(Namespace { name, comment });
    Some(())
}

fn table(builder: &mut Builder, row: &Row) -> Option<()> {
    let kind = match text(row, 4)? {
        "r" => TableKind::Table,
        "p" => TableKind::Partitioned,
        "v" => TableKind::View,
        "m" => TableKind::MaterializedView,
        _ => TableKind::Foreign,
    };
    let table = Table {
        oid: number(row, 1)?,
        row_type: number(row, 5)?,
        schema: builder.name(text(row, 2)?),
        name: builder.name(text(row, 3)?),
        kind,
        comment: comment(builder, row, 7),
        partition_of: number(row, 6),
        columns: Vec::new(),
        primary_key: Vec::new(),
        unique_keys: Vec::new(),
        references: Vec::new(),
        referenced_by: Vec::new(),
    };
    builder.table(table);
    Some(())
}

fn column(builder: &mut Builder, row: &Row) -> Option<()> {
    let flags = text(row, 6)?;
    let origin = match flags {
        _ if flags.contains('a') => Origin::IdentityAlways,
        _ if flags.contains('d') => Origin::IdentityByDefault,
        _ if flags.contains('s') || flags.contains('v') => Origin::Generated,
        _ => Origin::Plain,
    };
    let column = Column {
        name: builder.name(text(row, 3)?),
        number: number(row, 2)?,
        type_oid: number(row, 4)?,
        type_modifier: number(row, 5)?,
        not_null: flags.contains('n'),
        default: comment(builder, row, 7),
        origin,
        comment: comment(builder, row, 8),
    };
    builder.column(number(row, 1)?, column);
    Some(())
}

fn key(builder: &mut Builder, row: &Row) -> Option<()> {
    builder.key(number(row, 1)?, text(row, 2)? == "p", numbers(text(row, 3)?));
    Some(())
}

fn reference(builder: &mut Builder, row: &Row) -> Option<()> {
    let name = builder.name(text(row, 1)?);
    let from = (number(row, 2)?, numbers(text(row, 3)?));
    let to = (number(row, 4)?, numbers(text(row, 5)?));
    builder.reference(name, from, to);
    Some(())
}

fn view(builder: &mut Builder, row: &Row) -> Option<()> {
    let view = number(row, 1)?;
    for (column, table, table_column) in view_columns(text(row, 2)?) {
        builder.view_column((view, column), (table, table_column));
    }
    if let Some(table) = view_base(text(row, 2)?) {
        builder.view_base(view, table);
    }
    Some(())
}

/// The parts of the outermost query in the tree of a rule: each from its label on, and what of it
/// follows the parts within. `\` stands before what is meant literally
/// (`src/backend/nodes/outfuncs.c`).
fn parts(tree: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let (mut depth, mut begin, mut start) = (0_usize, 0, 0);
    let mut bytes = tree.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'{' => {
                depth += 1;
                if depth == 2 {
                    (begin, start) = (at, at);
                }
            }
            b'}' => {
                if depth == 2 {
                    found.push((&tree[begin..at], &tree[start..at]));
                }
                depth = depth.saturating_sub(1);
                start = at + 1;
            }
            _ => {}
        }
    }
    found
}

/// Columns of a view, each with the table and column it shows.
fn view_columns(tree: &str) -> Vec<(i16, u32, i16)> {
    let parts = parts(tree).into_iter();
    let targets = parts.filter(|(part, _)| part.starts_with("{TARGETENTRY"));
    targets.filter_map(|(_, fields)| target_entry(fields)).collect()
}

/// The table of a view that reads nothing else and has each of its rows at most once.
fn view_base(tree: &str) -> Option<u32> {
    // What makes several rows of one.
    if tree.contains(":hasTargetSRFs true") || tree.contains("{GROUPINGSET") {
        return None;
    }
    let parts = parts(tree);
    let from = |part: &str| -> Option<usize> {
        let only = part.strip_prefix("{FROMEXPR :fromlist ({RANGETBLREF :rtindex ")?;
        only.split_once("}) ")?.0.parse().ok()
    };
    let place = parts.iter().find_map(|(part, _)| from(part))?;
    // The second is its name since PostgreSQL 16.
    let is_source = |part: &str| part.starts_with("{RTE ") || part.starts_with("{RANGETBLENTRY ");
    let (_, fields) =
        parts.iter().filter(|(part, _)| is_source(part)).nth(place.checked_sub(1)?)?;
    let (_, table) = fields.split_once(":rtekind 0 :relid ")?;
    table.split(' ').next()?.parse().ok()
}

fn target_entry(fields: &str) -> Option<(i16, u32, i16)> {
    let mut words = fields.split_ascii_whitespace();
    let (mut number, mut table, mut column) = (None, None, None);
    while let Some(word) = words.next() {
        match word {
            ":resno" => number = words.next()?.parse().ok(),
            ":resorigtbl" => table = words.next()?.parse().ok().filter(|oid| *oid != 0),
            ":resorigcol" => column = words.next()?.parse().ok(),
            _ => {}
        }
    }
    Some((number?, table?, column?))
}

/// Numbers of an array (`{1,2}`) or a vector (`1 2`).
fn numbers<T: std::str::FromStr>(text: &str) -> Vec<T> {
    let separate = |c: char| !c.is_ascii_digit() && c != '-';
    text.split(separate).filter_map(|word| word.parse().ok()).collect()
}

fn function(builder: &mut Builder, row: &Row) -> Option<()> {
    let mut flags = text(row, 4)?.chars();
    let (kind, volatility) = (flags.next()?, flags.next()?);
    let (returns_set, is_variadic) = (flags.next()? == 's', flags.next()? == 'v');
    let guides_response = flags.next()? == 'r';
    let result: Vec<u32> = numbers(text(row, 5)?);
    let [returns, defaults] = result[..] else { return None };
    let types: Vec<u32> = numbers(text(row, 6)?);
    type Described = (Option<Vec<Option<String>>>, Option<Vec<String>>, Vec<String>);
    let (names, modes, settings): Described = serde_json::from_str(text(row, 7)?).ok()?;
    let (mut arguments, mut outputs) = (Vec::new(), Vec::new());
    for (at, type_oid) in types.into_iter().enumerate() {
        let given = names.as_ref().and_then(|names| names.get(at)?.as_deref());
        let name = builder.name(given.unwrap_or(""));
        let mode = modes.as_ref().and_then(|modes| modes.get(at)).map_or("i", String::as_str);
        if matches!(mode, "i" | "b" | "v") {
            let (name, variadic) = (name.clone(), is_variadic && mode == "v");
            arguments.push(Argument { name, type_oid, has_default: false, variadic });
        }
        if matches!(mode, "o" | "b" | "t") {
            outputs.push((name, type_oid));
        }
    }
    // Defaults belong to the last arguments.
    for argument in arguments.iter_mut().rev().take(defaults as usize) {
        argument.has_default = true;
    }
    let pair =
        |entry: &String| entry.split_once('=').map(|(name, value)| (name.into(), value.into()));
    let function = Function {
        oid: number(row, 1)?,
        schema: builder.name(text(row, 2)?),
        name: builder.name(text(row, 3)?),
        is_procedure: kind == 'p',
        arguments,
        outputs,
        returns,
        returns_set,
        volatility: match volatility {
            'i' => Volatility::Immutable,
            's' => Volatility::Stable,
            _ => Volatility::Volatile,
        },
        guides_response,
        settings: settings.iter().filter_map(pair).collect(),
        comment: comment(builder, row, 8),
    };
    builder.function(function);
    Some(())
}

fn type_entry(builder: &mut Builder, row: &Row) -> Option<()> {
    let other = number(row, 5).unwrap_or(0);
    let kind = match text(row, 4)? {
        "a" => TypeKind::Array(other),
        "d" => TypeKind::Domain(other),
        "e" => TypeKind::Enum(Vec::new()),
        "r" | "m" => TypeKind::Range,
        "c" => TypeKind::Composite(Vec::new()),
        "p" => TypeKind::Pseudo,
        _ => TypeKind::Base,
    };
    let (schema, name) = (builder.name(text(row, 2)?), builder.name(text(row, 3)?));
    let array = number(row, 6).unwrap_or(0);
    builder.type_entry(number(row, 1)?, TypeEntry { schema, name, kind, array });
    Some(())
}

fn role_setting(builder: &mut Builder, row: &Row) -> Option<()> {
    let setters: Option<Vec<String>> = match text(row, 5) {
        Some(list) => Some(serde_json::from_str(list).ok()?),
        None => None,
    };
    let setters = setters.map(|list| list.iter().map(|name| builder.name(name)).collect());
    let (name, value) = (builder.name(text(row, 2)?), builder.name(text(row, 3)?));
    let setting = RoleSetting { name, value, setters };
    let role = builder.name(text(row, 1)?);
    builder.role_setting(role, text(row, 4)? == "t", setting);
    Some(())
}

fn label(builder: &mut Builder, row: &Row) -> Option<()> {
    let label = builder.name(text(row, 3)?);
    builder.label(number(row, 1)?, number(row, 2)?, label);
    Some(())
}

fn field(builder: &mut Builder, row: &Row) -> Option<()> {
    let name = builder.name(text(row, 3)?);
    builder.field(number(row, 1)?, number(row, 2)?, name, number(row, 4)?);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(lines: &str) -> Vec<Row> {
        let cell = |cell: &str| (cell != "-").then(|| cell.to_owned());
        let row = |line: &str| line.split('|').map(|c| cell(c.trim())).collect();
        lines.lines().map(str::trim).filter(|line| !line.is_empty()).map(row).collect()
    }

    const DATABASE: &str = r#"
        column|11|2|author|23|-1|n|-|-|-
        column|11|1|id|23|-1|na|-|the number|-
        schema|public|-
        table|10|public|authors|r|110|-|people|-
        table|11|public|posts|r|111|-|-|-
        column|10|1|id|23|-1|nd|-|-
        column|10|2|mood|500|-1||'calm'::mood|-
        key|10|p|{1}
        key|11|p|{1}
        reference|posts_author_fkey|11|{2}|10|{1}
        reference|lost|11|{9}|10|{1}
        label|500|2|wild
        label|500|1|calm
        type|500|public|mood|e|0|501
        type|25|pg_catalog|text|b|0|1009
        field|600|2|y|23
        field|600|1|x|25
        type|600|public|pair|c|0|601
        function|900|public|greet|fs-v-|25 1|25 1009|[["who","rest"],["i","v"],[]]|-
        function|901|public|pairs|fvs-r|2249 0|{23,25,25}|[["n","a","b"],["i","t","t"],["x=2s"]]|-
        setting|anon|work_mem|8MB|t|-
        setting|anon|work_mem|4MB|f|-
        setting|anon|log_statement|all|f|["boss"]
    "#;

    #[test]
    fn parts_come_in_any_order() {
        let mut all = rows(DATABASE);
        let schema = read(&all);
        let posts = schema.table("public", "posts").unwrap();
        let names: Vec<&str> = posts.columns.iter().map(|c| &*c.name).collect();
        assert_eq!(names, ["id", "author"]);
        assert_eq!(posts.columns[0].origin, Origin::IdentityAlways);
        assert_eq!((posts.references.len(), &posts.primary_key[..]), (1, &[0][..]));
        let authors = schema.table("public", "authors").unwrap();
        assert_eq!(authors.comment.as_deref(), Some("people"));
        let mood = schema.type_entry(authors.column("mood").unwrap().type_oid).unwrap();
        assert_eq!(mood.kind, TypeKind::Enum(vec!["calm".into(), "wild".into()]));
        assert_eq!(schema.array_of(500), 501);
        let pair = &schema.type_entry(600).unwrap().kind;
        assert_eq!(*pair, TypeKind::Composite(vec![("x".into(), 25), ("y".into(), 23)]));
        let greet = schema.functions("public", "greet").next().unwrap();
        let last = greet.arguments.last().unwrap();
        assert!(last.variadic && last.has_default && !greet.arguments[0].has_default);
        let pairs = schema.functions("public", "pairs").next().unwrap();
        assert_eq!((pairs.arguments.len(), pairs.outputs.len()), (1, 2));
        assert!(pairs.guides_response && !greet.guides_response);
        assert_eq!(pairs.settings, [("x".into(), "2s".into())]);
        all.reverse();
        assert_eq!(read(&all).fingerprint, schema.fingerprint);
        all.pop();
        assert_ne!(read(&all).fingerprint, schema.fingerprint);
    }

    #[test]
    fn settings_of_roles() {
        let schema = read(&rows(DATABASE));
        let of = |role: &str, login: &str| {
            let settings = schema.settings_of_role(role, login);
            settings.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
        };
        // What is said for this database comes last, and counts.
        assert_eq!(of("anon", "joe"), ["work_mem=8MB"]);
        assert_eq!(of("anon", "boss"), ["log_statement=all", "work_mem=8MB"]);
        assert!(of("joe", "joe").is_empty());
    }

    #[test]
    fn columns_of_views_are_read_from_their_rules() {
        let tree = r"({QUERY :rtable ({RTE :subquery {QUERY :targetList ({TARGETENTRY :expr {VAR}
            :resno 1 :resname x :ressortgroupref 0 :resorigtbl 9 :resorigcol 9 :resjunk false})}})
            :targetList ({TARGETENTRY :expr {VAR :location 7} :resno 1 :resname a\}\ b
            :ressortgroupref 0 :resorigtbl 10 :resorigcol 2 :resjunk false} {TARGETENTRY :expr
            {OPEXPR :args ({VAR} {CONST})} :resno 2 :resname y :ressortgroupref 0 :resorigtbl 0
            :resorigcol 0 :resjunk false})})";
        assert_eq!(view_columns(tree), [(1, 10, 2)]);
        assert_eq!(view_columns("}}}{{{\\"), []);
        let mut all = rows(DATABASE);
        all.extend(rows(
            "table|12|public|people|v|112|-|-|-
             column|12|1|key|23|-1||-|-
             table|13|public|some|v|113|-|-|-
             column|13|1|who|23|-1||-|-",
        ));
        let rule = |table, column| {
            Some(format!(
                "({{QUERY :targetList ({{TARGETENTRY :expr {{VAR}} :resno 1 :resname key \
                 :resorigtbl {table} :resorigcol {column}}})}})"
            ))
        };
        for (view, rule) in [("12", rule(10, 1)), ("13", rule(12, 1))] {
            all.push(vec![Some("view".into()), Some(view.into()), rule]);
        }
        let schema = read(&all);
        let posts = schema.table_at("public", "posts").unwrap();
        for target in ["authors", "people", "some"] {
            assert_eq!(schema.relations(posts, target, None).len(), 1, "{target}");
        }
        // By the column's name it is the table that is meant.
        assert_eq!(schema.relations(posts, "author", None).len(), 1);
        let some = schema.table_at("public", "some").unwrap();
        assert_eq!(schema.relations(some, "posts", None).len(), 1);
    }

    #[test]
    fn views_of_one_table_have_its_key() {
        let rule = |from: &str, sources: &str, more: &str| {
            format!(
                "({{QUERY {more}:rtable ({sources}) :jointree {{FROMEXPR :fromlist ({from}) \
                 :quals <>}} :targetList ({{TARGETENTRY :expr {{VAR}} :resno 1 :resname key \
                 :resorigtbl 10 :resorigcol 1}})}})"
            )
        };
        let one = "{RANGETBLREF :rtindex 1}";
        let table = "{RANGETBLENTRY :eref {ALIAS :aliasname x} :rtekind 0 :relid 10 :inh true}";
        let inner = "{RANGETBLENTRY :subquery {QUERY :rtable ({RTE :rtekind 0 :relid 10 :inh \
            true})} :eref {ALIAS :aliasname x} :rtekind 1 :inh true}";
        let simple = rule(one, table, "");
        assert_eq!(view_base(&simple), Some(10));
        assert_eq!(view_base(&simple.replace("{RANGETBLENTRY", "{RTE")), Some(10));
        for other in [
            rule("{RANGETBLREF :rtindex 1} {RANGETBLREF :rtindex 2}", table, ""),
            rule("{JOINEXPR :larg {RANGETBLREF :rtindex 1}}", table, ""),
            rule(one, inner, ""),
            rule(one, table, ":hasTargetSRFs true "),
            rule(one, table, ":groupingSets ({GROUPINGSET :kind 2}) "),
            rule("{RANGETBLREF :rtindex 0}", table, ""),
            rule("{RANGETBLREF :rtindex 9}", table, ""),
        ] {
            assert_eq!(view_base(&other), None, "{other}");
        }
        let mut all = rows(DATABASE);
        all.extend(rows(
            "table|12|public|people|v|112|-|-|-
             column|12|1|key|23|-1||-|-
             table|13|public|some|v|113|-|-|-
             column|13|1|who|23|-1||-|-
             table|14|public|moods|v|114|-|-|-
             column|14|1|mood|500|-1||-|-",
        ));
        let over = simple.replace(":relid 10", ":relid 12").replace("tbl 10", "tbl 12");
        let without = simple.replace(":resorigcol 1", ":resorigcol 2");
        for (view, rule) in [("12", simple), ("13", over), ("14", without)] {
            all.push(vec![Some("view".into()), Some(view.into()), Some(rule)]);
        }
        let schema = read(&all);
        let key = |name: &str| schema.table("public", name).unwrap().primary_key.clone();
        assert_eq!((key("people"), key("some"), key("moods")), (vec![0], vec![0], vec![]));
    }

    #[test]
    fn a_snapshot_is_read_once_and_again_when_something_was_defined() {
        let database = Snapshots::default().of(&"d".into());
        assert!(database.current().is_none());
        let look = database.look(1).unwrap();
        assert!(database.look(1).is_none(), "two readers");
        look.learn(Some(&rows(DATABASE)));
        let (version, _) = database.current().unwrap();
        assert!(database.look(1).is_none());
        // Within the pause, not even after a definition.
        assert!(database.look(2).is_none());
        database.state.lock().looked = Some(Instant::now() - PAUSE * 2);
        database.look(2).unwrap().learn(Some(&rows(DATABASE)));
        assert_eq!(database.current().unwrap().0, version, "nothing is different");
        database.reload();
        database.state.lock().looked = Some(Instant::now() - PAUSE * 2);
        // A look that fails leaves the old snapshot and the wish for a new one.
        database.look(2).unwrap().learn(None);
        assert!(database.current().is_some() && database.state.lock().is_stale);
        database.state.lock().looked = Some(Instant::now() - PAUSE * 2);
        database.look(2).unwrap().learn(Some(&rows("schema|other|-")));
        assert_eq!(database.current().unwrap().0, version + 1);
    }

    #[test]
    fn a_reader_that_gives_up_lets_others_read() {
        let database = Snapshots::default().of(&"d".into());
        drop(database.look(1).unwrap());
        assert!(database.look(1).is_some());
    }
}
