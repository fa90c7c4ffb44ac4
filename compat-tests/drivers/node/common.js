// What the Node programs share: the transcript, the cases, and where the server is.
'use strict'

const fs = require('fs')
const path = require('path')
const crypto = require('crypto')

const { PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE, DRIVER_CLIENTS } = process.env

exports.where = {
  host: PGHOST, port: Number(PGPORT), user: PGUSER, password: PGPASSWORD, database: PGDATABASE,
}
exports.CLIENTS = Number(DRIVER_CLIENTS)

exports.cases = (name) => {
  const text = fs.readFileSync(path.join(__dirname, '..', 'cases', name), 'utf8')
  return text.replace(/\n$/, '').split('\n')
}

exports.values = () => exports.cases('values.txt').map((line) => line.split('\t'))

const plain = (key, value) => {
  if (typeof value === 'bigint') return `${value}n`
  if (typeof value === 'number' && !Number.isFinite(value)) return String(value)
  return value
}

// A line of the transcript; it must not depend on time, process numbers or object numbers.
exports.say = (...what) => {
  const words = what.map((word) => (typeof word === 'string' ? word : JSON.stringify(word, plain)))
  fs.writeSync(1, words.join(' ') + '\n')
}

exports.section = (name) => exports.say(`--- ${name}`)

exports.digest = (value) => {
  const hash = crypto.createHash('md5').update(value).digest('hex')
  return `${Buffer.byteLength(value)} bytes, ${hash}`
}

const FIELDS = [
  'severity', 'code', 'message', 'detail', 'hint', 'position', 'internalPosition', 'internalQuery',
  'internal_position', 'internal_query', 'where', 'schema', 'schema_name', 'table', 'table_name',
  'column', 'column_name', 'dataType', 'type_name', 'constraint', 'constraint_name',
]

// Everything that PostgreSQL said about an error.
exports.describe = (error) => {
  const found = {}
  for (const field of FIELDS) if (error[field] !== undefined) found[field] = error[field]
  // The driver's own errors name the port.
  if (found.message) found.message = found.message.replace(/:\d{4,5}\b/, ':port')
  return [error.constructor.name, found]
}

exports.attempt = async (what, action) => {
  try {
    exports.say(what, '->', await action())
  } catch (error) {
    exports.say(what, '->', ...exports.describe(error))
  }
}

exports.sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds))

exports.zoneOf = (number) => ['UTC', 'Asia/Tokyo', 'Europe/Berlin', 'America/New_York'][number % 4]
