//! The probes that tell poolers from PostgreSQL, one script of `compat-tests/wire/probes` each.
//! No pooler that was measured passes all of them.

use crate::script::{Script, Way, difference};
use crate::wire_scripts::quiet;

/// A probe, and the types of the messages that PostgreSQL answers with.
const PROBES: [(&str, &str); 24] = [
    ("01-setting", "CZTDCZTDCZ"),
    ("02-reported-setting", "CSZTDCZTDCZ"),
    ("03-sql-prepare", "CZEZEZTDCZ"),
    ("04-advisory-lock", "TDCZTDCZTDCZTDCZTDCZ"),
    ("05-temporary-table", "CZEZEZTDCZ"),
    ("06-listen", "CZCZACZ"),
    ("07-foreign-notification", "CZTDCZCZTDCZTDCZ(TDCZ(A"),
    ("08-pipeline", "12TDC12TDCZ"),
    ("09-trailing-describe", "12TDC12TDCTZ12TZEZ"),
    ("10-parse-flush-new", "1Z"),
    ("11-parse-flush-known", "12DCZ1Z11Z"),
    ("12-error-flush", "EZ"),
    ("13-parse-in-failed-transaction", "1ZCZEZEZEZEZ12CZ"),
    ("14-same-name-after-rollback", "CZEZEZCZ12DCZ"),
    ("15-name-in-use", "1ZEZ2DCZ"),
    ("16-close-and-parse", "12DCZ312DCZ"),
    ("17-describe-elsewhere", "1ZTDCZtTZTDCZ2TDCZ"),
    ("18-ddl-under-plan", "CZ12CZCZEZEZ12CZ"),
    ("19-vanished-in-transaction", "CZCCCZTDCZ"),
    ("20-cancel", "TEZ"),
    ("21-startup-options", "KRSSSSSSSSSSSSSZTDCTDCTDCZTDCTDCTDCZTDCTDCTDCZ"),
    ("22-protocol-options", "KRSSSSSSSSSSSSSZvTDCZKRSSSSSSSSSSSSSZvTDCZ"),
    ("23-function-call", "VZTDCZ"),
    ("24-begin-inside", "TDCCTDCZTDCZTDCZCZ"),
];

fn types(transcript: &str) -> String {
    let answers = transcript.lines().filter_map(|line| line.split_once(" < "));
    answers.filter_map(|(_, message)| message.chars().next()).collect()
}

#[test]
fn every_probe_is_answered_as_by_postgresql() {
    let scripts = Script::all("wire/probes");
    let names: Vec<&str> = scripts.iter().map(|script| script.name.as_str()).collect();
    assert_eq!(names, PROBES.map(|(name, _)| name));
    let mut found = Vec::new();
    for (script, (name, wanted)) in scripts.iter().zip(PROBES) {
        match difference(Way::Displaced(quiet()), script) {
            Ok(transcript) => assert_eq!(types(&transcript), wanted, "{name}"),
            Err(different) => found.push(different),
        }
    }
    assert!(found.is_empty(), "{} probes fail:\n\n{}", found.len(), found.join("\n"));
}
