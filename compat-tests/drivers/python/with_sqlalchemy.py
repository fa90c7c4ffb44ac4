"""SQLAlchemy over psycopg or asyncpg: a program that uses the ORM, and tells what it saw."""

import asyncio
import concurrent.futures
import datetime
import decimal
import sys
import uuid

import sqlalchemy as sa
from sqlalchemy import exc, orm
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import greenlet_spawn

from common import CLIENTS, DATABASE, HOST, PASSWORD, PORT, USER
from common import cases, digest, say, section

DRIVER = sys.argv[1]


class Base(orm.DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(sa.String(40), unique=True)
    born: orm.Mapped[datetime.date | None]
    tags: orm.Mapped[list[str] | None] = orm.mapped_column(pg.ARRAY(sa.Text))
    extra: orm.Mapped[dict | None] = orm.mapped_column(pg.JSONB)
    books: orm.Mapped[list["Book"]] = orm.relationship(back_populates="author", order_by="Book.id")


class Book(Base):
    __tablename__ = "books"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    key: orm.Mapped[uuid.UUID]
    title: orm.Mapped[str]
    price: orm.Mapped[decimal.Decimal | None] = orm.mapped_column(sa.Numeric)
    cover: orm.Mapped[bytes | None]
    printed: orm.Mapped[datetime.datetime | None] = orm.mapped_column(sa.DateTime(timezone=True))
    took: orm.Mapped[datetime.timedelta | None]
    author_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("authors.id"))
    author: orm.Mapped[Author] = orm.relationship(back_populates="books")


def where(database=DATABASE):
    return sa.URL.create(f"postgresql+{DRIVER}", USER, PASSWORD, HOST, PORT, database)


def describe(error):
    if isinstance(error, exc.DBAPIError):
        state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
        text = str(error.orig).split("\n")[0]
        return [type(error).__name__, type(error.orig).__name__, state, text]
    return [type(error).__name__, str(error).split("\n")[0]]


def attempt(what, action):
    try:
        say(what, "->", action())
    except (exc.SQLAlchemyError, OSError) as error:
        say(what, "->", *describe(error))


def rows(conn, sql, **parameters):
    result = conn.execute(sa.text(sql), parameters)
    return [tuple(row) for row in result] if result.returns_rows else result.rowcount


def check_orm(engine):
    section("orm")
    Base.metadata.create_all(engine)
    zone = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
    with orm.Session(engine) as session:
        ada = Author(name="Ada", born=datetime.date(1815, 12, 10))
        ada.tags, ada.extra = ["a", "é"], {"x": [1]}
        for n in range(5):
            ada.books.append(
                Book(
                    key=uuid.UUID(int=n), title=f"Volume {n}", price=decimal.Decimal(n) / 4,
                    cover=bytes(range(n)), took=datetime.timedelta(days=n, microseconds=n),
                    printed=datetime.datetime(1843, 1, 1, 12, n, tzinfo=zone),
                )
            )
        session.add_all([ada, Author(name="Grace")])
        session.flush()
        say(ada.id, [book.id for book in ada.books])
        session.commit()
        say(ada.name, ada.born, ada.tags, ada.extra)
        for book in ada.books:
            printed = book.printed.astimezone(datetime.timezone.utc)
            say(book.key, book.title, book.price, book.cover, printed, book.took)
        session.add(Author(name="Ada"))
        attempt("twice", session.commit)
        session.rollback()
        with session.begin_nested():
            session.add(Author(name="Barbara"))
        try:
            with session.begin_nested():
                session.add_all([Author(name="Edsger"), Author(name="Ada")])
        except exc.IntegrityError as error:
            say("nested", *describe(error))
        session.commit()
        names = sa.select(Author.name).order_by(Author.name)
        say(session.scalars(names).all())
        found = sa.select(Author).options(orm.selectinload(Author.books)).order_by(Author.id)
        say([(a.name, len(a.books)) for a in session.scalars(found)])
        joined = (
            sa.select(Author.name, sa.func.count(Book.id), sa.func.sum(Book.price))
            .outerjoin(Book).group_by(Author.name).order_by(Author.name)
        )
        say(session.execute(joined).all())
        grace = session.scalars(sa.select(Author).where(Author.name == "Grace")).one()
        grace.extra = {"b": None, "a": 1.5}
        session.commit()
        say(session.scalar(sa.select(Author.extra["a"].as_float()).where(Author.id == grace.id)))
        locked = sa.select(Author.id).with_for_update(skip_locked=True).order_by(Author.id)
        say(session.scalars(locked).all())
        session.delete(grace)
        session.commit()
        upsert = pg.insert(Author).values(name="Ada", tags=["new"])
        upsert = upsert.on_conflict_do_update(index_elements=["name"], set_={"tags": ["again"]})
        say(session.execute(upsert.returning(Author.tags)).all())
        session.commit()


def check_core(engine):
    section("core")
    with engine.begin() as conn:
        books = [
            {"key": uuid.UUID(int=n), "title": f"b{n}", "author_id": 1} for n in range(3000)
        ]
        say(conn.execute(sa.insert(Book), books).rowcount)
        returned = conn.execute(sa.insert(Book).returning(Book.title), books[:1500])
        say(len(returned.all()))
        say(rows(conn, "select count(*), count(distinct id) from books"))
        conn.execute(sa.delete(Book).where(Book.id > 5))
    with engine.connect() as conn:
        for turn in range(4):
            for n in range(130):
                say(turn, rows(conn, f"select {n}, name from authors where id = :id", id=1))
                conn.commit()
        streamed = conn.execution_options(stream_results=True, yield_per=70)
        numbers = streamed.execute(sa.text("select i from generate_series(1, 5000) i"))
        say(sum(sum(part) for part in numbers.scalars().partitions()))
        conn.rollback()
        attempt("broken", lambda: rows(conn, "select 1 / 0"))
        attempt("aborted", lambda: rows(conn, "select 1"))
        conn.rollback()
    for level in ("SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED", "AUTOCOMMIT"):
        with engine.connect().execution_options(isolation_level=level) as conn:
            say(level, rows(conn, "show transaction_isolation"), conn.get_isolation_level())
    options = {"postgresql_readonly": True, "postgresql_deferrable": True}
    with engine.connect().execution_options(isolation_level="SERIALIZABLE", **options) as conn:
        say(rows(conn, "show transaction_read_only"), rows(conn, "show transaction_deferrable"))
        attempt("read only", lambda: rows(conn, "delete from books"))
    with engine.connect() as conn:
        say(rows(conn, "show transaction_isolation"), rows(conn, "show transaction_read_only"))


def check_reflection(engine):
    section("reflection")
    inspector = sa.inspect(engine)
    for table in inspector.get_table_names():
        columns = [(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(table)]
        say(table, columns, inspector.get_foreign_keys(table), inspector.get_indexes(table))
    say(inspector.get_schema_names(), inspector.get_enums())


def check_session(engine):
    section("session")
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as conn:
        for sql in cases("session.sql"):
            attempt(sql, lambda: rows(conn, sql.replace(":", r"\:")))
    section("errors")
    with autocommit.connect() as conn:
        for sql in cases("errors.sql"):
            attempt(sql, lambda: rows(conn, sql.replace(":", r"\:")))


def check_big(engine):
    section("big values")
    with engine.connect() as conn:
        for size in (1 << 20, 20 << 20):
            data = bytes(range(256)) * (size // 256)
            back = conn.scalar(sa.select(sa.literal(data, sa.LargeBinary)))
            say(digest(back))
            text = "0123456789abcdef" * (size // 16)
            say(digest(conn.scalar(sa.text("select cast(:t as text)"), {"t": text})))


def one_of_many(engine, number):
    """Must see what it set itself and nothing of the others."""
    seen = []
    with engine.connect() as conn:
        zone = ("UTC", "Asia/Tokyo", "Europe/Berlin", "America/New_York")[number % 4]
        conn.execute(sa.text(f"set time zone '{zone}'"))
        conn.execute(sa.text(f"set my.number = {number}"))
        conn.commit()
        for turn in range(5):
            seen += rows(conn, "show timezone") + rows(conn, "show my.number")
            seen += rows(conn, f"select {number} + cast(:turn as int)", turn=turn)
            try:
                rows(conn, "select 1 / 0")
            except exc.DBAPIError as error:
                seen.append(type(error).__name__)
            conn.rollback()
        conn.execute(sa.text("reset all"))
        conn.commit()
    return seen


def pool_of(make, **options):
    return make(where(), pool_size=CLIENTS, pool_timeout=60, **options)


def check_reconnect(engine):
    section("reconnect")
    with engine.connect() as conn:
        pid = conn.scalar(sa.text("select pg_backend_pid()"))
        with engine.connect() as other:
            rows(other, "select pg_terminate_backend(:pid)", pid=pid)
            rows(other, "select pg_sleep(0.2)")
        attempt("terminated", lambda: rows(conn, "select 1"))
        say(conn.invalidated)
        conn.rollback()
        say(rows(conn, "select 'reconnected'"))
    with engine.connect() as conn:
        say(rows(conn, "select 'the pool works'"))


def main(engine):
    check_orm(engine)
    check_core(engine)
    check_reflection(engine)
    with engine.begin() as conn:
        Base.metadata.drop_all(conn)
        for sql in cases("schema.sql"):
            conn.execute(sa.text(sql.replace(":", r"\:")))
    check_session(engine)
    check_big(engine)
    check_reconnect(engine)


def with_threads():
    engine = sa.create_engine(where(), pool_pre_ping=True)
    main(engine)
    engine.dispose()
    section("many clients")
    engine = pool_of(sa.create_engine)
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as executor:
        clients = executor.map(lambda number: one_of_many(engine, number), range(CLIENTS))
        for number, seen in enumerate(clients):
            say(number, seen)
    engine.dispose()


async def with_tasks():
    engine = create_async_engine(where(), pool_pre_ping=True)
    await greenlet_spawn(main, engine.sync_engine)
    await engine.dispose()
    section("many clients")
    engine = pool_of(create_async_engine)
    each = [greenlet_spawn(one_of_many, engine.sync_engine, n) for n in range(CLIENTS)]
    for number, seen in enumerate(await asyncio.gather(*each)):
        say(number, seen)
    await engine.dispose()


if DRIVER == "asyncpg":
    asyncio.run(with_tasks())
else:
    with_threads()
section("end")
