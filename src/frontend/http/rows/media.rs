//! Which content type an answer of PostgREST's dialect has.

use crate::query::plan::Returns;
use crate::query::postgrest::{Action, Planned, Refusal};

/// A content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// An array of rows, or a value.
    Json,
    /// One row.
    Object,
    /// The same without members that are null.
    Stripped,
    /// See [`Media::Stripped`].
    StrippedObject,
    /// Comma-separated values.
    Csv,
    /// A row in each line.
    Ndjson,
    /// A value as text.
    Text,
    /// The bytes of a value.
    Bytes,
}

impl Media {
    /// The value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Media::Json => "application/json; charset=utf-8",
            Media::Object => "application/vnd.pgrst.object+json; charset=utf-8",
            Media::Stripped => "application/vnd.pgrst.array+json;nulls=stripped; charset=utf-8",
            Media::StrippedObject => {
                "application/vnd.pgrst.object+json;nulls=stripped; charset=utf-8"
            }
            Media::Csv => "text/csv; charset=utf-8",
            Media::Ndjson => "application/x-ndjson",
            Media::Text => "text/plain; charset=utf-8",
            Media::Bytes => "application/octet-stream",
        }
    }

    /// The one that the client likes best of those that there are.
    ///
    /// # Errors
    /// There is none.
    pub fn accepted(headers: &[(&str, &str)], planned: &Planned) -> Result<Self, Refusal> {
        if planned.singular || matches!(planned.action, Action::Describe | Action::Methods(_)) {
            return Ok(
                match (planned.singular, headers.iter().find(|(name, _)| *name == "accept")) {
                    (true, Some((_, accept))) if item(first(accept)).2 == Nulls::Stripped => {
                        Media::StrippedObject
                    }
                    (true, _) => Media::Object,
                    (false, _) => Media::Json,
                },
            );
        }
        let is_scalar = match &planned.action {
            Action::Call(plan) => matches!(plan.returns(), Returns::Scalar | Returns::Nothing),
            _ => false,
        };
        let Some((_, accept)) = headers.iter().find(|(name, _)| *name == "accept") else {
            return Ok(Media::Json);
        };
        let mut items: Vec<(u16, &str, Nulls)> = accept.split(',').map(item).collect();
        items.sort_by_key(|(weight, ..)| std::cmp::Reverse(*weight));
        let liked = items.iter().filter(|(weight, ..)| *weight > 0);
        let mut known = liked.filter_map(|(_, name, nulls)| named(name, *nulls, is_scalar));
        known
            .next()
            .ok_or_else(|| Refusal::media_type(&accept.chars().take(200).collect::<String>()))
    }
}

/// What an item says of members that are null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nulls {
    /// Nothing.
    Kept,
    Stripped,
    /// It has parameters that mean something else.
    Unknown,
}

fn first(accept: &str) -> &str {
    accept.split(',').next().unwrap_or("")
}

/// The weight of an item in thousandths, its name, and its other parameters.
fn item(text: &str) -> (u16, &str, Nulls) {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().unwrap_or("");
    let (mut weight, mut nulls) = (1000, Nulls::Kept);
    for parameter in parts {
        match parameter.split_once('=') {
            Some(("q" | "Q", value)) => {
                let value = value.parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q));
                weight = value.map_or(1000, |q| (q * 1000.0).round() as u16);
            }
            Some(("nulls", "stripped")) if nulls == Nulls::Kept => nulls = Nulls::Stripped,
            Some(("nulls" | "for" | "options", _)) => nulls = Nulls::Unknown,
            _ => {}
        }
    }
    (weight, name, nulls)
}

fn named(name: &str, nulls: Nulls, is_scalar: bool) -> Option<Media> {
    Some(match name.to_ascii_lowercase().as_str() {
        "application/vnd.pgrst.array+json" | "application/vnd.pgrst.array"
            if nulls == Nulls::Stripped =>
        {
            Media::Stripped
        }
        _ if nulls != Nulls::Kept => return None,
        "*/*"
        | "application/*"
        | "application/json"
        | "application/vnd.pgrst.array+json"
        | "application/vnd.pgrst.array" => Media::Json,
        "text/csv" => Media::Csv,
        "application/x-ndjson" | "application/ndjson" => Media::Ndjson,
        "text/plain" | "text/*" | "text/xml" if is_scalar => Media::Text,
        "application/octet-stream" if is_scalar => Media::Bytes,
        "text/*" => Media::Csv,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_accept() {
        assert_eq!(item(" text/csv;q=0.5"), (500, "text/csv", Nulls::Kept));
        assert_eq!(item("a/b;nulls=stripped; q=7"), (1000, "a/b", Nulls::Stripped));
        assert_eq!(item("a/b;nulls=kept"), (1000, "a/b", Nulls::Unknown));
        assert_eq!(item("a/b;nulls=stripped;for=x"), (1000, "a/b", Nulls::Unknown));
        let array = "application/vnd.pgrst.array+json";
        assert_eq!(named(array, Nulls::Stripped, false), Some(Media::Stripped));
        assert_eq!(named("text/csv", Nulls::Stripped, false), None);
        for (name, is_scalar, expected) in [
            ("*/*", false, Some(Media::Json)),
            ("text/plain", false, None),
            ("text/plain", true, Some(Media::Text)),
            ("TEXT/CSV", true, Some(Media::Csv)),
            ("application/vnd.pgrst.plan+json", false, None),
        ] {
            assert_eq!(named(name, Nulls::Kept, is_scalar), expected, "{name}");
        }
    }
}
