//! What the body of a function may do to the session that calls it.

use super::classify::{Class, Reader, settle_sequences, updates_settings};
use super::effects::Effects;
use super::lexer::Lexer;
use super::names::Names;
use super::settings::Change;

/// Bytes of a SET in a body that are read. One that is longer is not understood; and a text of
/// nothing but SETs, each of which goes on to its end, is not read again for each of them.
const LONGEST_SET: usize = 1 << 10;

/// Reads the body of a function, in whatever language: every word in it counts, quoted or not.
pub fn classify_body(body: &[u8], names: &Names) -> Class {
    let mut class = Class { timeless: true, ..Class::default() };
    let is_part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | b'.') || b >= 0x80;
    let mut at = 0;
    let mut previous = Vec::new();
    while at < body.len() {
        if !is_part(body[at]) {
            at += 1;
            continue;
        }
        let end = body[at..].iter().position(|b| !is_part(*b)).map_or(body.len(), |n| at + n);
        let lower = body[at..end].to_ascii_lowercase();
        // Of a qualified name each part may be the one that is known.
        for part in lower.split(|b| *b == b'.') {
            class.effects.add(names.of(part).without(Effects::SETTING));
        }
        let rest = &body[end..];
        // In quotation marks: a text that is run.
        let begins = body[..at].trim_ascii_end().last().is_none_or(|b| b";'".contains(b))
            || matches!(
                &previous[..],
                b"begin" | b"then" | b"else" | b"loop" | b"perform" | b"atomic"
            );
        let name = lower.rsplit(|b| *b == b'.').next().unwrap_or(b"");
        body_word(name, begins, rest, names, &mut class);
        (at, previous) = (end, lower);
    }
    settle_sequences(&mut class.effects);
    class
}

/// One word of a body; `begins` = a statement may begin with it, `rest` = what follows.
fn body_word(word: &[u8], begins: bool, rest: &[u8], names: &Names, class: &mut Class) {
    let next = |keyword: &[u8]| Lexer::new(rest).next().is_some_and(|t| t.is_word(keyword));
    class.effects.add(match word {
        b"temp" | b"temporary" => Effects::TEMP,
        b"hold" => Effects::HOLD,
        b"listen" | b"unlisten" if begins => Effects::LISTEN,
        b"load" if begins => Effects::LOAD,
        b"insert" => Effects::INSERTS,
        b"update" if updates_settings(Lexer::new(&rest[..rest.len().min(LONGEST_SET)])) => {
            Effects::SETTING
        }
        b"prepare" | b"deallocate" => Effects::PREPARE.and(Effects::LISTS_STATEMENTS),
        b"reset" | b"discard" if begins => Effects::SETTING.and(Effects::HIDDEN),
        // EXECUTE of a string can be anything; EXECUTE FUNCTION belongs to CREATE TRIGGER.
        b"execute" if !next(b"function") && !next(b"procedure") => {
            Effects::UNCLEAR.and(Effects::INSERTS)
        }
        b"set" | b"set_config" => {
            let near = &rest[..rest.len().min(LONGEST_SET)];
            let mut reader = Reader::new(near, names);
            match word {
                b"set" if begins => reader.set(),
                b"set" => return,
                _ => reader.set_config(),
            }
            class.custom_settings.extend(reader.class.custom_settings);
            let local = reader.class.changes.iter().all(|change| *change == Change::Local);
            let setting = if local { Effects::NONE } else { Effects::SETTING };
            reader.class.effects.and(setting)
        }
        _ => Effects::NONE,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_functions() {
        let mut names = Names::default();
        names.learn(b"audited", Effects::UNCLEAR);
        names.learn(b"orders", Effects::HAS_SEQUENCE);
        let long_set = format!("begin set x = {}1; end", " ".repeat(LONGEST_SET));
        for (body, expected) in [
            ("begin update t set x = 1; return new; end", ""),
            ("begin execute 'select 1'; end", "unclear"),
            ("begin insert into orders values (1); end", "sequence values"),
            ("select set_config('a', 'b', false)", "settings"),
            ("begin set work_mem = 1; end", "settings"),
            ("begin perform public.audited(1); end", "unclear"),
            ("create temp table x(a int)", "temporary objects"),
            ("begin set local x = 1; end", ""),
            ("begin set transaction isolation level serializable; end", ""),
            (&long_set, "settings"),
        ] {
            let class = classify_body(body.as_bytes(), &names);
            let reason = class.effects.only(Effects::HOLDING).reason().unwrap_or("");
            assert_eq!(reason, expected, "{body}");
        }
    }
}
