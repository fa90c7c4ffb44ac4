"""psycopg 3: a program that uses what the driver has, and tells what it saw."""

import concurrent.futures
import datetime
import decimal
import threading
import time
import uuid

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Json, Jsonb

from common import CLIENTS, DATABASE, HOST, PASSWORD, PORT, USER
from common import cases, digest, say, section, values


def connect(**options):
    where = {"host": HOST, "port": PORT, "user": USER, "password": PASSWORD, "dbname": DATABASE}
    return psycopg.connect(**{"autocommit": True, **where, **options})


def describe(error):
    """Everything that PostgreSQL said about an error."""
    if error.sqlstate is None:
        return [type(error).__name__]
    d = error.diag
    names = (
        "severity severity_nonlocalized sqlstate message_primary message_detail message_hint"
        " statement_position internal_position internal_query context schema_name table_name"
        " column_name datatype_name constraint_name"
    )
    fields = [(name, getattr(d, name)) for name in names.split()]
    return [type(error).__name__, {name: value for name, value in fields if value is not None}]


def attempt(what, action):
    try:
        say(what, "->", action())
    except psycopg.Error as error:
        say(what, "->", *describe(error))


def run(conn, sql, params=None, **options):
    cursor = conn.execute(sql, params, **options)
    rows = cursor.fetchall() if cursor.description else None
    return cursor.statusmessage, rows


def check_values():
    section("values")
    with connect() as conn:
        for kind, literal in values():
            for binary in (False, True):
                cursor = conn.cursor(binary=binary)
                quoted = literal.replace("'", "''")

                def there_and_back():
                    value = cursor.execute(f"select '{quoted}'::{kind}".encode()).fetchone()[0]
                    back = cursor.execute(f"select (%s::{kind})::text", [value]).fetchone()[0]
                    return value, back, cursor.description[0].type_code

                attempt(f"{kind} {literal} {'binary' if binary else 'text'}", there_and_back)
        sent = [
            None, True, -7, 1 << 40, 1.5, decimal.Decimal("1e-30"), "é'\\", b"\x00\xff",
            datetime.datetime(2024, 3, 31, 1, 30, tzinfo=datetime.timezone.utc),
            datetime.date(1, 1, 1), datetime.timedelta(days=-3, microseconds=7),
            uuid.UUID(int=5), Json({"a": [1, None]}), Jsonb({"a": "é"}), [1, None, 3], ["a", None],
            [[1, 2], [3, 4]],
        ]
        for value in sent:
            attempt(
                f"sent {value!r}",
                lambda: conn.execute("select %s, pg_typeof(%s)::text", [value, value]).fetchone(),
            )
        cursor = conn.cursor(row_factory=dict_row)
        say(cursor.execute("select 1 as a, null as b").fetchone())


def check_transactions():
    section("transactions")
    with connect(autocommit=False) as conn:
        count = "select count(*) from people"
        conn.execute("insert into people values (10, 'Edsger', 72, null)")
        say(conn.info.transaction_status.name, run(conn, count))
        conn.rollback()
        say(conn.info.transaction_status.name, run(conn, count))
        conn.commit()
        with conn.transaction():
            conn.execute("insert into people values (11, 'Barbara', 80, 1)")
            attempt("inner", lambda: inner_failure(conn))
            say(run(conn, count))
        say(run(conn, count))
        attempt("broken", lambda: run(conn, "select 1 / 0"))
        attempt("aborted", lambda: run(conn, count))
        say(conn.info.transaction_status.name)
        conn.rollback()
        for level in psycopg.IsolationLevel:
            conn.isolation_level = level
            say(run(conn, "show transaction_isolation"))
            conn.rollback()
        conn.isolation_level = None
        conn.read_only = True
        attempt("read only", lambda: run(conn, "delete from people"))
        conn.rollback()
        conn.read_only = None
        conn.execute("delete from people where id = 11")
        conn.commit()
    first, second = connect(autocommit=False), connect(autocommit=False)
    for conn in (first, second):
        conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        say(run(conn, "select sum(age) from people"))
    first.execute("update people set age = age + 1 where id = 1")
    second.execute("update people set age = age + 1 where id = 2")
    first.commit()
    attempt("serialization", second.commit)
    second.rollback()
    second.execute("update people set age = 36 where id = 1")
    second.commit()
    first.close()
    second.close()


def inner_failure(conn):
    with conn.transaction():
        conn.execute("insert into people values (12, 'Donald', 86, 1)")
        conn.execute("insert into people values (12, 'Twice', 1, 1)")


def check_prepared():
    section("prepared statements")
    with connect() as conn:
        conn.prepare_threshold = 1
        for round_ in range(4):
            for n in range(150):
                with conn.transaction():
                    sql = f"select {n} + %s::int, name from people where id = %s"
                    say(round_, conn.execute(sql, [round_, 1 + n % 2]).fetchone())
        for n in range(20):
            sql = "select name from people where id = %s"
            say(conn.execute(sql, [1 + n % 2], prepare=True).fetchone())
        with conn.transaction():
            conn.execute("create table shape (a int)")
            conn.execute("insert into shape values (1)")
        for _ in range(3):
            say(run(conn, "select * from shape", prepare=True))
        conn.execute("alter table shape add b text default 'new'")
        for _ in range(2):
            attempt("a changed table", lambda: run(conn, "select * from shape", prepare=True))
        conn.execute("drop table shape")
        conn.execute("deallocate all")
        attempt("after deallocate all", lambda: run(conn, "select 1", prepare=True))
        attempt("a wrong type", lambda: run(conn, "select %s::int", ["x"], prepare=True))
        attempt("then", lambda: run(conn, "select %s::int", ["5"], prepare=True))


def check_session():
    section("session")
    with connect() as conn:
        for sql in cases("session.sql"):
            attempt(sql, lambda: run(conn, sql.encode()))
        say({name: conn.info.parameter_status(name) for name in PARAMETERS})
        conn.execute("set client_encoding = 'LATIN1'")
        say(conn.info.encoding, run(conn, "select 'é'"))
        conn.execute("set client_encoding = 'UTF8'")
        conn.execute("set datestyle = 'SQL, MDY'; set time zone 'Asia/Tokyo'")
        say({name: conn.info.parameter_status(name) for name in PARAMETERS})
        say(run(conn, "select timestamptz '2024-07-01 12:00+00'::text, date '2024-07-01'::text"))
        conn.execute("reset all")
        say({name: conn.info.parameter_status(name) for name in PARAMETERS})
    options = "-c search_path=other -c timezone=Europe/Berlin"
    with connect(options=options, application_name="of its own") as conn:
        say(run(conn, "select * from people"))
        say(run(conn, "show application_name"))
        say(run(conn, "select timestamptz '2024-07-01 12:00Z'::text"))
        conn.execute("set search_path = public; set time zone 'UTC'")
        conn.execute("reset all")
        say(run(conn, "show search_path"), run(conn, "show timezone"))


PARAMETERS = (
    "server_encoding client_encoding application_name is_superuser session_authorization"
    " DateStyle IntervalStyle TimeZone integer_datetimes standard_conforming_strings"
    " server_version default_transaction_read_only in_hot_standby"
).split()


def check_cursors():
    section("cursors")
    with connect(autocommit=False) as conn:
        with conn.cursor("plain") as cursor:
            cursor.itersize = 7
            cursor.execute("select i, repeat('x', i) from generate_series(1, 30) i")
            say(cursor.fetchone(), cursor.fetchmany(3), sum(row[0] for row in cursor))
        with conn.cursor("jumping", scrollable=True) as cursor:
            cursor.execute("select generate_series(1, 100)")
            cursor.scroll(50)
            say(cursor.fetchone())
            cursor.scroll(-10)
            say(cursor.fetchone())
            cursor.scroll(99, mode="absolute")
            say(cursor.fetchall())
        conn.commit()
        with conn.cursor("holding", withhold=True) as cursor:
            cursor.execute("select generate_series(1, 10)")
            say(cursor.fetchmany(3))
            conn.commit()
            say(cursor.fetchmany(3))
            conn.rollback()
            say(cursor.fetchall())
        conn.commit()
        cursor = conn.cursor("lost")
        cursor.execute("select 1")
        conn.commit()
        attempt("after the end", cursor.fetchone)
        conn.rollback()
    with connect() as conn:
        cursor = conn.cursor()
        say(sum(row[0] for row in cursor.stream("select generate_series(1, 5000)")))
        for row in cursor.stream("select generate_series(1, 5)"):
            say(row)


def check_copy():
    section("copy")
    with connect() as conn:
        conn.execute("create table copied (id int, name text, data bytea)")
        with conn.cursor().copy("copy copied from stdin") as copy:
            for n in range(5000):
                copy.write_row((n, f"n\t{n}\\", bytes([n % 256])))
        with conn.cursor().copy("copy copied from stdin (format binary)") as copy:
            copy.set_types(["int4", "text", "bytea"])
            for n in range(5000, 6000):
                copy.write_row((n, None, b"\x00"))
        sums = "count(*), sum(id), count(name), md5(string_agg(data, '' order by id))"
        say(run(conn, f"select {sums} from copied"))
        out = bytearray()
        with conn.cursor().copy("copy (select * from copied order by id) to stdout") as copy:
            for block in copy:
                out += block
        say(digest(bytes(out)))
        with conn.cursor().copy("copy (select 1, null, 'é') to stdout (format csv)") as copy:
            say([bytes(block) for block in copy])
        with conn.cursor().copy("copy (select 1, 'x'::text) to stdout (format binary)") as copy:
            copy.set_types(["int4", "text"])
            say(list(copy.rows()))

        for sql in ("copy copied from stdin", "copy (select generate_series(1, 99999)) to stdout"):
            try:
                with conn.cursor().copy(sql) as copy:
                    if "stdin" in sql:
                        copy.write("1\tx\ty\n")
                    else:
                        say(bytes(copy.read()))
                    raise RuntimeError("no more")
            except (psycopg.Error, RuntimeError) as error:
                say(sql, type(error).__name__, conn.info.transaction_status.name)

        def malformed():
            with conn.cursor().copy("copy copied from stdin") as copy:
                copy.write("x\ty\n")

        attempt("malformed", malformed)

        attempt("failing", lambda: run(conn, "copy nowhere from stdin"))
        say(run(conn, "select count(*) from copied"))
        conn.execute("drop table copied")


def check_errors():
    section("errors")
    with connect() as conn:
        for sql in cases("errors.sql"):
            attempt(sql, lambda: run(conn, sql.encode()))
            attempt(f"prepared: {sql}", lambda: run(conn, sql.encode(), prepare=True))
        attempt("several", lambda: run(conn, "select 1; select 2; select nope; select 3"))
        say(run(conn, "select 'still here'"))


def check_notices():
    section("notices")
    with connect() as conn:
        seen = []
        conn.add_notice_handler(
            lambda d: seen.append((d.severity, d.sqlstate, d.message_primary, d.message_hint))
        )
        say(run(conn, "select chat('you')"), seen)
        with conn.transaction():
            conn.execute("drop table if exists never_there")
            conn.execute("set local client_min_messages = 'warning'")
            conn.execute("select chat('you again')")
        say(seen)


def check_notify():
    section("notifications")
    with connect() as listener, connect() as sender:
        listener.execute("listen news")
        listener.execute('listen "Other News"')
        sender.execute("notify news, 'one'")
        sender.execute("select pg_notify('Other News', 'two é')")
        with sender.transaction():
            sender.execute("notify news, 'three'")
        sender.execute("begin; notify news, 'never'; rollback")
        sender.execute("notify elsewhere")
        got = [(n.channel, n.payload) for n in listener.notifies(timeout=10, stop_after=3)]
        say(sorted(got))
        listener.execute("notify news, 'to myself'")
        say([(n.channel, n.payload) for n in listener.notifies(timeout=10, stop_after=1)])
        say(run(listener, "select * from pg_listening_channels()"))
        listener.execute("unlisten news")
        sender.execute("notify news, 'unheard'; notify \"Other News\", 'heard'")
        say([(n.channel, n.payload) for n in listener.notifies(timeout=10, stop_after=1)])
        listener.execute("unlisten *")
        say(run(listener, "select * from pg_listening_channels()"))


def check_cancel():
    section("cancel")
    with connect() as conn:
        for in_transaction in (False, True):
            if in_transaction:
                conn.execute("begin")
            for cancel in (conn.cancel, conn.cancel_safe):
                timer = threading.Timer(0.3, cancel)
                timer.start()
                attempt("cancelled", lambda: run(conn, "select pg_sleep(30)"))
                timer.join()
                say(conn.info.transaction_status.name)
                if in_transaction:
                    conn.execute("rollback; begin")
        conn.execute("rollback")
        conn.cancel_safe()
        time.sleep(0.05)
        say(run(conn, "select 'a late cancel stops nothing'"))
        conn.execute("set statement_timeout = '200ms'")
        attempt("timed out", lambda: run(conn, "select pg_sleep(30)"))
        conn.execute("reset statement_timeout")
        say(run(conn, "select 'still here'"))


def check_big():
    section("big values")
    with connect() as conn:
        for size in (1 << 20, 20 << 20):
            text, data = "0123456789abcdef" * (size // 16), bytes(range(256)) * (size // 256)
            say(run(conn, "select length(%s::text), md5(%s::text)", [text, text]))
            say(digest(conn.execute("select %s::bytea", [data], binary=True).fetchone()[0]))
            say(digest(conn.execute("select repeat('é', %s)", [size // 2]).fetchone()[0]))
        cursor = conn.execute("select i, md5(i::text) from generate_series(1, 50000) i")
        say(digest("".join(row[1] for row in cursor)))


def check_pipeline():
    section("pipeline")
    with connect() as conn:
        with conn.pipeline() as pipeline:
            cursors = [conn.execute("select %s::int * 2", [n]) for n in range(300)]
            pipeline.sync()
            say(sum(cursor.fetchone()[0] for cursor in cursors))
        try:
            with conn.pipeline() as pipeline:
                first = conn.execute("select 'before'")
                conn.execute("select 1 / 0")
                conn.execute("select 'after'")
                pipeline.sync()
        except psycopg.Error as error:
            say(*describe(error), first.fetchone())
        with conn.pipeline():
            with conn.transaction():
                conn.execute("insert into things (t) values ('in a pipeline')")
                found = conn.execute("select count(*) from things where t = 'in a pipeline'")
            say(found.fetchone())
            conn.execute("set my.own = 'in a pipeline'")
        say(run(conn, "show my.own"))
        with conn.cursor() as cursor:
            rows = [(n, f"t{n}") for n in range(500)]
            cursor.executemany("insert into things (n, t) values (%s, %s)", rows)
            say(cursor.rowcount)
            insert = "insert into things (n) values (%s) returning n"
            cursor.executemany(insert, [(1,), (2,)], returning=True)
            say(cursor.fetchall(), cursor.nextset(), cursor.fetchall())
        say(run(conn, "select count(*), sum(n), count(t) from things"))
        conn.execute("delete from things")
        cursor = conn.execute("select 1; select 2, 3; set my.own = 'x'")
        results = []
        while True:
            results.append(cursor.fetchall() if cursor.description else cursor.statusmessage)
            if not cursor.nextset():
                break
        say(results)


def one_of_many(number):
    """Must see what it set itself and nothing of the others."""
    seen = []
    with connect(application_name=f"client {number}") as conn:
        conn.prepare_threshold = 0
        zone = ("UTC", "Asia/Tokyo", "Europe/Berlin", "America/New_York")[number % 4]
        conn.execute(f"set time zone '{zone}'")
        conn.execute(f"set my.number = {number}")
        conn.execute(f"set search_path = {'other' if number % 2 else 'public'}")
        conn.execute(f"prepare mine as select {number}")
        temporary = number % 8 == 0
        if temporary:
            conn.execute("create temporary table mine (n int)")
            conn.execute("insert into mine values (%s)", [number])
        for turn in range(5):
            with conn.transaction():
                seen += run(conn, "show timezone")[1] + run(conn, "show my.number")[1]
                seen += run(conn, "select name from people order by id limit 1")[1]
            seen += run(conn, "execute mine")[1] + run(conn, "show application_name")[1]
            seen += run(conn, f"select {number} + %s", [turn])[1]
            seen += run(conn, "select to_regclass('mine') is null")[1]
            if temporary:
                seen += run(conn, "select * from mine")[1]
            try:
                run(conn, f"select {number} / 0")
            except psycopg.Error as error:
                seen.append(error.sqlstate)
            names = "select name from pg_prepared_statements where statement ~ '^prepare'"
            names += " order by name"
            seen += run(conn, names)[1]
    return seen


def check_many():
    section("many clients")
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as executor:
        for number, seen in enumerate(executor.map(one_of_many, range(CLIENTS))):
            say(number, seen)


def check_reconnect():
    section("reconnect")
    with connect() as other:
        for busy in (True, False):
            conn = connect()
            conn.execute("begin")
            pid = conn.execute("select pg_backend_pid()").fetchone()[0]
            terminate = threading.Timer(
                0.3 if busy else 0, other.execute, ["select pg_terminate_backend(%s)", [pid]]
            )
            terminate.start()
            if not busy:
                terminate.join()
                time.sleep(0.2)
            attempt("terminated", lambda: run(conn, "select pg_sleep(30)"))
            terminate.join()
            say(conn.closed, conn.broken)
            attempt("closed", lambda: run(conn, "select 1"))
            conn.close()
            with connect() as again:
                say(run(again, "select 'a new one works'"))
        conn = connect()
        attempt("by itself", lambda: run(conn, "select pg_terminate_backend(pg_backend_pid())"))
        say(conn.closed, conn.broken)
        say(run(other, "select 'the other one too'"))
    attempt("no such database", lambda: connect(dbname="nosuch"))


def main():
    with connect() as conn:
        for sql in cases("schema.sql"):
            conn.execute(sql.encode())
    check_values()
    check_transactions()
    check_prepared()
    check_session()
    check_cursors()
    check_copy()
    check_errors()
    check_notices()
    check_notify()
    check_cancel()
    check_big()
    check_pipeline()
    check_many()
    check_reconnect()
    section("end")


main()
