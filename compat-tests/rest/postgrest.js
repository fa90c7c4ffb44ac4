// The client of Supabase, unchanged, against /rest/v1: what it gets is what PostgREST would give.
'use strict'

const assert = require('node:assert/strict')
const { PostgrestClient } = require('@supabase/postgrest-js')

const [, , url, writerToken, readerToken] = process.argv
const as = (token) => new PostgrestClient(url, { headers: { apikey: token, authorization: `Bearer ${token}` } })
const db = as(writerToken)
const reader = as(readerToken)

const cases = {
  async filters() {
    const titles = async (query) => {
      const { data, error } = await query
      assert.equal(error, null, JSON.stringify(error))
      return data.map((row) => row.title)
    }
    const films = () => db.from('films').select('title').order('id')
    assert.deepEqual(await titles(films().eq('id', 1)), ['Alien'])
    assert.deepEqual(await titles(films().gt('year', 1980).lte('year', 1982)), ['Blade Runner'])
    assert.deepEqual(await titles(films().neq('id', 1).lt('id', 3)), ['Blade Runner'])
    assert.deepEqual(await titles(films().like('title', 'A%')), ['Alien'])
    assert.deepEqual(await titles(films().ilike('title', '%LYNDON')), ['Barry Lyndon'])
    assert.deepEqual(await titles(films().is('year', null)), ['Barry Lyndon'])
    assert.deepEqual(await titles(films().in('id', [1, 3])), ['Alien', '2001'])
    assert.deepEqual(await titles(films().in('title', ['Alien', 'a,b', '"'])), ['Alien'])
    assert.deepEqual(await titles(films().contains('tags', ['space'])), ['Alien', '2001'])
    assert.deepEqual(await titles(films().overlaps('tags', ['noir', 'x'])), ['Blade Runner'])
    assert.deepEqual(await titles(films().contains('info', { stars: 5 })), ['Alien', 'The Shining'])
    assert.deepEqual(await titles(films().eq('info->>stars', '4')), ['Blade Runner'])
    assert.deepEqual(await titles(films().eq('info->where->>ship', 'Nostromo')), ['Alien'])
    assert.deepEqual(await titles(films().not('year', 'is', null).gte('year', 1980)), ['Blade Runner', 'The Shining'])
    assert.deepEqual(await titles(films().or('id.eq.1,and(year.gt.1960,year.lt.1970)')), ['Alien', '2001'])
    assert.deepEqual(await titles(films().match({ year: 1979, director: 1 })), ['Alien'])
    assert.deepEqual(await titles(films().filter('title', 'in', '("Alien","2001")')), ['Alien', '2001'])
    assert.deepEqual(await titles(films().textSearch('title', 'shining', { config: 'english' })), ['The Shining'])
    assert.deepEqual(await titles(films().limit(2)), ['Alien', 'Blade Runner'])
    assert.deepEqual(await titles(films().range(1, 2)), ['Blade Runner', '2001'])
    assert.deepEqual(await titles(db.from('films').select('title').order('year', { ascending: false, nullsFirst: false }).limit(2)),
      ['Blade Runner', 'The Shining'])
  },

  async embedding() {
    const many = await db.from('directors').select('name, films(title)').eq('id', 1).order('id', { referencedTable: 'films' })
    assert.deepEqual(many.data, [{ name: 'Scott', films: [{ title: 'Alien' }, { title: 'Blade Runner' }] }])
    const one = await db.from('films').select('title, by:directors!inner(name)').eq('by.name', 'Kubrick').order('id').limit(1)
    assert.deepEqual(one.data, [{ title: '2001', by: { name: 'Kubrick' } }])
    const across = await db.from('films').select('title, actors(name), roles(character)').eq('id', 1).single()
    assert.deepEqual(across.data, { title: 'Alien', actors: [{ name: 'Weaver' }], roles: [{ character: 'Ripley' }] })
    const spread = await db.from('films').select('title, ...directors(director_name:name)').eq('id', 3)
    assert.deepEqual(spread.data, [{ title: '2001', director_name: 'Kubrick' }])
    const none = await db.from('directors').select('name, films!inner(id)').eq('id', 3)
    assert.deepEqual(none.data, [])
    const counted = await db.from('directors').select('name, films(count)').order('id').limit(2)
    assert.deepEqual(counted.data, [{ name: 'Scott', films: [{ count: 2 }] }, { name: 'Kubrick', films: [{ count: 3 }] }])
  },

  async counts() {
    const exact = await db.from('films').select('id', { count: 'exact' }).lte('id', 5).order('id').range(0, 1)
    assert.deepEqual([exact.count, exact.status, exact.data], [5, 206, [{ id: 1 }, { id: 2 }]])
    const head = await db.from('films').select('*', { count: 'exact', head: true }).lte('id', 5)
    assert.deepEqual([head.count, head.status, head.data], [5, 200, null])
    const planned = await db.from('films').select('id', { count: 'planned' })
    assert.ok(planned.count > 0)
    const estimated = await db.from('films').select('id', { count: 'estimated' }).lte('id', 5)
    assert.equal(estimated.count, 5)
    const beyond = await db.from('films').select('id', { count: 'exact' }).lte('id', 5).range(50, 60)
    assert.deepEqual([beyond.status, beyond.error.code], [416, 'PGRST103'])
  },

  async single() {
    const single = await db.from('films').select('id').eq('id', 1).single()
    assert.deepEqual(single.data, { id: 1 })
    const none = await db.from('films').select('id').eq('id', 0).single()
    assert.deepEqual([none.status, none.error.code, none.error.details], [406, 'PGRST116', 'The result contains 0 rows'])
    const maybe = await db.from('films').select('id').eq('id', 0).maybeSingle()
    assert.deepEqual([maybe.data, maybe.error], [null, null])
    const several = await db.from('films').select('id').maybeSingle()
    assert.equal(several.error.code, 'PGRST116')
  },

  async changes() {
    const minimal = await db.from('films').insert({ id: 50, title: 'New' })
    assert.deepEqual([minimal.status, minimal.data, minimal.error], [201, null, null])
    const added = await db.from('films').insert([{ title: 'a' }, { title: 'b' }]).select('title, tags')
    assert.deepEqual([added.status, added.data], [201, [{ title: 'a', tags: [] }, { title: 'b', tags: [] }]])
    const uneven = await db.from('films').insert([{ title: 'c', year: 1999 }, { title: 'd' }], { defaultToNull: false, count: 'exact' }).select('year, tags').order('id')
    assert.deepEqual([uneven.count, uneven.data], [2, [{ year: 1999, tags: [] }, { year: null, tags: [] }]])
    const merged = await db.from('films').upsert([{ id: 50, title: 'Newer', year: 2000 }, { id: 51, title: 'e', year: 2001 }]).select('id, title').order('id')
    assert.deepEqual(merged.data, [{ id: 50, title: 'Newer' }, { id: 51, title: 'e' }])
    const ignored = await db.from('films').upsert({ title: 'Newer', year: 1900 }, { onConflict: 'title', ignoreDuplicates: true }).select()
    assert.deepEqual(ignored.data, [])
    const by = await db.from('films').upsert({ title: 'Newer', year: 1900 }, { onConflict: 'title' }).select('id, year').single()
    assert.deepEqual(by.data, { id: 50, year: 1900 })
    const changed = await db.from('films').update({ note: 'x' }, { count: 'exact' }).in('id', [50, 51]).select('id, note').order('id')
    assert.deepEqual([changed.status, changed.count, changed.data.length], [200, 2, 2])
    const quiet = await db.from('films').update({ note: 'y' }).eq('id', 50)
    assert.deepEqual([quiet.status, quiet.data], [204, null])
    const rolled = await db.from('films').delete().eq('id', 50).select().rollback()
    assert.equal(rolled.data.length, 1)
    const most = await db.from('films').delete().gte('id', 50).maxAffected(1)
    assert.equal(most.error.code, 'PGRST124')
    const notOne = await db.from('films').delete().gte('id', 50).select().single()
    assert.equal(notOne.error.code, 'PGRST116')
    const gone = await db.from('films').delete({ count: 'exact' }).gte('id', 50)
    assert.deepEqual([gone.status, gone.count], [204, 6])
    const left = await db.from('films').select('*', { count: 'exact', head: true })
    assert.equal(left.count, 5)
  },

  async functions() {
    const sum = await db.rpc('add_up', { a: 2, b: 3 })
    assert.deepEqual([sum.status, sum.data], [200, 5])
    const byGet = await db.rpc('add_up', { a: 2 }, { get: true })
    assert.equal(byGet.data, 3)
    const rows = await db.rpc('films_of', { name: 'Kubrick' }, { count: 'exact' }).select('id, title').gt('id', 3).order('id').range(0, 0)
    assert.deepEqual([rows.status, rows.count, rows.data], [206, 2, [{ id: 4, title: 'The Shining' }]])
    const one = await db.rpc('films_of', { name: 'Scott' }).select('title').eq('id', 1).single()
    assert.deepEqual(one.data, { title: 'Alien' })
    assert.deepEqual((await db.rpc('numbers', { most: 3 })).data, [1, 2, 3])
    const nothing = await db.rpc('nothing')
    assert.deepEqual([nothing.status, nothing.data, nothing.error], [204, null, null])
    const me = await db.rpc('whoami').setHeader('x-tenant', 'acme').setHeader('prefer', 'timezone=Asia/Kolkata')
    assert.deepEqual(me.data, { user: 'rest_writer', path: 'public', method: 'POST', at: '/rpc/whoami', cookie: null, tenant: 'acme', sub: 'rest_writer', zone: 'Asia/Kolkata' })
    const unknown = await db.rpc('add_up', { x: 1 })
    assert.deepEqual([unknown.status, unknown.error.code], [404, 'PGRST202'])
    const raised = await db.rpc('refuse', { how: 'teapot' })
    assert.deepEqual([raised.status, raised.error], [418, { code: 'PT418', message: 'teapot', details: 'short', hint: 'stout' }])
    const writes = await db.rpc('forget', { which: 1 }, { get: true })
    assert.deepEqual([writes.status, writes.error.code], [405, '25006'])
  },

  async csv() {
    const { data } = await db.from('films').select('id,title').lt('id', 3).order('id').csv()
    assert.deepEqual(data.trim().split(/\r?\n/), ['id,title', '1,Alien', '2,Blade Runner'])
  },

  async errors() {
    const fails = async (query, status, code) => {
      const found = await query
      assert.deepEqual([found.status, found.error?.code, found.data], [status, code, null], JSON.stringify(found))
      for (const field of ['message', 'details', 'hint']) assert.ok(field in found.error)
    }
    await fails(db.from('flims').select(), 404, 'PGRST205')
    await fails(db.from('films').select('nothing'), 400, '42703')
    await fails(db.from('films').select('actors_of(name)'), 400, 'PGRST200')
    await fails(db.from('films').select().filter('id', 'equals', 1), 400, 'PGRST100')
    await fails(db.from('films').select().eq('id', 'x'), 400, '22P02')
    await fails(db.from('films').insert({ title: 'Alien' }), 409, '23505')
    await fails(db.from('films').insert({ title: 'z', director: 99 }), 409, '23503')
    await fails(db.from('films').insert({ title: 'z', year: 1 }), 400, '23514')
    await fails(db.from('films').insert({ title: null }), 400, '23502')
    await fails(db.from('films').insert({ colour: 'red' }), 400, 'PGRST204')
    await fails(reader.from('films').insert({ title: 'z' }), 403, '42501')
    await fails(db.schema('secret').from('films').select(), 406, 'PGRST106')
    await fails(as('no.such.token').from('films').select(), 401, 'PGRST301')
    await fails(db.from('films').select().explain(), 406, 'PGRST107')
  },
}

const main = async () => {
  for (const [name, run] of Object.entries(cases)) {
    try {
      await run()
      console.log(name)
    } catch (error) {
      console.error(name, error)
      process.exitCode = 1
    }
  }
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
