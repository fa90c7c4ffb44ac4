-- A job ($1) has ended in this state ($2), with a result ($3) or an error ($4).
UPDATE rustydb.jobs
   SET state = $2, result = $3::jsonb, error = $4::jsonb, finished_at = now(),
       progress = CASE WHEN $2 = 'succeeded'
           THEN coalesce(progress, '{"done": null, "total": null, "unit": null}')
                || '{"phase": "done", "percent": 100}'
           ELSE progress END
 WHERE job_id = $1 AND state IN ('queued', 'running')
