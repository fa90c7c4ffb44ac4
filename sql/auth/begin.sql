-- A log-in with its first refresh token. $1 log-in, $2 role, $3 its number, $4 hash, $5 seconds.
WITH login AS (
    INSERT INTO rustydb.logins (login_id, role_name, role_oid, expires_at)
    VALUES ($1::uuid, $2, $3::oid, now() + make_interval(secs => $5::float8))
    RETURNING login_id, expires_at
)
INSERT INTO rustydb.refresh_tokens (hash, login_id, expires_at)
SELECT decode($4, 'hex'), login_id, expires_at FROM login
