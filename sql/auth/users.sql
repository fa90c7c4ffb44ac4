-- Users as JSON: roles that may log in, and those that could once; this one ($1; NULL = all), at
-- most $2 from $3 on. The last column counts all of them.
SELECT json_build_object(
           'username', r.rolname, 'email', p.email, 'enabled', r.rolcanlogin,
           'superuser', r.rolsuper, 'connection_limit', nullif(r.rolconnlimit, -1),
           'valid_until', CASE WHEN isfinite(r.rolvaliduntil) THEN
               to_char(r.rolvaliduntil AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') END,
           'roles', (SELECT coalesce(json_agg(n.name ORDER BY n.name), '[]') FROM (
               SELECT g.rolname FROM pg_catalog.pg_auth_members m
                 JOIN pg_catalog.pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid
               UNION SELECT granted FROM rustydb.role_grants WHERE role_name = r.rolname) n (name))),
       count(*) OVER ()
  FROM pg_catalog.pg_roles r LEFT JOIN rustydb.principals p ON p.role_name = r.rolname
 WHERE (r.rolcanlogin OR p.role_name IS NOT NULL) AND ($1::text IS NULL OR r.rolname = $1)
 ORDER BY r.rolname LIMIT $2::bigint OFFSET $3::bigint
