-- $1 a name or NULL, $2 whether system schemas count, $3 limit, $4 offset
SELECT n.nspname AS name,
       pg_catalog.pg_get_userbyid(n.nspowner)::text AS owner,
       pg_catalog.obj_description(n.oid, 'pg_namespace') AS comment,
       (SELECT count(*) FROM pg_catalog.pg_class c
         WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'f')) AS tables,
       (SELECT count(*) FROM pg_catalog.pg_class c
         WHERE c.relnamespace = n.oid AND c.relkind IN ('v', 'm')) AS views,
       (SELECT count(*) FROM pg_catalog.pg_proc p WHERE p.pronamespace = n.oid) AS functions,
       count(*) OVER () AS total
  FROM pg_catalog.pg_namespace n
 WHERE ($1::text IS NULL OR n.nspname = $1)
   AND ($2::bool OR (n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'))
 ORDER BY n.nspname
 LIMIT $3::int8 OFFSET $4::int8
