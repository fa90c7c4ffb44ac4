-- Roles of PostgreSQL that nobody logs in as, as JSON; this one ($1; NULL = all).
SELECT json_build_object(
           'name', r.rolname, 'superuser', r.rolsuper, 'create_db', r.rolcreatedb,
           'create_role', r.rolcreaterole,
           'member_of', (SELECT coalesce(json_agg(g.rolname ORDER BY g.rolname), '[]')
               FROM pg_catalog.pg_auth_members m
               JOIN pg_catalog.pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid))
  FROM pg_catalog.pg_roles r
 WHERE NOT r.rolcanlogin AND ($1::text IS NULL OR r.rolname = $1)
   AND NOT EXISTS (SELECT FROM rustydb.principals p WHERE p.role_name = r.rolname)
 ORDER BY r.rolname LIMIT 10000
