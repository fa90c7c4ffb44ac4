-- Who waits for whom, one row for each pair
SELECT a.pid AS waiting,
       b.pid AS holding,
       a.usename::text AS waiting_user,
       b.usename::text AS holding_user,
       a.query AS waiting_query,
       b.query AS holding_query
  FROM pg_catalog.pg_stat_activity a
 CROSS JOIN LATERAL unnest(pg_catalog.pg_blocking_pids(a.pid)) AS blocking(pid)
  JOIN pg_catalog.pg_stat_activity b ON b.pid = blocking.pid
 WHERE a.wait_event_type = 'Lock'
 LIMIT 10000
