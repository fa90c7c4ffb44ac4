//! What is read from statements of every kind.

use super::*;

fn names() -> Names {
    let mut names = Names::default();
    names.learn(b"audited", Effects::UNCLEAR);
    names.learn(b"orders", Effects::HAS_SEQUENCE);
    names.learn(b"Odd Name", Effects::UNCLEAR);
    names.complete();
    names
}

fn effects(sql: &str) -> Effects {
    classify(sql.as_bytes(), &names()).effects
}

/// The first effect that holds a session.
fn reason(sql: &str) -> &'static str {
    effects(sql).only(Effects::HOLDING).reason().unwrap_or("")
}

#[test]
fn statements_that_leave_nothing() {
    for sql in [
        "SELECT abalance FROM pgbench_accounts WHERE aid = 1",
        "begin; insert into t values (1, 'create temp table'); commit",
        "update orders set set_config = 1",
        "with x as (select 1) select * from x",
        "select set_config('app.user', $1, true)",
        "set local work_mem = '1GB'",
        "select temp from weather",
        "set transaction isolation level serializable",
        "prepare transaction 'x'",
        "declare c cursor without hold for select 1",
        "select pg_advisory_xact_lock(1)",
        "copy t from stdin",
        "notify x, 'y'",
        "",
        ";;",
    ] {
        // Words that are only columns may be taken for functions; that errs on the safe side.
        let safe = reason(sql).is_empty() || sql.contains("set set_config");
        assert!(safe, "{sql}: {}", reason(sql));
    }
}

#[test]
fn statements_that_hold_the_connection() {
    for (sql, expected) in [
        ("create temp table x (a int)", "temporary objects"),
        ("select 1 into temporary x", "temporary objects"),
        ("select * from pg_temp.x", "temporary objects"),
        ("select pg_advisory_lock(1)", "advisory lock"),
        ("select \"pg_advisory_lock\"(1)", "advisory lock"),
        ("/* x */ LISTEN a", "listen"),
        ("prepare a as select 1", "prepared statement"),
        ("execute a", ""),
        ("declare c cursor with hold for select 1", "cursor with hold"),
        ("set role x", "role"),
        ("set session authorization x", "role"),
        ("load 'x'", "loaded library"),
        ("select setseed(0.5)", "random seed"),
        ("insert into orders values (default)", "sequence values"),
        ("select nextval('s')", "sequence values"),
        ("select audited(1)", "unclear"),
        ("select * from \"Odd Name\"", "unclear"),
        ("create function f() returns int language sql as $$ select 1 $$", "unclear"),
        ("do $$ begin perform pg_advisory_lock(1); end $$", "advisory lock"),
        ("explain analyze execute a", ""),
        ("select 'a\\' , f(1)", "sequence values"),
        ("frobnicate", "sequence values"),
        ("set session characteristics as transaction read only", "settings"),
        ("select set_config('work_mem', '1MB', false)", "settings"),
        ("select set_config(name, '1MB', x) from s", "settings"),
    ] {
        assert_eq!(reason(sql), expected, "{sql}");
    }
    assert!(!effects("select * from orders").has(Effects::SEQUENCE));
    let refers = |sql: &str| classify(sql.as_bytes(), &names()).refers_to;
    assert_eq!(refers("execute A(1)"), [Reference::Executes("a".into())]);
    assert_eq!(refers("deallocate prepare \"A\""), [Reference::Deallocates("A".into())]);
    for all in ["deallocate all", "deallocate prepare all"] {
        assert_eq!(refers(all), []);
        assert!(effects(all).has(Effects::DEALLOCATE_ALL), "{all}");
    }
    assert_eq!(refers("deallocate \"all\""), [Reference::Deallocates("all".into())]);
    assert_eq!(refers("prepare b as select 1"), [Reference::Prepares("b".into())]);
    assert!(effects("execute a").has(Effects::EXECUTES));
    assert_eq!(refers("create table x as execute a"), [Reference::Executes("a".into())]);
    assert_eq!(refers("create trigger x before insert on t execute function f()"), []);
    let long = "x".repeat(70);
    assert_eq!(refers(&format!("execute {long}")), [Reference::Executes(long[..63].into())]);
    assert!(effects("create table x as execute a").has(Effects::UNCLEAR.and(Effects::EXECUTES)));
    assert!(effects("select lastval()").has(Effects::READS_SEQUENCE));
}

#[test]
fn without_a_look_at_the_database_every_name_is_unclear() {
    let names = Names::default();
    assert!(classify(b"select x from t", &names).effects.has(Effects::UNCLEAR));
    assert_eq!(classify(b"select 1", &names).effects, Effects::NONE);
    assert_eq!(classify(b"begin", &names).effects, Effects::BEGIN);
}

#[test]
fn changes_of_settings() {
    let set = |name: &str, value: &str| Change::Set(name.into(), SettingValue::Sql(value.into()));
    for (sql, expected) in [
        ("SET Search_Path TO a, \"B\" ;", vec![set("search_path", "a, \"B\"")]),
        ("set session work_mem='4MB'", vec![set("work_mem", "'4MB'")]),
        ("set my.\"Var\" = 1; set a to b", vec![set("my.var", "1"), set("a", "b")]),
        ("set time zone 'UTC'", vec![set("timezone", "'UTC'")]),
        ("set timezone to default", vec![Change::Reset("timezone".into())]),
        ("reset all", vec![Change::ResetAll]),
        ("reset work_mem", vec![Change::Reset("work_mem".into())]),
        ("set local x to 1", vec![Change::Local]),
        ("set names 'latin1'", vec![Change::Local]),
        ("set x to -- c\n 1", vec![]),
    ] {
        assert_eq!(classify(sql.as_bytes(), &names()).changes, expected, "{sql}");
    }
    let dotted = classify(b"select set_config('App.User', $1, false)", &names());
    assert_eq!(dotted.custom_settings, ["app.user".into()]);
    assert!(!dotted.effects.has(Effects::HIDDEN));
}

#[test]
fn settings_with_a_dot_are_found_in_texts_that_are_run() {
    for sql in [
        "do $$ begin set a.b = 1; end $$",
        "do 'begin execute ''set a.b = 1''; end'",
        "do $$ begin perform set_config('a.b', x, false); end $$",
        "select run('set a.b = 1')",
        "select run('select set_config(''a.b'', ''1'', false)')",
        "call p('set session a.b to 1')",
    ] {
        let found = classify(sql.as_bytes(), &names()).custom_settings;
        assert_eq!(found, ["a.b".into()], "{sql}");
    }
    let update = classify(b"select run('update s.t set x = 1')", &names());
    assert!(update.custom_settings.is_empty());
    for sql in
        ["update pg_settings set setting = 1", "UPDATE only pg_catalog.pg_settings set x = 1"]
    {
        assert_eq!(reason(sql), "settings", "{sql}");
    }
    assert_eq!(reason("update t set x = (select 1 from pg_settings)"), "");
    assert_eq!(reason("select * from pg_settings"), "");
}

#[test]
fn texts_that_mean_something_else_tomorrow() {
    for (sql, timeless) in [
        ("select 'today'::date", false),
        ("select timestamp 'NOW'", false),
        ("select 'int'::regtype", false),
        ("select now()", true),
        ("select 'x'", true),
        ("fetch 1 from c", false),
        ("explain execute s", false),
        ("execute s(1)", false),
    ] {
        assert_eq!(classify(sql.as_bytes(), &names()).timeless, timeless, "{sql}");
    }
}

#[test]
fn only_a_constant_names_a_setting() {
    for (arguments, name, is_hidden) in [
        ("'a.b', 'x', false", Some("a.b"), false),
        ("'a.b'::text, $1::text, false", Some("a.b"), false),
        ("'a.' || x, 'y', false", None, true),
        ("x || '.t', 'y', false", None, true),
        ("lower('A.B'), 'y', false", None, true),
        ("('a.b'), 'y', false", None, true),
        (r"E'a\x2eb', 'y', false", None, true),
        ("$1, 'y', true", None, false),
        ("'a.b', 'y', x = true", Some("a.b"), false),
    ] {
        let class = classify(format!("select set_config({arguments})").as_bytes(), &names());
        let found = class.custom_settings.first().map(|name| &**name);
        assert_eq!((found, class.effects.has(Effects::HIDDEN)), (name, is_hidden), "{arguments}");
        let is_local = arguments == "$1, 'y', true";
        assert_eq!(class.effects.has(Effects::SETTING), !is_local, "{arguments}");
    }
}
