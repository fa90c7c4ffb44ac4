// A tour of the JavaScript client. Start the server first (`make run`), then in this folder:
//   (cd ../../clients/javascript && npm ci && npm run build)
//   npm install --no-package-lock
//   RUSTYDB_URL=rustydb://rustydb:PASSWORD@localhost:5432/rustydb node tour.js
// PASSWORD is the administrator's, see the last line of the server's greeting.

import { RustyDBClient } from "@rustydb/client";

const url = process.env.RUSTYDB_URL ?? "rustydb://rustydb@localhost/rustydb";
const client = new RustyDBClient({ url });
await client.connect();

console.log("# a statement with parameters");
const sql = "select $1::int4 + $2::int4 as sum, $3::text[] as words";
console.log((await client.query(sql, [1, 2, ["a", "b"]])).rows);

console.log("# an error, with PostgreSQL's code and the place");
await client.query("select * frm pg_class").catch(({ sqlstate, position, message }) => {
  console.log({ sqlstate, position, message });
});

console.log("# a transaction, and rows in bulk");
await client.transaction(async (txn) => {
  await txn.execute("create temporary table square (n int4, squared int8)");
  const rows = Array.from({ length: 1000 }, (_, n) => [n, n * n]);
  console.log(await txn.bulkInsert("square", ["n", "squared"], rows), "rows");
  console.log((await txn.query("select max(squared) from square")).rows);
  await txn.rollback();
});

console.log("# a million rows one by one, in flat memory");
let sum = 0;
for await (const { n } of client.stream("select n from generate_series(1, 1000000) n")) sum += n;
console.log(sum);

await client.disconnect();
