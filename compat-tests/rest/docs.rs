//! `docs/rest.md`: every command in it is run, and prints what the page says.

use std::fmt::Write;
use std::process::Command;

use serde_json::Value;

use crate::harness::Server;

/// What stands for something that differs from run to run, or that is left out.
const ANY: &str = "…";

/// A command, and what the page says that it prints: the language of the block, and its text.
struct Example<'a> {
    command: &'a str,
    expected: Option<(&'a str, &'a str)>,
}

/// The blocks of a page: a command, and what follows it if that is not a command.
fn examples(page: &str) -> Vec<Example<'_>> {
    let mut found: Vec<Example> = Vec::new();
    for block in page.split("\n```").skip(1).step_by(2) {
        let (language, text) = block.split_once('\n').unwrap();
        match language {
            "sh" => found.push(Example { command: text, expected: None }),
            _ => {
                let example = found.last_mut().expect("a command comes before what it prints");
                assert!(example.expected.is_none(), "nothing prints {text}");
                example.expected = Some((language, text));
            }
        }
    }
    found
}

/// Whether a value is as the page says: `…` is any value, as the last one of an array any others, as
/// a key any other keys.
fn fits(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::String(text), _) if text == ANY => true,
        (Value::Object(expected), Value::Object(found)) => {
            let is_open = expected.contains_key(ANY);
            let wanted = expected.iter().filter(|(key, _)| *key != ANY);
            let named = wanted.clone().count();
            (is_open || named == found.len())
                && wanted
                    .clone()
                    .all(|(key, value)| found.get(key).is_some_and(|found| fits(value, found)))
        }
        (Value::Array(expected), Value::Array(found)) => {
            let is_open = expected.last().is_some_and(|last| last == ANY);
            let named = expected.len() - usize::from(is_open);
            (found.len() == named || is_open && found.len() >= named)
                && expected.iter().take(named).zip(found).all(|(one, other)| fits(one, other))
        }
        _ => expected == found,
    }
}

/// The same for text: `…` stands for anything within a line, alone in a line for any lines.
fn fits_text(expected: &str, found: &str) -> bool {
    match expected.split_once(ANY) {
        None => expected == found,
        Some((before, after)) => found.strip_prefix(before).is_some_and(|rest| {
            after.is_empty() || rest.char_indices().any(|(at, _)| fits_text(after, &rest[at..]))
        }),
    }
}

fn check(example: &Example, printed: &str) {
    let Some((language, expected)) = example.expected else {
        assert!(printed.trim().is_empty(), "{}\nprints {printed}", example.command);
        return;
    };
    let fits = match language {
        "json" => {
            let expected: Value = serde_json::from_str(expected)
                .unwrap_or_else(|e| panic!("{expected}\nis no JSON: {e}"));
            serde_json::from_str(printed).is_ok_and(|printed| fits(&expected, &printed))
        }
        _ => fits_text(expected.trim(), printed.replace('\r', "").trim()),
    };
    assert!(fits, "{}\nprints\n{printed}\nand not\n{expected}", example.command);
}

#[test]
fn the_page_tells_what_happens() {
    // Nobody else's tables are in its lists.
    let server = Server::builder().start();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/rest.md");
    let page = std::fs::read_to_string(path).unwrap();
    let examples = examples(&page);
    assert!(examples.len() > 20);
    let end = "----- the end of an example -----";
    // A shell that is no terminal has no aliases unless it is told to, and then only those of
    // lines before.
    let mut script = String::from("set -eu\n");
    for example in &examples {
        let command = example.command;
        // The first block is the reader's own place; the test has another one.
        if command.contains("export url=") {
            let url = server.url("");
            let command = command
                .replace("http://localhost:8080", url.trim_end_matches('/'))
                .replace("PASSWORD=…", &format!("PASSWORD='{}'", server.password));
            writeln!(script, "{command}\necho '{end}'").unwrap();
        } else {
            writeln!(script, "{command}\necho\necho '{end}'").unwrap();
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let output =
        Command::new("sh").args(["-c", &script]).current_dir(directory.path()).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    let printed: Vec<&str> = printed.split(end).collect();
    for (example, printed) in examples.iter().zip(&printed) {
        check(example, printed);
    }
    assert!(output.status.success(), "{said}\nafter {}", printed.last().unwrap());
    assert_eq!(printed.len(), examples.len() + 1, "{said}");
}

#[test]
fn what_fits() {
    let fits = |expected: &str, found: &str| {
        fits(&serde_json::from_str(expected).unwrap(), &serde_json::from_str(found).unwrap())
    };
    assert!(fits(r#"{"a": "…", "b": [1, "…"]}"#, r#"{"b": [1, 2, 3], "a": {}}"#));
    assert!(fits(r#"{"a": 1, "…": 0}"#, r#"{"a": 1, "b": 2}"#));
    assert!(!fits(r#"{"a": 1}"#, r#"{"a": 1, "b": 2}"#));
    assert!(!fits(r#"[1]"#, "[1, 2]"));
    assert!(!fits(r#"{"a": "…"}"#, "{}"));
    assert!(fits_text("a … c\n…z", "a b c\nx\nyz"));
    assert!(!fits_text("a … c", "a b d"));
}
