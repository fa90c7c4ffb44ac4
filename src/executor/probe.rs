//! A look at a connection between two transactions: what of a session's state is on it. It tells
//! whether a session that was held on its connection can leave it, and what its settings are
//! after statements that could not be followed.

use crate::backend::BackendConn;
use crate::error::Result;
use crate::executor::mux::{Carried, Mux, Seen, Wait};
use crate::query::{Effects, SettingValue, quote_literal};

/// Looks at an idle connection, on behalf of the session that is held on it.
pub async fn look(conn: &mut BackendConn, mux: &mut Mux, role: &str, wait: Wait) -> Result<()> {
    mux.refresh_names();
    let mut sql = include_str!("../../sql/probe.sql").replace("$user", &quote_literal(role));
    let custom: Vec<String> = mux.custom_settings().map(quote_literal).collect();
    for name in &custom {
        // A setting with a dot is not listed; it is there when it is not NULL.
        sql.push_str(&format!(
            "UNION ALL SELECT 'setting', {name}, CASE WHEN pg_catalog.octet_length(value) <= 65536 \
             THEN value END FROM pg_catalog.current_setting({name}, true) AS value \
             WHERE value <> ''\n"
        ));
    }
    let mut seen = Seen::default();
    let most = mux.most_statements();
    conn.simple(&sql, |row| learn(&mut seen, row, most)).await?;
    mux.probed(&mut conn.state, seen, wait);
    Ok(())
}

/// Learns from a row. More than `most` statements are not kept apart.
fn learn(seen: &mut Seen, row: Vec<Option<String>>, most: usize) {
    let mut cells = row.into_iter();
    let kind = cells.next().flatten().unwrap_or_default();
    let (name, value) = (cells.next().flatten(), cells.next().flatten());
    let effect = match &*kind {
        "namespace" => {
            seen.spoiled = true;
            return;
        }
        "temp" => Effects::TEMP,
        "hold" => Effects::HOLD,
        "advisory" => Effects::ADVISORY,
        "listen" => Effects::LISTEN,
        "role" => Effects::ROLE,
        "prepared" => {
            if let Some(name) = name.filter(|_| seen.prepared.len() < most) {
                seen.prepared.push(Carried::of(name.into_bytes().into(), value));
            }
            Effects::PREPARE
        }
        "statement" => {
            seen.statements.extend(name.map(|name| name.into_bytes().into()));
            return;
        }
        _ => {
            seen.too_long |= value.is_none();
            if let (Some(name), Some(value)) = (name, value) {
                let value = SettingValue::Config(value.into());
                seen.settings.push((name.to_ascii_lowercase().into(), value));
            }
            return;
        }
    };
    seen.effects.add(effect);
}
