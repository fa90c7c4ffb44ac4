// pg (node-postgres): a program that uses what the driver has, and tells what it saw.
'use strict'

const { Readable, Writable } = require('stream')
const { pipeline } = require('stream/promises')
const pg = require('pg')
const Cursor = require('pg-cursor')
const QueryStream = require('pg-query-stream')
const copy = require('pg-copy-streams')
const { CLIENTS, attempt, cases, describe, digest, say, section, sleep, values, where, zoneOf } =
  require('./common.js')

async function connect(options = {}) {
  const client = new pg.Client({ ...where, ...options })
  client.on('error', () => {})
  await client.connect()
  return client
}

async function rows(client, sql, parameters) {
  const query = { text: sql, values: parameters, rowMode: 'array' }
  const results = await client.query(query)
  return [].concat(results).map((result) => [result.command, result.rowCount, result.rows])
}

// The types whose binary form the driver reads quickly and right.
const IN_BINARY = /^(bool|int[248]|float[48]|text|bytea|timestamptz?)$/

async function checkValues(client) {
  section('values')
  for (const [kind, literal] of values()) {
    const quoted = literal.replaceAll("'", "''")
    await attempt(`${kind} ${literal}`, async () => {
      const text = await client.query(`select '${quoted}'::${kind} as v`)
      const value = text.rows[0].v
      const back = await client.query(`select ($1::${kind})::text as v`, [literal])
      return [value, String(value), back.rows[0].v, text.fields[0].dataTypeID < 16384]
    })
    if (IN_BINARY.test(kind)) await attempt('in binary', async () => {
      const query = { text: `select $1::${kind} as v`, values: [literal], binary: true }
      return String((await client.query(query)).rows[0].v)
    })
  }
  const sent = [null, true, -7, 1.5, 2n ** 62n, 'é', Buffer.from([0, 255]), [1, null], ['a', null],
    { a: [1, null] }, new Date(Date.UTC(2024, 2, 31, 1, 30))]
  for (const value of sent) await attempt('sent', () => rows(client, 'select $1', [value]))
  const parallel = Array.from({ length: 50 }, (_, n) => rows(client, 'select $1::int * 2', [n]))
  say(await Promise.all(parallel))
}

async function checkTransactions(client) {
  section('transactions')
  const count = 'select count(*) from people'
  await client.query('begin')
  await client.query("insert into people values (10, 'Edsger', 72, null)")
  say(await rows(client, count))
  await client.query('rollback')
  say(await rows(client, count))
  await client.query('begin isolation level serializable')
  say(await rows(client, 'show transaction_isolation'))
  await client.query("insert into people values (11, 'Barbara', 80, 1)")
  await client.query('savepoint s')
  await attempt('twice', () => client.query("insert into people values (11, 'B', 80, 1)"))
  await attempt('aborted', () => client.query(count))
  await client.query('rollback to savepoint s')
  say(await rows(client, count))
  await client.query('commit')
  say(await rows(client, 'delete from people where id = 11 returning *'))
  await attempt('several', () => rows(client, "select 1; begin; select 2; commit; select 'x'"))
  await attempt('several, one bad', () => rows(client, 'select 1; select 1 / 0; select 2'))
  await client.query('begin read only')
  await attempt('read only', () => client.query('delete from people'))
  await client.query('commit')
}

async function checkPrepared(client) {
  section('prepared statements')
  const named = (n, ...values) => client.query({
    name: `statement ${n}`,
    text: `select ${n} + $1::int as a, name from people where id = $2`,
    values,
  })
  for (let turn = 0; turn < 4; turn++) {
    for (let n = 0; n < 150; n++) {
      await client.query('begin')
      const result = await named(n, turn, 1 + (n % 2))
      await client.query('commit')
      say(turn, result.rows)
    }
  }
  await client.query('create table shape (a int); insert into shape values (1)')
  const shape = () => client.query({ name: 'shape', text: 'select * from shape' })
  say((await shape()).rows)
  await client.query("alter table shape add b text default 'new'")
  await attempt('a changed table', async () => (await shape()).rows)
  const wrong = { name: 'v', text: 'select $1::int', values: ['x'] }
  await attempt('a wrong value', () => client.query(wrong))
  await attempt('a wrong text', () => client.query({ name: 'v', text: 'select 2', values: [] }))
  await attempt('then', () => rows(client, 'select $1::int', ['5']))
  await client.query('deallocate all')
  await attempt('after deallocate all', () => named(1, 1, 1))
  await client.query('drop table shape')
}

async function checkSession() {
  section('session')
  for (const extended of [false, true]) {
    const client = await connect()
    const told = {}
    client.connection.on('parameterStatus', (message) => {
      told[message.parameterName] = message.parameterValue
    })
    for (const sql of cases('session.sql')) {
      await attempt(sql, () =>
        client.query({ text: sql, rowMode: 'array', queryMode: extended ? 'extended' : undefined })
          .then((result) => [result.command, result.rowCount, result.rows]))
      if (sql.startsWith('set') || sql.startsWith('reset')) say(told)
    }
    await client.end()
  }
  const options = {
    options: '-c search_path=other', application_name: 'of its own', statement_timeout: 90000,
  }
  const client = await connect(options)
  say(await rows(client, 'select * from people'), await rows(client, 'show application_name'))
  await client.query('set search_path = public; reset all')
  say(await rows(client, 'show search_path'), await rows(client, 'show statement_timeout'))
  await client.end()
}

async function checkCursors(client) {
  section('cursors')
  await client.query('begin')
  const lines = "select i, repeat('x', i) as x from generate_series(1, $1::int) i"
  const cursor = client.query(new Cursor(lines, [30]))
  say(await cursor.read(3), await cursor.read(5))
  const rest = await cursor.read(100)
  say(rest.length, await cursor.read(1))
  await cursor.close()
  const early = client.query(new Cursor('select generate_series(1, 1000)'))
  say(await early.read(2))
  await early.close()
  await client.query('commit')
  let sum = 0
  const numbers = 'select generate_series(1, 5000) as i'
  const stream = client.query(new QueryStream(numbers, [], { batchSize: 70 }))
  for await (const row of stream) sum += row.i
  say(sum)
  const outside = client.query(new Cursor('select generate_series(1, 10) as i'))
  say(await outside.read(4), await outside.read(20))
  await outside.close()
  const failing = client.query(new Cursor('select 10 / (5 - i) from generate_series(1, 10) i'))
  await attempt('before the error', () => failing.read(3))
  await attempt('the error', () => failing.read(3))
  await failing.close().catch(() => {})
  say(await rows(client, "select 'still here'"))
}

async function collect(stream) {
  const blocks = []
  await pipeline(stream, new Writable({ write(block, _, done) { blocks.push(block); done() } }))
  return Buffer.concat(blocks)
}

async function checkCopy(client) {
  section('copy')
  await client.query('create table copied (id int, name text)')
  const lines = Array.from({ length: 5000 }, (_, n) => `${n}\tn${n}\n`)
  await pipeline(Readable.from(lines), client.query(copy.from('copy copied from stdin')))
  say(await rows(client, 'select count(*), sum(id), md5(string_agg(name, id::text)) from copied'))
  const out = (sql) => collect(client.query(copy.to(sql)))
  say(digest(await out('copy (select * from copied order by id) to stdout')))
  say((await out("copy (select 1, null, 'é') to stdout csv header")).toString())
  await attempt('malformed', () =>
    pipeline(Readable.from(['x\ty\n']), client.query(copy.from('copy copied from stdin'))))
  await attempt('failing', () => out('copy nowhere to stdout'))
  say(await rows(client, 'select count(*) from copied'))
  await client.query('drop table copied')
}

async function checkErrors(client) {
  section('errors')
  for (const sql of cases('errors.sql')) {
    await attempt(sql, () => rows(client, sql))
    const extended = { text: sql, queryMode: 'extended' }
    await attempt(`extended: ${sql}`, async () => (await client.query(extended)).rows)
  }
  say(await rows(client, "select 'still here'"))
}

async function checkNotices(client) {
  section('notices')
  const hear = (notice) => say('notice', ...describe(notice))
  client.on('notice', hear)
  say(await rows(client, "select chat('you')"))
  await client.query('begin')
  await client.query('drop table if exists never_there')
  await client.query("set local client_min_messages = 'warning'")
  say(await rows(client, 'select chat($1)', ['again']))
  await client.query('commit')
  client.off('notice', hear)
}

async function checkNotify(sender) {
  section('notifications')
  const listener = await connect()
  const heard = []
  listener.on('notification', (message) => heard.push([message.channel, message.payload]))
  const said = async (count) => {
    for (let n = 0; heard.length < count && n < 1000; n++) await sleep(10)
    say(heard.splice(0))
  }
  await listener.query('listen news')
  await listener.query('listen "Other News"')
  await sender.query("notify news, 'one'")
  await said(1)
  await sender.query("select pg_notify('Other News', 'two é')")
  await said(1)
  await sender.query("begin; notify news, 'three'; commit; begin; notify news, 'never'; rollback")
  await said(1)
  await listener.query("notify news, 'to myself'")
  await said(1)
  say(await rows(listener, 'select * from pg_listening_channels()'))
  await listener.query('unlisten news')
  await sender.query('notify news, \'unheard\'; notify "Other News", \'heard\'')
  await said(1)
  await listener.query('unlisten *')
  await listener.end()
}

async function checkCancel(client, other) {
  section('cancel')
  for (const begin of [false, true]) {
    if (begin) await client.query('begin')
    const asked = attempt('cancelled', () => rows(client, 'select pg_sleep(30)'))
    await sleep(300)
    // The driver's own request, which needs a connection of its own.
    const canceller = new pg.Client(where)
    canceller.cancel(client, client._activeQuery ?? client.activeQuery)
    await asked
    if (begin) await attempt('aborted', () => rows(client, 'select 1'))
    if (begin) await client.query('rollback')
    say(await rows(client, "select 'still here'"))
  }
  const asked = attempt('by its number', () => rows(client, 'select pg_sleep(30)'))
  await sleep(300)
  const running = `select pg_cancel_backend(pid) from pg_stat_activity
    where datname = current_database() and query = 'select pg_sleep(30)' and state = 'active'`
  const found = (await other.query(running)).rows.length
  await asked
  say(found)
  await client.query("set statement_timeout = '200ms'")
  await attempt('timed out', () => rows(client, 'select pg_sleep(30)'))
  await client.query('reset statement_timeout')
  say(await rows(client, "select 'still here'"))
}

async function checkBig(client) {
  section('big values')
  for (const size of [1 << 20, 20 << 20]) {
    const text = '0123456789abcdef'.repeat(size / 16)
    const data = Buffer.alloc(size, 'rustydb')
    say(await rows(client, 'select length($1::text), md5($1::text)', [text]))
    say(digest((await client.query('select $1::bytea as b', [data])).rows[0].b))
    say(digest((await client.query(`select repeat('é', ${size / 2}) as t`)).rows[0].t))
  }
  const many = await client.query('select i, md5(i::text) as m from generate_series(1, 50000) i')
  say(digest(many.rows.map((row) => row.m).join('')))
}

async function oneOfMany(pool, number) {
  // Must see what it set itself and nothing of the others.
  const seen = []
  const client = await pool.connect()
  const value = async (sql, parameters, name) => {
    const query = { text: sql, values: parameters, name, rowMode: 'array' }
    seen.push((await client.query(query)).rows)
  }
  await client.query(`set time zone '${zoneOf(number)}'; set my.number = ${number}`)
  await client.query(`set search_path = ${number % 2 ? 'other' : 'public'}`)
  await client.query(`prepare mine as select ${number}`)
  const temporary = number % 8 === 0
  if (temporary) await client.query(`create temporary table mine as select ${number} as n`)
  for (let turn = 0; turn < 5; turn++) {
    await client.query('begin')
    await value('show timezone')
    await value('show my.number')
    await value('select name from people order by id limit 1')
    await client.query('commit')
    await value('execute mine')
    await value(`select ${number} + $1::int`, [turn], 'the same name for all')
    await value("select to_regclass('mine') is null")
    if (temporary) await value('select * from mine')
    await client.query('select 1 / 0').catch((error) => seen.push(error.code))
    await value("select name from pg_prepared_statements where name = 'mine'")
  }
  client.release(true)
  return seen
}

async function checkMany() {
  section('many clients')
  const pool = new pg.Pool({ ...where, max: CLIENTS })
  const clients = Array.from({ length: CLIENTS }, (_, number) => oneOfMany(pool, number))
  for (const [number, seen] of (await Promise.all(clients)).entries()) say(number, seen)
  await pool.end()
}

async function checkReconnect(other) {
  section('reconnect')
  for (const busy of [true, false]) {
    const client = await connect()
    await client.query('begin')
    const pid = (await client.query('select pg_backend_pid() as pid')).rows[0].pid
    const asked = busy ? attempt('terminated', () => rows(client, 'select pg_sleep(30)')) : null
    await sleep(busy ? 300 : 0)
    const ended = new Promise((resolve) => client.on('end', resolve))
    await other.query('select pg_terminate_backend($1)', [pid])
    await asked
    await ended
    await attempt('closed', () => rows(client, 'select 1'))
    const again = await connect()
    say(await rows(again, "select 'a new one works'"))
    await again.end()
  }
  const client = await connect()
  await attempt('by itself', () => rows(client, 'select pg_terminate_backend(pg_backend_pid())'))
  say(await rows(other, "select 'the other one too'"))
  await attempt('no such database', () => connect({ database: 'nosuch' }))
}

async function main() {
  const [client, other] = [await connect(), await connect()]
  for (const sql of cases('schema.sql')) await client.query(sql)
  await checkValues(client)
  await checkTransactions(client)
  await checkPrepared(client)
  await client.end()
  const next = await connect()
  await checkSession()
  await checkCursors(next)
  await checkCopy(next)
  await checkErrors(next)
  await checkNotices(next)
  await checkNotify(next)
  await checkCancel(next, other)
  await checkBig(next)
  await checkMany()
  await checkReconnect(other)
  await next.end()
  await other.end()
  section('end')
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
