-- Adds uses, {"key id": count, …} ($1), to the keys.
UPDATE rustydb.api_keys k
   SET usage_count = k.usage_count + u.value::bigint, last_used = now()
  FROM json_each_text($1::json) u
 WHERE k.key_id = u.key::uuid
