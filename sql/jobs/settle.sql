-- Jobs of other processes than this one ($1), which have ended with them.
UPDATE rustydb.jobs
   SET state = 'failed', finished_at = now(), error = '{
           "code": "SERVICE_UNAVAILABLE", "message": "the server that ran the job has ended",
           "sqlstate": "57P01"}'
 WHERE state IN ('queued', 'running') AND owner IS DISTINCT FROM $1::uuid
