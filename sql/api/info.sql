-- What PostgreSQL is
SELECT pg_catalog.current_setting('server_version') AS version,
       pg_catalog.pg_is_in_recovery() AS in_recovery,
       (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
                   'name', e.name, 'default_version', e.default_version,
                   'installed_version', e.installed_version) ORDER BY e.name), '[]'::json)
          FROM pg_catalog.pg_available_extensions e) AS extensions
