-- What PostgreSQL says of its processes, to the one who asks. $1 their numbers
SELECT a.pid AS pid,
       a.query AS sql,
       a.wait_event AS wait_event,
       a.state_change AS changed_at,
       (EXTRACT(epoch FROM pg_catalog.clock_timestamp() - a.state_change) * 1000)::int8 AS rested_ms
  FROM pg_catalog.pg_stat_activity a
 WHERE a.pid = ANY ($1::int4[])
