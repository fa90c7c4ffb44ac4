-- Extensions that there are, with the version that is installed; $1 = only those, if true. A page.
SELECT a.name, a.default_version, a.installed_version, n.nspname AS schema, a.comment,
       count(*) OVER () AS total
  FROM pg_catalog.pg_available_extensions a
  LEFT JOIN pg_catalog.pg_extension e ON e.extname = a.name
  LEFT JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
 WHERE NOT coalesce($1::boolean, false) OR e.oid IS NOT NULL
 ORDER BY a.name LIMIT $2::bigint OFFSET $3::bigint
