-- Who may come in with what, beside PostgreSQL's own roles. Nobody but the owner gets a right:
-- a hash of a token is not the token, but who can read these rows can guess much.
REVOKE ALL ON SCHEMA rustydb FROM PUBLIC;

-- Values that all nodes on this database share, such as the key that signs access tokens.
CREATE TABLE rustydb.secrets (
    name text PRIMARY KEY,
    value bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- What PostgreSQL's catalog has no column for.
CREATE TABLE rustydb.principals (
    role_name text PRIMARY KEY,
    email text,
    attributes jsonb NOT NULL DEFAULT '{}',
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE rustydb.roles (
    name text PRIMARY KEY,
    description text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE rustydb.role_permissions (
    role text NOT NULL REFERENCES rustydb.roles ON DELETE CASCADE,
    permission text NOT NULL,
    is_denied boolean NOT NULL DEFAULT false,
    PRIMARY KEY (role, permission, is_denied)
);

-- The role that is inherited from may be built in, which is no row.
CREATE TABLE rustydb.role_inheritance (
    role text NOT NULL REFERENCES rustydb.roles ON DELETE CASCADE,
    inherits_from text NOT NULL,
    PRIMARY KEY (role, inherits_from)
);

CREATE TABLE rustydb.role_grants (
    role_name text NOT NULL,
    granted text NOT NULL,
    PRIMARY KEY (role_name, granted)
);

CREATE TABLE rustydb.api_keys (
    key_id uuid PRIMARY KEY,
    hash bytea NOT NULL UNIQUE,
    role_name text NOT NULL,
    role_oid oid NOT NULL,
    name text NOT NULL,
    permissions text[] NOT NULL DEFAULT '{}',
    addresses text[] NOT NULL DEFAULT '{}',
    rate_limit integer,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    last_used timestamptz,
    usage_count bigint NOT NULL DEFAULT 0,
    revoked_at timestamptz
);
CREATE INDEX ON rustydb.api_keys (role_name);

-- A log-in: the refresh tokens that descend from it, or the session of a browser.
CREATE TABLE rustydb.logins (
    login_id uuid PRIMARY KEY,
    role_name text NOT NULL,
    role_oid oid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz
);
CREATE INDEX ON rustydb.logins (expires_at);

CREATE TABLE rustydb.refresh_tokens (
    hash bytea PRIMARY KEY,
    login_id uuid NOT NULL REFERENCES rustydb.logins ON DELETE CASCADE,
    expires_at timestamptz NOT NULL,
    used_at timestamptz
);
CREATE INDEX ON rustydb.refresh_tokens (login_id);

CREATE TABLE rustydb.session_tokens (
    hash bytea PRIMARY KEY,
    login_id uuid NOT NULL REFERENCES rustydb.logins ON DELETE CASCADE
);
CREATE INDEX ON rustydb.session_tokens (login_id);

-- Tokens, by their number, and log-ins that are of no use any more although they have not expired.
CREATE TABLE rustydb.revoked (
    id text PRIMARY KEY,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON rustydb.revoked (revoked_at);

CREATE TABLE rustydb.jobs (
    job_id uuid PRIMARY KEY,
    kind text NOT NULL,
    state text NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    progress jsonb,
    result jsonb,
    error jsonb,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz
);
CREATE INDEX ON rustydb.jobs (created_at);
