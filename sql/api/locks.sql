-- $1 relation or NULL, $2 granted or NULL, $3 limit, $4 offset
SELECT pg_catalog.md5(pg_catalog.concat_ws(':', l.pid, l.locktype, l.database, l.relation, l.page,
           l.tuple, l.virtualxid, l.transactionid, l.classid, l.objid, l.objsubid, l.mode))
           AS lock_id,
       l.locktype::text AS locktype,
       CASE WHEN l.database = d.oid OR l.database = 0
            THEN l.relation::pg_catalog.regclass::text ELSE l.relation::text END AS relation,
       l.mode::text AS mode,
       l.granted AS granted,
       l.pid AS pid,
       CASE WHEN NOT l.granted THEN
           (EXTRACT(epoch FROM pg_catalog.clock_timestamp() - coalesce(l.waitstart, a.state_change))
               * 1000)::int8 END AS waiting_ms,
       CASE WHEN l.granted THEN '[]'::json
            ELSE pg_catalog.to_json(pg_catalog.pg_blocking_pids(l.pid)) END AS blocked_by,
       count(*) OVER () AS total
  FROM pg_catalog.pg_locks l
  JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()
  LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
 WHERE l.pid <> pg_catalog.pg_backend_pid()
   AND ($1::text IS NULL OR l.relation = pg_catalog.to_regclass($1))
   AND ($2::bool IS NULL OR l.granted = $2)
 ORDER BY l.granted, l.pid, l.locktype, l.relation, l.mode
 LIMIT $3::int8 OFFSET $4::int8
