-- A new API key, unless its role ($3) has $10 already, or there are $11 in all.
INSERT INTO rustydb.api_keys
       (key_id, hash, role_name, role_oid, name, permissions, addresses, rate_limit, expires_at)
SELECT $1::uuid, decode($2, 'hex'), $3, $4::oid, $5,
       ARRAY(SELECT json_array_elements_text($6::json)),
       ARRAY(SELECT json_array_elements_text($7::json)),
       $8::integer, now() + make_interval(secs => $9::float8)
 WHERE (SELECT count(*) FROM rustydb.api_keys
         WHERE role_name = $3 AND revoked_at IS NULL
           AND (expires_at IS NULL OR expires_at > now())) < $10::bigint
   AND (SELECT count(*) FROM rustydb.api_keys) < $11::bigint
RETURNING 1
