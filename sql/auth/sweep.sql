-- Forgets what nobody can use any more, a little at a time. Used refresh tokens stay as long as
-- their log-in, so that a stolen one is recognised.
DELETE FROM rustydb.revoked WHERE id IN (
    SELECT id FROM rustydb.revoked WHERE expires_at < now() LIMIT 10000);
DELETE FROM rustydb.logins WHERE login_id IN (
    SELECT login_id FROM rustydb.logins WHERE expires_at < now() - interval '1 day' LIMIT 10000)
