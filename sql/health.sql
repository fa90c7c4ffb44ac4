-- The state of the backend: whether it is a standby, and how many bytes of WAL the slot that is
-- furthest behind keeps back (empty without slots).
SELECT pg_catalog.pg_is_in_recovery(),
       (SELECT pg_catalog.max(pg_catalog.pg_wal_lsn_diff(
                 CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                      ELSE pg_catalog.pg_current_wal_lsn() END, restart_lsn))::int8
          FROM pg_catalog.pg_replication_slots)
