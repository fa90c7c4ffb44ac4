-- Authors, their posts, the comments on these: what the REST cases ask for. The texts are about as
-- long as those of a real site, so that 100 posts with all columns are some 32 kB of JSON.
CREATE SCHEMA app;

CREATE TABLE app.author (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL UNIQUE,
    bio text,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE app.post (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    author_id int NOT NULL REFERENCES app.author,
    title text NOT NULL,
    body text,
    score numeric(12, 4),
    tags text[],
    meta jsonb,
    published boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE app.comment (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    post_id bigint NOT NULL REFERENCES app.post,
    author_id int NOT NULL REFERENCES app.author,
    body text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO app.author (name, email, bio)
SELECT format('Author %s', n), format('a%s@example.org', n), repeat('bio ', 10)
FROM generate_series(1, 1000) AS n;

INSERT INTO app.post (author_id, title, body, score, tags, meta)
SELECT n % 1000 + 1, format('Post title %s', n), repeat('lorem ipsum ', 12), n % 9973 / 7.0,
       ARRAY[format('t%s', n % 10), format('u%s', n % 7)],
       jsonb_build_object('k', n, 'v', format('x%s', n))
FROM generate_series(1, 20000) AS n;

INSERT INTO app.comment (post_id, author_id, body)
SELECT n % 20000 + 1, n * 7 % 1000 + 1, format('comment text %s', n)
FROM generate_series(1, 100000) AS n;

CREATE INDEX ON app.post (author_id);
CREATE INDEX ON app.comment (post_id);
CREATE INDEX ON app.comment (author_id);

CREATE ROLE anon LOGIN;
GRANT USAGE ON SCHEMA app TO anon;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO anon;
GRANT SELECT ON public.typed_out TO anon;
