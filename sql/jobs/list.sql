-- Jobs as JSON, newest first: this one ($1), of this role ($2), kind ($3) and state ($4), NULL =
-- any; at most $5 from $6 on. The last column counts all of them. A process that has not been heard
-- of for $7 seconds is gone, and its jobs with it.
UPDATE rustydb.jobs
   SET state = 'failed', finished_at = now(), error = '{
           "code": "SERVICE_UNAVAILABLE", "message": "the server that ran the job has ended",
           "sqlstate": "57P01"}'
 WHERE state IN ('queued', 'running')
   AND seen_at < now() - make_interval(secs => $7::double precision);
SELECT json_build_object(
           'job_id', job_id, 'kind', kind, 'state', state, 'progress', progress,
           'result', result, 'error', error, 'created_by', created_by,
           'created_at', to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
           'started_at', to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
           'finished_at', to_char(finished_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')),
       count(*) OVER ()
  FROM rustydb.jobs
 WHERE ($1::uuid IS NULL OR job_id = $1::uuid) AND ($2::text IS NULL OR created_by = $2)
   AND ($3::text IS NULL OR kind = $3) AND ($4::text IS NULL OR state = $4)
 ORDER BY job_id DESC LIMIT $5::bigint OFFSET $6::bigint
