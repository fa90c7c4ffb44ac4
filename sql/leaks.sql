-- Backends that are idle in a transaction, and since when. Process numbers and seconds are put in.
SELECT pid, extract(epoch FROM state_change)::bigint,
       extract(epoch FROM pg_catalog.now() - state_change)::bigint
  FROM pg_catalog.pg_stat_activity
 WHERE pid = ANY ($1) AND state LIKE 'idle in transaction%'
   AND state_change < pg_catalog.now() - pg_catalog.make_interval(secs => $2)
