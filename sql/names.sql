-- What decides which names of a database have effects on a session: functions with their bodies,
-- and what calls them without being called itself. Columns: kind, number, name, text.
WITH watched AS (
    SELECT pg_catalog.string_agg(oid::text, '|') AS oids FROM pg_catalog.pg_proc
    WHERE pronamespace = 'pg_catalog'::pg_catalog.regnamespace
      AND proname = ANY ('{set_config,setseed,pg_advisory_lock,pg_advisory_lock_shared,pg_try_advisory_lock,pg_try_advisory_lock_shared,nextval,setval,query_to_xml,ts_stat}')
), own AS (
    SELECT oid FROM pg_catalog.pg_namespace
    WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND nspname !~ '^pg_(toast|temp)'
)
SELECT 'function', p.oid::text, p.proname::text,
    CASE WHEN l.lanname NOT IN ('c', 'internal')
        THEN coalesce(p.prosrc, '') || ' ' || coalesce($sqlbody, '')
        WHEN p.provolatile <> 'v' OR p.proname ~ '^(uuid_generate|gen_random|gen_salt)' THEN ''
    END
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE p.pronamespace IN (SELECT oid FROM own)
UNION ALL
SELECT 'relation', c.oid::text, c.relname::text, NULL
FROM pg_catalog.pg_class c
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relnamespace IN (SELECT oid FROM own)
UNION ALL
-- Calls: the relation in the second column, the function in the fourth.
SELECT DISTINCT 'call', (coalesce(t.tgrelid, a.adrelid, k.conrelid, r.ev_class, y.polrelid, i.indrelid))::text,
    NULL, d.refobjid::text
FROM pg_catalog.pg_depend d
LEFT JOIN pg_catalog.pg_trigger t ON d.classid = 'pg_catalog.pg_trigger'::regclass AND t.oid = d.objid
LEFT JOIN pg_catalog.pg_attrdef a ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND a.oid = d.objid
LEFT JOIN pg_catalog.pg_constraint k ON d.classid = 'pg_catalog.pg_constraint'::regclass AND k.oid = d.objid
LEFT JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND r.oid = d.objid
LEFT JOIN pg_catalog.pg_policy y ON d.classid = 'pg_catalog.pg_policy'::regclass AND y.oid = d.objid
LEFT JOIN pg_catalog.pg_index i ON d.classid = 'pg_catalog.pg_class'::regclass AND i.indexrelid = d.objid
WHERE d.refclassid = 'pg_catalog.pg_proc'::regclass AND d.refobjid >= 16384
  AND d.classid <> 'pg_catalog.pg_proc'::regclass
UNION ALL
-- Relations whose rules, defaults or checks call one of PostgreSQL's own functions of this kind.
SELECT 'builtin', r.ev_class::text, NULL, NULL FROM pg_catalog.pg_rewrite r, watched
WHERE r.ev_class >= 16384 AND r.ev_action::text ~ (':funcid (' || watched.oids || ') ')
UNION ALL
SELECT 'builtin', a.adrelid::text, NULL, NULL FROM pg_catalog.pg_attrdef a, watched
WHERE a.adbin::text ~ (':funcid (' || watched.oids || ') ')
  AND a.adbin::text !~ ':funcid 1574 '
UNION ALL
SELECT 'sequence', a.attrelid::text, NULL, NULL FROM pg_catalog.pg_attribute a
WHERE a.attidentity <> '' AND NOT a.attisdropped
UNION ALL
SELECT 'sequence', a.adrelid::text, NULL, NULL FROM pg_catalog.pg_attrdef a
WHERE a.adbin::text ~ ':funcid 1574 '
UNION ALL
-- What is done to the relation in the second column reaches the one in the fourth.
SELECT 'reach', i.inhparent::text, NULL, i.inhrelid::text FROM pg_catalog.pg_inherits i
UNION ALL
SELECT 'reach', k.confrelid::text, NULL, k.conrelid::text FROM pg_catalog.pg_constraint k
WHERE k.contype = 'f'
UNION ALL
SELECT DISTINCT 'reach', r.ev_class::text, NULL, d.refobjid::text
FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass
  AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid <> r.ev_class
