SELECT 'namespace', NULL, NULL WHERE pg_catalog.pg_my_temp_schema() <> 0
UNION ALL SELECT 'temp', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema())
    OR EXISTS (SELECT FROM pg_catalog.pg_proc WHERE pronamespace = pg_catalog.pg_my_temp_schema())
    OR EXISTS (SELECT FROM pg_catalog.pg_type WHERE typnamespace = pg_catalog.pg_my_temp_schema())
    OR EXISTS (SELECT FROM pg_catalog.pg_operator WHERE oprnamespace = pg_catalog.pg_my_temp_schema())
UNION ALL SELECT 'hold', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)
UNION ALL SELECT 'advisory', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid())
UNION ALL SELECT 'listen', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_listening_channels())
UNION ALL SELECT 'role', NULL, NULL WHERE pg_catalog.current_setting('role') <> 'none' OR CURRENT_USER <> SESSION_USER OR SESSION_USER <> $user
UNION ALL SELECT CASE WHEN from_sql THEN 'prepared' ELSE 'statement' END, name, CASE WHEN from_sql AND pg_catalog.octet_length(statement) <= 65536 THEN statement END FROM pg_catalog.pg_prepared_statements WHERE name !~ '^rdb_[0-9]+$' AND name <> ''
UNION ALL SELECT 'setting', name, CASE WHEN pg_catalog.octet_length(setting) <= 65536 THEN setting END FROM pg_catalog.pg_settings WHERE source = 'session' AND name !~ '^transaction_'
