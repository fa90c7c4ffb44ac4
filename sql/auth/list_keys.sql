-- The keys of a role ($1; NULL = of all), newest first, at most $2.
SELECT key_id, role_name, name, array_to_json(permissions), array_to_json(addresses),
       to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), usage_count,
       rate_limit,
       to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
       to_char(last_used AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
       to_char(revoked_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
  FROM rustydb.api_keys
 WHERE $1::text IS NULL OR role_name = $1
 ORDER BY key_id DESC LIMIT $2::bigint
