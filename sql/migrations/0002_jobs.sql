-- Which process runs a job, when it last said so, and whether the job is to end.
ALTER TABLE rustydb.jobs
    ADD COLUMN owner uuid,
    ADD COLUMN seen_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN is_unwanted boolean NOT NULL DEFAULT false;
