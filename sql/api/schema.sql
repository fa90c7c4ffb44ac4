-- What schemas contain, one row for each. $1 a name or NULL = all but system schemas
SELECT n.nspname AS name,
       pg_catalog.pg_get_userbyid(n.nspowner)::text AS owner,
       pg_catalog.obj_description(n.oid, 'pg_namespace') AS comment,
       coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                    'name', c.relname,
                    'kind', CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table'
                                           ELSE 'foreign table' END,
                    'comment', pg_catalog.obj_description(c.oid, 'pg_class'),
                    'columns', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
                        'name', a.attname,
                        'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
                        'nullable', NOT a.attnotnull) ORDER BY a.attnum), '[]')
                        FROM pg_catalog.pg_attribute a
                       WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
                 ) ORDER BY c.relname)
            FROM pg_catalog.pg_class c
           WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'f')), '[]') AS tables,
       coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                    'name', c.relname,
                    'kind', CASE c.relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END,
                    'comment', pg_catalog.obj_description(c.oid, 'pg_class'),
                    'columns', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
                        'name', a.attname,
                        'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
                        'nullable', NOT a.attnotnull) ORDER BY a.attnum), '[]')
                        FROM pg_catalog.pg_attribute a
                       WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
                 ) ORDER BY c.relname)
            FROM pg_catalog.pg_class c
           WHERE c.relnamespace = n.oid AND c.relkind IN ('v', 'm')), '[]') AS views,
       coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                    'name', p.proname,
                    'kind', CASE p.prokind WHEN 'f' THEN 'function' WHEN 'p' THEN 'procedure'
                                           WHEN 'a' THEN 'aggregate' ELSE 'window' END,
                    'arguments', pg_catalog.pg_get_function_identity_arguments(p.oid),
                    'returns', pg_catalog.pg_get_function_result(p.oid)
                 ) ORDER BY p.proname, p.oid)
            FROM pg_catalog.pg_proc p WHERE p.pronamespace = n.oid), '[]') AS functions,
       coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                    'name', t.typname,
                    'kind', CASE t.typtype WHEN 'e' THEN 'enum' WHEN 'd' THEN 'domain'
                                           WHEN 'r' THEN 'range' WHEN 'c' THEN 'composite'
                                           ELSE 'base' END,
                    'labels', (SELECT pg_catalog.json_agg(e.enumlabel ORDER BY e.enumsortorder)
                                 FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid)
                 ) ORDER BY t.typname)
            FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
           WHERE t.typnamespace = n.oid AND t.typtype IN ('e', 'd', 'r', 'c', 'b')
             AND t.typcategory <> 'A' AND coalesce(c.relkind = 'c', true)), '[]') AS types
  FROM pg_catalog.pg_namespace n
 WHERE CASE WHEN $1::text IS NULL
            THEN n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
            ELSE n.nspname = $1 END
 ORDER BY n.nspname
