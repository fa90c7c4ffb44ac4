-- One table with all that belongs to it. $1 schema, $2 name
SELECT c.relname AS name,
       n.nspname AS schema,
       CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table'
                      WHEN 'f' THEN 'foreign table' WHEN 'v' THEN 'view'
                      WHEN 'm' THEN 'materialized view' END AS kind,
       CASE WHEN c.reltuples >= 0 THEN c.reltuples::int8 END AS row_estimate,
       pg_catalog.pg_total_relation_size(c.oid) AS size_bytes,
       pg_catalog.pg_get_userbyid(c.relowner)::text AS owner,
       pg_catalog.obj_description(c.oid, 'pg_class') AS comment,
       c.relrowsecurity AS row_security,
       coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                    'name', a.attname,
                    'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
                    'type_oid', a.atttypid::int8,
                    'nullable', NOT a.attnotnull,
                    'default', CASE WHEN a.attgenerated = ''
                                    THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END,
                    'generated', CASE WHEN a.attgenerated <> ''
                                    THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END,
                    'identity', CASE a.attidentity WHEN 'a' THEN 'always'
                                                   WHEN 'd' THEN 'by default' END,
                    'comment', pg_catalog.col_description(c.oid, a.attnum)) ORDER BY a.attnum)
            FROM pg_catalog.pg_attribute a
            LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
           WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]') AS columns,
       coalesce((SELECT pg_catalog.json_agg(a.attname ORDER BY k.at)
            FROM pg_catalog.pg_constraint o
           CROSS JOIN LATERAL unnest(o.conkey) WITH ORDINALITY k(num, at)
            JOIN pg_catalog.pg_attribute a ON a.attnum = k.num AND a.attrelid = o.conrelid
           WHERE o.conrelid = c.oid AND o.contype = 'p'), '[]') AS primary_key,
       coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                    'name', o.conname,
                    'columns', (SELECT pg_catalog.json_agg(a.attname ORDER BY k.at)
                                  FROM unnest(o.conkey) WITH ORDINALITY k(num, at)
                                  JOIN pg_catalog.pg_attribute a
                                    ON a.attrelid = o.conrelid AND a.attnum = k.num),
                    'references', pg_catalog.json_build_object(
                        'schema', fn.nspname, 'table', f.relname,
                        'columns', (SELECT pg_catalog.json_agg(a.attname ORDER BY k.at)
                                      FROM unnest(o.confkey) WITH ORDINALITY k(num, at)
                                      JOIN pg_catalog.pg_attribute a
                                        ON a.attrelid = o.confrelid AND a.attnum = k.num)),
                    'definition', pg_catalog.pg_get_constraintdef(o.oid)) ORDER BY o.conname)
            FROM pg_catalog.pg_constraint o
            JOIN pg_catalog.pg_class f ON f.oid = o.confrelid
            JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace
           WHERE o.conrelid = c.oid AND o.contype = 'f'), '[]') AS foreign_keys,
       coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                    'name', o.conname,
                    'definition', pg_catalog.pg_get_constraintdef(o.oid)) ORDER BY o.conname)
            FROM pg_catalog.pg_constraint o
           WHERE o.conrelid = c.oid AND o.contype IN ('c', 'u', 'x')), '[]') AS constraints,
       coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                    'name', i.relname, 'unique', x.indisunique, 'primary', x.indisprimary,
                    'valid', x.indisvalid,
                    'definition', pg_catalog.pg_get_indexdef(x.indexrelid)) ORDER BY i.relname)
            FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
           WHERE x.indrelid = c.oid), '[]') AS indexes,
       coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                    'name', t.tgname, 'enabled', t.tgenabled <> 'D',
                    'definition', pg_catalog.pg_get_triggerdef(t.oid)) ORDER BY t.tgname)
            FROM pg_catalog.pg_trigger t
           WHERE t.tgrelid = c.oid AND NOT t.tgisinternal), '[]') AS triggers,
       coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                    'name', p.polname, 'permissive', p.polpermissive,
                    'using', pg_catalog.pg_get_expr(p.polqual, p.polrelid),
                    'check', pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)) ORDER BY p.polname)
            FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid), '[]') AS policies,
       (SELECT pg_catalog.json_build_object(
                    'live_rows', s.n_live_tup, 'dead_rows', s.n_dead_tup,
                    'sequential_scans', s.seq_scan, 'index_scans', s.idx_scan,
                    'inserted', s.n_tup_ins, 'updated', s.n_tup_upd, 'deleted', s.n_tup_del,
                    'last_vacuum', greatest(s.last_vacuum, s.last_autovacuum),
                    'last_analyze', greatest(s.last_analyze, s.last_autoanalyze))
          FROM pg_catalog.pg_stat_all_tables s WHERE s.relid = c.oid) AS statistics
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND n.nspname = $1 AND c.relname = $2
