"""psqlodbc under pyodbc: a program that uses what the driver has, and tells what it saw."""

import concurrent.futures
import contextlib
import datetime
import decimal
import os
import re
import threading
import time
import uuid

import pyodbc

from common import CLIENTS, DATABASE, HOST, PASSWORD, PORT, USER
from common import cases, digest, say, section, values

pyodbc.pooling = False

ERRORS = (pyodbc.Error, UnicodeError)


def connect(autocommit=True, **options):
    where = {"Driver": os.environ["ODBC_DRIVER"], "Server": HOST, "Port": PORT, "UID": USER}
    where |= {"PWD": PASSWORD, "Database": DATABASE, "SSLmode": "disable"}
    # Values of types that pyodbc has no Python type for arrive as text.
    where |= {"MaxVarcharSize": 255, "ByteaAsLongVarBinary": 1, "BoolsAsChar": 0, **options}
    text = ";".join(f"{name}={value}" for name, value in where.items())
    # It closes when nothing refers to it any more.
    return pyodbc.connect(text, autocommit=autocommit, timeout=20)


def steady(text):
    """Without what differs from run to run: the driver names statements after their addresses, and
    a port is one where the text says so: other numbers may be the same (SQLSTATE 42883)."""
    text = re.sub(r"_PLAN0x[0-9a-f]+", "_PLAN", text)
    return re.sub(rf"\b(port[ =:]*){PORT}\b", r"\1the_port", text, flags=re.IGNORECASE)


def describe(error):
    if not isinstance(error, pyodbc.Error):
        return [type(error).__name__]
    return [type(error).__name__, *(steady(str(part)) for part in error.args)]


def attempt(what, action):
    try:
        say(what, "->", action())
    except ERRORS as error:
        say(what, "->", *describe(error))


def run(conn, sql, *params):
    """The results of all statements: rows, or how many were touched."""
    # pyodbc's own `with` commits.
    with contextlib.closing(conn.cursor()) as cursor:
        cursor.execute(sql, *params)
        results = []
        while True:
            if cursor.description:
                rows = [tuple(row) for row in cursor.fetchall()]
                results.append(([column[1].__name__ for column in cursor.description], rows))
            else:
                # The driver counts nothing for a later statement of several.
                results.append(None if results else cursor.rowcount)
            if not cursor.nextset():
                return results


def check_values():
    section("values")
    others = {"UnknownSizes": 2, "ByteaAsLongVarBinary": 0}
    for options in ({}, {"UseServerSidePrepare": 0}, others):
        with connect(**options) as conn:
            for kind, literal in values():
                quoted = literal.replace("'", "''").replace("?", "' || chr(63) || '")
                attempt(f"{kind} {literal}", lambda: run(conn, f"select ('{quoted}')::{kind}"))
                back = f"select (?::text::{kind})::text, ?::text::{kind}"
                attempt("back", lambda: run(conn, back, literal, literal))
            sent = [
                True, -7, 1 << 40, 1.5, decimal.Decimal("1e-30"), "é'\\", "", b"\x00\xff",
                datetime.datetime(2024, 3, 31, 1, 30, 5, 7), datetime.date(2024, 2, 29),
                datetime.time(23, 59, 59), uuid.UUID(int=5),
            ]
            for value in sent:
                attempt(f"sent {value!r}", lambda: run(conn, "select ?, ?", value, value))
            attempt("null", lambda: run(conn, "select ?::int, ?::text", None, None))


def check_transactions():
    section("transactions")
    count = "select count(*) from people"
    # After an error: nothing, the transaction, or the statement alone is taken back.
    for protocol in ("7.4-0", "7.4-1", "7.4-2"):
        with connect(autocommit=False, Protocol=protocol) as conn:
            say(protocol, run(conn, "insert into people values (10, 'Edsger', 72, null)"))
            say(run(conn, count))
            attempt("twice", lambda: run(conn, "insert into people values (10, 'E', 1, 1)"))
            attempt("after it", lambda: run(conn, count))
            conn.rollback()
            say(run(conn, count))
            run(conn, "insert into people values (11, 'Barbara', 80, 1)")
            run(conn, "savepoint s")
            attempt("broken", lambda: run(conn, "select 1 / ?", 0))
            attempt("back", lambda: run(conn, "rollback to s"))
            attempt("count", lambda: run(conn, count))
            conn.commit()
            run(conn, "delete from people where id = 11")
            conn.commit()
    for level in (pyodbc.SQL_TXN_SERIALIZABLE, pyodbc.SQL_TXN_READ_COMMITTED):
        with connect(autocommit=False) as conn:
            conn.set_attr(pyodbc.SQL_ATTR_TXN_ISOLATION, level)
            say(run(conn, "show transaction_isolation"))
            conn.rollback()
            conn.autocommit = True
            say(run(conn, "show transaction_isolation"))
    with connect(autocommit=False, ReadOnly=1) as conn:
        attempt("read only", lambda: run(conn, "delete from people"))


def check_prepared():
    section("prepared statements")
    for options in ({}, {"UseServerSidePrepare": 0}):
        with connect(**options) as conn:
            cursors = [conn.cursor() for _ in range(60)]
            for turn in range(4):
                for n, cursor in enumerate(cursors):
                    sql = f"select {n} + ?::int, name from people where id = ?"
                    say(turn, tuple(cursor.execute(sql, turn, 1 + n % 2).fetchone()))
            conn.autocommit = False
            for n, cursor in enumerate(cursors):
                sql = f"select {n} + ?::int, name from people where id = ?"
                say(tuple(cursor.execute(sql, n, 1 + n % 2).fetchone()))
                conn.commit()
            conn.autocommit = True
            run(conn, "create table shape (a int)")
            run(conn, "insert into shape values (1)")
            kept = conn.cursor()
            for _ in range(3):
                say([tuple(r) for r in kept.execute("select * from shape where a = ?", 1)])
            run(conn, "alter table shape add b text default 'new'")
            # Prepared anew: a backend that has not seen the old one has nothing to refuse.
            kept = conn.cursor()
            for _ in range(2):
                sql = "select * from shape where a = ?"
                attempt("a changed table", lambda: [tuple(r) for r in kept.execute(sql, 1)])
            run(conn, "drop table shape")
            attempt("a wrong value", lambda: run(conn, "select ?::text::int", "x"))
            run(conn, "deallocate all")
            sql = "select 3 + ?::int, name from people where id = ?"
            attempt("deallocated", lambda: tuple(cursors[3].execute(sql, 1, 1).fetchone()))
            attempt("then", lambda: run(conn, "select ?::int", 5))


def check_session():
    section("session")
    with connect() as conn:
        for sql in cases("session.sql"):
            attempt(sql, lambda: run(conn, sql))
    settings = "{set search_path to other;set time zone 'Europe/Berlin'}"
    with connect(ConnSettings=settings) as conn:
        say(run(conn, "select * from people"))
        say(run(conn, "select (timestamptz '2024-07-01 12:00Z')::text"))
        run(conn, "reset all")
        say(run(conn, "show search_path"), run(conn, "show timezone"))
        run(conn, "show datestyle")


def check_catalog():
    section("catalog")
    with connect() as conn, contextlib.closing(conn.cursor()) as cursor:
        say([tuple(row)[1:4] for row in cursor.tables(schema="public")])
        for row in cursor.columns(table="people"):
            say(row.column_name, row.type_name, row.data_type, row.nullable, row.column_def)
        say([(r.column_name, r.key_seq, r.pk_name) for r in cursor.primaryKeys(table="people")])
        say([tuple(row)[1:6] for row in cursor.statistics("people")])
        say([tuple(row)[1:9] for row in cursor.foreignKeys(table="people")])
        say([(row.type_name, row.data_type) for row in cursor.getTypeInfo()])
        say(conn.getinfo(pyodbc.SQL_DBMS_NAME), conn.getinfo(pyodbc.SQL_DATABASE_NAME))


def check_cursors():
    section("cursors")
    # The driver declares a cursor for every query and fetches a few rows at a time.
    with connect(autocommit=False, UseDeclareFetch=1, Fetch=7) as conn:
        with contextlib.closing(conn.cursor()) as cursor:
            cursor.execute("select i, repeat('x', i) from generate_series(1, 30) i")
            say(tuple(cursor.fetchone()), len(cursor.fetchmany(3)), sum(row[0] for row in cursor))
        first, second = conn.cursor(), conn.cursor()
        first.execute("select generate_series(1, 20)")
        second.execute("select generate_series(101, 120)")
        say([(a[0], b[0]) for a, b in zip(first, second)])
        conn.commit()
        attempt("failing", lambda: run(conn, "select 10 / (5 - i) from generate_series(1, 9) i"))
        conn.rollback()
    with connect(UseDeclareFetch=1, Fetch=7) as conn:
        say(run(conn, "select sum(i) from (select generate_series(1, 5000) i) s"))
        say(len(run(conn, "select generate_series(1, 500)")[0][1]))
    with connect() as conn, contextlib.closing(conn.cursor()) as cursor:
        cursor.execute("select generate_series(1, 10)")
        cursor.skip(4)
        say(tuple(cursor.fetchone()))


def check_many_rows():
    section("many rows")
    with connect(autocommit=False) as conn:
        for fast in (False, True):
            with contextlib.closing(conn.cursor()) as cursor:
                cursor.fast_executemany = fast
                rows = [(n, f"t{n}") for n in range(500)]
                cursor.executemany("insert into things (n, t) values (?, ?)", rows)
                say(run(conn, "select count(*), sum(n)::int, count(t) from things"))
                twice = [(500, "Ada", None), (500, "Twice", None)]
                sql = "insert into people (id, name, age) values (?, ?, ?)"
                attempt("failing", lambda: cursor.executemany(sql, twice))
            conn.rollback()
            say(run(conn, "select count(*) from things"))


def check_errors():
    section("errors")
    for options in ({}, {"UseServerSidePrepare": 0}):
        with connect(**options) as conn:
            for sql in cases("errors.sql"):
                attempt(sql, lambda: run(conn, sql))
                attempt("with a value", lambda: run(conn, f"{sql} -- ?"))
            attempt("several", lambda: run(conn, "select 1; select 2; select nope; select 3"))
            attempt("all good", lambda: run(conn, "select 1; set my.own = 'x'; select 2, 3"))
            say(run(conn, "select 'still here'"))


def check_notices():
    section("notices")
    with connect() as conn, contextlib.closing(conn.cursor()) as cursor:
        for sql in ("select chat('you')", "drop table if exists never_there"):
            cursor.execute(sql)
            say(sql, steady(repr(cursor.messages)))


def check_cancel():
    section("cancel")
    for autocommit in (True, False):
        with connect(autocommit=autocommit) as conn:
            with contextlib.closing(conn.cursor()) as cursor:
                timer = threading.Timer(0.4, cursor.cancel)
                timer.start()
                attempt("cancelled", lambda: cursor.execute("select pg_sleep(30)"))
                timer.join()
            conn.rollback()
            say(run(conn, "select 'still here'"))
            run(conn, "set statement_timeout = '200ms'")
            conn.commit()
            attempt("timed out", lambda: run(conn, "select pg_sleep(30)"))
            conn.rollback()
            run(conn, "reset statement_timeout")
            say(run(conn, "select 'still here'"), run(conn, "show statement_timeout"))


def check_big():
    section("big values")
    with connect(MaxLongVarcharSize=30 << 20) as conn:
        for size in (1 << 20, 20 << 20):
            text, data = "0123456789abcdef" * (size // 16), bytes(range(256)) * (size // 256)
            say(run(conn, "select length(?::text), md5(?::text)", text, text))
            say(digest(run(conn, "select ?::bytea", data)[0][1][0][0]))
            say(digest(run(conn, f"select repeat('é', {size // 2})")[0][1][0][0]))
        rows = run(conn, "select i, md5(i::text) from generate_series(1, 50000) i")[0][1]
        say(digest("".join(row[1] for row in rows)))


def one_of_many(number):
    """Must see what it set itself and nothing of the others."""
    seen = []
    with connect(ConnSettings=f"set application_name to 'client {number}'") as conn:

        def see(sql, *params):
            try:
                seen.append(run(conn, sql, *params))
            except pyodbc.Error as error:
                seen.append(describe(error))

        zone = ("UTC", "Asia/Tokyo", "Europe/Berlin", "America/New_York")[number % 4]
        see(f"set time zone '{zone}'")
        see(f"set my.number = {number}")
        see(f"set search_path = {'other' if number % 2 else 'public'}")
        see(f"prepare mine as select {number}")
        temporary = number % 8 == 0
        if temporary:
            see(f"create temporary table mine as select {number} as n")
        kept = conn.cursor()
        for turn in range(5):
            conn.autocommit = False
            see("show timezone")
            see("show my.number")
            see("select name from people order by id limit 1")
            conn.commit()
            conn.autocommit = True
            see("execute mine")
            see("show application_name")
            seen.append(tuple(kept.execute(f"select {number} + ?", turn).fetchone()))
            see("select to_regclass('mine') is null")
            if temporary:
                see("select * from mine")
            see("select 1 / ?::int", 0)
            see("select name from pg_prepared_statements where name = 'mine'")
    conn.close()
    return seen


def check_many():
    section("many clients")
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as executor:
        for number, seen in enumerate(executor.map(one_of_many, range(CLIENTS))):
            say(number, seen)


def check_reconnect():
    section("reconnect")
    with connect() as other:
        conn = connect(autocommit=False)
        pid = run(conn, "select pg_backend_pid()")[0][1][0][0]
        terminate = threading.Timer(0.4, lambda: run(other, f"select pg_terminate_backend({pid})"))
        terminate.start()
        attempt("terminated", lambda: run(conn, "select pg_sleep(30)"))
        terminate.join()
        attempt("closed", lambda: run(conn, "select 1"))
        with connect() as again:
            say(run(again, "select 'a new one works'"))
        conn = connect()
        attempt("by itself", lambda: run(conn, "select pg_terminate_backend(pg_backend_pid())"))
        attempt("closed", lambda: run(conn, "select 1"))
        say(run(other, "select 'the other one too'"))
    attempt("no such database", lambda: connect(Database="nosuch"))


def main():
    with connect() as conn:
        for sql in cases("schema.sql"):
            run(conn, sql)
    check_values()
    check_transactions()
    check_prepared()
    check_session()
    check_catalog()
    check_cursors()
    check_many_rows()
    check_errors()
    check_notices()
    check_cancel()
    check_big()
    check_many()
    check_reconnect()
    section("end")


main()
