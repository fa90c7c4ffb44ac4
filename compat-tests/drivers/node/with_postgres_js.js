// postgres.js: a program that uses what the driver has, and tells what it saw.
'use strict'

const { Readable } = require('stream')
const { pipeline } = require('stream/promises')
const postgres = require('postgres')
const { CLIENTS, attempt, cases, digest, say, section, sleep, values, where, zoneOf } =
  require('./common.js')

const { user: username, ...rest } = where
const notices = []

// One connection, unless told otherwise.
const connect = (options = {}) => postgres({
  ...rest, username, max: 1, onnotice: (notice) => notices.push(notice), ...options,
})

const all = (result) => [result.command, result.count, [...result]]

async function checkValues(sql) {
  section('values')
  for (const [kind, literal] of values()) {
    const quoted = literal.replaceAll("'", "''")
    await attempt(`${kind} ${literal}`, async () => {
      const [{ v }] = await sql.unsafe(`select '${quoted}'::${kind} as v`)
      const [{ back }] = await sql.unsafe(`select ($1::text::${kind})::text as back`, [literal])
      return [v, String(v), back]
    })
  }
  const sent = [true, -7, 1.5, 'é', Buffer.from([0, 255]), new Date(Date.UTC(2024, 2, 31))]
  for (const value of sent) await attempt('sent', () => sql`select ${value} as v`)
  await attempt('null', () => sql`select ${null}::int as v`)
  await attempt('json', () => sql`select ${sql.json({ a: [1, null] })} as v`)
  await attempt('array', () => sql`select ${sql.array([1, 2, 3], 1007)}::int4[] as v`)
  const things = sql([{ n: 1, t: 'a' }, { n: 2, t: 'b' }])
  await attempt('insert', () => sql`insert into things ${things} returning n, t`)
  const names = sql(['a', 'b'])
  await attempt('where in', () => sql`select n from things where t in ${names} order by n`)
  const change = sql({ t: 'c' }, ['t'])
  await attempt('update', () => sql`update things set ${change} where n = ${1} returning t`)
  await sql`delete from things`
  const parallel = Array.from({ length: 200 }, (_, n) => sql`select ${n}::int * 2 as v`)
  say((await Promise.all(parallel)).map(([{ v }]) => v))
  const statement = await sql`select ${1}::int as a, ${'x'} as b`.describe()
  say(statement.columns.map((column) => [column.name, column.type]), statement.types)
  say(await sql`select 1 as a, 2 as b`.values(), await sql`select 1 as a`.raw())
}

async function checkTransactions(sql) {
  section('transactions')
  const count = (on) => on`select count(*) from people`.then(([row]) => row.count)
  await attempt('committed', () => sql.begin(async (sql) => {
    await sql`insert into people values (11, 'Barbara', 80, 1)`
    return count(sql)
  }))
  await attempt('rolled back', () => sql.begin(async (sql) => {
    await sql`insert into people values (10, 'Edsger', 72, null)`
    say(await count(sql))
    throw new Error('no')
  }))
  await attempt('savepoint', () => sql.begin('isolation level serializable', async (sql) => {
    await sql.savepoint(async (sql) => {
      await sql`insert into people values (12, 'Donald', 86, 1)`
      await sql`insert into people values (12, 'Twice', 1, 1)`
    }).catch((error) => say(error.code))
    say(await sql`show transaction_isolation`)
    return count(sql)
  }))
  await attempt('pipelined', () => sql.begin((sql) => [
    sql`select 1 as a`, sql`set local my.own = 'x'`, sql`show my.own`, sql`select ${2}::int as b`,
  ]))
  await attempt('read only', () => sql.begin('read only', (sql) => sql`delete from people`))
  await attempt('an error in the middle', () => sql.begin((sql) => [
    sql`insert into people values (13, 'Alan', 41, 1)`, sql`select 1 / 0`, sql`select 2`,
  ]))
  say(await count(sql), await sql`delete from people where id = 11 returning name`)
}

async function checkPrepared(sql) {
  section('prepared statements')
  for (let turn = 0; turn < 4; turn++) {
    for (let n = 0; n < 150; n++) {
      const text = `select ${n} + $1::int as a, name from people where id = $2`
      const ask = (on) => on.unsafe(text, [turn, 1 + (n % 2)], { prepare: true })
      say(turn, await (n % 3 ? ask(sql) : sql.begin(ask)))
    }
  }
  await sql`create table shape (a int)`
  await sql`insert into shape values (1)`
  say(await sql`select * from shape`)
  await sql`alter table shape add b text default 'new'`
  await attempt('a changed table', () => sql`select * from shape`)
  await attempt('again', () => sql`select * from shape`)
  await attempt('a wrong value', () => sql`select ${'x'}::int`)
  await attempt('then', () => sql`select ${'5'}::int as v`)
  await sql.unsafe('deallocate all')
  await attempt('after deallocate all', () => sql`select ${'5'}::int as v`)
  await sql`drop table shape`
}

async function checkSession() {
  section('session')
  for (const prepare of [false, true]) {
    const sql = connect()
    const on = await sql.reserve()
    for (const text of cases('session.sql')) {
      await attempt(text, async () => all(await on.unsafe(text, [], { prepare })))
    }
    say(on.parameters ?? sql.parameters)
    on.release()
    await sql.end()
  }
  const sql = connect({ connection: { search_path: 'other', application_name: 'of its own' } })
  say(await sql`select * from people`, await sql`show application_name`)
  await sql.unsafe('set search_path = public; reset all')
  say(await sql`show search_path`)
  await sql.end()
}

async function checkCursors(sql) {
  section('cursors')
  let sum = 0
  let parts = 0
  await sql`select generate_series(1, 5000) as i`.cursor(70, (rows) => {
    parts += 1
    for (const { i } of rows) sum += i
  })
  say(sum, parts)
  const seen = []
  for await (const [row] of sql`select generate_series(1, 1000) as i`.cursor()) {
    seen.push(row.i)
    if (row.i === 5) break
  }
  say(seen)
  await attempt('failing', () =>
    sql`select 10 / (5 - i) as v from generate_series(1, 10) i`.cursor(2, (rows) => say(rows)))
  await sql`select generate_series(1, 10) as i`.forEach((row) => seen.push(row.i))
  say(seen, await sql`select 'still here' as v`)
}

async function checkCopy(sql) {
  section('copy')
  await sql`create table copied (id int, name text)`
  const lines = Array.from({ length: 5000 }, (_, n) => `${n}\tn${n}\n`)
  await pipeline(Readable.from(lines), await sql`copy copied from stdin`.writable())
  say(await sql`select count(*), sum(id) from copied`)
  const blocks = []
  // No more than the stream takes at once: this driver sometimes forgets one that had to wait.
  const out = await sql`copy (select * from copied order by id limit 100) to stdout`.readable()
  for await (const block of out) blocks.push(block)
  say(digest(Buffer.concat(blocks)), await sql`select count(*) from copied`)
  await sql`drop table copied`
}

async function checkErrors(sql) {
  section('errors')
  for (const text of cases('errors.sql')) {
    await attempt(text, () => sql.unsafe(text))
    await attempt(`prepared: ${text}`, () => sql.unsafe(text, [], { prepare: true }))
  }
  await attempt('several', () => sql.unsafe('select 1 as a; select 2 as b; select 1 / 0'))
  say(await sql.unsafe('select 1 as a; select 2 as b'), await sql`select 'still here' as v`)
}

async function checkNotices(sql) {
  section('notices')
  notices.length = 0
  say(await sql`select chat(${'you'})`)
  await sql`drop table if exists never_there`
  for (const n of notices) say(n.severity, n.code, n.message, n.hint ?? null, n.where ?? null)
}

async function checkNotify(sender) {
  section('notifications')
  const listener = connect({ max: 2 })
  const heard = []
  const said = async () => {
    for (let n = 0; !heard.length && n < 1000; n++) await sleep(10)
    say(heard.splice(0))
  }
  const { unlisten } = await listener.listen('news', (payload) => heard.push(['news', payload]))
  await listener.listen('Other News', (payload) => heard.push(['Other News', payload]))
  await sender.notify('news', 'one')
  await said()
  await sender.notify('Other News', 'two é')
  await said()
  await sender.begin((sql) => sql`select pg_notify('news', 'three')`)
  await said()
  await unlisten()
  await sender.notify('news', 'unheard')
  await sender.notify('Other News', 'heard')
  await said()
  await listener.end()
}

async function checkCancel(sql) {
  section('cancel')
  const asked = sql`select pg_sleep(30)`.execute()
  await sleep(300)
  asked.cancel()
  await attempt('cancelled', () => asked)
  await attempt('in a transaction', () => sql.begin(async (sql) => {
    const asked = sql`select pg_sleep(30)`.execute()
    await sleep(300)
    asked.cancel()
    await attempt('cancelled', () => asked)
    return sql`select 1`
  }))
  // The driver asks twice, and PostgreSQL may act on the second one a moment later.
  await sleep(200)
  await sql`set statement_timeout = '200ms'`
  await attempt('timed out', () => sql`select pg_sleep(30)`)
  await sql`reset statement_timeout`
  say(await sql`select 'still here' as v`)
}

async function checkBig(sql) {
  section('big values')
  for (const size of [1 << 20, 20 << 20]) {
    const text = '0123456789abcdef'.repeat(size / 16)
    say(await sql`select length(${text}::text), md5(${text}::text)`)
    const [{ b }] = await sql`select ${Buffer.alloc(size, 'rustydb')}::bytea as b`
    say(digest(b))
  }
}

async function oneOfMany(sql, number) {
  // Must see what it set itself and nothing of the others.
  const seen = []
  const on = await sql.reserve()
  await on.unsafe(`set time zone '${zoneOf(number)}'; set my.number = ${number}`)
  await on.unsafe(`set search_path = ${number % 2 ? 'other' : 'public'}`)
  await on.unsafe(`prepare mine as select ${number} as mine`)
  const temporary = number % 8 === 0
  if (temporary) await on.unsafe(`create temporary table mine as select ${number} as n`)
  for (let turn = 0; turn < 5; turn++) {
    await on`begin`
    seen.push(await on`show timezone`, await on`show my.number`)
    seen.push(await on`select name from people order by id limit 1`)
    await on`commit`
    seen.push(await on.unsafe('execute mine'), await on`select ${number}::int + ${turn} as sum`)
    seen.push(await on`select to_regclass('mine') is null as none`)
    if (temporary) seen.push(await on`select * from mine`)
    await on`select 1 / 0`.catch((error) => seen.push(error.code))
  }
  await on.unsafe('deallocate mine; drop table if exists mine; reset all')
  on.release()
  return seen
}

async function checkMany() {
  section('many clients')
  const sql = connect({ max: CLIENTS })
  const clients = Array.from({ length: CLIENTS }, (_, number) => oneOfMany(sql, number))
  for (const [number, seen] of (await Promise.all(clients)).entries()) say(number, seen)
  await sql.end()
}

async function checkReconnect(other) {
  section('reconnect')
  const sql = connect()
  const on = await sql.reserve()
  const [{ pid }] = await on`select pg_backend_pid() as pid`
  const asked = attempt('terminated', () => on`select pg_sleep(30)`)
  await sleep(300)
  await other`select pg_terminate_backend(${pid})`
  await asked
  await sql.end({ timeout: 1 })
  const again = connect()
  await attempt('by itself', () => again`select pg_terminate_backend(pg_backend_pid())`)
  await attempt('after that', () => again`select 'reconnected' as v`)
  await attempt('and that', () => again`select 'reconnected' as v`)
  say(await other`select 'the other one too' as v`)
  await again.end()
  const nowhere = connect({ database: 'nosuch' })
  await attempt('no such database', () => nowhere`select 1`)
  await nowhere.end()
}

async function main() {
  const sql = connect()
  for (const text of cases('schema.sql')) await sql.unsafe(text)
  await checkValues(sql)
  await checkTransactions(sql)
  await checkPrepared(sql)
  await sql.end()
  await checkSession()
  const next = connect()
  await checkCursors(next)
  await checkCopy(next)
  await checkErrors(next)
  await checkNotices(next)
  await checkNotify(next)
  await checkCancel(next)
  await checkBig(next)
  await checkMany()
  await checkReconnect(next)
  await next.end()
  section('end')
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
