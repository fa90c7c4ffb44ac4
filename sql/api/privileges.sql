-- What a role may do. $1 its name
SELECT r.rolsuper AS superuser,
       r.rolcreatedb AS create_database,
       r.rolcreaterole AS create_role,
       r.rolbypassrls AS bypass_row_security,
       (SELECT coalesce(pg_catalog.json_agg(m.rolname ORDER BY m.rolname), '[]'::json)
          FROM pg_catalog.pg_roles m
         WHERE m.oid <> r.oid AND pg_catalog.pg_has_role(r.oid, m.oid, 'MEMBER')) AS member_of,
       (SELECT coalesce(pg_catalog.json_agg(p ORDER BY p), '[]'::json)
          FROM pg_catalog.unnest(ARRAY['CONNECT', 'CREATE', 'TEMPORARY']) p
         WHERE pg_catalog.has_database_privilege(r.oid, pg_catalog.current_database(), p))
           AS database_privileges,
       (SELECT coalesce(pg_catalog.json_object_agg(t.name, t.privileges ORDER BY t.name),
                        '{}'::json)
          FROM (SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
                       (SELECT pg_catalog.json_agg(p ORDER BY p)
                          FROM pg_catalog.unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE',
                              'TRUNCATE', 'REFERENCES', 'TRIGGER']) p
                         WHERE pg_catalog.has_table_privilege(r.oid, c.oid, p)) AS privileges
                  FROM pg_catalog.pg_class c
                  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
                   AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
                 ORDER BY n.nspname, c.relname
                 LIMIT 1000) t
         WHERE t.privileges IS NOT NULL) AS tables
  FROM pg_catalog.pg_roles r
 WHERE r.rolname = $1::name
