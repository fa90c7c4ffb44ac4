-- A new job ($1) of this kind ($2), of a role ($3), in a process ($4); none when there are $5 that
-- may not be forgotten yet. Finished ones are kept for $6 seconds, the newest of them while there
-- is room.
DELETE FROM rustydb.jobs
 WHERE finished_at < now() - make_interval(secs => $6::double precision);
DELETE FROM rustydb.jobs WHERE job_id IN (
    SELECT job_id FROM rustydb.jobs WHERE finished_at IS NOT NULL ORDER BY finished_at
     LIMIT greatest((SELECT count(*) FROM rustydb.jobs) - $5::bigint + 1, 0));
INSERT INTO rustydb.jobs (job_id, kind, created_by, owner)
SELECT $1, $2, $3, $4 WHERE (SELECT count(*) FROM rustydb.jobs) < $5::bigint
RETURNING job_id
