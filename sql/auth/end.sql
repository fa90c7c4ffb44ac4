-- Ends a log-in ($1). Its access tokens are refused for $2 seconds, when the last has expired.
WITH login AS (
    UPDATE rustydb.logins SET revoked_at = now()
     WHERE login_id = $1::uuid AND revoked_at IS NULL
    RETURNING login_id
)
INSERT INTO rustydb.revoked (id, expires_at)
SELECT login_id::text, now() + make_interval(secs => $2::float8) FROM login
ON CONFLICT (id) DO NOTHING
