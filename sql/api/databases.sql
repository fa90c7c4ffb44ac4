-- $1 limit, $2 offset
SELECT d.datname AS name,
       pg_catalog.pg_get_userbyid(d.datdba)::text AS owner,
       pg_catalog.pg_encoding_to_char(d.encoding)::text AS encoding,
       d.datcollate::text AS collate,
       d.datistemplate AS is_template,
       d.datallowconn AS allows_connections,
       CASE WHEN pg_catalog.has_database_privilege(d.oid, 'CONNECT')
            THEN pg_catalog.pg_database_size(d.oid) END AS size_bytes,
       pg_catalog.shobj_description(d.oid, 'pg_database') AS comment,
       count(*) OVER () AS total
  FROM pg_catalog.pg_database d
 ORDER BY d.datname
 LIMIT $1::int8 OFFSET $2::int8
