-- Uses a refresh token ($1, its hash) and puts the next one ($2) in its place, for $3 seconds. Of
-- two who use the same one at once, the second finds it used.
WITH used AS (
    UPDATE rustydb.refresh_tokens t SET used_at = now()
      FROM rustydb.logins l
     WHERE t.hash = decode($1, 'hex') AND t.used_at IS NULL AND t.expires_at > now()
       AND l.login_id = t.login_id AND l.revoked_at IS NULL
    RETURNING t.login_id
), login AS (
    UPDATE rustydb.logins l SET expires_at = now() + make_interval(secs => $3::float8)
      FROM used WHERE l.login_id = used.login_id
    RETURNING l.login_id, l.role_name, l.role_oid, l.expires_at
), next AS (
    INSERT INTO rustydb.refresh_tokens (hash, login_id, expires_at)
    SELECT decode($2, 'hex'), login_id, expires_at FROM login
)
SELECT login_id, role_name, role_oid FROM login
