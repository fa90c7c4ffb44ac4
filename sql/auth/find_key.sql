-- The key with a hash ($1), if it is good.
SELECT key_id, role_name, role_oid, array_to_json(permissions), array_to_json(addresses),
       rate_limit, floor(extract(epoch FROM expires_at))::bigint
  FROM rustydb.api_keys
 WHERE hash = decode($1, 'hex') AND revoked_at IS NULL
   AND (expires_at IS NULL OR expires_at > now())
