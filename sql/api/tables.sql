-- $1 schema, $2 whether system schemas count, $3 limit, $4 offset
SELECT c.relname AS name,
       n.nspname AS schema,
       CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table'
                      WHEN 'f' THEN 'foreign table' END AS kind,
       CASE WHEN c.reltuples >= 0 THEN c.reltuples::int8 END AS row_estimate,
       pg_catalog.pg_total_relation_size(c.oid) AS size_bytes,
       pg_catalog.pg_get_userbyid(c.relowner)::text AS owner,
       pg_catalog.obj_description(c.oid, 'pg_class') AS comment,
       count(*) OVER () AS total
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'f')
   AND ($1::text IS NULL OR n.nspname = $1)
   AND ($2::bool OR (n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'))
 ORDER BY n.nspname, c.relname
 LIMIT $3::int8 OFFSET $4::int8
