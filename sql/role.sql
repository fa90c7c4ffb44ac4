-- What the authentication chain must know of a role; its name is put in as a quoted literal.
SELECT rolpassword, rolcanlogin, coalesce(rolvaliduntil < now(), false), oid, rolsuper
  FROM pg_catalog.pg_authid
 WHERE rolname = $1
