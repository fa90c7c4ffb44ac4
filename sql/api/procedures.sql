-- $1 schema, $2 limit, $3 offset
SELECT p.proname AS name,
       n.nspname AS schema,
       CASE p.prokind WHEN 'f' THEN 'function' WHEN 'p' THEN 'procedure'
                      WHEN 'a' THEN 'aggregate' ELSE 'window' END AS kind,
       l.lanname AS language,
       pg_catalog.pg_get_function_arguments(p.oid) AS arguments,
       pg_catalog.pg_get_function_result(p.oid) AS returns,
       CASE p.provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable'
                          ELSE 'volatile' END AS volatility,
       p.prosecdef AS security_definer,
       pg_catalog.pg_get_userbyid(p.proowner)::text AS owner,
       pg_catalog.obj_description(p.oid, 'pg_proc') AS comment,
       count(*) OVER () AS total
  FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
 WHERE ($1::text IS NULL OR n.nspname = $1)
   AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
 ORDER BY n.nspname, p.proname, p.oid
 LIMIT $2::int8 OFFSET $3::int8
