-- The open transactions that PostgreSQL shows the one who asks.
SELECT a.pid AS pid,
       a.usename::text AS "user",
       a.datname::text AS database,
       a.state AS state,
       a.xact_start AS started_at,
       greatest(0, EXTRACT(epoch FROM pg_catalog.clock_timestamp() - a.xact_start) * 1000)::int8
           AS duration_ms,
       a.backend_xid::text::int8 AS xid,
       (SELECT count(*) FROM pg_catalog.pg_locks l WHERE l.pid = a.pid AND l.granted) AS locks_held
  FROM pg_catalog.pg_stat_activity a
 WHERE a.xact_start IS NOT NULL
   AND a.backend_type = 'client backend'
   AND a.pid <> pg_catalog.pg_backend_pid()
