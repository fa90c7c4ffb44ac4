//! House rules that a compiler does not know: layers, file sizes, bans. Run by `cargo test`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Reading order of `lib.rs`: a module may import the ones before it.
const LAYERS: [&str; 19] = [
    "types",
    "error",
    "config",
    "telemetry",
    "audit",
    "proto",
    "query",
    "limits",
    "net",
    "auth",
    "backend",
    "supervisor",
    "pool",
    "catalog",
    "executor",
    "session",
    "frontend",
    "server",
    "shell",
];

/// What adapters must not see, although it lies below them.
const HIDDEN_FROM_ADAPTERS: [&str; 4] = ["executor", "pool", "backend", "supervisor"];

/// A file that is longer is more than one room.
const LONGEST_FILE: usize = 720;

struct Source {
    path: String,
    module: String,
    text: String,
    /// The text before the unit tests, without comments.
    code: String,
}

fn sources() -> Vec<Source> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (root, client) = (package.join("src"), package.join("clients/rust/src"));
    let mut files = Vec::new();
    collect(&root, &mut files);
    collect(&client, &mut files);
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).unwrap();
        let path = file.strip_prefix(&root).or_else(|_| file.strip_prefix(package)).unwrap();
        let path = path.display().to_string();
        let module = path.split(['/', '.']).next().unwrap().to_owned();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let code = lines.collect::<Vec<_>>().join("\n");
        Source { path, module, code, text }
    };
    files.into_iter().map(read).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// Top-level modules that a text names after `crate::`, also inside `use crate::{…}`.
fn imports(code: &str) -> Vec<String> {
    let word = |text: &str| {
        text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
    };
    let mut found = Vec::new();
    for part in code.split("crate::").skip(1) {
        match part.strip_prefix('{') {
            Some(group) => {
                let mut depth = 0;
                let mut at_name = true;
                for (at, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => at_name = true,
                        _ if at_name && c.is_alphabetic() => {
                            found.push(word(&group[at..]));
                            at_name = false;
                        }
                        _ => {}
                    }
                }
            }
            None => found.push(word(part)),
        }
    }
    found
}

#[test]
fn a_module_imports_only_what_lies_below_it() {
    let rank: BTreeMap<&str, usize> = LAYERS.iter().enumerate().map(|(n, m)| (*m, n)).collect();
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(own) = rank.get(source.module.as_str()) else { continue };
        for import in imports(&source.code) {
            let upward = rank.get(import.as_str()).is_some_and(|other| other > own);
            let hidden =
                source.module == "frontend" && HIDDEN_FROM_ADAPTERS.contains(&import.as_str());
            if upward || hidden {
                wrong.push(format!("{} imports {import}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_map_in_lib_rs_is_the_list_of_layers() {
    let lib = include_str!("lib.rs");
    let table = lib.lines().filter_map(|line| line.strip_prefix("//! | ["));
    let names = table.flat_map(|row| row.split('|').next().unwrap_or("").split('`'));
    let names: Vec<&str> =
        names.filter(|n| n.chars().all(char::is_alphabetic) && !n.is_empty()).collect();
    assert_eq!(names.strip_suffix(&["cli"]), Some(&LAYERS[..]));
    for module in lib.lines().filter_map(|line| line.strip_prefix("pub mod ")) {
        assert!(names.contains(&module.trim_end_matches(';')), "{module} is not in the map");
    }
}

#[test]
fn every_file_says_what_it_is_for_and_is_one_room() {
    for source in sources() {
        assert!(source.text.starts_with("//!"), "{} does not say what it is for", source.path);
        let lines = source.text.lines().count();
        assert!(lines <= LONGEST_FILE, "{} has {lines} lines", source.path);
        let wide = source.text.lines().find(|line| line.chars().count() > 100);
        assert!(wide.is_none(), "{}: {wide:?}", source.path);
    }
}

#[test]
fn banned_words_do_not_occur() {
    // With the reason beside each.
    const BANS: [(&str, &str); 7] = [
        ("unbounded_channel", "every queue has a limit"),
        ("std::sync::Mutex", "a panic would poison it; use parking_lot"),
        ("std::thread::sleep", "it stops an event loop"),
        ("static mut", "nothing is global"),
        ("OnceLock<", "nothing is global"),
        ("LazyLock<", "nothing is global"),
        ("println!", "the log and the ready lines are the only output"),
    ];
    for source in sources().iter().filter(|source| source.path != "tidy.rs") {
        for (word, reason) in BANS {
            assert!(!source.code.contains(word), "{}: {word}: {reason}", source.path);
        }
    }
}

/// A value that takes the place of `$1` in a comment goes on as SQL after its first line break.
#[test]
fn no_statement_has_a_place_for_a_value_in_a_comment() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // Those in folders have parameters, or lose their comments.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let comments = text.lines().filter_map(|line| line.split_once("--"));
        for (_, comment) in comments {
            assert!(!comment.contains('$'), "{}: {comment}", path.display());
        }
    }
}

#[test]
fn there_is_one_of_each() {
    const ONLY: [&str; 9] = [
        "Pool",
        "Sessions",
        "Gate",
        "Metrics",
        "Health",
        "Error",
        "Authenticator",
        "RateLimiter",
        "AuditLog",
    ];
    let sources = sources();
    let declares = |source: &&Source, name: &str| {
        let whole = |at: usize| !source.code[at..].starts_with(char::is_alphanumeric);
        let declaration = format!("pub struct {name}");
        source.code.match_indices(&declaration).any(|(at, found)| whole(at + found.len()))
    };
    for name in ONLY {
        // The section of the configuration has the name of what it configures.
        let others = sources.iter().filter(|source| source.module != "config");
        assert_eq!(others.filter(|source| declares(source, name)).count(), 1, "{name}");
    }
}
