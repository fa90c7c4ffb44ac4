-- $1 schema, $2 table or NULL, $3 limit, $4 offset
SELECT i.relname AS name,
       n.nspname AS schema,
       t.relname AS table,
       m.amname AS method,
       x.indisunique AS unique,
       x.indisprimary AS primary,
       x.indisvalid AS valid,
       pg_catalog.pg_relation_size(i.oid) AS size_bytes,
       coalesce(s.idx_scan, 0) AS scans,
       pg_catalog.pg_get_indexdef(i.oid) AS definition,
       count(*) OVER () AS total
  FROM pg_catalog.pg_index x
  JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
  JOIN pg_catalog.pg_class t ON t.oid = x.indrelid
  JOIN pg_catalog.pg_am m ON m.oid = i.relam
  JOIN pg_catalog.pg_namespace n ON n.oid = i.relnamespace
  LEFT JOIN pg_catalog.pg_stat_all_indexes s ON s.indexrelid = i.oid
 WHERE ($1::text IS NULL OR n.nspname = $1) AND ($2::text IS NULL OR t.relname = $2)
   AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
 ORDER BY n.nspname, i.relname
 LIMIT $3::int8 OFFSET $4::int8
