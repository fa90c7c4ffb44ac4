//! The `Prefer` header (RFC 7240), with PostgREST's preferences.

use super::error::Refusal;
use crate::query::plan::ask::{Count, Resolution};

/// What comes back from a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Representation {
    /// The rows.
    Full,
    /// Where the row is.
    HeadersOnly,
    /// Nothing.
    Minimal,
}

/// What to do about preferences that are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// Refuse the request.
    Strict,
    /// Ignore them.
    Lenient,
}

/// How the transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transaction {
    /// It is committed.
    Commit,
    /// It is rolled back, as a rehearsal.
    Rollback,
}

/// What a request prefers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preferences {
    /// `resolution=`
    pub resolution: Option<Resolution>,
    /// `return=`
    pub representation: Option<Representation>,
    /// `count=`
    pub count: Option<Count>,
    /// `tx=`
    pub transaction: Option<Transaction>,
    /// `missing=`: whether a missing value is the column's default.
    pub missing_default: Option<bool>,
    /// `handling=`
    pub handling: Option<Handling>,
    /// `timezone=`: a name of the time zone database.
    pub timezone: Option<String>,
    /// `max-affected=`; it counts with `handling=strict` only.
    pub max_affected: Option<u64>,
    /// What was not understood.
    pub invalid: Vec<String>,
}

/// Preferences that are looked at; a header has no use for more.
const MAX_PREFERENCES: usize = 64;

impl Preferences {
    /// Reads the values of all `Prefer` headers. Of several values for one preference the first
    /// counts.
    pub fn parse<'h>(headers: impl IntoIterator<Item = &'h str>, may_roll_back: bool) -> Self {
        let mut found = Preferences::default();
        let all = headers.into_iter().flat_map(|header| header.split(',')).map(str::trim);
        for preference in all.filter(|p| !p.is_empty()).take(MAX_PREFERENCES) {
            if !found.learn(preference, may_roll_back) {
                found.invalid.push(preference.chars().take(100).collect());
            }
        }
        found
    }

    fn learn(&mut self, preference: &str, may_roll_back: bool) -> bool {
        fn first<T>(slot: &mut Option<T>, value: T) -> bool {
            slot.get_or_insert(value);
            true
        }
        let Some((name, value)) = preference.split_once('=') else { return false };
        match (name.trim(), value.trim()) {
            ("resolution", "merge-duplicates") => first(&mut self.resolution, Resolution::Merge),
            ("resolution", "ignore-duplicates") => first(&mut self.resolution, Resolution::Ignore),
            ("return", "representation") => first(&mut self.representation, Representation::Full),
            ("return", "minimal") => first(&mut self.representation, Representation::Minimal),
            ("return", "headers-only") => {
                first(&mut self.representation, Representation::HeadersOnly)
            }
            ("count", "exact") => first(&mut self.count, Count::Exact),
            ("count", "planned") => first(&mut self.count, Count::Planned),
            ("count", "estimated") => first(&mut self.count, Count::Estimated),
            ("tx", "commit") if may_roll_back => first(&mut self.transaction, Transaction::Commit),
            ("tx", "rollback") if may_roll_back => {
                first(&mut self.transaction, Transaction::Rollback)
            }
            // Known, but not open to this request.
            ("tx", "commit" | "rollback") => true,
            ("missing", "default") => first(&mut self.missing_default, true),
            ("missing", "null") => first(&mut self.missing_default, false),
            ("handling", "strict") => first(&mut self.handling, Handling::Strict),
            ("handling", "lenient") => first(&mut self.handling, Handling::Lenient),
            ("timezone", zone) if is_zone(zone) => first(&mut self.timezone, zone.to_owned()),
            ("max-affected", number) => match number.parse() {
                Ok(number) => first(&mut self.max_affected, number),
                Err(_) => false,
            },
            _ => false,
        }
    }

    /// Refuses what was not understood, when that is wanted.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        if self.handling != Some(Handling::Strict) || self.invalid.is_empty() {
            return Ok(());
        }
        let message = "Invalid preferences given with handling=strict";
        let details = format!("Invalid preferences: {}", self.invalid.join(", "));
        Err(Refusal::new("PGRST122", 400, message).details(details))
    }

    /// Most rows that may be changed.
    pub fn most_affected(&self) -> Option<u64> {
        self.max_affected.filter(|_| self.handling == Some(Handling::Strict))
    }

    /// The `Preference-Applied` header, if there is anything to say.
    pub fn applied(&self) -> Option<String> {
        let mut applied: Vec<String> = Vec::new();
        let mut say = |word: Option<&str>| applied.extend(word.map(str::to_owned));
        say(self.resolution.map(|r| match r {
            Resolution::Merge => "resolution=merge-duplicates",
            Resolution::Ignore => "resolution=ignore-duplicates",
        }));
        say(self.missing_default.map(|d| if d { "missing=default" } else { "missing=null" }));
        say(self.representation.map(|r| match r {
            Representation::Full => "return=representation",
            Representation::HeadersOnly => "return=headers-only",
            Representation::Minimal => "return=minimal",
        }));
        say(self.count.and_then(|count| match count {
            Count::None => None,
            Count::Exact => Some("count=exact"),
            Count::Planned => Some("count=planned"),
            Count::Estimated => Some("count=estimated"),
        }));
        say(self.transaction.map(|t| match t {
            Transaction::Commit => "tx=commit",
            Transaction::Rollback => "tx=rollback",
        }));
        say(self.handling.map(|h| match h {
            Handling::Strict => "handling=strict",
            Handling::Lenient => "handling=lenient",
        }));
        applied.extend(self.timezone.as_ref().map(|zone| format!("timezone={zone}")));
        applied.extend(self.most_affected().map(|most| format!("max-affected={most}")));
        (!applied.is_empty()).then(|| applied.join(", "))
    }
}

fn is_zone(zone: &str) -> bool {
    zone.len() <= 64 && jiff::tz::TimeZone::get(zone).is_ok()
}
