-- What the authentication chain must know of a role.
SELECT rolpassword, rolcanlogin, coalesce(rolvaliduntil < now(), false), oid, rolsuper
  FROM pg_catalog.pg_authid
 WHERE rolname = $1
