"""asyncpg: a program that uses what the driver has, and tells what it saw."""

import asyncio
import datetime
import decimal
import io
import uuid

import asyncpg

from common import CLIENTS, DATABASE, HOST, PASSWORD, PORT, USER
from common import cases, digest, say, section, values

WHERE = {"host": HOST, "port": PORT, "user": USER, "password": PASSWORD, "database": DATABASE}


async def connect(**options):
    return await asyncpg.connect(**{**WHERE, "ssl": False, "timeout": 60, **options})


def describe(error):
    """Everything that PostgreSQL said about an error."""
    if not isinstance(error, asyncpg.PostgresError):
        return [type(error).__name__, str(error).split(" at 0x")[0]]
    fields = {name: value for name, value in error.as_dict().items() if value is not None}
    for varying in ("server_source_filename", "server_source_line", "server_source_function"):
        fields.pop(varying, None)
    return [type(error).__name__, fields]


async def attempt(what, action):
    try:
        result = await action()
        say(what, "->", result)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        say(what, "->", *describe(error))


async def rows(conn, sql, *params):
    return [tuple(row) for row in await conn.fetch(sql, *params)]


async def check_values(conn):
    section("values")
    for kind, literal in values():
        quoted = literal.replace("'", "''")

        async def there_and_back():
            value = await conn.fetchval(f"select '{quoted}'::{kind}")
            back = await conn.fetchval(f"select ($1::{kind})::text", value)
            return value, back

        await attempt(f"{kind} {literal}", there_and_back)
    sent = [
        ("int8", 1 << 40), ("numeric", decimal.Decimal("NaN")), ("bytea", b"\x00\xff"),
        ("numeric", decimal.Decimal("1e90")),
        ("timestamptz", datetime.datetime(2024, 3, 31, 1, 30, tzinfo=datetime.timezone.utc)),
        ("interval", datetime.timedelta(days=-3, microseconds=7)), ("uuid", uuid.UUID(int=5)),
        ("int4[]", [1, None, 3]), ("text[]", [["a", None], ["b", "c"]]), ("int4", "wrong"),
        ("date", datetime.date.max), ("bool", None), ("people", (1, "x", None, None)),
    ]
    for kind, value in sent:
        await attempt(f"sent {value!r}", lambda: conn.fetchval(f"select $1::{kind}", value))
    await conn.set_type_codec("jsonb", schema="pg_catalog", encoder=repr, decoder=len)
    say(await rows(conn, "select '[1,2]'::jsonb, $1::jsonb", 5))
    await conn.reset_type_codec("jsonb", schema="pg_catalog")
    say(await rows(conn, "select row(1, 'a', null::int) as r, 'sad'::mood"))


async def check_transactions(conn):
    section("transactions")
    count = "select count(*) from people"
    transaction = conn.transaction()
    await transaction.start()
    await conn.execute("insert into people values (10, 'Edsger', 72, null)")
    say(conn.is_in_transaction(), await conn.fetchval(count))
    await transaction.rollback()
    say(conn.is_in_transaction(), await conn.fetchval(count))
    async with conn.transaction():
        await conn.execute("insert into people values (11, 'Barbara', 80, 1)")

        async def inner():
            async with conn.transaction():
                await conn.execute("insert into people values (12, 'Donald', 86, 1)")
                await conn.execute("insert into people values (12, 'Twice', 1, 1)")

        await attempt("inner", inner)
        say(await conn.fetchval(count))
    for options in (
        {"isolation": "serializable", "readonly": True, "deferrable": True},
        {"isolation": "repeatable_read"},
        {"isolation": "read_committed", "readonly": True},
    ):
        async with conn.transaction(**options):
            say(await conn.fetchval("show transaction_isolation"))
            say(await conn.fetchval("show transaction_read_only"))
    transaction = conn.transaction()
    await transaction.start()
    await attempt("broken", lambda: conn.fetch("select 1 / 0"))
    await attempt("aborted", lambda: conn.fetch(count))
    await transaction.rollback()
    say(await conn.execute("delete from people where id = 11"), await conn.fetchval(count))


async def check_prepared():
    section("prepared statements")
    conn = await connect(statement_cache_size=20)
    for turn in range(4):
        for n in range(60):
            async with conn.transaction():
                sql = f"select {n} + $1::int, name from people where id = $2"
                say(turn, await rows(conn, sql, turn, 1 + n % 2))
    kept = [await conn.prepare(f"select $1::int + {n}") for n in range(30)]
    named = await conn.prepare("select $1::text || 'x', $2::int", name="a name of its own")
    for turn in range(5):
        async with conn.transaction():
            say([await statement.fetchval(turn) for statement in kept])
        say(await named.fetch("y", turn), named.get_statusmsg())
    say([p.name for p in named.get_parameters()], [a.name for a in named.get_attributes()])
    say(await rows(conn, "select statement from pg_prepared_statements where name ~ 'own'"))
    await conn.execute("create table shape (a int); insert into shape values (1)")
    statement = await conn.prepare("select * from shape")
    say(await statement.fetch())
    await conn.execute("alter table shape add b text default 'new'")
    await attempt("a changed table", statement.fetch)
    await attempt("through the cache", lambda: rows(conn, "select * from shape"))
    await conn.execute("drop table shape")
    await conn.execute("deallocate all")
    await attempt("after deallocate all", lambda: kept[0].fetchval(1))
    await conn.reload_schema_state()
    await attempt("a wrong value", lambda: conn.fetch("select $1::int", "x"))
    say(await rows(conn, "select $1::int", 5))
    await conn.close()
    conn = await connect(statement_cache_size=0)
    for n in range(5):
        say(await rows(conn, "select $1::int, $2::text", n, "uncached"))
    await conn.close()


async def check_session():
    section("session")
    for simple in (True, False):
        conn = await connect(statement_cache_size=0)
        for sql in cases("session.sql"):
            await attempt(sql, lambda: conn.execute(sql) if simple else rows(conn, sql))
        await conn.close()
    settings = {"search_path": "other", "timezone": "Europe/Berlin", "application_name": "mine"}
    conn = await connect(server_settings=settings)
    say(await rows(conn, "select * from people"), await conn.fetchval("show application_name"))
    say(await conn.fetchval("select timestamptz '2024-07-01 12:00Z'::text"))
    say(conn.get_settings().TimeZone, conn.get_settings().application_name)
    await conn.execute("set timezone = 'Asia/Tokyo'; set application_name = 'another'")
    say(conn.get_settings().TimeZone, conn.get_settings().application_name)
    await conn.reset()
    say(conn.get_settings().TimeZone, await conn.fetchval("show search_path"))
    await conn.close()


async def check_cursors(conn):
    section("cursors")
    async with conn.transaction():
        cursor = await conn.cursor("select i, repeat('x', i) from generate_series(1, 30) i")
        say(await cursor.fetchrow(), await cursor.fetch(3), await cursor.forward(10))
        other = await conn.cursor("select $1::int + i from generate_series(1, 20) i", 100)
        say(await other.fetch(5), await cursor.fetch(2), await other.fetch(5))
        say(len(await cursor.fetch(100)), await cursor.fetchrow())
        total = 0
        async for row in conn.cursor("select generate_series(1, 5000)", prefetch=70):
            total += row[0]
        say(total)
    await attempt("without a transaction", lambda: conn.cursor("select 1"))


async def check_copy(conn):
    section("copy")
    await conn.execute("create table copied (id int, name text, data bytea)")
    records = [(n, f"n\t{n}\\", bytes([n % 256])) for n in range(5000)]
    say(await conn.copy_records_to_table("copied", records=records))
    source = io.BytesIO(b"5000,five,\\x00\n5001,,\n")
    say(await conn.copy_to_table("copied", source=source, format="csv"))
    out = io.BytesIO()
    say(await conn.copy_from_query("select * from copied order by id", output=out))
    say(digest(out.getvalue()))
    out = io.BytesIO()
    say(await conn.copy_from_query("select $1::int, 'é'", 7, output=out, format="binary"))
    say(out.getvalue())
    say(await conn.copy_from_table("people", columns=["name"], output=io.BytesIO(), format="csv"))
    wrong = io.BytesIO(b"x\ty\n")
    await attempt("malformed", lambda: conn.copy_to_table("copied", source=wrong))
    wrong = [(1, "x", "no bytes")]
    try:
        await conn.copy_records_to_table("copied", records=wrong)
    except Exception as error:
        say(type(error).__name__)
    out = io.BytesIO()
    await attempt("failing", lambda: conn.copy_from_table("nowhere", output=out))
    say(await conn.fetchval("select count(*) from copied"))
    await conn.execute("drop table copied")


async def check_errors(conn):
    section("errors")
    for sql in cases("errors.sql"):
        await attempt(sql, lambda: conn.execute(sql))
        await attempt(f"prepared: {sql}", lambda: rows(conn, sql))
    await attempt("several", lambda: conn.execute("select 1; select 2; select nope; select 3"))
    say(await rows(conn, "select 'still here'"))


async def check_notices(conn):
    section("notices")
    seen = []
    conn.add_log_listener(lambda _, m: seen.append((m.severity, m.sqlstate, m.message, m.hint)))
    say(await rows(conn, "select chat('you')"))
    async with conn.transaction():
        await conn.execute("drop table if exists never_there")
        await conn.execute("set local client_min_messages = 'warning'; select chat('again')")
    await asyncio.sleep(0.05)
    say(seen)


async def check_notify(sender):
    section("notifications")
    listener = await connect()
    heard = asyncio.Queue()

    def hear(_, __, channel, payload):
        heard.put_nowait((channel, payload))

    async def said(count):
        return sorted([await asyncio.wait_for(heard.get(), 10) for _ in range(count)])

    await listener.add_listener("news", hear)
    await listener.add_listener("Other News", hear)
    await sender.execute("notify news, 'one'")
    await sender.execute("select pg_notify('Other News', 'two é')")
    async with sender.transaction():
        await sender.execute("notify news, 'three'")
    await sender.execute("begin; notify news, 'never'; rollback")
    say(await said(3))
    await listener.execute("notify news, 'to myself'")
    say(await said(1))
    say(await rows(listener, "select * from pg_listening_channels()"))
    await listener.remove_listener("news", hear)
    await sender.execute("notify news, 'unheard'; notify \"Other News\", 'heard'")
    say(await said(1), heard.empty())
    await listener.remove_listener("Other News", hear)
    await listener.close()


async def check_cancel(conn):
    section("cancel")
    for in_transaction in (False, True):
        transaction = conn.transaction()
        if in_transaction:
            await transaction.start()
        try:
            await conn.fetch("select pg_sleep(30)", timeout=0.3)
        except asyncio.TimeoutError:
            say("timed out")
        task = asyncio.create_task(conn.fetch("select pg_sleep(30)"))
        await asyncio.sleep(0.3)
        task.cancel()
        try:
            await task
        except (asyncio.CancelledError, asyncpg.PostgresError) as error:
            say(type(error).__name__)
        if in_transaction:
            await attempt("aborted", lambda: conn.fetch("select 1"))
            await transaction.rollback()
        say(await rows(conn, "select 'still here'"))
    await conn.execute("set statement_timeout = '200ms'")
    await attempt("timed out", lambda: conn.fetch("select pg_sleep(30)"))
    await conn.execute("reset statement_timeout")
    say(await rows(conn, "select 'still here'"))


async def check_big(conn):
    section("big values")
    for size in (1 << 20, 20 << 20):
        text, data = "0123456789abcdef" * (size // 16), bytes(range(256)) * (size // 256)
        say(await rows(conn, "select length($1::text), md5($1::text)", text))
        say(digest(await conn.fetchval("select $1::bytea", data)))
        say(digest(await conn.fetchval("select repeat('é', $1)", size // 2)))
    many = await conn.fetch("select i, md5(i::text) from generate_series(1, 50000) i")
    say(digest("".join(row[1] for row in many)))


async def check_batches(conn):
    section("batches")
    insert = "insert into things (n, t) values ($1, $2)"
    await conn.executemany(insert, [(n, f"t{n}") for n in range(2000)])
    say(await rows(conn, "select count(*), sum(n), count(t) from things"))
    batch = [(1, "a"), (2, "b")]
    say(await conn.fetchmany("insert into things (n, t) values ($1, $2) returning n", batch))
    unique = "insert into people values ($1, $2, 1, null)"
    wrong = [(50, "fifty"), (51, "fifty-one"), (50, "again")]
    await attempt("all or nothing", lambda: conn.executemany(unique, wrong))
    say(await rows(conn, "select id, name from people order by id"))
    say(await conn.execute("select 1; set my.own = 'x'; select 2"))
    await conn.execute("delete from things")


async def one_of_many(pool, number):
    """Must see what it set itself and nothing of the others."""
    seen = []
    async with pool.acquire() as conn:
        zone = ("UTC", "Asia/Tokyo", "Europe/Berlin", "America/New_York")[number % 4]
        await conn.execute(f"set time zone '{zone}'; set my.number = {number}")
        await conn.execute(f"set search_path = {'other' if number % 2 else 'public'}")
        await conn.execute(f"prepare mine as select {number}")
        mine = await conn.prepare(f"select {number} + $1::int")
        temporary = number % 8 == 0
        if temporary:
            await conn.execute("create temporary table mine (n int)")
            await conn.execute("insert into mine values ($1)", number)
        for turn in range(5):
            async with conn.transaction():
                seen.append(await conn.fetchval("show timezone"))
                seen.append(await conn.fetchval("show my.number"))
                seen += await rows(conn, "select name from people order by id limit 1")
            seen += await rows(conn, "execute mine")
            seen.append(await mine.fetchval(turn))
            seen.append(await conn.fetchval("select to_regclass('mine') is null"))
            if temporary:
                seen += await rows(conn, "select * from mine")
            try:
                await conn.fetch(f"select {number} / 0")
            except asyncpg.PostgresError as error:
                seen.append(error.sqlstate)
            names = "select name from pg_prepared_statements where name = 'mine'"
            seen += await rows(conn, names)
        # The pool resets settings when it gets the connection back, but not these.
        await conn.execute("deallocate mine; drop table if exists mine")
    return seen


async def check_many():
    section("many clients")
    async with asyncpg.create_pool(
        **WHERE, ssl=False, min_size=0, max_size=CLIENTS, timeout=60
    ) as pool:
        for _ in range(2):
            clients = [one_of_many(pool, number) for number in range(CLIENTS)]
            for number, seen in enumerate(await asyncio.gather(*clients)):
                say(number, seen)


async def check_reconnect(other):
    section("reconnect")
    for busy in (True, False):
        conn = await connect()
        await conn.execute("begin")
        pid = await conn.fetchval("select pg_backend_pid()")
        if busy:
            task = asyncio.create_task(conn.fetch("select pg_sleep(30)"))
            await asyncio.sleep(0.3)
        await other.execute(f"select pg_terminate_backend({pid})")
        await asyncio.sleep(0.2)
        if busy:
            await attempt("terminated", lambda: task)
        say(conn.is_closed())
        await attempt("closed", lambda: conn.fetch("select 1"))
        again = await connect()
        say(await rows(again, "select 'a new one works'"))
        await again.close()
    conn = await connect()
    itself = "select pg_terminate_backend(pg_backend_pid())"
    await attempt("by itself", lambda: conn.fetch(itself))
    say(conn.is_closed(), await rows(other, "select 'the other one too'"))
    await attempt("no such database", lambda: connect(database="nosuch"))


async def main():
    conn = await connect()
    for sql in cases("schema.sql"):
        await conn.execute(sql)
    await check_values(conn)
    await check_transactions(conn)
    await check_prepared()
    await check_session()
    await check_cursors(conn)
    await check_copy(conn)
    await check_errors(conn)
    await check_notices(conn)
    await check_notify(conn)
    await check_cancel(conn)
    await check_big(conn)
    await check_batches(conn)
    await check_many()
    await check_reconnect(conn)
    await conn.close()
    section("end")


asyncio.run(main())
