-- The process of a job ($1) is alive; how far the job is, by what PostgreSQL says of the sessions
-- with its name ($2). Tells whether it is to end.
UPDATE rustydb.jobs SET seen_at = now(), progress = coalesce((
    SELECT jsonb_build_object('phase', p.phase, 'done', p.done, 'total', p.total, 'unit', p.unit,
               'percent', round(100.0 * least(p.done, p.total) / nullif(p.total, 0), 1))
      FROM (SELECT pid, phase, blocks_done AS done, blocks_total AS total, 'blocks' AS unit
              FROM pg_catalog.pg_stat_progress_create_index
            UNION ALL
            SELECT pid, phase, heap_blks_scanned, heap_blks_total, 'blocks'
              FROM pg_catalog.pg_stat_progress_vacuum
            UNION ALL
            SELECT pid, phase, sample_blks_scanned, sample_blks_total, 'blocks'
              FROM pg_catalog.pg_stat_progress_analyze
            UNION ALL
            SELECT pid, phase, heap_blks_scanned, heap_blks_total, 'blocks'
              FROM pg_catalog.pg_stat_progress_cluster
            UNION ALL
            SELECT pid, phase, backup_streamed, backup_total, 'bytes'
              FROM pg_catalog.pg_stat_progress_basebackup) p
      JOIN pg_catalog.pg_stat_activity a USING (pid)
     WHERE a.application_name = $2 LIMIT 1), progress)
 WHERE job_id = $1 AND state IN ('queued', 'running')
RETURNING is_unwanted
