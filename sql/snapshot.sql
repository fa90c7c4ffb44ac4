-- What a database defines. Columns: kind, and eight more that depend on it (src/catalog/snapshot.rs).
WITH own AS (
    SELECT oid, nspname FROM pg_catalog.pg_namespace
    WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND nspname !~ '^pg_(toast|temp)'
), relation AS (
    SELECT c.oid, c.relname, c.relnamespace, c.relkind, c.reltype, c.relispartition
    FROM pg_catalog.pg_class c
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relnamespace IN (SELECT oid FROM own)
)
SELECT 'schema', n.nspname::text, d.description, NULL, NULL, NULL, NULL, NULL, NULL
FROM own n LEFT JOIN pg_catalog.pg_description d
    ON d.objoid = n.oid AND d.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.objsubid = 0
UNION ALL
SELECT 'table', c.oid::text, n.nspname::text, c.relname::text, c.relkind::text, c.reltype::text,
    i.inhparent::text, d.description, NULL
FROM relation c JOIN own n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_inherits i ON c.relispartition AND i.inhrelid = c.oid
LEFT JOIN pg_catalog.pg_description d
    ON d.objoid = c.oid AND d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objsubid = 0
UNION ALL
SELECT 'column', a.attrelid::text, a.attnum::text, a.attname::text, a.atttypid::text, a.atttypmod::text,
    CASE WHEN a.attnotnull THEN 'n' ELSE '' END || a.attidentity::text || a.attgenerated::text,
    CASE WHEN a.atthasdef THEN pg_catalog.pg_get_expr(f.adbin, f.adrelid)
        ELSE pg_catalog.pg_get_expr(t.typdefaultbin, 0) END, d.description
FROM pg_catalog.pg_attribute a JOIN relation c ON c.oid = a.attrelid
LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid AND t.typtype = 'd'
LEFT JOIN pg_catalog.pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
LEFT JOIN pg_catalog.pg_description d
    ON d.objoid = a.attrelid AND d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objsubid = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT 'key', k.conrelid::text, k.contype::text, k.conkey::text, NULL, NULL, NULL, NULL, NULL
FROM pg_catalog.pg_constraint k JOIN relation c ON c.oid = k.conrelid
WHERE k.contype IN ('p', 'u')
UNION ALL
-- Those that PostgreSQL made for partitions say nothing new.
SELECT 'reference', k.conname::text, k.conrelid::text, k.conkey::text, k.confrelid::text, k.confkey::text,
    NULL, NULL, NULL
FROM pg_catalog.pg_constraint k JOIN relation c ON c.oid = k.conrelid
WHERE k.contype = 'f' AND k.conparentid = 0
UNION ALL
-- Where the columns of views come from is written in their rules only.
SELECT 'view', c.oid::text, r.ev_action::text, NULL, NULL, NULL, NULL, NULL, NULL
FROM relation c JOIN pg_catalog.pg_rewrite r ON r.ev_class = c.oid AND r.ev_type = '1'
WHERE c.relkind IN ('v', 'm') AND pg_catalog.octet_length(r.ev_action::text) < 1000000
UNION ALL
SELECT 'function', p.oid::text, n.nspname::text, p.proname::text,
    p.prokind::text || p.provolatile::text || CASE WHEN p.proretset THEN 's' ELSE '-' END
        || CASE WHEN p.provariadic <> 0 THEN 'v' ELSE '-' END
        || CASE WHEN p.prosrc ~ 'response[.](headers|status)' THEN 'r' ELSE '-' END,
    p.prorettype::text || ' ' || p.pronargdefaults::text,
    coalesce(p.proallargtypes::text, p.proargtypes::text),
    pg_catalog.json_build_array(p.proargnames, p.proargmodes, ARRAY(
        SELECT entry FROM pg_catalog.unnest(p.proconfig) entry WHERE entry ~
        '^(statement_timeout|default_transaction_isolation|plan_filter[.]statement_cost_limit)='
    ))::text, d.description
FROM pg_catalog.pg_proc p JOIN own n ON n.oid = p.pronamespace
LEFT JOIN pg_catalog.pg_description d
    ON d.objoid = p.oid AND d.classoid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objsubid = 0
WHERE p.prokind IN ('f', 'p') AND p.prorettype NOT IN (2279, 3838)
UNION ALL
-- Rows of tables are found by their tables; arrays of them are of no use to anybody.
SELECT 'type', t.oid::text, n.nspname::text, t.typname::text,
    CASE WHEN t.typcategory = 'A' AND t.typelem <> 0 THEN 'a' ELSE t.typtype::text END,
    CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.typelem END::text, t.typarray::text, NULL, NULL
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
LEFT JOIN pg_catalog.pg_class c ON c.oid = coalesce(nullif(e.typrelid, 0), nullif(t.typrelid, 0))
WHERE (n.oid IN (SELECT oid FROM own) OR n.nspname = 'pg_catalog') AND (c.oid IS NULL OR c.relkind = 'c')
UNION ALL
SELECT 'field', t.oid::text, a.attnum::text, a.attname::text, a.atttypid::text, NULL, NULL, NULL, NULL
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_type t ON t.oid = c.reltype
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind = 'c' AND c.relnamespace IN (SELECT oid FROM own)
UNION ALL
SELECT 'label', l.enumtypid::text, l.enumsortorder::text, l.enumlabel::text, NULL, NULL, NULL, NULL, NULL
FROM pg_catalog.pg_enum l
UNION ALL
-- Of roles that others log in for; with those who may set what not everybody may.
SELECT 'setting', r.rolname::text, x.name, x.value, CASE WHEN x.of_database THEN 't' ELSE 'f' END,
    CASE WHEN g.context = 'superuser' THEN (
        SELECT coalesce(pg_catalog.json_agg(l.rolname), '[]')::text FROM pg_catalog.pg_roles l
        WHERE l.rolcanlogin AND (l.rolsuper OR may_set(l.oid, x.name))) END, NULL, NULL, NULL
FROM (
    SELECT s.setrole, s.setdatabase <> 0 AS of_database, pg_catalog.split_part(e.entry, '=', 1) AS name,
        pg_catalog.substr(e.entry, pg_catalog.strpos(e.entry, '=') + 1) AS value
    FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) AS e(entry)
    WHERE s.setdatabase IN (0,
        (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))
) x JOIN pg_catalog.pg_roles r ON r.oid = x.setrole AND NOT r.rolcanlogin
LEFT JOIN pg_catalog.pg_settings g ON g.name = x.name
WHERE g.context IS NULL OR g.context IN ('user', 'superuser')
