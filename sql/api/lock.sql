-- $1 number of a lock, as sql/api/locks.sql makes it
SELECT l.pid AS pid,
       l.granted AS granted,
       l.locktype::text AS locktype,
       l.mode::text AS mode,
       l.classid::int8 AS classid,
       l.objid::int8 AS objid,
       l.objsubid::int8 AS objsubid
  FROM pg_catalog.pg_locks l
 WHERE $1 = pg_catalog.md5(pg_catalog.concat_ws(':', l.pid, l.locktype, l.database, l.relation,
           l.page, l.tuple, l.virtualxid, l.transactionid, l.classid, l.objid, l.objsubid, l.mode))
   AND (l.pid IS NULL OR l.pid <> pg_catalog.pg_backend_pid())
