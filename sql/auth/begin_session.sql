-- The session of a browser. $1 log-in, $2 role, $3 its number, $4 hash, $5 seconds.
WITH login AS (
    INSERT INTO rustydb.logins (login_id, role_name, role_oid, expires_at)
    VALUES ($1::uuid, $2, $3::oid, now() + make_interval(secs => $5::float8))
    RETURNING login_id
)
INSERT INTO rustydb.session_tokens (hash, login_id)
SELECT decode($4, 'hex'), login_id FROM login
